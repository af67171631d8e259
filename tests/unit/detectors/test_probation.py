"""Probation: newcomers show what they would have sent, prove themselves by days, obey operators."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from correlator.views import views_for
from detectors.config import AlsoSettings, DetectionSettings, ProbationSettings
from detectors.probation import DAY_S, Probation, check
from detectors.stage import DetectionStage
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import CONTROL
from tests.unit.detectors.test_stage import MONDAY_S, SECOND, SETTINGS, rows_of, tick, values
from tocsin.config import Config, with_probation
from tocsin.process_settings import NodeSettings
from tocsin.testing import make_context

ON = ProbationSettings(mode="on")
HOUR = 3600.0


def order(classes: str, *, live: bool, at_ns: int = 0) -> Batch:
    payload = {"classes": classes, "live": live, "by": "ann", "note": "seen enough"}
    row = {"tick_start_ns": at_ns, "kind": "probation", "payload": json.dumps(payload)}
    return batch_from_rows(CONTROL, [row])


def make_stage(mode: str = "on", **more: Any) -> DetectionStage:
    settings = msgspec.structs.replace(SETTINGS, probation=ProbationSettings(mode=mode), **more)
    return DetectionStage(
        list(views_for(tick_seconds=5, lateness_seconds=1)), settings, make_context("detectors")
    )


def attack(k: int) -> dict[str, Any]:
    made = values("destination_prefix", k)
    made["octets"][5] *= 12
    made["packets"][5] *= 20
    made["flows"][5] *= 6
    return made


def trained(stage: DetectionStage, view: str = "destination_prefix") -> DetectionStage:
    for k in range(120):
        tick(stage, view, k, values(view, k))
    return stage


def said(stage: DetectionStage, ks: range, detector: str = "attack") -> list[str]:
    found = [r for k in ks for r in tick(stage, "destination_prefix", k, attack(k))]
    return [r["disposition"] for r in found if r["detector"] == detector]


def test_a_new_node_shows_what_it_would_have_sent_and_an_operator_lets_it() -> None:
    stage = trained(make_stage())
    assert set(said(stage, range(120, 124))) == {"would"}
    row = next(r for r in stage.probation.table() if r["name"] == "destination_prefix/attack")
    assert (row["state"], row["would"], row["live"]) == ("first day", 1, False)
    at_ns = (MONDAY_S + 36_000 + 5 * 124) * SECOND
    stage.process(order("*/attack", live=True, at_ns=at_ns))
    assert set(said(stage, range(124, 127))) == {"alert"}, "the attack that goes on is told now"
    row = next(r for r in stage.probation.table() if r["name"] == "destination_prefix/attack")
    assert (row["by"], row["since_ns"], row["note"]) == ("ann", at_ns, "seen enough")
    stage.process(order("*", live=False, at_ns=at_ns))
    assert set(said(stage, range(127, 129))) == {"would"}
    assert [one.live for one in stage.probation.orders] == [True, False]


def test_hard_faults_are_sent_on_the_first_day() -> None:
    stage = trained(make_stage(), "exporter")
    found: list[str] = []
    for k in range(120, 124):
        made = values("exporter", k)
        made["records"][3], made["octets"][3] = 0, 0
        found += [r["disposition"] for r in tick(stage, "exporter", k, made)
                  if r["detector"] == "exporter_silent"]  # fmt: skip
    assert set(found) == {"hard"}


def test_a_new_detector_is_on_probation_and_takes_nothing_from_those_that_are_live() -> None:
    old = trained(make_stage())
    old.process(order("*", live=True))
    also = {"limit": AlsoSettings(kind="threshold", options={
        "view": "destination_prefix", "measure": "octets", "above": 1.0})}  # fmt: skip
    out = Snapshot()
    old.snapshot(out)
    stage = make_stage(also=also)
    stage.restore(out)
    used = stage.budget_used
    for k in range(120, 124):
        found = tick(stage, "destination_prefix", k, values("destination_prefix", k))
        told = {(r["detector"], r["disposition"]) for r in found if r["disposition"] != "digest"}
        assert told <= {("limit", "would")}
    assert told
    assert stage.budget_used <= used
    assert "alert" in said(stage, range(124, 127))


def test_a_restart_and_a_replay_do_the_same() -> None:
    def play(cut: int) -> list[dict[str, Any]]:
        stage, found = make_stage(), []
        for k in range(130):
            if k == cut:
                out = Snapshot()
                stage.snapshot(out)
                stage = make_stage()
                stage.restore(out)
            if k == 124:
                stage.process(order("*/attack", live=True))
            start = (MONDAY_S + 36_000 + 5 * k) * SECOND
            from tests.unit.detectors.test_stage import VIEWS, frame

            made = attack(k) if k >= 120 else values("destination_prefix", k)
            stage.process(frame(VIEWS["destination_prefix"], start, made))
            found += rows_of(stage.advance(start + 5 * SECOND))
        return found

    whole = play(-1)
    assert {r["disposition"] for r in whole} >= {"would", "alert"}
    for cut in (119, 122, 124, 126):
        assert play(cut) == whole


def days(probation: Probation, events: list[int]) -> list[bool]:
    """Let days go by with so many events each; return whether the class was live after each."""
    live, at_ns = [], 0
    for count in events:
        for hour in range(24):
            at_ns += round(HOUR * 1e9)
            if hour == 5 and probation.holds("v", "point"):
                for _ in range(count):
                    probation.event("v", "point")
            probation.tick("v", ["point"], end_ns=at_ns, tick_s=HOUR, allowed={"point": 2.5})
        live.append(not probation.holds("v", "point"))
    return live


@pytest.mark.parametrize(
    ("events", "live_after"),
    [
        pytest.param([0] * 9, 8, id="the-first-day-does-not-count"),
        pytest.param([40, 1, 2, 0, 1, 2, 2, 1, 0], 8, id="a-wild-first-day-is-forgiven"),
        pytest.param([0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], 11, id="a-day-over-budget-starts-again"),
    ],
)
def test_a_class_goes_live_by_itself(events: list[int], live_after: int) -> None:
    live = days(Probation(ON), [0, *events][1:])
    assert live.index(True) + 1 == live_after


def test_a_class_that_is_always_over_its_budget_stays() -> None:
    probation = Probation(ON)
    assert not any(days(probation, [4] * 30))
    (row,) = probation.table()
    assert (row["state"], row["good_days"], row["would"]) == ("probation", 0, 120)


def test_time_without_ticks_is_no_time_within_budget() -> None:
    probation = Probation(ON)
    for week in range(10):
        probation.tick("v", ["point"], end_ns=round(week * 7 * DAY_S * 1e9), tick_s=60.0,
                       allowed={"point": 1.0})  # fmt: skip
    assert probation.holds("v", "point")


@pytest.mark.parametrize(
    "payload",
    [{}, {"classes": "*"}, {"classes": "*", "live": "yes", "by": "a"}, {"classes": "*", "live": True}],
)  # fmt: skip
def test_an_order_that_cannot_be_meant_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="probation needs"):
        check(payload)


@pytest.mark.parametrize(
    ("profile", "mode", "counts"),
    [("site", "auto", "on"), ("core", "auto", "on"), ("sensor", "auto", "off"), ("site", "off", "off")],
)  # fmt: skip
def test_it_is_on_by_default_where_a_node_runs(profile: Any, mode: Any, counts: str) -> None:
    detection = DetectionSettings(probation=ProbationSettings(mode=mode))
    config = Config(node=NodeSettings(profile=profile), detection=detection)
    assert with_probation(config).detection.probation.mode == counts


def test_off_means_that_all_is_live() -> None:
    stage = trained(make_stage("auto"))
    assert stage.probation.waiting == 0
    assert "alert" in said(stage, range(120, 123))
    assert np.isclose(stage.probation.table()[0]["would"], 0)


def restarted(stage: DetectionStage, mode: str) -> DetectionStage:
    out = Snapshot()
    stage.snapshot(out)
    made = make_stage(mode)
    made.restore(out)
    return made


def test_switched_off_it_holds_only_what_somebody_holds() -> None:
    stage = trained(make_stage())
    stage.process(order("*/scan", live=True))
    stage.process(order("*/trend", live=False))  # no change: they are held by their birth
    stage = restarted(stage, "off")
    assert set(said(stage, range(120, 124))) == {"alert"}
    row = next(r for r in stage.probation.table() if r["name"] == "destination_prefix/attack")
    assert (row["live"], row["note"]) == (True, "no probation configured")
    stage.process(order("*/attack", live=False))
    stage = restarted(stage, "off")
    assert set(said(stage, range(124, 127))) == {"would"}
    assert stage.probation.waiting == 1


@pytest.mark.slow
def test_predictions_on_probation_are_counted_for_their_class() -> None:
    from detectors.config import ForecastSettings
    from tests.unit.detectors.test_prediction import DAY, LIMITS, VIEWS, World, aging

    world = World()
    settings = DetectionSettings(
        probation=ON,
        forecast=ForecastSettings(limits=LIMITS, shipped=False, false_predictions_per_day=5.0),
    )
    world.stage = DetectionStage(
        list(VIEWS.values()), settings, make_context("detectors"), directory=world
    )
    made = world.play("sample", range(6 * DAY), aging)
    assert {row["disposition"] for _, row in made} == {"would"}
    begun = {(row["series_id"], row["made_ns"]) for _, row in made}
    by_name = {row["name"]: row for row in world.stage.probation.table()}
    assert by_name["sample/predicted"]["would"] == len(begun) > 0
