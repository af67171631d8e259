"""`tocsin alarm ...`: each command asks a running node for an action that the alerting stage knows."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from alerting.asked import check
from alerting.life.windows import OUT_OF_SERVICE, PLANNED_WORK, SHELVED, SILENCE, Window
from alerting.records.alarm import NEVER_NS
from runtime.bus import RequestServer
from telemetry.errors import ConfigError
from tests.unit.tocsin.test_doctor import STATUS
from tocsin import verbs
from tocsin.cli.alarm import alarm

ID = "00000000000000ab"
WINDOWS = [
    msgspec.to_builtins(one)
    for one in (
        Window("nc", SILENCE, 0, 3600 * 10**9, sources=("netcool",)),
        Window("shelve-ab", SHELVED, 0, 3600 * 10**9, alarms=(0xAB,)),
        Window("new", OUT_OF_SERVICE, 0, NEVER_NS, nodes=tuple(f"r{i}" for i in range(10))),
        Window("weekly", PLANNED_WORK, 0, 3600 * 10**9, days=("mon",)),
    )
]
LISTED = """\
silence         nc        from 1970-01-01T00:00:00+00:00 until 1970-01-01T01:00:00+00:00  source netcool
shelved         shelve-ab from 1970-01-01T00:00:00+00:00 until 1970-01-01T01:00:00+00:00  alarm 00000000000000ab
out-of-service  new       from 1970-01-01T00:00:00+00:00 until it is ended  r0, r1, r2, r3, r4, r5, r6, r7 and 2 more
planned-work    weekly    from 1970-01-01T00:00:00+00:00 (mon) until it is ended  all alarms
"""


ALARMS = [
    {"id": ID, "severity": "major", "raised_ns": 0, "state": "raised", "operator_state": "none",
     "operator": "", "suppressed": "parent", "title": "r1\x1b[2J is away"},
    {"id": ID, "severity": "critical", "raised_ns": 0, "state": "closed", "operator_state": "closed",
     "operator": "ann", "suppressed": "", "title": "fan of r2"},
]  # fmt: skip
INCIDENT = {
    "incident_id": ID, "severity": "major", "opened_ns": 0, "state": "open", "operator_state": "acknowledged",
    "operator": "ann", "title": "a-b is down", "alarms_count": 3,
}  # fmt: skip


def test_what_is_up_is_listed_with_what_became_of_it(node: "Node") -> None:
    def lines(*words: str) -> list[str]:
        done = CliRunner().invoke(alarm, ["list", *words, "--state", str(node.state)])
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    (away,) = lines()
    assert re.fullmatch(rf"{ID}  major +1970-01-01 00:00  parent +r1\S*\[2J is away", away)
    assert "\x1b" not in away
    assert [one.split()[4] for one in lines("--all")] == ["parent", "closed"]
    assert lines("--incidents")[0].split("  ")[-1].strip() == "a-b is down (+2 alarms)"
    assert "acknowledged by ann" in lines("--incidents")[0]


class Node:
    """What is left of a node: it keeps what it was asked for, if it can be meant."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def operate(self, wish: verbs.OperateRequest) -> verbs.OperateAnswer:
        check(wish.kind, wish.payload, 0)
        self.asked.append((wish.kind, wish.payload))
        return verbs.OperateAnswer()

    def says(self, *words: str) -> list[tuple[str, dict[str, Any]]]:
        """Run a command and return what it asked for."""
        self.asked.clear()
        by = [] if words[0] in ("windows", "list") else ["--by", "ann"]
        done = CliRunner().invoke(alarm, [*words, *by, "--state", str(self.state)])
        assert done.exit_code == 0, done.output
        return self.asked


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("n"))
    ready, ended = threading.Event(), threading.Event()

    def answer() -> None:
        server = RequestServer(f"ipc://{made.state}/node.sock")
        server.start()
        server.handle("status", verbs.Nothing, lambda _: STATUS)
        server.handle("windows", verbs.Nothing, lambda _: verbs.WindowsAnswer(windows=WINDOWS))
        server.handle(
            "alarms", verbs.AlarmsRequest, lambda ask: verbs.Alarms(ALARMS[: 2 - ask.active_only])
        )
        server.handle(
            "incidents", verbs.IncidentsRequest, lambda _: verbs.IncidentsAnswer([INCIDENT])
        )
        server.handle("operate", verbs.OperateRequest, made.operate)
        ready.set()
        while not ended.wait(0.005):
            server.serve()
        server.stop()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    ready.wait(10)
    yield made
    ended.set()
    thread.join(30)


@pytest.mark.parametrize(
    ("words", "kind", "payload"),
    [
        (["unack", ID], "unacknowledge", {"alarm": ID}),
        (["comment", f"incident:{ID}", "a card is on its way"], "feedback",
         {"incident": ID, "verdict": "comment", "note": "a card is on its way"}),
        (["unshelve", f"incident:{ID}"], "unshelve", {"incident": ID}),
        (
            ["plan", "ams1", "a-b", "--for", "1h", "--behind", "--name", "swap", "--from", "2026-12-01T01:00:00Z"],
            "maintenance",
            {"objects": ["ams1", "a-b"], "seconds": 3600.0, "behind": True, "note": "", "name": "swap",
             "start_ns": 1_796_086_800 * 10**9},
        ),
        (
            ["out-of-service", "ams1", "--reason", "not yet"],
            "out_of_service", {"nodes": ["ams1"], "note": "not yet"},
        ),
        (["merge", f"incident:{ID}", ID], "merge", {"incidents": [ID, ID]}),
        (["split", f"incident:{ID}", ID], "split", {"incident": ID, "alarms": [ID]}),
        (["out-of-service", "ams1", "--over"], "out_of_service", {"nodes": ["ams1"], "note": "", "over": True}),
    ],
)  # fmt: skip
def test_what_a_command_asks_for(
    node: Node, words: list[str], kind: str, payload: dict[str, Any]
) -> None:
    assert node.says(*words) == [(kind, payload | {"by": "ann"})]


def test_windows_say_what_they_hide_and_until_when(node: Node) -> None:
    done = CliRunner().invoke(alarm, ["windows", "--state", str(node.state)])
    assert re.sub(" {20,}", " ", done.output) == re.sub(" {2,}(?=from)", " ", LISTED)


def test_a_work_is_planned_in_a_zone(node: Node) -> None:
    asked = ["plan", "ams1", "--from", "2026-12-01T01:00:00", "--state", str(node.state)]
    done = CliRunner().invoke(alarm, asked)
    assert isinstance(done.exception, ConfigError)
    assert "does not say in which zone" in str(done.exception)
