"""The baseline: what a series should be now and by how much it usually strays.

For each (row, measure): a daily profile of 24 hours for workdays and one for weekends, a slow level
(a day) and a fast local level (half an hour) relative to it, and a spread relative to the square
root of the expectation, because sums of independent flows vary so. 332 bytes a series, 364 with
its calibration.

The spread is kept per square root of a second, so ticks of 15 minutes teach what ticks of 5
seconds will show. The profile is written once per visit of an hour, from an accumulator: a
quantised average per sample would stand still. How much a profile may be off is kept apart for
workdays and weekends: five lived workdays prove nothing of a Saturday. Two averages of actual /
expected, of ten minutes and of an hour, show slow rises.

What lies between the local level and the profile is no deviation: a series that comes back to what is
usual at this hour, after a leak of hours or a detour, is no news. Nor is a silence that is shorter than
others of that series, which were no fault.

Blind to seasons other than the day and the weekend, to any rise slower than the slow level
follows, and to what only brings a series back to its profile.

Source: compound Poisson traffic (variance proportional to the mean); a fast local level is worth
more than a season (notes on our prototype, docs/adr).
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

SLOTS = 48  # 24 hours of a workday, 24 of a weekend day
(
    LEVEL, LOCAL, MEAN, SPREAD, ABSOLUTE, SEEN, ACC, ACC_N, ACC_E, SLOT, PROFILED, BASE, ZERO_RUN,
    ZERO_RUN_MAX, FAST, SLOW, SINCE, STEEPEST, DOUBT, TICK, SQUARE, BEHIND, WEEKEND_DOUBT,
) = range(23)  # fmt: skip
STATE = 23
RISEN = 1.3  # ten-minute ratio that may be a slow rise
RISING = 1.15  # ten-minute ratio from which on the steepness is watched
QUIET = 3.0  # ticks: a series that was silent for so long, and it was no fault, may be again
FLOOR = 0.02  # of the expectation: no series is steadier than this


@inline
def _slot_of(time_s):  # type: ignore[no-untyped-def]
    """Hour of the day in UTC, 24 more on weekends; 1970-01-01 was a Thursday."""
    weekend = (time_s // 86400 + 3) % 7 >= 5
    return (time_s % 86400) // 3600 + (24 if weekend else 0)


def doubt_at(time_s: int) -> int:
    """Return the column that says how much the profile of this day's kind may be off."""
    return WEEKEND_DOUBT if _slot_of(time_s) >= 24 else DOUBT


@inline
def _hours(time_s):  # type: ignore[no-untyped-def]
    """Return (slot of this hour, slot of the nearer neighbour, the neighbour's share)."""
    within = (time_s % 3600) / 3600.0 - 0.5
    if within >= 0:
        return _slot_of(time_s), _slot_of(time_s + 3600), within
    return _slot_of(time_s), _slot_of(time_s - 3600), -within


@inline
def _base(profile, visits, state, i, slot, other, share):  # type: ignore[no-untyped-def]
    """Return the expectation without the local level; negative where no such hour was seen yet."""
    if visits[i, slot] == 0:
        return -float(state[i, MEAN])
    here = float(profile[i, slot])
    if visits[i, other] > 0:
        here = here * (1.0 - share) + float(profile[i, other]) * share
    return here * float(state[i, LEVEL])


@inline
def _noise(state, i, expected, span_s):  # type: ignore[no-untyped-def]
    """Return the usual size of a deviation; never so small that a dead series could strike."""
    root = np.sqrt(max(expected, 0.0) / span_s)
    return max(1.25 * float(state[i, SPREAD]) * root, 0.25 * float(state[i, ABSOLUTE]))


