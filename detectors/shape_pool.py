"""Shape online: a bounded pool of memory for the series whose period is clearest.

What `detectors.shape` does over a file, value by value: how unlike all that it showed so far the last
half and whole period of a series look. That takes 4 KB of memory a series, so not all have it. Each
series is tried in turn: its values fill a slot, coarser as they become more, until a clear period is
found (a peak of the autocorrelation, 8 to 1,000 values) or 4,096 values show none; then the slot goes
to the next. When the pool is full, the series with the least clear period gives way to a clearer one.

About 5 us for each averaged value (a 32nd of a period). Blind as `detectors.shape` is, and to series that
were not tried yet: with ticks of 60 s a trial takes half a day to three days.

Source: as for `detectors.shape`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.shape import clear_autocorrelation
from runtime.checkpoint import read_array, write_array
from runtime.kernels import inline, kernel

MEMORY = 1024  # averaged values
POINTS = 32  # of them in a period
EACH_MOST = 4  # values to a point in a trial
LOOK_AT = MEMORY // 2  # a trial is looked at when half full, and when full
TRIED_APART = 20_000  # ticks before a series without a period is tried again
TRIALS_PER_TICK = 16
TRIALS_SHARE = 0.25  # of the slots
VALUE_MOST = 1e30
STATISTICS_KEPT = 2_000.0

(POINT_SUM, POINT_COUNT, EACH, FILLED, HEAD, MEAN, SCALE, PERIOD, CLEAR, Z, USUAL, SPREAD, SEEN) = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14,
)  # fmt: skip
STATE = 16  # USUAL, SPREAD and SEEN are two each: of half and of whole periods
SLOT_BYTES = 4 * (MEMORY + STATE) + 8
WORK = 4 * MEMORY


@inline
def _distance(window, normalised, count, work):  # type: ignore[no-untyped-def]
    """Distance of the last window among `count` points to its nearest like that ended before it began."""
    last = count - window
    dot = work[MEMORY : 2 * MEMORY]
    mean, deviation = work[2 * MEMORY : 3 * MEMORY], work[3 * MEMORY : 4 * MEMORY]
    total = squares = 0.0
    for k in range(count):
        total += work[k]
        squares += work[k] * work[k]
        if k >= window:
            total -= work[k - window]
            squares -= work[k - window] * work[k - window]
        if k >= window - 1:
            j = k - window + 1
            dot[j], mean[j] = 0.0, total / window
            deviation[j] = math.sqrt(max(squares / window - mean[j] * mean[j], 1e-12))
    for k in range(window):  # this way around it needs no sum over vectors
        point = work[last + k]
        for j in range(last - window + 1):
            dot[j] += point * work[j + k]
    here, size = mean[last], deviation[last]
    best = -1.0
    for j in range(last - window + 1):
        other = deviation[j]
        shared = dot[j] / window - here * mean[j]
        if normalised:
            # A flat window has no shape: its deviation counts as a tenth of the usual one.
            apart = 2.0 - 2.0 * shared / (max(size, 0.1) * max(other, 0.1))
        else:
            apart = size * size + other * other - 2.0 * shared
        if best < 0.0 or apart < best:
            best = max(apart, 0.0)
    return math.sqrt(best) if best > 0.0 else 0.0


@kernel("i8(const i8[::1], const f8[::1], i8, f4[:,::1], f4[:,::1], f8[::1], f8[::1])")
def push(
    slot: NDArray[np.int64],
    value: NDArray[np.float64],
    keep: int,
    state: NDArray[np.float32],
    memory: NDArray[np.float32],
    work: NDArray[np.float64],
    out_z: NDArray[np.float64],
) -> int:
    """Say how unlike their past the series of some slots look with one value more.

    In      slot int64[N], negative = none; value float64[N], NaN = missing: nothing changes; keep, 1 to
            keep the values, 0 to leave memory and state as they are.
    Inout   state float32[M, 16], memory float32[M, 1024], a ring of points.
    Out     z float64[N]: the distances over the usual ones, 0 without a slot, in a trial, or below usual.
    Returns how many points were completed, or -1 when a length is wrong: nothing was written.
    """
    rows, completed = slot.size, 0
    if value.size != rows or out_z.size != rows or work.size < WORK:
        return -1
    if state.shape[1] != STATE or memory.shape[1] != MEMORY or memory.shape[0] != state.shape[0]:
        return -1
    for n in range(rows):
        i, v = slot[n], value[n]
        out_z[n] = 0.0
        if i < 0 or i >= state.shape[0]:
            continue
        out_z[n] = np.float64(state[i, Z])
        if not (abs(v) <= VALUE_MOST):
            continue
        total = np.float64(state[i, POINT_SUM]) + v
        count = np.float64(state[i, POINT_COUNT]) + 1.0
        if count < np.float64(state[i, EACH]):
            if keep != 0:
                state[i, POINT_SUM], state[i, POINT_COUNT] = total, count
            continue
        completed += 1
        trial = state[i, PERIOD] == 0.0
        point = total / count
        if not trial:
            point = (point - np.float64(state[i, MEAN])) / np.float64(state[i, SCALE])
            point = min(max(point, -1e3), 1e3)
        head, filled = int(state[i, HEAD]), int(state[i, FILLED])
        if not trial:
            before = min(filled, MEMORY - 1)
            for k in range(before):
                work[k] = np.float64(memory[i, (head - before + k) % MEMORY])
            work[before] = np.float64(np.float32(point))
            z = 0.0
            for which in range(2):
                window = int(state[i, PERIOD]) if which == 1 else int(state[i, PERIOD]) // 2
                if before + 1 < 3 * window:
                    continue
                apart = _distance(window, which == 1, before + 1, work)
                usual = np.float64(state[i, USUAL + which])
                spread = np.float64(state[i, SPREAD + which])
                seen = np.float64(state[i, SEEN + which])
                room = math.sqrt(max(spread, 0.0)) + 0.2 * usual + 1e-9
                if seen >= 2.0 * window:
                    z += max((apart - usual) / room, 0.0)
                    apart = min(apart, usual + 4.0 * room)
                if keep != 0:
                    share = 1.0 / min(seen + 1.0, STATISTICS_KEPT)
                    off = apart - usual
                    state[i, USUAL + which] = usual + share * off
                    state[i, SPREAD + which] = (1.0 - share) * (spread + share * off * off)
                    state[i, SEEN + which] = seen + 1.0
            out_z[n] = z
        if keep != 0:
            memory[i, head] = point
            state[i, HEAD] = (head + 1) % MEMORY
            state[i, FILLED] = min(filled + 1, MEMORY)
            state[i, POINT_SUM], state[i, POINT_COUNT], state[i, Z] = 0.0, 0.0, out_z[n]
    return completed


class ShapePool:
    """Slots of memory, and which place of a detector's state holds which of them."""

    def __init__(self, bytes_max: int) -> None:
        self._slots_max = max(bytes_max, 0) // SLOT_BYTES
        self._work = np.zeros(WORK)
        self.place = np.zeros(0, np.int64)  # by slot; -1: free
        self.state = np.zeros((0, STATE), np.float32)
        self.memory = np.zeros((0, MEMORY), np.float32)
        # By place: slot + 1, or less than 0: minus the tick of its trial.
        self.slot = np.zeros(0, np.int64)
        self._ticks = 0
        self._next = 0  # place where the search for series to be tried goes on

    @property
    def periods(self) -> dict[int, float]:
        """Points in a period by place, of the series that have one."""
        held = np.flatnonzero((self.place >= 0) & (self.state[:, PERIOD] > 0.0))
        return {int(self.place[k]): float(self.state[k, PERIOD]) for k in held}

    def forget(self, places: NDArray[np.int64]) -> None:
        """These places belong to other series now."""
        for place in places[places < len(self.slot)].tolist():
            if self.slot[place] > 0:
                self._free(int(self.slot[place]) - 1)
            self.slot[place] = 0

    def score(self, places: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how unlike its past each series looks with this value; changes nothing."""
        return self._push(places, value, keep=False)

    def learn(self, places: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Keep the values of a tick, look at trials that are due, begin others; return as `score`."""
        if not self._slots_max:
            return np.zeros(len(places))
        self._ticks += 1
        made = self._push(places, value, keep=True)
        for k in self._due().tolist():
            self._look(k)
        self._begin(places, value)
        return made

    def _push(
        self, places: NDArray[np.int64], value: NDArray[np.float64], *, keep: bool
    ) -> NDArray[np.float64]:
        made = np.zeros(len(places))
        if not len(self.place):
            return made
        slot = np.full(len(places), -1, np.int64)
        known = places < len(self.slot)
        slot[known] = np.maximum(self.slot[places[known]], 0) - 1
        push(slot, value, int(keep), self.state, self.memory, self._work, made)
        return made

    def _due(self) -> NDArray[np.int64]:
        """Slots in a trial whose next look is now."""
        filled = self.state[:, FILLED]
        trial = (self.place >= 0) & (self.state[:, PERIOD] == 0.0)
        return np.flatnonzero(
            trial & ((filled == LOOK_AT) | (filled == MEMORY)) & (self.state[:, POINT_COUNT] == 0)
        )

    def _look(self, k: int) -> None:
        """Give a slot's series a period, more time, or up."""
        state, filled = self.state[k], int(self.state[k, FILLED])
        points = self.memory[k, :filled].astype(np.float64)  # a trial never goes around the ring
        period, clear = clear_autocorrelation(points)
        if period:
            rivals = np.flatnonzero((self.place >= 0) & (self.state[:, PERIOD] > 0.0))
            most = self._slots_max - int(TRIALS_SHARE * self._slots_max)
            if len(rivals) >= max(most, 1):
                least = int(rivals[np.argmin(self.state[rivals, CLEAR])])
                if self.state[least, CLEAR] >= clear:
                    self._free(k)
                    return
                self._free(least)
            self._settle(k, points, max(round(period / POINTS), 1), period, clear)
        elif filled == MEMORY:
            if state[EACH] >= EACH_MOST:
                self._free(k)
            else:
                self._coarsen(k, points, 2)

    def _settle(
        self, k: int, points: NDArray[np.float64], by: int, period: int, clear: float
    ) -> None:
        """Bring the memory to 32 points a period, and go on with distances."""
        mean, scale = float(points.mean()), float(points.std()) + 1e-12
        self._coarsen(k, np.clip((points - mean) / scale, -1e3, 1e3), by)
        state = self.state[k]
        state[MEAN], state[SCALE], state[CLEAR] = mean, scale, clear
        state[PERIOD] = max(round(period / by), 6)

    def _coarsen(self, k: int, points: NDArray[np.float64], by: int) -> None:
        kept = len(points) // by
        self.memory[k, :kept] = points[: kept * by].reshape(kept, by).mean(axis=1)
        self.state[k, EACH] *= by
        self.state[k, FILLED], self.state[k, HEAD] = kept, kept % MEMORY

    def _free(self, k: int) -> None:
        self.slot[self.place[k]] = -self._ticks
        self.place[k] = -1
        self.state[k] = 0.0

    def _begin(self, places: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        """Give free slots to series that were not tried, or long ago, a few each tick."""
        if places.size and int(places.max()) >= len(self.slot):
            grown = np.zeros(2 * int(places.max()) + 1, np.int64)
            grown[: len(self.slot)] = self.slot
            self.slot = grown
        trials = int(((self.place >= 0) & (self.state[:, PERIOD] == 0.0)).sum())
        room = max(int(TRIALS_SHARE * self._slots_max), 1) - trials
        held = int((self.place >= 0).sum())
        room = min(room, self._slots_max - held, TRIALS_PER_TICK)
        if room <= 0:
            return
        state = self.slot[places]
        waits = (state == 0) | ((state < 0) & (state + self._ticks > TRIED_APART))
        asking = np.sort(places[waits & np.isfinite(value)])
        after = np.searchsorted(asking, self._next)
        asking = np.concatenate([asking[after:], asking[:after]])[:room]
        if not asking.size:
            return
        free = np.flatnonzero(self.place < 0)
        if len(free) < len(asking):
            self._grow(len(self.place) + len(asking))
            free = np.flatnonzero(self.place < 0)
        for place, k in zip(asking.tolist(), free.tolist(), strict=False):
            self.place[k], self.slot[place] = place, k + 1
            self.state[k] = 0.0
            self.state[k, EACH] = 1.0
            self._next = place + 1

    def _grow(self, slots: int) -> None:
        size = min(max(slots, 2 * len(self.place), 16), self._slots_max)
        place, state = np.full(size, -1, np.int64), np.zeros((size, STATE), np.float32)
        memory = np.zeros((size, MEMORY), np.float32)
        place[: len(self.place)], state[: len(self.place)] = self.place, self.state
        memory[: len(self.place)] = self.memory
        self.place, self.state, self.memory = place, state, memory

    def snapshot(self, out: Any) -> None:
        """Write all of it."""
        for name in ("place", "state", "memory", "slot"):
            write_array(out, f"shape_{name}", getattr(self, name))
        write_array(out, "shape_clock", np.array([self._ticks, self._next], np.int64))

    def restore(self, state: Any) -> None:
        """Take it back; with a smaller pool than it was kept from, all are tried anew."""
        place, clock = read_array(state, "shape_place"), read_array(state, "shape_clock")
        if place is None or clock is None or len(place) > self._slots_max:
            return
        for name in ("place", "state", "memory", "slot"):
            setattr(self, name, np.array(read_array(state, f"shape_{name}")))
        self._ticks, self._next = (int(one) for one in clock)
