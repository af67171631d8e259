"""Every collector of byte streams and senders that do everything wrong beside one that does not.

The good sender's rows are those that it gives alone: whatever the others flap, drip, break or leave
open, and however few connections are left. A new kind with `tcp_ports` must be put into GOOD.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.config import ListenerSettings
from collectors.datagram import Datagram, pack
from collectors.listen.byte_streams import StreamListener
from collectors.registry import COLLECTORS, make_decoder
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.identity import address_pair
from tests.support.bmp_messages import initiation, monitoring, peer_up, prefix, update, usual
from tests.support.certificates import certificate
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

CLOCK = SystemClock()
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset
SENDER = "127.0.0.9"
OTHERWISE = ("time_ns", "arrival_ns", "novelty")  # by when they came, and what came before

GOOD: dict[str, tuple[str, bytes]] = {
    "syslog": ("log", b"".join(b"<13>2026-09-21T14:13:20Z h a: line %d\n" % n for n in range(300))),
    "bmp": (
        "route",
        initiation()
        + peer_up()
        + b"".join(monitoring(update(usual(), prefix(f"10.1.{n}.0/24"))) for n in range(200)),
    ),
}


def kinds() -> set[str]:
    reads = {kind: COLLECTORS.get(kind).reads for kind in COLLECTORS.kinds()}
    return {kind for kind, one in reads.items() if one is not None and one.tcp_ports}


def test_every_kind_is_examined() -> None:
    assert set(GOOD) == kinds()


class Input:
    """A listener, its decoder, and the rows of the good sender."""

    def __init__(self, kind: str, **settings: Any) -> None:
        self.plain = make_context("collectors.exam")
        context = Context("collectors.exam", CLOCK, self.plain.metrics, self.plain.log, (0,))
        made = ListenerSettings(
            kind=kind, listen=settings.pop("listen", "tcp://127.0.0.1:0"), **settings
        )
        self.listener = StreamListener(made, context)
        self.decoder = make_decoder(made, context)
        self.listener.start()
        self.port = int(self.listener.address.rpartition(":")[2])
        self.batches: list[Batch] = []

    def connect(self, host: str = SENDER) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.port), timeout=10, source_address=(host, 0)
        )

    def event(self, name: str) -> float:
        return self.plain.metrics.value("listener_connections_total", event=name)

    def until(self, done: Callable[[], bool]) -> None:
        for _ in range(2000):
            while (block := self.listener.take()) is not None:
                self.batches += self.decoder.decode(block)
            if done():
                return
            CLOCK.sleep(0.005)
        raise AssertionError("not within ten seconds")


def told(batches: list[Batch], schema: str, kind: str) -> list[dict[str, Any]]:
    """Return the rows of the good sender without what depends on when they came."""
    rows = rows_of(batches, schema)
    if kind == "syslog":
        rows = [row for row in rows if row["host"] == "h"]
    else:
        low = 0xFFFF_7F00_0009
        rows = [row for row in rows if row["exporter_address_low"] == low and row["withdrawn"] != 2]
    return [{name: value for name, value in row.items() if name not in OTHERWISE} for row in rows]


def alone(kind: str) -> list[dict[str, Any]]:
    """Return the rows of the good sender's stream by itself."""
    schema, data = GOOD[kind]
    high, low = address_pair(SENDER)
    decoder = make_decoder(
        ListenerSettings(kind=kind, listen="tcp://127.0.0.1:0"), make_context("collectors.exam")
    )
    now_ns = CLOCK.now_ns()
    parts = [Datagram(now_ns, high, low, 4000, 0, part) for part in (data, b"")]
    return told(decoder.decode(pack(parts)), schema, kind)


def bad(data: bytes) -> bytes:
    """Return what bad senders say: the same of another host, where messages name one."""
    return data.replace(b"Z h a: ", b"Z x a: ")


@pytest.fixture
def tls(tmp_path: Path) -> tuple[dict[str, Any], ssl.SSLContext]:
    shown = certificate(tmp_path)
    settings = {
        "listen": "tls://127.0.0.1:0", "tls_certificate_file": str(shown.certificate),
        "tls_key_file": str(shown.key), "tls_handshake_seconds": 0.2,
    }  # fmt: skip
    return settings, ssl.create_default_context(cafile=shown.ca)


@contextlib.contextmanager
def left_open(one: Input, data: bytes) -> Iterator[None]:
    """Hold connections that say nothing, and one that stops in the middle of a message."""
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(one.connect("127.0.0.2"))
        held.enter_context(one.connect("127.0.0.2")).sendall(data[: len(data) // 2 - 7])
        yield


def flap(one: Input, data: bytes, times: int) -> None:
    """Come and go: with nothing, with half a message, with nonsense; by a close and by a reset."""
    for n in range(times):
        with contextlib.suppress(OSError), one.connect("127.0.0.3") as sock:
            sock.sendall((b"", data[: 50 + n], b"\xff\x00 no message \n" * 20)[n % 3])
            if n % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@pytest.mark.parametrize("kind", GOOD)
def test_flapping_and_silent_senders_do_not_disturb(kind: str) -> None:
    schema, data = GOOD[kind]
    one = Input(kind, connections_max=32, connections_per_sender_max=4)
    try:
        third = len(data) // 3
        with one.connect() as good, left_open(one, bad(data)):
            for part in (data[:third], data[third : 2 * third], data[2 * third :]):
                flap(one, bad(data), 12)
                good.sendall(part)
                one.until(lambda: one.listener.waiting == 0)
            greedy = [one.connect("127.0.0.2") for _ in range(30)]  # they are let in no further
            with one.connect("127.0.0.4"):
                one.until(lambda: one.event("refused") >= 30)
            for sock in greedy:
                sock.close()
        wanted = alone(kind)
        one.until(lambda: len(told(one.batches, schema, kind)) >= len(wanted))
        assert told(one.batches, schema, kind) == wanted
        assert not one.listener.health()
        one.until(lambda: one.listener.connections == 0)
    finally:
        one.listener.stop()


@pytest.mark.parametrize("kind", GOOD)
def test_handshakes_that_hang_do_not_disturb(
    kind: str, tls: tuple[dict[str, Any], ssl.SSLContext]
) -> None:
    settings, trusting = tls
    schema, data = GOOD[kind]
    one = Input(kind, connections_max=16, **settings)
    try:
        hanging = [one.connect("127.0.0.2") for _ in range(4)]
        hanging[1].sendall(b"\x16\x03\x01")  # a handshake that stops in its header
        hanging[2].sendall(bad(data)[:40])  # plain text
        with trusting.wrap_socket(one.connect(), server_hostname="localhost") as good:
            good.sendall(data)
        wanted = alone(kind)
        one.until(lambda: len(told(one.batches, schema, kind)) >= len(wanted))
        assert told(one.batches, schema, kind) == wanted
        one.until(lambda: one.event("handshake_failed") == 4)
        assert not one.listener.health()
        for sock in hanging:
            sock.close()
    finally:
        one.listener.stop()
