"""The VES listener: what is answered, what the node gets, and what happens when it does not."""

import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from collectors.http.body import HttpRefusedError
from collectors.http.input import Request
from collectors.ves.source import VesSource, refusal
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.errors import TransientError
from tests.support.source_world import START_NS, MemoryNode, source_of, world

OPTIONS = {"listen": "http://127.0.0.1:0"}


def header(domain: str, **more: Any) -> dict[str, Any]:
    return {
        "version": "4.1", "vesEventListenerVersion": "7.2.1", "domain": domain,
        "eventId": "e1", "eventName": f"{domain}_du", "priority": "Normal", "sequence": 0,
        "reportingEntityName": "ems1", "sourceName": "du7",
        "startEpochMicrosec": START_NS // 1000, "lastEpochMicrosec": START_NS // 1000, **more,
    }  # fmt: skip


def fault(severity: str = "MAJOR", **more: Any) -> dict[str, Any]:
    block = {
        "faultFieldsVersion": "4.0", "alarmCondition": "lossOfLight", "eventSourceType": "port",
        "specificProblem": "no light", "eventSeverity": severity, "vfStatus": "Active",
        "alarmInterfaceA": "et-0/0/1",
    }  # fmt: skip
    return {"commonEventHeader": header("fault", **more), "faultFields": block}


def heartbeat(seconds: int | None = 20, **more: Any) -> dict[str, Any]:
    event = {"commonEventHeader": header("heartbeat", **more)}
    if seconds is not None:
        event["heartbeatFields"] = {"heartbeatFieldsVersion": "3.0", "heartbeatInterval": seconds}
    return event


def measurement(value: float = 5, **more: Any) -> dict[str, Any]:
    block = {
        "measurementFieldsVersion": "4.0", "measurementInterval": 60, "requestRate": value,
        "additionalMeasurements": [{"name": "radio", "hashMap": {"rsl": "-61.5", "mode": "XPIC"}}],
        "latencyDistribution": [{"lowEndOfLatencyBucket": 0, "highEndOfLatencyBucket": 10,
                                 "countsInTheBucket": 4}],
    }  # fmt: skip
    return {"commonEventHeader": header("measurement", **more), "measurementFields": block}


