"""Where datagrams come in: sockets, decoders and windows of one shard, with what it keeps on disk.

The node owns one where `workers = 1`; else each shard process does (tocsin.node.shard).
"""

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping
from logging import Logger
from pathlib import Path

from collectors.block import Decoder, silence
from collectors.listen.byte_streams import StreamListener
from collectors.listen.udp import UdpListener, is_stream
from collectors.registry import make_decoder
from correlator.tables.network_map import load_network
from correlator.windows import FlowWindows
from history.flow_spool import FlowSpool
from runtime import garbage, kernels, logs
from runtime.checkpoint import Checkpoints
from runtime.clock import Clock
from runtime.component import Context
from runtime.memory import give_back, give_back_freed
from runtime.metrics import Metrics
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from tocsin.chain.front import Front
from tocsin.chain.raw_ring import RawRing
from tocsin.chain.ticks import Closing
from tocsin.config import Config
from tocsin.verbs import ListenerStatus, WorkerStatus

BLOCKS_PER_STEP = 8  # of each listener, so that none waits for another's flood
TOLD_AFTER_SECONDS = 2.0
KEEP_NS = 10_000_000_000
TEMPLATE_CHANGES = ("new", "changed", "withdrawn", "expired")


def make_context(name: str, clock: Clock, metrics: Metrics, seed: int) -> Context:
    """Return a component's context; its randomness depends on the run's seed and its name."""
    return Context(name, clock, metrics.scoped(name), logs.child(name), (seed, *name.encode()))


def make_front(
    config: Config,
    clock: Clock,
    metrics: Metrics,
    *,
    shard: int = 0,
    on_flows: Callable[[Batch], None] | None = None,
) -> Front:
    """Return one shard's half of the chain."""
    seed = config.node.seed
    decoders: dict[str, Decoder] = {}
    for name, settings in config.collectors.items():
        context = make_context(f"collectors.{name}", clock, metrics, seed)
        decoders[name] = make_decoder(settings, context)
    network = load_network(Path(config.network.map) if config.network.map else None)
    windows = FlowWindows(
        config.all_views(),
        make_context("windows", clock, metrics, seed),
        backbone=network.backbone(),
        customers=network.customer_sources(),
        shard=shard,
    )
    return Front(decoders, windows, event_tick_ns=config.views.event_tick_ns, on_flows=on_flows)


def customer_sources(config: Config) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Return what sources belong to which customer's port by the network map, as FlowWindows takes it."""
    return load_network(Path(config.network.map) if config.network.map else None).customer_sources()


def part_of(shard: int, shards: int) -> str:
    """Return the name under which a shard keeps its files; "" where there is one only."""
    return f"shard-{shard}-of-{shards}" if shards > 1 else ""


def settle(clock: Clock, metrics: Metrics, log: Logger) -> None:
    """Load every kernel this process has imported, or compile it: else the first tick would wait.

    Meanwhile the kernel's receive buffers keep what comes. 0.3 s from a warm cache.
    """
    began_ns = clock.monotonic_ns()
    if why := kernels.refused():
        log.warning("kernel_library_refused reason=%r; kernels are compiled by numba", why)
    for number, one in enumerate(kernels.imported()):
        one.compile()
        seconds = (clock.monotonic_ns() - began_ns) / 1e9
        if seconds > TOLD_AFTER_SECONDS:
            log.warning("compiling_kernels done=%d of=%d", number + 1, len(kernels.imported()))
    anew = metrics.counter(
        "kernels_compiled_anew_total", "compiled kernels whose files were damaged"
    )
    anew.add(amount=kernels.compiled_anew - anew.numbers[0])
    give_back("libllvmlite.so")  # where numba loaded them: 70 MB
    garbage.calm()
    give_back_freed()  # and what it took to load them: 10 MB


