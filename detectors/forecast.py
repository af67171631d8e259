"""Forecasts of a series for the next hours: quantiles, time to breach, and how well it went before.

Four plain models: the last value; the same time a season ago (seasonal naive); the usual value at
that time plus the present deviation from it, faded as such deviations faded before; and that plus
the recent trend. Each is tried at origins of the past with what was known there; the one with the
least error so far speaks. Bands are the quantiles of its own errors by lead.

The track record is that of whoever led at each origin by the origins before it, against seasonal
naive. Where seasonal naive did better, nothing is forecast: `Forecast.shown` is False.

Blind to what never happened in the history given, and to planned changes.

Source: Hyndman & Athanasopoulos, Forecasting (3rd ed.), ch. 5.8 and 5.10; Theil (1950), Sen (1968).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.usable import usable
from telemetry.errors import ConfigError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MODELS = ("last value", "season before", "usual value", "usual value and trend")
NAIVE = 1
ORIGINS_MAX = 40
ORIGINS_MIN = 6
DAY_S, WEEK_S = 86_400, 604_800
TREND_ROWS_MIN = 12
ROWS_MOST = 10_000_000  # of a grid
TREND_MARGIN = 0.97  # another model must be so much better before it takes the lead from naive

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of one series."""

    time_s: NDArray[np.int64]
    quantiles: Array  # [leads, len(QUANTILES)]
    model: str
    origins: int
    error: float  # mean absolute error of the past forecasts
    error_naive: float
    covered: float  # share of the past that lay within the outer quantiles
    shown: bool  # False: seasonal naive did better so far


@dataclass(frozen=True, slots=True)
class Breach:
    """When a limit is passed."""

    probability: float  # that it is, within the horizon
    first_s: int | None  # seconds until the median passes it
    earliest_s: int | None  # seconds until the outer quantile does


def regular(time_s: NDArray[np.int64], value: Array, step_s: int) -> tuple[int, Array]:
    """Return (first second, values on a regular grid); what is missing is the value before it."""
    there = usable(value)
    time_s, value = time_s[there], value[there]
    if not len(value):
        raise ConfigError("the series has no value in the time given")
    place = (time_s - time_s.min()) // step_s
    size = int(place.max()) + 1
    if size > ROWS_MOST:
        raise ConfigError(
            f"from the first time to the last are {size} steps of {step_s} s, {ROWS_MOST} at most: mend "
            "times that are far off, or take a longer --step or --horizon"
        )
    total, count = np.zeros(size), np.zeros(size)
    np.add.at(total, place, value)
    np.add.at(count, place, 1.0)
    known = np.maximum.accumulate(np.where(count > 0, np.arange(size), -1))
    grid: Array = (total / np.maximum(count, 1.0))[known]
    return int(time_s.min()), grid


