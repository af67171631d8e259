"""Shape: how unlike all that a periodic series has shown so far its last rows look.

For a beat that comes too early, a wave cut off, a cycle of another form: nothing a single value
shows. The distance of the last half period (as it is) and of the last whole one (normalised) to
their nearest like among the 1,024 rows of memory, over the usual such distance. Rows are averaged
first, so that half a period is 16 of them: memory reaches back 32 periods, whatever the sampling.

Blind until four periods were seen, to series without a clear period, and to what happened before.

The period is looked for when 512, 1,024, 2,048, ... rows are there: the strongest peak of their
autocorrelation.

Source: left matrix profile: Yeh et al. (2016), Matrix Profile I, ICDM; Zhu et al. (2016), STOMP.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import kernel

MEMORY = 1024  # averaged rows
FIRST_LOOK = 512  # rows
LOOKED_AT = 20_000  # rows that tell the period
PERIOD_MIN, PERIOD_MAX = 8, 1000  # rows
CLEAR = 0.4  # autocorrelation at the period
RISE = 0.1  # above a valley before it: a wiggle on the slope of a slow wave is no period
# Share of a period, averaged rows of it, whether normalised
WINDOWS = ((0.5, 16, 0), (1.0, 32, 1))


@kernel("i8(const f8[::1], i8, i8, i8, i8, f8[::1], f8[::1], f8[::1], f8[::1], f8[::1])")
def left_profile(
    value: NDArray[np.float64],
    window: int,
    first: int,
    normalised: int,
    memory: int,
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    start: NDArray[np.float64],
    product: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Write the distance of each window to its nearest like that ended before it began.

    In      value float64[N], about 0 and of size 1; window, rows; first, the row whose window is the
            first to be judged; memory, how many windows back are looked at.
    Scratch mean, deviation, start, product float64[N].
    Out     out float64[N]: root of the mean squared distance, at the window's last row; 0 where
            there is nothing to compare with.
    Returns N, or -1 when a length is wrong or the window does not fit.
    """
    rows = value.size
    windows = rows - window + 1
    if window < 2 or windows < 1 or out.size != rows or mean.size != rows:
        return -1
    if deviation.size != rows or start.size != rows or product.size != rows:
        return -1
    total, squares = 0.0, 0.0
    for i in range(rows):
        out[i] = 0.0
        total += value[i]
        squares += value[i] * value[i]
        if i >= window:
            total -= value[i - window]
            squares -= value[i - window] * value[i - window]
        if i >= window - 1:
            average = total / window
            mean[i - window + 1] = average
            deviation[i - window + 1] = math.sqrt(max(squares / window - average * average, 1e-12))
    for j in range(windows):
        dot = 0.0
        for k in range(window):
            dot += value[k] * value[j + k]
        start[j] = dot
        product[j] = dot
    for i in range(1, windows):
        oldest = max(0, i - memory)
        for j in range(i, oldest, -1):
            product[j] = product[j - 1] - value[i - 1] * value[j - 1]
            product[j] += value[i + window - 1] * value[j + window - 1]
        product[oldest] = start[i]
        if oldest > 0:
            dot = 0.0
            for k in range(window):
                dot += value[i + k] * value[oldest + k]
            product[oldest] = dot
        if i + window - 1 < first:
            continue
        best = -1.0
        for j in range(oldest, i - window + 1):
            shared = product[j] / window - mean[i] * mean[j]
            if normalised != 0:
                # A flat window has no shape: its deviation counts as a tenth of the usual one.
                shared = 2.0 - 2.0 * shared / (max(deviation[i], 0.1) * max(deviation[j], 0.1))
            else:
                shared = deviation[i] ** 2 + deviation[j] ** 2 - 2.0 * shared
            if best < 0.0 or shared < best:
                best = max(shared, 0.0)
        out[i + window - 1] = math.sqrt(best) if best > 0.0 else 0.0
    return rows


