"""From deviations to p-values: how surprising is this for this series, and for series like it.

Four steps, each a few numbers a series:

1. A controller finds the deviation that one tick in a hundred exceeds, for rises and falls apart.
   It steers by *moderate* exceedances, because the deep tail of a series is its faults.
2. What lies beyond is measured in this unit, and its tail index is fitted over all series of the
   view together (Hill's estimator, robust against single wild ticks).
3. A deviation far beyond is remembered as a burst of its series, for three days: where bursts are usual,
   in a prefix that speaks once an hour, the next one surprises no more than their share of the ticks
   says. Such a series has no tail to fit: it is nothing, or it is something. And few packets or flows,
   come or stayed out, prove no more than a Poisson law allows.
4. The surprises of consecutive ticks add up in a cumulative sum. If p-values were exact and ticks
   independent, it would pass h with probability exp(-omega h), the root of E[exp(omega (s - K))] = 1
   (Lindley's queue); omega is taken lower than that root, as neither is quite so.

The p-value is ordered at the top: a larger deviation never has a larger one, a longer one has a smaller one; where
bursts are usual or events few, deviations beyond what they allow have the same.
Blind to what stays below the one-in-a-hundred deviation, however long.

Source: Hill (1975); Page (1954); Chernoff (1952); Asmussen, Applied Probability and Queues, chapter XIII;
notes on our prototype (controller of moderate exceedances).
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

(UP, DOWN, SUM_UP, SUM_DOWN, RUN, AGE, LIVED, BURSTS) = range(8)
STATE = 8
EXCEED = 0.01  # share of ticks that the controller steers to
MARGIN = 0.75  # of the unit: values that recur exactly (an empty tick) stay below it
FIRST_UP, FIRST_DOWN = 1.4, 1.1  # log of the first unit, in usual deviations
TAIL_FIRST, TAIL_WEIGHT = 5.0, 50.0  # prior of the tail index and how many exceedances it is worth
TAIL_LEAST, TAIL_MOST = 2.5, 12.0
OMEGA = 0.85
AT_UNIT = 4.605  # -log EXCEED
BURST = 2.0  # of RUN: the run that goes on has been one
DRIFT = 3.5  # what a tick must surprise by before it counts
SOFT_CAP = 14.0  # of one tick's surprise; beyond, only its logarithm counts
SUM_MOST = 40.0  # kept of the cumulative sum, so that it falls in a few ticks when all is well
LEAST_UP, LEAST_DOWN, MOST = 0.4, 0.2, 3.7  # bounds of the log unit
CALIBRATED = 20.0  # ticks
FEW = 8.0  # events of a tick: more prove what they prove
SELDOM = 0.05  # events a tick: of no series is less known
BURSTS_KEPT_S = 3 * 86_400.0
BURSTS_LEAST = 0.05  # of a burst, faded: before, none is known
BURST_TICKS = 1000.0  # without bursts that are taken as seen: a young series is held to less


@inline
def _surprise(unit, tail):  # type: ignore[no-untyped-def]
    """-log p of one tick: exponential up to the unit (p = 0.01), a power of it beyond."""
    if not unit > 0.0:
        return 0.0
    s = AT_UNIT * unit if unit <= 1.0 else AT_UNIT + tail * np.log(unit)
    # One tick alone proves little.
    return s if s <= SOFT_CAP else SOFT_CAP + np.log(1.0 + (s - SOFT_CAP))


@inline
def _burst_cap(state, i):  # type: ignore[no-untyped-def]
    """The most that a tick of this series may surprise by: -log of how often it bursts."""
    bursts = float(state[i, BURSTS])
    if bursts < BURSTS_LEAST:
        return SUM_MOST
    age, lived = float(state[i, AGE]), float(state[i, LIVED])
    remembered = age if lived <= BURSTS_KEPT_S else age * BURSTS_KEPT_S / lived
    return max(-np.log(bursts / (remembered + BURST_TICKS)), AT_UNIT)


@inline
def _by_chance(value, expected, events):  # type: ignore[no-untyped-def]
    """The most that few events may surprise by: -log of the bound on their probability (Chernoff)."""
    if not events < np.inf:
        return SUM_MOST
    count, usual = value * events, max(expected * events, SELDOM)
    if count <= 0.0:  # that none of e comes has exp(-e)
        return usual
    return count * np.log(count / usual) - (count - usual) if count < FEW else SUM_MOST


@inline
def _advance(before, s):  # type: ignore[no-untyped-def]
    """One step of the cumulative sum; back within half a unit, it falls quickly."""
    after = before + s - DRIFT
    if s < 0.5 * AT_UNIT:
        after = min(after, 0.5 * before)
    return max(after, 0.0)


@inline
def _usual(state, i, unit):  # type: ignore[no-untyped-def]
    """Whether a tick so far off leaves both sums at 0, as most do: nothing else need be worked out."""
    return AT_UNIT * unit <= DRIFT and state[i, SUM_UP] == 0.0 and state[i, SUM_DOWN] == 0.0


@inline
def _tail(pool, side):  # type: ignore[no-untyped-def]
    index = (pool[2 * side] + TAIL_WEIGHT) / (pool[2 * side + 1] + TAIL_WEIGHT / TAIL_FIRST)
    return min(max(index, TAIL_LEAST), TAIL_MOST)


@inline
def _round20(x):  # type: ignore[no-untyped-def]
    """Keep 20 bits (6 significant digits), so that scores are the same on every machine."""
    if not abs(x) < 1e290:
        return x
    c = x * 8589934593.0  # 2**33 + 1: Veltkamp's splitting
    return c - (c - x)


@kernel(
    "i8(const i8[::1], const f8[::1], const f8[::1], const f8[::1], f8, f8, f8, const f4[:,::1],"
    " const f8[::1], f4[::1], f4[::1], f4[::1], f4[::1], f8[::1], f4[::1])"
)
def judge(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    expected: NDArray[np.float64],
    scale: NDArray[np.float64],
    events: float,
    warmup: float,
    warmup_s: float,
    state: NDArray[np.float32],
    pool: NDArray[np.float64],
    out_expected: NDArray[np.float32],
    out_lower: NDArray[np.float32],
    out_upper: NDArray[np.float32],
    out_score: NDArray[np.float32],
    out_p: NDArray[np.float64],
    out_z: NDArray[np.float32],
) -> int:
    """Write band, score and p-value of each series; changes nothing.

    In      row int64[N]; value, expected, scale float64[N] (baseline.expect); events, how many events
            a value of 1 stands for at most, infinite where it counts none; warmup, warmup_s, learned
            ticks and the seconds they stand for, before a series may say anything; state
            float32[M, 8]; pool float64[4]: count and sum of log exceedances, rises then falls.
    Out     expected, lower, upper float32[N]; score float32[N] = -log10(p), 0 where nothing is to
            be said; p float64[N] in (0, 1]; z float32[N], signed deviation in units of the
            deviation that one tick in a hundred exceeds. NaN in, NaN in score and z.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    n_rows = row.size
    if value.size != n_rows or expected.size != n_rows or scale.size != n_rows or pool.size < 4:
        return -1
    if out_expected.size != n_rows or out_lower.size != n_rows or out_upper.size != n_rows:
        return -1
    if out_score.size != n_rows or out_p.size != n_rows or out_z.size != n_rows:
        return -1
    tail_up, tail_down = _tail(pool, 0), _tail(pool, 1)
    for n in range(n_rows):
        i = row[n]
        out_p[n] = 1.0
        out_score[n] = 0.0
        out_z[n] = 0.0
        out_expected[n] = _round20(expected[n])
        out_lower[n] = out_expected[n]
        out_upper[n] = out_expected[n]
        if i < 0 or i >= state.shape[0]:
            continue
        up = scale[n] * np.exp(float(state[i, UP]))
        down = scale[n] * np.exp(float(state[i, DOWN]))
        if state[i, AGE] > 0.0:
            out_lower[n] = _round20(max(expected[n] - down, 0.0))
            out_upper[n] = _round20(expected[n] + up)
        if not np.isfinite(value[n]):
            out_score[n] = np.nan
            out_z[n] = np.nan
            continue
        if state[i, AGE] < warmup or state[i, LIVED] < warmup_s or not (scale[n] > 0.0):
            continue
        off = value[n] - expected[n]
        high, low = max(off, 0.0) / up, max(-off, 0.0) / down
        out_z[n] = _round20(high - low)
        if _usual(state, i, high + low):
            continue
        cap = min(_burst_cap(state, i), _by_chance(value[n], expected[n], events))
        s_up, s_down = _surprise(high, tail_up), _surprise(low, tail_down)
        most = max(
            _advance(float(state[i, SUM_UP]), min(s_up, cap)),
            _advance(float(state[i, SUM_DOWN]), min(s_down, cap)),
        )
        out_score[n] = _round20(OMEGA * most / np.log(10.0))
        out_p[n] = _round20(np.exp(-OMEGA * most))
    return n_rows


