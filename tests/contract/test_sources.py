"""Every source against one list of checks, each with its peer emulated."""

import http.client
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from collectors.sources import SOURCES, Offer, Source, SourceSettings, make_source
from runtime.clock import SystemClock
from telemetry.errors import ConfigError
from tests.support.netcool_server import ObjectServer
from tests.support.snmp_agent import SMALL, Agent, AgentServer
from tests.support.spectrum_server import OneClick
from tests.support.tmf642_server import AlarmSystem
from tests.unit.collectors.test_pm_files import GOOD
from tocsin.testing import checks_source, make_context
from tocsin.testing.checks_source import Bench, Listener

CLOCK = SystemClock()
LOOPBACK = "http://127.0.0.1:0"
MAPPING = Path(__file__).parents[2] / "deploy/config/mappings/smod.toml"
SMOD = {
    "alarms": [
        {"ne": {"name": "msan-1"}, "port": "1", "text": "LOS", "prio": "P1", "status": "ACTIVE"}
    ]
}
# Sources that sit this exam elsewhere, with a peer of their own.
ELSEWHERE: tuple[str, ...] = ()
Provoke = Callable[[Source], None]


def wait(source: Source) -> None:
    """It reads by itself."""


def post(path: str, document: Any) -> Provoke:
    """Push a document, as a sender does: again where it was not taken."""

    def provoke(source: Any) -> None:
        made = http.client.HTTPConnection("127.0.0.1", source.port, timeout=10)
        with closing(made), suppress(OSError, http.client.HTTPException):
            made.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
            made.getresponse().read()

    return provoke


def ves(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    header = {
        "version": "4.1", "vesEventListenerVersion": "7.2.1", "domain": "fault", "eventId": "1",
        "eventName": "f", "priority": "High", "sequence": 0, "reportingEntityName": "e",
        "sourceName": "du1", "startEpochMicrosec": 1, "lastEpochMicrosec": 1,
    }  # fmt: skip
    fault = {
        "faultFieldsVersion": "4.0", "alarmCondition": "c", "eventSourceType": "other",
        "specificProblem": "p", "eventSeverity": "MAJOR", "vfStatus": "Active",
    }  # fmt: skip
    event = {"event": {"commonEventHeader": header, "faultFields": fault}}
    return {"listen": LOOPBACK}, post("/eventListener/v7", event)


def netcool(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    server = stack.enter_context(closing(ObjectServer(lambda: CLOCK.now_ns() / 1e9)))
    server.event("a", "ber-1", 5)
    (folder / "password").write_text("s3cret")
    return {"url": server.url, "user": "root", "password_file": str(folder / "password")}, wait


def spectrum(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    server = stack.enter_context(closing(OneClick(lambda: CLOCK.now_ns() / 1e9)))
    server.alarm("ber-1")
    (folder / "password").write_text("s3cret")
    return {"url": server.url, "user": "noc", "password_file": str(folder / "password")}, wait


def tmf642(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    server = stack.enter_context(closing(AlarmSystem()))
    server.alarm("olt-1")
    return {"url": server.url}, wait


def alertmanager(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    alert = {
        "status": "firing",
        "labels": {"alertname": "a", "node": "n"},
        "startsAt": "2026-03-20T10:00:00Z",
    }
    return {"listen": LOOPBACK}, post("/", {"version": "4", "alerts": [alert]})


def mapped_push(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    return {"mapping": str(MAPPING), "push": {"listen": LOOPBACK}}, post("/", SMOD)


def mapped_file(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    (folder / "m.toml").write_text("format='jsonl'\n[alarm]\nentity='n'\nkind='=k'\nseverity='s'\n")
    (folder / "alarms").write_text('{"n": "a", "s": "major"}\n')
    return {
        "mapping": str(folder / "m.toml"),
        "file": {"path": str(folder / "alarms"), "from_start": True},
    }, wait


def mapped_sql(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    with closing(sqlite3.connect(folder / "db")) as rows, rows:
        rows.execute("CREATE TABLE alarm (n TEXT, s TEXT)")
        rows.execute("INSERT INTO alarm VALUES ('a', 'major')")
    (folder / "m.toml").write_text("[alarm]\nentity='n'\nkind='=k'\nseverity='s'\n")
    sql = {"connect": {"database": str(folder / "db")}, "query": "SELECT * FROM alarm"}
    return {"mapping": str(folder / "m.toml"), "sql": sql}, wait


def ingest(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    return {"listen": LOOPBACK, "mappings": {"smod": str(MAPPING)}}, post("/ingest/smod", SMOD)


def pm_files(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    inbox = folder / "inbox"
    inbox.mkdir()
    (inbox / "A.xml").write_bytes(GOOD)
    return {"folder": str(inbox), "settle_seconds": 0.0, "poll_seconds": 0.05}, wait


def snmp_poll(folder: Path, stack: ExitStack) -> tuple[dict[str, Any], Provoke]:
    server = stack.enter_context(AgentServer({"127.2.8.1": Agent(dict(SMALL))}))
    device = {"address": "127.2.8.1", "port": server.port}
    return {"devices": [device], "interval_seconds": 0.2, "timeout_seconds": 0.5}, wait


BENCHES = {
    "ves": ves, "netcool": netcool, "spectrum": spectrum, "tmf642": tmf642, "alertmanager": alertmanager,
    "mapped": mapped_push, "mapped by file": mapped_file, "mapped by sql": mapped_sql, "ingest": ingest,
    "pm-files": pm_files, "snmp-poll": snmp_poll,
}  # fmt: skip


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    name: str = request.param
    with ExitStack() as stack:
        options, provoke = BENCHES[name](tmp_path, stack)
        settings = SourceSettings(kind=name.split(" ")[0], options=options)

        def make(offer: Offer, folder: Path) -> Source:
            return make_source("exam", settings, make_context("exam", clock=CLOCK), offer, folder)  # type: ignore[arg-type]

        yield Bench(make, provoke, tmp_path / "state")


@pytest.mark.parametrize("bench", BENCHES, indirect=True)
@pytest.mark.parametrize("check", checks_source.CHECKS, ids=lambda c: c.__name__)
def test_exam(bench: Bench, check: Callable[[Bench], None]) -> None:
    check(bench)


def test_every_source_sits_an_exam() -> None:
    assert {name.split(" ")[0] for name in BENCHES} | set(ELSEWHERE) >= set(SOURCES.kinds())


WRONG: dict[str, dict[str, Any]] = {
    "ves": {"listen": "http://0.0.0.0:0"},
    "alertmanager": {"listen": "udp://127.0.0.1:0"},
    "netcool": {"url": "ftp://x"},
    "spectrum": {"url": "nowhere"},
    "tmf642": {"url": "https://127.0.0.1:1", "ca_file": "/nowhere.pem"},
    "mapped": {"mapping": "/nowhere.toml", "push": {}},
    "ingest": {"mappings": {"a": "/nowhere.toml"}},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_setting_refuses_the_start_with_a_sentence(kind: str, tmp_path: Path) -> None:
    settings = SourceSettings(kind=kind, options=WRONG[kind])
    context = make_context("exam", clock=CLOCK)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        make_source("exam", settings, context, Listener(), tmp_path).start()
    assert len(str(caught.value)) > 20
    assert "\n" not in str(caught.value)
