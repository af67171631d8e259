"""Planned works from iCalendar files and the notices of carriers (BCOP maintnote) as windows.

A maintnote event names the circuit (`X-MAINTNOTE-OBJECT-ID`), how much it suffers and how far the
planning is; an ordinary calendar event names links, routers or sites in its LOCATION or SUMMARY.
Source: RFC 5545; "A Standard for Carrier Maintenance Notifications", BCOP, draft of the
maintenance notification working group.
"""

import contextlib
import email
import email.message
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

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
        found, count = _works(path, calendar, circuits or {}, now_ns, events)
        made += found
        events += count
    if not events:
        raise ConfigError(f"{path}: no calendar event in it")
    return made


def _works(
    path: Path, calendar: Any, circuits: dict[str, str], now_ns: int, before: int
) -> tuple[list[dict[str, Any]], int]:
    """Return the windows of one calendar, and how many events it has; before it there were `before`."""
    cancelled = str(calendar.get("METHOD", "")).upper() == "CANCEL"  # RFC 5546, 3.2.5
    # What is said of one occurrence alone counts over what its rule says, wherever it stands.
    events = sorted(calendar.walk("VEVENT"), key=lambda event: "RECURRENCE-ID" in event)
    whole: dict[str, Any] = {}  # the event itself, by its name
    changes: dict[str, list[Change]] = {}  # of its occurrences from one on
    made: list[dict[str, Any]] = []
    for number, event in enumerate(events, before + 1):
        with _told(path, number, event):
            if "RECURRENCE-ID" not in event:
                whole[_name(event)] = event
            elif _reaches_on(event):
                change = _change(event, whole, circuits, cancelled=cancelled)
                changes.setdefault(_name(event), []).append(change)
    for number, event in enumerate(events, before + 1):
        with _told(path, number, event):
            later: list[Change] = []
            if "RECURRENCE-ID" not in event:
                later = changes.get(_name(event), [])
            elif _reaches_on(event):
                continue
            about = _about(event, circuits, whole.get(_name(event)), cancelled=cancelled)
            made += _windows(event, about, later, now_ns)
    return made, len(events)


