"""What the watchdog says: blind after three ticks, once, and when it sees again."""

import json
from pathlib import Path
from typing import Any

import pytest

from tocsin.watchdog.kept import Kept
from tocsin.watchdog.watch import Notice, Watch

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


def test_a_gate_that_stands_still_is_said_while_the_node_goes_on() -> None:
    world = World()
    world.seconds(10, alive={"gate": 1})
    said = world.seconds(40, alive={"gate": 1})
    assert [(n.subject, n.state) for n in said] == [("gate", "raised")]
    assert said[0].title.endswith("no alert goes out: the gate gives no sign of life")
    (again,) = world.seconds(1, alive={"gate": 2})
    assert (again.subject, again.state) == ("gate", "cleared")
    assert world.seconds(60, alive={}) == []  # no sinks any more: nothing is expected of a gate


def test_a_store_that_takes_nothing_is_said() -> None:
    world = World()
    for mark in range(1, 20):
        assert world.seconds(1, alive={"history": mark}) == []
    said = world.seconds(40, alive={"history": 19})
    assert [n.title.partition(": ")[2] for n in said] == [
        "nothing is stored: the desk gives no sign of life"
    ]


@pytest.mark.parametrize("name", ["outbox", "journal", "sinks"])
def test_a_fault_that_the_node_names_is_said_with_its_words(name: str) -> None:
    world = World()
    world.seconds(10, faults={})
    assert world.seconds(3, faults={name: "No space left on device"}) == []
    (raised,) = world.seconds(10, faults={name: "No space left on device"})
    assert raised.title.endswith(f"{name} in trouble (No space left on device)")
    (cleared,) = world.seconds(5, faults={})
    assert (cleared.subject, cleared.state) == (f"fault {name}", "cleared")


def test_much_that_is_missing_of_what_senders_sent_is_blindness() -> None:
    world = World()
    sums = {"sent": 0, "missing": 0}

    def play(seconds: int, share: float) -> list[Notice]:
        said: list[Notice] = []
        for _ in range(seconds):
            sums["sent"] += 100
            sums["missing"] += round(100 * share)
            said += world.seconds(1, ledger={"netflow": dict(sums)})
        return said

    assert play(60, 0.1) == []
    (raised,) = play(40, 0.5)
    assert (raised.subject, raised.state) == ("ledger netflow", "raised")
    assert "much of what netflow senders sent is missing" in raised.title
    (cleared,) = play(40, 0.0)
    assert cleared.state == "cleared"
    assert play(60, 0.0) == []
    sums.update(sent=0, missing=0)  # the node started anew
    assert play(60, 0.0) == []


@pytest.mark.parametrize("wrong", [
    {"alive": 3}, {"alive": {"gate": "x"}}, {"faults": []}, {"ledger": {"netflow": {"sent": 1}}},
    {"ledger": {"netflow": 3}},
])  # fmt: skip
def test_a_heartbeat_that_is_none_is_counted_and_changes_nothing(wrong: dict[str, Any]) -> None:
    world = World()
    world.watch.hear(beat(**wrong), world.now * SECOND)
    assert world.watch.refused == 1


@pytest.mark.parametrize(
    ("step", "said"),
    [(3600, "forward by 1 h"), (-90, "back by 1 min 30 s"), (0.5, ""), (-0.9, "")],
)
def test_a_clock_that_was_set_is_said_at_once_and_when_it_is_steady_again(
    step: float, said: str
) -> None:
    world = World()
    start = 1_700_000_000
    notices = []
    for second in range(60):
        world.now += 1
        fields = {"last_tick_end_ns": world.now, "streams": {"netflow": world.now}}
        world.watch.hear(beat(**fields), world.now * SECOND)
        wall = start + world.now + (step if second >= 30 else 0.0) + second * 0.0005  # slewed too
        notices += world.watch.look(world.now * SECOND, round(wall * SECOND))
    if not said:
        assert notices == []
        return
    stepped, steady = notices
    assert (stepped.subject, stepped.state, steady.state) == ("clock", "raised", "cleared")
    assert stepped.title == (
        f"The clock of this machine was set {said}, or the machine slept: times before and after do not"
        " fit together"
    )
    assert steady.title == "The clock of this machine has been steady for 16 s"


def test_a_node_that_starts_anew_is_not_blind_for_what_it_has_not_counted_yet() -> None:
    """Four seconds away, then as `tocsin.node` beats: streams, ledgers and gate from nothing, the old tick."""
    world = World()
    for second in range(30):
        assert not world.seconds(
            1, started_ns=1, ledger={"netflow": {"sent": 100 * second, "missing": 0}}, alive={"gate": second}
        )  # fmt: skip
    assert world.seconds(4, beats=False) == []
    told = {"started_ns": 2, "last_tick_end_ns": world.now - 4, "streams": {"netflow": 0}}
    assert world.seconds(10, **told, ledger={}, alive={"gate": 0}) == []
    assert world.seconds(60, started_ns=2, ledger={"netflow": {"sent": 1, "missing": 0}}) == []


def test_a_node_that_starts_again_and_again_and_closes_no_tick_is_blind() -> None:
    world = World()
    said: list[Notice] = []
    for run in range(20):
        said += world.seconds(2, started_ns=run, last_tick_end_ns=9)
        said += world.seconds(2, beats=False)
    assert [(n.subject, n.state) for n in said] == [("ticks", "raised")]


