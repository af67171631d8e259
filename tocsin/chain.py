"""The deterministic chain from datagrams to alarms: the same code live, in a shard, and in replay.

`Front` is one shard's half: decoders and windows. It cuts its input at tick deadlines, so that what
a tick holds depends on arrival times alone, never on how datagrams came in blocks. `Back` is the
node's half: merge, journal, detection, alerting. Neither knows a socket or a clock.

Time is the arrival frontier. A view's tick [s, e) closes at e + lateness. What is not aggregated
(alarms, logs, routes) and samples go on at the end of each event tick, a second. Each is journalled
under the time at which it closed: those times rise, whatever view they are of, and are "now" for
detection and alerting (ADR 0025).
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from collectors.block import DatagramBlock, Decoder, Reply
from runtime.checkpoint import read_array, write_array
from runtime.component import Stage
from telemetry.batch import Batch
from telemetry.schemas import ALARM, FLOW, FRAME, LEDGER, LOG, ROUTE, SAMPLE, SERIES
from tocsin.events import in_order

EVENT_TICK_NS = 1_000_000_000
ADVANCE_NS = 10_000_000_000  # decoders that make no flows report so often what they counted
EVENTS = frozenset((ALARM.name, LOG.name, ROUTE.name))  # journalled at event ticks as they are
AT_EVENT_TICKS = EVENTS | {SAMPLE.name, SERIES.name}
NEVER_NS = 1 << 62
REPLIES_MAX = 10_000  # that wait; beyond it the oldest go, and their senders ask again
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
    """What a shard has to say when its frontier passes a deadline: of a view, or of an event tick."""

    frontier_ns: int
    batches: tuple[Batch, ...]  # partial frames, and records that are not aggregated
    blind: bool = False  # we ourselves lost much of what was sent: quiet proves nothing


class Front:
    """One shard: decoders by listener name, and its windows.

    Blocks of each listener must come in arrival order. `feed` keeps them; `step` decodes up to the
    next deadline that every listener has passed, closes it, and goes on. Every decoder is advanced
    when a view's tick closes; one that emits no flows also at each multiple of ten seconds that
    follows something it was given.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        windows: Windows,
        *,
        event_tick_ns: int = EVENT_TICK_NS,
        on_flows: Callable[[Batch], None] | None = None,
    ) -> None:
        """`on_flows` is shown every batch of flow records, and must not keep it."""
        self._decoders: dict[str, Decoder] = {}
        self._windows = windows
        self._event_tick_ns = event_tick_ns
        self._on_flows = on_flows
        self._waiting: dict[str, deque[DatagramBlock]] = {}
        self._eventful: list[str] = []  # only what these decode is cut at event ticks
        self._paced: set[str] = set()
        self._pace_ns = NEVER_NS
        self._frontier: dict[str, int] = {} if decoders else {"": 0}  # "": time is all there is
        for name, decoder in decoders.items():
            self.add(name, decoder)
        self._loose: list[Batch] = []  # for the next closing of a view
        self._events: list[Batch] = []  # for the event tick that ends at `_event_end_ns`
        self._event_end_ns = NEVER_NS
        self._replies: deque[tuple[int, str, Reply]] = deque(maxlen=REPLIES_MAX)
        self._lost = 0
        self._came = 0
        self.records = 0
        self.datagrams = 0

    def add(self, listener: str, decoder: Decoder) -> None:
        """Add a decoder, of which nothing has come up to the present frontier."""
        emits = {schema.name for schema in decoder.emits}
        frontier = self.frontier_ns
        self._decoders[listener] = decoder
        self._waiting[listener] = deque()
        self._frontier[listener] = frontier
        if emits & AT_EVENT_TICKS:
            self._eventful.append(listener)
        if FLOW.name not in emits:
            self._paced.add(listener)

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
        while frontier:
            deadline = self._windows.next_deadline_ns()
            if not deadline:
                # The first arrival opens the first tick, however much came in the first block.
                firsts = [
                    int(blocks[0].arrival_ns[0]) for blocks in self._waiting.values() if blocks
                ]
                self.open(min(firsts, default=frontier))
                continue
            event_end = self._next_event_end()
            self._decode_until(min(event_end, deadline), event_end, self._eventful)
            if event_end < deadline and event_end <= frontier:
                closings += self._close_events(event_end)
                continue
            others = [name for name in self._decoders if name not in self._eventful]
            self._decode_until(deadline, NEVER_NS, others)
            if min(event_end, deadline) > frontier:
                break
            closings.append(self._close(deadline))
        return closings

    def open(self, first_ns: int) -> None:
        """Open the first tick at `first_ns`; shards that work together open at the same time."""
        if not self._windows.next_deadline_ns():
            self._loose.extend(self._windows.advance(first_ns))

    def flush(self) -> list[Closing]:
        """Decode everything and close every open tick, as `replay --flush` does."""
        frontier = dict(self._frontier)
        newest = [int(b.arrival_ns[-1]) + 1 for waiting in self._waiting.values() for b in waiting]
        self._frontier = dict.fromkeys(frontier, max([*frontier.values(), *newest]))
        closings = self.step()
        for _ in range(1_000):
            deadline, event_end = self._windows.next_deadline_ns(), self._next_event_end()
            if event_end < (deadline or NEVER_NS):
                closings += self._close_events(event_end)
                continue
            if not deadline:
                break
            closing = self._close(deadline)
            if not any(batch.schema.name == "partial" and batch.rows for batch in closing.batches):
                break
            closings.append(closing)
        self._frontier = frontier
        return closings

    def _next_event_end(self) -> int:
        """Return the end of the event tick of what waits, decoded or not; NEVER_NS for nothing."""
        first = min(
            (int(self._waiting[name][0].arrival_ns[0]) for name in self._eventful
             if self._waiting[name]),
            default=NEVER_NS,
        )  # fmt: skip
        if first < NEVER_NS:
            first += self._event_tick_ns - first % self._event_tick_ns
        return min(first, self._event_end_ns, self._pace_ns)

    def _close_events(self, event_end_ns: int) -> list[Closing]:
        self._pace(event_end_ns)
        events = self._taken_events(event_end_ns)
        return [Closing(event_end_ns, tuple(events))] if events else []

    def _taken_events(self, until_ns: int) -> list[Batch]:
        if self._event_end_ns > until_ns:
            return []
        events, self._events, self._event_end_ns = self._events, [], NEVER_NS
        return events

    def _pace(self, now_ns: int) -> None:
        """Let decoders say what they counted, where that is due."""
        if now_ns < self._pace_ns:
            return
        self._pace_ns = NEVER_NS
        for name in self._decoders:
            if name in self._paced:
                self._sort(self._decoders[name].advance(now_ns), now_ns)

    def _sort(self, batches: Iterable[Batch], event_end_ns: int) -> None:
        for batch in batches:
            if batch.schema.name in AT_EVENT_TICKS:
                self._events.append(batch)
                self._event_end_ns = min(self._event_end_ns, event_end_ns)
            else:
                self._loose.append(batch)

    def _decode_until(self, deadline_ns: int, event_end_ns: int, names: Iterable[str]) -> None:
        for name in names:
            waiting = self._waiting[name]
            while waiting:
                block = waiting[0]
                ready = int(np.searchsorted(block.arrival_ns, deadline_ns, side="left"))
                if ready < block.datagrams:
                    if ready:
                        waiting[0] = block.slice(ready, block.datagrams)
                        self._decode(name, block.slice(0, ready), event_end_ns)
                    break
                waiting.popleft()
                self._decode(name, block, event_end_ns)

    def _decode(self, name: str, block: DatagramBlock, event_end_ns: int) -> None:
        self.datagrams += block.datagrams
        if name in self._paced:
            due_ns = int(block.arrival_ns[0]) // ADVANCE_NS * ADVANCE_NS + ADVANCE_NS
            tick_ns = self._event_tick_ns  # at the end of an event tick, however long those are
            self._pace_ns = min(self._pace_ns, -(-due_ns // tick_ns) * tick_ns)
        beside = []
        for batch in self._decoders[name].decode(block):
            if batch.schema.name == FLOW.name:
                self.records += batch.rows
                if self._on_flows is not None:
                    self._on_flows(batch)
                self._loose.extend(self._windows.process(batch))
            else:
                beside.append(batch)
        self._sort(beside, event_end_ns)
        if replies := getattr(self._decoders[name], "replies", None):
            self._replies.extend((0 if r.at_once else event_end_ns, name, r) for r in replies)
            replies.clear()

    def replies(self, until_ns: int) -> list[tuple[str, Reply]]:
        """Return what decoders answer, by listener: promises only of event ticks that end by `until_ns`."""
        due = [(name, reply) for end_ns, name, reply in self._replies if end_ns <= until_ns]
        if due:
            left = [one for one in self._replies if one[0] > until_ns]
            self._replies = deque(left, REPLIES_MAX)
        return due

    def _close(self, deadline_ns: int) -> Closing:
        events: list[Batch] = []
        if self._event_end_ns <= deadline_ns:
            events = self._taken_events(deadline_ns)
        for decoder in self._decoders.values():
            for batch in decoder.advance(deadline_ns):
                if batch.schema.name in AT_EVENT_TICKS:
                    events.append(batch)
                elif batch.schema.name == LEDGER.name:
                    self._loose.extend(self._windows.process(batch))
                else:
                    self._loose.append(batch)
        if self._pace_ns <= deadline_ns:
            self._pace_ns = NEVER_NS
        made, self._loose = [*self._loose, *events], []
        made.extend(self._windows.advance(deadline_ns))
        blind = self._lost > BLIND_SHARE * (self._lost + self._came)
        self._lost = self._came = 0
        return Closing(deadline_ns, tuple(made), blind)

    @property
    def changes(self) -> int:
        """How often decoders have changed what must survive a crash, by their own count."""
        return sum(getattr(decoder, "changes", 0) for decoder in self._decoders.values())

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
    """What closed at one time, as journalled: everything detection and alerting may look at.

    A view tick holds frames, with the series, evidence, ledgers and options that go with them; an
    event tick holds none. Both may hold alarms, logs, routes, control rows, and what sources in the
    gate offered.
    """

    tick_end_ns: int  # the arrival frontier at which it closed; rises from tick to tick
    batches: tuple[Batch, ...]

    @property
    def has_frames(self) -> bool:
        """Whether a view's tick ended here."""
        return any(batch.schema.name == FRAME.name for batch in self.batches)


@dataclass(slots=True)
class Outcome:
    """What came of one tick."""

    tick_end_ns: int
    frames: list[Batch] = field(default_factory=list)  # widened by the score columns
    anomalies: list[Batch] = field(default_factory=list)
    alarms: list[Batch] = field(default_factory=list)
    incidents: list[Batch] = field(default_factory=list)
    digest: list[Batch] = field(default_factory=list)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything came of it: of most event ticks nothing does."""
        return any((self.frames, self.alarms, self.incidents, self.digest))

    def result(self) -> list[Batch]:
        """Return what the journal's result block keeps."""
        return [*self.frames, *self.anomalies, *self.alarms, *self.incidents, *self.digest]


class Merger(Stage, Protocol):
    """What a Back needs of the correlator's merger, beside being a stage.

    `frontier_ns` of a frame is when its tick closed: its end and the lateness of its view.
    """

    def named(self, batch: Batch) -> Batch:
        """Return a batch with foreign alarms under the names of the network map."""
        ...

    def knows(self, batch: Batch) -> bool:
        """Return whether a journalled batch is of a view as it is configured now."""
        ...

    def absorb(self, batches: Sequence[Batch]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Take a journalled tick as if it had been merged here; return the rows that changed hands."""
        ...


class Samples(Protocol):
    """What a Back needs of the windows of sampled series."""

    def process(self, batches: Sequence[Batch]) -> None:
        """Take all series and samples of one event tick."""
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


@dataclass(slots=True)
class _Offered:
    """What a source in the gate handed over; `done` is called once it is journalled."""

    batches: Sequence[Batch]
    done: Callable[[], None]


class Back:
    """Merge, detection and alerting of one node.

    `take` closings in the order of (frontier, shard). What shards say at one frontier closes together,
    so with more than one of them `settle` says up to where all of it was taken. `on_tick` is called
    with each tick before it is scored (the journal), `on_outcome` after.
    """

    def __init__(
        self,
        merger: Any,
        detection: Any,
        alerting: Any,
        *,
        samples: Samples | None = None,
        shards: int = 1,
        event_tick_ns: int = EVENT_TICK_NS,
        on_tick: Callable[[Tick], None] = lambda tick: None,
        on_outcome: Callable[[Tick, Outcome], None] = lambda tick, outcome: None,
    ) -> None:
        self.merger = merger
        self.detection = detection
        self.alerting = alerting
        self.samples = samples
        self.on_tick = on_tick
        self.on_outcome = on_outcome
        self._shards = shards
        self._event_tick_ns = event_tick_ns
        self._closed_ns = 0  # of the newest tick
        self._ready: dict[int, list[Batch]] = {}  # frames and what goes with them, by closing time
        self._events: dict[int, list[Batch]] = {}  # by the end of their event tick
        self._sampled: dict[int, list[Batch]] = {}  # series and samples, likewise
        self._beside: list[Batch] = []  # ledgers, options: go with the next tick
        self._control: list[Batch] = []
        self._offered: list[_Offered] = []

    def control(self, batch: Batch) -> None:
        """Take control rows: they are journalled with the next tick and count from it on."""
        self._control.append(batch)

    def offer(self, batches: Sequence[Batch], done: Callable[[], None] = lambda: None) -> None:
        """Take what came from no shard: it goes into the next tick; `done` is called when that is journalled."""
        self._offered.append(_Offered(batches, done))

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
            batches += in_order(self._events.pop(due_ns, []))
            if batches or due_ns == self._timer_ns():
                outcomes.append(self._close(due_ns, batches))
        if self._offered or self._control:
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
        due_ns: int = max(self.alerting.due_ns, self._closed_ns + 1)
        return due_ns + -due_ns % self._event_tick_ns

    def _close(self, closed_ns: int, batches: Sequence[Batch]) -> Outcome:
        control, self._control = self._control, []
        beside, self._beside = self._beside, []
        offered, self._offered = self._offered, []
        given = [self.merger.named(batch) for one in offered for batch in one.batches]
        batches = [self.merger.named(batch) for batch in batches]
        self._closed_ns = max(closed_ns, self._closed_ns + 1)
        tick = Tick(self._closed_ns, (*control, *batches, *beside, *given))
        self.on_tick(tick)
        for batch in given:
            if batch.schema.name == "option":
                self.merger.process(batch)
        if self.samples is not None:  # what was offered counts from here on, as in `absorb`
            self.samples.process([b for b in given if b.schema.name in (SERIES.name, SAMPLE.name)])
        outcome = self.score(tick)
        for one in offered:  # behind `on_outcome`: by then the journal has it on disk
            one.done()
        return outcome

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

    def score(self, tick: Tick) -> Outcome:
        """Detect and alert on one tick; the barrier that all its views pass together."""
        outcome = Outcome(tick.tick_end_ns)
        for batch in tick.batches:
            if batch.schema.name == "control":
                self._tell(batch)
            elif batch.schema.name == ROUTE.name:
                self.merger.process(batch)
            elif batch.schema.name in EVENTS and _accepts(self.alerting, batch):
                self._sort(self.alerting.process(batch), outcome)
        for batch in tick.batches:
            if batch.schema.name == FRAME.name:
                outcome.frames.extend(self.detection.process(batch))
        if outcome.frames:
            outcome.anomalies.extend(self.detection.advance(tick.tick_end_ns))
            for batch in (*outcome.frames, *outcome.anomalies):
                self._sort(self.alerting.process(batch), outcome)
            self._sort(self.alerting.advance(tick.tick_end_ns), outcome)
        else:
            self._sort(self.alerting.event(tick.tick_end_ns), outcome)
        self.on_outcome(tick, outcome)
        return outcome

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
        names = ("merger", "detection", "alerting", "samples")
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


def tick_end_of(frame: Batch) -> int:
    """Return the end of a frame's tick in ns; a frame has at least one row."""
    return int(frame["tick_start_ns"][0]) + round(float(frame["tick_seconds"][0]) * 1e9)
