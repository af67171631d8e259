"""What a series will do in the next steps: level, trend and hour of the day, and how well that went.

One kernel for two paces: steps of minutes, whose trend is that since a level bent, within the last 96 beside
the usual day, and steps of an hour, whose trend is that of the same hours from day to day. What was forecast
1, 6 and 24 steps ago is held against what came, beside seasonal naive (the same hour yesterday; the last
value where there is no yesterday): the mean errors are the width of the next forecast, and its licence.

At the fast pace a trend is a level that was flat and has grown in a straight line of the plain values since
some step: the step that leaves the least unexplained. It counts only where it lasted for a while, its newer
part alone shows it, and a step would explain less; from day to day, where its older and its newer half
agree. How sure it is comes from what it leaves unexplained and, at the fast pace, from how sure such trends
usually seem by chance in this series: that holds whatever its noise is like, also where neighbouring steps
are alike. What is doubted of a trend widens the forecast the further it goes. Values may be logarithms;
growth goes on in a straight line of the plain values. Blind to changes that begin after the last value, and
to weekends (the day before is what counts).

A series takes 1.9 KB; only series with a limit have that (detectors.prediction).

Source: Holt (1957); Hinkley, Inference in two-phase regression, JASA 66 (1971) for the line that bends; Theil
(1950), Sen (1968) for the median of differences; Hyndman & Athanasopoulos, Forecasting, ch. 5.2 (seasonal
naive) and 5.8 (errors by lead); Bowling et al. (2009) for the logistic form of the normal distribution.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

HOURS = 24
KEPT = 24  # forecasts that wait to be judged
LEADS = (1, 6, 24)  # steps
ERRORS = 7  # of us and of naive by lead, and how many were judged
JUDGED = 6
GAINS = (0.004, 0.02)  # of the error averages of each pace once they are old: half a day, two days
ERRORS_KNOWN, ERROR_MOST = 24.0, 4.0  # then no error teaches more than so many usual ones
# Fast pace: values whose mean is the level, that a trend is looked for in, of which so many must be known
LEVEL, LOOKED_AT, BENT_MIN = 12, 96, 24
BENT_LEAST = 12  # steps since a growth begins: fewer are not looked at
GROWN_LEAST = 16  # and so many are enough
STILL, STILL_OF = 0.8, (2, 3)  # sigmas that its newer part alone must show: 2 of 3 steps
OVER_STEP = 4.0  # variances by which a bent line must explain more than a step
DAY = 24  # slow pace: steps of a day
DAYS_LOOKED_AT = 6
AGREE = 0.5  # share of the trend that both of its halves must show
SEASON_GAIN = 0.3
SHRINK_LEVEL, SHRINK_TREND = 16.0, 81.0  # sigmas to the fourth at which half is believed
LOG_4 = math.log(4.0)
MAD_TO_SIGMA, MAE_TO_SIGMA = 1.4826, 1.2533
WORK = LOOKED_AT + DAY
MOST_EXPONENT = 30.0  # of a value beside the mean of its logarithms
END_LEAST = 1e-3  # share of the mean that a growth is a share of
MOST_AHEAD = 600.0  # of a logarithm: its plain value is a number
USUAL_GAIN = 0.002  # of the usual size of a trend: 16 hours of two minutes
USUAL_MIN = 36.0  # trends seen before one may be sure
USUAL_MOST = 3.0  # times the usual size that one trend teaches: a fault must not become usual


@inline
def _whole(seen, i):  # type: ignore[no-untyped-def]
    """Whether a whole day was seen: before that, no hour is usual."""
    hour = 0
    while hour < 24 and seen[i, hour] > 0:
        hour += 1
    return hour == 24


@inline
def _season(hours, whole, i, time_s):  # type: ignore[no-untyped-def]
    """Usual value at a time, between the middles of two hours; 0 before a day was seen."""
    if not whole:
        return 0.0
    at = time_s / 3600.0 - 0.5
    first = math.floor(at)
    share = at - first
    a = int(first) % 24
    b = (a + 1) % 24
    return np.float64(hours[i, a]) * (1.0 - share) + np.float64(hours[i, b]) * share


@inline
def _smooth(hours, whole, daily, i, time_s):  # type: ignore[no-untyped-def]
    """The same; at the fast pace with hours smoothed 1-2-1: what one hour's usual is off is no trend."""
    middle = _season(hours, whole, i, time_s)
    if daily:
        return middle
    sides = _season(hours, whole, i, time_s - 3600.0) + _season(hours, whole, i, time_s + 3600.0)
    return 0.5 * middle + 0.25 * sides


