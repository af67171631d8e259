"""The node's half of the chain: closings in, ticks to the journal, alarms out (tocsin.chain.ticks)."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from correlator.merge import FrameMerger
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch
from telemetry.schemas import FRAME, LOG, ROUTE, SAMPLE, SERIES
from tocsin.chain.events import in_order
from tocsin.chain.ticks import (
    AT_EVENT_TICKS,
    EVENT_TICK_NS,
    EVENTS,
    NEVER_NS,
    Closing,
    Outcome,
    Promise,
    Tick,
)

if TYPE_CHECKING:
    from alerting.stage import AlertingStage


class Samples(Protocol):
    """What a Back needs of the windows of sampled series."""

    def process(self, batches: Sequence[Batch]) -> None:
        """Take all series and samples of one event tick."""
        ...

    def skip(self, time_ns: int) -> None:
        """Leave out ticks that close by `time_ns` and hold nothing, where there are many."""
        ...

    def next_deadline_ns(self) -> int:
        """Return when the next tick closes, NEVER_NS for none."""
        ...

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return the frames of every tick that closes by the frontier."""
        ...

    def has(self, batch: Batch) -> bool:
        """Whether a frame is of one of its views."""
        ...

    def absorb(self, batches: Sequence[Batch]) -> None:
        """Take a journalled tick."""
        ...

    def mark_incomplete(self, until_ns: int) -> None:
        """Flag ticks that start before `until_ns`."""
        ...

    @property
    def series(self) -> int:
        """How many series have a row."""
        ...


class EventAlarms(Protocol):
    """What a Back needs of the watches on routes and on log lines."""

    def process(self, batch: Batch, now_ns: int, /) -> list[Batch]:
        """Return the alarms that events raise and clear, before they are learned."""
        ...


class TimedAlarms(EventAlarms, Protocol):
    """One whose alarms end by themselves."""

    @property
    def due_ns(self) -> int:
        """When the next one ends."""
        ...

    def advance(self, now_ns: int) -> list[Batch]:
        """Return the end of those that are due."""
        ...


