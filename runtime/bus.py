"""Between processes: one request socket on the node, and lossy, numbered feeds for watchers.

A request is three frames on DEALER/ROUTER over `ipc://<state>/node.sock`: request id, verb, body in
MessagePack (one msgspec struct a verb); the answer is request id, b"ok" or b"error", body. PUB feeds
carry a sequence number per topic, so that a watcher knows what it missed (design section 6).
"""

import contextlib
import os
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import zmq

from telemetry.errors import TransientError

T = TypeVar("T")
MESSAGE_BYTES_MAX = 256 * 1024 * 1024
Handler = Callable[[Any], Any]


class Doorbell:
    """Ends the wait of a loop: other threads ring, sockets it watches have a message, or time is over.

    `ring` may be called from any thread and from signal handlers; the rest from the loop's thread.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = zmq.Poller()
        self._poller.register(self._fd, zmq.POLLIN)

    def watch(self, socket: "zmq.Socket[bytes]") -> None:
        """End the wait also when this socket has a message."""
        self._poller.register(socket, zmq.POLLIN)

    def ring(self) -> None:
        """End the present wait, or the next one."""
        with contextlib.suppress(OSError):  # closed, or rung 2**64 times
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout_ms: int) -> None:
        """Return when rung, when a watched socket has a message, or after timeout_ms."""
        self._poller.poll(timeout_ms)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RequestServer:
    """Answers requests in its owner's thread: call `serve` in the loop. Owns a ROUTER socket."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._handlers: dict[bytes, tuple[type, Handler]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def handle(self, verb: str, body: type, handler: Handler) -> None:
        """Answer `verb`, whose body is a `body`, with what `handler` returns (anything msgspec knows)."""
        self._handlers[verb.encode()] = (body, handler)

    def start(self) -> None:
        """Bind. A stale socket file of a dead process is replaced."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        self._socket.bind(self._address)

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """The socket, for a loop that waits for several. Only after `start`."""
        assert self._socket is not None
        return self._socket

    def stop(self) -> None:
        """Close the socket."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = None

    def serve(self, *, limit: int = 32) -> int:
        """Answer what waits, at most `limit` requests, without waiting; return how many."""
        if self._socket is None:
            return 0
        for done in range(limit):
            try:
                peer, number, verb, body = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return done
            except ValueError:  # not our four frames: nobody to answer
                continue
            self._answer(peer, number, verb, body)
        return limit

    def _answer(self, peer: bytes, number: bytes, verb: bytes, body: bytes) -> None:
        kind, handler = self._handlers.get(verb, (None, None))
        if kind is None or handler is None:
            status, answer = b"error", f"unknown verb {verb.decode(errors='replace')!r}".encode()
        else:
            try:
                request: Any = msgspec.msgpack.decode(body, type=kind)
                status, answer = b"ok", msgspec.msgpack.encode(handler(request))
            except (msgspec.MsgspecError, ValueError, LookupError, OSError) as error:
                status, answer = b"error", str(error).encode()
        with contextlib.suppress(zmq.ZMQError):  # the asker has gone
            assert self._socket is not None
            self._socket.send_multipart([peer, number, status, answer], zmq.NOBLOCK)


class RequestClient:
    """Asks a RequestServer; one question at a time, from one thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._number = 0

    def ask(self, verb: str, body: Any, answer: type[T], *, timeout_seconds: float = 2.0) -> T:
        """Return the answer, or raise TransientError when none came in time or it is an error."""
        if self._socket is None:
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
            self._socket.connect(self._address)
        self._number += 1
        number = struct.pack("<Q", self._number)
        self._socket.send_multipart([number, verb.encode(), msgspec.msgpack.encode(body)])
        while self._socket.poll(round(timeout_seconds * 1000)):
            back, status, data = self._socket.recv_multipart()
            if back != number:
                continue  # the late answer to a question we gave up
            if status != b"ok":
                raise TransientError(f"{verb}: {data.decode(errors='replace')}")
            return msgspec.msgpack.decode(data, type=answer)
        raise TransientError(
            f"{verb}: no answer from {self._address} within {timeout_seconds} s; is Tocsin running?"
        )

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._context.term()


class Publisher:
    """A PUB socket with a sequence number per topic. Slow watchers lose messages, nobody waits."""

    def __init__(self, address: str, *, high_water_messages: int = 1000) -> None:
        self._address = address
        self._high_water = high_water_messages
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._sequence: dict[str, int] = {}

    def start(self) -> None:
        """Bind; raises zmq.ZMQError where the port is busy."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, self._high_water)
        self._socket.bind(self._address)

    def publish(self, topic: str, body: bytes) -> None:
        """Send (topic, sequence u64 little-endian, body)."""
        if self._socket is not None:
            number = self._sequence.get(topic, 0) + 1
            self._sequence[topic] = number
            with contextlib.suppress(zmq.Again):
                self._socket.send_multipart(
                    [topic.encode(), struct.pack("<Q", number), body], zmq.NOBLOCK
                )

    def stop(self) -> None:
        """Close the socket."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = None
