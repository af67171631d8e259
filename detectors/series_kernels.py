"""One series of any kind, one value after the other: expectation, deviations, score.

Made for gauges, counts and KPIs of unknown nature, with one configuration for all. Looks at each
value, each over its own usual size:

forecast  against a ridge regression on the last two values, a fast level and the daily profile.
          For spikes, drops and steps; blind to what grows over many rows (it follows).
season    against the daily profile and a slow level, half of it smoothed. For a day unlike the
          others and for long deviations; blind until a day was seen, and to what comes every day.
shift     a smoothed value against the fast level. For small steps and ramps of a few rows that no
          single value shows.
shape     how unlike the past the last rows look: given from outside (detectors.shape).
flat      how long the same value has come, over twice the longest such run. For stuck sensors.

What the daily profile explains is no anomaly: each look takes the smaller of the raw and the
deseasonalised deviation. A controller finds for each look the deviation that is exceeded twice a
day; the score is the largest deviation in these units. It is held for a moment, then falls quickly
to two fifths of its height and slowly from there. The controller steers by *moderate* exceedances, because
the deep tail of a series is its faults. Which score alerts: detectors.exceedances.

State of one series: 64 f32 and 96 slots of profile, spread and visits: 928 bytes. A kernel works on
a copy of it in f64 and rounds it once a row.

Source: RLS with forgetting (Haykin, Adaptive Filter Theory, ch. 13), Robbins & Monro (1951) for the
controller; docs/adr/0030 for what was measured.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, subroutine

SLOTS = 96  # of the day
LOOKS = ("forecast", "season", "shift", "shape", "flat")
FORECAST, SEASON, SHIFT, SHAPE, FLAT = range(5)
DAY, EVERY_LOOK = 32, 63
LOCAL = 3  # place of the scale around the fast level
FEATURES = 6
TRIANGLE = 21  # of a symmetric 6 x 6 matrix

(
    SEEN, LEVEL, SPREAD, FAST, SMOOTH, SEASONED, HIGH, LOW, LAST, BEFORE, LAST_PROFILE, SMOOTH_OFF,
    FAST_OFF, HAD, HELD, HELD_FOR, TAIL, OPEN, SUM, COUNT, ERROR, RUN, RUN_MOST,
) = range(23)  # fmt: skip
SCALE = 23  # 4: the mean size of each look's deviation, and around the fast level
UNIT = SCALE + 4  # 5: what the controller found
QUIET = UNIT + 5  # 5: rows since the last crossing
WEIGHT = QUIET + 5  # of the features
COVARIANCE = WEIGHT + FEATURES  # upper triangle, by rows
STATE = COVARIANCE + TRIANGLE
BYTES = 4 * STATE + SLOTS * (4 + 2 + 1)

# s; with slower rows the budget holds without the week, and units of few rows are rough.
WEEK_STEP_MOST = 900.0
WARM = 20  # rows before the first score
ROWS_PER_DAY_MOST = 1440.0  # faster series learn as if they came once a minute
SCALE_CLIP = 3.0
FLOOR_RANGE, FLOOR_LEVEL, FLOOR_DIGITS, FLOOR = 0.006, 1e-3, 1e-6, 1e-15
FAST_GAIN, SMOOTH_GAIN = 0.1, 0.25
FIRST_UNIT, LEAST_UNIT, LEAST_UNIT_SHAPE, LEAST_UNIT_FLAT = 3.0, 2.0, 4.0, 3.0
DAILY = 0.85  # of the spread around the level is left around the profile: the day is clear
CROSSINGS, STEP_UP, APART = 2.0, 0.1, 0.1  # a day; of the log unit; days between two that count
HOLD, DECAY, TAIL_SHARE, TAIL_DECAY = 4.0, 0.8, 0.4, 0.97
BEYOND, BEYOND_MOST = 3.0, 0.5  # what lies outside everything seen lately counts more
SOFT = 100.0  # beyond, only the logarithm of a score counts
SPREAD_LEAST, SPREAD_MOST, SPREAD_SHARE, SPREAD_STEP = 0.4, 15.0, 0.1, 0.15
ERROR_MOST = 100.0  # usual sizes that a value counts for the spread of its slot
SPREAD_ONE = 4096.0  # fixed point of a slot's spread
VALUE_MOST = 1e30  # beyond, a value is taken as missing
# The forecast starts as "the next is like the last" and is slow to leave it.
COVARIANCE_FIRST, TRACE_MOST = 0.01, 1e4

# ---- what `_look` hands on, in `work` behind the state
(W_EXPECTED, W_PROFILE, W_HAVE, W_SLOT, W_WIDTH, W_FLOOR, W_GAIN, W_SMOOTH, W_SMOOTH_OFF,
 W_BEST, W_WHICH, W_HELD, W_PLAIN) = range(STATE, STATE + 13)  # fmt: skip
W_OFF = STATE + 13  # 4 deviations
W_Z = W_OFF + 4  # 5 in units of the scale
W_RATIO = W_Z + 5  # 5 in units of what is exceeded twice a day
W_FEATURE = W_RATIO + 5
W_GAINS = W_FEATURE + FEATURES
# Of the week, in `walk` alone: how far the value is from it; whether that is known of this row, and was of the last;
# its smoothed, fast and slow level.
W_WEEK, W_WEEKLY, W_WEEK_HAD, W_WEEK_SMOOTH, W_WEEK_FAST, W_WEEK_SLOW = range(
    W_GAINS + FEATURES, W_GAINS + FEATURES + 6
)
WORK = W_WEEK_SLOW + 1


@inline
def _clip(value, most):  # type: ignore[no-untyped-def]
    return min(max(value, -most), most)


@inline
def _at(row, column):  # type: ignore[no-untyped-def]
    """Place of an element of the upper triangle."""
    a, b = min(row, column), max(row, column)
    return COVARIANCE + a * FEATURES - a * (a - 1) // 2 + b - a


@inline
def _missing(value):  # type: ignore[no-untyped-def]
    return not (abs(value) <= VALUE_MOST)


@inline
def _spared(look, off, s):  # type: ignore[no-untyped-def]
    """Return the size of a deviation, or of the one beside the week where that is smaller."""
    if s[W_WEEKLY] == 0.0 or s[W_WEEK_HAD] == 0.0:
        return abs(off)
    beside = s[W_WEEK] - s[W_WEEK_FAST]
    smooth = s[W_WEEK_SMOOTH] + SMOOTH_GAIN * (s[W_WEEK] - s[W_WEEK_SMOOTH])
    if look == SHIFT:
        beside = smooth - s[W_WEEK_FAST]
    elif look == SEASON:
        beside = 0.5 * (s[W_WEEK] + smooth) - s[W_WEEK_SLOW]
    return min(abs(off), abs(beside))


@inline
def _fold_week(share, s):  # type: ignore[no-untyped-def]
    """Learn where the series is beside its week."""
    if s[W_WEEKLY] == 0.0:
        s[W_WEEK_HAD] = 0.0
        return
    if s[W_WEEK_HAD] == 0.0:
        s[W_WEEK_SMOOTH] = s[W_WEEK_FAST] = s[W_WEEK]
        s[W_WEEK_SLOW] = 0.0
    s[W_WEEK_HAD] = 1.0
    s[W_WEEK_SMOOTH] += SMOOTH_GAIN * (s[W_WEEK] - s[W_WEEK_SMOOTH])
    most = 4.0 * (1.25 * s[SCALE + LOCAL] + s[W_FLOOR])
    s[W_WEEK_FAST] += FAST_GAIN * _clip(s[W_WEEK] - s[W_WEEK_FAST], most)
    most = 3.0 * (1.25 * s[SCALE + SEASON] + s[W_FLOOR])
    s[W_WEEK_SLOW] += share * _clip(s[W_WEEK] - s[W_WEEK_SLOW], most)


@subroutine
def _look(i, value, shape, time_s, step_s, looks, work, profile, spread, visits):  # type: ignore[no-untyped-def]
    """Write into `work`, which begins with the series' state, what this value would score."""
    s = work
    seen, level, fast = s[SEEN], s[LEVEL], s[FAST]
    warm = seen >= WARM
    # ---- the daily profile, between two slots where rows are finer than slots
    phase = (time_s % 86400) / 86400.0 * SLOTS
    slot = min(int(phase), SLOTS - 1)
    usable = step_s <= 3600.0 and (looks & DAY) != 0
    profiled = level
    if step_s > 86400.0 / SLOTS / 2.0:
        have = usable and visits[i, slot] > 0
        if have:
            profiled = np.float64(profile[i, slot])
    else:
        near = math.floor(phase - 0.5)
        share = phase - 0.5 - near
        one, two = near % SLOTS, (near + 1) % SLOTS
        have = usable and visits[i, one] > 0 and visits[i, two] > 0
        if have:
            profiled = (1.0 - share) * np.float64(profile[i, one])
            profiled += share * np.float64(profile[i, two])
    width = 1.0
    if have and spread[i, slot] > 0:
        width = min(max(np.float64(spread[i, slot]) / SPREAD_ONE, SPREAD_LEAST), SPREAD_MOST)
    span = s[HIGH] - s[LOW]
    # A thousandth of the level is nothing, unless all the series does lies within it: 50 Hz, 230 V.
    tiny = max(min(FLOOR_LEVEL * abs(level), s[SPREAD]), FLOOR_DIGITS * abs(level))
    floor = FLOOR + tiny + FLOOR_RANGE * span
    # ---- the forecast
    gain = 1.0 / (1.25 * s[SPREAD] + floor)
    feature = s[W_FEATURE : W_FEATURE + FEATURES]
    feature[0], feature[1] = (s[LAST] - level) * gain, (fast - level) * gain
    feature[2], feature[3] = (profiled - level) * gain, (s[LAST_PROFILE] - level) * gain
    feature[4], feature[5] = (s[BEFORE] - level) * gain, 1.0
    total = 0.0
    for k in range(FEATURES):
        feature[k] = _clip(feature[k], 20.0)
        total += s[WEIGHT + k] * feature[k]
    expected = level + _clip(total, 20.0) / gain
    # ---- deviations, the smaller of raw and deseasonalised
    smooth = s[SMOOTH] + SMOOTH_GAIN * (value - s[SMOOTH])
    off = s[W_OFF : W_OFF + 4]
    off[FORECAST] = value - expected
    off[SEASON] = value - profiled - s[SEASONED] if have else value - level
    off[SHIFT] = smooth - fast
    off[LOCAL] = value - fast
    smooth_off = value - profiled
    if have and s[HAD] > 0.0 and visits[i, slot] > 1:
        smooth_off = s[SMOOTH_OFF] + SMOOTH_GAIN * (value - profiled - s[SMOOTH_OFF])
        plain = value - profiled - s[FAST_OFF]
        if abs(plain) < abs(off[LOCAL]):
            off[LOCAL] = plain
        if abs(plain) < abs(off[FORECAST]):
            off[FORECAST] = plain
        if abs(smooth_off - s[FAST_OFF]) < abs(off[SHIFT]):
            off[SHIFT] = smooth_off - s[FAST_OFF]
        off[SEASON] = 0.5 * (off[SEASON] + smooth_off - s[SEASONED])
    # ---- each over its usual size
    z = s[W_Z : W_Z + 5]
    for k in range(3):
        z[k] = _spared(k, off[k], s) / (1.25 * s[SCALE + k] * width + floor) if warm else 0.0
    # What has a clear day has its shape in the profile.
    z[SHAPE] = 0.0 if have and s[SCALE + SEASON] < DAILY * s[SPREAD] else shape
    z[FLAT] = 0.0
    if warm and seen > 0.0 and np.float64(np.float32(value)) == s[LAST]:
        run = s[RUN] + 1.0
        if 5.0 * run < seen:  # what has always stood still is not stuck
            z[FLAT] = 2.0 * run / (s[RUN_MOST] + 6.0)
    # ---- the score
    best, which = 0.0, FORECAST
    for k in range(5):
        unit = s[UNIT + k]
        if k == SHAPE:
            unit = max(unit, LEAST_UNIT_SHAPE)
        elif k == FLAT:
            unit = max(unit, LEAST_UNIT_FLAT)
        ratio = z[k] / unit
        s[W_RATIO + k] = ratio
        if ratio > best and (looks >> k) & 1 != 0:
            best, which = ratio, k
    s[W_PLAIN] = best
    if warm and which < SHAPE:
        beyond = max(value - s[HIGH], s[LOW] - value, 0.0)
        if beyond > 0.0:
            room = span + FLOOR + FLOOR_LEVEL * abs(level)
            best *= 1.0 + min(BEYOND * beyond / room, BEYOND_MOST)
    if best > SOFT:
        best = SOFT * (1.0 + math.log(best / SOFT))
    held = max(best, s[HELD])
    if best < s[HELD] and s[HELD_FOR] >= HOLD:
        held = max(best, s[HELD] * DECAY, s[TAIL] * TAIL_DECAY)
    s[W_EXPECTED], s[W_PROFILE], s[W_HAVE] = expected, profiled, 1.0 if have else 0.0
    s[W_SLOT], s[W_WIDTH], s[W_FLOOR], s[W_GAIN] = slot, width, floor, gain
    s[W_SMOOTH], s[W_SMOOTH_OFF] = smooth, smooth_off
    s[W_BEST], s[W_WHICH], s[W_HELD] = best, which, held
    return held


