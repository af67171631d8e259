"""The node process: receive, decode, windows, journal, detection, alerting, outbox.

The only place besides desk.py that names concrete classes. It shares its interpreter with no web
server, no SQL engine and no user code. Read `Node.start` from top to bottom: that is the order in
which a node comes up.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from alerting.alert import Alert
from alerting.delivery import Order, SinkStatus, Verdict
from alerting.operate import check
from alerting.orders import Orders
from alerting.outbox import Outbox
from alerting.records import notices_of
from alerting.sink_board import SinkBoard
from alerting.stage import AlertingStage
from correlator.merge import FrameMerger
from correlator.sample_windows import SampleWindows
from correlator.tables.network_map import load_network
from detectors import probation
from detectors.stage import DetectionStage
from runtime import logs
from runtime.bus import Doorbell, Publisher, RequestServer
from runtime.checkpoint import Checkpoints
from runtime.clock import Clock, SystemClock
from runtime.journal import BlockKind, Cursor, JournalReader, JournalWriter
from runtime.kernels import require
from runtime.lock import FolderLock
from runtime.metrics import Metrics
from runtime.notify import notify
from runtime.ports import SeriesDirectory, SeriesKey
from runtime.supervisor import end_with_parent
from telemetry.batch import batch_from_rows
from telemetry.errors import ConfigError, TocsinError, TransientError
from telemetry.schemas import CONTROL
from tocsin import __version__, verbs
from tocsin.chain import Back, Outcome, Tick
from tocsin.config import Config, keep_config, load_config, with_probation
from tocsin.families import take_families
from tocsin.intake import Intake, make_context, settle
from tocsin.offers import Offers
from tocsin.senders import SenderBook
from tocsin.state import state_dir
from tocsin.workers import Workers

HEARTBEAT_NS = 1_000_000_000
IDLE_MS = 200  # a listener, a shard or a request wakes the loop before that
CURSORS = ("history",)
HISTORY_BEHIND = 3  # journal blocks: the desk stores them as they come


def make_back(config: Config, clock: Clock, metrics: Metrics, *, shards: int = 1) -> Back:
    """Return the node's half of the chain, as live and replay have it."""
    seed = config.node.seed
    network = load_network(Path(config.network.map) if config.network.map else None)
    views = config.all_views()
    merger = FrameMerger(
        views,
        make_context("correlator", clock, metrics, seed),
        network=network,
        shards=shards,
        idle_seconds=config.views.idle_seconds,
    )
    samples = SampleWindows(
        config.sample_views(),
        make_context("samples", clock, metrics, seed),
        event_tick_ns=config.views.event_tick_ns,
        idle_seconds=config.views.idle_seconds,
    )
    views += config.sample_views()
    return Back(
        merger,
        DetectionStage(views, config.detection, make_context("detectors", clock, metrics, seed)),
        AlertingStage(
            config.alerting,
            make_context("alerting", clock, metrics, seed),
            network=network,
            directory=Directories((merger, samples)),
            evidence=merger,
        ),
        samples=samples,
        shards=shards,
        event_tick_ns=config.views.event_tick_ns,
    )


class Directories:
    """Several directories of series as one (ports.SeriesDirectory): the first that knows answers."""

    def __init__(self, directories: Sequence[SeriesDirectory]) -> None:
        self._directories = directories

    def key(self, series_id: int) -> SeriesKey | None:
        """Return what a series id stands for."""
        found = (directory.key(series_id) for directory in self._directories)
        return next((key for key in found if key is not None), None)


