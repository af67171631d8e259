"""From a score to the level at which it alerts, and to a p-value: by the runs over 1 so far.

A score of 1 is what a series exceeds twice a day. How often it exceeds more than that follows a power
law; its index is estimated from the excesses of the runs' peaks over 1, capped, because the deep tail
of a series is its faults: a fault counts as one moderate run. The alert level lies where a run comes
as seldom as the budget allows; a series of unknown tail begins with a wide index, which fades within
a day. Runs and not rows are counted: a burst is one exceedance however long it lasts.

An alert is an edge. After it the level is raised by half the alert's score and falls back within half
a day, within an hour no second one is raised, and the score must fall below 0.7 of the level first.

64 bytes a series. Blind to what never passes 1.

Source: Hill (1975) for the index, with the mean of a capped exponential; Leadbetter (1991) for runs
as independent exceedances; docs/adr/0030 for what was measured.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, subroutine

(
    SEEN, LIVED, RUNS, DAYS, PEAK, PAUSE, PEAKS, EXCESS, SINCE, LIFT, ARMED, INDEX, LEVEL,
) = range(13)  # fmt: skip
STATE = 16  # a cache line
BYTES = 4 * STATE
GROWN_S = 86_400.0  # a series' first day, judged with a wide index, says nothing of the fleet
DECADES, FIRST_DECADE = 16, 3  # of rarity that are counted
FALSE_ALERTS_PER_DAY = 1.0 / 7.0  # of one series: one a week

ROWS_PER_DAY_MOST = 1440.0
EXCESS_FIRST, EXCESS_WEIGHT, EXCESS_CAP, EXCESS_KEPT = 0.12, 4.0, 0.3, 60.0
# Of the index: by what clean noise of six kinds showed; more while it rests on few peaks.
NARROW, WIDEN, WIDEN_MOST = 0.72, 1.2, 1.05
FASTER = 0.05  # of the index, for each e-fold that rows come faster than once a minute: deeper in the tail
RUNS_FIRST, RUNS_WEIGHT, RUNS_KEPT = 3.0, 2.0, 14.0  # a day; days
YOUNG, YOUNG_DAYS = 0.6, 0.5  # an unknown series may have any tail
APART, ENDED = 0.05, 0.02  # days between runs; after which one is over
HOLD_OFF_DAYS, LIFT_SHARE, LIFT_MOST, LIFT_DAYS = 0.04, 0.5, 3.0, 0.5
REARM = 0.7
# The budget is of days for series with a value each quarter of an hour or more often, of values for slower ones.
BUDGET_STEP_S, BUDGET_SLOWER_MOST = 900.0, 8.0
# Rows: the level of a young series is worked out anew in each, then in every 16th.
OFTEN, EVERY = (
    64.0,
    16.0,
)


@subroutine
def _settle(step_s, aged_s, budget, e):  # type: ignore[no-untyped-def]
    """Work out index and level anew; a young series grows older by `aged_s` a row."""
    mean = min(e[EXCESS] / e[PEAKS], 0.8 * EXCESS_CAP)
    index = mean
    for _ in range(6):  # the mean of an exponential whose values, capped, have this mean
        index = mean / (1.0 - math.exp(-EXCESS_CAP / index))
    index *= min(NARROW + WIDEN * index, WIDEN_MOST) * (1.0 + 1.0 / e[PEAKS])
    if aged_s > step_s:
        index *= 1.0 + FASTER * math.log(aged_s / step_s)
    e[INDEX] = index + YOUNG * math.exp(-e[SEEN] * aged_s / 86400.0 / YOUNG_DAYS)
    slower = min(max(step_s / BUDGET_STEP_S, 1.0), BUDGET_SLOWER_MOST)
    e[LEVEL] = max(e[RUNS] / e[DAYS] / budget * slower, 1.0) ** e[INDEX]


@inline
def _load(i, step_s, budget, state, e):  # type: ignore[no-untyped-def]
    for k in range(STATE):
        e[k] = np.float64(state[i, k])
    if e[PEAKS] == 0.0:
        e[PEAKS] = EXCESS_WEIGHT
        e[EXCESS] = EXCESS_WEIGHT * EXCESS_FIRST * (1.0 - math.exp(-EXCESS_CAP / EXCESS_FIRST))
        e[DAYS] = RUNS_WEIGHT * min(86400.0 / step_s, ROWS_PER_DAY_MOST) * step_s / 86400.0
        e[RUNS] = RUNS_FIRST * RUNS_WEIGHT
        e[SINCE], e[PAUSE], e[ARMED] = 1e9, 1e9, 1.0
        _settle(step_s, step_s, budget, e)


@inline
def _store(i, state, e):  # type: ignore[no-untyped-def]
    for k in range(STATE):
        state[i, k] = e[k]


@inline
def _rarity(score, step_s, e):  # type: ignore[no-untyped-def]
    """How many runs of this height or more come in a row's time."""
    often = min(e[RUNS] / e[DAYS] * step_s / 86400.0, 1.0)
    return max(often * score ** (-1.0 / e[INDEX]), 1e-300)


