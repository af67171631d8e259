"""How the processes of one Tocsin fare: kept in the state folder by the supervisor, told by the node.

The supervisor has no page and no socket, and the node that would tell of its own death is the one that died.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from runtime.parent import PARENT

FILE = "restarts.json"


# What is missing while a process is down.
MISSING = {
    "node": "meanwhile nothing is received",
    "gate": "no alert goes out and no source is asked",
    "desk": "there is no API, console, SQL or history",
}


class Fared(NamedTuple):
    """By process: how often it was started again, and how those ended that are down or do not stay up."""

    restarts: Mapping[str, int] = {}
    trouble: Mapping[str, str] = {}

    def faults(self) -> dict[str, str]:
        """Return a sentence for each process that is down or does not stay up."""
        return {
            name: f"the {name} is down or does not stay up ({how}): {MISSING.get(name, 'its part is missing')}; "
            f"the log says why, and it is started again by itself"
            for name, how in self.trouble.items()
        }


def keep(folder: Path, fared: Fared) -> None:
    """Keep it; where the disk refuses, what was kept before stays."""
    new = folder / f"{FILE}.new"
    with contextlib.suppress(OSError):
        new.write_text(json.dumps({"supervisor": os.getpid(), **fared._asdict()}), "utf-8")
        new.replace(folder / FILE)


class Kept:
    """What our supervisor keeps in a folder, read again only when it was kept anew."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._read: tuple[int, int] | None = None  # the file that `_fared` is of
        self._fared = Fared()

    def __call__(self) -> Fared:
        """Return it; empty where there is none: another supervisor's says nothing of now."""
        try:
            there = self._file.stat()
            if (there.st_ino, there.st_mtime_ns) != self._read:
                self._fared = _of(self._file.read_bytes())
                self._read = there.st_ino, there.st_mtime_ns
        except OSError:
            return Fared()
        return self._fared


def _of(data: bytes) -> Fared:
    try:
        found = json.loads(data)
        if str(found["supervisor"]) != os.environ.get(PARENT):
            return Fared()
        restarts = {str(name): int(times) for name, times in found["restarts"].items()}
        return Fared(restarts, {str(name): str(how) for name, how in found["trouble"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Fared()
