"""Series with a week: what other weeks had at that time is no news, what they had not is."""

import numpy as np
import pytest

from detectors import weeks
from detectors.series import score_series

START_S = 1_700_006_400  # a midnight, Tuesday
WEEK = 2_016  # rows of 5 minutes
Array = np.ndarray


def times(rows: int) -> Array:
    return START_S + 300 * np.arange(rows)


def weekend(time_s: Array) -> Array:
    return (time_s // 86_400 + 3) % 7 >= 5


def wave(time_s: Array) -> Array:
    day = np.sin(2 * np.pi * time_s / 86_400)
    return 100.0 + 40.0 * day * np.where(weekend(time_s), 0.4, 1.0) - 20.0 * weekend(time_s)


def office(time_s: Array) -> Array:
    hour = time_s % 86_400 / 3_600
    return 20.0 + 80.0 * ((hour > 8) & (hour < 18) & ~weekend(time_s))


def day(time_s: Array) -> Array:
    return 100.0 + 40.0 * np.sin(2 * np.pi * time_s / 86_400)


def series(shape: object, seed: int, count: int = 7) -> tuple[Array, Array]:
    time_s = times(count * WEEK)
    noise = np.random.default_rng([5, seed]).normal(0.0, 3.0, len(time_s))
    return time_s, shape(time_s) + noise  # type: ignore[operator]


def expect(time_s: Array, value: Array) -> Array:
    out = np.zeros(len(value))
    done = weeks.expect(
        time_s.astype(np.float64), value, np.zeros(weeks.STATE), np.zeros(weeks.WEEK_SLOTS),
        np.zeros(weeks.WEEK_SLOTS, np.int64), np.zeros(weeks.DAY_SLOTS),
        np.zeros(weeks.DAY_SLOTS, np.int64), out,
    )  # fmt: skip
    assert done == len(value)
    return out


@pytest.mark.parametrize("shape", [wave, office])
def test_a_week_is_found_after_two_and_says_what_comes(shape: object) -> None:
    time_s, value = series(shape, 1)
    known = expect(time_s, value)
    assert np.isnan(known[: 2 * WEEK]).all()
    assert not np.isnan(known[3 * WEEK :]).any()
    off = np.abs(known - shape(time_s))[4 * WEEK :]  # type: ignore[operator]
    assert np.quantile(off, 0.9) < 4.0


@pytest.mark.parametrize("kind", ["day", "noise", "walk", "every hour"])
def test_no_week_is_found_where_there_is_none(kind: str) -> None:
    time_s, value = series(day, 2)
    random = np.random.default_rng(3)
    value = {
        "day": value,
        "noise": random.normal(0.0, 1.0, len(value)),
        "walk": np.cumsum(random.normal(0.0, 1.0, len(value))),
        "every hour": value[-1] + 10.0 * (time_s % 3_600 < 600),
    }[kind]
    assert np.isnan(expect(time_s, value)).all()


def test_a_week_that_ends_is_lost() -> None:
    time_s, value = series(wave, 4, 10)
    value[5 * WEEK :] = day(time_s)[5 * WEEK :] + value[5 * WEEK :] - wave(time_s)[5 * WEEK :]
    known = expect(time_s, value)
    assert not np.isnan(known[4 * WEEK : 5 * WEEK]).any()
    assert np.isnan(known[8 * WEEK :]).all()


@pytest.mark.parametrize("shape", [wave, office])
def test_weekends_keep_the_budget_from_the_third_week_on(shape: object) -> None:
    alerts = sum(
        int(score_series(*series(shape, seed)).alert[3 * WEEK :].sum()) for seed in range(6)
    )
    assert alerts <= 6 * 28 / 7  # one a week each; without the week more than twice that


@pytest.mark.parametrize("day_of_week", [1, 4])  # Wednesday, Saturday
def test_a_fault_of_a_week_is_found(day_of_week: int) -> None:
    at = 5 * WEEK + day_of_week * 288 + 100
    for seed in range(3):
        for size in (40.0, -40.0):
            time_s, value = series(wave, seed)
            value[at : at + 3] += size
            assert score_series(time_s, value).alert[at : at + 4].any()


def test_scores_of_a_prefix_are_the_prefix_of_the_scores() -> None:
    random = np.random.default_rng(7)
    time_s, value = series(wave, 3, 4)
    value[random.integers(0, len(value), 90)] = np.nan
    value[3 * WEEK + 500 :][:30] += 80.0
    time_s += random.integers(-140, 140, len(value))
    whole = score_series(time_s, value)
    assert not np.isnan(expect(time_s, value)[-1])
    for cut in random.integers(1, len(value), 100).tolist():
        part = score_series(time_s[:cut], value[:cut])
        for name in ("expected", "lower", "upper", "score", "surprise", "level", "look", "alert"):
            assert getattr(part, name).tobytes() == getattr(whole, name)[:cut].tobytes()


@pytest.mark.parametrize("kind", ["nan", "absurd", "back", "still"])
def test_any_values_and_times_stay_finite(kind: str) -> None:
    time_s, value = series(wave, 5, 4)
    if kind == "nan":
        value[::2] = np.inf
    elif kind == "absurd":
        value[:] = np.where(np.arange(len(value)) % 500 == 9, 1e30, -1e30)
    elif kind == "back":
        time_s = time_s[::-1].copy()
    else:
        time_s[:] = time_s[0]
    known, scores = expect(time_s, value), score_series(time_s, value)
    assert not np.isinf(known).any()
    assert np.isfinite(scores.score).all()


def test_wrong_lengths_write_nothing() -> None:
    one, out, seen = np.ones(1), np.full(2, 7.0), np.zeros(weeks.WEEK_SLOTS, np.int64)
    state, week, one_day = (
        np.zeros(weeks.STATE),
        np.zeros(weeks.WEEK_SLOTS),
        np.zeros(weeks.DAY_SLOTS),
    )
    days = np.zeros(weeks.DAY_SLOTS, np.int64)
    assert weeks.expect(one, one, state, week, seen, one_day, days, out) == -1
    assert weeks.expect(one, one, state, week, days, one_day, days, one) == -1
    assert weeks.expect(one, one, state, week, seen, week, days, one) == -1
    assert out.tolist() == [7.0, 7.0]
