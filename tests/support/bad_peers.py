"""Peers that do everything wrong: absent, silent, closing, answering nonsense, with an old certificate."""

import contextlib
import itertools
import queue
import socket
import ssl
import threading
from collections.abc import Iterator

from runtime.clock import SystemClock

NONSENSE = (
    b"",
    b"\x00" * 64,
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff{[",
)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def absent(*, udp: bool = False) -> Iterator[int]:
    """A port where nobody listens."""
    yield free_port(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)


@contextlib.contextmanager
def silent(*, udp: bool = False) -> Iterator[int]:
    """Takes connections and says nothing, ever."""
    if udp:
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            yield peer.getsockname()[1]
        return
    with socket.create_server(("127.0.0.1", 0), backlog=50) as peer:
        yield peer.getsockname()[1]


@contextlib.contextmanager
def answering(answer: bytes, *, udp: bool = False) -> Iterator[int]:
    """Answers whatever comes with these bytes, and closes."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(type=kind) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.bind(("127.0.0.1", 0))
        if not udp:
            peer.listen(50)
        ended = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    if udp:
                        _, whence = peer.recvfrom(65536)
                        if whence is not None:  # None: shut down meanwhile
                            peer.sendto(answer, whence)
                        continue
                    made, _ = peer.accept()
                    with made, contextlib.suppress(OSError):
                        made.settimeout(0.2)
                        with contextlib.suppress(TimeoutError):
                            made.recv(65536)
                        made.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield peer.getsockname()[1]
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError), socket.socket(type=kind) as bell:
                bell.connect(peer.getsockname())
                bell.send(b"end")
            thread.join(2)


@contextlib.contextmanager
def dripping(first: bytes, again: bytes) -> Iterator[int]:
    """Says something and then something else without end, a byte every now and then, to one peer."""
    clock = SystemClock()

    def serve() -> None:
        with contextlib.suppress(OSError):
            made, _ = peer.accept()
            with made:
                made.sendall(first)
                for byte in itertools.cycle(again):
                    made.sendall(bytes([byte]))
                    clock.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as peer:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield peer.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """Hands on to a port of this machine what is said, and back, so much later: a peer that is far."""
    clock = SystemClock()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        waiting: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

        def late() -> None:
            with contextlib.suppress(OSError):
                while data := (item := waiting.get())[1]:
                    clock.sleep(max(item[0] - clock.monotonic_ns(), 0) / 1e9)
                    sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

        hands_on = threading.Thread(target=late, daemon=True)
        hands_on.start()
        data = b"-"
        while data:
            try:
                data = source.recv(65_536)
            except OSError:
                data = b""
            waiting.put((clock.monotonic_ns() + round(seconds * 1e9), data))
        hands_on.join(10)
        source.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        pumps: list[threading.Thread] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    made, _ = listener.accept()
                    there = socket.create_connection(("127.0.0.1", port))
                    for pair in ((made, there), (there, made)):
                        pumps.append(threading.Thread(target=pump, args=pair, daemon=True))
                        pumps[-1].start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for one in pumps:
            one.join(10)


@contextlib.contextmanager
def over_tls(context: ssl.SSLContext, greeting: bytes = b"") -> Iterator[int]:
    """Ends every handshake as this certificate does; what comes after it is read away."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as peer:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    made, _ = peer.accept()
                    made.settimeout(1)
                    made.sendall(greeting)
                    with (
                        contextlib.suppress(OSError),
                        context.wrap_socket(made, server_side=True) as one,
                    ):
                        while one.recv(65536):
                            pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield peer.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            thread.join(2)
