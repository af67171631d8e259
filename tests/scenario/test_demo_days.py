"""Simulated days: what operators are promised of detection, on faults drawn at random.

Two seeds here, twenty with DEEP=1. `python perf/demo_days.py` prints the same with more detail.
"""

import pytest

from perf import demo_days


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_faults_are_found_causes_right_and_false_alerts_few(deep: bool) -> None:
    days = demo_days.days(demo_days.SEEDS if deep else demo_days.SEEDS[:2])
    story = "\n".join(f"seed {day.seed}\n{day.table}" for day in days)
    faults = sum(len(day.faults) for day in days)
    assert faults == 9 * len(days), f"eight faults and a slow one a day, all to be found\n{story}"
    assert sum(day.found for day in days) >= 0.9 * faults, story
    assert sum(day.cause_right for day in days) >= 0.8 * faults, story
    assert sum(len(day.false) for day in days) <= len(days), story