def shape_column(value: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return how unlike the past each row's last period looks, in usual distances; and the period.

    Causal: a row depends on those before it only. Missing values are the ones before them.
    """
    rows = len(value)
    made = np.zeros(rows)
    filled = _filled(value)
    period, at = 0, FIRST_LOOK
    while at < rows:
        until = min(2 * at, rows)
        period = clear_period(filled[max(0, at - LOOKED_AT) : at])
        if period:
            for share, points, normalised in WINDOWS:
                made[at:until] += _segment(filled, at, until, period * share, points, normalised)
        at *= 2
    return made, period


def clear_period(value: NDArray[np.float64]) -> int:
    """Return the lag of the highest peak of the autocorrelation; 0 where none is clear."""
    return clear_autocorrelation(value)[0]


def clear_autocorrelation(value: NDArray[np.float64]) -> tuple[int, float]:
    """Return lag and height of the highest peak of the autocorrelation; 0, 0 where none is clear."""
    around = value - value.mean()
    size = float(around @ around)
    most = min(PERIOD_MAX, len(value) // 4)
    if not size > 0.0 or most <= PERIOD_MIN + 1:
        return 0, 0.0
    width = 1 << (2 * len(value) - 1).bit_length()
    spectrum = np.fft.rfft(around, width)
    lags = np.fft.irfft(spectrum * np.conj(spectrum), width)[: most + 2] / size
    inner = lags[PERIOD_MIN + 1 : most + 1]
    peaks = (inner > lags[PERIOD_MIN:most]) & (inner >= lags[PERIOD_MIN + 2 : most + 2])
    peaks &= inner - np.minimum.accumulate(lags)[PERIOD_MIN:most] >= RISE
    if not peaks.any():
        return 0, 0.0
    best = int(np.argmax(np.where(peaks, inner, -np.inf)))
    height = float(inner[best])
    return (best + PERIOD_MIN + 1, height) if height >= CLEAR else (0, 0.0)


def _segment(
    filled: NDArray[np.float64],
    at: int,
    until: int,
    window_rows: float,
    points: int,
    normalised: int,
) -> NDArray[np.float64]:
    """Judge rows at..until by what came before each, with the period known at `at`."""
    window_rows = max(8.0, window_rows)
    each = max(1, round(window_rows / points))
    window = max(6, round(window_rows / each))
    begin = max(0, at // each - 2 * MEMORY) * each
    count = (until - begin) // each
    if count < 4 * window:
        return np.zeros(until - at)
    averaged = filled[begin : begin + count * each].reshape(count, each).mean(axis=1)
    known = averaged[: max((at - begin) // each, 1)]
    averaged = (averaged - known.mean()) / (known.std() + 1e-12)
    averaged = np.clip(averaged, -1e3, 1e3)
    distance, scratch = np.zeros(count), np.zeros((4, count))
    left_profile(
        averaged, window, 2 * window, normalised, MEMORY, scratch[0], scratch[1], scratch[2],
        scratch[3], distance,
    )  # fmt: skip
    # Over its own mean and deviation so far.
    judged = distance[3 * window :]
    nth = np.arange(1, len(judged) + 1)
    mean = np.cumsum(judged) / nth
    deviation = np.sqrt(np.maximum(np.cumsum(judged**2) / nth - mean**2, 0.0))
    z = np.zeros(count)
    z[3 * window + 1 :] = (judged[1:] - mean[:-1]) / (deviation[:-1] + 0.2 * mean[:-1] + 1e-9)
    # A block is known when its last row is.
    row = np.arange(at, until)
    block = (row - begin + 1) // each - 1
    result: NDArray[np.float64] = np.where(
        block >= 0, np.maximum(z[np.maximum(block, 0)], 0.0), 0.0
    )
    return result


def _filled(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values with missing ones as the last known before them."""
    usable = np.abs(np.nan_to_num(value, nan=np.inf, posinf=np.inf)) <= 1e30
    place = np.maximum.accumulate(np.where(usable, np.arange(len(value)), -1))
    return np.where(place >= 0, value[np.maximum(place, 0)], 0.0)