@inline
def _room(s):  # type: ignore[no-untyped-def]
    """How far from the forecast a value alone would score 1."""
    return (1.25 * s[SCALE + FORECAST] * s[W_WIDTH] + s[W_FLOOR]) * s[UNIT + FORECAST]


@inline
def _load(i, value, state, s):  # type: ignore[no-untyped-def]
    """Take the state of a series; that of a new one is what its first value alone says."""
    for k in range(STATE):
        s[k] = np.float64(state[i, k])
    if s[SEEN] > 0.0:
        return
    for k in range(STATE):
        s[k] = 0.0
    s[LEVEL] = s[FAST] = s[SMOOTH] = s[HIGH] = s[LOW] = value
    s[LAST] = s[BEFORE] = s[LAST_PROFILE] = value
    for k in range(5):
        s[UNIT + k], s[QUIET + k] = FIRST_UNIT, 1e9
    s[WEIGHT] = 1.0
    for k in range(FEATURES):
        s[_at(k, k)] = COVARIANCE_FIRST
    s[OPEN] = -1.0


@subroutine
def _count(step_s, s):  # type: ignore[no-untyped-def]
    """Advance what goes on whether it is learned or not: the controllers and the hold."""
    per_day = min(86400.0 / step_s, ROWS_PER_DAY_MOST)
    down = max(1.0 - STEP_UP * CROSSINGS / per_day, 0.5)
    for k in range(5):
        quiet = s[QUIET + k] + 1.0
        if s[W_Z + k] >= s[UNIT + k] and quiet > APART * per_day + 1.0:
            s[UNIT + k] *= math.exp(STEP_UP * (1.0 + math.exp(-s[SEEN] / (2.0 * per_day))))
            quiet = 0.0
        s[QUIET + k] = min(quiet, 1e9)
        s[UNIT + k] = max(s[UNIT + k] * down, LEAST_UNIT)
    s[HELD_FOR] = 0.0 if s[W_BEST] >= s[HELD] else min(s[HELD_FOR] + 1.0, 1e6)
    s[HELD] = s[W_HELD]
    s[TAIL] = max(s[TAIL] * TAIL_DECAY, TAIL_SHARE * s[W_HELD])


