"""The shards of one node, seen from the node: their sockets, their processes, their closings in order.

Stands in the place of an Intake where `workers` is above 1 (design section 6). Closings are given out
in the order of (frontier, shard), each only when every shard that counts has passed its frontier: what
the node merges depends on no process's speed. A shard that dies, or says nothing for ten seconds,
leaves the minimum; the ticks that lack it are incomplete, and both its leaving and its return are said.
"""

import json
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from collectors.listen.byte_streams import server_context
from collectors.listen.udp import bind, bound_address, granted_buffer
from runtime.bus import Doorbell, Hub, Message
from runtime.clock import Clock
from runtime.lock import FolderLock
from runtime.metrics import Metrics
from runtime.supervisor import Role, Supervisor
from tocsin.chain.intake import make_context
from tocsin.chain.ticks import Closing
from tocsin.config import Config
from tocsin.families import take_families
from tocsin.node.barrier import Barrier, Left
from tocsin.node.shard import (
    Beat,
    Open,
    Said,
    decode_closing,
    frontier_of,
    line_address,
    line_name,
)
from tocsin.verbs import ListenerStatus, WorkerStatus

SILENT_NS = 10_000_000_000  # a shard that works says something ten times a second
STOP_SECONDS = 3.0


@dataclass(slots=True)
class _Shard:
    """One place among the shards, and the process that holds it."""

    number: int
    role: Role
    ready: bytes = b""  # the process that asks for work
    name: bytes = b""  # the process that has it
    heard_ns: int = 0  # by the steady clock
    left_ns: int = 0  # the frontier up to which it was heard when it stopped counting
    told: int = 0  # the number up to which it was told to keep nothing
    given: deque[tuple[int, int]] = field(default_factory=deque)  # numbers behind, and frontiers
    said: Said | None = None
    records: int = 0  # of its earlier processes, as the three below
    datagrams: int = 0
    heard: dict[str, int] = field(default_factory=dict)  # datagrams of each input
    lost: dict[str, int] = field(default_factory=dict)  # kernel drops of each input


