"""The outbox's file: opened, brought to this version, checked; what is damaged is set aside and salvaged."""

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alerting.outbox.bodies import fits
from alerting.outbox.tables import (
    APPLICATION_ID,
    MIGRATIONS,
    NAMING,
    VERSION,
    check_bodies,
    drop_bodies_of_nobody,
    salvaged,
)
from runtime.component import Context
from runtime.damaged import SQLITE_ERRORS, SQLITE_PARTS, bound_and_check, is_damage, set_aside
from runtime.mistakes import NOT_STARTED
from telemetry.errors import ConfigError

VALUE_BYTES_MAX = 16 * 1024 * 1024  # 64 times what a body may have
VERSION_MAX = 1_000  # no Tocsin will ever write a higher one: it is damage
# SQLite moves its log into the file within the commit that fills so many pages of it; the outbox does so
# earlier, when no alert waits for it.
LOG_PAGES_MAX = 8_000


def open_file(path: Path, context: Context) -> tuple[sqlite3.Connection, str]:
    """Return a connection to the file, and the name under which a damaged one was set aside, or "".

    A damaged file is set aside whole, and a new one is begun with what can be read of it; where a disk
    or another process refuses, or a newer Tocsin wrote it, ConfigError says what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _open(path), ""
    except (*SQLITE_ERRORS, OSError) as error:
        said = str(error)
        if isinstance(error, OSError) or not is_damage(error, path):
            raise ConfigError(f"{path}: {remedy(said)}. {NOT_STARTED}") from error
    aside = set_aside(path, said, context, kind="outbox", beside=SQLITE_PARTS)
    try:
        return _salvage(path, aside, context), aside.name
    except SQLITE_ERRORS as error:
        if not is_damage(error, path):
            raise ConfigError(f"{path}: {remedy(str(error))}. {NOT_STARTED}") from error
    for suffix in ("", *SQLITE_PARTS):  # what could be read is damaged as well: begin with nothing
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    context.log.error("outbox_not_salvaged file=%s", aside)
    return _open(path), aside.name


def _open(path: Path) -> sqlite3.Connection:
    db = connect(path)
    try:
        version = int(db.execute("pragma user_version").fetchone()[0])
        if not 0 <= version <= VERSION_MAX:
            raise sqlite3.DatabaseError(f"version {version} is none")
        if version > VERSION:
            raise ConfigError(
                f"{path} has version {version}, this Tocsin knows {VERSION}; upgrade "
                f"Tocsin or move the file away. {NOT_STARTED}"
            )
        bound_and_check(db, value_bytes_max=VALUE_BYTES_MAX)
        migrate(db, version, VERSION)
        check_bodies(db)
        db.execute(f"pragma user_version = {VERSION}")  # a file that cannot be written says so here
        # What an earlier process could not sync is only sure to be there once it is written again.
        with contextlib.suppress(sqlite3.OperationalError):
            drop_bodies_of_nobody(db)
            db.execute("pragma wal_checkpoint(truncate)")
    except BaseException:
        db.close()
        raise
    return db


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection as the outbox needs it: what is committed is on the disk."""
    db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
    try:
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.execute(f"pragma wal_autocheckpoint = {LOG_PAGES_MAX}")
    except BaseException:
        db.close()
        raise
    db.create_function("crc32", 1, lambda text: zlib.crc32(text.encode()), deterministic=True)
    return db


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an outbox's file for reading, beside its node or without one.

    Raises ConfigError where there is none, or what is there cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; --state names the folder of the instance")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            yield db
    except SQLITE_ERRORS as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); the next start of its node sets a damaged one aside"
        ) from error


def migrate(db: sqlite3.Connection, version: int, to: int) -> None:
    """Bring the tables from one version to a later one."""
    for number in range(version, to):
        db.executescript(
            f"begin; {MIGRATIONS[number]}; pragma application_id = {APPLICATION_ID};"
            f" pragma user_version = {number + 1}; commit;"
        )


def _salvage(path: Path, aside: Path, context: Context) -> sqlite3.Connection:
    """Return a new file with every row of a damaged one that can still be read and fits its checksum."""
    kept = lost = 0
    with contextlib.closing(sqlite3.connect(f"file:{aside}?mode=ro", uri=True)) as old:
        old.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        old.text_factory = lambda data: data.decode("utf-8", "replace")
        version = VERSION
        with contextlib.suppress(*SQLITE_ERRORS):
            said = old.execute("pragma user_version").fetchone()[0]
            version = said if 0 < said < VERSION else VERSION
        with contextlib.closing(connect(path)) as db:
            migrate(db, 0, version)
            for table, (columns, summed) in salvaged(version).items():
                marks = ",".join("?" * (columns.count(",") + 1))
                put = f"insert or ignore into {table} ({columns}) values ({marks})"
                order = " order by number" if table == "delivery" else ""
                with transaction(db), contextlib.suppress(*SQLITE_ERRORS):
                    for row in old.execute(f"select {columns} from {table}{order}"):
                        if summed and not fits(row[-2], row[-1]):
                            lost += 1
                            continue
                        db.execute(put, row)
                        kept += 1
            migrate(db, version, VERSION)
            with transaction(db):  # what names a body that is lost has nothing to say
                for table in NAMING:
                    gone = db.execute(
                        f"delete from {table} where body is null or body not in (select number from body)"
                    )
                    lost += gone.rowcount
                    kept -= gone.rowcount
    context.log.error("outbox_salvaged rows=%d rows_damaged=%d", kept, lost)
    return _open(path)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing."""
    db.execute("begin immediate")
    try:
        yield db
        db.execute("commit")
    except BaseException:
        if db.in_transaction:  # SQLite may have rolled back by itself
            db.execute("rollback")
        raise


def rows_of(db: sqlite3.Connection, sql: str, *values: Any) -> list[dict[str, Any]]:
    """Return what a question finds, a row a dictionary."""
    cursor = db.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def remedy(text: str) -> str:
    """Return what SQLite or the system said with what to do about it."""
    if "locked" in text:
        return "in use: another Tocsin runs on this state folder; stop it, or set another state_dir"
    if "full" in text:
        return f"{text}; make room on that disk"
    return f"{text}; make the state folder and this file writable, or set another state_dir"
