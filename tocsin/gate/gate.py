"""The gate process: what needs HTTP or slow peers, away from the node.

It takes due deliveries from the node's outbox to their sinks, and runs the sources (HTTP inputs, pollers,
watched folders), which offer what they have to the node (`tocsin.gate.sources`). On profile `sensor` it also serves
the metrics page and health, whose text the node renders.
"""

import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import zmq

from alerting.courier import Courier
from alerting.words.alert import Alert
from alerting.words.delivery import Delivery, Order, Verdict
from runtime import logs
from runtime.bus import RequestClient
from runtime.clock import SteadyClock
from runtime.component import Context
from runtime.metrics import Metrics
from runtime.parent import end_with_parent
from telemetry.errors import ConfigError, TransientError
from tocsin import verbs
from tocsin.families import families_of
from tocsin.gate.orders import OrderLine
from tocsin.gate.pages import Pages
from tocsin.process_settings import ProcessSettings
from tocsin.state import state_dir

if TYPE_CHECKING:
    from tocsin.gate.sources import Sources

IDLE_MS = 50
AWAY_SECONDS = 0.5
TELL_NS = 1_000_000_000
BUSY_MS = 2  # while a sink is at work: its answer is told to the node soon


class Gate:
    """Moves deliveries between the node and the sinks until asked to stop."""

    def __init__(self, settings: ProcessSettings, state: Path, context: Context) -> None:
        address = f"ipc://{state}/node.sock"
        self._client = RequestClient(address)
        self._orders = OrderLine(address, context.clock, journalled=self._journalled)
        # The node says when it commits that something will be due: that wakes us, the outbox says what.
        self._zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._news = self._zmq.socket(zmq.SUB)
        self._news.setsockopt(zmq.LINGER, 0)
        self._news.setsockopt(zmq.RCVHWM, 1000)
        self._news.subscribe("due")
        self._news.connect(f"ipc://{state}/frames.sock")
        self._context = context
        self._ended = False
        self._courier = Courier(
            settings.alerting.sinks,
            context,
            fetch=self._fetch,
            report=self._report,
            active=self._active,
            order=self._orders.put,
        )
        self._sources = self._made_sources(settings, state)
        self._told_ns = 0  # when the node was last told how the sinks do

    def _made_sources(self, settings: ProcessSettings, state: Path) -> "Sources | None":
        if not settings.sources:
            return None
        from tocsin.gate.sources import Sources  # needs numpy, as nothing else here does

        return Sources(settings.sources, state, self._part)

    def _part(self, name: str) -> Context:
        """Return the context of a part of the gate."""
        gate = self._context
        seed = (*gate.seed[:1], *name.encode())
        return Context(name, gate.clock, gate.metrics.scoped(name), logs.child(name), seed)

    def _fetch(self, limit: int) -> Sequence[Delivery]:
        return self._client.ask("due", verbs.DueRequest(limit=limit), list[Delivery])

    def _report(self, verdicts: Sequence[Verdict]) -> None:
        self._client.ask("mark", list(verdicts), verbs.Nothing)

    def _active(self, sink: str) -> Sequence[Alert]:
        bodies = self._client.ask("told", verbs.ToldRequest(sink=sink), list[str])
        return [msgspec.json.decode(body, type=Alert) for body in bodies]

    def _journalled(self, orders: Sequence[Order]) -> None:
        self._courier.journalled(orders)

    def _tell_node(self) -> None:
        now_ns = self._context.clock.now_ns()
        if now_ns - self._told_ns >= TELL_NS:
            self._client.ask("sinks", self._courier.statuses(), verbs.Nothing)
            if self._sources is not None:
                says = verbs.GateSays(
                    sources=self._sources.statuses(), metrics=families_of(self._context.metrics)
                )
                self._client.ask("gate", says, verbs.Nothing)
            self._told_ns = now_ns

    def run(self) -> None:
        """Work until asked to stop; a node that is away is waited for."""
        if self._sources is not None:
            self._sources.start()
        while not self._ended:
            try:
                moved = self._courier.step()
                self._tell_node()
            except TransientError:
                self._context.clock.sleep(AWAY_SECONDS)
                continue
            if not moved:
                self._wait()
        if self._sources is not None:
            self._sources.stop()
        self._courier.stop()
        self._orders.stop()
        self._client.close()
        self._news.close()
        self._zmq.term()

    def _wait(self) -> None:
        """Wait for news of the node, or for what is due again, whichever is first."""
        if self._news.poll(BUSY_MS if self._courier.busy else IDLE_MS):
            with contextlib.suppress(zmq.Again):
                while True:
                    self._news.recv_multipart(zmq.NOBLOCK)

    def ask_to_stop(self, number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """End after the current step; also a signal handler."""
        self._ended = True


def _checked(path: Path | None) -> ProcessSettings:
    from tocsin.config import load_config  # brings all parts with it

    return load_config(path).for_processes()


def main() -> None:
    """`python -m tocsin.gate CONFIG STATE`: the gate until SIGTERM."""
    end_with_parent(signal.SIGTERM)
    path, state = (Path(argument) if argument else None for argument in sys.argv[1:3])
    clock, metrics = SteadyClock(), Metrics("gate")
    try:
        settings = ProcessSettings.handed_on() or _checked(path)
        folder = state_dir(state)
        logs.set_up("gate", metrics, clock, level=settings.node.log_level)
        seed = (settings.node.seed, *b"gate")
        gate = Gate(settings, folder, Context("gate", clock, metrics, logs.child("gate"), seed))
        signal.signal(signal.SIGTERM, gate.ask_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if settings.node.profile == "sensor" and settings.api.metrics_listen:
            pages = Pages(settings.api.metrics_listen, f"ipc://{folder}/node.sock", clock)
            pages.start_when_free(logs.child("gate"))
        gate.run()
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)
