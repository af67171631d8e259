"""Tick close → alert in the sink: 10,000 series scored, 100 alerts raised, one tick after another.

Counted from the frames of the tick, for each alert, to the call of the sink, and to its line in the
sink's file: journal with fdatasync, detection, alerting, SQLite commit, and the gate process with its
request socket. Both are measured where sinks are told of alarms and where, as by default, of incidents.
The merge of partial frames is in `flows`. Beside it the disk's fdatasync.
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
from perf import stamped_sink
from perf.measure import report, row
from runtime import garbage
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ANOMALY
from telemetry.views import View, frame_schema
from tests.support.outbox_node import OutboxNode, node_with_gate
from tocsin.chain.ticks import Outcome, Tick
from tocsin.testing import make_context
from tocsin.testing.alarms import START_NS, TICK_NS, AlarmWorld

SERIES = 10_000
ALERTS = 100
TICKS = 40  # with alerts; every fifth tick has some
PARTS = ("journal", "detection", "alarms", "whom to tell first", "gate")
WARM_TICKS = 25  # kernels load, SQLite and the gate come to rest
CONFIG = '[alerting.sinks.file]\nkind = "stamped"\nsend = "SEND"\npath = "{file}"\n'


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


class Stamps:
    """Reads what the sink noted since it was last asked: called, done, alerts of each call."""

    def __init__(self, sink: Path) -> None:
        self._path = stamped_sink.stamps_of(sink)
        self._at = 0

    def __call__(self) -> list[tuple[float, float, int]]:
        if not self._path.exists() or self._path.stat().st_size == self._at:
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        fields = (line.split() for line in data.splitlines())
        return [(float(called), float(done), int(count)) for called, done, count in fields]


class Figures:
    """What the ticks took, in ms: of each alert, of each tick's last one, and of each part of a tick."""

    def __init__(self) -> None:
        self.called: list[float] = []
        self.written: list[float] = []
        self.last: list[float] = []
        self.parts: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def take(
        self, times: list[tuple[float, float]], stamps: list[tuple[float, float, int]]
    ) -> None:
        """Take a tick: the moments between its parts, and what the sink noted."""
        began = times[0][0]
        for called, done, count in stamps:
            self.called += [(called - began) * 1e3] * count
            self.written += [(done - began) * 1e3] * count
        self.last.append((stamps[-1][1] - began) * 1e3)
        for name, first, last in zip(PARTS, times[:-1], times[1:], strict=True):
            ended = last[0] if name != PARTS[-1] else stamps[-1][0]
            self.parts.setdefault(name, []).append((ended - first[0]) * 1e3)
            self.cpu.setdefault(name, []).append((last[1] - first[1]) * 1e3)

    def rows(self, told: str) -> list[dict[str, object]]:
        """Return the rows of a table."""
        table = []
        for share, goal in ((50, 10), (99, 25)):
            took = float(np.percentile(self.called, share))
            table.append(
                row(f"tick close → sink call, of {told}, p{share}", took, "ms", goal, "lower")
            )
        for share in (50, 99):
            took = float(np.percentile(self.written, share))
            table.append(row(f"  → its line on the disk, p{share}", took, "ms", None, "lower"))
            took = float(np.percentile(self.last, share))
            table.append(
                row(f"  → the last of {ALERTS} lines, p{share}", took, "ms", None, "lower")
            )
        for what, parts in (("of it", self.parts), ("CPU of it", self.cpu)):
            table += [
                row(f"  {what} {name}, median", float(np.median(values)), "ms", None, "lower")
                for name, values in parts.items()
            ]
        together = float(np.median(np.sum(list(self.cpu.values()), axis=0)))
        table.append(row("  CPU of the node, median", together, "ms", None, "lower"))
        return table


def measure(folder: Path) -> list[dict[str, object]]:
    """Run the ticks and return the table."""
    stamped_sink.install(folder)
    sys.path.append(str(folder))
    places = (folder, os.environ.get("PYTHONPATH", ""))
    os.environ["PYTHONPATH"] = os.pathsep.join(str(place) for place in places if place)
    sys.setswitchinterval(0.0005)  # as the node does
    table = []
    for told in ("alarms", "incidents"):
        state = folder / told
        state.mkdir()
        with node_with_gate(state, CONFIG.replace("SEND", told)) as (node, sink):
            table += ticks(state, node, sink).rows(told)
    probe = disk(folder)
    for share, name in ((50, "p50"), (99, "p99")):
        value = float(np.percentile(probe, share))
        table.append(row(f"fdatasync of this disk, {name}", value, "ms", None, "lower"))
    return table


def ticks(folder: Path, node: OutboxNode, sink: Path) -> Figures:
    """Return what the ticks took."""
    (view,) = (
        v for v in views_for(tick_seconds=5.0, lateness_seconds=1.0) if v.name == "interface"
    )
    detection = DetectionStage([view], DetectionSettings(), make_context("detection"))
    journal = JournalWriter(folder / "journal", make_context("journal"))
    journal.start()
    commits = node.commits(journal)
    answered: list[tuple[float, float]] = []
    answer_due = commits.on_due

    def on_due() -> None:
        if answer_due():
            answered.append(moment())

    commits.on_due = on_due
    world = AlarmWorld()
    random = np.random.default_rng(7)
    figures = Figures()
    new_stamps = Stamps(sink)
    garbage.calm()
    for tick in range(WARM_TICKS + 5 * TICKS):
        frame = frame_of(view, START_NS + tick * TICK_NS, random)
        rows = []
        if tick % 5 == 0:  # others each time: one that came and went too often would be flapping
            names = [f"10.{tick // 5}.0.{i}" for i in range(ALERTS)]
            rows = [world.silence(world.series("exporter", exporter=name)) for name in names]
        times = [moment()]
        end_ns = world.now_ns + TICK_NS
        commits.journal(Tick(end_ns, (frame,)))
        times.append(moment())
        widened = list(detection.process(frame))
        found = list(detection.advance(end_ns))
        times.append(moment())
        for batch in [*widened, *found]:
            world.stage.process(batch)
        if rows:
            world.stage.process(batch_from_rows(ANOMALY, rows))
        world.now_ns = end_ns
        outcome = Outcome(end_ns, frames=widened, anomalies=found)
        world.stage.judge(end_ns)
        outcome.follow(world.stage.alarms(), world.stage.tell(), changed=world.stage.changed)
        times.append(moment())
        answered.clear()
        commits.take(outcome)
        node.serve()
        times += answered[:1] or [moment()]  # the gate, most often while the outbox commits
        outcome.complete()
        told = sum(batch.rows for batch in outcome.alarms)
        assert told in (0, ALERTS), told
        times.append(moment())
        stamps: list[tuple[float, float, int]] = []
        while sum(count for *_, count in stamps) < told:
            node.wait()
            node.serve()
            stamps += new_stamps()
        if rows and tick >= WARM_TICKS:
            assert told == ALERTS
            figures.take(times, stamps)
        # As a node does that has nothing else to do.
        commits.rest()
        detection.learn()
        while told and node.outbox.sinks():  # until the gate has said what became of it
            node.wait()
            node.serve()
        node.outbox.rest()
        garbage.tidy()
        node.serve()
    journal.stop()
    return figures


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        report("latency", measure(Path(name)))
