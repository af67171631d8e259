"""From the journal into the history: a thread that tails the node's journal with its own cursor.

A view tick comes as two blocks: TICK (merged frames, new series) and, once it is scored, RESULT (the
frames widened by scores, anomalies, alarms); `whole_ticks` puts them together. The TICK of events (logs,
routes) waits for no result; the writer gathers ten seconds of them. What became of others' alarms is in
RESULT blocks, as our own are; as they were stated they stay in the journal. The cursor moves only behind
what was inserted and synced, so that the node may then delete the segment.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from history.flow_loader import FlowLoader
from history.retention import Retention
from history.whole_ticks import WholeTicks
from history.writer import ROWS_PER_INSERT, HistoryWriter
from runtime.component import Context
from runtime.damaged import set_aside, set_asides
from runtime.journal import Cursor, JournalReader
from telemetry.errors import ConfigError, DecodeError, TransientError

IDLE_SECONDS = 0.1
RETRY_SECONDS, RETRY_SECONDS_MAX = 1.0, 30.0
BLOCKS_PER_TURN = 32
TRIM_EVERY_NS = 3_600 * 10**9
REFUSALS = (TransientError, ConfigError, OSError)  # of a store, a disk or this machine: for now


class HistoryFeeder:
    """Owns the thread that writes."""

    def __init__(
        self,
        state: Path,
        writer: Callable[[], HistoryWriter],
        retention: Retention,
        context: Context,
        *,
        flows: FlowLoader | None = None,
    ) -> None:
        """`writer` makes one that knows nothing yet, as after a start of the process."""
        self._folder = state / "journal"
        self._cursor = Cursor(state / "cursors", "history")
        self._made_writer = writer
        self._writer = writer()
        self._retention = retention
        self._flows = flows
        self._context = context
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._begun = False
        self._trim_due_ns = 0
        self._gaps = context.metrics.counter(
            "history_gap_blocks_total", "journal blocks that were gone before they were stored"
        )
        self._refused = context.metrics.counter(
            "history_refusals_total",
            "times that the store, a disk or the machine refused, and was asked again",
        )
        set_asides(context)
        self._still = context.metrics.gauge(
            "history_stands_still", "1 while nothing is stored; the journal keeps it"
        )

    def start(self) -> None:
        """Find the place to go on from and start the thread, which waits for a disk or store that is away."""
        try:
            self._begin()
        except REFUSALS as error:
            self._say(error)
        self._thread = threading.Thread(target=self._work, name="history")
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current insert; what waits is in the journal."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def health(self) -> str:
        """Return "" or why the history stands still."""
        return self._trouble

    @property
    def high_water_ns(self) -> int:
        """End of the newest tick in the history, 0 before the first."""
        return self._writer.high_water_ns

    @property
    def next_sequence(self) -> int:
        """The journal block that comes next."""
        return self._cursor.next_sequence

    def _begin(self) -> None:
        try:
            self._cursor.load()
        except DecodeError as error:
            set_aside(self._cursor.path, error, self._context, kind="cursor")
        self._cursor.commit(self._cursor.next_sequence)  # from now on the node keeps what we need
        self._reader = JournalReader(self._folder, next_sequence=self._cursor.next_sequence)
        self._ticks = WholeTicks()
        self._writer = self._made_writer()
        self._writer.start()
        self._begun = True

    def _work(self) -> None:
        wait_seconds = RETRY_SECONDS
        while not self._ended.is_set():
            try:
                if not self._begun:
                    self._begin()
                moved = self.step()
            except Exception as error:
                self._say(error)
                self._refused.add()
                if not isinstance(error, REFUSALS):  # what we hold may be half: as after a crash
                    self._context.log.exception("history_starts_over")
                    self._begun = False
                self._ended.wait(wait_seconds)
                wait_seconds = min(wait_seconds * 2, RETRY_SECONDS_MAX)
                continue
            self._goes_on()
            wait_seconds = RETRY_SECONDS
            if not moved:
                self._ended.wait(IDLE_SECONDS)

    def step(self) -> int:
        """Take what the journal has, insert it, move the cursor; return how much was done."""
        blocks = self._take()
        if self._writer.waiting_rows or blocks:
            self._writer.flush()
        behind = self._ticks.first_held or self._reader.next_sequence
        behind = min(behind, self._writer.gathers_from or behind)
        if behind != self._cursor.next_sequence:
            self._cursor.commit(behind)
        if self._flows is not None:
            blocks += self._flows.step()
        now_ns = self._context.clock.now_ns()
        if now_ns >= self._trim_due_ns:
            self._trim_due_ns = now_ns + TRIM_EVERY_NS
            # Age counts from the newest tick stored: while it catches up, nothing goes unrolled.
            for name in self._retention.trim(min(now_ns, self._writer.high_water_ns)):
                self._context.log.info("history_dropped part=%s", name)
        return blocks

    def _take(self) -> int:
        """Hand blocks to the writer until it has an insert's worth, or there are no more."""
        taken = 0
        while taken < BLOCKS_PER_TURN and self._writer.waiting_rows < ROWS_PER_INSERT:
            before = self._reader.gap_blocks
            try:
                block = next(self._reader.read(limit=1), None)
            except DecodeError as error:
                if error.reason == "unknown_major":  # parked, not dropped: an upgrade reads it
                    self._reader = JournalReader(
                        self._folder, next_sequence=self._reader.next_sequence - 1
                    )
                    raise TransientError(str(error)) from error
                self._context.log.error("journal_damaged error=%s", error)
                self._reader.skip()
                block = None
            except OSError as error:
                raise TransientError(f"journal {self._folder}: {error.strerror}") from error
            gap = self._reader.gap_blocks - before
            if gap:
                self._gaps.array[0] += gap
                self._context.log.error("history_gap blocks=%d", gap)
            if block is None:
                break
            for tick in self._ticks.take(block):
                self._writer.tick(tick.tick_end_ns, tick.batches, sequence=tick.sequence)
            taken += 1
        return taken

    def _goes_on(self) -> None:
        if self._trouble:
            self._context.log.info("history_goes_on")
            self._trouble = ""
            self._still.array[0] = 0

    def _say(self, error: Exception) -> None:
        told = (
            str(error)
            if isinstance(error, REFUSALS)
            else f"{error!r}, please report it with the log"
        )
        sentence = f"the history stands still: {told}; it is tried again, nothing is lost meanwhile"
        self._still.array[0] = 1
        if sentence != self._trouble:
            self._context.log.error("history_stands_still error=%s", sentence)
        self._trouble = sentence
