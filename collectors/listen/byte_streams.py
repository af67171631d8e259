"""TCP and TLS inputs: what senders' byte streams bring, as blocks of chunks.

From outside as `udp.UdpListener`. A row of a block is a chunk of the stream that its sender's
address and port name, chunks of one stream are in order, and a chunk of length 0 says that the stream
has ended: decoders put messages together. Reading is fair: each connection that has something is read
once, `chunk_bytes_max` at most, before any is read again. Where decoding does not keep up nothing is
read, and TCP itself slows the senders down: nothing is lost here.
"""

import contextlib
import errno
import select
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from collectors.block import DatagramBlock
from collectors.config import ListenerSettings
from collectors.listen.hand_over import BlockQueue
from collectors.listen.udp import bind, bound_address, granted_buffer
from runtime.component import Context
from telemetry.errors import ConfigError
from telemetry.identity import address_pair

if TYPE_CHECKING:
    import ssl  # with the first tls:// input: 5 MB

WAIT_SECONDS = 0.09  # the frontier is told at least every 200 ms, also when silent
GATHER_NS = 5_000_000  # after the first chunk, so that a block is worth its handling
BLOCK_BYTES = 1 << 20
ROWS_MAX = 4096
KEEP_NS = 1_000_000_000  # so often idle and unfinished connections are looked for
ACCEPTS_PER_TURN = 64
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR


@dataclass(slots=True)
class _Connection:
    """One sender's connection."""

    sock: socket.socket
    host: str
    high: int
    low: int
    port: int
    heard_ns: int
    greeting: bool = False  # the TLS handshake is not over


@dataclass(slots=True)
class _Chunks:
    """The block that is being filled."""

    buffer: bytearray
    used: int = 0
    length: list[int] = field(default_factory=list)
    of: list[_Connection] = field(default_factory=list)
    arrival_ns: list[int] = field(default_factory=list)

    def add(self, connection: _Connection, length: int, now_ns: int) -> None:
        self.used += length
        self.length.append(length)
        self.of.append(connection)
        self.arrival_ns.append(now_ns)

    def block(self, frontier_ns: int) -> DatagramBlock:
        length = np.array(self.length, np.int32)
        offset = np.zeros(length.size, np.int64)
        np.cumsum(length[:-1], out=offset[1:])
        return DatagramBlock(
            np.frombuffer(bytes(memoryview(self.buffer)[: self.used]), np.uint8),
            offset,
            length,
            np.array([one.high for one in self.of], np.uint64),
            np.array([one.low for one in self.of], np.uint64),
            np.array([one.port for one in self.of], np.uint16),
            np.array(self.arrival_ns, np.int64),
            0,
            frontier_ns,
        )


