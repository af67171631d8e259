"""The embedded store: chDB, ClickHouse's engine in our process. The only file that imports it.

One process per path, and one path per process; a connection per role, because one connection is one
lock. Caps stand in the connection string (design section 7).
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from telemetry.errors import ConfigError, TransientError

_TYPES = {"i8": "Int64", "u8": "UInt64", "u4": "UInt32", "u2": "UInt16", "u1": "UInt8", "f4": "Float32",
          "f8": "Float64", "i4": "Int32", "V16": "IPv6"}  # fmt: skip


class ChdbStore:
    """Opens connections on one folder."""

    def __init__(self, path: Path, *, memory_bytes_max: int) -> None:
        self._path = path
        self._target = (
            f"{path}?mark_cache_size=33554432&index_mark_cache_size=8388608"
            f"&uncompressed_cache_size=0&max_server_memory_usage={memory_bytes_max}"
        )

    def connect(
        self, *, read_only: bool = False, seconds_max: int = 0, rows_max: int = 0
    ) -> "ChdbConnection":
        """Return a connection; a read-only one has limits and can reach no file."""
        try:
            from chdb import connect
        except ImportError as error:
            raise ConfigError(
                "chdb-core-lite is not installed: pip install 'tocsin[site]', or use profile sensor"
            ) from error
        self._path.mkdir(parents=True, exist_ok=True)
        try:
            raw = connect(self._target)
        except RuntimeError as error:
            raise ConfigError(
                f"history in {self._path} cannot be opened: {_short(error)}; another process may use "
                f"it: ask the running Tocsin through its API"
            ) from error
        made = ChdbConnection(raw, self._path)
        if read_only:
            made.run("set max_threads = 1")
            made.run(f"set max_execution_time = {seconds_max}")
            made.run(f"set max_result_rows = {rows_max}")
            made.run("set result_overflow_mode = 'break'")
            made.run("set readonly = 1")
        return made


class ChdbConnection:
    """One chDB connection. Used from one thread at a time."""

    def __init__(self, raw: Any, path: Path) -> None:
        self._raw = raw
        self._path = path
        shared = Path("/dev/shm")  # noqa: S108  # memory, not a disk: rows pass through once
        self._scratch = shared if os.access(shared, os.W_OK) else path

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
        count = len(next(iter(columns.values())))
        if not count:
            return
        fields, kinds = [], []
        chosen = dict.fromkeys(columns, "")
        for name, column in columns.items():
            chosen[name] = name
            if isinstance(column, np.ndarray):
                fields.append((name, column.dtype.newbyteorder("<")))
                kinds.append(f"{name} {_TYPES[column.dtype.str[1:]]}")
            else:
                kinds.append(f"{name} String")
        for name, known in (words or {}).items():
            texts = ", ".join("'" + word.replace("'", "") + "'" for word in known)
            chosen[name] = f"[{texts}][{name} + 1]"
        with tempfile.NamedTemporaryFile(
            dir=self._scratch, prefix="tocsin-", suffix=".bin"
        ) as file:
            if len(fields) == len(columns):
                block = np.empty(count, fields)
                for name, column in columns.items():
                    block[name] = column
                file.write(block.tobytes())
            else:
                file.write(_row_binary(columns, count))
            file.flush()
            names = ", ".join(columns)
            self._query(
                f"insert into {table} ({names}) settings insert_deduplication_token = '{token}'"
                f" select {', '.join(chosen.values())} from file('{file.name}', 'RowBinary', '{', '.join(kinds)}')",
                "CSV",
                None,
            )

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def _query(self, sql: str, form: str, values: Mapping[str, Any] | None) -> bytes:
        try:
            result = self._raw.query(sql, form, params=dict(values or {}))
        except RuntimeError as error:
            raise TransientError(_short(error)) from error
        data: bytes = result.bytes() if result is not None else b""
        return data


def _row_binary(columns: Mapping[str, Any], count: int) -> bytes:
    """Return rows in RowBinary where some columns are texts: for rare rows."""
    out = bytearray()
    plain = {name: np.asarray(c) for name, c in columns.items() if isinstance(c, np.ndarray)}
    for i in range(count):
        for name, column in columns.items():
            if name in plain:
                out += plain[name][i].tobytes()
                continue
            data = str(column[i]).encode()
            size = len(data)
            while size >= 0x80:
                out.append(size & 0x7F | 0x80)
                size >>= 7
            out.append(size)
            out += data
    return bytes(out)


def _short(error: Exception) -> str:
    text = str(error).split("(version")[0].strip()
    return text.removeprefix("Code: ").split("DB::Exception: ", 1)[-1].strip(" .")