@inline
def _needed(step_s, e):  # type: ignore[no-untyped-def]
    """The score that would alert now."""
    if e[LIFT] == 0.0:
        return e[LEVEL]
    return e[LEVEL] + e[LIFT] * math.exp(-(e[SINCE] + 1.0) * step_s / 86400.0 / LIFT_DAYS)


@subroutine
def _advance(score, step_s, aged_s, budget, warm, e):  # type: ignore[no-untyped-def]
    """Count a row, by which the series is `aged_s` older; return whether it alerts."""
    needed = _needed(step_s, e)
    per_day = min(86400.0 / step_s, ROWS_PER_DAY_MOST)
    e[SINCE] = min(e[SINCE] + 1.0, 1e9)
    raised = (
        score >= needed and warm and e[ARMED] > 0.0 and e[SINCE] * step_s / 86400.0 > HOLD_OFF_DAYS
    )
    if raised:
        e[LIFT] = LIFT_SHARE * min(score, LIFT_MOST * needed)
        e[SINCE], e[ARMED] = 0.0, 0.0
    elif score < REARM * needed:
        e[ARMED] = 1.0
    # ---- runs over 1: how many a day, and how high their peaks are
    e[SEEN] = min(e[SEEN] + 1.0, 1e7)
    e[LIVED] = min(e[LIVED] + step_s, 1e9)
    e[DAYS] += step_s / 86400.0
    ended = False
    if score >= 1.0:
        if e[PEAK] > 0.0:
            e[PEAK], e[PAUSE] = max(e[PEAK], score), 0.0
        elif e[PAUSE] > APART * per_day:
            e[PEAK], e[PAUSE] = score, 0.0
    else:
        e[PAUSE] = min(e[PAUSE] + 1.0, 1e9)
        ended = e[PEAK] > 0.0 and e[PAUSE] > ENDED * per_day
    if ended:
        e[EXCESS] += min(math.log(e[PEAK]), EXCESS_CAP)
        e[PEAKS] += 1.0
        e[RUNS] += 1.0
        if e[PEAKS] > EXCESS_KEPT:
            kept = EXCESS_KEPT / (EXCESS_KEPT + 1.0)
            e[PEAKS] *= kept
            e[EXCESS] *= kept
        if e[DAYS] > RUNS_KEPT * per_day * step_s / 86400.0:
            e[RUNS] *= 0.95
            e[DAYS] *= 0.95
        e[PEAK], e[PAUSE] = 0.0, 1e9
    if ended or e[SEEN] < OFTEN or e[SEEN] % EVERY == 0.0:
        _settle(step_s, aged_s, budget, e)
    return raised


