"""What operators do: acknowledge, shelve, silence, plan works; hidden alarms live on."""

from datetime import UTC, datetime
from typing import Any

import pytest

from alerting.config import AlertingSettings, MaintenanceSettings
from alerting.life.windows import DAYS, PLANNED_WORK, Window, Windows, moment_ns
from alerting.records.alarm import NEVER_NS
from alerting.words.alert import Alert
from alerting.words.alerts import alerts_of, notices_of
from runtime.checkpoint import Snapshot
from telemetry.errors import ConfigError
from tocsin.testing.alarms import START_NS, AlarmWorld

HOUR_NS = 3_600_000_000_000


def actions(world: AlarmWorld, fate: str) -> float:
    return world.context.metrics.value("operator_actions_total", fate=fate)


def test_an_acknowledgement_lasts_until_the_alarm_clears() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("linkDown", "ams1"))
    (acked,) = world.told(world.act("acknowledge", alarm=raised.id, by="ann", note="on it"))
    assert (acked.operator_state, acked.operator, acked.state) == ("acknowledged", "ann", "raised")
    (worse,) = world.told(world.report("linkDown", "ams1", "critical"))
    assert worse.operator_state == "acknowledged"
    world.told(world.report("linkDown", "ams1", "cleared"))
    (again,) = world.told(world.report("linkDown", "ams1"))
    assert again.operator_state == "none"


def test_half_a_surrogate_pair_in_an_action_ends_nothing() -> None:
    """It is journalled before it counts: what it broke would break each restart."""
    world = AlarmWorld()
    (raised,) = world.told(world.report("linkDown", "ams1"))
    (acked,) = world.told(world.act("acknowledge", alarm=raised.id, by="\ud800ann", note="\udfff"))
    assert acked.operator == "?ann"
    world.told(world.act("silence", name="n\ud800", entities=["ams1"], seconds=60, reason="\ud800"))
    (hidden,) = world.told(world.report("linkDown", "ams1", "critical"))
    assert hidden.suppressed


def test_an_acknowledgement_until_worse_ends_when_it_gets_worse() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("highTemp", "ams1", "minor"))
    world.told(world.act("acknowledge", alarm=raised.id, by="ann", until="worse"))
    (worse,) = world.told(world.report("highTemp", "ams1", "critical"))
    assert worse.operator_state == "none"


@pytest.mark.parametrize(
    ("severity", "seconds", "state"),
    [pytest.param("minor", 60, "acknowledged", id="the same occurrence"),
     pytest.param("critical", 60, "none", id="the same, but worse"),
     pytest.param("minor", 7200, "none", id="a new one")],
)  # fmt: skip
def test_an_acknowledgement_until_worse_outlives_a_return_of_the_same(
    severity: str, seconds: int, state: str
) -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("highTemp", "ams1", "minor"))
    world.told(world.act("acknowledge", alarm=raised.id, by="ann", until="worse"))
    world.told(world.report("highTemp", "ams1", "cleared"))
    world.told(seconds=seconds)
    (again,) = world.told(world.report("highTemp", "ams1", severity))
    assert (again.state, again.operator_state) == ("raised", state)


@pytest.mark.parametrize(("seconds", "worse"), [(60, False), (60, True), (7200, False)])
def test_so_does_one_of_an_own_alarm(seconds: int, worse: bool) -> None:
    world = AlarmWorld(settings=AlertingSettings(confirm_ticks=1))
    scan = world.series("source_prefix", source_prefix="192.0.2.0/24")

    def found() -> Alert:
        for _ in range(4):
            if made := world.tick([world.anomaly(scan, "scan")]):
                return made[-1]
        raise AssertionError

    raised = found()
    world.told(world.act("acknowledge", alarm=raised.id, by="ann", until="worse"))
    own = world.stage.alarm(int(raised.id, 16))
    assert own is not None
    if worse:
        own.severity = "indeterminate"  # as it was when it was acknowledged
    assert [a.state for _ in range(4) for a in world.tick()] == ["cleared"]
    world.tick()
    world.now_ns += seconds * 1_000_000_000
    assert found().operator_state == ("none" if worse or seconds > 900 else "acknowledged")


