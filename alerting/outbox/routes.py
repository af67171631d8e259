"""Who is told of what: a tree of routes, walked with an alert; no state, no clock but the alert's.

Without routes every sink is asked for itself (`least_severity`, `kinds`). With them the tree names
sinks, and a sink's own filter still holds. The time that counts is that of the change, so a replay
decides as the day itself did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from alerting.config import AlertingSettings, RouteSettings, SinkSettings, TimesSettings, any_of
from alerting.outbox.bundles import LABELS
from alerting.words.alert import Envelope
from alerting.words.delivery import wants
from telemetry.errors import ConfigError
from telemetry.zones import zone_of

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
DECISIONS_KEPT = 1_000
# What keeps each alert or acts on it: a group is nothing to them.
UNGROUPED = (
    "alertmanager", "command", "diagnostics", "netcool", "servicenow-incident", "tmf621", "tmf642",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the week in one time zone."""

    days: tuple[int, ...]
    start: int  # minutes of the day
    end: int
    zone: tzinfo

    def __contains__(self, time_ns: int) -> bool:
        at = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).astimezone(self.zone)
        minute = at.hour * 60 + at.minute
        if self.start <= self.end:
            return at.weekday() in self.days and self.start <= minute < self.end
        # Past midnight: the small hours belong to the day on which they began.
        began = at if minute >= self.start else at - timedelta(days=1)
        return began.weekday() in self.days and (minute >= self.start or minute < self.end)


@dataclass(slots=True)
class _Route:
    name: str
    settings: RouteSettings
    hours: list[Hours]
    below: list["_Route"] = field(default_factory=list)

    def matches(self, alert: Envelope) -> bool:
        wanted = self.settings
        return (
            (not wanted.severities or alert.severity in wanted.severities)
            and any_of(wanted.kinds, alert.kind)
            and any_of(wanted.entities, alert.entity)
            and any_of(wanted.sources, alert.source)
            and any_of(wanted.event_types, alert.event_type)
            and (not self.hours or any(alert.changed_ns in hours for hours in self.hours))
        )


class Decision(msgspec.Struct, frozen=True):
    """What the tree says of an alert: sinks, whom to tell later, and the routes that said so."""

    sinks: tuple[str, ...]
    escalations: tuple[tuple[float, str], ...] = ()  # (minutes without acknowledgement, sink)
    path: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()  # sinks that are named and whose own filter does not take it
    groups: dict[str, RouteSettings] = {}  # sink: how it is grouped there


