"""The looks at how a series moves: each finds its fault, and stays calm on what only resembles it."""

from collections.abc import Callable

import numpy as np
import pytest

from detectors import exceedances, look_kernels
from detectors.looks import look_at
from detectors.series import score_series

DAY_S = 86_400
START_S = 1_790_553_600
STEP_S = 60
FAULT = 6 * 1_440  # rows before the fault
ROWS = 8 * 1_440
Fault = Callable[[np.ndarray, np.random.Generator], None]


def times(rows: int = ROWS) -> np.ndarray:
    return START_S + STEP_S * np.arange(rows)


def calm(seed: int) -> np.ndarray:
    """A level with noise and a small day."""
    random = np.random.default_rng(seed)
    day = np.sin(2 * np.pi * times() / DAY_S)
    return 100.0 + 1.0 * day + random.normal(0.0, 1.0, ROWS)


def wandering(seed: int) -> np.ndarray:
    """A random walk: its level says nothing, its steps do."""
    return 1_000.0 + np.cumsum(np.random.default_rng(seed).normal(0.0, 0.3, ROWS))


def jump(value: np.ndarray, random: np.random.Generator) -> None:
    value[FAULT:] += 6.0


def wild(value: np.ndarray, random: np.random.Generator) -> None:
    value[FAULT : FAULT + 240] += random.normal(0.0, 3.0, 240)


def numb(value: np.ndarray, random: np.random.Generator) -> None:
    value[FAULT : FAULT + 480] = 100.0 + random.normal(0.0, 0.1, 480)


def two_valued(value: np.ndarray, random: np.random.Generator) -> None:
    """As wide as before, at the same level: but only two values."""
    value[FAULT : FAULT + 480] = (
        100.0 + random.choice([-0.8, 0.8], 480) + random.normal(0, 0.05, 480)
    )


def a_little_more(value: np.ndarray, random: np.random.Generator) -> None:
    value[FAULT : FAULT + 720] += 1.5


def leak(value: np.ndarray, random: np.random.Generator) -> None:
    value[FAULT:] += np.linspace(0.0, 6.0, ROWS - FAULT)


FOUND: list[tuple[str, Callable[[int], np.ndarray], Fault, int]] = [
    ("rate", wandering, jump, 5),
    ("variance", calm, wild, 240),
    ("variance", calm, numb, 480),
    ("distribution", calm, two_valued, 480),
    ("sums", calm, a_little_more, 720),
    ("drift", calm, leak, ROWS - FAULT),
]


@pytest.mark.parametrize(("look", "series", "fault", "length"), FOUND)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_look_finds_its_fault(
    look: str, series: Callable[[int], np.ndarray], fault: Fault, length: int, seed: int
) -> None:
    value = series(seed)
    fault(value, np.random.default_rng(seed + 100))
    score, alert = look_at(look, times(), value, STEP_S)
    during = slice(FAULT, FAULT + length)
    assert alert[during].any(), (look, seed, score[during].max())
    assert score[during].max() > score[1_440:FAULT].max()


@pytest.mark.parametrize(
    ("look", "series"),
    [(look, calm) for look in ("variance", "distribution", "sums", "drift")]
    + [("rate", wandering)],
)
def test_what_is_usual_leaves_it_calm(look: str, series: Callable[[int], np.ndarray]) -> None:
    alerts = sum(
        int(look_at(look, times(), series(seed), STEP_S)[1].sum()) for seed in range(10, 20)
    )
    assert alerts <= 20  # ten series, eight days each, one a week and series allowed


RESEMBLES: list[tuple[str, Fault]] = [
    ("variance", a_little_more),  # another level, as calm as ever
    ("distribution", a_little_more),
    ("rate", leak),
]


@pytest.mark.parametrize(("look", "fault"), RESEMBLES)
def test_what_only_resembles_it_is_left_to_others(look: str, fault: Fault) -> None:
    alerts = 0
    for seed in range(10):
        value = calm(seed)
        fault(value, np.random.default_rng(seed))
        alerts += int(look_at(look, times(), value, STEP_S)[1][FAULT + 60 : FAULT + 720].any())
    assert alerts <= 2


def arrivals(seed: int, rows: int = 4_000) -> np.ndarray:
    """Seconds at which a poller's values come: each minute, a few seconds off."""
    random = np.random.default_rng(seed)
    return START_S + 60 * np.arange(rows) + random.integers(-4, 5, rows)


def test_a_poller_that_stutters_is_found_and_jitter_is_not() -> None:
    value = np.full(4_000, 5.0)
    for seed in range(3):
        steady = look_at("arrival", arrivals(seed), value, STEP_S)[1]
        assert steady.sum() <= 1
        late = arrivals(seed)
        late[3_000:] += 400  # one interval of 460 s
        assert look_at("arrival", late, value, STEP_S)[1][3_000:3_002].any()


def test_scores_of_a_prefix_are_the_prefix_of_the_scores() -> None:
    value = calm(1)
    value[3_000:3_040] = np.nan
    for look in look_kernels.LOOKS:
        whole, alert = look_at(look, times(), value, STEP_S)
        for cut in (1, 20, 3_010, 5_000):
            part, some = look_at(look, times()[:cut], value[:cut], STEP_S)
            assert part.tobytes() == whole[:cut].tobytes()
            assert some.tobytes() == alert[:cut].tobytes()


@pytest.mark.parametrize("look", look_kernels.LOOKS)
def test_bad_values_give_finite_scores_and_no_storm(look: str) -> None:
    random = np.random.default_rng(1)
    for value in (
        np.full(600, np.nan), np.full(600, 42.0), np.zeros(600), np.where(np.arange(600) % 7, 5.0, np.inf),
        np.where(np.arange(600) == 300, 1e300, 1.0), random.normal(size=600) * 1e28, np.ones(1), np.ones(0),
    ):  # fmt: skip
        score, alert = look_at(look, times(len(value)), value, STEP_S)
        assert np.isfinite(score).all()
        assert alert.sum() <= 1
    backwards = times(600)
    backwards[300:] -= 40 * DAY_S
    assert look_at(look, backwards, random.normal(size=600), STEP_S)[1].sum() <= 1


def test_they_see_what_the_looks_of_series_do_not() -> None:
    """What each is for: the always-on looks say nothing of a series that becomes two-valued."""
    value = calm(4)
    two_valued(value, np.random.default_rng(1))
    during = slice(FAULT + 10, FAULT + 480)
    assert not score_series(times(), value).alert[during].any()
    assert look_at("distribution", times(), value, STEP_S)[1][during].any()


def test_wrong_lengths_write_nothing() -> None:
    state, one = np.zeros((1, look_kernels.STATE), np.float32), np.zeros(1)
    work = np.zeros(look_kernels.STATE)
    assert look_kernels.walk(0, np.zeros(2, np.int64), one, 60.0, state, work, one, one) == -1
    assert not state.any()
    assert look_kernels.BYTES + exceedances.BYTES <= 256
