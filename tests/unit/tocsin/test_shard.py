"""What shards and node say to each other: closings and self-metrics come over as they were."""

import pytest

from correlator.views import views_for
from correlator.windows import FlowWindows
from runtime.metrics import Metrics
from telemetry.batch import Batch
from telemetry.errors import DecodeError
from tocsin.chain.ticks import Closing
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import TrafficModel
from tocsin.families import families_of, take_families
from tocsin.node.shard import decode_closing, encode_closing, frontier_of
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND


@pytest.fixture(scope="module")
def closing() -> Closing:
    """Five seconds of the demo network as one shard closes them."""
    windows = FlowWindows(
        views_for(tick_seconds=5.0, lateness_seconds=1.0), make_context(), shard=2
    )
    model = TrafficModel(load_demo_network(), seed=1, records_per_second=400)
    windows.open(START_NS)
    windows.process(model.records(START_NS, 5 * SECOND))
    made = windows.advance(START_NS + 6 * SECOND)
    return Closing(START_NS + 6 * SECOND, tuple(made), blind=True)


def same(one: Batch, other: Batch) -> bool:
    return (
        one.schema.names() == other.schema.names()
        and one.dictionaries == other.dictionaries
        and all((one[name] == other[name]).all() for name in one.schema.names())
    )


def test_a_closing_comes_over_as_it_was(closing: Closing) -> None:
    data = encode_closing(closing)
    back = decode_closing(data)
    assert frontier_of(data) == back.frontier_ns == closing.frontier_ns
    assert back.blind
    assert {batch.schema.name for batch in back.batches} == {"partial", "evidence"}
    assert all(batch.rows for batch in back.batches)
    assert all(map(same, back.batches, closing.batches))


def test_a_cut_closing_is_refused(closing: Closing) -> None:
    with pytest.raises(DecodeError):
        decode_closing(encode_closing(closing)[:-100])


def test_metrics_of_a_shard_stand_beside_the_nodes_own() -> None:
    shard, node = Metrics("node"), Metrics("node")
    listener = shard.scoped("listener.flow")
    lost = listener.counter("lost_total", "lost", label="reason", values=("full", "cut"))
    lost.add("cut", 3)
    listener.gauge("depth", "waiting").set(7.5)
    by_exporter = listener.keyed("records_total", "records", label="exporter")
    by_exporter.add("192.0.2.1", 5)
    node.scoped("listener.flow").counter(
        "lost_total", "lost", label="reason", values=("full", "cut")
    ).add("full")
    for _ in range(2):  # what is said again replaces what was said
        take_families(node, families_of(shard), "shard-1")
    assert node.value("lost_total", component="shard-1.listener.flow", reason="cut") == 3
    assert node.value("lost_total", component="listener.flow") == 1
    assert node.value("depth", component="shard-1.listener.flow") == 7.5
    assert node.value("records_total", exporter="192.0.2.1") == 5
    by_exporter.add("192.0.2.2")
    take_families(node, families_of(shard), "shard-1")
    assert node.value("records_total") == 6
    assert b'component="shard-1.listener.flow"' in node.render()
