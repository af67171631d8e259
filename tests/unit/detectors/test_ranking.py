"""How rows rank: order at the top, what lasts, what is young, what is missing."""

import numpy as np

from detectors.ranking import HOLD, rank

MINUTES = np.full(6_000, 60.0)


def ranked(plain: np.ndarray, step: np.ndarray | None = None) -> np.ndarray:
    out = np.full(len(plain), np.nan)
    assert rank(plain, MINUTES[: len(plain)] if step is None else step, out) == len(plain)
    return out


def test_a_higher_peak_ranks_higher_however_high() -> None:
    peaks = np.geomspace(2.0, 1e12, 20)
    plain = np.full(6_000, 0.2)
    plain[2_000 : 2_000 + 200 * 20 : 200] = peaks
    assert (np.diff(ranked(plain)[2_000 : 2_000 + 200 * 20 : 200]) > 0.0).all()


def test_a_peak_is_held_then_falls_quickly_then_slowly() -> None:
    plain = np.zeros(6_000)
    plain[5_000] = 10.0
    made = ranked(plain)[5_000:]
    assert (made[: HOLD + 1] == made[0]).all()
    assert made[0] > 9.9
    assert 3.0 < made[8] < 5.0
    assert 0.5 < made[60] < 2.0
    assert made[400] < 0.1


def test_what_lasts_stays_ahead_of_a_passing_moment() -> None:
    plain = np.full(6_000, 0.1)
    plain[3_000:3_600] = 1.0  # each look has got used to it
    plain[5_000] = 1.4
    made = ranked(plain)
    assert made[3_400:3_600].min() > made[5_000]


def test_the_first_hours_count_half() -> None:
    early, late = np.zeros(6_000), np.zeros(6_000)
    early[30], late[5_000] = 5.0, 5.0
    assert 0.5 < ranked(early).max() / ranked(late).max() < 0.55


def test_missing_rows_rank_nothing_and_change_nothing() -> None:
    random = np.random.default_rng(1)
    plain, step = random.random(1_000) * 3.0, np.full(1_000, 60.0)
    gone = np.zeros(1_000, bool)
    gone[random.integers(0, 1_000, 100)] = True
    made = ranked(np.where(gone, 7.0, plain), np.where(gone, 0.0, step))
    assert not made[gone].any()
    assert made[~gone].tobytes() == ranked(plain[~gone]).tobytes()


def test_wrong_lengths_write_nothing() -> None:
    out = np.full(3, 7.0)
    assert rank(np.ones(3), np.ones(2), out) == -1
    assert rank(np.ones(2), np.ones(2), out) == -1
    assert (out == 7.0).all()
