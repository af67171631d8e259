"""A node on a state folder in which one file after the other is damaged: it starts, and names what it set aside."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.checkpoint import Checkpoints, read_checkpoint
from runtime.journal import BlockKind, Cursor, JournalReader
from telemetry.errors import DecodeError
from tests.docs.test_install_document import documented
from tests.support.fed_node import Machine
from tocsin.testing import make_context


def ticks(state: Path) -> list[int]:
    """Return the ends of the ticks that can be read."""
    reader, found = JournalReader(state / "journal"), []
    while True:
        try:
            found += [b.tick_end_ns for b in reader.read() if b.kind is BlockKind.TICK]
            return found
        except DecodeError:
            reader.skip()


class Written:
    """Arrays as a stage writes them."""

    def __init__(self, arrays: dict[str, list[tuple[int, Any]]]) -> None:
        self._arrays = arrays

    def snapshot(self, out: Any) -> None:
        for name, blocks in self._arrays.items():
            for first_row, block in blocks:
                out.write(name, first_row, block)


def spoil(folder: Path, name: str) -> None:
    """Write the checkpoints of a folder anew, whole and with an array that no stage takes."""
    for path in sorted(folder.glob("*.checkpoint")):
        sequence, tick_end_ns, state = read_checkpoint(path)
        stages: dict[str, dict[str, list[tuple[int, Any]]]] = {}
        assert name in state.names()
        for one in state.names():
            blocks = [(0, np.zeros((3, 1), "f2"))] if one == name else [*state.read(one)]
            stage, _, rest = one.partition(".")
            stages.setdefault(stage, {})[rest] = blocks
        made = {stage: Written(arrays) for stage, arrays in stages.items()}
        Checkpoints(folder, make_context()).save(sequence, tick_end_ns, made)


def test_a_node_starts_from_its_journal_where_no_checkpoint_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole, and of a Tocsin of another shape: the last part refuses it, those before took theirs already."""
    machine = Machine(tmp_path, monkeypatch)
    machine.run(8)
    series = machine.node.status().series
    machine.node.stop()
    ended_ns = ticks(machine.state)[-1]
    spoil(machine.state / "checkpoints", "orders.keys")
    (flow,) = {path.parent for path in (machine.state / "templates").rglob("*.checkpoint")}
    names = read_checkpoint(max(flow.glob("*.checkpoint")))[2].names()
    spoil(flow, max(names))
    kept = len(list(flow.glob("*.checkpoint")))
    node = machine.start()
    status = node.status()
    assert status.ready
    assert status.series == series, "the journal has given it back"
    assert node.metrics.value("state_set_aside_total", kind="checkpoint") == 1
    assert node.metrics.value("state_set_aside_total", kind="templates") == kept > 0
    machine.run(3)
    assert ticks(machine.state)[-1] > ended_ns
    node.stop()
    aside = sorted(path.name for path in machine.state.rglob("*.damaged-*"))
    assert len(aside) == 1 + kept
    assert all(name in caplog.text for name in aside)
    assert "does not fit this configuration or version" in caplog.text


def test_a_node_starts_whichever_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.run(8)
    machine.node.stop()
    Cursor(machine.state / "cursors", "history").commit(3)
    whole = tmp_path / "whole"
    shutil.copytree(machine.state, whole, ignore=shutil.ignore_patterns("*.sock"))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert {path.parts[0] for path in files} >= {
        "checkpoints", "cursors", "journal", "node.sqlite", "ring", "templates", "node.lock", "config.json",
    }  # fmt: skip
    listed = [name.rstrip("/") for name in documented()]
    assert [path for path in files if not any(fnmatch(path.parts[0], one) for one in listed)] == []
    noise = np.random.default_rng(3).bytes(2_000)
    for file in files:
        shutil.rmtree(machine.state)
        shutil.copytree(whole, machine.state)
        (machine.state / file).write_bytes(noise)
        caplog.clear()
        machine.start()
        machine.run(3)
        status = machine.node.status()
        machine.node.stop()
        assert status.ready
        assert ticks(machine.state)[-1] > machine.true_ns - 3 * 10**9, f"{file}: no tick is closed"
        newest = file == max(path for path in files if path.parts[0] == file.parts[0])
        if newest and file.parts[0] in ("checkpoints", "templates", "journal", "node.sqlite"):
            aside = list(machine.state.rglob("*.damaged-*"))
            assert aside, f"{file} was not set aside"
            assert aside[0].name in caplog.text