class Node:
    """One running node."""

    def __init__(self, config: Config, state: Path, clock: Clock | None = None) -> None:
        self._config = config
        self._state = state
        self._clock = clock or SystemClock()
        self.metrics = Metrics("node")
        self._log = logs.child("node")
        self._ended = False
        self._ready = False
        self._started_ns = self._clock.now_ns()
        self._ticks = 0
        self._last_tick_end_ns = 0  # of a view
        self._closed_ns = 0  # of any tick
        self._settled_ns = 0
        self._frontier_ns = 0
        self._senders = SenderBook()
        self._lock = FolderLock(state, "node", self._clock)
        self._bell = Doorbell()
        self._intake: Intake | Workers
        if config.node.workers == 1:
            self._intake = Intake(
                config, state, self._clock, self.metrics, on_block=self._bell.ring
            )
        else:
            self._intake = Workers(
                config, state, self._clock, self.metrics, self._bell,
                on_leave=self._shard_left, on_join=self._shard_back,
                lock=self._lock,
            )  # fmt: skip

    def start(self) -> None:
        """Come up: sockets first, then state, then the loop may begin."""
        config, state = self._config, self._state
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"state folder {state}: {error.strerror}; make it writable for this user or name "
                f"another one (node.state_dir, --state). The node was not started."
            ) from error
        self._lock.take()
        seed = config.node.seed
        with contextlib.suppress(OSError):  # for cases; a disk that refuses is told elsewhere
            keep_config(config, state)
        # 1. Bind: from here on the kernel keeps what exporters send.
        self._intake.bind()
        # 2. What must survive.
        context = make_context("journal", self._clock, self.metrics, seed)
        self._journal = JournalWriter(
            state / "journal",
            context,
            segment_bytes=config.node.journal_segment_bytes,
            segment_seconds=config.node.journal_segment_seconds,
            budget_bytes=config.node.journal_bytes_max,
        )
        self._journal.start()
        outbox_context = make_context("outbox", self._clock, self.metrics, seed)
        self._outbox = Outbox(state / "node.sqlite", config.alerting, outbox_context)
        self._outbox.start()
        self._orders = Orders(config.alerting.sinks)
        self._sinks = SinkBoard(config.alerting.sinks, outbox_context)
        self._checkpoints = Checkpoints(state / "checkpoints", context)
        self._checkpoint_sequence = 1
        self._checkpoint_due_ns = 0
        # 3. The chain, from the last checkpoint and the journal behind it.
        self._intake.start()
        self._back = make_back(config, self._clock, self.metrics, shards=config.node.workers)
        self._offers = Offers(self._back.offer, trouble=self._journal.health)
        self._gate_says = verbs.GateSays(sources=[], metrics=[])
        self._recover()
        self._back.merger.start_over()
        self._back.on_tick = self._journal_tick
        self._back.on_outcome = self._commit_outcome
        settle(self._clock, self._log)
        # 4. Who may ask, and who listens.
        self._server = RequestServer(f"ipc://{state}/node.sock")
        self._serve_verbs()
        self._server.start()
        self._bell.watch(self._server.socket)
        self._publisher = Publisher(f"ipc://{state}/frames.sock")
        self._publisher.start()
        self._heartbeat = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._heartbeat.setblocking(False)
        self._beat_due_ns = 0
        # 5. Receive. The first tick holds only what came since: it must raise no volume alarm.
        tick_ns = round(self._config.views.tick_seconds * 1e9)
        self._back.mark_incomplete(self._clock.now_ns() // tick_ns * tick_ns + tick_ns)
        self._intake.receive()
        self._ready = True
        notify("READY=1")
        self._log.info(
            "node_ready listeners=%s state=%s",
            ",".join(listener.address for listener in self._intake.listeners()),
            state,
        )

    def _recover(self) -> None:
        loaded = self._checkpoints.load()
        after = 1
        if loaded is not None:
            sequence, tick_end_ns, snapshot = loaded
            self._back.restore(snapshot.scoped("back"))
            self._offers.restore(snapshot.scoped("offers"))
            after = sequence + 1
            self._checkpoint_sequence = after
            self._last_tick_end_ns = self._closed_ns = tick_end_ns
        for sequence in (after, *(cursor.next_sequence for cursor in self._cursors())):
            self._journal.go_on_from(sequence)
        reader = JournalReader(self._state / "journal", next_sequence=after)
        replayed = 0
        scored: set[int] = set()
        waiting: list[Tick] = []
        while True:
            try:
                for block in reader.read():
                    if block.kind is BlockKind.RESULT:
                        scored.add(block.tick_end_ns)
                    else:
                        waiting.append(Tick(block.tick_end_ns, block.batches))
                break
            except TocsinError as error:
                self._log.error("journal_damaged error=%s", error)
                reader.skip()
        for tick in waiting:
            self._offers.absorb(tick.batches)
            outcome = self._back.absorb(tick)
            if outcome.is_worth_keeping:
                if tick.tick_end_ns not in scored:
                    self._journal.append(
                        BlockKind.RESULT, tick.tick_end_ns, outcome.result(), sync=False
                    )
                self._commit(outcome)
            self._closed(tick)
            replayed += 1
        if self._closed_ns:
            now_ns = self._clock.now_ns()
            gap = max(now_ns - self._closed_ns, 0) / 1e9
            # What lay in open windows is lost with the old process: say so, alarm about nothing.
            tick_ns = round(self._config.views.tick_seconds * 1e9)
            until = now_ns // tick_ns * tick_ns + tick_ns
            payload = {"seconds": round(gap, 3), "replayed_ticks": replayed}
            self._control("gap", until - tick_ns, payload)
            self._log.warning("restarted gap_seconds=%.1f replayed_ticks=%d", gap, replayed)

    def _control(self, kind: str, tick_start_ns: int, payload: Mapping[str, object]) -> None:
        row = {"tick_start_ns": tick_start_ns, "kind": kind, "payload": json.dumps(payload)}
        self._back.control(batch_from_rows(CONTROL, [row]))

    def _shard_left(self, shard: int, frontier_ns: int) -> None:
        """Close ticks without a shard: what lay in its windows is lost, so they raise no alarm."""
        now_ns = self._clock.now_ns()
        self._back.merger.leave(shard)
        self._back.mark_incomplete(now_ns)
        self._control("shard", now_ns, {"shard": shard, "left": True, "frontier_ns": frontier_ns})
        self._log.error("shard_left shard=%d frontier_ns=%d", shard, frontier_ns)

    def _shard_back(self, shard: int, first_ns: int, away_ns: int) -> None:
        """Wait for a shard again. Its first tick also gets what came for those closed without it."""
        tick_ns = round(self._config.views.tick_seconds * 1e9)
        self._back.merger.join(shard, first_ns)
        self._back.mark_incomplete(first_ns + tick_ns)
        seconds = round(away_ns / 1e9, 3)
        self._control("gap", first_ns, {"shard": shard, "seconds": seconds})
        self._log.warning("shard_back shard=%d gap_seconds=%.1f", shard, seconds)

    # ---- the loop

    def run(self) -> None:
        """Work until asked to stop."""
        while not self._ended:
            if not self.step():
                self._bell.wait(IDLE_MS)

    def step(self) -> int:
        """Do what is there to do; return how much was done."""
        moved, closings = self._intake.step()
        for closing in closings:
            self._frontier_ns = closing.frontier_ns
            moved += len(self._back.take(closing))
            self._settled_ns = 0
        moved += self._settle(self._intake.frontier_ns)
        moved += self._server.serve()
        now_ns = self._clock.now_ns()
        if now_ns >= self._beat_due_ns:
            self._beat_due_ns = now_ns + HEARTBEAT_NS
            self._beat(now_ns)
            self._intake.keep()
        if now_ns >= self._checkpoint_due_ns and self._ticks:
            self._save_checkpoint()
        return moved

    def _settle(self, frontier_ns: int) -> int:
        """Score what closes up to the frontier: after a closing, and once in an event tick."""
        event_tick_ns = self._config.views.event_tick_ns
        if frontier_ns // event_tick_ns == self._settled_ns // event_tick_ns:
            return 0
        self._settled_ns = self._frontier_ns = frontier_ns
        closed = len(self._back.settle(frontier_ns))
        if isinstance(self._intake, Intake) and not self._journal.health():
            self._intake.answer(frontier_ns)
        return closed

    def _journal_tick(self, tick: Tick) -> None:
        self._senders.take(tick.batches)
        # The disk does its part while the tick is scored; nothing leaves the node before it is done.
        self._journal.append(BlockKind.TICK, tick.tick_end_ns, tick.batches, sync=True, behind=True)

    def _commit_outcome(self, tick: Tick, outcome: Outcome) -> None:
        self._journal.settle()
        if outcome.is_worth_keeping:
            self._journal.append(BlockKind.RESULT, tick.tick_end_ns, outcome.result(), sync=False)
            for alert in self._commit(outcome):
                self._publisher.publish("alerts", msgspec.json.encode(alert))
            for batch in outcome.incidents:
                for notice in notices_of(batch):
                    self._publisher.publish("incidents", msgspec.json.encode(notice))
        self._closed(tick)
        if self._checkpoint_due_ns == 0:
            self._schedule_checkpoint()

    def _commit(self, outcome: Outcome) -> list[Alert]:
        return self._outbox.commit(
            outcome.tick_end_ns, outcome.alarms, self._clock.now_ns(),
            incidents=outcome.incidents, digest=outcome.digest,
        )  # fmt: skip

    def _closed(self, tick: Tick) -> None:
        self._closed_ns = tick.tick_end_ns
        if tick.has_frames:
            self._ticks += 1
            self._last_tick_end_ns = tick.tick_end_ns

    def _schedule_checkpoint(self) -> None:
        self._checkpoint_due_ns = self._clock.now_ns() + round(
            self._config.node.checkpoint_seconds * 1e9
        )

    def _save_checkpoint(self) -> None:
        self._schedule_checkpoint()
        if self._journal.health() or self._outbox.trouble:
            return  # it would stand past what a disk has refused, and nobody would read that again
        sequence = self._journal.next_sequence - 1
        try:
            self._checkpoints.save(
                sequence, self._closed_ns, {"back": self._back, "offers": self._offers}
            )
            self._checkpoint_sequence = sequence + 1
            self._journal.trim(self._cursors(), keep_sequence=self._checkpoint_sequence)
        except OSError as error:
            self._log.error("checkpoint_refused error=%s", error)

    def _cursors(self) -> list[Cursor]:
        """Return where the journal's readers stand."""
        found = []
        for name in CURSORS:
            if (self._state / "cursors" / name).exists():
                cursor = Cursor(self._state / "cursors", name)
                cursor.load()
                found.append(cursor)
        return found

    def _beat(self, now_ns: int) -> None:
        """Tell systemd and the watchdog that frames go on, and what each stream last said."""
        notify("WATCHDOG=1")
        message = {
            "time_ns": now_ns,
            "frontier_ns": self._frontier_ns,
            "tick_ns": round(self._config.views.tick_seconds * 1e9),
            "last_tick_end_ns": self._last_tick_end_ns,
            "streams": {one.name: one.datagrams for one in self._intake.listeners()},
            "exporters_total": self._exporters(),
            "exporters_silent": self._silent_exporters(),
            "ledger": self._senders.totals,
            "alive": self._alive(now_ns),
            "faults": self._faults(now_ns),
        }
        with contextlib.suppress(OSError):
            self._heartbeat.sendto(json.dumps(message).encode(), str(self._state / "watchdog.sock"))

    def _alive(self, now_ns: int) -> dict[str, int]:
        """Return a number for each other process that moves while it works."""
        made = {}
        if self._config.alerting.sinks:
            made["gate"] = self._sinks.heard_ns
        path = self._state / "cursors" / "history"
        with contextlib.suppress(OSError):
            stored_ns = path.stat().st_mtime_ns
            cursor = Cursor(path.parent, path.name)
            cursor.load()
            behind = self._journal.next_sequence - cursor.next_sequence
            made["history"] = stored_ns if behind > HISTORY_BEHIND else now_ns
        return made

    def _faults(self, now_ns: int) -> dict[str, str]:
        """Return what is wrong right now with what alerts need on their way out."""
        found = {
            "journal": self._journal.health(),
            "outbox": self._outbox.trouble,
            "sinks": self._sinks.health(now_ns),
        }
        return {name: text[:300] for name, text in found.items() if text}

    def _exporters(self) -> int:
        return int(self.metrics.value("series_keys", view="exporter"))

    def _silent_exporters(self) -> int:
        return sum(
            1 for alarm in self._outbox.alarms(active_only=True, limit=1000)
            if alarm["kind"] == "exporter-down"
        )  # fmt: skip

    # ---- answers

    def _serve_verbs(self) -> None:
        serve = self._server.handle
        serve("status", verbs.Nothing, lambda _: self.status())
        serve("metrics", verbs.Nothing, lambda _: verbs.MetricsText(self.metrics.render().decode()))
        serve(
            "alarms",
            verbs.AlarmsRequest,
            lambda ask: verbs.Alarms(
                self._outbox.alarms(active_only=ask.active_only, limit=ask.limit)
            ),
        )
        serve(
            "changes",
            verbs.AlarmsRequest,
            lambda ask: verbs.Alarms(self._outbox.changes(limit=ask.limit)),
        )
        serve(
            "due",
            verbs.DueRequest,
            lambda ask: self._outbox.due(self._clock.now_ns(), ask.limit),
        )
        serve("senders", str, self._senders.statuses)
        serve("mark", list[Verdict], self._mark)
        serve("offer", verbs.Offered, self._offers.take)
        serve("gate", verbs.GateSays, self._hear_gate)
        serve("deliveries", verbs.Nothing, lambda _: self._outbox.deliveries())
        serve("retry", verbs.Nothing, lambda _: self._outbox.retry())
        serve("told", verbs.ToldRequest, lambda ask: self._outbox.told(ask.sink))
        serve("decide", verbs.DecideRequest, self._decide)
        serve("audit", verbs.Nothing, lambda _: self._outbox.audit())
        serve("sinks", list[SinkStatus], self._hear_of_sinks)
        serve("orders", list[Order], self._take_orders)
        serve("operate", verbs.OperateRequest, self._operate)
        serve("windows", verbs.Nothing, lambda _: self._windows())
        serve("probation", verbs.Nothing, lambda _: self._probation())

    def _hear_gate(self, says: verbs.GateSays) -> verbs.Nothing:
        self._gate_says = says
        take_families(self.metrics, says.metrics, "gate")
        return verbs.Nothing()

    def _mark(self, verdicts: list[Verdict]) -> verbs.Nothing:
        self._outbox.mark(verdicts, self._clock.now_ns())
        return verbs.Nothing()

    def _decide(self, ask: verbs.DecideRequest) -> bool:
        now_ns = self._clock.now_ns()
        return self._outbox.decide(ask.number, approve=ask.approve, by=ask.by, now_ns=now_ns)

    def _hear_of_sinks(self, statuses: list[SinkStatus]) -> verbs.Nothing:
        self._sinks.hear(statuses, self._outbox.sinks(), self._clock.now_ns())
        return verbs.Nothing()

    def _take_orders(self, orders: list[Order]) -> verbs.Nothing:
        now_ns = self._clock.now_ns()
        for kind, payload in self._orders.rows(orders):
            self._control(kind, now_ns, payload)
        return verbs.Nothing()

    def _operate(self, ask: verbs.OperateRequest) -> verbs.OperateAnswer:
        """Journal what an operator does; it counts from the next event tick on."""
        try:
            self._check(ask)
        except ConfigError as error:
            return verbs.OperateAnswer(refused=str(error))
        now_ns = self._clock.now_ns()
        self._control(ask.kind, now_ns, ask.payload)
        return verbs.OperateAnswer(counts_from_ns=now_ns)

    def _check(self, ask: verbs.OperateRequest) -> None:
        if ask.kind != probation.KIND:
            check(ask.kind, ask.payload)
            return
        probation.check(ask.payload)
        if not self._back.detection.probation.matching(ask.payload["classes"]):
            raise ConfigError(
                f"no class matches {ask.payload['classes']!r}; `tocsin probation list` has them"
            )

    def _probation(self) -> verbs.ProbationAnswer:
        found = self._back.detection.probation
        return verbs.ProbationAnswer(
            mode="on" if found.on else "off",
            classes=found.table(),
            would_have_sent=self._back.alerting.would_have_sent(),
            orders=msgspec.to_builtins(found.orders),
        )

    def _windows(self) -> verbs.WindowsAnswer:
        return verbs.WindowsAnswer(
            windows=[msgspec.to_builtins(window) for window in self._back.alerting.windows()]
        )

    def status(self) -> verbs.Status:
        """Return the node at a glance."""
        health = [
            text
            for text in (
                *self._intake.health(),
                self._journal.health(),
                self._outbox.health(),
                *(source.health for source in self._gate_says.sources),
                self._sinks.health(self._clock.now_ns()),
            )
            if text
        ]
        return verbs.Status(
            version=__version__,
            profile=self._config.node.profile,
            ready=self._ready,
            now_ns=self._clock.now_ns(),
            started_ns=self._started_ns,
            frontier_ns=self._frontier_ns,
            last_tick_end_ns=self._last_tick_end_ns,
            ticks=self._ticks,
            records=self._intake.records,
            datagrams=self._intake.datagrams,
            series=self._back.series,
            exporters=self._exporters(),
            alarms_raised=self._back.alerting.raised,
            budget_used=self._back.detection.budget_used,
            budget_per_day=self._config.detection.false_alerts_per_day,
            on_probation=self._back.detection.probation.waiting,
            journal_next_sequence=self._journal.next_sequence,
            rss_bytes=rss_bytes(os.getpid()),
            health=health,
            listeners=self._intake.listeners(),
            sources=self._gate_says.sources,
            workers=self._intake.workers(),
            sinks=self._sinks.statuses,
        )

    def stop(self) -> None:
        """Stop receiving, keep a checkpoint, close everything."""
        self._ended = True
        self._intake.stop()
        if self._ready:
            if self._ticks:
                self._save_checkpoint()
            self._server.stop()
            self._publisher.stop()
            self._heartbeat.close()
            self._journal.stop()
            self._outbox.stop()
            self._bell.close()
        self._lock.free()

    def ask_to_stop(self, number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """End the loop after the current step; also a signal handler."""
        self._ended = True
        self._bell.ring()


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def main() -> None:
    """`python -m tocsin.node CONFIG STATE`: one node until SIGTERM.

    Exit 1: another node works on this state folder; 2: configuration.
    """
    end_with_parent(signal.SIGTERM)
    sys.setswitchinterval(0.0005)
    path, state = (Path(argument) if argument else None for argument in sys.argv[1:3])
    clock = SystemClock()
    try:
        config = with_probation(load_config(path))
        require()
        node = Node(config, state_dir(state), clock)
        logs.set_up("node", node.metrics, clock, level=config.node.log_level)
        signal.signal(signal.SIGTERM, node.ask_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            node.start()
            node.run()
        finally:
            node.stop()
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)
    except TransientError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
