"""A real node and gate between a radio that states an alarm, a ticket desk and a TMF642 client.

The ticket is opened; a person takes it on; the node's alarm says so and the TMF642 client sees it; that
client's own acknowledgement, the end of the alarm and the killing of the gate go the same ways.
"""

import http.client
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.clock import SystemClock
from tests.support.bad_peers import free_port
from tests.support.live_node import LiveNode, write_config
from tests.support.ticket_server import TicketServer

CLOCK = SystemClock()
EXTRA = """
[api]
metrics_listen = "127.0.0.1:{page}"
[alerting]
wait_seconds = 0
[alerting.sinks.tickets]
kind = "tmf621"
url = "{tickets}/tmf-api/troubleTicket/v4"
[alerting.sinks.umbrella]
kind = "tmf642"
send = "alarms"
options = {{ listen = "127.0.0.1:{umbrella}" }}
[sources.radio]
kind = "ves"
options = {{ listen = "http://127.0.0.1:{ves}" }}
"""


class Site:
    def __init__(self, folder: Path) -> None:
        self.desk = TicketServer()
        self.ves, self.umbrella, page, flow, sflow = (free_port() for _ in range(5))
        extra = EXTRA.format(tickets=self.desk.url, umbrella=self.umbrella, ves=self.ves, page=page)
        config = write_config(folder, port=flow, sflow_port=sflow, extra=extra)
        self.node, self.gate = (LiveNode(config, folder / "s", role=r) for r in ("node", "gate"))

    def start(self) -> None:
        self.node.start()
        self.node.ask()
        self.gate.start()

    def stop(self) -> None:
        for process in (self.gate, self.node):
            process.stop()
        self.desk.stop()

    def until(self, done: Callable[[], Any]) -> Any:
        end_ns = CLOCK.monotonic_ns() + 60 * 10**9
        while CLOCK.monotonic_ns() < end_ns:
            if found := done():
                return found
            CLOCK.sleep(0.1)
        raise AssertionError(
            f"it did not happen; tickets: {self.desk.tickets}; alarms: {self.alarms()}"
        )

    def fault(self, severity: str, name: str) -> None:
        now = CLOCK.now_ns() // 1000
        header = {
            "version": "4.1", "vesEventListenerVersion": "7.2.1", "domain": "fault", "eventName": "f",
            "eventId": f"{name}{severity}", "priority": "High", "sequence": 0, "reportingEntityName": "e",
            "sourceName": name, "startEpochMicrosec": now, "lastEpochMicrosec": now,
        }  # fmt: skip
        block = {
            "faultFieldsVersion": "4.0", "alarmCondition": "lossOfLight", "eventSourceType": "port",
            "specificProblem": "no light", "eventSeverity": severity, "vfStatus": "Active",
        }  # fmt: skip
        body = json.dumps({"event": {"commonEventHeader": header, "faultFields": block}})

        def taken() -> bool:
            made = http.client.HTTPConnection("127.0.0.1", self.ves, timeout=20)
            try:
                made.request(
                    "POST", "/eventListener/v7", body, {"Content-Type": "application/json"}
                )
                return made.getresponse().status == 202
            except (OSError, http.client.HTTPException):
                return False
            finally:
                made.close()

        self.until(taken)

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.umbrella}/tmf-api/alarm/v4{path}", data
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def alarms(self) -> dict[str, tuple[str, str]]:
        """State and acknowledgement by entity, as a TMF642 client sees them."""
        try:
            found = self.ask("/alarm")
        except OSError:
            return {}
        return {a["alarmedObject"]["id"]: (a["state"], a["ackState"]) for a in found}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("o"))  # short: a unix socket's path has 108 bytes
    yield made
    made.stop()


def test_what_people_do_in_other_systems_becomes_part_of_the_alarm(site: Site) -> None:
    site.start()
    site.fault("MAJOR", "du1")
    ticket = site.until(lambda: next(iter(site.desk.tickets.values()), None))
    site.until(lambda: site.alarms().get("du1") == ("raised", "unacknowledged"))
    site.desk.set(ticket.number, state="taken")
    site.until(lambda: site.alarms().get("du1", ("", ""))[1] == "acknowledged")
    notes = len(ticket.notes)
    site.gate.kill()
    site.gate.start()
    site.until(lambda: site.alarms().get("du1", ("", ""))[1] == "acknowledged")
    site.fault("MAJOR", "du2")
    site.until(lambda: "du2" in site.alarms())
    body = {
        "ackSystemId": "u",
        "ackUserId": "ann",
        "alarmPattern": [{"alarmedObject": {"id": "du2"}}],
    }
    assert len(site.ask("/ackAlarms", body)["ackedAlarm"]) == 1
    site.until(lambda: site.alarms()["du2"][1] == "acknowledged")
    site.fault("NORMAL", "du1")
    site.until(lambda: ticket.state == "resolved")
    assert ticket.states == ["open", "taken", "resolved"]
    assert len(ticket.notes) == notes + 1  # the clear: taking it on was not told back
    status = site.node.ask()
    assert {s.name: s.state for s in status.sinks} == {
        "file": "ok",
        "tickets": "ok",
        "umbrella": "ok",
    }
    assert not any("sink" in text for text in status.health)
