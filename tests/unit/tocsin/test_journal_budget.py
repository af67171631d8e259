"""The journal's budget between two checkpoints: kept whenever a segment ends, what a restart needs last to go."""

from pathlib import Path
from typing import Any

from runtime.checkpoint import Snapshot
from runtime.journal import BlockKind, JournalReader, segments
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import CONTROL
from tocsin.node.checkpoints import NodeCheckpoints
from tocsin.testing import make_context

BUDGET, SEGMENT = 60_000, 10_000


class Part:
    """Something that is kept, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def snapshot(self, out: Snapshot) -> None:
        self.times += 1


def row(number: int) -> Batch:
    return batch_from_rows(
        CONTROL, [{"kind": "gap", "tick_start_ns": number, "payload": "y" * 900}]
    )


def test_the_journal_keeps_to_its_budget_between_checkpoints(tmp_path: Path) -> None:
    context = make_context("journal")
    journal = JournalWriter(
        tmp_path / "journal", context, segment_bytes=SEGMENT, budget_bytes=BUDGET
    )
    journal.start()
    checkpoints = NodeCheckpoints(tmp_path, context, journal, seconds=600.0)
    checkpoints.restore(dict)
    checkpoints.schedule()
    part: Any = Part()
    most = block = 0
    for number in range(1, 500):
        before = journal._size
        journal.append(BlockKind.TICK, number * 10**9, [row(number)], sync=True)
        block = max(block, journal._size - before)
        checkpoints.keep_room()
        if context.clock.now_ns() >= checkpoints.due_ns:
            checkpoints.save(number * 10**9, {"part": part})
            checkpoints.schedule()
        most = max(most, sum(file.stat().st_size for file in segments(tmp_path / "journal")))
    journal.stop()
    assert context.metrics.value("journal_bytes_total") > 5 * BUDGET
    assert most <= BUDGET + SEGMENT + 2 * block
    assert context.metrics.value("journal_dropped_total") == 0
    assert 0 < part.times < 500 // (SEGMENT // block)
    read = [one.sequence for one in JournalReader(tmp_path / "journal").read()]
    assert read[0] <= checkpoints.next_sequence <= read[-1] + 1 == 500
