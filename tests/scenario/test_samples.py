"""Sampled series through the whole back half: frames, baselines, an alarm that names the metric, the journal."""

from typing import Any

import numpy as np
import pytest

from alerting.words.alerts import alerts_of
from detectors.config import DetectionSettings
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from telemetry.batch import Batch, batch_from_rows
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import SAMPLE
from tocsin.chain.assembly import make_back
from tocsin.chain.back import Back
from tocsin.chain.ticks import Closing, Outcome, Tick
from tocsin.config import Config

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND
POLL_S = 60
HOURS = 3
STEP_S = 9_000  # from here on one interface errs


def polls() -> list[tuple[int, list[Batch]]]:
    """A router's counters and temperature, polled each minute: (second, batches)."""
    random, names = np.random.default_rng(3), SeriesNames()
    octets, errors = dict.fromkeys(range(4), 0.0), 0.0
    made = []
    for second in range(7, HOURS * 3600, POLL_S):
        values: list[tuple[str, dict[str, str], float, SampleKind]] = []
        for i in range(4):
            octets[i] += 60 * (1e6 + 2e4 * random.standard_normal())
            values.append(("in_octets", {"interface": f"et-{i}"}, octets[i], SampleKind.COUNTER))
        errors += 60 * (500.0 + 5.0 * random.standard_normal()) * (8.0 if second > STEP_S else 1.0)
        values.append(("in_errors", {"interface": "et-2"}, errors, SampleKind.COUNTER))
        values.append(("temperature", {}, 40.0 + 0.5 * random.standard_normal(), SampleKind.GAUGE))
        at = START_NS + second * SECOND
        rows = [
            {
                "time_ns": at, "arrival_ns": at, "value": value, "kind": kind,
                "series_id": names.id("ams1", metric, dimensions, unit="1"),
            }
            for metric, dimensions, value, kind in values
        ]  # fmt: skip
        new = names.new()
        made.append((second, [*([new] if new else []), batch_from_rows(SAMPLE, rows)]))
    return made


def config() -> Config:
    return Config(detection=DetectionSettings(false_alerts_per_day=100.0))


@pytest.fixture(scope="module")
def lived() -> tuple[list[Tick], list[Outcome], Back]:
    """Every tick and outcome of three hours."""
    back, ticks, outcomes = made_back(), [], []
    back.on_tick = ticks.append
    back.on_outcome = lambda tick, outcome: outcomes.append(outcome)
    given = dict(polls())
    for second in range(1, HOURS * 3600):
        if batches := given.get(second - 1):
            back.take(Closing(START_NS + second * SECOND, tuple(batches)))
        elif second % 5 == 0:
            back.settle(START_NS + second * SECOND)
    return ticks, outcomes, back


def made_back() -> Back:
    return make_back(config(), ManualClock(), Metrics("test"))


def alerts(outcomes: list[Outcome]) -> list[Any]:
    return [alert for one in outcomes for batch in one.alarms for alert in alerts_of(batch)]


def test_a_polled_metric_that_goes_wrong_is_named(
    lived: tuple[list[Tick], list[Outcome], Back],
) -> None:
    raised = [alert for alert in alerts(lived[1]) if alert.state == "raised"]
    assert [(alert.kind, alert.entity) for alert in raised] == [("deviation", "ams1 et-2")]
    assert raised[0].title.startswith("in_errors of ams1 et-2 above its band: ")
    assert START_NS + STEP_S * SECOND < raised[0].changed_ns < START_NS + (STEP_S + 900) * SECOND


def test_a_series_polled_each_minute_is_warm_after_its_hour(
    lived: tuple[list[Tick], list[Outcome], Back],
) -> None:
    """A tick in which nothing came gives neither a score nor a lesson."""
    ages: dict[int, int] = {}
    warm: list[float] = []
    for one in lived[1]:
        for frame in one.frames:
            silent = np.isnan(frame["value"][:-1])
            assert np.isnan(frame["value_score"][:-1][silent]).all()
            assert (frame["value_p_value"][:-1][silent] == 1.0).all()
            ages[one.tick_end_ns] = int(silent.sum())
            # Upper band: there from the first lesson on; a score: once it is warm.
            if (frame["value_score"][:-1][~silent] > 0.0).any():
                warm.append((one.tick_end_ns - START_NS) / (3600 * SECOND))
    assert sum(ages.values()) >= 5, "counters say nothing with their first sample"
    assert min(warm) >= 1.0


def test_the_journal_replays_to_the_same_alarms_and_a_checkpoint_goes_on(
    lived: tuple[list[Tick], list[Outcome], Back],
) -> None:
    from runtime.checkpoint import Snapshot

    ticks, outcomes, _ = lived
    first, half = made_back(), len(ticks) // 2
    again = [first.absorb(tick) for tick in ticks[:half]]
    kept = Snapshot()
    first.snapshot(kept)
    second = made_back()
    second.restore(kept)
    again += [second.absorb(tick) for tick in ticks[half:]]
    assert alerts(again) == alerts(outcomes)
    assert all(len(one.batches) for one in ticks), "a tick with nothing to say was written"
