"""The deterministic chain from datagrams to alarms: the same code live, in a shard, and in replay.

`Front` is one shard's half: decoders and windows. It cuts its input at tick deadlines, so that what
a tick holds depends on arrival times alone, never on how datagrams came in blocks. `Back` is the
node's half: merge, journal, detection, alerting. Neither knows a socket or a clock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from collectors.block import DatagramBlock, Decoder
from runtime.component import Stage
from telemetry.batch import Batch
from telemetry.schemas import FRAME

BLIND_SHARE = 0.2  # of a tick's datagrams lost in our own socket: it is flagged incomplete


class Windows(Protocol):
    """What a Front needs of the shard's windows."""

    def process(self, batch: Batch) -> Iterable[Batch]: ...
    def advance(self, frontier_ns: int) -> Iterable[Batch]: ...
    def next_deadline_ns(self) -> int:
        """Return the arrival time at which the next tick closes; 0 before the first frontier."""
        ...


@dataclass(frozen=True, slots=True)
class Closing:
    """What a shard has to say when its frontier passes a deadline."""

    frontier_ns: int
    batches: tuple[Batch, ...]  # partial frames, and records that are not aggregated
    blind: bool = False  # we ourselves lost much of what was sent: quiet proves nothing


class Front:
    """One shard: decoders by listener name, and its windows.

    Blocks of each listener must come in arrival order. `feed` keeps them; `step` decodes up to the
    next deadline that every listener has passed, closes it, and goes on.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        windows: Windows,
        *,
        on_flows: Callable[[Batch], None] | None = None,
    ) -> None:
        """`on_flows` is shown every batch of flow records, and must not keep it."""
        self._decoders = dict(decoders)
        self._windows = windows
        self._on_flows = on_flows
        self._waiting: dict[str, deque[DatagramBlock]] = {name: deque() for name in decoders}
        self._frontier = dict.fromkeys(decoders, 0)
        self._loose: list[Batch] = []
        self._lost = 0
        self._came = 0
        self.records = 0
        self.datagrams = 0

    @property
    def frontier_ns(self) -> int:
        """The arrival time up to which everything was fed; after `step` also decoded."""
        return min(self._frontier.values(), default=0)

    @property
    def deadline_ns(self) -> int:
        """The frontier at which the next tick closes; 0 before the first."""
        return self._windows.next_deadline_ns()

    def feed(self, listener: str, block: DatagramBlock) -> None:
        """Take a block; also an empty one, whose frontier says that nothing came."""
        self._lost += block.kernel_drops
        self._came += block.datagrams
        if block.datagrams:
            self._waiting[listener].append(block)
        elif block.kernel_drops:  # nothing to decode: the ledger must hear of it all the same
            self._decoders[listener].decode(block)
        self._frontier[listener] = max(self._frontier[listener], block.frontier_ns)

    def step(self) -> list[Closing]:
        """Decode what can be decoded and return every closing that is due, in order."""
        closings = []
        frontier = self.frontier_ns
        while True:
            deadline = self._windows.next_deadline_ns()
            if not frontier:
                break
            if not deadline:
                # The first arrival opens the first tick, however much came in the first block.
                firsts = [
                    int(blocks[0].arrival_ns[0]) for blocks in self._waiting.values() if blocks
                ]
                self.open(min(firsts, default=frontier))
                continue
            self._decode_until(deadline)
            if frontier < deadline:
                break
            closings.append(self._close(deadline))
        return closings

    def open(self, first_ns: int) -> None:
        """Open the first tick at `first_ns`; shards that work together open at the same time."""
        if not self._windows.next_deadline_ns():
            self._loose.extend(self._windows.advance(first_ns))

    def flush(self) -> list[Closing]:
        """Decode everything and close every open tick, as `replay --flush` does."""
        closings = self.step()
        for _ in range(1_000):
            deadline = self._windows.next_deadline_ns()
            self._decode_until(max(deadline, 1 << 62))
            if not deadline:
                break
            closing = self._close(deadline)
            if not any(batch.schema.name == "partial" and batch.rows for batch in closing.batches):
                break
            closings.append(closing)
        return closings

    def _decode_until(self, deadline_ns: int) -> None:
        for name, waiting in self._waiting.items():
            while waiting:
                block = waiting[0]
                ready = int(np.searchsorted(block.arrival_ns, deadline_ns, side="left"))
                if ready < block.datagrams:
                    if ready:
                        waiting[0] = block.slice(ready, block.datagrams)
                        self._decode(name, block.slice(0, ready))
                    break
                waiting.popleft()
                self._decode(name, block)

    def _decode(self, name: str, block: DatagramBlock) -> None:
        self.datagrams += block.datagrams
        for batch in self._decoders[name].decode(block):
            if batch.schema.name == "flow":
                self.records += batch.rows
                if self._on_flows is not None:
                    self._on_flows(batch)
                self._loose.extend(self._windows.process(batch))
            else:
                self._loose.append(batch)

    def _close(self, deadline_ns: int) -> Closing:
        for decoder in self._decoders.values():
            for batch in decoder.advance(deadline_ns):
                self._loose.extend(
                    self._windows.process(batch) if batch.schema.name == "ledger" else (batch,)
                )
        made, self._loose = self._loose, []
        made.extend(self._windows.advance(deadline_ns))
        blind = self._lost > BLIND_SHARE * (self._lost + self._came)
        self._lost = self._came = 0
        return Closing(deadline_ns, tuple(made), blind)

    def snapshot(self, out: Any) -> None:
        """Write the decoders' state (templates); open windows are lost with a crash by design."""
        for name, decoder in self._decoders.items():
            decoder.snapshot(out.scoped(name))

    def restore(self, state: Any) -> None:
        """Take the decoders' state back."""
        for name, decoder in self._decoders.items():
            decoder.restore(state.scoped(name))


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick end of all views, as journalled: everything detection and alerting may look at."""

    tick_end_ns: int
    batches: tuple[Batch, ...]  # series, frames, evidence, options, samples, control rows


@dataclass(slots=True)
class Outcome:
    """What came of one tick."""

    tick_end_ns: int
    frames: list[Batch] = field(default_factory=list)  # widened by the score columns
    anomalies: list[Batch] = field(default_factory=list)
    alarms: list[Batch] = field(default_factory=list)
    incidents: list[Batch] = field(default_factory=list)
    digest: list[Batch] = field(default_factory=list)

    def result(self) -> list[Batch]:
        """Return what the journal's result block keeps."""
        return [*self.frames, *self.anomalies, *self.alarms, *self.incidents, *self.digest]


