"""The node's checkpoints: what is kept, how often, and how much of the journal is still needed behind them."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime import logs
from runtime.checkpoint import Checkpoints, Snapshot
from runtime.component import Context
from runtime.journal import Cursor
from runtime.journal_writer import JournalWriter
from telemetry.errors import TocsinError

CURSORS = ("history",)


class NodeCheckpoints:
    """Keeps the parts of a node, under their names, beside the journal."""

    def __init__(
        self, state: Path, context: Context, journal: JournalWriter, *, seconds: float
    ) -> None:
        self._cursors_folder = state / "cursors"
        self._checkpoints = Checkpoints(state / "checkpoints", context)
        self._journal = journal
        self._clock = context.clock
        self._every_ns = round(seconds * 1e9)
        self._log = logs.child("node")
        self.next_sequence = 1  # of the journal, the first behind the newest checkpoint
        self.due_ns = 0  # 0: as soon as there is something to keep

    def restore(self, made: Callable[[], Mapping[str, Any]]) -> int:
        """Have the parts made and give them what the newest one that fits them holds; return at which
        tick's end, 0 without one. Parts that took half of one that does not fit are made anew."""
        parts, tick_end_ns = made(), 0

        def take(state: Snapshot) -> None:
            for name, part in parts.items():
                part.restore(state.scoped(name))

        while (loaded := self._checkpoints.load()) is not None:
            sequence, closed_ns, state = loaded
            if self._checkpoints.taken(take, state):
                tick_end_ns, self.next_sequence = closed_ns, sequence + 1
                break
            parts = made()
        for sequence in (self.next_sequence, *(one.next_sequence for one in self._cursors())):
            self._journal.go_on_from(sequence)
        return tick_end_ns

    def schedule(self) -> None:
        """The next one is due when its time has passed."""
        self.due_ns = self._clock.now_ns() + self._every_ns

    def save(self, tick_end_ns: int, parts: dict[str, Any]) -> None:
        """Keep the parts as they are behind all that is journalled; let go of what nobody needs."""
        sequence = self._journal.next_sequence - 1
        try:
            self._checkpoints.save(sequence, tick_end_ns, parts)
            self.next_sequence = sequence + 1
            self._journal.trim(self._cursors(), keep_sequence=self.next_sequence)
        except OSError as error:
            self._log.error("checkpoint_refused error=%s", error)

    def keep_room(self) -> None:
        """Keep the journal within its budget where a segment has ended since the last look.

        What the last checkpoint needs stays until there is a newer one, which is due then.
        """
        if not self._journal.rolled:
            return
        self._journal.rolled = False
        try:
            if not self._journal.trim(
                self._cursors(), keep_sequence=self.next_sequence, spare=True
            ):
                self.due_ns = self._clock.now_ns()
        except OSError as error:
            self._log.error("journal_not_trimmed error=%s", error)

    def _cursors(self) -> list[Cursor]:
        """Return where the journal's readers stand."""
        found = []
        for name in CURSORS:
            if (self._cursors_folder / name).exists():
                cursor = Cursor(self._cursors_folder, name)
                with contextlib.suppress(TocsinError):  # it will begin anew, and needs all
                    cursor.load()
                found.append(cursor)
        return found
