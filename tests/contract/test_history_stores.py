"""Every store of the history sits the same exam: chDB in our process, old and new ClickHouse servers.

Below are checks of the contract itself, for all; the tests of writer and loader that are imported here
run on servers as they do on chDB in their own files.
"""

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from history.chdb_store import ChdbStore
from history.reader import AGGREGATES, HistoryReader
from history.server_store import ServerStore
from history.store import Connection, migrate
from history.store import Store as AnyStore
from telemetry.batch import batch_from_rows
from telemetry.errors import ConfigError, TransientError
from telemetry.schemas import ALARM, ANOMALY, INCIDENT, SERIES
from tests.conftest import leave_out
from tests.support.clickhouse_server import ClickhouseServer
from tests.support.new_clickhouse import NewClickhouse
from tests.unit.history.test_flows import (  # noqa: F401
    test_a_shards_older_file_that_comes_later_does_not_hide_the_one_in_doubt,
    test_room_is_made_from_raw_flows_first_but_never_the_newest_hour,
)
from tests.unit.history.test_writer import (  # noqa: F401
    SECOND,
    Store,
    end_ns,
    feed,
    frame,
    test_a_refused_insert_is_tried_again_and_counts_once,
    test_a_tick_cut_off_in_the_middle_is_written_whole,
    test_rollups_equal_a_computation_over_the_ticks,
)

Opens = Callable[..., AnyStore]
CHDB_BYTES = 400 * 1024**2
SERVERS = [
    pytest.param(kind, marks=[pytest.mark.live, pytest.mark.slow])
    for kind in (ClickhouseServer, NewClickhouse)
]
ROWS: dict[str, Any] = {
    "key": np.array([1, 2**64 - 1, 3], np.uint64),
    "value": np.zeros(3, np.uint64),
    "observation_domain_id": np.array([7, 8, 2**32 - 1], np.uint32),
    "arrival_ns": np.array([-1, 0, 2**62], np.int64),
    "exporter_address": np.array([bytes(10) + b"\xff\xff\xc0\0\2\0", bytes(15) + b"\1", bytes(16)], "V16"),
    "name": ["it's", "ä\\\n\t", ""],
    "table": np.array([1, 0, 1], np.uint16),
}  # fmt: skip
WORDS = {"table": ["vrf", "interface"]}


