"""Scores of single series: what they find, what leaves them calm, what they must never do."""

import numpy as np
import pytest

from detectors import exceedances, series_kernels
from detectors.series import score_series, stage

DAY_S = 86_400
START_S = 1_790_553_600


def times(rows: int, step_s: int = 300) -> np.ndarray:
    return START_S + step_s * np.arange(rows)


def daily(rows: int, seed: int = 1, *, step_s: int = 300, noise: float = 3.0) -> np.ndarray:
    """A daily wave of 100 +- 40 with noise."""
    random = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * times(rows, step_s) / DAY_S)
    return 100.0 + 40.0 * wave + random.normal(0.0, noise, rows)


WEEK = 7 * 288


def spike(value: np.ndarray) -> None:
    value[WEEK] += 60.0


def dip(value: np.ndarray) -> None:
    value[WEEK : WEEK + 4] -= 50.0


def step(value: np.ndarray) -> None:
    value[WEEK:] += 40.0


def quick_ramp(value: np.ndarray) -> None:
    value[WEEK : WEEK + 12] += np.linspace(5.0, 60.0, 12)


@pytest.mark.parametrize("fault", [spike, dip, step, quick_ramp])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fault_alerts_where_it_is(fault: object, seed: int) -> None:
    value = daily(WEEK + 288, seed)
    fault(value)  # type: ignore[operator]
    scores = score_series(times(len(value)), value)
    assert scores.alert[WEEK : WEEK + 15].any()
    assert scores.score[WEEK : WEEK + 15].max() == scores.score[300:].max()


