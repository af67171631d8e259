"""The SQL door: ClickHouse's HTTP interface in front of the history, for reading only.

Grafana's ClickHouse data source, `clickhouse-connect`, `curl` and BI tools work on a machine without a
server. A statement passes `history.read_only` first and runs on a connection with readonly = 1,
limits and one engine thread; settings that clients send are taken out, parameters are bound. Every
worker thread has a connection of its own, because one connection is one lock (design section 7).

Source: ClickHouse documentation, HTTP interface.
"""

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from history.read_only import BYTES_MAX, check_format, read_only
from history.store import Connection
from runtime.component import Context
from telemetry.errors import ConfigError, DecodeError, TransientError
from tocsin.api.access import Access
from tocsin.api.workers import BusyError, Workers

GZIP_LEVEL = 1
SHORTEST_GZIP_BYTES = 1024

# Codes of ClickHouse's ErrorCodes.cpp that clients look at.
CODE_READONLY = 164
CODE_AUTHENTICATION = 516
CODE_TOO_MANY = 202
CODE_BAD_REQUEST = 36
CODE_UNKNOWN = 1002

CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
}


def sql_door(
    workers: Workers,
    context: Context,
    *,
    database: str,
    access: Access,
) -> Starlette:
    """Return the door as an ASGI application. With tokens, a client's password must be one of them."""
    door = _Door(workers, context, database, access)
    return Starlette(
        routes=[
            Route("/ping", door.ping),
            Route("/replicas_status", door.ping),
            Route("/", door.query, methods=["GET", "POST"]),
        ]
    )


class _Door:
    def __init__(self, workers: Workers, context: Context, database: str, access: Access) -> None:
        self._workers = workers
        self._database = database
        self._access = access
        self._number = 0
        self._answers = context.metrics.counter(
            "sql_statements_total",
            "statements at the SQL door, by outcome",
            label="outcome",
            values=("answered", "failed", "refused", "unauthorised", "busy"),
        )

    async def ping(self, request: Request) -> Response:
        """Answer a health check as ClickHouse does."""
        del request
        return PlainTextResponse("Ok.\n")

    async def query(self, request: Request) -> Response:
        """Run one statement and return its rows in the format asked for."""
        if not self._access.allows(request.url.hostname or "", _password(request)):
            self._answers.add("unauthorised")
            return _exception(
                401,
                CODE_AUTHENTICATION,
                "default: Authentication failed: the password must be an API token",
                {"WWW-Authenticate": 'Basic realm="Tocsin"'},
            )
        try:
            sql = await _statement_text(request)
            if not sql.strip():
                return PlainTextResponse("Ok.\n")
            form, call = self._prepare(sql, request)
        except DecodeError as error:
            self._answers.add("refused")
            code = CODE_READONLY if error.reason == "refused" else CODE_BAD_REQUEST
            status = 413 if error.reason == "too_long" else 403
            return _exception(status, code, str(error).partition(": ")[2])
        try:
            data, encoding = await self._workers.run(call)
        except (
            ConfigError,
            TransientError,
        ) as error:  # of the store: a login refused, too old a server
            busy = isinstance(error, BusyError)
            self._answers.add("busy" if busy else "failed")
            if busy:
                return _exception(503, CODE_TOO_MANY, str(error), {"Retry-After": "1"})
            return _exception(400, _code_of(error), str(error))
        self._answers.add("answered")
        self._number += 1
        asked = re.sub(r"[^\w.-]", "", request.query_params.get("query_id", ""))[:64]
        headers = {
            "Content-Type": CONTENT_TYPES.get(form, "text/plain; charset=UTF-8"),
            "X-ClickHouse-Format": form,
            "X-ClickHouse-Query-Id": asked or f"tocsin-{self._number}",
            "X-ClickHouse-Server-Display-Name": "tocsin",
            "X-ClickHouse-Timezone": "UTC",
        }
        if encoding:
            headers["Content-Encoding"] = encoding
        return Response(data, headers=headers)

    def _prepare(
        self, sql: str, request: Request
    ) -> tuple[str, Callable[[Connection], tuple[bytes, str]]]:
        """Return (output format, the call that runs the statement), or raise DecodeError."""
        asked = request.query_params
        if asked.get("compress", "0") not in ("0", "false"):
            raise DecodeError(
                "refused", "compress=1 (blocks of LZ4) is not offered; use gzip or no compression"
            )
        statement = read_only(sql)
        wish = asked.get("default_format") or request.headers.get("x-clickhouse-format", "")
        form = statement.form or (check_format(wish) if wish else "TabSeparated")
        database = asked.get("database") or request.headers.get("x-clickhouse-database", "")
        if database in ("", "default"):
            database = self._database
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", database):
            raise DecodeError("refused", f"database {database[:40]!r} is not a name")
        values = bound_values(asked)
        pack = asked.get("enable_http_compression") == "1" and "gzip" in request.headers.get(
            "accept-encoding", ""
        )

        def call(connection: Connection) -> tuple[bytes, str]:
            connection.run(f"use {database}")
            data = connection.text(statement.sql, form, values)
            if pack and len(data) >= SHORTEST_GZIP_BYTES:
                return gzip.compress(data, GZIP_LEVEL, mtime=0), "gzip"
            return data, ""

        return form, call


