"""What counts that rest at one value may be surprised by: no more than a Poisson law allows.

Counts of rare things (errors, drops, restarts) rest at one value and leave it now and then. Their usual
deviation is next to nothing, so each departure lies dozens of units above it, however often one comes. Here
a surprise is held to how rare it is: a departure by what those of the last hour left and by its size, against how
many come a day; a rest by how long rests usually are. The surprise grows with rarity as a power law
of index .3 has it, which `detectors.exceedances` finds again in the runs it counts. What departs less
often than a few budgets is news each time.

28 bytes a series. Does nothing where more than a tenth of the rows is away from one value, and where values are no
whole numbers: what they are made of is not known. Blind to departures that grow more frequent over weeks: it follows.

Source: Gilbert & Pollak, Amplitude distribution of shot noise (1960), for what lies below one departure;
Chernoff's bound of a Poisson tail above.
"""

import math

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

# RUN: rows away from the rest, negative: at rest. WHOLE: rows since a value was no whole number.
SEEN, REST, AWAY, SIZE, RECENT, RUN, WHOLE = range(7)
STATE = 7
BYTES = 4 * STATE
AWAY_MOST, AWAY_LEAST = 0.1, 1e-6  # of the rows of a sparse series
FIRST = 0.3  # departures that were before the first row
KEPT_DAYS, ROWS_PER_DAY_MOST = 14.0, 1440.0
RECENT_S = 3600.0
REST_DAYS = 0.5  # after so long away, where it is now is its rest
SIZE_GAIN, SIZE_CLIP = 0.1, 4.0
INDEX = 0.3  # how the surprise grows with rarity
# Departures a day, and in budgets, between which each begins a run of surprise 1.
TWICE, SELDOM = 2.0, 3.0
RESTS = 20.0  # of so many rests one is news: it lasts three times as long as they do on average
BUDGET_STEP_S, BUDGET_SLOWER_MOST = 900.0, 8.0  # as in exceedances
EULER = 0.5772156649015329


@inline
def _chance(recent, usual):  # type: ignore[no-untyped-def]
    """How likely what one departure finds left of those before it is `recent` or more."""
    if recent <= 0.0:
        return 1.0
    below = math.exp(-EULER * usual - math.lgamma(1.0 + usual))
    if recent < 1.0:
        return 1.0 - below * recent**usual
    count = recent + 1.0
    bound = math.exp(count - usual - count * math.log(count / usual)) if count > usual else 1.0
    return max(min(1.0 - below, bound), 1e-300)


@kernel("i8(const f8[::1], const f8[::1], f8, f4[:,::1], f8[::1], f8[::1])")
def hold(
    value: NDArray[np.float64],
    step: NDArray[np.float64],
    budget: float,
    state: NDArray[np.float32],
    surprise: NDArray[np.float64],
    out_most: NDArray[np.float64],
) -> int:
    """Hold the surprises of one series to what its departures allow; the state goes on from where it was.

    In      value float64[N]; step float64[N], usual seconds between rows, 0 where a value is missing;
            budget, false alerts a day.
    Inout   state float32[1, 7]; surprise float64[N], 1 = exceeded twice a day.
    Out     most float64[N]: what the surprise was held to, infinite where the series is not sparse.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = value.size
    if step.size != rows or surprise.size != rows or out_most.size != rows:
        return -1
    if state.shape[1] != STATE:
        return -1
    for n in range(rows):
        out_most[n] = np.inf
        if step[n] == 0.0:
            continue
        v = float(np.float32(value[n]))
        rows_a_day = max(min(86400.0 / step[n], ROWS_PER_DAY_MOST), 1.0)  # that it learns by
        if state[0, SEEN] == 0.0:
            state[0, SEEN], state[0, REST], state[0, AWAY], state[0, WHOLE] = 1.0, v, FIRST, 1e9
        seen, away = float(state[0, SEEN]), float(state[0, AWAY])
        size, run = float(state[0, SIZE]), float(state[0, RUN])
        usual = away * RECENT_S / step[n]  # departures of an hour
        recent = float(state[0, RECENT]) * math.exp(-step[n] / RECENT_S)
        gain = max(1.0 / (KEPT_DAYS * rows_a_day), 1.0 / (seen + 1.0))
        off = abs(v - float(state[0, REST]))
        if off > 0.0:
            size = off if size == 0.0 else size
            chance = _chance(recent + max(off / size - 1.0, 0.0), usual)
            recent += off / size
            run = max(run, 0.0) + 1.0
            # A burst is learned as little more than one departure.
            learned = away + gain * (min((usual + 1.0) / max(recent, 1.0), 1.0) - away)
            # The mean weighted by size: the sum of departures of any sizes varies as that of equal ones of this size.
            off = min(off, SIZE_CLIP * size)
            size += SIZE_GAIN * off / size * (off - size)
        else:
            run = min(run, 0.0) - 1.0
            chance = min(_chance(recent - 1.0, usual), math.exp(max(away * run, -600.0)))
            learned = away - gain * away
        whole = min(float(state[0, WHOLE]) + 1.0, 1e9) if v == math.floor(v) else 0.0
        if away <= AWAY_MOST and whole > KEPT_DAYS * rows_a_day:
            slower = min(max(step[n] / BUDGET_STEP_S, 1.0), BUDGET_SLOWER_MOST)
            often = away * 86400.0 / step[n]
            often /= min(max(often, SELDOM * budget / slower), TWICE)
            often *= 1.0 if run > 0.0 else RESTS
            out_most[n] = (often * chance) ** -INDEX
            surprise[n] = min(surprise[n], out_most[n])
        if run > REST_DAYS * rows_a_day:
            state[0, REST], run, recent = v, 0.0, 0.0
        state[0, SEEN], state[0, AWAY] = min(seen + 1.0, 1e7), max(learned, AWAY_LEAST)
        state[0, SIZE], state[0, RECENT] = size, recent
        state[0, RUN], state[0, WHOLE] = max(run, -1e9), whole
    return rows
