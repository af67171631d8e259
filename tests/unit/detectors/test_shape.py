"""Shape: a cycle of another form is found, cycles that vary as always are not; causal."""

import numpy as np
import pytest

from detectors import shape
from detectors.series import score_series
from detectors.series_kernels import LOOKS


def beats(rows: int, seed: int, *, period: int = 80) -> np.ndarray:
    """A sharp beat and a slow wave after it, with noise."""
    random = np.random.default_rng(seed)
    phase = (np.arange(rows) % period) / period
    wave = np.exp(-(((phase - 0.2) / 0.04) ** 2)) + 0.4 * np.exp(-(((phase - 0.55) / 0.1) ** 2))
    return wave + random.normal(0.0, 0.02, rows)


def odd_beat(value: np.ndarray, at: int, period: int = 80) -> None:
    """The wave after one beat is upside down: no value is out of range."""
    phase = np.arange(period) / period
    value[at : at + period] -= 0.6 * np.exp(-(((phase - 0.55) / 0.1) ** 2))


@pytest.mark.parametrize("seed", range(6))
def test_an_odd_beat_has_the_highest_score(seed: int) -> None:
    value = beats(6_000, seed)
    odd_beat(value, 4_160)
    scores = score_series(np.arange(6_000), value)
    at = int(np.argmax(scores.score[2_000:])) + 2_000
    assert 4_160 - 40 <= at <= 4_240 + 100
    assert scores.summary["shape"]["period_rows"] == pytest.approx(80, abs=1)


@pytest.mark.parametrize("seed", range(3))
def test_beats_as_always_raise_no_shape_alert(seed: int) -> None:
    scores = score_series(np.arange(6_000) * 60, beats(6_000, seed))
    assert scores.summary["alerts_by_detector"]["shape"] <= 1


def test_noise_has_no_period() -> None:
    random = np.random.default_rng(2)
    assert shape.clear_period(random.normal(size=4_096)) == 0
    assert shape.clear_period(np.full(600, 3.0)) == 0
    made, period = shape.shape_column(random.normal(size=5_000))
    assert period == 0
    assert not made.any()


def test_the_column_is_causal() -> None:
    value = beats(3_000, seed=9)
    whole, _ = shape.shape_column(value)
    for cut in np.random.default_rng(1).integers(1, 3_000, 25):
        assert shape.shape_column(value[:cut])[0].tobytes() == whole[:cut].tobytes()


def test_distances_are_those_of_the_definition() -> None:
    random = np.random.default_rng(3)
    value = random.normal(size=120)
    window, memory = 8, 40
    scratch = [np.zeros(120) for _ in range(4)]
    out = np.zeros(120)
    for normalised in (0, 1):
        assert shape.left_profile(value, window, 30, normalised, memory, *scratch, out) == 120

        def form(at: int, normalised: int = normalised) -> np.ndarray:
            part = value[at : at + window]
            part = part - part.mean()
            return part / part.std() if normalised else part

        for end in range(30, 120):
            begin = end - window + 1
            before = range(max(0, begin - memory), begin - window + 1)
            nearest = min(np.sqrt(np.mean((form(begin) - form(j)) ** 2)) for j in before)
            assert out[end] == pytest.approx(nearest, abs=1e-6)


def test_looks_name_the_shape() -> None:
    assert LOOKS[3] == "shape"


def test_wrong_lengths_write_nothing() -> None:
    good, short = np.zeros(20), np.ones(3)
    assert shape.left_profile(good, 4, 8, 0, 10, good, good, good, good, short) == -1
    assert shape.left_profile(short, 4, 8, 0, 10, short, short, short, short, short) == -1
    assert short.tolist() == [1.0, 1.0, 1.0]
