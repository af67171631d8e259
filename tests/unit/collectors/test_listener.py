"""Sockets: addresses, ports that are taken, what the kernel says about each datagram."""

import os
import socket
from collections.abc import Iterator

import pytest

from collectors.block import DatagramBlock, Reply
from collectors.config import ListenerSettings
from collectors.listen.receive import SLOT_BYTES, Receiver
from collectors.listen.udp import (
    UdpListener,
    bind,
    buffer_fix,
    granted_buffer,
    holder_of,
    parse_address,
    probe_buffer,
    shard_of,
)
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.errors import BugError, ConfigError
from telemetry.identity import address_pair, address_text
from tocsin.testing import make_context

SMALL = 8192


@pytest.mark.parametrize("text", ["2055", "sctp://[::]:2055", "udp://[::]", "udp://host:port"])
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


@pytest.mark.parametrize("shards", [1, 3])
def test_who_has_the_port_is_named(shards: int) -> None:
    """Also where sockets of a group would share it: half the datagrams would be gone unseen."""
    held = bind("udp://127.0.0.1:0", shards=shards, receive_buffer_bytes=SMALL)
    port = held[0].getsockname()[1]
    assert f"(pid {os.getpid()})" in holder_of(port)
    with pytest.raises(ConfigError, match=rf"\(pid {os.getpid()}\) has this port; stop it"):
        bind(f"udp://127.0.0.1:{port}", shards=shards, receive_buffer_bytes=SMALL)
    for sock in held:
        sock.close()
    assert holder_of(port) == ""
    for sock in bind(f"udp://127.0.0.1:{port}", shards=shards, receive_buffer_bytes=SMALL):
        sock.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A bound socket with a small buffer, and one that is connected to it."""
    (sock,) = bind("udp://127.0.0.1:0", shards=1, receive_buffer_bytes=SMALL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(sock.getsockname())
        yield sock, sender
    sock.close()


def receiver_of(sock: socket.socket, datagrams_max: int = 64, drops_before: int = 0) -> Receiver:
    return Receiver(sock, SystemClock(), datagrams_max=datagrams_max, drops_before=drops_before)


def test_what_the_buffer_dropped_is_counted_to_the_last_datagram(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Also the losses at a burst's end, after which nothing comes that could tell of them."""
    sock, sender = pair
    receiver = receiver_of(sock)
    total = got = dropped = 0
    for burst in (200, 0, 300, 1):
        for _ in range(burst):
            sender.send(b"x" * 1000)
        total += burst
        block = receiver.receive(wait_ms=0)
        got += block.datagrams
        dropped += block.kernel_drops
        assert got + dropped == total
    assert dropped > 400, "the buffer was not as small as this test needs"
    assert receiver.drops == dropped
    # Who takes the socket over counts only what came after.
    for _ in range(200):
        sender.send(b"x" * 1000)
    block = receiver_of(sock, drops_before=dropped).receive(wait_ms=0)
    assert block.datagrams + block.kernel_drops == 200


