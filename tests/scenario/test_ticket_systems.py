"""Ticket systems differ: in pages, notes, words and lengths; what people do there is never lost or undone."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alerting.config import SinkSettings
from alerting.orders import Orders
from alerting.sinks import make_sink
from alerting.sinks.tickets import Change
from alerting.sinks.tmf621 import TicketOptions, TroubleTickets
from telemetry.errors import TransientError
from telemetry.identity import id_text
from tests.support import ticket_server
from tests.support.http_emulator import Emulator, Reply
from tests.support.ticket_office import DIALECTS, SECOND, START, Office
from tests.support.ticket_server import Stored, TicketServer
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel

MakeOffice = Callable[..., tuple[TicketServer, Office]]
ONE = id_text(1)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[MakeOffice]:
    """Make an office before a ticket system that is as it is told."""
    made: list[Any] = []

    def make(kind: str = "tmf621", **how: Any) -> tuple[TicketServer, Office]:
        server = TicketServer(**how)
        office = Office(tmp_path, server, kind)
        made.extend((office.close, server.stop))
        return server, office

    yield make
    for end in made:
        end()


def first(office: Office, server: TicketServer) -> Stored:
    """Have a ticket of one incident, which was looked at."""
    office.incidents([1], "raised")
    office.settle()
    office.pass_by(60)
    (ticket,) = server.of(ONE)
    return ticket


def heard(office: Office) -> list[tuple[str, str]]:
    return [(order.do, order.text) for order in office.orders]


@pytest.mark.parametrize("notes", ["added", "replaced"])
def test_our_comments_take_nobody_elses_away(at: MakeOffice, notes: str) -> None:
    server, office = at(notes=notes)
    ticket = first(office, server)
    for who, text in (("ann", "crew on its way"), ("bob", "splice found")):
        server.note(ticket.number, who, text)
        office.pass_by(60)
    for severity in ("critical", "major"):
        office.incidents([1], "updated", severity=severity)
        office.settle()
    office.incidents([1], "cleared")
    office.settle()
    office.pass_by(60)
    assert [by for _, by, _ in ticket.notes] == ["ann", "bob", "tocsin", "tocsin", "tocsin"]
    assert heard(office) == [("comment", "crew on its way"), ("comment", "splice found")]


def test_notes_without_ids_are_each_heard_once(at: MakeOffice) -> None:
    server, office = at(notes="bare")
    ticket = first(office, server)
    for text in ("one", "two", "three"):
        server.note(ticket.number, "ann", text)
        office.pass_by(60)
    office.incidents([1], "updated", severity="critical")
    office.settle()
    office.pass_by(60)
    assert heard(office) == [("comment", text) for text in ("one", "two", "three")]


@pytest.mark.parametrize("kind", DIALECTS)
def test_comments_that_begin_alike_are_two(at: MakeOffice, kind: str) -> None:
    server, office = at(kind)
    ticket = first(office, server)
    texts = [
        f"Automatic update from the carrier's portal: splice {word}" for word in ("begun", "done")
    ]
    for text in texts:
        server.note(ticket.number, "ann", text)
    office.pass_by(60)
    rows = Orders(office.settings.sinks).rows(office.orders)
    assert [payload["note"] for _, payload in rows] == texts


@pytest.mark.parametrize("kind", DIALECTS)
def test_what_people_did_a_moment_before_our_own_change_is_heard(at: MakeOffice, kind: str) -> None:
    """Our change looks at the ticket first: what it saw was taken for known."""
    server, office = at(kind)
    ticket = first(office, server)
    server.note(ticket.number, "ann", "crew on its way")
    server.set(ticket.number, state="taken")
    office.incidents([1], "updated", title="it grows")
    office.settle()
    office.pass_by(60)
    server.set(ticket.number, state="closed")
    office.incidents([1], "updated", title="it grows more")
    office.settle()
    office.pass_by(60)
    assert heard(office) == [("comment", "crew on its way"), ("acknowledge", ""), ("close", "")]
    assert ticket.state == "closed"


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_severity_and_title_that_people_gave_are_theirs_until_ours_change(
    at: MakeOffice, kind: str
) -> None:
    server, office = at(kind)
    ticket = first(office, server)
    lower = {"severity": "minor"} if kind == "tmf621" else {"impact": "2", "urgency": "2"}
    server.set(ticket.number, title="Fibre cut at Halfweg", **lower)
    office.pass_by(60)
    assert heard(office) == [("severity", "minor")]
    office.incidents([1], "updated", alarms_count=4)
    office.settle()

    def stands() -> tuple[str, str]:
        (shown,) = make_sink(office.settings.sinks["tickets"])._desk.find(ONE)  # type: ignore[attr-defined]
        return shown.severity, shown.title

    assert stands() == ("minor", "Fibre cut at Halfweg")
    office.incidents([1], "updated", severity="critical", title="incident 1, worse")
    office.settle()
    assert stands() == ("critical", "incident 1, worse")


def test_severities_are_the_same_however_they_are_written(at: MakeOffice) -> None:
    server, office = at(severities=str.capitalize)
    first(office, server)
    office.incidents([1], "updated")
    office.settle()
    office.pass_by(60)
    assert heard(office) == []


def test_a_title_that_is_cut_there_is_the_same_title(at: MakeOffice) -> None:
    server, office = at(lose_every=2, title_max=255)
    office.incidents([1], "raised", title="x" * 300)
    office.settle()
    (ticket,) = server.of(ONE)
    assert ticket.notes == [], "a create whose answer was lost is all that there is to say"


@pytest.mark.parametrize("pages", [True, False])
def test_pages_smaller_than_asked_for_and_none_at_all_are_read_to_their_end(
    at: MakeOffice, pages: bool
) -> None:
    server, office = at(page_max=7, pages=pages)
    numbers = list(range(1, 31))
    office.incidents(numbers, "raised")
    office.settle()
    office.pass_by(60)
    for number in reversed(numbers):
        server.set(server.of(id_text(number))[0].number, state="taken")
    for _ in range(20):
        office.pass_by(60)
    assert {order.id for order in office.orders if order.do == "acknowledge"} == {
        id_text(number) for number in numbers
    }


@pytest.mark.parametrize("kind", DIALECTS)
def test_what_people_did_while_no_gate_was_there_is_heard(
    at: MakeOffice, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, office = at(kind)
    ticket = first(office, server)
    office.courier.stop()
    closed = datetime.fromtimestamp(office.clock.now_ns() / 1e9, UTC)
    form = "%Y-%m-%dT%H:%M:%S.000Z" if kind == "tmf621" else "%Y-%m-%d %H:%M:%S"
    monkeypatch.setattr(
        ticket_server, "_stamp", lambda count: (closed + timedelta(seconds=count)).strftime(form)
    )
    server.set(ticket.number, state="closed")
    office.clock.set_ns(office.clock.now_ns() + 8 * 3600 * SECOND)
    office.courier = office._courier()
    office.pass_by(60)
    assert heard(office) == [("close", "")]


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_new_gate_knows_what_we_closed_from_what_people_did(at: MakeOffice, kind: str) -> None:
    server, office = at(kind)
    first(office, server)
    office.incidents([1], "cleared")
    office.settle()
    office.restart_gate()
    office.pass_by(60)
    assert heard(office) == []


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("tmf621", b'[{"id": "1", "externalId": "%s", "note": 5}]'),
        ("tmf621", b'[{"id": "1", "externalId": "%s", "note": ["x"]}]'),
        (
            "tmf621",
            b'[{"id": "1", "externalId": "%s", "status": "closed", "troubleTicketRelationship": ["x"]}]',
        ),
        ("tmf621", b'["x"]'),
        ("tmf621", b'[{"externalId": "%s"}]'),
        ("servicenow-incident", b'{"result": [5]}'),
        ("servicenow-incident", b'{"result": [null]}'),
        ("servicenow-incident", b'{"result": [{"correlation_id": "%s"}]}'),
        ("servicenow-incident", b'{"result": [{"sys_id": {}}]}'),
    ],
)
def test_an_answer_of_another_shape_is_nonsense_and_nothing_worse(kind: str, answer: bytes) -> None:
    alert = checks_sink.alerts()[0]
    said = answer.replace(b"%s", alert.id.encode())
    peer = Emulator(lambda _: Reply(200, said))
    try:
        settings = SinkSettings(kind=kind, url=peer.url, timeout_seconds=2.0)
        for ask in ("send", "hear"):
            sink: Any = make_sink(settings)
            try:
                if ask == "send":
                    sink.send([parcel(alert)], now_ns=NOW_NS)
                else:
                    sink.hear(now_ns=NOW_NS)
            except TransientError:
                pass
    finally:
        peer.close()


def test_comments_of_many_records_are_asked_for_at_once(at: MakeOffice) -> None:
    """One question for each record: with a thousand of them, a minute in which nothing is sent."""
    server, office = at("servicenow-incident")
    numbers = list(range(1, 61))
    office.incidents(numbers, "raised")
    office.settle()
    for number in numbers:
        server.note(server.of(id_text(number))[0].number, "ann", f"note {number}")
    sink: Any = make_sink(office.settings.sinks["tickets"])
    asked = next(server._requests)
    orders = sink.hear(now_ns=START)
    assert sorted(order.text for order in orders) == sorted(f"note {n}" for n in numbers)
    assert next(server._requests) - asked < 10


def test_what_was_heard_while_sending_is_told_where_changes_cannot_be_listed(
    at: MakeOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, office = at()
    ticket = first(office, server)
    sink: Any = office.courier._lanes["tickets"].sink

    def refuses(mark: str, now_ns: int) -> Any:
        raise TransientError("403")

    monkeypatch.setattr(sink._desk, "changed_since", refuses)
    server.note(ticket.number, "ann", "crew on its way")
    office.incidents([1], "updated", title="it grows")
    office.settle()
    office.hear(lambda: bool(office.orders))
    assert heard(office) == [("comment", "crew on its way")]
    office.hear(lambda: office.courier.health() == "sink tickets fails: 403")


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_new_gate_closes_no_ticket_that_stands_for_another_incident_as_well(
    at: MakeOffice, kind: str
) -> None:
    server, office = at(kind)
    office.incidents([1, 2, 3], "raised")
    office.settle()
    one, two, three = (server.of(id_text(n))[0] for n in (1, 2, 3))
    server.merge(two.number, one.number)
    office.pass_by(60)
    office.restart_gate()
    office.incidents([1, 3], "cleared")
    office.settle()
    assert (one.state, two.state, three.state) == ("open", "closed", "resolved")
    office.incidents([2], "cleared")
    office.settle()
    assert (one.state, two.state) == ("resolved", "closed")


@pytest.mark.parametrize("kind", DIALECTS)
def test_two_networks_that_tell_one_system_keep_their_tickets_apart(
    kind: str, tmp_path: Path
) -> None:
    """Ids are made of what a fault is about: the same address fails in both, and its ticket was one."""
    server = TicketServer()
    offices = []
    for name in ("west", "east"):
        (tmp_path / name).mkdir()
        offices.append(Office(tmp_path / name, server, kind, realm=f"{name}."))
    west, east = offices
    try:
        for office in offices:
            office.incidents([1], "raised")
            office.settle()
            office.pass_by(60)
        (ours,), (theirs,) = (server.of(f"{name}.{ONE}") for name in ("west", "east"))
        server.note(theirs.number, "ann", "crew on its way")
        server.set(ours.number, state="taken")
        for office in offices:
            office.pass_by(60)
        assert [(o.do, o.id) for o in west.orders] == [("acknowledge", ONE)]
        assert [(o.do, o.id) for o in east.orders] == [("comment", ONE)]
        east.incidents([1], "cleared")
        east.settle()
        assert (ours.state, theirs.state) == ("taken", "resolved")
        assert all(row["state"] == "sent" for row in east.outbox.deliveries())
    finally:
        for office in offices:
            office.close()
        server.stop()


def test_notes_of_a_ticket_that_was_just_looked_at_are_known(
    at: MakeOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand tickets that which was seen first was forgotten first, and lost what people wrote."""
    monkeypatch.setattr("alerting.sinks.tmf621.NOTES_OF_MAX", 5)
    server, _ = at(notes="replaced")
    url = server.url + DIALECTS["tmf621"]
    desk = TroubleTickets(SinkSettings(kind="tmf621", url=url), TicketOptions())
    number, *_ = [desk.create(f"c{n}", Change("open", "major", "t", "d")).number for n in range(6)]
    desk.update(number, Change(comment="ours"))
    server.note(number, "ann", "fibre dug up")
    for n in (0, 1, 2, 3, 4, 0, 5):
        desk.find(f"c{n}")
    desk.update(number, Change(comment="more"))
    assert [text for _, _, text in server.tickets[number].notes] == ["ours", "fibre dug up", "more"]


@pytest.mark.parametrize("kind", DIALECTS)
def test_what_is_closed_for_good_is_followed_by_another_ticket(at: MakeOffice, kind: str) -> None:
    server, office = at(kind, closed_for_good=True)
    old = first(office, server)
    server.set(old.number, state="closed")
    office.pass_by(60)
    for state in ("cleared", "raised"):
        office.incidents([1], state, occurrence=2 if state == "raised" else 1)
        office.settle()
    office.restart_gate()
    office.pass_by(60)
    office.incidents([1], "updated", severity="critical", occurrence=2)
    office.settle()
    assert [t.state for t in server.of(ONE)] == ["closed", "open"]
    assert heard(office).count(("close", "")) == 1
    office.incidents([1], "cleared", occurrence=2)
    office.settle()
    office.pass_by(60)
    assert [t.state for t in server.of(ONE)] == ["closed", "resolved"]
    assert heard(office).count(("close", "")) == 1
