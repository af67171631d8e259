"""The baseline: what a series should be now, how far it may stray, and whether it strays.

For each (row, measure): a daily profile of 24 hours for workdays and one for weekends, a slow level
relative to it, a spread relative to the square root of the expectation (counts and sums of counts
vary so), a controller of the exceedance rate, and a capped cumulative sum, so that it takes more
than one tick to convince. 340 bytes a series.

The profile is written once per visit of a slot, from an accumulator: a quantised average per
sample would stand still. All of it is learned only from what was not anomalous.

Source: cumulative sum: Page (1954); rate controller and clipped spread: notes on our prototype
(docs/adr/0005); variance proportional to the mean: compound Poisson traffic.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

SLOTS = 48  # 24 hours of a workday, 24 of a weekend day
# Columns of the f32 state.
(LEVEL, SPREAD, THETA, CUSUM_UP, CUSUM_DOWN, LONG, QUIET, SEEN, ACC, ACC_N, OPEN_SLOT, RUN,
 ZERO_RUN, ZERO_RUN_MAX, MEAN) = range(15)  # fmt: skip
STATE = 16
CAP = 1.0  # of one tick's contribution to the cumulative sum
RATE_PER_DAY = 2.0  # moderate exceedances a day that the controller steers to


@inline
def _slot_of(time_s):  # type: ignore[no-untyped-def]
    day = time_s // 86400
    hour = (time_s % 86400) // 3600
    weekend = (day + 3) % 7 >= 5
    return hour + (24 if weekend else 0)


@inline
def _expected(profile, visits, state, i, time_s):  # type: ignore[no-untyped-def]
    slot = _slot_of(time_s)
    within = (time_s % 3600) / 3600.0 - 0.5
    other = _slot_of(time_s + 3600) if within >= 0 else _slot_of(time_s - 3600)
    here = profile[i, slot]
    if visits[i, slot] == 0:
        return state[i, 14]  # no such hour seen yet: the plain mean
    if visits[i, other] > 0:
        share = within if within >= 0 else -within
        here = here * (1.0 - share) + profile[i, other] * share
    return here * state[i, 0]


@kernel(
    "i8(const i8[::1], const f8[::1], i8, f8, f8, f8, f4[:,::1], f4[:,::1], u1[:,::1],"
    " f4[::1], f4[::1], f4[::1], f4[::1], f8[::1], f4[::1])"
)
def score(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    time_s: int,
    tick_s: float,
    widen: float,
    warmup: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    visits: NDArray[np.uint8],
    out_expected: NDArray[np.float32],
    out_lower: NDArray[np.float32],
    out_upper: NDArray[np.float32],
    out_score: NDArray[np.float32],
    out_p: NDArray[np.float64],
    out_z: NDArray[np.float32],
) -> int:
    """Score one value of each series; nothing is changed but the running sums of evidence.

    In      row int64[N]; value float64[N], a rate per second, NaN = missing; time_s, middle of the
            tick, s since 1970; tick_s its length; widen >= 1, factor on the band (lost exports);
            warmup, ticks before a series may say anything.
    Inout   state float32[M, 16]: CUSUM_UP, CUSUM_DOWN, LONG, ZERO_RUN are advanced.
    Out     expected, lower, upper float32[N]; score float32[N] >= 0, 0 while warming up; p float64[N]
            in (0, 1]; z float32[N], the signed deviation in thresholds (1 = a moderate exceedance).
    """
    base = np.log(2.0 * tick_s / 86400.0)
    for n in range(row.size):
        i = row[n]
        v = value[n]
        expected = float(_expected(profile, visits, state, i, time_s))
        root = np.sqrt(max(expected, 1e-9))
        scale = (1.25 * float(state[i, 1]) + 0.02 * root + 1e-9) * widen
        reach = scale * root * float(state[i, 2])
        out_expected[n] = expected
        out_lower[n] = max(expected - reach, 0.0)
        out_upper[n] = expected + reach
        out_score[n] = 0.0
        out_p[n] = 1.0
        out_z[n] = 0.0
        if not np.isfinite(v):
            continue
        if v == 0.0:
            state[i, 12] += 1.0
        if state[i, 7] < warmup:
            continue
        deviation = (v - expected) / max(reach, 1e-12)
        out_z[n] = deviation
        up = min(max(deviation, -1.0), 2.0) - 1.0
        down = min(max(-deviation, -1.0), 2.0) - 1.0
        state[i, 3] = max(0.0, state[i, 3] + up)
        state[i, 4] = max(0.0, state[i, 4] + down)
        gain = tick_s / (600.0 + tick_s)
        state[i, 5] += gain * (min(max(deviation, -3.0), 3.0) - state[i, 5])
        best = max(float(state[i, 3]), float(state[i, 4]))
        out_score[n] = best
        out_p[n] = min(1.0, np.exp(base * best))
    return row.size


@kernel(
    "i8(const i8[::1], const f8[::1], const u1[::1], i8, f8, f8, f8, f4[:,::1], f4[:,::1],"
    " u1[:,::1])"
)
def learn(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    mask: NDArray[np.uint8],
    time_s: int,
    weight_s: float,
    level_half_life_s: float,
    spread_half_life_s: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    visits: NDArray[np.uint8],
) -> int:
    """Fold one value of each series into its baseline where mask is 1; return how many.

    In      as for `score`; weight_s, seconds of time that this tick stands for.
    Inout   state, profile float32[M, 48], visits uint8[M, 48].
    """
    count = 0
    slot = _slot_of(time_s)
    for n in range(row.size):
        v = value[n]
        i = row[n]
        if not np.isfinite(v):
            continue
        if v > 0.0:
            if state[i, 12] > state[i, 13] and state[i, 7] > 0 and mask[n] != 0:
                state[i, 13] = state[i, 12]
            state[i, 12] = 0.0
        if mask[n] == 0:
            continue
        count += 1
        seen = float(state[i, 7])
        expected = float(_expected(profile, visits, state, i, time_s))
        root = np.sqrt(max(expected, 1e-9))
        if seen == 0.0:
            expected = v
            root = np.sqrt(max(v, 1e-9))
            state[i, 14] = v
            state[i, 0] = 1.0
            state[i, 1] = 0.3 * root
            state[i, 2] = 3.0
            state[i, 10] = slot
        residual = abs(v - expected) / root
        gain = max(1.0 - 0.5 ** (weight_s / spread_half_life_s), 1.0 / (seen + 2.0))
        limit = 4.0 * (1.25 * float(state[i, 1]) + 0.02 * root)
        if seen > 20.0:
            residual = min(residual, limit)
        state[i, 1] += gain * (residual - state[i, 1])
        # Exceedance-rate controller: up at a crossing, slowly down, so that two a day balance.
        reach = (1.25 * float(state[i, 1]) + 0.02 * root + 1e-9) * root * float(state[i, 2])
        crossed = abs(v - expected) > reach
        theta = np.log(max(float(state[i, 2]), 1e-3))
        days = weight_s / 86400.0
        if seen > 20.0:
            if crossed and state[i, 6] > 0.02:
                theta += 0.1
                state[i, 6] = 0.0
            else:
                state[i, 6] += days
            theta -= 0.1 * 2.0 * days
        state[i, 2] = np.exp(min(max(theta, np.log(2.5)), np.log(30.0)))
        # Level relative to the profile, and the plain mean.
        gain = max(1.0 - 0.5 ** (weight_s / level_half_life_s), 1.0 / (seen + 2.0))
        state[i, 14] += gain * (min(v, 4.0 * float(state[i, 14]) + 1e-9) - state[i, 14])
        if visits[i, slot] > 1 and expected > 0.0:
            ratio = min(max(v / expected, 0.25), 4.0)
            state[i, 0] *= 1.0 + (1.0 - 0.5 ** (weight_s / level_half_life_s)) * (ratio - 1.0)
        # Profile: written when the hour is over.
        if int(state[i, 10]) != slot:
            old = int(state[i, 10])
            if state[i, 9] > 0:
                mean = state[i, 8] / state[i, 9]
                if visits[i, old] == 0:
                    profile[i, old] = mean
                else:
                    share = max(0.2, 1.0 / (visits[i, old] + 1.0))
                    profile[i, old] += share * (mean / max(state[i, 0], 1e-3) - profile[i, old])
                if visits[i, old] < 255:
                    visits[i, old] += 1
            state[i, 8] = 0.0
            state[i, 9] = 0.0
            state[i, 10] = slot
        state[i, 8] += v
        state[i, 9] += 1.0
        state[i, 7] = min(seen + 1.0, 1e7)
    return count
