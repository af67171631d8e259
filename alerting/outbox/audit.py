"""The audit: what was asked of sinks that act on the network, who let it, and what came of each attempt.

Each row is also a line of the log, which lies elsewhere: a row that is changed or gone is seen by comparing.
"""

import logging
import sqlite3
from collections.abc import Sequence

from alerting.words.escape import line
from runtime.logs import WHOLE

ANSWER_CHARACTERS_MAX = 500


class Audit:
    """Appends rows within the transactions of the outbox."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def note(
        self, db: sqlite3.Connection, at_ns: int, who: str, what: str, about: Sequence[str],
        answer: str = "",
    ) -> None:  # fmt: skip
        """Note what became of a delivery; `about` is its sink, alarm and key."""
        who, answer = line(who, 200), line(answer, ANSWER_CHARACTERS_MAX)
        db.execute(
            "insert into audit (at_ns, who, what, sink, alarm, key, answer) values (?,?,?,?,?,?,?)",
            (at_ns, who, what, *about, answer),
        )
        sink, _, key = about
        self._log.info(
            "action_noted what=%s sink=%s key=%s who=%s answer=%s", what, sink, key, who, answer,
            extra=WHOLE,
        )  # fmt: skip
