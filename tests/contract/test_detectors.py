"""Every registered detector sits the exam of tocsin.testing.checks_detector; ours a little more."""

from collections.abc import Callable

import numpy as np
import pytest

from correlator.views import views_for
from detectors.config import AlsoSettings, DetectionSettings
from detectors.detector import Detector, ScoreColumns
from detectors.registry import DETECTORS, make_detector
from detectors.seasonal import BYTES_PER_SERIES, SeasonalBaseline
from tocsin.testing import checks_detector
from tocsin.testing.checks_detector import MEASURE, VIEW, step, ticks
from tocsin.testing.frames import MONDAY_S, SECOND, Carrier, frame

SETTINGS = DetectionSettings(warmup_ticks=30, warmup_seconds=100.0)
OPTIONS = {  # what a kind cannot do without; the limit lies within what the exam's carrier sends
    "river": {"model": "river.anomaly.HalfSpaceTrees", "view": VIEW.name, "measure": MEASURE},
    "threshold": {"view": VIEW.name, "measure": MEASURE, "above": 400_000.0},
}


def seasonal() -> SeasonalBaseline:
    return SeasonalBaseline(VIEW.scored, SETTINGS)


@pytest.mark.parametrize("kind", DETECTORS.kinds())
@pytest.mark.parametrize("check", checks_detector.CHECKS, ids=lambda c: c.__name__)
def test_exam(kind: str, check: Callable[[Callable[[], Detector]], None]) -> None:
    also = AlsoSettings(kind=kind, options=OPTIONS.get(kind, {}))
    check(lambda: make_detector(also, VIEW, SETTINGS))


def test_the_exams_limit_is_one_that_the_carrier_crosses() -> None:
    also = AlsoSettings(kind="threshold", options=OPTIONS["threshold"])
    detector = make_detector(also, VIEW, SETTINGS)
    crossed = sum(
        int((step(detector, b).p_value < 1.0).sum()) for b in ticks(Carrier(8, seed=1), 20)
    )
    assert crossed > 0


def test_missing_value_in_missing_score_out() -> None:
    view = next(v for v in views_for() if v.name == "destination_prefix")
    detector = SeasonalBaseline(view.scored, DetectionSettings())
    values = {name: np.full(3, 100.0) for name in ("octets", "packets", "flows", "distinct_source")}
    values["distinct_source"] = np.array([5.0, np.nan, 7.0])
    batch = frame(view, MONDAY_S * SECOND, values)
    detector.admit(batch)
    for _ in range(3):
        out = ScoreColumns.empty(batch.rows)
        detector.score(batch, "distinct_source", out)
        detector.learn(batch, "distinct_source", np.ones(batch.rows, bool))
    assert np.isnan(out.score[1])
    assert np.isnan(out.z[1])
    assert out.p_value.tolist() == [1.0] * 4
    assert out.expected[1] == 0.0
    assert out.expected[0] == pytest.approx(5.0)


def test_a_series_first_tick_teaches_nothing() -> None:
    view = next(v for v in views_for() if v.name == "interface")
    detector = SeasonalBaseline(view.scored, DetectionSettings())
    for nth, value in enumerate((12.0, 100.0, 100.0)):  # it began late in its first tick
        values = {name: np.full(2, value) for name in view.scored}
        batch = frame(view, (MONDAY_S + 60 * nth) * SECOND, values)
        detector.admit(batch)
        out = ScoreColumns.empty(batch.rows)
        detector.score(batch, "octets", out)
        detector.learn(batch, "octets", np.ones(batch.rows, bool))
    tick_s = float(batch["tick_seconds"][0])
    assert out.expected[0] == pytest.approx(100.0 / tick_s)


def test_masked_rows_move_no_notion_of_normal() -> None:
    detector = seasonal()
    batches = ticks(Carrier(4, seed=2), 100)
    for batch in batches:
        step(detector, batch)
    before = step(detector, batches[-1], learn=False)
    wild = batches[-1].with_columns(
        batches[-1].schema,
        {**batches[-1].columns, "octets": batches[-1]["octets"] * np.uint64(1000)},
    )
    for _ in range(20):
        detector.learn(wild, MEASURE, np.zeros(wild.rows, bool))
    after = step(detector, batches[-1], learn=False)
    assert after.expected.tobytes() == before.expected.tobytes()
    # The unit moves by one small step for the whole run.
    assert after.upper[:-1] == pytest.approx(before.upper[:-1], rel=0.6)


def test_memory_is_bounded_by_the_series() -> None:
    assert BYTES_PER_SERIES <= 1024
    detector = seasonal()
    step(detector, ticks(Carrier(2_000, seed=7), 1)[0])
    held = detector.rows.series_id.nbytes + detector.pool.nbytes
    held += sum(array.nbytes for array in detector.rows.held.values())
    assert held <= 2 * 2_000 * (len(VIEW.scored) * BYTES_PER_SERIES + 8) + 4096
