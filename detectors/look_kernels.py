"""Six looks at how a series moves, each with a statistic of its own; one value after the other.

Each gives a signed deviation in usual sizes. A controller finds which deviation is exceeded twice a day;
the score is the deviation in this unit (as in `series_kernels`; which score alerts: `exceedances`).
What goes on now (short averages) moves always, notions of normal (usual sizes, slow levels) only with
rows that are learned, clipped.

State of one look at one series: 40 f32.

Sources: at each look below.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, subroutine

LOOKS = ("rate", "variance", "distribution", "sums", "drift", "arrival")
RATE, VARIANCE, DISTRIBUTION, SUMS, DRIFT, ARRIVAL = range(6)

SEEN, UNIT, QUIET, LAST, LEVEL, SPREAD, FAST = range(7)
OWN = 7  # from here on each look has its own
STATE = 40
BYTES = 4 * STATE

VALUE_MOST = 1e30
ROWS_PER_DAY_MOST = 1440.0
FIRST_UNIT, LEAST_UNIT, MOST_SCORE = 3.0, 2.0, 1e4
CROSSINGS, STEP_UP, APART = 2.0, 0.1, 0.1  # as in series_kernels
WARM, WARM_AVERAGE, WARM_SHARES = 20.0, 60.0, 200.0  # rows before a look says anything
FLOOR, FLOOR_LEVEL, FLOOR_SPREAD = 1e-9, 1e-3, 0.05

S_DAY = OWN + 6
S_SUM, S_COUNT, S_HOUR = S_DAY + 24, S_DAY + 25, S_DAY + 26
BINS = 8
EDGES, SHORT, LONG, USUAL = OWN, OWN + BINS - 1, OWN + 2 * BINS - 1, OWN + 3 * BINS - 1
HOURS = 24
RING, SUM, COUNT, HOUR, TREND, SIZE, BEFORE = (
    OWN, OWN + HOURS, OWN + HOURS + 1, OWN + HOURS + 2, OWN + HOURS + 3, OWN + HOURS + 4,
    OWN + HOURS + 5,
)  # fmt: skip


@inline
def _clip(value, most):  # type: ignore[no-untyped-def]
    return min(max(value, -most), most)


@inline
def _missing(value):  # type: ignore[no-untyped-def]
    return not (abs(value) <= VALUE_MOST)


@inline
def _usual(s, at, size, share, floor):  # type: ignore[no-untyped-def]
    """Let a usual size follow, clipped at three times itself."""
    if s[SEEN] >= WARM:
        size = min(size, 3.0 * (1.25 * s[at] + floor))
    s[at] += share * (size - s[at])


@subroutine
def _rate(value, passed_s, step_s, share, floor, s):  # type: ignore[no-untyped-def]
    """How much faster than usual it changed since the last value: the moving range chart.

    For jumps of a series whose level wanders. Blind to what grows by usual steps.
    Source: Shewhart (1931); Montgomery, Statistical Quality Control, moving ranges.
    """
    change = value - s[LAST]
    if passed_s > step_s:
        change *= step_s / passed_s
    z = change / (1.25 * s[OWN] + floor) if s[SEEN] >= WARM else 0.0
    _usual(s, OWN, abs(change), share, floor)
    return z


@subroutine
def _variance(value, share, floor, s):  # type: ignore[no-untyped-def]
    """How much wilder or calmer than usual it is around its fast level, over some 24 values.

    For flapping, hunting regulators, a sensor gone numb. Blind to where the level is.
    Source: MacGregor and Harris (1993), the exponentially weighted moving variance.
    """
    size = abs(value - s[FAST])
    s[OWN] += max(1.0 / 24.0, 1.0 / (s[SEEN] + 1.0)) * (
        min(size, 8.0 * (s[OWN + 1] + floor)) - s[OWN]
    )
    ratio = math.log((s[OWN] + floor) / (s[OWN + 1] + floor))
    z = ratio / (1.25 * s[OWN + 2] + 0.1) if s[SEEN] >= WARM_AVERAGE else 0.0
    _usual(s, OWN + 1, size, share, floor)
    _usual(s, OWN + 2, abs(ratio), share, 0.1)
    return z


@subroutine
def _distribution(value, share, floor, s):  # type: ignore[no-untyped-def]
    """How unlike its usual shares in eight bins the last 32 values fall around their level.

    For a signal that becomes two-valued, skewed or coarse at the same level and spread. Blind to
    changes that last a few values.
    Source: Pearson's chi-square over bins of own quantiles; these by Robbins and Monro (1951).
    """
    off = value - s[FAST]
    size, at = 4.0 * share * (s[SPREAD] + floor), 0
    for k in range(BINS - 1):
        edge = s[EDGES + k]
        if edge <= off:
            at += 1
            s[EDGES + k] = edge + size * (k + 1) / BINS
        else:
            s[EDGES + k] = edge - size * (1.0 - (k + 1) / BINS)
    distance = 0.0
    quick = max(1.0 / 32.0, 1.0 / (s[SEEN] + 1.0))
    for k in range(BINS):
        hit = 1.0 if k == at else 0.0
        s[SHORT + k] += quick * (hit - s[SHORT + k])
        apart = s[SHORT + k] - s[LONG + k]
        distance += apart * apart / (s[LONG + k] + 0.02)
        s[LONG + k] += share * (hit - s[LONG + k])
    z = distance / (s[USUAL] + 0.05) if s[SEEN] >= WARM_SHARES else 0.0
    _usual(s, USUAL, distance, share, 0.05)
    return z


@subroutine
def _sums(value, time_s, share, floor, s):  # type: ignore[no-untyped-def]
    """The largest of three weighted sums of deviations, over some 8, 32 and 128 values.

    For small shifts and collective changes that no single value shows. Deviations are from the same
    hour of the days before, on the first day from the slow level. Blind to what lasts for days.
    Source: Page (1954); Lucas and Saccucci (1990), exponentially weighted moving averages.
    """
    hour = (time_s // 3600) % HOURS
    if s[S_COUNT] > 0.0 and hour != s[S_HOUR]:
        mean, place = s[S_SUM] / s[S_COUNT], S_DAY + int(s[S_HOUR])
        if s[place] == 0.0:
            s[place] = mean
        else:
            s[place] += 0.2 * _clip(mean - s[place], 2.0 * (1.25 * s[SPREAD] + floor))
        s[S_SUM], s[S_COUNT] = 0.0, 0.0
    s[S_HOUR] = hour
    if share > 0.0:
        s[S_SUM] += value
        s[S_COUNT] += 1.0
    usual = s[S_DAY + hour] if s[S_DAY + hour] != 0.0 else s[LEVEL]
    one = _clip((value - usual) / (1.25 * s[SPREAD] + floor), 3.0)
    most, gain = 0.0, 0.125
    for k in range(3):
        s[OWN + k] += max(gain, 1.0 / (s[SEEN] + 1.0)) * (one - s[OWN + k])
        z = s[OWN + k] / (1.25 * s[OWN + 3 + k] + 0.05)
        if abs(z) > abs(most):
            most = z
        _usual(s, OWN + 3 + k, abs(s[OWN + k]), share, 0.05)
        gain *= 0.25
    return most if s[SEEN] >= WARM_AVERAGE else 0.0


@subroutine
def _drift(value, time_s, share, floor, s):  # type: ignore[no-untyped-def]
    """Whether hour after hour is above (or below) the same hour of the day before.

    For leaks, ageing lasers, disks that fill: slow and steady. Blind for the first day, and to
    what is over within a few hours. A step looks like a drift for a day.
    Source: Hirsch, Slack and Smith (1982), the seasonal Kendall test, here with clipped sizes.
    """
    hour = float(time_s // 3600)
    if s[COUNT] > 0.0 and hour != s[HOUR]:
        place = RING + int(s[HOUR]) % HOURS
        mean = s[SUM] / s[COUNT]
        if s[BEFORE] >= HOURS:
            off = mean - s[place]
            s[TREND] += 0.125 * (_clip(off / (1.25 * s[SIZE] + floor), 1.5) - s[TREND])
            size = abs(off)
            if s[BEFORE] >= 2 * HOURS:
                size = min(size, 3.0 * (1.25 * s[SIZE] + floor))
            if share > 0.0:  # the row is to be learned
                s[SIZE] += max(0.02, 1.0 / (s[BEFORE] - HOURS + 1.0)) * (size - s[SIZE])
        s[place] = mean
        s[BEFORE] = min(s[BEFORE] + 1.0, 1e6)
        s[SUM], s[COUNT] = 0.0, 0.0
    s[HOUR] = hour
    s[SUM] += value
    s[COUNT] += 1.0
    return s[TREND] / 0.25 if s[BEFORE] >= HOURS + 6.0 else 0.0


@subroutine
def _arrival(passed_s, share, s):  # type: ignore[no-untyped-def]
    """How much sooner or later than usual it came: the log of the time since the last value.

    For pollers that stutter, exporters whose timers change, retries. Blind to a silence while it
    lasts: it speaks when the next value comes.
    Source: Shewhart chart of log intervals (Montgomery, time-between-events charts).
    """
    if not passed_s > 0.0:
        return 0.0
    length = math.log(passed_s)
    if s[OWN + 2] == 0.0:
        s[OWN], s[OWN + 2] = length, 1.0
    off = length - s[OWN]
    z = off / (1.25 * s[OWN + 1] + 0.2) if s[SEEN] >= WARM else 0.0
    s[OWN] += share * _clip(off, 3.0 * (1.25 * s[OWN + 1] + 0.2))
    _usual(s, OWN + 1, abs(off), share, 0.2)
    return z


@subroutine
def _observe(look, value, time_s, passed_s, step_s, learned, s):  # type: ignore[no-untyped-def]
    """Return the score of a value with its sign, and move the state `s` on."""
    slow = min(max(86400.0 / step_s, 200.0), ROWS_PER_DAY_MOST)
    if s[SEEN] == 0.0:
        for k in range(STATE):
            s[k] = 0.0
        s[UNIT], s[QUIET] = FIRST_UNIT, 1e9
        s[LAST] = s[LEVEL] = s[FAST] = value
    share = max(1.0 / slow, 1.0 / (s[SEEN] + 1.0)) if learned else 0.0
    floor = FLOOR + FLOOR_LEVEL * abs(s[LEVEL]) + FLOOR_SPREAD * s[SPREAD]
    z = 0.0
    if look == RATE:
        z = _rate(value, passed_s, step_s, share, floor, s)
    elif look == VARIANCE:
        z = _variance(value, share, floor, s)
    elif look == DISTRIBUTION:
        z = _distribution(value, share, floor, s)
    elif look == SUMS:
        z = _sums(value, time_s, share, floor, s)
    elif look == DRIFT:
        z = _drift(value, time_s, share, floor, s)
    elif look == ARRIVAL:
        z = _arrival(passed_s, share, s)
    score = min(abs(z) / s[UNIT], MOST_SCORE)
    # ---- the controller, as in series_kernels
    per_day = min(86400.0 / step_s, ROWS_PER_DAY_MOST)
    quiet = s[QUIET] + 1.0
    if abs(z) >= s[UNIT] and quiet > APART * per_day + 1.0:
        s[UNIT] *= math.exp(STEP_UP * (1.0 + math.exp(-s[SEEN] / (2.0 * per_day))))
        quiet = 0.0
    s[QUIET] = min(quiet, 1e9)
    s[UNIT] = max(s[UNIT] * max(1.0 - STEP_UP * CROSSINGS / per_day, 0.5), LEAST_UNIT)
    # ---- levels that several looks use
    off = value - s[LEVEL]
    if s[SEEN] >= WARM:
        off = _clip(off, 4.0 * (1.25 * s[SPREAD] + floor))
    s[LEVEL] += share * off
    s[SPREAD] += share * (abs(off) - s[SPREAD])
    s[FAST] += max(0.1, 1.0 / (s[SEEN] + 1.0)) * (value - s[FAST])
    s[LAST] = value
    s[SEEN] = min(s[SEEN] + 1.0, 1e7)
    return score if z >= 0.0 else -score


@inline
def _load(i, state, s):  # type: ignore[no-untyped-def]
    for k in range(STATE):
        s[k] = np.float64(state[i, k])


@kernel("i8(i8, const i8[::1], const f8[::1], f8, f4[:,::1], f8[::1], f8[::1], f8[::1])")
def walk(
    look: int,
    time_s: NDArray[np.int64],
    value: NDArray[np.float64],
    step_s: float,
    state: NDArray[np.float32],
    work: NDArray[np.float64],
    out_score: NDArray[np.float64],
    out_step: NDArray[np.float64],
) -> int:
    """Score and learn the rows of one series in order; the state goes on from where it was.

    In      look, a place in LOOKS; time_s int64[N], s since 1970; value float64[N]; step_s, usual
            seconds between rows.
    Inout   state float32[1, 40].
    Out     score float64[N], 1 = exceeded twice a day; step float64[N]: step_s, 0 where a value is
            missing (NaN, infinite, beyond 1e30): it scores 0 and teaches nothing.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = value.size
    if time_s.size != rows or out_score.size != rows or out_step.size != rows:
        return -1
    if state.shape[1] != STATE or work.size < STATE:
        return -1
    last_s = time_s[0] if rows > 0 else 0
    for n in range(rows):
        out_score[n], out_step[n] = 0.0, 0.0
        if _missing(value[n]):
            continue
        _load(0, state, work)
        passed = float(time_s[n] - last_s) if work[SEEN] > 0.0 else 0.0
        last_s = time_s[n]
        out_score[n] = abs(_observe(look, value[n], time_s[n], passed, step_s, True, work))
        out_step[n] = step_s
        for k in range(STATE):
            state[0, k] = work[k]
    return rows


