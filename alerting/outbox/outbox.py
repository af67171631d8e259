"""The outbox: alarm changes and what is to be sent about them, in one SQLite transaction a tick.

`node.sqlite` in WAL mode with synchronous=FULL: when `commit` returns, nothing of the tick can be
lost, and a tick that was committed is never committed again. Deliveries carry an idempotency key
(alarm, change, sink); a sink that understands it sees each change once, whatever happens.
"""

import contextlib
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alerting.config import AlertingSettings
from alerting.outbox.audit import ANSWER_CHARACTERS_MAX
from alerting.outbox.bodies import Bodies
from alerting.outbox.dead_letters import counted, drop, retry, wait_ns
from alerting.outbox.file import open_file, remedy, rows_of, transaction
from alerting.outbox.rows import insert
from alerting.outbox.shown import Coming, First, Shown
from alerting.outbox.telling import UNDOES, Letter, Telling, incidents_as_alerts
from alerting.outbox.trim import give_up_overflow, trim
from alerting.records.alarm import OURS
from alerting.words.alert import SealedAlert
from alerting.words.alerts import sealed_alerts, sealed_notices
from alerting.words.delivery import Delivery, Verdict
from alerting.words.escape import line
from runtime.component import Context
from runtime.damaged import set_asides
from telemetry.batch import Batch
from telemetry.errors import TransientError

REFUSED_TICKS_MAX = 10_000  # kept in memory while a disk refuses; then no more should come
TRIM_EVERY_TICKS = 500
# Rows of deliveries or transactions after which `rest` moves SQLite's log into the file.
LOG_ROWS = 250


@dataclass(frozen=True)
class _Kept:
    """What one tick commits."""

    tick_end_ns: int
    alarms: Sequence[Batch]
    incidents: Sequence[Batch]
    now_ns: int
    coming: Coming | None = None  # where they are not all in these lists yet

    @property
    def batches(self) -> Sequence[Batch]:
        return self.alarms if self.coming is None else self.coming.every_alarm()

    @cached_property
    def alerts(self) -> list[SealedAlert]:
        return [alert for batch in self.batches for alert in sealed_alerts(batch)]