def test_a_datagram_longer_than_a_slot_is_cut_and_counted(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sock, sender = pair
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sender.send(b"a" * SLOT_BYTES)
    sender.send(b"b" * (SLOT_BYTES + 1))
    receiver = receiver_of(sock)
    block = receiver.receive(wait_ms=1000)
    assert block.length.tolist() == [SLOT_BYTES, SLOT_BYTES]
    assert receiver.cut == 1


def test_a_full_block_leaves_the_rest_to_the_next(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sock, sender = pair
    receiver = receiver_of(sock, datagrams_max=4)
    for number in range(6):
        sender.send(b"%d" % number)
    first = receiver.receive(wait_ms=1000)
    assert first.datagrams == 4
    assert first.frontier_ns == first.arrival_ns[-1], "not read empty: nothing is known of now"
    second = receiver.receive(wait_ms=1000)
    assert first.payload.tobytes() + second.payload.tobytes() == b"012345"
    assert second.frontier_ns > second.arrival_ns[-1]
    assert second.arrival_ns[0] >= first.frontier_ns


def test_silence_moves_the_frontier_to_where_the_socket_was_read_empty(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sock, _ = pair
    clock, receiver = SystemClock(), receiver_of(sock)
    before_ns = clock.now_ns()
    block = receiver.receive(wait_ms=0)
    assert block.datagrams == 0
    assert before_ns <= block.frontier_ns <= clock.now_ns()


def test_the_buffer_that_was_granted_is_read_back_and_told() -> None:
    (sock,) = bind("udp://127.0.0.1:0", shards=1, receive_buffer_bytes=65536)
    assert granted_buffer(sock) == 65536 == probe_buffer(65536)
    sock.close()
    assert buffer_fix(1 << 25) == "sysctl -w net.core.rmem_max=33554432"


def live(context: Context) -> Context:
    return Context(context.name, SystemClock(), context.metrics, context.log, context.seed)


def listener(context: Context, sock: socket.socket, **settings: int) -> UdpListener:
    made = ListenerSettings(kind="flow", listen="udp://127.0.0.1:0", **settings)  # type: ignore[arg-type]
    return UdpListener(made, live(context), sock)


def take(one: UdpListener) -> DatagramBlock:
    """Return the next block that holds or lost something."""
    clock = SystemClock()
    for _ in range(1000):
        block = one.take()
        if block is not None and (block.datagrams or block.kernel_drops):
            return block
        clock.sleep(0.01)
    raise AssertionError("nothing came in ten seconds")


def test_a_listener_counts_what_it_received_and_what_the_kernel_dropped(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sock, sender = pair
    for _ in range(100):
        sender.send(b"x" * 1000)
    context = make_context()
    one = listener(context, sock)
    one.start()
    block = take(one)
    one.stop()
    assert block.datagrams + block.kernel_drops == 100
    assert one.datagrams == block.datagrams
    assert one.kernel_drops == block.kernel_drops > 0
    value = context.metrics.value
    assert value("listener_datagrams_total") == block.datagrams
    assert value("listener_datagrams_lost_total", reason="kernel_buffer_full") == one.kernel_drops


def test_when_nobody_decodes_it_says_so_and_the_kernel_keeps_what_comes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    sock, sender = pair
    one = listener(make_context(), sock, queue_blocks_max=1, datagrams_per_block=1)
    sent = 3
    for number in range(sent):
        sender.send(b"%d" % number)
    one.start()
    clock = SystemClock()
    for _ in range(1000):
        if one.health():
            break
        clock.sleep(0.01)
    assert "decoding does not keep up" in one.health()
    assert [take(one).payload.tobytes() for _ in range(sent)] == [b"0", b"1", b"2"]
    one.stop()


def test_a_thread_that_fails_fails_its_owner(pair: tuple[socket.socket, socket.socket]) -> None:
    """Else the frontier would stand still for ever and nobody would know why."""
    rung: list[bool] = []
    settings = ListenerSettings(kind="flow", listen="udp://127.0.0.1:0")
    broken = make_context()

    class Stopped(SystemClock):
        def now_ns(self) -> int:
            raise BugError("the clock stands")

    context = Context("x", Stopped(), broken.metrics, broken.log, broken.seed)
    one = UdpListener(settings, context, pair[0], on_block=lambda: rung.append(True))
    one.start()
    clock = SystemClock()
    for _ in range(1000):
        if rung:
            break
        clock.sleep(0.01)
    with pytest.raises(BugError, match="the clock stands"):
        one.take()
    one.stop()


@pytest.mark.parametrize("listen", ["udp://127.0.0.1:0", "udp://[::]:0"], ids=["v4", "both"])
def test_an_answer_goes_back_from_the_socket_that_was_asked(listen: str) -> None:
    (sock,) = bind(listen, shards=1, receive_buffer_bytes=65_536)
    context = make_context()
    one = UdpListener(ListenerSettings(kind="flow", listen=listen), live(context), sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(10.0)
        asker.bind(("127.0.0.1", 0))
        high, low = address_pair("127.0.0.1")
        one.send(Reply(high, low, asker.getsockname()[1], b"yes", at_once=True))
        data, address = asker.recvfrom(100)
    assert (data, address[1]) == (b"yes", sock.getsockname()[1])
    assert context.metrics.value("listener_replies_total", result="sent") == 1
    sock.close()
