"""Planned works, silences and shelved alarms: spans of time in which alarms are told to nobody.

A hidden alarm lives on: it is raised, stored, cleared. When its window ends and it is still up, it
is told then ("maintenance that overruns"). A window that is entered late counts at once for what is
up already.
"""

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from alerting.config import MaintenanceSettings
from alerting.records.alarm import NEVER_NS, Alarm
from alerting.records.places import Place
from telemetry.errors import ConfigError
from telemetry.identity import id_text
from telemetry.zones import zone_of

PLANNED_WORK, SILENCE, SHELVED, OUT_OF_SERVICE = (
    "planned-work",
    "silence",
    "shelved",
    "out-of-service",
)
CONFIGURATION = "configuration"  # who a window is by that stands there
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOMENT_NS_MAX = 1 << 62  # in the year 2116
WEEK_NS = 7 * 86_400_000_000_000
FORGOTTEN_AFTER_NS = 86_400_000_000_000  # a window that is over is a suspect for so long
Moment = Annotated[int, msgspec.Meta(ge=-MOMENT_NS_MAX, le=NEVER_NS)]


class Window(msgspec.Struct):
    """One span, or one that returns each week, and which alarms it is about.

    Where: one of its nodes, links or entities, everywhere if it names none. Which: every list of
    alarms (ids), kinds and sources that is not empty must match, and none of `spared` is meant.
    """

    name: str  # unique: an operator's action or the notice's id
    kind: str
    start_ns: Moment
    end_ns: Moment  # of the first span where it returns weekly; NEVER_NS = until it is ended
    days: tuple[str, ...] = ()
    zone: str = "UTC"
    until_ns: Moment = NEVER_NS  # of the last span
    nodes: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    alarms: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    reason: str = ""
    by: str = ""
    spared: tuple[int, ...] = ()  # alarms that were taken out of it by hand
    ended_ns: Moment = 0  # when it was last ended early: the span that had begun by then is over

    def check(self) -> None:
        """Raise ConfigError for a window that cannot be."""
        for at_ns in (self.start_ns, self.end_ns, self.until_ns):
            if not (abs(at_ns) <= MOMENT_NS_MAX or at_ns == NEVER_NS):
                raise ConfigError("it begins before 1824 or ends after 2116")
        zone_of(self.zone)
        if unknown := [day for day in self.days if day not in DAYS]:
            raise ConfigError(f"{unknown[0]!r} is no day: {', '.join(DAYS)}")
        if self.days and self.end_ns - self.start_ns > WEEK_NS:
            raise ConfigError("what returns each week must end within a week")

    def span(self, now_ns: int) -> tuple[int, int] | None:
        """Return the span (start, end) that goes on at a time, None between spans."""
        starts: Iterable[int] = (self.start_ns,)
        if self.days:
            starts = self._starts(now_ns, days_back=self._days_long() + 1, days_on=1)
        for start_ns in starts:
            end_ns = start_ns + self.end_ns - self.start_ns
            if start_ns <= self.ended_ns:
                end_ns = min(end_ns, self.ended_ns)
            if start_ns <= now_ns < end_ns and start_ns < self.until_ns:
                return start_ns, end_ns
        return None

    def next_change_ns(self, now_ns: int) -> int:
        """Return when it next begins or ends after a time, NEVER_NS where it is over."""
        going = self.span(now_ns)
        if going is not None:
            return going[1]
        if not self.days:
            return self.start_ns if now_ns < self.start_ns else NEVER_NS
        starts = (at for at in self._starts(now_ns, days_back=0, days_on=8) if at > now_ns)
        begins = min(starts, default=NEVER_NS)
        return begins if begins < self.until_ns else NEVER_NS

    def matches(self, alarm: Alarm, place: Place) -> bool:
        """Whether it is about an alarm at this place."""
        here = (
            not (self.nodes or self.links or self.entities)
            or any(node in self.nodes for node in place.nodes)
            or place.link in self.links
            or alarm.entity in self.entities
        )
        return (
            here
            and (not self.alarms or alarm.id in self.alarms)
            and alarm.id not in self.spared
            and (not self.kinds or alarm.kind in self.kinds)
            and (not self.sources or alarm.source in self.sources)
        )

    def about(self, names: Mapping[int, str] = MappingProxyType({})) -> list[str]:
        """Return what it hides, a name each: places first, then which alarms there, by id and, where `names` has
        it, by name; `all alarms` for all."""
        alarms = [
            f"alarm {id_text(one)}" + (f" {names[one]}" if one in names else "")
            for one in self.alarms
            if one not in self.spared
        ]
        sources = [f"source {name}" for name in self.sources]
        named = [*self.nodes, *self.links, *self.entities, *alarms, *self.kinds, *sources]
        return named or ["all alarms"]

    def _days_long(self) -> int:
        return (self.end_ns - self.start_ns) // 86_400_000_000_000

    def _starts(self, now_ns: int, *, days_back: int, days_on: int) -> Iterable[int]:
        # Local wall-clock time: 02:00 stays 02:00 when summer time begins.
        zone = zone_of(self.zone)
        first = datetime.fromtimestamp(self.start_ns // 1_000_000_000, zone)
        today = datetime.fromtimestamp(now_ns // 1_000_000_000, zone).date()
        for day in range(-days_back, days_on + 1):
            date = today + timedelta(days=day)
            if DAYS[date.weekday()] in self.days:
                at = datetime.combine(date, first.timetz().replace(tzinfo=None), zone)
                start_ns = round(at.astimezone(UTC).timestamp()) * 1_000_000_000
                if start_ns >= self.start_ns:
                    yield start_ns


class Windows:
    """All windows, bounded, with the next moment at which one begins or ends."""

    def __init__(self, windows_max: int) -> None:
        self._most = windows_max
        self._all: dict[str, Window] = {}
        self._going: dict[str, tuple[int, Window]] = {}  # with the end of the span that goes on
        self._changes: list[tuple[int, str]] = []
        self._moved = False  # one began or ended by an action, not by time

    def put(self, window: Window, now_ns: int) -> bool:
        """Keep a window in place of the one of its name; return False where there is no room.

        Raises ConfigError for one that cannot be, and keeps nothing then.
        """
        window.check()
        if window.name not in self._all and len(self._all) >= self._most:
            self._forget(now_ns)
            if len(self._all) >= self._most:
                return False
        self._all[window.name] = window
        self._moved |= self._goes_on(window, now_ns)
        self._schedule(window, now_ns)
        return True

    def _goes_on(self, window: Window, now_ns: int) -> bool:
        """Note whether a window is on now; return whether it is, or was until now."""
        was = self._going.pop(window.name, None) is not None
        if (span := window.span(now_ns)) is not None:
            self._going[window.name] = span[1], window
        return was or span is not None

    def has_room(self, windows: Sequence[Window], now_ns: int) -> bool:
        """Whether there is room for these beside those that are kept."""
        new = {window.name for window in windows} - self._all.keys()
        more = len(self._all) + len(new) - self._most
        return more <= 0 or more <= sum(self._may_go(one, now_ns) for one in self._all.values())

    def end(self, name: str, now_ns: int, *, for_good: bool = False) -> bool:
        """End a window early; return whether there was one of this name.

        One that returns each week does so again, but where it is not on or `for_good`. What the
        configuration plans is ended while it is on: before that, it is to be changed there.
        """
        window = self._all.get(name)
        if window is None:
            return False
        if window.span(now_ns) is not None:
            window.ended_ns = now_ns
            if not window.days:
                window.end_ns = now_ns
            elif for_good:
                window.until_ns = now_ns
        elif window.by == CONFIGURATION:
            return False
        else:
            del self._all[name]
        self._moved |= self._going.pop(name, None) is not None
        return True

    def spare(self, name: str, alarms: Iterable[int], now_ns: int) -> None:
        """Take alarms out of a window; one that is about no others is over."""
        window = self._all[name]
        window.spared = (*window.spared, *alarms)
        self._moved = True
        if window.alarms and not set(window.alarms) - set(window.spared):
            self.end(name, now_ns, for_good=True)

    def end_all(self, name: str, now_ns: int) -> None:
        """End a work, with all its windows where it returns by a rule: `NAME #202612010100`, ..."""
        for one in list(self._all):
            if one == name or (one.startswith(f"{name} #") and one[len(name) + 2 :].isdigit()):
                self.end(one, now_ns, for_good=True)

    @property
    def due_ns(self) -> int:
        """When the next window begins or ends."""
        return self._changes[0][0] if self._changes else NEVER_NS

    def move_on(self, now_ns: int) -> bool:
        """Let time pass; return whether a window began or ended since it was last asked."""
        moved, self._moved = self._moved, False
        while self._changes and self._changes[0][0] <= now_ns:
            _, name = heapq.heappop(self._changes)
            window = self._all.get(name)
            if window is None:
                continue
            moved = True
            self._goes_on(window, now_ns)
            self._schedule(window, now_ns)
        if moved:
            self._forget(now_ns)
        return moved

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self._all)

    @property
    def going(self) -> bool:
        """Whether any is on now."""
        return bool(self._going)

    def over(self, alarm: Alarm, place: Place) -> Window | None:
        """Return the window that hides an alarm now, None where none does: of several that which ends last."""
        found = (one for one in self._going.values() if one[1].matches(alarm, place))
        last = max(found, key=lambda one: (one[0], one[1].name), default=None)
        return last[1] if last else None

    def shelving(self, alarm: Alarm, place: Place) -> list[str]:
        """Return the names of the windows by which an alarm is shelved now, also where another hides it."""
        going = (one for _, one in self._going.values() if one.kind == SHELVED)
        return [one.name for one in going if one.matches(alarm, place)]

    def near(self, alarm: Alarm, place: Place, now_ns: int, within_ns: int) -> list[Window]:
        """Return planned works about an alarm that go on, or ended not longer ago than `within_ns`."""
        return [
            window
            for window in self._all.values()
            if window.kind == PLANNED_WORK
            and window.matches(alarm, place)
            and (window.span(now_ns) or window.span(now_ns - within_ns))
        ]

    def all(self) -> list[Window]:
        """Return every window, in the order in which they came."""
        return list(self._all.values())

    def _schedule(self, window: Window, now_ns: int) -> None:
        at = window.next_change_ns(now_ns)
        if at != NEVER_NS:
            heapq.heappush(self._changes, (at, window.name))
        if len(self._changes) > 2 * self._most:  # of windows that were put again and again
            kept = {name: at for at, name in sorted(self._changes, reverse=True)}
            self._changes = sorted((at, name) for name, at in kept.items())

    def _forget(self, now_ns: int) -> None:
        for name, window in list(self._all.items()):
            if self._may_go(window, now_ns):
                del self._all[name]

    def _may_go(self, window: Window, now_ns: int) -> bool:
        over = window.name not in self._going and window.next_change_ns(now_ns) == NEVER_NS
        return over and now_ns - max(window.end_ns, window.ended_ns) >= FORGOTTEN_AFTER_NS

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return list(self._all.values())

    def restore(self, kept: Any, now_ns: int) -> list[str]:
        """Take the windows back, as they stood at a time; return what was wrong with those that cannot be.

        Those of the configuration are as it says now; what was ended early of them stays over.
        """
        refused = []
        for fields in kept:
            try:
                window = msgspec.convert(fields, Window)
                if window.by != CONFIGURATION:
                    self.put(window, now_ns)
                elif (same := self._all.get(window.name)) and same.by == CONFIGURATION:
                    # A checkpoint of before `ended_ns` has the end of one that was ended early in `until_ns`.
                    before_ns = window.until_ns if window.until_ns != NEVER_NS else 0
                    same.spared, same.ended_ns = window.spared, window.ended_ns or before_ns
                    self.put(same, now_ns)
            except (msgspec.ValidationError, ConfigError) as error:
                refused.append(f"{fields!r:.200}: {error}")
        return refused


def planned(name: str, work: MaintenanceSettings) -> Window:
    """Return the window of `[alerting.maintenance.<name>]`, or raise ConfigError with its key.

    Which nodes its sites have, and what is behind them, the map says.
    """
    # One that returns each week needs a time of day alone: its first day may be any in the past.
    start = f"1970-01-05T{work.start}" if work.days else work.start
    if work.days and not re.fullmatch(r"\d\d:\d\d(:\d\d)?", work.start):
        raise ConfigError(
            f"alerting.maintenance.{name}.start = {work.start!r}: with days it is a time of day: 02:00"
        )
    try:
        start_ns = moment_ns(start, work.zone)
        window = Window(
            name, PLANNED_WORK, start_ns, start_ns + work.minutes * 60_000_000_000, days=work.days,
            zone=work.zone, nodes=work.routers, links=work.links, kinds=work.kinds,
            reason=work.reason, by=CONFIGURATION,
        )  # fmt: skip
        window.check()
    except ConfigError as error:
        raise ConfigError(f"alerting.maintenance.{name}: {error}") from error
    return window


def moment_ns(text: str, zone: str = "UTC") -> int:
    """Return a moment written as ISO 8601 in ns; one without an offset is of `zone`."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone_of(zone))
        return round(at.timestamp()) * 1_000_000_000
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{text[:40]!r} is no time: write 2026-12-01T02:00:00+01:00") from error
