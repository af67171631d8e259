"""Foreign alarms live the life of our own: raise, update, clear, re-open, flap, time out."""

from typing import Any

import numpy as np
import pytest

from alerting.config import AlertingSettings
from alerting.life.flood import collapse
from alerting.words.alert import canonical
from runtime.checkpoint import Snapshot
from telemetry.batch import batch_from_rows
from telemetry.schemas import ALARM
from tocsin.testing.alarms import AlarmWorld

HOUR = 3600.0


def fates(world: AlarmWorld, fate: str) -> float:
    return world.context.metrics.value("foreign_alarm_reports_total", fate=fate)


def test_a_report_raises_a_repeat_says_nothing_and_its_clear_clears() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("linkDown", "ams1:et-0/0/1", foreign_id="77"))
    assert (raised.state, raised.source, raised.foreign_id) == ("raised", "traps", "77")
    assert world.told(world.report("linkDown", "ams1:et-0/0/1")) == []
    (cleared,) = world.told(world.report("linkDown", "ams1:et-0/0/1", "cleared"))
    assert (cleared.id, cleared.state, cleared.severity) == (raised.id, "cleared", "major")
    assert cleared.cleared_ns == world.now_ns
    assert world.stage.raised == 0


def test_severity_is_not_part_of_the_key() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("highTemp", "ams1", "warning"))
    (worse,) = world.told(world.report("highTemp", "ams1", "critical"))
    (better,) = world.told(world.report("highTemp", "ams1", "minor"))
    assert raised.id == worse.id == better.id
    assert [a.state for a in (raised, worse, better)] == ["raised", "updated", "updated"]
    assert [a.severity for a in (raised, worse, better)] == ["warning", "critical", "minor"]


def test_a_clear_of_nothing_is_counted_and_raises_nothing() -> None:
    world = AlarmWorld()
    assert world.told(world.report("linkDown", "ams1", "cleared")) == []
    assert fates(world, "clear_of_unknown") == 1


@pytest.mark.parametrize(("seconds", "occurrence"), [(60.0, 1), (2000.0, 2)])
def test_a_raise_soon_after_its_clear_is_the_same_occurrence(
    seconds: float, occurrence: int
) -> None:
    world = AlarmWorld()
    (first,) = world.told(world.report("linkDown", "ams1"))
    world.told(world.report("linkDown", "ams1", "cleared"))
    (again,) = world.told(world.report("linkDown", "ams1"), seconds=seconds)
    assert again.occurrence == occurrence
    assert (again.raised_ns == first.raised_ns) is (occurrence == 1)


def test_what_comes_and_goes_within_a_tick_is_told_once_as_over() -> None:
    world = AlarmWorld()
    reports = [world.report("blip", "ams1", s) for s in ("major", "cleared", "major", "cleared")]
    (only,) = world.told(*reports)
    assert (only.state, only.occurrence) == ("cleared", 1)


def test_a_flapping_alarm_is_said_once_and_cleared_when_it_has_been_calm() -> None:
    world = AlarmWorld()
    said = []
    for _ in range(30):
        said += world.told(world.report("linkDown", "ams1"), seconds=10)
        said += world.told(world.report("linkDown", "ams1", "cleared"), seconds=10)
    assert [a.state for a in said] == ["raised", "cleared"] * 5 + ["raised"]
    assert said[-1].title.endswith("(flapping)")
    assert world.told(seconds=600) == []
    (calm,) = world.told(seconds=400)
    assert calm.state == "cleared"
    assert not calm.title.endswith("(flapping)")


def test_an_alarm_must_last_and_its_clear_too_where_that_is_asked() -> None:
    world = AlarmWorld(AlertingSettings(hold_up_seconds=30.0, hold_down_seconds=20.0))
    assert world.told(world.report("linkDown", "ams1")) == []
    assert world.told(world.report("linkDown", "ams1", "cleared"), seconds=10) == []
    assert world.told(seconds=100) == []  # it did not last
    assert world.told(world.report("linkDown", "ams1")) == []
    (raised,) = world.told(seconds=40)
    assert raised.state == "raised"
    assert world.told(world.report("linkDown", "ams1", "cleared")) == []
    assert world.told(world.report("linkDown", "ams1"), seconds=5) == []
    assert world.told(seconds=100) == []  # the clear did not last
    assert world.told(world.report("linkDown", "ams1", "cleared")) == []
    (cleared,) = world.told(seconds=30)
    assert cleared.state == "cleared"