@kernel(
    "i8(const i8[::1], const f8[::1], const f8[::1], const f8[::1], f8, const u1[::1], f8,"
    " f4[:,::1], f8[::1])"
)
def learn(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    expected: NDArray[np.float64],
    scale: NDArray[np.float64],
    events: float,
    mask: NDArray[np.uint8],
    weight_s: float,
    state: NDArray[np.float32],
    pool: NDArray[np.float64],
) -> int:
    """Advance the cumulative sums of every series and the calibration of those with mask 1.

    A run of exceedances counts once, also when it is not learned: a fault of an hour moves the unit
    of its series by one small step.

    In      as for `judge`, before the baseline learned the tick; mask uint8[N]; weight_s,
            seconds that the tick stands for.
    Inout   state float32[M, 8]; pool float64[4].
    Returns how many exceedances were counted, or -1 when a length is wrong.
    """
    n_rows = row.size
    if value.size != n_rows or expected.size != n_rows or scale.size != n_rows or pool.size < 4:
        return -1
    if mask.size != n_rows:
        return -1
    count = 0
    tail_up, tail_down = _tail(pool, 0), _tail(pool, 1)
    fade = np.exp(-weight_s / BURSTS_KEPT_S)
    for n in range(n_rows):
        i = row[n]
        if i < 0 or i >= state.shape[0] or not np.isfinite(value[n]):
            continue
        if state[i, AGE] == 0.0:
            if state[i, UP] == 0.0:
                state[i, UP] = FIRST_UP
                state[i, DOWN] = FIRST_DOWN
        if scale[n] > 0.0 and np.isfinite(scale[n]):
            off = value[n] - expected[n]
            one = scale[n] * np.exp(float(state[i, UP if off > 0.0 else DOWN]))
            high, low = max(off, 0.0) / one, max(-off, 0.0) / one
            state[i, BURSTS] *= fade
            if state[i, AGE] > CALIBRATED:
                most = 0.0
                if not _usual(state, i, high + low):
                    chance, cap = _by_chance(value[n], expected[n], events), _burst_cap(state, i)
                    s_up = min(_surprise(high, tail_up), chance)
                    s_down = min(_surprise(low, tail_down), chance)
                    sum_up = _advance(float(state[i, SUM_UP]), min(s_up, cap))
                    sum_down = _advance(float(state[i, SUM_DOWN]), min(s_down, cap))
                    state[i, SUM_UP] = min(sum_up, SUM_MOST)
                    state[i, SUM_DOWN] = min(sum_down, SUM_MOST)
                    most = max(s_up, s_down)
                crossed = high >= MARGIN or low >= MARGIN
                gain = min(max(25.0 / (float(state[i, AGE]) + 50.0), 0.02), 0.3)
                if crossed and state[i, RUN] == 0.0:
                    count += 1
                    if high >= MARGIN:
                        state[i, UP] += gain * (1.0 - EXCEED)
                        pool[0] += 1.0
                        pool[1] += min(np.log(high / MARGIN), 2.0)
                    else:
                        state[i, DOWN] += gain * (1.0 - EXCEED)
                        pool[2] += 1.0
                        pool[3] += min(np.log(low / MARGIN), 2.0)
                elif not crossed and mask[n] != 0:
                    state[i, UP] -= gain * EXCEED
                    state[i, DOWN] -= gain * EXCEED
                state[i, UP] = min(max(float(state[i, UP]), LEAST_UP), MOST)
                state[i, DOWN] = min(max(float(state[i, DOWN]), LEAST_DOWN), MOST)
                if crossed:
                    burst = most >= SOFT_CAP or state[i, RUN] == BURST
                    state[i, RUN] = BURST if burst else 1.0
                else:
                    if state[i, RUN] == BURST:  # over: this one was told by what came before it
                        state[i, BURSTS] += 1.0
                    state[i, RUN] = 0.0
        if mask[n] != 0:
            state[i, AGE] = min(float(state[i, AGE]) + 1.0, 1e7)
            state[i, LIVED] = min(float(state[i, LIVED]) + weight_s, 1e7)
    # Old exceedances fade: the pool remembers a few thousand of them.
    for side in range(2):
        if pool[2 * side] > 5000.0:
            pool[2 * side] *= 0.5
            pool[2 * side + 1] *= 0.5
    return count