@inline
def _median(work, n):  # type: ignore[no-untyped-def]
    """Sort the first n places and return their median; n is small."""
    for k in range(1, n):
        x = work[k]
        j = k - 1
        while j >= 0 and work[j] > x:
            work[j + 1] = work[j]
            j -= 1
        work[j + 1] = x
    return 0.5 * (work[(n - 1) // 2] + work[n // 2])


@inline
def _spread(work, n, centre):  # type: ignore[no-untyped-def]
    """Return the sigma of sorted values by their median absolute deviation; reorders them."""
    for k in range(n):
        work[k] = abs(work[k] - centre)
    return MAD_TO_SIGMA * _median(work, n)


@inline
def _halves(older, newer, slope, least):  # type: ignore[no-untyped-def]
    """Return the slope, 0 where a half of the time does not show it too."""
    if slope == 0.0 or older / slope < least or newer / slope < AGREE:
        return 0.0
    return slope


@inline
def _line(x, size):  # type: ignore[no-untyped-def]
    """Return the rise a step of so many values, newest first, and its variance where theirs is 1."""
    n, total, times, squares, products = 0, 0.0, 0.0, 0.0, 0.0
    for k in range(size):
        if np.isfinite(x[k]):
            n += 1
            total += x[k]
            times -= k
            squares += k * k
            products -= k * x[k]
    if n < 2:
        return 0.0, 1.0
    spread = squares - times * times / n
    return (products - times * total / n) / spread, 1.0 / spread


@inline
def _step_gain(x, size, n, total):  # type: ignore[no-untyped-def]
    """Return how much of the squares of n known values, newest first, the likeliest step explains."""
    best, newer, counted = 0.0, 0.0, 0
    for k in range(size):
        if np.isfinite(x[k]) and counted < n - 1:
            newer += x[k]
            counted += 1
            beside = newer - total * counted / n
            best = max(best, beside * beside * n / (np.float64(counted) * (n - counted)))
    return best


@inline
def _mean(x, size):  # type: ignore[no-untyped-def]
    """Return the mean of so many values, newest first; 0 where none is known."""
    n, total = 0, 0.0
    for k in range(size):
        if np.isfinite(x[k]):
            n += 1
            total += x[k]
    return total / max(n, 1)


@inline
def _plain(off, logs):  # type: ignore[no-untyped-def]
    """Make values relative to their mean, of logarithms shares of it; return how many are known."""
    reference, n = _mean(off, LOOKED_AT), 0
    for k in range(LOOKED_AT):
        if np.isfinite(off[k]):
            n += 1
            off[k] -= reference
            if logs:
                off[k] = math.exp(min(off[k], MOST_EXPONENT))
    return n


@inline
def _bend(x, n, noise_least, usual_sure):  # type: ignore[no-untyped-def]
    """Look for the step in which a level began to rise or fall; newest first, n values are known.

    Returns the growth a step since then, its sigma, and whether it is one: it lasted, its newer part alone
    shows it by more than such parts usually do, and no step explains as much.
    """
    total, squares = 0.0, 0.0
    for k in range(LOOKED_AT):
        if np.isfinite(x[k]):
            total += x[k]
            squares += x[k] * x[k]
    squares -= total * total / n
    gain, steep, spread, since = 0.0, 0.0, 1.0, 0
    # Of the bent part, a step longer each time: values, their sum, times, their squares, times x.
    known, newer, times, times_squares, products = 0, 0.0, 0.0, 0.0, 0.0
    for bent in range(1, LOOKED_AT + 1):
        if np.isfinite(x[bent - 1]):
            known += 1
            newer += x[bent - 1]
        times_squares += 2.0 * times + known
        times += known
        products += newer
        beside = times_squares - times * times / n
        together = products - times * total / n
        if bent >= BENT_LEAST and beside > 0.0 and together * together > gain * beside:
            gain, steep, spread, since = (
                together * together / beside,
                together / beside,
                beside,
                bent,
            )
    noise = max(max(squares - gain, 0.0) / (n - 2), noise_least)
    unsure = max(math.sqrt(noise / spread), 1e-12 + 1e-6 * abs(steep))
    lately, own = _line(x, since * STILL_OF[0] // STILL_OF[1])
    goes_on = since >= GROWN_LEAST and lately * steep > 0.0 and abs(lately) >= AGREE * abs(steep)
    goes_on = goes_on and abs(lately) >= STILL * usual_sure * math.sqrt(noise * own)
    goes_on = goes_on and gain - _step_gain(x, LOOKED_AT, n, total) > OVER_STEP * noise
    return steep, unsure, goes_on


@inline
def _ahead(level, slope, lead, logs):  # type: ignore[no-untyped-def]
    """The level so many steps ahead: a straight line, of the plain values also where logarithms are kept."""
    if logs and slope > 0.0:
        return level + math.log1p(slope * lead)
    return level + slope * lead


@inline
def _on(base, ahead, base_now, logs):  # type: ignore[no-untyped-def]
    """What is over the usual now, on what is usual then: added where more is usual, not multiplied by it."""
    if logs and ahead > 0.0 and base > base_now:
        return base + math.log1p(math.expm1(min(ahead, MOST_AHEAD)) * math.exp(base_now - base))
    return base + ahead


@kernel(
    "i8(i8, i8, f8, i8, const f8[::1], const u1[::1], f4[:,::1], f4[:,::1], u1[:,::1], f4[:,::1],"
    " f4[:,:,::1], f4[:,::1], f4[:,::1], f4[:,::1], f8[::1])"
)
def advance(
    step: int,
    skipped: int,
    step_s: float,
    daily: int,
    value: NDArray[np.float64],
    logs: NDArray[np.uint8],
    hours: NDArray[np.float32],
    yesterday: NDArray[np.float32],
    seen: NDArray[np.uint8],
    ring: NDArray[np.float32],
    made: NDArray[np.float32],
    error: NDArray[np.float32],
    usual_trend: NDArray[np.float32],
    now: NDArray[np.float32],
    work: NDArray[np.float64],
) -> int:
    """Judge what was forecast for this step, take its value, and forecast anew.

    In      step, number of the step that ended (time / step_s); skipped, steps without a call before
            it; daily 1 = the trend is that from day to day, 0 = that since a level bent; value
            float64[M], mean of the step, NaN = nothing came; logs uint8[M], 1 = it is a logarithm; work
            float64[120].
    Inout   hours, yesterday float32[M, 24], seen uint8[M, 24]: usual and last value of each hour (learned
            at the daily pace only); ring float32[M, R], last values, R >= 96, daily >= 168; made
            float32[M, 24, 2], level and trend of past forecasts; error float32[M, 7]; usual_trend
            float32[M, 2], how many sigmas a trend was on the average and how many were seen (fast pace
            only).
    Out     now float32[M, 4]: level over the usual day, trend a step, how many sigmas the trend is, and
            one of them.
    Returns M, or -1 when a length is wrong: nothing was changed.
    """
    rows = value.size
    size = ring.shape[1]
    if work.size < WORK or size < LOOKED_AT or (daily and size < (DAYS_LOOKED_AT + 1) * DAY):
        return -1
    if ring.shape[0] < rows or made.shape[0] < rows or error.shape[0] < rows or now.shape[0] < rows:
        return -1
    if logs.size != rows or usual_trend.shape[0] < rows:
        return -1
    middle_s = (step + 0.5) * step_s
    off = work[DAY:]
    for i in range(rows):
        for k in range(min(skipped, size)):
            ring[i, (step - 1 - k) % size] = np.nan
        for k in range(min(skipped, KEPT)):
            made[i, (step - 1 - k) % KEPT, 0] = np.nan
        y = value[i]
        whole = _whole(seen, i)
        usual = _smooth(hours, whole, daily, i, middle_s)
        # ---- judge
        if np.isfinite(y):
            judged = np.float64(error[i, JUDGED])
            gain = max(GAINS[daily], 1.0 / (judged + 1.0))
            any_judged = False
            for n in range(3):
                lead = LEADS[n]
                level = np.float64(made[i, (step - lead) % KEPT, 0])
                if not np.isfinite(level):
                    continue
                was = np.float64(made[i, (step - lead) % KEPT, 1])
                ahead = _ahead(level, was, lead, logs[i])
                then = _smooth(hours, whole, daily, i, middle_s - lead * step_s)
                centre = usual + ahead if daily else _on(usual, ahead, then, logs[i])
                miss = abs(y - centre)
                naive = np.float64(ring[i, (step - lead) % size])
                if whole:
                    naive = _season(yesterday, whole, i, middle_s)
                if not np.isfinite(naive):
                    continue
                miss_naive = abs(y - naive)
                first = error[i, n] == 0.0 and error[i, 3 + n] == 0.0
                if judged >= ERRORS_KNOWN:
                    miss = min(miss, ERROR_MOST * np.float64(error[i, n]) + 1e-12)
                    miss_naive = min(miss_naive, ERROR_MOST * np.float64(error[i, 3 + n]) + 1e-12)
                g = 1.0 if first else gain
                error[i, n] += g * (miss - np.float64(error[i, n]))
                error[i, 3 + n] += g * (miss_naive - np.float64(error[i, 3 + n]))
                any_judged = any_judged or lead > 1
            if any_judged:
                error[i, JUDGED] = min(judged + 1.0, 1e6)
        ring[i, step % size] = y
        # ---- level over the usual day
        total, count = 0.0, 0
        if not daily:
            for k in range(LOOKED_AT):
                x = np.float64(ring[i, (step - k) % size])
                off[k] = x - _smooth(hours, whole, daily, i, middle_s - k * step_s)
        for k in range(DAY if daily else LEVEL):
            x = off[k]
            if daily:
                x = np.float64(ring[i, (step - k) % size])
                x -= _smooth(hours, whole, daily, i, middle_s - k * step_s)
            if np.isfinite(x):
                total += x
                count += 1
        # ---- trend
        level = np.float64(total / count) if count > 0 else np.float64(np.nan)
        slope, doubt, older, newer = 0.0, 0.0, 0.0, 0.0
        if daily:
            # From each day to the next: the median over its hours. Days that wander show in their spread.
            days, sums, squares, noise = 0, 0.0, 0.0, 0.0
            for day in range(DAYS_LOOKED_AT):
                n = 0
                for k in range(day * DAY, day * DAY + DAY):
                    d = np.float64(ring[i, (step - k) % size])
                    d -= np.float64(ring[i, (step - k - DAY) % size])
                    if np.isfinite(d):
                        work[n] = d
                        n += 1
                if n < DAY // 2:
                    break
                one = _median(work, n)
                noise += _spread(work, n, one) / math.sqrt(float(n))
                sums += one
                squares += one * one
                days += 1
                if days <= 2:
                    newer = sums / days / DAY
                if days < 2:
                    continue
                mean = sums / days
                wander = math.sqrt(max(squares / days - mean * mean, 0.0) * days / (days - 1))
                # Noise of the hours cancels between days, so that only the first and the last remain.
                error_of_mean = (
                    max(1.25 * noise / days / days, wander / math.sqrt(float(days))) / DAY
                )
                # As many days as make it surest, from three on: what was before it began is no part of it.
                if days <= 3 or abs(mean) / DAY * doubt > abs(slope) * error_of_mean:
                    slope, doubt = mean / DAY, error_of_mean
                    rest = days - 2
                    older = slope if rest == 0 else (sums - newer * DAY * 2) / rest / DAY
            slope = _halves(older, newer, slope, AGREE)
        else:
            n = _plain(off, logs[i])
            if n >= BENT_MIN:
                # A few values may agree by chance: the usual error of one step is the least noise.
                least = (MAE_TO_SIGMA * np.float64(error[i, 0])) ** 2
                usual_size, trends = np.float64(usual_trend[i, 0]), np.float64(usual_trend[i, 1])
                usual_sure = max(MAE_TO_SIGMA * usual_size, 1.0)
                steep, unsure, goes_on = _bend(off, n, least, usual_sure)
                times_sure = abs(steep) / unsure
                if trends < USUAL_MIN:
                    unsure *= max(times_sure, 1.0)
                else:
                    unsure *= usual_sure
                    times_sure = min(times_sure, USUAL_MOST * usual_sure)
                share = max(USUAL_GAIN, 1.0 / (trends + 1.0))
                usual_trend[i, 0] += share * (times_sure - usual_size)
                usual_trend[i, 1] = min(trends + 1.0, 1e6)
                end = 1.0
                if logs[i]:  # growth is a share of the last ones' mean and what it grew since
                    end = _mean(off, LEVEL) + steep * 0.5 * (LEVEL - 1)
                if goes_on and count > 0 and end > 0.0:  # of no level there is no growth
                    slope = steep / end
                doubt = unsure / max(end, END_LEAST)
        sure = abs(slope) / max(doubt, 1e-12 + 1e-6 * abs(slope))
        middle = 0.5 * ((DAY if daily else LEVEL) - 1)
        climbed = slope * middle  # since the middle of the time that the level is the mean of
        if logs[i] and not daily and slope > 0.0:
            climbed = -math.log1p(-slope * middle)
        # What may be chance is forecast by so much less: a trend, and a level beside the usual day.
        if whole and count > 0:
            chance = MAE_TO_SIGMA * np.float64(error[i, 0]) / math.sqrt(float(count))
            level *= level**4 / (level**4 + SHRINK_LEVEL * chance**4 + 1e-300)
        now[i, 0] = level + climbed
        now[i, 1] = slope
        now[i, 2] = min(sure, 1e6)
        now[i, 3] = doubt
        trust = sure**4 / (sure**4 + SHRINK_TREND)
        made[i, step % KEPT, 0] = level + trust * climbed
        made[i, step % KEPT, 1] = trust * slope
        # ---- the usual day
        if daily and np.isfinite(y):
            hour = step % 24
            share = max(SEASON_GAIN, 1.0 / (np.float64(seen[i, hour]) + 1.0))
            d = y - np.float64(hours[i, hour])
            # The mean of the plain values: an hour without any is not a usual of next to nothing.
            hours[i, hour] += (
                math.log1p(share * math.expm1(d)) if logs[i] and share < 1.0 else share * d
            )
            yesterday[i, hour] = y
            if seen[i, hour] < 255:
                seen[i, hour] += 1
    return rows


@inline
def _sigma(error, i, lead):  # type: ignore[no-untyped-def]
    """Usual error of a forecast so many steps ahead, as a sigma."""
    one, six, day = np.float64(error[i, 0]), np.float64(error[i, 1]), np.float64(error[i, 2])
    six = max(six, one)
    day = max(day, six)
    if lead <= 6.0:
        e = one + (six - one) * (lead - 1.0) / 5.0
    elif lead <= 24.0:
        e = six + (day - six) * (lead - 6.0) / 18.0
    else:  # on as it grew from 6 steps to 24: not at all where values stay about a level, as a walk's at most
        e = day * (lead / 24.0) ** min(math.log(day / max(six, 1e-12) + 1e-12) / LOG_4, 0.5)
    return MAE_TO_SIGMA * e + 1e-12


@kernel(
    "i8(i8, f8, i8, i8, const f8[::1], const f8[::1], const f8[::1], const u1[::1], const f4[:,::1],"
    " const u1[:,::1], const f4[:,::1], const f4[:,::1], f8[:,::1])"
)
def breach(
    step: int,
    step_s: float,
    daily: int,
    leads: int,
    sign: NDArray[np.float64],
    limit: NDArray[np.float64],
    usual_times: NDArray[np.float64],
    logs: NDArray[np.uint8],
    hours: NDArray[np.float32],
    seen: NDArray[np.uint8],
    error: NDArray[np.float32],
    now: NDArray[np.float32],
    out: NDArray[np.float64],
) -> int:
    """Say of each series when and how likely it passes its limit within `leads` steps.

    In      step, the last one that ended; daily as for `advance`; sign float64[M], 1 = the limit is
            above, -1 = below, 0 = none; limit float64[M], and usual_times float64[M]: times the usual
            value that is added to it;
            logs uint8[M]; hours, seen, error, now as `advance` left them.
    Out     out float64[M, 6]: the highest probability, steps until it is .5, .05 and .95 (0 = not
            within the leads), the expected value and its sigma at the first of them, else at the end.
    Returns how many rows have a limit and a level, or -1 when a length is wrong.
    """
    rows = sign.size
    if limit.size != rows or usual_times.size != rows or out.shape[0] < rows or out.shape[1] < 6:
        return -1
    if logs.size != rows or now.shape[0] < rows:
        return -1
    count = 0
    for i in range(rows):
        for k in range(6):
            out[i, k] = 0.0
        level, slope, doubt = np.float64(now[i, 0]), np.float64(now[i, 1]), np.float64(now[i, 3])
        if sign[i] == 0.0 or not np.isfinite(level):
            continue
        whole = _whole(seen, i)
        if usual_times[i] != 0.0 and not whole:
            continue
        count += 1
        now_base = _smooth(hours, whole, daily, i, (step + 0.5) * step_s)
        for lead in range(1, leads + 1):
            base = _smooth(hours, whole, daily, i, (step + lead + 0.5) * step_s)
            most = limit[i] + usual_times[i] * base
            ahead = _ahead(level, slope, np.float64(lead), logs[i])
            centre = base + ahead if daily else _on(base, ahead, now_base, logs[i])
            spread = doubt * lead
            if logs[i] and not daily and slope > 0.0:
                spread /= 1.0 + slope * lead  # what it is of a logarithm
            sigma = math.hypot(_sigma(error, i, np.float64(lead)), spread)
            z = sign[i] * (centre - most) / sigma
            p = 0.0
            if z > -6.0:  # the normal distribution to 1.5e-4
                p = 1.0 / (1.0 + math.exp(-(1.5976 * z + 0.07056 * z * z * z))) if z < 6.0 else 1.0
            out[i, 0] = max(out[i, 0], p)
            if p >= 0.05 and out[i, 2] == 0.0:
                out[i, 2] = lead
            if p >= 0.95 and out[i, 3] == 0.0:
                out[i, 3] = lead
            if out[i, 1] == 0.0:
                out[i, 4], out[i, 5] = centre, sigma
                if p >= 0.5:
                    out[i, 1] = lead
    return count
