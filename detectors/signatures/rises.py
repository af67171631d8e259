"""Slow rises: a volume that grows steadily over its profile, as a leak does."""

import math

import numpy as np

from detectors import baseline
from detectors.config import DetectionSettings
from detectors.detector import Finding, six
from detectors.seasonal import SeasonalBaseline, rates
from detectors.signatures.rows import Scores, finding_of
from telemetry.batch import Batch

RISE_Z = 4.0
# In five minutes, of the whole rise: a step of any height shows .25 or more.
RISE_STEEPNESS_MAX = 0.2
RISE_LEVEL_ERROR = 0.05
RISE_OCTETS_PER_SECOND_MIN = 1e5


def rising(
    frame: Batch, scores: Scores, model: SeasonalBaseline, settings: DetectionSettings
) -> list[Finding]:
    """Find volumes that rise slowly and steadily over their profile: a leak, or a new customer.

    The baseline keeps two averages of actual / expected, of ten minutes and of an hour. A rise is
    told when the short one stayed above 1.3 for `leak_seconds`, lies above the long one, and never
    went up by more than a fifth of its rise within five minutes: a step does, whatever its height
    (averages of 10 and of 5 minutes in a row show a quarter of it at their steepest). Its p-value
    counts the noise of the average and of the profile itself: a profile of few visits proves little,
    also where the workdays' hours have had many. Blind to what rises by less than 30 % before the
    slow level (a day) has followed.
    """
    measure = "octets"
    rows = frame.rows - 1
    if rows == 0:
        return []
    since = model.column(frame, measure, baseline.SINCE)
    long = np.flatnonzero(since >= settings.leak_seconds)
    if not long.size:
        return []
    since = since[long]
    fast = model.column(frame, measure, baseline.FAST, long).astype(np.float64)
    slow = model.column(frame, measure, baseline.SLOW, long).astype(np.float64)
    steepest = model.column(frame, measure, baseline.STEEPEST, long)
    hit = (fast > slow) & (steepest <= RISE_STEEPNESS_MAX * (fast - 1.0))
    hit &= rates(frame, measure, long) > RISE_OCTETS_PER_SECOND_MIN
    tick_s = float(frame["tick_seconds"][0])
    base = np.abs(model.column(frame, measure, baseline.BASE, long)).astype(np.float64)
    square = model.column(frame, measure, baseline.SQUARE, long).astype(np.float64)
    doubt = model.doubt(frame, measure, long).astype(np.float64)
    found = []
    for i in np.flatnonzero(hit).tolist():
        one_tick = math.sqrt(square[i] / (max(base[i], 1e-9) * tick_s))
        error = math.sqrt(
            one_tick**2 * tick_s / 1200.0 + one_tick**2 * doubt[i] + RISE_LEVEL_ERROR**2
        )
        z = (fast[i] - 1.0) / error
        if z >= RISE_Z:
            found.append(
                finding_of(frame, scores, int(long[i]), measure, "trend", hard=False,
                         p=0.5 * math.erfc(min(z, 37.0) / math.sqrt(2.0)),
                         expected=float(base[i]),
                         detail={"ratio": six(fast[i]), "ratio_an_hour": six(slow[i]),
                                 "since_seconds": six(since[i]), "z": six(z)})
            )  # fmt: skip
    return found
