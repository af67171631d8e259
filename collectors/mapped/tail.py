"""New lines of a file that somebody else writes: over rotation by renaming, and over truncation."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from telemetry.errors import TransientError

BYTES_PER_READ_MAX = 4 * 1024 * 1024


class TailedFile:
    """Reads whole lines from a position on. A rotated file is read to its end before the new one.

    The position moves only by `commit`: what was read and not taken is read again.
    """

    def __init__(self, path: Path, *, from_start: bool, line_bytes_max: int) -> None:
        self._path = path
        self._from_start = from_start
        self._line_bytes_max = line_bytes_max
        self._file: BinaryIO | None = None
        self._next = 0  # where the next read begins once this one is committed
        self.position = 0
        self.skipped_lines = 0

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Continue where `memory` says: in the file itself, or in the one that it was renamed to."""
        inode, self.position = memory.get("inode", 0), memory.get("position", 0)
        for path in [self._path, *sorted(self._path.parent.glob(self._path.name + "*"))]:
            try:
                if inode and path.stat().st_ino == inode and path.stat().st_size >= self.position:
                    self._file = path.open("rb")
                    return
            except OSError:
                continue
        self.position = 0
        self._from_start = self._from_start or bool(inode)

    def after(self) -> dict[str, Any]:
        """Return what `restore` wants once the lines that were read last are taken."""
        inode = os.fstat(self._file.fileno()).st_ino if self._file else 0
        return {"inode": inode, "position": self._next}

    def lines(self) -> Iterator[list[bytes]]:
        """Yield blocks of whole lines; each is committed before the next is asked for."""
        while True:
            if self._file is None:
                self._open()
            if block := self._read():
                yield block
            elif not self._replaced():
                return
            elif block := self._read():  # written since we looked, before its name was taken
                yield block
            else:
                self.close()

    def commit(self) -> None:
        """The lines that were read last are taken."""
        self.position = self._next

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise TransientError(f"{self._path}: {error.strerror}") from error
        self.position = 0 if self._from_start else os.fstat(self._file.fileno()).st_size
        self._from_start = True  # files that come later are read from their beginning

    def _read(self) -> list[bytes]:
        assert self._file
        if os.fstat(self._file.fileno()).st_size < self.position:
            self.position = 0  # truncated in place: what it holds now is new
        while True:
            self._file.seek(self.position)
            data = self._file.read(BYTES_PER_READ_MAX)
            end = data.rfind(b"\n") + 1
            if end or len(data) <= self._line_bytes_max:
                self._next = self.position + end
                return data[:end].splitlines()
            self.position += len(data)  # a line without end: skipped as it grows
            self.skipped_lines += 1

    def _replaced(self) -> bool:
        """Return whether another file has the name of ours."""
        assert self._file
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except OSError:
            return False  # renamed, and the new one is not there yet
