"""Sampled series: values of a tick against plain sums, wraps, silence, caps, restarts, cuts and shards."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlator.sample_windows import SampleWindows
from correlator.views import SampleViewSettings, sample_view
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch, batch_from_rows
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import SAMPLE, FrameFlag
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_S = 1_790_596_800
TICK_S = 10
Frames = dict[tuple[int, str], float]


def windows(
    *, series_max: int = 100, idle_seconds: float = 1e6, context: Any = None
) -> SampleWindows:
    fast = SampleViewSettings(tick_seconds=TICK_S, lateness_seconds=5.0, series_max=series_max)
    slow = SampleViewSettings(tick_seconds=900.0, lateness_seconds=600.0, series_max=series_max)
    return SampleWindows(
        (sample_view("sample", fast), sample_view("slow_sample", slow)),
        context or make_context(), event_tick_ns=SECOND, idle_seconds=idle_seconds,
    )  # fmt: skip


class Given:
    """Names, and samples as (metric, seconds from the start, value, kind)."""

    def __init__(self, *, view: str = "sample") -> None:
        self.names = SeriesNames(view=view)

    def batches(
        self, *samples: tuple[str, float, float, SampleKind], late_s: float = 0.0
    ) -> list[Batch]:
        rows = [
            {
                "time_ns": round((START_S + at) * SECOND),
                "arrival_ns": round((START_S + at + late_s) * SECOND),
                "series_id": self.names.id("ams1", metric, {"if": metric}, unit="By"),
                "value": value,
                "kind": int(kind),
            }
            for metric, at, value, kind in samples
        ]
        new = self.names.new()
        return [*([new] if new else []), batch_from_rows(SAMPLE, rows)]


def at(seconds: float) -> int:
    return round((START_S + seconds) * SECOND)


def values(one: SampleWindows, made: list[Batch]) -> Frames:
    """(start of the tick in s from the start, metric): value, of every row but `__other__`."""
    found: Frames = {}
    for batch in made:
        if batch.schema.name != "frame":
            continue
        start = int(batch["tick_start_ns"][0]) // SECOND - START_S
        assert batch["flags"][-1] & FrameFlag.OTHER
        for series_id, value in zip(
            batch["series_id"][:-1].tolist(), batch["value"].tolist(), strict=False
        ):
            key = one.key(series_id)
            assert key is not None
            found[start, key.key["metric"]] = value
    return found


def play(
    one: SampleWindows, given_: Given, *samples: tuple[str, float, float, SampleKind], until: float
) -> Frames:
    """Give each sample in its second, ticks closing in between; return all values."""
    made: list[Batch] = []
    for second in range(int(until) + 1):
        made += one.advance(at(second))
        mine = [sample for sample in samples if int(sample[1]) == second]
        one.process(given_.batches(*mine) if mine else [])
    return values(one, made)


def rows_of(batch: Batch) -> tuple[int, list[tuple[int, float]]]:
    """(start of the tick, sorted rows) of a frame."""
    value = np.nan_to_num(batch["value"], nan=-1.0).tolist()
    pairs = zip(batch["series_id"].tolist(), value, strict=True)
    return int(batch["tick_start_ns"][0]), sorted(pairs)


G, C, D = SampleKind.GAUGE, SampleKind.COUNTER, SampleKind.DELTA


def test_a_gauge_is_the_mean_a_delta_a_rate_and_silence_is_told_apart() -> None:
    one, given_ = windows(), Given()
    one.process(
        given_.batches(("g", 1, 4.0, G), ("g", 9, 8.0, G), ("d", 2, 30.0, D), ("d", 3, 20.0, D))
    )
    assert one.next_deadline_ns() == at(15)
    assert one.advance(at(15) - 1) == []
    made = one.advance(at(15))
    assert [batch.schema.name for batch in made] == ["series", "frame"]
    assert sorted(made[0].texts("unit")) == ["By", "By/s"]  # a delta is a rate in frames
    assert made[1].frontier_ns == at(15)
    assert values(one, made) == {(0, "g"): 6.0, (0, "d"): 5.0}
    silent = values(one, one.advance(at(25)))
    assert math.isnan(silent[10, "g"])
    assert silent[10, "d"] == 0.0


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        pytest.param(1000.0, 1600.0, 10.0, id="plain"),
        pytest.param(2.0**32 - 300, 300.0, 10.0, id="32-bit-wrap"),
        pytest.param(2.0**64 - 2.0**20, 2.0**20, 2.0**21 / 60, id="64-bit-wrap"),
        pytest.param(5_000_000.0, 100.0, math.nan, id="reset"),
        pytest.param(3.0e9, 100.0, 1294967396 / 60, id="32-bit-wrap-of-an-unknown-rate"),
        pytest.param(7.0, 7.0, 0.0, id="standing-still"),
    ],
)
def test_a_counter_is_the_rate_between_two_samples(
    before: float, after: float, rate: float
) -> None:
    one, given_ = windows(), Given()
    found = play(one, given_, ("c", 5, before, C), ("c", 65, after, C), until=75)
    assert found[60, "c"] == pytest.approx(rate, nan_ok=True)


def test_a_reset_that_looks_like_a_wrap_is_told_by_the_rate_before() -> None:
    context = make_context()
    one, given_ = windows(context=context), Given()
    found = play(
        one, given_, ("c", 0, 3.0e9, C), ("c", 60, 3.0e9 + 6000, C), ("c", 120, 500.0, C),
        ("c", 180, 1100.0, C), until=195,
    )  # fmt: skip
    assert found[60, "c"] == 100.0
    assert math.isnan(found[120, "c"])
    assert found[180, "c"] == 10.0
    assert context.metrics.value("samples_total", result="counter_reset") == 1


def test_late_future_and_senseless_samples_are_counted() -> None:
    context = make_context()
    one, given_ = windows(context=context), Given()
    one.process(given_.batches(("g", 12, 1.0, G)))
    # Says 25, came at 20.
    one.process(given_.batches(("g", 3, 5.0, G), ("g", 25, 7.0, G), late_s=-5.0))
    one.process(given_.batches(("g", 13, math.nan, G), ("g", 14, math.inf, G)))
    found = values(one, one.advance(at(40)))
    assert (found[10, "g"], found[20, "g"]) == (3.0, 7.0)
    value = context.metrics.value
    assert value("samples_total", result="late") == 1
    assert value("samples_total", result="not_a_number") == 2
    one.process([batch_from_rows(SAMPLE, [{"arrival_ns": at(41), "series_id": 5, "value": 1.0}])])
    assert value("samples_total", result="unknown_series") == 1


def test_slow_series_close_late_and_hold_up_no_other() -> None:
    one, fast, slow = windows(), Given(), Given(view="slow_sample")
    one.process([*fast.batches(("g", 1, 1.0, G)), *slow.batches(("pm", 1, 9.0, G))])
    starts = {start for start, _ in play(one, fast, until=895)}
    assert starts == set(range(0, 881, 10))
    found = values(one, one.advance(at(1500)))
    assert found[0, "pm"] == 9.0


def test_the_bound_keeps_the_smallest_ids_and_idle_rows_make_room() -> None:
    context = make_context()
    one, given_ = windows(series_max=3, context=context), Given()
    one.process(given_.batches(*((f"m{i}", 1, 1.0, G) for i in range(5))))
    ids = sorted(given_.names.id("ams1", f"m{i}", {"if": f"m{i}"}) for i in range(5))
    (_, frame) = one.advance(at(15))
    assert sorted(frame["series_id"][:-1].tolist()) == ids[:3]
    assert context.metrics.value("samples_total", result="not_admitted") == 2
    one.advance(at(200))
    # The others were silent for more than ten ticks.
    one.process(given_.batches(("new", 201, 2.0, G)))
    assert values(one, one.advance(at(225)))[200, "new"] == 2.0
    assert one.series == 3


def test_rows_silent_for_too_long_are_taken_back() -> None:
    one, given_ = windows(idle_seconds=60.0), Given()
    one.process(given_.batches(("g", 1, 1.0, G)))
    one.advance(at(100))
    assert one.series == 0
    assert one.next_deadline_ns() == 1 << 62
    one.process(given_.batches(("g", 500, 2.0, G)))  # it is still known by name
    assert values(one, one.advance(at(515)))[500, "g"] == 2.0


def test_after_a_restart_ticks_are_flagged() -> None:
    one, given_ = windows(), Given()
    one.mark_incomplete(at(15))
    one.process(given_.batches(("g", 1, 1.0, G)))
    frames = [b for b in one.advance(at(35)) if b.schema.name == "frame"]
    assert [bool(b["flags"][0] & FrameFlag.INCOMPLETE) for b in frames] == [True, True, False]


def run(given_: list[list[Batch]], one: SampleWindows) -> list[tuple[int, list[tuple[int, float]]]]:
    """One event tick a second, each with its batches; every frame as (start, sorted rows)."""
    made = []
    for second, batches in enumerate(given_):
        one.process(batches)
        for batch in one.advance(at(second + 1)):
            if batch.schema.name == "frame":
                made.append(rows_of(batch))
    return made


def stream(seed: int) -> list[list[Batch]]:
    random, given_ = np.random.default_rng(seed), Given()
    seconds = []
    counters = dict.fromkeys(range(6), 0.0)
    for second in range(120):
        samples = []
        for _ in range(int(random.integers(0, 6))):
            i = int(random.integers(0, 6))
            counters[i] += float(random.integers(0, 100))
            kind = (G, C, D)[i % 3]
            samples.append((f"m{i}", second - float(random.integers(0, 4)), counters[i], kind))
        seconds.append(given_.batches(*samples, late_s=4.0) if samples else [])
    return seconds


@pytest.mark.parametrize("seed", range(3))
def test_cuts_and_order_of_shards_change_nothing(seed: int) -> None:
    given_ = stream(seed)
    whole = run(given_, windows())
    assert whole

    def pieces(batches: list[Batch]) -> list[Batch]:
        made = [b for b in batches if b.schema.name == "series"]
        for batch in batches:
            if batch.schema.name == "sample":  # by series: as if each came over a shard of its own
                ids = batch["series_id"]
                for one in np.unique(ids)[::-1]:
                    rows = np.flatnonzero(ids == one)
                    made.append(Batch(SAMPLE, {n: c[rows] for n, c in batch.columns.items()}))
        return made

    assert run([pieces(batches) for batches in given_], windows()) == whole
    assert run(given_[:70], windows()) == whole[: len(run(given_[:70], windows()))]


@pytest.mark.parametrize("cut", [17, 60, 95])
def test_a_checkpoint_goes_on_bit_for_bit(cut: int) -> None:
    given_ = stream(4)
    whole = run(given_, windows())
    first = windows()
    before = run(given_[:cut], first)
    kept = Snapshot()
    first.snapshot(kept)
    second = windows()
    second.restore(kept)
    after = []
    for second_number, batches in enumerate(given_[cut:], cut):
        second.process(batches)
        for batch in second.advance(at(second_number + 1)):
            if batch.schema.name == "frame":
                after.append(rows_of(batch))
    assert before + after == whole


def test_a_journal_gives_the_rows_back_and_what_was_offered_goes_on() -> None:
    """Two kinds of samples: those of the gate are in the journal, those of listeners are not."""
    live, from_gate, heard = windows(), Given(), Given()
    journal: list[list[Batch]] = []
    for second in range(40):
        listener = heard.batches((f"l{second % 3}", second, 1.0, G)) if second % 2 else []
        offered = from_gate.batches((f"o{second % 4}", second, 2.0, G)) if second % 3 == 0 else []
        live.process(listener)
        tick = [*live.advance(at(second + 1)), *offered]
        live.process(offered)
        if tick:
            journal.append(tick)
    again = windows()
    for tick in journal:
        again.absorb(tick)
    # From here on both hear the same: rows, and the values of ticks that hold offered samples alone.
    for one in (live, again):
        one.process(from_gate.batches(("o1", 41, 6.0, G), ("o2", 52, 8.0, G)))
    left, right = live.advance(at(65)), again.advance(at(65))
    frames = [[b for b in made if b.schema.name == "frame"] for made in (left, right)]
    for a, b in zip(*frames, strict=True):
        assert a["tick_start_ns"][0] == b["tick_start_ns"][0]
        assert np.array_equal(a["row"], b["row"])
        assert np.array_equal(a["series_id"], b["series_id"])
    assert values(live, left)[50, "o2"] == values(again, right)[50, "o2"] == 8.0
    known = again.key(int(frames[1][0]["series_id"][0]))
    assert known is not None
    assert known.unit == "By"


def test_what_counts_up_is_told_by_its_unit_a_second() -> None:
    live, given = windows(), Given()
    for second in (1, 12):
        live.process(given.batches(("up", second, 100.0 * second, C), ("level", second, 5.0, G)))
    told = [b for b in live.advance(at(40)) if b.schema.name == "series"]
    units = {
        key: unit for b in told for key, unit in zip(b.texts("key"), b.texts("unit"), strict=True)
    }
    assert {key.split("if=")[1]: unit for key, unit in units.items()} == {
        "up": "By/s",
        "level": "By",
    }
    again = windows()
    again.absorb(told)  # of a journal: told once a second, not twice
    assert {again.key(int(i)).unit for b in told for i in b["series_id"]} == {"By/s", "By"}  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 39), st.floats(-1e6, 1e6), st.sampled_from([G, D])
        ),
        max_size=40,
    )
)
def test_values_are_those_of_a_plain_group_by(
    rows: list[tuple[int, int, float, SampleKind]],
) -> None:
    one, given_ = windows(), Given()
    kinds = {i: kind for i, _, _, kind in rows}
    rows = sorted(((i, s, v, kinds[i]) for i, s, v, _ in rows), key=lambda row: row[1])
    groups: dict[tuple[int, str], list[float]] = {}
    last = {(i, s): n for n, (i, s, _, kind) in enumerate(rows) if kind is G}
    for n, (i, s, v, _) in enumerate(rows):
        if last.get((i, s), n) != n:
            continue  # a gauge said again for the same time
        groups.setdefault((s // TICK_S * TICK_S, f"m{i}"), []).append(v)
    wanted = {
        key: sum(found) / (len(found) if kinds[int(key[1][1:])] is G else TICK_S)
        for key, found in groups.items()
    }
    samples = [(f"m{i}", float(s), v, kind) for i, s, v, kind in rows]
    got = play(one, given_, *samples, until=60)
    for key, value in wanted.items():
        assert got[key] == pytest.approx(value)
    for key, value in got.items():
        if key not in wanted:
            assert math.isnan(value) if kinds[int(key[1][1:])] is G else value == 0.0


def test_a_gauge_said_again_for_the_same_time_takes_its_own_place() -> None:
    """A corrected PM file: the newer number counts while the tick is open, and in no other tick."""
    gauge = SampleKind.GAUGE
    one, given_ = windows(), Given()
    batches: list[Batch] = []
    for said, arrives in ((10.0, 2), (11.5, 4), (99.0, 17)):
        batches += one.advance(at(arrives))
        one.process(given_.batches(("load", 2.0, said, gauge), late_s=arrives - 2.0))
    batches += one.advance(at(40))
    made = values(one, batches)
    assert made[0, "load"] == 11.5
    assert math.isnan(made[10, "load"])


def test_gauges_without_a_time_of_their_own_are_all_counted() -> None:
    one, given_ = windows(), Given()
    batch = given_.batches(("load", 2.0, 1.0, SampleKind.GAUGE))
    row = {"arrival_ns": at(2), "series_id": int(batch[1]["series_id"][0])}
    one.process([batch[0], batch_from_rows(SAMPLE, [row | {"value": v} for v in (1.0, 2.0, 6.0)])])
    assert values(one, one.advance(at(40)))[0, "load"] == 3.0