@contextlib.contextmanager
def _told(path: Path, number: int, event: Any) -> Iterator[None]:
    """Say which event of which file it is that cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        who = f"event {number} ({event.get('UID', 'without UID')!s:.60})"
        raise ConfigError(f"{path}: {who}: {error!s:.200}. Nothing was taken from it") from error


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


class Change(NamedTuple):
    """What an event says of the occurrences of another from one on (RANGE=THISANDFUTURE)."""

    since: float  # of which one, as it would have begun, in s since 1970
    about: dict[str, Any]
    shift: timedelta  # by the clock of the event's zone
    lasts_ns: int


def _name(event: Any) -> str:
    provider = str(event.get("X-MAINTNOTE-PROVIDER", ""))
    number = str(event.get("X-MAINTNOTE-MAINTENANCE-ID", "") or event.get("UID", ""))
    return f"{provider} {number}".strip()


def _about(event: Any, circuits: dict[str, str], whole: Any, *, cancelled: bool) -> dict[str, Any]:
    """Return what is worked on and why, or that it is cancelled."""
    status = str(event.get("X-MAINTNOTE-STATUS", "") or event.get("STATUS", "")).upper()
    impact = str(event.get("X-MAINTNOTE-IMPACT", "")).upper()
    name = _name(event)
    if "RECURRENCE-ID" in event:  # of one that returns by a rule: this occurrence
        name = _occurrence(name, _which(event, whole))
    provider = str(event.get("X-MAINTNOTE-PROVIDER", ""))
    base: dict[str, Any] = {
        "name": name,
        "reason": str(event.get("SUMMARY", ""))[:500],
        "by": provider or str(event.get("ORGANIZER", "")) or "calendar",
    }
    if cancelled or status in STATUS_OVER or impact in IMPACT_NONE:
        if not name:
            raise ValueError("it is cancelled, and no UID says what")
        return base | {"cancelled": True}
    base["objects"] = [circuits.get(one, one) for one in _objects(event)]
    if not base["objects"]:
        raise ValueError(
            "it names nothing that is worked on: X-MAINTNOTE-OBJECT-ID, LOCATION or SUMMARY"
        )
    return base


def _which(event: Any, whole: Any) -> datetime:
    """Return which occurrence an event is about; one named by its day begins when all of them do."""
    _check(event, "RECURRENCE-ID")
    day = event["RECURRENCE-ID"].dt
    if (
        whole is not None
        and not isinstance(day, datetime)
        and isinstance(whole["DTSTART"].dt, datetime)
    ):
        start = _moment(whole["DTSTART"])
        return start.replace(year=day.year, month=day.month, day=day.day)
    return _moment(event["RECURRENCE-ID"])


def _reaches_on(event: Any) -> bool:
    """Return whether an event is about one occurrence and all after it."""
    reach = str(event["RECURRENCE-ID"].params.get("RANGE", "")).upper()
    if reach not in ("", "THISANDFUTURE"):
        raise ValueError(f"RECURRENCE-ID with RANGE={reach} is not read; name each occurrence")
    return bool(reach)


def _change(
    event: Any, whole: Mapping[str, Any], circuits: dict[str, str], *, cancelled: bool
) -> Change:
    """Return what an event says of the occurrences from one on."""
    one = whole.get(_name(event))
    if one is None or not ("RRULE" in one or "RDATE" in one):
        raise ValueError(
            "RECURRENCE-ID with RANGE=THISANDFUTURE: the event that returns is not in the file; send both"
        )
    about, since = _about(event, circuits, one, cancelled=cancelled), _which(event, one)
    if about.get("cancelled"):
        return Change(since.timestamp(), about, timedelta(0), 0)
    start, lasts_ns = _time(event)
    zone = _moment(one["DTSTART"]).tzinfo
    by_clock = [at.astimezone(zone).replace(tzinfo=None) for at in (start, since)]
    return Change(since.timestamp(), about, by_clock[0] - by_clock[1], lasts_ns)


def _time(event: Any) -> tuple[datetime, int]:
    """Return when an event begins and how long it lasts, in ns."""
    if "DTSTART" not in event:
        raise ValueError("it has no DTSTART")
    _check(event, "DTSTART", "DTEND", "DURATION", "RRULE", "EXDATE", "RDATE")
    if "EXRULE" in event:
        raise ValueError(
            "EXRULE is not read, RFC 5545 has it no more; name what it leaves out in EXDATE"
        )
    start = _moment(event["DTSTART"])
    lasts_ns = _lasts_ns(event, start)
    if lasts_ns <= 0:
        raise ValueError("it ends before it begins")
    return start, lasts_ns


def _windows(
    event: Any, about: dict[str, Any], changes: list[Change], now_ns: int
) -> list[dict[str, Any]]:
    """Return the windows of one event, changed from some of its occurrences on."""
    if about.get("cancelled"):
        return [about]
    start, lasts_ns = _time(event)
    longest_ns = max(
        [lasts_ns, *(one.lasts_ns + round(one.shift.total_seconds() * 1e9) for one in changes)]
    )
    returns = "RRULE" in event or "RDATE" in event
    made = []
    for at, own_ns in _starts(event, start, now_ns - longest_ns):
        name = _occurrence(about["name"], at) if returns else about["name"]
        reach = max(
            (one for one in changes if one.since <= at.timestamp()),
            key=lambda one: one.since, default=None,
        )  # fmt: skip
        if reach is not None and reach.about.get("cancelled"):
            made.append(reach.about | {"name": name})
            continue
        begins, says, long_ns = at, about, own_ns or lasts_ns
        if reach is not None:
            begins, says, long_ns = at + reach.shift, reach.about, reach.lasts_ns
        made.append(says | {"name": name, "start_ns": _ns(begins), "end_ns": _ns(begins) + long_ns})
    return made


def _occurrence(name: str, at: datetime) -> str:
    """Return the name of one of the windows of an event that returns: the same however often it is read."""
    return f"{name} #{at.astimezone(UTC):%Y%m%d%H%M}" if name else ""


def _check(event: Any, *names: str) -> None:
    """Raise ValueError where what says when it happens is there twice, or broken."""
    for name in names:
        if name not in ("EXDATE", "RDATE") and isinstance(event.get(name), list):
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


def _starts(event: Any, start: datetime, since_ns: int) -> list[tuple[datetime, int]]:
    """Return when the event happens, and how long where a date says so itself (else 0).

    Once, or by its rule and dates, in the year or so after a moment.
    """
    if "RRULE" not in event and "RDATE" not in event:
        return [(start, 0)]
    since = max(start, datetime.fromtimestamp(max(since_ns, 0) // 1_000_000_000, UTC))
    found = {at.timestamp(): (at, 0) for at in _by_rule(event, start, since)}
    for at, lasts_ns in _by_dates(event):
        if since <= at <= since + YEAR:
            found[at.timestamp()] = at, lasts_ns
    out, days = _left_out(event)
    left = [
        (at, lasts_ns) for stamp, (at, lasts_ns) in sorted(found.items())
        if stamp not in out and at.astimezone(start.tzinfo).date() not in days
    ]  # fmt: skip
    return left[:REPEATS_MAX]


def _by_rule(event: Any, start: datetime, since: datetime) -> Iterator[datetime]:
    """Yield the start, and what a rule makes of it, from a moment on for a year or so."""
    rule = event.get("RRULE")
    if rule is None:
        if start >= since:
            yield start
        return
    from dateutil.rrule import rrulestr  # type: ignore[import-untyped]

    often, every = rule.get("FREQ", [""])[0], rule.get("INTERVAL", [1])[0]
    if often not in RULES or every < 1:
        raise ValueError(
            f"RRULE: planned works return by FREQ={', '.join(RULES)}, not {often} each {every}"
        )
    if "UNTIL" in rule:
        rule["UNTIL"] = [_until(rule["UNTIL"][0], start)]
    taken = 0
    for skipped, at in enumerate(rrulestr(rule.to_ical().decode(), dtstart=start)):
        if not skipped and at != start:
            raise ValueError(
                "RRULE: DTSTART is none of the times that it names, and RFC 5545 leaves open what that "
                "means; begin at the first of them"
            )
        if at > since + YEAR or taken == 2 * REPEATS_MAX:  # some may be left out
            return
        if skipped == SKIPPED_MAX:
            raise ValueError(f"RRULE: more than {SKIPPED_MAX} times before now; begin it later")
        if at >= since:
            taken += 1
            yield at


def _by_dates(event: Any) -> Iterator[tuple[datetime, int]]:
    """Yield what RDATE adds: when, and how long where it is a period (else 0)."""
    timed = isinstance(event["DTSTART"].dt, datetime)
    for dates in _lists(event, "RDATE"):
        for one in dates.dts:
            lasts_ns, begins = 0, one.dt
            if isinstance(begins, tuple):
                begins, end = begins
                lasts = end if isinstance(end, timedelta) else end - begins
                lasts_ns = round(lasts.total_seconds()) * 1_000_000_000
                if lasts_ns <= 0:
                    raise ValueError("RDATE: a period ends before it begins")
            if timed and not isinstance(begins, datetime):
                raise ValueError(
                    f"RDATE: {begins} has no time, and DTSTART has one; write the time"
                )
            yield _aware(begins, dates.params.get("TZID")), lasts_ns


def _lists(event: Any, name: str) -> list[Any]:
    lists = event.get(name, [])
    return lists if isinstance(lists, list) else [lists]


def _until(until: date | datetime, start: datetime) -> datetime:
    """Return the end of a rule in UTC, as dateutil wants it; a day counts whole, in the event's own zone."""
    if not isinstance(until, datetime):
        until = datetime(until.year, until.month, until.day, 23, 59, 59)  # noqa: DTZ001  # below
    return (until if until.tzinfo else until.replace(tzinfo=start.tzinfo)).astimezone(UTC)


def _left_out(event: Any) -> tuple[set[float], set[date]]:
    """Return the starts that exceptions (EXDATE) take out, and the days of which they take all."""
    timed = isinstance(event["DTSTART"].dt, datetime)
    starts: set[float] = set()
    days: set[date] = set()
    for dates in _lists(event, "EXDATE"):
        for one in dates.dts:
            if timed and not isinstance(one.dt, datetime):
                days.add(one.dt)
            else:
                starts.add(_aware(one.dt, dates.params.get("TZID")).timestamp())
    return starts, days


def _moment(value: Any) -> datetime:
    """Return a moment of an event."""
    return _aware(value.dt, value.params.get("TZID"))


def _aware(at: date | datetime, zone: str | None) -> datetime:
    """Return a moment in its zone; a day begins at 00:00 UTC, a time of no zone is UTC's."""
    if not isinstance(at, datetime):
        return datetime(at.year, at.month, at.day, tzinfo=UTC)
    if at.tzinfo is None and zone:  # Tocsin would be hours off and nobody would know
        raise ValueError(f"the zone {zone[:40]!r} is none that is known here, or in the file")
    return at if at.tzinfo else at.replace(tzinfo=UTC)
