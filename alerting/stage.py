"""The alerting stage: anomalies in, changes of alarms and incidents out.

No clock of its own: what time it is, is the end of the tick. All state is in `Alarm` records by id.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerting.alarm import KINDS, SEVERITIES, Alarm, Claim, alarm_id
from alerting.causes import CauseRules, Row, rows_of
from alerting.config import AlertingSettings
from alerting.digest import Digest
from alerting.explain import attached, explain
from alerting.faces import Faces
from alerting.suppress import Explanations, attach
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.ports import Evidence, NetworkMap, SeriesDirectory
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import id_text, stable_id
from telemetry.schemas import ALARM, ANOMALY, DIGEST, FRAME, INCIDENT, FrameFlag

SIZES_KEPT = 6  # ticks by which growing and shrinking are told apart
CLEARED_KEPT_NS = 86_400_000_000_000  # so long its occurrences are counted on
SIBLING_TICKS = 2  # deviations that begin so close together are one event


class AlertingStage:
    """Turn the anomalies of each tick into alarm changes; one alarm for each fault."""

    accepts = (FRAME, ANOMALY)
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
        self._settings = settings
        self._directory = directory
        self._faces = Faces(network, directory)
        self._rules = CauseRules(settings, network, evidence, self._faces)
        self._explanations = Explanations(network, aftermath_seconds=settings.aftermath_seconds)
        self._digest = Digest(context)
        self._rows: list[Row] = []
        self._incomplete = False
        self._lengths: set[float] = set()  # of the view ticks that end now, in seconds
        self._alarms: dict[int, Alarm] = {}
        self._last_ns = 0
        self._changes = context.metrics.counter(
            "alarm_changes_total",
            "changes of alarms by what changed",
            label="state",
            values=("raised", "updated", "cleared"),
        )
        self._held = context.metrics.counter(
            "alarms_held_total",
            "claims that became no alarm, by reason",
            label="reason",
            values=("too_many",),
        )

    # ---- stage

    def process(self, batch: Batch) -> list[Batch]:
        """Take the anomalies and frames of a tick; changes come from `advance`."""
        if batch.schema.name == ANOMALY.name:
            self._rows += rows_of(batch, self._directory)
        elif batch.schema.name == FRAME.name and batch.rows:
            if (batch["flags"] & FrameFlag.INCOMPLETE).any():
                self._incomplete = True
            self._lengths.add(float(batch["tick_seconds"][0]))
            self._faces.take(batch)
        return []

    def advance(self, frontier_ns: int) -> list[Batch]:
        """View ticks closed at frontier_ns, their frames and anomalies were given: judge them.

        Only alarms of views whose ticks are as long as theirs count a quiet tick: what the samples
        say each ten seconds ends no minute of the flows. Between view ticks `event` is called.
        A frontier that does not move ends no tick. A tick that a restart cut short proves nothing:
        it neither raises nor counts as quiet.
        """
        if frontier_ns <= self._last_ns:
            return []
        self._last_ns = frontier_ns
        rows, self._rows = self._rows, []
        incomplete, self._incomplete = self._incomplete, False
        lengths, self._lengths = self._lengths, set()
        digest = self._digest.add(rows, frontier_ns)
        changed: list[Alarm] = []
        if not (incomplete and not rows):
            changed = self._judge(rows, frontier_ns, lengths)
        return self._batches(changed, frontier_ns) + digest

    def event(self, frontier_ns: int) -> list[Batch]:
        """An event tick closed at frontier_ns, no view's: nothing is quiet by it, time goes on."""
        self._last_ns = max(self._last_ns, frontier_ns)
        return []

    def _judge(self, rows: list[Row], now_ns: int, lengths: set[float]) -> list[Alarm]:
        attacks = (a for a in self._alarms.values() if a.up and a.kind == "volumetric-attack")
        claims = self._rules.claims(rows, {alarm.entity for alarm in attacks})
        shown = {claim.alarm_id for claim in claims}
        claimed: list[tuple[Alarm, Claim]] = []
        for claim in claims:
            if alarm := self._alarm_of(claim, shown):
                claimed.append((alarm, claim))
        # The anomalies that these faults explain are attached before the alarms are told.
        own = {series for claim in claims for series in claim.series}
        other = [row for row in rows if id_text(row.key.series_id) not in own]
        rest = self._explanations.rest(other, self._alarms.values(), now_ns)
        for claim in self._rules.deviations(rest):
            sibling = self._sibling(claim, shown)
            if sibling is not None:
                # Part of an event that has an alarm: it keeps that alarm up and raises no other.
                attach(sibling, f"deviation {claim.entity}")
                sibling.quiet_ticks, sibling.last_ns = 0, now_ns
                shown.add(alarm_id(sibling.kind, sibling.entity))
            elif alarm := self._alarm_of(claim, shown):
                claimed.append((alarm, claim))
                shown.add(claim.alarm_id)
        changed = [alarm for alarm, claim in claimed if self._claim(alarm, claim, now_ns)]
        for key, alarm in list(self._alarms.items()):
            ended = not lengths or not alarm.tick_seconds or alarm.tick_seconds in lengths
            if key not in shown and ended and self._quiet(key, alarm, now_ns):
                changed.append(alarm)
        return changed

    def _alarm_of(self, claim: Claim, shown: set[int]) -> Alarm | None:
        """Return the claim's alarm, a new one where there is none, None where there is no room."""
        alarm = self._alarms.get(claim.alarm_id)
        if alarm is None:
            if len(self._alarms) >= self._settings.alarms_max and not self._make_room(shown):
                self._held.add("too_many")
                return None
            alarm = Alarm(claim.kind, claim.entity, first_ns=claim.since_ns)
            self._alarms[claim.alarm_id] = alarm
        if alarm.state in ("pending", "cleared") and alarm.pending_ticks == 0:
            alarm.first_ns = claim.since_ns
        return alarm

    def _make_room(self, shown: set[int]) -> bool:
        """Forget the alarm that was cleared longest ago, if there is one that this tick has not."""
        over = [
            (alarm.cleared_ns, key)
            for key, alarm in self._alarms.items()
            if alarm.state == "cleared" and key not in shown
        ]
        if over:
            del self._alarms[min(over)[1]]
        return bool(over)

    def _sibling(self, claim: Claim, shown: set[int]) -> Alarm | None:
        """Return the deviation alarm of another entity that began when this one did."""
        if claim.alarm_id in self._alarms:
            return None
        near = round(SIBLING_TICKS * claim.tick_seconds * 1e9)
        for key, alarm in self._alarms.items():
            going = alarm.up or (alarm.state == "pending" and key in shown)
            if going and alarm.kind == "deviation" and abs(alarm.first_ns - claim.since_ns) <= near:
                return alarm
        return None

    def _claim(self, alarm: Alarm, claim: Claim, now_ns: int) -> bool:
        """Move an alarm on by one tick that shows it; return whether there is a change to tell."""
        alarm.quiet_ticks, alarm.last_ns = 0, now_ns
        alarm.tick_seconds = claim.tick_seconds
        alarm.sizes = [*alarm.sizes[1 - SIZES_KEPT :], _six(abs(claim.actual - claim.expected))]
        if not alarm.up:
            alarm.pending_ticks += 1
            # What the budget has not let in yet is in the digest; its confirmation goes on.
            if alarm.pending_ticks < claim.ticks_needed or claim.disposition == "digest":
                return False
            self._raise(alarm, claim, now_ns)
            return True
        if claim.disposition == "hard":
            return False  # a hard fault is certain when it is raised; only its end is news
        worse = SEVERITIES.index(claim.severity) < SEVERITIES.index(alarm.severity)
        again = now_ns - alarm.changed_ns >= round(self._settings.update_seconds * 1e9)
        grown = again and claim.score > 2.0 * alarm.best_score
        if worse or (grown and not alarm.flapping):
            alarm.state = "updated"
            self._tell(alarm, claim, now_ns)
            return True
        return False

    def _raise(self, alarm: Alarm, claim: Claim, now_ns: int) -> None:
        reopen = round(self._settings.reopen_seconds * 1e9)
        if not alarm.cleared_ns or now_ns - alarm.cleared_ns > reopen:
            alarm.occurrence += 1
            alarm.raised_ns = alarm.first_ns
            alarm.raises = [] if not alarm.cleared_ns else alarm.raises
        flap = round(self._settings.flap_seconds * 1e9)
        alarm.raises = [at for at in alarm.raises if now_ns - at < flap] + [now_ns]
        alarm.flapping = len(alarm.raises) >= self._settings.flap_changes
        alarm.state, alarm.cleared_ns, alarm.pending_ticks = "raised", 0, 0
        alarm.best_score = 0.0
        self._tell(alarm, claim, now_ns)

    def _tell(self, alarm: Alarm, claim: Claim, now_ns: int) -> None:
        alarm.severity = claim.severity
        alarm.changed_ns = now_ns
        alarm.title = claim.title + (" (flapping)" if alarm.flapping else "")
        alarm.best_score = max(alarm.best_score, claim.score)
        alarm.explain = explain(alarm, claim)

    def _quiet(self, key: int, alarm: Alarm, now_ns: int) -> bool:
        """Move an alarm on by one tick that does not show it; return whether it cleared."""
        alarm.quiet_ticks += 1
        if alarm.state == "pending":
            if alarm.quiet_ticks > 1:
                del self._alarms[key]
            return False
        if alarm.state == "cleared":
            alarm.pending_ticks = 0
            if now_ns - alarm.cleared_ns > CLEARED_KEPT_NS:
                del self._alarms[key]
            return False
        if alarm.quiet_ticks < self._settings.clear_ticks:
            return False
        # A flapping alarm is said once and stays up until it has been calm for long.
        if alarm.flapping and now_ns - alarm.last_ns < round(self._settings.reopen_seconds * 1e9):
            return False
        alarm.state, alarm.cleared_ns, alarm.changed_ns = "cleared", now_ns, now_ns
        alarm.pending_ticks, alarm.sizes = 0, []
        if alarm.flapping:
            alarm.flapping, alarm.raises = False, []
            alarm.title = alarm.title.removesuffix(" (flapping)")
        alarm.explain = {**alarm.explain, "growing": False, "trend": "over"} | attached(alarm)
        alarm.attached = []
        return True

    def _batches(self, changed: Iterable[Alarm], now_ns: int) -> list[Batch]:
        alarms, incidents = [], []
        for alarm in changed:
            self._changes.add(alarm.state)
            alarms.append(_alarm_row(alarm))
            incidents.append(_incident_row(alarm))
        if not alarms:
            return []
        return [
            batch_from_rows(ALARM, alarms, source="alerting", frontier_ns=now_ns),
            batch_from_rows(INCIDENT, incidents, source="alerting", frontier_ns=now_ns),
        ]

    @property
    def raised(self) -> int:
        """How many alarms are up."""
        return sum(alarm.up for alarm in self._alarms.values())

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Nothing here is kept by row."""

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write every alarm."""
        data = msgspec.msgpack.encode(
            {"alarms": list(self._alarms.values()), "last_ns": self._last_ns}
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
        for fields in data["alarms"]:
            alarm = msgspec.convert(fields, Alarm)
            self._alarms[alarm_id(alarm.kind, alarm.entity)] = alarm
        self._digest.restore(state)


def _alarm_row(alarm: Alarm) -> dict[str, Any]:
    event_type, probable_cause = KINDS[alarm.kind]
    return {
        "changed_ns": alarm.changed_ns,
        "alarm_id": alarm_id(alarm.kind, alarm.entity),
        "raised_ns": alarm.raised_ns,
        "cleared_ns": alarm.cleared_ns,
        "state": alarm.state,
        "severity": alarm.severity,
        "kind": alarm.kind,
        "event_type": event_type,
        "probable_cause": probable_cause,
        "entity_id": stable_id(alarm.entity),
        "entity": alarm.entity,
        "specific_problem": alarm.title,
        "additional_text": "; ".join(alarm.explain.get("why", [])),
        "source": "tocsin",
        "explain": json.dumps(alarm.explain, sort_keys=True),
        "occurrence": alarm.occurrence,
        "operator_state": "none",
        "incident_id": _incident_id(alarm),
        "tally": 1,
    }


def _incident_id(alarm: Alarm) -> int:
    return stable_id(f"incident|{alarm_id(alarm.kind, alarm.entity)}|{alarm.raised_ns}")


def _incident_row(alarm: Alarm) -> dict[str, Any]:
    key = alarm_id(alarm.kind, alarm.entity)
    event_type, probable_cause = KINDS[alarm.kind]
    return {
        "changed_ns": alarm.changed_ns,
        "incident_id": _incident_id(alarm),
        "opened_ns": alarm.raised_ns,
        "closed_ns": alarm.cleared_ns,
        "severity": alarm.severity,
        "title": alarm.title,
        "causes": json.dumps(alarm.explain.get("causes", []), sort_keys=True),
        "alarms": json.dumps([id_text(key)]),
        "state": alarm.state,
        "lead_alarm_id": key,
        "kind": alarm.kind,
        "entity": alarm.entity,
        "event_type": event_type,
        "probable_cause": probable_cause,
        "source": "tocsin",
        "symptoms": "[]",
        "alarms_count": 1,
        "explain": json.dumps(alarm.explain, sort_keys=True),
        "impact": "{}",
        "occurrence": alarm.occurrence,
        "operator_state": "none",
    }


def _six(value: float) -> float:
    return float(f"{value:.6g}")
