"""The node process: receive, decode, windows, journal, detection, alerting, outbox.

Here the parts are put together. The node shares its interpreter with no web server, no SQL engine and
no user code. Read `Node.start` from top to bottom: that is the order in which a node comes up.
"""

import contextlib
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from alerting.orders import Orders
from alerting.outbox.outbox import Outbox
from alerting.outbox.sink_board import SinkBoard
from runtime import garbage, logs
from runtime.bus import Doorbell, Publisher, RequestServer
from runtime.clock import PARTS, Clock, SteadyClock
from runtime.journal_writer import JournalWriter
from runtime.kernels import require
from runtime.lock import FolderLock
from runtime.memory import rss_bytes
from runtime.metrics import Metrics
from runtime.parent import end_with_parent
from telemetry.errors import ConfigError, TransientError
from tocsin import __version__, verbs
from tocsin.chain.assembly import make_back
from tocsin.chain.intake import Intake, make_context, settle
from tocsin.chain.ticks import Outcome, Tick
from tocsin.config import Config, keep_config, load_config, with_probation
from tocsin.control import control_row
from tocsin.node.answers import Answers
from tocsin.node.checkpoints import NodeCheckpoints
from tocsin.node.commits import Commits, journalled
from tocsin.node.heartbeat import ComingUp, Heartbeat
from tocsin.node.offers import Offers
from tocsin.node.senders import SenderBook
from tocsin.restarts import Kept as KeptRestarts
from tocsin.state import state_dir

if TYPE_CHECKING:
    from tocsin.node.workers import Workers

HEARTBEAT_NS = 1_000_000_000
AHEAD_SECONDS = 10.0  # of the machine's clock: worth telling
GATE_MS = 2  # what was told is asked for by then: before that, nothing that nobody waits for
IDLE_MS = 200  # a listener, a shard or a request wakes the loop before that


