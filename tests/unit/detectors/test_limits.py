"""Limits of series: which one counts, also after a restart with others; and how predictions of them end."""

from typing import Any

import msgspec
import numpy as np
import pytest

from detectors import limits
from detectors.config import DetectionSettings, ForecastSettings, LimitSettings
from detectors.judging import Judge, Prediction
from detectors.stage import DetectionStage
from runtime.checkpoint import Snapshot
from telemetry.errors import ConfigError
from tests.unit.detectors.test_prediction import LIMITS, ROWS, VIEWS, World, traffic
from tocsin.testing import make_context

MINUTE = 60 * 10**9
OPTICS = LIMITS["optics"]


def stage_of(
    world: World, own: dict[str, LimitSettings], *, shipped: bool = True
) -> DetectionStage:
    settings = DetectionSettings(forecast=ForecastSettings(limits=own, shipped=shipped))
    return DetectionStage(
        list(VIEWS.values()), settings, make_context("detectors"), directory=world,
        network=world.network,
    )  # fmt: skip


def restarted(world: World, own: dict[str, LimitSettings], *, shipped: bool = True) -> None:
    out = Snapshot()
    world.stage.snapshot(out)
    world.stage = stage_of(world, own, shipped=shipped)
    world.stage.restore(out)


def sampled(k: int) -> np.ndarray:
    return np.tile([-10.0, 50.0 + k % 2, 100.0], ROWS // 3)


def watched(world: World) -> dict[str, int]:
    return {name: row["series"] for name, row in world.stage.predictor.table()["limits"].items()}


def test_a_limit_that_comes_with_a_restart_is_watched_of_series_that_are_known() -> None:
    world = World()
    world.stage = stage_of(world, {})
    world.play("sample", range(5), sampled)
    assert watched(world) == {"capacity": 0, "sampled-capacity": 0, "storage": 8}
    restarted(world, {"optics": OPTICS})
    world.play("sample", range(5, 7), sampled)
    assert watched(world)["optics"] == 8
    assert watched(world)["storage"] == 8
    restarted(world, {"optics": OPTICS}, shipped=False)
    world.play("sample", range(7, 9), sampled)
    assert watched(world) == {"optics": 8}
    looks = world.stage.predictor._watched["sample", "value"].outlooks
    assert int((looks.sign != 0.0).sum()) == 8, "what has no limit any more is not compared"


def test_a_limit_of_another_kind_after_a_restart_is_compared_with_values_of_its_kind() -> None:
    world = World()
    world.stage = stage_of(world, {"x": LIMITS["capacity"]}, shipped=False)
    world.play("interface", range(30), traffic)
    looks = world.stage.predictor._watched["interface", "octets"].outlooks
    assert looks.logs[:ROWS].all()
    plain = LimitSettings(view="interface", measure="octets", above=1.0)
    restarted(world, {"x": plain}, shipped=False)
    world.play("interface", range(30, 34), traffic)
    looks = world.stage.predictor._watched["interface", "octets"].outlooks
    assert not looks.logs[:ROWS].any()
    assert (looks.over[:ROWS] == 2).all(), "hundreds of megabytes are more than one"


def test_what_was_predicted_of_a_limit_that_is_gone_is_not_judged() -> None:
    world = World()
    world.stage = stage_of(world, {"optics": OPTICS})
    world.play("sample", range(5), sampled)
    judge = world.stage.predictor.judge
    place = next(iter(world.stage.predictor._watched["sample", "value"].limit))
    judge.open["sample", "value", place] = prediction("optics")
    restarted(world, {})
    judge = world.stage.predictor.judge
    assert not judge.open
    assert [one.outcome for one in judge.ended] == ["unseen"]
    assert judge.counted("optics")["right"] is None


def prediction(limit: str = "leak", *, deadline_ns: int = 100 * MINUTE) -> Prediction:
    return Prediction(
        "sample", "value", 1, "x", limit, True, 0, 0, deadline_ns, 0.9, 2.0, 1.0, 1.0, 1.0, [], 0, 0,
        0, 0.1, 0.1, 50,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        pytest.param([(102, False, 0)], "false", id="the-deadline-went-by"),
        pytest.param([(102, None, 0), (104, False, 0)], "false", id="a-sample-was-missing"),
        pytest.param([(102, True, 0), (104, True, 102)], "hit", id="passed-in-its-last-step"),
        pytest.param([(102, True, 0), (104, False, 0)], "false", id="one-peak-in-its-last-step"),
        pytest.param([(t, None, 0) for t in range(90, 120, 2)], "unseen", id="it-fell-silent"),
        pytest.param([(50, False, 0), (400, False, 0)], "unseen", id="down-meanwhile-and-within"),
        pytest.param([(50, False, 0), (400, True, 398)], "unseen", id="down-meanwhile-and-beyond"),
        pytest.param([(6, True, 4)], "late", id="told-too-shortly-before"),
    ],
)
def test_how_a_prediction_ends(seen: list[tuple[int, bool | None, int]], outcome: str) -> None:
    judge, key = Judge(10 * MINUTE), ("sample", "value", 0)
    judge.open[key] = prediction()
    said = [
        judge.step(key, beyond=beyond, passed_ns=passed * MINUTE, now_ns=at * MINUTE,
                   step_ns=2 * MINUTE)
        for at, beyond, passed in seen if key in judge.open
    ]  # fmt: skip
    assert [one for one in said if one] == [outcome]
    counted = judge.counted("leak")
    assert counted[outcome] == 1
    assert counted["right"] == {"unseen": None, "false": 0.0}.get(outcome, 1.0)
    again = Judge(10 * MINUTE)
    again.restore(judge.snapshot())
    assert again.counted("leak") == counted


def test_a_record_outlives_its_series() -> None:
    world = World()
    world.stage = stage_of(world, {"optics": OPTICS})
    world.stage.predictor.judge.record["optics"] = {
        "hit": 3, "late": 0, "false": 1, "lead_seconds": 9e3,
    }  # fmt: skip
    row: dict[str, Any] = world.stage.predictor.table()["limits"]["optics"]
    assert (row["series"], row["hit"], row["right"]) == (0, 3, 0.75)
    assert row["mean_lead_seconds"] == 3000.0


@pytest.mark.parametrize("of", ["usual", "capacity"])
def test_no_multiple_of_nothing(of: str) -> None:
    limit = LimitSettings(view="interface", measure="octets", above=0.0, of=of)
    with pytest.raises(ConfigError, match="above 0"):
        limits.check("x", limit, VIEWS)
    limits.check("x", msgspec.structs.replace(limit, above=0.5), VIEWS)
