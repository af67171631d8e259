"""What is asked for is understood wholly or refused; what is journalled all the same ends nothing."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.asked import KINDS, check
from alerting.config import AlertingSettings, MaintenanceSettings
from alerting.life.triage import KIND as TRIAGE
from alerting.life.windows import Window
from alerting.records.alarm import NEVER_NS
from runtime.checkpoint import Snapshot
from telemetry.batch import batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import CONTROL
from tocsin.testing.alarms import START_NS, AlarmWorld

HOUR_NS = 3_600_000_000_000
LATE_NS = 10**19  # int64 cannot say it
# Each was answered "ok" once, and ended the node at once, at its next checkpoint or at its next start.
POISON: list[tuple[str, dict[str, Any], str]] = [
    ("silence", {"kinds": ["x"], "seconds": 8.64e10}, "seconds"),
    ("silence", {"kinds": ["x"], "seconds": 1e300}, "seconds"),
    ("silence", {"kinds": ["x"], "seconds": math.nan}, "seconds"),
    ("silence", {"kinds": ["x"], "seconds": math.inf}, "seconds"),
    ("silence", {"kinds": ["x"], "seconds": "soon"}, "seconds"),
    ("silence", {"kinds": ["x"], "end_ns": LATE_NS}, "end_ns"),
    ("silence", {"kinds": ["x"], "end_ns": 10**30}, "end_ns"),
    ("silence", {"kinds": [1], "seconds": 3600}, "kinds"),
    ("silence", {"kinds": ["x"], "seconds": 60, "days": [["mon"]]}, "days"),
    ("silence", {"kinds": ["x"], "seconds": 60, "name": {"a": 1}}, "name"),
    ("maintenance", {"nodes": ["a"], "seconds": 60, "days": ["mon"], "zone": "Europe/Wien"}, "zone"),
    ("maintenance", {"nodes": ["a"], "seconds": 60, "days": ["mon"], "zone": "America"}, "zone"),
    ("maintenance", {"nodes": ["a"], "seconds": 60, "days": ["mon"], "zone": "../x"}, "zone"),
    ("maintenance", {"nodes": ["a"], "days": ["mon"]}, "within a week"),
    ("maintenance", {"windows": ["ams1"]}, "windows.0"),
    ("maintenance", {"windows": 5}, "windows"),
    ("maintenance", {"windows": [{"cancelled": True}]}, "needs its name"),
    ("shelve", {"alarm": "ALARM", "seconds": 8.64e10}, "seconds"),
    ("shelve", {"alarm": "ALARM", "end_ns": 3 * LATE_NS}, "end_ns"),
    ("out_of_service", {"nodes": [["x"]]}, "nodes"),
    ("acknowledge", {"alarms": ["ALARM"], "until": [1]}, "until"),
    ("acknowledge", {"alarms": [17]}, "alarms"),
    ("expire", {"name": ["x"]}, "name"),
    ("feedback", {"incident": "00000000000000aa", "note": {}}, "note"),
]  # fmt: skip


def world_with_an_alarm() -> tuple[AlarmWorld, str]:
    world = AlarmWorld()
    (raised,) = world.told(world.report("linkDown", "ams1"))
    return world, raised.id


def restarted(world: AlarmWorld) -> AlarmWorld:
    """Return the world as it is after a clean stop and a start."""
    kept = Snapshot()
    world.stage.snapshot(kept)
    again = AlarmWorld(now_ns=world.now_ns)
    again.stage.restore(kept)
    return again


def refused(world: AlarmWorld) -> float:
    return world.context.metrics.value("operator_actions_total", fate="refused")


@pytest.mark.parametrize(("kind", "payload", "said"), POISON)
def test_what_cannot_be_meant_is_refused_and_ends_nothing_where_it_is_journalled(
    kind: str, payload: dict[str, Any], said: str
) -> None:
    world, alarm = world_with_an_alarm()
    payload = json.loads(json.dumps(payload).replace("ALARM", alarm))
    with pytest.raises(ConfigError, match=said):
        check(kind, payload, world.now_ns)
    world.told(world.act(kind, **payload))
    assert refused(world) == 1
    assert restarted(world).told(world.report("linkDown", "ams1", "critical"))


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("silence", {"kinds": ["x"], "second": 5}, "must end"),
        ("silence", {"kind": ["x"], "seconds": 5}, "what it is about"),
        ("silence", {"kinds": ["x"], "node": ["r1"], "seconds": 5}, "did you mean 'nodes'"),
        ("maintenance", {}, "what it is about"),
        ("maintenance", {"windows": [{"nodes": ["r1"], "form": 1}]}, "unknown key 'form'"),
        ("maintenance", {"nodes": ["r1"], "start_ns": 5, "end_ns": 5}, "ends before it begins"),
        ("maintenance", {"nodes": ["r1"], "seconds": 60, "days": ["Mon"]}, "one of 'mon'"),
        ("silence", {"kinds": ["x"], "end_ns": START_NS - 1}, "ends before it begins"),
    ],
)
def test_what_would_do_something_else_than_was_meant_is_refused(
    kind: str, payload: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check(kind, payload, START_NS)


def test_one_name_may_stand_for_a_list_of_one() -> None:
    world = AlarmWorld()
    payload = {"windows": [{"nodes": "ams1", "seconds": 60, "days": "tue"}]}
    check("maintenance", payload, world.now_ns)
    world.told(world.act("maintenance", **payload))
    (window,) = world.stage.windows()
    assert (window.nodes, window.days) == (("ams1",), ("tue",))


def test_an_alarm_is_shelved_until_a_moment_as_well_as_for_a_while() -> None:
    world, alarm = world_with_an_alarm()
    payload = {"alarm": alarm, "end_ns": world.now_ns + HOUR_NS}
    check("shelve", payload, world.now_ns)
    (shelved,) = world.told(world.act("shelve", **payload))
    assert shelved.operator_state == "shelved"
    (back,) = world.told(seconds=3600)
    assert back.operator_state == "none"


def test_what_there_is_no_room_for_is_refused_before_it_is_journalled() -> None:
    world = AlarmWorld(AlertingSettings(windows_max=3))
    named = [{"name": name, "nodes": "ams1", "seconds": 60} for name in ("a", "b", "c", "d")]
    with pytest.raises(ConfigError, match="3 windows are kept"):
        world.stage.check("maintenance", {"windows": named}, world.now_ns)
    world.stage.check("maintenance", {"windows": named[:3]}, world.now_ns)
    world.told(world.act("maintenance", windows=named[:3]))
    world.stage.check("maintenance", named[0], world.now_ns)  # in place of the one of its name
    with pytest.raises(ConfigError, match="`tocsin alarm expire NAME` ends one"):
        world.stage.check("silence", {"kinds": ["fan"], "seconds": 60}, world.now_ns)
    world.told(seconds=2 * 86_400)
    world.stage.check("silence", {"kinds": ["fan"], "seconds": 60}, world.now_ns)
    world.told(world.act("silence", kinds=["fan"], seconds=60))
    assert refused(world) == 0


def test_an_alarm_named_twice_is_split_off_once() -> None:
    world = AlarmWorld()
    raised = world.told(*(world.report(kind, "ams1") for kind in ("fan", "door", "psu")))
    (one,) = world.notices(seconds=30)
    twice = world.act("split", incident=one.incident, alarms=[raised[0].id] * 2)
    assert len({notice.incident for notice in world.notices(twice, seconds=30)}) == 2
    assert refused(world) == 0


def test_rows_that_are_no_payload_at_all_are_passed_over() -> None:
    world = AlarmWorld()
    rows = [
        {"tick_start_ns": 0, "kind": "silence", "payload": text} for text in ("", "[]", "7", "{")
    ]
    world.told(batch_from_rows(CONTROL, rows))
    assert refused(world) == 4


def test_a_state_with_windows_that_cannot_be_is_taken_back_without_them() -> None:
    """As versions wrote it that did not look closely: their nodes never started again."""
    world = AlarmWorld()
    world.told(world.act("silence", name="good", kinds=["fan"], seconds=3600))
    bad = [
        Window("typed", "silence", 0, NEVER_NS, kinds=(1,)),  # type: ignore[arg-type]
        Window("late", "silence", 0, LATE_NS, kinds=("x",)),
        Window("zone", "planned-work", 0, HOUR_NS, days=("mon",), zone="Europe/Wien"),
        Window("folder", "planned-work", 0, HOUR_NS, days=("mon",), zone="America"),
        Window("long", "planned-work", 0, NEVER_NS, days=("mon",)),
        Window("day", "planned-work", 0, HOUR_NS, days=("Montag",)),
    ]
    world.stage._windows._all.update({one.name: one for one in bad})
    again = restarted(world)
    assert [one.name for one in again.stage.windows()] == ["good"]
    assert refused(again) == len(bad)


def test_works_of_the_configuration_are_as_it_says_now_after_a_restart() -> None:
    def played(minutes: int) -> AlarmWorld:
        work = MaintenanceSettings(start="02:00", minutes=minutes, days=("mon",), routers=("ams1",))
        return AlarmWorld(AlertingSettings(maintenance={"night": work}))

    kept = Snapshot()
    played(60).stage.snapshot(kept)
    again = played(90)
    again.stage.restore(kept)
    (window,) = again.stage.windows()
    assert window.end_ns - window.start_ns == 90 * 60 * 10**9
    gone = AlarmWorld()
    gone.stage.restore(kept)
    assert gone.stage.windows() == []


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)  # fmt: skip
SENSIBLE: dict[str, list[Any]] = {
    "nodes": [["ams1"], "lon1", []], "sites": [["ams1", "ams1"]], "objects": [["ams1-fra2", "x"]],
    "kinds": [["linkDown"]], "name": ["", "n"], "behind": [True], "start_ns": [0, START_NS + HOUR_NS, LATE_NS],
    "end_ns": [0, START_NS + HOUR_NS, 1 << 62, NEVER_NS], "seconds": [0, 0.5, 3600, 315360000, 1e11],
    "days": ["mon", ["tue", "sun"]], "zone": ["Europe/Vienna", "America"], "cancelled": [True], "over": [True],
    "until": ["worse"], "verdict": ["false", "x"], "incident": ["00000000000000aa"], "alarms": [[]],
    "windows": [[], [{"nodes": "a"}], [{"links": "b", "seconds": 60}, {"name": "n", "cancelled": True}]],
}  # fmt: skip
FIELDS = st.lists(
    st.one_of(
        [
            st.tuples(
                st.just(name), st.one_of(st.sampled_from(values), st.sampled_from(values), ANY)
            )
            for name, values in SENSIBLE.items()
        ]
    ),
    max_size=3,
).map(dict)


@given(st.sampled_from([kind for kind in KINDS if kind != TRIAGE]), FIELDS)
def test_whatever_is_sent_is_refused_or_done_and_survives_a_restart(
    kind: str, payload: dict[str, Any]
) -> None:
    world, alarm = world_with_an_alarm()
    good = {"alarm": alarm, "seconds": 60, "nodes": ["ams1"], "name": "n", "verdict": "true"}
    named = {"merge": {"incidents": [alarm]}, "split": {"incident": alarm}}
    payload = good | named.get(kind, {}) | payload
    try:
        msgspec.msgpack.encode(payload)
        check(kind, payload, world.now_ns)
        meant = True
    except (ConfigError, OverflowError, UnicodeEncodeError):
        meant = False
    world.told(world.act(kind, **payload))
    if meant:
        assert refused(world) == 0
    again = restarted(world)
    again.told(again.report("linkDown", "ams1", "critical"), seconds=10)