class Outbox:
    """Owns node.sqlite. Used from the node's main thread."""

    def __init__(self, path: Path, settings: AlertingSettings, context: Context) -> None:
        self._path = path
        self._settings = settings
        self._context = context
        self._db: sqlite3.Connection | None = None
        self._deliveries = context.metrics.counter(
            "outbox_deliveries_total",
            "deliveries by what became of them",
            label="result",
            values=("queued", "sent", "retried", "given_up", "overflowed"),
        )
        set_asides(context)
        self.damaged = ""  # the name of the file that this start set aside
        self._ticks = 0
        self._logged = 0  # rows and transactions that lie in SQLite's log
        # Ticks that a full disk refused, oldest first; committed as soon as there is room again.
        self._refused: deque[_Kept] = deque()
        self._trouble = ""
        # Called with the alerts and incidents of each tick once it is committed.
        self.on_commit: Callable[[Sequence[SealedAlert], Sequence[Batch]], None] = lambda *_: None
        self._sinks: tuple[str, ...] = ()  # those of the configuration, and those of old deliveries
        self._bodies = Bodies()
        self._telling = Telling(settings, context, self._bodies)
        self._shown = Shown(self._bodies)

    def start(self) -> None:
        """Open the file; see `open_file` for what is damaged and what refuses."""
        self._db, self.damaged = open_file(self._path, self._context)
        old = self._db.execute(
            "select distinct sink from delivery where state != 'sent'"
        ).fetchall()
        self._sinks = tuple(sorted({*self._settings.sinks, *(row[0] for row in old)}))
        self._bodies.start(self._db)

    def stop(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def health(self) -> str:
        """Return "" or what is wrong: deliveries given up, or a file that was set aside."""
        stuck = self._one("select count(*) from delivery where state = 'given_up'")
        said = []
        if stuck:
            said.append(
                f"{stuck} deliveries were given up; see `tocsin outbox list --only given_up`"
            )
        if self._trouble:
            said.append(self._trouble)
        if self.damaged:
            said.append(f"the outbox was damaged and is set aside as {self.damaged}")
        return "; ".join(said)

    @property
    def trouble(self) -> str:
        """Why a disk refuses ticks right now, "" where it does not."""
        return self._trouble

    @property
    def full(self) -> bool:
        """Whether so many ticks wait in memory for the disk that no more should be made."""
        return len(self._refused) >= REFUSED_TICKS_MAX

    @property
    def tells(self) -> bool:
        """Whether there is a sink."""
        return bool(self._settings.sinks)

    @property
    def takes_alarms(self) -> bool:
        """Whether a sink is told of alarms."""
        return self._telling.takes_alarms

    # ---- ticks

    def is_done(self, tick_end_ns: int) -> bool:
        """Whether a tick was committed."""
        return bool(self._one("select count(*) from done where tick_end_ns = ?", tick_end_ns))

    def commit(
        self,
        tick_end_ns: int,
        alarms: Sequence[Batch],
        now_ns: int,
        *,
        incidents: Sequence[Batch] = (),
        coming: Coming | None = None,
        first: First | None = None,
    ) -> list[SealedAlert]:
        """Commit a tick in one transaction; return the alerts of all ticks that are committed by that.

        Alarm changes, deliveries (of incidents too) and "this tick is done" become durable together
        or not at all. Where the disk refuses (full, read-only), the tick waits in
        memory with those after it, `health` says so, and it is committed when there is room; after
        a restart the journal has it. A commit whose sync fails is rolled back: SQLite writes it again
        to the same place of the log, so a later sync that succeeds is one of what is written then.

        Both may be `coming` still, which fills the two lists; where no sink takes incidents, these are left to
        the caller. `first` is given what sinks are told, part by part, within the transaction, and shows it as
        soon as it is known what goes to which sink: `due` returns that meanwhile. It makes the same deliveries
        of it should this commit fail.
        """
        alone = not self._refused
        self._refused.append(_Kept(tick_end_ns, alarms, incidents, now_ns, coming))
        return self._commit_all(first if alone else None)

    def retry_ticks(self) -> list[SealedAlert]:
        """Commit the ticks that wait; return the alerts of those that are committed now, not before."""
        return self._commit_all()

    def _commit_all(self, first: First | None = None) -> list[SealedAlert]:
        told: list[SealedAlert] = []
        try:
            while self._refused:
                kept = self._refused.popleft()
                try:
                    new = self._commit(kept, first)
                except sqlite3.OperationalError:
                    self._refused.appendleft(replace(kept, coming=None))
                    raise
                finally:
                    self._shown.clear()
                if new:
                    told += kept.alerts
                    self.on_commit(kept.alerts, kept.incidents)
        except sqlite3.OperationalError as error:
            self._disk_refuses(error)
            return told
        if self._trouble:
            self._context.log.info("outbox_writes_again file=%s", self._path)
            self._trouble = ""
        return told

    def _commit(self, kept: "_Kept", first: First | None) -> bool:
        with self._transaction() as db:
            try:
                db.execute("insert into done values (?)", (kept.tick_end_ns,))
            except sqlite3.IntegrityError:
                return False
            self._keep(db, kept, first)
            self._ticks += 1
            if self._ticks % TRIM_EVERY_TICKS == 0:
                self._trim(db)
            self._bodies.flush(db)
        return True

    def rest(self) -> None:
        """Do what nobody waits for, while there is nothing else to do: move the log into the file."""
        if self._logged < LOG_ROWS or self._db is None or self._refused:
            return
        self._logged = 0
        with contextlib.suppress(sqlite3.OperationalError):  # the next commit says what is wrong
            self._db.execute("pragma wal_checkpoint(passive)").fetchall()

    def _disk_refuses(self, error: sqlite3.OperationalError) -> None:
        if not self._trouble:
            self._context.log.error("outbox_refused file=%s error=%s", self._path, error)
        self._trouble = (
            f"{self._path} cannot be written: {remedy(str(error))}; {len(self._refused)} ticks wait "
            f"in memory, their alerts go out when there is room"
        )

    def _keep(self, db: sqlite3.Connection, kept: _Kept, first: First | None) -> None:
        telling = self._telling
        number = self._next_number(db)
        letters: list[Letter] = []

        def tell(alerts: Sequence[SealedAlert], notices: Sequence[SealedAlert]) -> None:
            new = telling.letters(db, alerts, notices, kept.now_ns)
            at = number + len(letters)
            letters.extend(new)
            if new and first is not None and self._shown.add(db, new, at, kept.now_ns):
                self._shown.show(first.show)
            telling.flush(db)

        if telling.takes_alarms and kept.batches:
            if first is not None:  # the disk syncs while alerts are made of them
                first.put(kept.batches)
            tell(kept.alerts, ())
        if telling.takes_incidents:
            coming = kept.incidents if kept.coming is None else kept.coming.every_incident()
            for batch in coming:
                if first is not None:
                    first.put([batch])
                tell((), incidents_as_alerts(sealed_notices(batch)))
        self._list(db, kept.alerts)
        self._post(db, letters, number, kept.now_ns)

    def _list(self, db: sqlite3.Connection, alerts: Sequence[SealedAlert]) -> None:
        """Write how alarms stand, and what changed."""
        bodies = [self._bodies.number(alert) for alert in alerts]
        insert(
            db,
            "insert into alarm",
            [
                (alert.id, alert.state, alert.changed_ns, alert.cleared_ns, body)
                for alert, body in zip(alerts, bodies, strict=True)
            ],
            "on conflict (id) do update set state = excluded.state, changed_ns = excluded.changed_ns,"
            " cleared_ns = excluded.cleared_ns, body = excluded.body",
        )
        insert(
            db,
            "insert or ignore into change",
            [
                (body, alert.change, alert.id, alert.changed_ns, alert.state)
                for alert, body in zip(alerts, bodies, strict=True)
            ],
        )

    def _next_number(self, db: sqlite3.Connection) -> int:
        found = db.execute("select seq from sqlite_sequence where name = 'delivery'").fetchone()
        return found[0] + 1 if found else 1

    def _post(
        self, db: sqlite3.Connection, letters: Sequence[Letter], first: int, now_ns: int
    ) -> None:
        insert(
            db,
            "insert or ignore into delivery"
            " (number, key, sink, alarm, body, changed_ns, created_ns, due_ns, state)",
            [
                (number, letter.key, letter.sink, letter.alert.id, letter.body,
                 letter.alert.changed_ns, now_ns, now_ns, "held" if letter.held else "waiting")
                for number, letter in enumerate(letters, first)
            ],
        )  # fmt: skip
        for letter in letters:
            if letter.held:
                about = (letter.sink, letter.alert.id, letter.key)
                self._telling.audit.note(db, now_ns, OURS, "asked", about, letter.alert.title)
        self._logged += len(letters)
        self._deliveries.add("queued", len(letters))

    def _trim(self, db: sqlite3.Connection) -> None:
        trim(db)
        for name, sink in self._settings.sinks.items():
            most = self._settings.waiting_max
            gone = give_up_overflow(db, name, most, undoes=sink.kind in UNDOES)
            if gone:
                self._deliveries.add("overflowed", gone)
                self._context.log.error(
                    "outbox_overflow sink=%s given_up=%d waiting_max=%d", name, gone, most
                )

    # ---- delivery

    def due(self, now_ns: int, limit: int) -> list[Delivery]:
        """Return what is due: at most `limit` for each sink, oldest first, one for each alarm.

        A later change of an alarm waits until the one before it went to that sink (or was given
        up), so order holds; a sink with a long queue leaves the others theirs.
        """
        if self._shown.going:
            return self._shown.due(limit)
        if now_ns >= self._telling.due_ns:
            self._by_time(now_ns)
        assert self._db is not None
        made: list[Delivery] = []
        for sink in self._sinks:
            rows = self._db.execute(
                "select d.number, key, sink, alarm, text, attempts, created_ns"
                " from delivery d join body on body.number = d.body"
                " where state = 'waiting' and sink = ? and due_ns <= ? and not exists"
                " (select 1 from delivery e indexed by delivery_waiting where e.state = 'waiting'"
                " and e.sink = d.sink and e.alarm = d.alarm and e.number < d.number)"
                " order by d.number limit ?",
                (sink, now_ns, limit),
            )  # fmt: skip
            made += [
                Delivery(
                    number=number, key=key, sink=sink, alarm=alarm, body=body, attempts=attempts,
                    created_ns=created_ns,
                )
                for number, key, sink, alarm, body, attempts, created_ns in rows
            ]  # fmt: skip
        return sorted(made, key=lambda delivery: delivery.number)

    def _by_time(self, now_ns: int) -> None:
        try:
            with self._transaction() as db:
                self._post(db, self._telling.timers(db, now_ns), self._next_number(db), now_ns)
                self._bodies.flush(db)
        except sqlite3.OperationalError as error:
            self._context.log.warning("outbox_refused file=%s error=%s", self._path, error)

    def mark(self, verdicts: Sequence[Verdict], now_ns: int) -> None:
        """Record what became of deliveries: done, to be tried again later, or given up.

        Where the disk refuses, nothing is recorded: what was sent will be sent again, under its key.
        """
        try:
            self._mark(verdicts, now_ns)
        except sqlite3.OperationalError as error:
            self._context.log.warning("outbox_refused file=%s error=%s", self._path, error)

    def _mark(self, verdicts: Sequence[Verdict], now_ns: int) -> None:
        with self._transaction() as db:
            known = {}
            for first in range(0, len(verdicts), 500):
                numbers = [verdict.number for verdict in verdicts[first : first + 500]]
                marks = ",".join("?" * len(numbers))
                for row in db.execute(
                    "select number, state, attempts, sink, alarm, key from delivery"
                    f" where state in ('waiting', 'superseded') and number in ({marks})", numbers,
                ):  # fmt: skip
                    known[row[0]] = row[1:]
            updates, undoes = [], self._telling.undoes
            for verdict in verdicts:
                found = known.get(verdict.number)
                if found is None or found[-1] != verdict.key:
                    continue  # trimmed meanwhile, or its commit failed after it was shown
                del known[verdict.number]  # told twice
                waited, attempts, *about = found
                attempts = counted(verdict, attempts, self._settings)
                if about[0] in self._telling.acts:
                    what = "done" if verdict.sent else "refused" if verdict.final else "failed"
                    self._telling.audit.note(db, now_ns, OURS, what, about, verdict.answer)
                if waited != "waiting":  # it was over while a sink was at it
                    db.execute(
                        "update delivery set attempts = ? where number = ?",
                        (attempts, verdict.number),
                    )
                    continue
                state, due_ns = self._fate(verdict, attempts, now_ns, undoes=undoes(*about))
                said = line(verdict.answer, ANSWER_CHARACTERS_MAX)
                updates.append((state, due_ns, attempts, said, verdict.number))
            db.executemany(
                "update delivery set state = ?, due_ns = ?, attempts = ?, answer = ? where number = ?",
                updates,
            )

    def _fate(
        self, verdict: Verdict, attempts: int, now_ns: int, *, undoes: bool
    ) -> tuple[str, int]:
        """Return the state of a delivery after an attempt, and when it is due again.

        What undoes an action is never given up: a route would stay for good.
        """
        if verdict.sent:
            self._deliveries.add("sent")
            return "sent", now_ns
        if verdict.final or (attempts >= self._settings.attempts_max and not undoes):
            self._deliveries.add("given_up")
            return "given_up", now_ns
        self._deliveries.add("retried")
        chance = float(self._context.random.random())
        return "waiting", now_ns + wait_ns(attempts, self._settings, chance)

    def retry(self, sink: str = "") -> int:
        """Put what was given up back on its way, to one sink or all; return how many deliveries."""
        with self._asked() as db:
            return retry(db, sink)

    def drop(self, sink: str, number: int, by: str) -> int:
        """End what was given up (`dead_letters.drop`); return how many deliveries."""
        with self._asked() as db:
            return drop(db, sink, number, by)

    def decide(self, number: int, *, approve: bool, by: str, now_ns: int) -> bool:
        """Let a delivery that waits for approval go, or end it; False where none does.

        What was rejected is asked again when its alarm was over and is raised anew, not at each change.
        """
        with self._asked() as db:
            row = db.execute(
                "select sink, alarm, key from delivery where number = ? and state = 'held'",
                (number,),
            ).fetchone()
            if row is None:
                return False
            state, what = ("waiting", "approved") if approve else ("rejected", "rejected")
            said = line(f"{what} by {by}", ANSWER_CHARACTERS_MAX)
            db.execute(
                "update delivery set state = ?, due_ns = ?, answer = ? where number = ?",
                (state, now_ns, said, number),
            )
            self._telling.audit.note(db, now_ns, by, what, row)
            return True

    def told(self, sink: str, *, limit: int = 10_000) -> list[str]:
        """Return what a sink was last told of each alarm that is up, as JSON of alerts."""
        rows = self._rows(
            "select text as body from told join body on number = body where sink = ?"
            " order by alarm limit ?", sink, limit,
        )  # fmt: skip
        return [str(row["body"]) for row in rows]

    def audit(self, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return what was done to the network and who let it, newest first."""
        return self._rows("select * from audit order by number desc limit ?", limit)

    def sinks(self) -> list[dict[str, Any]]:
        """Return what waits for each sink, what was given up, and its last answer."""
        return self._rows(
            "select sink, sum(state = 'waiting') as waiting, sum(state = 'given_up') as given_up,"
            " sum(state = 'held') as held,"
            " min(case when state = 'waiting' then created_ns end) as oldest_ns"
            " from delivery where state in ('waiting', 'given_up', 'held') group by sink order by sink"
        )

    def deliveries(
        self, limit: int = 1000, *, state: str = "", sink: str = ""
    ) -> list[dict[str, Any]]:
        """Return deliveries, all or those in a state or to a sink, newest first."""
        return self._rows(
            "select number, key, sink, alarm, attempts, state, answer, created_ns, due_ns from delivery"
            " where ? in ('', state) and ? in ('', sink) order by number desc limit ?",
            state, sink, limit,
        )  # fmt: skip

    # ---- reading

    def alarms(self, *, active_only: bool, limit: int) -> list[dict[str, Any]]:
        """Return alarms as their alerts, the newest change first."""
        where = "where state not in ('cleared', 'closed')" if active_only else ""
        rows = self._rows(
            "select text as body from alarm join body on number = body"
            f" {where} order by changed_ns desc limit ?", limit,
        )  # fmt: skip
        return [json.loads(row["body"]) for row in rows]

    def changes(self, alarm: str = "", *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return changes in order, of one alarm or of all."""
        where, values = ("where id = ?", (alarm,)) if alarm else ("", ())
        rows = self._rows(
            "select text as body from change join body on number = body"
            f" {where} order by changed_ns, key limit ?", *values, limit,
        )  # fmt: skip
        return [json.loads(row["body"]) for row in rows]

    def _one(self, sql: str, *values: Any) -> Any:
        assert self._db is not None
        return self._db.execute(sql, values).fetchone()[0]

    def _rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        assert self._db is not None
        return rows_of(self._db, sql, *values)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        """A transaction that somebody waits for; where the disk refuses, TransientError says so."""
        try:
            with self._transaction() as db:
                yield db
        except sqlite3.OperationalError as error:
            raise TransientError(f"{self._path}: {remedy(str(error))}. Nothing was done") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._db is not None
        undo = self._telling.remember()
        try:
            with transaction(self._db) as db:
                yield db
        except BaseException:
            undo()
            self._bodies.start(self._db)
            raise
        self._logged += 1
