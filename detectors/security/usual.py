"""What is usual: of each row the peak of its past, fading slowly, and of all rows what the busy reach.

The measures of security have no noise model worth the name: most hosts have none of a class in most
ticks. So a row is held against the most it has shown so far and against its like, never against a
mean. What it showed within the last quarter of an hour does not count yet: the first tick of an attack,
which is seldom a whole one, must not make the second usual. A row that goes on for days becomes its
own peak: a scanner of one's own is told once.

A peak is one of ticks of one length: the most of a short tick is no rate, and says nothing of a long
one. So all is forgotten when the length changes, and until ticks of the new one fill WARM_S nothing is
known (`warm`). A history that holds the view now and then teaches what its ticks showed, and counts as
long as they were; one that lacks the view teaches nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_array, write_array
from runtime.kernels import kernel
from telemetry.batch import Batch
from telemetry.security import FLOWS_MIN

ROWS_FIRST = 64
CROWD_MIN = 20  # rows of a tick before its busy ones say anything
CROWD_QUANTILE = 0.98
BUSY_QUANTILE = 0.5  # where the view has rows for the busy only
DAY_S = 86_400.0
P_LEAST = 1e-8  # of what just passes a rule; see detectors.security.stage
DELAY_S = 900.0  # before a value counts as usual; of long ticks one and a half
LASTING_S = 14_400.0  # what shows a class for so long is learned all the same
WARM_S, WARM_TICKS = 1_800.0, 24  # of ticks as long as those that are judged, and how many
PER_ROW = ("series_id", "peak", "last_s", "young", "young_s")
KEPT = (*PER_ROW, "known")
# Of `known`: what the busy reach, when that was learned, seconds of ticks that taught, their length.
BUSY, BUSY_S, SEEN_S, TICK_S = range(4)


@kernel(
    "i8(const i8[::1], const u8[::1], i8, i8, f8, const u8[::1], const f4[::1], const i8[::1],"
    " const f4[::1], const i8[::1], f8[::1])"
)
def own_peaks(
    rows: NDArray[np.int64],
    ids: NDArray[np.uint64],
    now_s: int,
    delay_s: int,
    half_life_s: float,
    series_id: NDArray[np.uint64],
    peak: NDArray[np.float32],
    last_s: NDArray[np.int64],
    young: NDArray[np.float32],
    young_s: NDArray[np.int64],
    out: NDArray[np.float64],
) -> int:
    """Write the faded peak of each row, 0 of a row in new hands; return how many are known.

    In      rows int64[N], ids uint64[N]; by row uint64, float32, int64[M]: whose it is, its peak and when
            that was brought up to date, the most since `young_s` that is not in the peak yet.
    """
    known = 0
    for i in range(rows.size):
        row = rows[i]
        out[i] = 0.0
        if series_id[row] != ids[i]:
            continue
        known += 1
        out[i] = peak[row] * 2.0 ** (-max(now_s - last_s[row], 0) / half_life_s)
        if now_s - young_s[row] >= delay_s:
            out[i] = max(out[i], float(young[row]))
    return known


@kernel(
    "i8(const i8[::1], const u8[::1], const f8[::1], const u1[::1], i8, i8, i8, f8, i8, u8[::1], f4[::1],"
    " i8[::1], f4[::1], i8[::1])"
)
def learn_peaks(
    rows: NDArray[np.int64],
    ids: NDArray[np.uint64],
    value: NDArray[np.float64],
    calm: NDArray[np.uint8],
    now_s: int,
    delay_s: int,
    lasting_s: int,
    half_life_s: float,
    every: int,
    series_id: NDArray[np.uint64],
    peak: NDArray[np.float32],
    last_s: NDArray[np.int64],
    young: NDArray[np.float32],
    young_s: NDArray[np.int64],
) -> int:
    """Learn the values of a tick; return how many rows are new.

    In      rows, ids as in `own_peaks`; value float64[N]; calm uint8[N], 0 where the row shows a class:
            what it showed of late is forgotten, but after `lasting_s`, where `every`, it is usual.
    Inout   as in `own_peaks`. Of a row that shows a class `young_s` says since when, and `young` is 0.
    """
    new = 0
    for i in range(rows.size):
        row = rows[i]
        if series_id[row] != ids[i]:
            series_id[row], peak[row], young[row] = ids[i], np.float32(0.0), np.float32(0.0)
            last_s[row], young_s[row] = now_s, now_s
            new += 1
        age = now_s - young_s[row]
        ripe = age >= delay_s
        most = peak[row] * 2.0 ** (-max(now_s - last_s[row], 0) / half_life_s)
        if ripe:
            most = max(most, float(young[row]))
        if calm[i]:
            if ripe or young[row] == 0.0:
                young_s[row] = now_s
            held = 0.0 if ripe else float(young[row])
            young[row] = np.float32(max(held, value[i], 1e-9))
        else:
            if young[row] > 0.0:
                young_s[row] = now_s
            elif every and age >= lasting_s:
                most = max(most, value[i])
            young[row] = np.float32(0.0)
        peak[row], last_s[row] = np.float32(most), now_s
    return new


class Usual:
    """Peaks by dense row, and the crowd's; 32 bytes a row. Times are ends of ticks in seconds."""

    def __init__(self, view: str, *, half_life_seconds: float = 3 * DAY_S) -> None:
        self._half_life_s = half_life_seconds
        self._busy_from = FLOWS_MIN.get(view, 1)
        self._forget()

    def _forget(self) -> None:
        self.series_id = np.zeros(ROWS_FIRST, np.uint64)
        self.peak = np.zeros(ROWS_FIRST, np.float32)
        self.last_s = np.zeros(ROWS_FIRST, np.int64)
        self.young = np.zeros(ROWS_FIRST, np.float32)
        self.young_s = np.zeros(ROWS_FIRST, np.int64)
        self.known = np.zeros(4)

    def rows(self, frame: Batch) -> NDArray[np.int64]:
        """Return the places of a frame's rows, `__other__` left out; there is room for them."""
        if self.known[TICK_S] != seconds(frame):
            self._forget()
            self.known[TICK_S] = seconds(frame)
        rows: NDArray[np.int64] = frame["row"][:-1].astype(np.int64)
        size = len(self.series_id)
        if rows.size and int(rows.max()) >= size:
            while size <= int(rows.max()):
                size *= 2
            for name in PER_ROW:
                setattr(self, name, grown(getattr(self, name), size))
        return rows

    def own(self, frame: Batch) -> NDArray[np.float64]:
        """Return the faded peak of each row; 0 of a row in new hands."""
        rows = self.rows(frame)
        out = np.empty(rows.size)
        own_peaks(
            rows, frame["series_id"][:-1], end_s(frame), _delay_s(frame), self._half_life_s,
            self.series_id, self.peak, self.last_s, self.young, self.young_s, out,
        )  # fmt: skip
        return out

    def busy(self, frame: Batch, value: NDArray[np.float64]) -> float:
        """Return what the busiest of its like reach; 0 while that is not known.

        Until it is warm, what they reach in this very tick counts as well.
        """
        reached = float(self.known[BUSY])
        return reached if self.warm else max(reached, self._reached(frame, value))

    def _reached(self, frame: Batch, value: NDArray[np.float64], among: Any = True) -> float:
        busy = value[among & (values(frame, "flows") >= self._busy_from)]
        if busy.size < CROWD_MIN:
            return 0.0
        share = CROWD_QUANTILE if self._busy_from == 1 else BUSY_QUANTILE
        place = round(share * (busy.size - 1))
        return float(np.partition(busy, place)[place])

    @property
    def seen_s(self) -> float:
        """How long it has learned: seconds of ticks of the length that they have now."""
        return float(self.known[SEEN_S])

    @property
    def warm(self) -> bool:
        """Whether so much was seen that what is not usual means something."""
        return self.seen_s >= max(WARM_S, WARM_TICKS * float(self.known[TICK_S]))

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
        learn_peaks(
            rows, frame["series_id"][:-1], value, calm.view(np.uint8), now_s, _delay_s(frame),
            round(LASTING_S), self._half_life_s, int(every),
            self.series_id, self.peak, self.last_s, self.young, self.young_s,
        )  # fmt: skip
        self.known[SEEN_S] += seconds(frame)
        reached = self._reached(frame, value, calm)
        if reached:
            faded = self.known[BUSY] * 2.0 ** (-max(now_s - self.known[BUSY_S], 0.0) / DAY_S)
            self.known[BUSY : BUSY_S + 1] = max(reached, faded), now_s

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


def grown(kept: NDArray[Any], size: int) -> NDArray[Any]:
    """Return an array of this size that begins with what is kept; zeros behind it."""
    made = np.zeros(size, kept.dtype)
    made[: len(kept)] = kept
    return made


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


def _delay_s(frame: Batch) -> int:
    return round(max(DELAY_S, 1.5 * seconds(frame)))
