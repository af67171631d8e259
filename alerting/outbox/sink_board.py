"""How the sinks do, as the node tells it: status, health and metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from alerting.config import SinkSettings
from alerting.words.delivery import SinkStatus
from runtime.component import Context

GATE_SILENT_NS = 15_000_000_000
FAILURES_TOLD = 3


class SinkBoard:
    """Keeps what the gate last said of each sink, beside what the outbox has for it."""

    def __init__(self, sinks: Mapping[str, SinkSettings], context: Context) -> None:
        self._first_ns = context.clock.now_ns()
        self.heard_ns = 0
        self._wanted = bool(sinks)
        self.statuses = [SinkStatus(name=n, kind=s.kind, state="idle") for n, s in sinks.items()]
        names, metrics = tuple(sinks) or ("",), context.metrics
        self._failing = metrics.gauge(
            "sink_failing", "1 while a sink does not take what is sent", label="sink", values=names
        )
        self._waiting = metrics.gauge(
            "sink_waiting", "deliveries that wait for a sink", label="sink", values=names
        )
        self._given_up = metrics.gauge(
            "sink_given_up", "dead letters of a sink", label="sink", values=names
        )
        self._oldest = metrics.gauge(
            "sink_oldest_seconds",
            "age of the oldest delivery for a sink",
            label="sink",
            values=names,
        )

    def hear(
        self, told: Sequence[SinkStatus], waiting: Sequence[Mapping[str, Any]], now_ns: int
    ) -> None:
        """Take what the gate says, and what waits."""
        self.heard_ns = now_ns
        rows = {row["sink"]: row for row in waiting}
        self.statuses = []
        for status in told:
            row = rows.get(status.name, {})
            numbers = {
                k: int(row.get(k) or 0) for k in ("waiting", "given_up", "held", "oldest_ns")
            }
            made = msgspec.structs.replace(status, **numbers)
            self.statuses.append(made)
            self._failing.set(float(made.state in ("failing", "hung")), made.name)
            self._waiting.set(made.waiting, made.name)
            self._given_up.set(made.given_up, made.name)
            age = (now_ns - made.oldest_ns) / 1e9 if made.oldest_ns else 0.0
            self._oldest.set(age, made.name)

    def health(self, now_ns: int) -> str:
        """Return "" or which sinks do not take what we send, and why."""
        if not self._wanted:
            return ""
        if now_ns - max(self.heard_ns, self._first_ns) > GATE_SILENT_NS:
            return "the gate gives no sign of life: alerts wait in the outbox until it is back"
        said = []
        for one in self.statuses:
            rest = f"; {one.waiting} deliveries wait"
            if one.state == "hung":
                said.append(f"sink {one.name} hangs{rest}")
            elif one.failures >= FAILURES_TOLD:
                said.append(f"sink {one.name} fails: {one.error}{rest}")
        return "; ".join(said)
