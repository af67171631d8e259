"""`tocsin alarm ...`: each command asks a running node for an action that the alerting stage knows."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alerting.asked import check
from runtime.bus import RequestServer
from tests.unit.tocsin.test_doctor import STATUS
from tocsin import verbs
from tocsin.cli.alarm import alarm

ID = "00000000000000ab"


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
        by = [] if words[0] == "windows" else ["--by", "ann"]
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
        server.handle("operate", verbs.OperateRequest, made.operate)
        ready.set()
        while not ended.wait(0.005):
            server.serve()
        server.stop()

    thread = threading.Thread(target=answer)
    thread.start()
    ready.wait(10)
    yield made
    ended.set()
    thread.join()


@pytest.mark.parametrize(
    ("words", "kind", "payload"),
    [
        (["unack", ID], "unacknowledge", {"alarm": ID}),
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
        (["out-of-service", "ams1", "--over"], "out_of_service", {"nodes": ["ams1"], "note": "", "over": True}),
    ],
)  # fmt: skip
def test_what_a_command_asks_for(
    node: Node, words: list[str], kind: str, payload: dict[str, Any]
) -> None:
    assert node.says(*words) == [(kind, payload | {"by": "ann"})]
