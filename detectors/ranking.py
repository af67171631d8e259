"""How rows rank: the score that `tocsin score` writes. What alerts has a policy of its own.

An alert (detectors.exceedances) is an edge and must hold a budget; a rank orders all rows of a series,
and peaks of many series, from quiet to odd, and stays while a fault stays. So it differs from the score
that alerts:

- What lies outside everything seen lately gets no bonus, and nothing is compressed at the top: both
  cost order among real faults.
- A fault of hours or days stays in front, though each look gets used to it: the rank is at least the
  distance of the smoothed value to where it was in the last month, beside the daily profile and, for
  less, as it is. Both are clipped as they are learned, so that a fault of days does not move them far.
- A peak is held, falls quickly, then slowly. Of what is higher than any fault needs to be, no more is
  held: one wild value does not hide the next day.
- What follows within hours of high ranks counts less, and so do the first hours of a young series,
  which may have any tail.
- Of two changes that are equally rare for their series, the one that takes half of what the series carries
  comes before the one that takes a hundredth. That asks for a zero that means nothing at all: where the level is not
  clear of zero by more than its usual distance (rates that rest, values of both signs), all changes count alike.
  What has no size (a shape, a value that stands still) counts as a large change.

Causal and bounded: thirteen numbers. Blind to what the looks are blind to (detectors.series_kernels).

Source: docs/adr/0030 for what was measured.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

HOLD, DECAY, HELD_MOST = 4, 0.78, 7.5
TAIL_SHARE, TAIL_DECAY = 0.48, 0.977
AFTER_SHARE, AFTER_MOST, AFTER_DECAY = 0.42, 1.5, 0.997
SLOW_DAYS, SMOOTH_GAIN = 30.0, 0.08
CLIP, CLIP_SMOOTH = 2.5, 8.0  # usual sizes: one wild value is nothing that lasts
# Usual sizes of a distance that ranks 1, and how high it may rank.
BESIDE_UNIT, BESIDE_MOST = 2.0, 1.8
PLAIN_UNIT, PLAIN_MOST = 1.3, 1.0
ROWS_FIRST, ROWS_KNOWN = 20, 200  # that are learned as they are; until a distance is known
ROWS_PER_DAY_MOST = 1440.0
YOUNG, YOUNG_DAYS, SLOW_YOUNG_DAYS = 0.5, 0.5, 2.0
AGAIN, AGAIN_MOST, AGAIN_DAYS = 0.06, 4.0, 0.13  # what counts less soon after, and for how long
# Shares of what is carried, before and after together, that count once: of a change, and of what lasts.
SHARE, SHARE_LASTING, SHARE_POWER = 0.1, 0.2, 0.2
WEIGHT_LEAST, WEIGHT_MOST = 0.8, 1.4
SHAPE = 3  # place in series_kernels.LOOKS: from here on they see no size
LEVEL_GAIN, CLEAR_OF_ZERO, NOTHING = 0.05, 1.25, 1e-300


@inline
def _slow(value, smooth, centre, size, floor, rows, gain):  # type: ignore[no-untyped-def]
    """Return smoothed value, slow centre and usual distance after this value; and its distance before."""
    if rows == 0.0:
        smooth, centre = value, value
    usual = 1.25 * size + floor
    off = near = value - centre
    if rows > ROWS_FIRST:
        off = min(max(off, -CLIP * usual), CLIP * usual)
        near = min(max(near, -CLIP_SMOOTH * usual), CLIP_SMOOTH * usual)
    smooth += SMOOTH_GAIN * (centre + near - smooth)
    far = abs(smooth - centre) / usual if rows > ROWS_KNOWN else 0.0
    return smooth, centre + gain * off, size + gain * (abs(off) - size), far


@inline
def _weight(change, carried, share):  # type: ignore[no-untyped-def]
    """How much a change counts, by its share of what the series carries."""
    part = abs(change) / (carried + NOTHING) / share
    return min(max(part**SHARE_POWER, WEIGHT_LEAST), WEIGHT_MOST)


@kernel(
    "i8(const f8[::1], const f8[::1], const f8[::1], const f8[::1], const u1[::1], const f8[::1], f8[::1])"
)
def rank(
    value: NDArray[np.float64],
    usual: NDArray[np.float64],
    floor: NDArray[np.float64],
    plain: NDArray[np.float64],
    look: NDArray[np.uint8],
    step: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Write how each row of one series ranks.

    In      value float64[N]; usual float64[N], the daily profile or the level; floor float64[N], what a
            distance is at least held against; plain float64[N]: the strongest look of each value alone,
            1 = exceeded twice a day; look uint8[N], which it was (series_kernels.LOOKS); step float64[N],
            usual seconds between rows, 0 where a value is missing: it ranks 0.
    Out     out float64[N].
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = plain.size
    if step.size != rows or out.size != rows:
        return -1
    if value.size != rows or usual.size != rows or floor.size != rows or look.size != rows:
        return -1
    held = tail = after = again = days = seen = 0.0
    beside_smooth = beside_centre = beside_size = 0.0
    smooth = centre = size = level = 0.0
    since = 0
    for n in range(rows):
        out[n] = 0.0
        if step[n] == 0.0:
            continue
        per_day = max(min(86400.0 / step[n], ROWS_PER_DAY_MOST), 1.0)
        days += step[n] / 86400.0
        # ---- where it was in the last month
        gain = max(1.0 / (SLOW_DAYS * per_day), 1.0 / (seen + 1.0))
        beside_smooth, beside_centre, beside_size, far = _slow(
            value[n] - usual[n], beside_smooth, beside_centre, beside_size, floor[n], seen, gain
        )
        lasting = min(far / BESIDE_UNIT, BESIDE_MOST)
        smooth, centre, size, far = _slow(value[n], smooth, centre, size, floor[n], seen, gain)
        lasting_plain = min(far / PLAIN_UNIT, PLAIN_MOST)
        if seen == 0.0:
            level = value[n]
        seen += 1.0
        # ---- how much it is of what the series carries
        weight = 1.0
        if abs(centre) > CLEAR_OF_ZERO * size:
            change = min(abs(value[n] - level), abs(value[n] - usual[n]))
            weight = _weight(change, abs(value[n]) + abs(level), SHARE)
            carried = abs(smooth) + abs(centre)
            lasting *= _weight(beside_smooth - beside_centre, carried, SHARE_LASTING)
            lasting_plain *= _weight(smooth - centre, carried, SHARE_LASTING)
        if look[n] >= SHAPE:
            weight = WEIGHT_MOST
        level += max(LEVEL_GAIN, 1.0 / seen) * (value[n] - level)
        lasting = max(lasting, lasting_plain) * (1.0 - math.exp(-days / SLOW_YOUNG_DAYS))
        # ---- the strongest look, held
        young = 1.0 - YOUNG * math.exp(-days / YOUNG_DAYS)
        now = plain[n] * weight * young / (1.0 + AGAIN * again)
        since = 0 if now >= held else since + 1
        if now >= held:
            held = now
        elif since > HOLD:
            held = max(now, min(held, HELD_MOST) * DECAY, tail * TAIL_DECAY)
        tail = max(tail * TAIL_DECAY, TAIL_SHARE * min(held, HELD_MOST))
        after = max(after * AFTER_DECAY, min(AFTER_SHARE * held, AFTER_MOST))
        again = max(again * (1.0 - 1.0 / (per_day * AGAIN_DAYS + 1.0)), min(held, AGAIN_MOST) - 1.0)
        out[n] = max(held, lasting, after)
    return rows