def bound_values(asked: QueryParams) -> dict[str, str]:
    """Return the parameters of a request: `param_view=interface` binds `{view:String}`."""
    values = {}
    for name, value in asked.items():
        if name.startswith("param_"):
            label = name.removeprefix("param_")
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", label):
                raise DecodeError("refused", f"parameter {label[:40]!r} is not a name")
            values[label] = re.sub(r"\\(.)", _unescaped, value, flags=re.DOTALL)
    return values


def _unescaped(found: "re.Match[str]") -> str:
    """Return the character of an escape: clients write values as in TabSeparated."""
    return {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}.get(found[1], found[1])


def _password(request: Request) -> str:
    headers = request.headers
    if key := headers.get("x-clickhouse-key"):
        return key
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return request.query_params.get("password", "")


async def _statement_text(request: Request) -> str:
    """Return the `query` parameter and the body, one after the other, as ClickHouse reads them."""
    parts = [request.query_params.get("query", "")]
    if request.method == "POST":
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise DecodeError("refused", "external tables (multipart bodies) are not offered")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > BYTES_MAX:
                raise DecodeError("too_long", f"the statement is over {BYTES_MAX} bytes")
        encoding = request.headers.get("content-encoding", "")
        if encoding not in ("", "identity", "gzip"):
            raise DecodeError("refused", f"content-encoding {encoding[:20]!r} is not offered")
        parts.append(_decoded(bytes(body), gzipped=encoding == "gzip"))
    return "\n".join(part for part in parts if part.strip())


def _decoded(body: bytes, *, gzipped: bool) -> str:
    try:
        if gzipped:
            unpacker = zlib.decompressobj(wbits=31)
            body = unpacker.decompress(body, BYTES_MAX + 1)
            if len(body) > BYTES_MAX:
                raise DecodeError("too_long", f"the statement is over {BYTES_MAX} bytes")
        return body.decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise DecodeError("refused", f"the body cannot be read: {error}") from error


def _code_of(error: Exception) -> int:
    """Return the engine's error code; our own sentence left it out."""
    match = re.match(r"Code: (\d+)", str(error.__cause__))
    return int(match.group(1)) if match else CODE_UNKNOWN


def _exception(
    status: int, code: int, sentence: str, headers: Mapping[str, str] | None = None
) -> Response:
    return PlainTextResponse(
        f"Code: {code}. DB::Exception: {sentence}\n",
        status,
        {"X-ClickHouse-Exception-Code": str(code), **(headers or {})},
    )
