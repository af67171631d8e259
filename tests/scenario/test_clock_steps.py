"""The machine's clock is set forward, back and by seconds under a whole node: no alarm, no standstill.

What a thread on a socket does with times is in tests/unit/collectors/test_listener.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.journal import BlockKind, JournalReader
from telemetry.schemas import FrameFlag
from tests.support.fed_node import SECOND, Machine


class Kept(Machine):
    """And what its journal says."""

    def kept(self) -> Iterator[Any]:
        for block in JournalReader(self.state / "journal").read():
            if block.kind is BlockKind.TICK:
                yield block

    def whole_ticks(self) -> int:
        """How many ticks of the shortest flow views are journalled as complete."""
        return sum(
            any(b.schema.name == "frame" and not (b["flags"] & FrameFlag.INCOMPLETE).any()
                for b in block.batches)
            for block in self.kept()
        )  # fmt: skip

    def gaps(self) -> list[float]:
        return [
            json.loads(text)["seconds"]
            for block in self.kept()
            for batch in block.batches
            if batch.schema.name == "control"
            for text, kind in zip(batch.texts("payload"), batch.texts("kind"), strict=True)
            if kind == "gap"
        ]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    made = Kept(tmp_path, monkeypatch)
    yield made
    made.node.stop()


@pytest.mark.parametrize("seconds", [3600, -3600, -2, 40_000_000])
def test_a_clock_that_is_set_raises_nothing_and_stops_nothing(machine: Kept, seconds: int) -> None:
    machine.run(14)
    before, ticks = machine.whole_ticks(), len(list(machine.kept()))
    assert before > 8
    machine.off_ns += seconds * SECOND
    machine.run(10)
    assert machine.whole_ticks() - before >= 7, "it stands still"
    assert len(list(machine.kept())) - ticks < 200, "a tick for each second that never was"
    ends = [block.tick_end_ns for block in machine.kept()]
    assert all(b > a for a, b in zip(ends, ends[1:], strict=False))
    assert machine.node._outbox.changes() == [], "the clock raised an alarm"
    assert machine.gaps() == ([float(seconds)] if seconds > 60 else [])
    health = [text for text in machine.node.status().health if "set back" in text]
    assert len(health) == (seconds < -60)


def test_a_node_that_starts_after_its_clock_was_set_back_goes_on_behind_its_journal(
    machine: Kept,
) -> None:
    machine.run(14)
    machine.node.stop()
    newest_ns = max(block.tick_end_ns for block in machine.kept())
    machine.off_ns -= 3600 * SECOND
    machine.start()
    machine.run(12)
    ends = [block.tick_end_ns for block in machine.kept() if block.tick_end_ns > newest_ns]
    assert ends[0] - newest_ns < 5 * SECOND
    assert ends[-1] - ends[0] > 8 * SECOND, "closing times stand still"
    assert machine.node._outbox.changes() == []
