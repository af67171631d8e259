"""What is usual: of each row the peak of its past, fading slowly, and of all rows what the busy reach.

The measures of security have no noise model worth the name: most hosts have none of a class in most
ticks. So a row is held against the most it has shown so far and against its like, never against a
mean. A row that goes on for days becomes its own peak: a scanner of one's own is told once.
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
KEPT = ("series_id", "peak", "last_s", "ticks", "crowd")


class Usual:
    """Peaks by dense row, and the crowd's; 24 bytes a row. Times are ends of ticks in seconds."""

    def __init__(self, *, half_life_seconds: float = 3 * DAY_S) -> None:
        self._half_life_s = half_life_seconds
        self.series_id = np.zeros(ROWS_FIRST, np.uint64)
        self.peak = np.zeros(ROWS_FIRST, np.float32)
        self.last_s = np.zeros(ROWS_FIRST, np.int64)
        self.ticks = np.zeros(ROWS_FIRST, np.uint32)
        self.crowd = np.zeros(3)  # what the busy reach, when that was learned, ticks

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
        age = np.maximum(end_s(frame) - self.last_s[rows], 0)
        faded: NDArray[np.float64] = known * self.peak[rows] * 2.0 ** (-age / self._half_life_s)
        return faded

    def ticks_of(self, frame: Batch) -> NDArray[np.int64]:
        """Return in how many ticks each row was learned so far."""
        rows = self.rows(frame)
        known = self.series_id[rows] == frame["series_id"][:-1]
        ticks: NDArray[np.int64] = known * self.ticks[rows].astype(np.int64)
        return ticks

    @property
    def busy(self) -> float:
        """What the busiest of its like reach; 0 while that is not known."""
        return float(self.crowd[0])

    @property
    def ticks_known(self) -> int:
        """In how many ticks there was a crowd to learn from."""
        return int(self.crowd[2])

    def learn(self, frame: Batch, value: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
        """Learn the rows where mask is set."""
        rows, now_s = self.rows(frame), end_s(frame)
        peak = np.maximum(self.own(frame), value)
        new = self.series_id[rows] != frame["series_id"][:-1]
        self.peak[rows[new]], self.ticks[rows[new]] = 0.0, 0
        self.series_id[rows] = frame["series_id"][:-1]
        own = rows[mask]
        self.peak[own], self.last_s[own] = peak[mask], now_s
        self.ticks[own] += np.uint32(1)
        calm = value[mask]
        if calm.size >= CROWD_MIN:
            reached = float(np.quantile(calm, CROWD_QUANTILE))
            faded = self.crowd[0] * 2.0 ** (-max(now_s - self.crowd[1], 0.0) / DAY_S)
            self.crowd[:] = max(reached, faded), now_s, self.crowd[2] + 1

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
    return max(P_LEAST * min(limit / max(value, 1e-9), 1.0) ** 3, 1e-300)