@kernel("i8(const f8[::1], const f8[::1], f8, i8, f4[:,::1], f8[::1], f8[::1], u1[::1])")
def follow(
    score: NDArray[np.float64],
    step: NDArray[np.float64],
    budget: float,
    warm: int,
    state: NDArray[np.float32],
    work: NDArray[np.float64],
    out_level: NDArray[np.float64],
    out_alert: NDArray[np.uint8],
) -> int:
    """Say at which score each row of one series would alert, and which rows do.

    In      score float64[N], 1 = exceeded twice a day; step float64[N], usual seconds between rows, 0
            where a value is missing; budget, false alerts a day; warm, rows before the first alert.
    Inout   state float32[1, 16].
    Out     level float64[N], 1 while not warm; alert uint8[N], 1 where one is sent.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = score.size
    if step.size != rows or out_level.size != rows or out_alert.size != rows:
        return -1
    if state.shape[1] != STATE or work.size < STATE:
        return -1
    for n in range(rows):
        out_level[n], out_alert[n] = 1.0, 0
        if step[n] == 0.0:
            continue
        _load(0, step[n], budget, state, work)
        ready = work[SEEN] >= warm
        if ready:
            out_level[n] = _needed(step[n], work)
        # A tail is known by rows, not by the clock: faster series age as if they came once a minute.
        aged_s = max(step[n], 86400.0 / ROWS_PER_DAY_MOST)
        if _advance(score[n], step[n], aged_s, budget, ready, work):
            out_alert[n] = 1
        _store(0, state, work)
    return rows


@kernel(
    "i8(const i8[::1], const f8[::1], const f4[::1], f8, f8, f8, const f4[:,::1], f8[::1], f8[::1],"
    " f8[::1])"
)
def judge(
    row: NDArray[np.int64],
    score: NDArray[np.float64],
    step: NDArray[np.float32],
    tick_s: float,
    budget: float,
    warmup_s: float,
    state: NDArray[np.float32],
    work: NDArray[np.float64],
    out_level: NDArray[np.float64],
    out_p: NDArray[np.float64],
) -> int:
    """Write how rare the scores of one tick are; changes no state.

    In      row int64[N], place in the state; score float64[N], 1 = exceeded twice a day, NaN = no
            value; step float32[M], seconds between a series' values; tick_s; budget, false alerts a
            day of one series, for the level; warmup_s, seconds before a series may say anything.
    Out     level float64[N], where a series' own alert would be; p float64[N]: runs of this height a
            tick, 1 where nothing is to be said.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = row.size
    if score.size != rows or out_level.size != rows or out_p.size != rows:
        return -1
    if state.shape[1] != STATE or work.size < STATE or step.size != state.shape[0]:
        return -1
    for n in range(rows):
        i = row[n]
        out_level[n], out_p[n] = 1.0, 1.0
        if i < 0 or i >= state.shape[0] or state[i, SEEN] == 0.0:
            continue
        step_s = max(np.float64(step[i]), tick_s)
        _load(i, step_s, budget, state, work)
        out_level[n] = _needed(step_s, work)
        if score[n] > 1.0 and work[LIVED] >= warmup_s:
            out_p[n] = _rarity(score[n], step_s, work)
    return rows


@kernel("i8(const i8[::1], const f8[::1], const f4[::1], f8, f8, f8, f4[:,::1], f8[::1], f8[::1])")
def learn(
    row: NDArray[np.int64],
    score: NDArray[np.float64],
    step: NDArray[np.float32],
    tick_s: float,
    budget: float,
    warmup_s: float,
    state: NDArray[np.float32],
    work: NDArray[np.float64],
    out_reached: NDArray[np.float64],
) -> int:
    """Count the scores of one tick; NaN is no value. As for `judge`; state float32[M, 16].

    Out     reached float64[16]: for how many series the run that goes on became rarer than 1e-3, 1e-4,
            ... in this tick. A run counts once for each, however long it lasts.
    Returns how many series are a day old, which alone count, or -1 when a length is wrong: nothing was written.
    """
    rows, tested = row.size, 0
    if score.size != rows or state.shape[1] != STATE or work.size < STATE:
        return -1
    if step.size != state.shape[0] or out_reached.size != DECADES:
        return -1
    for k in range(DECADES):
        out_reached[k] = 0.0
    for n in range(rows):
        i = row[n]
        if i < 0 or i >= state.shape[0] or np.isnan(score[n]):
            continue
        step_s = max(np.float64(step[i]), tick_s)
        _load(i, step_s, budget, state, work)
        before = work[PEAK]
        _advance(score[n], step_s, step_s, budget, True, work)
        _store(i, state, work)
        if work[LIVED] < max(warmup_s, GROWN_S):
            continue
        tested += 1
        if work[PEAK] > max(before, 1.0):
            now = -math.log10(_rarity(work[PEAK], step_s, work))
            past = -math.log10(_rarity(before, step_s, work)) if before > 1.0 else 0.0
            for k in range(DECADES):
                if past < k + FIRST_DECADE <= now:
                    out_reached[k] += 1.0
    return tested
