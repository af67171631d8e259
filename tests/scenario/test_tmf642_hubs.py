"""Subscribers of TMF642: each hears of each change, in order, whatever becomes of the others."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.config import SinkSettings
from alerting.courier import Courier
from alerting.sinks import make_sink
from alerting.sinks.http import Answer
from alerting.words.alert import Alert, canonical
from alerting.words.delivery import Delivery, Order, Verdict
from runtime.clock import ManualClock
from telemetry.errors import TransientError
from tests.support.bad_peers import free_port
from tests.support.sink_peers import HttpPeer
from tocsin.testing import checks_sink, make_context
from tocsin.testing.checks_sink import NOW_NS, parcel

ALERTS = checks_sink.alerts()
SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerting.sinks.tmf642_hubs.RETRY_SECONDS_FIRST", 0.05)
    monkeypatch.setattr("alerting.sinks.tmf642_hubs.RETRY_SECONDS_MAX", 0.2)


@pytest.fixture
def peers() -> Iterator[tuple[HttpPeer, HttpPeer]]:
    made = HttpPeer(), HttpPeer()
    yield made
    for one in made:
        one.stop()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def sink(*listeners: str, kept: bool = True) -> Any:
        path = str(tmp_path / "hubs.json") if kept else ""
        options = {"listen": f"127.0.0.1:{free_port()}", "listeners": listeners}
        made.append(
            make_sink(SinkSettings(kind="tmf642", path=path, timeout_seconds=1.0, options=options))
        )
        made[-1].repeat([], now_ns=NOW_NS)
        return made[-1]

    yield sink
    for one in made:
        one.close()


def changes(count: int) -> list[Alert]:
    return [
        msgspec.structs.replace(ALERTS[0], id=f"{n:016x}", change=f"{n:016x}-1-raised")
        for n in range(count)
    ]


def told(peer: HttpPeer) -> list[str]:
    return [body["eventId"] for _, body in peer.got]


def had(peer: HttpPeer) -> list[str]:
    """Return what a peer was told, also where it had refused the first of it a moment before."""
    return list(dict.fromkeys(told(peer)))


def until(done: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_each_hears_what_it_asked_for_once_and_in_order(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any]
) -> None:
    one, two = peers
    sink = make()
    sink._hubs.subscribe(one.url, "")
    number = sink._hubs.subscribe(two.url, "eventType=AlarmStateChangeEvent")
    raised, _, cleared = ALERTS
    sink.send([parcel(raised)], now_ns=NOW_NS)
    one.status = 503  # it is away for a moment
    assert sink.send([parcel(cleared)], now_ns=NOW_NS) == "shown; 1 subscribers told, 1 later"
    until(lambda: "503" in sink.trouble)
    one.got.clear()
    one.status = 200
    sink.send([parcel(cleared, 2)], now_ns=NOW_NS)  # the outbox was not told that it went
    until(lambda: not sink.trouble)
    got = [(about["path"], body["eventId"]) for about, body in two.got]
    assert got == [("/listener/alarmStateChangeEvent", parcel(cleared).key)]
    assert [body["eventType"] for _, body in one.got] == ["AlarmStateChangeEvent"]
    assert sink._hubs.unsubscribe(number)
    assert not sink._hubs.unsubscribe(number)


def test_one_that_is_away_delays_no_other_and_misses_nothing(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any]
) -> None:
    well, away = peers
    away.status = 503
    sink, alerts = make(well.url, away.url), changes(100)
    for alert in alerts:
        sink.send([parcel(alert)], now_ns=NOW_NS)
    keys = [parcel(alert).key for alert in alerts]
    until(lambda: len(well.got) == 100)
    assert told(well) == keys
    assert f"subscriber {away.url}: {away.url} answered 503" in sink.trouble
    assert "100 changes wait for it" in sink.trouble
    away.got.clear()
    away.status = 200
    until(lambda: len(had(away)) == 100)
    assert had(away) == keys
    until(lambda: sink.trouble == "")
    assert told(well) == keys, "nobody is told twice for the sake of another"


def test_one_that_hangs_delays_no_other(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any]
) -> None:
    well, hung = peers
    hung.hangs = True
    sink, alerts = make(well.url, hung.url), changes(30)
    began = time.monotonic()
    for alert in alerts:
        sink.send([parcel(alert)], now_ns=NOW_NS)
    assert time.monotonic() - began < 15  # one after the other: 30 s; a bound, not a measurement
    until(lambda: len(well.got) == 30)


def test_what_waits_for_one_that_is_away_outlives_the_gate(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any], tmp_path: Path
) -> None:
    away, _ = peers
    away.status = 503
    first, alerts = make(), changes(20)
    first._hubs.subscribe(away.url, "")
    for alert in alerts[:19]:
        first.send([parcel(alert)], now_ns=NOW_NS)
    first.close()
    (waiting,) = tmp_path.glob("hubs.json.*.waiting")
    with waiting.open("ab") as file:
        file.write(b'{"eventId": "half a li')
    away.got.clear()
    away.status = 200
    second = make()
    second.send([parcel(alerts[19])], now_ns=NOW_NS)
    until(lambda: len(had(away)) >= 20)
    assert had(away) == [parcel(alert).key for alert in alerts]
    until(lambda: not waiting.exists())


@pytest.mark.parametrize("hubs", [None, "[1"], ids=["good", "damaged"])
def test_a_check_of_the_configuration_tells_nobody_and_leaves_the_files_of_the_gate(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any], tmp_path: Path, hubs: str | None
) -> None:
    """It told subscribers what waits for them, and took the gate's file away."""
    away, _ = peers
    away.status = 503
    sink = make()
    sink._hubs.subscribe(away.url, "")
    sink.send([parcel(ALERTS[0])], now_ns=NOW_NS)
    sink.close()
    if hubs is not None:
        (tmp_path / "hubs.json").write_text(hubs)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    threads = threading.active_count()
    other = make_sink(sink._settings)
    assert threading.active_count() <= threads
    assert other.trouble == ""  # type: ignore[attr-defined]
    other.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_who_subscribes_again_keeps_what_waits_on_the_disk(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the first subscription's last request took the file of the second."""
    asked, answers = threading.Semaphore(0), threading.Semaphore(0)

    def slow(*_: Any) -> Answer:
        asked.release()
        assert answers.acquire(timeout=20)
        return Answer(200, b"")

    monkeypatch.setattr("alerting.sinks.tmf642_hubs.ask_json", slow)
    sink, (one, two) = make(), changes(2)
    number = sink._hubs.subscribe("http://noc.test", "")
    sink.send([parcel(one)], now_ns=NOW_NS)
    (hub,) = sink._hubs._hubs.values()
    assert asked.acquire(timeout=20)
    assert sink._hubs.unsubscribe(number)
    assert sink._hubs.subscribe("http://noc.test", "") == number
    sink.send([parcel(two)], now_ns=NOW_NS)
    assert asked.acquire(timeout=20)
    hub._done(parcel(one).key)
    assert len(list(tmp_path.glob("*.waiting"))) == 1
    answers.release(2)


def test_the_file_of_one_that_is_slow_stays_as_small_as_what_waits(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("alerting.sinks.tmf642_hubs.LINES_SPARE", 5)
    monkeypatch.setattr("alerting.sinks.tmf642_hubs.HURRY_SECONDS", 0.0)
    away, _ = peers
    away.status = 503
    sink, alerts = make(away.url), changes(60)
    for alert in alerts[:40]:
        sink.send([parcel(alert)], now_ns=NOW_NS)
    (hub,) = sink._hubs._hubs.values()
    with hub._some:  # 35 of them are told, and the file is not empty yet
        for key in list(hub._waiting)[:35]:
            hub._waiting.pop(key)
    (waiting,) = tmp_path.glob("hubs.json.*.waiting")
    before = len(waiting.read_bytes().splitlines())
    sink.send([parcel(alerts[40])], now_ns=NOW_NS)
    assert (before, len(waiting.read_bytes().splitlines())) == (40, 6)
    assert sink.send([parcel(alerts[41])], now_ns=NOW_NS)
    assert len(waiting.read_bytes().splitlines()) == 7


@pytest.mark.parametrize("why", ["AWAY_SECONDS", "WAITING_MAX"])
def test_one_that_is_away_for_too_long_is_ended_and_one_of_the_configuration_is_not(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(f"alerting.sinks.tmf642_hubs.{why}", 0 if why == "AWAY_SECONDS" else 3)
    ours, theirs = peers
    ours.status = theirs.status = 503
    sink, alerts = make(ours.url), changes(10)
    sink._hubs.subscribe(theirs.url, "")
    for alert in alerts:
        sink.send([parcel(alert)], now_ns=NOW_NS)
    until(lambda: "subscription_ended" in caplog.text)
    until(lambda: theirs.url not in (tmp_path / "hubs.json").read_text())
    if why == "AWAY_SECONDS":
        return
    (hub,) = sink._hubs._hubs.values()
    until(lambda: hub.waiting == 3)
    assert "events_given_up" in caplog.text
    ours.got.clear()
    ours.status = 200
    until(lambda: parcel(alerts[9]).key in had(ours))
    assert had(ours) == [parcel(alert).key for alert in alerts[-len(had(ours)) :]]


def test_what_one_refuses_for_good_does_not_keep_the_rest_from_it(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = peers
    sink, alerts = make(one.url), changes(2)
    one.status = 400
    sink.send([parcel(alerts[0])], now_ns=NOW_NS)
    until(lambda: "event_refused" in caplog.text)
    one.status = 200
    sink.send([parcel(alerts[1])], now_ns=NOW_NS)
    until(lambda: len(one.got) == 2)


def test_where_a_disk_refuses_what_waits_the_outbox_keeps_it(
    peers: tuple[HttpPeer, HttpPeer], make: Callable[..., Any], tmp_path: Path
) -> None:
    one, _ = peers
    one.status = 503
    sink, alerts = make(one.url), changes(1)
    (hub,) = sink._hubs._hubs.values()
    hub._path.mkdir()
    with pytest.raises(TransientError, match="directory"):
        sink.send([parcel(alerts[0])], now_ns=NOW_NS)


def test_orders_are_heard_and_the_trouble_is_told_while_a_subscriber_is_away(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failures opened the breaker: who acknowledged something was answered 503, for an hour."""
    sink = make(f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("alerting.courier.make_sink", lambda settings: sink)
    clock = ManualClock(NOW_NS)
    alerts, verdicts, orders = changes(10), list[Verdict](), list[Order]()

    def fetch(limit: int) -> list[Delivery]:
        told = {verdict.number for verdict in verdicts}
        return [
            Delivery(
                number=n, key=parcel(a).key, sink="u", alarm=a.id, body=canonical(a).decode(),
                attempts=0, created_ns=0,
            )
            for n, a in enumerate(alerts, 1) if n not in told
        ]  # fmt: skip

    courier = Courier(
        {"u": sink._settings}, make_context("courier", clock=clock), fetch=fetch,
        report=verdicts.extend, order=orders.extend,
    )  # fmt: skip
    try:

        def step() -> None:
            courier.step()
            clock.advance(seconds=0.05)

        until(lambda: step() or len(verdicts) == 10)
        assert all(verdict.sent for verdict in verdicts)
        sink._orders.put(Order(do="acknowledge", id=alerts[0].id, by="ann"))
        until(lambda: step() or orders)
        (status,) = courier.statuses()
        assert (status.state, "subscriber http://127.0.0.1" in status.error) == ("failing", True)
        assert "10 changes wait for it" in courier.health()
    finally:
        courier.stop()
