"""What is usual: of each row the peak of its past, fading slowly, and of all rows what the busy reach.

The measures of security have no noise model worth the name: most hosts have none of a class in most
ticks. So a row is held against the most it has shown so far and against its like, never against a
mean. What it showed within the last quarter of an hour does not count yet: the first tick of an attack,
which is seldom a whole one, must not make the second usual. A row that goes on for days becomes its
own peak: a scanner of one's own is told once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch

ROWS_FIRST = 256
CROWD_MIN = 20  # rows of a tick before its busy ones say anything
CROWD_QUANTILE = 0.98
DAY_S = 86_400.0
P_LEAST = 1e-8  # of what just passes a rule; see detectors.security.stage
DELAY_S = 900.0  # before a value counts as usual; of long ticks one and a half
LASTING_S = 14_400.0  # what shows a class for so long is learned all the same
KEPT = ("series_id", "peak", "last_s", "young", "young_s", "crowd")


class Usual:
    """Peaks by dense row, and the crowd's; 32 bytes a row. Times are ends of ticks in seconds."""

    def __init__(self, *, half_life_seconds: float = 3 * DAY_S) -> None:
        self._half_life_s = half_life_seconds
        self.series_id = np.zeros(ROWS_FIRST, np.uint64)
        self.peak = np.zeros(ROWS_FIRST, np.float32)
        self.last_s = np.zeros(ROWS_FIRST, np.int64)
        self.young = np.zeros(
            ROWS_FIRST, np.float32
        )  # the most since `young_s`, not yet in the peak
        self.young_s = np.zeros(ROWS_FIRST, np.int64)
        self.crowd = np.zeros(
            4
        )  # what the busy reach, when learned, ticks that taught it; all ticks

    def rows(self, frame: Batch) -> NDArray[np.int64]:
        """Return the places of a frame's rows, `__other__` left out; there is room for them."""
        rows: NDArray[np.int64] = frame["row"][:-1].astype(np.int64)
        size = len(self.series_id)
        if rows.size and int(rows.max()) >= size:
            while size <= int(rows.max()):
                size *= 2
            for name in KEPT[:-1]:
                kept = getattr(self, name)
                grown = np.zeros(size, kept.dtype)
                grown[: len(kept)] = kept
                setattr(self, name, grown)
        return rows

    def own(self, frame: Batch) -> NDArray[np.float64]:
        """Return the faded peak of each row; 0 of a row in new hands."""
        rows = self.rows(frame)
        known = self.series_id[rows] == frame["series_id"][:-1]
        now_s = end_s(frame)
        age = np.maximum(now_s - self.last_s[rows], 0)
        faded = self.peak[rows] * 2.0 ** (-age / self._half_life_s)
        ripe = now_s - self.young_s[rows] >= _delay_s(frame)
        peak: NDArray[np.float64] = known * np.maximum(faded, ripe * self.young[rows])
        return peak

    @property
    def frames(self) -> int:
        """In how many ticks anything was learned: who was not seen in them is known to be quiet."""
        return int(self.crowd[3])

    @property
    def busy(self) -> float:
        """What the busiest of its like reach; 0 while that is not known."""
        return float(self.crowd[0])

    @property
    def ticks_known(self) -> int:
        """In how many ticks there was a crowd to learn from."""
        return int(self.crowd[2])

    def learn(
        self,
        frame: Batch,
        value: NDArray[np.float64],
        calm: NDArray[np.bool_],
        *,
        every: bool = False,
    ) -> None:
        """Learn calm rows; what the others showed of late is forgotten.

        With `every`, a row that has not been calm for hours is learned as well.
        """
        rows, now_s = self.rows(frame), end_s(frame)
        new = rows[self.series_id[rows] != frame["series_id"][:-1]]
        self.peak[new], self.young[new], self.young_s[new] = 0.0, 0.0, now_s
        self.series_id[rows] = frame["series_id"][:-1]
        peak, age = self.own(frame), now_s - self.young_s[rows]
        ripe = age >= _delay_s(frame)
        # Of a row that shows a class `young_s` says since when, and `young` is 0.
        lasts = ~calm & (self.young[rows] == 0.0) & (age >= LASTING_S) & every
        self.peak[rows], self.last_s[rows] = np.where(lasts, np.maximum(peak, value), peak), now_s
        begins = np.where(calm, ripe | (self.young[rows] == 0.0), self.young[rows] > 0.0)
        self.young_s[rows[begins]] = now_s
        young = np.where(ripe, value, np.maximum(self.young[rows], value))
        self.young[rows] = np.where(calm, np.maximum(young, 1e-9), 0.0)
        self.crowd[3] += 1
        if calm.sum() >= CROWD_MIN:
            reached = float(np.quantile(value[calm], CROWD_QUANTILE))
            faded = self.crowd[0] * 2.0 ** (-max(now_s - self.crowd[1], 0.0) / DAY_S)
            self.crowd[:3] = max(reached, faded), now_s, self.crowd[2] + 1

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        for name in KEPT:
            write_array(out, name, getattr(self, name))

    def restore(self, state: Any) -> None:
        """Take it back."""
        for name in KEPT:
            kept = read_array(state, name)
            if kept is not None:
                setattr(self, name, np.array(kept))


def end_s(frame: Batch) -> int:
    """Return the end of a frame's tick in seconds."""
    return int(frame["tick_start_ns"][0] // 1_000_000_000) + round(float(frame["tick_seconds"][0]))


def seconds(frame: Batch) -> float:
    """Return the length of a frame's tick."""
    return float(frame["tick_seconds"][0])


def values(frame: Batch, measure: str) -> NDArray[np.float64]:
    """Return a measure's totals in the tick, `__other__` left out."""
    return frame[measure][:-1].astype(np.float64)


def p_beyond(value: float, limit: float) -> float:
    """Return the p-value of a value beyond the limit of its rule: a cubic tail from P_LEAST."""
    return max(float(P_LEAST * min(limit / max(value, 1e-9), 1.0) ** 3), 1e-300)


def _delay_s(frame: Batch) -> float:
    return max(DELAY_S, 1.5 * seconds(frame))
