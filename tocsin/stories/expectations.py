"""What a story came to, and what it may expect of that."""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alerting.words.alert import Alert
from telemetry.errors import ConfigError


@dataclass(slots=True)
class Ticket:
    """What a ticket system would have of one incident."""

    state: str = "open"
    reopened: int = 0
    newest: Alert | None = None
    titles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Played:
    """What a story led to."""

    name: str
    failures: list[str] = field(default_factory=list)
    notices: list[Alert] = field(default_factory=list)
    alarms: dict[str, Alert] = field(default_factory=dict)  # newest change of each
    tickets: dict[str, Ticket] = field(default_factory=dict)  # by incident


def failures(played: Played, expect: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of the expectations is not so; raise ConfigError for one that nobody knows."""
    for name, wanted in expect.items():
        check = _CHECKS.get(name)
        if check is None:
            raise ConfigError(f"expect: {name!r} is not known; known: {', '.join(_CHECKS)}")
        yield from check(played, wanted)


# ---- what a story may expect; each check yields what is not so


def _count(name: str, have: int, wanted: Any) -> Iterator[str]:
    """`3`, or `{most: 5}`, `{least: 2}`."""
    if isinstance(wanted, dict):
        if have > wanted.get("most", have) or have < wanted.get("least", have):
            yield f"{name}: {have}, expected {wanted}"
    elif have != wanted:
        yield f"{name}: {have}, expected {wanted}"


def _incidents(played: Played, wanted: Any) -> Iterator[str]:
    yield from _count("incidents told", len(played.tickets), wanted)


def _open(played: Played, wanted: Any) -> Iterator[str]:
    have = sum(ticket.state == "open" for ticket in played.tickets.values())
    yield from _count("open tickets", have, wanted)


def _notices(played: Played, wanted: Any) -> Iterator[str]:
    yield from _count("notices", len(played.notices), wanted)


def _up(played: Played, wanted: Any) -> Iterator[str]:
    have = sum(alarm.state in ("raised", "updated") for alarm in played.alarms.values())
    yield from _count("alarms up", have, wanted)


def _reopened(played: Played, wanted: Any) -> Iterator[str]:
    have = sum(ticket.reopened for ticket in played.tickets.values())
    yield from _count("tickets re-opened", have, wanted)


def _title_changes(played: Played, wanted: Any) -> Iterator[str]:
    most = max((len(ticket.titles) - 1 for ticket in played.tickets.values()), default=0)
    yield from _count("changes of a title", most, wanted)


def _each_incident(played: Played, wanted: list[dict[str, Any]]) -> Iterator[str]:
    for one in wanted:
        if not any(t.newest and _fits_incident(t.newest, one) for t in played.tickets.values()):
            told = "; ".join(
                f"{t.newest.title!r} {t.newest.state} {t.newest.severity} alarms={t.newest.alarms_count} "
                f"causes={[(c['kind'], c['entity']) for c in t.newest.explain.get('causes', [])]}"
                for t in list(played.tickets.values())[:8] if t.newest
            )  # fmt: skip
            yield f"no incident is like {one}; told: {told or 'nothing'}"


def _fits_incident(notice: Alert, wanted: Mapping[str, Any]) -> bool:
    causes = notice.explain.get("causes", [])
    impact = notice.explain.get("impact", {})
    have: dict[str, Any] = {
        "title": notice.title, "severity": notice.severity, "state": notice.state,
        "alarms": notice.alarms_count, "entity": notice.entity, "kind": notice.kind,
        "acknowledged": notice.operator_state == "acknowledged",
        "cut_off": impact.get("cut_off_count", 0),
        "similar": len(notice.explain.get("similar", [])),
    }  # fmt: skip
    for name, value in wanted.items():
        if name == "cause":
            ok = bool(causes) and fnmatch.fnmatch(
                f"{causes[0]['kind']} {causes[0]['entity']}", value
            )
        elif name == "suspect":
            ok = any(fnmatch.fnmatch(f"{c['kind']} {c['entity']}", value) for c in causes)
        elif name == "customers":
            ok = set(value) <= set(impact.get("customers", []))
        elif name == "sites":
            ok = set(value) <= set(impact.get("sites", []))
        elif name == "one_more_failure":
            ok = any(one["if"] == value for one in impact.get("redundancy", []))
        elif name in have and isinstance(value, dict):
            ok = not list(_count(name, have[name], value))
        elif name in have:
            ok = fnmatch.fnmatch(str(have[name]), str(value))
        else:
            raise ConfigError(f"expect: incident: {name!r} is not known")
        if not ok:
            return False
    return True


def _each_alarm(played: Played, wanted: list[dict[str, Any]]) -> Iterator[str]:
    for one in wanted:
        fields = dict(one)
        count = fields.pop("count", None)
        for name in fields:
            if name not in Alert.__struct_fields__:
                raise ConfigError(f"expect: alarm: {name!r} is not known")
        found = sum(
            all(
                fnmatch.fnmatch(str(getattr(alarm, name)), str(value))
                for name, value in fields.items()
            )
            for alarm in played.alarms.values()
        )
        if count is not None:
            yield from _count(f"alarms like {fields}", found, count)
        elif not found:
            yield f"no alarm is like {fields}"


_CHECKS = {
    "incidents": _incidents,
    "open": _open,
    "notices": _notices,
    "alarms_up": _up,
    "reopened": _reopened,
    "title_changes": _title_changes,
    "incident": _each_incident,
    "alarm": _each_alarm,
}
