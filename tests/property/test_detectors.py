"""A fleet of simulated series: how often it is wrong, and whether it finds what is there."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.views import views_for
from detectors import calibration
from detectors.config import DetectionSettings
from detectors.stage import DetectionStage
from telemetry.batch import Batch
from tocsin.testing import make_context
from tocsin.testing.frames import MONDAY_S, SECOND, Carrier, frame

VIEW = next(v for v in views_for(tick_seconds=5, lateness_seconds=1) if v.name == "interface")
QUARTER = 900


def trained(
    carrier: Carrier, *, budget: float = 1.0, history_tick_s: float = 5.0
) -> DetectionStage:
    """Return a stage that was taught two weeks of quarters of an hour."""
    settings = DetectionSettings(false_alerts_per_day=budget)
    stage = DetectionStage([VIEW], settings, make_context("detectors"))
    for quarter in range(14 * 96):
        at = MONDAY_S - (14 * 96 - quarter) * QUARTER
        batch = frame(
            VIEW, at * SECOND, carrier.tick(at, history_tick_s), tick_seconds=history_tick_s
        )
        stage.bootstrap(batch, stands_for_seconds=QUARTER)
    return stage


def play(stage: DetectionStage, carrier: Carrier, ticks: range, change: Any = None) -> list[Batch]:
    made = []
    for k in ticks:
        at = MONDAY_S + 36_000 + 5 * k
        values = carrier.tick(at, factor=1.0 if change is None else change(k))
        stage.process(frame(VIEW, at * SECOND, values))
        made += stage.advance((at + 5) * SECOND)
    return made


def alerts(batches: list[Batch]) -> list[tuple[int, int]]:
    """Return (series, start of the first tick) of every run of findings that alerted."""
    found = set()
    for batch in batches:
        for i, disposition in enumerate(batch.texts("disposition")):
            if disposition != "digest":
                found.add((int(batch["series_id"][i]) - 1_000, int(batch["since_ns"][i])))
    return sorted(found)


@pytest.mark.parametrize("history_tick_s", [5.0, 900.0])
def test_false_alerts_stay_within_the_budget(deep: bool, history_tick_s: float) -> None:
    """Heavy-tailed compound Poisson noise; an hour of it here, a day in the deep form.

    The budget is one false alert a day for the whole fleet; an hour of 1,000 series must have none.
    """
    carrier = Carrier(1_000 if deep else 400, seed=21)
    stage = trained(carrier, history_tick_s=history_tick_s)
    found = play(stage, carrier, range(17_280 if deep else 720))
    assert len(alerts(found)) <= (3 if deep else 0)


def test_steps_collapses_and_surges_are_found_within_three_ticks() -> None:
    carrier = Carrier(300, seed=22, least_flows=20.0)
    stage = trained(carrier)
    assert not alerts(play(stage, carrier, range(60)))
    factor = np.ones(300)
    factor[10], factor[20], factor[30] = 0.0, 2.5, 6.0
    carrier.flows_per_second[[10, 20, 30]] = 40.0  # what they have had is their history
    busy = Carrier(300, seed=22, least_flows=20.0)
    busy.flows_per_second[:] = carrier.flows_per_second
    stage = trained(busy)
    play(stage, busy, range(60))
    found = play(stage, busy, range(60, 63), lambda k: factor)
    assert {series for series, _ in alerts(found)} == {10, 20, 30}


def test_the_other_links_carry_a_cut_ones_traffic() -> None:
    """A link falls to nothing; rerouting adds 30 to 100 % to others. The cut is hard, at once."""
    carrier = Carrier(100, seed=23, least_flows=100.0)
    stage = trained(carrier)
    factor = np.ones(100)
    factor[0] = 0.0
    factor[1:6] = [1.3, 1.5, 1.7, 1.9, 2.0]
    play(stage, carrier, range(40))
    found = play(stage, carrier, range(40, 52), lambda k: factor)
    hard = {
        int(batch["series_id"][i]) - 1_000
        for batch in found
        for i, disposition in enumerate(batch.texts("disposition"))
        if disposition == "hard"
    }
    assert hard == {0}
    assert {3, 4, 5} <= {series for series, _ in alerts(found)} <= {0, 1, 2, 3, 4, 5}


@given(
    st.lists(st.floats(0.0, 1e12), min_size=1, max_size=60),
    st.floats(0.0, 1e12),
    st.floats(1e-6, 1e12),
    st.sampled_from([0.125, 1.0, math.inf]),
)
def test_p_values_are_probabilities_and_sums_stay_bounded(
    values: list[float], expected: float, scale: float, events: float
) -> None:
    row, bits = np.array([0], np.int64), np.ones(1, np.uint8)
    units, pool = np.zeros((1, calibration.STATE), np.float32), np.zeros(4)
    mean, spread = np.array([expected]), np.array([scale])
    columns = [np.zeros(1, np.float32) for _ in range(5)]
    p = np.zeros(1)
    for value in values:
        v = np.array([value])
        calibration.judge(
            row, v, mean, spread, events, 0.0, 0.0, units, pool, *columns[:4], p, columns[4]
        )
        assert 0.0 <= p[0] <= 1.0
        assert columns[3][0] >= 0.0
        assert columns[1][0] <= columns[0][0] <= columns[2][0]
        calibration.learn(row, v, mean, spread, events, bits, 5.0, units, pool)
        assert 0.0 <= units[0, calibration.SUM_UP] <= calibration.SUM_MOST
        assert 0.0 <= units[0, calibration.SUM_DOWN] <= calibration.SUM_MOST
    assert np.isfinite(units).all()


@given(st.floats(0.0, 40.0), st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_a_larger_surprise_never_counts_less(before: float, a: float, b: float) -> None:
    least, most = sorted((a, b))
    assert calibration._advance(before, least) <= calibration._advance(before, most)
