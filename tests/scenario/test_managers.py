"""Other managers, end to end: from their interfaces through gate, journal and alerting to a sink, over kills."""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.clock import SystemClock
from tests.support.bad_peers import free_port
from tests.support.live_node import LiveNode, write_config
from tests.support.netcool_server import ObjectServer
from tests.support.spectrum_server import OneClick

CLOCK = SystemClock()
MAPPING = Path(__file__).parents[2] / "deploy/config/mappings/smod.toml"
SOURCES = """
[sources.radio]
kind = "ves"
options = {{ listen = "http://127.0.0.1:{ves}" }}
[sources.netcool]
kind = "netcool"
options = {{ url = "{netcool}", user = "root", password_file = "{password}", poll_seconds = 5, resync_seconds = 5 }}
[sources.spectrum]
kind = "spectrum"
options = {{ url = "{spectrum}", user = "noc", password_file = "{password}", poll_seconds = 5, resync_seconds = 5 }}
[sources.smod]
kind = "mapped"
options = {{ mapping = "{mapping}", push = {{ listen = "http://127.0.0.1:{smod}" }} }}
[api]
metrics_listen = "127.0.0.1:{page}"
"""


class Site:
    """A node and its gate, and the systems around."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.netcool = ObjectServer(lambda: CLOCK.now_ns() / 1e9)
        self.spectrum = OneClick(lambda: CLOCK.now_ns() / 1e9)
        (folder / "password").write_text("s3cret")
        self.ves, self.smod, page, flow, sflow = (free_port() for _ in range(5))
        extra = SOURCES.format(
            ves=self.ves, smod=self.smod, page=page, netcool=self.netcool.url, spectrum=self.spectrum.url,
            password=folder / "password", mapping=MAPPING,
        )  # fmt: skip
        self.config = write_config(folder, port=flow, sflow_port=sflow, extra=extra)
        self.node, self.gate = (
            LiveNode(self.config, folder / "s", role=r) for r in ("node", "gate")
        )

    def start(self) -> None:
        self.node.start()
        self.node.ask()
        self.gate.start()

    def stop(self) -> None:
        for process in (self.gate, self.node):
            process.stop()
        self.netcool.close()
        self.spectrum.close()

    def told(self) -> list[tuple[str, str]]:
        """(entity, state) of every change that the sink got; a delivery that came twice is one."""
        path = self.folder / "alerts.jsonl"
        lines = dict.fromkeys(path.read_text().splitlines()) if path.exists() else {}
        return [
            (a["entity"], a["state"]) for a in map(json.loads, lines) if a.get("source") != "tocsin"
        ]

    def until(self, done: Callable[[], Any]) -> Any:
        end_ns = CLOCK.now_ns() + 60 * 10**9
        while CLOCK.now_ns() < end_ns:
            if found := done():
                return found
            CLOCK.sleep(0.1)
        raise AssertionError(f"it did not happen; told: {self.told()}")

    def post(self, port: int, path: str, document: Any) -> int:
        """Push, as a sender does: until it is taken."""

        def taken() -> int:
            made = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                made.request(
                    "POST", path, json.dumps(document), {"Content-Type": "application/json"}
                )
                status = made.getresponse().status
                return status if status < 500 else 0
            except (OSError, http.client.HTTPException):
                return 0
            finally:
                made.close()

        return int(self.until(taken))

    def fault(self, severity: str) -> int:
        now = CLOCK.now_ns() // 1000
        header = {
            "version": "4.1", "vesEventListenerVersion": "7.2.1", "domain": "fault", "eventId": severity,
            "eventName": "f", "priority": "High", "sequence": 0, "reportingEntityName": "e",
            "sourceName": "du1", "startEpochMicrosec": now, "lastEpochMicrosec": now,
        }  # fmt: skip
        block = {
            "faultFieldsVersion": "4.0", "alarmCondition": "lossOfLight", "eventSourceType": "port",
            "specificProblem": "no light", "eventSeverity": severity, "vfStatus": "Active",
        }  # fmt: skip
        event = {"event": {"commonEventHeader": header, "faultFields": block}}
        return self.post(self.ves, "/eventListener/v7", event)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("m"))  # short: a unix socket's path has 108 bytes
    yield made
    made.stop()


def test_alarms_of_four_systems_reach_a_sink_over_kills_of_gate_and_node(site: Site) -> None:
    site.netcool.event("a", "ber-1", 5, LocalPriObj="xe-0/0/1")
    alarm = site.spectrum.alarm("ber-2")
    site.start()
    assert site.fault("MAJOR") == 202
    record = {
        "ne": {"name": "msan-1"},
        "port": "1",
        "text": "LOS",
        "prio": "P1",
        "status": "ACTIVE",
    }
    assert site.post(site.smod, "/", {"alarms": [record]}) == 200
    up = {
        ("ber-1:xe-0/0/1", "raised"),
        ("ber-2", "raised"),
        ("du1", "raised"),
        ("msan-1:1", "raised"),
    }
    site.until(lambda: up <= set(site.told()))
    for process in (site.gate, site.node):
        process.kill()
    site.netcool.change("a", Severity=0)  # while nobody looks
    site.spectrum.fail_over()
    site.start()
    assert site.fault("NORMAL") == 202
    site.until(lambda: {("ber-1:xe-0/0/1", "cleared"), ("du1", "cleared")} <= set(site.told()))
    site.spectrum.fail_over()
    site.netcool.event("b", "ber-3", 4)
    site.until(lambda: ("ber-3", "raised") in site.told())
    told = site.told()
    assert ("ber-2", "cleared") not in told
    assert len(told) == len(set(told)), "nothing is raised or cleared twice"
    assert alarm
