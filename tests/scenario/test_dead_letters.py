"""Dead letters: what a sink will never take. What waits for a sink that is away is none, however long that lasts."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.courier import Courier
from alerting.outbox.outbox import Outbox
from alerting.sinks import Parcel
from alerting.words.alert import Alert
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.batch import batch_from_rows
from telemetry.errors import TransientError
from telemetry.schemas import ALARM
from tocsin.testing import make_context

SECOND = 1_000_000_000
START = 1_764_072_000 * SECOND


class Receiver:
    """Takes what `takes` says it takes."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self) -> None:
        self.takes: Callable[[Alert], bool] = lambda alert: True
        self.got: list[tuple[str, str]] = []
        self.tries = 0

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        (parcel,) = parcels
        self.tries += 1
        if not self.takes(parcel.alert):
            raise TransientError("500 no")
        self.got.append((parcel.alert.entity, parcel.alert.state))
        return "200"

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        pass

    def close(self) -> None:
        pass


class Way:
    """An outbox and a courier with one receiver, on a clock that jumps."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock(START)
        made = make_context("outbox", clock=self.clock)
        self.context = Context(made.name, self.clock, made.metrics, made.log, made.seed)
        settings = AlertingSettings(
            sinks={"it": SinkSettings(kind="stdout", send="alarms")}, attempts_max=5, retry_seconds_max=20.0
        )  # fmt: skip
        self.outbox = Outbox(folder / "node.sqlite", settings, self.context)
        self.outbox.start()
        self.receiver = Receiver()
        monkeypatch.setattr("alerting.courier.make_sink", lambda settings: self.receiver)
        self.courier = Courier(
            settings.sinks, self.context,
            fetch=lambda limit: self.outbox.due(self.clock.now_ns(), limit),
            report=lambda verdicts: self.outbox.mark(verdicts, self.clock.now_ns()),
        )  # fmt: skip
        self._tick = 0

    def change(self, number: int, state: str) -> None:
        self._tick += 1
        now_ns = self.clock.now_ns()
        row = {
            "changed_ns": now_ns + self._tick, "alarm_id": number, "raised_ns": START,
            "cleared_ns": now_ns if state == "cleared" else 0, "state": state,
            "severity": "major", "kind": "link-cut", "event_type": "communicationsAlarm",
            "probable_cause": "lossOfSignal", "entity": f"e{number}", "explain": "{}",
            "specific_problem": f"link {number}", "occurrence": 1, "operator_state": "none", "source": "tocsin",
        }  # fmt: skip
        self.outbox.commit(self._tick, [batch_from_rows(ALARM, [row])], now_ns)

    def until(self, done: Callable[[], Any], *, jump: float = 1.0) -> None:
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end, self.outbox.deliveries()
            self.courier.step()
            self.clock.advance(seconds=jump)
            time.sleep(0.001)

    def states(self) -> list[str]:
        return [str(row["state"]) for row in reversed(self.outbox.deliveries())]


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Way(tmp_path, monkeypatch)
    yield made
    made.courier.stop()
    made.outbox.stop()


def test_a_sink_that_is_away_for_a_day_gets_all_of_it_and_in_order(way: Way) -> None:
    """Five tries each and all were dead letters, though nobody had looked at one of them."""
    way.receiver.takes = lambda alert: False
    for number in range(1, 6):
        way.change(number, "raised")
    way.change(3, "cleared")
    began_ns = way.clock.now_ns()
    way.until(lambda: way.receiver.tries >= 60, jump=5.0)
    assert (way.clock.now_ns() - began_ns) / SECOND > 5 * 20
    assert way.states() == ["waiting"] * 6
    assert "it fails: 500 no" in way.courier.health()
    way.receiver.takes = lambda alert: True
    way.until(lambda: way.states() == ["sent"] * 6)
    assert [state for entity, state in way.receiver.got if entity == "e3"] == ["raised", "cleared"]


def test_what_a_sink_never_takes_while_it_takes_others_is_a_dead_letter(way: Way) -> None:
    way.receiver.takes = lambda alert: alert.entity != "e1"
    way.change(1, "raised")
    for number in range(2, 40):
        way.change(number, "raised")
        before = len(way.receiver.got)
        way.until(lambda before=before: len(way.receiver.got) > before)
        if way.states()[0] == "given_up":
            break
    assert way.states()[0] == "given_up"
    assert (
        "1 deliveries were given up; see `tocsin outbox list --only given_up`"
        in way.outbox.health()
    )


def test_dead_letters_are_listed_behind_any_number_of_others_and_retried_or_dropped(
    way: Way,
) -> None:
    way.receiver.takes = lambda alert: alert.entity != "e1"
    way.change(1, "raised")
    number = 2
    while way.states()[0] != "given_up":
        way.change(number, "raised")
        number += 1
        way.until(lambda want=number - 2: len(way.receiver.got) >= want)
    (letter,) = way.outbox.deliveries(3, state="given_up")
    assert letter["number"] == 1
    assert len(way.outbox.deliveries(3)) == 3
    assert way.outbox.deliveries(3, sink="other") == []
    assert way.outbox.retry("other") == 0
    assert way.outbox.retry("it") == 1
    assert way.outbox.drop("it", 0, "ann") == 0, "it is on its way again"
    while way.states()[0] != "given_up":
        way.change(number, "raised")
        number += 1
        way.until(lambda want=number - 2: len(way.receiver.got) >= want)
    assert way.outbox.drop("", 99, "ann") == 0
    assert way.outbox.drop("", 1, "ann") == 1
    assert way.outbox.health() == ""
    (letter,) = way.outbox.deliveries(3, state="dropped")
    assert letter["answer"] == "dropped by ann: 500 no"
    assert way.outbox.retry() == 0
