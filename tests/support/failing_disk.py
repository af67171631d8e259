"""A disk whose syncs fail and lose what they were for, told only once, as Linux does."""

import errno
import os
from pathlib import Path

import pytest


class FailingDisk:
    """Syncs of files; the next `refusals` of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusals = 0
        self.on_disk: dict[Path, bytes] = {}  # by file, as it was at its last sync that did succeed
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._real(fd)
        self.on_disk[path] = path.read_bytes()
