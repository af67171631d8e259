"""How rows rank: order at the top, what lasts, what is young, what is missing."""

import numpy as np
import pytest

from detectors.ranking import HOLD, PLAIN_MOST, SHAPE, WEIGHT_LEAST, WEIGHT_MOST, rank
from detectors.series_kernels import LOOKS

MINUTES = np.full(6_000, 60.0)


def ranked(
    plain: np.ndarray,
    step: np.ndarray | None = None,
    value: np.ndarray | None = None,
    usual: np.ndarray | None = None,
    look: int = 0,
) -> np.ndarray:
    """Rank rows of a series that rests at zero, if nothing is said of its values."""
    rows = len(plain)
    out, still, floor = np.full(rows, np.nan), np.zeros(rows), np.full(rows, 1e-3)
    value, usual = still if value is None else value, still if usual is None else usual
    looks, step = np.full(rows, look, np.uint8), MINUTES[:rows] if step is None else step
    assert rank(value, usual, floor, plain, looks, step, out) == rows
    return out


def test_a_higher_peak_ranks_higher_however_high() -> None:
    peaks = np.geomspace(2.0, 1e12, 20)
    plain = np.full(6_000, 0.2)
    plain[2_000 : 2_000 + 200 * 20 : 200] = peaks
    assert (np.diff(ranked(plain)[2_000 : 2_000 + 200 * 20 : 200]) > 0.0).all()


def test_a_peak_is_held_then_falls_quickly_then_slowly() -> None:
    plain = np.zeros(6_000)
    plain[5_000] = 6.0
    made = ranked(plain)[5_000:]
    assert (made[: HOLD + 1] == made[0]).all()
    assert made[0] > 5.9
    assert 1.8 < made[9] < 3.0
    assert 0.5 < made[100] < 1.5
    assert 0.2 < made[500] < 0.5


def test_one_absurd_value_does_not_hide_the_next_hours() -> None:
    plain = np.zeros(6_000)
    plain[4_000], plain[4_060] = 1e9, 3.0
    made = ranked(plain)
    assert made[4_000] > 1e8
    assert made[4_060] > made[4_050]


def test_a_fault_of_two_days_stays_ahead_of_a_passing_moment() -> None:
    random = np.random.default_rng(3)
    value = random.normal(100.0, 5.0, 20_000)
    value[12_000:14_880] -= 40.0
    plain = np.full(20_000, 0.3)  # each look has got used to it
    plain[10_000] = 1.2
    step = np.full(20_000, 60.0)
    made = ranked(plain, step, value, np.full(20_000, 100.0))
    assert made[12_060:14_880].min() > made[10_000]
    assert np.median(made[15_500:]) < 0.5
    # What the profile does not explain counts more than what the value alone shows.
    explained = ranked(plain, step, value, value)
    assert made[12_100] > explained[12_100]
    assert made[10_000] < explained.max() <= PLAIN_MOST * WEIGHT_MOST


def test_one_wild_value_is_nothing_that_lasts() -> None:
    value = np.random.default_rng(4).normal(100.0, 5.0, 6_000)
    value[5_000] = 1e12
    made = ranked(np.zeros(6_000), None, value, np.full(6_000, 100.0))
    assert made.max() < 0.7


def test_what_comes_again_within_the_hour_counts_less() -> None:
    plain = np.zeros(6_000)
    plain[[3_000, 3_060, 5_900]] = 4.0
    made = ranked(plain)
    assert made[3_060] < made[3_000]
    assert made[5_900] > made[3_060]


def test_the_first_hours_count_half() -> None:
    early, late = np.zeros(6_000), np.zeros(6_000)
    early[30], late[5_000] = 5.0, 5.0
    assert 0.5 < ranked(early).max() / ranked(late).max() < 0.55


def test_of_two_rare_changes_the_one_that_takes_half_comes_first() -> None:
    """And only where the level is clear of zero."""
    random = np.random.default_rng(6)
    plain = np.full(6_000, 0.2)
    plain[[3_000, 5_000]] = 3.0
    value = random.normal(100.0, 1.0, 6_000)
    value[3_000], value[5_000] = 94.0, 50.0
    made = ranked(plain, None, value, np.full(6_000, 100.0))
    assert made[5_000] > 1.2 * made[3_000]
    made = ranked(plain, None, value - 100.0, np.zeros(6_000))
    assert made[5_000] == pytest.approx(made[3_000], rel=0.01)  # but for their age


def test_what_has_no_size_counts_as_a_large_change() -> None:
    assert LOOKS[SHAPE:] == ("shape", "flat")
    plain = np.full(6_000, 0.2)
    plain[5_000] = 3.0
    value = np.random.default_rng(8).normal(100.0, 1.0, 6_000)
    usual = np.full(6_000, 100.0)
    stuck, moved = (ranked(plain, None, value, usual, look)[5_000] for look in (SHAPE, 0))
    assert stuck / moved == pytest.approx(WEIGHT_MOST / WEIGHT_LEAST, rel=0.01)


def test_missing_rows_rank_nothing_and_change_nothing() -> None:
    random = np.random.default_rng(1)
    plain, step = random.random(1_000) * 3.0, np.full(1_000, 60.0)
    value = random.normal(0.0, 1.0, 1_000)
    gone = np.zeros(1_000, bool)
    gone[random.integers(0, 1_000, 100)] = True
    made = ranked(
        np.where(gone, 7.0, plain), np.where(gone, 0.0, step), np.where(gone, np.nan, value)
    )
    assert not made[gone].any()
    assert made[~gone].tobytes() == ranked(plain[~gone], None, value[~gone]).tobytes()


def test_wrong_lengths_write_nothing() -> None:
    out, two, three, looks = np.full(3, 7.0), np.ones(2), np.ones(3), np.zeros(3, np.uint8)
    assert rank(three, three, three, three, looks, two, out) == -1
    assert rank(two, two, two, two, looks[:2], two, out) == -1
    assert rank(three, two, three, three, looks, three, out) == -1
    assert rank(three, three, two, three, looks, three, out) == -1
    assert rank(three, three, three, three, looks[:2], three, out) == -1
    assert (out == 7.0).all()
