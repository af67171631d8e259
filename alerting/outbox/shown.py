"""Deliveries that the gate may have while the transaction that makes them is still open."""

import sqlite3
from collections.abc import Callable, Sequence

from alerting.outbox.bodies import Bodies
from alerting.outbox.telling import Letter
from alerting.words.delivery import Delivery


class Shown:
    """Is empty but in the middle of a commit."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        # By sink and alarm: of each the first.
        self._deliveries: dict[tuple[str, str], Delivery] = {}

    def __bool__(self) -> bool:
        return bool(self._deliveries)

    def show(
        self, db: sqlite3.Connection, letters: Sequence[Letter], first: int, now_ns: int,
        say: Callable[[], object],
    ) -> None:  # fmt: skip
        """Call `say`; `due` returns meanwhile what these letters, numbered from `first` on, are to sinks for
        which nothing waits."""
        free = {
            sink: not db.execute(
                "select 1 from delivery where state = 'waiting' and sink = ? limit 1", (sink,)
            ).fetchall()
            for sink in {letter.sink for letter in letters}
        }
        for number, letter in enumerate(letters, first):
            to = letter.sink, letter.alert.id
            if free[letter.sink] and not letter.held and to not in self._deliveries:
                self._deliveries[to] = Delivery(
                    number=number, key=letter.key, sink=letter.sink, alarm=letter.alert.id,
                    body=self._bodies.text(letter.body), attempts=0, created_ns=now_ns,
                )  # fmt: skip
        try:
            if self._deliveries:
                say()
        finally:
            self._deliveries.clear()

    def due(self, limit: int) -> list[Delivery]:
        """Return the first `limit` for each sink."""
        left = dict.fromkeys((sink for sink, _ in self._deliveries), limit)
        made = []
        for (sink, _), delivery in self._deliveries.items():
            if left[sink] > 0:
                left[sink] -= 1
                made.append(delivery)
        return made
