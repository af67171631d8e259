"""Byte streams over TCP and TLS: order, ends, limits, fairness, back-pressure, certificates."""

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.config import ListenerSettings
from collectors.listen.byte_streams import StreamListener
from collectors.listen.udp import bind
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.errors import ConfigError
from telemetry.identity import address_text
from tests.support.certificates import Certificates, make_certificates
from tocsin.testing import make_context

CLOCK = SystemClock()


class Input:
    """A running listener, and what it handed over: bytes of each stream, ends, frontiers."""

    def __init__(self, listen: str = "tcp://127.0.0.1:0", **settings: Any) -> None:
        self.plain = make_context()
        context = Context("in", CLOCK, self.plain.metrics, logging.getLogger("in"), (0,))
        made = ListenerSettings(kind="syslog", listen=listen, **settings)
        self.listener = StreamListener(made, context)
        self.listener.bind()
        self.port = int(self.listener.address.rpartition(":")[2])
        self.data: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.order: list[int] = []
        self.frontier_ns = 0
        self.keep_bytes = 1 << 30

    def take(self) -> int:
        """Take what is there; return how many chunks."""
        chunks = 0
        while (block := self.listener.take()) is not None:
            assert block.frontier_ns >= self.frontier_ns
            self.frontier_ns = block.frontier_ns
            for d in range(block.datagrams):
                port, start = int(block.exporter_port[d]), int(block.offset[d])
                assert address_text(int(block.exporter_high[d]), int(block.exporter_low[d])) in (
                    "127.0.0.1", "127.0.0.2", "::1",
                )  # fmt: skip
                assert block.arrival_ns[d] <= block.frontier_ns
                data = block.payload[start : start + int(block.length[d])].tobytes()
                self.order.append(port)
                if data:
                    assert port not in self.ended, "a chunk behind the end of its stream"
                    if len(self.data.get(port, b"")) < self.keep_bytes:
                        self.data[port] = self.data.get(port, b"") + data
                else:
                    self.ended.append(port)
            chunks += block.datagrams
        return chunks

    def until(self, done: Any) -> None:
        """Take until `done()`, ten seconds at most."""
        for _ in range(1000):
            self.take()
            if done():
                return
            CLOCK.sleep(0.01)
        raise AssertionError("not within ten seconds")

    def count(self, event: str) -> float:
        return self.plain.metrics.value("listener_connections_total", event=event)


@pytest.fixture
def made() -> Iterator[list[Input]]:
    inputs: list[Input] = []
    yield inputs
    for one in inputs:
        one.listener.stop()


def start(made: list[Input], *arguments: Any, **settings: Any) -> Input:
    one = Input(*arguments, **settings)
    made.append(one)
    one.listener.start()
    return one


def connect(one: Input) -> socket.socket:
    return socket.create_connection(("127.0.0.1", one.port), timeout=10)


def test_streams_come_whole_in_order_and_their_ends_are_told(made: list[Input]) -> None:
    one = start(made)
    sent = {}
    for number in range(3):
        with connect(one) as sock:
            data = bytes([65 + number]) * 300_000
            sock.sendall(data)
            sent[sock.getsockname()[1]] = data
    one.until(lambda: len(one.ended) == 3)
    assert one.data == sent
    assert sorted(one.ended) == sorted(sent)
    assert (one.count("accepted"), one.count("ended")) == (3, 3)
    assert one.listener.connections == 0


def test_silence_moves_the_frontier(made: list[Input]) -> None:
    one = start(made)
    before_ns = CLOCK.now_ns()
    one.until(lambda: one.frontier_ns > before_ns)
    assert one.data == {}


def test_a_flood_does_not_starve_others(made: list[Input]) -> None:
    one = start(made, chunk_bytes_max=4096, queue_blocks_max=4)
    one.keep_bytes = 1000
    stop = threading.Event()

    def flood() -> None:
        with connect(one) as sock, contextlib.suppress(OSError):
            while not stop.is_set():
                sock.sendall(bytes(65_536))

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        one.until(lambda: one.data)
        with connect(one) as sock:
            port = sock.getsockname()[1]
            for number in range(20):
                sock.sendall(b"x")
                one.until(lambda want=number + 1: len(one.data.get(port, b"")) == want)
    finally:
        stop.set()
        while thread.is_alive():
            one.take()
            thread.join(0.01)


