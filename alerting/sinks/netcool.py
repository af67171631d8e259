"""Netcool/OMNIbus: rows of alerts.status through the ObjectServer's HTTP interface.

A raise is a POST (the ObjectServer deduplicates by Identifier), a change or a clear a PATCH of the
row with our Identifier; where that row is gone, a change makes it again and a clear has nothing to
do. Manager is `tocsin`, so that a collector of ours that reads the same table leaves our rows out. Of
an alarm that came from there, and whose acknowledgement it owns, its own row is acknowledged.

Source: IBM, ObjectServer HTTP Interface Reference: row set, POST and PATCH on a table.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from alerting.config import SinkSettings
from alerting.records.alarm import ASKED
from alerting.sinks.http import Answer, accepted, ask_json
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.words.alert import Alert
from alerting.words.escape import line
from alerting.words.wording import SOURCE, is_acknowledged, is_over, place, word
from runtime.registry import WEB, Part
from runtime.settings import PositiveInt, Settings
from telemetry.errors import TransientError
from telemetry.x733 import CAUSE_NUMBERS, EVENT_TYPES

CLASH = 409  # the row is there already: a repeat
TYPES = {str: "string", int: "integer"}
TIMES = ("FirstOccurrence", "LastOccurrence")


class NetcoolOptions(Settings, frozen=True, kw_only=True):
    """Where rows go, and what is as large as the site's schema allows."""

    table: str = "alerts/status"  # database and table of the ObjectServer
    text_characters_max: PositiveInt = 255  # longer texts are cut there


class NetcoolSink:
    """One row a call: the interface takes no more."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: NetcoolOptions) -> None:
        self._settings = settings
        self._url = f"{settings.url.rstrip('/')}/objectserver/restapi/{options.table}"
        self._characters = options.text_characters_max

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Insert, change or clear the alarm's row; the same again changes nothing."""
        (parcel,) = parcels
        alert = parcel.alert
        if alert.operator_state == ASKED and alert.source != SOURCE:
            return self._acknowledge_theirs(alert)
        row = {name: self._fit(value) for name, value in status_row(alert).items()}
        changed = self._patch(alert.id, row)
        if changed or is_over(alert):
            return f"{changed} rows changed"
        answer = ask_json(self._settings, "POST", self._url, row_set(row))
        if answer.status == CLASH:
            return f"{self._patch(alert.id, row)} rows changed"
        return accepted(self._url, answer).said

    def _acknowledge_theirs(self, alert: Alert) -> str:
        """Acknowledge the row that an alarm of theirs came from: our source hears of it from there."""
        server, _, serial = alert.foreign_id.rpartition(":")
        if not (serial.isdigit() and re.fullmatch(r"[A-Za-z0-9_.-]+", server)):
            raise RefusedError(f"{line(alert.foreign_id, 80)!r} is no row of an ObjectServer")
        where = quote(f"ServerName='{server}' and ServerSerial={serial}")
        url, body = f"{self._url}?filter={where}", row_set({"Acknowledged": 1})
        return f"{_rows(accepted(url, ask_json(self._settings, 'PATCH', url, body)))} rows acknowledged"

    def _patch(self, identifier: str, row: dict[str, Any]) -> int:
        where = quote(f"Identifier='tocsin {identifier}'")
        fixed = ("Identifier", "FirstOccurrence")  # the rest may change in a row's life
        body = row_set({name: value for name, value in row.items() if name not in fixed})
        url = f"{self._url}?filter={where}"
        return _rows(accepted(url, ask_json(self._settings, "PATCH", url, body)))

    def _fit(self, value: Any) -> Any:
        return value[: self._characters] if isinstance(value, str) else value

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """The ObjectServer keeps rows: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def _rows(answer: Answer) -> int:
    body = answer.json()
    try:
        return int(body["entry"]["affectedRows"])
    except (KeyError, TypeError, ValueError) as error:
        raise TransientError(f"the answer is no entry: {answer.said}") from error


def status_row(alert: Alert) -> dict[str, Any]:
    """Return the columns of alerts.status for one change."""
    node, resource = place(alert.entity)
    return {
        "Identifier": f"tocsin {alert.id}",
        "Node": node,
        "Manager": SOURCE,
        "Agent": SOURCE,
        "AlertGroup": alert.kind,
        "AlertKey": resource or alert.id,
        "Severity": word("netcool", alert),
        "Type": 1,  # a problem; its end is Severity 0 on the same row
        "Summary": alert.title,
        "FirstOccurrence": alert.raised_ns // 1_000_000_000,
        "LastOccurrence": alert.changed_ns // 1_000_000_000,
        "Acknowledged": int(is_acknowledged(alert)),
        "X733EventType": EVENT_TYPES.get(alert.event_type, EVENT_TYPES["other"]),
        "X733ProbableCause": CAUSE_NUMBERS.get(alert.probable_cause, CAUSE_NUMBERS["other"]),
        "X733SpecificProb": alert.title[:64],
    }


def row_set(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row set of one row, each column with its type."""
    described = [
        {"name": name, "type": "utc" if name in TIMES else TYPES[type(value)]}
        for name, value in row.items()
    ]
    return {"rowset": {"coldesc": described, "rows": [row], "affectedRows": 0}}


def _make(settings: SinkSettings, options: NetcoolOptions) -> NetcoolSink:
    return NetcoolSink(settings, options)


SINK = Part("Netcool/OMNIbus, HTTP interface", _make, NetcoolOptions, needs=("url",), schemes=WEB)
