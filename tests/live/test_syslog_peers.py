"""Real senders over loopback: logger and rsyslog, as datagrams, over TCP and over TLS."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.config import ListenerSettings
from collectors.listen.byte_streams import StreamListener
from collectors.listen.udp import UdpListener
from collectors.registry import make_decoder
from runtime.clock import SystemClock
from runtime.component import Context
from tests.support import processes
from tests.support.certificates import certificate
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
CLOCK = SystemClock()


class Receiver:
    """A listener and its decoder, and the lines they gave so far."""

    def __init__(self, scheme: str, **settings: Any) -> None:
        base = make_context()
        self.context = Context("syslog", CLOCK, base.metrics, base.log, base.seed)
        made = ListenerSettings(kind="syslog", listen=f"{scheme}://127.0.0.1:0", **settings)
        self.decoder = make_decoder(made, self.context)
        kind = UdpListener if scheme == "udp" else StreamListener
        self.listener = kind(made, self.context)
        self.listener.start()
        self.port = int(self.listener.address.rpartition(":")[2])
        self.lines: list[dict[str, Any]] = []

    def until(self, done: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Take what comes until enough has come, for half a minute at most."""
        for _ in range(600):
            while (block := self.listener.take()) is not None:
                self.lines += rows_of(self.decoder.decode(block), "log")
            if done(self.lines):
                return self.lines
            CLOCK.sleep(0.05)
        raise AssertionError(f"{len(self.lines)} lines came: {self.lines[:3]}")

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Take what comes until there are so many lines."""
        return self.until(lambda lines: len(lines) >= count)


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    with contextlib.ExitStack() as stack:

        def make(scheme: str, **settings: Any) -> Receiver:
            made = Receiver(scheme, **settings)
            stack.callback(made.listener.stop)
            return made

        yield make


def logger(port: int, *options: str, text: str) -> None:
    subprocess.run(
        ["logger", "-n", "127.0.0.1", "-P", str(port), *options, text], check=True, timeout=20
    )


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
@pytest.mark.parametrize("form", ["--rfc3164", "--rfc5424"])
def test_logger(
    needs: Callable[..., None], receiver: Callable[..., Receiver], scheme: str, form: str
) -> None:
    needs("logger")
    made = receiver(scheme)
    transport = {"udp": ("-d",), "tcp": ("-T", "--octet-count")}[scheme]
    logger(
        made.port, *transport, form, "-p", "local3.warning", "-t", "probe", text="link 7 is down"
    )
    logger(made.port, *transport, form, "-p", "auth.err", "-t", "probe", text="Grüße ’7’")
    first, second = made.wait_for(2)
    assert (first["facility"], first["severity"]) == (19, 4)
    assert (first["app"], first["message"]) == ("probe", "link 7 is down")
    assert (second["facility"], second["severity"], second["message"]) == (4, 3, "Grüße ’7’")
    assert first["host"] == second["host"] != ""
    assert abs(first["time_ns"] - first["arrival_ns"]) < 5_000_000_000
    if form == "--rfc5424":
        assert "timeQuality" in first["structured_data"]


RSYSLOG = """
global(workDirectory="{folder}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{folder}/log" CreatePath="on" RateLimit.Interval="0")
{more}
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="{protocol}" template="{template}"
       {options} action.resumeInterval="1" action.resumeRetryCount="-1")