class StreamListener:
    """One input of byte streams: a thread that accepts, reads in turn, and fills a bounded queue."""

    def __init__(
        self,
        settings: ListenerSettings,
        context: Context,
        sock: socket.socket | None = None,
        *,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:
        """`sock` listens already where a shard was handed it; `on_block` is called by the thread."""
        self._settings = settings
        self._context = context
        self._sock = sock
        self._tls: ssl.SSLContext | None = None
        self._later: tuple[type[OSError], ...] = (BlockingIOError,)  # nothing to read yet
        self._queue = BlockQueue(context.name, settings.queue_blocks_max, on_block)
        self._open: dict[int, _Connection] = {}
        self._of_sender: Counter[tuple[int, int]] = Counter()  # open connections by address
        self._pending: deque[int] = deque()  # TLS: bytes that are decrypted and wait in memory
        self._wrong: set[tuple[str, str]] = set()  # what was said of whom
        self._last_ns = 0
        self._kept_ns = 0
        self.granted_bytes = 0
        self.datagrams = 0  # chunks
        self.kernel_drops = 0  # never: TCP does not drop
        self.socket_drops = 0
        self.deadline_ns = 0  # set by the owner: when the next tick closes, blocks are handed over
        metrics = context.metrics
        self._received = metrics.counter("listener_stream_bytes_total", "bytes read from streams")
        self._changes = metrics.counter(
            "listener_connections_total",
            "connections of stream inputs by what became of them",
            label="event",
            values=("accepted", "refused", "ended", "idle", "failed", "handshake_failed"),
        )
        self._now_open = metrics.gauge("listener_connections", "open connections of stream inputs")

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def bind(self) -> None:
        """Listen: from here on the kernel accepts and keeps what comes. Raises ConfigError."""
        settings = self._settings
        if settings.listen.startswith("tls:"):
            import ssl

            self._tls = server_context(settings)
            self._later = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        if self._sock is None:
            (self._sock,) = bind(
                settings.listen, shards=1, receive_buffer_bytes=settings.receive_buffer_bytes
            )
        self.granted_bytes = granted_buffer(self._sock)

    def start(self, *, drops_before: int = 0) -> None:  # noqa: ARG002  # TCP drops nothing
        """Bind where that was not done yet, and start receiving."""
        if self._sock is None:
            self.bind()
        assert self._sock is not None
        self._sock.setblocking(False)
        self._queue.run(self._receive)

    def stop(self) -> None:
        """Stop receiving and close all connections."""
        self._queue.stop()
        for connection in self._open.values():
            connection.sock.close()
        self._open.clear()
        self._of_sender.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def health(self) -> str:
        """Return "" or why nothing is received."""
        return self._queue.trouble

    @property
    def address(self) -> str:
        """The address it is bound to, as text."""
        listen = self._settings.listen
        return listen if self._sock is None else bound_address(listen, self._sock)

    @property
    def waiting(self) -> int:
        """Blocks that wait to be decoded."""
        return self._queue.waiting

    def take(self) -> DatagramBlock | None:
        """Return the next block, or None where nothing waits; raise what ended the thread."""
        return self._queue.take()

    # ---- the thread

    def _receive(self) -> None:
        assert self._sock is not None
        with select.epoll() as poll:
            poll.register(self._sock, select.EPOLLIN)
            buffer = bytearray(BLOCK_BYTES + self._settings.chunk_bytes_max)
            while not self._queue.ended.is_set():
                chunks = _Chunks(buffer)
                self._fill(poll, chunks)
                block = chunks.block(self._last_ns)
                self.datagrams += block.datagrams
                self._received.array[0] += np.uint64(chunks.used)
                self._queue.put(
                    block,
                    full="decoding does not keep up, senders are made to wait; add workers or "
                    "lower their rate",
                )

    def _fill(self, poll: select.epoll, chunks: _Chunks) -> None:
        """Read what there is, for as long as it is worth gathering, not past the tick's deadline."""
        until_ns = 0
        while True:
            now_ns = self._now()
            wait_seconds = WAIT_SECONDS
            if self.deadline_ns > now_ns:
                wait_seconds = min(wait_seconds, (self.deadline_ns - now_ns) / 1e9)
            if until_ns:
                wait_seconds = min(wait_seconds, max(until_ns - now_ns, 0) / 1e9)
            ready = poll.poll(0 if self._pending else wait_seconds)
            for number in dict.fromkeys((*(fd for fd, _ in ready), *self._pending)):
                if len(chunks.length) >= ROWS_MAX or chunks.used > BLOCK_BYTES - 1:
                    break  # the others are served first next time: the kernel turns its list
                if self._sock is not None and number == self._sock.fileno():
                    self._accept(poll)
                elif number in self._open:
                    self._serve(poll, self._open[number], chunks)
            now_ns = self._now()
            if now_ns - self._kept_ns >= KEEP_NS:
                self._keep(poll, chunks, now_ns)
            if chunks.length and not until_ns:
                until_ns = now_ns + GATHER_NS
            full = len(chunks.length) >= ROWS_MAX or chunks.used >= BLOCK_BYTES
            due = until_ns and now_ns >= until_ns
            if full or due or (not ready and not self._pending) or self._queue.ended.is_set():
                return

    def _now(self) -> int:
        """Return the time, never falling whatever a clock step does."""
        self._last_ns = max(self._last_ns, self._context.clock.now_ns())
        return self._last_ns

    def _accept(self, poll: select.epoll) -> None:
        assert self._sock is not None
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._context.log.error("accept_refused error='%s'", error.strerror)
                    self._context.clock.sleep(0.1)
                return
            if why := self._no_room(address[0]):
                self._say_refused("connection_refused", address[0], why)
                self._changes.add("refused")
                sock.close()
                continue
            try:
                self._admit(poll, sock, address[0], address[1])
            except OSError:  # it was reset before we looked: a port scan, a health check
                self._changes.add("failed")
                sock.close()

    def _no_room(self, host: str) -> str:
        """Return the limit that a new connection of a sender would break, "" where it breaks none."""
        settings = self._settings
        if len(self._open) >= settings.connections_max:
            return f"connections_max = {settings.connections_max} are open"
        if self._of_sender[_sender(host)] >= settings.connections_per_sender_max:
            return f"connections_per_sender_max = {settings.connections_per_sender_max} are open"
        return ""

    def _admit(self, poll: select.epoll, sock: socket.socket, host: str, port: int) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a dead router says no goodbye
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        if self._tls is not None:
            sock = self._tls.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        high, low = _sender(host)
        greeting = self._tls is not None
        made = _Connection(sock, host, high, low, port, self._now(), greeting=greeting)
        self._open[sock.fileno()] = made
        self._of_sender[high, low] += 1
        self._changes.add("accepted")
        self._now_open.set(len(self._open))
        poll.register(sock, _READABLE)

    def _serve(self, poll: select.epoll, connection: _Connection, chunks: _Chunks) -> None:
        """Read one connection once."""
        with contextlib.suppress(ValueError):
            self._pending.remove(connection.sock.fileno())
        if connection.greeting and not self._greet(poll, connection, chunks):
            return
        room = memoryview(chunks.buffer)[chunks.used :][: self._settings.chunk_bytes_max]
        try:
            count = connection.sock.recv_into(room)
        except self._later:
            return
        except OSError:  # reset, timed out, or broken TLS
            self._close(poll, connection, chunks, "failed")
            return
        if not count:
            self._close(poll, connection, chunks, "ended")
            return
        connection.heard_ns = self._last_ns
        chunks.add(connection, count, self._last_ns)
        if self._tls is not None and cast("ssl.SSLSocket", connection.sock).pending():
            self._pending.append(connection.sock.fileno())

    def _greet(self, poll: select.epoll, connection: _Connection, chunks: _Chunks) -> bool:
        """Go on with a TLS handshake; return whether it is over."""
        import ssl

        assert isinstance(connection.sock, ssl.SSLSocket)
        try:
            connection.sock.do_handshake()
        except ssl.SSLWantReadError:
            poll.modify(connection.sock, _READABLE)
            return False
        except ssl.SSLWantWriteError:
            poll.modify(connection.sock, _READABLE | select.EPOLLOUT)
            return False
        except OSError as error:
            self._say_refused("tls_refused", connection.host, _reason(error))
            self._close(poll, connection, chunks, "handshake_failed")
            return False
        connection.greeting = False
        poll.modify(connection.sock, _READABLE)
        return True

    def _say_refused(self, event: str, host: str, why: str) -> None:
        """Say once for each sender why its connection is refused; the counter says how often."""
        if (event, host) in self._wrong:
            return
        if len(self._wrong) >= self._settings.connections_max:
            self._wrong.clear()
        self._wrong.add((event, host))
        self._context.log.warning(
            "%s sender=%s why='%s' what_now='the connection was closed, others go on; "
            "this is said once for each sender'", event, host, why,
        )  # fmt: skip

    def _close(
        self, poll: select.epoll, connection: _Connection, chunks: _Chunks, event: str
    ) -> None:
        number = connection.sock.fileno()
        with contextlib.suppress(OSError, ValueError):
            poll.unregister(number)
        with contextlib.suppress(ValueError):
            self._pending.remove(number)
        self._open.pop(number, None)
        sender = connection.high, connection.low
        self._of_sender[sender] -= 1
        if self._of_sender[sender] <= 0:
            del self._of_sender[sender]
        connection.sock.close()
        if not connection.greeting:  # of one that never spoke there is nothing to end
            chunks.add(connection, 0, self._last_ns)
        self._changes.add(event)
        self._now_open.set(len(self._open))

    def _keep(self, poll: select.epoll, chunks: _Chunks, now_ns: int) -> None:
        """Close connections that were silent for too long, or never finished their handshake."""
        self._kept_ns = now_ns
        idle_ns = round(self._settings.connection_idle_seconds * 1e9)
        greeting_ns = round(self._settings.tls_handshake_seconds * 1e9)
        for connection in list(self._open.values()):
            silent_ns = now_ns - connection.heard_ns
            if connection.greeting and silent_ns > greeting_ns:
                why = f"no TLS handshake within {greeting_ns / 1e9:g} s"
                self._say_refused("tls_refused", connection.host, why)
                self._close(poll, connection, chunks, "handshake_failed")
            elif silent_ns > idle_ns:
                self._close(poll, connection, chunks, "idle")


def server_context(settings: ListenerSettings) -> "ssl.SSLContext":
    """Return what a tls:// input needs, or raise ConfigError that names the file."""
    what = f"listen = {settings.listen!r}"
    for key in ("tls_certificate_file", "tls_key_file"):
        if not getattr(settings, key):
            raise ConfigError(f"{what} needs {key}, a PEM file. The node was not started.")
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # A sender that only sends never reads a session ticket; closing over unread bytes it would reset
    # the connection, and what we have not read yet would be lost.
    made.num_tickets = 0
    try:
        made.load_cert_chain(
            settings.tls_certificate_file, settings.tls_key_file, password=lambda: b""
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{what}: tls_certificate_file {settings.tls_certificate_file} with tls_key_file "
            f"{settings.tls_key_file} cannot be used: {_reason(error)}; give a PEM chain and its "
            f"unencrypted key, readable for this user. The node was not started."
        ) from error
    if settings.tls_client_ca_file:
        try:
            made.load_verify_locations(settings.tls_client_ca_file)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{what}: tls_client_ca_file {settings.tls_client_ca_file} cannot be used: "
                f"{_reason(error)}; give PEM certificates. The node was not started."
            ) from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _sender(host: str) -> tuple[int, int]:
    return address_pair(host.partition("%")[0])


def _reason(error: Exception) -> str:
    words = (getattr(error, name, "") for name in ("verify_message", "reason", "strerror"))
    return next((str(word) for word in words if word), str(error))