def test_acknowledging_what_is_over_closes_it() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("linkDown", "ams1"))
    world.told(world.report("linkDown", "ams1", "cleared"))
    (closed,) = world.told(world.act("acknowledge", alarm=raised.id, by="ann"))
    assert (closed.state, closed.operator_state) == ("closed", "closed")
    (again,) = world.told(world.report("linkDown", "ams1"))
    assert again.state == "raised"


def test_a_thousand_acknowledgements_and_clears_go_both_ways_without_an_echo() -> None:
    """Two systems tell each other every change they hear: each must be told once, then rest."""
    world = AlarmWorld()
    seen: dict[str, str] = {}  # what the ticket system knows
    messages = 0
    for i in range(1000):
        entity = f"r{i % 250}"
        notices = world.notices(world.report("linkDown", entity), seconds=20)
        notices += world.notices(seconds=20)
        for _ in range(6):  # both sides repeat what they hear until nobody has news
            answers = []
            for notice in notices:
                if notice.origin == "tickets":
                    continue  # the outbox does not send it back to where it came from
                messages += 1
                state = f"{notice.state} {notice.operator_state}"
                if seen.get(notice.incident) == state:
                    continue
                seen[notice.incident] = state
                if notice.state != "cleared":
                    answers.append(
                        world.act(
                            "acknowledge", incident=notice.incident, by="bob", system="tickets"
                        )
                    )
            notices = world.notices(*answers) if answers else []
            if not notices:
                break
        else:
            pytest.fail("the two systems never came to rest")
        world.notices(world.report("linkDown", entity, "cleared"))
        world.notices(seconds=4000)
    assert messages <= 3 * 1000
    assert actions(world, "no_change") == 0


def test_the_same_action_twice_changes_nothing() -> None:
    world = AlarmWorld()
    (raised,) = world.told(world.report("linkDown", "ams1"))
    act = world.act("acknowledge", alarm=raised.id, by="ann")
    assert len(world.told(act)) == 1
    assert world.told(act) == []
    assert actions(world, "no_change") == 1


def test_an_acknowledgement_is_the_owners_and_others_ask_for_it() -> None:
    world = AlarmWorld(AlertingSettings(owners={"traps": "netcool"}))
    (raised,) = world.told(world.report("linkDown", "ams1"))
    (notice,) = world.notices(seconds=20)
    act = world.act("acknowledge", incident=notice.incident, by="ann")
    both = world.second(act)
    asked, told = [
        a for b in both for a in (alerts_of if b.schema.name == "alarm" else notices_of)(b)
    ]
    assert (asked.operator_state, asked.operator) == ("acknowledge_asked", "ann")
    assert (told.operator_state, told.operator) == ("acknowledge_asked", "ann")
    assert world.told(act) == []  # once is enough
    assert (actions(world, "forwarded"), actions(world, "no_change")) == (1, 1)
    yes = world.act("acknowledge", incident=notice.incident, by="bob", system="netcool")
    both = world.second(yes)
    made = [a for b in both for a in (alerts_of if b.schema.name == "alarm" else notices_of)(b)]
    assert [(a.operator_state, a.operator, a.origin) for a in made] == [
        ("acknowledged", "bob", "netcool"), ("acknowledged", "bob", "netcool"),
    ]  # fmt: skip
    assert world.told(world.act("unacknowledge", alarm=raised.id, by="ann")) == []
    assert actions(world, "not_owner") == 1


def test_what_was_asked_is_forgotten_when_the_alarm_comes_again() -> None:
    world = AlarmWorld(AlertingSettings(owners={"traps": "netcool"}))
    (raised,) = world.told(world.report("linkDown", "ams1"))
    world.told(world.act("acknowledge", alarm=raised.id, by="ann"))
    (over,) = world.told(world.report("linkDown", "ams1", "cleared"))
    (again,) = world.told(world.report("linkDown", "ams1"))
    assert (over.operator_state, again.operator_state) == ("none", "none")


def test_a_source_that_acknowledges_its_own_alarm_is_believed() -> None:
    world = AlarmWorld(AlertingSettings(owners={"netcool": "netcool"}))
    (raised,) = world.told(world.report("linkDown", "ams1", source="netcool"))
    world.told(world.act("acknowledge", alarm=raised.id, by="ann"))
    row = world.report("linkDown", "ams1", source="netcool") | {
        "operator_state": "acknowledged",
        "operator": "bob",
    }
    (acked,) = world.told(row)
    assert acked.operator_state == "acknowledged"