@subroutine
def _ridge(value, slow, s):  # type: ignore[no-untyped-def]
    """Learn the forecast from its own error, clipped; recursive least squares that slowly forget."""
    feature = s[W_FEATURE : W_FEATURE + FEATURES]
    gains = s[W_GAINS : W_GAINS + FEATURES]
    gain = s[W_GAIN]
    usual = 1.25 * s[SCALE + FORECAST] + s[W_FLOOR]
    most = 3.0 * usual * gain if s[SEEN] >= WARM else 20.0
    error = _clip((value - s[W_EXPECTED]) * gain, most)
    kept = 1.0 - 0.5 / slow
    denominator = kept
    for k in range(FEATURES):
        total = 0.0
        for j in range(FEATURES):
            total += s[_at(k, j)] * feature[j]
        gains[k] = total
        denominator += feature[k] * total
    trace, back = 0.0, 1.0 / kept
    for k in range(FEATURES):
        share = gains[k] / denominator
        s[WEIGHT + k] += share * error
        for j in range(k, FEATURES):
            s[_at(k, j)] = (s[_at(k, j)] - share * gains[j]) * back
        # Rounding must not turn a variance negative: it would blow up.
        s[_at(k, k)] = max(s[_at(k, k)], 1e-6)
        trace += s[_at(k, k)]
    if trace > TRACE_MOST:
        for k in range(TRIANGLE):
            s[COVARIANCE + k] *= 0.5


