"""The SQL door over the embedded engine: what clients of ClickHouse's HTTP interface rely on."""

import asyncio
import base64
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from history.chdb_store import ChdbStore
from history.store import DATABASE, migrate
from runtime.component import Context
from telemetry.errors import TransientError
from tocsin.api.access import Access
from tocsin.api.sql_door import sql_door
from tocsin.api.workers import Workers
from tocsin.testing import make_context

ROWS = 3


class Client:
    """Asks an ASGI application without a socket, one request after the other."""

    def __init__(self, app: Starlette) -> None:
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8123"
        )

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self._runner.run(self._client.get(path, **how))

    def post(self, path: str, **how: Any) -> httpx.Response:
        return self._runner.run(self._client.post(path, **how))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class Door:
    """A door on a store with three rows in `series`."""

    def __init__(self, folder: Path, tokens: frozenset[str]) -> None:
        self._store = ChdbStore(folder, memory_bytes_max=400 * 1024**2)
        self._writer = self._store.connect()
        migrate(self._writer)
        self._writer.insert(
            "series",
            {
                "series_id": np.arange(ROWS, dtype=np.uint64),
                "entity_id": np.zeros(ROWS, np.uint64),
                "view": ["interface"] * ROWS,
                "entity": ["ams1", "it's", "fra\\2"],
                "key": ["a", "b", "c"],
            },
            token="one",
        )
        self.context: Context = make_context("sql")
        self.workers = Workers(
            lambda: self._store.connect(read_only=True, seconds_max=2, rows_max=1000), threads=2
        )
        app = sql_door(self.workers, self.context, database=DATABASE, access=Access(tokens))
        self.client = Client(app)

    def outcomes(self, outcome: str) -> float:
        return self.context.metrics.value("sql_statements_total", outcome=outcome)

    def close(self) -> None:
        self.client.close()
        self.workers.stop()
        self._writer.close()


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    made: list[Door] = []

    def build(*tokens: str) -> Door:
        made.append(Door(tmp_path, frozenset(tokens)))
        return made[-1]

    yield build
    for door in made:
        door.close()


def test_a_statement_comes_by_parameter_or_body_or_both(open_door: Callable[..., Door]) -> None:
    door = open_door()
    one = "select count() from series"
    assert door.client.get("/", params={"query": one}).text == "3\n"
    assert door.client.post("/", content=one).text == "3\n"
    assert (
        door.client.post("/", params={"query": "select count()"}, content="from series").text
        == "3\n"
    )
    packed = door.client.post(
        "/", content=gzip.compress(one.encode()), headers={"content-encoding": "gzip"}
    )
    assert packed.text == "3\n"
    assert door.outcomes("answered") == 4


def test_the_format_of_the_statement_wins_then_parameter_then_header(
    open_door: Callable[..., Door],
) -> None:
    client = open_door().client
    sql = "select count() as n from series"
    header = {"X-ClickHouse-Format": "CSVWithNames"}
    assert client.post("/", content=sql, headers=header).text == '"n"\n3\n'
    asked = client.post("/", content=sql, headers=header, params={"default_format": "JSON"})
    assert asked.json()["data"] == [{"n": 3}]
    assert asked.headers["content-type"].startswith("application/json")
    native = client.post("/", content=f"{sql} format Native", params={"default_format": "JSON"})
    assert native.content == b"\x01\x01\x01n\x06UInt64" + (3).to_bytes(8, "little")
    assert native.headers["x-clickhouse-format"] == "Native"


def test_parameters_are_bound_never_pasted(open_door: Callable[..., Door]) -> None:
    client = open_door().client
    sql = "select series_id from series where entity = {name:String}"
    assert client.post("/", content=sql, params={"param_name": "it's"}).text == "1\n"
    assert client.post("/", content=sql, params={"param_name": "' or 1 = 1 --"}).text == ""
    missing = client.post("/", content=sql)
    assert missing.status_code == 400
    assert missing.headers["x-clickhouse-exception-code"] == "456"  # UNKNOWN_QUERY_PARAMETER
    wrong = client.post("/", content="select 1", params={"param_a b": "1"})
    assert wrong.status_code == 403


def test_settings_of_clients_change_nothing(open_door: Callable[..., Door]) -> None:
    client = open_door().client
    lifted = {"max_result_rows": "0", "readonly": "0", "max_execution_time": "1000"}
    sql = "select getSetting('readonly'), getSetting('max_result_rows') settings readonly = 0"
    assert client.post("/", content=sql, params=lifted).text == "1\t1000\n"


