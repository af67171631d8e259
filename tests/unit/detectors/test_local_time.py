"""Daylight saving: days by local clocks are no news when the clocks change."""

import numpy as np
import pytest

from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.local_time import LocalTime
from detectors.series import score_series
from detectors.series_detector import SeriesDetector
from telemetry.errors import ConfigError
from telemetry.views import Measure, View
from tocsin.testing.frames import SECOND, frame

VIEW = View(
    name="sample", source="sample", key=("series",), tick_seconds=300.0,
    measures=(Measure(name="value", function="mean", scored=True),),
)  # fmt: skip
ZONE = "Europe/Vienna"
DAY_S, STEP_S = 86_400, 300
CHANGES = {"spring": 1_774_746_000, "autumn": 1_792_890_000}  # 01:00 UTC on the last Sunday


def office(change_s: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three weeks before the change and one after of a day with sharp edges, by local clocks."""
    time_s = change_s - 21 * DAY_S - 3_600 + STEP_S * np.arange(28 * DAY_S // STEP_S)
    hours = LocalTime(ZONE).of(time_s) % DAY_S / 3600
    busy = 80.0 * ((hours >= 8) & (hours < 18))
    return time_s, 100.0 + busy + np.random.default_rng(seed).normal(0, 3, len(time_s))


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_in_local_time_has_no_news_when_the_clocks_change(change: str) -> None:
    told = {ZONE: 0, "UTC": 0}
    for seed in range(4):
        time_s, value = office(CHANGES[change], seed)
        after = time_s >= CHANGES[change]
        for zone in told:
            told[zone] += int(score_series(time_s, value, zone=zone).alert[after].sum())
    assert told[ZONE] <= 1
    assert told["UTC"] >= 4  # without it, each is told at least once


def rarest(zone: str, series: list[tuple[np.ndarray, np.ndarray]], change_s: int) -> np.ndarray:
    """Return the smallest p-value of each sampled series on the day after the change."""
    detector = SeriesDetector(("value",), DetectionSettings(zone=zone))
    made = np.ones(len(series))
    for nth, time_s in enumerate(series[0][0].tolist()):
        if time_s >= change_s + DAY_S:
            break
        values = np.array([value[nth] for _, value in series])
        batch = frame(VIEW, time_s * SECOND, {"value": values}, tick_seconds=300.0)
        detector.admit(batch)
        if time_s >= change_s:
            out = ScoreColumns.empty(batch.rows)
            detector.score(batch, "value", out)
            made = np.minimum(made, out.p_value[: len(series)])
        detector.learn(batch, "value", np.ones(batch.rows, bool))
    return made


def test_sampled_series_have_no_news_when_the_clocks_change() -> None:
    series = [office(CHANGES["spring"], seed) for seed in range(4)]
    local, utc = (rarest(zone, series, CHANGES["spring"]) for zone in (ZONE, "UTC"))
    assert (local > 1e-5).all()
    assert (utc < local).all()


def test_offsets_are_those_of_the_zone() -> None:
    local = LocalTime(ZONE)
    for change_s, before, after in ((CHANGES["spring"], 1, 2), (CHANGES["autumn"], 2, 1)):
        assert local(change_s - 1) - (change_s - 1) == before * 3600
        assert local(change_s) - change_s == after * 3600
    far = np.array([-(10**17), 0, 10**17])
    assert LocalTime(ZONE).of(far)[[0, 2]].tolist() == far[[0, 2]].tolist()
    assert LocalTime("UTC").of(far) is far


def test_a_zone_that_is_none_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="is no time zone"):
        LocalTime("Vienna/Europe")
