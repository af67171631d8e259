"""Alarms and incidents as lines: what `tocsin alarm list` prints."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def alarm_line(alarm: Mapping[str, Any]) -> str:
    """Return an alarm, a dictionary as the API shows it, as a line.

    >>> alarm_line({"id": "00000000000000ab", "severity": "major", "raised_ns": 0, "state": "raised",
    ...     "operator_state": "acknowledged", "operator": "ann", "suppressed": "", "title": "fan 2 of r1"})
    '00000000000000ab  major          1970-01-01 00:00  acknowledged by ann       fan 2 of r1'
    """
    return _line(alarm["id"], alarm["raised_ns"], _fate(alarm), alarm)


def incident_line(incident: Mapping[str, Any]) -> str:
    """Return an incident as a line, with how many alarms it has."""
    count = incident["alarms_count"]
    more = f" (+{count - 1} alarms)" if count > 1 else ""
    return _line(incident["incident_id"], incident["opened_ns"], _fate(incident), incident) + more


def _fate(one: Mapping[str, Any]) -> str:
    """Return what became of it: over, or hidden and why, or what an operator did."""
    if one["state"] in ("cleared", "closed"):
        return str(one["state"])
    if why := one.get("suppressed"):
        return str(why)
    done = one["operator_state"]
    return "" if done == "none" else f"{done} by {one['operator']}" if one["operator"] else done


def _line(name: str, since_ns: int, fate: str, one: Mapping[str, Any]) -> str:
    since = datetime.fromtimestamp(since_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{name}  {one['severity']:<13}  {since}  {fate:<24}  {one['title']}"
