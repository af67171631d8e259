"""How often the supervisor started each process again: kept in the state folder, for the node's metrics page.

The supervisor has no page and no socket, and the node that would tell of its own death is the one that died.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

FILE = "restarts.json"


def keep(folder: Path, restarts: Mapping[str, int]) -> None:
    """Keep the counts; where the disk refuses, the last ones stay."""
    new = folder / f"{FILE}.new"
    with contextlib.suppress(OSError):
        new.write_text(json.dumps(restarts), "utf-8")
        new.replace(folder / FILE)


def kept(folder: Path) -> dict[str, int]:
    """Return the counts; empty where none are kept, or no supervisor runs this node."""
    try:
        found = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: n for name, n in found.items() if isinstance(n, int) and n >= 0}