def test_a_shelved_alarm_comes_back_when_its_time_is_over() -> None:
    world = AlarmWorld()
    world.told(world.report("linkDown", "ams1"))
    (raised,) = world.notices(seconds=20)
    act = world.act("shelve", alarm=raised.id, seconds=3600, by="ann", note="known")
    (shelved,) = world.told(act)
    assert (shelved.operator_state, shelved.suppressed) == ("shelved", "shelved")
    assert world.told(seconds=3000) == []
    (back,) = world.told(seconds=1000)
    assert (back.operator_state, back.suppressed) == ("none", "")


def test_everything_behind_a_site_is_shelved_in_one_action_also_what_is_up() -> None:
    world = AlarmWorld()
    world.told(world.report("highTemp", "lon1"), world.report("highTemp", "ams1"))
    act = world.act("shelve", sites=["lon1"], behind=True, seconds=7200, by="ann", reason="works")
    assert [a.entity for a in world.told(act)] == ["lon1"]
    later = world.told(world.report("fan", "lon1"), world.report("fan", "ams1"))
    assert [(a.entity, a.suppressed) for a in later] == [("lon1", "shelved"), ("ams1", "")]
    back = world.told(seconds=7300)
    assert sorted(a.kind for a in back) == ["fan", "highTemp"]


def test_planned_work_hides_and_what_is_still_up_at_its_end_is_told_then() -> None:
    world = AlarmWorld()
    start = world.now_ns + 60_000_000_000
    work = world.act(
        "maintenance", name="CRQ1", links=["ams1-fra2"], start_ns=start,
        end_ns=start + HOUR_NS, reason="fibre splice", by="planner",
    )  # fmt: skip
    assert world.notices(work) == []
    down = [world.report("linkDown", e) for e in ("ams1:et-0/0/1", "fra2:et-0/0/1")]
    world.second(seconds=100)
    hidden = world.told(*down)
    assert {a.suppressed for a in hidden} == {"planned-work"}
    assert world.notices(seconds=1800) == []
    (overrun,) = world.notices(seconds=1900)
    assert overrun.state == "raised"
    assert overrun.alarms_count == 2
    causes = overrun.explain["causes"]
    assert any(c["kind"] == "planned-work" and "overruns" in c["why"] for c in causes)


def test_work_that_ends_in_time_is_told_to_nobody() -> None:
    world = AlarmWorld()
    work = world.act("maintenance", name="CRQ1", links=["ams1-fra2"], seconds=3600, by="planner")
    world.second(work)
    assert world.notices(world.report("linkDown", "ams1:et-0/0/1")) == []
    assert world.notices(world.report("linkDown", "ams1:et-0/0/1", "cleared"), seconds=60) == []
    assert world.notices(seconds=5000) == []


def test_a_silence_is_over_when_it_is_expired() -> None:
    world = AlarmWorld()
    silence = world.act("silence", name="s1", kinds=["fan"], sources=["traps"], seconds=3600)
    world.second(silence)
    (fan,) = world.told(world.report("fan", "ams1"))
    assert fan.suppressed == "silence"
    (back,) = world.told(world.report("fan", "ams1", "critical"), world.act("expire", name="s1"))
    assert back.suppressed == ""


def operator_states(world: AlarmWorld, *ids: str) -> list[str]:
    found = [world.stage.alarm(int(one, 16)) for one in ids]
    return [alarm.operator_state for alarm in found if alarm is not None]


