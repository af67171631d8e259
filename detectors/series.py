"""Scores of one series with its times: what `tocsin score` says of each column of a file.

The same kernel as online (`detectors.series_kernels`), row by row and causal: a row's score never
depends on a later row, and the scores of the first rows of a file are the first scores of the file. Before
a surprise may alert or rank, `detectors.sparse` holds that of counts that rest at one value, and what other weeks
had at that time is none (`detectors.weeks`); online nothing does either.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import exceedances, sparse, weeks
from detectors import series_kernels as kernels
from detectors.detector import six
from detectors.exceedances import FALSE_ALERTS_PER_DAY
from detectors.local_time import LocalTime
from detectors.ranking import rank
from detectors.seasons import season
from detectors.shape import shape_column
from detectors.usable import usable

STEP_ROWS = kernels.WARM + 1  # the first rows tell the sampling interval
GAP_STEPS = 2.5
GAPS_LISTED = 20
STEP_LEAST = 1e-3  # s
Times = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeriesScores:
    """What was said of each row, and of the series as a whole."""

    expected: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    score: NDArray[np.float64]  # for ranking (detectors.ranking)
    surprise: NDArray[np.float64]  # for alerts, 1 = exceeded twice a day
    level: NDArray[np.float64]  # the surprise that alerts
    look: NDArray[np.uint8]  # place in series_kernels.LOOKS
    alert: NDArray[np.uint8]
    summary: dict[str, Any]
    last: dict[str, Any]  # the last row, look by look: for an explanation


def step_of(time_s: Times) -> float:
    """Return the usual seconds between rows, whatever their order; 60 where they do not tell."""
    passed = np.diff(np.sort(time_s))
    passed = passed[passed > 0]
    return max(round(float(np.median(passed)), 6), STEP_LEAST) if passed.size else 60.0


def score_series(
    time_s: Times,
    value: NDArray[np.float64],
    *,
    false_alerts_per_day: float = FALSE_ALERTS_PER_DAY,
    zone: str = "UTC",
    looks: int = kernels.EVERY_LOOK,
) -> SeriesScores:
    """Score all rows in the order given. NaN, infinite and absurd values count as missing.

    `zone`: whose clocks the daily profile goes by. `looks` leaves parts out, to see what each is worth
    (perf/quality.py).
    """
    rows = len(value)
    step_s = step_of(time_s[:STEP_ROWS])
    state = np.zeros((1, kernels.STATE), np.float32)
    profile = np.zeros((1, kernels.SLOTS), np.float32)
    spread = np.zeros((1, kernels.SLOTS), np.uint16)
    visits = np.zeros((1, kernels.SLOTS), np.uint8)
    work, runs = np.zeros(kernels.WORK), np.zeros((1, exceedances.STATE), np.float32)
    shape, period = shape_column(value)
    expected, room, surprise, plain, usual, floor = (np.zeros(rows) for _ in range(6))
    score, level, step = (np.zeros(rows) for _ in range(3))
    numbers = np.ascontiguousarray(value, np.float64)
    look, alert = np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
    whole_s = np.floor(time_s).astype(np.int64)
    local_s = np.ascontiguousarray(LocalTime(zone).of(whole_s) + (time_s - whole_s), np.float64)
    week = np.zeros(rows)
    weeks.expect(
        local_s, numbers, np.zeros(weeks.STATE), np.zeros(weeks.WEEK_SLOTS),
        np.zeros(weeks.WEEK_SLOTS, np.int64), np.zeros(weeks.DAY_SLOTS),
        np.zeros(weeks.DAY_SLOTS, np.int64), week,
    )  # fmt: skip
    kernels.walk(
        local_s,
        numbers, shape, week, step_s, looks, state, profile, spread, visits, work,
        expected, room, surprise, plain, usual, floor, look, step,
    )  # fmt: skip
    departures, most = np.zeros((1, sparse.STATE), np.float32), np.zeros(rows)
    sparse.hold(numbers, step, false_alerts_per_day, departures, surprise, most)
    exceedances.follow(
        surprise, step, false_alerts_per_day, kernels.WARM, runs, np.zeros(exceedances.STATE),
        level, alert
    )  # fmt: skip
    rank(numbers, usual, floor, np.minimum(plain, most), look, step, score)
    room *= level
    usual_s = step_of(time_s)  # no score depends on it
    summary = _summary(time_s, value, usual_s, float(state[0, kernels.SEEN]))
    found_s, strength = season(local_s, numbers, usual_s)
    summary["season"] = {
        "found": found_s is not None,
        "period_seconds": found_s,
        "strength": six(strength),
    }
    summary["shape"] = {"period_rows": period or None}
    summary["false_alerts_per_day"] = six(false_alerts_per_day)
    summary["alerts"] = int(alert.sum())
    summary["alerts_by_detector"] = {
        name: int(((look == k) & (alert > 0)).sum()) for k, name in enumerate(kernels.LOOKS)
    }
    return SeriesScores(
        expected,
        expected - room,
        expected + room,
        score,
        surprise,
        level,
        look,
        alert,
        summary,
        _looks(work, state[0], runs[0]) | {"sparse": _sparse(departures[0], most, step)},
    )


def _summary(
    time_s: Times,
    value: NDArray[np.float64],
    step_s: float,
    seen: float,
) -> dict[str, Any]:
    passed = np.diff(time_s)
    order = np.argsort(time_s, kind="stable")  # a file may have its newest rows first
    between = np.diff(time_s[order])
    there = usable(value)
    gaps = np.flatnonzero(between > GAP_STEPS * step_s)
    warm = np.flatnonzero(np.cumsum(there) > kernels.WARM)
    return {
        "rows": len(value),
        "missing": int((~there).sum()),
        "sampling_seconds": six(step_s),
        "sampling_regular": six(float(np.mean(np.abs(between - step_s) < 0.5 * step_s)))
        if passed.size
        else None,
        "out_of_order": int((passed < 0).sum()),
        "repeated_times": int((passed == 0).sum()),
        "gaps": {
            "count": len(gaps),
            "longest_seconds": int(between[gaps].max()) if gaps.size else 0,
            "first": [
                {"after_row": int(order[i]) + 1, "seconds": int(between[i])}
                for i in gaps[:GAPS_LISTED]
            ],
        },
        "warm_up_end": {"row": int(warm[0]) + 1, "time_s": int(time_s[warm[0]])}
        if warm.size
        else None,
        "stage": stage(seen, seen * step_s / 86400.0),
    }


def stage(rows: float, days: float) -> str:
    """Say how far the baseline of a series has come.

    >>> [stage(5, 0.01), stage(100, 0.5), stage(2000, 2), stage(20000, 8)]
    ['warming up', 'first day', 'daily profile', 'settled']
    """
    if rows < kernels.WARM:
        return "warming up"  # says nothing
    if days < 1.0:
        return "first day"  # by its own recent past; the alert level is raised
    return "daily profile" if days < 7.0 else "settled"


def _sparse(
    state: NDArray[np.float32], most: NDArray[np.float64], step: NDArray[np.float64]
) -> dict[str, float] | None:
    """Return what the last row's surprise was held to, where it is one of a series that rests."""
    if not len(most) or not np.isfinite(most[-1]):
        return None
    return {
        "rest": six(float(state[sparse.REST])),
        "departures_per_day": six(float(state[sparse.AWAY]) * 86400.0 / float(step[-1])),
        "most": six(float(most[-1])),
    }


