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
    start, grid = regular(np.array([60, 120, 300]), np.array([1.0, 2.0, 5.0]), 60)
    assert (start, grid.tolist()) == (60, [1.0, 2.0, 2.0, 2.0, 5.0])
    with pytest.raises(ConfigError, match="no value"):
        regular(np.array([60]), np.array([np.nan]), 60)
    with pytest.raises(ConfigError, match="far off"):
        regular(np.array([0, 1_790_553_600]), np.ones(2), 60)
    start, grid = regular(np.array([60, 120, 180]), np.array([1.0, 1e300, 3.0]), 60)
    assert (start, grid.tolist()) == (60, [1.0, 1.0, 3.0])


def test_quantiles_are_in_order() -> None:
    assert tuple(sorted(QUANTILES)) == QUANTILES