class Router:
    """The tree of one configuration. Raises ConfigError where a name leads nowhere."""

    def __init__(self, settings: AlertingSettings) -> None:
        self._sinks = settings.sinks
        times = {name: _hours(name, one) for name, one in settings.times.items()}
        routes = {
            name: _Route(name, route, [_named(times, t, f"{name}.times") for t in route.times])
            for name, route in settings.routes.items()
        }
        self._roots: list[_Route] = []
        self._known: dict[tuple[str, str], Decision] = {}
        for name, route in routes.items():
            for sink in (*route.settings.to, *route.settings.escalate_to):
                if sink not in settings.sinks:
                    raise ConfigError(
                        f"alerting.routes.{name}: no sink {sink!r} in [alerting.sinks]"
                    )
            if (route.settings.escalate_minutes > 0) != bool(route.settings.escalate_to):
                raise ConfigError(
                    f"alerting.routes.{name}: escalate_minutes and escalate_to say something together alone"
                )
            _check_group(name, route.settings, settings.sinks)
            _check_above(name, settings.routes)
            above = route.settings.under
            (routes[above].below if above else self._roots).append(route)

    def decide(self, alert: Envelope) -> Decision:
        """Return the sinks that are told of an alert, in the order of the configuration."""
        if not self._roots:
            return self._by_sinks(alert)
        sinks: dict[str, RouteSettings | None] = {}
        later: dict[tuple[float, str], None] = {}
        path: list[str] = []
        self._walk(self._roots, alert, (), None, sinks, later, path)
        named = {*sinks, *(sink for _, sink in later)}
        wanting = {name for name in named if wants(self._sinks[name], alert)}
        kept = tuple(name for name in self._sinks if name in sinks and name in wanting)
        return Decision(
            kept,
            escalations=tuple(one for one in later if one[1] in wanting),
            path=tuple(path),
            unwanted=tuple(name for name in self._sinks if name in named - wanting),
            groups={name: how for name in kept if (how := sinks[name]) is not None},
        )

    def _by_sinks(self, alert: Envelope) -> Decision:
        """Return what the sinks' own settings say: of as many alerts as there are kinds the same."""
        known = self._known.get((alert.severity, alert.kind))
        if known is None:
            if len(self._known) >= DECISIONS_KEPT:
                self._known.clear()
            found = [name for name, sink in self._sinks.items() if wants(sink, alert)]
            known = self._known[alert.severity, alert.kind] = Decision(tuple(found))
        return known

    def _walk(
        self, routes: Sequence[_Route], alert: Envelope, above: tuple[str, ...], grouped: RouteSettings | None,
        sinks: dict[str, RouteSettings | None], later: dict[tuple[float, str], None], path: list[str],
    ) -> bool:  # fmt: skip
        """Collect what the routes say; return whether one matched."""
        for route in routes:
            if not route.matches(alert):
                continue
            wanted = route.settings
            to = wanted.to or above
            how = wanted if wanted.group_by else grouped
            if not self._walk(route.below, alert, to, how, sinks, later, path):
                path.append(route.name)
                for name in to:
                    sinks.setdefault(name, how)
            if wanted.escalate_minutes > 0:
                later.update(
                    dict.fromkeys((wanted.escalate_minutes, s) for s in wanted.escalate_to)
                )
            if not wanted.goes_on:
                return True
        # Where only routes that go on matched, something matched all the same.
        return any(route.settings.goes_on and route.matches(alert) for route in routes)


def _named(times: Mapping[str, Hours], name: str, where: str) -> Hours:
    if name not in times:
        raise ConfigError(f"alerting.routes.{where}: no hours {name!r} in [alerting.times]")
    return times[name]


def _check_group(name: str, route: RouteSettings, sinks: Mapping[str, SinkSettings]) -> None:
    for label in route.group_by:
        if label not in LABELS:
            raise ConfigError(
                f"alerting.routes.{name}: group_by {label!r} is none of {', '.join(LABELS)}"
            )
    for sink in route.to if route.group_by else ():
        if sinks[sink].kind in UNGROUPED or sinks[sink].approval:
            raise ConfigError(
                f"alerting.routes.{name}: sink {sink!r} ({sinks[sink].kind}) takes each alert by itself;"
                " tell it by a route without group_by"
            )


def _check_above(name: str, routes: Mapping[str, RouteSettings]) -> None:
    seen = [name]
    while above := routes[seen[-1]].under:
        if above not in routes:
            raise ConfigError(f"alerting.routes.{seen[-1]}: no route {above!r} to be under")
        if above in seen:
            raise ConfigError(f"alerting.routes.{name}: its way up leads in a circle")
        seen.append(above)


def _hours(name: str, settings: TimesSettings) -> Hours:
    try:
        zone = zone_of(settings.zone)
    except ConfigError as error:
        raise ConfigError(f"alerting.times.{name}.zone: {error}") from error
    days = tuple(DAYS.index(day) for day in settings.days or DAYS)
    return Hours(days, _minute(name, settings.start), _minute(name, settings.end), zone)


def _minute(name: str, text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if colon and hours.isdigit() and minutes.isdigit() and int(minutes) < 60:
        made = int(hours) * 60 + int(minutes)
        if made <= DAY_MINUTES:
            return made
    raise ConfigError(f"alerting.times.{name}: {text!r} is no time of day such as 08:30")
