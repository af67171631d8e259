"""A shard: one of the processes that receive and decode where `workers` is above 1.

The node has bound its sockets and hands them over as inherited descriptors; they stay open in the
node, so that what comes while a shard is down waits in the kernel. A shard runs the same Front as a
node without shards, and sends each closing (partial frames, evidence, ledgers, options) over a Line,
numbered and kept until the node has journalled what came of it. It tells its frontier at least every
200 ms, also when nothing comes. It ends with its node.
"""

import json
import os
import signal
import socket
import sys
from collections import deque
from pathlib import Path
from types import FrameType

import msgspec

from runtime import logs
from runtime.bus import Doorbell, Line
from runtime.clock import Clock, SteadyClock
from runtime.journal import pack, unpack
from runtime.metrics import Metrics
from runtime.parent import end_with_parent
from telemetry.errors import ConfigError
from tocsin.chain.intake import Intake, settle
from tocsin.chain.ticks import Closing
from tocsin.config import Config
from tocsin.families import Family, families_of
from tocsin.verbs import ListenerStatus

BEAT_NS = 50_000_000  # at most so often, unless a tick closed
SAID_NS = 1_000_000_000
WAIT_MS = 100


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """The node's answer to `ready`: begin. Its answer to `hello` was its configuration as JSON."""

    first_ns: int  # open the tick that holds this
    drops: dict[str, int]  # of each socket, as counted before


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard says of itself once a second."""

    records: int
    datagrams: int
    listeners: list[ListenerStatus]
    drops: dict[str, int]
    health: list[str]
    metrics: list[Family]


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life: all that arrived before `frontier_ns` is in messages up to `sent`."""

    frontier_ns: int
    sent: int
    said: Said | None = None


class _Head(msgspec.Struct, frozen=True):
    frontier_ns: int
    blind: bool


_ENCODER = msgspec.msgpack.Encoder()


def encode_closing(closing: Closing) -> bytes:
    """Return a closing as one message: a MessagePack head behind its length, then the batches."""
    head = _ENCODER.encode(_Head(closing.frontier_ns, closing.blind))
    return len(head).to_bytes(4, "little") + head + pack(closing.batches)


def decode_closing(data: bytes) -> Closing:
    """Return what `encode_closing` was given. Raises DecodeError."""
    size = int.from_bytes(data[:4], "little")
    head = msgspec.msgpack.decode(data[4 : 4 + size], type=_Head)
    return Closing(head.frontier_ns, unpack(data[4 + size :]), head.blind)


def frontier_of(data: bytes) -> int:
    """Return the frontier of an encoded closing, without decoding its batches."""
    size = int.from_bytes(data[:4], "little")
    return msgspec.msgpack.decode(data[4 : 4 + size], type=_Head).frontier_ns


def line_address(state: Path) -> str:
    """Return where the node listens for its shards."""
    return f"ipc://{state}/shards.sock"


def line_name(shard: int, pid: int) -> bytes:
    """Return the name of one process on the line: a restarted shard is another."""
    return f"shard-{shard}-{pid}".encode()


