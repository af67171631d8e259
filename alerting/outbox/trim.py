"""Keeps every table of the outbox within its bound: the newest rows stay, what waits goes last of all."""

import sqlite3
from collections.abc import Iterable

DONE_KEPT = 10_000
CHANGES_KEPT = 100_000
CLEARED_KEPT = 10_000  # alarms that are over
SENT_KEPT = 10_000
AUDIT_KEPT = 100_000
ENDED = ("sent", "given_up", "superseded", "rejected", "dropped", "held")  # states of a delivery


def trim(db: sqlite3.Connection) -> None:
    """Delete what is beyond the bounds. Bodies go with the last change or delivery that has them.

    A change or delivery whose body is that of an alarm, or of what a sink was last told of one, stays.
    """
    db.execute(
        "delete from done where tick_end_ns <= (select tick_end_ns from done"
        " order by tick_end_ns desc limit 1 offset ?)", (DONE_KEPT,),
    )  # fmt: skip
    db.execute(
        "delete from alarm where cleared_ns > 0 and changed_ns <"
        " (select changed_ns from alarm where cleared_ns > 0"
        " order by changed_ns desc limit 1 offset ?)", (CLEARED_KEPT,),
    )  # fmt: skip
    gone = _delete(
        db, "change", "body",
        "changed_ns < (select changed_ns from change order by changed_ns desc limit 1 offset ?)"
        " and body not in (select body from alarm)", (CHANGES_KEPT,),
    )  # fmt: skip
    for state in ENDED:
        gone |= _delete(
            db, "delivery", "number",
            "state = ? and number <= (select number from delivery where state = ?"
            " order by number desc limit 1 offset ?) and body not in (select body from told)",
            (state, state, SENT_KEPT),
        )  # fmt: skip
    db.executemany(
        "delete from body where number = ?"
        " and not exists (select 1 from change where change.body = body.number)"
        " and not exists (select 1 from delivery where delivery.body = body.number)",
        [(body,) for body in sorted(gone)],
    )
    db.execute(
        "delete from audit where number <= (select max(number) from audit) - ?", (AUDIT_KEPT,)
    )


def _delete(
    db: sqlite3.Connection, table: str, key: str, where: str, values: Iterable[object]
) -> set[int]:
    """Delete rows; return the bodies that they had."""
    found = db.execute(f"select {key}, body from {table} where {where}", tuple(values)).fetchall()
    db.executemany(f"delete from {table} where {key} = ?", [(row[0],) for row in found])
    return {row[1] for row in found}


def give_up_overflow(
    db: sqlite3.Connection, sink: str, waiting_max: int, *, undoes: bool = False
) -> int:
    """Give up the oldest deliveries beyond what may wait for a sink; return how many.

    Of a sink that `undoes` not what follows something that it tried: that may be in force.
    """
    gone = db.execute(
        "update delivery set state = 'given_up', answer = 'too many were waiting'"
        " where sink = ? and state = 'waiting' and number <= (select number from delivery"
        " where sink = ? and state = 'waiting' order by number desc limit 1 offset ?)"
        " and not (? and alarm in (select alarm from delivery where sink = ? and attempts > 0"
        " and state != 'waiting'))",
        (sink, sink, waiting_max, undoes, sink),
    )
    return max(gone.rowcount, 0)