def test_a_start_is_no_sign_of_life_of_a_stream_that_is_silent() -> None:
    world = World()
    world.seconds(10, started_ns=1, streams={"netflow": 7})
    (raised,) = world.seconds(20, started_ns=1, streams={"netflow": 7})
    assert (raised.subject, raised.state) == ("stream netflow", "raised")
    assert world.seconds(60, started_ns=2, streams={"netflow": 0}) == []
    (cleared,) = world.seconds(5, started_ns=2, streams={"netflow": 7})
    assert (cleared.state, cleared.gone) == ("cleared", False)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("stream netflow", {"streams": {"netflow": 7, "syslog": 0}}, {"streams": {"syslog": 0}}),
        ("history", {"alive": {"history": 7}}, {"alive": {}}),  # profile site, then sensor
        ("gate", {"alive": {"gate": 7}}, {"alive": {}}),
    ],
)
@pytest.mark.parametrize("was_blind", [False, True])
def test_what_the_configuration_has_no_longer_is_not_expected(
    name: str, before: dict[str, Any], after: dict[str, Any], was_blind: bool
) -> None:
    world = World()
    said = world.seconds(40 if was_blind else 10, started_ns=1, **before)
    assert [(n.subject, n.state) for n in said] == [(name, "raised")] * was_blind
    world.seconds(3, beats=False)
    said = world.seconds(100, started_ns=2, **after)
    assert [(n.subject, n.state, n.gone) for n in said] == [(name, "cleared", True)] * was_blind
    if was_blind:
        assert said[0].title.startswith(
            f"Tocsin expects nothing more of {name}, for which it was blind for 4"
        )
    assert world.seconds(100, started_ns=2, **after) == []


def test_a_ledger_that_was_bad_ends_when_a_new_node_hears_nothing_of_it() -> None:
    world = World()
    for second in range(40):
        world.seconds(1, ledger={"netflow": {"sent": 100 * second, "missing": 50 * second}})
    assert world.watch.subjects["ledger netflow"].blind_since_ns is not None
    said = world.seconds(14, started_ns=2, ledger={})
    assert said == []
    assert [(n.state, n.gone) for n in world.seconds(10, started_ns=2, ledger={})] == [
        ("cleared", True)
    ]


def test_a_ledger_that_comes_again_is_not_compared_with_what_it_was() -> None:
    world = World()
    assert world.seconds(40, ledger={"netflow": {"sent": 1000, "missing": 0}}) == []
    assert world.seconds(20, ledger={}) == []
    assert world.seconds(60, ledger={"netflow": {"sent": 1100, "missing": 100}}) == []


def test_a_start_ends_no_fault_before_the_node_has_looked_for_three_ticks() -> None:
    world = World()
    world.seconds(20, started_ns=1, faults={"sinks": "sink pager fails"})
    assert world.seconds(15, started_ns=2, faults={}) == []
    assert world.seconds(10, started_ns=2, faults={"sinks": "sink pager fails"}) == []
    (cleared,) = world.seconds(10, started_ns=2, faults={})
    assert (cleared.subject, cleared.state) == ("fault sinks", "cleared")


BOOT = 1_700_000_000 * SECOND  # of the wall clock, when the steady one stood at 0


def restarted(world: World, *, away: int, boots: bool = False) -> World:
    """Return the world of the watchdog that comes after this one; a boot sets the steady clock to 0."""
    kept = json.loads(json.dumps(world.watch.raised(world.now * SECOND, BOOT + world.now * SECOND)))
    made = World()
    made.now = world.now + away
    wall_ns = BOOT + made.now * SECOND
    made.now = 5 if boots else made.now
    made.watch = Watch(made.now * SECOND, tick_seconds=TICK)
    made.watch.go_on(kept, made.now * SECOND, wall_ns)
    return made


@pytest.mark.parametrize("boots", [False, True])
@pytest.mark.parametrize(
    ("subject", "bad", "good"),
    [
        ("node", None, {}),
        ("ticks", {"last_tick_end_ns": 7}, {}),
        ("stream netflow", {"streams": {"netflow": 7}}, {}),
        ("exporters", {"exporters_silent": 20}, {}),
        ("gate", {"alive": {"gate": 7}}, {"alive": {"gate": 8}}),
        ("fault outbox", {"faults": {"outbox": "No space left on device"}}, {}),
    ],
)
def test_a_restarted_watchdog_clears_once_what_the_one_before_it_raised(
    subject: str, bad: dict[str, Any] | None, good: dict[str, Any], boots: bool
) -> None:
    world = World()
    first = world.seconds(10, started_ns=1, **(bad or {}))
    first += world.seconds(40, beats=bad is not None, started_ns=1, **(bad or {}))
    assert [(n.subject, n.state) for n in first] == [(subject, "raised")]
    after = restarted(world, away=30, boots=boots)
    assert after.seconds(40, beats=bad is not None, started_ns=1, **(bad or {})) == []  # still so
    (cleared,) = after.seconds(10, started_ns=1, **good)
    assert (cleared.subject, cleared.state) == (subject, "cleared")
    assert cleared.seconds >= 60  # from when it began, not from the restart
    assert restarted(after, away=5).seconds(10, started_ns=1, **good) == []


def test_what_is_kept_survives_and_what_is_damaged_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept(tmp_path / "watchdog.json")
    assert kept.load() is None
    for number in range(50):
        kept.save({"run_ns": number, "raised": [], "unsent": []})
    kept.stop()
    assert Kept(tmp_path / "watchdog.json").load()["run_ns"] == 49
    data = (tmp_path / "watchdog.json").read_bytes()
    for cut in (0, 5, len(data) - 1):
        (tmp_path / "watchdog.json").write_bytes(data[:cut])
        assert kept.load() is None
        assert "is not cleared" in capsys.readouterr().err
