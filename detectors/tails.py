"""How rare a score is, for its series by its own runs, and for the fleet by what all of them did.

A series' own runs say how rare one run in a thousand ticks is; an alert among 100,000 series must be
rarer than one in a hundred million, where no series has a record. So the fleet's is kept: how many
runs of all series of a view reached a p-value of 1e-3, 1e-4, ... , and how many tests were made. A
p-value becomes the share of tests that really went so far. It is ordered as before: a higher score
always has a smaller one. A run counts once however long it lasts; of a shock that strikes many series in
one tick no more is counted than three times what chance gives, or one.

Blind to which series is wild: where a few are, all of the view are believed less. Real faults count as
well; they are few beside what a budget allows, and the record fades with a half-life of two weeks.

Source: adaptive calibration of p-values by their empirical distribution (Efron 2004, empirical null).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import exceedances
from detectors.detector import ScoreColumns
from detectors.rows import RowArrays
from runtime.checkpoint import read_array, write_array

HALF_LIFE_S = 14 * 86_400.0
SHOCK = 3.0  # times what chance gives in a tick
LEVELS = 10.0 ** -(exceedances.FIRST_DECADE + np.arange(exceedances.DECADES, dtype=np.float64))
P_LEAST = 1e-300


class Tails:
    """Judges and counts scores of a view's series, kept in a RowArrays' `runs` and `step`."""

    def __init__(self, measures: tuple[str, ...], warmup_seconds: float) -> None:
        self._measures = measures
        self._warmup_s = warmup_seconds
        self._work = np.zeros(exceedances.STATE)
        self.reached = np.zeros((len(measures), len(LEVELS)))
        self.tests = np.zeros(len(measures))

    def judge(
        self, rows: RowArrays, measure: str, places: NDArray[np.int64],
        score: NDArray[np.float64], tick_s: float, out: ScoreColumns,
    ) -> NDArray[np.float64]:  # fmt: skip
        """Write p-values and scores of `score` (1 = exceeded twice a day); return alert levels."""
        n, level = len(places), np.empty(len(places))
        p = out.p_value[:n]
        exceedances.judge(
            places, score, rows["step"], tick_s, exceedances.FALSE_ALERTS_PER_DAY, self._warmup_s,
            rows["runs"], self._work, level, p,
        )  # fmt: skip
        p[:] = self.corrected(measure, p)
        out.score[:n] = np.where(np.isnan(score), np.nan, -np.log10(p))
        return level

    def learn(
        self, rows: RowArrays, measure: str, places: NDArray[np.int64],
        score: NDArray[np.float64], tick_s: float,
    ) -> None:  # fmt: skip
        """Count the scores of a tick, for their series and for all."""
        m, reached = self._measures.index(measure), np.empty(len(LEVELS))
        tests = exceedances.learn(
            places, score, rows["step"], tick_s, exceedances.FALSE_ALERTS_PER_DAY, self._warmup_s,
            rows["runs"], self._work, reached,
        )  # fmt: skip
        kept = 0.5 ** (tick_s / HALF_LIFE_S)
        most = np.maximum(SHOCK * LEVELS * tests, 1.0)
        self.reached[m] = kept * self.reached[m] + np.minimum(reached, most)
        self.tests[m] = kept * self.tests[m] + tests

    def corrected(self, measure: str, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of tests that really went as far as each p-value says."""
        m = self._measures.index(measure)
        # One run more than were seen, and the tests after which one was due; never bolder than a series'
        # own record, which is careful while it is young.
        share = (self.reached[m] + 1.0) / (self.tests[m] + 1.0 / LEVELS)
        share, levels = np.log(np.maximum(share, LEVELS)), np.log(LEVELS)
        asked = np.log(np.maximum(p, P_LEAST))
        made = np.interp(-asked, -levels, share)
        made = np.where(asked > levels[0], asked * share[0] / levels[0], made)
        made = np.where(asked < levels[-1], share[-1] + asked - levels[-1], made)
        result: NDArray[np.float64] = np.maximum(np.exp(made), P_LEAST)
        return result

    def snapshot(self, out: Any) -> None:
        """Write the fleet's record."""
        write_array(out, "tails", np.column_stack([self.tests, self.reached]))

    def restore(self, state: Any) -> None:
        """Take it back."""
        kept = read_array(state, "tails")
        if kept is not None and kept.shape == (len(self._measures), 1 + len(LEVELS)):
            self.tests, self.reached = kept[:, 0].copy(), kept[:, 1:].copy()
