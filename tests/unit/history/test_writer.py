"""The writer on the embedded engine: each tick once, rollups equal to what the ticks say."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import history.writer
from history.chdb_store import ChdbStore
from history.store import Store as AnyStore
from history.store import migrate
from history.writer import BESIDE, HistoryWriter
from runtime.clock import ManualClock
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import TransientError
from telemetry.schema import plain
from telemetry.schemas import ALARM, CATALOGUE, FRAME, LOG, OPTION, ROUTE, SERIES
from tocsin.testing import make_context

SECOND = 10**9
START_S = 1_795_478_400  # a midnight
TICK_S = 5
SERIES_COUNT = 7


class Store:
    """A store whose connections are counted, so that writers can be killed and begun anew."""

    def __init__(self, made: AnyStore) -> None:
        self.connection = made.connect()
        migrate(self.connection)
        self._starts = 0

    def writer(self, connection: Any = None) -> HistoryWriter:
        """Return a started writer, as after a restart of the process."""
        made = self.unstarted(connection)
        made.start()
        return made

    def unstarted(self, connection: Any = None) -> HistoryWriter:
        """Return a writer that is not started."""
        self._starts += 1
        clock = ManualClock(self._starts)
        return HistoryWriter(connection or self.connection, make_context("history", clock=clock))

    def one(self, sql: str) -> Any:
        """Return the only value of a query."""
        (row,) = self.connection.rows(sql)
        (value,) = row.values()
        return value


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(ChdbStore(tmp_path, memory_bytes_max=400 * 1024**2))
    yield made
    made.connection.close()


def frame(tick: int, *, view: str = "interface", rows: int = SERIES_COUNT) -> Batch:
    """Return the frame of one tick: octets with scores, distinct_source_address without."""
    schema = FRAME.wider(
        plain("octets", "u8", "By"),
        plain("distinct_source_address", "f8"),
        *(plain(f"octets_{name}", "f4") for name in ("expected", "lower", "upper", "score")),
        plain("octets_p_value", "f8"),
    )
    made = [
        {
            "tick_start_ns": (START_S + tick * TICK_S) * SECOND,
            "tick_seconds": TICK_S,
            "view": view,
            "series_id": 100 + i,
            "octets": (i + 1) * 1000 + tick * 10,
            "distinct_source_address": i + 0.5,
            "octets_expected": i * 200.0,
            "octets_score": 0.25,
        }
        for i in range(rows)
    ]
    return batch_from_rows(schema, made)


def end_ns(tick: int) -> int:
    return (START_S + (tick + 1) * TICK_S) * SECOND


def feed(writer: HistoryWriter, ticks: range) -> None:
    for tick in ticks:
        writer.tick(end_ns(tick), [frame(tick), frame(tick, view="service")])


def rows_of(store: Store) -> int:
    return int(store.one("select count() from frames"))


ROWS_PER_TICK = 2 * 2 * SERIES_COUNT  # views, measures


def check_rollups(store: Store) -> None:
    """Compare every rollup row with a plain computation over the ticks, in numpy."""
    ticks = store.connection.rows("select tick_end_ns, view, measure, series_id, value from frames")
    rolled = store.connection.rows("select * from rollups")
    groups: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
    newest_s = max(row["tick_end_ns"] for row in ticks) // SECOND
    for period in history.writer.PERIODS:
        for row in ticks:
            bucket = (row["tick_end_ns"] - 1) // SECOND // period * period
            if bucket + period <= newest_s:
                key = (period, bucket, row["view"], row["measure"], row["series_id"])
                groups.setdefault(key, []).append((row["tick_end_ns"], row["value"]))
    found = {(r["period"], r["bucket"], r["view"], r["measure"], r["series_id"]): r for r in rolled}
    assert len(found) == len(rolled), "a bucket is there twice"
    assert found.keys() == groups.keys()
    for key, pairs in groups.items():
        values = np.array([value for _, value in sorted(pairs)])
        row = found[key]
        assert row["count"] == len(values)
        assert row["sum"] == pytest.approx(values.sum(), rel=1e-9)
        assert row["sum_squares"] == pytest.approx((values**2).sum(), rel=1e-9)
        assert (row["min"], row["max"], row["last"]) == (values.min(), values.max(), values[-1])
        assert row["p95"] == np.sort(values)[int(0.95 * len(values))]


def test_a_tick_is_stored_in_long_form_with_rates_and_scores(store: Store) -> None:
    writer = store.writer()
    writer.tick(end_ns(0), [frame(0)])
    assert writer.waiting_rows == 2 * SERIES_COUNT
    writer.flush()
    assert writer.waiting_rows == 0
    (row,) = store.connection.rows(
        "select * from frames where series_id = 101 and measure = 'octets'"
    )
    assert row["value"] == 2000 / TICK_S
    assert (row["expected"], row["score"], row["view"]) == (200.0, 0.25, "interface")
    distinct = store.one(
        "select value from frames where series_id = 101 and measure = 'distinct_source_address'"
    )
    assert distinct == 1.5, "a distinct count is no rate"


def test_rollups_equal_a_computation_over_the_ticks(store: Store) -> None:
    writer = store.writer()
    for first in range(0, 400, 37):  # 2,000 s: several minutes and quarters of an hour
        feed(writer, range(first, min(first + 37, 400)))
        writer.flush()
    assert rows_of(store) == 400 * ROWS_PER_TICK
    assert store.one("select uniqExact(period) from rollups") == 2
    check_rollups(store)


def test_a_rollup_no_longer_than_a_tick_is_left_out(store: Store) -> None:
    writer = store.writer()
    schema = FRAME.wider(plain("octets", "u8"))
    for tick in range(20):
        row = {"tick_start_ns": (START_S + tick * 60) * SECOND, "tick_seconds": 60, "view": "v"}
        writer.tick((START_S + tick * 60 + 60) * SECOND, [batch_from_rows(schema, [row])])
    writer.flush()
    periods = store.connection.rows("select distinct period from rollups")
    assert periods == [{"period": 900}]


@pytest.mark.parametrize("killed_after", range(6))
def test_a_writer_that_dies_anywhere_leaves_each_tick_once(
    store: Store, killed_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next writer gets the ticks again from an old cursor, cut into other groups."""
    monkeypatch.setattr(history.writer, "ROWS_PER_INSERT", 3 * ROWS_PER_TICK)

    class Dying:
        """A connection whose process is killed after some statements that write."""

        left = killed_after

        def __getattr__(self, name: str) -> Any:
            return getattr(store.connection, name)

        def _count(self) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1

        def insert(self, *arguments: Any, **named: Any) -> None:
            self._count()
            store.connection.insert(*arguments, **named)

        def run(self, *arguments: Any) -> None:
            self._count()
            store.connection.run(*arguments)

    first = store.writer(Dying())
    feed(first, range(20))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # where it dies is the parameter
        first.flush()
        feed(first, range(20, 40))
        first.flush()
    second = store.writer()
    feed(second, range(31))
    second.flush()
    feed(second, range(31, 50))
    second.flush()
    assert rows_of(store) == 50 * ROWS_PER_TICK
    assert store.one("select uniqExact(tick_end_ns) from frames") == 50
    check_rollups(store)


