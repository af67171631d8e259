"""What becomes of a delivery that was not sent: tried again, given up, and then sent anew or dropped."""

import sqlite3

from alerting.config import AlertingSettings
from alerting.outbox.audit import ANSWER_CHARACTERS_MAX
from alerting.words.delivery import Verdict
from alerting.words.escape import line

# So many count at most while a sink takes nothing: it waits, and is not given up for that.
AWAY_ATTEMPTS = 10


def counted(verdict: Verdict, attempts: int, settings: AlertingSettings) -> int:
    """Return how many attempts a delivery has had, with the one that a verdict is of."""
    if not verdict.away:
        return attempts + 1
    return max(attempts, min(attempts + 1, AWAY_ATTEMPTS, settings.attempts_max - 1))


def wait_ns(attempts: int, settings: AlertingSettings, chance: float) -> int:
    """Return after how long a delivery is tried again: twice as long each time, give or take a quarter as
    chance (0 to 1) has it."""
    first, most = settings.retry_seconds_first, settings.retry_seconds_max
    wait = float(min(first * 2 ** min(max(attempts - 1, 0), 30), most))
    return round(wait * (0.75 + 0.5 * chance) * 1e9)


def retry(db: sqlite3.Connection, sink: str) -> int:
    """Put every delivery that was given up back on its way, to one sink or ("") all; return how many.

    Not where a later change of the same alarm reached that sink: an old raise behind its clear
    would be a lie.
    """
    db.execute(
        "update delivery set state = 'superseded' where state = 'given_up' and ? in ('', sink)"
        " and exists (select 1 from delivery later where later.sink = delivery.sink"
        " and later.alarm = delivery.alarm and later.number > delivery.number"
        " and later.state = 'sent')", (sink,),
    )  # fmt: skip
    done = db.execute(
        "update delivery set state = 'waiting', attempts = 0, due_ns = 0"
        " where state = 'given_up' and ? in ('', sink)", (sink,),
    )  # fmt: skip
    return int(done.rowcount)


def drop(db: sqlite3.Connection, sink: str, number: int, by: str) -> int:
    """End deliveries that were given up, of one sink ("" = any) or (not 0) of one number; return how many."""
    said = line(f"dropped by {by}: ", ANSWER_CHARACTERS_MAX)
    done = db.execute(
        "update delivery set state = 'dropped', answer = substr(? || ' ' || answer, 1, ?)"
        " where state = 'given_up' and ? in ('', sink) and ? in (0, number)",
        (said, ANSWER_CHARACTERS_MAX, sink, number),
    )
    return int(done.rowcount)