@pytest.mark.parametrize("at_once", ["site", "both alarms", "their incident"])
def test_one_alarm_is_taken_out_of_what_was_shelved_and_the_rest_stays(at_once: str) -> None:
    world = AlarmWorld()
    fan, psu = world.told(world.report("fan", "ams1"), world.report("psu", "ams1"))
    world.told(world.act("merge", incidents=[fan.incident, psu.incident]), seconds=60)
    about: dict[str, Any] = {
        "site": {"sites": ["ams1"]}, "both alarms": {"alarms": [fan.id, psu.id]},
        "their incident": {"incident": fan.incident},
    }[at_once]  # fmt: skip
    world.told(world.act("shelve", **about, seconds=7200, by="ann"))
    assert operator_states(world, fan.id, psu.id) == ["shelved", "shelved"]
    (back,) = world.told(world.act("unshelve", alarm=fan.id, by="ann"))
    assert (back.id, back.suppressed) == (fan.id, "")
    assert operator_states(world, fan.id, psu.id) == ["none", "shelved"]
    kept = Snapshot()
    world.stage.snapshot(kept)
    world.stage = world.make_stage()
    world.stage.restore(kept)
    assert world.told(world.report("fan", "ams1", "critical"))[0].suppressed == ""
    (last,) = world.told(world.act("unshelve", alarm=psu.id, by="ann"))
    assert (last.id, last.suppressed) == (psu.id, "")
    shelved = [one.name for one in world.stage.windows() if one.span(world.now_ns)]
    assert bool(shelved) is (at_once == "site"), "a new alarm of the site is still shelved"


def test_what_is_shelved_twice_or_within_a_work_is_unshelved_for_good() -> None:
    world = AlarmWorld()
    (fan,) = world.told(world.report("fan", "ams1"))
    world.told(world.act("shelve", sites=["ams1"], seconds=7200, by="ann"))
    world.told(world.act("shelve", alarm=fan.id, seconds=600, by="bob"))
    world.told(world.act("maintenance", nodes=["ams1"], seconds=9000, name="CRQ1", by="eve"))
    (alarm,) = [world.stage.alarm(int(fan.id, 16))]
    assert alarm is not None
    assert alarm.suppressed == "planned-work", "what hides it longest is shown"
    world.told(world.act("unshelve", alarm=fan.id, by="bob"))
    assert alarm.suppressed == "planned-work"
    world.told(world.act("expire", name="CRQ1"))
    assert (alarm.suppressed, alarm.operator_state) == ("", "none")


def test_who_acknowledged_is_named_again_when_it_is_back_from_the_shelf() -> None:
    world = AlarmWorld()
    fan, psu = world.told(world.report("fan", "ams1"), world.report("psu", "ams1"))
    world.told(world.act("acknowledge", alarm=fan.id, by="ann"))
    hidden = world.told(world.act("shelve", alarms=[fan.id, psu.id], seconds=60, by="bob"))
    assert {one.operator for one in hidden} == {"bob"}
    back = {one.id: one for one in world.told(seconds=100)}
    assert (back[fan.id].operator_state, back[fan.id].operator) == ("acknowledged", "ann")
    assert (back[psu.id].operator_state, back[psu.id].operator) == ("none", "")


def test_a_work_that_returns_is_ended_for_tonight_or_cancelled_for_good() -> None:
    world = AlarmWorld()
    nightly = {"name": "nightly", "nodes": ["ams1"], "start_ns": world.now_ns, "days": list(DAYS)}
    world.told(world.act("maintenance", **nightly, end_ns=world.now_ns + 2 * HOUR_NS))
    (fan,) = world.told(world.report("fan", "ams1"))
    assert fan.suppressed == "planned-work"
    (told,) = world.told(world.act("expire", name="nightly", by="ann"))
    assert told.suppressed == ""
    kept = Snapshot()
    world.stage.snapshot(kept)
    world.stage = world.make_stage()
    world.stage.restore(kept)
    assert world.told(world.report("fan", "ams1", "critical"))[0].suppressed == ""
    world.told(seconds=24 * 3600.0)
    (psu,) = world.told(world.report("psu", "ams1"))
    assert psu.suppressed == "planned-work", "the next night it is on again"
    world.told(world.act("maintenance", name="nightly", cancelled=True))
    world.told(seconds=24 * 3600.0)
    (card,) = world.told(world.report("card", "ams1"))
    assert card.suppressed == ""


