"""The table of export streams: room for new ones, clocks, what is remembered and what is not."""

import struct
import tracemalloc

import numpy as np

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow import streams
from collectors.flow.decoder import FlowDecoder
from collectors.flow.ledger import ledger_batch
from collectors.flow.reference import ReferenceTables
from collectors.flow.sampling import SamplingRates
from collectors.flow.stream_table import Streams
from collectors.flow.template_sets import VERSIONS
from runtime.checkpoint import Snapshot
from telemetry.identity import address_pair
from tests.support.flow_messages import ARRIVAL_NS, data_set, ipfix, template_set, v9
from tocsin.testing import make_context

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
FIELDS = [(8, 4), (12, 4), (1, 4), (2, 4)]


def table(count: int, *, exporters: int, heard_ns: int, per_exporter_max: int = 1024) -> Streams:
    """Return a table of so many streams, spread over exporters."""
    made = Streams(streams_max=64, per_exporter_max=per_exporter_max)
    for n in range(count):
        row = made._admit((0, 1 + n % exporters, 10 << 16 | 2055, n))
        made.state[row, streams.HEARD_NS] = heard_ns
        made.counts[row, streams.SENT] = n
    return made


def test_there_is_room_while_a_quarter_is_free() -> None:
    known = table(40, exporters=4, heard_ns=0)
    assert known.make_room(10 * HOUR) == 0
    assert known.rows == 41


def test_silent_streams_make_room_and_the_others_keep_what_they_have() -> None:
    known = table(60, exporters=6, heard_ns=10 * HOUR)
    known.state[1:31, streams.HEARD_NS] = 0
    assert known.make_room(10 * HOUR) == 30
    assert known.rows == 31
    for n in range(60):
        row = known.find((0, 1 + n % 6, 10 << 16 | 2055, n))
        assert (row > 0) == (n >= 30)
        if row:
            assert known.counts[row, streams.SENT] == n
    assert not known.counts[31:].any()
    assert known.forgotten[streams.SENT] + known.counts[:, streams.SENT].sum() == sum(range(60))


def test_an_exporter_that_invents_domains_loses_its_own_streams_first() -> None:
    known = table(60, exporters=1, heard_ns=10 * HOUR, per_exporter_max=10)
    quiet = known._admit((0, 99, 10 << 16 | 2055, 0))
    known.state[quiet, streams.HEARD_NS] = 10 * HOUR - 1
    known.state[5, streams.HEARD_NS] += 7  # the newest of the greedy one
    assert known.make_room(10 * HOUR) == 50
    assert known.find((0, 99, 10 << 16 | 2055, 0)) > 0
    assert known.find((0, 1, 10 << 16 | 2055, 4)) > 0


def test_streams_beyond_the_table_are_still_decoded() -> None:
    """They share row 0: no ledger, no clock, but their records count."""
    context = make_context()
    decoder = FlowDecoder(FlowDecoderSettings(streams_max=2), context)
    high, low = address_pair("192.0.2.1")
    record = struct.pack("!4I", 1, 2, 3, 4)
    parts = [
        Datagram(ARRIVAL_NS + n, high, low, 4000, 2055,
                 ipfix(template_set(256, FIELDS), data_set(256, record), domain=n))
        for n in range(5)
    ]  # fmt: skip
    (batch,) = decoder.decode(pack(parts))
    assert batch.rows == 5
    ledger, *_ = decoder.advance(ARRIVAL_NS)
    assert ledger.rows == 2


def test_after_a_restart_the_first_number_proves_nothing() -> None:
    """A snapshot is older than what came before a crash: no hole back to it is loss."""
    made = FlowDecoder(FlowDecoderSettings(), make_context())
    high, low = address_pair("192.0.2.1")

    def send(decoder: FlowDecoder, sequence: int) -> None:
        data = v9(template_set(256, FIELDS, version=9), sequence=sequence)
        decoder.decode(pack([Datagram(ARRIVAL_NS + sequence, high, low, 4000, 2055, data)]))

    send(made, 5)
    state = Snapshot()
    made.snapshot(state)
    again = FlowDecoder(FlowDecoderSettings(), make_context())
    again.restore(state)
    send(again, 5000)
    send(again, 5002)
    ledger = again.advance(ARRIVAL_NS)[0]
    assert ledger["lost_wire"].tolist() == [1]
    assert ledger["restarts"].tolist() == [0]


