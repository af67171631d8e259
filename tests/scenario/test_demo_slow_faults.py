"""Slow faults of the demo carrier through the whole chain, as the demo is shipped: predicted before they hurt.

Nine simulated hours, DEEP=1 only; they begin after six, as a series of a few hours has errors too wide to tell
much. What a trend must show, stage by stage, is in tests/unit/detectors/test_prediction.py; figures over days
are those of perf/demo_days.py.
"""

import numpy as np
import pytest

from tocsin.demo.faults import SLOW_KINDS, make_fault
from tocsin.demo.network import load_demo_network
from tocsin.demo.scoring import table
from tocsin.demo.simulate import START_NS, run_days

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECOND = 1_000_000_000


def test_slow_faults_side_by_side_are_predicted_and_nothing_else_is(deep: bool) -> None:
    if not deep:
        pytest.skip("nine simulated hours: DEEP=1")
    network, random = load_demo_network(), np.random.default_rng(7)
    start_ns = START_NS + 6 * 3600 * SECOND
    faults = tuple(
        make_fault(network, kind, random, start_ns, 7_200.0)
        for kind in (*SLOW_KINDS, "optical-degradation", "disk-filling")
    )
    score, alerts = run_days(
        days=1, seed=7, records_per_second=2000.0, hours=8.5, faults=faults, learned_days=4
    )
    words = table(score)
    for one in score.judged:
        assert one.found, words
        assert one.lead_seconds >= 600.0, words
        assert one.cause_right, words
    told, true = score.predictions
    assert told == true, words
    assert not score.false, words
    assert all(alert["kind"] == "predicted" for alert in alerts if alert["state"] == "raised")
