"""The courier: takes due deliveries to their sinks, in a process of its own (the gate).

One thread and one bounded queue for each sink, so that one that hangs delays no other. A circuit
breaker opens after failures in a row and lets one through again after a while; what was not sent
stays in the outbox and comes back with back-off.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.outbox import Delivery, Verdict
from alerting.sinks import AlertSink, make_sink
from runtime.component import Context
from telemetry.errors import TransientError

FAILURES_TO_OPEN = 3
OPEN_SECONDS = 10.0
QUEUE_MAX = 100


class _Lane:
    """One sink: its queue, its thread, its breaker."""

    def __init__(self, name: str, sink: AlertSink, context: Context) -> None:
        self.name = name
        self.sink = sink
        self.queue: queue.Queue[Delivery | None] = queue.Queue(QUEUE_MAX)
        self.verdicts: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
        self.busy: set[int] = set()
        self.failures = 0
        self.open_until_ns = 0
        self._context = context
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (delivery := self.queue.get()) is not None:
            self.verdicts.put(self._deliver(delivery))

    def _deliver(self, delivery: Delivery) -> Verdict:
        now_ns = self._context.clock.now_ns()
        try:
            alert = msgspec.json.decode(delivery.body, type=Alert)
            answer = self.sink.send(alert, key=delivery.key, now_ns=now_ns)
        except (TransientError, msgspec.MsgspecError) as error:
            self.failures += 1
            if self.failures >= FAILURES_TO_OPEN:
                self.open_until_ns = now_ns + round(OPEN_SECONDS * 1e9)
            return Verdict(number=delivery.number, sent=False, answer=str(error))
        self.failures = 0
        return Verdict(number=delivery.number, sent=True, answer=answer)

    def stop(self) -> None:
        """End the thread when its current delivery ends; do not wait for a sink that hangs."""
        try:
            self.queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(0.5)
        if not self._thread.is_alive():
            self.sink.close()


class Courier:
    """Fetches due deliveries, hands them to their lanes, and reports verdicts. Call `step` often."""

    def __init__(
        self,
        sinks: Mapping[str, SinkSettings],
        context: Context,
        *,
        fetch: Callable[[int], Sequence[Delivery]],
        report: Callable[[Sequence[Verdict]], None],
    ) -> None:
        self._lanes = {name: _Lane(name, make_sink(sink), context) for name, sink in sinks.items()}
        self._context = context
        self._fetch = fetch
        self._report = report

    def step(self) -> int:
        """Move on; return how many deliveries were handed over or reported."""
        verdicts: list[Verdict] = []
        for lane in self._lanes.values():
            while not lane.verdicts.empty():
                verdict = lane.verdicts.get()
                lane.busy.discard(verdict.number)
                verdicts.append(verdict)
        if verdicts:
            self._report(verdicts)
        moved = len(verdicts)
        now_ns = self._context.clock.now_ns()
        for delivery in self._fetch(QUEUE_MAX):
            if delivery.sink not in self._lanes:
                self._report(
                    [Verdict(number=delivery.number, sent=False, answer="no such sink any more")]
                )
                continue
            lane = self._lanes[delivery.sink]
            if delivery.number in lane.busy or now_ns < lane.open_until_ns or lane.queue.full():
                continue
            lane.busy.add(delivery.number)
            lane.queue.put_nowait(delivery)
            moved += 1
        return moved

    def health(self) -> str:
        """Return "" or which sinks do not take what we send."""
        now_ns = self._context.clock.now_ns()
        shut = [lane.name for lane in self._lanes.values() if now_ns < lane.open_until_ns]
        return f"sinks that do not answer: {', '.join(shut)}" if shut else ""

    def stop(self) -> None:
        """End all lanes."""
        for lane in self._lanes.values():
            lane.stop()
