"""Forecasts: seasons, trends and breaches are seen coming; nothing is shown where naive is better."""

import numpy as np
import pytest

from detectors.forecast import QUANTILES, breach, forecast, regular
from telemetry.errors import ConfigError

STEP = 900
DAY = 96


def daily(days: int, seed: int, noise: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.arange(days * DAY)
    return 100.0 + 40.0 * np.sin(2 * np.pi * rows / DAY) + random.normal(0.0, noise, len(rows))


@pytest.mark.parametrize("seed", range(3))
def test_a_daily_series_is_forecast_better_than_by_seasonal_naive(seed: int) -> None:
    value = daily(10, seed)
    made = forecast(0, value[: 9 * DAY], step_s=STEP, leads=8)
    truth = value[9 * DAY : 9 * DAY + 8]
    assert made.shown
    assert made.error < 0.9 * made.error_naive
    assert np.abs(made.quantiles[:, 2] - truth).max() < 8.0
    assert (np.diff(made.quantiles, axis=1) >= 0).all()
    assert 0.8 <= made.covered <= 1.0


def test_bands_hold_what_they_say() -> None:
    inside = total = 0
    for seed in range(20):
        value = daily(8, seed)
        made = forecast(0, value[: 7 * DAY], step_s=STEP, leads=8)
        truth = value[7 * DAY : 7 * DAY + 8]
        inside += int(((truth >= made.quantiles[:, 0]) & (truth <= made.quantiles[:, -1])).sum())
        total += 8
    assert 0.8 <= inside / total <= 0.98  # 90 % is meant


def test_a_leak_is_seen_before_it_hurts() -> None:
    random = np.random.default_rng(1)
    value = 50.0 + 0.05 * np.arange(4 * DAY) + random.normal(0, 0.2, 4 * DAY)
    made = forecast(0, value, step_s=STEP, leads=24)
    found = breach(made, STEP, above=float(value[-1]) + 0.6, below=None)
    assert made.shown
    assert found.first_s is not None
    assert 6 * STEP <= found.first_s <= 18 * STEP
    assert found.probability > 0.7
    assert breach(made, STEP, above=500.0, below=None).first_s is None
    assert breach(made, STEP, above=500.0, below=None).probability == 0.0
    falling = forecast(0, -value, step_s=STEP, leads=24)
    assert breach(falling, STEP, above=None, below=-float(value[-1]) - 0.6).first_s is not None


def test_where_every_slot_wanders_from_day_to_day_naive_leads() -> None:
    random = np.random.default_rng(2)
    value = np.cumsum(random.normal(0.0, 10.0, (14, DAY)), axis=0).ravel()
    made = forecast(0, value, step_s=STEP, leads=8)
    assert made.model == "season before"


def test_nothing_is_shown_where_naive_did_better_in_the_end() -> None:
    # After days of noise, which the usual value leads, days that repeat the one before exactly.
    random = np.random.default_rng(4)
    noise = random.normal(0.0, 10.0, (12, DAY))
    days = [*noise[:4], *([noise[3]] * 6), *noise[4:7]]
    made = forecast(0, np.concatenate(days), step_s=STEP, leads=8)
    assert made.error > made.error_naive
    assert not made.shown


def test_the_future_is_not_looked_at() -> None:
    value = daily(9, 5)
    other = value.copy()
    other[8 * DAY :] = 1e6
    a = forecast(0, value[: 8 * DAY], step_s=STEP, leads=8)
    b = forecast(0, other[: 8 * DAY], step_s=STEP, leads=8)
    assert a.quantiles.tobytes() == b.quantiles.tobytes()


def test_a_short_history_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="too few"):
        forecast(0, np.ones(20), step_s=60, leads=10)


def test_gaps_become_the_value_before() -> None:
    start, grid, known = regular(np.array([60, 120, 300]), np.array([1.0, 2.0, 5.0]), 60)
    assert (start, grid.tolist()) == (60, [1.0, 2.0, 2.0, 2.0, 5.0])
    assert known.tolist() == [True, True, False, False, True]
    with pytest.raises(ConfigError, match="no value"):
        regular(np.array([60]), np.array([np.nan]), 60)
    with pytest.raises(ConfigError, match="far off"):
        regular(np.array([0, 1_790_553_600]), np.ones(2), 60)
    start, grid, known = regular(np.array([60, 120, 180]), np.array([1.0, 1e300, 3.0]), 60)
    assert (start, grid.tolist()) == (60, [1.0, 1.0, 3.0])


