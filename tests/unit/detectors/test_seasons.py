"""Seasons that `summary.json` tells: found where there is a day or a week, at any sampling; not in noise."""

import numpy as np
import pytest

from detectors.seasons import DAY_S, WEEK_S, season
from detectors.series import score_series

START_S = 1_790_553_600  # a Monday, 0:00


def times(days: float, step_s: int) -> np.ndarray:
    return START_S + step_s * np.arange(int(days * DAY_S / step_s))


def noise(time_s: np.ndarray, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 3.0, len(time_s))


def wave(time_s: np.ndarray) -> np.ndarray:
    return 100.0 + 40.0 * np.sin(2 * np.pi * time_s / DAY_S)


def workdays(time_s: np.ndarray) -> np.ndarray:
    hours, day = time_s % DAY_S / 3600, (time_s - START_S) // DAY_S % 7
    return 50.0 + 60.0 * ((hours >= 8) & (hours < 18) & (day < 5))


@pytest.mark.parametrize("step_s", [60, 300, 900, 1800, 3600, 7200])
@pytest.mark.parametrize("days", [3, 7, 30])
def test_a_clear_day_is_found_at_any_sampling(step_s: int, days: int) -> None:
    time_s = times(days, step_s)
    period_s, strength = season(time_s, wave(time_s) + noise(time_s), step_s)
    assert (period_s, strength > 0.9) == (DAY_S, True)


@pytest.mark.parametrize("step_s", [300, 3600, 7200])
def test_workdays_are_a_week_once_four_were_seen_and_a_day_before(step_s: int) -> None:
    for weeks, found_s in ((2, DAY_S), (4, WEEK_S)):
        time_s = times(7 * weeks, step_s)
        period_s, strength = season(time_s, workdays(time_s) + noise(time_s), step_s)
        assert period_s == found_s
        assert strength > (0.6 if found_s == DAY_S else 0.9)


def test_the_strength_is_the_share_that_comes_again() -> None:
    """Half of the variance is a wave: so says the strength, of two weeks as of two months."""
    for days in (14, 60):
        time_s = times(days, 900)
        value = np.sqrt(2.0) * 3.0 * np.sin(2 * np.pi * time_s / DAY_S) + noise(time_s)
        assert season(time_s, value, 900)[1] == pytest.approx(0.5, abs=0.08)


KINDS = ["normal", "poisson", "sparse", "autoregressive", "walk", "ramp", "constant"]


def seasonless(kind: str, rows: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    steps = random.normal(0.0, 1.0, rows)
    if kind == "autoregressive":
        for n in range(1, rows):
            steps[n] += 0.9 * steps[n - 1]
    return {
        "normal": 100.0 + 3.0 * steps,
        "poisson": random.poisson(0.1, rows) * 1.0,
        "sparse": random.poisson(0.01, rows) * 1.0,
        "autoregressive": steps,
        "walk": np.cumsum(steps),
        "ramp": np.arange(rows) * 1.0,
        "constant": np.full(rows, 42.0),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step_s", [300, 3600])
def test_no_season_is_found_where_there_is_none(kind: str, step_s: int) -> None:
    for days in (3, 7, 28):
        time_s = times(days, step_s)
        for seed in range(5):
            period_s, strength = season(time_s, seasonless(kind, len(time_s), seed), step_s)
            assert period_s is None, (days, seed)
            assert 0.0 <= strength < (0.2 if days == 28 else 0.7)


def test_gaps_jitter_faults_and_growth_hide_no_season() -> None:
    random = np.random.default_rng(3)
    time_s = times(21, 300)
    value = wave(time_s) + noise(time_s) + (time_s - START_S) / DAY_S * 10.0
    value[random.integers(0, len(value), 6)] = [1e6, np.nan, np.inf, 1e300, -1e6, 1e5]
    time_s = time_s + random.integers(-140, 140, len(time_s))
    kept = random.random(len(value)) > 0.1
    kept[2_000:2_600] = False
    period_s, strength = season(time_s[kept], value[kept], 300)
    assert (period_s, strength > 0.85) == (DAY_S, True)


@pytest.mark.parametrize(
    ("time_s", "value"),
    [
        ([], []),
        ([START_S], [1.0]),
        ([START_S, START_S], [np.nan, np.inf]),
        ([0, 60, 10**13], [1.0, 2.0, 3.0]),
        ([-(10**10), 5], [1e30, -1e30]),
    ],
)
def test_what_cannot_be_told_is_no_season(time_s: list[int], value: list[float]) -> None:
    assert season(np.array(time_s, np.int64), np.array(value), 60.0) == (None, 0.0)


def test_the_summary_has_it_by_the_clocks_of_the_zone() -> None:
    time_s = times(14, 900)
    scores = score_series(time_s, wave(time_s) + noise(time_s), zone="Europe/Vienna")
    assert scores.summary["season"] == {
        "found": True,
        "period_seconds": DAY_S,
        "strength": pytest.approx(0.99, abs=0.01),
    }
