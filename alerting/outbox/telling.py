"""Who is told of each change, and when: routes, what a sink knows already, limits, escalation.

A sink that was told of an alarm hears of it until its end, whatever the routes say by then: a raise
whose clear goes elsewhere stays open for ever. Who was told of an incident that became part of another
one hears of that one from then on: what was wrong still is. Beyond `rate_per_minute` raises are not told one by
one; a summary each minute says how many and of what kind, and is cleared when the storm is over. Its
tables lie in the outbox's file and change in its transactions.
"""

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from alerting.config import AlertingSettings
from alerting.outbox.audit import Audit
from alerting.outbox.bodies import Bodies, body_of
from alerting.outbox.bundles import NEVER_NS, Groups
from alerting.outbox.routes import Router
from alerting.outbox.rows import insert
from alerting.records.alarm import ASKED, OURS, SEVERITIES
from alerting.words.alert import Alert, Envelope, SealedAlert
from alerting.words.wording import OVER
from runtime.component import Context
from telemetry.identity import id_text, stable_id

TABLES = """
    create table told (alarm text, sink text, body text, primary key (alarm, sink)) without rowid;
    create table later (
        alarm text, sink text, due_ns integer, body text, primary key (alarm, sink)) without rowid;
    create table storm (sink text primary key, since_ns integer, minute_ns integer, told integer,
        held integer, body text);
    create table audit (
        number integer primary key autoincrement, at_ns integer, who text, what text, sink text,
        alarm text, key text, answer text);
    insert or ignore into told
        select distinct delivery.alarm, delivery.sink, alarm.body from delivery
        join alarm on alarm.id = delivery.alarm where alarm.state != 'cleared';
"""
MINUTE_NS = 60_000_000_000
ACTIONS = ("command", "diagnostics")  # kinds of sinks that do something rather than tell it
UNDOES = ("command",)  # those that undo at the end what a raise had them do
KINDS_SHOWN = 10


HELD_TABLE = """
    create table held (sink text, alarm text, primary key (sink, alarm)) without rowid;
"""


class Letter(msgspec.Struct, frozen=True):
    """One delivery to be made: to whom, of what."""

    sink: str
    alert: Envelope
    body: int  # its number
    held: bool = False  # waits for approval

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"{self.alert.change}-{self.sink}"


