"""Sockets: addresses, ports that are taken, what the kernel says about each datagram."""

import socket

import pytest

from collectors.listener import bind, parse_address, shard_of
from collectors.receive import Receiver
from runtime.clock import SystemClock
from telemetry.errors import ConfigError
from telemetry.identity import address_text


@pytest.mark.parametrize("text", ["2055", "tcp://[::]:2055", "udp://[::]", "udp://host:port"])
def test_a_wrong_address_is_told_with_the_right_form(text: str) -> None:
    with pytest.raises(ConfigError, match="udp://host:port"):
        parse_address(text)


def test_a_busy_port_is_one_sentence_with_the_fix() -> None:
    (first,) = bind("udp://127.0.0.1:0", shards=1, receive_buffer_bytes=65536)
    port = first.getsockname()[1]
    with pytest.raises(ConfigError, match="stop it or listen on another one"):
        bind(f"udp://127.0.0.1:{port}", shards=1, receive_buffer_bytes=65536)
    first.close()


def test_datagrams_come_with_sender_and_kernel_time() -> None:
    (sock,) = bind("udp://[::]:0", shards=1, receive_buffer_bytes=1 << 20)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.0.1", 0))
    before = SystemClock().now_ns()
    for i in range(5):
        sender.sendto(bytes([i]) * (i + 1), ("127.0.0.1", sock.getsockname()[1]))
    block = Receiver(sock, SystemClock(), datagrams_max=16).receive(wait_ms=1000)
    assert block.length.tolist() == [1, 2, 3, 4, 5]
    assert block.payload.tobytes() == b"".join(bytes([i]) * (i + 1) for i in range(5))
    assert address_text(int(block.exporter_high[0]), int(block.exporter_low[0])) == "127.0.0.1"
    assert set(block.exporter_port.tolist()) == {sender.getsockname()[1]}
    assert (block.arrival_ns[1:] >= block.arrival_ns[:-1]).all()
    assert before <= block.arrival_ns[0] <= SystemClock().now_ns()
    sender.close()
    sock.close()


def test_an_exporter_always_lands_on_its_shard() -> None:
    """The socket filter and `shard_of`, which replay uses, must agree; the source port is no part."""
    socks = bind("udp://127.0.0.1:0", shards=3, receive_buffer_bytes=65536)
    port = socks[0].getsockname()[1]
    for last in range(1, 31):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((f"127.1.0.{last}", 0))
            sender.sendto(b"x", ("127.0.0.1", port))
        shard = shard_of(0xFFFF_7F010000 + last, 0, 3)
        socks[shard].settimeout(2.0)
        assert socks[shard].recvfrom(16)[1][0] == f"127.1.0.{last}"
    for sock in socks:
        sock.close()
