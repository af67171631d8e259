"""What every detector must do, whoever wrote it: the driver and replay rely on all of this."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from correlator.views import views_for
from detectors.config import DetectionSettings
from detectors.detector import Detector, ScoreColumns
from detectors.seasonal import BYTES_PER_SERIES, SeasonalBaseline
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from tests.support.frames import MONDAY_S, SECOND, Carrier, frame

VIEW = next(v for v in views_for(tick_seconds=5, lateness_seconds=1) if v.name == "interface")
MEASURE = "octets"
Maker = Callable[[], Any]


def seasonal() -> SeasonalBaseline:
    return SeasonalBaseline(VIEW.scored, DetectionSettings(warmup_ticks=30, warmup_seconds=100.0))


DETECTORS: dict[str, Maker] = {"seasonal": seasonal}


@pytest.fixture(params=sorted(DETECTORS))
def make(request: pytest.FixtureRequest) -> Maker:
    return DETECTORS[request.param]


def ticks(carrier: Carrier, count: int, *, rows: list[int] | None = None) -> list[Batch]:
    made = []
    for k in range(count):
        values = carrier.tick(MONDAY_S + 5.0 * k)
        if rows is not None:
            values = {name: column[rows] for name, column in values.items()}
        made.append(frame(VIEW, (MONDAY_S + 5 * k) * SECOND, values, rows=rows))
    return made


def step(detector: Any, batch: Batch, *, learn: bool = True) -> ScoreColumns:
    detector.admit(batch)
    out = ScoreColumns.empty(batch.rows)
    detector.score(batch, MEASURE, out)
    if learn:
        detector.learn(batch, MEASURE, np.ones(batch.rows, bool))
    return out


def bits(columns: ScoreColumns) -> list[bytes]:
    return [
        getattr(columns, name).tobytes()
        for name in ("expected", "lower", "upper", "score", "p_value", "z")
    ]


def test_is_a_detector(make: Maker) -> None:
    detector: Detector = make()
    assert callable(detector.score)
    assert callable(detector.learn)


def test_score_changes_nothing(make: Maker) -> None:
    once, often = make(), make()
    for batch in ticks(Carrier(8, seed=1), 80):
        first = step(once, batch)
        for _ in range(3):
            assert bits(step(often, batch, learn=False)) == bits(first)
        often.learn(batch, MEASURE, np.ones(batch.rows, bool))


def test_unseen_series_scores_nothing(make: Maker) -> None:
    out = step(make(), ticks(Carrier(8, seed=1), 1)[0])
    assert not out.score.any()
    assert (out.p_value == 1.0).all()


def test_missing_value_in_missing_score_out(make: Maker) -> None:
    view = next(v for v in views_for() if v.name == "destination_prefix")
    detector = SeasonalBaseline(view.scored, DetectionSettings())
    values = {name: np.full(3, 100.0) for name in ("octets", "packets", "flows", "distinct_source")}
    values["distinct_source"] = np.array([5.0, np.nan, 7.0])
    batch = frame(view, MONDAY_S * SECOND, values)
    detector.admit(batch)
    for _ in range(2):
        out = ScoreColumns.empty(batch.rows)
        detector.score(batch, "distinct_source", out)
        detector.learn(batch, "distinct_source", np.ones(batch.rows, bool))
    assert np.isnan(out.score[1])
    assert np.isnan(out.z[1])
    assert out.p_value.tolist() == [1.0] * 4
    assert out.expected[1] == 0.0
    assert out.expected[0] == pytest.approx(5.0)


def test_masked_rows_move_no_notion_of_normal(make: Maker) -> None:
    detector = make()
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


def test_snapshot_goes_on_bit_for_bit(make: Maker) -> None:
    whole, first = make(), make()
    batches = ticks(Carrier(12, seed=3), 120)
    for batch in batches[:60]:
        step(whole, batch)
        step(first, batch)
    kept = Snapshot()
    first.snapshot(kept)
    again = make()
    again.restore(kept)
    for batch in batches[60:]:
        assert bits(step(again, batch)) == bits(step(whole, batch))


def test_same_input_same_bits(make: Maker) -> None:
    one, two = make(), make()
    for batch in ticks(Carrier(6, seed=4), 60):
        assert bits(step(one, batch)) == bits(step(two, batch))


def test_a_series_does_not_see_which_row_it_is_in(make: Maker) -> None:
    """The same series in other dense rows, and among silent ones, gets the same expectation."""
    near, far = make(), make()
    carrier = Carrier(5, seed=5)
    for k in range(80):
        values = carrier.tick(MONDAY_S + 5.0 * k)
        start = (MONDAY_S + 5 * k) * SECOND
        a = step(near, frame(VIEW, start, values))
        b = step(far, frame(VIEW, start, values, rows=[300, 7, 41, 900, 2]))
        assert a.expected.tobytes() == b.expected.tobytes()
        assert a.p_value.tobytes() == b.p_value.tobytes()


def test_row_in_new_hands_starts_afresh(make: Maker) -> None:
    detector = make()
    for batch in ticks(Carrier(3, seed=6), 60):
        step(detector, batch)
    other = ticks(Carrier(3, seed=6), 1)[0]
    ids = other["series_id"].copy()
    ids[1] = 77
    out = step(detector, other.with_columns(other.schema, {**other.columns, "series_id": ids}))
    assert out.expected[1] == 0.0
    assert out.expected[0] > 0.0


def test_memory_is_bounded_by_the_series() -> None:
    assert BYTES_PER_SERIES <= 1024
    detector = seasonal()
    step(detector, ticks(Carrier(2_000, seed=7), 1)[0])
    held = sum(
        getattr(detector, name).nbytes
        for name in ("series_id", "state", "profile", "visits", "units", "pool")
    )
    assert held <= 2 * 2_000 * (len(VIEW.scored) * BYTES_PER_SERIES + 8) + 4096
