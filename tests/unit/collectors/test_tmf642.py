"""TMF642: the list decides, events are faster, ids may change."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from collectors.http.client import PeerError
from collectors.managers.tmf642 import Tmf642Source, alarm_of
from telemetry.errors import ConfigError
from tests.support.source_world import source_of, world
from tests.support.tmf642_server import AlarmSystem


class Pair:
    def __init__(self, folder: Path) -> None:
        self.node, self.clock, self.context = world("noc-tmf642")
        self.server = AlarmSystem()
        self.folder = folder
        self.source = self.make()

    def make(self, **more: Any) -> Tmf642Source:
        options = {"url": self.server.url, **more}
        made = source_of("tmf642", options, self.node, self.context, self.folder)
        self.source = cast(Tmf642Source, made)
        return self.source

    def poll(self) -> list[tuple[str, str, str]]:
        self.clock.advance(seconds=60)
        self.node.clear()
        self.source.turn()
        return self.node.alarms()

    def with_hub(self) -> None:
        """Listen on a port, and let the system know it."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            here = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.make(callback={"listen": here}, callback_url=here)
        assert self.source._http is not None
        self.source._http.start()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.source.stop()
    made.server.close()


def test_raise_change_clear_and_delete(pair: Pair) -> None:
    one, two = pair.server.alarm("olt-1/1"), pair.server.alarm("olt-2", "critical")
    assert pair.poll() == [
        ("olt-1/1", "major", "no signal on olt-1/1"), ("olt-2", "critical", "no signal on olt-2"),
    ]  # fmt: skip
    assert {row["probable_cause"] for row in pair.node.rows("alarm")} == {"lossOfSignal"}
    assert pair.poll() == []
    pair.server.change(one, perceivedSeverity="minor", ackState="acknowledged", ackUserId="jdoe")
    assert pair.poll() == [("olt-1/1", "minor", "no signal on olt-1/1")]
    pair.server.change(one, state="cleared", alarmClearedTime="2026-03-20T10:05:00Z")
    assert pair.poll() == [("olt-1/1", "cleared", "no signal on olt-1/1")]
    pair.server.delete(two)
    assert pair.poll() == [("olt-2", "cleared", "no signal on olt-2")]


def test_the_open_one_of_two_records_counts(pair: Pair) -> None:
    pair.server.alarm("olt-1", "warning")
    pair.server.alarm("olt-1", "cleared")  # an old record that the system keeps
    assert pair.poll() == [("olt-1", "warning", "no signal on olt-1")]


@pytest.mark.parametrize("counts", [True, False])
def test_pages(pair: Pair, counts: bool) -> None:
    pair.server.page_max, pair.server.counts = 7, counts
    for i in range(30):
        pair.server.alarm(f"olt-{i}")
    assert len(pair.poll()) == 30


def test_ids_that_change_raise_nothing(pair: Pair) -> None:
    pair.server.alarm("olt-1")
    pair.poll()
    before = pair.node.open_ids()
    pair.server.fail_over()
    pair.poll()
    assert {row["alarm_id"] for row in pair.node.rows("alarm")} == before


def test_a_list_that_is_not_whole_clears_nothing(pair: Pair) -> None:
    for i in range(3):
        pair.server.alarm(f"olt-{i}")
    pair.poll()
    for status, body in ((503, None), (200, b"{}"), (200, b"[3]"), (200, b"nonsense")):
        pair.server.status, pair.server.body = status, body
        with pytest.raises(PeerError):
            pair.source.turn()
    assert len(pair.node.open_ids()) == 3


def test_events_come_at_once_and_the_hub_is_joined_again_after_an_outage(pair: Pair) -> None:
    pair.with_hub()
    assert pair.poll() == []
    one = pair.server.alarm("olt-1")
    assert pair.node.alarms() == [("olt-1", "major", "no signal on olt-1")]
    pair.server.change(one, event="AlarmStateChangeEvent", state="cleared")
    assert pair.node.open_ids() == set()
    two = pair.server.alarm("olt-2")
    pair.server.delete(two)
    assert pair.node.open_ids() == set()
    # A part: the list is asked.
    pair.server.tell("AlarmAttributeValueChangeEvent", one, only=("id",))
    pair.server.fail_over()
    pair.server.status = 503
    with pytest.raises(PeerError):
        pair.source.turn()
    pair.server.status = 200
    pair.poll()
    assert len(pair.server.hubs) == 1
    pair.source.stop()
    assert pair.server.hubs == {}


def test_a_callback_needs_both_halves(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="together"):
        pair.make(callback_url="http://x")


def test_an_alarm_without_an_object_is_none() -> None:
    assert alarm_of({"id": "1", "perceivedSeverity": "major"}) is None