def test_after_a_gap_of_days_the_forecast_is_as_good_as_without() -> None:
    value = daily(10, 6)
    time_s = STEP * np.arange(len(value))
    there = (time_s < 4 * 86_400) | (time_s > 7 * 86_400)
    start_s, grid, known = regular(time_s[there], value[there], STEP)
    made = forecast(start_s, grid, step_s=STEP, leads=8, known=known)
    whole = forecast(0, value, step_s=STEP, leads=8)
    assert made.model.startswith("usual value")
    assert made.error < 1.2 * whole.error
    assert np.abs(made.quantiles[:, 2] - whole.quantiles[:, 2]).max() < 4.0


def test_what_lay_within_the_band_is_counted_by_bands_known_before() -> None:
    random = np.random.default_rng(7)
    rows = 10 * DAY
    louder = random.normal(0.0, np.geomspace(0.1, 10.0, rows))
    assert forecast(0, louder, step_s=STEP, leads=8).covered < 0.85
    assert forecast(0, random.normal(0.0, 1.0, rows), step_s=STEP, leads=8).covered > 0.85


@pytest.mark.parametrize("heavy", [False, True])
def test_a_limit_is_passed_as_often_as_said_at_any_time_of_the_horizon(heavy: bool) -> None:
    said, came = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        value = random.standard_t(3, 8 * DAY) if heavy else random.normal(0.0, 1.0, 8 * DAY)
        made = forecast(0, value[:-24], step_s=STEP, leads=24)
        for share in (0.9, 0.98):
            limit = float(np.quantile(value, share))
            said.append(breach(made, STEP, above=limit, below=None).probability)
            came.append(float(value[-24:].max() > limit))
            said.append(breach(made, STEP, above=None, below=-limit).probability)
            came.append(float(value[-24:].min() < -limit))
    assert np.mean(came) > 0.55
    assert abs(np.mean(said) - np.mean(came)) < 0.15  # errors of then and of now both count


def test_of_whole_numbers_the_next_one_passes_a_limit() -> None:
    random = np.random.default_rng(8)
    value = random.poisson(0.05, 8 * DAY).astype(float)
    value[:-200] = np.minimum(value[:-200], 1.0)
    made = forecast(0, np.minimum(value, 1.0), step_s=STEP, leads=24)
    assert breach(made, STEP, above=1.0, below=None).probability < 0.02
    assert breach(made, STEP, above=0.0, below=None).probability > 0.4


def test_after_a_step_the_bands_widen_within_hours() -> None:
    wider = []
    for seed in range(20):
        value = daily(8, seed)
        before = forecast(0, value, step_s=STEP, leads=8).quantiles
        value[-16:] += 60.0
        after = forecast(0, value, step_s=STEP, leads=8).quantiles
        wider.append(((after[:, 4] - after[:, 2]) / (before[:, 4] - before[:, 2])).mean())
    assert min(wider) > 2.5


def test_what_is_never_negative_is_forecast_so() -> None:
    random = np.random.default_rng(9)
    made = forecast(0, random.exponential(1.0, 8 * DAY), step_s=STEP, leads=8)
    assert made.quantiles.min() >= 0.0
    assert forecast(0, random.normal(0.0, 1.0, 8 * DAY), step_s=STEP, leads=8).quantiles.min() < 0.0


def test_without_a_season_naive_is_the_last_value_and_is_called_so() -> None:
    made = forecast(0, np.cumsum(np.random.default_rng(3).normal(size=150)), step_s=STEP, leads=8)
    assert (made.season_s, made.model) == (0, "last value")
    assert forecast(0, daily(4, 1), step_s=STEP, leads=8).season_s == 86_400


@pytest.mark.parametrize("step_s", [7, 86_400, 100_000])
def test_steps_that_do_not_divide_a_day_are_steps(step_s: int) -> None:
    time_s = np.array([n * step_s for n in range(60) if not 20 < n < 40])
    _, grid, known = regular(time_s, np.arange(len(time_s)).astype(float), step_s)
    assert len(grid) == 60
    assert grid[~known].max() <= 20.0


@pytest.mark.parametrize("days", [1.5, 3.0])
def test_what_begins_to_fill_is_forecast_before_it_has_a_usual_day(days: float) -> None:
    random = np.random.default_rng(10)
    rows = round(days * DAY)
    grown = 0.05 * np.maximum(np.arange(rows + 8) - rows + 80, 0)
    value = 40.0 + random.normal(0.0, 0.1, rows + 8) + grown
    made = forecast(0, value[:rows], step_s=STEP, leads=8)
    assert (made.shown, made.model) == (True, "line")
    assert np.abs(made.quantiles[:, 2] - 40.0 - grown[rows:]).max() < 0.15
    found = breach(made, STEP, above=40.0 + float(grown[rows + 5]), below=None)
    assert found.first_s is not None
    assert 3 * STEP <= found.first_s <= 8 * STEP


def test_quantiles_are_in_order() -> None:
    assert tuple(sorted(QUANTILES)) == QUANTILES
