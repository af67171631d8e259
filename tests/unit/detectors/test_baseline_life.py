"""The life of a flow baseline over simulated days: what is learned, in which time, and what never is.

The same for sampled series is in test_series.py (the kernel is the same online and in `tocsin score`).
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from correlator.views import views_for
from detectors import baseline
from detectors.config import DetectionSettings
from detectors.life import STAGES, counts
from detectors.seasonal import SeasonalBaseline
from detectors.stage import DetectionStage
from telemetry.schemas import FrameFlag
from tocsin.testing import make_context
from tocsin.testing.frames import MONDAY_S, SECOND, day_factor, frame

TICK_S = 600.0
HOUR, DAY = 6, 144  # ticks
ROWS = 8
ODD = 4  # the row to which things happen
VIEW = next(v for v in views_for(tick_seconds=TICK_S) if v.name == "interface")
SETTINGS = DetectionSettings(false_alerts_per_day=10.0)


def usual(k: int, *, shift_s: float = 0.0, records: float = 1.0) -> np.ndarray:
    """Octets a second: a day, and the noise of as many flows as are sampled."""
    random = np.random.default_rng([21, k])
    noise = random.normal(0.0, 0.03 / np.sqrt(records), ROWS)
    return 1e7 * day_factor(k * TICK_S + shift_s) * np.exp(noise)


class Life:
    """A stage that lives through ticks; what it would tell by the budget, by tick."""

    def __init__(self) -> None:
        self.stage = DetectionStage([VIEW], SETTINGS, make_context("detectors"))
        self.told: list[tuple[int, int, dict[str, Any]]] = []
        self.expected = np.zeros(ROWS)

    def play(self, ticks: range, values: Callable[[int], np.ndarray], **fields: Any) -> "Life":
        for k in ticks:
            value = values(k)
            measures = {"octets": value * TICK_S, "packets": value / 800, "flows": value / 6e4}
            start = (MONDAY_S + round(TICK_S) * k) * SECOND
            batch = frame(VIEW, start, measures, tick_seconds=TICK_S, **fields)
            (wide,) = self.stage.process(batch)
            self.expected = wide["octets_expected"][:-1].astype(float)
            for made in self.stage.advance(start + round(TICK_S) * SECOND):
                for i in range(made.rows):
                    if made.texts("disposition")[i] != "digest":
                        row = int(made["series_id"][i]) - 1000
                        self.told.append((k, row, json.loads(made.texts("detail")[i])))
        return self

    def told_of(self, row: int, since: int = 0) -> list[int]:
        return [k for k, which, _ in self.told if which == row and k >= since]


def with_odd(change: Callable[[int], float], **fields: Any) -> Callable[[int], np.ndarray]:
    """Usual values, with one row times a factor of the tick."""

    def values(k: int) -> np.ndarray:
        value = usual(k, **fields)
        value[ODD] *= change(k)
        return value

    return values


@pytest.fixture(scope="module")
def week() -> Callable[[], Life]:
    """A baseline of nine days, made once and copied for each test."""
    from runtime.checkpoint import Snapshot

    grown = Life().play(range(9 * DAY), usual)
    assert grown.told == [], "nine usual days tell nothing"
    kept = Snapshot()
    grown.stage.snapshot(kept)

    def copy() -> Life:
        made = Life()
        made.stage.restore(kept)
        return made

    return copy


def usual_at(k: int) -> float:
    return 1e7 * day_factor(k * TICK_S)


def test_stages_are_reached_in_stated_time() -> None:
    life, reached = Life(), {}
    for hour in range(8 * 24):
        life.play(range(hour * HOUR, (hour + 1) * HOUR), usual)
        counted = life.stage.baselines()["interface"]
        name = STAGES[int(np.argmax(counted))]
        assert sum(counted) == ROWS
        reached.setdefault(name, hour + 1)
    assert list(reached) == list(STAGES)
    assert reached["first day"] <= 3  # useful after an hour
    assert reached["daily profile"] <= 30
    assert reached["settled"] <= 7 * 24 + 8
    assert {stage for *_, stage in life.stage.ages()} == {"settled"}
    assert counts(life.stage._models.values(), 3600.0)[3] == ROWS


def test_a_young_baseline_says_how_old_it_is() -> None:
    life = Life().play(range(14 * HOUR), usual)
    life.play(range(14 * HOUR, 14 * HOUR + 4), with_odd(lambda k: 8.0))
    (said, *_) = [detail for _, row, detail in life.told if row == ODD]
    assert 11 * 3600 <= said["baseline_s"] <= 14 * 3600


def test_an_attack_of_an_hour_does_not_become_normal(week: Callable[[], Life]) -> None:
    life, begin = week(), 9 * DAY + 10 * HOUR
    life.play(range(9 * DAY, begin), usual)
    life.play(range(begin, begin + HOUR), with_odd(lambda k: 10.0))
    assert len(life.told_of(ODD)) >= HOUR - 3, "told to the end"
    assert life.expected[ODD] < 1.3 * usual_at(begin + HOUR)
    life.play(range(begin + HOUR, begin + 2 * HOUR), usual)
    assert life.told_of(ODD, begin + HOUR + 8) == [], "and calm soon after"


@pytest.mark.parametrize("height", [2.5, 0.4])
def test_coming_back_to_the_usual_is_no_news(week: Callable[[], Life], height: float) -> None:
    """The local level has followed a leak of hours, or a slow fall; then all is as it was."""
    life, begin, width = week(), 9 * DAY + 10 * HOUR, len(VIEW.scored)
    life.play(range(9 * DAY, begin), usual)
    model = life.stage._models["interface"]
    model.rows["state"][ODD * width : (ODD + 1) * width, baseline.LOCAL] = height
    life.play(range(begin, begin + 4 * HOUR), usual)
    assert life.told_of(ODD) == []
    assert life.expected[ODD] == pytest.approx(usual_at(begin + 4 * HOUR), rel=0.15)
    life.play(range(begin + 4 * HOUR, begin + 5 * HOUR), with_odd(lambda k: 1.0 / height))
    assert life.told_of(ODD), "what goes beyond it is told as ever"


def test_a_new_normal_is_learned_within_three_days(week: Callable[[], Life]) -> None:
    life, begin = week(), 9 * DAY
    life.play(range(begin, begin + 3 * DAY), with_odd(lambda k: 1.8))
    assert life.told_of(ODD), "the step was told"
    assert life.expected[ODD] == pytest.approx(1.8 * usual_at(begin + 3 * DAY), rel=0.15)
    life.play(range(begin + 3 * DAY, begin + 4 * DAY), with_odd(lambda k: 1.8))
    assert life.told_of(ODD, begin + 3 * DAY) == [], "and is normal by then"


def test_growth_of_days_is_followed_and_tells_nothing(week: Callable[[], Life]) -> None:
    life, begin, end = week(), 9 * DAY, 16 * DAY
    life.play(range(begin, end), with_odd(lambda k: 1.05 ** ((k - begin) / DAY)))
    assert life.told == []
    assert life.expected[ODD] == pytest.approx(1.05**7 * usual_at(end - 1), rel=0.1)


def test_missing_ticks_and_incomplete_ones_leave_it_as_it_was(week: Callable[[], Life]) -> None:
    life, begin = week(), 9 * DAY
    life.play(range(begin, begin + 4), lambda k: usual(k) * 0.3, flags=FrameFlag.INCOMPLETE)
    life.play(range(begin + 9 * HOUR, begin + DAY), usual)  # nine hours of nothing at all
    assert life.told == []
    assert life.expected[ODD] == pytest.approx(usual_at(begin + DAY - 1), rel=0.06)


def test_exports_sampled_ten_times_more_seldom_raise_no_storm(week: Callable[[], Life]) -> None:
    """Views multiply by the rate: the mean stays, the noise is that of a tenth of the flows."""
    life, begin = week(), 9 * DAY
    life.play(range(begin, begin + 2 * DAY), lambda k: usual(k, records=0.1))
    late = [k for k, _, _ in life.told if k >= begin + 6 * HOUR]
    assert len({k // HOUR for k, _, _ in life.told}) <= 6, "learned in hours"
    assert late == []


@pytest.mark.parametrize("shift_s", [3600.0, -3600.0])
def test_a_day_that_comes_an_hour_early_or_late_tells_nothing(
    week: Callable[[], Life], shift_s: float
) -> None:
    """Daylight saving: profiles are in UTC; the local level carries the difference."""
    life, begin = week(), 9 * DAY
    life.play(range(begin, begin + 7 * DAY), lambda k: usual(k, shift_s=shift_s))
    assert life.told == []
    assert life.expected[ODD] == pytest.approx(
        1e7 * day_factor((begin + 7 * DAY) * TICK_S + shift_s), rel=0.1
    )


def test_a_row_in_new_hands_starts_afresh() -> None:
    model = SeasonalBaseline(VIEW.scored, SETTINGS)
    one = frame(VIEW, MONDAY_S * SECOND, {"octets": [1e6], "packets": [1e3], "flows": [10]})
    model.admit(one)
    model.learn(one, "octets", np.ones(2, bool))
    model.learn(one, "octets", np.ones(2, bool))
    before = model.ages()[1][0]
    other = one.with_columns(
        one.schema, {**one.columns, "series_id": one["series_id"] + np.uint64(7)}
    )
    model.admit(other)
    assert (before > 0.0, model.ages()[1][0]) == (True, 0.0)


def test_a_view_that_rules_alone_judge_has_no_series_that_age() -> None:
    assert counts([SeasonalBaseline((), SETTINGS)], 3600.0) == [0] * len(STAGES)
