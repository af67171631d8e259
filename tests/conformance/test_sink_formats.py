"""What sinks send against the published descriptions: CloudEvents, Alertmanager, TMF642, TMF621, Netcool."""

import json
from pathlib import Path
from typing import Any

import fastjsonschema
import msgspec
import pytest

from alerting.sinks.alertmanager import postable
from alerting.sinks.grafana import GrafanaOptions, annotation
from alerting.sinks.netcool import row_set, status_row
from alerting.sinks.pagerduty import event as pagerduty_event
from alerting.sinks.servicenow import event as servicenow_event
from alerting.sinks.tmf642_words import alarm, event
from alerting.sinks.webhook import cloud_event
from alerting.words.alert import Alert
from telemetry.x733 import SEVERITY_WORDS, severity_for
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel


@pytest.fixture(scope="module")
def alerts() -> list[Alert]:
    return checks_sink.alerts()


def strict(definitions: dict[str, Any], name: str, *, required: bool = True) -> Any:
    """Return a validator of one Swagger definition that takes no field it does not name."""
    made = json.loads(json.dumps(definitions).replace("#/definitions/", "#/definitions/"))
    for one in made.values():
        if one.get("properties"):
            one["additionalProperties"] = False
    # TMF642 v4 says id is an integer and shows texts in all its examples; ids of others are texts.
    if "Alarm" in made:
        made["Alarm"]["properties"]["id"] = {"type": "string"}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": f"#/definitions/{name}",
              "definitions": made}  # fmt: skip
    return fastjsonschema.compile(schema)


def test_webhook_events_are_cloudevents(shared: Path, alerts: list[Alert]) -> None:
    schema = json.loads((shared / "specs/cloudevents/cloudevents.schema.json").read_text())
    check = fastjsonschema.compile(schema)
    for alert in alerts:
        check(cloud_event(parcel(alert), now_ns=NOW_NS))


def test_alarms_and_their_events_are_tmf642s(shared: Path, alerts: list[Alert]) -> None:
    swagger = json.loads((shared / "specs/tmf/TMF642-Alarm-v4.0.0.swagger.json").read_text())
    definitions = swagger["definitions"]
    check = strict(definitions, "Alarm")
    for alert in alerts:
        shown = alarm(alert, "http://x/tmf-api/alarm/v4")
        check(shown)
        needed = definitions["Alarm_Create"]["required"]
        assert set(needed) <= set(shown)
        for name in ("AlarmCreateEvent", "AlarmStateChangeEvent", "AlarmAttributeValueChangeEvent"):
            strict(definitions, name)(event(name, "key", shown))
            path = f"/listener/{name[0].lower()}{name[1:]}"
            assert path in swagger["paths"]
    assert swagger["basePath"].rstrip("/") == "/tmf-api/alarm/v4"


def test_tickets_are_tmf621s(shared: Path, alerts: list[Alert]) -> None:
    """The bodies that the sink sends, caught on their way, against Create, Update and the status words."""
    from alerting.config import SinkSettings
    from alerting.sinks import make_sink
    from tests.support.sink_peers import HttpPeer

    swagger = json.loads(
        (shared / "specs/tmf/TMF621-TroubleTicket-v4.0.0.swagger.json").read_text()
    )
    create, update = (
        strict(swagger["definitions"], f"TroubleTicket_{n}") for n in ("Create", "Update")
    )
    peer = HttpPeer()
    ticket = {"id": "1", "externalId": alerts[0].id, "status": "acknowledged", "severity": "minor"}
    try:
        sink = make_sink(SinkSettings(kind="tmf621", url=f"{peer.url}/tmf-api/troubleTicket/v4"))
        peer.answer = b"[]"
        with pytest.raises(Exception, match="no ticket"):
            sink.send([parcel(alerts[0])], now_ns=NOW_NS)
        create(peer.got[-1][1])
        peer.answer = json.dumps([ticket]).encode()
        with pytest.raises(Exception, match="no ticket"):
            sink.send([parcel(alerts[2])], now_ns=NOW_NS)
        method, body = peer.got[-1][0]["method"], peer.got[-1][1]
        assert method == "PATCH"
        update(body)
        assert body["status"] in swagger["definitions"]["TroubleTicketStatusType"]["enum"]
        assert all(
            p["path"].startswith("/tmf-api/troubleTicket/v4/troubleTicket") for p, _ in peer.got
        )
    finally:
        peer.stop()


