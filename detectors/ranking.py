"""How rows rank: the score that `tocsin score` writes. What alerts has a policy of its own.

An alert (detectors.exceedances) is an edge and must hold a budget; a rank orders all rows of a series,
and peaks of many series, from quiet to odd, and stays while a fault stays. So it differs from the score
that alerts in three ways:

- What lies outside everything seen lately gets no bonus, and nothing is compressed at the top: both
  cost order among real faults.
- A fault of hours stays in front, though each look gets used to it: the rank is at least 1.5 times the
  average of the last 50 rows, of which each counts one at most.
- A young series may have any tail: its first hours count half.

Causal and bounded: five numbers. Blind to what the looks are blind to (detectors.series_kernels).

Source: docs/adr/0030 for what was measured.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import kernel

HOLD, DECAY, TAIL_SHARE, TAIL_DECAY = 3, 0.8, 0.4, 0.97
LASTING, LASTING_GAIN = 1.5, 0.02
YOUNG, YOUNG_DAYS = 0.5, 0.5


@kernel("i8(const f8[::1], const f8[::1], f8[::1])")
def rank(plain: NDArray[np.float64], step: NDArray[np.float64], out: NDArray[np.float64]) -> int:
    """Write how each row of one series ranks.

    In      plain float64[N]: the strongest look of each value alone, 1 = exceeded twice a day; step
            float64[N], usual seconds between rows, 0 where a value is missing: it ranks 0.
    Out     out float64[N].
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = plain.size
    if step.size != rows or out.size != rows:
        return -1
    held = tail = lasting = days = 0.0
    since = 0
    for n in range(rows):
        out[n] = 0.0
        if step[n] == 0.0:
            continue
        days += step[n] / 86400.0
        now = plain[n] * (1.0 - YOUNG * math.exp(-days / YOUNG_DAYS))
        lasting += LASTING_GAIN * (min(now, 1.0) - lasting)
        since = 0 if now >= held else since + 1
        if now >= held or since > HOLD:
            held = max(now, held * DECAY, tail * TAIL_DECAY) if now < held else now
        tail = max(tail * TAIL_DECAY, TAIL_SHARE * held)
        out[n] = max(held, LASTING * lasting)
    return rows
