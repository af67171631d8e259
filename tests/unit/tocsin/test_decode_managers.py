"""`tocsin decode` on messages of other managers: told by their content, read as their sources read them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tocsin.cli.decode import decode

ALERT = {
    "labels": {"alertname": "Down", "node": "ber-1", "severity": "critical"},
    "startsAt": "2026-03-20T10:00:00Z",
}
TMF = {
    "id": "1",
    "alarmedObject": {"id": "olt-1"},
    "perceivedSeverity": "minor",
    "alarmType": "equipmentAlarm",
}
ROWS = [
    {
        "Identifier": "a",
        "Node": "ber-1",
        "Severity": 5,
        "Type": 1,
        "LastOccurrence": 10,
        "AlertKey": "1",
    },
    {"Identifier": "b", "Node": "ber-2", "Severity": 4, "Type": 1, "LastOccurrence": 10},
    {
        "Identifier": "c",
        "Node": "ber-1",
        "Severity": 0,
        "Type": 2,
        "LastOccurrence": 12,
        "AlertKey": "1",
    },
]
SPECTRUM = {"alarm-response-list": {"alarm-responses": {"alarm": {"@id": "1", "attribute": [
    {"@id": "0x129fa", "$": "0x1"}, {"@id": "0x11f50", "$": "0x2"}, {"@id": "0x11f56", "$": "2"},
    {"@id": "0x1006e", "$": "ber-1"}]}}}}  # fmt: skip


def run(tmp_path: Path, document: Any) -> tuple[int, list[dict[str, Any]], str]:
    path = tmp_path / "message"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    done = CliRunner().invoke(decode, [str(path), "-o", "jsonl"])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("document", "told"),
    [
        pytest.param({"groupKey": "g", "version": "4", "alerts": [{**ALERT, "status": "firing"}]},
                     [("ber-1", "raised", "critical")], id="alertmanager"),
        pytest.param([ALERT], [("ber-1", "raised", "critical")], id="alertmanager-list"),
        pytest.param([TMF], [("olt-1", "raised", "minor")], id="tmf642"),
        pytest.param({"eventType": "AlarmCreateEvent", "event": {"alarm": TMF}}, [("olt-1", "raised", "minor")],
                     id="tmf642-event"),
        pytest.param({"rowset": {"rows": ROWS}},
                     [("ber-1", "cleared", "indeterminate"), ("ber-2", "raised", "major")], id="netcool"),
        pytest.param(SPECTRUM, [("ber-1", "raised", "major")], id="spectrum"),
    ],
)  # fmt: skip
def test_alarms(tmp_path: Path, document: Any, told: list[tuple[str, str, str]]) -> None:
    code, rows, _ = run(tmp_path, document)
    assert [(row["entity"], row["state"], row["severity"]) for row in rows] == told
    assert code == 0


def test_ves(shared: Path, tmp_path: Path) -> None:
    folder = shared / "captures/ves/onap-ves-collector"
    code, rows, _ = run(tmp_path, (folder / "measurement7x.json").read_text())
    assert (code, {row["schema"] for row in rows}, len(rows)) == (0, {"sample"}, 59)
    assert {row["time_ns"] for row in rows} == {1534868602564759000}
    code, rows, stderr = run(tmp_path, (folder / "ves7_invalid_30_1_1_event.json").read_text())
    assert (code, rows) == (3, [])
    assert "vesEventListenerVersion: '30.0.1' is not one of" in stderr


@pytest.mark.parametrize(
    "text", ['{"rowset": 3}', '{"alarm-response-list": 3}', '{"groupKey": 1', '[{"alarmedObject": {}}]',
             '{"commonEventHeader": 1}'],
)  # fmt: skip
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    code, rows, stderr = run(tmp_path, text)
    assert (code, rows) == (3, [])
    assert "not decoded" in stderr
