"""Sets that wait for their template: who goes when room runs out, and that counts add up."""

import struct
from collections import Counter

import pytest

from collectors.config import FlowDecoderSettings
from collectors.flow.decoder import FlowDecoder
from collectors.flow.held import Held, HeldSets, Message
from runtime.checkpoint import Snapshot
from runtime.component import Context
from telemetry.batch import Batch
from tests.support.flow_messages import (
    ARRIVAL_NS,
    block,
    data_set,
    ipfix,
    template_set,
    v9,
)
from tocsin.testing import make_context

SECOND = 1_000_000_000
BASIC = [(8, 4), (12, 4), (1, 4), (2, 4)]


def decoder(context: Context | None = None, **settings: object) -> FlowDecoder:
    return FlowDecoder(FlowDecoderSettings(**settings), context or make_context())  # type: ignore[arg-type]


def record(source: int = 1) -> bytes:
    return struct.pack("!IIII", source, 2, 300, 4)


def rows(batches: list[Batch]) -> list[int]:
    return [
        int(low) & 0xFFFFFFFF
        for batch in batches
        if batch.schema.name == "flow"
        for low in batch["source_address_low"]
    ]


def held(size: int, arrival_ns: int = 0) -> Held:
    message = Message((0, 0, 0, 0), 0)
    return Held(bytes(size), arrival_ns, 0, 0, 0, 0, 1, message)


def key(exporter: int, set_id: int = 256) -> tuple[tuple[int, int, int, int], int]:
    return (0, exporter, 10 << 16, 0), set_id


def ring(**settings: int) -> tuple[HeldSets, Counter[str]]:
    counted: Counter[str] = Counter()

    def count(reason: str, amount: int) -> None:
        counted[reason] += amount

    limits = {"bytes_max": 1000, "per_exporter_max": 400, **settings}
    return HeldSets(**limits, count=count), counted


def adds_up(sets: HeldSets, counted: Counter[str]) -> bool:
    gone = counted["decoded_later"] + counted["held_dropped"] + counted["held_expired"]
    return counted["held"] == gone + len(sets)


def test_the_oldest_of_a_full_exporter_goes() -> None:
    sets, counted = ring()
    for n in range(6):
        sets.put(key(1), held(100, n))
    assert [one.arrival_ns for one in sets.take(key(1))] == [2, 3, 4, 5]
    assert counted["held_dropped"] == 2
    assert adds_up(sets, counted)


def test_a_template_never_announced_does_not_push_out_the_sets_of_others() -> None:
    sets, counted = ring()
    sets.put(key(1, 300), held(50))
    for n in range(100):
        sets.put(key(1, 256), held(100, n))
    assert len(sets.take(key(1, 300))) == 1
    assert adds_up(sets, counted)


def test_greedy_exporters_do_not_push_out_a_modest_one() -> None:
    sets, counted = ring()
    sets.put(key(99), held(50))
    for n in range(200):
        sets.put(key(n % 5), held(100, n))
    assert sets.bytes <= 1000
    assert len(sets.take(key(99))) == 1
    assert adds_up(sets, counted)


def test_a_set_larger_than_all_room_is_dropped_itself() -> None:
    sets, counted = ring()
    sets.put(key(1), held(10))
    sets.put(key(1, 257), held(401))
    assert counted == {"held": 2, "held_dropped": 1}
    assert len(sets) == 1


def test_many_exporters_and_sets_stay_within_bounds_and_add_up() -> None:
    sets, counted = ring()
    random = make_context().random
    for n in range(5000):
        who, which = int(random.integers(40)), 256 + int(random.integers(5))
        action = random.random()
        if action < 0.85:
            sets.put(key(who, which), held(int(random.integers(4, 200)), n))
        elif action < 0.97:
            sets.take(key(who, which))
        else:
            sets.expire(n - 50)
        assert sets.bytes <= 1000
        assert adds_up(sets, counted)
    assert all(counted[r] for r in ("decoded_later", "held_dropped", "held_expired"))


def test_sets_expire_when_the_template_does_not_come() -> None:
    context = make_context()
    made = decoder(context, held_seconds=60.0)
    made.decode(block(ipfix(data_set(256, record()))))
    made.advance(ARRIVAL_NS + 59 * SECOND)
    assert made.waiting_bytes() > 0
    made.advance(ARRIVAL_NS + 61 * SECOND)
    assert made.waiting_bytes() == 0
    assert context.metrics.value("collector_sets_total", reason="held_expired") == 1
    assert rows(made.decode(block(ipfix(template_set(256, BASIC))))) == []


def test_an_expired_set_is_not_decoded_where_nobody_advanced() -> None:
    context = make_context()
    made = decoder(context, held_seconds=60.0)
    made.decode(block(ipfix(data_set(256, record(1)))))
    late = block(ipfix(template_set(256, BASIC), sequence=1))
    moved = late.__class__(
        late.payload, late.offset, late.length, late.exporter_high, late.exporter_low,
        late.exporter_port, late.arrival_ns + 61 * SECOND, 0, late.frontier_ns,
    )  # fmt: skip
    assert rows(made.decode(moved)) == []
    assert context.metrics.value("collector_sets_total", reason="held_expired") == 1