class Workers:
    """Owns the sockets of all inputs and the shard processes that read them.

    `on_leave(shard, frontier_ns)` is called when a shard no longer counts, before what then closes is
    given out; `on_join(shard, first_ns, away_ns)` when it counts again, from the tick at `first_ns`;
    `away_ns` since what was last heard of it.
    """

    def __init__(
        self,
        config: Config,
        state: Path,
        clock: Clock,
        metrics: Metrics,
        bell: Doorbell,
        *,
        on_leave: Callable[[int, int], None],
        on_join: Callable[[int, int, int], None],
        lock: FolderLock,
    ) -> None:
        """`lock` is the node's: shards hold it too, so that the next node waits for their end."""
        self._lock = lock
        self._config = config
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self._bell = bell
        self._on_leave = on_leave
        self._on_join = on_join
        self._context = make_context("workers", clock, metrics, config.node.seed)
        self._sockets: dict[str, list[socket.socket]] = {}
        self._shards: list[_Shard] = []
        self._hub = Hub(line_address(state))
        self._supervisor: Supervisor | None = None
        self._bound_ns = 0
        self._barrier = Barrier(config.node.workers)
        self._receiving = False

    def bind(self) -> None:
        """Bind a socket of each input for each shard: the kernel buffers now."""
        for name, settings in self._config.collectors.items():
            if settings.listen.startswith("tls:"):
                server_context(settings)  # said here, by one process, and not by each shard
            self._sockets[name] = bind(
                settings.listen,
                shards=self._config.node.workers,
                receive_buffer_bytes=settings.receive_buffer_bytes,
            )
        self._bound_ns = self._clock.now_ns()

    def start(self) -> None:
        """Start the shard processes; they wait for `receive`."""
        self._hub.start()
        self._bell.watch(self._hub.socket)
        count = self._config.node.workers
        for number in range(count):
            descriptors = {name: socks[number].fileno() for name, socks in self._sockets.items()}
            command = [
                sys.executable, "-m", "tocsin.node.shard",
                str(self._state), str(number), str(count), json.dumps(descriptors),
            ]  # fmt: skip
            role = Role(
                f"shard-{number}", command, pass_fds=(*descriptors.values(), self._lock.descriptor)
            )
            self._shards.append(_Shard(number, role))
        self._supervisor = Supervisor(
            [shard.role for shard in self._shards], self._context, on_change=self._changed
        )
        self._supervisor.start()

    def receive(self) -> None:
        """Let the shards begin."""
        self._receiving = True

    # ---- the loop

    def step(self) -> tuple[int, Iterator[Closing]]:
        """Hear the shards; return (how many messages, every closing that all have passed).

        Take all of the closings before the next step: who leaves is told between them, in its turn.
        """
        return self.hear(), self._give()

    def hear(self) -> int:
        """Hear the shards, and keep what they say; return how many messages there were."""
        assert self._supervisor is not None
        messages = self._hub.read()
        for message in messages:
            self._hear(message)
        self._supervisor.poll()  # after hearing: what a shard said before it died still counts
        now_ns = self._clock.monotonic_ns()
        for shard in self._shards:
            if shard.ready and self._receiving and self._barrier.may_join(shard.number):
                self._admit(shard)
            process = shard.role.process
            if process and shard.name and now_ns - shard.heard_ns > SILENT_NS:
                self._context.log.error("shard_silent shard=%d pid=%d", shard.number, process.pid)
                process.kill()
                shard.heard_ns = now_ns  # said once; it ends soon
        return len(messages)

    def answer(self, until_ns: int) -> None:
        """Tell the shards that what closed up to here is on disk: they keep it no longer."""
        for shard in self._shards:
            told = shard.told
            while shard.given and shard.given[0][1] <= until_ns:
                shard.told, _ = shard.given.popleft()
            if shard.told > told:
                self._have(shard)

    def _hear(self, message: Message) -> None:
        shard = self._shard_of(message.worker)
        if shard is None:
            return
        shard.heard_ns = self._clock.monotonic_ns()
        if message.kind == b"hello":
            self._hub.tell(message.worker, b"config", msgspec.json.encode(self._config))
        elif message.kind == b"ready":
            shard.ready = message.worker
        elif message.kind == b"closing":
            frontier_ns = frontier_of(message.body)
            self._barrier.closing(shard.number, message.sequence, frontier_ns, message.body)
        elif message.kind == b"beat":
            beat = msgspec.msgpack.decode(message.body, type=Beat)
            if self._hub.received(message.worker) >= beat.sent:
                self._barrier.frontier(shard.number, beat.frontier_ns)
            if beat.said is not None:
                shard.said = beat.said
                take_families(self._metrics, beat.said.metrics, f"shard-{shard.number}")
                self._have(shard)

    def _shard_of(self, name: bytes) -> _Shard | None:
        for shard in self._shards:
            if name == shard.name:
                return shard
            process = shard.role.process
            if process is not None and name == line_name(shard.number, process.pid):
                return shard
        return None

    def _have(self, shard: _Shard) -> None:
        self._hub.have(shard.name, shard.told)

    def _changed(self, role: Role, what: str) -> None:
        """Hear from the supervisor that a process was started or died."""
        for shard in self._shards:
            if shard.role is role and what != "started":
                shard.ready = b""
                self._barrier.died(shard.number)

    def _admit(self, shard: _Shard) -> None:
        """Give work to a process: from the oldest tick on that is not complete."""
        lateness_ns = round(self._config.views.lateness_seconds * 1e9)
        passed_ns = self._barrier.passed_ns
        first_ns = passed_ns - lateness_ns if passed_ns else self._bound_ns
        drops: dict[str, int] = {}
        if shard.said is not None:
            drops = shard.said.drops
            shard.records += shard.said.records
            shard.datagrams += shard.said.datagrams
            for one in shard.said.listeners:
                shard.heard[one.name] = shard.heard.get(one.name, 0) + one.datagrams
                shard.lost[one.name] = shard.lost.get(one.name, 0) + one.kernel_drops
        shard.name, shard.ready, shard.said = shard.ready, b"", None
        shard.told = 0
        shard.given.clear()
        shard.heard_ns = self._clock.monotonic_ns()
        order = msgspec.msgpack.encode(Open(first_ns=first_ns, drops=drops))
        self._hub.tell(shard.name, b"open", order)
        if self._barrier.join(shard.number, first_ns):
            self._on_join(shard.number, first_ns, self._clock.now_ns() - shard.left_ns)

    def _give(self) -> Iterator[Closing]:
        for one in self._barrier.give():
            shard = self._shards[one.shard]
            if isinstance(one, Left):
                self._hub.forget(shard.name)
                shard.name = b""
                shard.left_ns = one.frontier_ns or self._clock.now_ns()
                self._on_leave(one.shard, one.frontier_ns)
                # Nothing more, but what waited for this shard alone closes now.
                yield Closing(one.passed_ns, (), blind=True)
                continue
            shard.given.append((one.sequence, one.frontier_ns))
            closing = decode_closing(one.data)
            yield Closing(closing.frontier_ns, closing.batches, closing.blind or not one.whole)

    # ---- what the node tells of it

    @property
    def frontier_ns(self) -> int:
        """The arrival time up to which everything was given out."""
        return self._barrier.complete_ns

    def keep(self) -> None:
        """Shards keep their templates themselves."""

    @property
    def records(self) -> int:
        """Flow records decoded since the start, as of the shards' last word."""
        return sum(one.records + (one.said.records if one.said else 0) for one in self._shards)

    @property
    def datagrams(self) -> int:
        """Datagrams decoded since the start."""
        return sum(one.datagrams + (one.said.datagrams if one.said else 0) for one in self._shards)

    def listeners(self) -> list[ListenerStatus]:
        """Return each input at a glance, all shards together."""
        made = []
        for name, socks in self._sockets.items():
            said = [
                listener
                for one in self._shards
                if one.said is not None
                for listener in one.said.listeners
                if listener.name == name
            ]
            listen = self._config.collectors[name].listen
            made.append(
                ListenerStatus(
                    name=name,
                    address=bound_address(listen, socks[0]),
                    datagrams=sum(one.datagrams for one in said)
                    + sum(one.heard.get(name, 0) for one in self._shards),
                    receive_buffer_bytes=granted_buffer(socks[0]),
                    kernel_drops=sum(one.kernel_drops for one in said)
                    + sum(one.lost.get(name, 0) for one in self._shards),
                    queue_blocks=sum(one.queue_blocks for one in said),
                    connections=sum(one.connections for one in said),
                )
            )
        return made

    def workers(self) -> list[WorkerStatus]:
        """Return each shard at a glance."""
        return [
            WorkerStatus(
                shard=one.number,
                pid=one.role.process.pid if one.role.process else 0,
                counts=self._barrier.counts(one.number) and bool(one.name),
                restarts=one.role.restarts,
                frontier_ns=self._barrier.frontier_of(one.number),
                waiting=self._barrier.waiting(one.number),
            )
            for one in self._shards
        ]

    def health(self) -> list[str]:
        """Return one sentence for each thing that is wrong."""
        made = [
            f"shard {one.number} is down since {(self._clock.now_ns() - one.left_ns) / 1e9:.0f} s "
            f"and is being restarted: what its exporters send waits in the kernel's buffer, its "
            f"ticks are incomplete; the log says why it died"
            for one in self._shards
            if not self._barrier.counts(one.number)
        ]
        for one in self._shards:
            made += one.said.health if one.said is not None and one.name else []
        return made

    def stop(self) -> None:
        """Stop the shards, close the sockets."""
        if self._supervisor is not None:
            self._supervisor.stop(timeout_seconds=STOP_SECONDS)
            self._hub.stop()
        for socks in self._sockets.values():
            for sock in socks:
                sock.close()
