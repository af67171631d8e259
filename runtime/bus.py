"""Between processes: one request socket on the node, and lossy, numbered feeds for watchers.

A request is three frames on DEALER/ROUTER over `ipc://<state>/node.sock`: request id, verb, body in
MessagePack (one msgspec struct a verb); the answer is request id, b"ok" or b"error", body. A request id
is a number u64 and until when it is asked, as u64 ns of the machine's steady clock: what is found in the
queue later, of a node that was away or slow, is not done any more, for its asker was told that it failed.
What acts says b"taken" before it is done: then it counts, even if the answer comes too late. PUB feeds
carry a sequence number per topic, so that a watcher knows what it missed (design section 6).

A `Line` leads from a worker to the node's `Hub`: numbered messages, kept until the node says that it
is done with them, beside short ones that are not kept.
"""

import contextlib
import logging
import math
import os
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import zmq

from runtime.clock import SystemClock
from telemetry.errors import TransientError
from telemetry.text import sound

T = TypeVar("T")
LOG = logging.getLogger(__name__)
MESSAGE_BYTES_MAX = 256 * 1024 * 1024
Handler = Callable[[Any], Any]
_REQUEST_ID = struct.Struct("<QQ")  # its number; until when it is asked
# Of a request's time, that "taken" has for its way back; of short ones a quarter.
TAKEN_SECONDS = 0.5
_STEADY = SystemClock()  # of the machine: what one process says of it, another understands


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
        with contextlib.suppress(OSError, ValueError):  # rung 2**64 times, or closed
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout_ms: int) -> bool:
        """Return when rung, when a watched socket has a message, or after timeout_ms: then False."""
        woken = bool(self._poller.poll(timeout_ms))
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        return woken

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Later:
    """An answer that is not known yet: a handler returns it, and gives it its content afterwards."""

    def __init__(self) -> None:
        self._send: Callable[[bytes, bytes], None] | None = None

    def bind(self, send: Callable[[bytes, bytes], None]) -> None:
        """Say where the answer goes."""
        self._send = send

    def answer(self, content: Any) -> None:
        """Send the answer; to one that has gone, nothing happens."""
        if self._send is not None:
            self._send(b"ok", msgspec.msgpack.encode(content))

    def fail(self, why: str) -> None:
        """Send that it did not work."""
        if self._send is not None:
            self._send(b"error", why.encode(errors="replace"))


