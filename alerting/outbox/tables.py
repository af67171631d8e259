"""The tables of the outbox's file: how they came about, and what a damaged one gives back."""

import sqlite3
from collections.abc import Mapping

from alerting.outbox.bodies import fits
from alerting.outbox.bundles import TABLES as GROUP_TABLES
from alerting.outbox.telling import HELD_TABLE, TABLES

# Until version 4 each table had bodies of its own; the rows of those days get one each. Incidents and the digest
# are read from the node and the history, not from here.
# An index that begins with the time of the change grows at its end: a commit touches few of its pages.
ONE_BODY = """
    create table body (number integer primary key, text text not null, crc integer not null);
    insert or ignore into change
        select id || '-' || changed_ns || '-' || state, id, changed_ns, state, body, crc from alarm;
    insert into body select rowid, body, crc from change;
    create table changed (
        body integer primary key, key text, id text, changed_ns integer, state text);
    insert into changed select rowid, key, id, changed_ns, state from change;
    drop table change;
    alter table changed rename to change;
    create unique index change_key on change (changed_ns, key);
    create table up (
        id text primary key, state text, changed_ns integer, cleared_ns integer, body integer);
    insert into up select alarm.id, alarm.state, alarm.changed_ns, alarm.cleared_ns, change.body
        from alarm join change on change.changed_ns = alarm.changed_ns
        and change.key = alarm.id || '-' || alarm.changed_ns || '-' || alarm.state;
    drop table alarm;
    alter table up rename to alarm;
    create temp table first as select coalesce(max(number), 0) as body from body;
    insert into body select first.body + number, delivery.body, crc from delivery, first;
    create table sending (
        number integer primary key autoincrement, key text, sink text, alarm text, body integer,
        changed_ns integer, created_ns integer, due_ns integer, attempts integer default 0,
        state text default 'waiting', answer text default '');
    insert into sending select number, key, sink, alarm, first.body + number,
        cast(substr(key, 18) as integer), created_ns, due_ns, attempts, state, answer
        from delivery, first;
    drop table delivery;
    alter table sending rename to delivery;
    create unique index delivery_key on delivery (changed_ns, key);
    create index delivery_body on delivery (body);
    create index delivery_waiting on delivery (sink, alarm, number) where state = 'waiting';
    create index delivery_next on delivery (sink, number) where state = 'waiting';
    create index delivery_state on delivery (state, number);
    create table knows (alarm text, sink text, body integer, primary key (alarm, sink)) without rowid;
    create temp table known as select alarm, sink, body from told;
    drop table first;
    create temp table first as select coalesce(max(number), 0) as body from body;
    insert into body select first.body + known.rowid, known.body, crc32(known.body) from known, first;
    insert into knows select alarm, sink, first.body + known.rowid from known, first;
    drop table told;
    alter table knows rename to told;
    drop table first;
    drop table known;
    drop table incident;
    drop table digest;
"""
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
    ONE_BODY,
    HELD_TABLE,
)
VERSION = len(MIGRATIONS)
APPLICATION_ID = 0x544F4353  # "TOCS": another program's file is not ours to write to
# What a damaged file gives back, by table: its columns, and whether they end in a body and its checksum.
Salvaged = Mapping[str, tuple[str, bool]]
_ALWAYS = {
    "done": ("tick_end_ns", False),
    "later": ("alarm, sink, due_ns, body", False),
    "bundle": ("id, sink, labels, since_ns, told_ns, due_ns, wait_ns, repeat_ns", False),
    "member": ("bundle, alarm, over, body", False),
    "audit": ("at_ns, who, what, sink, alarm, key, answer", False),
    "told": ("alarm, sink, body", False),
}
_OWN_BODIES = _ALWAYS | {
    "alarm": (
        "id, kind, entity, state, severity, raised_ns, changed_ns, cleared_ns, body, crc", True,
    ),
    "change": ("key, id, changed_ns, state, body, crc", True),
    "delivery": ("key, sink, alarm, created_ns, due_ns, attempts, state, answer, body, crc", True),
}  # fmt: skip
_ONE_BODY = {"body": ("number, text, crc", True)} | _ALWAYS | {
    "alarm": ("id, state, changed_ns, cleared_ns, body", False),
    "change": ("body, key, id, changed_ns, state", False),
    "delivery": (
        "number, key, sink, alarm, body, changed_ns, created_ns, due_ns, attempts, state, answer", False,
    ),
}  # fmt: skip
NAMING = ("alarm", "change", "delivery", "told")  # tables whose rows name a body


def salvaged(version: int) -> Salvaged:
    """Return what a file of a version gives back."""
    return _OWN_BODIES if version < 4 else _ONE_BODY


def check_bodies(db: sqlite3.Connection) -> None:
    """Compare what may still be sent or shown with its checksum: quick_check sees no flipped bit."""
    for sql in (
        "select alarm.id, text, crc from alarm left join body on body.number = body",
        (
            "select key, text, crc from delivery left join body on body.number = body"
            " where state = 'waiting'"
        ),
    ):
        for name, text, crc in db.execute(sql):
            if not fits(text, crc):
                raise sqlite3.DatabaseError(f"{name} does not match its checksum")


def drop_bodies_of_nobody(db: sqlite3.Connection) -> None:
    """Delete bodies that no row names: where a told alarm outlived its changes, one is left over."""
    named = " union all ".join(f"select body from {table}" for table in NAMING)
    db.execute(f"delete from body where number not in ({named})")
