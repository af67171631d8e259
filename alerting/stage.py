"""The alerting stage: anomalies and foreign alarms in, changes of alarms and incidents out.

No clock of its own: what time it is, is the end of the tick. At every tick, foreign reports and what
operators did move alarms on; at a tick that brought frames, our own alarms are judged too. What
changed is hidden where a window says so, grouped into incidents, and told.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerting.asked import check
from alerting.causes.faces import Faces
from alerting.causes.failed_logins import FailedLogins
from alerting.causes.rows import Row, rows_of
from alerting.causes.rules import CauseRules
from alerting.causes.suppress import Explanations
from alerting.config import AlertingSettings
from alerting.incidents.explain import Explainer
from alerting.incidents.hints import hints
from alerting.incidents.incidents import Incidents
from alerting.incidents.suspects import Suspects
from alerting.life.digest import Digest
from alerting.life.foreign import ForeignAlarms
from alerting.life.own import OwnAlarms
from alerting.life.triage import Triage
from alerting.life.trials import Trials
from alerting.life.windows import OUT_OF_SERVICE, SHELVED, Window, Windows
from alerting.operate import Operations
from alerting.records.alarm import SEVERITIES, Alarm, cadence_of, columns_of
from alerting.records.places import Places
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.ports import Evidence, NetworkMap, SeriesDirectory
from telemetry.batch import Batch, batch_from_columns, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import ALARM, ANOMALY, CONTROL, DIGEST, FRAME, INCIDENT, LOG, FrameFlag

WINDOW_REASONS = ("planned-work", "silence", "shelved", "out-of-service")


class AlertingStage:
    """Turn the findings and reports of each tick into few, explained incidents."""

    accepts = (FRAME, ANOMALY, ALARM, LOG, CONTROL)
    emits = (ALARM, INCIDENT, DIGEST)

    def __init__(
        self,
        settings: AlertingSettings,
        context: Context,
        *,
        network: NetworkMap,
        directory: SeriesDirectory,
        evidence: Evidence,
    ) -> None:
        self.directory = directory
        self._faces = Faces(network, directory)
        left_out = context.metrics.counter(
            "alerting_left_out_total",
            "what bounded tables of the cause rules forgot to make room, and lines beyond a tick's limit",
            label="what",
            values=("fast_scan_ticks", "failed_login_sources", "failed_login_lines"),
        )
        self._rules = CauseRules(settings, network, evidence, self._faces, left_out)
        self._trials = Trials(context)
        self.triage = Triage()
        self._own = OwnAlarms(
            settings,
            context,
            self._rules,
            Explanations(
                network,
                aftermath_seconds=settings.aftermath_seconds,
                deviation_ratio=settings.deviation_ratio,
            ),
        )
        self._foreign = ForeignAlarms(settings, context)
        self._logins = FailedLogins(network, left_out)
        self._places = Places(network)
        self._windows_max = settings.windows_max
        self._windows = Windows(settings.windows_max)
        self._suspects = Suspects(network, self._places, self._windows)
        self._explainer = Explainer(settings, network, self._places, self._suspects)
        self.incidents = Incidents(
            settings, self._places, self._suspects, self._explainer, self.alarm
        )
        self._operations = Operations(
            settings,
            context,
            places=self._places,
            windows=self._windows,
            incidents=self.incidents,
            foreign=self._foreign,
            triage=self.triage,
            alarm=self.alarm,
        )
        self._operations.plan(settings.maintenance)
        self._digest = Digest(context)
        self._rows: list[Row] = []
        self._waiting: list[Batch] = []  # foreign reports and control rows, in order
        self._cadences: set[str] = set()  # of the view ticks that end now
        self._incomplete = False
        self._last_ns = 0
        self._changed: list[Alarm] = []  # in the last tick, and still to be told
        self._untold = False  # the incidents of the last tick are still to be told
        self._severities: dict[int, str] = {}  # of the alarms that are up
        self._how_many = dict.fromkeys(SEVERITIES, 0)  # of them, by severity
        self._changes = context.metrics.counter(
            "alarm_changes_total",
            "changes of alarms by what changed",
            label="state",
            values=("raised", "updated", "cleared", "closed"),
        )
        self._told = context.metrics.counter(
            "incident_changes_total",
            "changes of incidents by what changed; pending and merged ones are told to nobody",
            label="state",
            values=("pending", "raised", "updated", "cleared", "merged"),
        )

        self._up = context.metrics.gauge(
            "alarms_active", "alarms that are up, by severity", label="severity", values=SEVERITIES
        )
        self._open = context.metrics.gauge(
            "incidents_open", "incidents under which something is up"
        )

    # ---- stage

    def process(self, batch: Batch) -> list[Batch]:
        """Take what a tick brings; changes come from `advance`."""
        name = batch.schema.name
        if name == ANOMALY.name:
            self._rows += rows_of(batch, self.directory)
        elif name == FRAME.name and batch.rows:
            if (batch["flags"] & FrameFlag.INCOMPLETE).any():
                self._incomplete = True
            self._cadences.add(cadence_of(batch.dictionaries["view"][0]))
            self._faces.take(batch)
        elif name in (ALARM.name, CONTROL.name, LOG.name) and batch.rows:
            self._waiting.append(batch)
        return []

    def advance(self, frontier_ns: int) -> list[Batch]:
        """View ticks closed at frontier_ns, their frames and anomalies were given: judge them.

        The node calls the steps; `advance` and `event` are for who wants all at once: tests, stories, perf.
        """
        digest = self.judge(frontier_ns)
        return [*self.alarms(), *digest, *self.tell()]

    def event(self, frontier_ns: int) -> list[Batch]:
        """An event tick closed at frontier_ns, no view's: reports, actions and timers count.

        Nothing of our own is quiet by it.
        """
        self.hear(frontier_ns)
        return [*self.alarms(), *self.tell()]

    def judge(self, frontier_ns: int) -> list[Batch]:
        """Decide what becomes of alarms, and return the digest. What changed is told by `alarms` and `tell`, in
        whichever order: all of both is to be asked for before the next tick.

        An alarm counts a quiet tick only where views of its own cadence closed: a tick of samples
        says nothing of flows. Between view ticks `hear` is called.
        A frontier that does not move ends no tick. A tick that a restart cut short proves nothing:
        it neither raises nor counts as quiet.
        """
        if frontier_ns <= self._last_ns:
            return []
        self._last_ns = frontier_ns
        given, self._rows = self._rows, []
        rows = [row for row in given if row.disposition != "would"]
        incomplete, self._incomplete = self._incomplete, False
        cadences, self._cadences = self._cadences, set()
        digest = self._digest.add(given, frontier_ns)
        trial = [row for row in given if row.disposition == "would"]
        self._trials.judge(
            [*self._rules.claims(trial), *self._rules.deviations(trial)], frontier_ns, cadences
        )
        changed = self._take_waiting(frontier_ns)
        if not (incomplete and not rows):
            cadence = "flow" if "flow" in cadences else min(cadences, default="flow")
            said = self._logins.claims(frontier_ns, tick_seconds=60.0, cadence=cadence)
            judged = self._own.judge(rows, frontier_ns, cadences, said)
            changed.update((alarm.id, alarm) for alarm in judged)
        self._group(changed, frontier_ns)
        return digest

    def hear(self, frontier_ns: int) -> None:
        """As `judge`, at the end of an event tick."""
        if frontier_ns > self._last_ns:
            self._last_ns = frontier_ns
            self._group(self._take_waiting(frontier_ns), frontier_ns)

    @property
    def changed(self) -> bool:
        """Whether alarms changed that `alarms` has not told yet."""
        return bool(self._changed)

    def alarms(self) -> Iterator[Batch]:
        """Yield the alarms that changed in this tick, once."""
        changed, self._changed = self._changed, []
        if changed:
            for alarm in changed:
                self._explainer.shorten(alarm)
            columns = columns_of(changed)
            for state, count in Counter(columns["state"]).items():
                self._changes.add(state, count)
            yield batch_from_columns(ALARM, columns, source="alerting", frontier_ns=self._last_ns)

    def tell(self) -> Iterator[Batch]:
        """Yield what people are told of incidents that changed in this tick, a part of them at a time, once."""
        for rows in self._told_of_incidents():
            for state, count in Counter([row["state"] for row in rows]).items():
                self._told.add(state, count)
            yield batch_from_rows(INCIDENT, rows, source="alerting", frontier_ns=self._last_ns)
        self._show_how_many()

    def changes(self, frontier_ns: int) -> tuple[list[Alarm], list[dict[str, Any]]]:
        """As `event`, but return the alarms and the rows of incidents that changed, not batches."""
        if frontier_ns <= self._last_ns:
            return [], []
        self._last_ns = frontier_ns
        changed = self._group(self._take_waiting(frontier_ns), frontier_ns)
        self._changed = []
        return changed, list(chain.from_iterable(self._told_of_incidents()))

    def _told_of_incidents(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of incidents that changed; once for each tick."""
        untold, self._untold = self._untold, False
        if untold:
            yield from self.incidents.advance(self._last_ns)

    def _group(self, changed: dict[int, Alarm], now_ns: int) -> list[Alarm]:
        """Hide what changed, put it into incidents, and return it; neither is told yet."""
        self._untold = True
        self._places.refresh(now_ns)
        self._hide(changed, now_ns)
        for alarm in changed.values():
            self.incidents.take(alarm, now_ns, hidden=_is_hidden(alarm))
            self._count(alarm)
        for alarm in self.incidents.altered(now_ns):
            if alarm.id not in changed:  # what its record says of its incident changed, so it did
                alarm.state = "updated" if alarm.state == "raised" else alarm.state
                alarm.changed_ns = now_ns
                changed[alarm.id] = alarm
        # All are taken first: what changed in this tick explains its faults in whatever order they came.
        advises = self.triage.model is not None
        for alarm in changed.values():
            self._explainer.complete(alarm)
            if advises and alarm.up and (advice := self.triage.advise(alarm)):
                alarm.explain = {**alarm.explain, "triage": advice}
        self._changed = [alarm for alarm in changed.values() if alarm.state != "pending"]
        return list(changed.values())

    def _show_how_many(self) -> None:
        self._open.set(self.incidents.open)
        for severity, count in self._how_many.items():
            self._up.set(count, severity)

    def _count(self, alarm: Alarm) -> None:
        before = self._severities.pop(alarm.id, "")
        if before:
            self._how_many[before] -= 1
        if alarm.up:
            self._severities[alarm.id] = alarm.severity
            self._how_many[alarm.severity] += 1

    def _take_waiting(self, now_ns: int) -> dict[int, Alarm]:
        """Take foreign reports, log lines and actions in the order in which they came."""
        waiting, self._waiting = self._waiting, []
        changed: dict[int, Alarm] = {}
        for batch in waiting:
            made: list[Alarm] = []
            if batch.schema.name == ALARM.name:
                made = self._foreign.report(batch, now_ns)
            elif batch.schema.name == CONTROL.name:
                for kind, payload in zip(batch.texts("kind"), batch.texts("payload"), strict=True):
                    if kind == "gap":  # the node was away, or stood still
                        self._foreign.was_deaf(float(json.loads(payload).get("seconds", 0.0)))
                made = self._operations.take(batch, now_ns)
            else:
                self._logins.take(batch, now_ns)
                for kind, host, words in hints(batch):
                    self._suspects.event(kind, self._places.of(host).nodes[0], words, now_ns)
            changed.update((alarm.id, alarm) for alarm in made)
        changed.update((alarm.id, alarm) for alarm in self._foreign.advance(now_ns))
        return changed

    def _hide(self, changed: dict[int, Alarm], now_ns: int) -> None:
        """Say of changed alarms whether a window hides them; of all where a window began or ended."""
        if self._windows.move_on(now_ns):
            for alarm in self._all():
                if alarm.up and alarm.id not in changed and self._apply(alarm, now_ns):
                    changed[alarm.id] = alarm
        going = self._windows.going
        for alarm in changed.values():
            if going or alarm.suppressed:
                self._apply(alarm, now_ns)
            alarm.changed_ns = now_ns

    def _apply(self, alarm: Alarm, now_ns: int) -> bool:
        """Set what windows say of an alarm; return whether that is new."""
        window = self._windows.over(alarm, self._places.of(alarm.entity, alarm.title))
        before = (alarm.suppressed, alarm.shelved_until_ns, alarm.out_of_service)
        if window is not None:
            _hide(alarm, window, now_ns)
        elif alarm.suppressed in WINDOW_REASONS:
            symptom = alarm.up and alarm in self.incidents.symptoms
            alarm.suppressed, alarm.suppressed_by = "parent" if symptom else "", ""
            alarm.shelved_until_ns, alarm.out_of_service = 0, False
            # Who hid it does nothing with it any more. An older checkpoint knows who acknowledged as operator alone.
            by = alarm.acknowledged_by or alarm.operator
            alarm.operator, alarm.operator_note = by if alarm.acknowledged else "", ""
        elif alarm.suppressed and not alarm.up:
            alarm.suppressed = ""
        return before != (alarm.suppressed, alarm.shelved_until_ns, alarm.out_of_service)

    # ---- asking

    def alarm(self, number: int) -> Alarm | None:
        """Return an alarm by its id."""
        found = self._own.alarms.get(number)
        return found if found is not None else self._foreign.alarms.get(number)

    def _all(self) -> Iterable[Alarm]:
        yield from self._own.alarms.values()
        yield from self._foreign.alarms.values()

    def check(self, kind: str, payload: dict[str, Any], now_ns: int) -> None:
        """Raise ConfigError for an action that cannot be meant, is about nothing, or has no room."""
        ask, begun = check(kind, payload, now_ns)
        self._operations.check_known(kind, ask, now_ns)
        if begun and not self._windows.has_room(begun, now_ns):
            raise ConfigError(
                f"{self._windows_max} windows are kept (alerting.windows_max), and more are asked for: "
                f"`tocsin alarm windows` lists them, `tocsin alarm expire NAME` ends one"
            )

    def windows(self) -> list[Window]:
        """Return planned works, silences and shelved alarms."""
        return self._windows.all()

    def would_have_sent(self) -> list[dict[str, Any]]:
        """Return the alarms that classes on probation would have raised, newest first."""
        return self._trials.listed()

    @property
    def due_ns(self) -> int:
        """When something is to happen though nothing comes: a hold ends, a window, a wait."""
        return min(self._foreign.due_ns, self._windows.due_ns, self.incidents.due_ns)

    def silent_exporters(self) -> int:
        """Return how many exporters are down."""
        going = (self._own.alarms.get(number) for number in self._severities)
        return sum(1 for alarm in going if alarm is not None and alarm.kind == "exporter-down")

    @property
    def raised(self) -> int:
        """How many alarms are up."""
        return len(self._severities)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Nothing here is kept by row."""

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write alarms, windows, incidents and what was learned."""
        data = msgspec.msgpack.encode(
            {
                **self._own.snapshot(),
                "last_ns": self._last_ns,
                "foreign": self._foreign.snapshot(),
                "failed_logins": self._logins.snapshot(),
                "fast_scans": self._rules.fast_scans.snapshot(),
                "windows": self._windows.snapshot(),
                "suspects": self._suspects.snapshot(),
                "incidents": self.incidents.snapshot(),
                "trials": self._trials.snapshot(),
                "triage": self.triage.snapshot(),
            }
        )
        write_array(out, "alarms", np.frombuffer(data, np.uint8))
        self._digest.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take them back."""
        kept = read_array(state, "alarms")
        if kept is None:
            return
        data = msgspec.msgpack.decode(kept.tobytes())
        self._last_ns = int(data.get("last_ns", 0))
        self._own.restore(data)
        self._rules.fast_scans.restore(data.get("fast_scans", []))
        if "incidents" in data:  # a checkpoint of before there were foreign alarms
            self._foreign.restore(data["foreign"])
            self._logins.restore(data.get("failed_logins", []))
            self._operations.restore_windows(data["windows"], self._last_ns)
            self._suspects.restore(data["suspects"])
            self.incidents.restore(data["incidents"])
        for alarm in self._all():
            self._count(alarm)
        self._show_how_many()
        if "trials" in data:
            self._trials.restore(data["trials"])
        if "triage" in data:
            self.triage.restore(data["triage"])
        self._digest.restore(state)


def _is_hidden(alarm: Alarm) -> bool:
    return alarm.suppressed in WINDOW_REASONS


def _hide(alarm: Alarm, window: Window, now_ns: int) -> None:
    alarm.suppressed, alarm.suppressed_by = window.kind, window.name
    alarm.out_of_service = window.kind == OUT_OF_SERVICE
    span = window.span(now_ns)
    alarm.shelved_until_ns = span[1] if span and window.kind == SHELVED else 0
    if not alarm.operator:
        alarm.operator, alarm.operator_note = window.by, window.reason
