"""Alerts of one group told as one: a route's `group_by`, as users of Alertmanager know it.

The first alert of a group waits `group_wait_seconds` for company; what changes in a group that was
told is told after `group_interval_seconds` at the earliest; a group that stays as it is is told again
every `repeat_minutes`. A group is over when all its alerts are. Its tables lie in the outbox's file and
change in its transactions; they are as large as the table of alarms at most.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from alerting.config import RouteSettings
from alerting.records.alarm import SEVERITIES
from alerting.words.alert import Alert, Envelope, SealedAlert
from alerting.words.amounts import span
from alerting.words.escape import line
from alerting.words.wording import moment
from telemetry.identity import id_text, stable_id

TABLES = """
    create table bundle (
        id text primary key, sink text, labels text, since_ns integer, told_ns integer, due_ns integer,
        wait_ns integer, repeat_ns integer);
    create table member (
        bundle text, alarm text, over integer, body text, primary key (bundle, alarm)) without rowid;
    create index member_alarm on member (alarm);
"""
NEVER_NS = 1 << 62
NAMED_MAX = 50  # alerts of a group that are named
TITLE_MAX = 220  # characters of a title in a text for a phone


def _names(alert: Alert, what: str) -> str:
    """Return whom or what an incident touches; those that touch the same are of one group."""
    return ", ".join(alert.explain.get("impact", {}).get(what, ()))


# label: what it is of an alert.
LABELS: dict[str, Callable[[Alert], Any]] = {
    "entity": lambda a: a.entity,
    "node": lambda a: a.explain.get("node"),
    "site": lambda a: a.explain.get("site"),
    "link": lambda a: a.explain.get("link"),
    "owner": lambda a: a.explain.get("owner"),
    "customer": lambda a: _names(a, "customers"),
    "service": lambda a: _names(a, "services"),
    "kind": lambda a: a.kind,
    "source": lambda a: a.source,
    "severity": lambda a: a.severity,
    "event_type": lambda a: a.event_type,
    "probable_cause": lambda a: a.probable_cause,
}


class Groups:
    """Keeps groups and their members. Every call is inside a transaction."""

    def __init__(self, routes: Sequence[RouteSettings]) -> None:
        self.used = any(route.group_by for route in routes)
        self.due_ns = NEVER_NS

    def join(
        self, db: sqlite3.Connection, sink: str, route: RouteSettings, alert: SealedAlert, body: str, now_ns: int
    ) -> None:  # fmt: skip
        """Let an alert be told to a sink with the others of its group."""
        opened = alert.opened()
        labels = {name: str(LABELS[name](opened) or "") for name in route.group_by}
        text = json.dumps(labels, sort_keys=True)
        number = id_text(stable_id(f"group|{sink}|{text}"))
        due_ns = now_ns + round(route.group_wait_seconds * 1e9)
        db.execute(
            "insert or ignore into bundle values (?,?,?,?,0,?,?,?)",
            (number, sink, text, now_ns, due_ns, round(route.group_interval_seconds * 1e9),
             round(route.repeat_minutes * 60e9)),
        )  # fmt: skip
        db.execute("insert or replace into member values (?,?,0,?)", (number, alert.id, body))
        self._touch(db, number, now_ns)

    def change(
        self, db: sqlite3.Connection, alert: Envelope, body: str, now_ns: int, *, over: bool
    ) -> None:
        """Take a change of an alert that may be in groups."""
        for (number,) in db.execute(
            "select bundle from member where alarm = ?", (alert.id,)
        ).fetchall():
            db.execute(
                "update member set over = ?, body = ? where bundle = ? and alarm = ?",
                (over, body, number, alert.id),
            )
            self._touch(db, number, now_ns)

    def inherit(self, db: sqlite3.Connection, alarm: str, heir: str) -> None:
        """Let another alert be in every group that an alert is in, which is over now."""
        db.execute(
            "insert or ignore into member select bundle, ?, 0, body from member where alarm = ? and not over",
            (heir, alarm),
        )

    def _touch(self, db: sqlite3.Connection, number: str, now_ns: int) -> None:
        db.execute(
            "update bundle set due_ns = min(due_ns, max(?, told_ns + wait_ns)) where id = ? and told_ns > 0",
            (now_ns, number),
        )
        self._next(db)

    def _next(self, db: sqlite3.Connection) -> None:
        found = db.execute("select min(due_ns) from bundle").fetchone()[0]
        self.due_ns = NEVER_NS if found is None else found

    def due(self, db: sqlite3.Connection, now_ns: int) -> list[tuple[str, Alert]]:
        """Return (sink, alert) of each group that is to be told now."""
        made = []
        rows = db.execute(
            "select id, sink, labels, since_ns, told_ns, repeat_ns from bundle where due_ns <= ? order by id",
            (now_ns,),
        ).fetchall()
        for number, sink, labels, since_ns, told_ns, repeat_ns in rows:
            members = db.execute(
                "select over, body from member where bundle = ? order by alarm", (number,)
            ).fetchall()
            up = [msgspec.json.decode(body, type=Alert) for over, body in members if not over]
            gone = [msgspec.json.decode(body, type=Alert) for over, body in members if over]
            if up or told_ns:  # what was over before its wait was is told to nobody
                told = _alert(
                    number, json.loads(labels), up, gone, since_ns, now_ns, first=not told_ns
                )
                made.append((sink, told))
            db.execute("delete from member where bundle = ? and over", (number,))
            if up:
                due_ns = now_ns + repeat_ns if repeat_ns else NEVER_NS
                db.execute(
                    "update bundle set told_ns = ?, due_ns = ? where id = ?",
                    (now_ns, due_ns, number),
                )
            else:
                db.execute("delete from bundle where id = ?", (number,))
        self._next(db)
        return made


def _alert(
    number: str, labels: dict[str, str], up: list[Alert], gone: list[Alert], since_ns: int, now_ns: int,
    *, first: bool,
) -> Alert:  # fmt: skip
    """Return a group as one alert: of one member as that member, of several as their list."""
    state = "cleared" if not up else "raised" if first else "updated"
    found = sorted(up or gone, key=lambda a: (SEVERITIES.index(a.severity), a.raised_ns, a.id))
    lead = found[0]
    where = ", ".join(f"{name} {value}" for name, value in labels.items() if value) or "everywhere"
    title = lead.title if len(found) == 1 else f"{len(found)} alerts ({where}): {lead.title}"
    about = {
        "group": labels, "alarms": len(found), "ended": [one.title for one in gone[:NAMED_MAX]],
    }  # fmt: skip
    if up:
        about["short"] = (
            f"{lead.severity.upper()} {line(title, TITLE_MAX)}, since {moment(since_ns)}"
        )
    else:
        lasted = span((now_ns - since_ns) / 1e9)
        about["short"] = (
            f"CLEARED {line(title, TITLE_MAX)}, at {moment(now_ns)}; it lasted {lasted}"
        )
    return msgspec.structs.replace(
        lead, id=number, change=f"{number}-{now_ns}-{state}", state=state, title=title, changed_ns=now_ns,
        raised_ns=since_ns, cleared_ns=0 if up else now_ns, occurrence=1, explain=lead.explain | about,
        symptoms=tuple(one.title for one in found[1 : NAMED_MAX + 1]), alarms_count=len(found),
        incident="" if len(found) > 1 else lead.incident, origin="",
    )  # fmt: skip
