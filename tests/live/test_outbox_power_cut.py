"""A power cut at any moment loses no committed tick of the outbox.

The outbox runs under strace, which tells every write and sync of its files in order. From that the
disk is put together as a power cut would leave it: what was synced is there, of what was not each
write is there, torn at a sector, or missing, as a seeded die falls.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.outbox import Outbox
from tocsin.testing import make_context

pytestmark = pytest.mark.live
SECTOR = 512
CUTS = 60
SETTINGS = AlertingSettings(sinks={"a": SinkSettings(kind="stdout")})
CHILD = """
import json, os, sys
from pathlib import Path
from alerting.config import AlertingSettings, SinkSettings
from alerting.outbox import Outbox, Verdict
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

world = AlarmWorld()
outbox = Outbox(Path(sys.argv[1]), AlertingSettings(sinks={"a": SinkSettings(kind="stdout")}),
                make_context())
outbox.start()
series = [world.series("exporter", exporter=f"192.0.2.{i}") for i in range(1, 40)]
for tick in range(220):
    down = series[tick % 30 : tick % 30 + 9] if tick % 10 < 5 else []
    batches = world.batches([world.silence(s) for s in down])
    outbox.commit(world.now_ns, [b for b in batches if b.schema.name == "alarm"], 0,
                  incidents=[b for b in batches if b.schema.name == "incident"])
    told = {"end": world.now_ns,
            "alarms": sorted([a["id"], a["state"]] for a in outbox.alarms(active_only=False,
                                                                          limit=1000)),
            "changes": len(outbox.changes(limit=100000))}
    os.write(1, b"ack " + json.dumps(told).encode() + b"\\n")
    if tick % 3 == 0:
        outbox.mark([Verdict(number=d.number, sent=True) for d in outbox.due(1, 5)], 1)
outbox.stop()
"""
HEX = r"((?:\\x..)*)"
CALL = re.compile(rf'^\d+\s+(\w+)\((?:(\d+)<{HEX}>)?(?:, )?(?:"{HEX}")?(?:, )?(.*)\)\s+= (-?\d+)')


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Disk:
    """Files by name: what is certainly there, and what is on its way, in order."""

    files: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    unlinked: list[str] = field(default_factory=list)

    def write(self, name: str, offset: int, data: bytes) -> None:
        self.pending.setdefault(name, []).append((offset, data))

    def sync(self, name: str) -> None:
        for one in self.pending.pop(name, []):
            put(self.files.setdefault(name, bytearray()), *one)

    def sync_folder(self) -> None:
        for name in self.unlinked:
            self.files.pop(name, None)
        self.unlinked.clear()

    def after_cut(self, die: np.random.Generator) -> dict[str, bytes]:
        left = {name: bytearray(data) for name, data in self.files.items()}
        for name, writes in self.pending.items():
            for offset, data in writes:
                fate = die.integers(3)
                if fate == 0:
                    continue
                if fate == 1 and data is not None:
                    data = data[: int(die.integers(len(data) // SECTOR + 1)) * SECTOR]
                put(left.setdefault(name, bytearray()), offset, data)
        for name in self.unlinked:
            if die.random() < 0.5:
                left.pop(name, None)
        return {name: bytes(data) for name, data in left.items()}


def put(file: bytearray, offset: int, data: bytes | None) -> None:
    """Write data at an offset; None cuts or fills the file to that size."""
    end = offset + len(data or b"")
    if len(file) < end:
        file.extend(bytes(end - len(file)))
    if data is None:
        del file[offset:]
    else:
        file[offset:end] = data


def steps(log: str) -> list[tuple[str, str, int, bytes | None]]:
    """Return (call, file name, offset, data) of every call on the outbox's files, and acks."""
    made: list[tuple[str, str, int, bytes | None]] = []
    for line in log.splitlines():
        found = CALL.match(line)
        if found is None or found[6].startswith("-"):
            continue
        call, number, path, text, rest, _ = found.groups()
        name = Path(unhex(path or text or "").decode(errors="replace")).name
        if call == "pwrite64":
            made.append(("write", name, int(rest.rsplit(", ", 1)[1]), unhex(text)))
        elif call == "write" and number == "1" and unhex(text).startswith(b"ack "):
            made.append(("ack", "", 0, unhex(text)[4:]))
        elif call == "ftruncate":
            made.append(("write", name, int(rest), None))
        elif call in ("fsync", "fdatasync"):
            made.append(("sync", name, 0, None))
        elif call in ("unlink", "unlinkat"):
            made.append(("unlink", name, 0, None))
    return made


def test_a_power_cut_at_any_moment_loses_no_committed_tick(
    tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("strace")
    folder, log = tmp_path / "state", tmp_path / "log"
    folder.mkdir()
    subprocess.run(
        ["strace", "-f", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e",
         "trace=pwrite64,write,fdatasync,fsync,ftruncate,unlink,unlinkat",
         sys.executable, "-c", CHILD, str(folder / "node.sqlite")],
        check=True, stdout=subprocess.PIPE, timeout=200,
    )  # fmt: skip
    story = steps(log.read_text())
    acks = [json.loads(data or b"") for call, _, _, data in story if call == "ack"]
    assert len(acks) == 220
    assert any(call == "write" and name == "node.sqlite" for call, name, _, _ in story[200:])
    first = next(i for i, step in enumerate(story) if step[0] == "ack")
    die = np.random.default_rng(7)
    cuts = sorted(die.choice(np.arange(first, len(story)), CUTS, replace=False).tolist())
    disk, at, acked, lost_writes = Disk(), 0, 0, 0
    for cut in cuts:
        for call, name, offset, data in story[at:cut]:
            if call == "write":
                disk.write(name, offset, data or b"") if data is not None else (
                    disk.pending.setdefault(name, []).append((offset, None))
                )
            elif call == "sync" and name == folder.name:
                disk.sync_folder()
            elif call == "sync":
                disk.sync(name)
            elif call == "unlink":
                disk.unlinked.append(name)
            else:
                acked += 1
        at = cut
        lost_writes += sum(
            len(writes) for name, writes in disk.pending.items() if "shm" not in name
        )
        check(tmp_path / f"cut{cut}", disk.after_cut(die), acks, acked)
    assert lost_writes > CUTS / 4  # the cuts did fall between writes and their sync


def check(folder: Path, files: dict[str, bytes], acks: list[dict[str, Any]], acked: int) -> None:
    """Open what is left and compare it with what was said when its last tick was committed."""
    folder.mkdir()
    for name, data in files.items():
        if not name.endswith("-shm"):  # an index in shared memory: it never survives a reboot
            (folder / name).write_bytes(data)
    outbox = Outbox(folder / "node.sqlite", SETTINGS, make_context())
    outbox.start()
    assert outbox.damaged == ""
    ends = [ack["end"] for ack in acks]
    last = ends.index(outbox.last_done())
    assert acked - 1 <= last <= acked, "a committed tick is gone, or one came from nowhere"
    found = outbox.alarms(active_only=False, limit=1000)
    assert sorted([alarm["id"], alarm["state"]] for alarm in found) == acks[last]["alarms"]
    assert len(outbox.changes(limit=100_000)) == acks[last]["changes"]
    assert all(outbox.is_done(end) for end in ends[: last + 1])
    outbox.stop()