def test_a_tick_cut_off_in_the_middle_is_written_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick larger than an insert goes in pieces; a kill between them must not lose the rest."""
    monkeypatch.setattr(history.writer, "ROWS_PER_INSERT", 10)
    feed(whole := store.writer(), range(3))
    whole.flush()
    store.connection.run(
        f"alter table frames delete where tick_end_ns = {end_ns(2)}"
        " and measure = 'octets' settings mutations_sync = 2"
    )
    assert rows_of(store) == 3 * ROWS_PER_TICK - 2 * SERIES_COUNT
    again = store.writer()
    feed(again, range(1, 4))
    again.flush()
    assert rows_of(store) == 4 * ROWS_PER_TICK
    most = store.one(
        "select max(n) from (select count() as n from frames"
        " group by view, measure, series_id, tick_end_ns)"
    )
    assert most == 1


def test_a_rollup_cut_off_in_the_middle_is_built_again(store: Store) -> None:
    feed(first := store.writer(), range(60))
    first.flush()
    store.connection.run(
        "alter table rollups delete where period = 60 and series_id = 103"
        " settings mutations_sync = 2"
    )
    second = store.writer()
    second.flush()
    check_rollups(store)


def test_a_refused_insert_is_tried_again_and_counts_once(store: Store) -> None:
    class Refusing:
        """A connection that writes and then does not answer, once."""

        refused = False

        def __getattr__(self, name: str) -> Any:
            return getattr(store.connection, name)

        def insert(self, *arguments: Any, **named: Any) -> None:
            store.connection.insert(*arguments, **named)
            if not self.refused:
                self.refused = True
                raise TransientError("no answer")

    writer = store.writer(Refusing())
    feed(writer, range(4))
    with pytest.raises(TransientError):
        writer.flush()
    assert writer.waiting_rows == 4 * ROWS_PER_TICK
    feed(writer, range(4, 5))
    writer.flush()
    assert rows_of(store) == 5 * ROWS_PER_TICK


def test_a_group_of_ticks_never_crosses_a_day(store: Store) -> None:
    inserted: list[tuple[int, int]] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.connection, name)

        def insert(self, table: str, columns: Any, **named: Any) -> None:
            days = (columns["tick_end_ns"] - 1) // (86_400 * SECOND)
            inserted.append((int(days.min()), int(days.max())))
            store.connection.insert(table, columns, **named)

    writer = store.writer(Watched())
    feed(writer, range(-3, 3))
    writer.flush()
    assert len(inserted) == 2
    assert all(first == last for first, last in inserted)


def test_rare_rows_of_a_tick_are_stored_once(store: Store) -> None:
    alarm = batch_from_rows(
        ALARM, [{"changed_ns": end_ns(0), "alarm_id": 5, "state": "raised", "entity": "ams1"}]
    )
    names = batch_from_rows(SERIES, [{"series_id": 100, "entity": "it's ams1", "key": "a\\b\n"}])
    for _ in range(2):  # the second time as after a crash before the cursor moved
        writer = store.writer()
        writer.tick(end_ns(0), [names, frame(0), alarm])
        writer.flush()
    assert store.one("select count() from alarms") == 1
    assert store.connection.rows("select entity, key from series") == [
        {"entity": "it's ams1", "key": "a\\b\n"}
    ]


def test_all_of_a_route_is_stored(store: Store) -> None:
    row = {
        "prefix_low": 0xFFFF_C0000200, "prefix_length": 24, "exporter_address_low": 0xFFFF_CB007101,
        "origin_as": 64500, "rib": 4, "change": 4, "mac_address": 2**48 - 1, "route_key": 2**64 - 1,
        "arrival_ns": end_ns(0), "next_hop_address_low": 0xFFFF_0A000001,
    }  # fmt: skip
    writer = store.writer()
    writer.tick(end_ns(0), [frame(0), batch_from_rows(ROUTE, [row])])
    writer.tick(end_ns(100), [])
    writer.flush()
    (found,) = store.connection.rows("select * from routes")
    assert {"peer_address", "time_ns"} <= set(found)
    assert len(found) == len(ROUTE.fields) - 4  # two columns of an address are one here
    assert (found["exporter_address"], found["next_hop_address"], found["prefix"]) == (
        "::ffff:203.0.113.1", "::ffff:10.0.0.1", "::ffff:192.0.2.0",
    )  # fmt: skip
    assert (int(found["route_key"]), found["rib"], found["change"]) == (2**64 - 1, 4, 4)


@pytest.mark.parametrize("schema", sorted(BESIDE))
def test_every_field_of_what_is_stored_beside_frames_has_its_column(
    store: Store, schema: str
) -> None:
    writer = store.writer()
    writer.tick(end_ns(0), [batch_from_rows(CATALOGUE[schema], [{}])], sequence=1)
    writer.tick(end_ns(100), [])
    writer.flush()
    assert store.one(f"select count() from {BESIDE[schema]}") == 1


@pytest.mark.parametrize("killed_at", [3, 10, 11, 19, 24])
@pytest.mark.parametrize("committed", [True, False], ids=["cursor-moved", "cursor-stood"])
def test_log_lines_are_gathered_and_stored_once(
    store: Store, killed_at: int, committed: bool
) -> None:
    """Ten seconds of lines are one insert; a writer that dies between leaves none twice, none out."""

    def lines(second: int) -> Batch:
        texts = (f"line {second}-{k}" for k in range(3))
        return batch_from_rows(LOG, [{"time_ns": second, "host": "a", "message": t} for t in texts])

    cursor, inserts = 0, 0
    for writer, seconds in ((store.writer(), killed_at), (store.writer(), 60)):
        for second in range(cursor, seconds):
            writer.tick((START_S + second) * SECOND, [lines(second)], sequence=second + 1)
            inserts += writer.waiting_rows > 0
            writer.flush()
            moved = (writer.gathers_from or second + 2) - 1
            if committed or second + 1 < seconds:
                cursor = moved
    writer.tick((START_S + 100) * SECOND, [])
    writer.flush()
    assert inserts <= 8
    counts = "select count() as a, uniqExact(message) as b from logs"
    assert store.connection.rows(counts) == [{"a": 180, "b": 180}]


def test_a_log_pattern_has_its_template(store: Store) -> None:
    """The newest name of a key counts; a pattern that became part of another names it."""
    rows = [
        {"table": "log-pattern", "key": 5, "name": "port <*> is full", "arrival_ns": 1},
        {"table": "log-pattern", "key": 5, "name": "<*> is full", "value": 7, "arrival_ns": 2},
        {"table": "log-pattern", "key": 7, "name": "<*> is full", "arrival_ns": 2},
    ]
    line = {"arrival_ns": end_ns(0), "pattern_id": 5, "message": "port 1 is full"}
    writer = store.writer()
    writer.tick(end_ns(0), [batch_from_rows(OPTION, rows), batch_from_rows(LOG, [line])])
    writer.tick(end_ns(100), [])
    writer.flush()
    found = store.connection.rows(
        "select message, name, value from logs join"
        " (select key, name, value from names final where table = 'log-pattern') as n"
        " on pattern_id = n.key"
    )
    assert [(row["message"], row["name"], int(row["value"])) for row in found] == [
        ("port 1 is full", "<*> is full", 7)
    ]


def test_migrations_run_once_and_forward(store: Store) -> None:
    version = migrate(store.connection)
    assert version == store.one("select max(version) from migrations")
    assert store.one("select count() from migrations") == version


def test_rollups_outlive_the_ticks_they_were_built_from(store: Store) -> None:
    feed(first := store.writer(), range(60))
    first.flush()
    rolled = store.one("select count() from rollups")
    store.connection.run(
        f"alter table frames delete where tick_end_ns < {end_ns(40)} settings mutations_sync = 2"
    )
    store.writer().flush()
    assert store.one("select count() from rollups") == rolled > 0


def test_a_process_killed_in_an_insert_leaves_no_block_behind(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from history.chdb_store import ChdbConnection, ChdbStore\n"
        "connection = ChdbStore(Path(sys.argv[1]), memory_bytes_max=400 << 20).connect()\n"
        "def killed(*_):\n"
        "    for fd in os.listdir('/proc/self/fd'):\n"
        "        try: print(os.readlink(f'/proc/self/fd/{fd}'), flush=True)\n"
        "        except OSError: pass\n"
        "    os.kill(os.getpid(), 9)\n"
        "ChdbConnection._query = killed\n"
        "connection.insert('t', {'a': ['x']}, token='t')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "history")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    held = [path for path in done.stdout.splitlines() if "tocsin-" in path]
    assert held, "the block is in a file of the process"
    assert [path for path in held if Path(path).exists()] == []