def test_a_set_decoded_later_keeps_its_own_times_and_winds_no_clock_back() -> None:
    made = decoder()
    wrong = 3600  # the exporter's clock is an hour slow
    early = block(ipfix(data_set(256, record(7)), seconds=ARRIVAL_NS // SECOND - wrong))
    made.decode(early)
    later = 900 * SECOND
    message = ipfix(template_set(256, BASIC), data_set(256, record(8)), sequence=1,
                    seconds=(ARRIVAL_NS + later) // SECOND - wrong)  # fmt: skip
    after = block(message)
    moved = after.__class__(
        after.payload, after.offset, after.length, after.exporter_high, after.exporter_low,
        after.exporter_port, after.arrival_ns + later, 0, after.frontier_ns + later,
    )  # fmt: skip
    offsets = []
    for _ in range(2):
        batches = [b for b in made.decode(moved) if b.schema.name == "flow"]
        offsets.append([int(b["export_ns"][0]) for b in batches])
    assert abs(offsets[0][0] - ARRIVAL_NS) < 2 * SECOND
    assert abs(offsets[0][1] - ARRIVAL_NS - later) < 2 * SECOND
    assert abs(offsets[1][0] - ARRIVAL_NS - later) < 2 * SECOND


def test_sets_that_wait_survive_a_restart() -> None:
    made = decoder()
    message = ipfix(data_set(256, record(5)), data_set(257, record(6)))
    made.decode(block(message, ipfix(data_set(256, record(7)), sequence=2)))
    state = Snapshot()
    made.snapshot(state)
    again = decoder()
    again.restore(state)
    assert again.waiting_bytes() == made.waiting_bytes()
    assert rows(again.decode(block(ipfix(template_set(256, BASIC), sequence=3)))) == [5, 7]
    assert rows(again.decode(block(ipfix(template_set(257, BASIC), sequence=3)))) == [6]
    assert again.waiting_bytes() == 0
    ledger, *_ = again.advance(ARRIVAL_NS)
    assert ledger["decoded"].tolist() == [3]
    assert ledger["sent"].tolist() == [3]
    assert ledger["undecodable"].tolist() == [0]


def test_a_template_that_expired_is_unknown_again() -> None:
    context = make_context()
    made = decoder(context, template_expiry_seconds=100.0)
    made.decode(block(ipfix(template_set(256, BASIC))))
    made.advance(ARRIVAL_NS + 99 * SECOND)
    assert rows(made.decode(block(ipfix(data_set(256, record(3)))))) == [3]
    made.advance(ARRIVAL_NS + 101 * SECOND)
    assert context.metrics.value("collector_templates_total", result="expired") == 1
    assert rows(made.decode(block(ipfix(data_set(256, record(4)), sequence=1)))) == []
    assert rows(made.decode(block(ipfix(template_set(256, BASIC), sequence=2)))) == [4]


@pytest.mark.parametrize("withdrawn", [256, 2], ids=["one", "all"])
def test_withdrawal_counts_and_what_comes_after_waits(withdrawn: int) -> None:
    context = make_context()
    made = decoder(context)
    made.decode(block(ipfix(template_set(256, BASIC), template_set(257, BASIC))))
    made.decode(block(ipfix(template_set(withdrawn, []))))
    gone = context.metrics.value("collector_templates_total", result="withdrawn")
    assert gone == (1 if withdrawn == 256 else 2)
    assert len(made.templates) == 2 - gone
    assert rows(made.decode(block(ipfix(data_set(256, record()))))) == []
    left = rows(made.decode(block(ipfix(data_set(257, record(9)), sequence=1))))
    assert left == ([9] if withdrawn == 256 else [])


def test_a_changed_layout_counts_and_old_sets_that_waited_use_the_first_one() -> None:
    context = make_context()
    made = decoder(context)
    swapped = [(12, 4), (8, 4), (1, 4), (2, 4)]
    made.decode(block(ipfix(data_set(256, record(1)))))
    assert rows(made.decode(block(ipfix(template_set(256, BASIC), sequence=1)))) == [1]
    made.decode(block(ipfix(template_set(256, swapped), sequence=1)))
    assert context.metrics.value("collector_templates_total", result="changed") == 1
    assert rows(made.decode(block(ipfix(data_set(256, record(1)), sequence=1)))) == [2]


def test_a_v9_datagram_without_template_is_undecodable_until_it_comes() -> None:
    made = decoder()
    made.decode(
        block(v9(data_set(256, record()), sequence=0), v9(data_set(256, record()), sequence=1))
    )
    before, *_ = made.advance(ARRIVAL_NS)
    assert (before["sent"].tolist(), before["no_template"].tolist()) == ([2], [2])
    made.decode(block(v9(template_set(256, BASIC, version=9), sequence=2)))
    after, *_ = made.advance(ARRIVAL_NS)
    assert after["decoded"].tolist() == [3]
    assert after["undecodable"].tolist() == [-2]