class Merger(Stage, Protocol):
    """What a Back needs of the correlator's merger, beside being a stage."""

    def knows(self, batch: Batch) -> bool:
        """Return whether a journalled batch is of a view as it is configured now."""
        ...

    def absorb(self, batches: Sequence[Batch]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Take a journalled tick as if it had been merged here; return the rows that changed hands."""
        ...


class Back:
    """Merge, detection and alerting of one node.

    `on_tick` is called with each tick before it is scored (the journal), `on_outcome` after.
    """

    def __init__(
        self,
        merger: Any,
        detection: Any,
        alerting: Any,
        *,
        on_tick: Callable[[Tick], None] = lambda tick: None,
        on_outcome: Callable[[Tick, Outcome], None] = lambda tick, outcome: None,
    ) -> None:
        self.merger = merger
        self.detection = detection
        self.alerting = alerting
        self.on_tick = on_tick
        self.on_outcome = on_outcome
        self._beside: list[Batch] = []
        self._control: list[Batch] = []

    def control(self, batch: Batch) -> None:
        """Take control rows: they are journalled with the next tick and count from it on."""
        self._control.append(batch)

    def take(self, closing: Closing) -> list[Outcome]:
        """Take a shard's closing and score every tick that is now complete."""
        if closing.blind:
            self.merger.mark_incomplete(closing.frontier_ns)
        for batch in closing.batches:
            name = batch.schema.name
            if name in ("partial", "evidence", "ledger", "option"):
                self.merger.process(batch)
            if name not in ("partial", "evidence"):  # those come back merged
                self._beside.append(batch)
        return self.advance(closing.frontier_ns)

    def advance(self, frontier_ns: int) -> list[Outcome]:
        """Let the frontier pass: merge and score what is due."""
        outcomes = []
        ready: list[Batch] = []
        for batch in self.merger.advance(frontier_ns):
            ready.append(batch)
        for tick_end_ns, batches in _by_tick_end(ready):
            control, self._control = self._control, []
            beside, self._beside = self._beside, []
            tick = Tick(tick_end_ns, (*control, *batches, *beside))
            self.on_tick(tick)
            outcomes.append(self.score(tick))
        return outcomes

    def absorb(self, tick: Tick) -> Outcome:
        """Take a tick from the journal instead of from windows, and score it.

        What it holds of views that are configured otherwise by now is left out.
        """
        known = tuple(batch for batch in tick.batches if self.merger.knows(batch))
        tick = Tick(tick.tick_end_ns, known)
        gone = self.merger.absorb(tick.batches)
        if len(gone):
            self.detection.forget(gone)
            self.alerting.forget(gone)
        return self.score(tick)

    def score(self, tick: Tick) -> Outcome:
        """Detect and alert on one tick; the barrier that all its views pass together."""
        outcome = Outcome(tick.tick_end_ns)
        for batch in tick.batches:
            if batch.schema.name == "control":
                self._tell(batch)
        for batch in tick.batches:
            if batch.schema.name == FRAME.name:
                outcome.frames.extend(self.detection.process(batch))
        for batch in self.detection.advance(tick.tick_end_ns):
            outcome.anomalies.append(batch)
        for batch in (*outcome.frames, *outcome.anomalies):
            self._sort(self.alerting.process(batch), outcome)
        self._sort(self.alerting.advance(tick.tick_end_ns), outcome)
        self.on_outcome(tick, outcome)
        return outcome

    def _tell(self, control: Batch) -> None:
        for stage in (self.detection, self.alerting):
            if any(schema.name == "control" for schema in stage.accepts):
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

    def backbone(self) -> list[tuple[int, int]]:
        """Return the interfaces between routers, as FlowWindows takes them."""
        found: list[tuple[int, int]] = self.merger.backbone()
        return found

    def snapshot(self, out: Any) -> None:
        """Write the state of all three stages."""
        for name in ("merger", "detection", "alerting"):
            getattr(self, name).snapshot(out.scoped(name))

    def restore(self, state: Any) -> None:
        """Take it back."""
        for name in ("merger", "detection", "alerting"):
            getattr(self, name).restore(state.scoped(name))


def _by_tick_end(batches: Sequence[Batch]) -> list[tuple[int, list[Batch]]]:
    """Group what the merger gave by tick end, in order; series rows go before their frame."""
    groups: dict[int, list[Batch]] = {}
    before: list[Batch] = []
    for batch in batches:
        before.append(batch)
        if batch.schema.name == FRAME.name:
            groups.setdefault(tick_end_of(batch), []).extend(before)
            before = []
    if before and groups:
        next(reversed(groups.values())).extend(before)
    return sorted(groups.items())


def tick_end_of(frame: Batch) -> int:
    """Return the end of a frame's tick in ns; a frame has at least one row."""
    return int(frame["tick_start_ns"][0]) + round(float(frame["tick_seconds"][0]) * 1e9)