@pytest.fixture(scope="module")
def opens(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opens]:
    """Return a function that opens a new, empty store of this kind."""
    numbers = count()
    if request.param == "chdb":
        folder = tmp_path_factory.mktemp("chdb")
        yield lambda: ChdbStore(folder, memory_bytes_max=CHDB_BYTES)  # one a process
        return
    if request.param is ClickhouseServer and not shutil.which("clickhouse-server"):
        leave_out("needs clickhouse-server: run deploy/test.sh as root, it installs it")
    server = request.param(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield lambda: ServerStore(server.settings(f"exam_{next(numbers)}"))
    server.kill()


@pytest.fixture
def opened(opens: Opens) -> AnyStore:
    """One that is new."""
    return opens()


@pytest.fixture(scope="module")
def shared_store(opens: Opens) -> AnyStore:
    return opens()


@pytest.fixture(scope="module")
def db(shared_store: AnyStore) -> Iterator[Connection]:
    made = shared_store.connect()
    migrate(made)
    yield made
    made.close()


class Both(Store):
    """What the imported tests know as a store, and as its connection."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


@pytest.fixture
def store(opened: AnyStore) -> Iterator[Store]:
    made = Both(opened)
    yield made
    made.connection.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "opens" in metafunc.fixturenames:
        of_all = {"shared_store", "db"} & set(metafunc.fixturenames)
        kinds = ["chdb", *SERVERS] if of_all else SERVERS
        metafunc.parametrize("opens", kinds, indirect=True, scope="module")


def test_columns_come_back_as_they_went_in_and_once_a_token(db: Connection) -> None:
    for token in ("a", "a", "b", "a"):
        db.insert("names", ROWS, token=token, words=WORDS)
    (counted,) = db.rows("select count() as n from names")
    assert counted == {"n": 6}
    found = db.rows(
        "select distinct table, key, name, observation_domain_id as domain, arrival_ns,"
        " exporter_address as address from names order by arrival_ns"
    )
    addresses = ("::ffff:192.0.2.0", "::1", "::")
    for i, row in enumerate(found):
        assert row == {
            "table": WORDS["table"][ROWS["table"][i]],
            "key": ROWS["key"][i],
            "name": ROWS["name"][i],
            "domain": ROWS["observation_domain_id"][i],
            "arrival_ns": ROWS["arrival_ns"][i],
            "address": addresses[i],
        }
    assert len(found) == 3


def test_texts_of_a_coded_column_need_no_words(db: Connection) -> None:
    names = [f"host-{i % 70_000}" for i in range(70_010)]  # more than two bytes can number
    columns = {"host": names, "arrival_ns": np.arange(len(names), dtype=np.int64)}
    db.insert("logs", columns, token="t")
    (found,) = db.rows("select count() as n, uniqExact(host) as hosts, max(host) as most from logs")
    assert found == {"n": 70_010, "hosts": 70_000, "most": "host-9999"}


def test_what_a_query_returns_is_inserted_once_a_token(db: Connection) -> None:
    query = (
        "select {period:UInt32}, number * 60, 'v', 'm', {id:UInt64}, 1, 2, 3, 4, 5, 6, 7, 0"
        " from system.numbers limit 10"
    )
    for token in ("a", "a", "b"):
        db.insert_rows_of("rollups", query, {"period": 60, "id": 2**64 - 1}, token=token)
    (found,) = db.rows("select count() as n, any(series_id) as id, any(p95) as p95 from rollups")
    assert found == {"n": 20, "id": 2**64 - 1, "p95": 7}


@pytest.mark.parametrize(
    "text", ["it's", "\\", "a\nb\t\0c", "{x:UInt64}", "'; drop table x --", "ä€😀"]
)
def test_values_are_bound_whatever_they_hold(db: Connection, text: str) -> None:
    asked = (
        "select {text:String} as text, length({text:String}) as bytes, {big:UInt64} as big,"
        " {below:Int64} as below, has({some:Array(UInt64)}, {big:UInt64}) as has"
    )
    values = {"text": text, "big": 2**64 - 1, "below": -(2**40), "some": [1, 2**64 - 1]}
    (found,) = db.rows(asked, values)
    wanted = {
        "text": text,
        "bytes": len(text.encode()),
        "big": 2**64 - 1,
        "below": -(2**40),
        "has": 1,
    }
    assert found == wanted
    data = text.encode()
    assert db.text("select {text:String} as t", "RowBinary", values) == bytes([len(data)]) + data


def test_answers_are_as_json_has_them(db: Connection) -> None:
    (found,) = db.rows(
        "select toDateTime(86400, 'UTC') as time, toDate('2026-11-28') as day, nan as none,"
        " 1 / 3 as third, toFloat64(7) as whole, 'x' as text, toUInt8(1) as one"
    )
    assert found == {
        "time": "1970-01-02 00:00:00", "day": "2026-11-28", "none": None, "third": 1 / 3,
        "whole": 7, "text": "x", "one": 1,
    }  # fmt: skip
    assert db.rows("select 1 as x where x = 2") == []


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("CSV", b'1,"a"\n'),
        ("JSONEachRow", b'{"n":1,"t":"a"}\n'),
        ("TabSeparatedWithNames", b"n\tt\n1\ta\n"),
        ("RowBinary", b"\1\0\0\0\0\0\0\0\1a"),
        ("Native", b"\2\1\1n\6UInt64\1\0\0\0\0\0\0\0\1t\6String\1a"),
    ],
)
def test_formats_are_the_engines(db: Connection, form: str, wanted: bytes) -> None:
    assert db.text("select toUInt64({n:UInt64}) as n, 'a' as t", form, {"n": 1}) == wanted


def test_a_wrong_statement_is_one_sentence_with_the_engines_code(db: Connection) -> None:
    for ask in (db.run, db.rows, lambda sql: db.text(sql, "CSV")):
        with pytest.raises(TransientError, match=r"nosuch") as raised:
            ask("select nosuch from frames")
        assert "\n" not in str(raised.value)
        assert "Stack" not in str(raised.value)
        assert str(raised.value.__cause__).startswith("Code: 47")
    with pytest.raises(TransientError, match="absent"):
        db.rows("select {absent:String}")
    assert db.rows("select 1 as one") == [{"one": 1}], "and the connection goes on"


def test_a_reader_changes_nothing_and_has_limits(shared_store: AnyStore, db: Connection) -> None:
    before = db.rows("select count() as n from names")
    reader = shared_store.connect(read_only=True, seconds_max=1, rows_max=1_000)
    for sql in (
        "drop table names",
        "alter table names delete where 1",
        "create table x (a Int8) engine = Log",
    ):
        with pytest.raises(TransientError, match=r"(?i)readonly"):
            reader.run(sql)
    with pytest.raises(TransientError, match=r"(?i)readonly"):
        reader.text("drop table names", "CSV")
    big = "select number from system.numbers limit 10000000"
    assert len(reader.rows(big)) < 200_000
    assert reader.text(big, "CSV").count(b"\n") < 200_000
    reader.close()
    assert db.rows("select count() as n from names") == before


def test_readers_answer_as_on_chdb(opens: Opens, opened: AnyStore, tmp_path: Path) -> None:
    answers = [_answers(one) for one in (opened, ChdbStore(tmp_path, memory_bytes_max=CHDB_BYTES))]
    assert len(answers[0]) == len(answers[1])
    for ours, theirs in zip(*answers, strict=True):
        assert ours == theirs


def _answers(store: AnyStore) -> list[Any]:
    """Return what each question to a reader is answered after the same ticks, findings and alarms."""
    connection = store.connect()
    writer = Store.writer(made := Both(store))
    alarms = batch_from_rows(
        ALARM,
        [
            {"changed_ns": end_ns(i), "alarm_id": 5, "state": "raised", "entity": "ams1"}
            for i in range(3)
        ],
    )
    incidents = batch_from_rows(
        INCIDENT, [{"changed_ns": end_ns(i), "incident_id": 9} for i in range(3)]
    )
    found = batch_from_rows(
        ANOMALY,
        [
            {"tick_start_ns": end_ns(0), "series_id": 100 + i, "disposition": "digest", "score": i}
            for i in range(4)
        ],
    )
    names = batch_from_rows(
        SERIES,
        [
            {"series_id": 100 + i, "view": "interface", "entity": f"r{i // 2}_x", "key": f"k'{i}"}
            for i in range(5)
        ],
    )
    writer.tick(end_ns(-1), [names, found, alarms, incidents])
    feed(writer, range(200))
    writer.flush()
    reader = HistoryReader(store.connect(read_only=True, seconds_max=20, rows_max=100_000))
    since, until = end_ns(-1), end_ns(200)
    told: list[Any] = [
        reader.series(
            "view=interface,measure=octets",
            since_ns=since,
            until_ns=until,
            step_seconds=step,
            aggregates=tuple(AGGREGATES),
        )
        for step in (0, 5, 60, 900)
    ]
    told.append(reader.series("entity=r1_*", since_ns=since, until_ns=until, step_seconds=300))
    told.append(reader.line([101], "", measure="octets", since_ns=since, until_ns=until))
    told.append(reader.line([], "r0_x", measure="nosuch", since_ns=since, until_ns=until))
    for entity, vectors in reader.vectors(
        "view=interface", at_ns=until, window_seconds=300, step_seconds=10
    ).items():
        told.append((entity, vectors.columns, vectors.values.tolist()))
    for batch in reader.frames("interface", start_ns=since, end_ns=since + 10 * SECOND):
        told.append({name: batch[name].tolist() for name in batch.columns})
    told += [reader.digest(), reader.alarm_load(since_ns=0), reader.incident(9), reader.incident(8)]
    told += [
        [{name: row[name] for name in ("changed_ns", "state", "entity")} for row in rows]
        for rows in (reader.alarms(since_ns=0), reader.alarm_changes(5))
    ]
    told.append([row["changed_ns"] for row in reader.incidents(since_ns=0)])
    told.append(
        reader.sql("select view, count() from frames group by view order by view format CSV")
    )
    reader._db.close()
    connection.close()
    made.connection.close()
    return told


@pytest.mark.live
def test_a_user_in_another_time_zone_is_refused(tmp_path: Path) -> None:
    server = NewClickhouse(tmp_path)
    server.start()
    try:
        settings = msgspec.structs.replace(server.settings(), user="Asia/Kolkata")
        said = r"time zone Asia/Kolkata: .* no other session_timezone for user 'Asia/Kolkata'"
        with pytest.raises(ConfigError, match=said):
            ServerStore(settings).connect().rows("select 1 as one")
        with pytest.raises(ConfigError, match=said):
            ServerStore(settings).look()
        settings = msgspec.structs.replace(settings, user="Etc/UTC")
        connection = ServerStore(settings).connect()
        assert connection.rows("select 1 as one") == [{"one": 1}]
        connection.close()
    finally:
        server.kill()
