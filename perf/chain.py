"""What a tick of 100,000 series and one of 100,000 keys cost, stage by stage; the chain's rate.

A series is an entity and a metric (design section 4): a key with four scored measures is four.

A tick: partial frames are closed, merged, scored, judged and learned, and its journal block encoded.
The rate: v9 datagrams of 30 routers through decoding, windows, merge, detection and alerting in one
process, with the ticks that their arrival times make. CPU seconds; the least of several ticks.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from alerting.config import AlertingSettings
from alerting.stage import AlertingStage
from correlator.merge import FrameMerger
from correlator.tables.network_map import FileNetworkMap, load_network
from correlator.views import views_for
from correlator.windows import FlowWindows
from detectors.config import DetectionSettings
from detectors.stage import DetectionStage
from perf.measure import report, row
from telemetry import wire
from telemetry.batch import Batch
from telemetry.schemas import FLOW
from telemetry.views import View
from tocsin.chain.back import Back
from tocsin.chain.ticks import Closing
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND
TICK_NS = 60 * SECOND
TICKS = 8


def records(series: int, tick_ns: int, random: np.random.Generator) -> Batch:
    """Return one flow record for each of `series` source prefixes, to as many destinations."""
    columns = {f.name: np.zeros(series, f.dtype) for f in FLOW.fields}
    number = np.arange(series, dtype=np.uint64)
    v4 = np.uint64(0xFFFF << 32)
    columns["source_address_low"] = v4 | np.uint64(10 << 24) | number << np.uint64(8)
    columns["destination_address_low"] = v4 | np.uint64(100 << 24) | number << np.uint64(8)
    columns["exporter_address_low"] = v4 | np.uint64(127 << 24) | number % np.uint64(300)
    columns["octets"] = random.poisson(40.0, series).astype(np.uint64) * np.uint64(1000)
    columns["packets"] = columns["octets"] // np.uint64(500) + np.uint64(1)
    columns["sampling_rate"][:] = 1
    columns["protocol"][:] = 6
    columns["source_port"][:] = 443
    columns["ingress_interface"] = (number % np.uint64(40) + np.uint64(1)).astype(np.uint32)
    columns["egress_interface"] = (number % np.uint64(39) + np.uint64(2)).astype(np.uint32)
    arrival = np.sort(tick_ns + random.integers(0, TICK_NS, series))
    columns["arrival_ns"] = columns["export_ns"] = arrival
    columns["flow_start_ns"] = columns["flow_end_ns"] = arrival
    return Batch(FLOW, columns)


def views_of(series: int) -> tuple[View, ...]:
    """Return the default views with caps for so many series in the two prefix views."""
    return tuple(
        msgspec.structs.replace(
            view,
            keys_per_tick_max=max(series, view.keys_per_tick_max),
            series_max=max(series, view.series_max),
        )
        for view in views_for()
    )


def cost_of(work: Callable[[], object], into: list[float]) -> object:
    """Do it and keep its CPU time in ms."""
    began = time.process_time()
    made = work()
    into.append((time.process_time() - began) * 1e3)
    return made


def tick(keys: int, goal: float | None) -> list[dict[str, object]]:
    """Measure ticks of `keys` keys, half of them source and half destination prefixes."""
    each = keys // 2  # source prefixes and destination prefixes
    views = views_of(each)
    network = load_network(None)
    windows = FlowWindows(views, make_context("windows"))
    merger = FrameMerger(views, make_context("correlator"), network=network)
    detection = DetectionStage(views, DetectionSettings(), make_context("detectors"))
    alerting = AlertingStage(
        AlertingSettings(), make_context("alerting"), network=network, directory=merger,
        evidence=merger,
    )  # fmt: skip
    random = np.random.default_rng(7)
    parts: dict[str, list[float]] = {
        name: [] for name in ("close", "merge", "score", "learn", "alerting", "journal")
    }
    samples = 0
    admitted = 0
    number = 0
    lateness_ns = round(views[0].lateness_seconds * 1e9)
    while len(parts["close"]) < TICKS + 40:
        at_ns = START_NS + number * TICK_NS
        number += 1
        windows.process(records(each, at_ns, random))
        frontier_ns = at_ns + TICK_NS + lateness_ns
        took: dict[str, list[float]] = {name: [] for name in parts}
        closed = cost_of(lambda: windows.advance(frontier_ns), took["close"])
        for batch in closed:  # type: ignore[attr-defined]
            merger.process(batch)
        merged = list(cost_of(lambda: merger.advance(frontier_ns), took["merge"]))  # type: ignore[call-overload]
        cost_of(lambda: [wire.encode(batch) for batch in merged], took["journal"])
        frames = [batch for batch in merged if batch.schema.name == "frame"]
        scored = cost_of(lambda: [b for f in frames for b in detection.process(f)], took["score"])
        found = cost_of(lambda: list(detection.advance(frontier_ns)), took["learn"])

        def judge() -> None:
            for batch in [*scored, *found]:  # type: ignore[misc]
                alerting.process(batch)
            alerting.advance(frontier_ns)

        cost_of(judge, took["alerting"])
        admitted = merger.series
        if admitted < keys:
            continue  # new series are let in 4,096 a tick and view
        for name, values in took.items():
            parts[name].append(values[0])
        samples = sum(
            (f.rows - 1) * len(v.scored) for f in frames for v in views if v.name in f.source
        )
        if len(parts["close"]) >= TICKS:
            break
    least = {name: min(values) for name, values in parts.items()}
    label = f"tick of {samples:,} series ({admitted:,} keys)"
    rows = [row(label, sum(least.values()), "ms CPU", goal, "lower")]
    rows += [
        row(f"  of it {name}", value, "ms CPU", None, "lower") for name, value in least.items()
    ]
    per_sample = (least["score"] + least["learn"]) / max(samples, 1) * 1e3
    rows.append(
        row("  baseline, detectors, calibration", per_sample, "µs / series-sample", 0.5, "lower")
    )
    return rows


def rate() -> list[dict[str, object]]:
    """Measure the whole chain in one process, datagrams to alarms."""
    from collectors.block import DatagramBlock
    from collectors.config import FlowDecoderSettings
    from collectors.datagram import Datagram, pack
    from collectors.flow.decoder import FlowDecoder
    from telemetry.identity import address_pair
    from tocsin.chain.front import Front
    from tocsin.demo.exporters import Exporter
    from tocsin.demo.network import load_demo_network
    from tocsin.demo.traffic import TrafficModel

    network = load_demo_network()
    made: list[Datagram] = []
    model = TrafficModel(network, seed=1, records_per_second=20_000)
    exporters = [Exporter(network, r, START_NS - 86_400 * SECOND) for r in range(30)]
    count = 0
    for step in range(12):
        batch = model.records(START_NS + step * 5 * SECOND, 5 * SECOND)
        now_ns = START_NS + (step + 1) * 5 * SECOND
        for exporter in exporters:
            if exporter.protocol == "sflow":
                continue
            high, low = address_pair(exporter.address)
            mine = np.flatnonzero(batch["exporter_address_low"] == np.uint64(low))
            count += mine.size
            data = list(exporter.datagrams(batch, mine, now_ns))
            made += [Datagram(now_ns + i, high, low, 4000, 2055, d) for i, d in enumerate(data)]
    made.sort(key=lambda one: one.arrival_ns)
    blocks = [pack(made[i : i + 1024]) for i in range(0, len(made), 1024)]
    views = views_for(tick_seconds=5.0, lateness_seconds=1.0)
    known = FileNetworkMap(network.file)

    def chain() -> int:
        decoder = FlowDecoder(FlowDecoderSettings(clock_tolerance_seconds=5e9), make_context())
        windows = FlowWindows(views, make_context("windows"), backbone=known.backbone())
        front = Front({"flow": decoder}, windows)
        merger = FrameMerger(views, make_context("correlator"), network=known)
        back = Back(
            merger,
            DetectionStage(views, DetectionSettings(), make_context("detectors")),
            AlertingStage(
                AlertingSettings(), make_context("alerting"), network=known, directory=merger,
                evidence=merger,
            ),
        )  # fmt: skip
        for block in blocks:
            front.feed("flow", DatagramBlock(
                block.payload, block.offset, block.length, block.exporter_high, block.exporter_low,
                block.exporter_port, block.arrival_ns, 0, int(block.arrival_ns[-1]),
            ))  # fmt: skip
            closing: Closing
            for closing in front.step():
                back.take(closing)
        return front.records

    chain()
    times = []
    for _ in range(3):
        began = time.process_time()
        got = chain()
        times.append(time.process_time() - began)
    return [row("whole chain, one process, ticks of 5 s", got / min(times) / 1e6, "M records/s", 2)]


if __name__ == "__main__":
    report("chain", [*tick(22_000, 70), *tick(100_000, None), *rate()])
