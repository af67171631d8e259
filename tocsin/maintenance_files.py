"""Planned works from iCalendar files and the notices of carriers (BCOP maintnote) as windows.

A maintnote event names the circuit (`X-MAINTNOTE-OBJECT-ID`), how much it suffers and how far the
planning is; an ordinary calendar event names links, routers or sites in its LOCATION or SUMMARY.
Source: RFC 5545; "A Standard for Carrier Maintenance Notifications", BCOP, draft of the
maintenance notification working group.
"""

import email
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from telemetry.errors import ConfigError

STATUS_OVER = ("CANCELLED", "COMPLETED")
IMPACT_NONE = ("NO-IMPACT", "MAINTENANCE-MOVED")
REPEATS_MAX = 400
YEAR = timedelta(days=400)


def read_works(path: Path, circuits: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Return the windows of an .ics file, or of a mail that carries one, for action `maintenance`.

    `circuits` maps a carrier's circuit number to the link or router that it carries; one that is not
    among them counts as an entity of its own name.
    """
    try:
        from icalendar import Calendar
    except ImportError as error:
        raise ConfigError("planned works are iCalendar: pip install 'tocsin[calendar]'") from error
    data = path.read_bytes()
    made: list[dict[str, Any]] = []
    for part in _calendars(data):
        try:
            calendar = Calendar.from_ical(part)
        except (ValueError, IndexError, KeyError) as error:
            raise ConfigError(f"{path}: no iCalendar that can be read: {error}") from error
        for event in calendar.walk("VEVENT"):
            made += _windows(event, circuits or {})
    if not made:
        raise ConfigError(f"{path}: no calendar event in it")
    return made


def _calendars(data: bytes) -> Iterable[bytes]:
    if b"BEGIN:VCALENDAR" in data[:4096] and not re.match(rb"[A-Za-z-]+: ", data):
        return [data]
    mail = email.message_from_bytes(data)
    found = [
        part.get_payload(decode=True)
        for part in mail.walk()
        if part.get_content_type() in ("text/calendar", "application/ics")
    ]
    return [part for part in found if isinstance(part, bytes)] or [data]


def _windows(event: Any, circuits: dict[str, str]) -> list[dict[str, Any]]:
    provider = str(event.get("X-MAINTNOTE-PROVIDER", ""))
    number = str(event.get("X-MAINTNOTE-MAINTENANCE-ID", "") or event.get("UID", ""))
    status = str(event.get("X-MAINTNOTE-STATUS", "") or event.get("STATUS", "")).upper()
    impact = str(event.get("X-MAINTNOTE-IMPACT", "")).upper()
    name = f"{provider} {number}".strip()
    base: dict[str, Any] = {
        "name": name,
        "reason": str(event.get("SUMMARY", ""))[:500],
        "by": provider or str(event.get("ORGANIZER", "")) or "calendar",
    }
    if status in STATUS_OVER or impact in IMPACT_NONE:
        return [base | {"cancelled": True}]
    base["objects"] = [circuits.get(one, one) for one in _objects(event)]
    start = _moment(event.decoded("DTSTART"))
    end = _moment(event.decoded("DTEND")) if "DTEND" in event else start + timedelta(hours=1)
    return [
        base
        | {
            "name": name if i == 0 else f"{name} #{i + 1}",
            "start_ns": round(at.timestamp()) * 1_000_000_000,
            "end_ns": round((at + (end - start)).timestamp()) * 1_000_000_000,
        }
        for i, at in enumerate(_starts(event, start))
    ]


def _objects(event: Any) -> list[str]:
    ids = event.get("X-MAINTNOTE-OBJECT-ID")
    if ids is None:
        words = str(event.get("LOCATION", "") or event.get("SUMMARY", ""))
        return [word.strip() for word in re.split(r"[,;\s]+", words) if word.strip()]
    return [str(one) for one in (ids if isinstance(ids, list) else [ids])]


def _starts(event: Any, start: datetime) -> list[datetime]:
    """Return when the event happens: once, or by its rule within the next year or so."""
    rule = event.get("RRULE")
    if rule is None:
        return [start]
    from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

    # A rule may end in UTC while the start is local time: both are compared in UTC.
    found = rrulestr(rule.to_ical().decode(), dtstart=start).between(
        start - timedelta(seconds=1), start + YEAR, inc=True
    )
    return list(found)[:REPEATS_MAX]


def _moment(value: date | datetime) -> datetime:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
