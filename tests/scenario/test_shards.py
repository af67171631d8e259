"""Shard processes: same alarms as without, nothing lost when one is killed, journal = replay."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.bus import RequestClient
from runtime.journal import Block, BlockKind, JournalReader
from telemetry.schemas import FrameFlag
from tests.scenario.test_crash import SECOND, committed
from tests.support import processes
from tests.support.live_node import CLOCK, LiveNode, sender, write_config
from tocsin import verbs
from tocsin.cases.replay import Replay
from tocsin.config import load_config
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import Fault

SLICE_NS = SECOND // 4


class Fed:
    """A live node with some shards, and the demo's exporters that send to it."""

    def __init__(self, folder: Path, *, workers: int, base: int) -> None:
        folder.mkdir()
        self.ports = (free_port(base, socket.SOCK_DGRAM), free_port(base + 50, socket.SOCK_DGRAM))
        self.config = write_config(folder, port=self.ports[0], sflow_port=self.ports[1])
        text = self.config.read_text("utf-8").replace("[node]", f"[node]\nworkers = {workers}")
        self.config.write_text(text, "utf-8")
        self.node = LiveNode(self.config, folder / "state").start()

    def wait(self) -> None:
        """Wait until it has closed ticks, with all its shards."""
        for _ in range(600):  # a first run compiles the kernels
            now = self.node.ask()
            if now.ticks >= 2 and all(worker.counts for worker in now.workers):
                return
            CLOCK.sleep(0.1)
        raise AssertionError("the node closed no tick within a minute")

    def ticks(self) -> list[Block]:
        """The view ticks that the node has journalled, with the control rows of event ticks between."""
        folder, made, between = self.node.state / "journal", [], ()
        for block in JournalReader(folder).read():
            if block.kind is not BlockKind.TICK:
                continue
            if any(batch.schema.name == "frame" for batch in block.batches):
                made.append(replace(block, batches=(*between, *block.batches)))
                between = ()
            else:
                between = (*between, *block.batches)
        return made

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a self-metric's samples with these labels."""
        client = RequestClient(f"ipc://{self.node.state}/node.sock")
        try:
            text = client.ask("metrics", verbs.Nothing(), verbs.MetricsText).text
        finally:
            client.close()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith(f"tocsin_{name}")]
        return sum(float(x.rsplit(" ", 1)[1]) for x in lines if all(part in x for part in wanted))


@contextlib.contextmanager
def feeding(fed: list[Fed], faults: tuple[Fault, ...], *, rate: float = 900.0) -> Iterator[None]:
    """Send the same records to all nodes in real time.

    They are started anew under way: a node that learns from where traffic begins learns a rise.
    """
    for one in fed:
        one.wait()
    senders = [sender(faults, port=f.ports[0], sflow_port=f.ports[1], rate=rate) for f in fed]

    def run(stop: threading.Event) -> None:
        at_ns = CLOCK.now_ns() // SLICE_NS * SLICE_NS
        while not stop.is_set():
            for one in senders:
                one.send(at_ns, SLICE_NS)
            at_ns += SLICE_NS
            CLOCK.sleep(max(0.0, (at_ns - CLOCK.now_ns()) / 1e9))

    try:
        with processes.beside(run):
            CLOCK.sleep(2.0)
            for one in fed:
                assert one.node.stop() == 0
                one.node.start()
            for one in fed:
                one.wait()
            yield
    finally:
        for exporters in senders:
            exporters.close()


def controls(ticks: list[Block], kind: str) -> list[dict[str, object]]:
    """Return the payloads of control rows of a kind."""
    return [
        json.loads(text)
        for block in ticks
        for batch in block.batches
        if batch.schema.name == "control"
        for row_kind, text in zip(batch.texts("kind"), batch.texts("payload"), strict=True)
        if row_kind == kind
    ]


def canonical_order(alerts: list[bytes]) -> list[bytes]:
    return sorted(alerts, key=lambda a: (json.loads(a)["changed_ns"], json.loads(a)["change"]))


