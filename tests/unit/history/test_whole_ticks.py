"""Ticks and their results from the journal: put together in order, each once, however they lie."""

import pytest

from history import whole_ticks
from history.whole_ticks import WholeTicks
from runtime.journal import Block, BlockKind
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ALARM, FRAME, LOG


def frame(end: int, rows: int = 1) -> Batch:
    return batch_from_rows(FRAME, [{"tick_start_ns": end, "series_id": i} for i in range(rows)])


def tick(end: int, *, frames: bool = True, rows: int = 1) -> Block:
    log = batch_from_rows(LOG, [{"message": f"line {end}"}])
    batches = (frame(end, rows), log) if frames else (log,)
    return Block(0, BlockKind.TICK, end, batches)


def result(end: int, *, frames: bool = True) -> Block:
    alarm = batch_from_rows(ALARM, [{"entity": f"e{end}"}])
    return Block(0, BlockKind.RESULT, end, (frame(end), alarm) if frames else (alarm,))


def given(*blocks: Block) -> list[tuple[int, str]]:
    """Return (tick end, what is kept of it) in the order in which ticks are given."""
    ticks, found = WholeTicks(), []
    for number, block in enumerate(blocks):
        numbered = Block(number + 1, block.kind, block.tick_end_ns, block.batches)
        for one in ticks.take(numbered):
            names = "".join(batch.schema.name[0] for batch in one.batches)
            found.append((one.tick_end_ns, names))
    return found


def told(end: int) -> Block:
    return Block(0, BlockKind.TOLD, end, (batch_from_rows(ALARM, [{"entity": f"e{end}"}]),))


@pytest.mark.parametrize(("blocks", "wanted"), [
    pytest.param([tick(1), result(1), tick(2), result(2)], [(1, "lfa"), (2, "lfa")], id="side-by-side"),
    pytest.param(
        [tick(1), tick(2), tick(3), result(1), result(2), result(3)],
        [(1, "lfa"), (2, "lfa"), (3, "lfa")], id="behind-a-disk-that-refused",
    ),
    pytest.param(
        [tick(1), tick(2, frames=False), tick(3), result(1), result(2, frames=False), result(3)],
        [(1, "lfa"), (2, "l"), (2, "a"), (3, "lfa")], id="events-between-keep-their-place",
    ),
    pytest.param([tick(1), tick(2), result(2)], [(1, "fl"), (2, "lfa")], id="a-result-is-lost"),
    pytest.param([result(1), tick(2), result(2)], [(1, "fa"), (2, "lfa")], id="its-tick-is-lost"),
    pytest.param([tick(1, frames=False), tick(2, frames=False)], [(1, "l"), (2, "l")], id="events"),
    pytest.param(
        [tick(1), told(1), result(1), tick(2, frames=False), told(2), result(2, frames=False)],
        [(1, "lfa"), (2, "l"), (2, "a")], id="what-was-told-first-is-said-again",
    ),
])  # fmt: skip
def test_ticks_come_whole_and_in_order(blocks: list[Block], wanted: list[tuple[int, str]]) -> None:
    assert given(*blocks) == wanted


def test_ticks_without_results_are_held_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_ticks, "HELD_ROWS_MAX", 30)
    ticks = [tick(end, rows=9) for end in (1, 2, 3, 4, 5)]
    assert given(*ticks) == [(1, "fl"), (2, "fl")]
    late = [result(end) for end in (1, 2, 3)]
    assert given(*ticks, *late) == [(1, "fl"), (2, "fl"), (1, "a"), (2, "a"), (3, "lfa")]


def test_a_tick_larger_than_the_bound_waits_for_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_ticks, "HELD_ROWS_MAX", 30)
    assert given(tick(1, rows=50), result(1)) == [(1, "lfa")]


def test_the_oldest_block_that_is_held_is_known() -> None:
    ticks = WholeTicks()
    assert ticks.first_held == 0
    assert list(ticks.take(Block(7, BlockKind.TICK, 1, (frame(1),)))) == []
    assert ticks.first_held == 7
