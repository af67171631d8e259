"""The node as the gate sees it: a real outbox behind a real request socket, and no flows."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from alerting.outbox.outbox import Outbox
from alerting.words.delivery import Order, SinkStatus, Verdict
from runtime.bus import Publisher, RequestServer
from runtime.clock import SystemClock
from runtime.journal_writer import JournalWriter
from telemetry.batch import Batch
from tests.support import processes
from tocsin import verbs
from tocsin.config import load_config
from tocsin.node.commits import Commits
from tocsin.testing import make_context

GATE_ENDS_NS = 30 * 10**9
FOLDER = Path(__file__).parents[2]


class OutboxNode:
    """Owns `<state>/node.sqlite`, `node.sock` and `frames.sock`. Call `serve` often."""

    def __init__(self, config: Path, state: Path) -> None:
        self.clock = SystemClock()
        self.outbox = Outbox(
            state / "node.sqlite", load_config(config).alerting, make_context("outbox")
        )
        self.orders: list[Order] = []
        self._server = RequestServer(f"ipc://{state}/node.sock")
        self._publisher = Publisher(f"ipc://{state}/frames.sock")

    def start(self) -> None:
        self.outbox.start()
        serve = self._server.handle
        serve("due", verbs.DueRequest, lambda ask: self.outbox.due(self.clock.now_ns(), ask.limit))
        serve("mark", list[Verdict], self._mark)
        serve(
            "alarms", verbs.AlarmsRequest,
            lambda ask: verbs.Alarms(
                self.outbox.alarms(active_only=ask.active_only, limit=ask.limit)
            ),
        )  # fmt: skip
        serve("told", verbs.ToldRequest, lambda ask: self.outbox.told(ask.sink))
        serve("sinks", list[SinkStatus], lambda _: verbs.Nothing())
        serve("orders", list[Order], lambda orders: self.orders.extend(orders) or verbs.Nothing())
        self._server.start()
        self._publisher.start()

    def _mark(self, verdicts: list[Verdict]) -> verbs.Nothing:
        self.outbox.mark(verdicts, self.clock.now_ns())
        return verbs.Nothing()

    def commit(self, tick_end_ns: int, batches: list[Batch]) -> int:
        """Commit the alarms among these batches and wake the gate; return how many changes."""
        alarms = [b for b in batches if b.schema.name == "alarm"]
        incidents = [b for b in batches if b.schema.name == "incident"]
        if alarms or incidents:
            self._publisher.publish("due", b"")
        alerts = self.outbox.commit(tick_end_ns, alarms, self.clock.now_ns(), incidents=incidents)
        return len(alerts)

    def commits(self, journal: JournalWriter) -> Commits:
        """Return what commits ticks as a node does, with a journal, and answers the gate meanwhile."""
        made = Commits(journal, self.outbox, self._publisher, self.clock)
        made.on_due = lambda: self._server.serve_only("due")
        return made

    def wait(self) -> None:
        """Return when somebody asks something, or after a millisecond."""
        self._server.socket.poll(1)

    def serve(self) -> int:
        return self._server.serve()

    def stop(self) -> None:
        self._server.stop()
        self._publisher.stop()
        self.outbox.stop()


@contextlib.contextmanager
def node_with_gate(folder: Path, config: str) -> Iterator[tuple[OutboxNode, Path]]:
    """Yield a node whose gate has asked for the first time, and the file its sink {file} writes to."""
    sink, path = folder / "alerts.jsonl", folder / "tocsin.toml"
    path.write_text(config.format(file=sink))
    node = OutboxNode(path, folder)
    node.start()
    gate = start_gate(path, folder)
    try:
        while not node.serve():
            time.sleep(0.01)
        yield node, sink
    finally:
        end_gate(gate, node)
        node.stop()


def start_gate(config: Path, state: Path) -> "subprocess.Popen[bytes]":
    """Start the gate process as the supervisor does."""
    command = [sys.executable, "-m", "tocsin.gate", str(config), str(state)]
    return processes.start(command, cwd=FOLDER)


def end_gate(gate: "subprocess.Popen[bytes]", node: OutboxNode) -> int:
    """End the gate, which asks the node once more before it goes; return its exit code."""
    gate.terminate()
    end_ns = node.clock.monotonic_ns() + GATE_ENDS_NS
    while gate.poll() is None and node.clock.monotonic_ns() < end_ns:
        node.serve()
        time.sleep(0.002)
    return processes.stop(gate, seconds=0.1)
