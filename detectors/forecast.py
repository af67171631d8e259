"""Forecasts of a series for the next hours: quantiles, time to breach, and how well it went before.

Five plain models: the last value; the same time a season ago (seasonal naive); the usual value at
that time plus the present deviation from it, faded as such deviations faded before; that plus the
recent trend; and the line of the last values, for what fills or leaks and has no day yet. Each is tried
at origins of the past with what was known there; the one with the least error so far speaks. Bands are
the quantiles of its own errors by lead, of which newer ones count more: after a change they widen within
a few origins. What was never below 0 is not forecast there.

The track record is that of whoever led at each origin by the origins before it, against seasonal
naive (the last value where no season was seen twice), and how much of what came lay within the bands that
were known by then. Where naive did better, nothing is forecast: `Forecast.shown` is False.

How likely a limit is passed is the share of the past courses of errors which, put on what is expected now,
pass it anywhere on their way: the worst moment of many, not of one. Of whole numbers the next one counts.

Blind to what never happened in the history given, and to planned changes.

Source: Hyndman & Athanasopoulos, Forecasting (3rd ed.), ch. 5.8 and 5.10; Theil (1950), Sen (1968).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.usable import usable
from telemetry.errors import ConfigError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MODELS = ("last value", "season before", "usual value", "usual value and trend", "line")
NAIVE, LINE = 1, 4
ORIGINS_MAX = 40
ORIGINS_MIN = 6
DAY_S, WEEK_S = 86_400, 604_800
TREND_ROWS_MIN = 12
ROWS_MOST = 10_000_000  # of a grid
NEWER = 0.85  # weight of an origin beside the next newer one
GAP_ROWS = 12  # a longer gap is filled by the day before it, a shorter one by the last value
SMOOTHED = 0.74  # of Silverman's width: the chance of a course is not a matter of a hair
LINE_MARGIN = 0.9  # the line must be so much better than the others: noise has lines, too
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
    # Share of the past within the outer quantiles known before; NaN: too few forecasts.
    covered: float
    shown: bool  # False: seasonal naive did better so far
    season_s: int  # of naive; 0: no season was seen, naive is the last value
    # [origins, leads] what is expected plus each past course of errors; NaN = not known
    courses: Array
    weight: Array  # [origins]
    scale: Array  # [leads] mean error
    whole: bool  # all values are whole numbers


@dataclass(frozen=True, slots=True)
class Breach:
    """When a limit is passed."""

    probability: float  # that it is, within the horizon
    first_s: int | None  # seconds until it is likelier than not
    earliest_s: int | None  # seconds until it is so with 5 %
    latest_s: int | None  # and with 95 %


def regular(
    time_s: NDArray[np.int64], value: Array, step_s: int
) -> tuple[int, Array, NDArray[np.bool_]]:
    """Return (first second, values on a regular grid, which of them are known).

    What is missing is the value before it; of a longer gap that of a day before, where there is one.
    """
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
    known, at = count > 0, np.arange(size)
    last = np.maximum.accumulate(np.where(known, at, -1))
    coming = np.minimum.accumulate(np.where(known, at, size)[::-1])[::-1]
    grid: Array = (total / np.maximum(count, 1.0))[last]
    far = coming - last > GAP_ROWS
    day = DAY_S // step_s if DAY_S % step_s == 0 else size  # else no step stands for the day before
    for first in range(day, size, day):
        part = slice(first, min(first + day, size))
        grid[part] = np.where(far[part], grid[first - day : part.stop - day], grid[part])
    return int(time_s.min()), grid, known


def forecast(
    start_s: int, value: Array, *, step_s: int, leads: int, known: NDArray[np.bool_] | None = None
) -> Forecast:
    """Forecast `leads` steps beyond the values of a regular grid that begins at `start_s`.

    Where `known` is not set a value was filled in: no forecast is judged by it.
    """
    rows = len(value)
    known = np.ones(rows, bool) if known is None else known
    origins = _origins(known, leads, step_s)
    errors = np.zeros((len(origins), len(MODELS), leads))
    for k, origin in enumerate(origins.tolist()):
        ahead = slice(origin, origin + leads)
        came = np.where(known[ahead], value[ahead], np.nan)
        errors[k] = came - _models(value[:origin], step_s, leads)
    sizes = np.nanmean(np.abs(errors), axis=2)
    leaders = np.array([_leader(sizes[origins <= o - leads]) for o in origins])
    led = sizes[np.arange(len(origins)), leaders]
    judged = slice(len(origins) // 4, None)  # the first quarter has nothing to choose by
    error, error_naive = float(led[judged].mean()), float(sizes[judged, NAIVE].mean())
    speaks, season = _leader(sizes), _season_rows(rows, step_s)
    weight = _weights(len(origins))
    quantiles, scale = _spread(errors[:, speaks], weight)
    centre = _models(value, step_s, leads)[speaks]
    least = 0.0 if value.min() >= 0.0 else -math.inf
    return Forecast(
        start_s + step_s * (rows + np.arange(leads)),
        np.maximum(centre[:, None] + quantiles[None, :] * scale[:, None], least),
        MODELS[speaks if season or speaks != NAIVE else 0],
        len(origins),
        error,
        error_naive,
        _covered(errors, leaders, origins, leads),
        error <= error_naive,
        season * step_s,
        centre + errors[:, speaks],
        weight,
        scale,
        bool((value[known] == np.floor(value[known])).all()),
    )


def _origins(known: NDArray[np.bool_], leads: int, step_s: int) -> NDArray[np.int64]:
    """Return the rows at which forecasts of the past begin: at least half of what came then is known."""
    rows, least = len(known), max(3 * leads, 24)
    if rows < least + leads:
        raise ConfigError(_too_few(rows, step_s, leads, least))
    total = np.concatenate(([0], np.cumsum(known)))
    first = np.arange(least, rows - leads + 1)
    first = first[2 * (total[first + leads] - total[first]) >= leads]
    if len(first) < ORIGINS_MIN:
        raise ConfigError(_too_few(int(known.sum()), step_s, leads, least))
    ages = np.unique(np.linspace(0, len(first) - 1, min(ORIGINS_MAX, len(first))).astype(int))
    chosen: NDArray[np.int64] = first[len(first) - 1 - ages[::-1]]
    return chosen


def _too_few(rows: int, step_s: int, leads: int, least: int) -> str:
    return (
        f"{rows} values of {step_s} s are too few to forecast {leads} more and to judge it;"
        f" {least + leads + ORIGINS_MIN - 1} are needed: give more history or a shorter horizon"
    )


def _weights(origins: int) -> Array:
    """Return how much each origin counts, oldest first."""
    return np.array([NEWER**age for age in range(origins)][::-1], np.float64)


def _spread(past: Array, weight: Array) -> tuple[Array, Array]:
    """Return (QUANTILES of errors in units of their lead's mean error, that mean by lead).

    `past` is float64[origins, leads], NaN where it is not known. The mean does not fall with the lead.
    """
    there = np.isfinite(past)
    share = weight[:, None] * there
    size = np.where(there, np.abs(past), 0.0)
    mean = (share * size).sum(axis=0) / np.maximum(share.sum(axis=0), 1e-12)
    scale = np.maximum.accumulate(mean) + 1e-12
    relative, share = (past / scale)[there], share[there]
    order = np.argsort(relative)
    upto = np.cumsum(share[order]) - 0.5 * share[order]
    return np.interp(QUANTILES, upto / share.sum(), relative[order]), scale


def _covered(
    errors: Array, leaders: NDArray[np.int64], origins: NDArray[np.int64], leads: int
) -> float:
    """Return what share of the past lay within the bands that the origins before it gave."""
    inside: list[float] = []
    for k, origin in enumerate(origins.tolist()):
        earlier = int(np.count_nonzero(origins <= origin - leads))
        if earlier < ORIGINS_MIN:
            continue
        past = errors[:earlier, leaders[k]]
        quantiles, scale = _spread(past, _weights(earlier))
        came = errors[k, leaders[k]] / scale
        came = came[np.isfinite(came)]
        inside.append(float(((came >= quantiles[0]) & (came <= quantiles[-1])).mean()))
    return float(np.mean(inside)) if inside else math.nan


def breach(made: Forecast, step_s: int, *, above: float | None, below: float | None) -> Breach:
    """Say when and how likely a limit is passed, at any time up to the end of the horizon."""
    assert (above is None) != (below is None)
    sign, limit = (1.0, above) if above is not None else (-1.0, below)
    assert limit is not None
    if made.whole:
        limit = sign * (math.floor(sign * limit) + 0.5)
    over = sign * (made.courses - limit) / made.scale
    over = np.maximum.accumulate(np.where(np.isfinite(over), over, -math.inf), axis=1)
    share = made.weight / made.weight.sum()
    end = over[:, -1]
    mean = float(share @ end)
    sigma = math.sqrt(float(share @ (end - mean) ** 2))
    width = SMOOTHED * 1.06 * max(sigma, 1e-9) * float(share @ share) ** 0.2
    chances = np.array([[0.5 * math.erfc(-x / width / math.sqrt(2)) for x in row] for row in over])
    passed = share @ chances

    def until(probability: float) -> int | None:
        hit = np.flatnonzero(passed >= probability)
        return int(hit[0] + 1) * step_s if hit.size else None

    return Breach(float(passed[-1]), until(0.5), until(0.05), until(0.95))


def _leader(sizes: Array) -> int:
    """Return the model with the least error at these origins; naive where there are none."""
    if not len(sizes):
        return NAIVE
    mean = sizes.mean(axis=0)
    best = int(np.argmin(mean[:LINE]))
    if mean[LINE] < LINE_MARGIN * mean[best]:
        best = LINE
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
    recent = value[-2 * max(leads, TREND_ROWS_MIN) :]
    slope = _slope(recent)
    level = float(np.median(recent - slope * np.arange(1 - len(recent), 1)))
    line = level + slope * (ahead + 1.0)
    return np.stack([np.full(leads, value[-1]), naive, expected, expected + trend, line])


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