def _looks(
    work: NDArray[np.float64], state: NDArray[np.float32], runs: NDArray[np.float32]
) -> dict[str, Any]:
    """Return the last row as the kernel saw it."""
    looks = {}
    for k, name in enumerate(kernels.LOOKS):
        z, ratio = float(work[kernels.W_Z + k]), float(work[kernels.W_RATIO + k])
        looks[name] = {
            "deviation": six(float(work[kernels.W_OFF + k])) if k != kernels.SHAPE else None,
            "usual_sizes": six(z),
            "unit": six(z / ratio) if ratio > 0.0 else None,
            "score": six(ratio),
        }
    return {
        "looks": looks,
        "score_now": six(float(work[kernels.W_BEST])),
        "profile": six(float(work[kernels.W_PROFILE])) if work[kernels.W_HAVE] else None,
        "other_weeks": six(float(state[kernels.LAST] - work[kernels.W_WEEK]))
        if work[kernels.W_WEEKLY]
        else None,
        "level": six(float(state[kernels.LEVEL])),
        "range_lately": [six(float(state[kernels.LOW])), six(float(state[kernels.HIGH]))],
        "runs_per_day": six(
            float(runs[exceedances.RUNS]) / max(float(runs[exceedances.DAYS]), 1e-9)
        ),
    }
