"""What classes on probation would have raised is counted and listed, and told to nobody."""

from typing import Any

from runtime.checkpoint import Snapshot
from telemetry.schemas import DIGEST
from tocsin.testing.alarms import AlarmWorld


def leak(world: AlarmWorld, disposition: str, prefix: str = "198.51.100.0/24") -> dict[str, Any]:
    series = world.series("source_prefix", source_prefix=prefix)
    detail = {"ratio": 1.6, "ratio_an_hour": 1.4, "since_seconds": 1800.0}
    return world.anomaly(series, "trend", disposition=disposition, detail=detail)


def test_a_leak_on_probation_is_listed_once_and_told_to_nobody() -> None:
    world = AlarmWorld()
    for _ in range(6):
        assert world.tick([leak(world, "would")]) == []
    (one,) = world.stage.would_have_sent()
    assert (one["kind"], one["entity"]) == ("slow-leak", "198.51.100.0/24")
    assert world.context.metrics.value("alarms_would_total", component="alerting") == 1
    assert world.stage.raised == 0


def test_when_its_class_goes_live_it_is_raised() -> None:
    world = AlarmWorld()
    for _ in range(3):
        world.tick([leak(world, "would")])
    (alert,) = world.tick([leak(world, "alert")])
    assert (alert.kind, alert.state) == ("slow-leak", "raised")


def test_a_trial_neither_keeps_a_real_alarm_up_nor_hides_one() -> None:
    world = AlarmWorld()
    assert [a.state for a in world.tick([leak(world, "alert")])] == ["raised"]
    world.now_ns += 1_800 * 10**9  # a leak is over when it was away for half an hour
    told = [a.state for _ in range(4) for a in world.tick([leak(world, "would")])]
    assert told == ["cleared"]
    other = leak(world, "would", "203.0.113.0/24")
    (alert,) = world.tick([other, leak(world, "alert")])
    assert alert.entity == "198.51.100.0/24"


def test_the_list_survives_a_restart_and_the_digest_counts_it() -> None:
    world = AlarmWorld()
    world.tick([leak(world, "would")])
    out = Snapshot()
    world.stage.snapshot(out)
    world.stage = world.make_stage()
    world.stage.restore(out)
    assert len(world.stage.would_have_sent()) == 1
    world.now_ns += 3_600_000_000_000
    (digest,) = [b for b in world.batches() if b.schema is DIGEST]
    assert digest["findings"].tolist() == digest["would"].tolist() == [1]
