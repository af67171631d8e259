"""A tick in the journal that cannot be taken back: the node starts all the same, and says so."""

from pathlib import Path

import pytest

from runtime.journal import Block, BlockKind, JournalReader, Sheet, pack, write_segment
from tests.support.fed_node import Machine
from tocsin.chain.back import Back
from tocsin.chain.ticks import Outcome, Tick
from tocsin.control import control_row
from tocsin.testing.alarms import AlarmWorld


def test_a_tick_that_ends_the_node_does_not_end_each_one_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.run(6)
    machine.node.stop()
    last = list(JournalReader(machine.state / "journal").read())[-1]
    poison = control_row("offer", 0, {"neither": "source nor token"})
    end_ns = last.tick_end_ns + 1
    world = AlarmWorld()
    told = world.batches([world.silence(world.series("exporter", exporter="203.0.113.9"))])
    blocks = [
        Block(last.sequence + 1, BlockKind.TICK, end_ns, (poison,)),
        Block(last.sequence + 2, BlockKind.TOLD, end_ns, tuple(told)),
    ]
    write_segment(machine.state / "journal", blocks)
    node = machine.start()
    assert node._outbox.is_done(end_ns)
    assert [one["entity"] for one in node._outbox.changes()] == ["203.0.113.9"], "it was told"
    machine.run(6)
    try:
        status = node.status()
        assert status.ticks >= 4
        assert any("1 journalled ticks could not be taken back" in text for text in status.health)
    finally:
        node.stop()


@pytest.mark.parametrize("orderly", [True, False])
def test_an_error_leaves_no_checkpoint_past_what_was_journalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, orderly: bool
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.run(12)

    def no_memory(block: Block, sheet: Sheet) -> memoryview:
        raise MemoryError(block.sequence)

    with monkeypatch.context() as short:
        short.setattr("runtime.journal_writer.framed", no_memory)
        with pytest.raises(MemoryError):
            machine.run(12)
    machine.node.stop(orderly=orderly)
    last = list(JournalReader(machine.state / "journal").read())[-1].sequence
    kept = [int(path.stem) for path in (machine.state / "checkpoints").glob("*.checkpoint")]
    assert all(sequence <= last for sequence in kept)
    node = machine.start()
    machine.run(6)
    assert not any("could not be taken back" in text for text in node.status().health)
    node.stop()
    assert list(JournalReader(machine.state / "journal").read())[-1].sequence > last


def test_a_long_journal_without_results_fills_no_memory_and_gets_each_result_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.run(20)
    machine.node.stop()
    journal = machine.state / "journal"
    blocks = list(JournalReader(journal).read())
    wanted = {b.tick_end_ns: pack(b.batches) for b in blocks if b.kind is BlockKind.RESULT}
    assert len(wanted) >= 10
    for path in (*journal.iterdir(), *(machine.state / "checkpoints").iterdir()):
        path.unlink()
    (machine.state / "node.sqlite").unlink()
    ticks = [block for block in blocks if block.kind is BlockKind.TICK]
    write_segment(journal, ticks)  # as a power cut leaves it: what can be computed was not synced
    waiting = []
    absorb = Back.absorb

    def counted(back: Back, tick: Tick) -> Outcome:
        waiting.append(len(machine.node._commits._results))
        return absorb(back, tick)

    monkeypatch.setattr(Back, "absorb", counted)
    node = machine.start()
    again = list(JournalReader(journal).read())
    node.stop()
    assert len(waiting) == len(ticks)
    assert max(waiting) <= 1
    results = [block for block in again if block.kind is BlockKind.RESULT]
    assert {block.tick_end_ns: pack(block.batches) for block in results} == wanted
    assert len(results) == len(wanted)
