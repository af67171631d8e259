"""One series of any kind, one value after the other: expectation, deviations, score, alert level.

Made for gauges, counts and KPIs of unknown nature, with one configuration for all. Looks at each
value, each over its own usual size:

forecast  against a ridge regression on the last two values, a fast level and the daily profile.
          For spikes, drops and steps; blind to what grows over many rows (it follows).
season    against the daily profile and a slow level. For a day unlike the others and for long
          deviations; blind until a day was seen, and to what comes every day.
shift     a smoothed value against the fast level. For small steps and ramps of a few rows that no
          single value shows.

flat      how long the same value has come, over twice the longest such run. For stuck sensors.

What the daily profile explains is no anomaly: each look takes the smaller of the raw and the
deseasonalised deviation. A controller finds for each look the deviation that is exceeded twice a
day; the score is the largest deviation in these units, held for a moment. It steers by *moderate*
exceedances, because the deep tail of a series is its faults. The alert level lies where, by the
excesses over 1 so far (a power law, their index estimated from capped excesses), a run of this
height comes as seldom as the budget allows.

State of one series: 72 f32 and 96 slots of profile, spread and visits: 960 bytes.

float() of an f32 is an f32 to numba and a double to Python: np.float64() is the same to both.

Source: RLS with forgetting (Haykin, Adaptive Filter Theory, ch. 13), Hill (1975) for the index,
Robbins & Monro (1951) for the controller; docs/adr/0030 for what was measured.
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
    FAST_OFF, HAD, HELD, HELD_FOR, OPEN, SUM, COUNT, ERROR, RUNS, DAYS, PEAKS, EXCESS, PEAK, PAUSE,
    SINCE, LIFT, ARMED, RUN, RUN_MOST,
) = range(31)  # fmt: skip
SCALE = 31  # 4: the mean size of each look's deviation, and around the fast level
UNIT = SCALE + 4  # 5: log of what the controller found
QUIET = UNIT + 5  # 5: rows since the last crossing
WEIGHT = QUIET + 5  # of the features
COVARIANCE = WEIGHT + FEATURES  # upper triangle, by rows
STATE = COVARIANCE + TRIANGLE
BYTES = 4 * STATE + SLOTS * (4 + 2 + 1)

WARM = 20  # rows before the first score
ROWS_PER_DAY_MOST = 1440.0  # faster series learn as if they came once a minute
SCALE_CLIP = 3.0
FLOOR_RANGE, FLOOR_LEVEL, FLOOR = 0.006, 1e-3, 1e-9
FAST_GAIN, SMOOTH_GAIN = 0.1, 0.5
FIRST_UNIT, LEAST_UNIT = 1.0986, 0.6931  # log of 3, 2
LEAST_UNIT_SHAPE, LEAST_UNIT_FLAT = 1.3863, 1.0986
DAILY = 0.85  # of the spread around the level is left around the profile: the day is clear
CROSSINGS, STEP_UP, APART = 2.0, 0.1, 0.1  # a day; of the log unit; days between two that count
HOLD, DECAY = 2.0, 0.93
BEYOND, BEYOND_MOST = 3.0, 0.5  # what lies outside everything seen lately counts more
SOFT = 100.0  # beyond, only the logarithm of a score counts
SPREAD_LEAST, SPREAD_MOST, SPREAD_SHARE = 0.4, 2.5, 0.1
SPREAD_ONE = 4096.0  # fixed point of a slot's spread
VALUE_MOST = 1e30  # beyond, a value is taken as missing
COVARIANCE_FIRST, TRACE_MOST = (
    0.01,
    1e4,
)  # it starts as "the next is like the last" and is slow to leave it

# ---- the alert level
EXCESS_FIRST, EXCESS_WEIGHT, EXCESS_CAP, EXCESS_KEPT = 0.1, 4.0, 0.3, 60.0
RUNS_FIRST, RUNS_WEIGHT, RUNS_KEPT = 3.0, 2.0, 14.0  # a day; days
YOUNG, YOUNG_DAYS = 0.7, 0.5  # an unknown series may have any tail
APART_PEAKS, ENDED = 0.05, 0.02  # days
HOLD_OFF_DAYS, LIFT_SHARE, LIFT_MOST, LIFT_DAYS = 0.04, 0.5, 3.0, 0.5
REARM = 0.7

# ---- what `_look` hands on
(
    W_EXPECTED, W_PROFILE, W_HAVE, W_SLOT, W_WIDTH, W_FLOOR, W_GAIN, W_SMOOTH, W_SMOOTH_OFF,
    W_BEST, W_WHICH, W_HELD, W_LEVEL, W_ALERT, W_INDEX, W_RATE,
) = range(16)  # fmt: skip
W_OFF = 16  # 4 deviations
W_Z = W_OFF + 4  # 6 in units of the scale
W_RATIO = W_Z + 5  # 5 in units of what is exceeded twice a day
W_FEATURE = W_RATIO + 5
W_GAINS = W_FEATURE + FEATURES
WORK = W_GAINS + FEATURES


@inline
def _clip(value, most):  # type: ignore[no-untyped-def]
    return min(max(value, -most), most)


@inline
def _rows_per_day(step_s):  # type: ignore[no-untyped-def]
    """Rows of a day, at most one a minute: what time constants of learning are counted in."""
    return min(86400.0 / step_s, ROWS_PER_DAY_MOST)


@inline
def _tail_index(mean):  # type: ignore[no-untyped-def]
    """Return the mean of an exponential whose values, capped, have this mean; a little wider when wide."""
    mean = min(mean, 0.8 * EXCESS_CAP)
    index = mean
    for _ in range(6):
        index = mean / (1.0 - math.exp(-EXCESS_CAP / index))
    return index * (0.92 + 0.45 * index)


@inline
def _at(row, column):  # type: ignore[no-untyped-def]
    """Place of an element of the upper triangle."""
    a, b = min(row, column), max(row, column)
    return COVARIANCE + a * FEATURES - a * (a - 1) // 2 + b - a


@subroutine
def _look(i, value, shape, time_s, step_s, budget, looks, state, profile, spread, visits, work):  # type: ignore[no-untyped-def]
    """Write into `work` what this value would score; changes no state."""
    seen = np.float64(state[i, SEEN])
    if seen == 0.0:
        level = fast = last = before = high = low = smooth = value
    else:
        level, fast = np.float64(state[i, LEVEL]), np.float64(state[i, FAST])
        last, before = np.float64(state[i, LAST]), np.float64(state[i, BEFORE])
        high, low = np.float64(state[i, HIGH]), np.float64(state[i, LOW])
        smooth = np.float64(state[i, SMOOTH])
    last_profile = np.float64(state[i, LAST_PROFILE]) if seen > 0.0 else value
    warm = seen >= WARM
    # ---- the daily profile, between two slots where rows are finer than slots
    phase = (time_s % 86400) / 86400.0 * SLOTS
    slot = min(int(phase), SLOTS - 1)
    usable = step_s <= 3600.0 and (looks & DAY) != 0
    near = math.floor(phase - 0.5)
    share = phase - 0.5 - near
    one, two = near % SLOTS, (near + 1) % SLOTS
    profiled = level
    if step_s > 86400.0 / SLOTS / 2.0:
        have = usable and visits[i, slot] > 0
        if have:
            profiled = np.float64(profile[i, slot])
    else:
        have = usable and visits[i, one] > 0 and visits[i, two] > 0
        if have:
            profiled = (1.0 - share) * np.float64(profile[i, one]) + share * np.float64(
                profile[i, two]
            )
    width = 1.0
    if have and spread[i, slot] > 0:
        width = min(max(np.float64(spread[i, slot]) / SPREAD_ONE, SPREAD_LEAST), SPREAD_MOST)
    floor = FLOOR + FLOOR_LEVEL * abs(level) + FLOOR_RANGE * (high - low)
    # ---- the forecast
    gain = 1.0 / (1.25 * np.float64(state[i, SPREAD]) + floor)
    feature = work[W_FEATURE : W_FEATURE + FEATURES]
    feature[0], feature[1] = (last - level) * gain, (fast - level) * gain
    feature[2], feature[3] = (profiled - level) * gain, (last_profile - level) * gain
    feature[4], feature[5] = (before - level) * gain, 1.0
    total = 0.0
    for k in range(FEATURES):
        feature[k] = _clip(feature[k], 20.0)
        weight = np.float64(state[i, WEIGHT + k]) if seen > 0.0 else (1.0 if k == 0 else 0.0)
        total += weight * feature[k]
    expected = level + _clip(total, 20.0) / gain
    # ---- deviations, the smaller of raw and deseasonalised
    smooth += SMOOTH_GAIN * (value - smooth)
    off = work[W_OFF : W_OFF + 4]
    off[FORECAST] = value - expected
    off[SEASON] = value - profiled - np.float64(state[i, SEASONED]) if have else value - level
    off[SHIFT] = smooth - fast
    off[LOCAL] = value - fast
    smooth_off = value - profiled
    if have and np.float64(state[i, HAD]) > 0.0 and visits[i, slot] > 1:
        smooth_off = np.float64(state[i, SMOOTH_OFF])
        smooth_off += SMOOTH_GAIN * (value - profiled - smooth_off)
        plain = value - profiled - np.float64(state[i, FAST_OFF])
        if abs(plain) < abs(off[LOCAL]):
            off[LOCAL] = plain
        if abs(plain) < abs(off[FORECAST]):
            off[FORECAST] = plain
        if abs(smooth_off - np.float64(state[i, FAST_OFF])) < abs(off[SHIFT]):
            off[SHIFT] = smooth_off - np.float64(state[i, FAST_OFF])
    # ---- the score
    best, which = 0.0, FORECAST
    for k in range(5):
        work[W_Z + k] = 0.0
        if k == SHAPE:
            # What has a clear day has its shape in the profile.
            daily = have and np.float64(state[i, SCALE + SEASON]) < DAILY * np.float64(
                state[i, SPREAD]
            )
            work[W_Z + k] = 0.0 if daily else shape
        elif k == FLAT:
            same = seen > 0.0 and np.float32(value) == state[i, LAST]
            run = np.float64(state[i, RUN]) + 1.0 if same else 0.0
            if warm and 5.0 * run < seen:  # what has always stood still is not stuck
                work[W_Z + k] = 2.0 * run / (np.float64(state[i, RUN_MOST]) + 6.0)
        elif warm:
            work[W_Z + k] = abs(off[k]) / (1.25 * np.float64(state[i, SCALE + k]) * width + floor)
        unit = np.float64(state[i, UNIT + k]) if seen > 0.0 else FIRST_UNIT
        if k == SHAPE:
            unit = max(unit, LEAST_UNIT_SHAPE)
        elif k == FLAT:
            unit = max(unit, LEAST_UNIT_FLAT)
        work[W_RATIO + k] = work[W_Z + k] * math.exp(-unit)
        if (looks >> k) & 1 != 0 and work[W_RATIO + k] > best:
            best, which = work[W_RATIO + k], k
    if warm and which < SHAPE:
        beyond = max(value - high, low - value, 0.0)
        room = high - low + FLOOR + FLOOR_LEVEL * abs(level)
        best *= 1.0 + min(BEYOND * beyond / room, BEYOND_MOST)
    if best > SOFT:
        best = SOFT * (1.0 + math.log(best / SOFT))
    held: float = np.float64(state[i, HELD])
    if best < held and np.float64(state[i, HELD_FOR]) >= HOLD:
        held = max(best, held * DECAY)
    else:
        held = max(best, held)
    # ---- the alert level
    days = seen * step_s / 86400.0
    level_up, index, rate = 1.0, EXCESS_FIRST, RUNS_FIRST
    if seen > 0.0:
        index = _tail_index(np.float64(state[i, EXCESS]) / np.float64(state[i, PEAKS]))
        index += YOUNG * math.exp(-days / YOUNG_DAYS)
        rate = np.float64(state[i, RUNS]) / np.float64(state[i, DAYS])
        level_up = max(rate / budget, 1.0) ** index
    since = (np.float64(state[i, SINCE]) + 1.0) * step_s / 86400.0 if seen > 0.0 else 1e9
    needed = level_up + np.float64(state[i, LIFT]) * math.exp(-since / LIFT_DAYS)
    raised = warm and np.float64(state[i, ARMED]) > 0.0 and held >= needed and since > HOLD_OFF_DAYS

    work[W_EXPECTED], work[W_PROFILE], work[W_HAVE] = expected, profiled, 1.0 if have else 0.0
    work[W_SLOT], work[W_WIDTH], work[W_FLOOR], work[W_GAIN] = slot, width, floor, gain
    work[W_SMOOTH], work[W_SMOOTH_OFF] = smooth, smooth_off
    work[W_BEST], work[W_WHICH], work[W_HELD], work[W_LEVEL] = best, which, held, needed
    work[W_ALERT], work[W_INDEX], work[W_RATE] = 1.0 if raised else 0.0, index, rate
    return raised


@subroutine
def _begin(i, value, step_s, state):  # type: ignore[no-untyped-def]
    """Set the state of a series at its first value."""
    for k in (LEVEL, FAST, SMOOTH, HIGH, LOW, LAST, BEFORE, LAST_PROFILE):
        state[i, k] = value
    for k in range(5):
        state[i, UNIT + k] = FIRST_UNIT
        state[i, QUIET + k] = 1e9
    state[i, WEIGHT] = 1.0
    for k in range(FEATURES):
        state[i, _at(k, k)] = COVARIANCE_FIRST
    state[i, OPEN] = -1.0
    state[i, ARMED] = 1.0
    state[i, SINCE] = 1e9
    state[i, PAUSE] = 1e9
    state[i, PEAKS] = EXCESS_WEIGHT
    state[i, EXCESS] = EXCESS_WEIGHT * EXCESS_FIRST * (1.0 - math.exp(-EXCESS_CAP / EXCESS_FIRST))
    state[i, RUNS] = RUNS_FIRST * RUNS_WEIGHT
    state[i, DAYS] = RUNS_WEIGHT * _rows_per_day(step_s) * step_s / 86400.0


@subroutine
def _count(i, step_s, state, work):  # type: ignore[no-untyped-def]
    """Advance what goes on whether it is learned or not: the controller, the hold, the alert."""
    per_day = _rows_per_day(step_s)
    seen, best, held = np.float64(state[i, SEEN]), work[W_BEST], work[W_HELD]
    for k in range(5):
        unit = np.float64(state[i, UNIT + k])
        if work[W_Z + k] >= math.exp(unit) and np.float64(state[i, QUIET + k]) > APART * per_day:
            unit += STEP_UP * (1.0 + math.exp(-seen / (2.0 * per_day)))
            state[i, QUIET + k] = 0.0
        else:
            state[i, QUIET + k] = min(np.float64(state[i, QUIET + k]) + 1.0, 1e9)
        state[i, UNIT + k] = max(LEAST_UNIT, unit - STEP_UP * CROSSINGS / per_day)
    state[i, HELD_FOR] = (
        0.0 if best >= np.float64(state[i, HELD]) else np.float64(state[i, HELD_FOR]) + 1.0
    )
    state[i, HELD] = held
    # ---- runs over 1: how many a day, and how high their peaks are
    state[i, DAYS] = np.float64(state[i, DAYS]) + step_s / 86400.0
    if held >= 1.0:
        if np.float64(state[i, PEAK]) > 0.0:
            state[i, PEAK] = max(np.float64(state[i, PEAK]), held)
            state[i, PAUSE] = 0.0
        elif np.float64(state[i, PAUSE]) > APART_PEAKS * per_day:
            state[i, PEAK] = held
            state[i, PAUSE] = 0.0
    else:
        state[i, PAUSE] = min(np.float64(state[i, PAUSE]) + 1.0, 1e9)
        if np.float64(state[i, PEAK]) > 0.0 and np.float64(state[i, PAUSE]) > ENDED * per_day:
            state[i, EXCESS] = np.float64(state[i, EXCESS]) + min(
                math.log(np.float64(state[i, PEAK])), EXCESS_CAP
            )
            state[i, PEAKS] = np.float64(state[i, PEAKS]) + 1.0
            state[i, RUNS] = np.float64(state[i, RUNS]) + 1.0
            if np.float64(state[i, PEAKS]) > EXCESS_KEPT:
                kept = EXCESS_KEPT / (EXCESS_KEPT + 1.0)
                state[i, PEAKS] = np.float64(state[i, PEAKS]) * kept
                state[i, EXCESS] = np.float64(state[i, EXCESS]) * kept
            if np.float64(state[i, DAYS]) > RUNS_KEPT * per_day * step_s / 86400.0:
                state[i, RUNS] = np.float64(state[i, RUNS]) * 0.95
                state[i, DAYS] = np.float64(state[i, DAYS]) * 0.95
            state[i, PEAK] = 0.0
            state[i, PAUSE] = 1e9
    # ---- the alert: an edge, then a hold-off and a raised level, again below 0.7 of it
    state[i, SINCE] = min(np.float64(state[i, SINCE]) + 1.0, 1e9)
    if work[W_ALERT] > 0.0:
        state[i, LIFT] = LIFT_SHARE * min(held, LIFT_MOST * work[W_LEVEL])
        state[i, SINCE] = 0.0
        state[i, ARMED] = 0.0
    elif held < REARM * work[W_LEVEL]:
        state[i, ARMED] = 1.0


@subroutine
def _ridge(i, value, slow, state, work):  # type: ignore[no-untyped-def]
    """Learn the forecast from its own error, clipped; recursive least squares that slowly forget."""
    feature = work[W_FEATURE : W_FEATURE + FEATURES]
    gains = work[W_GAINS : W_GAINS + FEATURES]
    floor, gain = work[W_FLOOR], work[W_GAIN]
    usual = 1.25 * np.float64(state[i, SCALE + FORECAST]) + floor
    most = 3.0 * usual * gain if np.float64(state[i, SEEN]) >= WARM else 20.0
    error = _clip((value - work[W_EXPECTED]) * gain, most)
    kept = 1.0 - 0.5 / slow
    denominator = kept
    for k in range(FEATURES):
        total = 0.0
        for j in range(FEATURES):
            total += np.float64(state[i, _at(k, j)]) * feature[j]
        gains[k] = total
        denominator += feature[k] * total
    trace = 0.0
    for k in range(FEATURES):
        state[i, WEIGHT + k] = np.float64(state[i, WEIGHT + k]) + gains[k] / denominator * error
        for j in range(k, FEATURES):
            at = _at(k, j)
            state[i, at] = (np.float64(state[i, at]) - gains[k] * gains[j] / denominator) / kept
        # Rounding must not turn a variance negative: it would blow up.
        state[i, _at(k, k)] = max(np.float64(state[i, _at(k, k)]), 1e-6)
        trace += np.float64(state[i, _at(k, k)])
    if trace > TRACE_MOST:
        for k in range(TRIANGLE):
            state[i, COVARIANCE + k] = np.float64(state[i, COVARIANCE + k]) * 0.5


@subroutine
def _fold(i, value, step_s, state, profile, spread, visits, work):  # type: ignore[no-untyped-def]
    """Learn a value, everything clipped, so that a fault moves no notion of normal far."""
    per_day = 86400.0 / step_s
    slow = min(max(per_day, 200.0), ROWS_PER_DAY_MOST)
    seen, floor, width = np.float64(state[i, SEEN]), work[W_FLOOR], work[W_WIDTH]
    have, profiled = work[W_HAVE] > 0.0, work[W_PROFILE]
    warm = seen >= WARM
    share = max(1.0 / slow, 1.0 / (seen + 1.0))
    for k in range(4):
        size, scale = abs(work[W_OFF + k]) / width, np.float64(state[i, SCALE + k])
        if warm:
            size = min(size, SCALE_CLIP * (1.25 * scale + floor))
        state[i, SCALE + k] = scale + share * (size - scale)
    scale_local = 1.25 * np.float64(state[i, SCALE + LOCAL]) + floor
    scale_season = 1.25 * np.float64(state[i, SCALE + SEASON]) + floor
    usual_error = np.float64(state[i, SCALE + FORECAST])
    _ridge(i, value, slow, state, work)
    # ---- levels
    off, most = (
        value - np.float64(state[i, LEVEL]),
        4.0 * (1.25 * np.float64(state[i, SPREAD]) + floor),
    )
    size = (min(abs(off), most) if warm else abs(off)) - np.float64(state[i, SPREAD])
    state[i, SPREAD] = np.float64(state[i, SPREAD]) + share * size
    state[i, LEVEL] = np.float64(state[i, LEVEL]) + share * (_clip(off, most) if warm else off)
    off = value - np.float64(state[i, FAST])
    if warm:
        off = _clip(off, 4.0 * scale_local)
    state[i, FAST] = np.float64(state[i, FAST]) + max(FAST_GAIN, 1.0 / (seen + 1.0)) * off
    state[i, SMOOTH] = work[W_SMOOTH]
    if have:
        if np.float64(state[i, HAD]) > 0.0 and visits[i, int(work[W_SLOT])] > 1:
            plain = value - profiled - np.float64(state[i, FAST_OFF])
            state[i, FAST_OFF] = np.float64(state[i, FAST_OFF]) + FAST_GAIN * _clip(
                plain, 4.0 * scale_local
            )
        else:
            state[i, FAST_OFF] = value - profiled
        state[i, SMOOTH_OFF] = work[W_SMOOTH_OFF]
        state[i, SEASONED] = np.float64(state[i, SEASONED]) + share * _clip(
            work[W_OFF + SEASON], 3.0 * scale_season
        )
    state[i, HAD] = work[W_HAVE]
    # ---- the range seen lately
    fade, level = 0.2 / (slow * 7.0), np.float64(state[i, LEVEL])
    high, low = max(np.float64(state[i, HIGH]), value), min(np.float64(state[i, LOW]), value)
    state[i, HIGH] = high - fade * (high - level)
    state[i, LOW] = low + fade * (level - low)
    # ---- the profile: a slot is written once a visit, when it is over
    if step_s <= 3600.0:
        slot, opened = int(work[W_SLOT]), int(state[i, OPEN])
        if slot != opened:
            if opened >= 0 and np.float64(state[i, COUNT]) > 0.0:
                mean = np.float64(state[i, SUM]) / np.float64(state[i, COUNT])
                if visits[i, opened] > 0:
                    kept = np.float64(profile[i, opened])
                    change = max(0.2, 1.0 / (np.float64(visits[i, opened]) + 1.0))
                    profile[i, opened] = kept + change * _clip(mean - kept, 4.0 * scale_season)
                    error = np.float64(state[i, ERROR]) / np.float64(state[i, COUNT])
                    ratio = min(error / (usual_error + floor), 4.0)
                    old = (
                        np.float64(spread[i, opened]) / SPREAD_ONE if spread[i, opened] > 0 else 1.0
                    )
                    spread[i, opened] = np.uint16(
                        max((old + SPREAD_SHARE * (ratio - old)) * SPREAD_ONE, 1.0)
                    )
                else:
                    profile[i, opened] = mean
                if visits[i, opened] < 255:
                    visits[i, opened] += 1
            state[i, OPEN], state[i, SUM] = slot, 0.0
            state[i, COUNT], state[i, ERROR] = 0.0, 0.0
        state[i, SUM] = np.float64(state[i, SUM]) + value
        state[i, COUNT] = np.float64(state[i, COUNT]) + 1.0
        state[i, ERROR] = np.float64(state[i, ERROR]) + min(
            abs(work[W_OFF + FORECAST]), 4.0 * (1.25 * usual_error + floor)
        )
    # ---- how long it usually repeats itself
    run, most = np.float64(state[i, RUN]), np.float64(state[i, RUN_MOST])
    if seen > 0.0 and np.float32(value) == state[i, LAST]:
        state[i, RUN] = run + 1.0
    else:
        # When it ends; a fault's length is not learned at once.
        usable_run = run if seen < 200.0 else min(run, 2.0 * most + 6.0)
        state[i, RUN_MOST] = max(most * (1.0 - 0.1 / slow), usable_run)
        state[i, RUN] = 0.0
    state[i, LAST_PROFILE] = profiled
    state[i, BEFORE] = state[i, LAST]
    state[i, LAST] = value
    state[i, SEEN] = min(seen + 1.0, 1e7)


@inline
def _missing(value):  # type: ignore[no-untyped-def]
    return not (abs(value) <= VALUE_MOST)


@inline
def _room(i, state, work):  # type: ignore[no-untyped-def]
    """How far from the forecast a value alone would alert."""
    usual = 1.25 * np.float64(state[i, SCALE + FORECAST]) * work[W_WIDTH] + work[W_FLOOR]
    return usual * math.exp(np.float64(state[i, UNIT + FORECAST])) * work[W_LEVEL]


@kernel(
    "i8(const i8[::1], const f8[::1], const f8[::1], f8, f8, i8, f4[:,::1], f4[:,::1], u2[:,::1],"
    " u1[:,::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], u1[::1], u1[::1])"
)
def walk(
    time_s: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: NDArray[np.float64],
    step_s: float,
    budget: float,
    looks: int,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    spread: NDArray[np.uint16],
    visits: NDArray[np.uint8],
    work: NDArray[np.float64],
    out_expected: NDArray[np.float64],
    out_lower: NDArray[np.float64],
    out_upper: NDArray[np.float64],
    out_score: NDArray[np.float64],
    out_level: NDArray[np.float64],
    out_which: NDArray[np.uint8],
    out_alert: NDArray[np.uint8],
) -> int:
    """Score and learn the rows of one series in order; the state goes on from where it was.

    In      time_s int64[N], s since 1970, in any order; value, shape float64[N], shape: how unlike
            the past the last rows look, 0 where nothing is known; step_s, usual seconds between
            rows (followed when it changes for good); budget, false alerts a day; looks, a bit for each
            of LOOKS that counts, and DAY for the daily profile.
    Inout   state float32[1, 72], profile float32[1, 96], spread uint16[1, 96], visits uint8[1, 96].
    Out     expected; lower, upper: where the forecast alone would alert; score; level: the score
            that alerts; all float64[N]; which uint8[N], place in LOOKS; alert uint8[N], 1 where one
            is sent. A missing value (NaN, infinite, beyond 1e30) scores 0 and teaches nothing.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = value.size
    if time_s.size != rows or shape.size != rows or work.size < WORK or out_alert.size != rows:
        return -1
    if out_expected.size != rows or out_lower.size != rows or out_upper.size != rows:
        return -1
    if out_score.size != rows or out_level.size != rows or out_which.size != rows:
        return -1
    if state.shape[1] != STATE or profile.shape[1] != SLOTS or visits.shape[1] != SLOTS:
        return -1
    strays = 0
    for n in range(rows):
        if n > 0:  # the sampling interval may change; gaps and jitter are no change
            passed = float(time_s[n] - time_s[n - 1])
            if passed > 0.0 and not 0.5 * step_s <= passed <= 2.0 * step_s:
                strays += 1
                if strays >= WARM:
                    step_s, strays = passed, 0
            elif passed > 0.0:
                strays = 0
        v = value[n]
        out_which[n], out_alert[n] = FORECAST, 0
        if _missing(v):
            kept = np.float64(state[0, LAST])
            out_expected[n], out_lower[n], out_upper[n] = kept, kept, kept
            out_score[n], out_level[n] = 0.0, 1.0
            continue
        if state[0, SEEN] == 0.0:
            _begin(0, v, step_s, state)
        _look(
            0, v, shape[n], time_s[n], step_s, budget, looks, state, profile, spread, visits, work
        )
        warm = np.float64(state[0, SEEN]) >= WARM
        # Until it is warm, nothing said may depend on the step: it is known by then at the latest.
        expected = work[W_EXPECTED] if warm else np.float64(state[0, FAST])
        room = _room(0, state, work) if warm else 0.0
        out_expected[n] = expected
        out_lower[n], out_upper[n] = expected - room, expected + room
        out_score[n], out_level[n] = work[W_HELD], work[W_LEVEL] if warm else 1.0
        out_which[n], out_alert[n] = int(work[W_WHICH]), int(work[W_ALERT])
        _count(0, step_s, state, work)
        _fold(0, v, step_s, state, profile, spread, visits, work)
    return rows


