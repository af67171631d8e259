"""A ClickHouse server of today for tests: its wire protocols here, the engine chDB's (26.5).

No newer server than Debian's 18.16 can be installed where the tests run. What is tested against this one
is what the engine of today makes of our statements, blocks, tokens and parameters; the protocols are
written from the driver's side of them. Run as a process of its own: an engine has one path a process.
Source: ClickHouse docs, native protocol (revision 54460), HTTP interface.
"""

import io
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from history.chdb_store import ChdbConnection, ChdbStore
from history.config import ServerSettings
from telemetry.errors import TransientError
from tests.support import processes
from tests.support.clickhouse_server import PASSWORD, free_ports

REVISION = 54_460
HELLO, QUERY, DATA, PING = 0, 1, 2, 4  # of clients
EXCEPTION, PONG, END_OF_STREAM, PROFILE_EVENTS = 2, 4, 5, 14  # of servers
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
SIZES = {"Int8": 1, "UInt8": 1, "Bool": 1, "Int16": 2, "UInt16": 2, "Date": 2, "Int32": 4, "UInt32": 4,
         "Float32": 4, "DateTime": 4, "Int64": 8, "UInt64": 8, "Float64": 8, "DateTime64": 8, "IPv6": 16}  # fmt: skip


class NewClickhouse:
    """The process, as tests hold it."""

    def __init__(self, folder: Path) -> None:
        self.native, self.http = free_ports(2)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "password").write_text(PASSWORD)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [
            sys.executable,
            "-m",
            __spec__.name,
            str(self._folder),
            str(self.native),
            str(self.http),
        ]
        self._process = processes.start(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it."""
        assert self._process is not None
        assert self._process.stdout is not None
        processes.kill(self._process)
        self._process.stdout.close()

    def settings(self, database: str = "tocsin") -> ServerSettings:
        """Return the settings that name it."""
        return ServerSettings(
            servers=(f"127.0.0.1:{self.native}",),
            user="tocsin",
            password_file=str(self._folder / "password"),
            database=database,
            http_port=self.http,
            compression="none",
        )


class Wire:
    """Numbers, texts and blocks, read from a stream and counted as they pass."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept = bytearray()
        self.at = self.rows = 0

    def take(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        if len(data) < size:
            raise EOFError
        self._kept += data
        self.at += size
        return data

    def number(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def text(self) -> str:
        return self.take(self.number()).decode("utf-8", "surrogateescape")

    def pairs(self) -> dict[str, str]:
        """Read settings, or parameters."""
        found = {}
        while name := self.text():
            self.take(1)
            found[name] = self.text()
        return found

    def block(self, *, with_flags: bool) -> list[tuple[str, str, bytes]]:
        """Read (name, type, data) of each column; `with_flags` as the protocol has them, files not."""
        if with_flags:
            self.take(len(BLOCK_INFO))
        columns, rows = self.number(), self.number()
        found = []
        for _ in range(columns):
            name, kind = self.text(), self.text()
            if with_flags:
                assert self.take(1) == b"\0"
            self._kept.clear()
            if rows:
                self._column(kind, rows)
            found.append((name, kind, bytes(self._kept)))
        self.rows = rows
        return found

    def _column(self, kind: str, rows: int) -> None:
        stem, _, inner = kind.removesuffix(")").partition("(")
        if stem in SIZES:
            self.take(rows * SIZES[stem])
        elif stem == "FixedString":
            self.take(rows * int(inner))
        elif stem == "String":
            for _ in range(rows):
                self.take(self.number())
        elif stem == "LowCardinality":
            version, flags, keys = struct.unpack("<QQQ", self.take(24))
            assert version == 1
            self._column(inner, keys)
            assert struct.unpack("<Q", self.take(8)) == (rows,)
            self.take(rows << (flags & 0xF))
        elif stem == "Nullable":
            self.take(rows)
            self._column(inner, rows)
        else:
            raise AssertionError(f"type {kind}")


def length(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return length(len(data)) + data


def laid(columns: list[tuple[str, str, bytes]], rows: int, *, with_flags: bool) -> Iterator[bytes]:
    """Yield a block again, in the protocol's or in the file's form."""
    if with_flags:
        yield BLOCK_INFO
    yield length(len(columns)) + length(rows)
    for name, kind, data in columns:
        yield text(name) + text(kind) + (b"\0" if with_flags else b"") + data


class Native(socketserver.StreamRequestHandler):
    """One client of the native port."""

    disable_nagle_algorithm = True
    wbufsize = -1

    def handle(self) -> None:
        """Answer until it goes."""
        self._wire = Wire(self.rfile)
        self._db: ChdbConnection = self.server.store.connect()  # type: ignore[attr-defined]
        self._limited = False
        try:
            while True:
                kind = self._wire.number()
                if kind == HELLO:
                    self._greet()
                elif kind == PING:
                    self.wfile.write(length(PONG))
                elif kind == QUERY:
                    self._query()
                elif kind == DATA:
                    self._wire.text()
                    self._wire.block(with_flags=True)
                self.wfile.flush()
        except (EOFError, OSError):
            pass
        finally:
            self._db.close()

    def _greet(self) -> None:
        wire = self._wire
        wire.text(), wire.number(), wire.number(), wire.number()
        _, user = wire.text(), wire.text()
        if wire.text() != PASSWORD:
            self._refuse("Code: 516. DB::Exception: tocsin: Authentication failed")
            self.wfile.flush()
            raise EOFError
        if "/" in user:  # one named after a time zone is in that
            self._db.run(f"set session_timezone = '{user}'")
        self.wfile.write(
            length(HELLO) + text("ClickHouse") + length(26) + length(5) + length(REVISION)
            + text("UTC") + text("test") + length(2)
        )  # fmt: skip
        self.wfile.flush()
        wire.text()  # the quota's key

    def _query(self) -> None:
        wire = self._wire
        wire.text()
        wire.take(1)
        wire.text(), wire.text(), wire.text()
        wire.take(8 + 1)
        wire.text(), wire.text(), wire.text()
        wire.number(), wire.number(), wire.number(), wire.text(), wire.number(), wire.number()
        assert wire.take(1) == b"\0"
        wire.number(), wire.number(), wire.number()
        settings = wire.pairs()
        wire.text(), wire.number()
        assert wire.number() == 0, "not compressed"
        sql, values = wire.text(), {name: undumped(v) for name, v in wire.pairs().items()}
        assert wire.number() == DATA
        wire.text()
        wire.block(with_flags=True)  # no external tables
        try:
            if sql.endswith(" values"):
                self._insert(sql.removesuffix(" values"), settings)
            else:
                self._answer(sql, settings, values)
        except TransientError as error:
            self._refuse(str(error.__cause__))
        else:
            self.wfile.write(length(END_OF_STREAM))

    def _refuse(self, said: str) -> None:
        code, _, rest = said.removeprefix("Code: ").partition(". ")
        self.wfile.write(
            length(EXCEPTION) + struct.pack("<i", int(code)) + text("DB::Exception") + text(rest)
            + text("0. nowhere") + b"\0"
        )  # fmt: skip

    def _insert(self, sql: str, settings: dict[str, str]) -> None:
        table, _, names = sql.removeprefix("insert into ").rstrip(")").partition(" (")
        types = {row["name"]: row["type"] for row in self._db.rows(f"describe table {table}")}
        sample = [(name, types[name], b"") for name in names.split(", ")]
        self._send(sample, 0)
        self.wfile.flush()
        while True:
            assert self._wire.number() == DATA
            self._wire.text()
            columns = self._wire.block(with_flags=True)
            self.wfile.write(length(PROFILE_EVENTS) + text(""))
            self.wfile.writelines(laid([], 0, with_flags=True))
            self.wfile.flush()
            if not columns:
                return
            assert [column[:2] for column in columns] == [column[:2] for column in sample]
            with tempfile.NamedTemporaryFile(suffix=".bin") as file:
                file.writelines(laid(columns, self._wire.rows, with_flags=False))
                file.flush()
                self._db.run(
                    f"{sql} settings {listed(settings)} select {names} from file('{file.name}', 'Native')"
                )

    def _answer(self, sql: str, settings: dict[str, str], values: dict[str, Any]) -> None:
        if settings and sql.startswith("insert "):
            sql += f" settings {listed(settings)}"
        elif settings and not self._limited:
            limit(self._db, settings)
            self._limited = True
        data = raw(self._db, sql, "Native", values)
        wire = Wire(io.BytesIO(data))
        headed = False
        while wire.at < len(data):
            columns = wire.block(with_flags=False)
            if not headed:  # the first block tells names and types only
                self._send([(name, kind, b"") for name, kind, _ in columns], 0)
                headed = True
            self._send(columns, wire.rows)

    def _send(self, columns: list[tuple[str, str, bytes]], rows: int) -> None:
        self.wfile.write(length(1) + text(""))
        self.wfile.writelines(laid(columns, rows, with_flags=True))


def raw(db: ChdbConnection, sql: str, form: str, values: dict[str, Any]) -> bytes:
    """Ask the engine with values as they came: escaped already."""
    try:
        result = db._raw.query(sql, form, params=values)
    except RuntimeError as error:
        raise TransientError("") from error
    return result.bytes() if result is not None else b""


def undumped(value: str) -> str:
    """Return a parameter out of the dump of a field: quoted, and escaped once more than its text."""
    assert value[0] == value[-1] == "'"
    return value[1:-1].encode("utf-8", "surrogateescape").decode("unicode_escape").encode(
        "latin-1"
    ).decode()  # fmt: skip


def listed(settings: dict[str, str]) -> str:
    return ", ".join(f"{name} = '{value}'" for name, value in settings.items())


def limit(db: ChdbConnection, settings: dict[str, str]) -> None:
    for name in sorted(settings, key=lambda one: one == "readonly"):  # it comes last
        db.run(f"set {name} = '{settings[name]}'")


class Http(BaseHTTPRequestHandler):
    """The HTTP port: a statement in a body, its answer in a format."""

    def do_POST(self) -> None:
        """Answer one statement."""
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        sql = self.rfile.read(int(self.headers["Content-Length"])).decode()
        values = {n.removeprefix("param_"): v for n, v in asked.items() if n.startswith("param_")}
        known = ("database", "default_format", "wait_end_of_query")
        settings = {n: v for n, v in asked.items() if n not in known and not n.startswith("param_")}
        db = self.server.store.connect()  # type: ignore[attr-defined]
        try:
            assert self.headers["X-ClickHouse-Key"] == PASSWORD
            db.run(f"use {asked.get('database', 'default')}")
            limit(db, settings)
            status, body = 200, raw(db, sql, asked.get("default_format", "TSV"), values)
        except TransientError as error:
            status, body = 500, str(error.__cause__).encode()
        finally:
            db.close()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def main() -> None:
    """Serve both ports until killed."""
    folder, native, http = sys.argv[1:]
    store = ChdbStore(Path(folder) / "engine", memory_bytes_max=1 << 30)
    keeps = store.connect()  # so that the engine stays between clients
    servers = (
        _Tcp(("127.0.0.1", int(native)), Native),
        ThreadingHTTPServer(("127.0.0.1", int(http)), Http),
    )
    for server in servers:
        server.store = store  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)  # noqa: T201
    threading.Event().wait()
    keeps.close()


if __name__ == "__main__":
    main()