@subroutine
def _fold(i, value, step_s, s, profile, spread, visits):  # type: ignore[no-untyped-def]
    """Learn a value, everything clipped, so that a fault moves no notion of normal far."""
    slow = min(max(86400.0 / step_s, 200.0), ROWS_PER_DAY_MOST)
    seen, floor, width, profiled = s[SEEN], s[W_FLOOR], s[W_WIDTH], s[W_PROFILE]
    have, warm = s[W_HAVE] > 0.0, seen >= WARM
    share = max(1.0 / slow, 1.0 / (seen + 1.0))
    for k in range(4):
        size, scale = abs(s[W_OFF + k]) / width, s[SCALE + k]
        if warm:
            size = min(size, SCALE_CLIP * (1.25 * scale + floor))
        s[SCALE + k] = scale + share * (size - scale)
    usual_error = s[SCALE + FORECAST]
    _ridge(value, slow, s)
    scale_local = 1.25 * s[SCALE + LOCAL] + floor
    scale_season = 1.25 * s[SCALE + SEASON] + floor
    # ---- levels
    off, most = value - s[LEVEL], 4.0 * (1.25 * s[SPREAD] + floor)
    if warm:
        off = _clip(off, most)
    s[SPREAD] += share * (abs(off) - s[SPREAD])
    s[LEVEL] += share * off
    off = value - s[FAST]
    if warm:
        off = _clip(off, 4.0 * scale_local)
    s[FAST] += max(FAST_GAIN, 1.0 / (seen + 1.0)) * off
    s[SMOOTH] = s[W_SMOOTH]
    if have:
        if s[HAD] > 0.0 and visits[i, int(s[W_SLOT])] > 1:
            s[FAST_OFF] += FAST_GAIN * _clip(value - profiled - s[FAST_OFF], 4.0 * scale_local)
        else:
            s[FAST_OFF] = value - profiled
        s[SMOOTH_OFF] = s[W_SMOOTH_OFF]
        s[SEASONED] += share * _clip(s[W_OFF + SEASON], 3.0 * scale_season)
    s[HAD] = s[W_HAVE]
    # ---- the range seen lately
    fade = 0.2 / (slow * 7.0)
    high, low = max(s[HIGH], value), min(s[LOW], value)
    s[HIGH] = high - fade * (high - s[LEVEL])
    s[LOW] = low + fade * (s[LEVEL] - low)
    # ---- the profile: a slot is written once a visit, when it is over
    if step_s <= 3600.0:
        if s[W_SLOT] != s[OPEN]:
            _close_slot(i, usual_error + floor, 4.0 * scale_season, s, profile, spread, visits)
            s[OPEN], s[SUM], s[COUNT], s[ERROR] = s[W_SLOT], 0.0, 0.0, 0.0
        s[SUM] += value
        s[COUNT] += 1.0
        s[ERROR] += min(abs(s[W_OFF + FORECAST]), ERROR_MOST * (1.25 * usual_error + floor))
    # ---- how long it usually repeats itself
    if seen > 0.0 and np.float64(np.float32(value)) == s[LAST]:
        s[RUN] += 1.0
    else:
        # When it ends; a fault's length is not learned at once.
        ended = s[RUN] if seen < 200.0 else min(s[RUN], 2.0 * s[RUN_MOST] + 6.0)
        s[RUN_MOST] = max(s[RUN_MOST] * (1.0 - 0.1 / slow), ended)
        s[RUN] = 0.0
    s[LAST_PROFILE], s[BEFORE], s[LAST] = profiled, s[LAST], value
    s[SEEN] = min(seen + 1.0, 1e7)


