"""Counts that rest at one value: their alerts keep the budget, and faults among them are found."""

import numpy as np
import pytest

from detectors import exceedances, series_kernels, sparse
from detectors.exceedances import FALSE_ALERTS_PER_DAY
from detectors.series import score_series

START_S = 1_790_553_600


def times(rows: int, step_s: int) -> np.ndarray:
    return START_S + step_s * np.arange(rows)


def counts(rows: int, rate: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rate, rows).astype(np.float64)


SAMPLINGS = [  # seconds, days, events a row
    (60, 14, 0.002), (60, 14, 0.005), (300, 28, 0.002), (300, 28, 0.01), (300, 28, 0.02), (900, 56, 0.01),
    (3600, 180, 0.02),
]  # fmt: skip


@pytest.mark.parametrize(("step_s", "days", "rate"), SAMPLINGS)
def test_rare_events_alert_as_often_as_the_budget_says(step_s: int, days: int, rate: float) -> None:
    series, rows = 6, days * 86_400 // step_s
    budget = series * days * FALSE_ALERTS_PER_DAY / max(step_s / 900, 1.0)
    alerts = sum(
        int(score_series(times(rows, step_s), counts(rows, rate, seed)).alert.sum())
        for seed in range(series)
    )
    assert 0.3 * budget <= alerts <= 2.0 * budget


def one_large(value: np.ndarray, at: int) -> None:
    value[at] += 30.0


def ten_within_the_hour(value: np.ndarray, at: int) -> None:
    value[at : at + 10] += 1.0


def stays(value: np.ndarray, at: int) -> None:
    value[at:] += 1.0


def twentyfold(value: np.ndarray, at: int) -> None:
    value[at : at + 288] += counts(288, 0.2, 9)


@pytest.mark.parametrize("fault", [one_large, ten_within_the_hour, stays, twentyfold])
def test_a_fault_among_rare_events_is_found(fault: object) -> None:
    rows, at = 28 * 288, 21 * 288
    for seed in range(3):
        value = counts(rows, 0.01, seed)
        fault(value, at)  # type: ignore[operator]
        found = score_series(times(rows, 300), value).alert[at : at + 288]
        assert found[: 288 if fault is twentyfold else 12].any()


def test_the_first_departure_ever_and_a_state_that_changes_are_news() -> None:
    for day, back in ((5, 1), (9, 5 * 288)):
        value = np.full(14 * 288, 1.0)  # up
        value[day * 288 : day * 288 + back] = 2.0
        assert score_series(times(len(value), 300), value).alert[day * 288 : day * 288 + 2].any()


def test_another_rest_is_learned() -> None:
    value = counts(28 * 288, 0.01, 3)
    value[7 * 288 :] += 5.0
    scores = score_series(times(len(value), 300), value)
    assert scores.alert[7 * 288 : 7 * 288 + 2].any()
    assert scores.alert[14 * 288 :].sum() <= 4
    assert scores.last["sparse"]["rest"] == 5.0
    assert scores.last["sparse"]["departures_per_day"] == pytest.approx(2.9, abs=1.0)


def hold(value: np.ndarray, surprise: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    made, most = np.full(len(value), surprise), np.zeros(len(value))
    state = np.zeros((1, sparse.STATE), np.float32)
    step = np.full(len(value), 300.0)
    assert sparse.hold(value, step, FALSE_ALERTS_PER_DAY, state, made, most) == len(value)
    return made, most


@pytest.mark.parametrize("kind", ["gauge", "busy", "fractions", "two values"])
def test_what_does_not_rest_is_left_alone(kind: str) -> None:
    random = np.random.default_rng(4)
    value = {
        "gauge": 100.0 + random.normal(0.0, 3.0, 4_000),
        "busy": random.poisson(20.0, 4_000) * 1.0,
        "fractions": random.poisson(0.01, 4_000) / 300.0,
        "two values": random.integers(0, 2, 4_000) * 1.0,
    }[kind]
    if kind == "fractions":
        value[0] = 1.0 / 300.0
    surprise, most = hold(value)
    assert (surprise == 50.0).all()
    assert np.isinf(most).all()


@pytest.mark.parametrize(("step_s", "rate"), [(60, 0.01), (300, 0.002), (300, 0.01)])
def test_a_burst_among_rare_events_ranks_before_each_single_one(step_s: int, rate: float) -> None:
    rows = (14 if step_s == 60 else 28) * 86_400 // step_s
    at = rows * 3 // 4
    for seed in range(6):
        value = counts(rows, rate, seed)
        ten_within_the_hour(value, at)
        score = score_series(times(rows, step_s), value).score
        assert score[at : at + 14].max() > score[:at].max()


def test_expectations_are_what_they_were_and_ranks_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = counts(4_000, 0.01, 5)
    held = score_series(times(4_000, 300), value)
    monkeypatch.setattr(sparse, "AWAY_MOST", 0.0)  # frozen in the kernel: so its plain version
    monkeypatch.setattr(sparse, "hold", sparse.hold.function)
    free = score_series(times(4_000, 300), value)
    assert held.alert.sum() < free.alert.sum()
    assert held.score.max() < 5.0 < 20.0 < free.score.max()
    for name in ("expected", "look"):
        assert getattr(held, name).tobytes() == getattr(free, name).tobytes()


def test_scores_of_a_prefix_are_the_prefix_of_the_scores() -> None:
    random = np.random.default_rng(7)
    value = counts(2_000, 0.01, 6)
    value[random.integers(0, 2_000, 60)] = np.nan
    value[1_200:1_230] += 3.0
    whole = score_series(times(2_000, 300), value)
    for cut in [*random.integers(1, 2_000, 40).tolist(), *range(1, 24)]:
        part = score_series(times(cut, 300), value[:cut])
        for name in ("score", "surprise", "level", "alert"):
            assert getattr(part, name).tobytes() == getattr(whole, name)[:cut].tobytes()


@pytest.mark.parametrize(
    "value", [np.zeros(60_000), np.where(np.arange(500) % 250 == 9, 1e30, 0.0), np.zeros(0)]
)
def test_years_of_rest_and_absurd_sizes_stay_finite(value: np.ndarray) -> None:
    state = np.zeros((1, sparse.STATE), np.float32)
    surprise, most = np.ones(len(value)), np.zeros(len(value))
    sparse.hold(value, np.full(len(value), 86_400.0), 1.0 / 7.0, state, surprise, most)
    assert np.isfinite(state).all()
    assert np.isfinite(surprise).all()
    assert (surprise > 0.0).all()


def test_state_is_below_a_kilobyte_and_wrong_lengths_write_nothing() -> None:
    assert series_kernels.BYTES + exceedances.BYTES + sparse.BYTES <= 1024
    one, state = np.ones(1), np.zeros((1, sparse.STATE), np.float32)
    assert sparse.hold(one, np.ones(2), 0.1, state, one, one) == -1
    assert sparse.hold(one, one, 0.1, np.zeros((1, 3), np.float32), one, one) == -1
    assert not state.any()
