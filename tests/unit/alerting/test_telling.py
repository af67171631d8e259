"""Who is told of each change: told until the end, limits with a summary, escalation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.config import AlertingSettings, RouteSettings, SinkSettings, TimesSettings
from alerting.outbox.outbox import Outbox
from alerting.outbox.routes import Router
from alerting.words.alert import Alert
from alerting.words.delivery import Verdict
from runtime.clock import ManualClock
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import ALARM, INCIDENT
from tocsin.testing import make_context
from tocsin.testing.alarms import START_NS, AlarmWorld

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
START = 1_764_072_000 * SECOND  # Tuesday, 12:00 UTC


class World:
    """An outbox fed with alarm rows as a test states them."""

    def __init__(self, path: Path, settings: AlertingSettings) -> None:
        self.now_ns = START
        self.context = make_context("outbox", clock=ManualClock(START))
        self._made = path, settings, self.context
        self.outbox = Outbox(*self._made)
        self.outbox.start()
        self._tick = 0

    def change(self, number: int, state: str, **fields: Any) -> None:
        self.changes([(number, state)], **fields)

    def changes(self, changes: list[tuple[int, str]], **fields: Any) -> None:
        self._tick += 1
        rows = [self._row(n, s, fields) for n, s in changes]
        self.outbox.commit(self._tick, [batch_from_rows(ALARM, rows)], self.now_ns)

    def _row(self, number: int, state: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "changed_ns": self.now_ns + self._tick, "alarm_id": number, "raised_ns": START,
            "cleared_ns": self.now_ns if state == "cleared" else 0, "state": state,
            "severity": "major", "kind": "link-cut", "event_type": "communicationsAlarm",
            "probable_cause": "lossOfSignal", "entity": f"e{number}", "explain": "{}",
            "specific_problem": f"link {number}", "occurrence": 1, "operator_state": "none",
            "source": "tocsin",
        } | fields  # fmt: skip

    def incident(self, number: int, state: str, lead: int, **fields: Any) -> Batch:
        return self.incidents([(number, state, lead, fields)])

    def incidents(
        self, changes: list[tuple[int, str, int, dict[str, Any]]], *, heirs_apart: bool = False
    ) -> Batch:
        """`heirs_apart`: they come with a later part of the tick, as where there are many."""
        self._tick += 1
        rows = [self._incident(*one) for one in changes]
        parts = [rows]
        if heirs_apart:
            parts = [[row for row in rows if "parent_incident_id" in row]]
            parts.append([row for row in rows if row not in parts[0]])
        batches = [batch_from_rows(INCIDENT, part) for part in parts]
        self.outbox.commit(self._tick, [], self.now_ns, incidents=batches)
        return batches[0]

    def _incident(
        self, number: int, state: str, lead: int, fields: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "changed_ns": self.now_ns + self._tick, "incident_id": number, "opened_ns": START,
            "closed_ns": self.now_ns if state == "cleared" else 0, "state": state, "severity": "major",
            "title": "an incident", "causes": "[]", "alarms": "[]", "lead_alarm_id": lead,
            "kind": "link-cut", "entity": "e", "event_type": "communicationsAlarm",
            "probable_cause": "lossOfSignal", "symptoms": "[]", "alarms_count": 2, "explain": "{}",
            "occurrence": 1, "operator_state": "none", "source": "tocsin",
        } | fields  # fmt: skip

    def restart(self) -> None:
        self.outbox.stop()
        self.outbox = Outbox(*self._made)
        self.outbox.start()

    def take(self, *, sent: bool = True) -> list[tuple[str, str, str]]:
        """Deliver all that is due, in turns; return (sink, alarm, state)."""
        made = []
        while due := self.outbox.due(self.now_ns, 1000):
            for delivery in due:
                alert = msgspec.json.decode(delivery.body, type=Alert)
                made.append((delivery.sink, delivery.alarm.lstrip("0"), alert.state))
            self.outbox.mark(
                [Verdict(number=d.number, key=d.key, sent=sent) for d in due], self.now_ns
            )
        return made


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    made: list[World] = []

    def make(sinks: dict[str, dict[str, Any]], **more: Any) -> World:
        settings = AlertingSettings(
            sinks={
                name: SinkSettings(**{"kind": "stdout", "send": "alarms", **one})
                for name, one in sinks.items()
            },
            **more,
        )
        made.append(World(tmp_path / f"{len(made)}.sqlite", settings))
        return made[-1]

    return make


def test_a_sink_that_was_told_hears_the_end_whatever_its_route_says_by_then(
    world: Callable[..., World],
) -> None:
    office = TimesSettings(start="11:00", end="13:00")
    made = world(
        {"day": {}, "rest": {}}, times={"office": office},
        routes={"day": RouteSettings(times=("office",), to=("day",)), "rest": RouteSettings(to=("rest",))},
    )  # fmt: skip
    made.change(1, "raised")
    assert made.take() == [("day", "1", "raised")]
    made.now_ns += 3 * 60 * MINUTE
    made.change(1, "updated", severity="critical")
    assert sorted(made.take()) == [("day", "1", "updated"), ("rest", "1", "updated")]
    made.change(1, "cleared")
    assert sorted(made.take()) == [("day", "1", "cleared"), ("rest", "1", "cleared")]
    made.change(1, "raised")
    assert made.take() == [("rest", "1", "raised")]


def test_who_was_not_told_of_a_raise_is_not_told_of_its_end(world: Callable[..., World]) -> None:
    made = world({"grave": {"least_severity": "critical"}})
    made.change(1, "raised")
    made.change(1, "cleared", severity="critical")
    assert made.take() == []


def test_a_sink_that_is_no_more_is_told_of_nothing(
    world: Callable[..., World], tmp_path: Path
) -> None:
    made = world({"old": {}})
    made.change(1, "raised")
    assert made.take() == [("old", "1", "raised")]
    made.outbox.stop()
    settings = AlertingSettings(
        sinks={"new": SinkSettings(kind="stdout", send="alarms", kinds=("fan",))}
    )
    later = World(tmp_path / "0.sqlite", settings)
    later.changes([(2, "raised")])
    later.change(1, "updated")
    later.change(1, "cleared")
    assert later.take() == []


def test_beyond_the_limit_one_summary_a_minute_says_how_many_and_of_what(
    world: Callable[..., World],
) -> None:
    made = world({"pager": {"rate_per_minute": 3}, "log": {}})
    made.changes([(n, "raised") for n in range(1, 51)])
    got = made.take()
    assert [one for one in got if one[0] == "pager"] == [
        ("pager", f"{n}", "raised") for n in (1, 2, 3)
    ]
    # One that has no limit is told of all.
    assert len([one for one in got if one[0] == "log"]) == 50
    made.now_ns += MINUTE
    ((sink, number, state),) = made.take()
    assert (sink, state) == ("pager", "raised")
    said = [
        a
        for a in (msgspec.json.decode(b, type=Alert) for b in bodies(made))
        if a.kind == "alert-storm"
    ]
    assert said[-1].title == "47 more alarms were not told one by one to pager: 47 link-cut"
    # What was never told is not cleared there either; the rest is, each by itself.
    made.changes([(n, "cleared") for n in range(1, 51)])
    assert [one for one in made.take() if one[0] == "pager"] == [
        ("pager", f"{n}", "cleared") for n in (1, 2, 3)
    ]
    made.now_ns += MINUTE
    assert made.take() == [("pager", number, "cleared")]
    made.now_ns += 10 * MINUTE
    assert made.take() == []


def bodies(made: World) -> list[str]:
    rows = made.outbox._rows(
        "select text as body from delivery join body on body.number = body order by delivery.number"
    )
    return [str(row["body"]) for row in rows]


def test_what_nobody_takes_on_is_told_to_the_next(world: Callable[..., World]) -> None:
    made = world(
        {"noc": {}, "chief": {}},
        routes={"a": RouteSettings(to=("noc",), escalate_minutes=15.0, escalate_to=("chief",))},
    )  # fmt: skip
    made.changes([(1, "raised"), (2, "raised"), (3, "raised")])
    made.take()
    made.now_ns += 10 * MINUTE
    made.change(1, "updated", operator_state="acknowledged", operator="ann")
    made.change(2, "cleared")
    assert {one[0] for one in made.take()} == {"noc"}
    made.now_ns += 5 * MINUTE - SECOND
    assert made.take() == []
    made.now_ns += SECOND
    assert made.take() == [("chief", "3", "raised")]
    made.now_ns += 60 * MINUTE
    assert made.take() == []
    made.change(3, "cleared")
    assert sorted(made.take()) == [("chief", "3", "cleared"), ("noc", "3", "cleared")]


def test_escalation_outlives_a_restart(world: Callable[..., World], tmp_path: Path) -> None:
    made = world(
        {"noc": {}, "chief": {}},
        routes={"a": RouteSettings(to=("noc",), escalate_minutes=1.0, escalate_to=("chief",))},
    )  # fmt: skip
    made.change(1, "raised")
    made.take()
    made.outbox.stop()
    made.outbox.start()
    made.now_ns += MINUTE
    assert made.take() == [("chief", "1", "raised")]


def test_an_incident_that_is_shelved_is_escalated_when_it_is_back(
    world: Callable[..., World],
) -> None:
    route = RouteSettings(to=("noc",), escalate_minutes=15.0, escalate_to=("boss",))
    w = world({"noc": {"send": "incidents"}, "boss": {"send": "incidents"}}, routes={"r": route})
    life = AlarmWorld()

    def play(*given: dict[str, Any] | Batch, seconds: float) -> list[tuple[str, str]]:
        made = life.second(*given, seconds=seconds)
        w.now_ns = START + life.now_ns - START_NS
        w._tick += 1
        parts = [[b for b in made if b.schema is one] for one in (ALARM, INCIDENT)]
        w.outbox.commit(w._tick, parts[0], w.now_ns, incidents=parts[1])
        return [(sink, state) for sink, _, state in w.take()]

    play(life.report("fan", "ams1"), seconds=1)
    assert play(seconds=60) == [("noc", "raised")]
    (fan,) = [alarm for alarm in life.stage._all() if alarm.up]
    shelved = life.act("shelve", incident=f"{fan.incident:016x}", seconds=7200, by="ann")
    assert play(shelved, seconds=60) == [("noc", "updated")]
    assert play(seconds=3600) == []
    assert play(seconds=3600) == [("noc", "updated")], "it is back"
    assert play(seconds=14 * 60) == []
    assert play(seconds=60) == [("boss", "updated")]


def test_an_incident_that_is_shelved_leaves_its_group_until_it_is_back(
    world: Callable[..., World],
) -> None:
    route = RouteSettings(to=("noc",), group_by=("kind",), repeat_minutes=60.0)
    made = world({"noc": {"send": "incidents"}}, routes={"r": route})

    def told(seconds: int) -> list[str]:
        made.now_ns += seconds * SECOND
        return [state for _, _, state in made.take()]

    made.incident(7, "raised", 1)
    assert told(31) == ["raised"]
    made.incident(7, "updated", 1, operator_state="shelved")
    assert told(301) == ["cleared"]
    made.incident(7, "updated", 1, operator_state="shelved", severity="critical")
    assert told(5 * 3600) == []
    made.incident(7, "updated", 1)
    assert told(31) == ["raised"]


def test_suppressed_alarms_are_told_to_nobody_until_they_are_not(
    world: Callable[..., World],
) -> None:
    made = world({"noc": {}})
    made.change(1, "raised", suppressed="planned-work")
    assert made.take() == []
    made.change(1, "updated")
    assert made.take() == [("noc", "1", "updated")]


def test_a_change_is_not_told_to_the_system_that_made_it(world: Callable[..., World]) -> None:
    made = world({"tickets": {}, "noc": {}})
    made.change(1, "raised")
    made.take()
    made.change(1, "updated", operator_state="acknowledged", origin="tickets")
    assert made.take() == [("noc", "1", "updated")]


def test_incidents_go_to_sinks_that_take_incidents_under_the_incidents_id(
    world: Callable[..., World],
) -> None:
    made = world({"tickets": {"send": "incidents"}, "log": {}})
    made.changes([(1, "raised"), (2, "raised")])
    made.incident(0xA, "raised", 1)
    assert sorted(made.take()) == [
        ("log", "1", "raised"),
        ("log", "2", "raised"),
        ("tickets", "a", "raised"),
    ]
    made.incident(0xA, "updated", 2)  # another alarm is its face now
    assert made.take() == [("tickets", "a", "updated")]
    made.incident(0xA, "cleared", 2)
    assert made.take() == [("tickets", "a", "cleared")]


LIS_AND_REST = {
    "lis": RouteSettings(entities=("lis*",), to=("lis",), goes_on=True),
    "rest": RouteSettings(to=("limited", "chat"), escalate_minutes=5.0, escalate_to=("boss",)),
}


@pytest.mark.parametrize("heirs_apart", [False, True])
@pytest.mark.parametrize("order", [(0xA, 0xB), (0xB, 0xA)])
def test_who_knew_of_a_merged_incident_hears_of_the_one_it_became_part_of(
    world: Callable[..., World], order: tuple[int, int], *, heirs_apart: bool
) -> None:
    """The link that it was about is still down: a clear and then nothing would be a lie."""
    left, gone = order
    told = {"send": "incidents"}
    made = world(
        {"lis": told, "limited": told | {"rate_per_minute": 1}, "boss": told, "chat": told},
        routes=LIS_AND_REST,
    )
    made.incident(gone, "raised", 1, entity="lis1")
    made.incident(left, "raised", 2, entity="ams1")
    names = {left: f"{left:x}", gone: f"{gone:x}"}
    assert sorted(made.take()) == sorted(
        [("lis", names[gone], "raised"), ("limited", names[gone], "raised"),
         ("chat", names[gone], "raised"), ("chat", names[left], "raised")]
    )  # fmt: skip
    made.incidents(
        sorted([(left, "updated", 2, {"entity": "ams1"}),
                (gone, "cleared", 1, {"parent_incident_id": left})]), heirs_apart=heirs_apart,
    )  # fmt: skip
    sinks = ("chat", "limited", "lis")
    assert sorted(made.take()) == sorted(
        [(sink, names[gone], "cleared") for sink in sinks]
        + [(sink, names[left], "updated") for sink in sinks]
    )
    made.restart()
    made.incident(left, "updated", 2, entity="ams1", severity="critical")
    assert sorted(made.take()) == [(sink, names[left], "updated") for sink in sinks]
    made.now_ns += 6 * MINUTE  # nobody took it on
    assert ("boss", names[left], "updated") in made.take()
    made.incident(left, "cleared", 2, entity="ams1")
    assert sorted(made.take()) == [
        (sink, names[left], "cleared") for sink in ("boss", "chat", "limited", "lis")
    ]


@pytest.mark.parametrize("heirs_apart", [False, True])
def test_incidents_that_are_merged_one_into_another_in_one_tick_leave_their_sinks_to_the_last(
    world: Callable[..., World], *, heirs_apart: bool
) -> None:
    made = world(
        {name: {"send": "incidents"} for name in ("a", "b", "c")},
        routes={name: RouteSettings(entities=(name,), to=(name,)) for name in ("a", "b", "c")},
    )
    for number, name in ((0xA, "a"), (0xB, "b"), (0xC, "c")):
        made.incident(number, "raised", number, entity=name)
    made.take()
    made.incidents(
        [(0xA, "cleared", 0xA, {"parent_incident_id": 0xB, "entity": "a"}),
         (0xB, "cleared", 0xB, {"parent_incident_id": 0xC, "entity": "b"}),
         (0xC, "updated", 0xC, {"entity": "c"})], heirs_apart=heirs_apart,
    )  # fmt: skip
    made.take()
    made.incident(0xC, "cleared", 0xC, entity="c")
    assert sorted(made.take()) == [(name, "c", "cleared") for name in ("a", "b", "c")]


def test_a_group_that_knew_of_a_merged_incident_goes_on(world: Callable[..., World]) -> None:
    grouped = RouteSettings(
        entities=("lis*",), group_by=("entity",), group_wait_seconds=10.0,
        group_interval_seconds=60.0, to=("chat",),
    )  # fmt: skip
    made = world({"chat": {"send": "incidents"}}, routes={"lis": grouped})
    made.incident(0xA, "raised", 1, entity="lis1")
    made.now_ns += 10 * SECOND
    assert [state for _, _, state in made.take()] == ["raised"]
    made.incidents([(0xA, "cleared", 1, {"entity": "lis1", "parent_incident_id": 0xB}),
                    (0xB, "updated", 2, {"entity": "ams1", "title": "ams1 down"})])  # fmt: skip
    made.now_ns += MINUTE
    (told,) = next_told(made)
    assert (told["state"], told["title"]) == ("updated", "ams1 down")
    made.incident(0xB, "cleared", 2, entity="ams1")
    made.now_ns += MINUTE
    assert [state for _, _, state in made.take()] == ["cleared"]


def test_an_alarm_that_is_held_back_counts_once_whatever_becomes_of_it(
    world: Callable[..., World],
) -> None:
    made = world({"pager": {"rate_per_minute": 2}})
    made.changes([(n, "raised") for n in range(1, 6)])
    made.take()
    for number in (3, 4, 5):
        made.change(number, "updated", operator_state="acknowledged")
    made.change(3, "cleared")
    made.now_ns += MINUTE
    assert [state for _, _, state in made.take()] == ["raised"]
    summary = json.loads(bodies(made)[-1])
    assert summary["title"].startswith(
        "3 more alarms were not told one by one to pager: 3 link-cut"
    )
    assert made.context.metrics.value("outbox_raises_held_total") == 3


GROUP = RouteSettings(group_by=("site", "kind"), group_wait_seconds=30.0, group_interval_seconds=300.0,
                      repeat_minutes=60.0, to=("chat",))  # fmt: skip


def at(site: str) -> str:
    return json.dumps({"site": site})


def next_told(world: World) -> list[dict[str, Any]]:
    """What the next deliveries say, each taken as sent."""
    due = world.outbox.due(world.now_ns, 100)
    world.outbox.mark(
        [Verdict(number=one.number, key=one.key, sent=True) for one in due], world.now_ns
    )
    return [json.loads(one.body) for one in due]


def test_what_touches_one_customer_is_told_as_one(world: Callable[..., World]) -> None:
    by_customer = msgspec.structs.replace(GROUP, group_by=("customer",))
    made = world({"chat": {}}, routes={"all": by_customer})
    for number, customers in ((1, ["bank"]), (2, ["bank"]), (3, ["bank", "hospital"])):
        made.change(number, "raised", explain=json.dumps({"impact": {"customers": customers}}))
    made.now_ns += MINUTE
    found = {b["explain"]["group"]["customer"]: b["alarms_count"] for b in next_told(made)}
    assert found == {"bank": 2, "bank, hospital": 1}


def test_alerts_of_a_group_are_told_as_one_after_its_wait_and_interval(
    world: Callable[..., World],
) -> None:
    made = world({"chat": {}}, routes={"all": GROUP})
    made.changes([(n, "raised") for n in (1, 2, 3)], explain=at("AMS"))
    made.change(4, "raised", explain=at("FRA"))
    assert made.take() == []  # they wait for company
    made.now_ns += MINUTE
    ams, fra = sorted(next_told(made), key=lambda b: -b["alarms_count"])
    assert (ams["state"], ams["alarms_count"], len(ams["symptoms"])) == ("raised", 3, 2)
    assert ams["title"].startswith("3 alerts (kind link-cut, site AMS): ")
    assert ams["explain"]["short"] == f"MAJOR {ams['title']}, since 25 Nov 12:00 UTC"
    assert (fra["alarms_count"], fra["explain"]["group"]["site"]) == (1, "FRA")
    made.change(5, "raised", explain=at("AMS"))
    made.change(1, "cleared", explain=at("AMS"))
    made.now_ns += 3 * MINUTE
    assert made.take() == []  # told at most so often
    made.now_ns += 2 * MINUTE
    (more,) = next_told(made)
    assert (more["id"], more["state"], more["alarms_count"]) == (ams["id"], "updated", 3)
    assert len(more["explain"]["ended"]) == 1
    made.now_ns += 61 * MINUTE  # nothing changed: it is told again
    again = {body["id"]: body["state"] for body in next_told(made)}
    assert again == {ams["id"]: "updated", fra["id"]: "updated"}
    for number in (2, 3, 5):
        made.change(number, "cleared", explain=at("AMS"))
    made.now_ns += 6 * MINUTE
    (over,) = next_told(made)
    assert (over["id"], over["state"], over["alarms_count"]) == (ams["id"], "cleared", 3)
    assert over["explain"]["short"].startswith(
        f"CLEARED {over['title']}, at 25 Nov 13:13 UTC; it lasted 73 min"
    )
    made.now_ns += 6 * MINUTE
    assert made.take() == []


def test_a_group_that_is_over_before_its_wait_is_told_to_nobody(
    world: Callable[..., World],
) -> None:
    made = world({"chat": {}}, routes={"all": GROUP})
    made.change(1, "raised", explain=at("AMS"))
    made.change(1, "cleared", explain=at("AMS"))
    made.now_ns += 2 * MINUTE
    assert made.take() == []


def test_groups_outlive_a_restart(world: Callable[..., World]) -> None:
    made = world({"chat": {}}, routes={"all": GROUP})
    made.changes([(n, "raised") for n in (1, 2)], explain=at("AMS"))
    made.restart()
    made.now_ns += MINUTE
    (told,) = next_told(made)
    assert told["alarms_count"] == 2


@pytest.mark.parametrize(
    ("route", "sink", "said"),
    [
        ({"group_by": ("colour",)}, {"kind": "stdout"}, "group_by 'colour' is none of entity"),
        (
            {"group_by": ("site",)},
            {"kind": "tmf621", "url": "http://x"},
            "takes each alert by itself",
        ),
    ],
)
def test_a_group_that_cannot_be_meant_is_refused(
    route: dict[str, Any], sink: dict[str, Any], said: str
) -> None:
    settings = AlertingSettings(
        sinks={"it": SinkSettings(**sink)}, routes={"all": RouteSettings(to=("it",), **route)}
    )
    with pytest.raises(ConfigError, match=said):
        Router(settings)
