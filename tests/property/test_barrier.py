"""Shards that are fast, slow, dead and back: each tick comes once, in order, and what is not whole says so."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from correlator.merge import FrameMerger
from correlator.tables.network_map import load_network
from correlator.views import views_for
from correlator.windows import FlowWindows
from telemetry.batch import Batch
from telemetry.schemas import FrameFlag
from tocsin.chain.ticks import Closing, tick_end_of
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import TrafficModel
from tocsin.node.barrier import Barrier, Left
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND
SHARDS = 3
STEP_NS = SECOND // 2  # what a shard reads at once
STEPS = 12
LATENESS_NS = 300_000_000
VIEWS = views_for(tick_seconds=1.0, lateness_seconds=0.3)
NETWORK = load_network(None)


def _records() -> list[list[Batch]]:
    """Return what each shard's socket gets in each step."""
    model = TrafficModel(load_demo_network(), seed=4, records_per_second=300)
    made: list[list[Batch]] = [[] for _ in range(SHARDS)]
    for step in range(STEPS):
        batch = model.records(START_NS + step * STEP_NS, STEP_NS)
        owner = batch["exporter_address_low"] % np.uint64(SHARDS)
        for shard in range(SHARDS):
            rows = np.flatnonzero(owner == shard)
            columns = {name: batch[name][rows] for name in batch.schema.names()}
            made[shard].append(Batch(batch.schema, columns))
    return made


RECORDS = _records()


SENT: list[Closing] = []  # a barrier does not look into what it holds: here, places in this list


@dataclass
class Process:
    """A shard's process: its windows, and what it said that was not heard yet."""

    shard: int
    first_ns: int
    windows: FlowWindows = field(init=False)
    said: list[tuple[int, int, bytes]] = field(default_factory=list)  # number 0: a frontier
    sent: int = 0

    def __post_init__(self) -> None:
        self.windows = FlowWindows(VIEWS, make_context(), shard=self.shard)
        self.windows.open(self.first_ns)

    def read(self, step: int) -> None:
        """Close what was due when this step began, take its records, close what is due by its end."""
        self.close(START_NS + step * STEP_NS)
        self.windows.process(RECORDS[self.shard][step])
        self.close(START_NS + (step + 1) * STEP_NS)
        self.said.append((0, START_NS + (step + 1) * STEP_NS, b""))

    def close(self, frontier_ns: int) -> None:
        while (deadline_ns := self.windows.next_deadline_ns()) <= frontier_ns:
            batches = tuple(self.windows.advance(deadline_ns))
            self.sent += 1
            SENT.append(Closing(deadline_ns, batches))
            self.said.append((self.sent, deadline_ns, str(len(SENT) - 1).encode()))


class Play:
    """A node's merger behind a barrier, and three processes that live and die as they are told."""

    def __init__(self) -> None:
        self.barrier = Barrier(SHARDS)
        self.merger = FrameMerger(VIEWS, make_context(), network=NETWORK, shards=SHARDS)
        self.at = [0] * SHARDS  # steps read from each socket, whoever read them
        self.processes: list[Process | None] = [Process(s, START_NS) for s in range(SHARDS)]
        for shard in range(SHARDS):
            self.barrier.join(shard, START_NS)
        self.frames: list[Batch] = []

    def read(self, shard: int) -> None:
        process = self.processes[shard]
        if process is not None and self.at[shard] < STEPS:
            process.read(self.at[shard])
            self.at[shard] += 1

    def hear(self, shard: int) -> None:
        process = self.processes[shard]
        if process is not None and process.said:
            sequence, frontier_ns, data = process.said.pop(0)
            if sequence:
                self.barrier.closing(shard, sequence, frontier_ns, data)
            else:
                self.barrier.frontier(shard, frontier_ns)

    def kill(self, shard: int) -> None:
        if self.processes[shard] is not None:
            self.processes[shard] = None  # what was not heard is lost with it
            self.barrier.died(shard)

    def start(self, shard: int) -> None:
        if self.processes[shard] is None and self.barrier.may_join(shard):
            passed_ns = self.barrier.passed_ns
            first_ns = passed_ns - LATENESS_NS if passed_ns else START_NS
            if self.barrier.join(shard, first_ns):
                self.merger.join(shard, first_ns)
                self.merger.mark_incomplete(first_ns + SECOND)
            self.processes[shard] = Process(shard, first_ns)

    def give(self) -> None:
        for one in self.barrier.give():
            if isinstance(one, Left):
                self.merger.leave(one.shard)
                self.merger.mark_incomplete(START_NS + max(self.at) * STEP_NS)  # now
                self.frames += self.of(one.passed_ns)
                continue
            if not one.whole:
                self.merger.mark_incomplete(one.frontier_ns)
            for batch in SENT[int(one.data)].batches:
                self.merger.process(batch)
            self.frames += self.of(one.frontier_ns)

    def of(self, frontier_ns: int) -> list[Batch]:
        return [b for b in self.merger.advance(frontier_ns) if b.schema.name == "frame"]

    def end(self) -> None:
        """Let everybody come back and read on to the end."""
        for _ in range(2 * STEPS):
            self.give()
            for shard in range(SHARDS):
                self.start(shard)
                self.read(shard)
                for _ in range(4):
                    self.hear(shard)
        self.give()


def reference() -> list[Batch]:
    play = Play()
    play.end()
    return play.frames


REFERENCE = reference()
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["read", "read", "read", "hear", "hear", "hear", "hear", "give", "kill", "start"]
        ),
        st.integers(0, SHARDS - 1),
    ),
    max_size=80,
)


def count(frame: Batch) -> int:
    """Return the records that a frame counts."""
    return int(frame["records" if "records" in frame.columns else "flows"].sum())


def test_the_reference_counts_every_record() -> None:
    one = FlowWindows(VIEWS, make_context())
    one.open(START_NS)
    for step in range(STEPS):
        for shard in range(SHARDS):
            one.process(RECORDS[shard][step])
    merger = FrameMerger(VIEWS, make_context(), network=NETWORK)
    for batch in one.advance(START_NS + STEPS * STEP_NS):
        merger.process(batch)
    whole = [b for b in merger.advance(START_NS + STEPS * STEP_NS) if b.schema.name == "frame"]
    flows = [sum(map(count, frames)) for frames in (whole, REFERENCE)]
    assert flows[0] == flows[1] > 0


@given(ACTIONS)
def test_each_tick_comes_once_in_order_and_says_when_it_is_not_whole(
    actions: list[tuple[str, int]],
) -> None:
    SENT.clear()
    play = Play()
    for action, shard in actions:
        if action == "give":
            play.give()
        else:
            getattr(play, action)(shard)
    play.end()
    got = [(tick_end_of(f), f.texts("view")[0]) for f in play.frames]
    assert got == [(tick_end_of(f), f.texts("view")[0]) for f in REFERENCE]
    died = any(action == "kill" for action, _ in actions)
    for frame, whole in zip(play.frames, REFERENCE, strict=True):
        flagged = bool((frame["flags"] & FrameFlag.INCOMPLETE).any())
        if not died:
            assert not flagged
            assert all((frame[name] == whole[name]).all() for name in whole.schema.names())
        elif not flagged:
            assert count(frame) == count(whole)
            assert int(frame["octets"].sum()) == int(whole["octets"].sum())
