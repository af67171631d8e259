"""The detector of sampled series: gauges below zero, silence, rare polls; the same as over a file."""

import numpy as np
import pytest

from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.series_detector import BYTES_PER_SERIES, SeriesDetector
from telemetry.batch import Batch
from telemetry.views import Measure, View
from tocsin.testing.frames import MONDAY_S, SECOND, frame

VIEW = View(
    name="sample", source="sample", key=("series",), tick_seconds=60.0,
    measures=(Measure(name="value", function="mean", scored=True),),
)  # fmt: skip


def tick(nth: int, values: np.ndarray) -> Batch:
    return frame(VIEW, (MONDAY_S + 60 * nth) * SECOND, {"value": values}, tick_seconds=60.0)


def feed(detector: SeriesDetector, nth: int, values: np.ndarray) -> ScoreColumns:
    batch = tick(nth, values)
    detector.admit(batch)
    out = ScoreColumns.empty(batch.rows)
    detector.score(batch, "value", out)
    detector.learn(batch, "value", np.ones(batch.rows, bool))
    return out


@pytest.fixture(scope="module")
def trained() -> tuple[SeriesDetector, np.random.Generator]:
    """Received power in dBm, a temperature with a day, a counter's rate; two days of minutes."""
    detector, random = SeriesDetector(("value",), DetectionSettings()), np.random.default_rng(1)
    for nth in range(2 * 1440):
        feed(detector, nth, usual(nth, random))
    return detector, random


def usual(nth: int, random: np.random.Generator) -> np.ndarray:
    day = np.sin(2 * np.pi * nth / 1440)
    return np.array([-7.0, 30.0 + 6.0 * day, 1e6 * (1.2 + day)]) + random.normal(0, 1, 3) * [
        0.05,
        0.3,
        2e4,
    ]


def test_usual_values_say_nothing_and_a_drop_below_zero_does(
    trained: tuple[SeriesDetector, np.random.Generator],
) -> None:
    detector, random = trained
    calm = feed(detector, 2880, usual(2880, random))
    assert (calm.p_value[:3] > 1e-4).all()
    assert calm.expected[0] == pytest.approx(-7.0, abs=0.2)
    assert (calm.lower[:3] < calm.expected[:3]).all()
    value = usual(2881, random)
    value[0] = -12.0
    out = feed(detector, 2881, value)
    assert out.p_value[0] < 1e-6
    assert out.z[0] < -1.0
    assert out.p_value[1] > 1e-4


def test_deeper_is_rarer(trained: tuple[SeriesDetector, np.random.Generator]) -> None:
    detector, random = trained
    for nth in range(2882, 3000):  # what was found before is over
        feed(detector, nth, usual(nth, random))
    found = []
    for depth in (1.0, 3.0, 9.0, 27.0):
        batch = tick(3000, usual(3000, random) - np.array([depth, 0.0, 0.0]))
        out = ScoreColumns.empty(batch.rows)
        detector.score(batch, "value", out)
        found.append(float(out.p_value[0]))
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_silence_is_a_missing_value_and_teaches_nothing(
    trained: tuple[SeriesDetector, np.random.Generator],
) -> None:
    detector, _random = trained
    before = detector.rows["state"].copy()
    out = feed(detector, 3001, np.array([np.nan, np.nan, np.inf]))
    assert np.isnan(out.score[:3]).all()
    assert out.p_value[:3].tolist() == [1.0] * 3
    assert detector.rows["state"].tobytes() == before.tobytes()


def test_a_series_polled_rarely_has_lived_as_long() -> None:
    detector, random = SeriesDetector(("value",), DetectionSettings()), np.random.default_rng(2)
    for nth in range(0, 600, 5):
        out = feed(detector, nth, np.array([50.0 + random.normal()]))
        for silent in range(1, 5):
            feed(detector, nth + silent, np.array([np.nan]))
    assert detector.rows["step"][0] == pytest.approx(300.0, rel=0.05)
    out = feed(detector, 600, np.array([500.0]))
    assert out.p_value[0] < 1e-2


def test_memory_is_below_a_kilobyte() -> None:
    assert BYTES_PER_SERIES <= 1024