@subroutine
def _close_slot(i, usual_error, most, s, profile, spread, visits):  # type: ignore[no-untyped-def]
    """Write what a slot of the day was like on this visit, and how far forecasts were off in it."""
    opened = int(s[OPEN])
    if opened < 0 or s[COUNT] == 0.0:
        return
    mean = s[SUM] / s[COUNT]
    if visits[i, opened] > 0:
        kept = np.float64(profile[i, opened])
        change = max(0.2, 1.0 / (np.float64(visits[i, opened]) + 1.0))
        profile[i, opened] = kept + change * _clip(mean - kept, most)
        ratio = s[ERROR] / s[COUNT] / usual_error
        old = np.float64(spread[i, opened]) / SPREAD_ONE if spread[i, opened] > 0 else 1.0
        # One fault widens its hour by a seventh; what comes at this hour every day is told less and less.
        wide = min(old + min(SPREAD_SHARE * (ratio - old), SPREAD_STEP * old), SPREAD_MOST)
        spread[i, opened] = np.uint16(max(wide * SPREAD_ONE, 1.0))
    else:
        profile[i, opened] = mean
    if visits[i, opened] < 255:
        visits[i, opened] += 1


@inline
def _store(i, state, s):  # type: ignore[no-untyped-def]
    for k in range(STATE):
        state[i, k] = s[k]