class Telling:
    """Decides; owns the tables `told`, `later` and `storm`. Every call is inside a transaction."""

    def __init__(self, settings: AlertingSettings, context: Context, bodies: Bodies) -> None:
        self._settings = settings
        self._bodies = bodies
        self._router = Router(settings)
        self._groups = Groups(list(settings.routes.values()))
        self._incidents = {n for n, sink in settings.sinks.items() if sink.send == "incidents"}
        # Sinks that act on the network: what they were asked, and what became of it, is kept as a record.
        self.audit = Audit(context.log)
        self.acts = {n for n, s in settings.sinks.items() if s.approval or s.kind in ACTIONS}
        self._raises: dict[str, deque[int]] = {}
        self._held = context.metrics.counter(
            "outbox_raises_held_total", "raises that a sink's rate_per_minute left to its summary"
        )
        self._escalated = context.metrics.counter(
            "outbox_escalations_total", "alerts told to somebody else for want of acknowledgement"
        )
        self.due_ns = 0  # when `timers` has something to do
        self._gone: list[tuple[str, str]] = []
        self._new: list[tuple[str, str, int]] = []

    @property
    def takes_incidents(self) -> bool:
        """Whether a sink is told of incidents."""
        return bool(self._incidents)

    @property
    def takes_alarms(self) -> bool:
        """Whether a sink is told of alarms."""
        return len(self._incidents) < len(self._settings.sinks)

    def remember(self) -> Callable[[], None]:
        """Return what puts back, beside the rolled-back rows, what is counted in memory."""
        raises = {sink: deque(times) for sink, times in self._raises.items()}

        def undo() -> None:
            self._raises = raises
            self.due_ns = self._groups.due_ns = 0  # looked up anew at the next occasion

        return undo

    def undoes(self, sink: str, _: str, key: str) -> bool:
        """Whether a delivery (its sink, alarm and key) undoes what an action did."""
        settings = self._settings.sinks.get(sink)
        state = key.removesuffix(f"-{sink}").rpartition("-")[2]
        return settings is not None and settings.kind in UNDOES and state in OVER

    def letters(
        self,
        db: sqlite3.Connection,
        alerts: Sequence[SealedAlert],
        notices: Sequence[SealedAlert],
        now_ns: int,
    ) -> list[Letter]:
        """Return the deliveries that these changes make; alarms and incidents each to those sinks
        that take them. `flush` goes with it, later in the transaction."""
        changes = [(n, True) for n in notices] if self._incidents else []
        if self.takes_alarms:
            changes = [(a, False) for a in alerts] + changes
        before = _told(db, [alert.id for alert, _ in changes])
        knows = {alarm: set(sinks) for alarm, sinks in before.items()}
        inherited = self._inherit(db, notices, before)
        for incident, sink in inherited:
            knows.setdefault(incident, set()).add(sink)
        made: list[Letter] = []
        for alert, incidents in changes:
            known = knows.setdefault(alert.id, set())
            told = {s for s in known if (s in self._incidents) == incidents}
            known -= told
            made += self._letters(db, alert, told, incidents=incidents, now_ns=now_ns)
            known |= told
        last = {(letter.alert.id, letter.sink): letter.body for letter in made}
        self._gone = [(i, s) for i, sinks in before.items() for s in sinks if s not in knows[i]]
        known_by = (inherited | last).items()
        self._new = [(i, s, body) for (i, s), body in known_by if s in knows[i]]
        return made

    def flush(self, db: sqlite3.Connection) -> None:
        """Write who knows of what by the letters that were returned in this transaction."""
        db.executemany("delete from told where alarm = ? and sink = ?", self._gone)
        insert(db, "insert or replace into told", self._new)
        self._gone, self._new = [], []

    def _inherit(
        self,
        db: sqlite3.Connection,
        notices: Sequence[SealedAlert],
        told: dict[str, dict[str, int]],
    ) -> dict[tuple[str, str], int]:
        """Let those that merged incidents became part of have their sinks, groups and escalations.

        Return (incident, sink): the body that the sink was told last. Actions are asked for anew: what was
        let for the one is undone with its end.
        """
        parents = {notice.id: notice.parent for notice in notices if notice.parent}
        made = {}
        for incident in parents:
            heir = incident
            while heir in parents:  # several in one tick
                heir = parents[heir]
            for sink, body in told.get(incident, {}).items():
                if sink in self._incidents and sink not in self.acts:
                    made[heir, sink] = body
            if self._groups.used:
                self._groups.inherit(db, incident, heir)
            if self.due_ns < NEVER_NS:
                db.execute("update or ignore later set alarm = ? where alarm = ?", (heir, incident))
        return made

    def _letters(
        self,
        db: sqlite3.Connection,
        alert: SealedAlert,
        told: set[str],
        *,
        incidents: bool,
        now_ns: int,
    ) -> list[Letter]:
        """Return the letters of one change; `told` becomes who knows of the alarm afterwards."""
        if self._groups.used:
            over = alert.state in OVER or alert.hidden
            self._groups.change(db, alert, body_of(alert), now_ns, over=over)
            self.due_ns = min(self.due_ns, self._groups.due_ns)
        if alert.state in OVER:
            return self._end(db, alert, told)
        sinks = {name for name in told if name in self._settings.sinks}
        later: tuple[tuple[float, str], ...] = ()
        if not alert.hidden:
            decision = self._router.decide(alert)
            for name in decision.sinks:
                if (name in self._incidents) == incidents and name not in told:
                    if how := decision.groups.get(name):
                        self._groups.join(db, name, how, alert, body_of(alert), now_ns)
                        self.due_ns = min(self.due_ns, self._groups.due_ns)
                    elif self._within_rate(db, name, alert, now_ns):
                        sinks.add(name)
            later = decision.escalations
        if alert.operator_state == ASKED:
            # Its owner is asked to acknowledge it, and nobody else: to them nothing has changed.
            owner = self._settings.owners.get(alert.source, "")
            sinks = {owner} if owner in self._settings.sinks else set()
            sinks = {name for name in sinks if (name in self._incidents) == incidents}
        sinks.discard(alert.origin)
        if not sinks and not later:
            return []
        made = []
        for name in sinks if len(sinks) < 2 else [n for n in self._settings.sinks if n in sinks]:
            ask = self._settings.sinks[name].approval
            if not (ask and name in told):  # an action acts on a raise and on its end
                made.append(Letter(name, alert, self._bodies.number(alert), held=ask))
            told.add(name)
        self._plan(db, alert, later, now_ns, incidents=incidents)
        return made

    def _end(self, db: sqlite3.Connection, alert: SealedAlert, told: set[str]) -> list[Letter]:
        if self.due_ns < NEVER_NS:
            db.execute("delete from later where alarm = ?", (alert.id,))
        made = []
        for name in sorted(told):
            sink = self._settings.sinks.get(name)
            if sink is None or name == alert.origin:
                continue
            # What was never approved was never done, so there is nothing to undo.
            if sink.approval and self._unasked(db, alert, name):
                continue
            if sink.kind in UNDOES:  # a raise that fails is not waited for: it may be half done
                self._supersede(db, alert, name, "waiting", "over before it was done")
            made.append(Letter(name, alert, self._bodies.number(alert)))
        told.clear()
        return made

    def _unasked(self, db: sqlite3.Connection, alert: SealedAlert, sink: str) -> bool:
        """Whether the raise of an alarm that ends was never let; one that still waits is ended."""
        if self._supersede(db, alert, sink, "held", "over before it was approved"):
            return True
        last = db.execute(
            "select state from delivery where alarm = ? and sink = ? order by number desc limit 1",
            (alert.id, sink),
        ).fetchone()
        return last is not None and last[0] == "rejected"

    def _supersede(
        self, db: sqlite3.Connection, alert: SealedAlert, sink: str, state: str, why: str
    ) -> bool:
        """End the deliveries of an alarm to a sink that are in a state; return whether there are any."""
        found = db.execute(
            "select number, sink, alarm, key from delivery where alarm = ? and sink = ? and state = ?",
            (alert.id, sink, state),
        ).fetchall()
        for number, *about in found:
            db.execute(
                "update delivery set state = 'superseded', answer = ? where number = ?",
                (why, number),
            )
            self.audit.note(db, alert.changed_ns, OURS, "cancelled", about, why)
        return bool(found)

    # ---- limits

    def _within_rate(self, db: sqlite3.Connection, sink: str, alert: Envelope, now_ns: int) -> bool:
        limit = self._settings.sinks[sink].rate_per_minute
        if limit <= 0:
            return True
        recent = self._raises.setdefault(sink, deque())
        while recent and recent[0] <= now_ns - MINUTE_NS:
            recent.popleft()
        if len(recent) < limit:
            recent.append(now_ns)
            return True
        new = db.execute("insert or ignore into held values (?,?)", (sink, alert.id))
        if new.rowcount:  # its changes while it is held are none of their own
            self._held.add()
            self._hold(db, sink, alert, now_ns)
        return False

    def _hold(self, db: sqlite3.Connection, sink: str, alert: Envelope, now_ns: int) -> None:
        row = db.execute("select body from storm where sink = ?", (sink,)).fetchone()
        counts: dict[str, Any] = (
            json.loads(row[0]) if row else {"kinds": {}, "worst": "indeterminate"}
        )
        kind = (
            alert.kind if alert.kind in counts["kinds"] or len(counts["kinds"]) < 100 else "other"
        )
        counts["kinds"][kind] = counts["kinds"].get(kind, 0) + 1
        counts["worst"] = min(counts["worst"], alert.severity, key=SEVERITIES.index)
        counts["last"] = alert.title[:200]
        body = json.dumps(counts, sort_keys=True)
        db.execute(
            "insert into storm values (?,?,?,0,1,?) on conflict (sink) do update set"
            " held = held + 1, body = excluded.body",
            (sink, now_ns, now_ns + MINUTE_NS, body),
        )
        self.due_ns = min(self.due_ns, now_ns + MINUTE_NS)

    def _storms(self, db: sqlite3.Connection, now_ns: int) -> list[Letter]:
        made = []
        rows = db.execute(
            "select sink, since_ns, told, held, body from storm where minute_ns <= ?", (now_ns,)
        ).fetchall()
        for sink, since_ns, told, held, body in rows:
            over = held == told
            alert = _summary(
                sink, since_ns, held, json.loads(body), now_ns, first=not told, over=over
            )
            # A summary is no alarm to act on, and nobody approved it.
            if sink in self._settings.sinks and sink not in self.acts:
                made.append(Letter(sink, alert, self._bodies.number(alert)))
            if over:
                db.execute("delete from storm where sink = ?", (sink,))
                db.execute("delete from held where sink = ?", (sink,))
            else:
                db.execute(
                    "update storm set told = held, minute_ns = ? where sink = ?",
                    (now_ns + MINUTE_NS, sink),
                )
        return made

    # ---- escalation

    def _plan(
        self, db: sqlite3.Connection, alert: SealedAlert, later: Iterable[tuple[float, str]], now_ns: int,
        *, incidents: bool,
    ) -> None:  # fmt: skip
        if not later and self.due_ns == NEVER_NS:
            return  # nothing is planned for any alarm
        if alert.operator_state not in ("none", ASKED) or alert.hidden:
            db.execute("delete from later where alarm = ?", (alert.id,))
            return
        body = body_of(alert)
        for minutes, sink in later:
            if (sink in self._incidents) == incidents:
                due_ns = now_ns + round(minutes * MINUTE_NS)
                db.execute(
                    "insert or ignore into later values (?,?,?,?)", (alert.id, sink, due_ns, body)
                )
                self.due_ns = min(self.due_ns, due_ns)
        db.execute("update later set body = ? where alarm = ?", (body, alert.id))

    def timers(self, db: sqlite3.Connection, now_ns: int) -> list[Letter]:
        """Return the deliveries that time alone makes: summaries of storms, escalations."""
        made = self._storms(db, now_ns)
        if self._groups.used:
            for sink, alert in self._groups.due(db, now_ns):
                if sink in self._settings.sinks:
                    made.append(Letter(sink, alert, self._bodies.number(alert)))
        rows = db.execute(
            "select alarm, sink, body from later where due_ns <= ? order by due_ns", (now_ns,)
        ).fetchall()
        for alarm, sink, body in rows:
            db.execute("delete from later where alarm = ? and sink = ?", (alarm, sink))
            known = db.execute("select 1 from told where alarm = ? and sink = ?", (alarm, sink))
            if sink in self._settings.sinks and known.fetchone() is None:
                alert = msgspec.json.decode(body, type=Alert)
                number = self._bodies.keep(alert.change, body)
                db.execute("insert or ignore into told values (?,?,?)", (alarm, sink, number))
                made.append(Letter(sink, alert, number, held=self._settings.sinks[sink].approval))
                self._escalated.add()
        next_ns = db.execute(
            "select min(at) from (select min(due_ns) as at from later"
            " union all select min(minute_ns) as at from storm)"
        ).fetchone()[0]
        self.due_ns = min(next_ns if next_ns is not None else NEVER_NS, self._groups.due_ns)
        return made


