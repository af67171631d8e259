"""The table `body`: what alerts say, each text once; alarms, changes, deliveries name it by its number.

Numbers rise, so that rows are added at the table's end: a commit writes each text to the disk once.
"""

import sqlite3
import zlib

import msgspec

from alerting.outbox.rows import insert
from alerting.words.alert import Alert, Envelope, SealedAlert, canonical
from alerting.words.escape import tidy

BODY_BYTES_MAX = 256 * 1024
ESCAPED_HALF = b"\\ud"  # half a surrogate pair, or a whole one that is written as two escapes


class Bodies:
    """Numbers the bodies of a transaction; `flush` adds the new ones, `forget` goes with a rollback."""

    def __init__(self) -> None:
        self._last = 0  # the highest number that was given
        self._new: dict[str, int] = {}  # what was numbered in this transaction, by idempotency key
        self._rows: list[tuple[int, str]] = []

    def start(self, db: sqlite3.Connection) -> None:
        """Go on where the file stands."""
        self._last = db.execute("select coalesce(max(number), 0) from body").fetchone()[0]
        self._new, self._rows = {}, []

    def number(self, alert: Envelope) -> int:
        """Return the number of an alert's body, which is made and kept where it is new."""
        return self._new.get(alert.change) or self.keep(alert.change, body_of(alert))

    def keep(self, change: str, text: str) -> int:
        """Take a body as it is; return its number."""
        self._last = self._new[change] = number = self._last + 1
        self._rows.append((number, text))
        return number

    def text(self, number: int) -> str:
        """Return a body of this transaction."""
        return self._rows[number - self._rows[0][0]][1]

    def flush(self, db: sqlite3.Connection) -> None:
        """Write what is new."""
        rows = [(number, text, zlib.crc32(text.encode())) for number, text in self._rows]
        insert(db, "insert into body", rows)
        self._new, self._rows = {}, []


def body_of(alert: Envelope) -> str:
    """Return the alert as it is kept and sent: canonical JSON, made harmless where it cannot be that."""
    data = canonical(alert) if isinstance(alert, SealedAlert) else b""
    sound = b"\\" not in data or ESCAPED_HALF not in data  # one byte is found quicker than three
    if data and sound and len(data) <= BODY_BYTES_MAX:
        return data.decode()
    opened = alert.opened() if isinstance(alert, SealedAlert) else alert
    assert isinstance(opened, Alert)
    return _harmless(opened)


def _harmless(alert: Alert) -> str:
    try:
        data = canonical(alert)
    except (UnicodeEncodeError, OverflowError, ValueError, TypeError):
        data = canonical(tidy(alert))  # half a surrogate pair, a number beyond 64 bits
    if len(data) > BODY_BYTES_MAX:
        data = canonical(tidy(alert))
    if len(data) > BODY_BYTES_MAX:
        said = {"why": ["the explain block was too large to be kept with the alert"]}
        data = canonical(tidy(msgspec.structs.replace(alert, explain=said, symptoms=())))
    return data.decode()


def fits(text: object, crc: object) -> bool:
    """Whether a body is as it was written."""
    return isinstance(text, str) and zlib.crc32(text.encode()) == crc
