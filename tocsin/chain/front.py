"""One shard's half of the chain: datagrams in, closings out (tocsin.chain.ticks)."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from collectors.block import DatagramBlock, Decoder, Reply
from telemetry.batch import Batch
from telemetry.schemas import FLOW, LEDGER
from tocsin.chain.ticks import AT_EVENT_TICKS, EVENT_TICK_NS, NEVER_NS, Closing

ADVANCE_NS = 10_000_000_000  # decoders that make no flows report so often what they counted
REPLIES_MAX = 10_000  # that wait; beyond it the oldest go, and their senders ask again
BLIND_SHARE = 0.2  # of a tick's datagrams lost in our own socket: it is flagged incomplete


class Windows(Protocol):
    """What a Front needs of the shard's windows."""

    def process(self, batch: Batch) -> Iterable[Batch]: ...
    def advance(self, frontier_ns: int) -> Iterable[Batch]: ...
    def skip(self, time_ns: int) -> None:
        """Leave out ticks that end by `time_ns` and hold nothing, where there are many."""
        ...

    def next_deadline_ns(self) -> int:
        """Return the arrival time at which the next tick closes; 0 before the first frontier."""
        ...

    @property
    def holds_records(self) -> bool:
        """Whether records lie in ticks that are not closed yet."""
        ...


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
        self._skip_to_ns = 0
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
            if self._skip_to_ns:
                self._windows.skip(self._skip_to_ns)
        if frontier > self._skip_to_ns:
            self._skip_to_ns = 0
        return closings

    def skip(self, time_ns: int) -> None:
        """Time jumped to `time_ns`: once what came before is closed, ticks in between are left out."""
        self._skip_to_ns = time_ns

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
            if not self._windows.holds_records:
                break
            closings.append(self._close(deadline))
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
        for name, reply in due:
            if answered := getattr(self._decoders[name], "answered", None):
                answered(reply)
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
