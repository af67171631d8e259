"""What is asked of sinks that act on the network, and when: approval, ends, limits, the audit of it."""

import logging
from collections.abc import Callable

import pytest

from alerting.words.delivery import Verdict
from tests.unit.alerting.test_telling import MINUTE, World
from tests.unit.alerting.test_telling import world as world  # a fixture

COMMAND = {"kind": "command", "path": "unused"}


def states(made: World) -> list[str]:
    """Return the states of all deliveries, the oldest first."""
    return [str(row["state"]) for row in reversed(made.outbox.deliveries())]


def noted(made: World) -> list[tuple[str, str]]:
    """Return the audit, the oldest first."""
    return [(row["who"], row["what"]) for row in reversed(made.outbox.audit())]


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
        ("tocsin", "cancelled"),
        ("tocsin", "done"),
        ("bob", "rejected"),
        ("ann", "approved"),
        *[("tocsin", "asked")] * 3,
    ]


def test_an_action_on_a_merged_incident_is_asked_for_anew(world: Callable[..., World]) -> None:
    made = world({"filter": {"approval": True, "send": "incidents"}})
    made.incident(0xA, "raised", 1)
    (held,) = made.outbox.deliveries()
    assert made.outbox.decide(int(held["number"]), approve=True, by="ann", now_ns=made.now_ns)
    assert made.take() == [("filter", "a", "raised")]
    made.incidents([(0xA, "cleared", 1, {"parent_incident_id": 0xB}), (0xB, "updated", 2, {})])
    assert made.take() == [("filter", "a", "cleared")]
    assert [row["state"] for row in made.outbox.deliveries() if str(row["alarm"])[-1] == "b"] == [
        "held"
    ]


def test_an_action_is_not_handed_on_to_what_its_incident_became_part_of(
    world: Callable[..., World],
) -> None:
    """That one is about something else: it would be acted on though nobody routed it there."""
    made = world({"filter": COMMAND | {"send": "incidents", "kinds": ("volumetric-attack",)}})
    made.incidents([(0xA, "raised", 1, {"kind": "volumetric-attack"})])
    assert made.take() == [("filter", "a", "raised")]
    made.incidents([(0xA, "cleared", 1, {"parent_incident_id": 0xB}), (0xB, "updated", 2, {})])
    made.incident(0xB, "cleared", 2)
    assert made.take() == [("filter", "a", "cleared")]


def test_what_was_rejected_is_not_asked_again_while_its_alarm_is_up(
    world: Callable[..., World],
) -> None:
    made = world({"filter": {"approval": True}})
    made.change(1, "raised")
    assert made.outbox.decide(1, approve=False, by="bob", now_ns=made.now_ns)
    for _ in range(3):
        made.change(1, "updated")
    assert states(made) == ["rejected"]
    made.change(1, "cleared")
    assert (made.take(), states(made)) == ([], ["rejected"])  # never done, nothing to undo
    made.change(1, "raised")
    assert states(made) == ["rejected", "held"]


def test_the_undoing_of_a_raise_that_fails_does_not_wait_for_it(
    world: Callable[..., World],
) -> None:
    """A program that ran out of time may have announced its route: it is withdrawn at once."""
    made = world({"filter": COMMAND}, attempts_max=50)
    made.change(1, "raised")
    (due,) = made.outbox.due(made.now_ns, 10)
    failed = Verdict(number=due.number, key=due.key, sent=False, answer="did not end within 10 s")
    made.outbox.mark([failed], made.now_ns)
    assert made.outbox.due(made.now_ns, 10) == []  # it waits for its next attempt
    made.change(1, "cleared")
    assert made.take() == [("filter", "1", "cleared")]
    assert states(made) == ["superseded", "sent"]
    assert [what for _, what in noted(made)] == ["failed", "cancelled", "done"]


def test_an_undoing_that_fails_is_never_given_up(world: Callable[..., World]) -> None:
    made = world({"filter-1": COMMAND}, attempts_max=3)
    made.change(1, "raised")
    made.take()
    made.changes([(1, "cleared"), (2, "raised")])
    for _ in range(10):
        made.now_ns += 10 * MINUTE
        failed = [
            Verdict(number=d.number, key=d.key, sent=False) for d in made.outbox.due(made.now_ns, 9)
        ]
        made.outbox.mark(failed, made.now_ns)
    assert states(made) == ["sent", "waiting", "given_up"]


def test_what_an_action_did_while_its_alarm_ended_is_in_the_audit(
    world: Callable[..., World],
) -> None:
    made = world({"filter": COMMAND})
    made.change(1, "raised")
    (due,) = made.outbox.due(made.now_ns, 10)  # a sink is at it
    made.change(1, "cleared")
    done = Verdict(number=due.number, key=due.key, sent=True, answer="done: announce")
    made.outbox.mark([done], made.now_ns)
    assert noted(made) == [("tocsin", "cancelled"), ("tocsin", "done")]
    assert made.outbox.audit()[0]["answer"] == "done: announce"
    assert states(made) == ["superseded", "waiting"]


def test_a_summary_of_what_is_over_the_limit_is_no_order_to_act(
    world: Callable[..., World],
) -> None:
    for settings in (COMMAND, {"approval": True}):
        made = world({"filter": {**settings, "rate_per_minute": 1}})
        made.changes([(number, "raised") for number in range(1, 4)])
        made.take()
        made.now_ns += MINUTE
        assert [what for _, what, _ in made.take()] == []
        assert len(made.outbox.deliveries()) == 1


def test_the_audit_is_in_the_log_as_well(
    world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    made = world({"filter": {"approval": True}})
    with caplog.at_level(logging.INFO):
        made.change(1, "raised")
        made.outbox.decide(1, approve=True, by="ann\nforged=1", now_ns=made.now_ns)
    said = [record.getMessage() for record in caplog.records if "action_noted" in record.msg]
    assert [line.split("what=")[1].split()[0] for line in said] == ["asked", "approved"]
    assert not any("\n" in line for line in said)


def test_the_end_of_what_was_tried_is_not_given_up_for_others_that_wait(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerting.outbox.outbox.TRIM_EVERY_TICKS", 1)
    made = world({"filter": COMMAND}, waiting_max=3)
    made.changes([(1, "raised")])
    assert made.take() == [("filter", "1", "raised")]
    made.changes([(1, "cleared")])
    for number in range(2, 9):
        made.changes([(number, "raised")])
    assert states(made) == ["sent", "waiting", *["given_up"] * 4, *["waiting"] * 3]
