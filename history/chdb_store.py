"""The embedded store: chDB, ClickHouse's engine in our process. The only file that imports it.

One process per path, and one path per process; a connection per role, because one connection is one
lock. Caps stand in the connection string (design section 7).
"""

import ctypes
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from history.native import block, type_of
from history.store import DATABASE, parameter, said_by
from telemetry.errors import ConfigError, TransientError

# The engine's allocator: few arenas, and what was freed goes back to the system within a second.
_ALLOCATOR = "narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0"
# Caps of the engine, each measured in perf/history.py. Idle threads keep a stack and a cache each: a
# merge starts a hundred of them.
_CAPS = (
    ("mark_cache_size", 32 << 20),
    ("index_mark_cache_size", 8 << 20),
    ("primary_index_cache_size", 32 << 20),
    ("query_condition_cache_size", 8 << 20),
    ("uncompressed_cache_size", 0),
    ("max_thread_pool_free_size", 8),
)


class ChdbStore:
    """Opens connections on one folder."""

    database = DATABASE

    def __init__(self, path: Path, *, memory_bytes_max: int) -> None:
        self._path = path
        caps = (*_CAPS, ("max_server_memory_usage", memory_bytes_max))
        self._target = f"{path}?" + "&".join(f"{name}={value}" for name, value in caps)

    def connect(
        self, *, read_only: bool = False, seconds_max: int = 0, rows_max: int = 0
    ) -> "ChdbConnection":
        """Return a connection; a read-only one has limits and can reach no file."""
        engine = _engine()
        self._path.mkdir(parents=True, exist_ok=True)
        try:
            raw = engine.connect(self._target)
        except RuntimeError as error:
            raise ConfigError(
                f"history in {self._path} cannot be opened: {said_by(error)}; another process may use "
                "it: ask the running Tocsin through its API"
            ) from error
        made = ChdbConnection(raw)
        try:
            if not read_only:
                made.run(f"create database if not exists {DATABASE}")
            made.run(f"use {DATABASE}")
            if read_only:
                made.run("set max_threads = 1")
                made.run(f"set max_execution_time = {seconds_max}")
                made.run(f"set max_result_rows = {rows_max}")
                made.run("set result_overflow_mode = 'break'")
                made.run("set readonly = 1")
        except Exception:
            made.close()
            raise
        return made

    def look(self) -> str:
        """Say where it is."""
        return f"chDB in {self._path}"


@cache
def _engine() -> ModuleType:
    """Load the engine itself, without the package around it.

    `import chdb` brings pyarrow, 24 MB that only Arrow results need, and opens a first connection, which
    fixes the engine's thread pools before our caps are known.
    """
    package = find_spec("chdb")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "chdb-core-lite is not installed: pip install 'tocsin[site]', or use profile sensor"
        )
    path = str(Path(package.submodule_search_locations[0]) / "_chdb.abi3.so")
    os.environ.setdefault("JE_MALLOC_CONF", _ALLOCATOR)
    # As the package does: its own allocator before one that another library brought.
    ctypes.CDLL(path, mode=sys.getdlopenflags() | os.RTLD_DEEPBIND)
    loader = ExtensionFileLoader("chdb._chdb", path)
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    made = module_from_spec(spec)
    loader.exec_module(made)
    return made


class ChdbConnection:
    """One chDB connection. Used from one thread at a time."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def run(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Run a statement."""
        self._query(sql, "CSV", values)

    def rows(self, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        data = self._query(sql, "JSONEachRow", values)
        return [json.loads(line) for line in data.splitlines() if line]

    def text(self, sql: str, form: str, values: Mapping[str, Any] | None = None) -> bytes:
        """Return a query's result in one of the engine's formats."""
        return self._query(sql, form, values)

    def insert(
        self,
        table: str,
        columns: Mapping[str, Any],
        *,
        token: str,
        words: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Insert columns as one block under a token.

        Columns are numpy arrays or lists of texts; an array named in `words` holds places in that
        list of texts, which the engine looks up: no text is written per row.
        """
        if not len(next(iter(columns.values()))):
            return
        words = words or {}
        types = {name: type_of(column, coded=name in words) for name, column in columns.items()}
        # Memory without a name: rows pass through once, and a process that is killed leaves nothing behind.
        with open(os.memfd_create("tocsin-block"), "wb") as file:  # noqa: PTH123  # a descriptor, no path
            for part in block(columns, types, words):
                file.write(part)
            file.flush()
            names = ", ".join(columns)
            self._query(
                f"insert into {table} ({names}) settings insert_deduplication_token = '{token}'"
                f" select {names} from file('/proc/self/fd/{file.fileno()}', 'Native')",
                "CSV",
                None,
            )

    def insert_rows_of(
        self, table: str, query: str, values: Mapping[str, Any], *, token: str
    ) -> None:
        """Insert what a query returns under a token."""
        self._query(
            f"insert into {table} settings insert_deduplication_token = '{token}' {query}",
            "CSV",
            values,
        )

    def define(self, statement: str) -> None:
        """Run a statement of the DDL."""
        self.run(statement)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def _query(self, sql: str, form: str, values: Mapping[str, Any] | None) -> bytes:
        bound = {name: parameter(value) for name, value in (values or {}).items()}
        try:
            result = self._raw.query(sql, form, params=bound)
        except RuntimeError as error:
            raise TransientError(said_by(error)) from error
        data: bytes = result.bytes() if result is not None else b""
        return data
