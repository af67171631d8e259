"""What a power cut leaves of files, put together from what strace says of a program's calls.

What was synced is there; of what was not, each write is there, torn at a sector, or missing, as a
seeded die falls. A new file whose folder was not synced may be missing altogether. Where a sync failed
(strace can have one in so many fail), what it was for is lost, whatever a later sync says: Linux tells
of pages that it could not write once, and forgets that they were to be written.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SECTOR = 512
CALLS = "trace=pwrite64,write,fdatasync,fsync,ftruncate,unlink,unlinkat,openat"
HEX = r"((?:\\x..)*)"
CALL = re.compile(rf'^\d+\s+(\w+)\((?:(\d+)<{HEX}>)?(?:, )?(?:"{HEX}")?(?:, )?(.*)\)\s+= (-?\d+)')

CREATE = re.compile(rf'^\d+\s+openat\([^"]*"{HEX}", [A-Z_|]*O_CREAT[^=]*= \d')


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Disk:
    """Files by name: what is certainly there, and what is on its way, in order."""

    files: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    unlinked: list[str] = field(default_factory=list)
    created: set[str] = field(default_factory=set)  # their folder was not synced since

    def sync(self, name: str) -> None:
        for one in self.pending.pop(name, []):
            put(self.files.setdefault(name, bytearray()), *one)

    def sync_folder(self) -> None:
        for name in self.unlinked:
            self.files.pop(name, None)
        self.unlinked.clear()
        self.created.clear()

    def take(self, call: str, name: str, offset: int, data: bytes | None, folder: str) -> None:
        """Do one step of a story; an acknowledgement does nothing."""
        if call == "write":
            self.pending.setdefault(name, []).append((offset, data))
        elif call == "refused":
            self.pending.pop(name, None)
        elif call == "sync" and name == folder:
            self.sync_folder()
        elif call == "sync":
            self.sync(name)
        elif call == "unlink":
            self.unlinked.append(name)
        elif call == "create":
            self.created.add(name)

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
        for name in sorted(self.created):
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
    """Return (call, file name, offset, data) of every call on files, and acks."""
    made: list[tuple[str, str, int, bytes | None]] = []
    for line in log.splitlines():
        if new := CREATE.match(line):
            made.append(("create", Path(unhex(new[1]).decode(errors="replace")).name, 0, None))
            continue
        found = CALL.match(line)
        if found is None:
            continue
        call, number, path, text, rest, result = found.groups()
        name = Path(unhex(path or text or "").decode(errors="replace")).name
        if result.startswith("-"):
            if call in ("fsync", "fdatasync"):
                made.append(("refused", name, 0, None))
            continue
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


def told_by(
    program: str, folder: Path, log: Path, *, refuse: str = ""
) -> list[tuple[str, str, int, bytes | None]]:
    """Run a program (its argument: the folder) under strace and return its story.

    `refuse`: which syncs fail, as strace counts: "5+7" is the fifth and each seventh behind it.
    """
    faults = ["-e", f"inject=fdatasync,fsync:error=EIO:when={refuse}"] if refuse else []
    command: Sequence[str] = [
        "strace", "-f", "-y", "-xx", "-s", "10000000", "-o", str(log), "-e", CALLS, *faults,
        sys.executable, "-c", program, str(folder),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=200)
    return steps(log.read_text())
