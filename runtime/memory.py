"""How much memory processes take, as the kernel counts it."""

import resource
from pathlib import Path


def rss_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process, 0 where it is gone; shared pages count in full."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def pss_bytes(pid: int | str = "self") -> int:
    """Return the share of memory of a process: a page that N processes have counts a Nth in each.

    So what several processes take together is the sum of this. 0 where it is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process, none where it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text("ascii").split())
    except OSError:
        pass
    return found
