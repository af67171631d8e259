"""TMF642 alarms and events as JSON, and what filters and field lists of clients say of them: pure.

Source: TMF642 Alarm Management v4.0.0 (swagger); TMF630 part 1 sections 4.2 to 4.5.
"""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
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


def flat(pattern: Mapping[str, Any], above: str = "") -> dict[str, list[str]]:
    """Return a pattern's fields by dotted name, as filters."""
    made: dict[str, list[str]] = {}
    for name, value in pattern.items():
        if isinstance(value, Mapping):
            made |= flat(value, f"{above}{name}.")
        else:
            made[above + name] = [str(value)]
    return made


def asked_for(query: str) -> dict[str, list[str]]:
    """Return a query's filters: of each attribute the values of which one is enough, however they are listed.

    >>> asked_for("state=raised,updated&state=cleared")
    {'state': ['raised,updated', 'raised', 'updated', 'cleared']}
    """
    made: dict[str, list[str]] = {}
    for name, value in parse_qsl(query):
        parts = value.split(",")
        made.setdefault(name, []).extend([value, *parts] if len(parts) > 1 else parts)
    return made


def _values(shown: Any, name: str) -> list[str]:
    """Return what an alarm has under a dotted name; of a list each of its own."""
    if isinstance(shown, list):
        return [value for one in shown for value in _values(one, name)]
    if not name:
        return [json.dumps(shown) if isinstance(shown, dict) else str(shown)]
    first, _, rest = name.partition(".")
    return _values(shown[first], rest) if isinstance(shown, Mapping) and first in shown else []


COMPARES: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
}  # fmt: skip


def _moment(text: str) -> datetime | None:
    """Return a time, None where it is none. A + that came as a blank was not escaped by its sender."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _compare(compare: str, value: str, wanted: str) -> bool:
    """Compare times as times, all else as text."""
    one, other = _moment(value), _moment(wanted)
    if one is not None and other is not None:
        return COMPARES[compare](one, other)
    return COMPARES[compare](value, wanted)


def matches(shown: Mapping[str, Any], query: Mapping[str, Sequence[str]]) -> bool:
    """Whether an alarm passes filters by attribute: equal (also `.eq`), not (`.ne`), or compared (`.gt`,
    `.gte`, `.lt`, `.lte`). One of the values that an attribute may have is enough, of `.ne` none may be."""
    for name, wanted in query.items():
        field, _, compare = name.rpartition(".")
        if field and compare in COMPARES:
            passes = any(
                _compare(compare, value, one) for value in _values(shown, field) for one in wanted
            )
        elif field and compare in ("eq", "ne"):
            passes = (compare == "eq") == any(one in wanted for one in _values(shown, field))
        else:
            passes = any(one in wanted for one in _values(shown, name))
        if not passes:
            return False
    return True


def wanted_by(query: str, body: dict[str, Any]) -> bool:
    """Whether a subscriber's query takes an event: eventType=..., or filters on the alarm's fields."""
    asked = asked_for(query.removeprefix("?"))
    kinds = asked.pop("eventType", [])
    asked.pop("fields", None)
    if kinds and body["eventType"] not in kinds:
        return False
    stripped = {name.removeprefix("event.alarm."): value for name, value in asked.items()}
    return matches(body["event"]["alarm"], stripped)


def select(shown: Mapping[str, Any], names: str) -> dict[str, Any]:
    """Return the asked-for fields, of a dotted one its first; id and href stay (TMF630 section 4.4)."""
    if not names:
        return dict(shown)
    wanted = {"id", "href", *(name.partition(".")[0] for name in names.split(","))}
    return {name: value for name, value in shown.items() if name in wanted}
