"""Requests are answered or refused with a sentence; feeds are numbered."""

import threading
from pathlib import Path

import msgspec
import pytest
import zmq

from runtime.bus import Publisher, RequestClient, RequestServer
from telemetry.errors import TransientError


class Ask(msgspec.Struct):
    number: int


class Answer(msgspec.Struct):
    double: int


def test_a_request_is_answered_and_errors_are_sentences(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/node.sock"
    server = RequestServer(address)
    server.handle("double", Ask, lambda ask: Answer(ask.number * 2))
    server.start()
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            server.serve()

    thread = threading.Thread(target=loop)
    thread.start()
    client = RequestClient(address)
    try:
        assert client.ask("double", Ask(21), Answer).double == 42
        with pytest.raises(TransientError, match="unknown verb 'halve'"):
            client.ask("halve", Ask(1), Answer)
        with pytest.raises(TransientError, match="Expected `int`"):
            client.ask("double", {"number": "x"}, Answer)
    finally:
        ended.set()
        thread.join()
        client.close()
        server.stop()


def test_nobody_there_is_a_transient_error(tmp_path: Path) -> None:
    client = RequestClient(f"ipc://{tmp_path}/none.sock")
    with pytest.raises(TransientError, match="is Tocsin running"):
        client.ask("double", Ask(1), Answer, timeout_seconds=0.05)
    client.close()


def test_a_watcher_sees_numbers_rise_per_topic(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/pub.sock"
    publisher = Publisher(address)
    publisher.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    watcher = context.socket(zmq.SUB)
    watcher.subscribe(b"alerts")
    watcher.connect(address)
    seen: list[int] = []
    for _ in range(1000):  # joining takes the watcher a moment; it sees the first that come after
        publisher.publish("frames", b"-")
        publisher.publish("alerts", b"x")
        if watcher.poll(5):
            seen.append(int.from_bytes(watcher.recv_multipart()[1], "little"))
        if len(seen) >= 3:
            break
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert len(seen) == 3
    watcher.close()
    context.term()
    publisher.stop()
