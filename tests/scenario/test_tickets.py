"""Tickets and incidents stay in step through a ticket system that loses, delays, merges and repeats."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.orders import Orders
from telemetry.identity import id_text
from tests.support.ticket_office import DIALECTS, SECOND, START, Office
from tests.support.ticket_server import OVER, TicketServer
from tocsin.testing.alarms import AlarmWorld

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes


@pytest.fixture
def server() -> Iterator[Callable[..., TicketServer]]:
    made: list[TicketServer] = []

    def make(**how: Any) -> TicketServer:
        made.append(TicketServer(**how))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(*given: Any, **more: Any) -> Office:
        made.append(Office(tmp_path, *given, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("kind", DIALECTS)
def test_exactly_one_ticket_for_each_incident_whatever_answers_are_lost(
    kind: str, server: Callable[..., TicketServer], office: Callable[..., Office], deep: bool
) -> None:
    many = (10_000 if deep else 500) // (1 if kind == "tmf621" else 5)
    peer = server(lose_every=20, slow_every=397)
    made = office(peer, kind)
    die = np.random.default_rng(7)
    numbers = list(range(1, many + 1))
    again = set(die.choice(numbers, many // 4, replace=False).tolist())
    made.incidents(numbers, "raised")
    for _ in range(20):  # the answers of some creates are lost on the way of a gate that dies
        made.courier.step()
    made.restart_gate()
    made.settle()
    made.incidents(numbers, "updated", severity="critical")
    made.incidents(numbers, "cleared")
    made.settle()
    assert {t.state for t in peer.tickets.values()} == {"resolved"}
    made.restart_gate()
    made.incidents(sorted(again), "raised")
    made.settle()
    by_id = {t.correlation: t for t in peer.tickets.values()}
    assert len(by_id) == len(peer.tickets) == many
    assert {n for n in numbers if by_id[id_text(n)].state == "open"} == again
    made.incidents(sorted(again)[::2], "cleared")
    made.settle()
    open_now = set(sorted(again)[1::2])
    for number in numbers:
        (ticket,) = peer.of(id_text(number))
        assert (ticket.state in OVER) == (number not in open_now)
        expected = ["open", "resolved"]
        expected += ["open"] if number in again else []
        expected += ["resolved"] if number in again and number not in open_now else []
        assert [
            s for s, before in zip(ticket.states, ["", *ticket.states], strict=False) if s != before
        ] == (expected)
        # No comment came twice, though its answer may have been lost.
        told = [text for _, _, text in ticket.notes]
        assert len(told) == len(set(told))
    assert peer.lost > many // 20
    assert all(row["state"] == "sent" for row in made.outbox.deliveries(100_000))


def test_a_create_that_acts_after_its_client_gave_up_makes_no_second_ticket(
    server: Callable[..., TicketServer], office: Callable[..., Office]
) -> None:
    """A queue in between lets a create through late: it is waited for, and not made again."""
    peer = server(late_every=3, slow_seconds=0.15)
    made = office(peer)
    numbers = list(range(1, 31))
    made.incidents(numbers, "raised")
    made.settle()
    while any(timer.is_alive() for timer in peer._timers):
        time.sleep(0.01)
    assert peer.late
    made.incidents(numbers, "updated", severity="critical")
    made.settle()
    for number in numbers:
        found = peer.of(id_text(number))
        assert [t.state for t in found].count("open") == 1, number
    made.incidents(numbers, "cleared")
    made.settle()
    assert all(t.state in OVER for t in peer.tickets.values())
    assert len(peer.tickets) == len(numbers)


def test_twins_that_came_about_all_the_same_are_closed_and_the_older_one_counts(
    server: Callable[..., TicketServer], office: Callable[..., Office]
) -> None:
    peer = server()
    made = office(peer)
    made.incidents([1], "raised")
    made.settle()
    twin = peer._make(correlation=id_text(1), title="incident 1", severity="major")
    made.incidents([1], "updated", severity="critical")
    made.settle()
    one = peer.of(id_text(1))[0]
    assert (one.state, one.severity, twin.state) == ("open", "critical", "resolved")
    assert "Duplicate of" in twin.notes[0][2]


def test_tickets_that_people_merged_close_with_the_last_of_their_incidents(
    server: Callable[..., TicketServer], office: Callable[..., Office]
) -> None:
    peer = server()
    made = office(peer)
    made.incidents([1, 2, 3], "raised")
    made.settle()
    one, two, three = (peer.of(id_text(n))[0] for n in (1, 2, 3))
    peer.merge(two.number, one.number)
    made.incidents([2], "updated", severity="critical")
    made.settle()
    assert two.state == "closed"  # what people closed stays closed
    made.incidents([1], "cleared")
    made.settle()
    assert one.state == "open"  # it stands for incident 2 as well
    made.incidents([2], "cleared")
    made.settle()
    assert (one.state, two.state, three.state) == ("resolved", "closed", "open")
    assert len(peer.tickets) == 3


@pytest.mark.parametrize("kind", DIALECTS)
def test_what_people_do_to_tickets_is_heard_once_and_what_we_did_is_not(
    kind: str, server: Callable[..., TicketServer], office: Callable[..., Office]
) -> None:
    peer = server()
    made = office(peer, kind)
    made.incidents([1, 2], "raised")
    made.settle()
    one, two = (peer.of(id_text(n))[0] for n in (1, 2))
    peer.set(one.number, state="taken")
    made.hear(lambda: len(made.orders) == 1)
    peer.note(one.number, "ann", "fibre crew is on its way <b>now</b>")
    made.hear(lambda: len(made.orders) == 2)
    peer.set(two.number, state="closed")
    made.hear(lambda: len(made.orders) == 3)
    made.incidents([1], "updated", severity="critical")  # ours: not heard
    made.settle()
    made.incidents([1], "cleared")
    made.settle()
    heard = made.clock.now_ns() + 120 * SECOND
    made.hear(lambda: made.clock.now_ns() > heard)
    assert [(o.do, o.id, o.by) for o in made.orders] == [
        ("acknowledge", id_text(1), f"ticket {one.number}"), ("comment", id_text(1), "ann"),
        ("close", id_text(2), f"ticket {two.number}"),
    ]  # fmt: skip
    assert made.orders[1].text == "fibre crew is on its way <b>now</b>"


def test_a_thousand_acknowledgements_and_clears_both_ways_make_no_echo(
    server: Callable[..., TicketServer], office: Callable[..., Office], deep: bool
) -> None:
    """People take tickets on and close them, operators acknowledge, the network clears: each change
    is told to the other side once and never comes back."""
    many = 1000 if deep else 200
    peer = server()
    made = office(peer)
    world = AlarmWorld(
        settings=AlertingSettings(wait_seconds=0.0, silent_hours_max=10_000.0), now_ns=START
    )
    desk = Orders(made.settings.sinks)

    def play(*given: Any) -> None:
        made.play(world, *given)

    def obey() -> int:
        orders, made.orders[:] = list(made.orders), []
        rows = desk.rows(orders)
        if rows:
            play(*(world.act(kind, **payload) for kind, payload in rows))
        return len(rows)

    names = [f"node{n}" for n in range(many)]
    for name in names:  # a minute apart: each an incident of its own
        play(world.report("linkDown", name))
        world.now_ns += 400 * SECOND
    assert len(peer.tickets) == many
    tickets = {t.title.rpartition(" ")[2]: t for t in peer.tickets.values()}
    theirs, ours = names[: many // 2], names[many // 2 :]
    for name in theirs:
        peer.set(tickets[name].number, state="taken")
    taken = 0

    def all_heard() -> bool:
        nonlocal taken
        taken += obey()
        return taken >= len(theirs)

    made.hear(all_heard)
    for name in ours:
        number = next(
            a for a in made.outbox.alarms(active_only=True, limit=10_000) if a["entity"] == name
        )
        play(world.act("acknowledge", alarm=number["id"], by="ann"))
    states = {
        a["entity"]: a["operator_state"] for a in made.outbox.alarms(active_only=True, limit=10_000)
    }
    assert set(states.values()) == {"acknowledged"}
    for name in names:
        play(world.report("linkDown", name, "cleared"))
    assert {t.state for t in peer.tickets.values()} == {"resolved"}
    quiet = made.clock.now_ns() + 300 * SECOND
    made.hear(lambda: made.clock.now_ns() > quiet)
    # Nothing that either side did was told back to it: no order beyond those of people, and on each
    # ticket the notes of a raise, (an acknowledgement of ours,) and a clear at most.
    assert obey() == 0
    assert taken == len(theirs)
    assert len(peer.tickets) == many
    for name, ticket in tickets.items():
        assert len(ticket.notes) <= (1 if name in theirs else 2), ticket.notes
        assert [s for s in ticket.states if s != "open"] == (
            ["taken", "resolved"] if name in theirs else ["resolved"]
        )


@pytest.mark.parametrize("kind", DIALECTS)
def test_an_operators_acknowledgement_goes_to_the_owner_and_counts_when_the_owner_says_so(
    kind: str, server: Callable[..., TicketServer], office: Callable[..., Office]
) -> None:
    """Half of them twice; the owner's yes comes back once, and nothing after it."""
    peer = server()
    owners = {"traps": "tickets"}
    made = office(peer, kind, owners=owners, sinks={"other": SinkSettings(kind="stdout")})
    world = AlarmWorld(AlertingSettings(wait_seconds=0.0, owners=owners), now_ns=START)
    desk = Orders(made.settings.sinks)
    names = [f"node{n}" for n in range(10)]

    def play(*given: Any) -> None:
        made.play(world, *given)

    def states() -> set[str]:
        found = made.outbox.alarms(active_only=True, limit=100)
        return {str(alarm["operator_state"]) for alarm in found}

    for name in names:
        play(world.report("linkDown", name))
        world.now_ns += 400 * SECOND
    sent = len(made.outbox.deliveries(1000))
    alarms = [str(a["id"]) for a in made.outbox.alarms(active_only=True, limit=100)]
    for alarm in [*alarms, *alarms[::2]]:
        play(world.act("acknowledge", alarm=alarm, by="ann"))
    assert states() == {"acknowledge_asked"}
    # Only the owner was asked, and once.
    assert len(made.outbox.deliveries(1000)) == sent + len(names)
    assert {t.state for t in peer.tickets.values()} == {"taken"}
    made.hear(lambda: len(made.orders) >= len(names))
    assert {o.do for o in made.orders} == {"acknowledge"}
    orders, made.orders[:] = list(made.orders), []
    play(*(world.act(what, **payload) for what, payload in desk.rows(orders)))
    assert states() == {"acknowledged"}
    quiet = made.clock.now_ns() + 300 * SECOND
    made.hear(lambda: made.clock.now_ns() > quiet)
    assert desk.rows(made.orders) == []
    assert {len(t.notes) for t in peer.tickets.values()} == {1}
