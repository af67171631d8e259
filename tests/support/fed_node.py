"""A whole node without threads or sockets of inputs: time is injected, datagrams are handed over as blocks."""

import socket
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.block import DatagramBlock, silence
from collectors.datagram import Datagram, pack
from runtime.clock import SteadyClock
from telemetry.identity import address_pair
from tests.support.live_node import write_config
from tocsin.chain.intake import Intake
from tocsin.config import load_config
from tocsin.demo.exporters import Exporter
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import Fault, TrafficModel
from tocsin.node.node import Node

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND
STEP_NS = SECOND // 4


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
    """A node, the demo's exporters, and a clock that people may set. The exporters' clocks are right."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        start_ns: int = START_NS,
        seed: int = 5,
        faults: tuple[Fault, ...] = (),
        records_per_second: float = 600.0,
    ) -> None:
        monkeypatch.setattr("tocsin.chain.intake.UdpListener", Input)
        ports = [free_port(47_000 + 50 * n, socket.SOCK_DGRAM) for n in range(2)]
        self.config = load_config(write_config(folder, port=ports[0], sflow_port=ports[1]))
        self.state = folder / "state"
        self.start_ns = self.true_ns = start_ns
        self.off_ns = 0
        network = load_demo_network()
        self.model = TrafficModel(
            network, seed=seed, faults=faults, records_per_second=records_per_second
        )
        boot_ns = start_ns - 86_400 * SECOND
        self.exporters = [Exporter(network, row, boot_ns) for row in range(len(network.names))]
        self.low = network.address_low
        self.node = self.start()

    def start(self) -> Node:
        """Start a node on the state folder."""
        self.clock = SteadyClock(
            system=lambda: self.true_ns + self.off_ns, steady=lambda: self.true_ns - self.start_ns
        )
        self.node = Node(self.config, self.state, self.clock)
        self.node.start()
        return self.node

    def run(self, seconds: float) -> None:
        """Let time pass, and the exporters send."""
        for _ in range(round(seconds * SECOND / STEP_NS)):
            batch = self.model.records(self.true_ns, STEP_NS)
            self.true_ns += STEP_NS
            now_ns = self.clock.now_ns()
            intake = self.node._intake
            assert isinstance(intake, Intake)  # one process: no workers
            inputs: dict[str, Any] = dict(intake._listeners)  # each an `Input`, see above
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
