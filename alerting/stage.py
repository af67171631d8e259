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
from alerting.alert import Alert
from alerting.causes import CauseRules, Row, rows_of
from alerting.config import AlertingSettings
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.ports import Evidence, NetworkMap, SeriesDirectory
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import id_text, stable_id
from telemetry.schemas import ALARM, ANOMALY, FRAME, INCIDENT

PRIMARY = ("link-cut", "exporter-down", "volumetric-attack", "port-scan", "slow-leak")


class AlertingStage:
    """Turn the anomalies of each tick into alarm changes; one alarm for each fault."""

    accepts = (FRAME, ANOMALY)
    emits = (ALARM, INCIDENT)

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
        self._rules = CauseRules(settings, network, evidence)
        self._rows: list[Row] = []
        self._alarms: dict[int, Alarm] = {}
        self._calm_since_ns = 0
        self._changes = context.metrics.counter(
            "alarm_changes_total",
            "changes of alarms by what changed",
            label="state",
            values=("raised", "updated", "cleared"),
        )
        self._held = context.metrics.counter(
            "alarms_held_total",
            "raises that were not sent, by reason",
            label="reason",
            values=("flapping", "too_many"),
        )

    # ---- stage

    def process(self, batch: Batch) -> list[Batch]:
        """Take the anomalies of a tick; changes come from `advance`."""
        if batch.schema.name == ANOMALY.name:
            self._rows += rows_of(batch, self._directory)
        return []

    def advance(self, frontier_ns: int) -> list[Batch]:
        """The tick that ends at frontier_ns is complete: judge it and move every alarm's life on."""
        rows, self._rows = self._rows, []
        claims = self._rules.claims(rows)
        primary_up = any(a.up and a.kind in PRIMARY for a in self._alarms.values())
        if claims or primary_up:
            self._calm_since_ns = frontier_ns
        aftermath = round(self._settings.aftermath_seconds * 1e9)
        explained = bool(claims) or (
            self._calm_since_ns > 0 and frontier_ns - self._calm_since_ns < aftermath
        )
        claims += self._rules.deviations(rows, explained)
        changed: list[Alarm] = []
        claimed = set()
        for claim in claims:
            claimed.add(claim.alarm_id)
            alarm = self._claim(claim, frontier_ns)
            if alarm is not None:
                changed.append(alarm)
        for key, alarm in list(self._alarms.items()):
            if key not in claimed:
                changed += self._quiet(key, alarm, frontier_ns)
        return self._batches(changed, frontier_ns)

    def _claim(self, claim: Claim, now_ns: int) -> Alarm | None:
        key = claim.alarm_id
        alarm = self._alarms.get(key)
        if alarm is None:
            if len(self._alarms) >= self._settings.alarms_max:
                self._held.add("too_many")
                return None
            alarm = self._alarms[key] = Alarm(claim.kind, claim.entity, first_ns=claim.since_ns)
        alarm.quiet_ticks = 0
        if alarm.state in ("pending", "cleared"):
            if alarm.pending_ticks == 0:
                alarm.first_ns = claim.since_ns
            alarm.pending_ticks += 1
            if alarm.pending_ticks < claim.ticks_needed:
                return None
            return self._raise(alarm, claim, now_ns)
        worse = SEVERITIES.index(claim.severity) < SEVERITIES.index(alarm.severity)
        grown = claim.score > 2.0 * alarm.best_score and claim.disposition != "hard"
        if worse or (grown and not alarm.flapping):
            alarm.state = "updated"
            return self._tell(alarm, claim, now_ns)
        return None

    def _raise(self, alarm: Alarm, claim: Claim, now_ns: int) -> Alarm | None:
        reopen = round(self._settings.reopen_seconds * 1e9)
        if not alarm.cleared_ns or now_ns - alarm.cleared_ns > reopen:
            alarm.occurrence += 1
            alarm.raised_ns = alarm.first_ns
        flap = round(self._settings.flap_seconds * 1e9)
        alarm.raises = [at for at in alarm.raises if now_ns - at < flap] + [now_ns]
        was_flapping = alarm.flapping
        alarm.flapping = len(alarm.raises) >= self._settings.flap_changes
        alarm.state, alarm.cleared_ns, alarm.pending_ticks = "raised", 0, 0
        alarm.best_score = 0.0
        told = self._tell(alarm, claim, now_ns)
        if alarm.flapping and was_flapping:
            self._held.add("flapping")  # said once when it began; the state goes on underneath
            return None
        return told

    def _tell(self, alarm: Alarm, claim: Claim, now_ns: int) -> Alarm:
        alarm.severity = claim.severity
        alarm.changed_ns = now_ns
        alarm.title = claim.title + (" (flapping)" if alarm.flapping else "")
        growing = claim.score > alarm.best_score
        alarm.best_score = max(alarm.best_score, claim.score)
        alarm.explain = {
            "what": alarm.title,
            "where": claim.entity,
            "since_ns": claim.since_ns,
            "growing": growing,
            "sure": _sure(claim),
            "actual": _six(claim.actual),
            "expected": _six(claim.expected),
            "band": [_six(claim.lower), _six(claim.upper)],
            "unit": claim.unit,
            "why": claim.evidence,
            "causes": claim.causes,
            "touches": claim.affects,
            "do": claim.advice,
            "top_talkers": claim.talkers,
            "series": claim.series,
            "disposition": claim.disposition,
        }
        return alarm

    def _quiet(self, key: int, alarm: Alarm, now_ns: int) -> list[Alarm]:
        if alarm.state == "pending":
            alarm.quiet_ticks += 1
            if alarm.quiet_ticks > 1:
                del self._alarms[key]
            return []
        if alarm.state == "cleared":
            alarm.pending_ticks = 0
            if now_ns - alarm.cleared_ns > round(self._settings.flap_seconds * 1e9):
                del self._alarms[key]
            return []
        alarm.quiet_ticks += 1
        if alarm.quiet_ticks < self._settings.clear_ticks:
            return []
        alarm.state, alarm.cleared_ns, alarm.changed_ns = "cleared", now_ns, now_ns
        alarm.pending_ticks = 0
        if alarm.flapping and len(alarm.raises) > self._settings.flap_changes:
            self._held.add("flapping")
            return []
        return [alarm]

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
            {"alarms": list(self._alarms.values()), "calm_since_ns": self._calm_since_ns}
        )
        write_array(out, "alarms", np.frombuffer(data, np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back."""
        kept = read_array(state, "alarms")
        if kept is None:
            return
        data = msgspec.msgpack.decode(kept.tobytes())
        self._calm_since_ns = int(data["calm_since_ns"])
        for fields in data["alarms"]:
            alarm = msgspec.convert(fields, Alarm)
            self._alarms[alarm_id(alarm.kind, alarm.entity)] = alarm


def alerts_of(alarms: Batch) -> list[Alert]:
    """Return the alerts of an alarm batch, in order."""
    texts = {
        name: alarms.texts(name)
        for name in ("state", "severity", "kind", "event_type", "probable_cause", "entity", "explain",
                     "specific_problem")
    }  # fmt: skip
    made = []
    for i in range(alarms.rows):
        number = id_text(int(alarms["alarm_id"][i]))
        changed = int(alarms["changed_ns"][i])
        made.append(
            Alert(
                id=number,
                change=f"{number}-{changed}-{texts['state'][i]}",
                kind=texts["kind"][i],
                entity=texts["entity"][i],
                state=texts["state"][i],
                severity=texts["severity"][i],
                title=texts["specific_problem"][i],
                changed_ns=changed,
                raised_ns=int(alarms["raised_ns"][i]),
                cleared_ns=int(alarms["cleared_ns"][i]),
                occurrence=int(alarms["occurrence"][i]),
                event_type=texts["event_type"][i],
                probable_cause=texts["probable_cause"][i],
                explain=json.loads(texts["explain"][i]),
            )
        )
    return made


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
    }


def _incident_row(alarm: Alarm) -> dict[str, Any]:
    key = alarm_id(alarm.kind, alarm.entity)
    return {
        "changed_ns": alarm.changed_ns,
        "incident_id": stable_id(f"incident|{key}|{alarm.occurrence}"),
        "opened_ns": alarm.raised_ns,
        "closed_ns": alarm.cleared_ns,
        "severity": alarm.severity,
        "title": alarm.title,
        "causes": json.dumps(alarm.explain.get("causes", []), sort_keys=True),
        "alarms": json.dumps([id_text(key)]),
    }


def _sure(claim: Claim) -> str:
    if claim.disposition == "hard":
        return "certain: the network itself says so"
    return "very sure" if claim.score > 6 else "sure" if claim.score > 3 else "likely"


def _six(value: float) -> float:
    return float(f"{value:.6g}")
