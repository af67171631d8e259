"""Planned works from iCalendar files and the notices of carriers (BCOP maintnote) as windows.

A maintnote event names the circuit (`X-MAINTNOTE-OBJECT-ID`), how much it suffers and how far the
planning is; an ordinary calendar event names links, routers or sites in its LOCATION or SUMMARY.
Source: RFC 5545; "A Standard for Carrier Maintenance Notifications", BCOP, draft of the
maintenance notification working group.
"""

import email
import email.message
import re
from collections.abc import Callable, Iterable
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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    made: list[dict[str, Any]] = []
    for part in _calendars(path, data):
        try:
            calendar = Calendar.from_ical(part)
        except (ValueError, IndexError, KeyError) as error:
            raise ConfigError(f"{path}: no iCalendar that can be read: {error}") from error
        for event in calendar.walk("VEVENT"):
            made += _windows(event, circuits or {})
    if not made:
        raise ConfigError(f"{path}: no calendar event in it")
    return made


def take_folder(
    folder: Path, circuits: dict[str, str], act: Callable[[list[dict[str, Any]]], None]
) -> list[str]:
    """Hand the works of every file dropped in a folder to `act`; return a line on each.

    A file that was taken goes to `taken` below it, one that cannot be read to `refused`; names that
    begin with a dot are files still being written.
    """
    said = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            windows = read_works(path, circuits)
        except ConfigError as error:
            said.append(str(error))
            _move(path, folder / "refused")
            continue
        act(windows)  # where the node is away, the file stays for the next time
        said.append(f"{path}: {len(windows)} windows")
        _move(path, folder / "taken")
    return said


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)


def _calendars(path: Path, data: bytes) -> Iterable[bytes]:
    if b"BEGIN:VCALENDAR" in data[:4096] and not re.match(rb"[A-Za-z-]+: ", data):
        return [data]
    mail = email.message_from_bytes(data)
    parts = list(mail.walk())
    found = [part.get_payload(decode=True) for part in parts if _is_calendar(part)]
    if not found and any(part.get_content_type() == "text/html" for part in parts):
        raise ConfigError(
            f"{path}: a mail of HTML without a calendar; HTML is not read: ask its sender for the"
            " iCalendar of the BCOP maintnote, or write the work as .ics. Nothing was taken from it."
        )
    return [part for part in found if isinstance(part, bytes)] or [data]


def _is_calendar(part: email.message.Message) -> bool:
    named = str(part.get_filename() or "").lower().endswith(".ics")
    return named or part.get_content_type() in ("text/calendar", "application/ics")


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
    lasts_ns = _lasts_ns(event, start)
    return [
        base
        | {
            "name": name if i == 0 else f"{name} #{i + 1}",
            "start_ns": round(at.timestamp()) * 1_000_000_000,
            "end_ns": round(at.timestamp()) * 1_000_000_000 + lasts_ns,
        }
        for i, at in enumerate(_starts(event, start))
    ]


def _lasts_ns(event: Any, start: datetime) -> int:
    """Return how long an event lasts in real time, whatever local time does within it."""
    if "DTEND" in event:
        seconds = _moment(event.decoded("DTEND")).timestamp() - start.timestamp()
    elif "DURATION" in event:
        seconds = event.decoded("DURATION").total_seconds()
    else:  # RFC 5545, 3.6.1: a day where it begins on a date
        all_day = not isinstance(event.decoded("DTSTART"), datetime)
        seconds = 86_400.0 if all_day else 3_600.0
    return round(seconds) * 1_000_000_000


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
    left_out = _left_out(event)
    return [at for at in found if at.timestamp() not in left_out][:REPEATS_MAX]


def _left_out(event: Any) -> set[float]:
    """Return the starts that a rule's exceptions (EXDATE) take out."""
    lists = event.get("EXDATE", [])
    lists = lists if isinstance(lists, list) else [lists]
    return {_moment(one.dt).timestamp() for dates in lists for one in dates.dts}


def _moment(value: date | datetime) -> datetime:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