def test_what_nobody_reports_any_more_is_cleared_by_time_out() -> None:
    world = AlarmWorld(AlertingSettings(silent_hours_max=2.0))
    world.told(world.report("linkDown", "ams1"))
    assert world.told(world.report("linkDown", "ams1"), seconds=1.5 * HOUR) == []
    assert world.told(seconds=1.5 * HOUR) == []  # heard of an hour and a half ago
    (cleared,) = world.told(seconds=1.0 * HOUR)
    assert cleared.state == "cleared"
    assert "said nothing of it" in cleared.explain["why"][0]


def test_silence_of_sources_that_could_not_be_heard_ends_no_alarm() -> None:
    world = AlarmWorld(settings=AlertingSettings(silent_hours_max=1))
    world.told(world.report("fan", "ams1"), seconds=600)
    world.now_ns += 5400 * 1_000_000_000  # the node is away
    assert not world.told(world.act("gap", seconds=5400.0))
    assert not world.told(seconds=2900)
    assert not world.told(seconds=101)
    assert [a.state for a in world.told(seconds=600)] == ["cleared"]


def test_the_time_out_of_what_returns_is_no_longer_than_the_first() -> None:
    world = AlarmWorld(settings=AlertingSettings(silent_hours_max=1))
    world.told(world.report("fan", "ams1"))
    world.told(world.report("fan", "ams1", "cleared"), seconds=7200)
    assert [a.state for a in world.told(world.report("fan", "ams1"))] == ["raised"]
    assert [a.state for a in world.told(seconds=3601)] == ["cleared"]


def test_a_re_sync_after_an_outage_raises_only_what_is_new() -> None:
    world = AlarmWorld()
    world.told(*(world.report("los", f"olt{i}", qualifier="pon") for i in range(50)))
    again = [world.report("los", f"olt{i}", qualifier="pon") for i in range(52)]
    assert [a.entity for a in world.told(*again, seconds=600)] == ["olt50", "olt51"]


def test_alarms_are_bounded_and_the_oldest_cleared_ones_make_room() -> None:
    world = AlarmWorld(AlertingSettings(alarms_max=3))
    world.told(*(world.report("down", f"n{i}") for i in range(5)))
    assert world.stage.raised == 3
    assert fates(world, "too_many") == 2
    world.told(world.report("down", "n0", "cleared"))
    assert [a.entity for a in world.told(world.report("down", "n9"))] == ["n9"]


def test_a_storm_is_one_alarm_and_its_clears_are_not_dropped() -> None:
    world = AlarmWorld(AlertingSettings(storm_alarms=100))
    reports = [world.report("portDown", f"sw{i}:1") for i in range(20_000)]
    said = world.told(*reports)
    storm = [a for a in said if a.kind == "alarm-storm"]
    assert len(said) == 101
    assert "19900 more alarms" in storm[0].title
    assert fates(world, "hidden_by_storm") == 19_900
    clears = [world.report("portDown", f"sw{i}:1", "cleared") for i in range(20_000)]
    assert sum(a.state == "cleared" for a in world.told(*clears)) == 100
    assert fates(world, "hidden_by_storm") == 39_800
    (over,) = world.told(seconds=1000)
    assert (over.kind, over.state) == ("alarm-storm", "cleared")


def storm_world(**more: Any) -> tuple[AlarmWorld, list[dict[str, Any]]]:
    world = AlarmWorld(AlertingSettings(storm_alarms=5, **more))
    reports = [world.report("portDown", f"sw{i}") for i in range(20)]
    world.told(*reports)
    return world, reports


def storms(world: AlarmWorld) -> list[str]:
    found = world.stage._foreign.alarms.values()
    return [alarm.state for alarm in found if alarm.kind == "alarm-storm"]


def test_a_storm_lasts_until_what_it_counted_is_clear() -> None:
    world, _ = storm_world()
    world.told(*(world.report("portDown", f"sw{i}", "cleared") for i in range(19)))
    world.told(world.report("portDown", "sw77", "cleared"))  # of nothing that it counted
    world.told(seconds=7200)
    assert storms(world) == ["raised"], "sw19 is still down"
    kept = Snapshot()
    world.stage.snapshot(kept)
    world.stage = world.make_stage()
    world.stage.restore(kept)
    world.told(world.report("portDown", "sw19", "cleared"))
    assert not world.told(seconds=800)
    assert [a.state for a in world.told(seconds=101)] == ["cleared"]


