"""An outbox and a courier before an emulated ticket system, on a clock that jumps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from alerting.config import AlertingSettings, SinkSettings
from alerting.courier import Courier
from alerting.outbox.outbox import Outbox
from alerting.words.alert import Alert
from alerting.words.delivery import Order
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.batch import batch_from_rows
from telemetry.schemas import INCIDENT
from tests.support.ticket_server import TicketServer
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

START = 1_764_072_000_000_000_000
SECOND = 1_000_000_000
DIALECTS = {"tmf621": "/tmf-api/troubleTicket/v4", "servicenow-incident": ""}


class Office:
    """Outbox and courier before a ticket server, on a clock that jumps."""

    def __init__(
        self, folder: Path, server: TicketServer, kind: str = "tmf621", **more: Any
    ) -> None:
        self.clock = ManualClock(START)
        made = make_context("outbox", clock=self.clock)
        self.context = Context(made.name, self.clock, made.metrics, made.log, made.seed)
        self.settings = AlertingSettings(
            sinks={"tickets": SinkSettings(
                kind=kind, url=server.url + DIALECTS[kind], timeout_seconds=0.4, send="incidents",
                realm=more.get("realm", ""),
            )} | more.get("sinks", {}),
            waiting_max=100_000, attempts_max=1000, retry_seconds_max=5.0, owners=more.get("owners", {}),
        )  # fmt: skip
        self.orders: list[Order] = []
        self.outbox = Outbox(folder / "node.sqlite", self.settings, self.context)
        self.outbox.start()
        self.courier = self._courier()
        self.tick = 0

    def play(self, world: AlarmWorld, *given: Any) -> None:
        """Let a second of a world pass, and commit and deliver what came of it."""
        batches = world.second(*given)
        self.tick += 1
        self.outbox.commit(
            world.now_ns, [b for b in batches if b.schema.name == "alarm"], self.clock.now_ns(),
            incidents=[b for b in batches if b.schema.name == "incident"],
        )  # fmt: skip
        self.settle()

    def _courier(self) -> Courier:
        return Courier(
            self.settings.sinks, self.context,
            fetch=lambda limit: self.outbox.due(self.clock.now_ns(), limit),
            report=lambda verdicts: self.outbox.mark(verdicts, self.clock.now_ns()),
            active=lambda sink: [
                msgspec.json.decode(body, type=Alert) for body in self.outbox.told(sink)
            ],
            order=self.orders.extend,
        )  # fmt: skip

    def restart_gate(self) -> None:
        """Another gate process: it knows of no ticket."""
        self.courier.stop()
        self.courier = self._courier()

    def incidents(self, numbers: list[int], state: str, **fields: Any) -> None:
        self.tick += 1
        now_ns = self.clock.now_ns()
        rows = [
            {"changed_ns": now_ns + self.tick, "incident_id": n, "opened_ns": START,
             "closed_ns": now_ns if state == "cleared" else 0, "state": state, "severity": "major",
             "title": f"incident {n}", "causes": "[]", "alarms": "[]", "lead_alarm_id": n + 1_000_000,
             "kind": "link-cut", "entity": f"e{n}", "event_type": "communicationsAlarm",
             "probable_cause": "lossOfSignal", "symptoms": "[]", "alarms_count": 3, "explain": "{}",
             "occurrence": 1, "operator_state": "none", "source": "tocsin"} | fields
            for n in numbers
        ]  # fmt: skip
        self.outbox.commit(self.tick, [], now_ns, incidents=[batch_from_rows(INCIDENT, rows)])

    def settle(self, *, seconds: float = 1800.0) -> None:
        """Deliver until nothing waits."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            moved = self.courier.step()
            if not moved:
                if not any(row["waiting"] for row in self.outbox.sinks()):
                    return
                if not self.courier.busy:
                    self.clock.set_ns(self.clock.now_ns() + SECOND // 4)
            time.sleep(0.001)  # for the sink's and the server's threads
        raise AssertionError(f"still waiting: {self.outbox.sinks()}")

    def hear(self, done: Callable[[], bool]) -> None:
        """Step until the ticket system's news have led to what the test waits for."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.courier.step()
            if done():
                return
            if not any(lane.hearing for lane in self.courier._lanes.values()):
                self.clock.set_ns(self.clock.now_ns() + 5 * SECOND)
            time.sleep(0.002)
        raise AssertionError(f"not heard of; orders: {self.orders}")

    def pass_by(self, seconds: float) -> None:
        """Let so much time pass, in which the ticket system is asked for news."""
        end_ns = self.clock.now_ns() + round(seconds * SECOND)
        self.hear(lambda: self.clock.now_ns() > end_ns)

    def close(self) -> None:
        self.courier.stop()
        self.outbox.stop()