def test_what_the_configuration_plans_is_ended_early_until_it_plans_another() -> None:
    def planned(day: int) -> AlertingSettings:
        start = datetime.fromtimestamp(START_NS / 1e9 + day * 86_400, UTC).isoformat()
        return AlertingSettings(
            maintenance={"m": MaintenanceSettings(start=start, minutes=60, routers=("ams1",))}
        )

    def restart() -> None:
        kept = Snapshot()
        world.stage.snapshot(kept)
        world.stage = world.make_stage()
        world.stage.restore(kept)

    world = AlarmWorld(settings=planned(0))
    (fan,) = world.told(world.report("fan", "ams1"))
    assert fan.suppressed == "planned-work"
    (told,) = world.told(world.act("expire", name="m"))
    assert told.suppressed == ""
    restart()
    assert world.told(world.report("fan", "ams1", "critical"))[0].suppressed == "", "it stays over"
    world.settings = planned(1)
    restart()
    with pytest.raises(
        ConfigError, match=r"m is not on now, and \[alerting.maintenance.m\] plans it"
    ):
        world.stage.check("expire", {"name": "m"}, world.now_ns)
    world.told(world.act("expire", name="m"))
    world.told(seconds=24 * 3600.0)
    (psu,) = world.told(world.report("psu", "ams1"))
    assert psu.suppressed == "planned-work", "the one of the next day is another work"


def test_which_of_several_windows_is_named_is_the_same_after_a_restart() -> None:
    world, other = AlarmWorld(), AlarmWorld()
    for one in (world, other):
        late = {"start_ns": one.now_ns + 5_000_000_000, "end_ns": one.now_ns + HOUR_NS}
        one.told(one.act("maintenance", nodes=["ams1"], name="late", **late))
        one.told(one.act("maintenance", nodes=["ams1"], name="now", seconds=1800))
        one.told(seconds=10)
    kept = Snapshot()
    other.stage.snapshot(kept)
    other.stage = other.make_stage()
    other.stage.restore(kept)
    names = []
    for one in (world, other):
        (fan,) = one.told(one.report("fan", "ams1"))
        alarm = one.stage.alarm(int(fan.id, 16))
        names.append(alarm.suppressed_by if alarm else "")
    assert names == ["late", "late"]


def test_what_an_operator_cannot_mean_is_refused_and_counted() -> None:
    world = AlarmWorld()
    bad = world.act("silence", start_ns=2, end_ns=1)
    assert world.told(bad, world.act("acknowledge", alarm="zz"), world.act("close")) == []
    assert actions(world, "refused") == 3
    world.told(world.act("acknowledge", alarm="00000000000000aa"))
    assert actions(world, "unknown") == 1


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [("acknowledge", {"alarm": "00000000000000aa"}, "00000000000000aa: no alarm that is known"),
     ("shelve", {"incident": "00000000000000aa", "seconds": 60}, "no incident that is known"),
     ("merge", {"incidents": ["00000000000000aa", "00000000000000bb"]}, "fewer than two incidents"),
     ("split", {"incident": "00000000000000aa", "alarms": ["00000000000000bb"]}, "no incident"),
     ("feedback", {"alarm": "00000000000000aa", "verdict": "true"}, "no alarm that is known"),
     ("expire", {"name": "s1"}, "no window is called 's1'"),
     ("out_of_service", {"nodes": ["r9"], "over": True}, "r9: not out of service"),
     ("out_of_service", {"kinds": ["fan"]}, "needs nodes or entities")],
)  # fmt: skip
def test_an_action_about_nothing_is_refused_before_it_is_journalled(
    kind: str, payload: dict[str, Any], said: str
) -> None:
    world = AlarmWorld()
    (fan,) = world.told(world.report("fan", "ams1"))
    with pytest.raises(ConfigError, match=said):
        world.stage.check(kind, payload, world.now_ns)
    world.stage.check("acknowledge", {"alarm": fan.id}, world.now_ns)


def test_what_is_out_of_service_is_back_each_by_itself() -> None:
    world = AlarmWorld()
    world.told(world.act("out_of_service", nodes=["r1", "r2"], by="ann"))
    hidden = world.told(world.report("fan", "r1"), world.report("fan", "r2"))
    assert {one.operator_state for one in hidden} == {"out_of_service"}
    back = world.told(world.act("out_of_service", nodes=["r1"], over=True))
    assert [(one.entity, one.operator_state) for one in back] == [("r1", "none")]


