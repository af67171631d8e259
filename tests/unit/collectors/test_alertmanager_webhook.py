"""Alertmanager: webhooks as it sends them, its list, and what is made up for."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from collectors.http.body import HttpRefusedError
from collectors.http.client import PeerError
from collectors.http.input import Request
from collectors.managers.alertmanager import AlertmanagerSource
from telemetry.errors import TransientError
from tests.support.http_emulator import Asked, Emulator, Reply
from tests.support.source_world import source_of, world


def alert(status: str = "firing", **labels: str) -> dict[str, Any]:
    labels = {"alertname": "LinkDown", "instance": "ber-1:9100", "severity": "critical", **labels}
    return {
        "status": status, "labels": labels,
        "annotations": {"summary": "link is down", "description": "no light for 3 minutes"},
        "startsAt": "2026-03-20T09:55:00.5Z",
        "endsAt": "2026-03-20T10:00:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "|".join(sorted(labels.values()))[:60],
    }  # fmt: skip


def payload(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing", "receiver": "tocsin",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093", "alerts": list(alerts), **more,
    }  # fmt: skip


class Here:
    def __init__(self, folder: Path, **options: Any) -> None:
        self.node, self.clock, self.context = world("prometheus")
        self.listed: list[dict[str, Any]] = []
        self.status = 200
        self.api = Emulator(self.list)
        options = {"listen": "http://127.0.0.1:0", "api": {"url": self.api.url}, **options}
        made = source_of("alertmanager", options, self.node, self.context, folder)
        self.source = cast(AlertmanagerSource, made)

    def list(self, asked: Asked) -> Reply:
        assert asked.target == "/api/v2/alerts"
        return Reply(self.status, json.dumps(self.listed).encode())

    def post(self, document: Any) -> int:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.source.handle(Request("POST", "/", {}, {}, "192.0.2.1", iter([body]))).status


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    made.source.stop()
    made.api.close()


def test_firing_repeat_and_resolved(here: Here) -> None:
    assert here.post(payload(alert())) == 200
    assert here.post(payload(alert())) == 200  # repeat_interval
    assert here.node.alarms() == [("ber-1", "critical", "link is down")]
    (row,) = here.node.rows("alarm")
    assert (row["kind"], row["raised_ns"]) == ("LinkDown", 1774000500_500000000)
    assert here.post(payload(alert("resolved"))) == 200
    assert here.node.open_ids() == set()


def test_each_label_set_is_an_alarm_of_its_own(here: Here) -> None:
    here.post(
        payload(
            alert(ifName="xe-0"), alert(ifName="xe-1"), alert(ifName="xe-1", severity="warning")
        )
    )
    assert sorted(here.node.alarms()) == [
        ("ber-1:xe-0", "critical", "link is down"), ("ber-1:xe-1", "critical", "link is down"),
        ("ber-1:xe-1", "warning", "link is down"),
    ]  # fmt: skip
    here.post(payload(alert("resolved", ifName="xe-1")))
    assert len(here.node.open_ids()) == 2


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b"{", "no JSON"), ([], "no object"), ({"version": "3"}, "not '4'"), ({}, "no list of alerts"),
        (payload(cast(Any, 3)), r"alerts\[0\] has no labels"), (payload({"labels": {}}), "has no labels"),
    ],
)  # fmt: skip
def test_what_is_no_payload_is_refused(here: Here, document: Any, sentence: str) -> None:
    with pytest.raises(HttpRefusedError, match=sentence):
        here.post(document)


def test_the_list_makes_up_for_what_was_missed(here: Here) -> None:
    here.post(payload(alert(ifName="a"), alert(ifName="b")))
    silenced = alert(ifName="c") | {
        "status": {"state": "suppressed", "silencedBy": ["1"], "inhibitedBy": []}
    }
    here.listed = [alert(ifName="a") | {"status": {"state": "active"}}, silenced]
    here.node.clear()
    here.source.turn()
    told = {row["entity"]: (row["state"], row["suppressed"]) for row in here.node.rows("alarm")}
    assert told["ber-1:b"] == ("cleared", "")
    assert told["ber-1:c"] == ("raised", "silence")
    here.clock.advance(seconds=61)
    here.status = 500
    with pytest.raises(PeerError):
        here.source.turn()
    assert len(here.node.open_ids()) >= 1


def test_a_truncated_webhook_is_counted_and_the_list_is_asked(here: Here) -> None:
    here.source.turn()
    here.post(payload(alert(), truncatedAlerts=3))
    here.listed = [alert(), alert(ifName="x")]
    here.source.turn()
    here.clock.advance(seconds=11)
    here.source.turn()
    assert len(here.node.open_ids()) == 2
    rows = here.node.rows("ledger")
    assert sum(row["lost_wire"] for row in rows) == 3
    assert all(
        r["sent"] == r["decoded"] + r["lost_wire"] + r["undecodable"] + r["shed"] for r in rows
    )


def test_a_node_that_is_away_is_told_to_alertmanager(here: Here) -> None:
    here.node.away = True
    with pytest.raises(TransientError):
        here.post(payload(alert()))
    here.node.away = False
    here.post(payload(alert()))
    assert len(here.node.open_ids()) == 1


def test_over_http(here: Here) -> None:
    here.source._http.start()
    made = http.client.HTTPConnection("127.0.0.1", here.source.port, timeout=10)
    made.request("POST", "/", json.dumps(payload(alert())))
    answer = made.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    made.close()


def test_words_of_your_own(tmp_path: Path) -> None:
    made = Here(tmp_path, severities={"p1": "critical"}, entity_labels=["site"], part_labels=[])
    made.post(payload(alert(severity="p1", site="BER"), alert(severity="page", site="MUC")))
    assert [(e, s) for e, s, _ in made.node.alarms()] == [("BER", "critical"), ("MUC", "critical")]
    made.api.close()
