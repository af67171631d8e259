"""The alert budget on series without a fault: each kind of noise, real sets, bursts and shocks."""

from pathlib import Path

import numpy as np
import pytest

from detectors.series import score_series
from perf import quality_clean, quality_sets


def test_each_kind_of_noise_stays_near_the_budget(*, deep: bool) -> None:
    made = quality_clean.simulated(100_000 if deep else 240, processes=0 if deep else 1)
    # 40 series of a kind and a week give 40 alerts, give or take 6: the short form allows for that.
    least, most = (0.5, 1.5) if deep else (0.35, 1.8)
    assert all(least <= ratio <= most for ratio in made.values()), made


def test_cuts_of_real_sets_stay_near_the_budget(
    shared: Path, monkeypatch: pytest.MonkeyPatch, *, deep: bool
) -> None:
    monkeypatch.setattr(quality_sets, "SHARED", shared / "datasets")
    ratio = quality_clean.real(1_000 if deep else 30)
    assert 0.5 <= ratio <= 1.5 or (not deep and 0.3 <= ratio <= 2.0), ratio


def test_a_burst_alerts_once() -> None:
    rows = 8 * 1_440
    time_s = quality_sets.START_S + 60 * np.arange(rows)
    alerts = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        value = 100.0 + random.normal(0.0, 5.0, rows)
        value[7 * 1_440 : 7 * 1_440 + 40] += 100.0 * random.random(40)
        alerts.append(int(score_series(time_s, value).alert[7 * 1_440 : 7 * 1_440 + 60].sum()))
    assert alerts == [1] * 10
