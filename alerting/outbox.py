"""The outbox: alarm changes and what is to be sent about them, in one SQLite transaction a tick.

`node.sqlite` in WAL mode with synchronous=FULL: when `commit` returns, nothing of the tick can be
lost, and a tick that was committed is never committed again. Deliveries carry an idempotency key
(alarm, change, sink); a sink that understands it sees each change once, whatever happens.
"""

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from alerting.alarm import SEVERITIES
from alerting.alert import Alert, canonical
from alerting.config import AlertingSettings, SinkSettings
from alerting.stage import alerts_of
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import ConfigError

VERSION = 1
_DDL = """
create table if not exists meta (version integer not null);
create table if not exists done (tick_end_ns integer primary key);
create table if not exists alarm (
    id text primary key, kind text, entity text, state text, severity text,
    raised_ns integer, changed_ns integer, cleared_ns integer, body text);
create table if not exists change (
    key text primary key, id text, changed_ns integer, state text, body text);
create table if not exists delivery (
    number integer primary key autoincrement, key text unique, sink text, alarm text, body text,
    created_ns integer, due_ns integer, attempts integer default 0,
    state text default 'waiting', answer text default '');
create index if not exists delivery_due on delivery (state, due_ns);
create index if not exists change_time on change (changed_ns);
"""
DONE_KEPT = 10_000


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One alert on its way to one sink."""

    number: int
    key: str
    sink: str
    alarm: str
    body: str
    attempts: int
    created_ns: int
    state: str = "waiting"
    answer: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery."""

    number: int
    sent: bool
    answer: str = ""


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
            values=("queued", "sent", "retried", "given_up"),
        )

    def start(self) -> None:
        """Open the file; a damaged one is set aside, named, and a new one is begun."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise ConfigError(
                    f"{self._path} is in use: another Tocsin runs on this state folder; stop it or "
                    f"set another state_dir. The node was not started."
                ) from error
            if isinstance(error, sqlite3.OperationalError) and "unable to open" in str(error):
                raise ConfigError(
                    f"{self._path}: {error}; make the state folder writable. The node was not started."
                ) from error
            aside = self._path.with_name(
                f"{self._path.name}.damaged-{self._context.clock.now_ns() // 10**9}"
            )
            if self._db is not None:
                self._db.close()
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._context.log.error("outbox_set_aside file=%s error=%s", aside, error)
            self._open()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=2.0)
        db = self._db
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.executescript(_DDL)
        row = db.execute("select version from meta").fetchone()
        if row is None:
            db.execute("insert into meta values (?)", (VERSION,))
        elif row[0] != VERSION:
            raise ConfigError(
                f"{self._path} has version {row[0]}, this Tocsin knows {VERSION}; upgrade Tocsin or "
                f"move the file away. The node was not started."
            )
        if db.execute("pragma quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")

    def stop(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def health(self) -> str:
        """Return "" or how much is stuck."""
        stuck = self._one("select count(*) from delivery where state = 'given_up'")
        return f"{stuck} deliveries were given up; see `tocsin outbox list`" if stuck else ""

    # ---- ticks

    def last_done(self) -> int:
        """Return the end of the newest tick that is committed, 0 = none."""
        return int(self._one("select coalesce(max(tick_end_ns), 0) from done"))

    def is_done(self, tick_end_ns: int) -> bool:
        """Whether a tick was committed."""
        return bool(self._one("select count(*) from done where tick_end_ns = ?", tick_end_ns))

    def commit(self, tick_end_ns: int, alarms: Sequence[Batch], now_ns: int) -> list[Alert]:
        """Commit a tick's alarm changes and their deliveries; return the alerts, none if it was done."""
        assert self._db is not None
        alerts = [alert for batch in alarms for alert in alerts_of(batch)]
        with self._transaction() as db:
            try:
                db.execute("insert into done values (?)", (tick_end_ns,))
            except sqlite3.IntegrityError:
                return []
            if tick_end_ns // 10**9 % 997 == 0:
                oldest = "select min(tick_end_ns) from (select tick_end_ns from done order by 1 desc limit ?)"
                db.execute(f"delete from done where tick_end_ns < ({oldest})", (DONE_KEPT,))
            for alert in alerts:
                self._keep(db, alert, now_ns)
        return alerts

    def _keep(self, db: sqlite3.Connection, alert: Alert, now_ns: int) -> None:
        body = canonical(alert).decode()
        db.execute(
            "insert or replace into alarm values (?,?,?,?,?,?,?,?,?)",
            (alert.id, alert.kind, alert.entity, alert.state, alert.severity, alert.raised_ns,
             alert.changed_ns, alert.cleared_ns, body),
        )  # fmt: skip
        db.execute(
            "insert or ignore into change values (?,?,?,?,?)",
            (alert.change, alert.id, alert.changed_ns, alert.state, body),
        )
        for name, sink in self._settings.sinks.items():
            if wants(sink, alert):
                db.execute(
                    "insert or ignore into delivery (key, sink, alarm, body, created_ns, due_ns)"
                    " values (?,?,?,?,?,?)",
                    (f"{alert.change}-{name}", name, alert.id, body, now_ns, now_ns),
                )
                self._deliveries.add("queued")

    # ---- delivery

    def due(self, now_ns: int, limit: int) -> list[Delivery]:
        """Return deliveries that are due, oldest first, at most one per alarm and sink: order holds."""
        rows = self._rows(
            "select min(number) as number, key, sink, alarm, body, attempts, created_ns from delivery"
            " where state = 'waiting' group by sink, alarm having due_ns <= ? order by number limit ?",
            now_ns,
            limit,
        )
        return [Delivery(**row) for row in rows]

    def mark(self, verdicts: Sequence[Verdict], now_ns: int) -> None:
        """Record what became of deliveries: done, to be tried again later, or given up."""
        with self._transaction() as db:
            for verdict in verdicts:
                row = db.execute(
                    "select attempts from delivery where number = ?", (verdict.number,)
                ).fetchone()
                if row is None:
                    continue
                attempts = row[0] + 1
                if verdict.sent:
                    state, due = "sent", now_ns
                    self._deliveries.add("sent")
                elif attempts >= self._settings.attempts_max:
                    state, due = "given_up", now_ns
                    self._deliveries.add("given_up")
                else:
                    first, most = (
                        self._settings.retry_seconds_first,
                        self._settings.retry_seconds_max,
                    )
                    wait = min(first * 2 ** min(attempts - 1, 30), most)
                    wait *= 0.75 + 0.5 * float(self._context.random.random())
                    state, due = "waiting", now_ns + round(wait * 1e9)
                    self._deliveries.add("retried")
                db.execute(
                    "update delivery set state = ?, due_ns = ?, attempts = ?, answer = ? where number = ?",
                    (state, due, attempts, verdict.answer[:500], verdict.number),
                )
            db.execute(
                "delete from delivery where state = 'sent' and number < "
                "(select max(number) from delivery) - 10000"
            )

    def retry(self) -> int:
        """Put every delivery that was given up back on its way; return how many."""
        with self._transaction() as db:
            done = db.execute(
                "update delivery set state = 'waiting', attempts = 0, due_ns = 0"
                " where state = 'given_up'"
            )
            return int(done.rowcount)

    def deliveries(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Return deliveries, newest first."""
        return self._rows(
            "select number, key, sink, alarm, attempts, state, answer, created_ns, due_ns"
            " from delivery order by number desc limit ?",
            limit,
        )

    # ---- reading

    def alarms(self, *, active_only: bool, limit: int) -> list[dict[str, Any]]:
        """Return alarms as their alerts, the newest change first."""
        where = "where state != 'cleared'" if active_only else ""
        rows = self._rows(f"select body from alarm {where} order by changed_ns desc limit ?", limit)
        return [json.loads(row["body"]) for row in rows]

    def changes(self, alarm: str = "", *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return changes in order, of one alarm or of all."""
        where, values = ("where id = ?", (alarm,)) if alarm else ("", ())
        rows = self._rows(
            f"select body from change {where} order by changed_ns, key limit ?", *values, limit
        )
        return [json.loads(row["body"]) for row in rows]

    def _one(self, sql: str, *values: Any) -> Any:
        assert self._db is not None
        return self._db.execute(sql, values).fetchone()[0]

    def _rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        assert self._db is not None
        cursor = self._db.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        assert self._db is not None
        self._db.execute("begin immediate")
        try:
            yield self._db
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")


def wants(sink: SinkSettings, alert: Alert) -> bool:
    """Whether a sink's route takes this alert."""
    severe = SEVERITIES.index(alert.severity) <= SEVERITIES.index(sink.least_severity)
    return severe and (not sink.kinds or alert.kind in sink.kinds)
