"""How long a thread of the node waits for its turn while 8,000 datagrams a second are worked on.

A probe thread in the node's own process sleeps a millisecond at a time and notes how late it runs
again: what receives would wait as long, while the kernel's buffer fills (design section 6: no Python
thread does anything longer than 2 ms). On a busy machine the wait for a processor is in it too: turns
that were late while the node's own loop slept tell how much of it.
"""

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from perf.flows import datagrams, flood
from perf.measure import report, row
from tests.support.live_node import LiveNode, write_config
from tocsin.demo.settings import free_port
from tocsin.node import node

PROBE_SECONDS = 0.001
LONG_SECONDS = 0.002
OUTPUT = "TOCSIN_PERF_TURNS"


class ProbedNode(LiveNode):
    """A node process that runs this file, and so the probe beside the node."""

    def __init__(self, config: Path, state: Path) -> None:
        super().__init__(config, state)
        self._command = [sys.executable, __file__, str(config), str(state)]


def probed() -> None:
    """Run a node as its own `main` does, with a probe thread; write what it found at the end."""
    late: list[tuple[float, bool]] = []
    ended = threading.Event()
    loop = threading.main_thread().ident

    def probe() -> None:
        while not ended.is_set():
            began = time.perf_counter()
            time.sleep(PROBE_SECONDS)
            seconds = time.perf_counter() - began - PROBE_SECONDS
            slept = False
            if seconds > LONG_SECONDS and loop is not None:
                slept = sys._current_frames()[loop].f_code.co_name == "poll"
            late.append((seconds, slept))

    thread = threading.Thread(target=probe, daemon=True)
    run = node.Node.run

    def run_probed(self: node.Node) -> None:
        thread.start()
        run(self)

    node.Node.run = run_probed  # type: ignore[method-assign]
    try:
        node.main()
    finally:
        ended.set()
        Path(os.environ[OUTPUT]).write_text(json.dumps(sorted(late)), "utf-8")


def measure() -> list[dict[str, object]]:
    """Return the rows of the table."""
    import socket

    made = datagrams("v9")[0] * 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[OUTPUT] = str(folder / "late.json")
        port, other = free_port(43055, socket.SOCK_DGRAM), free_port(43343, socket.SOCK_DGRAM)
        probed_node = ProbedNode(
            write_config(folder, port=port, sflow_port=other), folder / "state"
        )
        probed_node.start().ask()
        flood(made, port, per_second=8000)
        time.sleep(1)
        probed_node.stop()
        late = json.loads((folder / "late.json").read_text("utf-8"))
    count = len(late)
    long = [slept for seconds, slept in late if seconds > LONG_SECONDS]
    times = [seconds for seconds, _ in late]
    return [
        row("a thread waits for its turn, p50", times[count // 2] * 1e3, "ms", None, "lower"),
        row("a thread waits for its turn, p99", times[int(count * 0.99)] * 1e3, "ms", 2, "lower"),
        row(
            "a thread waits for its turn, p99.9",
            times[int(count * 0.999)] * 1e3,
            "ms",
            None,
            "lower",
        ),
        row("a thread waits for its turn, most", times[-1] * 1e3, "ms", None, "lower"),
        row("turns that came after more than 2 ms", len(long) / count * 100, "%", None, "lower"),
        row("  of them while the node's loop slept", sum(long) / max(len(long), 1) * 100, "%"),
    ]


if __name__ == "__main__":
    if OUTPUT in os.environ:
        probed()
    else:
        report("turns", measure())
