"""What came of ticks, on its way out of the node.

The disk syncs a tick while it is scored. Nothing leaves the node for a tick that is not on disk: no
result, no alert, no answer to whoever waits for it. Where the disk refuses, ticks are made and scored
all the same, and what came of them waits here, in order (ADR 0014).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from logging import Logger
from pathlib import Path
from typing import TypeVar

import numpy as np

from alerting.outbox.outbox import Outbox
from alerting.words.alert import SealedAlert, canonical
from alerting.words.alerts import sealed_notices
from runtime.bus import Publisher
from runtime.clock import Clock
from runtime.journal import Block, BlockKind, JournalReader
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch
from telemetry.errors import TocsinError, TransientError
from telemetry.schemas import ALARM, INCIDENT
from tocsin.chain.ticks import Outcome, Tick

Found = TypeVar("Found")
NONE = np.zeros(0, np.uint64)


class _First:
    """Gives the journal what is told of a tick before the outbox has it, and the gate what the journal has."""

    def __init__(
        self,
        journal: JournalWriter,
        tick_end_ns: int,
        publisher: Publisher,
        answer: Callable[[], object],
    ) -> None:
        self._journal = journal
        self._tick_end_ns = tick_end_ns
        self._publisher = publisher
        self._answer = answer
        self._newest = 0  # block

    def put(self, part: Sequence[Batch]) -> None:
        """Hand a part to the disk; the gate wakes up meanwhile and asks what is due to its sinks."""
        self._publisher.publish("due", b"")
        self._newest = self._journal.append(
            BlockKind.TOLD, self._tick_end_ns, part, sync=True, behind=True
        )

    def show(self) -> None:
        """Answer the gate, if the disk has taken all."""
        self._journal.settle()
        if self._journal.on_disk >= self._newest:
            self._answer()


class Commits:
    """From the journal to the outbox, from there to watchers, and the promises kept."""

    def __init__(
        self, journal: JournalWriter, outbox: Outbox, publisher: Publisher, clock: Clock
    ) -> None:
        self._journal = journal
        self._outbox = outbox
        self._publisher = publisher
        self._clock = clock
        self._sequence = 0  # of the newest tick
        self._held: deque[tuple[int, Outcome]] = deque()
        # Of the ticks since the last `rest`, and of those that a disk refused: no more than it may.
        self._results: deque[Outcome] = deque()  # committed, not in the journal yet
        # Committed, not published yet: alerts and incidents of a tick.
        self._news: deque[tuple[Sequence[SealedAlert], Sequence[Batch]]] = deque()
        self._told = False  # something was, since this was last asked
        # Called in the middle of a commit, when what it makes is due: to answer who asks for that, and nothing else.
        self.on_due: Callable[[], object] = lambda: None
        outbox.on_commit = self._committed

    def journal(self, tick: Tick) -> None:
        """Hand a tick to the disk, which does its part while the tick is scored."""
        self.rest()
        self._sequence = self._journal.append(
            BlockKind.TICK, tick.tick_end_ns, tick.batches, sync=True, behind=True
        )

    def take(self, outcome: Outcome) -> None:
        """Take what came of the tick that was journalled last."""
        self._held.append((self._sequence, outcome))
        if self._outbox.tells:
            outcome.begin(alarms=self._outbox.takes_alarms)  # while the disk syncs the tick
        self._journal.settle()
        self._release()

    def retry(self) -> None:
        """Go on where a disk that refused takes something again."""
        self._journal.retry()
        self._release()
        self._outbox.retry_ticks()

    def make_room(self, paused: Callable[[], bool], log: Logger) -> None:
        """At a start: return when no more waits for a disk than may. `paused` says whether to go on."""
        if self.full:
            log.error("start_waits_for_disk why='%s'", self.trouble)
        while self.full:
            if not paused():
                raise TransientError(f"{self.trouble}. The node ended before it was ready")
            self.retry()

    def _release(self) -> None:
        while self._held and self._held[0][0] <= self._journal.on_disk:
            sequence, outcome = self._held.popleft()
            self._keep(outcome, sequence=sequence)
            for promise in outcome.promises:
                promise()

    def keep(
        self,
        outcome: Outcome,
        *,
        told: Sequence[Batch] = (),
        is_done: bool = False,
        has_result: bool = False,
    ) -> None:
        """Keep what came of a tick that is taken back. The outbox may have its part (`is_done`), and the journal
        (`has_result`). What may have left before the outbox had it is `told`: that counts, whatever would come of
        the tick today."""
        if told:
            outcome.complete()
            alarms = [batch for batch in told if batch.schema.name == ALARM.name]
            outcome.alarms[:] = alarms or outcome.alarms
            incidents = [batch for batch in told if batch.schema.name == INCIDENT.name]
            known = [batch["incident_id"] for batch in incidents]
            for batch in outcome.incidents:
                rest = np.flatnonzero(
                    ~np.isin(batch["incident_id"], np.concatenate([*known, NONE]))
                )
                incidents += [batch.take(rest)] if rest.size else []
            outcome.incidents[:] = incidents
        self._keep(outcome, is_done=is_done, has_result=has_result)

    def _keep(
        self,
        outcome: Outcome,
        *,
        sequence: int = 0,
        is_done: bool = False,
        has_result: bool = False,
    ) -> None:
        if not outcome.is_worth_keeping:
            return
        if not is_done:
            first = None
            # Right behind the tick, for who reads the journal again, and as long as no disk refuses.
            if (
                self._outbox.tells
                and self._journal.next_sequence == sequence + 1
                and not self.trouble
            ):
                first = _First(self._journal, outcome.tick_end_ns, self._publisher, self.on_due)
            elif outcome.tells:
                self._publisher.publish("due", b"")
            self._outbox.commit(
                outcome.tick_end_ns, outcome.alarms, self._clock.now_ns(), incidents=outcome.incidents,
                coming=outcome, first=first,
            )  # fmt: skip
            if sequence:
                self.on_due()  # it may have been late
        if not has_result:
            self._results.append(outcome)

    def rest(self) -> None:
        """Tell watchers what was committed, and give the journal the results, which can be computed again:
        the gate, which is awake by now, goes before them. Before the next tick, and before a checkpoint;
        at a start after each tick that is taken back, so that a long journal does not fill memory."""
        while self._news:
            self._publish(*self._news.popleft())
        while self._results:
            outcome = self._results.popleft()
            self._journal.append(
                BlockKind.RESULT, outcome.tick_end_ns, outcome.result(), sync=False
            )

    def _committed(self, alerts: Sequence[SealedAlert], incidents: Sequence[Batch]) -> None:
        """The gate comes for what is due to its sinks; watchers are told when it has that.

        Where no sink waits for incidents, those of the tick are added to the list after this.
        """
        if alerts or incidents:
            self._told = True
            self._news.append((alerts, incidents))

    def _publish(self, alerts: Sequence[SealedAlert], incidents: Sequence[Batch]) -> None:
        for alert in alerts:
            self._publisher.publish("alerts", canonical(alert))
        for batch in incidents:
            for notice in sealed_notices(batch):
                self._publisher.publish("incidents", canonical(notice))

    def took_told(self) -> bool:
        """Whether something was told since this was last asked: the gate will come for it."""
        told, self._told = self._told, False
        return told

    def on_disk_ns(self, frontier_ns: int) -> int:
        """Return up to where everything that has closed by this frontier is on disk."""
        if not self._held:
            return frontier_ns
        return min(frontier_ns, self._held[0][1].tick_end_ns - 1)

    @property
    def full(self) -> bool:
        """Whether so much waits for a disk that no more ticks should be made."""
        return self._journal.full or self._outbox.full

    @property
    def trouble(self) -> str:
        """Why a disk refuses what should be kept, "" where it does not."""
        return self._journal.health() or self._outbox.trouble


def journalled(
    folder: Path, after: int, log: Logger, *, before: int
) -> Iterator[tuple[Tick, bool, tuple[Batch, ...]]]:
    """Yield the ticks of a journal behind a checkpoint, one at a time, whether each has its result, and what was
    told of it before the outbox had that.

    What is damaged is logged and passed over; what was appended since, from `before` on, is not read.
    """
    heads = JournalReader(folder, next_sequence=after)
    scored = {end_ns for kind, end_ns in _all(heads, heads.heads) if kind is BlockKind.RESULT}
    reader = JournalReader(folder, next_sequence=after)
    tick: Block | None = None
    told: tuple[Batch, ...] = ()  # of it: these blocks follow at once
    for block in _all(reader, reader.read, log):
        if block.sequence >= before:
            break
        if block.kind is BlockKind.TOLD:
            told += block.batches
            continue
        if tick is not None:
            yield Tick(tick.tick_end_ns, tick.batches), tick.tick_end_ns in scored, told
        tick, told = (block if block.kind is BlockKind.TICK else None), ()
    if tick is not None:
        yield Tick(tick.tick_end_ns, tick.batches), tick.tick_end_ns in scored, told


def _all(
    reader: JournalReader, read: Callable[[], Iterator[Found]], log: Logger | None = None
) -> Iterator[Found]:
    while True:
        try:
            yield from read()
        except TocsinError as error:
            reader.skip()
            if log is not None:
                log.error("journal_damaged error=%s", error)
        else:
            return