class Intake:
    """One shard: listeners (a thread each), decoders, windows, raw ring, kept templates."""

    def __init__(
        self,
        config: Config,
        state: Path,
        clock: Clock,
        metrics: Metrics,
        *,
        shard: int = 0,
        shards: int = 1,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_block` is called from listeners' threads whenever there is something to `step` for."""
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._on_block = on_block
        self._shard = shard
        self._state = state
        self._part = part_of(shard, shards)
        self._listeners: dict[str, UdpListener | StreamListener] = {}
        self._templates_kept = 0
        self._changes_kept = 0
        self._kept_ns = 0
        self._started = False
        self._jumped_ns = clock.jumped_ns

    def bind(self, sockets: Mapping[str, socket.socket] | None = None) -> None:
        """Bind every input, or take the sockets that the node has bound: the kernel buffers now."""
        for name, settings in self._config.collectors.items():
            context = self._context(f"listener.{name}")
            sock = sockets[name] if sockets is not None else None
            kind = StreamListener if is_stream(settings.listen) else UdpListener
            self._listeners[name] = kind(settings, context, sock, on_block=self._on_block)
            self._listeners[name].bind()

    def start(self) -> None:
        """Make decoders and windows; take back the templates that were known."""
        ring_bytes = self._config.node.raw_ring_bytes
        self._ring = RawRing(
            self._state / "ring" / self._part,
            self._context("ring"),
            budget_bytes=max(ring_bytes // self._config.node.workers, 1),
        )
        if ring_bytes:
            self._ring.start()
        self._spool = self._flow_spool()
        # What another number of shards has left comes first: what it knows of exporters that are
        # now ours helps, the rest expires.
        folder = self._state / "templates"
        own = folder / self._part
        others = [one for one in sorted([folder, *folder.glob("shard-*")]) if one.is_dir()]
        folders = [*(one for one in others if one != own), own]
        self._front = self._made_front()
        while not all(self._restored(one) for one in folders):
            self._front = self._made_front()  # half of what did not fit is in the one before
        self._templates = self._kept_in(own)
        self._started = True

    def _flow_spool(self) -> FlowSpool | None:
        """Return where raw flow records go on their way to the history, None where they do not."""
        settings, workers = self._config.history, self._config.node.workers
        if not settings.flows or self._config.node.profile == "sensor":
            return None
        made = FlowSpool(
            self._state / "flows" / self._part,
            self._context("flow_spool"),
            rows_per_second_max=max(settings.flows_rows_per_second_max // workers, 1),
            waiting_bytes_max=max(settings.flows_waiting_bytes_max // workers, 1),
            shard=self._shard,
        )
        try:
            made.start()
        except OSError as error:
            raise ConfigError(
                f"{self._state / 'flows'}: {error.strerror}; make it writable, or set "
                f"history.flows = false. The node was not started."
            ) from error
        return made

    def _made_front(self) -> Front:
        return make_front(
            self._config,
            self._clock,
            self._metrics,
            shard=self._shard,
            on_flows=self._spool.write if self._spool else None,
        )

    def _kept_in(self, folder: Path) -> Checkpoints:
        return Checkpoints(folder, self._context("templates"), kind="templates")

    def _restored(self, folder: Path) -> bool:
        """Take what a folder holds; return False where it does not fit, and is set aside."""
        kept = self._kept_in(folder)
        if (loaded := kept.load()) is None:
            return True
        return kept.taken(lambda state: self._front.restore(state.scoped("front")), loaded[2])

    def receive(self, drops: Mapping[str, int] | None = None) -> None:
        """Begin to receive. `drops`: what each socket lost that was counted before."""
        for name, listener in self._listeners.items():
            listener.start(drops_before=(drops or {}).get(name, 0))

    def open(self, first_ns: int) -> None:
        """Open the first tick; shards that work together open the same one."""
        self._front.open(first_ns)

    def step(self) -> tuple[int, Iterable[Closing]]:
        """Decode what came; return (how many datagrams, every closing that is due)."""
        moved = 0
        for name, listener in self._listeners.items():
            for _ in range(BLOCKS_PER_STEP):
                block = listener.take()
                if block is None:
                    break
                moved += block.datagrams
                if self._config.node.raw_ring_bytes:
                    self._ring.write(name, block)
                self._front.feed(name, block)
        if not self._listeners:  # sources in the gate alone: the clock is all there is to wait for
            self._front.feed("", silence(self._clock.now_ns()))
        if (jumped_ns := self._clock.jumped_ns) > self._jumped_ns:  # before what comes after it
            self._jumped_ns = jumped_ns
            self._front.skip(self._clock.now_ns())
        closings = self._front.step()
        self.answer(0)
        deadline_ns = self._front.deadline_ns
        for listener in self._listeners.values():
            listener.deadline_ns = deadline_ns
        return moved, closings

    def hear(self) -> int:
        """Take nothing: listeners' queues fill, then the kernel's, and those who can wait do."""
        return 0

    def answer(self, until_ns: int) -> None:
        """Send the answers that senders wait for, of event ticks that are on disk up to here."""
        for name, reply in self._front.replies(until_ns):
            listener = self._listeners[name]
            if isinstance(listener, UdpListener):
                listener.send(reply)

    def keep(self, *, always: bool = False) -> None:
        """Keep templates within a second of a change: a restart must not wait for the next refresh.

        What else decoders say has changed (their `changes`) is kept within ten seconds.
        """
        self._ring.flush()
        if self._spool is not None:
            self._spool.tidy(self._clock.now_ns())
        changes = sum(
            int(self._metrics.value("collector_templates_total", result=result))
            for result in TEMPLATE_CHANGES
        )
        now_ns = self._clock.monotonic_ns()
        pending = self._front.changes != self._changes_kept and now_ns - self._kept_ns > KEEP_NS
        if changes == self._templates_kept and not pending and not always:
            return
        self._templates_kept, self._changes_kept = changes, self._front.changes
        self._kept_ns = now_ns
        try:
            self._templates.save(self._clock.now_ns() // 10**6, 0, {"front": self._front})
        except OSError as error:
            self._context("templates").log.error("templates_refused error=%s", error)

    @property
    def frontier_ns(self) -> int:
        """The arrival time up to which everything is decoded."""
        return self._front.frontier_ns

    @property
    def records(self) -> int:
        """Flow records decoded since the start."""
        return self._front.records

    @property
    def datagrams(self) -> int:
        """Datagrams decoded since the start."""
        return self._front.datagrams

    @property
    def socket_drops(self) -> dict[str, int]:
        """The kernel's drop counter of each input."""
        return {name: listener.socket_drops for name, listener in self._listeners.items()}

    def listeners(self) -> list[ListenerStatus]:
        """Return each input at a glance."""
        return [
            ListenerStatus(
                name=name,
                address=listener.address,
                datagrams=listener.datagrams,
                receive_buffer_bytes=listener.granted_bytes,
                kernel_drops=listener.kernel_drops,
                queue_blocks=listener.waiting,
                connections=listener.connections,
            )
            for name, listener in self._listeners.items()
        ]

    def workers(self) -> list[WorkerStatus]:
        """Return no shards: this process receives itself."""
        return []

    def health(self) -> list[str]:
        """Return one sentence for each thing that is wrong."""
        return [text for listener in self._listeners.values() if (text := listener.health())]

    def stop(self) -> None:
        """Stop receiving, keep the templates, close everything."""
        for listener in self._listeners.values():
            listener.stop()
        if self._started:
            with contextlib.suppress(OSError):
                self.keep(always=True)
            self._ring.stop()
            if self._spool is not None:
                self._spool.stop()

    def _context(self, name: str) -> Context:
        return make_context(name, self._clock, self._metrics, self._config.node.seed)
