"""Logs, routes and views of other lateness in the history: each once, whole, rolled up when it is over."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from history.chdb_store import ChdbStore
from history.config import HistorySettings
from history.feeder import HistoryFeeder
from history.reader import HistoryReader
from history.retention import Retention
from history.writer import BESIDE, HistoryWriter
from runtime.journal import BlockKind
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_pair
from telemetry.schema import plain
from telemetry.schemas import ALARM, CATALOGUE, FRAME, LOG, ROUTE, SERIES
from tests.unit.history.test_writer import SECOND, START_S, Store
from tocsin.testing import make_context

ROLLED = "select 1 from rollups where view = 'sample' and period = 60"
VALUE = FRAME.wider(plain("value", "f8"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(ChdbStore(tmp_path, memory_bytes_max=400 * 1024**2))
    yield made
    made.connection.close()


def at(seconds: float) -> int:
    return round((START_S + seconds) * SECOND)


def logs(*messages: str, seconds: float = 0.0) -> Batch:
    rows = [
        {"time_ns": at(seconds), "arrival_ns": at(seconds), "host": "ams1", "app": "rpd", "severity": 3,
         "message": text, "event": "link-down", "novelty": 1}
        for text in messages
    ]  # fmt: skip
    return batch_from_rows(LOG, rows)


def route(prefix: str) -> Batch:
    pair, peer = address_pair(prefix), address_pair("2001:db8::1")
    row = {"time_ns": at(0), "arrival_ns": at(0), "prefix_length": 24, "origin_as": 64500,
           "prefix_high": pair[0], "prefix_low": pair[1],
           "peer_address_high": peer[0], "peer_address_low": peer[1]}  # fmt: skip
    return batch_from_rows(ROUTE, [row])


def frame(view: str, start_s: float, *values: float, seconds: float, closed_s: float) -> Batch:
    rows = [
        {"tick_start_ns": at(start_s), "tick_seconds": seconds, "view": view, "series_id": 7 + i, "value": v}
        for i, v in enumerate(values)
    ]  # fmt: skip
    return batch_from_rows(VALUE, rows, frontier_ns=at(closed_s))


def test_every_schema_beside_frames_fits_its_table(store: Store) -> None:
    for schema, table in BESIDE.items():
        writer = store.writer()
        writer.tick(at(1), [batch_from_rows(CATALOGUE[schema], [{}])])
        writer.tick(at(10), [])  # what was gathered goes in when ten seconds are over
        writer.flush()
        assert store.one(f"select count() from {table}") == 1, table


def test_logs_and_routes_are_stored_once_however_often_they_come(store: Store) -> None:
    for _ in range(2):  # a desk that died before its cursor moved
        writer = store.writer()
        writer.tick(at(1), [logs("a", "b"), logs("c"), route("198.51.100.0")])
        writer.tick(at(10), [])
        writer.flush()
        assert writer.waiting_rows == 0
    found = store.connection.rows("select * from logs order by message")
    assert [row["message"] for row in found] == ["a", "b", "c"]
    assert (found[0]["host"], found[0]["event"], found[0]["novelty"]) == ("ams1", "link-down", 1)
    (one,) = store.connection.rows("select * from routes")
    assert (one["prefix"], one["peer_address"]) == ("::ffff:198.51.100.0", "2001:db8::1")


def test_views_that_close_at_other_times_go_in_by_closing_time(store: Store) -> None:
    """Ten seconds of samples close before the minute that ended earlier, and both are there once."""
    writer = store.writer()
    ticks = [
        (25, frame("sample", 10, 1.0, seconds=10, closed_s=25)),
        (90, frame("flows", 0, 2.0, seconds=60, closed_s=90)),
        (95, frame("sample", 80, 3.0, seconds=10, closed_s=95)),
    ]
    for closed_s, batch in ticks[:2]:
        writer.tick(at(closed_s), [batch])
    writer.flush()
    again = store.writer()  # a restart: the newest tick is looked at, those before are known
    for closed_s, batch in ticks:
        again.tick(at(closed_s), [batch])
    again.flush()
    found = store.connection.rows(
        "select view, tick_end_ns, closed_ns, value from frames order by closed_ns"
    )
    assert [(r["view"], r["tick_end_ns"], r["closed_ns"], r["value"]) for r in found] == [
        ("sample", at(20), at(25), 1.0), ("flows", at(60), at(90), 2.0), ("sample", at(90), at(95), 3.0),
    ]  # fmt: skip


def test_a_tick_of_two_days_is_mended_on_each(store: Store) -> None:
    """A slow view's tick of yesterday closes with today's: one closing time, two partitions."""
    day = 86_400
    tick = [
        frame("slow", day - 900, 1.0, 2.0, seconds=900, closed_s=day + 600),
        frame("fast", day + 585, 3.0, seconds=10, closed_s=day + 600),
    ]
    writer = store.writer()
    writer.tick(at(day + 600), tick)
    writer.flush()
    store.connection.run(
        "alter table frames delete where view = 'slow' and series_id = 8"
        " settings mutations_sync = 2"
    )
    again = store.writer()
    again.tick(at(day + 600), tick)
    again.flush()
    rows = store.connection.rows("select view, value from frames order by value")
    assert [(row["view"], row["value"]) for row in rows] == [
        ("slow", 1.0), ("slow", 2.0), ("fast", 3.0),
    ]  # fmt: skip


def test_a_minute_is_rolled_up_when_its_views_are_over_and_no_sooner(store: Store) -> None:
    writer = store.writer()
    for end_s in range(10, 130, 10):
        writer.tick(
            at(end_s + 5),
            [frame("sample", end_s - 10, float(end_s), seconds=10, closed_s=end_s + 5)],
        )
        if end_s == 50:
            writer.flush()
            assert not store.connection.rows(ROLLED), "its last tick is to come"
    writer.tick(at(1500), [frame("slow", 0, 9.0, seconds=900, closed_s=1500)])
    writer.flush()
    rolled = {
        (r["view"], r["period"], r["bucket"] - START_S): (r["count"], r["sum"])
        for r in store.connection.rows("select * from rollups")
    }
    assert rolled["sample", 60, 0] == (6, 210.0)
    assert rolled["sample", 60, 60] == (6, 570.0)
    assert rolled["slow", 900, 0] == (1, 9.0)
    assert ("slow", 60, 840) not in rolled, "the tick once more"
    reader = HistoryReader(store.connection)
    _, rows = reader.series("view=sample", since_ns=at(0), until_ns=at(120), step_seconds=60)
    assert [(row["time_s"] - START_S, row["avg"]) for row in rows] == [(0, 35.0), (60, 95.0)]
    # Slow ticks have no minutes: asked for together, ticks answer.
    _, rows = reader.series("measure=value", since_ns=at(0), until_ns=at(900), step_seconds=60)
    assert {row["view"] for row in rows} == {"sample", "slow"}


def test_a_silent_gauge_has_no_row(store: Store) -> None:
    writer = store.writer()
    writer.tick(at(15), [frame("sample", 0, np.nan, 4.0, seconds=10, closed_s=15)])
    writer.flush()
    assert [row["series_id"] for row in store.connection.rows("select * from frames")] == [8]  # fmt: skip


def test_the_feeder_stores_events_at_once_and_alarms_from_results(
    store: Store, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    context = make_context("history")
    journal = JournalWriter(state / "journal", make_context("journal"))
    journal.start()
    stated = batch_from_rows(ALARM, [{"changed_ns": at(1), "alarm_id": 1, "source": "traps"}])
    became = batch_from_rows(ALARM, [{"changed_ns": at(1), "alarm_id": 1, "kind": "linkDown"}])
    names = batch_from_rows(SERIES, [{"series_id": 7, "view": "sample", "entity": "ams1"}])
    journal.append(BlockKind.TICK, at(1), [logs("a"), stated], sync=True)
    journal.append(BlockKind.RESULT, at(1), [became], sync=False)
    journal.append(BlockKind.TICK, at(2), [logs("b")], sync=True)  # nothing came of it
    tick = frame("sample", 0, 1.0, seconds=10, closed_s=15)
    journal.append(BlockKind.TICK, at(15), [names, tick, logs("c")], sync=True)
    journal.append(BlockKind.RESULT, at(15), [tick], sync=False)
    for closed_s in (25, 35):  # minutes of quiet: what was gathered is over
        later = frame("sample", closed_s - 15, closed_s, seconds=10, closed_s=closed_s)
        journal.append(BlockKind.TICK, at(closed_s), [later], sync=True)
        journal.append(BlockKind.RESULT, at(closed_s), [later], sync=False)
    feeder = HistoryFeeder(
        state, store.unstarted, Retention(store.connection, HistorySettings()), context
    )
    feeder.start()
    for _ in range(500):
        if feeder.next_sequence == journal.next_sequence:
            break
        context_wait()
    feeder.stop()
    journal.stop()

    def column(table: str, name: str) -> list[Any]:
        rows = store.connection.rows(f"select {name} from {table} order by {name}")
        return [row[name] for row in rows]

    assert column("logs", "message") == ["a", "b", "c"]
    assert column("alarms", "kind") == ["linkDown"]
    assert column("frames", "value") == [1.0, 25.0, 35.0]
    assert column("series", "entity") == ["ams1"]


def refused(monkeypatch: pytest.MonkeyPatch, what: str) -> list[int]:
    """Have the machine refuse one kind of thing three times; return the list that counts the refusals."""
    told: list[int] = []

    def refuse(code: int) -> None:
        if len(told) < 3:
            told.append(code)
            raise OSError(code, os.strerror(code))

    if what == "half a tick":
        take = HistoryWriter.tick

        def taken(writer: HistoryWriter, *given: Any, **more: Any) -> None:
            take(writer, *given, **more)
            if len(told) < 3:
                told.append(0)
                raise MemoryError

        monkeypatch.setattr(HistoryWriter, "tick", taken)
        return told
    if what == "memory":
        make = os.memfd_create

        def made(name: str) -> int:
            refuse(errno.ENOMEM)
            return make(name)

        monkeypatch.setattr(os, "memfd_create", made)
        return told
    real = Path.open
    suffix, mode, code = {
        "journal": (".arrows", "rb", errno.EIO),
        "descriptors": (".arrows", "rb", errno.EMFILE),
        "cursor": (".new", "w", errno.ENOSPC),
    }[what]

    def opened(path: Path, opens: str = "r", *args: Any, **more: Any) -> Any:
        if threading.current_thread().name == "history" and path.suffix == suffix and opens == mode:
            refuse(code)
        return real(path, opens, *args, **more)

    monkeypatch.setattr(Path, "open", opened)
    return told


@pytest.mark.parametrize("what", ["journal", "descriptors", "cursor", "memory", "half a tick"])
def test_the_feeder_outlives_what_the_machine_refuses_and_loses_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("history.feeder.RETRY_SECONDS", 0.02)
    state = tmp_path / "state"
    context = make_context("history")
    journal = JournalWriter(state / "journal", make_context("journal"))
    journal.start()
    feeder = HistoryFeeder(
        state, store.unstarted, Retention(store.connection, HistorySettings()), context
    )
    feeder.start()
    told = refused(monkeypatch, what)
    for number in range(4):
        ends = 10 * number + 15
        tick = frame("sample", ends - 15, float(number), seconds=10, closed_s=ends)
        journal.append(BlockKind.TICK, at(ends), [tick], sync=True)
        journal.append(BlockKind.RESULT, at(ends), [tick], sync=False)
    for _ in range(500):
        if feeder.next_sequence == journal.next_sequence and not feeder.health():
            break
        context_wait()
    health = feeder.health()
    feeder.stop()
    journal.stop()
    rows = store.connection.rows("select value from frames order by value")
    assert [row["value"] for row in rows] == [0.0, 1.0, 2.0, 3.0]
    assert health == ""
    assert len(told) == 3
    assert context.metrics.value("history_refusals_total") == 3
    assert context.metrics.value("history_stands_still") == 0
    assert (os.strerror(told[0]) if told[0] else "MemoryError") in caplog.text
    assert "nothing is lost" in caplog.text


def context_wait() -> None:
    from runtime.clock import SystemClock

    SystemClock().sleep(0.02)


def test_logs_go_by_age_and_before_ticks_for_room(store: Store) -> None:
    day = 86_400
    writer = store.writer()
    for number in range(4):
        seconds = number * day + 100.0
        tick = frame("v", seconds - 60, 1.0, seconds=60, closed_s=seconds)
        writer.tick(at(seconds), [logs("x", seconds=seconds), tick])
    writer.tick(at(3 * day + 200), [])
    writer.flush()
    by_age = Retention(store.connection, HistorySettings(logs_days=2))
    gone = by_age.trim(at(4 * day))
    assert [name.split()[0] for name in gone] == ["logs"] * 2
    for_room = Retention(store.connection, HistorySettings(disk_bytes_max=1))
    gone = for_room.trim(at(3 * day + 200))
    tables = [name.split()[0] for name in gone]
    assert tables[0] == "logs"
    assert tables.count("logs") == 1, "the newest day stays"
    assert tables.count("frames") == 3