def test_an_order_that_would_do_nothing_is_refused() -> None:
    world = AlarmWorld(settings=AlertingSettings(owners={"netcool": "netcool"}))
    (theirs,) = world.told(world.report("fan", "ams1", source="netcool"))
    for kind in ("close", "unacknowledge"):
        with pytest.raises(ConfigError, match="netcool owns what becomes of alarms of netcool"):
            world.stage.check(kind, {"alarm": theirs.id}, world.now_ns)
        world.stage.check(kind, {"alarm": theirs.id, "system": "netcool"}, world.now_ns)
    world.told(world.act("maintenance", nodes=["ams1"], seconds=600, name="CRQ1", by="eve"))
    with pytest.raises(ConfigError, match="not shelved; planned-work CRQ1 hides it"):
        world.stage.check("unshelve", {"alarm": theirs.id}, world.now_ns)
    world.told(world.act("shelve", alarm=theirs.id, seconds=60, by="ann"))
    world.stage.check("unshelve", {"alarm": theirs.id}, world.now_ns)
    world.told(world.act("expire", name="CRQ1"))
    rows = [world.silence(one) for one in world.ends("ams1-fra2")]
    (cut,) = world.tick(rows)
    with pytest.raises(ConfigError, match="it is seen by Tocsin itself and still up"):
        world.stage.check("close", {"alarm": cut.id}, world.now_ns)
    while world.stage.alarm(int(cut.id, 16)).up:  # type: ignore[union-attr]
        world.tick()
    world.stage.check("close", {"alarm": cut.id}, world.now_ns)


def test_a_weekly_window_keeps_local_time_when_summer_time_begins() -> None:
    start = moment_ns("1970-01-05T02:00", "Europe/Amsterdam")
    weekly = Window(
        "w", PLANNED_WORK, start, start + HOUR_NS, days=("sun",), zone="Europe/Amsterdam"
    )
    for moment, going in (
        ("2026-03-22T01:30:00+00:00", True),  # 02:30 winter time
        ("2026-03-29T00:59:00+00:00", False),
        ("2026-04-05T00:30:00+00:00", True),  # 02:30 summer time
        ("2026-04-05T01:30:00+00:00", False),
        ("2026-04-06T00:30:00+00:00", False),  # a Monday
    ):
        at = round(datetime.fromisoformat(moment).timestamp()) * 1_000_000_000
        assert (weekly.span(at) is not None) is going, moment


def test_windows_move_on_from_span_to_span() -> None:
    windows = Windows(10)
    start = moment_ns("1970-01-05T02:00")
    windows.put(Window("w", PLANNED_WORK, start, start + HOUR_NS, days=("mon",)), 0)
    now = round(datetime(2026, 11, 30, 1, 59, tzinfo=UTC).timestamp()) * 1_000_000_000
    windows.move_on(now)
    assert not windows.move_on(now + 30_000_000_000)
    assert windows.move_on(now + 60_000_000_000)  # it began
    assert windows.move_on(now + 60_000_000_000 + HOUR_NS)  # and ended
    assert windows.all()[0].next_change_ns(now) != NEVER_NS


def test_planned_works_of_the_configuration_count() -> None:
    work = MaintenanceSettings(start="02:00", minutes=60, days=("mon", "tue"), routers=("ams1",))
    world = AlarmWorld(AlertingSettings(maintenance={"night": work}))
    world.now_ns = moment_ns("2026-11-30T02:10")
    (hidden,) = world.told(world.report("fan", "ams1"))
    assert hidden.suppressed == "planned-work"
    (back,) = world.told(seconds=3600)
    assert back.suppressed == ""


@pytest.mark.parametrize("kind", ["close", "acknowledge"])
def test_a_foreign_alarm_is_closed_by_hand_our_own_is_not(kind: str) -> None:
    world = AlarmWorld()
    (own,) = world.tick([world.silence(world.series("exporter", exporter="127.1.0.1"))])
    (foreign,) = world.told(world.report("linkDown", "x9"))
    said = world.told(world.act(kind, alarms=[own.id, foreign.id], by="ann"))
    states = {a.id: a.state for a in said}
    if kind == "close":
        assert states == {foreign.id: "cleared"}
    else:
        assert states == {own.id: "raised", foreign.id: "raised"}


def test_what_is_up_is_shown_before_the_next_tick_of_views() -> None:
    world = AlarmWorld()
    world.told(world.report("linkDown", "ams1", "critical"), world.report("fan", "fra2"))
    value = world.context.metrics.value
    assert (
        value("alarms_active", severity="critical") == value("alarms_active", severity="major") == 1
    )
    assert value("incidents_open") == 2
    world.told(world.report("linkDown", "ams1", "cleared"))
    assert (value("alarms_active"), value("incidents_open")) == (1, 1)
