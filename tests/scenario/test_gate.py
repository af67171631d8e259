"""The gate process between a real outbox and real sinks: killed at random, beside a dead sink."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import processes
from tests.support.outbox_node import OutboxNode, end_gate, start_gate
from tocsin.testing.alarms import AlarmWorld

CONFIG = """
[node]
profile = "site"
[alerting.sinks.file]
kind = "file"
send = "alarms"
path = "{file}"
[alerting.sinks.dead]
kind = "webhook"
send = "alarms"
url = "http://127.0.0.1:{port}/"
timeout_seconds = 0.5
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("g")  # short: a unix socket's path has 108 bytes


@pytest.fixture
def hole() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        yield listener.getsockname()[1]


def test_a_gate_killed_at_random_delivers_every_change_in_order_beside_a_sink_that_hangs(
    folder: Path, hole: int
) -> None:
    lines = folder / "alerts.jsonl"
    config = folder / "tocsin.toml"
    config.write_text(CONFIG.format(file=lines, port=hole))
    node = OutboxNode(config, folder)
    node.start()
    world = AlarmWorld()
    die = np.random.default_rng(7)
    series = [world.series("exporter", exporter=f"192.0.2.{i}") for i in range(1, 30)]
    gate = start_gate(config, folder)
    kills, told = 0, 0
    try:
        for tick in range(60):
            down = series[tick % 20 : tick % 20 + 8] if tick % 12 < 6 else []
            told += node.commit(world.now_ns + 1, world.batches([world.silence(s) for s in down]))
            for _ in range(20):
                node.serve()
                node.clock.sleep(0.005)
            if tick % 15 == 14:
                node.clock.sleep(float(die.uniform(0, 0.02)))
                gate.kill()
                gate.wait()
                gate = start_gate(config, folder)
                kills += 1
        expected = [change["change"] for change in node.outbox.changes(limit=10_000)]
        end_ns = node.clock.now_ns() + 60_000_000_000
        asked = 0
        while node.clock.now_ns() < end_ns:
            asked += node.serve()
            node.clock.sleep(0.002)
            if asked and lines.exists() and len(set(lines.read_bytes().splitlines())) == told:
                break
        # SIGTERM may come before a gate that was just started listens for it.
        assert end_gate(gate, node) in (0, -15)
    finally:
        processes.kill(gate)
        node.stop()
    assert kills == 4
    assert told == len(expected) > 50
    got = [json.loads(line) for line in lines.read_bytes().splitlines()]
    assert {alert["change"] for alert in got} == set(expected)
    first: dict[str, list[int]] = {}
    seen = set()
    for alert in got:
        if alert["change"] not in seen:
            seen.add(alert["change"])
            first.setdefault(alert["id"], []).append(alert["changed_ns"])
    assert all(times == sorted(times) for times in first.values())