def test_three_shards_raise_the_alarms_of_one_process_and_their_journals_replay(
    tmp_path: Path,
) -> None:
    fed = [
        Fed(tmp_path / "one", workers=1, base=42100),
        Fed(tmp_path / "three", workers=3, base=42300),
    ]
    links = load_demo_network().links_used()
    start_ns = CLOCK.now_ns()
    faults = (
        Fault("link-cut", links[0], start_ns + 22 * SECOND, start_ns + 60 * SECOND),
        Fault("exporter-down", "fra1", start_ns + 24 * SECOND, start_ns + 60 * SECOND),
    )
    try:
        with feeding(fed, faults):
            began_ns = CLOCK.now_ns()
            CLOCK.sleep(max(0.0, (start_ns + 30 * SECOND - CLOCK.now_ns()) / 1e9))
            last = fed[1].node.ask()
    finally:
        codes = [one.node.stop() for one in fed]
    assert codes == [0, 0]
    assert all(worker.counts and not worker.restarts for worker in last.workers)
    raised = []
    for one in fed:
        ends = [block.tick_end_ns for block in one.ticks()]
        assert ends == sorted(set(ends))
        last_run = [end_ns for end_ns in ends if end_ns > began_ns]
        assert last_run == list(range(last_run[0], last_run[-1] + 1, SECOND)), "a tick is missing"
        alerts, done = committed(one.node.state)
        assert done == ends
        replayed = list(Replay(load_config(one.config)).journal(one.node.state / "journal"))
        assert canonical_order(replayed) == canonical_order(alerts)
        fields = [json.loads(alert) for alert in alerts]
        raised.append({(a["kind"], a["entity"]): a["changed_ns"] for a in fields})
    assert set(raised[0]) == {("link-cut", links[0]), ("exporter-down", "fra1")}
    assert raised[0] == raised[1], "not in the same tick"
    # Each kept the templates of its own exporters.
    folders = sorted(path.name for path in (fed[1].node.state / "templates").iterdir())
    assert folders == ["shard-0-of-3", "shard-1-of-3", "shard-2-of-3"]


def test_a_killed_shard_costs_its_open_ticks_and_nothing_else(tmp_path: Path, deep: bool) -> None:
    fed = Fed(tmp_path / "node", workers=3, base=42500)
    random = np.random.default_rng(5)
    kills = 10 if deep else 2
    try:
        with feeding([fed], (), rate=3000.0):
            began_ns = CLOCK.now_ns()
            CLOCK.sleep(8.0)
            decoded = fed.metric("collector_records_total", component="shard-1.collectors.flow")
            assert decoded > 0
            for number in range(kills):
                before = fed.node.ask()
                victim = before.workers[(1 + number) % 3]
                os.kill(victim.pid, signal.SIGKILL)
                for _ in range(300):
                    now = fed.node.ask().workers[victim.shard]
                    if now.restarts > victim.restarts and now.counts:
                        break
                    CLOCK.sleep(0.05)
                assert now.counts
                assert now.pid != victim.pid
                CLOCK.sleep(3.0 + random.uniform(0.0, 1.0))
            last = fed.node.ask()
            held = fed.metric(
                "collector_sets_total", reason="held", component="shard-1.collectors.flow"
            )
    finally:
        code = fed.node.stop()
    assert code == 0
    assert [
        text for text in last.health if not text.startswith("the gate ")
    ] == []  # none runs here
    assert held == 0, "its templates were not kept"
    every = [block.tick_end_ns for block in fed.ticks()]
    ticks = [block for block in fed.ticks() if block.tick_end_ns > began_ns]
    ends = [block.tick_end_ns for block in ticks]
    assert ends == list(range(ends[0], ends[-1] + 1, SECOND)), "a tick is missing or twice"
    gaps = [one for one in controls(ticks, "gap") if "shard" in one]
    assert [one["shard"] for one in gaps] == [(1 + number) % 3 for number in range(kills)]
    assert len(controls(ticks, "shard")) == kills
    alerts, done = committed(fed.node.state)
    assert done == every
    assert alerts == [], "the gap raised an alarm"
    # Quiet ticks are flagged, and only those around the kills: what came after counts again.
    octets, flagged = totals(ticks)
    usual = np.median(octets[~flagged])
    assert not flagged[-2:].any()
    assert (octets[~flagged] > 0.5 * usual).all(), "a tick that lacks a shard is not flagged"
    replayed = list(Replay(load_config(fed.config)).journal(fed.node.state / "journal"))
    assert replayed == []


def totals(ticks: list[Block]) -> tuple[np.ndarray, np.ndarray]:
    """Return (octets of all exporters, whether flagged incomplete) of each tick."""
    octets, flagged = [], []
    for block in ticks:
        frame = next(
            b
            for b in block.batches
            if b.schema.name == "frame" and b.texts("view")[0] == "exporter"
        )
        octets.append(float(frame["octets"].sum()))
        flagged.append(bool((frame["flags"] & FrameFlag.INCOMPLETE).any()))
    return np.array(octets), np.array(flagged)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_shards_end_with_their_node(tmp_path: Path, number: int) -> None:
    fed = Fed(tmp_path / "node", workers=2, base=42700)
    fed.wait()
    pids = [worker.pid for worker in fed.node.ask().workers]
    assert fed.node.process is not None
    began_ns = CLOCK.monotonic_ns()
    fed.node.process.send_signal(number)
    fed.node.process.wait(10)
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        CLOCK.sleep(0.05)
    else:
        raise AssertionError("a shard outlived its node")
    assert CLOCK.monotonic_ns() - began_ns < 5 * SECOND
    # The ports are free again: the next node comes up.
    fed.node.start()
    fed.node.ask()
    assert fed.node.stop() == 0