"""


@contextlib.contextmanager
def rsyslog(folder: Path, port: int, *, protocol: str, **texts: str) -> Iterator[Path]:
    """Run rsyslogd in the foreground; give the socket that it forwards from."""
    path = folder / "rsyslog.conf"
    defaults = {"template": "RSYSLOG_SyslogProtocol23Format", "more": "", "options": ""}
    path.write_text(
        RSYSLOG.format(folder=folder, port=port, protocol=protocol, **{**defaults, **texts})
    )
    process = processes.start(
        ["rsyslogd", "-n", "-f", str(path), "-i", str(folder / "pid")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            if (folder / "log").exists():
                break
            CLOCK.sleep(0.05)
        yield folder / "log"
    finally:
        processes.stop(process)


def say(socket: Path, count: int) -> None:
    """Log so many lines in one go, one of them of several thousand characters."""
    texts = [f"interface xe-0/0/{n} has {n * 17} errors" for n in range(count)]
    texts[count // 2] += " " + "x" * 5_000
    subprocess.run(
        ["logger", "-u", str(socket), "-t", "probe", "-p", "daemon.notice", "--socket-errors=on",
         "--size", "8KiB"],
        input="\n".join(texts), text=True, check=True, timeout=30,
    )  # fmt: skip


FRAMED = 'TCP_Framing="octet-counted"'
LINED = 'TCP_Framing="traditional"'


@pytest.mark.parametrize(
    ("scheme", "texts"),
    [
        pytest.param("udp", {}, id="udp"),
        pytest.param("tcp", {"options": FRAMED}, id="tcp-octet-counts"),
        pytest.param("tcp", {"options": LINED, "template": "RSYSLOG_ForwardFormat"}, id="tcp-lines"),
        pytest.param("tcp", {"options": LINED, "template": "RSYSLOG_TraditionalForwardFormat"},
                     id="tcp-lines-rfc3164"),
    ],
)  # fmt: skip
def test_rsyslog(
    needs: Callable[..., None],
    receiver: Callable[..., Receiver],
    tmp_path: Path,
    scheme: str,
    texts: dict[str, str],
) -> None:
    needs("rsyslogd", "logger")
    made = receiver(scheme)
    with rsyslog(tmp_path, made.port, protocol=scheme, **texts) as socket:
        say(socket, 300)
        lines = made.until(lambda lines: sum(row["app"] == "probe" for row in lines) == 300)
    probes = [row for row in lines if row["app"] == "probe"]
    assert [int(row["message"].split()[3]) for row in probes] == [n * 17 for n in range(300)]
    assert {(row["facility"], row["severity"]) for row in probes} == {(3, 5)}
    assert len({row["pattern_id"] for row in probes}) == 2  # the long one is another
    assert max(len(row["message"]) for row in probes) > 5_000


TLS = """
global(defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="{ca}"
       defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
"""
DRIVER = (
    'StreamDriver="gtls" StreamDriverMode="1" StreamDriverAuthMode="x509/name" '
    'StreamDriverPermittedPeers="127.0.0.1" TCP_Framing="octet-counted"'
)


def tls_settings(folder: Path) -> dict[str, str]:
    pair = certificate(folder)
    return {
        "tls_certificate_file": str(pair.certificate),
        "tls_key_file": str(pair.key),
        "tls_client_ca_file": str(pair.certificate),
    }


def tls_texts(trusted: Path, shown: Path) -> dict[str, str]:
    ours, theirs = certificate(trusted), certificate(shown)
    more = TLS.format(ca=ours.certificate, certificate=theirs.certificate, key=theirs.key)
    return {"more": more, "options": DRIVER}


def needs_tls(needs: Callable[..., None]) -> None:
    from tests.conftest import leave_out

    needs("rsyslogd", "logger")
    if not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")):
        leave_out("needs rsyslog-gnutls: run deploy/test.sh as root, it installs it")


def test_rsyslog_over_tls(
    needs: Callable[..., None], receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    needs_tls(needs)
    (keys := tmp_path / "keys").mkdir()
    made = receiver("tls", **tls_settings(keys))
    with rsyslog(tmp_path, made.port, protocol="tcp", **tls_texts(keys, keys)) as socket:
        say(socket, 50)
        lines = made.until(lambda lines: sum(row["app"] == "probe" for row in lines) == 50)
    assert {row["host"] for row in lines} != {"127.0.0.1"}


def test_a_wrong_certificate_is_said_and_others_go_on(
    needs: Callable[..., None],
    receiver: Callable[..., Receiver],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    needs_tls(needs)
    for name in ("keys", "others", "right", "wrong"):
        (tmp_path / name).mkdir()
    keys, others = tmp_path / "keys", tmp_path / "others"
    made = receiver("tls", **tls_settings(keys))
    with rsyslog(tmp_path / "wrong", made.port, protocol="tcp", **tls_texts(keys, others)) as wrong:
        say(wrong, 5)
        with rsyslog(
            tmp_path / "right", made.port, protocol="tcp", **tls_texts(keys, keys)
        ) as right:
            say(right, 20)
            made.until(lambda lines: sum(row["app"] == "probe" for row in lines) == 20)
        refused = made.context.metrics.value
        for _ in range(200):
            if refused("listener_connections_total", event="handshake_failed"):
                break
            CLOCK.sleep(0.05)
        assert refused("listener_connections_total", event="handshake_failed") >= 1
    said = [record for record in caplog.records if "tls_refused" in record.getMessage()]
    assert len(said) == 1
    assert all("interface" in row["message"] or row["app"] != "probe" for row in made.lines)
