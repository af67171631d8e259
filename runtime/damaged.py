"""A damaged state file is found, kept under another name for a bug report, and said; never guessed at."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from runtime.component import Context
from runtime.metrics import Counter

# What SQLite says where a disk, its rights, or another process refuses; all else is the file.
REFUSALS = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
}  # fmt: skip
# SQLite's own words may hold bytes of a damaged file, which are no UTF-8; a length in it may be beyond all memory.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError, MemoryError)
KINDS = ("checkpoint", "templates", "cursor", "outbox", "flows", "source")  # of state files
SQLITE_PARTS = ("-wal", "-shm")  # what belongs to a database beside its file


def is_damage(error: Exception, path: Path) -> bool:
    """Return whether an error at the opening of a database speaks of the file, not of the world around it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    # A file that may be written, and is not: its own header says that it must not be.
    header = code == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK)
    return header or code not in REFUSALS


def bound_and_check(db: sqlite3.Connection, *, value_bytes_max: int) -> None:
    """Raise sqlite3.DatabaseError where a database is damaged; no value of it takes more memory than said."""
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, value_bytes_max)
    try:
        (said,) = db.execute("pragma quick_check").fetchone()
    except MemoryError:  # room for a length that is damaged
        said = "out of memory"
    if said != "ok":
        raise sqlite3.DatabaseError(f"quick_check found damage: {said}")


def set_asides(context: Context) -> Counter:
    """Return the counter of what was set aside; made at a start, it is on the page before anything is."""
    return context.metrics.counter(
        "state_set_aside_total",
        "state files set aside because they were damaged or did not fit",
        label="kind",
        values=KINDS,
    )


def set_aside(
    path: Path, error: object, context: Context, *, kind: str, beside: Iterable[str] = ()
) -> Path:
    """Rename a file to `*.damaged-<time>`, log what is wrong with it, count it by its kind. Raises OSError.

    Those whose names go on with a suffix in `beside` belong to it and go along.
    """
    aside = path.with_name(f"{path.name}.damaged-{context.clock.now_ns() // 1_000_000_000}")
    for suffix in ("", *beside):
        with contextlib.suppress(FileNotFoundError):  # another process that read it was faster
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    context.log.error("state_set_aside file=%s error=%s", aside, error)
    set_asides(context).add(kind)
    return aside