class Here:
    """A VES source on a memory node."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.node: MemoryNode
        self.clock: ManualClock
        self.context: Context
        self.node, self.clock, self.context = world("radio-ves")
        self.folder, self.options = folder, {**OPTIONS, **options}
        self.source = self.make()

    def make(self) -> VesSource:
        made = source_of("ves", self.options, self.node, self.context, self.folder)
        return cast(VesSource, made)

    def post(
        self, *events: dict[str, Any], path: str = "/eventListener/v7", body: bytes = b""
    ) -> int:
        batch = path.endswith("eventBatch")
        body = body or json.dumps({"eventList": events} if batch else {"event": events[0]}).encode()
        request = Request(
            "POST", path, {}, {"content-type": "application/json"}, "192.0.2.9", iter([body])
        )
        return self.source.handle(request).status  # fmt: skip

    def ledger(self) -> dict[str, int]:
        self.clock.advance(seconds=11)
        self.source.turn()
        rows = self.node.rows("ledger")
        total = {
            name: sum(r[name] for r in rows)
            for name in ("sent", "decoded", "lost_wire", "undecodable", "shed")
        }
        assert (
            total["sent"]
            == total["decoded"] + total["lost_wire"] + total["undecodable"] + total["shed"]
        )
        return total


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_fault_is_raised_and_cleared_under_one_id(here: Here) -> None:
    assert here.post(fault()) == 202
    assert here.post(fault("NORMAL", eventId="e2")) == 202
    raised, cleared = here.node.rows("alarm")
    assert raised["alarm_id"] == cleared["alarm_id"]
    assert (raised["entity"], raised["severity"], raised["source"]) == (
        "du7:et-0/0/1",
        "major",
        "radio-ves",
    )
    assert here.node.open_ids() == set()


def test_a_batch_is_taken_whole_or_not_at_all(here: Here) -> None:
    path = "/eventListener/v7/eventBatch"
    assert here.post(fault(), measurement(), path=path) == 202
    bad = fault("SEVERE")
    with pytest.raises(
        HttpRefusedError, match=r"eventList\[1\]\.faultFields\.eventSeverity: 'SEVERE' is not"
    ):
        here.post(fault(eventId="e9"), bad, path=path)
    assert len(here.node.rows("alarm")) == 1
    assert here.ledger()["undecodable"] == 2


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/eventListener/v4", b"{}", "is not /eventListener/v5"),
        ("/elsewhere", b"{}", "is not /eventListener/v5"),
        ("/eventListener/v7", b"{", "no JSON"),
        ("/eventListener/v7", b"[]", "no 'event'"),
        ("/eventListener/v7", b'{"event": 3}', "event: 3 is not an object"),
        ("/eventListener/v7/eventBatch", b'{"eventList": {}}', "no list"),
        ("/eventListener/v7", b"[" * 100_000, "no JSON"),
        ("/eventListener/v7", b'{"event": {"commonEventHeader": {}}}', "commonEventHeader.domain: missing"),
        ("/eventListener/v7", b"\xff\xfe", "no JSON"),
    ],
)  # fmt: skip
def test_what_breaks_the_format_is_told_why(
    here: Here, path: str, body: bytes, sentence: str
) -> None:
    with pytest.raises(HttpRefusedError, match=sentence):
        here.post(path=path, body=body)


def test_measurements_become_samples_with_their_series(here: Here) -> None:
    assert here.post(measurement()) == 202
    assert here.node.values() == {
        "entity=du7,metric=request_rate": (5.0, 0),
        "entity=du7,metric=rsl,group=radio": (-61.5, 0),
        "entity=du7,metric=latency_counts_in_the_bucket,latency=0-10": (4.0, 0),
    }
    assert here.context.metrics.value("ves_values_dropped_total", why="not_numeric") == 1


def test_a_measurement_that_comes_again_counts_once(here: Here) -> None:
    here.node.forgets_to_answer = True
    with pytest.raises(TransientError):
        here.post(measurement())
    here.node.forgets_to_answer = False
    assert here.post(measurement()) == 202  # the sender tries again
    assert here.post(measurement()) == 202  # the sender missed our answer
    assert len(here.node.rows("sample")) == 3


def test_series_are_announced_again_when_the_node_was_away(here: Here) -> None:
    here.node.away = True
    with pytest.raises(TransientError):
        here.post(measurement())
    here.node.away = False
    here.post(measurement(eventId="e2"))
    assert len(here.node.values()) == 3


def test_a_time_that_cannot_be_is_replaced_by_the_arrival(here: Here) -> None:
    here.post(measurement(lastEpochMicrosec=(START_NS - 7_200 * 10**9) // 1000))
    assert {row["time_ns"] for row in here.node.rows("sample")} == {START_NS}
    assert here.context.metrics.value("ves_clock_off_total") == 1


def test_missed_heartbeats_raise_an_alarm_once_and_the_next_one_clears_it(here: Here) -> None:
    here.post(heartbeat(20))
    here.clock.advance(seconds=60)
    here.source.turn()
    assert here.node.alarms() == []
    here.clock.advance(seconds=1)
    here.source.turn()
    here.source.turn()
    assert here.node.alarms() == [
        ("du7", "major", "no heartbeat for 61 s; it promised one every 20 s")
    ]
    here.post(heartbeat(20, eventId="e2"))
    assert here.node.open_ids() == set()


def test_silence_is_remembered_over_a_restart(here: Here) -> None:
    here.post(heartbeat(20))
    here.clock.advance(seconds=61)
    here.source.turn()
    here.source.stop()
    here.source = here.make()
    here.source.start()
    here.clock.advance(seconds=600)
    here.source.turn()
    assert len(here.node.alarms()) == 1  # told before
    here.post(heartbeat(20, eventId="e2"))
    here.source.stop()
    assert here.node.open_ids() == set()


def test_a_function_that_ends_its_heartbeats_is_not_missed(here: Here) -> None:
    here.post(heartbeat(20))
    here.post(heartbeat(0))
    here.clock.advance(seconds=600)
    here.source.turn()
    assert here.node.alarms() == []


def test_gaps_in_the_sequence_stand_in_the_ledger(here: Here) -> None:
    for number in (5, 6, 9, 9, 1, 2):
        here.post(fault(sequence=number))
    assert here.ledger() == {"sent": 8, "decoded": 6, "lost_wire": 2, "undecodable": 0, "shed": 0}
    assert sum(row["restarts"] for row in here.node.rows("ledger")) == 1


def test_the_ledger_waits_for_a_node_that_is_away(here: Here) -> None:
    here.post(fault())
    here.node.away = True
    with pytest.raises(TransientError):
        here.ledger()
    here.node.away = False
    here.post(fault("NORMAL"))
    assert here.ledger()["decoded"] == 2


def test_other_domains_are_log_rows(here: Here) -> None:
    syslog = {"syslogFieldsVersion": "4.0", "eventSourceType": "router", "syslogMsg": "%LINK-3-UPDOWN: down",
              "syslogTag": "LINK", "syslogPri": 187}  # fmt: skip
    here.post({"commonEventHeader": header("syslog"), "syslogFields": syslog})
    change = {"stateChangeFieldsVersion": "4.0", "newState": "outOfService", "oldState": "inService",
              "stateInterface": "et-0/0/1"}  # fmt: skip
    here.post({"commonEventHeader": header("stateChange"), "stateChangeFields": change})
    first, second = here.node.rows("log")
    assert (first["host"], first["facility"], first["severity"], first["message"]) == (
        "du7", 23, 3, "%LINK-3-UPDOWN: down",
    )  # fmt: skip
    assert second["app"] == "ves-stateChange"
    assert '"newState":"outOfService"' in second["message"]


def test_a_threshold_crossing_is_set_and_cleared(here: Here) -> None:
    def crossing(action: str) -> dict[str, Any]:
        block = {
            "thresholdCrossingFieldsVersion": "4.0", "alertAction": action, "eventSeverity": "MINOR",
            "alertDescription": "IF-ERRDROP", "alertType": "INTERFACE-ANOMALY", "alertValue": "17 %",
            "collectionTimestamp": "Fri, 20 Mar 2026 10:26:40 +0000", "interfaceName": "et-0/0/1",
            "eventStartTimestamp": "Fri, 20 Mar 2026 10:26:40 +0000",
            "additionalParameters": [{"criticality": "MAJ", "hashMap": {"drops": "17"},
                                      "thresholdCrossed": "drops > 10"}],
        }  # fmt: skip
        return {
            "commonEventHeader": header("thresholdCrossingAlert"),
            "thresholdCrossingAlertFields": block,
        }

    here.post(crossing("SET"))
    assert here.node.alarms() == [("du7:et-0/0/1", "minor", "IF-ERRDROP: 17 %")]
    assert here.node.rows("alarm")[0]["probable_cause"] == "thresholdCrossed"
    here.post(crossing("CLEAR"))
    assert here.node.open_ids() == set()


def test_a_3gpp_report_becomes_slow_samples(here: Here) -> None:
    block = {"measDataCollection": {
        "granularityPeriod": 900, "measuredEntityDn": "ManagedElement=7",
        "measInfoList": [{
            "measTypes": {"sMeasTypesList": ["RRC.ConnEstabAtt", "RRC.ConnEstabSucc"]},
            "measValuesList": [
                {"measObjInstId": "NRCellDU=1", "measResults": [{"p": 1, "sValue": "12"}, {"p": 2, "iValue": 11}]},
                {"measObjInstId": "NRCellDU=2", "suspectFlag": "true", "measResults": [{"p": 1, "iValue": 9}]},
            ]}]}, "perf3gppFieldsVersion": "1.0"}  # fmt: skip
    assert here.post({"commonEventHeader": header("perf3gpp"), "perf3gppFields": block}) == 202
    assert here.node.values() == {
        "entity=ManagedElement%3D7:NRCellDU%3D1,metric=RRC.ConnEstabAtt": (12.0, 0),
        "entity=ManagedElement%3D7:NRCellDU%3D1,metric=RRC.ConnEstabSucc": (11.0, 0),
    }
    assert {row["view"] for row in here.node.rows("series")} == {"slow_sample"}


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Here]:
    (tmp_path / "users").write_text("ves:s3cret\n")
    made = Here(tmp_path / "state", users_file=str(tmp_path / "users"))
    made.source.start()
    yield made
    made.source.stop()


def ask(
    here: Here, event: dict[str, Any], password: str = "s3cret"
) -> tuple[int, Any, dict[str, str]]:
    made = http.client.HTTPConnection("127.0.0.1", here.source.port, timeout=10)
    pair = b64encode(f"ves:{password}".encode()).decode()
    made.request("POST", "/eventListener/v7", json.dumps({"event": event}),
                 {"Content-Type": "application/json", "Authorization": f"Basic {pair}"})  # fmt: skip
    answer = made.getresponse()
    body = answer.read()
    made.close()
    return answer.status, json.loads(body) if body else None, dict(answer.headers)


def test_over_http(listening: Here) -> None:
    status, body, headers = ask(listening, fault())
    assert (status, body, headers["X-LatestVersion"]) == (202, None, "7.2.1")
    assert len(listening.node.rows("alarm")) == 1
    status, body, _ = ask(listening, fault("SEVERE"))
    assert status == 400
    told = body["requestError"]["ServiceException"]
    assert told["messageId"] == "SVC0002"
    assert "faultFields.eventSeverity: 'SEVERE' is not one of CRITICAL" in told["variables"][0]
    status, body, _ = ask(listening, fault(), password="wrong")
    assert (status, body["requestError"]["PolicyException"]["messageId"]) == (401, "POL2000")
    listening.node.away = True
    assert ask(listening, fault("MINOR"))[0] == 503


def test_every_refusal_has_a_body_of_the_format() -> None:
    for status in (400, 401, 404, 405, 408, 413, 415, 500, 503):
        ((kind, told),) = json.loads(refusal(status, "why").body)["requestError"].items()
        assert kind in ("ServiceException", "PolicyException")
        assert told["variables"] == ["why"]
        assert told["messageId"][:3] in ("SVC", "POL")
