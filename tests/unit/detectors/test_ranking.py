"""How rows rank: order at the top, what lasts, what is young, what is missing."""

import numpy as np

from detectors.ranking import HOLD, PLAIN_MOST, rank

MINUTES = np.full(6_000, 60.0)


def ranked(
    plain: np.ndarray,
    step: np.ndarray | None = None,
    value: np.ndarray | None = None,
    usual: np.ndarray | None = None,
) -> np.ndarray:
    """Rank rows of a series that stands still, if nothing is said of its values."""
    rows = len(plain)
    out, still, floor = np.full(rows, np.nan), np.full(rows, 5.0), np.full(rows, 1e-3)
    value, usual = still if value is None else value, still if usual is None else usual
    assert rank(value, usual, floor, plain, MINUTES[:rows] if step is None else step, out) == rows
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
    assert explained.max() == max(made[10_000], PLAIN_MOST)


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
    out, two, three = np.full(3, 7.0), np.ones(2), np.ones(3)
    assert rank(three, three, three, three, two, out) == -1
    assert rank(two, two, two, two, two, out) == -1
    assert rank(three, two, three, three, three, out) == -1
    assert rank(three, three, two, three, three, out) == -1
    assert (out == 7.0).all()
