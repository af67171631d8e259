"""Every kind of source and peers that do everything wrong: one clear line, a growing pause, others go on.

A kind that asks is in ASKING, one that listens in LISTENING (a kind may be in both), one that reads files
in neither; a new kind must be put somewhere.
"""

import asyncio
import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.polling import Poller
from collectors.snmp.poll import SnmpPoller
from collectors.sources import SOURCES, Source, SourceSettings, make_source
from runtime.clock import SystemClock
from runtime.component import Context
from tests.contract.test_sources import MAPPING
from tests.support.bad_peers import absent, answering, over_tls, silent
from tests.support.certificates import certificate
from tests.support.snmp_agent import SMALL, Agent, AgentServer
from tocsin.testing import make_context
from tocsin.testing.checks_source import Listener

SECRET = "s3cret-words"
QUICK = {"timeout_seconds": 0.2}
Options = dict[str, Any]

ASKING: dict[str, Callable[[str, Path], Options]] = {
    "netcool": lambda url, folder: {"url": url, "user": "root", **password(folder)},
    "spectrum": lambda url, folder: {"url": url, "user": "noc", **password(folder)},
    "tmf642": lambda url, folder: {"url": url, "user": "noc", **password(folder)},
    "mapped": lambda url, folder: {
        "mapping": str(MAPPING), "rest": {"url": url, "user": "noc", **password(folder), **QUICK},
    },
    "snmp-poll": lambda url, folder: {},  # over UDP: below
}  # fmt: skip
LISTENING: dict[str, Callable[[Options], tuple[Options, str, Any]]] = {
    "ves": lambda listen: (listen, "/eventListener/v7", {"event": {}}),
    "alertmanager": lambda listen: (listen, "/", {"version": "4", "alerts": []}),
    "mapped": lambda listen: ({"mapping": str(MAPPING), "push": listen}, "/", {"alarms": []}),
    "ingest": lambda listen: (
        listen | {"mappings": {"smod": str(MAPPING)}}, "/ingest/smod", {"alarms": []},
    ),
}  # fmt: skip
FILES = {"pm-files"}


def password(folder: Path) -> Options:
    (folder / "password").write_text(SECRET)
    return {"password_file": str(folder / "password")}


def test_every_kind_is_examined() -> None:
    assert {*ASKING, *LISTENING, *FILES} == set(SOURCES.kinds())


def context_of(name: str = "exam") -> Context:
    return make_context(name, clock=SystemClock())  # type: ignore[arg-type]


def started(kind: str, options: Options, folder: Path) -> Source:
    return make_source(
        "exam", SourceSettings(kind=kind, options=options), context_of(), Listener(), folder
    )


@contextlib.contextmanager
def bad_certificate(folder: Path) -> Iterator[int]:
    with over_tls(certificate(folder).server()) as port:
        yield port


