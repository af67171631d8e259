"""The reader gives back what the writer stored: whole ticks, and matrices that know no future."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from alerting.life.load import load_of
from history.chdb_store import ChdbStore
from history.reader import HistoryReader
from history.store import migrate
from history.writer import HistoryWriter
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError, TransientError
from telemetry.schema import plain
from telemetry.schemas import ALARM, FRAME, SERIES
from tocsin.testing import make_context

SECOND = 10**9
START_S = 1_795_478_400  # a midnight
TICK_S = 5
TICKS = 60
SILENT_TICKS = 24  # of the last series, from the first tick on: two minutes
SERIES_COUNT = 4
SCHEMA = FRAME.wider(plain("octets", "u8", "By"), plain("distinct_source_address", "f8"))

DAY = 86_400 * SECOND
# (alarm, days before the start, state): 1 stands for long, 2 is over, 3 came again, 4 is too old to be known.
ALARMS = [
    {"changed_ns": START_S * SECOND - round(days * DAY), "alarm_id": number, "state": state,
     "raised_ns": START_S * SECOND - 40 * DAY, "entity": f"r{number}", "kind": "fan", "operator_state": "none"}
    for number, days, state in (
        (1, 40, "raised"), (1, 39, "updated"), (2, 30, "raised"), (2, 29, "cleared"),
        (3, 3, "raised"), (3, 2, "cleared"), (3, 0.5, "raised"), (4, 120, "raised"),
    )
]  # fmt: skip


def frame(tick: int, *, rows: int = SERIES_COUNT) -> Batch:
    return batch_from_rows(
        SCHEMA,
        [
            {
                "tick_start_ns": (START_S + tick * TICK_S) * SECOND,
                "tick_seconds": TICK_S,
                "view": "interface",
                "series_id": 100 + i,
                "flags": tick % 2,
                "lost_share": 0.25,
                "octets": 5 * (1000 * i + tick),
                "distinct_source_address": i + 0.5,
            }
            for i in range(rows)
        ],
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    folder: Path = tmp_path_factory.mktemp("history")
    made = ChdbStore(folder, memory_bytes_max=400 * 1024**2)
    connection = made.connect()
    migrate(connection)
    writer = HistoryWriter(connection, make_context("history"))
    writer.start()
    names = batch_from_rows(
        SERIES,
        [
            {"series_id": 100 + i, "view": "interface", "entity": f"r{i // 2}", "key": f"k{i}"}
            for i in range(SERIES_COUNT)
        ],
    )
    writer.tick(START_S * SECOND, [batch_from_rows(ALARM, ALARMS)])
    for tick in range(TICKS):
        rows = SERIES_COUNT if tick >= SILENT_TICKS else SERIES_COUNT - 1
        end_ns = (START_S + (tick + 1) * TICK_S) * SECOND
        writer.tick(end_ns, [*([names] if tick == 0 else []), frame(tick, rows=rows)])
        writer.flush()
    yield made
    connection.close()


def reader(store: ChdbStore, *, rows_max: int = 100_000) -> HistoryReader:
    return HistoryReader(store.connect(read_only=True, seconds_max=20, rows_max=rows_max))


def test_frames_are_the_ticks_that_were_stored(store: ChdbStore) -> None:
    start_ns = (START_S + 10 * TICK_S) * SECOND
    got = list(reader(store).frames("interface", start_ns=start_ns, end_ns=start_ns + 25 * SECOND))
    assert len(got) == 5, "half open: the tick that starts at the end is not in it"
    for number, batch in enumerate(got, start=10):
        wanted = frame(number, rows=SERIES_COUNT - 1)
        for name in ("tick_start_ns", "tick_seconds", "series_id", "flags", "lost_share"):
            np.testing.assert_array_equal(batch[name], wanted[name])
        for name in ("octets", "distinct_source_address"):
            np.testing.assert_allclose(batch[name], wanted[name].astype(float), rtol=1e-12)
        assert set(batch.texts("view")) == {"interface"}


def test_frames_of_a_view_that_is_not_there_are_none(store: ChdbStore) -> None:
    assert not list(reader(store).frames("service", start_ns=0, end_ns=1 << 62))


def test_a_measure_that_a_series_lacks_is_nan(store: ChdbStore) -> None:
    connection = store.connect()
    end_ns = (START_S + 3600) * SECOND
    for series, measure in ((1, "a"), (2, "b")):
        connection.run(
            "insert into frames (tick_end_ns, tick_seconds, view, measure, series_id,"
            f" value) values ({end_ns}, 5, 'gaps', '{measure}', {series}, 2.0)"
        )
    connection.close()
    (batch,) = reader(store).frames("gaps", start_ns=0, end_ns=1 << 62)
    np.testing.assert_array_equal(batch["a"], [10.0, np.nan])
    np.testing.assert_array_equal(batch["b"], [np.nan, 10.0])


def test_a_tick_cut_by_the_limit_of_rows_is_refused(store: ChdbStore) -> None:
    connection = store.connect()
    connection.run(
        "insert into frames (tick_end_ns, tick_seconds, view, measure, series_id, value)"
        f" select {START_S * SECOND}, 5, 'wide', 'a', number, 1 from numbers(300000)"
    )
    connection.close()
    (batch,) = reader(store, rows_max=1_000_000).frames("wide", start_ns=0, end_ns=1 << 62)
    assert batch.rows == 300_000
    with pytest.raises(TransientError, match=r"raise history\.query_rows_max"):
        list(reader(store, rows_max=1_000).frames("wide", start_ns=0, end_ns=1 << 62))


@pytest.mark.parametrize("step", [pytest.param(10, id="ticks"), pytest.param(60, id="rollups")])
def test_vectors_are_means_by_step_and_entity(store: ChdbStore, step: int) -> None:
    at_s = START_S + TICKS * TICK_S
    got = reader(store).vectors(
        "view=interface,measure=octets", at_ns=at_s * SECOND, window_seconds=240, step_seconds=step
    )
    assert list(got) == ["r0", "r1"]
    assert got["r0"].columns == (("interface", "octets", 100), ("interface", "octets", 101))
    assert got["r1"].values.shape == (240 // step, 2)
    assert got["r1"].time_s[-1] == at_s - step
    per = step // TICK_S
    for i, name in enumerate(("r0", "r0", "r1", "r1")):
        ticks = np.arange(12, TICKS).reshape(-1, per)
        wanted = 1000 * i + ticks.mean(axis=1)
        if i == SERIES_COUNT - 1:
            wanted[(ticks < SILENT_TICKS).all(axis=1)] = np.nan
        np.testing.assert_allclose(got[name].values[:, i % 2], wanted)


@pytest.mark.parametrize("step", [pytest.param(10, id="ticks"), pytest.param(60, id="rollups")])
def test_vectors_know_no_future(store: ChdbStore, step: int) -> None:
    """As of a moment inside a step: the step, whose later ticks are in the table, stays out."""
    middle_s = START_S + 180
    asked = [
        reader(store).vectors(
            "measure=octets,view=interface",
            at_ns=(middle_s + past) * SECOND + 1,
            window_seconds=120,
            step_seconds=step,
        )["r0"]
        for past in (0, step - 1)
    ]
    np.testing.assert_array_equal(asked[0].values, asked[1].values)
    assert asked[1].time_s[-1] + step <= middle_s + step - 1


def test_a_window_shorter_than_its_step_is_refused(store: ChdbStore) -> None:
    with pytest.raises(ConfigError, match="holds no step"):
        reader(store).vectors("measure=octets", at_ns=0, window_seconds=5, step_seconds=10)


def test_alarm_load_knows_what_stood_before_its_span(store: ChdbStore) -> None:
    rows = reader(store).alarm_load(since_ns=START_S * SECOND - DAY)
    assert [(row["alarm_id"], row["state"]) for row in rows] == [(1, "updated"), (3, "raised")]
    load = load_of(rows, since_ns=START_S * SECOND - DAY, until_ns=START_S * SECOND)
    assert (load.raises, load.standing) == (1, 2)