@pytest.mark.parametrize(
    "sql",
    [
        "select * from file('/etc/passwd')",
        "select 1 into outfile '/tmp/tocsin-must-not-exist'",
        "insert into series values (1)",
        "drop table series",
        "kill query where 1",
    ],
)
def test_what_is_not_reading_is_refused(open_door: Callable[..., Door], sql: str) -> None:
    door = open_door()
    answer = door.client.post("/", content=sql)
    assert answer.status_code == 403
    assert answer.text.startswith("Code: 164. DB::Exception: ")
    assert door.outcomes("refused") == 1
    assert not Path("/tmp/tocsin-must-not-exist").exists()
    assert door.client.post("/", content="select count() from series").text == "3\n"


def test_errors_of_the_engine_carry_its_code(open_door: Callable[..., Door]) -> None:
    door = open_door()
    answer = door.client.post("/", content="select * from nothing_here")
    assert answer.status_code == 400
    assert answer.headers["x-clickhouse-exception-code"] == "60"  # UNKNOWN_TABLE
    assert "nothing_here" in answer.text
    unknown = door.client.post("/", content="select 1", params={"database": "elsewhere"})
    assert unknown.headers["x-clickhouse-exception-code"] == "81"  # UNKNOWN_DATABASE
    assert door.client.post("/", content="select count() from series").text == "3\n"
    assert door.outcomes("failed") == 2


def test_a_long_answer_is_packed_when_the_client_asks(open_door: Callable[..., Door]) -> None:
    client = open_door().client
    sql = "select number from numbers(900)"
    plain = client.post("/", content=sql)
    packed = client.post(
        "/",
        content=sql,
        params={"enable_http_compression": "1"},
        headers={"accept-encoding": "gzip"},
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text


def test_bodies_that_cannot_be_read_are_refused(open_door: Callable[..., Door]) -> None:
    client = open_door().client
    assert client.post("/", content=b"x" * 300_000).status_code == 413
    assert client.post("/", content=b"\xff\xfe").status_code == 403
    broken = client.post("/", content=b"no gzip", headers={"content-encoding": "gzip"})
    assert broken.status_code == 403
    bomb = gzip.compress(b"select 1 " + b" " * 10_000_000)
    assert client.post("/", content=bomb, headers={"content-encoding": "gzip"}).status_code == 413
    framed = client.post("/", content="select 1", params={"compress": "1"})
    assert "not offered" in framed.text


def test_with_tokens_every_way_to_send_a_password_works(open_door: Callable[..., Door]) -> None:
    door = open_door("s3cret", "other")
    basic = base64.b64encode(b"grafana:s3cret").decode()
    for headers in (
        {"X-ClickHouse-User": "grafana", "X-ClickHouse-Key": "s3cret"},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": "Bearer other"},
    ):
        assert door.client.post("/", content="select 1", headers=headers).text == "1\n"
    assert door.client.get("/", params={"query": "select 1", "password": "other"}).text == "1\n"
    for headers in ({}, {"X-ClickHouse-Key": "wrong"}, {"Authorization": "Basic ???"}):
        answer = door.client.post("/", content="select 1", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["x-clickhouse-exception-code"] == "516"
    assert door.outcomes("unauthorised") == 3


def test_without_tokens_only_local_names_are_answered(open_door: Callable[..., Door]) -> None:
    """A page in the operator's browser cannot read the door under a name that it controls."""
    client = open_door().client
    assert client.post("/", content="select 1").status_code == 200
    named = client.post("/", content="select 1", headers={"host": "attacker.example:8123"})
    assert named.status_code == 401


def test_health_checks_of_clients_are_answered(open_door: Callable[..., Door]) -> None:
    client = open_door().client
    for path in ("/ping", "/replicas_status", "/"):
        assert client.get(path).text == "Ok.\n"


def test_a_full_queue_says_so(open_door: Callable[..., Door]) -> None:
    door = open_door()
    narrow = Workers(lambda: pytest.fail("must not connect"), threads=1, waiting_max=-1)
    app = sql_door(narrow, door.context, database=DATABASE, access=Access())
    client = Client(app)
    answer = client.post("/", content="select 1")
    client.close()
    narrow.stop()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert door.outcomes("busy") == 1
    assert TransientError.__name__ not in answer.text
