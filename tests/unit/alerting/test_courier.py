"""The courier: order, back-off, breaker, and one sink that hangs delays no other."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.courier import FAILURES_TO_OPEN, Courier
from alerting.outbox.outbox import Outbox
from alerting.sinks import LaterError, Parcel, RefusedError
from alerting.words.alert import Alert
from alerting.words.delivery import Delivery, Verdict
from runtime.clock import ManualClock
from telemetry.errors import ConfigError, TransientError
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

SECOND = 1_000_000_000


class FakeSink:
    """Does to each send what the test says; tells when it did."""

    repeat_seconds = 0.0

    def __init__(self, batch_max: int = 1) -> None:
        self.batch_max = batch_max
        self.sent: list[list[str]] = []
        self.repeated: list[int] = []
        self.act: Callable[[Sequence[Parcel]], None] = lambda parcels: None

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        self.act(parcels)
        self.sent.append([parcel.key for parcel in parcels])
        return "200"

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        self.act(())
        self.repeated.append(len(active))

    def close(self) -> None:
        pass


class Office:
    """A courier between a list of deliveries and fake sinks. `settle` waits for the lanes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sinks: FakeSink) -> None:
        self.sinks = sinks
        given = iter(sinks.values())
        monkeypatch.setattr("alerting.courier.make_sink", lambda settings: next(given))
        self.clock = ManualClock(1000 * SECOND)
        self.context = make_context("courier", clock=self.clock)
        self.waiting: dict[int, Delivery] = {}
        self.verdicts: list[Verdict] = []
        self.away = False
        self.active: list[Alert] = []
        settings = {name: SinkSettings(kind="stdout") for name in sinks}
        self.courier = Courier(
            settings, self.context, fetch=self._fetch, report=self._report,
            active=lambda sink: self.active,
        )  # fmt: skip
        world = AlarmWorld()
        (self.alert,) = world.tick([world.silence(world.series("exporter", exporter="192.0.2.1"))])

    def _fetch(self, limit: int) -> Sequence[Delivery]:
        if self.away:
            raise TransientError("the node is away")
        return list(self.waiting.values())[:limit]

    def _report(self, verdicts: Sequence[Verdict]) -> None:
        if self.away:
            raise TransientError("the node is away")
        for verdict in verdicts:
            self.verdicts.append(verdict)
            if verdict.sent or verdict.final:
                del self.waiting[verdict.number]

    def post(self, sink: str, count: int = 1) -> None:
        from alerting.words.alert import canonical

        for _ in range(count):
            number = len(self.waiting) + len(self.verdicts) + 1
            self.waiting[number] = Delivery(
                number=number, key=f"k{number}", sink=sink, alarm=f"a{number}",
                body=canonical(self.alert).decode(), attempts=0, created_ns=0,
            )  # fmt: skip

    def settle(self, done: Callable[[], Any]) -> None:
        pause = threading.Event()
        for _ in range(5000):
            self.courier.step()
            if done():
                return
            pause.wait(0.001)
        raise AssertionError("the courier did not get there")


def fails(parcels: Sequence[Parcel]) -> None:
    raise TransientError("no")


def test_deliveries_are_sent_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch, a=FakeSink())
    office.post("a", 5)
    office.settle(lambda: len(office.verdicts) == 5)
    assert office.sinks["a"].sent == [[f"k{i}"] for i in range(1, 6)]
    assert all(v.sent and v.answer == "200" for v in office.verdicts)
    office.courier.stop()


def test_a_sink_that_hangs_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    office = Office(monkeypatch, slow=FakeSink(), quick=FakeSink())
    office.sinks["slow"].act = lambda parcels: (release.wait(30), None)[1]
    office.post("slow", 3)
    office.post("quick", 3)
    office.settle(lambda: len(office.sinks["quick"].sent) == 3)
    assert office.sinks["slow"].sent == []
    office.clock.advance(seconds=61)
    assert "slow" in office.courier.health()
    release.set()
    office.settle(lambda: len(office.verdicts) == 6)
    office.courier.stop()


