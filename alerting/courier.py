"""The courier: takes due deliveries to their sinks, in a process of its own (the gate).

One thread and one bounded queue for each sink, so that one that hangs delays no other. After failures
in a row a circuit breaker opens: what waits goes back unharmed, and after a while one delivery tries
for all. What was not sent stays in the outbox and comes back with back-off; what became of each
delivery is told again until the node has heard it.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from alerting.config import SinkSettings
from alerting.sinks import AlertSink, LaterError, Parcel, RefusedError, make_sink
from alerting.words.alert import Alert, within
from alerting.words.delivery import Delivery, Order, SinkStatus, Verdict
from alerting.words.escape import line, tidied
from runtime.component import Context
from telemetry.errors import ConfigError, TransientError

FAILURES_TO_OPEN = 3
OPEN_SECONDS = 10.0
LATER_SECONDS_MAX = 900.0  # a receiver that asks for more is tried again after that
QUEUE_MAX = 500
STUCK_SECONDS = 60.0
PROMPT_NS = 100_000_000  # a sink that answers later than that is not waited for in a hurry
ASK_UP_NS = 30_000_000_000  # after which a node that did not say what is up is asked again
RESULTS = ("sent", "failed", "refused")


@dataclass(frozen=True, slots=True)
class _Repeat:
    """An order to say again what is up."""

    active: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class _Hear:
    """An order to ask what others want."""


@dataclass(frozen=True, slots=True)
class _Back:
    """A delivery that was not tried because the breaker is open: nothing to tell the node."""

    number: int


class _Lane:
    """One sink: its queue, its thread, its breaker. Only `_run` and what it calls is in the thread."""

    def __init__(self, name: str, settings: SinkSettings, sink: AlertSink, context: Context):
        self.name = name
        self.settings = settings
        self.sink = sink
        self.queue: queue.SimpleQueue[list[Delivery] | _Repeat | _Hear | None] = queue.SimpleQueue()
        self._ahead: list[Delivery] = []  # taken from the queue, for a later `send`
        self._ended = False
        self.answers: queue.SimpleQueue[Verdict | _Back | Order] = queue.SimpleQueue()
        self.busy: set[int] = set()
        self.repeat_due_ns = 0
        self.hear_due_ns = 0
        self.hearing = False
        # In a row, by what was tried: that it can be asked does not mean that it takes anything.
        self._failures = {"send": 0, "repeat": 0, "hear": 0}
        self.open_until_ns = 0
        self.sending_since_ns = 0
        self.last_error = ""
        self.sent_ns = 0  # when the last delivery was taken
        self._context = context
        self._results = context.metrics.scoped(f"sinks.{name}").counter(
            "sink_attempts_total",
            "attempts to deliver by what became of them",
            label="result",
            values=RESULTS,
        )
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self._thread.start()

    @property
    def failures(self) -> int:
        """How often in a row it failed at what it fails at most."""
        return max(self._failures.values())

    @property
    def trouble(self) -> str:
        """What a sink that takes what it is given is in trouble with all the same, "" for nothing."""
        return line(str(getattr(self.sink, "trouble", "")))

    def room(self, now_ns: int) -> int:
        """Return how many deliveries may be handed over now; one while the breaker tries again."""
        if now_ns < self.open_until_ns:
            return 0
        if self.failures >= FAILURES_TO_OPEN:
            return 0 if self.busy else 1
        return QUEUE_MAX - len(self.busy)

    def wants(self, now_ns: int) -> bool:
        """Whether to ask the node for more: what is due comes oldest first, so half a queue is enough
        to be busy with, and asking at each answer would bring the same deliveries again and again."""
        return len(self.busy) <= QUEUE_MAX // 2 and self.room(now_ns) > 0

    # ---- in the thread

    def _run(self) -> None:
        while not self._ended:
            batch, order = self._take()
            if batch:
                self._send(batch)
            if isinstance(order, _Repeat):
                self._repeat(order)
            elif isinstance(order, _Hear):
                self._hear()
            elif order is None:
                return

    def _take(self) -> "tuple[list[Delivery], _Repeat | _Hear | _Back | None]":
        """Return deliveries that one `send` takes, and what else came: an order, or None = end."""
        batch, self._ahead = self._ahead, []
        order: _Repeat | _Hear | _Back | None = _Back(0)
        while len(batch) < self.sink.batch_max:
            try:
                more = self.queue.get(block=not batch)
            except queue.Empty:
                break
            if not isinstance(more, list):
                order = more
                break
            batch = batch + more
        self._ahead = batch[self.sink.batch_max :]
        return batch[: self.sink.batch_max], order

    def _send(self, batch: list[Delivery]) -> None:
        now_ns = self._context.clock.now_ns()
        if now_ns < self.open_until_ns:
            for delivery in batch:
                self.answers.put(_Back(delivery.number))
            return
        self.sending_since_ns = now_ns
        try:
            parcels = [self._parcel(delivery) for delivery in batch]
            with self._unforeseen("send"):
                answer = self.sink.send(parcels, now_ns=now_ns)
        except (RefusedError, msgspec.MsgspecError) as error:
            self._refused(batch, error)
            return
        except TransientError as error:
            self._failed("send", now_ns, error)
            self._answer(batch, "failed", str(error))
            return
        finally:
            self.sending_since_ns = 0
        self._failures["send"], self.sent_ns = 0, now_ns
        self._answer(batch, "sent", answer)

    def _parcel(self, delivery: Delivery) -> Parcel:
        alert, realm = tidied(delivery.body), self.settings.realm
        if realm:
            opened = msgspec.json.decode(alert, type=Alert) if isinstance(alert, str) else alert
            alert = within(realm, opened)
        return Parcel(alert, f"{realm}{delivery.key}", delivery.attempts + 1)

    def _refused(self, batch: list[Delivery], error: Exception) -> None:
        self._failures["send"] = 0  # it answers; what is wrong is what we sent
        if len(batch) == 1:
            self._answer(batch, "refused", str(error))
            return
        for delivery in batch:  # find the one that is refused, so that it takes no other with it
            self._send([delivery])

    def _answer(self, batch: list[Delivery], result: str, text: str) -> None:
        self._results.add(result, len(batch))
        text = line(text)  # the other side wrote it, and people read it on a terminal
        for delivery in batch:
            self.answers.put(
                Verdict(
                    number=delivery.number, key=delivery.key, sent=result == "sent", answer=text,
                    final=result == "refused",
                    away=result == "failed" and self._failures["send"] >= FAILURES_TO_OPEN,
                )
            )  # fmt: skip

    def _repeat(self, order: _Repeat) -> None:
        now_ns = self._context.clock.now_ns()
        if now_ns < self.open_until_ns:
            return
        try:
            realm = self.settings.realm
            active = [within(realm, alert) for alert in order.active] if realm else order.active
            with self._unforeseen("repeat"):
                self.sink.repeat(active, now_ns=now_ns)
        except TransientError as error:
            self._failed("repeat", now_ns, error)
        else:
            self._failures["repeat"] = 0

    def _hear(self) -> None:
        now_ns = self._context.clock.now_ns()
        try:
            if now_ns < self.open_until_ns:
                return
            # The other parties behind a shared sink hear of it: to them it is news.
            origin = "" if getattr(self.sink, "shared", False) else self.name
            with self._unforeseen("hear"):
                orders = self.sink.hear(now_ns=now_ns)  # type: ignore[attr-defined]
            realm = self.settings.realm
            for order in orders:
                if order.id.startswith(realm):  # others are about alarms of another Tocsin
                    number = order.id.removeprefix(realm)
                    self.answers.put(msgspec.structs.replace(order, id=number, sink=origin))
            self._failures["hear"] = 0
        except TransientError as error:
            self._failed("hear", now_ns, error)
        finally:
            self.hearing = False

    @contextlib.contextmanager
    def _unforeseen(self, what: str) -> Iterator[None]:
        """Make what a sink did not foresee of an answer, or of itself, a failed attempt: its lane goes on."""
        try:
            yield
        except TransientError:
            raise
        except msgspec.MsgspecError as error:
            if what == "send":  # a delivery that cannot be read: no attempt mends it
                raise
            raise TransientError(f"an answer of another form: {error}") from error
        except ConfigError as error:  # a secret that was changed meanwhile
            raise TransientError(str(error)) from error
        except Exception as error:
            if not self._failures[what]:
                self._context.log.exception("sink_failed_unforeseen sink=%s at=%s", self.name, what)
            said = f"{type(error).__name__}: {error}"
            raise TransientError(f"its kind of sink did not foresee this: {said}") from error

    def _failed(self, what: str, now_ns: int, error: Exception) -> None:
        self.last_error = line(str(error))
        self._failures[what] += 1
        seconds = OPEN_SECONDS if self.failures >= FAILURES_TO_OPEN else 0.0
        if isinstance(error, LaterError):
            seconds = max(seconds, min(error.seconds, LATER_SECONDS_MAX))
        if seconds:
            self.open_until_ns = now_ns + round(seconds * 1e9)

    # ---- end

    def stop(self) -> None:
        """End the thread when its current delivery ends; do not wait for a sink that hangs.

        What is queued stays in the outbox.
        """
        self._ended = True
        self.queue.put(None)
        self._thread.join(0.5)
        if not self._thread.is_alive():
            self.sink.close()


class Courier:
    """Fetches due deliveries, hands them to their lanes, reports verdicts. Call `step` often.

    `active` returns what a sink was told of that is still up, for sinks whose receivers forget;
    `order` takes what others want of alarms, from sinks that listen.
    """

    def __init__(
        self,
        sinks: Mapping[str, SinkSettings],
        context: Context,
        *,
        fetch: Callable[[int], Sequence[Delivery]],
        report: Callable[[Sequence[Verdict]], None],
        active: Callable[[str], Sequence[Alert]] | None = None,
        order: Callable[[Sequence[Order]], None] | None = None,
    ) -> None:
        self._lanes = {
            name: _Lane(name, sink, make_sink(sink), context) for name, sink in sinks.items()
        }
        self._context = context
        self._fetch = fetch
        self._report = report
        self._active = active
        self._order = order
        self._orders: list[Order] = []
        self._unreported: list[Verdict] = []
        self._all_here = False  # what is due was handed over a moment ago
        self._began = False
        self._first_ns = 0

    def step(self) -> int:
        """Move on; return how many deliveries were handed over or reported.

        Raises what `fetch`, `report` and `active` raise; nothing is lost by that.
        """
        for lane in self._lanes.values():
            while not lane.answers.empty():
                answer = lane.answers.get()
                if isinstance(answer, Verdict):
                    self._unreported.append(answer)  # stays busy until the node knows
                elif isinstance(answer, Order):
                    self._orders.append(answer)
                else:
                    lane.busy.discard(answer.number)
        moved, now_ns = 0, self._context.clock.now_ns()
        if not self._began:  # what is up is known before anything of it is over
            self._first_ns = self._first_ns or now_ns
            self._began = now_ns - self._first_ns >= ASK_UP_NS  # nor is it waited for without end
            self._repeat(now_ns)
            self._began = True
        # Where no sink is left, what still waits is asked for too: to be given up.
        wanted = not self._lanes or any(lane.wants(now_ns) for lane in self._lanes.values())
        found = self._fetch(QUEUE_MAX) if wanted and not self._all_here else ()
        taken: dict[str, list[Delivery]] = {}
        for delivery in found:
            if delivery.sink not in self._lanes:
                said = "no such sink in the configuration any more"
                self._unreported.append(
                    Verdict(
                        number=delivery.number, key=delivery.key, sent=False, answer=said, final=True
                    )
                )  # fmt: skip
                continue
            lane = self._lanes[delivery.sink]
            if delivery.number not in lane.busy and lane.room(now_ns) > 0:
                lane.busy.add(delivery.number)
                taken.setdefault(delivery.sink, []).append(delivery)
                moved += 1
        for name, batch in taken.items():
            self._lanes[name].queue.put(batch)
        # After that, for the node may have no time for it while it gives us more.
        told = self._tell()
        self._all_here = bool(moved) and len(found) < QUEUE_MAX and not told
        moved += told
        self._repeat(now_ns)
        self._hear(now_ns)
        return moved

    def _hear(self, now_ns: int) -> None:
        """Give on what others want, and ask again those that are due."""
        if self._order is None:
            return
        if self._orders:
            self._order(self._orders)
            self._orders = []
        for lane in self._lanes.values():
            seconds = getattr(lane.sink, "hear_seconds", 0.0)
            if (
                seconds
                and not lane.hearing
                and now_ns >= lane.hear_due_ns
                and lane.room(now_ns) > 0
            ):
                lane.hear_due_ns = now_ns + round(seconds * 1e9)
                lane.hearing = True
                lane.queue.put(_Hear())

    def journalled(self, orders: Sequence[Order]) -> None:
        """Tell the sinks that orders they gave are on disk. Called by any thread."""
        for lane in self._lanes.values():
            if (hear_of := getattr(lane.sink, "journalled", None)) is not None:
                hear_of(orders)

    def _tell(self) -> int:
        if not self._unreported:
            return 0
        self._report(self._unreported)
        told, self._unreported = self._unreported, []
        for verdict in told:
            for lane in self._lanes.values():
                lane.busy.discard(verdict.number)
        return len(told)

    def _repeat(self, now_ns: int) -> None:
        if self._active is None:
            return
        for lane in self._lanes.values():
            seconds = lane.sink.repeat_seconds
            if seconds and now_ns >= lane.repeat_due_ns and lane.room(now_ns) > 0:
                lane.repeat_due_ns = now_ns + ASK_UP_NS if self._began else 0  # where that raises
                active = tuple(self._active(lane.name))
                lane.repeat_due_ns = now_ns + round(seconds * 1e9)
                lane.queue.put(_Repeat(active))

    @property
    def busy(self) -> bool:
        """Whether a sink is at work that may answer any moment; not one that has long hung."""
        now_ns = self._context.clock.now_ns()
        return any(
            lane.busy
            and now_ns >= lane.open_until_ns
            and (not lane.sending_since_ns or now_ns - lane.sending_since_ns < PROMPT_NS)
            for lane in self._lanes.values()
        )

    def health(self) -> str:
        """Return "" or which sinks do not take what we send, and what they say."""
        now_ns = self._context.clock.now_ns()
        stuck = round(STUCK_SECONDS * 1e9)
        said = []
        for lane in self._lanes.values():
            since = lane.sending_since_ns
            if since and now_ns - since > stuck:
                said.append(f"sink {lane.name} has not answered for {(now_ns - since) / 1e9:.0f} s")
            elif lane.failures >= FAILURES_TO_OPEN:
                said.append(f"sink {lane.name} fails: {lane.last_error}")
            elif trouble := lane.trouble:
                said.append(f"sink {lane.name} fails: {trouble}")
        return "; ".join(said)

    def statuses(self) -> list[SinkStatus]:
        """Return how each sink does."""
        now_ns = self._context.clock.now_ns()
        made = []
        for lane in self._lanes.values():
            since = lane.sending_since_ns
            state = "ok" if lane.sent_ns else "idle"
            if since and now_ns - since > STUCK_SECONDS * 1e9:
                state = "hung"
            elif lane.failures:
                state = "failing"
            failures, error = lane.failures, lane.last_error if lane.failures else ""
            if not failures and (error := lane.trouble):
                state, failures = "failing", FAILURES_TO_OPEN
            made.append(
                SinkStatus(
                    name=lane.name, kind=lane.settings.kind, state=state, failures=failures,
                    error=error, sent_ns=lane.sent_ns,
                )
            )  # fmt: skip
        return made

    def stop(self) -> None:
        """End all lanes."""
        for lane in self._lanes.values():
            lane.stop()
