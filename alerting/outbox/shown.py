"""Deliveries that the gate may have while the transaction that makes them is still open."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from alerting.outbox.bodies import Bodies
from alerting.outbox.telling import Letter
from alerting.words.delivery import Delivery
from telemetry.batch import Batch


class Coming(Protocol):
    """The changes of a tick, which are put into words only when they are asked for."""

    def every_alarm(self) -> Sequence[Batch]:
        """Return all batches of alarms."""
        ...

    def every_incident(self) -> Iterable[Batch]:
        """Yield all batches of incidents, one after the other."""
        ...


class First(Protocol):
    """Who has what sinks are told on disk before the outbox has, and answers the gate by that."""

    def put(self, part: Sequence[Batch]) -> None:
        """Begin to keep a part of it."""
        ...

    def show(self) -> None:
        """Answer who asks what is due, and nothing else, once all parts are kept."""
        ...


class Shown:
    """Has something only in the middle of a commit."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.going = False  # somebody may ask now
        self._ready: dict[str, list[Delivery]] = {}  # by sink: not asked for yet
        self._known: set[tuple[str, str]] = set()  # sinks and alarms of this commit

    def add(
        self, db: sqlite3.Connection, letters: Sequence[Letter], first: int, now_ns: int
    ) -> bool:
        """Take letters, numbered from `first` on, to sinks for which nothing waits, of each alarm the first; return
        whether there is anything to show."""
        free = {
            sink: not db.execute(
                "select 1 from delivery where state = 'waiting' and sink = ? limit 1", (sink,)
            ).fetchall()
            for sink in {letter.sink for letter in letters}
        }
        for number, letter in enumerate(letters, first):
            to = letter.sink, letter.alert.id
            if free[letter.sink] and not letter.held and to not in self._known:
                self._known.add(to)
                made = Delivery(
                    number=number, key=letter.key, sink=letter.sink, alarm=letter.alert.id,
                    body=self._bodies.text(letter.body), attempts=0, created_ns=now_ns,
                )  # fmt: skip
                self._ready.setdefault(letter.sink, []).append(made)
        return any(self._ready.values())

    def show(self, say: Callable[[], None]) -> None:
        """Let them be asked for in `say`."""
        self.going = True
        try:
            say()
        finally:
            self.going = False

    def due(self, limit: int) -> list[Delivery]:
        """Return the first `limit` for each sink, once."""
        made = []
        for sink, ready in self._ready.items():
            made += ready[:limit]
            self._ready[sink] = ready[limit:]
        return sorted(made, key=lambda delivery: delivery.number)

    def clear(self) -> None:
        """The commit is over, in whatever way."""
        self._ready.clear()
        self._known.clear()