def test_a_step_that_comes_every_day_is_normal() -> None:
    rows = 14 * 288
    value = daily(rows, noise=2.0) + np.where(times(rows) % DAY_S // 3600 >= 12, 200.0, 0.0)
    scores = score_series(times(rows), value)
    assert scores.alert[4 * 288 :].sum() <= 1
    assert scores.summary["season"]["found"]
    assert scores.summary["season"]["strength"] > 0.8


def nightly(hours: np.ndarray, first: float, last: float) -> np.ndarray:
    return 200.0 * ((hours >= first) & (hours < last))


@pytest.mark.parametrize(("first", "last"), [(2.5, 3.25), (10.08, 10.33), (2.0, 4.0)])
def test_a_backup_of_every_night_is_told_less_and_less(first: float, last: float) -> None:
    rows = 28 * 288
    hours = times(rows) % DAY_S / 3600
    alerts = np.zeros(28)
    for seed in range(3):
        value = 50.0 + nightly(hours, first, last) + np.random.default_rng(seed).normal(0, 3, rows)
        alerts += score_series(times(rows), value).alert.reshape(28, 288).sum(axis=1)
    assert alerts[14:].sum() <= 0.25 * 14 * 3
    # Another one, at another hour, is told.
    value += nightly(hours, 16.0, 16.5) * (times(rows) >= START_S + 27 * DAY_S)
    assert score_series(times(rows), value).alert[27 * 288 + 16 * 12 :][:3].any()


def test_tiny_numbers_are_judged_as_others_are() -> None:
    """A bit error rate of 1e-12 is a value as any."""
    value = daily(WEEK + 288)
    spike(value)
    large, tiny = (
        score_series(times(len(value)), value),
        score_series(times(len(value)), value * 1e-12),
    )
    assert large.alert.any()
    assert (large.alert == tiny.alert).all()


def test_what_happens_within_a_thousandth_of_the_level_is_seen() -> None:
    """The frequency of the mains strays by hundredths of 50 Hz; one tenth off is a fault."""
    value = 50.0 + np.random.default_rng(6).normal(0.0, 0.01, WEEK + 288)
    value[WEEK : WEEK + 6] -= 0.1
    alert = score_series(times(len(value)), value).alert
    assert alert[WEEK : WEEK + 6].any()
    assert alert.sum() <= 3
    # The last digits of a single-precision float are no news.
    still = 7.0 + np.random.default_rng(7).integers(0, 2, WEEK + 288) * 4e-7
    assert not score_series(times(len(still)), still).alert.any()


def test_the_budget_of_slow_series_counts_values() -> None:
    """Hourly values of a month are no more reason to alert than a day of minutes is."""
    each = {}
    for step_s in (900, 3600):
        time_s = times(700, step_s)
        each[step_s] = sum(
            int(
                score_series(
                    time_s, np.exp(np.random.default_rng(seed).normal(3.0, 1.0, 700))
                ).alert.sum()
            )
            for seed in range(20)
        )
    assert 5 <= each[3600] <= 2.5 * max(each[900], 20)


def seconds(rows: int, seed: int) -> np.ndarray:
    """Noise of 5 around 100, a value each second."""
    return np.random.default_rng(seed).normal(100.0, 5.0, rows)


def test_a_spike_in_the_first_hours_of_a_fast_series_alerts() -> None:
    for seed in range(5):
        value = seconds(20_000, seed)
        value[15_000] += 60.0
        alert = score_series(times(20_000, 1), value).alert
        assert alert[15_000]
        assert alert.sum() <= 2


def test_fast_series_without_a_fault_stay_near_the_budget() -> None:
    """Four days of seconds: .6 alerts were due by the budget, a quarter of it before the tail is known."""
    alerts = sum(
        int(score_series(times(4 * DAY_S, 1), seconds(4 * DAY_S, seed)).alert.sum())
        for seed in range(2)
    )
    assert alerts <= 4


def test_a_step_that_stays_becomes_normal_within_a_day() -> None:
    value = daily(WEEK + 5 * 288)
    value[WEEK:] += 200.0
    scores = score_series(times(len(value)), value)
    assert scores.alert[WEEK : WEEK + 3].any()
    assert scores.alert[WEEK + 288 :].sum() <= 1
    assert np.abs(scores.expected - value)[WEEK + 288 :].mean() < 10.0


def test_an_hour_of_attack_does_not_become_normal() -> None:
    value = daily(WEEK + 2 * 288)
    value[WEEK : WEEK + 12] *= 8.0
    clean = score_series(times(len(value)), daily(WEEK + 2 * 288))
    scores = score_series(times(len(value)), value)
    after = slice(WEEK + 24, WEEK + 288)
    width = (clean.upper - clean.lower)[after].mean()
    assert np.abs(scores.expected - clean.expected)[after].mean() < 0.2 * width
    assert scores.alert[after].sum() <= 1


def test_scores_of_a_prefix_are_the_prefix_of_the_scores() -> None:
    random = np.random.default_rng(7)
    value = daily(2_000, seed=4)
    value[random.integers(0, 2_000, 60)] = np.nan
    value[1_200:1_230] += 80.0
    time_s = times(2_000) + random.integers(-20, 20, 2_000)
    whole = score_series(time_s, value)
    for cut in [*random.integers(1, 2_000, 90).tolist(), *range(1, 24)]:
        part = score_series(time_s[:cut], value[:cut])
        for name in ("expected", "lower", "upper", "score", "level", "look", "alert"):
            assert getattr(part, name).tobytes() == getattr(whole, name)[:cut].tobytes(), (
                name,
                cut,
            )


def test_the_future_changes_nothing() -> None:
    value = daily(1_500)
    other = value.copy()
    other[1_000:] = 1e9
    a, b = score_series(times(1_500), value), score_series(times(1_500), other)
    assert a.score[:1_000].tobytes() == b.score[:1_000].tobytes()


BAD = {
    "nan": np.full(500, np.nan),
    "infinite": np.where(np.arange(500) % 7 == 0, np.inf, 5.0),
    "constant": np.full(500, 42.0),
    "zeros": np.zeros(500),
    "absurd": np.where(np.arange(500) == 300, 1e300, daily(500)),
    "large": daily(500) * 1e28,
    "tiny": daily(500) * 1e-30,
    "one": np.array([3.0]),
    "none": np.zeros(0),
    "two": np.array([np.nan, 1.0]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_values_give_finite_scores_and_no_storm(kind: str) -> None:
    value = BAD[kind]
    scores = score_series(times(len(value)), value)
    for name in ("expected", "lower", "upper", "score", "level"):
        assert np.isfinite(getattr(scores, name)).all(), name
    assert scores.alert.sum() <= 1
    missing = ~(np.abs(value) <= series_kernels.VALUE_MOST)
    assert not scores.score[missing].any()
    assert scores.summary["missing"] == missing.sum()


def test_irregular_times_and_missing_rows_raise_nothing() -> None:
    random = np.random.default_rng(3)
    rows = 10 * 288
    value, time_s = daily(rows), times(rows) + random.integers(-140, 140, rows)
    kept = random.random(rows) > 0.1
    kept[2_000:2_100] = False
    scores = score_series(time_s[kept], value[kept])
    assert scores.alert.sum() <= 3
    assert scores.summary["gaps"]["count"] >= 1
    assert scores.summary["gaps"]["longest_seconds"] >= 100 * 300
    shuffled = np.flatnonzero(kept)
    shuffled[500:520] = shuffled[500:520][::-1]
    scores = score_series(time_s[shuffled], value[shuffled])
    assert scores.summary["out_of_order"] > 0
    assert np.isfinite(scores.score).all()


@pytest.mark.parametrize("jump_s", [-3_600, 3_600, 40 * DAY_S, -40 * DAY_S])
def test_a_clock_that_jumps_raises_no_storm(jump_s: int) -> None:
    rows = 10 * 288
    time_s = times(rows)
    value = daily(rows)
    time_s[1_500:] += jump_s
    assert score_series(time_s, value).alert.sum() <= 3


def test_a_change_of_the_sampling_rate_is_followed() -> None:
    time_s = np.concatenate([times(5 * 288), START_S + 5 * DAY_S + 60 * np.arange(1_440)])
    random = np.random.default_rng(2)
    value = 100.0 + 40.0 * np.sin(2 * np.pi * time_s / DAY_S) + random.normal(0, 3, len(time_s))
    scores = score_series(time_s, value)
    assert scores.alert.sum() <= 2


@pytest.mark.parametrize("early_s", [3600, -3600], ids=["spring", "autumn"])
def test_a_day_that_comes_an_hour_early_or_late_is_hardly_told(early_s: int) -> None:
    """Daylight saving of polled series: from one midnight on people live an hour off; followed in a week."""
    rows, change, series = 24 * 288, 10 * 288, 8
    told = {0: 0, early_s: 0}
    for seed in range(series):
        noise, time_s = np.random.default_rng(seed).normal(0.0, 3.0, rows), times(rows)
        for off_s in told:
            lived_s = time_s + np.where(np.arange(rows) >= change, off_s, 0)
            value = 100.0 + 40.0 * np.sin(2 * np.pi * lived_s / DAY_S) + noise
            scores = score_series(time_s, value)
            told[off_s] += int(scores.alert[change:].sum())
            off = np.abs(scores.expected - value)
            assert off[change + 7 * 288 :].mean() < 1.2 * off[5 * 288 : change].mean()
    assert told[early_s] <= told[0] + series  # no more than one each


def test_a_counter_that_starts_over_says_nothing_once() -> None:
    """The interval of a reset has no rate (correlator.sample_windows): no alert and no lesson, twenty times."""
    value, clean = daily(2 * WEEK), daily(2 * WEEK)
    value[WEEK::100] = np.nan
    scores, same = (score_series(times(2 * WEEK), one) for one in (value, clean))
    assert scores.alert[WEEK:].sum() <= same.alert[WEEK:].sum() + 1
    assert np.all(scores.score[WEEK::100] == 0.0)
    assert np.abs(scores.expected - same.expected)[WEEK + 1 :].max() < 5.0


def test_stages_are_told() -> None:
    value = daily(9 * 288)
    reached = [
        score_series(times(n), value[:n]).summary["stage"] for n in (10, 200, 3 * 288, 9 * 288)
    ]
    assert reached == ["warming up", "first day", "daily profile", "settled"]
    assert stage(10, 0.0) == "warming up"


def test_state_is_below_a_kilobyte() -> None:
    assert series_kernels.BYTES + exceedances.BYTES <= 1024


def test_wrong_lengths_write_nothing() -> None:
    one = np.zeros(1)
    state = np.zeros((1, series_kernels.STATE), np.float32)
    profile = np.zeros((1, series_kernels.SLOTS), np.float32)
    spread = np.zeros((1, series_kernels.SLOTS), np.uint16)
    visits = np.zeros((1, series_kernels.SLOTS), np.uint8)
    bits = np.zeros(1, np.uint8)
    done = series_kernels.walk(
        np.zeros(2), one, one, one, 60.0, 63, state, profile, spread, visits,
        np.zeros(series_kernels.WORK), one, one, one, one, one, one, bits, one,
    )  # fmt: skip
    assert done == -1
    runs, level = np.zeros((1, exceedances.STATE), np.float32), np.zeros(1)
    work = np.zeros(exceedances.STATE)
    assert exceedances.follow(one, np.zeros(2), 0.1, 20, runs, work, level, bits) == -1
    assert not state.any()


def test_a_stuck_sensor_alerts_and_one_that_often_repeats_does_not() -> None:
    value = daily(WEEK + 288)
    value[WEEK : WEEK + 60] = value[WEEK]
    scores = score_series(times(len(value)), value)
    at = np.flatnonzero(scores.look[WEEK : WEEK + 60] == series_kernels.FLAT)
    assert at.size
    assert scores.alert[WEEK : WEEK + 60].any()
    steady = np.repeat(daily(WEEK // 12 + 24), 12)[:WEEK].round(1)  # polled once an hour
    steady[::50] += 0.1
    scores = score_series(times(WEEK), steady)
    assert scores.summary["alerts_by_detector"]["flat"] <= 1
