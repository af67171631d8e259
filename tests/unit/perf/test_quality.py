"""The measures of quality against their definitions, and the command on generated series."""

import numpy as np
import pytest

from perf import quality, quality_measures, quality_sets


def test_nab_gives_a_perfect_detector_100_and_a_silent_one_0() -> None:
    time_s = np.arange(1000) * 300
    which, worth = quality_measures.nab_point_values(time_s, [(time_s[500], time_s[549])])
    weights = quality_measures.PROFILES["standard"]
    alert = np.zeros(1000)

    def normal() -> float:
        return quality_measures.nab_normal(
            quality_measures.nab_raw(which, worth, 1, alert, weights), 1, weights
        )

    assert normal() == pytest.approx(0.0)
    alert[500] = 1
    assert normal() == pytest.approx(100.0)
    alert[200] = 1
    assert normal() == pytest.approx(100.0 - 50.0 * 0.11)
    alert[100] = 1  # within the learning part: free
    assert normal() == pytest.approx(100.0 - 50.0 * 0.11)


def test_events_at_a_budget_stop_at_its_first_breach() -> None:
    time_s = np.arange(14_400) * 60  # ten days
    label, score = np.zeros(14_400), np.zeros(14_400)
    label[1000:1010] = label[5000] = 1
    score[1005], score[5000], score[7000:7003] = 5, 2, 3
    parts = [quality_measures.event_parts(time_s, label, score)]
    found, events, days = quality_measures.sweep_events(parts, [0.05, 0.1])
    assert (events, days) == (2, pytest.approx(10.0))
    assert (found["0.05"]["recall"], found["0.1"]["recall"]) == (0.5, 1.0)
    latched = np.zeros(14_400)
    latched[900:] = 9
    found, _, _ = quality_measures.sweep_events(
        [quality_measures.event_parts(time_s, label, latched)], [0.1]
    )
    assert found["0.1"]["recall"] == 0.0  # it never says when


def test_vus_is_the_mean_of_its_definition() -> None:
    random = np.random.default_rng(1)
    label = np.zeros(400)
    for at in random.integers(0, 388, 4):
        label[at : at + random.integers(1, 12)] = 1
    score = (label * random.normal(1, 1, 400) + random.normal(0, 1, 400)).round(1)
    cuts = quality_measures.cut_values(score)
    plain = [quality_measures.range_auc_pr(label, score, width, cuts) for width in range(21)]
    assert quality_measures.vus_pr(label, score, 20) == pytest.approx(np.mean(plain), abs=1e-9)


def test_ucr_counts_a_hit_within_100_rows() -> None:
    score = np.zeros(1000)
    score[10], score[810] = 9, 1  # the learning part does not count
    assert quality_measures.ucr_hit(score, 300, 820, 830)[0]
    score[400] = 2
    assert not quality_measures.ucr_hit(score, 300, 820, 830)[0]


def test_the_chain_is_better_than_plain_baselines_on_generated_series() -> None:
    series = list(quality_sets.generated(count=8))
    ours = quality.measure(series, quality.ours())
    for plain in (quality.ewma_z, quality.seasonal_naive):
        theirs = quality.measure(series, plain)
        assert ours["recall at 0.1"] >= theirs["recall at 0.1"] + 0.3
        assert ours["VUS-PR"] >= theirs["VUS-PR"] + 0.2
    assert ours["recall at 1.0"] >= 0.8


@pytest.mark.slow
def test_the_budget_holds_on_clean_noise(deep: bool) -> None:
    # 24 series of each kind raise about 24 alerts in their week, some of them together.
    count, least, most = (170, 0.5, 1.5) if deep else (24, 0.25, 2.25)
    held = quality.budget_held(count, quality.ours())
    for kind, ratio in held.items():
        assert least <= ratio <= most, (kind, ratio)
    assert 0.5 <= np.mean(list(held.values())) <= 1.5
