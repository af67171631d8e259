"""Planned works from iCalendar files and the notices of carriers (BCOP maintnote) as windows.

A maintnote event names the circuit (`X-MAINTNOTE-OBJECT-ID`), how much it suffers and how far the
planning is; an ordinary calendar event names links, routers or sites in its LOCATION or SUMMARY.
Source: RFC 5545; "A Standard for Carrier Maintenance Notifications", BCOP, draft of the
maintenance notification working group.
"""

import email
import email.message
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from alerting.life.windows import MOMENT_NS_MAX
from telemetry.errors import ConfigError

# What icalendar and dateutil raise for what they cannot read, and we for what cannot be meant.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
STATUS_OVER = ("CANCELLED", "COMPLETED")
IMPACT_NONE = ("NO-IMPACT", "MAINTENANCE-MOVED")
REPEATS_MAX = 400  # of one event that are taken
SKIPPED_MAX = 100_000  # of one event, that were over before
YEAR = timedelta(days=400)
FILE_BYTES_MAX = 64 * 1024 * 1024
RULES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")  # how often planned works return


def read_works(
    path: Path, circuits: dict[str, str] | None = None, *, now_ns: int = 0
) -> list[dict[str, Any]]:
    """Return the windows of an .ics file, or of a mail that carries one, for action `maintenance`.

    `circuits` maps a carrier's circuit number to the link or router that it carries; one that is not
    among them counts as an entity of its own name. What returns by a rule and was over before `now_ns` is
    left out. Raises ConfigError where one event cannot be understood: then nothing of the file counts.
    """
    try:
        from icalendar import Calendar
    except ImportError as error:
        raise ConfigError("planned works are iCalendar: pip install 'tocsin[calendar]'") from error
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: more than {FILE_BYTES_MAX} bytes; no calendar is as large")
    made: list[dict[str, Any]] = []
    events = 0
    for part in _calendars(path, data):
        if b"BEGIN:VCALENDAR" not in part:
            raise ConfigError(f"{path}: no iCalendar: no BEGIN:VCALENDAR is in it")
        try:
            calendar = Calendar.from_ical(part)
        except UNREADABLE as error:
            raise ConfigError(f"{path}: no iCalendar that can be read: {error!s:.200}") from error
        # What is said of one occurrence alone counts over what its rule says, wherever it stands.
        for event in sorted(calendar.walk("VEVENT"), key=lambda event: "RECURRENCE-ID" in event):
            events += 1
            try:
                made += _windows(event, circuits or {}, now_ns)
            except UNREADABLE as error:
                who = f"event {events} ({event.get('UID', 'without UID')!s:.60})"
                raise ConfigError(
                    f"{path}: {who}: {error!s:.200}. Nothing was taken from it"
                ) from error
    if not events:
        raise ConfigError(f"{path}: no calendar event in it")
    return made


def take_folder(
    folder: Path,
    circuits: dict[str, str],
    act: Callable[[list[dict[str, Any]]], None],
    *,
    now_ns: int = 0,
) -> list[str]:
    """Hand the works of every file dropped in a folder to `act`; return a line on each.

    A file that was taken goes to `taken` below it, one that cannot be read, or that the node refuses, to
    `refused`; names that begin with a dot are files still being written.
    """
    said = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            windows = read_works(path, circuits, now_ns=now_ns)
            act(windows)  # where the node is away, the file stays for the next time
        except ConfigError as error:
            told = str(error)
            said.append(told if told.startswith(str(path)) else f"{path}: {told}")
            _move(path, folder / "refused")
            continue
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


def _windows(event: Any, circuits: dict[str, str], now_ns: int) -> list[dict[str, Any]]:
    provider = str(event.get("X-MAINTNOTE-PROVIDER", ""))
    number = str(event.get("X-MAINTNOTE-MAINTENANCE-ID", "") or event.get("UID", ""))
    status = str(event.get("X-MAINTNOTE-STATUS", "") or event.get("STATUS", "")).upper()
    impact = str(event.get("X-MAINTNOTE-IMPACT", "")).upper()
    name = f"{provider} {number}".strip()
    if "RECURRENCE-ID" in event:  # of one that returns by a rule: this occurrence
        _check(event, "RECURRENCE-ID")
        name = _occurrence(name, _moment(event["RECURRENCE-ID"]))
    base: dict[str, Any] = {
        "name": name,
        "reason": str(event.get("SUMMARY", ""))[:500],
        "by": provider or str(event.get("ORGANIZER", "")) or "calendar",
    }
    if status in STATUS_OVER or impact in IMPACT_NONE:
        if not name:
            raise ValueError("it is cancelled, and no UID says what")
        return [base | {"cancelled": True}]
    base["objects"] = [circuits.get(one, one) for one in _objects(event)]
    if not base["objects"]:
        raise ValueError(
            "it names nothing that is worked on: X-MAINTNOTE-OBJECT-ID, LOCATION or SUMMARY"
        )
    if "DTSTART" not in event:
        raise ValueError("it has no DTSTART")
    _check(event, "DTSTART", "DTEND", "DURATION", "RRULE", "EXDATE")
    start = _moment(event["DTSTART"])
    lasts_ns = _lasts_ns(event, start)
    if lasts_ns <= 0:
        raise ValueError("it ends before it begins")
    return [
        base
        | {
            "name": _occurrence(name, at) if "RRULE" in event else name,
            "start_ns": _ns(at),
            "end_ns": _ns(at) + lasts_ns,
        }
        for at in _starts(event, start, now_ns - lasts_ns)
    ]