def incidents_as_alerts(notices: Iterable[SealedAlert]) -> list[SealedAlert]:
    """Return notices under the incident's id, which stays when another alarm becomes its face."""
    return [
        msgspec.structs.replace(
            n, id=n.incident, change=f"{n.incident}-{n.changed_ns}-{n.state}"
        )
        for n in notices if n.incident
    ]  # fmt: skip


def _told(db: sqlite3.Connection, alarms: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return for each alarm the sinks that know of it, with the body that each was told last."""
    found: dict[str, dict[str, int]] = {}
    for first in range(0, len(alarms), 500):
        part = alarms[first : first + 500]
        marks = ",".join("?" * len(part))
        for alarm, sink, body in db.execute(
            f"select alarm, sink, body from told where alarm in ({marks})", part
        ):
            found.setdefault(alarm, {})[sink] = body
    return found


def _summary(
    sink: str,
    since_ns: int,
    held: int,
    counts: dict[str, Any],
    now_ns: int,
    *,
    first: bool,
    over: bool,
) -> Alert:
    """Return what is said in place of raises that the limit held back."""
    number = id_text(stable_id(f"summary|{sink}|{since_ns}"))
    kinds = sorted(counts["kinds"].items(), key=lambda pair: (-pair[1], pair[0]))
    named = ", ".join(f"{count} {kind}" for kind, count in kinds[:KINDS_SHOWN])
    state = "cleared" if over else "raised" if first else "updated"
    return Alert(
        id=number, change=f"{number}-{now_ns}-{state}", kind="alert-storm", entity=f"sink {sink}",
        state=state, severity=counts["worst"], changed_ns=now_ns, raised_ns=since_ns,
        title=f"{held} more alarms were not told one by one to {sink}: {named}",
        cleared_ns=now_ns if over else 0, occurrence=1, event_type="processingErrorAlarm",
        probable_cause="congestion",
        explain={
            "why": [f"more raises in a minute than rate_per_minute of sink {sink}"],
            "do": "look at the list of alarms; all of them are there",
            "last": counts.get("last", ""),
        },
    )  # fmt: skip
