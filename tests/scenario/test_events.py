"""Events go on each second: the same ticks and the same order for any cut, any number of shards, live or replayed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.block import DatagramBlock, Reply, silence
from collectors.datagram import Datagram, pack
from collectors.listen.udp import shard_of
from correlator.windows import FlowWindows
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from telemetry.batch import Batch, batch_from_rows
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import address_pair
from telemetry.schemas import ALARM, CONTROL, LOG
from tocsin.chain.assembly import make_back
from tocsin.chain.back import Back
from tocsin.chain.events import chosen, in_order, joined
from tocsin.chain.front import Front
from tocsin.chain.ticks import Closing, Outcome, Tick
from tocsin.config import Config
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND


class TextDecoder:
    """`alarm ENTITY SEVERITY` or `log TEXT`, one a datagram; counts what it heard in `advance`."""

    emits = (ALARM, LOG)

    def __init__(self) -> None:
        self.heard = 0

    def decode(self, block: DatagramBlock) -> list[Batch]:
        alarms, logs = [], []
        for d in range(block.datagrams):
            at = int(block.offset[d])
            words = block.payload[at : at + int(block.length[d])].tobytes().decode().split()
            when = int(block.arrival_ns[d])
            self.heard += 1
            if words[0] == "alarm":
                alarms.append(
                    alarm_row(
                        source="test", kind="linkDown", entity=words[1], severity=words[2],
                        changed_ns=when, title=f"{words[1]} down",
                    )
                )  # fmt: skip
            else:
                logs.append({"time_ns": when, "arrival_ns": when, "message": words[1]})
        made = []
        if alarms:
            made.append(batch_from_rows(ALARM, alarms))
        if logs:
            made.append(batch_from_rows(LOG, logs))
        return made

    def advance(self, frontier_ns: int) -> list[Batch]:
        if not self.heard:
            return []
        heard, self.heard = self.heard, 0
        row = {"time_ns": frontier_ns, "arrival_ns": frontier_ns, "message": f"heard {heard}"}
        return [batch_from_rows(LOG, [row])]

    def snapshot(self, out: Any) -> None:
        """Nothing."""

    def restore(self, state: Any) -> None:
        """Nothing."""


def datagrams(count: int, seed: int) -> list[Datagram]:
    """Events of 20 senders over 40 s, often several at one moment, with a silence in between."""
    random = np.random.default_rng(seed)
    at = np.sort(random.integers(0, 400, count)) * SECOND // 10
    at[at > 20 * SECOND] += 35 * SECOND
    made = []
    for i in range(count):
        high, low = address_pair(f"192.0.2.{random.integers(1, 21)}")
        text = (
            f"alarm if{random.integers(0, 5)} {random.choice(['major', 'minor', 'cleared'])}"
            if random.random() < 0.5
            else f"log text{random.integers(0, 9)}"
        )
        made.append(Datagram(START_NS + int(at[i]), high, low, 514, 514, text.encode()))
    return made


def ticks_of(
    given: list[Datagram], *, cuts: Iterable[int] = (), shards: int = 1, flush: bool = True
) -> list[tuple[int, list[tuple[Any, ...]], list[str]]]:
    """Return (closing time, alarms in order, logs sorted) of every tick of a run that has any."""
    views = Config().all_views()
    fronts = [
        Front({"text": TextDecoder()}, FlowWindows(views, make_context(), shard=shard))
        for shard in range(shards)
    ]
    found: list[tuple[int, list[tuple[Any, ...]], list[str]]] = []

    def keep(tick: Tick) -> None:
        alarms = [b for b in tick.batches if b.schema.name == "alarm"]
        logs = [text for b in tick.batches if b.schema.name == "log" for text in b.texts("message")]
        assert len(alarms) <= 1
        rows = [row for b in alarms for row in _rows(b)]
        if rows or logs:
            found.append((tick.tick_end_ns, rows, sorted(logs)))

    back = make_back(Config(), ManualClock(), Metrics("test"), shards=shards)
    back.on_tick = keep
    edges = sorted({*(min(cut, len(given)) for cut in cuts), len(given)} - {0})
    start = 0
    for edge in edges:
        part = given[start:edge]
        start = edge
        for number, front in enumerate(fronts):
            mine = [d for d in part if shard_of(d.source_low, d.source_high, shards) == number]
            frontier = part[-1].arrival_ns
            block = pack(mine) if mine else silence(frontier)
            front.feed("text", _up_to(block, frontier))
            front.open(given[0].arrival_ns)
        closings = [closing for front in fronts for closing in front.step()]
        for closing in sorted(closings, key=lambda one: one.frontier_ns):
            back.take(closing)
        back.settle(min(front.frontier_ns for front in fronts))
    if flush:
        closings = [closing for front in fronts for closing in front.flush()]
        for closing in sorted(closings, key=lambda one: one.frontier_ns):
            back.take(closing)
        back.settle(max((one.frontier_ns for one in closings), default=0))
    return found


def _up_to(block: DatagramBlock, frontier_ns: int) -> DatagramBlock:
    return DatagramBlock(
        block.payload, block.offset, block.length, block.exporter_high, block.exporter_low,
        block.exporter_port, block.arrival_ns, 0, frontier_ns,
    )  # fmt: skip


def _rows(batch: Batch) -> list[tuple[Any, ...]]:
    return list(
        zip(batch["changed_ns"].tolist(), batch.texts("entity"), batch.texts("state"), strict=True)
    )


GIVEN = datagrams(300, 1)


@pytest.fixture(scope="module")
def whole() -> list[tuple[int, list[tuple[Any, ...]], list[str]]]:
    return ticks_of(GIVEN)


def test_each_second_that_says_something_is_a_tick(
    whole: list[tuple[int, list[tuple[Any, ...]], list[str]]],
) -> None:
    times = [at for at, _, _ in whole]
    assert times == sorted(set(times))
    alarms = [row for _, rows, _ in whole for row in rows]
    assert len(alarms) == sum(d.payload.startswith(b"alarm") for d in GIVEN)
    for at, rows, _ in whole:
        assert all(at - SECOND <= changed < at for changed, _, _ in rows)
        assert rows == sorted(rows, key=lambda row: row[0])
    seconds = {d.arrival_ns // SECOND for d in GIVEN if d.payload.startswith(b"alarm")}
    assert {at // SECOND - 1 for at, rows, _ in whole if rows} == seconds


def test_what_a_decoder_counts_is_asked_for_every_ten_seconds(
    whole: list[tuple[int, list[tuple[Any, ...]], list[str]]],
) -> None:
    heard = [
        (at, int(text.split()[1])) for at, _, logs in whole for text in logs if "heard" in text
    ]
    assert sum(count for _, count in heard) == len(GIVEN)
    for at, count in heard:
        if at % (10 * SECOND) == 0:
            within = [d for d in GIVEN if at - 10 * SECOND <= d.arrival_ns < at]
            assert count <= len(within)
    assert sum(at % (10 * SECOND) == 0 for at, _ in heard) >= len(heard) - 1


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_neither_cuts_nor_shards_change_a_tick(
    whole: list[tuple[int, list[tuple[Any, ...]], list[str]]], shards: int, seed: int
) -> None:
    cuts = np.random.default_rng(seed).integers(0, len(GIVEN), 40).tolist()
    got = ticks_of(GIVEN, cuts=cuts, shards=shards)
    assert [(at, rows) for at, rows, _ in got] == [(at, rows) for at, rows, _ in whole]
    plain = [[text for text in logs if "heard" not in text] for _, _, logs in got]
    assert plain == [[text for text in logs if "heard" not in text] for _, _, logs in whole]


def test_a_prefix_of_the_input_gives_a_prefix_of_the_ticks(
    whole: list[tuple[int, list[tuple[Any, ...]], list[str]]],
) -> None:
    for count in (50, 150, 250):
        got = ticks_of(GIVEN[:count], flush=False)
        assert got == whole[: len(got)]
        assert len(got) > 5


def test_a_quiet_minute_closes_no_event_tick() -> None:
    front = Front({"text": TextDecoder()}, FlowWindows(Config().all_views(), make_context()))
    front.feed("text", _up_to(pack(GIVEN[:1]), START_NS))
    for second in range(80):
        front.feed("text", silence(START_NS + second * SECOND))
        closings: list[Closing] = front.step()
        assert len(closings) == (second in (1, 10))  # its event, and what its decoder counted


def test_offered_rows_and_control_rows_are_journalled_before_they_are_acknowledged() -> None:
    said: list[str] = []
    seen: list[Tick] = []

    def journal(tick: Tick) -> None:
        seen.append(tick)
        said.append("journal")

    back: Back = make_back(Config(), ManualClock(), Metrics("test"))
    back.on_tick = journal

    def take(tick: Tick, outcome: Outcome) -> None:
        said.append("outcome")
        for promise in outcome.promises:  # as tocsin.node.commits does once the tick is on disk
            promise()

    back.on_outcome = take
    row = alarm_row(
        source="a", kind="k", entity="e", severity="major", changed_ns=START_NS, title="t"
    )
    back.settle(START_NS + SECOND // 2)
    back.offer([batch_from_rows(ALARM, [row])], lambda: said.append("done"))
    back.control(
        batch_from_rows(CONTROL, [{"tick_start_ns": START_NS, "kind": "gap", "payload": "{}"}])
    )
    outcomes: list[Outcome] = back.settle(START_NS + SECOND + 5)
    assert [one.tick_end_ns for one in outcomes] == [START_NS + SECOND]
    assert said == ["journal", "outcome", "done"]  # the disk syncs while the tick is scored
    assert [b.schema.name for b in seen[0].batches] == ["control", "alarm"]
    assert back.settle(START_NS + 9 * SECOND) == []  # nothing to say


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from(["", "x", "ü"])),
        max_size=20,
    ),
    st.lists(st.integers(0, 20), max_size=4),
    st.randoms(),
)
def test_alarms_stand_in_the_order_of_their_content(
    rows: list[tuple[int, str, str]], cuts: list[int], random: Any
) -> None:
    def batches(given: list[tuple[int, str, str]], edges: list[int]) -> list[Batch]:
        made = []
        for start, stop in zip([0, *edges], [*edges, len(given)], strict=True):
            part = [
                {"changed_ns": at, "kind": kind, "additional_text": text}
                for at, kind, text in given[start:stop]
            ]
            if part:
                made.append(batch_from_rows(ALARM, part))
        return made

    def told(given: list[Batch]) -> list[tuple[Any, ...]]:
        return [
            row
            for b in in_order(given)
            for row in zip(
                b["changed_ns"].tolist(), b.texts("kind"), b.texts("additional_text"), strict=True
            )
        ]

    edges = sorted(min(cut, len(rows)) for cut in cuts)
    mixed = list(rows)
    random.shuffle(mixed)
    assert told(batches(rows, edges)) == sorted(rows, key=lambda row: (row[0], row[1], row[2]))
    assert told(batches(mixed, [])) == told(batches(rows, edges))


def test_chosen_rows_of_a_joined_batch_are_those_rows() -> None:
    parts = [batch_from_rows(LOG, [{"message": f"m{i}", "host": f"h{i}"}]) for i in range(5)]
    made = chosen(joined(parts).slice(1, 5), np.array([3, 0]))
    assert (made.texts("message"), made.texts("host")) == (["m4", "m1"], ["h4", "h1"])


class Asking(TextDecoder):
    """Answers each datagram: `now ...` at once, all others once what they brought is journalled."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Reply] = []

    def decode(self, block: DatagramBlock) -> list[Batch]:
        made = super().decode(block)
        for d in range(block.datagrams):
            start = int(block.offset[d])
            data = block.payload[start : start + int(block.length[d])].tobytes()
            high, low = int(block.exporter_high[d]), int(block.exporter_low[d])
            self.replies.append(Reply(high, low, 162, data, data.startswith(b"now")))
        return made


def test_an_answer_that_promises_waits_for_its_event_tick() -> None:
    front = Front({"text": Asking()}, FlowWindows(Config().all_views(), make_context()))
    high, low = address_pair("192.0.2.1")
    given = [
        Datagram(START_NS + at, high, low, 162, 162, data)
        for at, data in ((1, b"log a"), (2, b"now b"), (SECOND + 1, b"log c"))
    ]
    front.feed("text", _up_to(pack(given), START_NS + SECOND + 2))
    front.step()
    assert [reply.payload for _, reply in front.replies(0)] == [b"now b"]
    assert [reply.payload for _, reply in front.replies(START_NS + SECOND)] == [b"log a"]
    assert front.replies(START_NS + SECOND) == []
    assert [reply.payload for _, reply in front.replies(START_NS + 2 * SECOND)] == [b"log c"]