class Node:
    """One running node."""

    def __init__(self, config: Config, state: Path, clock: Clock | None = None) -> None:
        self._config = config
        self._state = state
        self._clock = clock or SteadyClock()
        self.metrics = Metrics("node")
        self._log = logs.child("node")
        self._passed_over = self.metrics.counter(
            "node_ticks_passed_over_total",
            "journalled ticks that could not be taken back at a start",
        )
        self._ended = False
        self._ready = False
        self._started_ns = self._clock.now_ns()
        self._ticks = 0
        self._last_tick_end_ns = 0  # of a view
        self._closed_ns = 0  # of any tick
        self._settled_ns = 0
        self._frontier_ns = 0
        self._jumped_ns = self._clock.jumped_ns
        self._stands_since_ns = 0  # nothing is taken in: too much waits for a disk
        self._senders = SenderBook()
        self._lock = FolderLock(state, "node", self._clock)
        self._bell = Doorbell()
        self._coming_up = ComingUp(self._clock)
        self._opened = contextlib.ExitStack()  # closes what a start has opened, however far it got
        self._opened.callback(self._lock.free)
        self._opened.callback(self._bell.close)
        self._intake = self._made_intake()

    def _made_intake(self) -> "Intake | Workers":
        config, clock = self._config, self._clock
        if config.node.workers == 1:
            return Intake(config, self._state, clock, self.metrics, on_block=self._bell.ring)
        from tocsin.node.workers import Workers

        return Workers(
            config, self._state, clock, self.metrics, self._bell,
            on_leave=self._shard_left, on_join=self._shard_back, lock=self._lock,
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
        self._coming_up.begins("opens its journal")
        context = make_context("journal", self._clock, self.metrics, seed)
        self._journal = JournalWriter(
            state / "journal",
            context,
            segment_bytes=config.node.journal_segment_bytes,
            segment_seconds=config.node.journal_segment_seconds,
            budget_bytes=config.node.journal_bytes_max,
        )
        self._opened.callback(self._journal.stop)
        self._journal.start()
        self._clock.not_before(self._journal.newest_tick_ns)
        outbox_context = make_context("outbox", self._clock, self.metrics, seed)
        self._outbox = Outbox(state / "node.sqlite", config.alerting, outbox_context)
        self._opened.callback(self._outbox.stop)
        self._outbox.start()
        self._publisher = Publisher(f"ipc://{state}/frames.sock")
        self._opened.callback(self._publisher.stop)
        self._commits = Commits(self._journal, self._outbox, self._publisher, self._clock)
        self._sinks = SinkBoard(config.alerting.sinks, outbox_context)
        self._checkpoints = NodeCheckpoints(
            state, context, self._journal, seconds=config.node.checkpoint_seconds
        )
        self._publisher.start()
        # 3. The chain, from the last checkpoint and the journal behind it.
        self._intake.start()
        self._recover()
        self._back.merger.start_over()
        self._back.on_tick = self._journal_tick
        self._back.on_outcome = self._take_outcome
        settle(self._clock, self.metrics, self._log)
        # 4. Who may ask, and who listens.
        self._server = RequestServer(f"ipc://{state}/node.sock", self._log)
        self._opened.callback(self._server.stop)
        self._restarts = KeptRestarts(state)
        self._answers = Answers(
            self._back, self._outbox, self._offers, self._sinks, self._senders,
            self._orders, self._clock, self.metrics, trouble=self._journal.health,
            restarts=lambda: self._restarts().restarts,
        )  # fmt: skip
        self._commits.on_due = lambda: self._server.serve_only("due")
        self._answers.serve(self._server, self.status)
        self._server.start()
        self._bell.watch(self._server.socket)
        self._heartbeat = Heartbeat(state)
        self._opened.callback(self._heartbeat.stop)
        self._beat_due_ns = 0
        # 5. Receive. The first tick holds only what came since: it must raise no volume alarm.
        self._back.mark_incomplete(self._next_tick_ns(self._clock.now_ns()))
        self._intake.receive()
        self._ready = True
        self._coming_up.ready()
        self._log.info(
            "node_ready listeners=%s state=%s",
            ",".join(listener.address for listener in self._intake.listeners()),
            state,
        )

    def _made_chain(self) -> dict[str, Any]:
        """Make what a checkpoint keeps; return it by name."""
        config = self._config
        self._back = make_back(config, self._clock, self.metrics, shards=config.node.workers)
        self._offers = Offers(self._back.offer, trouble=self._journal.health)
        self._orders = Orders(config.alerting.sinks)
        self._kept = {"back": self._back, "offers": self._offers, "orders": self._orders}
        return self._kept

    def _recover(self) -> None:
        self._coming_up.begins("reads its checkpoint")
        self._last_tick_end_ns = self._closed_ns = self._checkpoints.restore(self._made_chain)
        after, before, replayed = self._checkpoints.next_sequence, self._journal.next_sequence, 0
        for tick, has_result, told in journalled(
            self._state / "journal", after, self._log, before=before
        ):
            self._commits.make_room(self._paused, self._log)
            self._coming_up.says(f"takes back tick {replayed + 1} of the journal")
            try:
                self._offers.absorb(tick.batches)
                self._orders.absorb(tick.batches)
                outcome = self._back.absorb(tick)
            except (MemoryError, OSError):  # of this machine at this moment, not of the tick
                raise
            except Exception:  # noqa: BLE001  # it ended the process before, and would end each one after
                self._log.exception("tick_passed_over tick_end_ns=%d", tick.tick_end_ns)
                self._passed_over.add()
                if not told:
                    continue
                # Of none, but for what was told.
                outcome, has_result = (
                    Outcome(tick.tick_end_ns),
                    True,
                )
            is_done = self._outbox.is_done(tick.tick_end_ns)
            self._commits.keep(outcome, told=told, is_done=is_done, has_result=has_result)
            self._commits.rest()
            self._closed(tick)
            replayed += 1
        if self._closed_ns:
            now_ns = self._clock.now_ns()
            gap = max(now_ns - self._closed_ns, 0) / 1e9
            self._back.skip(now_ns)
            # What lay in open windows is lost with the old process: say so, alarm about nothing.
            self._control("gap", now_ns, seconds=round(gap, 3), replayed_ticks=replayed)
            self._log.warning("restarted gap_seconds=%.1f replayed_ticks=%d", gap, replayed)

    def _paused(self) -> bool:
        """Wait a little for a disk; return whether to go on."""
        self._coming_up.says(f"waits for a disk: {self._commits.trouble}")
        self._bell.wait(IDLE_MS)
        return not self._ended

    def _next_tick_ns(self, time_ns: int) -> int:
        """Return when the first tick of a view starts behind the one that holds this time."""
        tick_ns = round(self._config.views.tick_seconds * 1e9)
        return time_ns // tick_ns * tick_ns + tick_ns

    def _control(self, kind: str, tick_start_ns: int, **payload: object) -> None:
        self._back.control(control_row(kind, tick_start_ns, payload))

    def _shard_left(self, shard: int, frontier_ns: int) -> None:
        """Close ticks without a shard: what lay in its windows is lost, so they raise no alarm."""
        now_ns = self._clock.now_ns()
        self._back.merger.leave(shard)
        self._back.mark_incomplete(now_ns)
        self._control("shard", now_ns, shard=shard, left=True, frontier_ns=frontier_ns)
        self._log.error("shard_left shard=%d frontier_ns=%d", shard, frontier_ns)

    def _shard_back(self, shard: int, first_ns: int, away_ns: int) -> None:
        """Wait for a shard again. Its first tick also gets what came for those closed without it."""
        tick_ns = round(self._config.views.tick_seconds * 1e9)
        self._back.merger.join(shard, first_ns)
        self._back.mark_incomplete(first_ns + tick_ns)
        seconds = round(away_ns / 1e9, 3)
        self._control("gap", first_ns, shard=shard, seconds=seconds)
        self._log.warning("shard_back shard=%d gap_seconds=%.1f", shard, seconds)

    # ---- the loop

    def run(self) -> None:
        """Work until asked to stop."""
        while not self._ended:
            if self.step():
                continue
            if self._commits.took_told() and self._bell.wait(GATE_MS):
                continue
            self._commits.rest()
            self._back.rest()
            self._outbox.rest()
            garbage.tidy()
            self._bell.wait(IDLE_MS)

    def step(self) -> int:
        """Do what is there to do; return how much was done."""
        moved = self._stand_still() if self._commits.full else self._take_in()
        moved += self._server.serve()
        now_ns = self._clock.now_ns()
        if now_ns >= self._beat_due_ns:
            self._beat_due_ns = now_ns + HEARTBEAT_NS
            self._beat(now_ns)
            self._intake.keep()
            self._commits.retry()
            if trouble := self._journal.health():
                self._answers.refuse(trouble)
        self._checkpoints.keep_room()
        if now_ns >= self._checkpoints.due_ns and self._ticks:
            self._save_checkpoint()
        return moved

    def _take_in(self) -> int:
        """Take what came, close what is due."""
        if self._stands_since_ns:
            self._go_on()
        moved, closings = self._intake.step()
        if (jumped_ns := self._clock.jumped_ns) > self._jumped_ns:
            self._jump(jumped_ns - self._jumped_ns)
            self._jumped_ns = jumped_ns
        for closing in closings:
            self._frontier_ns = closing.frontier_ns
            moved += len(self._back.take(closing))
            self._settled_ns = 0
        return moved + self._settle(self._intake.frontier_ns)

    def _stand_still(self) -> int:
        """Take nothing more: what a disk refuses fills the memory that it may. Senders wait, or are lost
        and counted; what was taken is not."""
        if not self._stands_since_ns:
            self._stands_since_ns = self._clock.now_ns()
            self._log.error("node_stands_still why='%s'", self._commits.trouble)
        return self._intake.hear()

    def _go_on(self) -> None:
        """Take in again; the ticks meanwhile lack what the kernel could not keep, and prove nothing."""
        now_ns = self._clock.now_ns()
        seconds = round((now_ns - self._stands_since_ns) / 1e9, 3)
        self._stands_since_ns = 0
        self._back.mark_incomplete(self._next_tick_ns(now_ns))
        self._control("gap", now_ns, seconds=seconds)
        self._log.warning("node_goes_on gap_seconds=%.1f", seconds)

    def _jump(self, jumped_ns: int) -> None:
        """The machine slept, or its clock was set forward: nothing was heard, so nothing was silent."""
        now_ns, seconds = self._clock.now_ns(), round(jumped_ns / 1e9, 3)
        self._back.mark_incomplete(self._next_tick_ns(now_ns))
        self._back.skip(now_ns)
        self._control("gap", now_ns, seconds=seconds)
        self._log.warning("clock_jumped gap_seconds=%.1f", seconds)

    def _settle(self, frontier_ns: int) -> int:
        """Score what closes up to the frontier: after a closing, and once in an event tick."""
        event_tick_ns = self._config.views.event_tick_ns
        if frontier_ns // event_tick_ns == self._settled_ns // event_tick_ns:
            return 0
        self._settled_ns = self._frontier_ns = frontier_ns
        closed = len(self._back.settle(frontier_ns))
        self._intake.answer(self._commits.on_disk_ns(frontier_ns))
        return closed

    def _journal_tick(self, tick: Tick) -> None:
        self._senders.take(tick.batches)
        self._orders.absorb(tick.batches)
        self._commits.journal(tick)

    def _take_outcome(self, tick: Tick, outcome: Outcome) -> None:
        self._commits.take(outcome)
        self._closed(tick)
        if not self._checkpoints.due_ns:
            self._checkpoints.schedule()

    def _closed(self, tick: Tick) -> None:
        self._closed_ns = tick.tick_end_ns
        if tick.has_frames:
            self._ticks += 1
            self._last_tick_end_ns = tick.tick_end_ns

    def _save_checkpoint(self) -> None:
        self._checkpoints.schedule()
        if self._commits.trouble:
            return  # it would stand past what a disk has refused, and nobody would read that again
        self._commits.rest()
        self._checkpoints.save(self._closed_ns, self._kept)

    # ---- what it tells of itself

    def _beat(self, now_ns: int) -> None:
        """Tell the watchdog that frames go on, and what each stream last said."""
        alive = {"gate": self._sinks.heard_ns} if self._config.alerting.sinks else {}
        if self._config.node.profile != "sensor":  # which has no desk
            history_ns = self._heartbeat.history_ns(self._journal.next_sequence, now_ns)
            if history_ns is not None:
                alive["history"] = history_ns
        says = {
            "time_ns": now_ns,
            "started_ns": self._started_ns,
            "frontier_ns": self._frontier_ns,
            "tick_ns": round(self._config.views.tick_seconds * 1e9),
            "last_tick_end_ns": self._last_tick_end_ns,
            "streams": {one.name: one.datagrams for one in self._intake.listeners()},
            "exporters_total": self._exporters(),
            "exporters_silent": self._back.alerting.silent_exporters(),
            "ledger": self._senders.totals,
            "alive": alive,  # a number for each other process that moves while it works
        }
        faults = {
            "journal": self._journal.health(),
            "outbox": self._outbox.trouble,
            "sinks": self._sinks.health(now_ns),
            **self._restarts().faults(),
        }
        self._heartbeat.beat(says, faults)

    def _exporters(self) -> int:
        return int(self.metrics.value("series_keys", view="exporter"))

    def status(self) -> verbs.Status:
        """Return the node at a glance."""
        health = [
            text
            for text in (
                self._clock_health(),
                self._recovery_health(),
                *self._intake.health(),
                self._journal.health(),
                self._outbox.health(),
                *self._restarts().faults().values(),
                *(source.health for source in self._answers.gate.sources),
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
            baselines=self._back.detection.baselines(),
            security=self._back.detection.security.stages(),
            on_probation=self._back.detection.probation.waiting,
            journal_next_sequence=self._journal.next_sequence,
            rss_bytes=rss_bytes(),
            health=health,
            listeners=self._intake.listeners(),
            sources=self._answers.gate.sources,
            workers=self._intake.workers(),
            sinks=self._sinks.statuses,
        )

    def _recovery_health(self) -> str:
        count = int(self.metrics.value("node_ticks_passed_over_total"))
        if not count:
            return ""
        return (
            f"{count} journalled ticks could not be taken back and were passed over: what they held is not "
            f"in alarms and baselines; the log says why (tick_passed_over), please report it"
        )

    def _clock_health(self) -> str:
        ahead_s = self._clock.ahead_ns / 1e9
        if ahead_s < AHEAD_SECONDS:
            return ""
        return (
            f"the machine's clock was set back: Tocsin's time, which cannot fall, is {ahead_s:.0f} s ahead of "
            f"it, and draws near by one second in {PARTS}"
        )

    def stop(self, *, orderly: bool = True) -> None:
        """Stop receiving, keep a checkpoint, close everything.

        Not `orderly`, with an error on its way: no checkpoint. It would hold a tick half judged, and
        stand past it; from the one before, the journal gives that tick again.
        """
        self._ended = True
        ready, self._ready = self._ready, False
        with self._opened:
            self._intake.stop()
            if ready and orderly:
                if self._ticks:
                    self._save_checkpoint()
                self._commits.rest()

    def ask_to_stop(self, number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """End the loop after the current step; also a signal handler."""
        self._ended = True
        self._bell.ring()


def main() -> None:
    """`python -m tocsin.node CONFIG STATE`: one node until SIGTERM.

    Exit 1: another node works on this state folder; 2: configuration.
    """
    end_with_parent(signal.SIGTERM)
    sys.setswitchinterval(0.0005)
    path, state = (Path(argument) if argument else None for argument in sys.argv[1:3])
    clock = SteadyClock()
    try:
        config = with_probation(load_config(path))
        require()
        node = Node(config, state_dir(state), clock)
        logs.set_up("node", node.metrics, clock, level=config.node.log_level)
        signal.signal(signal.SIGTERM, node.ask_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        orderly = False
        try:
            node.start()
            node.run()
            orderly = True
        finally:
            node.stop(orderly=orderly)
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)
    except TransientError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(1)
