"""What sinks say about an alert, in the forms that most receivers want."""

import ipaddress
from datetime import UTC, datetime
from typing import Any

from alerting.words.alert import Alert
from alerting.words.amounts import amount
from telemetry.x733 import severity_for

OVER = ("cleared", "closed")
SOURCE = "tocsin"
# Facts that a clear has no more.
WHILE_IT_LASTS = (
    "sure",
    "trend",
    "actual",
    "expected",
    "band",
    "do",
)


def is_over(alert: Alert) -> bool:
    """Whether the alert says that it is over."""
    return alert.state in OVER


def verb(alert: Alert) -> str:
    """Return what an alert says in one word: its severity, CLEARED, or MERGED: as another incident it goes on."""
    if is_over(alert):
        return "MERGED" if alert.parent else "CLEARED"
    return alert.severity.upper()


def human(alert: Alert, *, delay_seconds: float | None = None) -> str:
    """Return the line people read: `FOUND major: link ams1-fra2 is down: ... (11 s)`."""
    said = verb(alert) if is_over(alert) else "FOUND"
    late = f" ({delay_seconds:.0f} s)" if delay_seconds is not None else ""
    others = f", {alert.alarms_count} alarms" if alert.alarms_count > 1 else ""
    return f"{said} {alert.severity}: {alert.title}{others}{late}"


def is_acknowledged(alert: Alert) -> bool:
    """Whether somebody has taken it on."""
    return alert.operator_state == "acknowledged"


def place(entity: str) -> tuple[str, str]:
    """Return the node and the resource of an entity's name.

    >>> place("ams1:et-0/0/3"), place("2001:db8::1"), place("198.51.100.0/24"), place("ams1-fra2")
    (('ams1', 'et-0/0/3'), ('2001:db8::1', ''), ('198.51.100.0/24', ''), ('ams1-fra2', ''))
    """
    try:
        ipaddress.ip_network(entity, strict=False)
    except ValueError:
        node, _, resource = entity.partition(":")
        return node, resource
    return entity, ""


def word(system: str, alert: Alert) -> int | str:
    """Return the severity as another system calls it, its word for a clear where the alert is over."""
    return severity_for(system, "cleared" if is_over(alert) else alert.severity)


def rfc3339(ns: int) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def moment(ns: int) -> str:
    """Return a time as people read it.

    >>> moment(1_700_000_000_000_000_000)
    '14 Nov 22:13 UTC'
    """
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%d %b %H:%M} UTC"


def facts(alert: Alert) -> dict[str, str]:
    """Return what is known, by name and as text; what is empty, or held only until it was over, is left out."""
    told = alert.explain
    named = {
        "alarm_id": alert.id,
        "kind": alert.kind,
        "entity": alert.entity,
        "severity": alert.severity,
        "state": alert.state,
        "event_type": alert.event_type,
        "probable_cause": alert.probable_cause,
        "since": rfc3339(alert.raised_ns) if alert.raised_ns else "",
        "changed": rfc3339(alert.changed_ns),
        "cleared": rfc3339(alert.cleared_ns) if alert.cleared_ns else "",
        "occurrence": str(alert.occurrence),
        "trend": told.get("trend", ""),
        "sure": told.get("sure", ""),
        "actual": _amount(told, "actual"),
        "expected": _amount(told, "expected"),
        "band": _band(told.get("band"), str(told.get("unit", ""))),
        "why": texts(told.get("why")),
        "causes": texts(told.get("causes")),
        "touches": texts(told.get("touches")),
        "do": told.get("do", ""),
        "before": texts(told.get("changed_before")),
        "owner": told.get("owner", ""),
        "runbook": told.get("runbook", ""),
        "picture": told.get("picture", ""),
        "short": told.get("short", ""),
        "incident": alert.incident,
        "symptoms": texts(alert.symptoms),
        "alarms": str(alert.alarms_count) if alert.alarms_count > 1 else "",
        "operator": alert.operator,
        "source": alert.source,
    }
    gone = WHILE_IT_LASTS if is_over(alert) else ()
    return {
        name: str(value)
        for name, value in named.items()
        if value not in ("", None) and name not in gone
    }


def texts(value: Any) -> str:
    """Return a list of an explain block as one text: its strings, or kind and entity of its causes."""
    if not isinstance(value, list | tuple):
        return "" if value is None else str(value)
    said = []
    for one in value:
        if isinstance(one, dict):
            name = " ".join(str(one[key]) for key in ("kind", "entity") if one.get(key))
            said.append(f"{name}: {one['why']}" if one.get("why") else name)
        else:
            said.append(str(one))
    return "; ".join(part for part in said if part)


def story(alert: Alert) -> str:
    """Return all of it as lines: for tickets and mail."""
    known = facts(alert)
    titled = (
        ("Where", "entity"), ("Since", "since"), ("Cleared", "cleared"), ("Sure", "sure"),
        ("Trend", "trend"), ("Actual", "actual"), ("Expected", "expected"), ("Band", "band"),
        ("Why", "why"), ("Before", "before"), ("Causes", "causes"), ("Touches", "touches"),
        ("Symptoms", "symptoms"), ("Owner", "owner"), ("Do", "do"), ("Runbook", "runbook"), ("Picture", "picture"),
        ("Severity", "severity"), ("State", "state"), ("Alarm", "alarm_id"), ("Incident", "incident"),
    )  # fmt: skip
    lines = [f"{title}: {known[name]}" for title, name in titled if name in known]
    return "\n".join([alert.title, "", *lines])


def _amount(told: dict[str, Any], name: str) -> str:
    value, unit = told.get(name), str(told.get("unit", ""))
    both = (told.get("actual"), told.get("expected"))
    if not isinstance(value, int | float) or not any(both):
        return ""
    return amount(value, unit)


def _band(value: Any, unit: str) -> str:
    if not isinstance(value, list | tuple) or len(value) != 2 or not any(value):
        return ""
    if not all(isinstance(one, int | float) for one in value):
        return ""
    return f"{amount(value[0], unit)} to {amount(value[1], unit)}"
