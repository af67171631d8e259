"""A real node process for tests, and the demo's exporters to feed it."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

from runtime.bus import RequestClient
from runtime.clock import SystemClock
from runtime.journal import BlockKind, JournalReader
from telemetry.errors import TransientError
from tests.support import processes
from tocsin import verbs
from tocsin.demo.exporters import Sender
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import FOLDER
from tocsin.demo.traffic import Fault, TrafficModel

CLOCK = SystemClock()
STEP_NS = 250_000_000  # exporters are fed in steps of so much time
CONFIG = """
[node]
profile = "sensor"
log_level = "error"
checkpoint_seconds = {checkpoint_seconds}
raw_ring_bytes = 16777216
[collectors.flow]
kind = "flow"
listen = "udp://127.0.0.1:{port}"
[collectors.sflow]
kind = "sflow"
listen = "udp://127.0.0.1:{sflow_port}"
[views]
tick_seconds = 1.0
lateness_seconds = 0.3
[network]
map = "{network}"
[detection]
warmup_ticks = 6
warmup_seconds = 6.0
silent_ticks = 2
[alerting.sinks.file]
kind = "file"
send = "alarms"
path = "{sink}"
"""


def write_config(
    folder: Path, *, port: int, sflow_port: int, checkpoint_seconds: float = 600.0, extra: str = ""
) -> Path:
    """Write the node's configuration and return its path."""
    path = folder / "node.toml"
    text = CONFIG.format(
        port=port,
        sflow_port=sflow_port,
        network=FOLDER / "network.toml",
        sink=folder / "alerts.jsonl",
        checkpoint_seconds=checkpoint_seconds,
    )
    path.write_text(text + extra, "utf-8")
    return path


def journalled_texts(state: Path, schema: str, column: str) -> list[str]:
    """Return a column of all rows of a schema in the ticks of a journal."""
    return [
        text
        for block in JournalReader(state / "journal").read()
        if block.kind is BlockKind.TICK
        for batch in block.batches
        if batch.schema.name == schema
        for text in batch.texts(column)
    ]


class LiveNode:
    """`python -m tocsin.node` on a state folder; may be killed and started again."""

    def __init__(self, config: Path, state: Path, role: str = "node") -> None:
        self._command = [sys.executable, "-m", f"tocsin.{role}", str(config), str(state)]
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "LiveNode":
        """Start the process."""
        self.process = processes.start(
            self._command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
        )
        return self

    def ask(self) -> verbs.Status:
        """Return the node's status, waiting up to a minute for it."""
        client = RequestClient(f"ipc://{self.state}/node.sock")
        try:
            for _ in range(240):
                with contextlib.suppress(TransientError):
                    return client.ask("status", verbs.Nothing(), verbs.Status, timeout_seconds=0.25)
                assert self.process is None or self.process.poll() is None, "the process ended"
        finally:
            client.close()
        raise AssertionError("the node did not answer within a minute")

    def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; return the exit code, -SIGKILL where it had to be killed."""
        assert self.process is not None
        return processes.stop(self.process)


def sender(faults: tuple[Fault, ...], *, port: int, sflow_port: int, rate: float = 900.0) -> Sender:
    """Return the demo's exporters, aimed at these ports."""
    model = TrafficModel(load_demo_network(), seed=5, faults=faults, records_per_second=rate)
    now_ns = CLOCK.now_ns()
    return Sender(
        model,
        ports={"flow": port, "sflow": sflow_port},
        host="127.0.0.1",
        boot_ns=now_ns - 86_400_000_000_000,
    )


def feed(stop: threading.Event, faults: tuple[Fault, ...], ports: tuple[int, int]) -> None:
    """Send what the demo's exporters send, in real time, to (flow, sFlow) ports until told to stop."""
    exporters = sender(faults, port=ports[0], sflow_port=ports[1])
    at_ns = CLOCK.now_ns() // STEP_NS * STEP_NS
    try:
        while not stop.is_set():
            exporters.send(at_ns, STEP_NS)
            at_ns += STEP_NS
            CLOCK.sleep(max(0.0, (at_ns - CLOCK.now_ns()) / 1e9))
    finally:
        exporters.close()