def test_nothing_is_read_while_nobody_decodes_and_nothing_is_lost(made: list[Input]) -> None:
    one = start(made, queue_blocks_max=1)
    data = bytes(range(256)) * 65_536  # 16 MB: more than buffers and queue hold

    def send() -> None:
        with connect(one) as sock, contextlib.suppress(OSError):
            sock.sendall(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    for _ in range(1000):
        if one.listener.health():
            break
        CLOCK.sleep(0.01)
    assert "senders are made to wait" in one.listener.health()
    assert thread.is_alive()
    one.until(lambda: one.ended)
    thread.join(30)
    assert list(one.data.values()) == [data]
    assert one.listener.kernel_drops == 0


def test_connections_beyond_the_limit_are_refused_and_counted(made: list[Input]) -> None:
    one = start(made, connections_max=2)
    kept = [connect(one) for _ in range(2)]
    one.until(lambda: one.listener.connections == 2)
    with connect(one) as third:
        assert third.recv(1) == b""
    assert one.count("refused") == 1
    kept[0].sendall(b"still here")
    one.until(lambda: one.data)
    for sock in kept:
        sock.close()


def test_one_sender_cannot_take_all_connections(
    made: list[Input], caplog: pytest.LogCaptureFixture
) -> None:
    one = start(made, connections_per_sender_max=2)
    with connect(one), connect(one):
        one.until(lambda: one.count("accepted") == 2)
        with connect(one) as third:
            assert third.recv(1) == b""
        with socket.create_connection(
            ("127.0.0.1", one.port), timeout=10, source_address=("127.0.0.2", 0)
        ):
            one.until(lambda: one.count("accepted") == 3)
    assert one.count("refused") == 1
    (line,) = [record.getMessage() for record in caplog.records if "refused" in record.message]
    assert "sender=127.0.0.1 why='connections_per_sender_max = 2 are open'" in line
    one.until(lambda: one.listener.connections == 0)
    with connect(one):
        one.until(lambda: one.count("accepted") == 4)


def test_a_silent_connection_is_closed(made: list[Input]) -> None:
    one = start(made, connection_idle_seconds=0.1)
    with connect(one) as sock:
        sock.sendall(b"hello")
        one.until(lambda: one.ended)
        assert one.count("idle") == 1
        assert sock.recv(1) == b""


def test_a_reset_ends_the_stream(made: list[Input]) -> None:
    one = start(made)
    sock = connect(one)
    sock.sendall(b"half a li")
    one.until(lambda: one.data)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    sock.close()
    one.until(lambda: one.ended)
    assert one.count("failed") == 1


def test_sockets_of_shards_take_each_sender_on_one_of_them() -> None:
    socks = bind("tcp://127.0.0.1:0", shards=3, receive_buffer_bytes=65_536)
    port = socks[0].getsockname()[1]
    for host in range(1, 7):
        for _ in range(2):
            with socket.create_connection(
                ("127.0.0.1", port), source_address=(f"127.0.0.{host}", 0), timeout=10
            ):
                number = (0x7F000000 + host) % 3
                socks[number].settimeout(10)
                taken, address = socks[number].accept()
                taken.close()
                assert address[0] == f"127.0.0.{host}"
    for sock in socks:
        sock.close()


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def tls(certificates: Certificates, **more: Any) -> dict[str, Any]:
    return {
        "listen": "tls://127.0.0.1:0", "tls_certificate_file": str(certificates.server),
        "tls_key_file": str(certificates.server_key), **more,
    }  # fmt: skip


def client(certificates: Certificates, *, own: bool) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(certificates.authority))
    if own:
        made.load_cert_chain(certificates.client, certificates.client_key)
    return made


def test_tls_brings_the_same_bytes(made: list[Input], certificates: Certificates) -> None:
    one = start(made, **tls(certificates, tls_client_ca_file=str(certificates.authority)))
    data = bytes(range(256)) * 4000
    plain = connect(one)
    with client(certificates, own=True).wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall(data)
    one.until(lambda: one.ended)
    assert list(one.data.values()) == [data]


def test_a_sender_without_certificate_is_refused_in_one_line(
    made: list[Input], certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    one = start(made, **tls(certificates, tls_client_ca_file=str(certificates.authority)))
    for number in range(2):
        plain = connect(one)
        with (
            contextlib.suppress(OSError),
            client(certificates, own=False).wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            sock.recv(1)
        one.until(lambda want=number + 1: one.count("handshake_failed") == want)
    lines = [record.getMessage() for record in caplog.records if "tls_refused" in record.message]
    assert len(lines) == 1
    assert "sender=127.0.0.1" in lines[0]
    assert "did not return a certificate" in lines[0].lower().replace("_", " ")
    assert one.data == {}
    assert one.ended == []


def test_one_that_never_greets_is_closed_and_others_go_on(
    made: list[Input], certificates: Certificates
) -> None:
    one = start(made, **tls(certificates, tls_handshake_seconds=0.1))
    with connect(one) as silent:
        plain = connect(one)
        with client(certificates, own=False).wrap_socket(
            plain, server_hostname="localhost"
        ) as sock:
            sock.sendall(b"hello")
            one.until(lambda: one.data)
        one.until(lambda: one.count("handshake_failed") == 1)
        assert silent.recv(1) == b""


def test_plain_text_on_a_tls_port_is_refused(made: list[Input], certificates: Certificates) -> None:
    one = start(made, **tls(certificates))
    with connect(one) as sock:
        sock.sendall(b"<13>plain text\n")
        one.until(lambda: one.count("handshake_failed") == 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"tls_key_file": ""}, "needs tls_key_file", id="no-key"),
        pytest.param({"tls_key_file": "/absent"}, "/absent cannot be used", id="absent-key"),
        pytest.param({"tls_client_ca_file": "/absent"}, "tls_client_ca_file", id="absent-ca"),
    ],
)
def test_a_wrong_file_is_named_before_anything_starts(
    certificates: Certificates, change: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Input(**{**tls(certificates), **change})


def test_a_key_of_another_certificate_is_refused(certificates: Certificates) -> None:
    with pytest.raises(ConfigError, match="cannot be used: KEY_VALUES_MISMATCH"):
        Input(**tls(certificates, tls_key_file=str(certificates.client_key)))


def test_a_taken_port_says_who_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="has this port"):
            Input(f"tcp://127.0.0.1:{port}")