def forecast(start_s: int, value: Array, *, step_s: int, leads: int) -> Forecast:
    """Forecast `leads` steps beyond the values of a regular grid that begins at `start_s`."""
    rows = len(value)
    least = max(3 * leads, 24)
    if rows < least + ORIGINS_MIN:
        raise ConfigError(
            f"{rows} values of {step_s} s are too few to forecast {leads} more and to judge it;"
            f" {least + ORIGINS_MIN} are needed: give more history or a shorter horizon"
        )
    room = rows - leads - least
    origins = rows - leads - np.unique(np.linspace(0, room, min(ORIGINS_MAX, room + 1)).astype(int))
    origins = np.sort(origins)
    errors = np.zeros((len(origins), len(MODELS), leads))
    for k, origin in enumerate(origins.tolist()):
        made = _models(value[:origin], step_s, leads)
        errors[k] = value[origin : origin + leads] - made
    sizes = np.abs(errors).mean(axis=2)
    leaders = np.array([_leader(sizes[origins <= o - leads]) for o in origins])
    led = sizes[np.arange(len(origins)), leaders]
    judged = slice(len(origins) // 4, None)  # the first quarter has nothing to choose by
    error, error_naive = float(led[judged].mean()), float(sizes[judged, NAIVE].mean())
    speaks = _leader(sizes)
    # Errors of each lead in units of its mean error, which does not fall with the lead.
    past = errors[:, speaks, :]
    scale = np.maximum.accumulate(np.abs(past).mean(axis=0)) + 1e-12
    relative = np.sort((past / scale).ravel())
    quantiles = np.quantile(relative, QUANTILES)
    centre = _models(value, step_s, leads)[speaks]
    bands = centre[:, None] + quantiles[None, :] * scale[:, None]
    inside = (relative >= quantiles[0]) & (relative <= quantiles[-1])
    return Forecast(
        start_s + step_s * (rows + np.arange(leads)),
        bands,
        MODELS[speaks],
        len(origins),
        error,
        error_naive,
        float(inside.mean()),
        error <= error_naive,
    )


def breach(made: Forecast, step_s: int, *, above: float | None, below: float | None) -> Breach:
    """Say when and how likely a limit is passed; the probability is that of the worst lead."""
    assert (above is None) != (below is None)
    bands = made.quantiles if above is not None else -made.quantiles[:, ::-1]
    limit = above if above is not None else -(below or 0.0)
    chances = [1.0 - float(np.interp(limit, row, QUANTILES, left=0.0, right=1.0)) for row in bands]

    def until(column: int) -> int | None:
        hit = np.flatnonzero(bands[:, column] > limit)
        return int(hit[0] + 1) * step_s if hit.size else None

    return Breach(max(chances), until(QUANTILES.index(0.5)), until(len(QUANTILES) - 1))


def _leader(sizes: Array) -> int:
    """Return the model with the least error at these origins; naive where there are none."""
    if not len(sizes):
        return NAIVE
    mean = sizes.mean(axis=0)
    best = int(np.argmin(mean))
    return best if mean[best] < TREND_MARGIN * mean[NAIVE] else NAIVE


def _models(value: Array, step_s: int, leads: int) -> Array:
    """Return each model's forecast by what is known: float64[models, leads]."""
    rows = len(value)
    season = _season_rows(rows, step_s)
    ahead = np.arange(leads)
    naive = value[rows - season + ahead % season] if season else np.full(leads, value[-1])
    usual = _usual(value, season)
    off = value - usual[:rows]
    fading = _fading(off, leads)
    expected = usual[rows : rows + leads] + fading * off[-1]
    trend = _slope(off[-max(leads, TREND_ROWS_MIN) :]) * (ahead + 1.0)
    return np.stack([np.full(leads, value[-1]), naive, expected, expected + trend])


def _season_rows(rows: int, step_s: int) -> int:
    """Return the rows of a week or a day, whichever has been seen twice; 0 where none has."""
    for season_s, times in ((WEEK_S, 3), (DAY_S, 2)):
        if season_s % step_s == 0 and rows >= times * (season_s // step_s):
            return season_s // step_s
    return 0


def _usual(value: Array, season: int) -> Array:
    """Return the usual value of every row and of a season beyond: recent visits count more."""
    rows = len(value)
    if not season:
        return np.full(rows + rows, float(np.median(value)))
    slots = np.full(season, np.nan)
    for first in range(rows % season, rows, season):
        part = value[first : first + season]
        slots = np.where(np.isnan(slots), part, slots + 0.4 * (part - slots))
    at = (np.arange(2 * rows) - rows % season) % season
    usual: Array = slots[at]
    return usual


def _fading(off: Array, leads: int) -> Array:
    """Return what share of a deviation was left after each lead, by all deviations so far."""
    size = float(off @ off) + 1e-12
    left = [float(off[:-h] @ off[h:]) / size for h in range(1, leads + 1)]
    return np.clip(np.minimum.accumulate(np.array(left)), 0.0, 1.0)


def _slope(recent: Array) -> float:
    """Return the median slope between halves of the recent deviations, by row (Theil-Sen's idea)."""
    half = len(recent) // 2
    return float(np.median(recent[-half:] - recent[:half])) / (len(recent) - half)