class RequestServer:
    """Answers requests in its owner's thread: call `serve` in the loop. Owns a ROUTER socket."""

    def __init__(self, address: str, log: logging.Logger = LOG) -> None:
        self._address = address
        self._log = log
        self._handlers: dict[bytes, tuple[type, Handler, bool]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._put_off: deque[list[bytes]] = deque()  # what came while one verb alone was answered

    def handle(self, verb: str, body: type, handler: Handler, *, acts: bool = False) -> None:
        """Answer `verb`, whose body is a `body`, with what `handler` returns (anything msgspec knows).

        One that `acts` does what a person asked for, who must know whether it will be done.
        """
        self._handlers[verb.encode()] = (body, handler, acts)

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
        for done in range(limit):
            parts = self._put_off.popleft() if self._put_off else self._receive()
            if parts is None:
                return done
            if len(parts) == 4:  # else not our frames: nobody to answer
                self._answer(*parts)
        return limit

    def serve_only(self, verb: str, *, limit: int = 32) -> int:
        """Answer requests of one verb, in the middle of something; return how many. `serve` answers the others."""
        found = 0
        while len(self._put_off) < limit and (parts := self._receive()) is not None:
            if len(parts) == 4 and parts[2] == verb.encode():
                self._answer(*parts)
                found += 1
            else:
                self._put_off.append(parts)
        return found

    def _receive(self) -> list[bytes] | None:
        if self._socket is None:
            return None
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _answer(self, peer: bytes, number: bytes, verb: bytes, body: bytes) -> None:
        kind, handler, acts = self._handlers.get(verb, (None, None, False))
        timed = len(number) == _REQUEST_ID.size
        if timed and _STEADY.monotonic_ns() > _REQUEST_ID.unpack(number)[1]:
            if acts:
                self._log.warning("request_expired verb=%s", verb.decode(errors="replace"))
            return  # its asker has given up
        if kind is None or handler is None:
            status, answer = b"error", f"unknown verb {verb.decode(errors='replace')!r}".encode()
        else:
            try:
                request: Any = msgspec.msgpack.decode(body, type=kind)
                if acts and timed:
                    self._send(peer, number, b"taken", b"")
                content = handler(request)
                if isinstance(content, Later):
                    content.bind(lambda status, answer: self._send(peer, number, status, answer))
                    return
                status, answer = b"ok", msgspec.msgpack.encode(content)
            except (
                msgspec.MsgspecError, ValueError, LookupError, OSError, TransientError,
            ) as error:  # fmt: skip
                status, answer = b"error", str(error).encode(errors="replace")
            except Exception as error:  # noqa: BLE001  # what one asker brings about must not end it for all
                name = verb.decode(errors="replace")
                self._log.exception("request_failed verb=%s", name)
                status = b"error"
                answer = f"{name} failed within: {type(error).__name__}: {error}".encode(
                    errors="replace"
                )
        self._send(peer, number, status, answer)

    def _send(self, peer: bytes, number: bytes, status: bytes, answer: bytes) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(zmq.ZMQError):  # the asker has gone
            self._socket.send_multipart([peer, number, status, answer], zmq.NOBLOCK)


class RequestClient:
    """Asks a RequestServer; one question at a time, from one thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._number = 0

    def ask(self, verb: str, body: Any, answer: type[T], *, timeout_seconds: float = 2.0) -> T:
        """Return the answer, or raise TransientError when none came in time or it is an error.

        It says whether the node has taken up what was asked for; what it has not, it never will.
        """
        if self._socket is None:
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
            self._socket.connect(self._address)
        self._number += 1
        until_ns = _STEADY.monotonic_ns() + round(timeout_seconds * 1e9)
        expires_ns = until_ns - round(min(TAKEN_SECONDS, timeout_seconds / 4) * 1e9)
        number = _REQUEST_ID.pack(self._number, expires_ns)
        self._socket.send_multipart([number, verb.encode(), packed(body)])
        taken = False
        while (left_ns := until_ns - _STEADY.monotonic_ns()) > 0:
            if not self._socket.poll(math.ceil(left_ns / 1e6)):
                break
            back, status, data = self._socket.recv_multipart()
            if back != number:
                continue  # the late answer to a question we gave up
            if status == b"taken":
                taken = True
                continue
            if status != b"ok":
                raise TransientError(f"{verb}: {data.decode(errors='replace')}")
            return msgspec.msgpack.decode(data, type=answer)
        what_now = (
            "the node has taken it up: it counts once that is on disk, so look before you ask again"
            if taken
            else "it was not taken up, and will not be later: is Tocsin running?"
        )
        raise TransientError(
            f"{verb}: no answer from {self._address} within {timeout_seconds} s; {what_now}"
        )

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._context.term()


def packed(body: Any) -> bytes:
    """Return a message's body as MessagePack; what no UTF-8 can say in its texts is "?"."""
    try:
        return msgspec.msgpack.encode(body)
    except UnicodeEncodeError:  # half a surrogate pair, out of an answer's JSON or a command line
        return msgspec.msgpack.encode(_sound(msgspec.to_builtins(body, builtin_types=(bytes,))))


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return sound(value)
    if isinstance(value, list | tuple):
        return [_sound(one) for one in value]
    if isinstance(value, dict):
        return {_sound(name): _sound(one) for name, one in value.items()}
    return value


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


@dataclass(frozen=True, slots=True)
class Message:
    """What a worker says: `sequence` is 0 for what is not kept."""

    worker: bytes
    sequence: int
    kind: bytes
    body: bytes


_SEQUENCE = struct.Struct("<Q")
_HAVE = struct.Struct("<QQ")
REPEAT_NS = 2_000_000_000


class Line:
    """A worker's end: DEALER. What is sent is kept until the node is done with it, and repeated
    where the node did not get it. Used by one thread."""

    def __init__(self, address: str, name: bytes, *, bytes_max: int = 64 * 1024 * 1024) -> None:
        self._address = address
        self._name = name
        self._bytes_max = bytes_max
        self._kept: deque[tuple[int, bytes, bytes]] = deque()
        self._kept_bytes = 0
        self._received = 0  # by the node
        self._moved_ns = 0  # when that last changed, or all was received
        self.sent = 0  # the newest sequence number
        self.done = 0  # the newest that the node is done with
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def start(self) -> None:
        """Connect."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, self._name)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # `bytes_max` is the bound
        self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        self._socket.connect(self._address)

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """The socket, for a loop that waits for several. Only after `start`."""
        assert self._socket is not None
        return self._socket

    @property
    def full(self) -> bool:
        """Whether so much waits for the node that nothing more should be made."""
        return self._kept_bytes >= self._bytes_max

    @property
    def waiting(self) -> int:
        """Messages the node is not done with."""
        return len(self._kept)

    def send(self, kind: bytes, body: bytes) -> None:
        """Send under the next number, and keep it."""
        self.sent += 1
        self._kept.append((self.sent, kind, body))
        self._kept_bytes += len(body)
        self._put(self.sent, kind, body)

    def tell(self, kind: bytes, body: bytes = b"") -> None:
        """Send without number: the next one says the same better."""
        self._put(0, kind, body)

    def read(self, now_ns: int) -> list[tuple[bytes, bytes]]:
        """Return what the node says (kind, body); forget what it is done with, repeat what it lacks.

        `now_ns` is a steady clock's. What the node has not received for two seconds is sent again.
        """
        found: list[tuple[bytes, bytes]] = []
        while True:
            try:
                kind, body = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            except ValueError:
                continue
            if kind != b"have":
                found.append((kind, body))
                continue
            received, done = _HAVE.unpack(body)
            self.done = max(self.done, done)
            if received != self._received:
                self._received, self._moved_ns = received, now_ns
            while self._kept and self._kept[0][0] <= done:
                self._kept_bytes -= len(self._kept.popleft()[2])
        if self._received >= self.sent:
            self._moved_ns = now_ns
        elif now_ns - self._moved_ns > REPEAT_NS:
            self._moved_ns = now_ns
            for sequence, kind, body in self._kept:
                if sequence > self._received:
                    self._put(sequence, kind, body)
        return found

    def _put(self, sequence: int, kind: bytes, body: bytes) -> None:
        with contextlib.suppress(zmq.Again):  # kept, and repeated later
            self.socket.send_multipart([_SEQUENCE.pack(sequence), kind, body], zmq.NOBLOCK)

    def stop(self) -> None:
        """Close the socket."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = None


class Hub:
    """The node's end of all lines: ROUTER. Gives each worker's numbered messages once and in order."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._received: dict[bytes, int] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def start(self) -> None:
        """Bind. A stale socket file of a dead process is replaced."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)  # each worker bounds what it has under way
        self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        self._socket.bind(self._address)

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """The socket, for a loop that waits for several. Only after `start`."""
        assert self._socket is not None
        return self._socket

    def read(self, *, limit: int = 256) -> list[Message]:
        """Return what has come, at most `limit`. Repeated and out-of-order ones are left out."""
        found: list[Message] = []
        for _ in range(limit):
            try:
                worker, number, kind, body = self.socket.recv_multipart(zmq.NOBLOCK)
                (sequence,) = _SEQUENCE.unpack(number)
            except zmq.Again:
                break
            except (ValueError, struct.error):  # not one of our workers
                continue
            if sequence:
                if sequence != self._received.get(worker, 0) + 1:
                    continue  # known, or one before it was lost: the worker will repeat
                self._received[worker] = sequence
            found.append(Message(worker, sequence, kind, body))
        return found

    def received(self, worker: bytes) -> int:
        """Return the newest number that a worker's messages were given up to."""
        return self._received.get(worker, 0)

    def have(self, worker: bytes, done: int) -> None:
        """Tell a worker what was received, and up to which number it need keep nothing."""
        self.tell(worker, b"have", _HAVE.pack(self.received(worker), done))

    def tell(self, worker: bytes, kind: bytes, body: bytes = b"") -> None:
        """Send to one worker; to one that has gone, nothing happens."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([worker, kind, body], zmq.NOBLOCK)

    def forget(self, worker: bytes) -> None:
        """A worker is dead: its numbers mean nothing any more."""
        self._received.pop(worker, None)

    def stop(self) -> None:
        """Close the socket."""
        if self._socket is not None and self._context is not None:
            self._socket.close()
            self._context.term()
            self._socket = None
