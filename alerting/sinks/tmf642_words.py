"""TMF642 alarms and events as JSON, and what filters and field lists of clients say of them: pure.

Source: TMF642 Alarm Management v4.0.0 (swagger); TMF630 part 1 sections 4.2 to 4.5.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from alerting.words.alert import Alert
from alerting.words.wording import SOURCE, is_acknowledged, is_over, rfc3339, texts


def alarm(alert: Alert, base: str) -> dict[str, Any]:
    """Return the alarm resource of an alert; what is not known is left out."""
    told = alert.explain
    cleared = is_over(alert)
    made: dict[str, Any] = {
        "id": alert.id,
        "href": f"{base}/alarm/{alert.id}",
        "externalAlarmId": alert.id,
        "alarmType": alert.event_type or "other",
        "perceivedSeverity": "cleared" if cleared else alert.severity,
        "probableCause": alert.probable_cause or "other",
        "specificProblem": alert.title,
        "alarmDetails": texts(told.get("why")),
        "proposedRepairedActions": str(told.get("do", "")),
        "state": "cleared" if cleared else "updated" if alert.state == "updated" else "raised",
        "ackState": "acknowledged" if is_acknowledged(alert) else "unacknowledged",
        "alarmRaisedTime": rfc3339(alert.raised_ns),
        "alarmChangedTime": rfc3339(alert.changed_ns),
        "alarmReportingTime": rfc3339(alert.changed_ns),
        "alarmClearedTime": rfc3339(alert.cleared_ns) if alert.cleared_ns else "",
        "sourceSystemId": SOURCE,
        "reportingSystemId": SOURCE,
        "alarmedObject": {"id": alert.entity, "@type": "AlarmedObject"},
        "alarmedObjectType": alert.kind,
        "affectedService": [{"id": str(one)} for one in told.get("touches") or []],
        "isRootCause": bool(alert.symptoms),
        "@type": "Alarm",
    }
    return {name: value for name, value in made.items() if value not in ("", [], None)}


def event(name: str, key: str, shown: dict[str, Any]) -> dict[str, Any]:
    """Return the notification of one change; a repeat has the same eventId."""
    return {
        "eventId": key,
        "eventTime": shown["alarmChangedTime"],
        "eventType": name,
        "correlationId": shown["id"],
        "domain": "alarm",
        "title": name,
        "timeOcurred": shown["alarmChangedTime"],  # spelt so in the standard
        "event": {"alarm": shown},
    }


def flat(pattern: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return a pattern's fields by dotted name."""
    made: dict[str, str] = {}
    for name, value in pattern.items():
        if isinstance(value, Mapping):
            made |= flat(value, f"{above}{name}.")
        else:
            made[above + name] = str(value)
    return made


def _value(shown: Mapping[str, Any], name: str) -> str:
    value: Any = shown
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def matches(shown: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    """Whether an alarm passes filters by attribute; `.gt`, `.gte`, `.lt`, `.lte` compare as text."""
    for name, wanted in query.items():
        field, _, compare = name.rpartition(".")
        if compare in ("gt", "gte", "lt", "lte") and field:
            value = _value(shown, field)
            passes = {"gt": value > wanted, "gte": value >= wanted, "lt": value < wanted,
                      "lte": value <= wanted}[compare]  # fmt: skip
        else:
            passes = _value(shown, name) in wanted.split(",")
        if not passes:
            return False
    return True


def wanted_by(query: str, body: dict[str, Any]) -> bool:
    """Whether a subscriber's query takes an event: eventType=..., or filters on the alarm's fields."""
    asked = dict(parse_qsl(query))
    kinds = asked.pop("eventType", "")
    asked.pop("fields", None)
    if kinds and body["eventType"] not in kinds.split(","):
        return False
    stripped = {name.removeprefix("event.alarm."): value for name, value in asked.items()}
    return matches(body["event"]["alarm"], stripped)


def select(shown: Mapping[str, Any], names: str) -> dict[str, Any]:
    """Return the asked-for fields; id and href stay (TMF630 section 4.4)."""
    if not names:
        return dict(shown)
    wanted = {"id", "href", *names.split(",")}
    return {name: value for name, value in shown.items() if name in wanted}
