"""What the node answers on its request socket: one method a verb, where one line does not do.

What asks the node to do something is answered when that is on disk: a delivery's fate by the outbox's
transaction, an action of an operator or of another system by the journal (as offers are).
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from alerting.orders import Orders
from alerting.outbox.outbox import Outbox
from alerting.outbox.sink_board import SinkBoard
from alerting.words.delivery import Order, SinkStatus, Verdict
from detectors import probation, river_scores
from detectors.life import STAGES
from runtime.bus import Later, RequestServer
from runtime.clock import Clock
from runtime.metrics import Metrics
from telemetry.errors import ConfigError
from tocsin import verbs
from tocsin.chain.back import Back
from tocsin.control import control_row
from tocsin.families import take_families
from tocsin.node.offers import Offers
from tocsin.node.senders import SenderBook


class Answers:
    """Serves every verb but `status`, which the node gives itself."""

    def __init__(
        self,
        back: Back,
        outbox: Outbox,
        offers: Offers,
        sinks: SinkBoard,
        senders: SenderBook,
        orders: Orders,
        clock: Clock,
        metrics: Metrics,
        *,
        trouble: Callable[[], str],
        restarts: Callable[[], Mapping[str, int]],
    ) -> None:
        """`trouble` says why the journal cannot be written, "" where it can; `restarts` how often each
        process of this Tocsin was started again."""
        self._back = back
        self._outbox = outbox
        self._offers = offers
        self._sinks = sinks
        self._senders = senders
        self._orders = orders
        self._clock = clock
        self._metrics = metrics
        self._trouble = trouble
        self._restarts = restarts
        self._restarted = metrics.scoped("supervisor").keyed(
            "supervisor_restarts_total",
            "child processes started again after they died",
            label="role",
        )
        self._waiting: dict[int, Later] = {}  # answers to actions that are not on disk yet
        self._number = 0
        self.gate = verbs.GateSays(sources=[], metrics=[])
        self._teacher = verbs.TeacherSays()

    def serve(self, server: RequestServer, status: Callable[[], verbs.Status]) -> None:
        """Say what is answered by what."""
        serve, outbox = server.handle, self._outbox
        serve("status", verbs.Nothing, lambda _: status())
        serve("metrics", verbs.Nothing, lambda _: self._rendered())
        serve("alarms", verbs.AlarmsRequest, self._alarms)
        serve("incidents", verbs.IncidentsRequest, self._incidents)
        serve("changes", verbs.AlarmsRequest, self._changes)
        serve("due", verbs.DueRequest, lambda ask: outbox.due(self._clock.now_ns(), ask.limit))
        serve("senders", str, self._senders.statuses)
        serve("mark", list[Verdict], self._mark)
        serve("offer", verbs.Offered, self._offers.take)
        serve("gate", verbs.GateSays, self._hear_gate)
        serve("deliveries", verbs.DeliveriesRequest, self._deliveries)
        serve("retry", verbs.RetryRequest, lambda ask: outbox.retry(ask.sink), acts=True)
        serve(
            "drop",
            verbs.DropRequest,
            lambda ask: outbox.drop(ask.sink, ask.number, ask.by),
            acts=True,
        )
        serve("told", verbs.ToldRequest, lambda ask: outbox.told(ask.sink))
        serve("decide", verbs.DecideRequest, self._decide, acts=True)
        serve("audit", verbs.Nothing, lambda _: outbox.audit())
        serve("sinks", list[SinkStatus], self._hear_of_sinks)
        serve("orders", list[Order], self._take_orders)
        serve("operate", verbs.OperateRequest, self._operate, acts=True)
        serve("windows", verbs.Nothing, lambda _: self._windows())
        serve("predictions", verbs.Nothing, lambda _: self._predictions())
        serve("feedback", verbs.Nothing, lambda _: self._feedback())
        serve("newest_verdict", verbs.Nothing, lambda _: self._back.alerting.triage.newest)
        serve("teacher", verbs.TeacherSays, self._hear_teacher)
        serve("baselines", verbs.BaselinesRequest, self._baselines)
        serve("probation", verbs.Nothing, lambda _: self._probation())

    def refuse(self, why: str) -> None:
        """Tell all who wait for a disk that refuses. What they asked for is done once it is written."""
        waiting, self._waiting = self._waiting, {}
        for later in waiting.values():
            later.fail(f"{why}. It counts as soon as that is over, unless the node ends before")
        self._offers.refuse(why)

    def _rendered(self) -> verbs.MetricsText:
        for role, times in self._restarts().items():
            self._restarted.counts[role] = times
        return verbs.MetricsText(self._metrics.render().decode())

    def _alarms(self, ask: verbs.AlarmsRequest) -> verbs.Alarms:
        return verbs.Alarms(self._outbox.alarms(active_only=ask.active_only, limit=ask.limit))

    def _incidents(self, ask: verbs.IncidentsRequest) -> verbs.IncidentsAnswer:
        incidents = self._back.alerting.incidents
        return verbs.IncidentsAnswer(incidents.listed(open_only=ask.open_only, limit=ask.limit))

    def _changes(self, ask: verbs.AlarmsRequest) -> verbs.Alarms:
        return verbs.Alarms(self._outbox.changes(limit=ask.limit))

    def _hear_gate(self, says: verbs.GateSays) -> verbs.Nothing:
        self.gate = says
        take_families(self._metrics, says.metrics, "gate")
        return verbs.Nothing()

    def _mark(self, verdicts: list[Verdict]) -> verbs.Nothing:
        self._outbox.mark(verdicts, self._clock.now_ns())
        return verbs.Nothing()

    def _deliveries(self, ask: verbs.DeliveriesRequest) -> list[dict[str, Any]]:
        return self._outbox.deliveries(ask.limit, state=ask.state, sink=ask.sink)

    def _decide(self, ask: verbs.DecideRequest) -> bool:
        now_ns = self._clock.now_ns()
        return self._outbox.decide(ask.number, approve=ask.approve, by=ask.by, now_ns=now_ns)

    def _hear_of_sinks(self, statuses: list[SinkStatus]) -> verbs.Nothing:
        self._sinks.hear(statuses, self._outbox.sinks(), self._clock.now_ns())
        return verbs.Nothing()

    def _take_orders(self, orders: list[Order]) -> Later:
        """Journal what other systems want. One that is repeated waits for the first, or for nothing."""
        self._check_disk()
        now_ns = self._clock.now_ns()
        for kind, payload in self._orders.rows(orders):
            self._back.control(control_row(kind, now_ns, payload))
        return self._later(verbs.Nothing())

    def _operate(self, ask: verbs.OperateRequest) -> Later | verbs.OperateAnswer:
        """Journal what an operator does; it counts from the next event tick on."""
        try:
            self._check(ask)
        except ConfigError as error:
            return verbs.OperateAnswer(refused=str(error))
        self._check_disk()
        now_ns = self._clock.now_ns()
        self._back.control(control_row(ask.kind, now_ns, ask.payload))
        return self._later(verbs.OperateAnswer(counts_from_ns=now_ns))

    def _check(self, ask: verbs.OperateRequest) -> None:
        if ask.kind == river_scores.KIND:
            river_scores.check(ask.payload)
            return
        if ask.kind != probation.KIND:
            self._back.alerting.check(ask.kind, ask.payload, self._clock.now_ns())
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

    def _predictions(self) -> verbs.PredictionsAnswer:
        return verbs.PredictionsAnswer(**self._back.detection.predictor.table())

    def _baselines(self, ask: verbs.BaselinesRequest) -> verbs.BaselinesAnswer:
        parts = dict(part.partition("=")[::2] for part in ask.match.split(",") if part)
        if unknown := sorted(set(parts) - {"view", "entity"}):
            raise ValueError(f"match: {unknown[0]!r} is neither view nor entity")
        rows: list[dict[str, Any]] = []
        views = parts.get("view", "*")
        aged = [one for one in self._back.detection.ages() if fnmatch.fnmatchcase(one[0], views)]
        for view, series_id, age_s, stage in sorted(aged, key=lambda one: (one[2], *one[:2])):
            if len(rows) == ask.limit:
                break
            key = self._back.alerting.directory.key(series_id)
            if key is None or not fnmatch.fnmatchcase(key.entity, parts.get("entity", "*")):
                continue
            rows.append(
                {"series_id": f"{series_id:016x}", "view": view, "entity": key.entity,
                 "metric": key.key.get("metric", ""), "stage": stage, "age_s": round(age_s)}
            )  # fmt: skip
        return verbs.BaselinesAnswer(
            stages=list(STAGES), views=self._back.detection.baselines(), series=rows
        )

    def _feedback(self) -> verbs.FeedbackAnswer:
        triage = self._back.alerting.triage
        return verbs.FeedbackAnswer(
            feedback=msgspec.to_builtins(triage.feedback),
            model=msgspec.to_builtins(triage.model),
            rates=self._back.detection.rates(),
            teacher=self._teacher,
        )

    def _hear_teacher(self, says: verbs.TeacherSays) -> verbs.Nothing:
        self._teacher = says
        return verbs.Nothing()

    def _check_disk(self) -> None:
        if trouble := self._trouble():
            raise ValueError(f"{trouble}. Nothing was done")

    def _later(self, answer: object) -> Later:
        """Return an answer that is given when all that was taken up to now is on disk."""
        later, number = Later(), self._number
        self._number += 1
        self._waiting[number] = later

        def done() -> None:
            if self._waiting.pop(number, None) is not None:
                later.answer(answer)

        self._back.offer((), done)
        return later

    def _windows(self) -> verbs.WindowsAnswer:
        return verbs.WindowsAnswer(
            windows=[msgspec.to_builtins(window) for window in self._back.alerting.windows()]
        )
