"""Predicted alerts: a warning that says when, how surely, and how good such words were."""

from typing import Any

from tocsin.testing.alarms import AlarmWorld

HOUR_NS = 3_600_000_000_000
QUANTILES = [9.0e8, 1.0e9, 1.1e9, 1.2e9, 1.3e9]


def row(world: AlarmWorld, **fields: Any) -> dict[str, Any]:
    made_ns = world.now_ns
    detail = {
        "limit": "capacity", "limit_value": 1.125e9, "cause": "capacity-breach", "above": True, "probability": 0.8,
        "made_ns": made_ns, "likely_ns": made_ns + 30 * HOUR_NS, "earliest_ns": made_ns + HOUR_NS,
        "latest_ns": 0, "quantiles": QUANTILES, "outcome": "", "ended_ns": 0, "error": 0.05,
        "error_seasonal_naive": 0.08, "forecasts_judged": 200,
        "record": {"hit": 7, "late": 1, "false": 2},
    } | fields.pop("said", {})  # fmt: skip
    disposition = fields.pop("disposition", "alert")
    return world.anomaly(
        world.interface("lon1", 2), "predicted", disposition=disposition, actual=7e8,
        expected=1.1e9, lower=9e8, upper=1.3e9, p_value=0.2, score=0.7, detail=detail, **fields,
    )  # fmt: skip


def test_a_prediction_is_a_warning_that_explains_itself() -> None:
    world = AlarmWorld()
    (alert,) = world.tick([row(world)])
    assert (alert.kind, alert.severity, alert.state) == ("predicted", "warning", "raised")
    assert "will be above 9 Gbit/s in about 30 h: probability 0.80" in alert.title
    forecast = alert.explain["forecast"]
    assert (forecast["lead_seconds"], forecast["probability"]) == (108_000.0, 0.8)
    assert list(forecast["quantiles"].values()) == QUANTILES
    assert alert.explain["sure"] == "80%, by its own forecast"
    why = " ".join(alert.explain["why"])
    assert "seasonal naive 0.08" in why
    assert "7 hit, 1 late, 2 false" in why


def test_it_is_told_that_it_came_true_and_clears_when_it_is_over() -> None:
    world = AlarmWorld()
    first = row(world)
    world.tick([first])
    for _ in range(13):
        world.tick([first])
    true = row(world, said={"outcome": "hit", "ended_ns": world.now_ns + 6 * HOUR_NS})
    (alert,) = world.tick([true | {"score": 13.0}])
    assert alert.state == "updated"
    assert "as was predicted 6 h before" in alert.title
    assert alert.explain["sure"] == "certain: it came true"
    assert alert.explain["do"].startswith("make room or mend it now; ")
    told = [a.state for _ in range(4) for a in world.tick([])]
    assert told in (["cleared"], [])  # without frames no tick is quiet


def test_both_ends_of_a_link_are_one_alarm_of_the_link() -> None:
    world = AlarmWorld()
    ends = [
        row(world) | {"series_id": world.interface(*end)}
        for end in (("ams1", 1), ("fra2", 1, "in"))
    ]
    (alert,) = world.tick(ends)
    assert alert.entity == "ams1-fra2"
    assert "traffic of ams1-fra2 will be above" in alert.title


def test_both_ways_of_an_interface_are_one_alarm_and_what_is_over_budget_none() -> None:
    world = AlarmWorld()
    other = row(world) | {"series_id": world.interface("lon1", 2, "in")}
    assert len(world.tick([row(world), other])) == 1
    quiet = AlarmWorld()
    assert quiet.tick([row(quiet, disposition="digest")]) == []