def test_netcool_rows_are_like_the_row_sets_that_it_takes(
    shared: Path, alerts: list[Alert]
) -> None:
    sample = json.loads((shared / "specs/samples/netcool_post_alerts_status.json").read_text())[
        "rowset"
    ]
    kinds = {column["name"]: column["type"] for column in sample["coldesc"]}
    for alert in alerts:
        made = row_set(status_row(alert))["rowset"]
        assert set(made) == set(sample)
        assert [c["name"] for c in made["coldesc"]] == list(made["rows"][0])
        for column in made["coldesc"]:
            assert kinds.get(column["name"], column["type"]) == column["type"]
    rows = [status_row(a) for a in alerts]
    assert [r["Severity"] for r in rows] == [4, 4, 0]
    assert rows[0]["Identifier"] == rows[2]["Identifier"]


def test_alertmanager_alerts_are_postable(shared: Path, alerts: list[Alert]) -> None:
    """api/v2/openapi.yaml, postableAlert: labels and annotations are texts by text, times RFC 3339."""
    text = (shared / "specs/alertmanager/openapi.v2.yaml").read_text()
    assert "postableAlert:" in text
    for alert in alerts:
        for made in postable(alert, now_ns=NOW_NS):
            assert set(made) <= {"startsAt", "endsAt", "annotations", "labels", "generatorURL"}
            for part in ("labels", "annotations"):
                assert all(isinstance(v, str) for v in made[part].values())


def test_pagerduty_events_keep_to_the_fields_and_words_of_events_v2(alerts: list[Alert]) -> None:
    key = "0123456789abcdef0123456789abcdef"
    raised, _, cleared = (pagerduty_event(a, key) for a in alerts)
    assert [raised["event_action"], cleared["event_action"]] == ["trigger", "resolve"]
    assert raised["dedup_key"] == cleared["dedup_key"]
    for made in (raised, cleared):
        assert set(made) <= {"routing_key", "event_action", "dedup_key", "payload", "images", "links",
                             "client", "client_url"}  # fmt: skip
        payload: Any = made["payload"]
        assert {"summary", "source", "severity"} <= set(payload)
        assert set(payload) <= {"summary", "source", "severity", "timestamp", "component", "group", "class",
                                "custom_details"}  # fmt: skip
        assert payload["severity"] in ("critical", "error", "warning", "info")
        assert len(payload["summary"]) <= 1024
        assert len(str(made["dedup_key"])) <= 255


def test_servicenow_events_keep_to_the_columns_of_em_event(alerts: list[Alert]) -> None:
    columns = {"source", "event_class", "node", "type", "resource", "metric_name", "message_key", "severity",
               "resolution_state", "time_of_event", "description", "additional_info"}  # fmt: skip
    made = [servicenow_event(a) for a in alerts]
    assert all(set(one) == columns for one in made)
    assert [one["severity"] for one in made] == ["2", "2", "0"]
    assert [one["resolution_state"] for one in made] == ["New", "New", "Closing"]
    assert made[0]["message_key"] == made[2]["message_key"]


def test_every_system_has_a_word_for_every_severity() -> None:
    for system in SEVERITY_WORDS:
        words = [
            severity_for(system, s)
            for s in ("critical", "major", "minor", "warning", "indeterminate")
        ]
        assert len(set(map(type, words))) == 1
        assert words[0] != words[-1]


def test_grafanas_tags_fit_its_table_of_tags(alerts: list[Alert]) -> None:
    """Grafana, pkg/services/sqlstore/migrations/tag_mig.go: key and value are NVARCHAR(100)."""
    long = msgspec.structs.replace(alerts[0], kind="k" * 255)
    assert all(len(tag) <= 100 for tag in annotation(long, GrafanaOptions())["tags"])
