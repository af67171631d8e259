"""What the store on servers says without one: of servers that are away or no ClickHouse, and of secrets."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from history.chdb_store import ChdbStore
from history.config import HistorySettings, ServerSettings
from history.server_form import (
    MARK,
    added_column,
    plain_ddl,
    plain_statement,
    replicated_ddl,
)
from history.server_store import ServerStore
from history.store import DDL, statements
from telemetry.errors import ConfigError, TransientError
from tests.support.bad_peers import absent, answering, silent
from tocsin.config import load_config
from tocsin.desk.store import open_store


def store(*ports: int) -> ServerStore:
    servers = tuple(f"127.0.0.1:{port}" for port in ports)
    return ServerStore(ServerSettings(servers=servers, connect_seconds=0.2, answer_seconds=0.2))


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        pytest.param(absent, "Connection refused", id="absent"),
        pytest.param(silent, "no answer in time", id="silent"),
        pytest.param(lambda: answering(b""), "its native port is 9000", id="closing"),
        pytest.param(lambda: answering(b"HTTP/1.0 400 Bad Request\r\n\r\n"), "native port", id="http"),
    ],
)  # fmt: skip
def test_a_server_that_is_none_is_one_sentence(
    peer: Callable[[], AbstractContextManager[int]], said: str
) -> None:
    with peer() as port:
        connection = store(port).connect()
        for _ in range(2):  # and may be asked again
            with pytest.raises(TransientError, match=said) as raised:
                connection.rows("select 1")
            assert f"ClickHouse at 127.0.0.1:{port}" in str(raised.value)
            assert "\n" not in str(raised.value)
            assert raised.value.__cause__ is None, "no fault of the statement: the API answers 503"
        connection.close()


def test_a_server_that_is_too_old_is_told_its_version() -> None:
    too_old = pytest.raises(ConfigError, match=r"is 0\.0; 18\.16 is the oldest that works")
    with answering(b"\0" * 64) as port, too_old:  # a greeting of zeros is one of version 0.0
        store(port).connect().rows("select 1")


@pytest.mark.parametrize("zone", ["Europe/Prague", "Asia/Kolkata", "Etc/GMT-1"])
def test_a_server_in_another_time_zone_is_refused(zone: str) -> None:
    connection_refused = pytest.raises(
        ConfigError, match=rf"time zone {zone}: .*<timezone>UTC</timezone>"
    )
    with answering(greeting(zone)) as port, connection_refused:
        store(port).connect().rows("select 1")


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "GMT"])
def test_a_server_in_a_zone_that_is_utc_is_asked(zone: str) -> None:
    with (
        answering(greeting(zone)) as port,
        pytest.raises(TransientError, match="does not answer"),
    ):
        store(port).connect().rows("select 1")


def greeting(zone: str) -> bytes:
    """What a server of 22.8 says first, in the form of revision 54100."""

    def text(word: str) -> bytes:
        return bytes([len(word)]) + word.encode()

    return b"\0" + text("ClickHouse") + bytes([22, 8, 0xD4, 0xA6, 3]) + text(zone)


def test_a_password_that_cannot_be_read_is_said_before_anything_starts(tmp_path: Path) -> None:
    missing = tmp_path / "absent"
    with pytest.raises(ConfigError, match=r"password_file .*absent: No such file"):
        ServerStore(ServerSettings(password_file=str(missing)))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('servers = ["a:9000", "b:9000"]', "names 2 servers"),
        ('servers = ["a"]', "history.clickhouse.servers"),
        ("servers = []", "history.clickhouse.servers"),
        ('database = "a b"', "history.clickhouse.database"),
        ('cluster = "a\'b"', "history.clickhouse.cluster"),
        ('pasword_file = "x"', "password_file"),
    ],
)
def test_config_check_knows_the_servers_settings(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "tocsin.toml"
    path.write_text(f'[history]\nstore = "clickhouse"\n[history.clickhouse]\n{lines}\n')
    with pytest.raises(ConfigError, match=said):
        load_config(path)
    path.write_text('[history]\nstore = "clickhouse"\n')
    assert isinstance(open_store(load_config(path).history, tmp_path), ServerStore)
    assert not isinstance(open_store(HistorySettings(), tmp_path), ServerStore)


def every_statement() -> list[str]:
    return [
        one for path in sorted(DDL.glob("*.sql")) for one in statements(path.read_text("utf-8"))
    ]


def test_the_plain_form_has_nothing_that_old_servers_do_not_know() -> None:
    tables = 0
    for statement in every_statement():
        for made in plain_ddl(statement):
            for newer in (
                "codec",
                "LowCardinality",
                "IPv6",
                "DateTime64",
                "settings",
                " if not exists unit",
            ):
                assert newer not in made
            assert made.count("(") == made.count(")")
            if made.startswith("create table"):
                tables += 1
                assert f"{MARK} UInt64" in made
                assert made.rstrip(")").split("order by")[1]
    assert tables >= 9
    assert added_column("alter table series add column if not exists unit String default ''") == (
        "series",
        "unit",
    )


def test_on_a_cluster_each_table_is_made_everywhere_and_replicated(tmp_path: Path) -> None:
    engine = ChdbStore(tmp_path, memory_bytes_max=1 << 29).connect()
    for statement in every_statement():
        made = replicated_ddl(statement, cluster="noc", database="db")
        engine.rows(f"explain ast {made}")  # the engine of today can read it
        assert made.count("on cluster 'noc'") == 1
        if statement.startswith("create table"):
            name = statement.split()[5]
            assert f"MergeTree('/clickhouse/tables/{{shard}}/db/{name}', '{{replica}}'" in made
    rollups = next(one for one in every_statement() if "exists rollups" in one)
    assert "', '{replica}', revision)" in replicated_ddl(rollups, cluster="c", database="d")
    engine.close()


@pytest.mark.parametrize(
    ("kind", "value", "literal"),
    [
        ("UInt32", 5, "5"),
        ("Int64", -5, "toInt64(-5)"),
        ("String", "a'b\\", "'a\\'b\\\\'"),
        ("Array(UInt64)", [1, 2], "[toUInt64(1), toUInt64(2)]"),
        ("Float64", 0.5, "0.5"),
        ("Date", "2026-11-28", "cast('2026-11-28' as Date)"),
    ],
)
def test_values_are_written_as_literals_of_their_type(
    kind: str, value: object, literal: str
) -> None:
    assert plain_statement(f"select {{x:{kind}}}", {"x": value}) == f"select {literal}"


def test_a_value_that_is_none_of_its_type_is_refused() -> None:
    for values in ({"x": "1); drop table frames"}, {}):
        with pytest.raises(TransientError):
            plain_statement("select {x:UInt64}", values)