class Shard:
    """One shard process: an Intake and the line to the node."""

    def __init__(
        self, state: Path, shard: int, shards: int, sockets: dict[str, socket.socket], clock: Clock
    ) -> None:
        self._state = state
        self._shard = shard
        self._shards = shards
        self._sockets = sockets
        self._clock = clock
        self._metrics = Metrics("node")
        self._bell = Doorbell()
        self._line = Line(line_address(state), line_name(shard, os.getpid()))
        self._intake: Intake | None = None
        self._open = False
        self._ended = False
        self._beat_ns = 0
        self._said_ns = 0
        self._frontier_ns = 0
        # (frontier, number of the last message about what came before it)
        self._unanswered: deque[tuple[int, int]] = deque()

    def run(self) -> None:
        """Ask the node for work and do it until asked to stop."""
        self._line.start()
        self._bell.watch(self._line.socket)
        self._line.tell(b"hello")
        while not self._ended:
            if not self.step():
                self._bell.wait(WAIT_MS)

    def step(self) -> int:
        """Do what is there to do; return how much was done."""
        for kind, body in self._line.read(self._clock.monotonic_ns()):
            if kind == b"config" and self._intake is None:
                self._intake = self._made(msgspec.json.decode(body, type=Config))
                self._line.tell(b"ready")
            elif kind == b"open" and self._intake is not None and not self._open:
                order = msgspec.msgpack.decode(body, type=Open)
                self._intake.open(order.first_ns)
                self._intake.receive(order.drops)
                self._open = True
        if self._intake is None or not self._open:
            return 0
        # A node that does not keep up lets the kernel's buffers fill: nothing is made beyond that.
        moved, sent = 0, self._line.sent
        if not self._line.full:
            moved, closings = self._intake.step()
            for closing in closings:
                self._line.send(b"closing", encode_closing(closing))
            self._answer(self._intake)
        self._beat(self._intake, at_once=self._line.sent > sent)
        return moved

    def _answer(self, intake: Intake) -> None:
        """Send the answers that senders wait for, once the node has journalled what they are about."""
        frontier_ns = intake.frontier_ns
        if not self._unanswered or self._unanswered[-1][1] < self._line.sent:
            self._unanswered.append((frontier_ns, self._line.sent))
        else:  # nothing was sent since: it reaches further
            self._unanswered[-1] = (frontier_ns, self._line.sent)
        while self._unanswered and self._unanswered[0][1] <= self._line.done:
            intake.answer(self._unanswered.popleft()[0])

    def _made(self, config: Config) -> Intake:
        logs.set_up(f"shard-{self._shard}", self._metrics, self._clock, level=config.node.log_level)
        made = Intake(
            config,
            self._state,
            self._clock,
            self._metrics,
            shard=self._shard,
            shards=self._shards,
            on_block=self._bell.ring,
        )
        made.bind(self._sockets)
        made.start()
        settle(self._clock, self._metrics, logs.child("kernels"))
        return made

    def _beat(self, intake: Intake, *, at_once: bool) -> None:
        now_ns = self._clock.monotonic_ns()
        frontier_ns = intake.frontier_ns
        due = now_ns - self._beat_ns >= BEAT_NS and frontier_ns > self._frontier_ns
        said = None
        if now_ns - self._said_ns >= SAID_NS:
            self._said_ns = now_ns
            intake.keep()
            said = Said(
                records=intake.records,
                datagrams=intake.datagrams,
                listeners=intake.listeners(),
                drops=intake.socket_drops,
                health=intake.health(),
                metrics=families_of(self._metrics),
            )
        if due or at_once or said is not None:
            self._beat_ns, self._frontier_ns = now_ns, frontier_ns
            beat = Beat(frontier_ns=frontier_ns, sent=self._line.sent, said=said)
            self._line.tell(b"beat", _ENCODER.encode(beat))

    def ask_to_stop(self, number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """End the loop after the current step; also a signal handler."""
        self._ended = True
        self._bell.ring()

    def stop(self) -> None:
        """Keep the templates, close everything."""
        if self._intake is not None:
            self._intake.stop()
        self._line.stop()
        self._bell.close()


def main() -> None:
    """`python -m tocsin.node.shard STATE SHARD SHARDS {"LISTENER": FD}`: one shard until SIGTERM."""
    end_with_parent(signal.SIGKILL)
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    state, shard, shards, descriptors = sys.argv[1:5]
    sockets = {name: socket.socket(fileno=fd) for name, fd in json.loads(descriptors).items()}
    made = Shard(Path(state), int(shard), int(shards), sockets, SteadyClock())
    signal.signal(signal.SIGTERM, made.ask_to_stop)
    try:
        made.run()
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)
    finally:
        made.stop()


if __name__ == "__main__":
    main()