def test_a_storm_says_later_what_it_said() -> None:
    """What it names is no list that grows unseen: after a restart it would be another."""
    world = AlarmWorld(AlertingSettings(storm_alarms=5))
    world.told(*(world.report("portDown", f"sw{i}") for i in range(9)))
    (storm,) = [a for a in world.stage._foreign.alarms.values() if a.kind == "alarm-storm"]
    world.told(world.report("portDown", "sw9"))
    assert storm.explain["touches"] == ["sw5", "sw6", "sw7", "sw8"]


def test_what_a_storm_counted_is_counted_once_and_told_when_it_is_said_again_later() -> None:
    world, reports = storm_world()
    world.told(*reports, seconds=30)
    assert [s.hidden for s in world.stage._foreign._storms.classes.values()] == [15]
    said = world.told(*reports[5:10], seconds=60)
    assert sorted(a.entity for a in said if a.kind == "portDown") == [
        f"sw{i}" for i in range(5, 10)
    ]
    assert [s.hidden for s in world.stage._foreign._storms.classes.values()] == [10]
    clears = [world.report("portDown", f"sw{i}", "cleared") for i in range(20)]
    assert len(world.told(*clears)) == 10
    assert [a.state for a in world.told(seconds=901)] == ["cleared"]


def test_a_storm_that_is_up_makes_no_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerting.life.storm.CLASSES_MAX", 3)
    world, _ = storm_world()
    world.told(*(world.report("portDown", f"sw{i}", "cleared") for i in range(20)))
    world.told(seconds=100)
    world.told(*(world.report(f"fan{i}", "ams1") for i in range(3)))
    assert storms(world) == ["raised"]
    assert not world.told(seconds=700)
    assert [a.kind for a in world.told(seconds=101)] == ["alarm-storm"], (
        "it is over when it is calm"
    )


def test_a_storm_whose_clears_are_lost_ends_as_its_alarms_would() -> None:
    world, _ = storm_world(silent_hours_max=2)
    world.told(seconds=7000)
    assert storms(world) == ["raised"]
    world.told(seconds=200)
    assert storms(world) == ["cleared"]
    (storm,) = [a for a in world.stage._foreign.alarms.values() if a.kind == "alarm-storm"]
    assert storm.explain["why"] == ["15 were not cleared, and nothing was said of any for 2 h"]


def test_collapsing_counts_every_report() -> None:
    random = np.random.default_rng(5)
    rows = [
        {"alarm_id": int(random.integers(1, 40)), "state": ["raised", "cleared"][i % 3 == 0]}
        for i in range(3000)
    ]
    batch = batch_from_rows(ALARM, rows)
    made = collapse(batch)
    assert made.raises.sum() + made.clears.sum() == 3000
    for row, last in zip(made.row.tolist(), made.last_raise.tolist(), strict=True):
        same = [i for i, one in enumerate(rows) if one["alarm_id"] == rows[row]["alarm_id"]]
        assert row == same[-1]
        raises = [i for i in same if rows[i]["state"] == "raised"]
        assert last == (raises[-1] if raises else -1)


def test_the_stage_goes_on_bit_for_bit_from_a_snapshot_whatever_the_cut() -> None:
    def reports(world: AlarmWorld, i: int) -> list[dict[str, Any]]:
        random = np.random.default_rng(i)
        return [
            world.report(
                ("linkDown", "bgpDown", "highTemp")[random.integers(3)],
                ("ams1", "fra2", "lon1", "x9")[random.integers(4)],
                ("critical", "minor", "cleared")[random.integers(3)],
            )
            for _ in range(random.integers(4))
        ]

    def play(world: AlarmWorld, ticks: range, *, one_by_one: bool) -> bytes:
        said = b""
        for i in ticks:
            given = reports(world, i)
            if one_by_one:
                for row in given:
                    world.stage.process(batch_from_rows(ALARM, [row]))
                given = []
            if i % 50 == 7:
                world.stage.process(world.act("silence", nodes=["fra2"], seconds=100, by="ann"))
            said += b"".join(canonical(a) for a in world.told(*given, seconds=7))
        return said

    whole, cut = AlarmWorld(), AlarmWorld()
    expected = play(whole, range(500), one_by_one=False)
    said = play(cut, range(211), one_by_one=False)
    kept = Snapshot()
    cut.stage.snapshot(kept)
    cut.stage = cut.make_stage()
    cut.stage.restore(kept)
    assert said + play(cut, range(211, 500), one_by_one=False) == expected
    assert expected.count(b'"cleared"') > 20


