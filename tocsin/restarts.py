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


def kept(folder: Path) -> Fared:
    """Return what our supervisor kept; empty where there is none: another one's says nothing of now."""
    try:
        found = json.loads((folder / FILE).read_text("utf-8"))
        if str(found["supervisor"]) != os.environ.get(PARENT):
            return Fared()
        restarts = {str(name): int(times) for name, times in found["restarts"].items()}
        return Fared(restarts, {str(name): str(how) for name, how in found["trouble"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Fared()