@kernel(
    "i8(const i8[::1], const f8[::1], const f4[::1], const f4[::1], i8, f8,"
    " const f4[:,::1], const f4[:,::1], const u1[:,::1], f8[::1], f8[::1])"
)
def expect(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    lost_share: NDArray[np.float32],
    moved_share: NDArray[np.float32],
    time_s: int,
    span_s: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    visits: NDArray[np.uint8],
    out_expected: NDArray[np.float64],
    out_scale: NDArray[np.float64],
) -> int:
    """Write what each series should be and how far it usually strays; changes nothing.

    In      row int64[N], place in the state; value float64[N]; lost_share, moved_share float32[N]
            in [0, 1]; time_s, middle of the tick, s since 1970; span_s, length of the tick where
            values are rates, 1 where they are not; state float32[M, 23], profile float32[M, 48],
            visits uint8[M, 48].
    Out     expected, scale float64[N]; both 0 where the series was never seen; scale infinite where
            nine tenths of the exports were lost: what is left proves nothing.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    n_rows = row.size
    if value.size != n_rows or lost_share.size != n_rows or moved_share.size != n_rows:
        return -1
    if out_expected.size != n_rows or out_scale.size != n_rows:
        return -1
    slot, other, share = _hours(time_s)
    for n in range(n_rows):
        i = row[n]
        out_expected[n] = 0.0
        out_scale[n] = 0.0
        if i < 0 or i >= state.shape[0] or state[i, SEEN] == 0.0:
            continue
        base = _base(profile, visits, state, i, slot, other, share)
        expected = abs(base) * float(state[i, LOCAL])
        noise = _noise(state, i, expected, span_s)
        if base > 0.0 and abs(expected - base) > noise + FLOOR * expected:
            # Far from its profile: what lies between is nearer to the usual, and no deviation.
            low, high = min(base, expected), max(base, expected)
            expected = min(max(value[n], low), high) if np.isfinite(value[n]) else expected
        quiet = float(state[i, ZERO_RUN_MAX])
        if value[n] == 0.0 and quiet >= QUIET and float(state[i, ZERO_RUN]) < quiet:
            expected = 0.0  # it is often silent for longer
        lost = min(max(float(lost_share[n]), 0.0), 1.0)
        moved = min(max(float(moved_share[n]), 0.0), 1.0)
        out_expected[n] = expected
        if lost >= 0.9:
            out_scale[n] = np.inf
            continue
        # The loss itself is an estimate: half of it is taken as its error.
        unsure = (0.5 * lost + moved) * expected
        floor = FLOOR * expected
        out_scale[n] = np.sqrt(noise * noise / (1.0 - lost) + floor * floor + unsure * unsure)
    return n_rows


@kernel(
    "i8(const i8[::1], const f8[::1], const u1[::1], i8, f8, f8, f8, f8, f8, f8, f4[:,::1],"
    " f4[:,::1], u1[:,::1])"
)
def learn(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    mask: NDArray[np.uint8],
    time_s: int,
    span_s: float,
    tick_s: float,
    weight_s: float,
    level_half_life_s: float,
    local_half_life_s: float,
    spread_half_life_s: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    visits: NDArray[np.uint8],
) -> int:
    """Fold one value of each series into its baseline where mask is 1.

    Where mask is 0 only the running observations advance: the silence and the slow-rise averages.

    In      as for `expect`; mask uint8[N]; weight_s, seconds of time that this tick stands for.
    Inout   state float32[M, 23], profile float32[M, 48], visits uint8[M, 48].
    Returns how many rows were learned, or -1 when a length is wrong.
    """
    n_rows = row.size
    if value.size != n_rows or mask.size != n_rows:
        return -1
    count = 0
    slot, other, nearness = _hours(time_s)
    level_gain = 1.0 - 0.5 ** (3600.0 / level_half_life_s)
    mean_gain = 1.0 - 0.5 ** (weight_s / level_half_life_s)
    local_gain = 1.0 - 0.5 ** (tick_s / local_half_life_s)
    spread_gain = 1.0 - 0.5 ** (weight_s / spread_half_life_s)
    fast_gain = tick_s / (600.0 + tick_s)
    slow_gain = tick_s / (3600.0 + tick_s)
    behind_gain = tick_s / (300.0 + tick_s)
    for n in range(n_rows):
        i = row[n]
        v = value[n]
        if i < 0 or i >= state.shape[0] or not np.isfinite(v):
            continue
        seen = float(state[i, SEEN])
        # ---- silence: the longest that is not a fault; a fault's length is not learned
        if v == 0.0:
            state[i, ZERO_RUN] += 1.0
        else:
            run, most = float(state[i, ZERO_RUN]), float(state[i, ZERO_RUN_MAX])
            if run > most:
                state[i, ZERO_RUN_MAX] = (
                    run if seen < 60.0 or run <= 2.0 * most + 1.0 else most + 0.25
                )
            state[i, ZERO_RUN] = 0.0
        if seen == 0.0:
            if mask[n] == 0:
                continue
            if state[i, TICK] == 0.0 and weight_s <= tick_s:
                # Its first tick: a series begins within it, so that much of the tick is missing.
                state[i, TICK] = tick_s
                continue
            state[i, LEVEL] = 1.0
            state[i, LOCAL] = 1.0
            state[i, MEAN] = v
            state[i, SPREAD] = 0.3 * np.sqrt(max(v, 0.0) * span_s)
            state[i, ABSOLUTE] = 0.3 * abs(v)
            state[i, SLOT] = slot
            state[i, BASE] = v
            state[i, FAST] = 1.0
            state[i, SLOW] = 1.0
            state[i, BEHIND] = 1.0
            state[i, TICK] = tick_s
            state[i, DOUBT] = 1.0
            state[i, WEEKEND_DOUBT] = 1.0
        base = _base(profile, visits, state, i, slot, other, nearness)
        profiled = 1.0 if base > 0.0 else 0.0
        base = abs(base)
        if profiled != state[i, PROFILED]:
            # The first day has no profile: the local level keeps the expectation in one piece.
            if base > 0.0 and state[i, BASE] > 0.0:
                moved = float(state[i, LOCAL]) * float(state[i, BASE]) / base
                state[i, LOCAL] = min(max(moved, 0.25), 4.0)
            state[i, PROFILED] = profiled
        state[i, BASE] = base
        # ---- slow rise: actual / expected without the local level, every tick
        ratio = 1.0
        if profiled == 1.0 and base > 0.0:
            ratio = min(v / base, 5.0)
        if tick_s < 600.0:
            state[i, FAST] += fast_gain * (ratio - float(state[i, FAST]))
            state[i, SLOW] += slow_gain * (ratio - float(state[i, SLOW]))
            # The short average against itself five minutes ago: how steep it is.
            state[i, BEHIND] += behind_gain * (float(state[i, FAST]) - float(state[i, BEHIND]))
            if state[i, FAST] > RISING:
                steep = float(state[i, FAST]) - float(state[i, BEHIND])
                state[i, STEEPEST] = max(float(state[i, STEEPEST]), steep)
            else:
                state[i, STEEPEST] = 0.0
            if state[i, FAST] > RISEN:
                state[i, SINCE] += tick_s
            else:
                state[i, SINCE] = 0.0
        if mask[n] == 0:
            continue
        count += 1
        expected = base * float(state[i, LOCAL])
        # ---- spread; ticks of another length are another kind of sample
        if state[i, TICK] != tick_s:
            state[i, TICK] = tick_s
            seen = min(seen, 60.0)
        gain = max(spread_gain, 1.0 / (seen + 2.0))
        off = abs(v - expected)
        noise = _noise(state, i, expected, span_s) + FLOOR * expected
        square = off if seen <= 20.0 else min(off, 12.0 * noise)
        if seen > 20.0:
            off = min(off, 4.0 * noise)
        state[i, ABSOLUTE] += gain * (off - float(state[i, ABSOLUTE]))
        root = np.sqrt(max(expected, 0.0) / span_s)
        if root > 0.0:
            state[i, SPREAD] += gain * (off / root - float(state[i, SPREAD]))
            square = square / root
            slow = max(mean_gain, 1.0 / (seen + 2.0))
            state[i, SQUARE] += slow * (square * square - float(state[i, SQUARE]))
        # ---- local level and plain mean
        if base > 0.0:
            near = min(max(v / base, 0.0), 4.0 * float(state[i, LOCAL]))
            local = float(state[i, LOCAL]) + local_gain * (near - float(state[i, LOCAL]))
            state[i, LOCAL] = min(max(local, 0.25), 4.0)
        gain = max(mean_gain, 1.0 / (seen + 2.0))
        state[i, MEAN] += gain * (
            min(v, 4.0 * float(state[i, MEAN]) + 1e-9) - float(state[i, MEAN])
        )
        # ---- profile and slow level: written when the hour is over
        if int(state[i, SLOT]) != slot:
            old = int(state[i, SLOT])
            if state[i, ACC_N] > 0.0:
                mean = float(state[i, ACC]) / float(state[i, ACC_N])
                share = max(0.2, 1.0 / (visits[i, old] + 1.0))
                if visits[i, old] > 1 and state[i, ACC_E] > 0.0:
                    change = min(max(float(state[i, ACC]) / float(state[i, ACC_E]), 0.25), 4.0)
                    state[i, LEVEL] *= 1.0 + level_gain * (change - 1.0)
                relative = mean / max(float(state[i, LEVEL]), 1e-3)
                profile[i, old] += share * (relative - float(profile[i, old]))
                # Variance of a slot in units of one tick's, on the average over the day's slots.
                kept = 1.0 - share
                day = WEEKEND_DOUBT if old >= 24 else DOUBT
                now = kept * kept * float(state[i, day]) + share * share / float(state[i, ACC_N])
                state[i, day] += (now - float(state[i, day])) / 24.0
                if visits[i, old] < 255:
                    visits[i, old] += 1
            state[i, ACC] = 0.0
            state[i, ACC_N] = 0.0
            state[i, ACC_E] = 0.0
            state[i, SLOT] = slot
        state[i, ACC] += v
        state[i, ACC_N] += 1.0
        state[i, ACC_E] += base
        state[i, SEEN] = min(float(state[i, SEEN]) + 1.0, 1e7)
    return count
