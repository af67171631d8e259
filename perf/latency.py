"""Tick close → alert in the sink: 10,000 series scored, 100 alerts raised, one tick after another.

Counted from the frames of the tick to the last line in a file sink: journal with fdatasync,
detection, alerting, SQLite commit, and the gate process with its request socket and an fsync of the
sink's file. The merge of partial frames is in `flows`. Beside it the disk's fdatasync.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from correlator.views import views_for
from detectors.config import DetectionSettings
from detectors.stage import DetectionStage
from perf.measure import report, row
from runtime import garbage
from runtime.journal import BlockKind
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ANOMALY
from telemetry.views import View, frame_schema
from tests.support.outbox_node import OutboxNode, node_with_gate
from tocsin.testing import make_context
from tocsin.testing.alarms import START_NS, TICK_NS, AlarmWorld

SERIES = 10_000
ALERTS = 100
TICKS = 40  # with alerts; every fifth tick has some
WARM_TICKS = 25  # kernels load, SQLite and the gate come to rest
CONFIG = '[alerting.sinks.file]\nkind = "file"\nsend = "alarms"\npath = "{file}"\n'


def frame_of(view: View, tick_ns: int, random: np.random.Generator) -> Batch:
    """Return a frame of 10,000 interfaces and `__other__`."""
    rows = SERIES + 1
    flows = random.poisson(40.0, rows).astype(np.uint64)
    columns = {f.name: np.zeros(rows, f.dtype) for f in frame_schema(view).fields}
    columns["tick_start_ns"][:] = tick_ns
    columns["tick_seconds"][:] = TICK_NS / 1e9
    columns["series_id"][:] = np.arange(1, rows + 1)
    columns["row"][:] = np.arange(1, rows + 1)
    for name, factor in (("octets", 60_000), ("packets", 60), ("flows", 1)):
        columns[name][:] = flows * np.uint64(factor)
    return Batch(frame_schema(view), columns, {}, {"view": (view.name,)})


def disk(folder: Path) -> list[float]:
    """Return how long fdatasync of 4 KB takes here, in ms."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    return took


def moment() -> tuple[float, float]:
    """Return (time, CPU time of this process), in seconds."""
    return time.perf_counter(), time.process_time()


class Lines:
    """Counts the lines that were added to a file since it was last asked."""

    def __init__(self) -> None:
        self._at = 0

    def __call__(self, path: Path) -> int:
        if not path.exists() or path.stat().st_size == self._at:
            return 0
        with path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        return data.count(b"\n")


def measure(folder: Path) -> list[dict[str, object]]:
    """Run the ticks and return the table."""
    with node_with_gate(folder, CONFIG) as (node, sink):
        took, parts, cpu = ticks(folder, node, sink)
    probe = disk(folder)
    table = [
        row("tick close → 100 alerts in the sink, p50", float(np.median(took)), "ms", 10, "lower"),
        row("tick close → 100 alerts in the sink, p99", float(np.percentile(took, 99)), "ms", 25,
            "lower"),
    ]  # fmt: skip
    table += [
        row(f"  of it {name}, p50", float(np.median(values)), "ms", None, "lower")
        for name, values in parts.items()
    ]
    table += [
        row(f"  CPU of it {name}, median", float(np.median(values)), "ms", None, "lower")
        for name, values in cpu.items()
    ]
    together = np.sum(list(cpu.values()), axis=0)
    table.append(row("  CPU of the node, median", float(np.median(together)), "ms", None, "lower"))
    for share, name in ((50, "p50"), (99, "p99")):
        value = float(np.percentile(probe, share))
        table.append(row(f"fdatasync of this disk, {name}", value, "ms", None, "lower"))
    return table


def ticks(
    folder: Path, node: OutboxNode, sink: Path
) -> tuple[list[float], dict[str, list[float]], dict[str, list[float]]]:
    """Return how long each tick took in ms, its parts, and their CPU time."""
    (view,) = (
        v for v in views_for(tick_seconds=5.0, lateness_seconds=1.0) if v.name == "interface"
    )
    detection = DetectionStage([view], DetectionSettings(), make_context("detection"))
    journal = JournalWriter(folder / "journal", make_context("journal"))
    journal.start()
    world = AlarmWorld()
    random = np.random.default_rng(7)
    took: list[float] = []
    parts: dict[str, list[float]] = {
        "journal": [],
        "detection": [],
        "alerting": [],
        "commit": [],
        "gate": [],
    }
    cpu: dict[str, list[float]] = {name: [] for name in parts}
    lines = seen = 0
    new_lines = Lines()
    garbage.calm()
    for tick in range(WARM_TICKS + 5 * TICKS):
        frame = frame_of(view, START_NS + tick * TICK_NS, random)
        rows = []
        if tick % 5 == 0:  # others each time: one that came and went too often would be flapping
            names = [f"10.{tick // 5}.0.{i}" for i in range(ALERTS)]
            rows = [world.silence(world.series("exporter", exporter=name)) for name in names]
        times = [moment()]
        end_ns = world.now_ns + TICK_NS
        journal.append(BlockKind.TICK, end_ns, [frame], sync=True, behind=True)
        times.append(moment())
        widened = list(detection.process(frame))
        found = list(detection.advance(end_ns))
        times.append(moment())
        for batch in [*widened, *found]:
            world.stage.process(batch)
        if rows:
            world.stage.process(batch_from_rows(ANOMALY, rows))
        world.now_ns = end_ns
        changes = list(world.stage.advance(end_ns))
        times.append(moment())
        journal.settle()
        told = node.commit(end_ns, changes)
        lines += told
        times.append(moment())
        assert told in (0, ALERTS), told
        while seen < lines:
            seen += new_lines(sink)
            if not node.serve():
                time.sleep(0.0002)
        if rows and tick >= WARM_TICKS:
            assert told == ALERTS
            times.append(moment())
            took.append((times[-1][0] - times[0][0]) * 1e3)
            for name, first, last in zip(parts, times[:-1], times[1:], strict=True):
                parts[name].append((last[0] - first[0]) * 1e3)
                cpu[name].append((last[1] - first[1]) * 1e3)
        # As a node does that has nothing else to do.
        journal.append(BlockKind.RESULT, end_ns, [*widened, *changes], sync=False)
        detection.learn()
        while rows and node.outbox.sinks():  # until the gate has said what became of it
            if not node.serve():
                time.sleep(0.0002)
        node.outbox.rest()
        garbage.tidy()
        node.serve()
    journal.stop()
    return took, parts, cpu


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        report("latency", measure(Path(name)))