@kernel(
    "i8(i8, const i8[::1], const f8[::1], i8, f8, const f4[:,::1], const f4[::1], const i8[::1],"
    " f8[::1], f8[::1], f8[::1], f8[::1])"
)
def judge(
    look: int,
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    time_s: int,
    tick_s: float,
    state: NDArray[np.float32],
    step: NDArray[np.float32],
    last_s: NDArray[np.int64],
    work: NDArray[np.float64],
    out_expected: NDArray[np.float64],
    out_room: NDArray[np.float64],
    out_z: NDArray[np.float64],
) -> int:
    """Write what the values of one tick score; changes no state.

    In      look; row int64[N], place in the state; value float64[N]; time_s, middle of the tick;
            tick_s; state float32[M, 40]; step float32[M]; last_s int64[M], when a series last spoke.
    Out     expected: the slow level; room: three usual deviations from it; z: the score with the sign
            of its deviation, 0 for a series never learned, NaN for a missing value; float64[N].
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = row.size
    if value.size != rows or out_expected.size != rows or out_room.size != rows:
        return -1
    if out_z.size != rows or state.shape[1] != STATE or work.size < STATE:
        return -1
    if step.size != state.shape[0] or last_s.size != state.shape[0]:
        return -1
    for n in range(rows):
        i = row[n]
        out_expected[n], out_room[n], out_z[n] = 0.0, 0.0, 0.0
        known = 0 <= i < state.shape[0] and state[i, SEEN] > 0.0
        if known:
            out_expected[n] = np.float64(state[i, LEVEL])
            out_room[n] = 3.75 * np.float64(state[i, SPREAD])
        if _missing(value[n]):
            out_z[n] = np.nan
        elif known:
            _load(i, state, work)
            passed, step_s = float(time_s - last_s[i]), max(np.float64(step[i]), tick_s)
            out_z[n] = _observe(look, value[n], time_s, passed, step_s, True, work)
    return rows


@kernel(
    "i8(i8, const i8[::1], const f8[::1], const u1[::1], i8, f8, f4[:,::1], f4[::1], i8[::1],"
    " f8[::1], f8[::1])"
)
def learn(
    look: int,
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    mask: NDArray[np.uint8],
    time_s: int,
    tick_s: float,
    state: NDArray[np.float32],
    step: NDArray[np.float32],
    last_s: NDArray[np.int64],
    work: NDArray[np.float64],
    out_score: NDArray[np.float64],
) -> int:
    """Move the short averages of every row on, and the notions of normal of those with mask 1.

    In      as for `judge`; mask uint8[N].
    Inout   state, step, last_s.
    Out     score float64[N], NaN where nothing was advanced.
    Returns how many were advanced, or -1 when a length is wrong: nothing was written.
    """
    rows, advanced = row.size, 0
    if value.size != rows or mask.size != rows or out_score.size != rows:
        return -1
    if state.shape[1] != STATE or work.size < STATE:
        return -1
    if step.size != state.shape[0] or last_s.size != state.shape[0]:
        return -1
    for n in range(rows):
        i = row[n]
        out_score[n] = np.nan
        if i < 0 or i >= state.shape[0] or _missing(value[n]):
            continue
        new = state[i, SEEN] == 0.0
        if new and mask[n] == 0:
            continue
        passed = 0.0
        if new:
            step[i] = tick_s
        else:
            passed = float(time_s - last_s[i])
            kept = max(np.float64(step[i]), tick_s)
            if passed > 0.0:
                step[i] = kept + 0.2 * (min(passed, 4.0 * kept) - kept)
        last_s[i] = time_s
        step_s = max(np.float64(step[i]), tick_s)
        _load(i, state, work)
        out_score[n] = abs(_observe(look, value[n], time_s, passed, step_s, mask[n] != 0, work))
        for k in range(STATE):
            state[i, k] = work[k]
        advanced += 1
    return advanced