def _occurrence(name: str, at: datetime) -> str:
    """Return the name of one of the windows of an event that returns: the same however often it is read."""
    return f"{name} #{at.astimezone(UTC):%Y%m%d%H%M}" if name else ""


def _check(event: Any, *names: str) -> None:
    """Raise ValueError where what says when it happens is there twice, or broken."""
    for name in names:
        if name != "EXDATE" and isinstance(event.get(name), list):
            raise ValueError(f"it has more than one {name}")
    for name, why in event.errors:
        if name in names:
            raise ValueError(f"{name}: {why}")


def _lasts_ns(event: Any, start: datetime) -> int:
    """Return how long an event lasts in real time, whatever local time does within it."""
    if "DTEND" in event:
        return _ns(_moment(event["DTEND"])) - _ns(start)
    if "DURATION" in event:
        seconds = float(event.decoded("DURATION").total_seconds())
    else:  # RFC 5545, 3.6.1: a day where it begins on a date
        all_day = not isinstance(event["DTSTART"].dt, datetime)
        seconds = 86_400.0 if all_day else 3_600.0
    return round(seconds) * 1_000_000_000


def _ns(at: datetime) -> int:
    """Return a moment as ns since 1970, or raise ValueError for one that no window can have."""
    found = round(at.timestamp()) * 1_000_000_000
    if not 0 <= found <= MOMENT_NS_MAX:
        raise ValueError(f"{at:%Y-%m-%d} is before 1970 or after 2116")
    return found


def _objects(event: Any) -> list[str]:
    ids = event.get("X-MAINTNOTE-OBJECT-ID")
    if ids is None:
        words = str(event.get("LOCATION", "") or event.get("SUMMARY", ""))
        return [word.strip() for word in re.split(r"[,;\s]+", words) if word.strip()]
    return [str(one) for one in (ids if isinstance(ids, list) else [ids])]


def _starts(event: Any, start: datetime, since_ns: int) -> list[datetime]:
    """Return when the event happens: once, or by its rule, in the year or so after a moment."""
    rule = event.get("RRULE")
    if rule is None:
        return [start]
    from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

    often, every = rule.get("FREQ", [""])[0], rule.get("INTERVAL", [1])[0]
    if often not in RULES or every < 1:
        raise ValueError(
            f"RRULE: planned works return by FREQ={', '.join(RULES)}, not {often} each {every}"
        )
    if "UNTIL" in rule:
        rule["UNTIL"] = [_until(rule["UNTIL"][0], start)]
    left_out = _left_out(event)
    since = max(start, datetime.fromtimestamp(max(since_ns, 0) // 1_000_000_000, UTC))
    found: list[datetime] = []
    for skipped, at in enumerate(rrulestr(rule.to_ical().decode(), dtstart=start)):
        if at > since + YEAR or len(found) == REPEATS_MAX:
            break
        if skipped == SKIPPED_MAX:
            raise ValueError(f"RRULE: more than {SKIPPED_MAX} times before now; begin it later")
        if at >= since and at.timestamp() not in left_out:
            found.append(at)
    return found


def _until(until: date | datetime, start: datetime) -> datetime:
    """Return the end of a rule in UTC, as dateutil wants it; a day counts whole, in the event's own zone."""
    if not isinstance(until, datetime):
        until = datetime(until.year, until.month, until.day, 23, 59, 59)  # noqa: DTZ001  # below
    return (until if until.tzinfo else until.replace(tzinfo=start.tzinfo)).astimezone(UTC)


def _left_out(event: Any) -> set[float]:
    """Return the starts that a rule's exceptions (EXDATE) take out."""
    lists = event.get("EXDATE", [])
    lists = lists if isinstance(lists, list) else [lists]
    return {_moment(one, dates.params).timestamp() for dates in lists for one in dates.dts}


def _moment(value: Any, params: Mapping[str, str] | None = None) -> datetime:
    """Return a moment of an event; a day begins at 00:00 UTC, a time of no zone is UTC's."""
    at = value.dt
    if not isinstance(at, datetime):
        return datetime(at.year, at.month, at.day, tzinfo=UTC)
    zone = (value.params if params is None else params).get("TZID")
    if at.tzinfo is None and zone:  # Tocsin would be hours off and nobody would know
        raise ValueError(f"the zone {zone[:40]!r} is none that is known here, or in the file")
    return at if at.tzinfo else at.replace(tzinfo=UTC)
