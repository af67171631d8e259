"""Resident memory by process and profile with 1,000 and 10,000 series, installed size, cold start."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from perf.measure import report, row
from tests.support.live_node import CLOCK, LiveNode, sender, write_config
from tocsin.demo.settings import free_port
from tocsin.node import rss_bytes

SECOND = 1_000_000_000
SETTLE_SECONDS = 20


def measure() -> list[dict[str, object]]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, other = free_port(43055, socket.SOCK_DGRAM), free_port(43343, socket.SOCK_DGRAM)
        config = write_config(folder, port=port, sflow_port=other)
        began = time.perf_counter()
        node = LiveNode(config, folder / "state").start()
        gate = LiveNode(config, folder / "state", "gate").start()
        node.ask()
        rows.append(
            row(
                "cold start: ready, warm kernel cache", time.perf_counter() - began, "s", 3, "lower"
            )
        )
        exporters = sender((), port=port, sflow_port=other)
        until = CLOCK.now_ns() + SETTLE_SECONDS * SECOND
        at_ns = CLOCK.now_ns()
        while at_ns < until:
            exporters.send(at_ns, SECOND // 4)
            at_ns += SECOND // 4
            CLOCK.sleep(max(0.0, (at_ns - CLOCK.now_ns()) / 1e9))
        exporters.close()
        series = node.ask().series
        assert node.process is not None
        assert gate.process is not None
        for label, process in (("node", node.process), ("gate", gate.process)):
            rows.append(
                row(
                    f"RSS {label}, {series} series",
                    rss_bytes(process.pid) / 1e6,
                    "MB",
                    None,
                    "lower",
                )
            )
        total = sum(rss_bytes(p.pid) for p in (node.process, gate.process)) / 1e6
        rows.append(row("RSS sensor: node + gate", total, "MB", 192, "lower"))
        gate.stop()
        node.stop()
    site = Path(sys.prefix)
    used = subprocess.run(
        ["du", "-sm", str(site)], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    rows.append(row("installed, with the tools of development", float(used), "MB", 900, "lower"))
    rows.append(row("free disk beside it", shutil.disk_usage(site).free / 1e9, "GB"))
    return rows


if __name__ == "__main__":
    report("footprint", measure())
