"""UDP inputs, and what all inputs share: sockets bound and buffering at once, one per shard, each sender
always on one of them. Inputs of byte streams: `byte_streams`."""

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from collectors.block import DatagramBlock, Reply
from collectors.config import ListenerSettings
from collectors.listen.hand_over import BlockQueue
from collectors.listen.receive import SO_RXQ_OVFL, SO_TIMESTAMPNS, Receiver
from runtime.component import Context
from telemetry.errors import ConfigError
from telemetry.identity import address_text

SO_ATTACH_REUSEPORT_CBPF = 51
WAIT_MS = 90  # with GATHER_MS: the frontier is told at least every 200 ms, also when silent


SCHEMES = ("udp", "tcp", "tls")
CONNECTIONS_WAITING = 1024  # that the kernel has accepted and we have not


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `udp://host:port`, tcp:// or tls://, or raise ConfigError."""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in SCHEMES or not parts.hostname or port is None:
        raise ConfigError(
            f"listen = {text!r} is not of the form udp://host:port with a port of 0 to 65535, such as "
            f"udp://[::]:2055 (tcp:// or tls:// where the protocol has them)"
        )
    return parts.hostname, port


def is_stream(text: str) -> bool:
    """Whether an address is one of byte streams."""
    return not text.startswith("udp:")


def shard_of(low: int, high: int, shards: int) -> int:
    """Return the shard of an exporter: what the socket filter computes, for replay.

    The filter sees the packet from its UDP header on; the source address lies at a fixed negative
    offset from the network header. IPv4: the address; IPv6: its last 4 bytes; modulo shards.
    """
    return (low & 0xFFFFFFFF) % shards if shards > 1 else 0 * high