@kernel(
    "i8(const f8[::1], const f8[::1], const f8[::1], const f8[::1], f8, i8, f4[:,::1], f4[:,::1], u2[:,::1],"
    " u1[:,::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], u1[::1], f8[::1])"
)
def walk(
    time_s: NDArray[np.float64],
    value: NDArray[np.float64],
    shape: NDArray[np.float64],
    week: NDArray[np.float64],
    step_s: float,
    looks: int,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    spread: NDArray[np.uint16],
    visits: NDArray[np.uint8],
    work: NDArray[np.float64],
    out_expected: NDArray[np.float64],
    out_room: NDArray[np.float64],
    out_score: NDArray[np.float64],
    out_plain: NDArray[np.float64],
    out_usual: NDArray[np.float64],
    out_floor: NDArray[np.float64],
    out_which: NDArray[np.uint8],
    out_step: NDArray[np.float64],
) -> int:
    """Score and learn the rows of one series in order; the state goes on from where it was.

    In      time_s float64[N], s since 1970, in any order; value, shape float64[N], shape: how unlike
            the past the last rows look, 0 where nothing is known; week float64[N], what is usual at this
            time of the week, NaN where there is no week (detectors.weeks); step_s, usual seconds between
            rows (followed when it changes for good); looks, a bit for each of LOOKS that counts, and
            DAY for the daily profile.
    Inout   state float32[1, 64], profile float32[1, 96], spread uint16[1, 96], visits uint8[1, 96].
    Out     expected; room: how far from it a value alone would score 1; score; plain: its strongest
            look without hold and bonus; usual: the daily profile, or the level where there is none;
            floor: what is too small to be a deviation; all float64[N]; which uint8[N], place in LOOKS;
            step float64[N]: usual seconds between rows by then, 0 where a value is missing (NaN, infinite,
            beyond 1e30): it scores 0 and teaches nothing.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = value.size
    if week.size != rows:
        return -1
    if time_s.size != rows or shape.size != rows or work.size < WORK or out_step.size != rows:
        return -1
    if out_expected.size != rows or out_room.size != rows or out_score.size != rows:
        return -1
    if out_usual.size != rows or out_floor.size != rows:
        return -1
    if out_plain.size != rows or out_which.size != rows or state.shape[1] != STATE:
        return -1
    if profile.shape[1] != SLOTS or visits.shape[1] != SLOTS or spread.shape[1] != SLOTS:
        return -1
    strays = 0
    for n in range(rows):
        if n > 0:  # the sampling interval may change; gaps and jitter are no change
            passed = time_s[n] - time_s[n - 1]
            if passed > 0.0 and not 0.5 * step_s <= passed <= 2.0 * step_s:
                strays += 1
                if strays >= WARM:
                    step_s, strays = passed, 0
            elif passed > 0.0:
                strays = 0
        v = value[n]
        out_which[n], out_room[n], out_score[n], out_step[n] = FORECAST, 0.0, 0.0, 0.0
        out_plain[n], out_usual[n], out_floor[n] = 0.0, 0.0, 0.0
        if _missing(v):
            out_expected[n] = np.float64(state[0, LAST])
            continue
        _load(0, v, state, work)
        work[W_WEEKLY] = 1.0 if week[n] == week[n] and step_s <= WEEK_STEP_MOST else 0.0
        work[W_WEEK] = v - week[n]
        out_score[n] = _look(
            0, v, shape[n], time_s[n], step_s, looks, work, profile, spread, visits
        )
        # Until it is warm, nothing said may depend on the step: it is known by then at the latest.
        out_expected[n] = work[FAST]
        if work[SEEN] >= WARM:
            out_expected[n], out_room[n] = work[W_EXPECTED], _room(work)
        out_which[n], out_step[n] = int(work[W_WHICH]), step_s
        out_plain[n], out_usual[n], out_floor[n] = work[W_PLAIN], work[W_PROFILE], work[W_FLOOR]
        _count(step_s, work)
        _fold(0, v, step_s, work, profile, spread, visits)
        _fold_week(1.0 / min(max(86400.0 / step_s, 200.0), ROWS_PER_DAY_MOST), work)
        _store(0, state, work)
    return rows


@inline
def _step_of(i, step, tick_s):  # type: ignore[no-untyped-def]
    """Seconds between the values of this series: one polled each minute is silent in other ticks."""
    return max(np.float64(step[i]), tick_s)


@kernel(
    "i8(const i8[::1], const f8[::1], const f8[::1], i8, f8, const f4[:,::1], const f4[:,::1],"
    " const u2[:,::1], const u1[:,::1], const f4[::1], f8[::1], f8[::1], f8[::1], f8[::1],"
    " f8[::1])"
)
def judge(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: NDArray[np.float64],
    time_s: int,
    tick_s: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    spread: NDArray[np.uint16],
    visits: NDArray[np.uint8],
    step: NDArray[np.float32],
    work: NDArray[np.float64],
    out_expected: NDArray[np.float64],
    out_room: NDArray[np.float64],
    out_score: NDArray[np.float64],
    out_z: NDArray[np.float64],
) -> int:
    """Write what the values of one tick score; changes no state.

    In      row int64[N], place in the state; value, shape float64[N]; time_s, middle of the tick;
            tick_s; state and its like for M series; step float32[M].
    Out     expected, room, score float64[N] as in `walk`; z float64[N]: the score of this value
            alone, negative below the expectation. NaN in score and z: a missing value; 0: a series
            that is not warm.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = row.size
    if value.size != rows or shape.size != rows or out_expected.size != rows:
        return -1
    if out_room.size != rows or out_score.size != rows or out_z.size != rows:
        return -1
    if work.size < WORK or state.shape[1] != STATE or step.size != state.shape[0]:
        return -1
    for n in range(rows):
        i, v = row[n], value[n]
        out_expected[n], out_room[n], out_score[n], out_z[n] = 0.0, 0.0, 0.0, 0.0
        known = 0 <= i < state.shape[0] and state[i, SEEN] > 0.0
        if _missing(v):
            if known:
                out_expected[n] = np.float64(state[i, LAST])
            out_score[n], out_z[n] = np.nan, np.nan
        elif known:
            step_s = _step_of(i, step, tick_s)
            _load(i, v, state, work)
            held = _look(i, v, shape[n], time_s, step_s, EVERY_LOOK, work, profile, spread, visits)
            out_expected[n], out_room[n] = work[W_EXPECTED], _room(work)
            if work[SEEN] >= WARM:
                which = int(work[W_WHICH])
                below = which < SHAPE and work[W_OFF + which] < 0.0
                out_score[n], out_z[n] = held, -work[W_BEST] if below else work[W_BEST]
    return rows