def test_kernel_drops_are_blamed_in_datagrams_and_wait_for_who_misses_them() -> None:
    known = table(2, exporters=2, heard_ns=0)
    known.counts[:, streams.SENT] = 0
    # The first sends 10 records a datagram, the second one 1; together they miss 3 + 1 datagrams.
    known.counts[1, [streams.DECODED, streams.DATAGRAMS]] = (1000, 100)
    known.counts[2, [streams.DECODED, streams.DATAGRAMS]] = (100, 100)
    known.reported[:] = known.counts
    known.kernel_drops = 2
    assert ledger_batch(known, VERSIONS, 1).rows == 0
    assert known.kernel_drops == 2
    known.counts[1, streams.LOST] += 30
    known.counts[2, streams.LOST] += 1
    batch = ledger_batch(known, VERSIONS, 2)
    assert batch["lost_kernel"].tolist() == [15, 1]
    assert batch["lost_wire"].tolist() == [15, 0]
    known.counts[1, streams.LOST] += 10
    assert ledger_batch(known, VERSIONS, 3)["lost_wire"].tolist() == [10]


def test_drops_of_a_block_reach_the_ledger() -> None:
    context = make_context()
    decoder = FlowDecoder(FlowDecoderSettings(), context)
    high, low = address_pair("192.0.2.1")
    parts = [
        Datagram(ARRIVAL_NS + n, high, low, 4000, 2055, v9(sequence=n)) for n in (0, 1, 2, 6, 7)
    ]
    made = pack(parts)
    block = DatagramBlock(
        made.payload, made.offset, made.length, made.exporter_high, made.exporter_low,
        made.exporter_port, made.arrival_ns, 2, made.frontier_ns,
    )  # fmt: skip
    decoder.decode(block)
    ledger, *_ = decoder.advance(ARRIVAL_NS)
    assert (ledger["lost_kernel"].tolist(), ledger["lost_wire"].tolist()) == ([2], [1])
    assert ledger["sent"].tolist() == [8]
    said = {
        fate: context.metrics.value("collector_ledger_units", fate=fate)
        for fate in ("sent", "decoded", "lost_wire", "lost_kernel")
    }
    assert said == {"sent": 8, "decoded": 5, "lost_wire": 1, "lost_kernel": 2}


# ---- names of options data


def test_who_is_refused_leaves_nothing_behind() -> None:
    """Agents and domains can be invented: a full table must not grow by their empty places."""
    tables, rates = ReferenceTables(names_max=1), SamplingRates({}, samplers_max=1)
    assert tables.learn(0, 0, "vrf", 1, "a", 0)
    assert rates.learn(0, 0, 0, 1, 100)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(1, 2000):
            assert not tables.learn(0, n, "vrf", 1, "b", 0)
            assert not rates.learn(0, 0, n, 1, 100)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


def test_names_are_bounded_per_exporter_expire_and_survive_a_restart() -> None:
    tables = ReferenceTables(per_exporter_max=3)
    kept = [tables.learn(0, 1, "application", n, f"a{n}", n) for n in range(5)]
    assert kept == [True, True, True, False, False]
    assert tables.learn(0, 1, "application", 0, "again", 9)
    assert tables.learn(0, 2, "vrf", 7, "größe", 3)
    state = Snapshot()
    tables.snapshot(state)
    again = ReferenceTables()
    again.restore(state)
    assert len(again) == len(tables) == 4
    assert again.name(0, 2, "vrf", 7) == "größe"
    assert again.expire(3) == 2
    assert again.name(0, 1, "application", 0) == "again"
    assert again.name(0, 1, "application", 1) == ""
    assert len(again) == 2


def test_a_snapshot_of_another_version_is_taken_as_far_as_it_goes() -> None:
    known, state = table(3, exporters=1, heard_ns=HOUR), Snapshot()
    known.snapshot(state, "streams")
    wider, narrower = Snapshot(), Snapshot()
    for name in state.names():
        for first, block in state.read(name):
            own = name.endswith("state")
            wider.write(
                name, first, np.pad(block, ((0, 0), (0, 2)), constant_values=7) if own else block
            )
            narrower.write(name, first, np.ascontiguousarray(block[:, :-1]) if own else block)
    for other, heard_ns in ((wider, HOUR), (narrower, 0)):
        again = Streams()
        assert again.restore(other, "streams")
        assert again.rows == known.rows
        assert (again.state[1:4, streams.HEARD_NS] == heard_ns).all()
        assert (again.counts[1:4, streams.SENT] == [0, 1, 2]).all()
    assert not Streams().restore(Snapshot(), "streams")