def bind(text: str, *, shards: int, receive_buffer_bytes: int) -> list[socket.socket]:
    """Bind one socket for each shard, or raise ConfigError with what to do."""
    host, port = parse_address(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if is_stream(text) else socket.SOCK_DGRAM
    made: list[socket.socket] = []
    try:
        if shards > 1 and port:
            # Sockets of a group share a port with whoever of the same user asks: look first whether
            # it is free, else another Tocsin would take every other datagram and nobody would know.
            with _unbound(family, kind) as probe:
                probe.bind((host, port))
        for _ in range(shards):
            sock = _unbound(family, kind)
            made.append(sock)
            if shards > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kind == socket.SOCK_DGRAM:
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
                _ask_for_buffer(sock, receive_buffer_bytes)
            sock.bind((host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(CONNECTIONS_WAITING)
            if port == 0:  # the others join the one the system chose
                port = sock.getsockname()[1]
    except OSError as error:
        for sock in made:
            sock.close()
        raise ConfigError(_why(text, port, error)) from error
    if shards > 1:
        _attach_filter(made[0], shards, family)
    return made


def _unbound(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(family, kind)
    if kind == socket.SOCK_STREAM:  # connections of an earlier run may linger on the port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def _ask_for_buffer(sock: socket.socket, size: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, min(size, (1 << 31) - 1))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, 33, size)  # SO_RCVBUFFORCE, where we may


def bound_address(listen: str, sock: socket.socket) -> str:
    """Return the address that a socket is bound to, in the form of `listen`."""
    scheme = listen.partition(":")[0]
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def granted_buffer(sock: socket.socket) -> int:
    """Return the receive buffer that a socket really got, in bytes that were asked for.

    The kernel grants at most net.core.rmem_max, doubles it for its own overhead and tells the double.
    Source: socket(7), SO_RCVBUF.
    """
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def probe_buffer(asked: int) -> int:
    """Return the receive buffer that this process would get."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _ask_for_buffer(sock, asked)
        return granted_buffer(sock)


def buffer_fix(asked: int) -> str:
    """Return the command that lets a receive buffer of `asked` bytes be granted."""
    return f"sysctl -w net.core.rmem_max={asked}"


def _why(text: str, port: int, error: OSError) -> str:
    fix = fix_of(error, port, "tcp" if is_stream(text) else "udp")
    return f"listen = {text!r}: {error.strerror}: {fix}. The node was not started."


def fix_of(error: OSError, port: int, protocol: str) -> str:
    """Return why a port could not be bound, and what to do: with a busy one, who has it."""
    if error.errno == errno.EADDRINUSE:
        who = holder_of(port, protocol)
        return f"{who or 'another program'} has this port; stop it or listen on another one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "ports below 1024 need CAP_NET_BIND_SERVICE; use a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return "choose another address"


def holder_of(port: int, protocol: str = "udp") -> str:
    """Return `name (pid 123)` of the process that has a port, "" where we may not see it."""
    pid = pid_at(port, protocol)
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text('utf-8', 'replace').strip()} (pid {pid})"
    except OSError:
        return ""


def pid_at(port: int, protocol: str) -> int:
    """Return the number of the process that has a port, 0 where we may not see it.

    Source: proc(5), /proc/net/udp, /proc/net/tcp and /proc/<pid>/fd.
    """
    inodes = set()
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                return int(process.name)
    return 0


def _attach_filter(sock: socket.socket, shards: int, family: int) -> None:
    """Pick the socket by source address, whatever the port: templates are per exporter."""
    network = -0x100000  # SKF_NET_OFF: relative to the network header
    load, modulo, give = 0x20, 0x94, 0x16  # ld [k]; mod #k; ret a
    version_byte, jump, right, load_byte = 0x30, 0x15, 0x74, 0x30
    program = [
        (load_byte, 0, 0, network & 0xFFFFFFFF),
        (right, 0, 0, 4),
        (jump, 0, 2, 4),
        (load, 0, 0, (network + 12) & 0xFFFFFFFF),
        (0x05, 0, 0, 1),  # ja over the IPv6 load
        (load, 0, 0, (network + 20) & 0xFFFFFFFF),
        (modulo, 0, 0, shards),
        (give, 0, 0, 0),
    ]
    assert version_byte == load_byte
    assert family in (socket.AF_INET, socket.AF_INET6)
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code)
    fprog = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)


class UdpListener:
    """One input: a thread that receives into a bounded queue. Full = it waits, the kernel buffers."""

    def __init__(
        self,
        settings: ListenerSettings,
        context: Context,
        sock: socket.socket | None = None,
        *,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:
        """`sock` is bound already where a shard was handed it; `on_block` is called by the thread."""
        self._settings = settings
        self._context = context
        self._sock = sock
        self._queue = BlockQueue(context.name, settings.queue_blocks_max, on_block)
        self.connections = 0  # UDP has none
        self.granted_bytes = 0
        self.datagrams = 0
        self.kernel_drops = 0
        self.socket_drops = 0  # the kernel's own counter, since the socket was made
        self.deadline_ns = 0  # set by the owner: when the next tick closes, blocks are handed over
        self._lost = context.metrics.counter(
            "listener_datagrams_lost_total",
            "datagrams lost before decoding, by reason",
            label="reason",
            values=("kernel_buffer_full", "cut_too_long"),
        )
        self._replies = context.metrics.counter(
            "listener_replies_total", "answers to senders by what became of them",
            label="result", values=("sent", "failed"),
        )  # fmt: skip
        self._received = context.metrics.counter(
            "listener_datagrams_total", "datagrams received from the kernel"
        )

    def bind(self) -> None:
        """Bind the socket: from here on the kernel keeps what arrives."""
        if self._sock is None:
            (self._sock,) = bind(
                self._settings.listen,
                shards=1,
                receive_buffer_bytes=self._settings.receive_buffer_bytes,
            )
        self.granted_bytes = granted_buffer(self._sock)
        if self.granted_bytes < self._settings.receive_buffer_bytes:
            self._context.log.warning(
                "receive_buffer_small asked=%d granted=%d fix='%s'",
                self._settings.receive_buffer_bytes,
                self.granted_bytes,
                buffer_fix(self._settings.receive_buffer_bytes),
            )

    def start(self, *, drops_before: int = 0) -> None:
        """Bind where that was not done yet, and start receiving.

        `drops_before`: what an earlier owner of the socket has counted already.
        """
        if self._sock is None:
            self.bind()
        self.socket_drops = drops_before
        self._queue.run(self._receive)

    def stop(self) -> None:
        """Stop receiving and close the socket."""
        self._queue.stop()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def health(self) -> str:
        """Return "" or why nothing is received."""
        return self._queue.trouble

    @property
    def address(self) -> str:
        """The address it is bound to, as text."""
        if self._sock is None:
            return self._settings.listen
        return bound_address(self._settings.listen, self._sock)

    @property
    def waiting(self) -> int:
        """Blocks that wait to be decoded."""
        return self._queue.waiting

    def take(self) -> DatagramBlock | None:
        """Return the next block, or None where nothing waits; raise what ended the thread."""
        return self._queue.take()

    def send(self, reply: Reply) -> None:
        """Send an answer from the socket on which its request came; one that cannot go is counted."""
        if self._sock is None:
            return
        host = address_text(reply.exporter_high, reply.exporter_low)
        if self._sock.family == socket.AF_INET6 and ":" not in host:
            host = f"::ffff:{host}"
        try:
            self._sock.sendto(reply.payload, socket.MSG_DONTWAIT, (host, reply.exporter_port))
            self._replies.add("sent")
        except OSError:
            self._replies.add("failed")

    def _receive(self) -> None:
        assert self._sock is not None
        receiver = Receiver(
            self._sock,
            self._context.clock,
            datagrams_max=self._settings.datagrams_per_block,
            drops_before=self.socket_drops,
        )
        cut_before = 0
        while not self._queue.ended.is_set():
            block = receiver.receive(wait_ms=WAIT_MS, until_ns=self.deadline_ns)
            self.socket_drops = receiver.drops
            self.datagrams += block.datagrams
            self._received.array[0] += block.datagrams
            if block.kernel_drops:
                self.kernel_drops += block.kernel_drops
                self._lost.add("kernel_buffer_full", block.kernel_drops)
            if receiver.cut > cut_before:
                self._lost.add("cut_too_long", receiver.cut - cut_before)
                cut_before = receiver.cut
            self._queue.put(
                block,
                full="decoding does not keep up, the kernel's buffer fills; add workers or lower "
                "the exporters' rate",
            )
