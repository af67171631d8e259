"""A power cut at any moment loses no tick that the journal said is on disk.

As with the outbox: the writer runs under strace, and the disk is put together as a cut would leave it;
also where one sync in so many fails and loses what it was for.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.journal import Block, BlockKind, JournalReader
from runtime.journal_writer import JournalWriter
from telemetry.errors import DecodeError
from tests.support.power_cut import Disk, told_by
from tocsin.testing import make_context

pytestmark = pytest.mark.live
CUTS, CUTS_DEEP = 25, 80
TICKS = 150  # as in CHILD
CHILD = """
import json, os, sys, zlib
from pathlib import Path
import numpy as np
from runtime.journal import BlockKind
from runtime.journal_writer import JournalWriter
from tocsin.testing import make_context
from tocsin.testing.checks_detector import ticks
from tocsin.testing.frames import Carrier

writer = JournalWriter(Path(sys.argv[1]), make_context(), segment_bytes=40_000)
writer.start()
waiting = []
for number, frame in enumerate(ticks(Carrier(40, seed=1), 150)):
    sequence = writer.append(BlockKind.TICK, number + 1, [frame], sync=True, behind=number % 2 == 0)
    waiting.append((sequence, number + 1, zlib.crc32(frame["octets"].tobytes())))
    writer.settle()
    if number == 149:
        writer.retry()
    while waiting and waiting[0][0] <= writer.on_disk:
        _, tick, crc = waiting.pop(0)
        os.write(1, b"ack " + json.dumps([tick, crc]).encode() + b"\\n")
        writer.append(BlockKind.RESULT, tick, [frame], sync=False)
writer.stop()
"""


@pytest.mark.parametrize("refuse", ["", "9+5"], ids=["syncs", "syncs-that-fail"])
def test_a_power_cut_at_any_moment_loses_no_tick_that_was_acknowledged(
    tmp_path: Path, needs: Callable[..., None], deep: bool, refuse: str
) -> None:
    needs("strace")
    folder = tmp_path / "journal"
    story = told_by(CHILD, folder, tmp_path / "log", refuse=refuse)
    assert (sum(step[0] == "refused" for step in story) > 20) == bool(refuse)
    acks = [json.loads(data or b"") for call, _, _, data in story if call == "ack"]
    assert len(acks) == TICKS
    assert len({name for call, name, _, _ in story if call == "create" and "arrows" in name}) > 3
    first = next(i for i, step in enumerate(story) if step[0] == "ack")
    die, many = np.random.default_rng(9), CUTS_DEEP if deep else CUTS
    cuts = sorted(die.choice(np.arange(first, len(story)), many, replace=False).tolist())
    disk, at, acked, torn = Disk(), 0, 0, 0
    for cut in cuts:
        for call, name, offset, data in story[at:cut]:
            if call in ("ack",) or "arrows" in name or name == folder.name:
                disk.take(call, name, offset, data, folder.name)
            acked += call == "ack"
        at = cut
        torn += any(disk.pending.values())
        _check(tmp_path / f"cut{cut}", disk.after_cut(die), acks[:acked], 3 if refuse else 1)
    assert torn > many / 4  # the cuts did fall between writes and their sync


def _blocks(folder: Path) -> list[Block]:
    """Read as the node does when it starts; a result that was never synced may be damaged."""
    reader, found = JournalReader(folder), []
    while True:
        try:
            found += reader.read()
            return found
        except DecodeError:
            before = reader.gap_blocks
            reader.skip()
            assert reader.gap_blocks > before


def _check(folder: Path, files: dict[str, bytes], acks: list[list[int]], waiting: int) -> None:
    """What is left must hold every acknowledged tick, and be fit to go on with."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    writer = JournalWriter(folder, make_context())
    writer.start()
    next_sequence = writer.next_sequence
    found = [
        [block.tick_end_ns, zlib.crc32(block.batches[0]["octets"].tobytes())]
        for block in _blocks(folder)
        if block.kind is BlockKind.TICK
    ]
    assert found[: len(acks)] == acks, "an acknowledged tick is gone or not what it was"
    assert len(found) <= len(acks) + waiting, "a tick came from nowhere"
    last = _blocks(folder)[-1]
    writer.append(BlockKind.TICK, 10**6, last.batches, sync=True)
    writer.stop()
    blocks = _blocks(folder)
    assert blocks[-1].tick_end_ns == 10**6
    assert writer.next_sequence == next_sequence + 1
