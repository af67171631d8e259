"""How much memory processes take, as the kernel counts it."""

import ctypes
import re
import resource
from pathlib import Path

_MADV_DONTNEED = 4


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


def give_back_freed() -> None:
    """Return what was freed to the system, also from between what is in use. Milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def give_back(library: str) -> None:
    """Return what this process has read of a library's file; what is needed again is mapped again.

    For a compiler whose work is done: its code stays in the page cache, where it is nobody's memory. Only
    mappings that nothing can have written to are touched; where the kernel says no, all stays as it is.
    """
    c = ctypes.CDLL(None)
    c.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    mapping = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r-[-x]p) .*" + re.escape(library))
    start = end = 0
    try:
        lines = Path("/proc/self/smaps").read_text("ascii", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        if "-" in line.split(" ", 1)[0]:
            found = mapping.match(line)
            start, end = (int(found[1], 16), int(found[2], 16)) if found else (0, 0)
        elif start and line.startswith("Anonymous:") and line.split()[1] == "0":
            c.madvise(start, end - start, _MADV_DONTNEED)