def test_what_waits_behind_a_sink_that_hangs_at_the_end_stays_in_the_outbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, release = threading.Event(), threading.Event()
    office = Office(monkeypatch, slow=FakeSink())

    def hangs(parcels: Sequence[Parcel]) -> None:
        begun.set()
        release.wait(30)

    office.sinks["slow"].act = hangs
    office.post("slow", 2)
    office.settle(begun.is_set)
    office.post("slow", 2)
    office.courier.step()
    (lane,) = [one for one in threading.enumerate() if one.name == "sink-slow"]
    office.courier.stop()
    release.set()
    lane.join(30)
    assert not lane.is_alive()
    assert office.sinks["slow"].sent == [["k1"]]
    assert list(office.waiting) == [1, 2, 3, 4]


def test_the_breaker_opens_and_one_delivery_tries_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch, a=FakeSink())
    tries: list[str] = []

    def failing(parcels: Sequence[Parcel]) -> None:
        tries.extend(p.key for p in parcels)
        raise TransientError("no")

    office.sinks["a"].act = failing
    office.post("a", 50)
    office.settle(lambda: len(office.verdicts) == FAILURES_TO_OPEN)
    for _ in range(50):
        office.courier.step()
    assert len(tries) == FAILURES_TO_OPEN
    assert "a" in office.courier.health()
    office.clock.advance(seconds=11)
    office.settle(lambda: len(tries) == FAILURES_TO_OPEN + 1)
    office.settle(lambda: len(office.verdicts) == FAILURES_TO_OPEN + 1)
    for _ in range(50):
        office.courier.step()
    assert len(tries) == FAILURES_TO_OPEN + 1
    office.sinks["a"].act = lambda parcels: None
    office.clock.advance(seconds=11)
    office.settle(lambda: not office.waiting)
    assert office.courier.health() == ""
    office.courier.stop()


def test_what_is_refused_is_final_and_takes_no_other_of_its_batch_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office(monkeypatch, a=FakeSink(batch_max=10))

    def picky(parcels: Sequence[Parcel]) -> None:
        if any(p.key == "k3" for p in parcels):
            raise RefusedError("400")

    office.sinks["a"].act = picky
    office.post("a", 5)
    office.settle(lambda: len(office.verdicts) == 5)
    assert {v.number for v in office.verdicts if v.final} == {3}
    assert sum(v.sent for v in office.verdicts) == 4
    office.courier.stop()


ESCAPES = "400 \x00\x1b]0;pwn\x07\nsent"
HARMLESS = "400 \ufffd\ufffd]0;pwn\ufffd sent"


