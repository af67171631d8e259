"""Who is told of each change: told until the end, limits with a summary, escalation, approval."""

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

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
START = 1_764_072_000 * SECOND  # Tuesday, 12:00 UTC


class World:
    """An outbox fed with alarm rows as a test states them."""

    def __init__(self, path: Path, settings: AlertingSettings) -> None:
        self.now_ns = START
        self._made = path, settings, make_context("outbox", clock=ManualClock(START))
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
        self._tick += 1
        row = {
            "changed_ns": self.now_ns + self._tick, "incident_id": number, "opened_ns": START,
            "closed_ns": self.now_ns if state == "cleared" else 0, "state": state, "severity": "major",
            "title": "an incident", "causes": "[]", "alarms": "[]", "lead_alarm_id": lead,
            "kind": "link-cut", "entity": "e", "event_type": "communicationsAlarm",
            "probable_cause": "lossOfSignal", "symptoms": "[]", "alarms_count": 2, "explain": "{}",
            "occurrence": 1, "operator_state": "none", "source": "tocsin",
        } | fields  # fmt: skip
        batch = batch_from_rows(INCIDENT, [row])
        self.outbox.commit(self._tick, [], self.now_ns, incidents=[batch])
        return batch

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


def test_beyond_the_limit_one_summary_a_minute_says_how_many_and_of_what(
    world: Callable[..., World],
) -> None:
    made = world({"pager": {"rate_per_minute": 3}, "log": {}})
    made.changes([(n, "raised") for n in range(1, 51)])
    got = made.take()
    assert [one for one in got if one[0] == "pager"] == [
        ("pager", f"{n}", "raised") for n in (1, 2, 3)
    ]
    assert (
        len([one for one in got if one[0] == "log"]) == 50
    )  # one that has no limit is told of all
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


def test_an_action_waits_for_approval_and_its_end_does_not(world: Callable[..., World]) -> None:
    made = world({"filter": {"approval": True}})
    made.changes([(1, "raised"), (2, "raised"), (3, "raised")])
    assert made.take() == []
    held = {str(row["alarm"]).lstrip("0"): int(row["number"]) for row in made.outbox.deliveries()}
    assert made.outbox.decide(held["1"], approve=True, by="ann", now_ns=made.now_ns)
    assert not made.outbox.decide(held["1"], approve=True, by="ann", now_ns=made.now_ns)
    assert made.outbox.decide(held["2"], approve=False, by="bob", now_ns=made.now_ns)
    assert made.take() == [("filter", "1", "raised")]
    made.changes([(1, "cleared"), (2, "cleared"), (3, "cleared")])
    assert made.take() == [("filter", "1", "cleared")]  # the others were never done
    states = {str(row["alarm"]).lstrip("0"): row["state"] for row in made.outbox.deliveries()[-3:]}
    assert states == {"1": "sent", "2": "rejected", "3": "superseded"}
    said = [(row["who"], row["what"]) for row in made.outbox.audit()]
    assert said == [
        ("tocsin", "done"),
        ("tocsin", "done"),
        ("bob", "rejected"),
        ("ann", "approved"),
    ]


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
