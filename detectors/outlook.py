"""The series of one view and measure that have a limit: their steps, forecasts and record, in arrays by place.

A place is given when a limit is found for a series and cleared when its row changes hands. Two paces run
beside each other: steps of some minutes for what comes within hours, of an hour for what comes within days.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import outlook_kernels as kernels
from runtime.checkpoint import read_array, write_array

PLACES_FIRST = 16
HOUR_S = 3600
FAST, SLOW = 0, 1
RINGS = (kernels.LOOKED_AT, 168)
LEADS = (60, 168)  # steps that are looked ahead: two hours of two minutes, a week of hours
JUDGED_MIN = 12.0  # forecasts before a series' record counts
TIE = 1.03  # an error so many times naive's is no worse: two averages of like forecasts differ by as much
RECORD_LEADS = (1, 2)  # places in kernels.LEADS whose errors are the record: 6 and 24 steps

# name: (columns, dtype, what an empty place holds)
ARRAYS: dict[str, tuple[tuple[int, ...], Any, float]] = {
    "series_id": ((), np.uint64, 0),
    "logs": ((), np.uint8, 0),  # 1: values are kept as logarithms, growth is by a factor
    "sign": ((), np.float64, 0.0),  # 1: the limit is above, -1: below, 0: none
    "limit": ((), np.float64, 0.0),  # as it is compared: a logarithm where logs
    "usual_times": ((), np.float64, 0.0),
    "total": ((2,), np.float64, 0.0),  # of the running step of each pace
    "count": ((2,), np.float64, 0.0),
    "found": ((), np.int64, -2),  # fast step in which another rule last found it rising
    "over": ((), np.uint8, 0),  # fast steps in a row beyond the limit
    "streak": ((2,), np.int64, 0),  # evaluations in a row that promised a breach
    "hours": ((24,), np.float32, 0.0),
    "yesterday": ((24,), np.float32, 0.0),
    "seen": ((24,), np.uint8, 0),
    "whole": ((), np.uint8, 0),
} | {
    f"{name}{pace}": (columns, np.float32, empty)
    for pace, ring in enumerate(RINGS)
    for name, columns, empty in (
        ("ring", (ring,), np.nan),
        ("made", (kernels.KEPT, 2), np.nan),
        ("error", (kernels.ERRORS,), 0.0),
        ("usual_trend", (2,), 0.0),
        ("now", (4,), np.nan),
    )
}


class Outlooks:
    """All places of one view and measure."""

    def __init__(self, fast_s: float) -> None:
        self.steps_s = (fast_s, float(HOUR_S))
        self.step = [-1, -1]  # of each pace, the one that runs
        self._skipped = [0, 0]  # steps without a tick before it
        self.places = 0  # in use, from 0 on
        self._work = np.zeros(kernels.WORK)
        self._arrays: dict[str, NDArray[Any]] = {}
        self._allocate(PLACES_FIRST)

    def __getattr__(self, name: str) -> NDArray[Any]:
        try:
            return self.__dict__["_arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    def _allocate(self, size: int) -> None:
        kept, self._arrays = self._arrays, {}
        for name, (columns, dtype, empty) in ARRAYS.items():
            made: NDArray[Any] = np.full((size, *columns), empty, dtype)
            if name in kept:
                made[: len(kept[name])] = kept[name]
            self._arrays[name] = made

    def add(self) -> int:
        """Return a new, empty place."""
        if self.places == len(self.sign):
            self._allocate(2 * self.places)
        self.places += 1
        return self.places - 1

    def clear(self, place: int) -> None:
        """Forget all of a place."""
        for name, (_, _, empty) in ARRAYS.items():
            self._arrays[name][place] = empty

    def take(
        self, places: NDArray[np.int64], value: NDArray[np.float64], time_s: float
    ) -> list[tuple[int, int, NDArray[np.float64]]]:
        """Take one tick's values that begins at time_s; return (pace, step, means) of steps that ended.

        Means are float64[places], NaN where nothing came.
        """
        ended = []
        for pace, step_s in enumerate(self.steps_s):
            step = int(time_s // step_s)
            if self.step[pace] >= 0 and step > self.step[pace]:
                before = self.step[pace]
                ended.append((pace, before, self._end(pace, before)))
                self._skipped[pace] = step - before - 1
            self.step[pace] = max(step, self.step[pace])
        known = np.isfinite(value)
        places, value = places[known], value[known]
        for pace in (FAST, SLOW):
            self.total[places, pace] += value
            self.count[places, pace] += 1.0
        return ended

    def _end(self, pace: int, step: int) -> NDArray[np.float64]:
        n = self.places
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: NDArray[np.float64] = self.total[:n, pace] / self.count[:n, pace]
            value = np.where(self.logs[:n] > 0, np.log(np.maximum(mean, 1.0)), mean)
        self.total[:n, pace] = self.count[:n, pace] = 0.0
        kernels.advance(
            step, self._skipped[pace], self.steps_s[pace], pace, np.ascontiguousarray(value),
            self.logs[:n], self.hours, self.yesterday, self.seen, self._arrays[f"ring{pace}"],
            self._arrays[f"made{pace}"], self._arrays[f"error{pace}"],
            self._arrays[f"usual_trend{pace}"], self._arrays[f"now{pace}"], self._work,
        )  # fmt: skip
        if pace == SLOW:
            # A day is known now: what was forecast without it is another kind of forecast.
            new = (self.seen[:n] > 0).all(axis=1) & (self.whole[:n] == 0)
            self.whole[:n][new] = 1
            for which in (FAST, SLOW):
                self._arrays[f"made{which}"][:n][new] = np.nan
                self._arrays[f"error{which}"][:n][new] = 0.0
        return mean

    def breaches(self, pace: int, step: int) -> NDArray[np.float64]:
        """Return float64[places, 6] as outlook_kernels.breach writes it."""
        n = self.places
        out = np.zeros((n, 6))
        kernels.breach(
            step, self.steps_s[pace], pace, LEADS[pace], self.sign[:n], self.limit[:n],
            self.usual_times[:n], self.logs[:n], self.hours, self.seen,
            self._arrays[f"error{pace}"], self._arrays[f"now{pace}"], out,
        )  # fmt: skip
        return out

    @property
    def fast_wait_s(self) -> float:
        """Seconds until a series without a past may have a trend at the fast pace."""
        return self.steps_s[FAST] * (kernels.USUAL_MIN + kernels.BENT_MIN)

    def usual(self, time_s: float) -> NDArray[np.float64]:
        """Return the usual value of each place at a time, as kept and as the fast pace sees it.

        0 before a day was seen.
        """
        at, n = time_s / 3600.0 - 0.5, self.places
        first, share = int(at // 1.0), at % 1.0
        found = np.zeros(n)
        for k, weight in enumerate((1.0 - share, 2.0 - share, 1.0 + share, share)):
            found += 0.25 * weight * self.hours[:n, (first - 1 + k) % 24]
        return np.where(self.whole[:n] > 0, found, 0.0)

    def record(self, pace: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
        """Return (mean error, that of seasonal naive, forecasts judged) of each place."""
        error = self._arrays[f"error{pace}"][: self.places].astype(np.float64)
        ours = sum(error[:, lead] for lead in RECORD_LEADS)
        naive = sum(error[:, 3 + lead] for lead in RECORD_LEADS)
        return np.asarray(ours), np.asarray(naive), error[:, kernels.JUDGED]

    def licensed(self, pace: int) -> NDArray[np.bool_]:
        """Return which places may show a forecast: judged often enough, and no worse than naive."""
        ours, naive, judged = self.record(pace)
        found: NDArray[np.bool_] = (judged >= JUDGED_MIN) & (ours <= TIE * naive)
        return found

    def snapshot(self, out: Any) -> None:
        """Write all arrays."""
        steps = [*self.step, *self._skipped, self.places]
        write_array(out, "steps", np.array(steps, np.int64))
        for name, array in self._arrays.items():
            write_array(out, name, array[: self.places])

    def restore(self, state: Any) -> list[str]:
        """Take them back; return the names of arrays that an older version kept in another way: they begin anew."""
        steps = read_array(state, "steps")
        if steps is None:
            return []
        self.step, self._skipped = steps[:2].tolist(), steps[2:4].tolist()
        self.places = int(steps[4])
        self._arrays = {}
        self._allocate(max(PLACES_FIRST, self.places))
        forgotten = []
        for name, array in self._arrays.items():
            kept = read_array(state, name)
            if kept is None:
                continue
            if kept.shape[1:] == array.shape[1:]:
                array[: self.places] = kept
            elif name.startswith("ring") and kept.ndim == 2:
                _turn(kept, array[: self.places], self.step[int(name[-1])])
            else:
                forgotten.append(name)
        return forgotten


def _turn(kept: NDArray[Any], ring: NDArray[Any], step: int) -> None:
    """Take the last values of a ring of another length, whose newest is of the step before this one."""
    steps = np.arange(step - min(kept.shape[1], ring.shape[1]), step)
    ring[:, steps % ring.shape[1]] = kept[:, steps % kept.shape[1]]