@pytest.mark.parametrize("kind", [RefusedError, TransientError])
def test_what_the_other_side_answers_is_one_line_of_plain_text(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def refuse(_: Sequence[Parcel]) -> None:
        raise kind(ESCAPES)

    sink = FakeSink()
    sink.act = refuse
    office = Office(monkeypatch, a=sink)
    office.post("a")
    office.settle(lambda: bool(office.verdicts))
    assert office.verdicts[0].answer == HARMLESS
    if kind is TransientError:
        assert [status.error for status in office.courier.statuses()] == [HARMLESS]
    office.courier.stop()


def test_a_verdict_is_told_again_until_the_node_has_heard_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office(monkeypatch, a=FakeSink())
    office.post("a")
    office.courier.step()
    office.away = True
    pause = threading.Event()
    raised = 0
    for _ in range(50):
        try:
            office.courier.step()
        except TransientError:
            raised += 1
        pause.wait(0.001)
    assert raised >= 49  # the first need not ask: what was due had just been handed over
    assert office.verdicts == []
    office.away = False
    office.settle(lambda: office.verdicts)
    assert office.sinks["a"].sent == [["k1"]]  # sent once, however often the node was away
    office.courier.stop()


def test_changes_of_an_alarm_stay_in_order_when_the_gate_dies_before_it_says_what_it_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AlertingSettings(sinks={"a": SinkSettings(kind="stdout", send="alarms")})
    clock = ManualClock(1000 * SECOND)
    outbox = Outbox(tmp_path / "node.sqlite", settings, make_context("outbox", clock=clock))
    outbox.start()
    world, sink = AlarmWorld(settings), FakeSink(batch_max=10)
    monkeypatch.setattr("alerting.courier.make_sink", lambda settings: sink)

    def gate(*, dies: bool) -> Courier:
        def report(verdicts: Sequence[Verdict]) -> None:
            if dies:
                raise TransientError("killed")
            outbox.mark(verdicts, clock.now_ns())

        return Courier(
            settings.sinks, make_context("courier", clock=clock),
            fetch=lambda limit: outbox.due(clock.now_ns(), limit), report=report,
        )  # fmt: skip

    series = world.series("exporter", exporter="192.0.2.1")
    for rows in ([world.silence(series)], [], [], []):
        alarms = [batch for batch in world.batches(rows) if batch.schema.name == "alarm"]
        outbox.commit(world.now_ns, alarms, clock.now_ns())
    pause = threading.Event()
    first = gate(dies=True)
    for _ in range(1000):
        with contextlib.suppress(TransientError):
            first.step()
        if sink.sent:
            break
        pause.wait(0.001)
    first.stop()
    second = gate(dies=False)
    for _ in range(1000):
        second.step()
        if len(sink.sent) == 3:
            break
        pause.wait(0.001)
    second.stop()
    outbox.stop()
    states = [[word for word in key.split("-") if word.isalpha()] for (key,) in sink.sent]
    assert states == [["raised", "a"], ["raised", "a"], ["cleared", "a"]], sink.sent


@pytest.mark.parametrize("left", [{"a": FakeSink()}, {}], ids=["another", "none"])
def test_a_delivery_of_a_sink_that_is_gone_is_given_up(
    monkeypatch: pytest.MonkeyPatch, left: dict[str, FakeSink]
) -> None:
    office = Office(monkeypatch, **left)
    office.post("removed")
    office.settle(lambda: office.verdicts)
    assert office.verdicts[0].final
    assert "no such sink" in office.verdicts[0].answer
    office.courier.stop()


def test_sinks_whose_receivers_forget_are_told_again_what_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = FakeSink()
    sink.repeat_seconds = 60.0
    office = Office(monkeypatch, a=sink)
    office.active = [office.alert, office.alert]
    office.settle(lambda: sink.repeated == [2])
    for _ in range(100):
        office.courier.step()
    assert sink.repeated == [2]
    office.clock.advance(seconds=61)
    office.settle(lambda: sink.repeated == [2, 2])
    office.courier.stop()


def test_a_node_that_does_not_say_what_is_up_is_asked_again_before_anything_is_sent_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gate that began before its node asked the next day."""
    sink = FakeSink()
    sink.repeat_seconds = 86_400.0
    office = Office(monkeypatch, a=sink)
    says: list[bool] = [False]

    def active(_: str) -> Sequence[Alert]:
        if not says[0]:
            raise TransientError("the node is away")
        return [office.alert]

    monkeypatch.setattr(office.courier, "_active", active)
    office.post("a")
    for _ in range(29):
        with pytest.raises(TransientError):
            office.courier.step()
        office.clock.advance(seconds=1)
    assert sink.sent == []
    office.clock.advance(seconds=1)
    with pytest.raises(TransientError):
        office.courier.step()
    office.settle(lambda: len(sink.sent) == 1)
    says[0] = True
    office.clock.advance(seconds=31)
    office.settle(lambda: sink.repeated == [1])
    office.courier.stop()


@pytest.mark.parametrize(
    "error",
    [KeyError("id"), OverflowError(), ConfigError("too short")],
    ids=["key", "value", "setting"],
)
def test_what_a_sink_did_not_foresee_is_told_and_its_lane_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    office = Office(monkeypatch, a=FakeSink())

    def breaks(_: Sequence[Parcel]) -> None:
        raise error

    office.sinks["a"].act = breaks
    office.post("a")
    office.settle(lambda: office.verdicts)
    assert (office.verdicts[0].sent, office.verdicts[0].final) == (False, False)
    assert str(error) in office.verdicts[0].answer
    assert [one.state for one in office.courier.statuses()] == ["failing"]
    office.sinks["a"].act = lambda parcels: None
    office.settle(lambda: not office.waiting)
    assert [one.state for one in office.courier.statuses()] == ["ok"]
    office.courier.stop()


@pytest.mark.parametrize("what", ["repeat", "hear"])
def test_an_answer_of_another_form_ends_no_lane(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    sink = FakeSink()

    def reads(*_: Any, **__: Any) -> None:
        msgspec.json.decode(b"{}", type=int)

    setattr(sink, what, reads)
    setattr(sink, f"{what}_seconds", 1.0)
    office = Office(monkeypatch, a=sink)
    office.courier._order = lambda orders: None
    office.settle(lambda: office.courier.statuses()[0].state == "failing")
    assert "an answer of another form" in office.courier.statuses()[0].error
    office.post("a")
    office.settle(lambda: not office.waiting)
    office.courier.stop()


def test_who_asks_to_be_left_alone_is_left_alone_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office(monkeypatch, a=FakeSink())
    tries: list[str] = []

    def busy(parcels: Sequence[Parcel]) -> None:
        tries.extend(p.key for p in parcels)
        raise LaterError("429", 120.0)

    office.sinks["a"].act = busy
    office.post("a", 5)
    office.settle(lambda: tries)
    for seconds in (1, 29, 89):
        office.clock.advance(seconds=seconds)
        for _ in range(50):
            office.courier.step()
    assert len(tries) == 1, "it is not asked again before its time"
    office.sinks["a"].act = lambda parcels: None
    office.clock.advance(seconds=2)
    office.settle(lambda: not office.waiting)
    office.courier.stop()


def test_a_receiver_that_is_back_is_well_though_there_is_nothing_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = FakeSink()
    sink.repeat_seconds = 1.0
    sink.act = fails
    office = Office(monkeypatch, a=sink)

    def health_later() -> str:
        office.clock.advance(seconds=11)
        return office.courier.health()

    office.settle(lambda: "a fails" in health_later())
    sink.act = lambda parcels: None
    office.settle(lambda: health_later() == "")
    assert sink.repeated
    office.courier.stop()


def test_that_it_can_be_asked_does_not_make_a_receiver_well_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = FakeSink()
    sink.repeat_seconds = 1.0
    sink.act = lambda parcels: fails(parcels) if parcels else None
    office = Office(monkeypatch, a=sink)
    office.post("a", 5)
    office.settle(lambda: "a fails" in office.courier.health())
    office.waiting.clear()  # until their back-off is over
    before = len(sink.repeated)

    def later() -> bool:
        office.clock.advance(seconds=11)
        return len(sink.repeated) > before + 2

    office.settle(later)
    assert "a fails" in office.courier.health()
    office.courier.stop()


def test_a_realm_is_before_all_that_others_know_an_alarm_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = FakeSink()
    seen: list[Parcel] = []
    sink.act = seen.extend
    sink.repeat_seconds = 60.0
    office = Office(monkeypatch, a=sink)
    repeated: list[Alert] = []
    monkeypatch.setattr(sink, "repeat", lambda active, **_: repeated.extend(active))
    office.active = [office.alert]
    (lane,) = office.courier._lanes.values()
    lane.settings = SinkSettings(kind="stdout", realm="west.")
    office.post("a")
    office.settle(lambda: office.verdicts and repeated)
    for alert in (seen[0].alert, repeated[0]):
        assert alert.id == f"west.{office.alert.id}"
        assert alert.change == f"west.{office.alert.change}"
    assert seen[0].key == "west.k1"
    assert office.verdicts[0].key == "k1"
    office.courier.stop()


@pytest.mark.parametrize("realm", ["west", ".", "a b.", "we'st.", "é.", "x" * 40 + "."])
def test_a_realm_is_a_plain_word_with_a_dot(realm: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r'such as "west\."'):
        msgspec.convert({"kind": "stdout", "realm": realm}, SinkSettings)
