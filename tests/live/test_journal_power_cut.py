"""A power cut at any moment loses no tick that the journal said is on disk.

As with the outbox: the writer runs under strace, and the disk is put together as a cut would leave it.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.journal import BlockKind, JournalReader
from runtime.journal_writer import JournalWriter
from tests.support.power_cut import Disk, told_by
from tocsin.testing import make_context

pytestmark = pytest.mark.live
CUTS = 80
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
for number, frame in enumerate(ticks(Carrier(40, seed=1), 150)):
    writer.append(BlockKind.TICK, number + 1, [frame], sync=True)
    crc = zlib.crc32(frame["octets"].tobytes())
    os.write(1, b"ack " + json.dumps([number + 1, crc]).encode() + b"\\n")
    writer.append(BlockKind.RESULT, number + 1, [frame], sync=False)
writer.stop()
"""


def test_a_power_cut_at_any_moment_loses_no_tick_that_was_acknowledged(
    tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("strace")
    folder = tmp_path / "journal"
    story = told_by(CHILD, folder, tmp_path / "log")
    acks = [json.loads(data or b"") for call, _, _, data in story if call == "ack"]
    assert len(acks) == TICKS
    assert len({name for call, name, _, _ in story if call == "create" and "arrows" in name}) > 3
    first = next(i for i, step in enumerate(story) if step[0] == "ack")
    die = np.random.default_rng(9)
    cuts = sorted(die.choice(np.arange(first, len(story)), CUTS, replace=False).tolist())
    disk, at, acked, torn = Disk(), 0, 0, 0
    for cut in cuts:
        for call, name, offset, data in story[at:cut]:
            if call in ("ack",) or "arrows" in name or name == folder.name:
                disk.take(call, name, offset, data, folder.name)
            acked += call == "ack"
        at = cut
        torn += any(disk.pending.values())
        _check(tmp_path / f"cut{cut}", disk.after_cut(die), acks[:acked])
    assert torn > CUTS / 4  # the cuts did fall between writes and their sync


def _check(folder: Path, files: dict[str, bytes], acks: list[list[int]]) -> None:
    """What is left must hold every acknowledged tick, and be fit to go on with."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    writer = JournalWriter(folder, make_context())
    writer.start()
    next_sequence = writer.next_sequence
    found = [
        [block.tick_end_ns, zlib.crc32(block.batches[0]["octets"].tobytes())]
        for block in JournalReader(folder).read()
        if block.kind is BlockKind.TICK
    ]
    assert found[: len(acks)] == acks, "an acknowledged tick is gone or not what it was"
    assert len(found) <= len(acks) + 1, "a tick came from nowhere"
    last = list(JournalReader(folder).read())[-1]
    writer.append(BlockKind.TICK, 10**6, last.batches, sync=True)
    writer.stop()
    blocks = list(JournalReader(folder).read())
    assert blocks[-1].tick_end_ns == 10**6
    assert writer.next_sequence == next_sequence + 1
