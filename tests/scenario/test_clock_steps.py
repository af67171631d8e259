"""The machine's clock is set forward, back and by seconds under a whole node: no alarm, no standstill.

Time is injected and the exporters' datagrams are handed over as blocks: what a thread on a socket does
is in tests/unit/collectors/test_listener.py.
"""

import json
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.block import DatagramBlock, silence
from collectors.capture import Datagram, pack
from runtime.clock import SteadyClock
from runtime.journal import BlockKind, JournalReader
from telemetry.identity import address_pair
from telemetry.schemas import FrameFlag
from tests.support.live_node import write_config
from tocsin.config import load_config
from tocsin.demo.exporters import Exporter
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import TrafficModel
from tocsin.node import Node

SECOND = 1_000_000_000
START = 1_790_596_800 * SECOND
STEP_NS = SECOND // 4
LINKS = """
[views.sample]
tick_seconds = 1.0
lateness_seconds = 0.5
"""


class Input:
    """Stands where a UDP listener does: gives the blocks it was given."""

    address, health = "udp://test", lambda self: ""
    datagrams = kernel_drops = socket_drops = granted_bytes = waiting = connections = 0
    deadline_ns = 0

    def __init__(self, *given: Any, **more: Any) -> None:
        self.blocks: deque[DatagramBlock] = deque()

    def bind(self) -> None: ...

    def start(self, *, drops_before: int = 0) -> None: ...

    def stop(self) -> None: ...

    def take(self) -> DatagramBlock | None:
        return self.blocks.popleft() if self.blocks else None


class Machine:
    """A node, its exporters, and a clock that people set. The exporters' clocks are right."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port(47_000 + 50 * n, socket.SOCK_DGRAM) for n in range(2)]
        self.config = load_config(write_config(folder, port=ports[0], sflow_port=ports[1]))
        self.state = folder / "state"
        self.true_ns, self.off_ns = START, 0
        network = load_demo_network()
        self.model = TrafficModel(network, seed=5, records_per_second=600.0)
        boot_ns = START - 86_400 * SECOND
        self.exporters = [Exporter(network, row, boot_ns) for row in range(len(network.names))]
        self.low = network.address_low
        self.node = self.start()

    def start(self) -> Node:
        self.clock = SteadyClock(
            system=lambda: self.true_ns + self.off_ns, steady=lambda: self.true_ns - START
        )
        self.node = Node(self.config, self.state, self.clock)
        self.node.start()
        return self.node

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * SECOND / STEP_NS)):
            batch = self.model.records(self.true_ns, STEP_NS)
            self.true_ns += STEP_NS
            now_ns = self.clock.now_ns()
            inputs = self.node._intake._listeners  # type: ignore[union-attr]
            sent: dict[str, list[Datagram]] = {name: [] for name in inputs}
            for row, exporter in enumerate(self.exporters):
                mine = np.flatnonzero(batch["exporter_address_low"] == self.low[row])
                name = "sflow" if exporter.protocol == "sflow" else "flow"
                high, low = address_pair(exporter.address)
                for data in exporter.datagrams(batch, mine, self.true_ns) if mine.size else ():
                    sent[name].append(Datagram(now_ns, high, low, 40_000 + row, 0, data))
            for name, datagrams in sent.items():
                if datagrams:
                    inputs[name].blocks.append(pack(datagrams))
                inputs[name].blocks.append(silence(now_ns))
            for _ in range(3):
                self.node.step()

    def kept(self) -> Iterator[Any]:
        for block in JournalReader(self.state / "journal").read():
            if block.kind is BlockKind.TICK:
                yield block

    def whole_ticks(self) -> int:
        """How many ticks of the shortest flow views are journalled as complete."""
        return sum(
            any(b.schema.name == "frame" and not (b["flags"] & FrameFlag.INCOMPLETE).any()
                for b in block.batches)
            for block in self.kept()
        )  # fmt: skip

    def gaps(self) -> list[float]:
        return [
            json.loads(text)["seconds"]
            for block in self.kept()
            for batch in block.batches
            if batch.schema.name == "control"
            for text, kind in zip(batch.texts("payload"), batch.texts("kind"), strict=True)
            if kind == "gap"
        ]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr("tocsin.intake.UdpListener", Input)
    made = Machine(tmp_path)
    yield made
    made.node.stop()


@pytest.mark.parametrize("seconds", [3600, -3600, 2, -2, 40_000_000])
def test_a_clock_that_is_set_raises_nothing_and_stops_nothing(
    machine: Machine, seconds: int
) -> None:
    machine.run(14)
    before, ticks = machine.whole_ticks(), len(list(machine.kept()))
    assert before > 8
    machine.off_ns += seconds * SECOND
    machine.run(10)
    assert machine.whole_ticks() - before >= 7, "it stands still"
    assert len(list(machine.kept())) - ticks < 200, "a tick for each second that never was"
    ends = [block.tick_end_ns for block in machine.kept()]
    assert all(b > a for a, b in zip(ends, ends[1:], strict=False))
    assert machine.node._outbox.changes() == [], "the clock raised an alarm"
    assert machine.gaps() == ([float(seconds)] if seconds > 60 else [])
    health = [text for text in machine.node.status().health if "set back" in text]
    assert len(health) == (seconds < -60)


def test_a_node_that_starts_after_its_clock_was_set_back_goes_on_behind_its_journal(
    machine: Machine,
) -> None:
    machine.run(14)
    machine.node.stop()
    newest_ns = max(block.tick_end_ns for block in machine.kept())
    machine.off_ns -= 3600 * SECOND
    machine.start()
    machine.run(12)
    ends = [block.tick_end_ns for block in machine.kept() if block.tick_end_ns > newest_ns]
    assert ends[0] - newest_ns < 5 * SECOND
    assert ends[-1] - ends[0] > 8 * SECOND, "closing times stand still"
    assert machine.node._outbox.changes() == []