@kernel(
    "i8(const i8[::1], const f8[::1], const f8[::1], const u1[::1], i8, f8, f4[:,::1], f4[:,::1],"
    " u2[:,::1], u1[:,::1], f4[::1], i8[::1], f8[::1], f8[::1])"
)
def learn(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: NDArray[np.float64],
    mask: NDArray[np.uint8],
    time_s: int,
    tick_s: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    spread: NDArray[np.uint16],
    visits: NDArray[np.uint8],
    step: NDArray[np.float32],
    last_s: NDArray[np.int64],
    work: NDArray[np.float64],
    out_score: NDArray[np.float64],
) -> int:
    """Advance the controllers of every row and learn those with mask 1.

    In      as for `judge`; mask uint8[N].
    Inout   state and its like; step float32[M]; last_s int64[M], when a series last spoke.
    Out     score float64[N] as in `walk`, NaN where nothing was advanced.
    Returns how many were learned, or -1 when a length is wrong: nothing was written.
    """
    rows, learned = row.size, 0
    if value.size != rows or shape.size != rows or mask.size != rows or out_score.size != rows:
        return -1
    if work.size < WORK or state.shape[1] != STATE:
        return -1
    if step.size != state.shape[0] or last_s.size != state.shape[0]:
        return -1
    for n in range(rows):
        i, v = row[n], value[n]
        out_score[n] = np.nan
        if i < 0 or i >= state.shape[0] or _missing(v):
            continue
        if state[i, SEEN] == 0.0:
            if mask[n] == 0:
                continue
            step[i] = tick_s
        elif time_s > last_s[i]:
            kept = _step_of(i, step, tick_s)
            passed = min(float(time_s - last_s[i]), 4.0 * kept)
            step[i] = kept + 0.2 * (passed - kept)
        last_s[i] = time_s
        step_s = _step_of(i, step, tick_s)
        _load(i, v, state, work)
        out_score[n] = _look(
            i, v, shape[n], time_s, step_s, EVERY_LOOK, work, profile, spread, visits
        )
        _count(step_s, work)
        if mask[n] != 0:
            _fold(i, v, step_s, work, profile, spread, visits)
            learned += 1
        _store(i, state, work)
    return learned
