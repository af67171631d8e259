"""The store on ClickHouse servers, over their native protocol. The only file that imports the driver.

Nothing is connected before it is needed, and what broke is connected anew: to the next server of the
list, where that one answers. A server that is away, that refuses the password or is too old raises one
sentence each time it is asked; who asks waits and asks again. A reader's own formats (Grafana's Native,
CSV, Parquet) are made by the server itself, over its HTTP port.

An insert that was sent and not answered may be stored or not. It is sent again under its token: servers
from 22.8 on know it (`history/server_form.py` has what older ones lack); for older ones each row carries
the token's hash, and inserts that may be a repetition are looked for first. Tokens of a table come in
order, so those are the ones up to the first that is new, and any one that failed. An insert that lost its
connection may still be at work in the server: it is named after its token, and waited for before the look.
"""

import http.client
import logging
import math
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from clickhouse_driver import Client, errors
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.defines import DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from history.config import ServerSettings
from history.native import block
from history.server_form import (
    MARK,
    NEEDS,
    OLDEST,
    WHOLE,
    added_column,
    plain_ddl,
    plain_statement,
    replicated_ddl,
)
from history.store import parameter, said_by
from runtime.trust import client_context
from telemetry.errors import ConfigError, TransientError
from telemetry.identity import stable_id

WRONG_LOGIN = (192, 193, 194, 516)  # unknown user, wrong, required, failed
# In the plain form: looks at a delete, or at an insert without connection, until it is done.
LOOKS_MAX = 1_200
LOOK_SECONDS = 0.05
# Days, months and hours of tables are cut in the server's zone, and ours are those of UTC.
UTC = {"UTC", "UCT", "Zulu", "Universal", "GMT", "Greenwich", "GMT0", "GMT+0", "GMT-0"}
TOKENS_KNOWN = 1_000  # in the plain form; newer servers keep as many for us
# Inserts wait until they are stored: a server may gather them, by default since 26.2.
INSERT_SETTINGS = {"async_insert": 0}
# 64-bit integers are numbers in JSON: the servers' default only since 25.8. Errors come with a status.
TEXT_SETTINGS = {"output_format_json_quote_64bit_integers": 0, "wait_end_of_query": 1}


