"""A node whose disk refuses for longer than memory lasts: it takes in nothing more, and loses nothing it took."""

import json
import socket
from pathlib import Path

import pytest

from runtime.clock import SystemClock
from tests.support.failing_disk import FailingDisk
from tests.support.live_node import journalled_texts, write_config
from tocsin.config import load_config
from tocsin.demo.settings import free_port
from tocsin.node.node import Node

CLOCK = SystemClock()


def test_a_node_that_can_keep_no_more_stands_still_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.journal_writer.WAITING_BYTES_MAX", 20_000)
    flow, sflow, lines = (free_port(29_500 + 60 * n, socket.SOCK_DGRAM) for n in range(3))
    extra = f'[collectors.lines]\nkind = "syslog"\nlisten = "udp://127.0.0.1:{lines}"\n'
    config = write_config(tmp_path, port=flow, sflow_port=sflow, extra=extra)
    state = tmp_path / "state"
    disk, node = FailingDisk(monkeypatch), Node(load_config(config), state)
    node.start()
    sent = 0
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def work(turns: int) -> None:
        nonlocal sent
        for _ in range(turns):
            sender.sendto(f"<14>Nov 28 08:00:00 h1 app: line {sent}".encode(), ("127.0.0.1", lines))
            sent += 1
            for _ in range(5):
                node.step()
                CLOCK.sleep(0.02)

    try:
        work(20)
        disk.refusals = 1_000_000
        for _ in range(60):
            work(5)
            if node._stands_since_ns:
                break
        assert node._stands_since_ns, "memory has no end"
        frontier_ns, waiting = node._frontier_ns, node._journal.next_sequence
        work(20)
        assert (node._frontier_ns, node._journal.next_sequence) == (frontier_ns, waiting)
        disk.refusals = 0
        for _ in range(60):
            work(5)
            if not node._stands_since_ns:
                break
        assert not node._stands_since_ns
        assert node._commits.trouble == ""
        work(40)  # the last event ticks close
    finally:
        sender.close()
        node.stop()
    found = [int(text.rpartition(" ")[2]) for text in journalled_texts(state, "log", "message")]
    assert found == list(range(len(found))), "a line is lost, though the kernel had room for it"
    assert len(found) > sent - 40
    gaps = [json.loads(payload) for payload in journalled_texts(state, "control", "payload")]
    assert any(gap.get("seconds", 0.0) > 1.0 for gap in gaps), "the time it stood still is not told"
