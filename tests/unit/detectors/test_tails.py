"""The fleet's record: p-values hold over all series together, bursts and shocks count once."""

import numpy as np
import pytest

from detectors import exceedances
from detectors.detector import ScoreColumns
from detectors.rows import RowArrays
from detectors.tails import LEVELS, Tails
from runtime.checkpoint import Snapshot

SERIES = 400
MINUTE_S = 60.0


def fleet() -> tuple[Tails, RowArrays]:
    rows = RowArrays(("value",), runs=(np.float32, (exceedances.STATE,)), step=(np.float32, ()))
    rows.held = {
        name: np.zeros((SERIES, *array.shape[1:]), array.dtype) for name, array in rows.held.items()
    }
    rows["step"][:] = MINUTE_S
    return Tails(("value",), 3_600.0), rows


PLACES = np.arange(SERIES)


def judged(tails: Tails, rows: RowArrays, score: np.ndarray) -> np.ndarray:
    out = ScoreColumns.empty(SERIES + 1)
    tails.judge(rows, "value", PLACES, score, MINUTE_S, out)
    return out.p_value[:-1]


def live(tails: Tails, rows: RowArrays, days: int, random: np.random.Generator, tail: float) -> int:
    """Let scores be 1 or more three times a day, with a tail of this index; return p <= 1e-4 on later days."""
    rare = 0
    for tick in range(days * 1_440):
        score = np.where(random.random(SERIES) < 3.0 / 1_440, random.random(SERIES) ** -tail, 0.5)
        if tick >= 3 * 1_440:
            rare += int((judged(tails, rows, score) <= 1e-4).sum())
        tails.learn(rows, "value", PLACES, score, MINUTE_S)
    return rare


# The second is far heavier than a capped index can say.
@pytest.mark.parametrize("tail", [0.1, 0.6])
def test_rare_is_as_rare_as_it_says(tail: float) -> None:
    tails, rows = fleet()
    rare = live(tails, rows, 5, np.random.default_rng(1), tail)
    due = 1e-4 * 2 * 1_440 * SERIES
    assert 0.5 * due <= rare <= 1.5 * due


def test_a_higher_score_is_always_rarer() -> None:
    tails, rows = fleet()
    live(tails, rows, 2, np.random.default_rng(2), 0.4)
    rows["runs"][:] = rows["runs"][0]
    p = judged(tails, rows, np.geomspace(1.01, 1e4, SERIES))
    assert (np.diff(p) < 0.0).all()
    assert (p > 0.0).all()


def test_a_burst_counts_once() -> None:
    tails, rows = fleet()
    live(tails, rows, 2, np.random.default_rng(3), 0.1)
    before = tails.reached.copy()
    score = np.full(SERIES, 0.5)
    score[7] = 50.0
    for _ in range(120):
        tails.learn(rows, "value", PLACES, score, MINUTE_S)
    counted = tails.reached - before
    assert counted[0, 1] == pytest.approx(1.0, abs=0.2)  # old counts fade a little


def test_a_shock_that_strikes_all_series_counts_as_a_few() -> None:
    tails, rows = fleet()
    live(tails, rows, 2, np.random.default_rng(4), 0.1)
    before = tails.corrected("value", LEVELS)
    reached = tails.reached.copy()
    tails.learn(rows, "value", PLACES, np.full(SERIES, 30.0), MINUTE_S)
    assert (tails.reached - reached).max() <= 1.2  # of 400
    assert (tails.corrected("value", LEVELS) / before).max() < 3.0


def test_the_record_is_kept() -> None:
    tails, rows = fleet()
    live(tails, rows, 2, np.random.default_rng(5), 0.3)
    kept, again = Snapshot(), Tails(("value",), 3_600.0)
    tails.snapshot(kept)
    again.restore(kept)
    assert again.corrected("value", LEVELS).tobytes() == tails.corrected("value", LEVELS).tobytes()