class ServerStore:
    """Opens connections to the servers of one ClickHouse: one machine, or the replicas of a cluster."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.database = settings.database
        _secret(settings.password_file)  # one that is not there is said before anything is started
        # It tells each refusal with a traceback; we tell it once, in a sentence.
        logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)

    def connect(
        self, *, read_only: bool = False, seconds_max: int = 0, rows_max: int = 0
    ) -> "ServerConnection":
        """Return a connection; a read-only one has limits and can change nothing."""
        limits: dict[str, Any] = {}
        if read_only:
            limits = {
                "max_execution_time": seconds_max,
                "max_result_rows": rows_max,
                "result_overflow_mode": "break",
                "readonly": 1,
            }
        return ServerConnection(self._settings, limits)

    def look(self) -> str:
        """Say which server answers on both of its ports; raise what keeps it from it."""
        connection = ServerConnection(self._settings, {})
        try:
            return connection.look()
        finally:
            connection.close()


class _Client(Client):  # type: ignore[misc]  # the driver has no types
    """The driver, sending our columns as they lie in memory: its own way makes a Python object a value."""

    def send_data(self, sample_block: Any, data: Any, **_: Any) -> int:
        """Send (columns, words) as one block, in the types that the server says."""
        columns, words = data
        connection = self.connection
        revision = connection.server_info.used_revision
        plain = b"\0" if revision >= DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION else b""
        write_varint(ClientPacketTypes.DATA, connection.fout)
        write_binary_str("", connection.fout)  # of no temporary table
        out = connection.block_out
        BlockInfo().write(out.fout)
        types = dict(sample_block.columns_with_types)
        for part in block(columns, types, words, after_type=plain):
            out.fout.write(part)
        out.finalize()
        self.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # an empty one: no more comes
        self.receive_profile_events()
        return len(next(iter(columns.values())))


class ServerConnection:
    """One connection, made when it is first used and made again when it broke. For one thread at a time."""

    def __init__(self, settings: ServerSettings, limits: Mapping[str, Any]) -> None:
        self._settings = settings
        self._limits = dict(limits)
        self._plain = False
        # In the plain form: tables whose next token is new, and the marks of what went in.
        self._settled: set[str] = set()
        self._stored: deque[int] = deque(maxlen=TOKENS_KNOWN)
        self._place = self._settled_at = ""  # the server that we talk to, and that had all we wrote
        first, *others = settings.servers
        host, _, port = first.rpartition(":")
        trust = settings.ca_file or ssl.get_default_verify_paths().cafile
        self._client = _Client(
            host.strip("[]"),
            port=int(port),
            alt_hosts=",".join(others) or None,
            user=settings.user,
            client_name="tocsin",
            secure=settings.tls,
            compression="lz4" if settings.compression == "lz4" else False,
            connect_timeout=settings.connect_seconds,
            send_receive_timeout=settings.answer_seconds,
            settings={"server_side_params": True},
            **({"ca_certs": trust} if settings.tls and trust else {}),
        )

    def run(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Run a statement."""
        with self._talking():
            self._execute(sql, values, settings=self._limits)
            words = sql.split(maxsplit=4)
            if self._plain and words[:2] == ["alter", "table"] and words[3] == "delete":
                self._wait_for_delete(words[2])

    def rows(self, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query, as JSON would have their values."""
        with self._talking():
            columns, types = self._execute(
                sql, values, with_column_types=True, columnar=True, settings=self._limits
            )
        shown = {
            name: _as_json(column, kind)
            for column, (name, kind) in zip(columns, types, strict=False)
            if name != MARK  # ours alone, also where a query asks for all columns
        }
        return [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]

    def text(self, sql: str, form: str, values: Mapping[str, Any] | None = None) -> bytes:
        """Return a query's result in one of the server's formats, over its HTTP port."""
        with self._talking():
            pass  # so that it is the same server, and its form is known
        asked: dict[str, Any] = {
            "database": self._client.connection.database, "default_format": form,
            **TEXT_SETTINGS, **self._limits,
        }  # fmt: skip
        if self._plain:
            sql = plain_statement(sql, values or {})
        else:
            asked |= {f"param_{name}": parameter(value) for name, value in (values or {}).items()}
        return self._post(f"/?{urlencode(asked)}", sql)

    def insert(
        self,
        table: str,
        columns: Mapping[str, Any],
        *,
        token: str,
        words: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Insert columns as one block under a token."""
        rows = len(next(iter(columns.values())))
        if not rows:
            return
        with self._inserting(table, token, rows) as mark:
            if not mark:
                return
            if self._plain:
                columns = {**columns, MARK: np.full(rows, mark, np.uint64)}
            self._client.execute(
                f"insert into {table} ({', '.join(columns)}) values",
                (columns, words or {}),
                query_id=self._query_of(mark),
                settings=self._insert_settings(token),
            )

    def insert_rows_of(
        self, table: str, query: str, values: Mapping[str, Any], *, token: str
    ) -> None:
        """Insert what a query returns under a token."""
        with self._inserting(table, token, 0) as mark:
            if not mark:
                return
            if self._plain:
                query = f"select *, toUInt64({mark}) from ({query})"
            self._execute(
                f"insert into {table} {query}",
                values,
                query_id=self._query_of(mark),
                settings=self._insert_settings(token),
            )

    def define(self, statement: str) -> None:
        """Run a statement of the DDL in the form of this server."""
        with self._talking():
            added = added_column(statement)
            if self._plain and added and self._has_column(*added):
                return
            for made in plain_ddl(statement) if self._plain else [statement]:
                if self._settings.cluster:
                    made = replicated_ddl(
                        made, cluster=self._settings.cluster, database=self._settings.database
                    )
                self._client.execute(made)

    def look(self) -> str:
        """Say which server it is, what it lacks, and that its HTTP port answers too."""
        with self._translating():
            version = self._connect()
        self._post("/", "select 1")
        lacks = [f"no {what} ({then})" for since, what, then in NEEDS if version < since]
        return f"ClickHouse {version[0]}.{version[1]} at {self._place}" + (
            f", older than {WHOLE[0]}.{WHOLE[1]}: {'; '.join(lacks)}" if lacks else ""
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.disconnect()

    # From here on, what the above is made of.

    def _execute(self, sql: str, values: Mapping[str, Any] | None, **how: Any) -> Any:
        if self._plain:
            sql, values = plain_statement(sql, values or {}), None
        return self._client.execute(sql, dict(values or {}), **how)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Connect where we are not."""
        connection = self._client.connection
        with self._translating():
            if not (connection.connected and connection.ping()):
                self._begin()
            yield

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn what the driver raises into our errors."""
        try:
            yield
        except errors.ServerException as error:
            if error.code in WRONG_LOGIN:
                self._client.disconnect()
                raise ConfigError(
                    f"ClickHouse at {self._servers} refuses user {self._settings.user!r}: put its "
                    f"password into the file that history.clickhouse.password_file names"
                ) from error
            raise TransientError(said_by(error)) from error
        except (errors.Error, EOFError, OSError) as error:
            self._client.disconnect()
            raise TransientError(
                f"ClickHouse at {self._servers} does not answer: {_reason(error)}"
            ) from None

    def _connect(self) -> tuple[int, int]:
        """Connect to the first server that answers; return its version."""
        settings, connection = self._settings, self._client.connection
        connection.disconnect()
        connection.password = _secret(settings.password_file)
        connection.database = ""  # ours may not be there yet
        connection.send_receive_timeout = settings.connect_seconds  # of the greeting
        self._greet()
        connection.send_receive_timeout = settings.answer_seconds
        connection.socket.settimeout(settings.answer_seconds)
        info = connection.server_info
        version = (info.version_major, info.version_minor)
        self._place = connection.get_description()
        if version < OLDEST:
            connection.disconnect()
            raise ConfigError(
                f"ClickHouse at {self._place} is {version[0]}.{version[1]}; {OLDEST[0]}.{OLDEST[1]} is "
                f"the oldest that works, {WHOLE[0]}.{WHOLE[1]} the oldest that has all: install a newer one"
            )
        zone = info.timezone or "UTC"  # all that are new enough say it
        has = "runs in"
        mend = "<timezone>UTC</timezone> in the server's configuration and start it again"
        if _is_utc(zone):
            ((zone,),) = self._client.execute("select timezone()")
            has, mend = "gives our user", f"no other session_timezone for user {settings.user!r}"
        if not _is_utc(zone):
            connection.disconnect()
            raise ConfigError(
                f"ClickHouse at {self._place} {has} the time zone {zone}: days of history would be cut at its "
                f"midnight, and end or be deleted hours off. Set {mend}; nothing is stored meanwhile, "
                f"the journal keeps it"
            )
        return version

    def _greet(self) -> None:
        """Take the first server that answers; the driver tries the next one only where none listens."""
        connection = self._client.connection
        for left in reversed(range(len(self._settings.servers))):
            try:
                connection.connect()
                break
            except (EOFError, errors.UnexpectedPacketFromServerError):
                connection.disconnect()
                connection.hosts.rotate(-1)
                if not left:
                    raise

    def _begin(self) -> None:
        """Connect, and see to it that our database is there and is up to date."""
        version, name = self._connect(), self._settings.database
        known = f"select count() from system.databases where name = '{name}'"
        if not self._limits and not self._client.execute(known)[0][0]:
            cluster = self._settings.cluster
            on = f" on cluster '{cluster}'" if cluster else ""
            self._client.execute(f"create database if not exists {name}{on}")
        self._client.execute(f"use {name}")
        self._plain = version < WHOLE or self._has_column("frames", MARK)
        if self._settled_at not in ("", self._place) and not self._limits:
            self._catch_up()
        self._settled_at = self._place

    def _catch_up(self) -> None:
        """Wait until this machine has what another had taken: what is made of it would lack that."""
        try:
            for (table,) in self._client.execute("show tables"):
                if table != "digest":
                    self._client.execute(f"system sync replica {table}")
        except (errors.Error, OSError) as error:
            self._client.disconnect()
            raise TransientError(
                f"ClickHouse at {self._place} does not have yet what {self._settled_at} had taken: "
                f"{_reason(error)}; it comes from there, or from another replica"
            ) from None

    @property
    def _servers(self) -> str:
        return ", ".join(self._settings.servers)

    def _has_column(self, table: str, column: str) -> bool:
        found = self._client.execute(
            "select count() from system.columns where database = currentDatabase()"
            f" and table = '{table}' and name = '{column}'"
        )
        return bool(found[0][0])

    @contextmanager
    def _inserting(self, table: str, token: str, rows: int) -> Iterator[int]:
        """Give the mark of an insert, 0 where all its rows are there; `rows` 0 = not known."""
        with self._talking():
            mark = stable_id(f"{table} {token}")
            if mark in self._stored or self._is_there(table, mark, rows):
                yield 0
                return
            self._settled.discard(table)  # until it went in
            yield mark
            if self._plain:
                self._settled.add(table)
                self._stored.append(mark)

    def _is_there(self, table: str, mark: int, rows: int) -> bool:
        """Look for an insert in the plain form, where it may be a repetition; take away a part of one."""
        if not self._plain or table in self._settled:
            return False
        self._wait(
            f"select count() = 0 from system.processes where query_id = '{self._query_of(mark)}'",
            f"an insert into {table}",
        )
        there = self._client.execute(f"select count() from {table} where {MARK} = {mark}")[0][0]
        if there and there != rows:
            self._client.execute(f"alter table {table} delete where {MARK} = {mark}")
            self._wait_for_delete(table)
        return bool(there) and there == rows

    def _insert_settings(self, token: str) -> dict[str, Any]:
        return {} if self._plain else {"insert_deduplication_token": token, **INSERT_SETTINGS}

    def _query_of(self, mark: int) -> str:
        """Name an insert in the server's list of what runs."""
        return f"tocsin-{self._settings.database}-{mark:016x}"

    def _wait_for_delete(self, table: str) -> None:
        self._wait(
            "select count() = 0 from system.mutations where database = currentDatabase()"
            f" and table = '{table}' and not is_done",
            f"a delete in {table}",
        )

    def _wait(self, done: str, what: str) -> None:
        """Ask until it is done."""
        for _ in range(LOOKS_MAX):
            if self._client.execute(done)[0][0]:
                return
            time.sleep(LOOK_SECONDS)
        raise TransientError(f"{what} is not done yet; it goes on")

    def _post(self, path: str, sql: str) -> bytes:
        settings = self._settings
        host, port = (
            self._client.connection.host,
            settings.http_port or (8443 if settings.tls else 8123),
        )
        if settings.tls:
            trust = client_context(ca_file=settings.ca_file)
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=settings.answer_seconds, context=trust
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=settings.answer_seconds)
        login = {
            "X-ClickHouse-User": settings.user,
            "X-ClickHouse-Key": _secret(settings.password_file),
        }
        try:
            made.request("POST", path, sql.encode(), login)
            answer = made.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(
                f"ClickHouse's HTTP port {host}:{port} does not answer: {_reason(error)}; it makes the "
                f"formats that clients ask for: open it, or set history.clickhouse.http_port"
            ) from None
        finally:
            made.close()
        if answer.status != http.client.OK:
            cause = RuntimeError(body.decode("utf-8", "replace"))
            raise TransientError(said_by(cause)) from cause
        return body


def _is_utc(zone: str) -> bool:
    return zone.removeprefix("Etc/") in UTC


def _secret(path: str) -> str:
    """Return what a file holds; it is read at each connection, so it may be changed while we run."""
    try:
        return Path(path).read_text("utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"history.clickhouse.password_file {path}: {reason}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, errors.UnexpectedPacketFromServerError):
        return "it speaks another protocol; name its native port (9000, with TLS 9440)"
    if isinstance(error, EOFError):
        return "it closed the connection; its native port is 9000, with TLS 9440"
    if isinstance(error, errors.SocketTimeoutError | TimeoutError):
        return "no answer in time"
    return str(getattr(error, "message", "") or getattr(error, "strerror", "") or error)


def _as_json(column: Sequence[Any], kind: str) -> Sequence[Any]:
    """Return values as the engine's JSON has them: no NaN, times and addresses as text."""
    if "Float" in kind:
        return [None if value is None or not math.isfinite(value) else value for value in column]
    if "Date" in kind:
        return [None if value is None else str(value).removesuffix("+00:00") for value in column]
    if kind in ("IPv6", "FixedString(16)"):
        return [_address(value) for value in column]
    return column


def _address(value: IPv6Address | bytes | str) -> str:
    """Return an address as the engine writes it; the driver cuts zeros at the end of plain ones."""
    if not isinstance(value, IPv6Address):
        value = IPv6Address((value.encode() if isinstance(value, str) else value).ljust(16, b"\0"))
    return f"::ffff:{value.ipv4_mapped}" if value.ipv4_mapped else str(value)
