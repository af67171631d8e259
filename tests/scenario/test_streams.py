"""Byte streams into a node with shards: every line of every sender is in the journal, once."""

import socket
from pathlib import Path

import pytest

from runtime.journal import BlockKind, JournalReader
from tests.support.live_node import CLOCK, LiveNode, write_config
from tocsin.demo.settings import free_port

LINES = 500
SENDERS = 4


@pytest.mark.parametrize("workers", [1, 2])
def test_every_line_of_every_sender_is_journalled_once(tmp_path: Path, workers: int) -> None:
    ports = [free_port(48255 + 10 * i, socket.SOCK_DGRAM) for i in range(2)]
    port = free_port(25614, socket.SOCK_STREAM)
    config = write_config(
        tmp_path, port=ports[0], sflow_port=ports[1],
        extra=f'[collectors.logs]\nkind = "syslog"\nlisten = "tcp://127.0.0.1:{port}"\n',
    )  # fmt: skip
    config.write_text(config.read_text().replace("[node]\n", f"[node]\nworkers = {workers}\n"))
    node = LiveNode(config, tmp_path / "state").start()
    node.ask()
    try:
        senders = [
            socket.create_connection(
                ("127.0.0.1", port), timeout=10, source_address=(f"127.0.0.{host + 2}", 0)
            )
            for host in range(SENDERS)
        ]
        for start in range(0, LINES, 50):
            for number, sock in enumerate(senders):
                lines = (
                    f"<14>Nov 28 08:00:00 h{number} app: line {i}\n"
                    for i in range(start, start + 50)
                )
                data = "".join(lines).encode()
                sock.sendall(data[:7])  # cut where it hurts
                sock.sendall(data[7:])
            CLOCK.sleep(0.1)
        for _ in range(100):
            status = node.ask()
            (logs,) = (one for one in status.listeners if one.name == "logs")
            if logs.connections == SENDERS:
                break
            CLOCK.sleep(0.1)
        assert logs.connections == SENDERS
        for sock in senders:
            sock.close()
        CLOCK.sleep(3.0)  # their event ticks close
    finally:
        assert node.stop() == 0
    seen: list[tuple[str, str]] = []
    for block in JournalReader(node.state / "journal").read():
        if block.kind is BlockKind.TICK:
            for batch in block.batches:
                if batch.schema.name == "log":
                    seen += zip(batch.texts("host"), batch.texts("message"), strict=True)
    assert len(seen) == len(set(seen))
    assert set(seen) == {(f"h{n}", f"line {i}") for n in range(SENDERS) for i in range(LINES)}
