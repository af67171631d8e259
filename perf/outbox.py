"""Alerts through the outbox: committed by the node, taken by the gate, a line each in a file, marked.

Counted from the first commit to the last line in the sink's file, on one node thread and one gate
process: alarm changes, deliveries and "told" in SQLite with every commit synced, requests over the
node's socket, order for each alarm, verdicts marked. Bursts of 500 changes a tick, raises and clears.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from perf.measure import report, row
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ALARM
from tests.support.outbox_node import node_with_gate

ALERTS = 20_000
A_TICK = 500
START_NS = 1_764_072_000_000_000_000
EXPLAIN = (
    '{"what":"link is down","why":["every end of it is silent","records: 0/s, 40/s expected"],'
    '"do":"look at both ends","actual":0.0,"expected":40.0,"band":[30.0,50.0],"unit":"{record}/s"}'
)
CONFIG = '[alerting]\nwaiting_max = 100000\n[alerting.sinks.file]\nkind = "file"\nsend = "alarms"\npath = "{file}"\n'


def changes(tick: int) -> Batch:
    """Return 500 changes: raises in even ticks, the clears of the same alarms in odd ones."""
    over = tick % 2
    base = tick // 2 * A_TICK
    rows: list[dict[str, Any]] = [
        {"changed_ns": START_NS + tick, "alarm_id": base + n + 1, "raised_ns": START_NS,
         "cleared_ns": START_NS + tick if over else 0, "state": "cleared" if over else "raised",
         "severity": "major", "kind": "link-cut", "event_type": "communicationsAlarm",
         "probable_cause": "lossOfSignal", "entity": f"link{base + n}", "explain": EXPLAIN,
         "specific_problem": f"link{base + n} is down", "occurrence": 1, "operator_state": "none",
         "source": "tocsin"}
        for n in range(A_TICK)
    ]  # fmt: skip
    return batch_from_rows(ALARM, rows)


def measure(folder: Path) -> list[dict[str, object]]:
    """Send them all and return the table."""
    batches = [changes(tick) for tick in range(ALERTS // A_TICK)]
    with node_with_gate(folder, CONFIG) as (node, sink):
        began, first_cpu = time.perf_counter(), time.process_time()
        committing = 0.0
        for tick, batch in enumerate(batches):
            first = time.perf_counter()
            node.commit(START_NS + tick, [batch])
            committing += time.perf_counter() - first
            while node.serve():
                pass
        lines = 0
        with sink.open("rb") as file:
            while lines < ALERTS:
                lines += file.read().count(b"\n")
                if not node.serve():
                    time.sleep(0.0005)
        seconds, cpu = time.perf_counter() - began, time.process_time() - first_cpu
    return [
        row("alerts through the outbox, commit to line", ALERTS / seconds, "/s", 5000),
        row("  of it committing alone", ALERTS / committing, "/s"),
        row("  CPU of the node for it", cpu / ALERTS * 1e6, "us / alert", None, "lower"),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        report("outbox", measure(Path(name)))