@inline
def _step_of(i, step, tick_s):  # type: ignore[no-untyped-def]
    """Seconds between the values of this series: one polled each minute is silent in other ticks."""
    return max(np.float64(step[i]), tick_s)


@kernel(
    "i8(const i8[::1], const f8[::1], i8, f8, f8, f8, const f4[:,::1], const f4[:,::1],"
    " const u2[:,::1], const u1[:,::1], const f4[::1], f8[::1], f4[::1], f4[::1], f4[::1],"
    " f4[::1], f8[::1], f4[::1])"
)
def judge(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    time_s: int,
    tick_s: float,
    budget: float,
    warmup_s: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    spread: NDArray[np.uint16],
    visits: NDArray[np.uint8],
    step: NDArray[np.float32],
    work: NDArray[np.float64],
    out_expected: NDArray[np.float32],
    out_lower: NDArray[np.float32],
    out_upper: NDArray[np.float32],
    out_score: NDArray[np.float32],
    out_p: NDArray[np.float64],
    out_z: NDArray[np.float32],
) -> int:
    """Write what the values of one tick score; changes no state.

    In      row int64[N], place in the state; value float64[N]; time_s, middle of the tick; tick_s;
            budget, false alerts a day of one series, for the band; warmup_s, seconds before a series
            may say anything; state and its like for M series; step float32[M].
    Out     expected, lower, upper, score float32[N], score = -log10(p); p float64[N]: runs of this
            height a tick, by the excesses so far; z float32[N], signed, in units of what is exceeded
            twice a day. NaN in, NaN in score and z.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = row.size
    if value.size != rows or out_expected.size != rows or out_lower.size != rows:
        return -1
    if out_upper.size != rows or out_score.size != rows or out_p.size != rows or out_z.size != rows:
        return -1
    if work.size < WORK or state.shape[1] != STATE or step.size != state.shape[0]:
        return -1
    for n in range(rows):
        i = row[n]
        out_p[n] = 1.0
        out_score[n], out_z[n] = 0.0, 0.0
        out_expected[n], out_lower[n], out_upper[n] = 0.0, 0.0, 0.0
        v = value[n]
        known = 0 <= i < state.shape[0] and state[i, SEEN] > 0.0
        if _missing(v):
            if known:
                out_expected[n] = state[i, LAST]
                out_lower[n], out_upper[n] = state[i, LAST], state[i, LAST]
            out_score[n], out_z[n] = np.nan, np.nan
            continue
        if not known:
            continue
        step_s = _step_of(i, step, tick_s)
        _look(i, v, 0.0, time_s, step_s, budget, EVERY_LOOK, state, profile, spread, visits, work)
        expected, room = work[W_EXPECTED], _room(i, state, work)
        out_expected[n] = expected
        out_lower[n], out_upper[n] = expected - room, expected + room
        seen = np.float64(state[i, SEEN])
        if seen < WARM or seen * step_s < warmup_s:
            continue
        best = work[W_BEST]
        out_z[n] = best if work[W_OFF + int(work[W_WHICH])] >= 0.0 else -best
        if work[W_HELD] > 1.0:
            runs = min(work[W_RATE] * step_s / 86400.0, 1.0)
            p = max(runs * work[W_HELD] ** (-1.0 / work[W_INDEX]), 1e-300)
            out_p[n] = p
            out_score[n] = -math.log10(p)
    return rows


@kernel(
    "i8(const i8[::1], const f8[::1], const u1[::1], i8, f8, f8, f4[:,::1], f4[:,::1], u2[:,::1],"
    " u1[:,::1], f4[::1], i8[::1], f8[::1])"
)
def learn(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    mask: NDArray[np.uint8],
    time_s: int,
    tick_s: float,
    budget: float,
    state: NDArray[np.float32],
    profile: NDArray[np.float32],
    spread: NDArray[np.uint16],
    visits: NDArray[np.uint8],
    step: NDArray[np.float32],
    last_s: NDArray[np.int64],
    work: NDArray[np.float64],
) -> int:
    """Advance the controller of every row and learn those with mask 1.

    In      as for `judge`; mask uint8[N].
    Inout   state and its like; step float32[M]; last_s int64[M], when a series last spoke.
    Returns how many were learned, or -1 when a length is wrong: nothing was written.
    """
    rows, learned = row.size, 0
    if value.size != rows or mask.size != rows or work.size < WORK or state.shape[1] != STATE:
        return -1
    if step.size != state.shape[0] or last_s.size != state.shape[0]:
        return -1
    for n in range(rows):
        i, v = row[n], value[n]
        if i < 0 or i >= state.shape[0] or _missing(v):
            continue
        if state[i, SEEN] == 0.0:
            if mask[n] == 0:
                continue
            step[i] = tick_s
            _begin(i, v, tick_s, state)
        elif time_s > last_s[i]:
            kept = _step_of(i, step, tick_s)
            passed = min(float(time_s - last_s[i]), 4.0 * kept)
            step[i] = kept + 0.2 * (passed - kept)
        last_s[i] = time_s
        step_s = _step_of(i, step, tick_s)
        _look(i, v, 0.0, time_s, step_s, budget, EVERY_LOOK, state, profile, spread, visits, work)
        _count(i, step_s, state, work)
        if mask[n] != 0:
            _fold(i, v, step_s, state, profile, spread, visits, work)
            learned += 1
    return learned
