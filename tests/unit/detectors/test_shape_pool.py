"""Shape online: the pool finds periods, gives memory to the clearest, and finds the odd cycle."""

import numpy as np
import pytest

from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.series_detector import SeriesDetector
from detectors.shape_pool import MEMORY, SLOT_BYTES, ShapePool
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from telemetry.views import Measure, View
from tocsin.testing.frames import MONDAY_S, SECOND, frame

PERIOD = 60
VIEW = View(
    name="sample", source="sample", key=("series",), tick_seconds=60.0,
    measures=(Measure(name="value", function="mean", scored=True),),
)  # fmt: skip


def beats(rows: int, seed: int, *, period: int = PERIOD, noise: float = 0.02) -> np.ndarray:
    """A sharp beat and a slow wave after it, with noise."""
    random = np.random.default_rng(seed)
    phase = (np.arange(rows) % period) / period
    wave = np.exp(-(((phase - 0.2) / 0.04) ** 2)) + 0.4 * np.exp(-(((phase - 0.55) / 0.1) ** 2))
    return wave + random.normal(0.0, noise, rows)


def follow(pool: ShapePool, value: np.ndarray) -> np.ndarray:
    """Feed one series (one column each) and return what the pool said of each value."""
    value = value.reshape(len(value), -1)
    places = np.arange(value.shape[1])
    return np.array([pool.learn(places, row) for row in value])


def test_an_odd_cycle_stands_out() -> None:
    value = beats(3_000, seed=1)
    value[2_400:2_460] -= 0.6 * np.exp(-(((np.arange(60) / 60 - 0.55) / 0.1) ** 2))
    z = follow(ShapePool(8 * SLOT_BYTES), value)[:, 0]
    assert 2_400 <= int(np.argmax(z)) <= 2_500
    assert z.max() > 3 * np.delete(z[700:], np.arange(1_700, 1_860)).max()


@pytest.mark.parametrize("period", [16, 60, 200, 640])
def test_periods_of_many_lengths_are_found(period: int) -> None:
    pool = ShapePool(8 * SLOT_BYTES)
    follow(pool, beats(5_000, seed=2, period=period))
    state = pool.state[pool.place == 0][0]
    assert pool.periods[0] * state[2] == pytest.approx(period, rel=0.06)


def test_distances_are_those_of_the_definition() -> None:
    pool, value = ShapePool(8 * SLOT_BYTES), beats(800, seed=3, period=20)
    follow(pool, value[:799])
    window = int(pool.periods[0])
    state = pool.state[0]
    points = (value - np.float64(state[5])) / np.float64(state[6])

    def form(end: int, size: int, *, normalised: bool) -> np.ndarray:
        part = points[end - size + 1 : end + 1] - points[end - size + 1 : end + 1].mean()
        return part / max(part.std(), 0.1) if normalised else part

    expected = 0.0
    for which, (size, normalised) in enumerate(((window // 2, False), (window, True))):
        nearest = min(
            np.sqrt(
                np.mean(
                    (form(799, size, normalised=normalised) - form(j, size, normalised=normalised))
                    ** 2
                )
            )
            for j in range(size - 1, 800 - size)
        )
        usual, spread = float(state[10 + which]), float(state[12 + which])
        expected += max((nearest - usual) / (np.sqrt(spread) + 0.2 * usual + 1e-9), 0.0)
    assert pool.score(np.array([0]), value[799:])[0] == pytest.approx(expected, abs=2e-3)


def test_scoring_changes_nothing() -> None:
    pool, value = ShapePool(4 * SLOT_BYTES), beats(1_500, seed=4)
    follow(pool, value)
    before = pool.state.tobytes(), pool.memory.tobytes()
    assert pool.score(np.array([0]), np.array([5.0]))[0] > 0.0
    assert (pool.state.tobytes(), pool.memory.tobytes()) == before


def test_noise_gives_its_slot_back_and_memory_stays_within_its_bound() -> None:
    pool = ShapePool(8 * SLOT_BYTES)
    random = np.random.default_rng(5)
    value = random.normal(size=(4_300, 30))
    follow(pool, value)
    assert not pool.periods
    assert (pool.slot < 0).any()  # tried, and given up
    assert pool.memory.nbytes + pool.state.nbytes + pool.place.nbytes <= 8 * SLOT_BYTES


def test_the_clearest_keep_the_pool() -> None:
    pool = ShapePool(4 * SLOT_BYTES)  # three to keep, one to try
    noise = [0.25, 0.3, 0.28, 0.02, 0.05, 0.03]
    value = np.column_stack([beats(9_000, seed=k, noise=size) for k, size in enumerate(noise)])
    follow(pool, value)
    assert set(pool.periods) == {3, 4, 5}


def test_a_series_in_new_hands_is_tried_anew() -> None:
    pool = ShapePool(4 * SLOT_BYTES)
    follow(pool, beats(1_200, seed=6))
    assert pool.periods
    pool.forget(np.array([0]))
    assert not pool.periods
    pool.learn(np.array([0]), np.ones(1))
    assert (pool.place == 0).sum() == 1


def test_a_restart_changes_nothing() -> None:
    value, kept = beats(2_400, seed=7), Snapshot()
    pool, again = ShapePool(4 * SLOT_BYTES), ShapePool(4 * SLOT_BYTES)
    follow(pool, value[:1_300])
    pool.snapshot(kept)
    again.restore(kept)
    assert follow(pool, value[1_300:]).tobytes() == follow(again, value[1_300:]).tobytes()


def test_no_memory_no_shape() -> None:
    assert not follow(ShapePool(0), beats(1_200, seed=8)).any()
    assert MEMORY * 4 < SLOT_BYTES < MEMORY * 4 + 128


def tick(nth: int, values: np.ndarray) -> Batch:
    return frame(VIEW, (MONDAY_S + 60 * nth) * SECOND, {"value": values}, tick_seconds=60.0)


def test_in_the_node_an_odd_cycle_of_a_sampled_series_is_found() -> None:
    detector = SeriesDetector(("value",), DetectionSettings(), shape_bytes=16 * SLOT_BYTES)
    value = np.column_stack([beats(4_000, seed=k, period=77) for k in range(3)])  # no part of a day
    value[3_619:3_696, 1] -= 0.6 * np.exp(-(((np.arange(77) / 77 - 0.55) / 0.1) ** 2))
    p = []
    for nth, row in enumerate(value):
        batch = tick(nth, row)
        detector.admit(batch)
        out = ScoreColumns.empty(batch.rows)
        detector.score(batch, "value", out)
        detector.learn(batch, "value", np.ones(batch.rows, bool))
        p.append(out.p_value[:3].copy())
    rare = np.array(p)[2_000:]
    assert rare[1_619:1_740, 1].min() < 1e-5
    assert rare[:, [0, 2]].min() > 1e-5
