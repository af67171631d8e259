"""What the watchdog says: blind after three ticks, once, and when it sees again."""

import json
from typing import Any

import pytest

from tocsin.watchdog import Notice, Watch

SECOND = 1_000_000_000
TICK = 5


def beat(**changes: Any) -> bytes:
    told: dict[str, Any] = {
        "tick_ns": TICK * SECOND,
        "last_tick_end_ns": 1,
        "streams": {"netflow": 1},
        "exporters_total": 30,
        "exporters_silent": 0,
    }
    return json.dumps(told | changes).encode()


class World:
    """A node that beats each second, and a watchdog that looks each second."""

    def __init__(self) -> None:
        self.now = 100
        self.watch = Watch(self.now * SECOND)
        self.said: list[Notice] = []

    def seconds(self, count: int, *, beats: bool = True, **changes: Any) -> list[Notice]:
        said: list[Notice] = []
        for _ in range(count):
            self.now += 1
            if beats:
                fields = {"last_tick_end_ns": self.now, "streams": {"netflow": self.now}} | changes
                self.watch.hear(beat(**fields), self.now * SECOND)
            said += self.watch.look(self.now * SECOND)
        return said


def test_a_node_that_beats_and_works_is_never_complained_about() -> None:
    assert World().seconds(600) == []


def test_a_silent_node_is_said_once_after_three_ticks_and_again_when_it_beats() -> None:
    world = World()
    world.seconds(10)
    assert world.seconds(15, beats=False) == []
    (blind,) = world.seconds(1, beats=False)
    assert (blind.subject, blind.state) == ("node", "raised")
    assert blind.title == "Tocsin is blind for 16 s: the node gives no sign of life"
    assert world.seconds(100, beats=False) == []
    (again,) = world.seconds(1)
    assert (again.subject, again.state) == ("node", "cleared")
    assert again.title.startswith("Tocsin sees again after 1 min 57 s")
    assert world.seconds(60) == []


def test_a_node_that_beats_but_closes_no_tick_is_blind() -> None:
    world = World()
    world.seconds(10)
    said = world.seconds(30, last_tick_end_ns=7)
    assert [(n.subject, n.state) for n in said] == [("ticks", "raised")]
    assert [(n.subject, n.state) for n in world.seconds(2)] == [("ticks", "cleared")]


def test_a_stream_that_stopped_is_blindness_and_one_that_never_spoke_is_not() -> None:
    world = World()
    world.seconds(10, streams={"netflow": 9, "sflow": 0})
    world.seconds(3)
    said = world.seconds(30, streams={"netflow": 50, "sflow": 0})
    assert [(n.subject, n.state) for n in said] == [("stream netflow", "raised")]


@pytest.mark.parametrize(("silent", "blind"), [(6, False), (7, True)])
def test_more_than_a_fifth_of_the_exporters_silent_is_blindness(silent: int, blind: bool) -> None:
    world = World()
    world.seconds(10)
    said = world.seconds(5, exporters_silent=silent)
    assert bool(said) is blind
    if blind:
        assert said[0].title == "Tocsin is blind for 1 s: exporters silent (7 of 30)"


def test_it_says_it_again_after_the_repeat_time() -> None:
    world = World()
    world.watch.repeat_seconds = 60.0
    world.seconds(10)
    said = world.seconds(200, beats=False)
    assert [n.state for n in said] == ["raised", "updated", "updated", "updated"]


def test_its_own_pause_is_not_the_nodes_silence() -> None:
    world = World()
    world.seconds(10)
    world.now += 3600  # this process was stopped; heartbeats were lost
    assert world.watch.look(world.now * SECOND) == []
    assert world.seconds(10) == []


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"{}", beat(streams=3), beat(tick_ns="x"), b"null"]
)
def test_a_bad_heartbeat_is_counted_and_proves_nothing(data: bytes) -> None:
    watch = Watch(0)
    watch.hear(data, SECOND)
    assert watch.refused == 1
    assert watch.subjects["node"].seen_ns == 0


def test_a_notice_has_the_fields_of_an_alert() -> None:
    alert = Notice("node", "raised", 16.0, "").as_alert(100 * SECOND)
    assert alert["kind"] == "tocsin-blind"
    assert alert["raised_ns"] == 84 * SECOND
    assert alert["cleared_ns"] == 0
