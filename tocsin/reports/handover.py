"""The report for the next shift, of rows of the history: a pure function, text out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from alerting.life.load import load_of
from alerting.life.windows import PLANNED_WORK, Window
from alerting.records.alarm import NEVER_NS

SHOWN = 20
NAMED = 8  # what a window is about, in a list of windows
NIGHT_NS = 16 * 3_600_000_000_000  # works that begin so soon are the next shift's


def report(
    changes: Sequence[Mapping[str, Any]],
    incidents: Sequence[Mapping[str, Any]],
    windows: Sequence[Window],
    *,
    since_ns: int,
    now_ns: int,
    operators: int = 1,
    acknowledge_seconds: float = 600.0,
    blind: Sequence[str] = (),
) -> str:
    """Return the report: what is open, what changed, what is hidden until when, works to come, load.

    `changes` are rows of schema `alarm` as `load_of` takes them, `incidents` each as it stands (one that
    became part of another is left out: that one has its alarms; and one that nobody was told of);
    `blind` are sentences of what Tocsin does not see.
    """
    load = load_of(
        changes, since_ns=since_ns, until_ns=now_ns, operators=operators,
        acknowledge_seconds=acknowledge_seconds,
    )  # fmt: skip
    incidents = [
        one
        for one in incidents
        if not one.get("parent_incident_id") and one.get("state") != "pending"
    ]
    names = {int(row["alarm_id"]): f"{row['kind']} on {row['entity']}" for row in changes}
    open_now = [one for one in incidents if not one["closed_ns"]]
    closed = [one for one in incidents if one["closed_ns"] and one["closed_ns"] >= since_ns]
    lines = [
        f"Handover {_at(since_ns)} to {_at(now_ns)}, all times UTC",
        (
            f"load: {_count(load.raises, 'alarm')} told, {load.per_operator_10min:g} per operator and 10 min "
            f"({load.grade}), worst 10 min {load.peak_10min}, {_count(load.floods, 'flood')}"
        ),
        (
            f"told: {_count(load.incidents, 'incident')}, {_count(load.hidden, 'alarm')} hidden, "
            + (
                "nothing to be"
                if load.acknowledged_share is None
                else f"{load.acknowledged_share:.0%}"
            )
            + f" acknowledged in {acknowledge_seconds / 60:g} min"
        ),
        f"standing over a day: {load.standing}, chattering: {load.chattering}",
        "",
        f"Open incidents ({len(open_now)}):",
        *_incidents(open_now, since_ns),
        f"Ended in this shift ({len(closed)}):",
        *_incidents(closed, since_ns),
        "Hidden now:",
        *_windows([w for w in windows if w.kind != PLANNED_WORK and w.span(now_ns)], now_ns, names),
        "Works now and in the next 16 h:",
        *_windows(
            [w for w in windows if w.kind == PLANNED_WORK and _soon(w, now_ns)], now_ns, names
        ),
        "Blind areas:",
        *([f"  {one}" for one in blind] or ["  none known"]),
        "Noisiest alarms:",
        *(
            [f"  {one['raises']:>5} x {one['kind']} on {one['entity']}" for one in load.top]
            or ["  none"]
        ),
    ]
    return "\n".join(lines)


def _incidents(rows: Sequence[Mapping[str, Any]], since_ns: int) -> list[str]:
    made = [
        f"  {_at(one['opened_ns'])} {one['severity']:<9} {_news(one, since_ns)}{one['title']}"
        + (
            f" (+{_count(one['alarms_count'] - 1, 'alarm')})"
            if one.get("alarms_count", 1) > 1
            else ""
        )
        + (
            f" acknowledged by {one['operator']}"
            if one.get("operator_state") == "acknowledged"
            else " shelved"
            if one.get("operator_state") == "shelved"
            else ""
        )
        for one in rows[:SHOWN]
    ]
    more = len(rows) - SHOWN
    return made + ([f"  and {more} more"] if more > 0 else []) or ["  none"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _news(incident: Mapping[str, Any], since_ns: int) -> str:
    """Return what is new about an incident to those who come on."""
    if incident["opened_ns"] >= since_ns:
        return "new: "
    return "changed: " if incident.get("changed_ns", 0) >= since_ns else ""


def _windows(windows: Sequence[Window], now_ns: int, names: Mapping[int, str]) -> list[str]:
    made = []
    for one in windows[:SHOWN]:
        span = one.span(now_ns)
        begins_ns = one.next_change_ns(now_ns)
        begins = f"from {_at(begins_ns)} " if span is None else ""
        ends_ns = span[1] if span else begins_ns + one.end_ns - one.start_ns
        until = "until it is ended" if one.end_ns >= NEVER_NS else f"until {_at(ends_ns)}"
        what = ", ".join(one.about(names)[:6])
        why = f" ({one.reason})" if one.reason else ""
        made.append(f"  {one.kind} {one.name}: {what} {begins}{until}{why}")
    more = len(windows) - SHOWN
    return made + ([f"  and {more} more"] if more > 0 else []) or ["  none"]


def window_line(one: Window) -> str:
    """Return a window as `tocsin alarm windows` lists it."""
    names = one.about()
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    days = f" ({', '.join(one.days)})" if one.days else ""
    ends_ns = one.until_ns if one.days else one.end_ns
    begins = datetime.fromtimestamp(one.start_ns / 1e9, UTC).isoformat()
    until = (
        "until it is ended"
        if ends_ns >= NEVER_NS
        else f"until {datetime.fromtimestamp(ends_ns / 1e9, UTC).isoformat()}"
    )
    return (
        f"{one.kind:15} {one.name:40} from {begins}{days} {until}  {', '.join(names[:NAMED])}{more}"
    )


def _soon(window: Window, now_ns: int) -> bool:
    return window.span(now_ns) is not None or window.next_change_ns(now_ns) - now_ns <= NIGHT_NS


def _at(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