def test_what_its_manager_says_anew_is_told_without_a_new_alarm() -> None:
    world = AlarmWorld()

    def said(**more: Any) -> dict[str, Any]:
        state = {"operator_state": more.pop("state", "none"), "operator": more.pop("owner", "")}
        detail = {"owner": state["operator"], "acknowledged": state["operator_state"] != "none"}
        report = world.report("fan", "ams1", source="netcool", detail=detail, **more)
        return report | state

    (raised,) = world.told(said())
    assert world.told(said()) == []
    (acknowledged,) = world.told(said(state="acknowledged", owner="anna"))
    assert (acknowledged.operator_state, acknowledged.operator) == ("acknowledged", "anna")
    (handed_over,) = world.told(said(state="acknowledged", owner="ben"))
    assert (handed_over.operator_state, handed_over.operator) == ("acknowledged", "ben")
    (taken_back,) = world.told(said())
    assert taken_back.operator_state == "none"
    (explained,) = world.told(said(probable_cause="fanFailure"))
    assert explained.probable_cause == "fanFailure"
    (worded,) = world.told(said(probable_cause="fanFailure", title="part ordered"))
    assert worded.title == "part ordered"
    changes = (acknowledged, handed_over, taken_back, explained, worded)
    assert {(one.id, one.state, one.occurrence) for one in changes} == {(raised.id, "updated", 1)}


def test_an_operator_s_own_acknowledgement_outlives_repeats_of_a_manager_s_none() -> None:
    world = AlarmWorld()
    report = world.report("fan", "ams1", source="netcool") | {"operator_state": "none"}
    world.told(report)
    alarm = next(iter(world.stage._foreign.alarms.values()))
    alarm.acknowledged = "until-clear"
    assert world.told(report) == []
    assert alarm.acknowledged == "until-clear"


def test_changing_numbers_are_no_news_and_changing_words_are_told_once_a_minute() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("bgp", "ams1", title="peer 5 said: hold timer"))
    assert world.told(world.report("bgp", "ams1", title="peer 6 said: hold timer")) == []
    (first,) = world.told(world.report("bgp", "ams1", title="peer said: cease"))
    assert (first.id, first.title) == (raised.id, "peer said: cease")
    for word in ("reset", "cease", "reset"):
        assert world.told(world.report("bgp", "ams1", title=f"peer said: {word}")) == []
    assert fates(world, "held") == 3
    kept = Snapshot()
    world.stage.snapshot(kept)
    world.stage = world.make_stage()
    world.stage.restore(kept)
    (later,) = world.told(seconds=61.0)
    assert (later.id, later.title, later.state) == (raised.id, "peer said: reset", "updated")
    assert world.told(seconds=200.0) == []


def test_what_the_source_says_beside_its_title_and_what_to_do_are_told() -> None:
    world = AlarmWorld()
    text = "ifAdminStatus=up; ifOperStatus=down; \x1b[31mreason=" + "x" * 1000
    (alert,) = world.told(
        world.report("linkDown", "ams1:et-0/0/1", text=text, do="check the optics")
    )
    said, more = alert.explain["why"]
    assert said == "traps reports linkDown"
    assert more.startswith("ifAdminStatus=up; ifOperStatus=down; \ufffd[31mreason=xxx")
    assert len(more) == 300
    assert alert.explain["do"] == "check the optics"
    assert "; do: check the optics" in alert.explain["short"]
    (other,) = world.told(world.report("fan", "lon1", title="fan 2 of lon1 is slow", text="fan 2"))
    assert other.explain["why"] == ["traps reports fan"]  # the title has it already


def test_a_storm_that_grows_says_since_when() -> None:
    world = AlarmWorld(AlertingSettings(storm_alarms=1))
    made = [
        one
        for first in (0, 2, 10)
        for one in world.told(
            *(world.report("down", f"sw{i}") for i in range(first, 4 * first + 2))
        )
        if one.kind == "alarm-storm"
    ]
    assert [one.state for one in made] == ["raised", "updated", "updated"]
    assert made[0].title.endswith(": 1 more alarm")
    assert {one.explain["since_ns"] for one in made} == {made[0].raised_ns}