FAULTS: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
    "credential": (
        "http", lambda folder: answering(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"),
        ("401", "check user, password_file or token_file"),
    ),
    "certificate": ("https", bad_certificate, ("certificate",)),
    "version": (
        "http", lambda folder: answering(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
        ("404", "check url"),
    ),
    "nonsense": ("http", lambda folder: answering(b"HTTP/1.1 abc\r\n\r\n"), ()),
    "no-http": ("http", lambda folder: answering(b"\0" * 64), ()),
    "absent": ("http", lambda folder: absent(), ("refused",)),
    "silent": ("http", lambda folder: silent(), ("timed out",)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", [kind for kind in ASKING if kind != "snmp-poll"])
def test_a_bad_peer_is_one_line_and_a_growing_pause(
    kind: str, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scheme, peer, words = FAULTS[fault]
    with peer(tmp_path) as port:
        options = ASKING[kind](f"{scheme}://127.0.0.1:{port}", tmp_path)
        source = started(kind, options | ({} if "rest" in options else QUICK), tmp_path / "state")
        (poller,) = [one for one in vars(source).values() if isinstance(one, Poller)]
        pauses = [poller.turn() for _ in range(3)]  # as its thread does
    said = source.health()
    assert f"127.0.0.1:{port}" in said
    assert "\n" not in said
    assert all(word in said.lower() for word in words), said
    lines = [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert [line for line in lines if said in line] == lines, "one line, which health repeats"
    assert len(lines) == 1
    assert "next try in" in lines[0]
    assert SECRET not in caplog.text
    assert pauses[0] < pauses[1] < pauses[2] or pauses[0] >= 60.0
    source.stop()


@pytest.mark.parametrize("fault", ["credential", "absent", "silent", "nonsense"])
def test_a_bad_device_is_one_line_and_a_growing_pause_and_others_are_asked(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Agent(dict(SMALL), silent=fault == "silent", garbage=fault == "nonsense")
    agents = {"127.2.9.1": Agent(dict(SMALL))} | ({} if fault == "absent" else {"127.2.9.2": bad})
    (tmp_path / "password").write_text(SECRET)
    user = {
        "version": "v3",
        "user": "u",
        "auth": "sha",
        "auth_password_file": f"{tmp_path}/password",
    }
    with AgentServer(agents) as server:
        devices = [
            {"address": "127.2.9.1", "port": server.port},
            {"address": "127.2.9.2", "port": server.port,
             "credential": "c" if fault == "credential" else "default"},
        ]  # fmt: skip
        options = {
            "devices": devices,
            "credentials": {"c": user},
            "timeout_seconds": 0.1,
            "tries": 1,
        }
        poller = started("snmp-poll", options, tmp_path)
        assert isinstance(poller, SnmpPoller)
        poller.prepare()
        for _ in range(3):
            for device in poller.devices:
                asyncio.run(poller.poll(device))
    lines = [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert len(lines) == 1, lines
    assert "127.2.9.2" in lines[0]
    assert "next try in" in lines[0]
    assert SECRET not in caplog.text
    good, other = poller.devices
    assert (good.failures, other.failures) == (0, 3)
    assert "1 of 2 devices do not answer, first 127.2.9.2" in poller.health()


def ask(port: int, path: str, document: Any, token: str, trust: str = "") -> int:
    """Return the status of a POST, 0 where the connection did not come about."""
    made: http.client.HTTPConnection
    if trust:
        context = ssl.create_default_context(cafile=trust)
        made = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    else:
        made = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with contextlib.closing(made):
        try:
            made.request("POST", path, json.dumps(document), headers)
            return made.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


@pytest.mark.parametrize("kind", LISTENING)
def test_a_bad_sender_is_one_line_and_others_are_served(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong token, plain text where TLS is due, a certificate that is not trusted, one that is slow."""
    shown = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = certificate(tmp_path / "other")
    (tmp_path / "tokens").write_text(SECRET + "\n")
    listen = {
        "listen": "https://127.0.0.1:0", "certificate_file": str(shown.certificate),
        "key_file": str(shown.key), "token_file": str(tmp_path / "tokens"),
    }  # fmt: skip
    options, path, document = LISTENING[kind](listen)
    source = started(kind, options, tmp_path / "state")
    source.start()
    try:
        port: int = source.port  # type: ignore[attr-defined]
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as slow:
            slow.connect()  # and says nothing
            for _ in range(3):
                assert ask(port, path, document, "wrong", shown.ca) == 401
                assert ask(port, path, document, SECRET) == 0, "plain text where TLS is due"
                assert ask(port, path, document, SECRET, stranger.ca) == 0
            assert ask(port, path, document, SECRET, shown.ca) not in (0, 401)
        lines = [r.getMessage() for r in caplog.records if "http_refused" in r.getMessage()]
        assert sum("why=credentials" in line for line in lines) == 1
        assert sum("why=tls" in line for line in lines) <= 1
        assert SECRET not in caplog.text
    finally:
        source.stop()
