"""A node on a state folder in which one file after the other is damaged: it starts, and names what it set aside."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from runtime.journal import BlockKind, Cursor, JournalReader
from telemetry.errors import DecodeError
from tests.docs.test_install_document import documented
from tests.support.fed_node import Machine


def ticks(state: Path) -> list[int]:
    """Return the ends of the ticks that can be read."""
    reader, found = JournalReader(state / "journal"), []
    while True:
        try:
            found += [b.tick_end_ns for b in reader.read() if b.kind is BlockKind.TICK]
            return found
        except DecodeError:
            reader.skip()


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
