"""What the same time of other weeks says a value should be, where a series has a week: causal, one pass.

A profile of 672 quarters of an hour beside one of the day's 96. Both are compared with each quarter's mean
before it is learned; the week is *found* once it was compared for a week, so after two, and its errors are well
below the day's. It is lost again where they come near. Office hours, calm Saturdays, a backup of every Sunday.

For `tocsin score` alone: 12 KB a series. Blind to holidays and to what comes every second week; where a level grows
within weeks, the week is worse than the day and not found.

Source: seasonal naive by weeks with smoothing (Hyndman & Athanasopoulos, Forecasting, ch. 8); when to use it is ours.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

DAY_SLOTS, WEEK_SLOTS, SLOT_S = 96, 672, 900.0
OPEN, SUM, COUNT, CLOSED_S, COMPARED_S, OFF_WEEK, OFF_DAY, FOUND = range(8)
STATE = 8
WEEK_S, GAP_MOST_S = 604_800.0, 7_200.0
FOUND_BELOW, LOST_ABOVE = 0.5, 0.7  # of the day's mean error
WEEK_GAIN, DAY_GAIN, CLIP = 0.35, 0.2, 4.0
MONDAY_S = 4 * 86_400  # 1970-01-05
VALUE_MOST = 1e30  # as in series_kernels
TINY = 1e-300


@inline
def _close(state, week, week_seen, day, day_seen, time_s):  # type: ignore[no-untyped-def]
    """Compare the open quarter's mean with both profiles, then learn it."""
    slot = int(state[OPEN])
    mean, one = state[SUM] / state[COUNT], slot % DAY_SLOTS
    passed = min(max(time_s - state[CLOSED_S], 0.0), GAP_MOST_S)
    state[CLOSED_S] = time_s
    off_week, off_day = mean - week[slot], mean - day[one]
    if week_seen[slot] > 0 and day_seen[one] > 0 and passed > 0.0:
        state[COMPARED_S] += passed
        share = max(passed / WEEK_S, passed / state[COMPARED_S])
        most_week = most_day = np.inf
        if state[COMPARED_S] > 0.5 * WEEK_S:  # one fault is no lack of a season
            most_week, most_day = CLIP * state[OFF_WEEK] + TINY, CLIP * state[OFF_DAY] + TINY
        state[OFF_WEEK] += share * (min(abs(off_week), most_week) - state[OFF_WEEK])
        state[OFF_DAY] += share * (min(abs(off_day), most_day) - state[OFF_DAY])
        if state[COMPARED_S] >= WEEK_S:
            if state[OFF_WEEK] < FOUND_BELOW * state[OFF_DAY]:
                state[FOUND] = 1.0
            elif state[OFF_WEEK] > LOST_ABOVE * state[OFF_DAY]:
                state[FOUND] = 0.0
    if week_seen[slot] == 0:
        week[slot] = mean
    else:
        if state[FOUND] > 0.0:
            off_week = min(max(off_week, -CLIP * state[OFF_WEEK]), CLIP * state[OFF_WEEK])
        week[slot] += max(WEEK_GAIN, 1.0 / (week_seen[slot] + 1.0)) * off_week
    week_seen[slot] = min(week_seen[slot] + 1, 100)
    day[one] = (
        mean
        if day_seen[one] == 0
        else day[one] + max(DAY_GAIN, 1.0 / (day_seen[one] + 1.0)) * off_day
    )
    day_seen[one] = min(day_seen[one] + 1, 100)


@kernel("i8(const f8[::1], const f8[::1], f8[::1], f8[::1], i8[::1], f8[::1], i8[::1], f8[::1])")
def expect(
    time_s: NDArray[np.float64],
    value: NDArray[np.float64],
    state: NDArray[np.float64],
    week: NDArray[np.float64],
    week_seen: NDArray[np.int64],
    day: NDArray[np.float64],
    day_seen: NDArray[np.int64],
    out: NDArray[np.float64],
) -> int:
    """Write what the week says of each row of one series; the state goes on from where it was.

    In      time_s float64[N], s since 1970 by the clocks that people live by, in any order; value
            float64[N].
    Inout   state float64[8], week float64[672], week_seen int64[672], day float64[96], day_seen int64[96]; all 0
            at first.
    Out     out float64[N]: NaN where no week is found. A row's own value has no part in it.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = value.size
    if time_s.size != rows or out.size != rows or state.size != STATE:
        return -1
    if week.size != WEEK_SLOTS or week_seen.size != WEEK_SLOTS:
        return -1
    if day.size != DAY_SLOTS or day_seen.size != DAY_SLOTS:
        return -1
    for n in range(rows):
        out[n] = np.nan
        phase = ((time_s[n] - MONDAY_S) % WEEK_S) / SLOT_S
        slot = min(int(phase), WEEK_SLOTS - 1)
        if state[COUNT] > 0.0 and slot != int(state[OPEN]):
            _close(state, week, week_seen, day, day_seen, time_s[n])
            state[SUM] = state[COUNT] = 0.0
        if state[FOUND] > 0.0 and week_seen[slot] > 0:
            near = math.floor(phase - 0.5)
            share = phase - 0.5 - near
            one, two = int(near) % WEEK_SLOTS, (int(near) + 1) % WEEK_SLOTS
            out[n] = week[slot]
            if week_seen[one] > 0 and week_seen[two] > 0:
                out[n] = (1.0 - share) * week[one] + share * week[two]
        if abs(value[n]) <= VALUE_MOST:
            if state[COUNT] == 0.0:
                state[OPEN] = slot
                if state[CLOSED_S] == 0.0:
                    state[CLOSED_S] = time_s[n]
            state[SUM] += value[n]
            state[COUNT] += 1.0
    return rows
