"""Whether a series has a day or a week, and how much of it that is: for the summary of `tocsin score`.

Looks at the whole series at once, so no score may depend on it. Values are averaged over quarters of an
hour (rows where they are slower) and taken beside their running mean over one period. The strength is
the share of what is left that comes again at the same time of other days (or weeks): the mean product
of two days at the same time, over the mean square. It is 0 on average where days have nothing in common,
however few they are and whatever joins neighbouring values, and 1 where all days are alike.

What has a shorter cycle that fits into a day has a day, too. Blind to the year.

Source: the variance components of a one-way layout (Searle, Casella & McCulloch, Variance Components, ch. 3).
"""

import math

import numpy as np
from numpy.typing import NDArray

from detectors.usable import usable

DAY_S, WEEK_S = 86_400, 604_800
SLOT_S = 900.0
SLOTS_MIN = 4  # a period
SLOTS_MOST = 10_000_000  # from the first to the last value: beyond, its times are not to be trusted
FOUND_MIN, FOUND_SURELY = 0.25, 0.9
# What chance makes of two days that have nothing in common where the level wanders, so that a day says
# three or four things only; three standard deviations of it.
CHANCE = 1.85
PERIODS_MIN = 3
WEEK_BETTER = 0.1  # by which the week must explain more than the day
# Some wild values are no lack of a season: clipped far beyond what nearly all rows are, and of what is left
# what few slots are.
ROWS_TAIL, ROWS_FAR, SLOTS_TAIL = 0.002, 3.0, 0.005
NOTHING = 1e-9  # of the level: rounding

Array = NDArray[np.float64]


def season(
    time_s: NDArray[np.float64], value: NDArray[np.float64], step_s: float
) -> tuple[int | None, float]:
    """Return (seconds of the period found, or None; strength of it, or of the day).

    `time_s` is by the clocks that people live by (detectors.local_time).
    """
    there = usable(value)
    if not there.any():
        return None, 0.0
    time_s, value = time_s[there], value[there]
    low, high = np.quantile(value, (ROWS_TAIL, 1.0 - ROWS_TAIL))
    if high > low:
        room = ROWS_FAR * (high - low)
        value = np.clip(value, low - room, high + room)
    day, day_found = _strength(time_s, value, step_s, DAY_S)
    week, week_found = _strength(time_s, value, step_s, WEEK_S)
    if week_found and week > day + WEEK_BETTER:
        return WEEK_S, week
    return DAY_S if day_found else None, day


def _strength(
    time_s: NDArray[np.float64], value: Array, step_s: float, period_s: int
) -> tuple[float, bool]:
    """Return the strength of one period, and whether chance hardly makes as much."""
    slots = int(period_s / max(step_s, SLOT_S))
    if slots < SLOTS_MIN:
        return 0.0, False
    # Half a slot on: rows that stray around a full hour stay together.
    place = np.floor(time_s / period_s * slots + 0.5).astype(np.int64)
    first = int(place.min()) // slots * slots
    size = (int(place.max()) - first) // slots * slots + slots
    if size > SLOTS_MOST:
        return 0.0, False
    count = np.bincount(place - first, minlength=size)
    known = count > 0
    mean = np.bincount(place - first, value, size) / np.maximum(count, 1)
    off = np.where(known, mean - _running(mean, known, slots), 0.0)
    low, high = np.quantile(off[known], (SLOTS_TAIL, 1.0 - SLOTS_TAIL))
    off = np.where(known, np.clip(off, low, high), 0.0)
    off -= np.where(known, off[known].mean(), 0.0)
    square = float((off * off).sum() / known.sum())
    if square <= (NOTHING * float(np.abs(mean).max())) ** 2:
        return 0.0, False
    grid, there = off.reshape(-1, slots), known.reshape(-1, slots)
    visits = there.sum(axis=0)
    pairs = float((visits * (visits - 1.0)).sum())
    periods = int((there.mean(axis=1) >= 0.5 * there.mean(axis=1).max()).sum())
    if periods < PERIODS_MIN or pairs == 0.0:
        return 0.0, False
    common = float((grid.sum(axis=0) ** 2 - (grid * grid).sum(axis=0)).sum()) / pairs
    strength = min(max(common / square, 0.0), 1.0)
    chance = CHANCE * math.sqrt(2.0 / (periods * (periods - 1.0)))
    return strength, strength >= min(max(FOUND_MIN, chance), FOUND_SURELY)


def _running(mean: Array, known: NDArray[np.bool_], slots: int) -> Array:
    """Return the mean of the period around each slot; at both ends that of the first or last period."""
    ends = np.concatenate([[0.0], np.cumsum(np.where(known, mean, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    start = np.clip(np.arange(len(mean)) - slots // 2, 0, max(len(mean) - slots, 0))
    stop = np.minimum(start + slots, len(mean))
    running: Array = (ends[stop] - ends[start]) / np.maximum(counts[stop] - counts[start], 1)
    return running
