"""The tables of the outbox's file: how they came about, and how rows of batches go into them."""

import json
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from alerting.bundles import TABLES as GROUP_TABLES
from alerting.records import read_json
from alerting.telling import TABLES
from telemetry.batch import Batch
from telemetry.identity import id_text

# Each entry leads from the version before it to its own; only ever append.
MIGRATIONS = (
    """
    create table done (tick_end_ns integer primary key);
    create table alarm (
        id text primary key, kind text, entity text, state text, severity text,
        raised_ns integer, changed_ns integer, cleared_ns integer, body text, crc integer);
    create table change (
        key text primary key, id text, changed_ns integer, state text, body text, crc integer);
    create index change_time on change (changed_ns);
    create table delivery (
        number integer primary key autoincrement, key text unique, sink text, alarm text,
        body text, crc integer, created_ns integer, due_ns integer, attempts integer default 0,
        state text default 'waiting', answer text default '');
    create index delivery_waiting on delivery (sink, alarm, number) where state = 'waiting';
    create index delivery_next on delivery (sink, number) where state = 'waiting';
    create index delivery_state on delivery (state, number);
    create table incident (
        id text primary key, opened_ns integer, changed_ns integer, closed_ns integer, body text);
    create table digest (
        hour_start_ns integer, view text, detector text, measure text, body text,
        primary key (hour_start_ns, view, detector, measure));
    """,
    TABLES,
    GROUP_TABLES,
)
VERSION = len(MIGRATIONS)
APPLICATION_ID = 0x544F4353  # "TOCS": another program's file is not ours to write to
ANSWER_CHARACTERS_MAX = 500
# What SQLite says about a file that is no longer a database, as opposed to a disk that refuses.
DAMAGE = ("malformed", "not a database", "quick_check", "checksum", "already exists")
_SORTED = msgspec.json.Encoder(order="sorted")
# (table, columns, whether each row carries a checksum of its body): what a damaged file gives back.
SALVAGED = (
    ("done", "tick_end_ns", False),
    ("alarm", ("id, kind, entity, state, severity, raised_ns, changed_ns, cleared_ns,"
              " body, crc"), True),
    ("change", "key, id, changed_ns, state, body, crc", True),
    ("delivery", ("key, sink, alarm, created_ns, due_ns, attempts, state, answer,"
                 " body, crc"), True),
    ("incident", "id, opened_ns, changed_ns, closed_ns, body", False),
    ("digest", "hour_start_ns, view, detector, measure, body", False),
    ("told", "alarm, sink, body", False),
    ("later", "alarm, sink, due_ns, body", False),
    ("bundle", "id, sink, labels, since_ns, told_ns, due_ns, wait_ns, repeat_ns", False),
    ("member", "bundle, alarm, over, body", False),
    ("audit", "at_ns, who, what, sink, alarm, key, answer", False),
)  # fmt: skip


def record(
    db: sqlite3.Connection, at_ns: int, who: str, what: str, about: Sequence[str], answer: str
) -> None:
    db.execute(
        "insert into audit (at_ns, who, what, sink, alarm, key, answer) values (?,?,?,?,?,?,?)",
        (at_ns, who[:200], what, *about, answer[:ANSWER_CHARACTERS_MAX]),
    )


def check_bodies(db: sqlite3.Connection) -> None:
    """Compare what may still be sent or shown with its checksum: quick_check sees no flipped bit."""
    for sql in (
        "select id, body, crc from alarm",
        "select key, body, crc from delivery where state = 'waiting'",
    ):
        for name, body, crc in db.execute(sql):
            if not fits(body, crc):
                raise sqlite3.DatabaseError(f"{name} does not match its checksum")


def fits(body: object, crc: object) -> bool:
    return isinstance(body, str) and zlib.crc32(body.encode()) == crc


def keep_incidents(db: sqlite3.Connection, batch: Batch) -> None:
    titles, severities = batch.texts("title"), batch.texts("severity")
    causes, alarms = batch.texts("causes"), batch.texts("alarms")
    numbers, opened, closed, changed = (
        batch[name].tolist() for name in ("incident_id", "opened_ns", "closed_ns", "changed_ns")
    )
    rows = []
    for i in range(batch.rows):
        number = id_text(numbers[i])
        body = {
            "id": number, "title": titles[i], "severity": severities[i], "opened_ns": opened[i],
            "changed_ns": changed[i], "closed_ns": closed[i], "causes": read_json(causes[i]),
            "alarms": read_json(alarms[i]),
        }  # fmt: skip
        rows.append((number, opened[i], changed[i], closed[i], _json(body)))
    db.executemany("insert or replace into incident values (?,?,?,?,?)", rows)


def _json(body: dict[str, Any]) -> str:
    try:
        return _SORTED.encode(body).decode()
    except UnicodeEncodeError:  # half a surrogate pair: json writes it as an escape
        return json.dumps(body, sort_keys=True)


def keep_digest(db: sqlite3.Connection, batch: Batch) -> None:
    texts = {name: batch.texts(name) for name in ("view", "detector", "measure", "entity")}
    for i in range(batch.rows):
        body: dict[str, Any] = {name: column[i] for name, column in texts.items()}
        for name in ("hour_start_ns", "findings", "time_ns"):
            body[name] = int(batch[name][i])
        for name in ("score", "actual", "expected"):
            body[name] = float(batch[name][i])
        db.execute(
            "insert or replace into digest values (?,?,?,?,?)",
            (body["hour_start_ns"], body["view"], body["detector"], body["measure"],
             json.dumps(body, sort_keys=True)),
        )  # fmt: skip


def remedy(text: str) -> str:
    """Return what SQLite or the system said with what to do about it."""
    if "locked" in text:
        return "in use: another Tocsin runs on this state folder; stop it, or set another state_dir"
    if "full" in text:
        return f"{text}; make room on that disk"
    return f"{text}; make the state folder and this file writable, or set another state_dir"