class Back:
    """Merge, detection and alerting of one node.

    `take` closings in the order of (frontier, shard). What shards say at one frontier closes together,
    so with more than one of them `settle` says up to where all of it was taken. `on_tick` is called
    with each tick before it is scored (the journal), `on_outcome` after; the outcome carries the
    promises to be kept once the journal has the tick on disk.
    """

    def __init__(
        self,
        merger: FrameMerger,
        detection: Any,
        alerting: "AlertingStage",
        *,
        samples: Samples | None = None,
        routes: EventAlarms | None = None,
        logs: TimedAlarms | None = None,
        shards: int = 1,
        event_tick_ns: int = EVENT_TICK_NS,
        on_tick: Callable[[Tick], None] = lambda tick: None,
        on_outcome: Callable[[Tick, Outcome], None] = lambda tick, outcome: None,
    ) -> None:
        self.merger = merger
        self.detection = detection
        self.alerting = alerting
        self.samples = samples
        self.routes = routes
        self.logs = logs
        self.on_tick = on_tick
        self.on_outcome = on_outcome
        self._shards = shards
        self._event_tick_ns = event_tick_ns
        self._closed_ns = 0  # of the newest tick
        self._skip_to_ns = 0
        self._ready: dict[int, list[Batch]] = {}  # frames and what goes with them, by closing time
        self._events: dict[int, list[Batch]] = {}  # by the end of their event tick
        self._sampled: dict[int, list[Batch]] = {}  # series and samples, likewise
        self._beside: list[Batch] = []  # ledgers, options: go with the next tick
        self._control: list[Batch] = []
        self._offered: list[Batch] = []
        self._promises: list[Promise] = []

    def control(self, batch: Batch, *promises: Promise) -> None:
        """Take control rows: they are journalled with the next tick and count from it on."""
        self._control.append(batch)
        self._promises += promises

    def offer(self, batches: Sequence[Batch], *promises: Promise) -> None:
        """Take what came from no shard: it goes into the next tick."""
        self._offered += batches
        self._promises += promises

    def take(self, closing: Closing) -> list[Outcome]:
        """Take a shard's closing and score every tick that is now complete."""
        outcomes = self.settle(closing.frontier_ns - 1)
        if closing.blind:
            self.merger.mark_incomplete(closing.frontier_ns)
        for batch in closing.batches:
            name = batch.schema.name
            if name in AT_EVENT_TICKS and (name in EVENTS or self.samples is not None):
                held = self._events if name in EVENTS else self._sampled
                held.setdefault(closing.frontier_ns, []).append(batch)
                continue
            if name in ("partial", "evidence", "ledger", "option"):
                self.merger.process(batch)
            if name not in ("partial", "evidence"):  # those come back merged
                self._beside.append(batch)
        if self._shards == 1:
            outcomes += self.settle(closing.frontier_ns)
        return outcomes

    def settle(self, frontier_ns: int) -> list[Outcome]:
        """All that closes up to the frontier was taken: score it, in order of closing time."""
        for closed_ns, batches in _by_closing(self.merger.advance(frontier_ns)):
            self._ready.setdefault(closed_ns, []).extend(batches)
        outcomes = []
        while (due_ns := self._next_ns()) <= frontier_ns:
            batches = self._ready.pop(due_ns, [])
            if self.samples is not None:
                self.samples.process(self._sampled.pop(due_ns, []))
                batches += self.samples.advance(due_ns)
                if self._skip_to_ns:
                    self.samples.skip(self._skip_to_ns)
            batches += in_order(self._events.pop(due_ns, []))
            if batches or due_ns == self._timer_ns():
                outcomes.append(self._close(due_ns, batches))
        if frontier_ns >= self._skip_to_ns:
            self._skip_to_ns = 0
        if self._offered or self._control or self._promises:
            event_end_ns = frontier_ns - frontier_ns % self._event_tick_ns
            # A clock that was set back holds nothing up: closing times rise all the same.
            if (
                event_end_ns > self._closed_ns
                or frontier_ns < self._closed_ns - self._event_tick_ns
            ):
                outcomes.append(self._close(event_end_ns, []))
        return outcomes

    def _next_ns(self) -> int:
        """Return when the next tick closes, of those that are in or that a timer asks for, or NEVER_NS."""
        sampled = NEVER_NS if self.samples is None else self.samples.next_deadline_ns()
        timer = self._timer_ns()
        return min(*self._ready, *self._events, *self._sampled, sampled, timer, NEVER_NS)

    def _timer_ns(self) -> int:
        """Return the end of the event tick in which a timer of alerting fires (a hold, a silence)."""
        if not self._closed_ns:
            return NEVER_NS
        wish_ns = self.alerting.due_ns
        if self.logs is not None:
            wish_ns = min(wish_ns, self.logs.due_ns)
        due_ns: int = max(wish_ns, self._closed_ns + 1)
        return due_ns + -due_ns % self._event_tick_ns

    def _close(self, closed_ns: int, batches: Sequence[Batch]) -> Outcome:
        control, self._control = self._control, []
        beside, self._beside = self._beside, []
        given, self._offered = [self.merger.named(batch) for batch in self._offered], []
        batches = [self.merger.named(batch) for batch in batches]
        promises, self._promises = self._promises, []
        self._closed_ns = max(closed_ns, self._closed_ns + 1)
        tick = Tick(self._closed_ns, (*control, *batches, *beside, *given))
        self.on_tick(tick)
        for batch in given:
            if batch.schema.name == "option":
                self.merger.process(batch)
        if self.samples is not None:  # what was offered counts from here on, as in `absorb`
            self.samples.process([b for b in given if b.schema.name in (SERIES.name, SAMPLE.name)])
        return self.score(tick, promises)

    def absorb(self, tick: Tick) -> Outcome:
        """Take a tick from the journal instead of from windows, and score it.

        What it holds of views that are configured otherwise by now is left out.
        """
        sampled = [batch for batch in tick.batches if self.samples and self.samples.has(batch)]
        others = [batch for batch in tick.batches if not any(batch is one for one in sampled)]
        others = [batch for batch in others if self.merger.knows(batch)]
        tick = Tick(tick.tick_end_ns, (*others, *sampled))
        self._closed_ns = max(self._closed_ns, tick.tick_end_ns)
        gone = self.merger.absorb(others)
        if self.samples is not None:
            self.samples.absorb(tick.batches)
        if len(gone):
            self.detection.forget(gone)
            self.alerting.forget(gone)
        return self.score(tick)

    def score(self, tick: Tick, promises: Sequence[Promise] = ()) -> Outcome:
        """Detect and alert on one tick; the barrier that all its views pass together."""
        outcome = Outcome(tick.tick_end_ns, promises)
        if self.logs is not None:
            for alarms in self.logs.advance(tick.tick_end_ns):
                self._sort(self.alerting.process(self.merger.named(alarms)), outcome)
        for batch in tick.batches:
            if batch.schema.name == "control":
                self._tell(batch)
            elif batch.schema.name == ROUTE.name:
                if self.routes is not None:
                    for alarms in self.routes.process(batch, tick.tick_end_ns):
                        self._sort(self.alerting.process(alarms), outcome)
                self.merger.process(batch)
            elif batch.schema.name == LOG.name and self.logs is not None:
                for alarms in self.logs.process(batch, tick.tick_end_ns):
                    self._sort(self.alerting.process(self.merger.named(alarms)), outcome)
                if _accepts(self.alerting, batch):
                    self._sort(self.alerting.process(batch), outcome)
            elif batch.schema.name in EVENTS and _accepts(self.alerting, batch):
                self._sort(self.alerting.process(batch), outcome)
        for batch in tick.batches:
            if batch.schema.name == FRAME.name:
                outcome.frames.extend(self.detection.process(batch))
        if outcome.frames:
            outcome.anomalies.extend(self.detection.advance(tick.tick_end_ns))
            for batch in (*outcome.frames, *outcome.anomalies):
                self._sort(self.alerting.process(batch), outcome)
            self._sort(self.alerting.judge(tick.tick_end_ns), outcome)
        else:
            self.alerting.hear(tick.tick_end_ns)
        outcome.follow(self.alerting.alarms(), self.alerting.tell(), changed=self.alerting.changed)
        self.on_outcome(tick, outcome)
        outcome.complete()
        return outcome

    def rest(self) -> None:
        """Do what nobody waits for, while there is nothing else to do."""
        self.detection.learn()

    def _tell(self, control: Batch) -> None:
        for stage in (self.detection, self.alerting):
            if _accepts(stage, control):
                for _ in stage.process(control):
                    pass

    def _sort(self, batches: Iterable[Batch], outcome: Outcome) -> None:
        for batch in batches:
            if batch.schema.name == "alarm":
                outcome.alarms.append(batch)
            elif batch.schema.name == "incident":
                outcome.incidents.append(batch)
            else:
                outcome.digest.append(batch)

    def mark_incomplete(self, until_ns: int) -> None:
        """Flag ticks that start before `until_ns`: what they hold is not all that came."""
        self.merger.mark_incomplete(until_ns)
        if self.samples is not None:
            self.samples.mark_incomplete(until_ns)

    def skip(self, time_ns: int) -> None:
        """Nothing was heard up to `time_ns`: many ticks of samples in a row that hold nothing are left out."""
        self._skip_to_ns = time_ns

    @property
    def series(self) -> int:
        """How many series are scored."""
        return int(self.merger.series + (self.samples.series if self.samples else 0))

    def backbone(self) -> list[tuple[int, int]]:
        """Return the interfaces between routers, as FlowWindows takes them."""
        found: list[tuple[int, int]] = self.merger.backbone()
        return found

    def snapshot(self, out: Any) -> None:
        """Write the state of all stages."""
        write_array(out, "closed_ns", np.array([self._closed_ns], np.int64))
        for name, stage in self._stages():
            stage.snapshot(out.scoped(name))

    def _stages(self) -> list[tuple[str, Any]]:
        # Names of series first.
        names = (
            "merger",
            "samples",
            "detection",
            "alerting",
            "routes",
            "logs",
        )
        return [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]

    def restore(self, state: Any) -> None:
        """Take it back."""
        closed = read_array(state, "closed_ns")
        self._closed_ns = int(closed[0]) if closed is not None else 0
        for name, stage in self._stages():
            stage.restore(state.scoped(name))


def _accepts(stage: Any, batch: Batch) -> bool:
    return any(schema.name == batch.schema.name for schema in stage.accepts)


def _by_closing(batches: Iterable[Batch]) -> list[tuple[int, list[Batch]]]:
    """Group what the merger gave by closing time, in order; series rows go before their frame."""
    groups: dict[int, list[Batch]] = {}
    before: list[Batch] = []
    for batch in batches:
        before.append(batch)
        if batch.schema.name == FRAME.name:
            groups.setdefault(batch.frontier_ns, []).extend(before)
            before = []
    return sorted(groups.items())
