"""Alerts of alarm and incident rows: rows are what is journalled, alerts what sinks and people get."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from alerting.alert import Alert
from telemetry.batch import Batch
from telemetry.identity import id_text

TOLD = ("raised", "updated", "cleared")  # states of an incident of which people hear


def alerts_of(alarms: Batch) -> list[Alert]:
    """Return the alerts of an alarm batch, in order: one for each change of each alarm."""
    texts = _texts(
        alarms,
        ("state", "severity", "kind", "event_type", "probable_cause", "entity", "explain",
         "specific_problem", "source", "foreign_id", "operator_state", "operator", "suppressed",
         "origin"),
    )  # fmt: skip
    made = []
    for i in range(alarms.rows):
        number = id_text(int(alarms["alarm_id"][i]))
        changed = int(alarms["changed_ns"][i])
        incident = int(alarms["incident_id"][i])
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
                explain=read_json(texts["explain"][i]),
                source=texts["source"][i],
                foreign_id=texts["foreign_id"][i],
                operator_state=texts["operator_state"][i],
                operator=texts["operator"][i],
                suppressed=texts["suppressed"][i],
                incident=id_text(incident) if incident else "",
                origin=texts["origin"][i],
            )
        )
    return made


def notices_of(incidents: Batch) -> list[Alert]:
    """Return what people are told: one alert for each change of an incident, told as its lead alarm.

    An incident of one alarm reads as that alarm; one of many carries the others as symptoms. Those
    that wait for company are told to nobody, nor are those that were merged before anybody heard of
    them; one that was merged later is over, and says into which.
    """
    texts = _texts(
        incidents,
        ("state", "severity", "kind", "event_type", "probable_cause", "entity", "explain", "title",
         "source", "foreign_id", "operator_state", "operator", "symptoms", "origin"),
    )  # fmt: skip
    made = []
    for i in range(incidents.rows):
        state, title = texts["state"][i], texts["title"][i]
        closed = int(incidents["closed_ns"][i])
        if state not in TOLD:
            continue
        if parent := int(incidents["parent_incident_id"][i]):
            title = f"{title} (now part of incident {id_text(parent)})"
        number = id_text(int(incidents["lead_alarm_id"][i]))
        changed = int(incidents["changed_ns"][i])
        made.append(
            Alert(
                id=number,
                change=f"{number}-{changed}-{state}",
                kind=texts["kind"][i],
                entity=texts["entity"][i],
                state=state,
                severity=texts["severity"][i],
                title=title,
                changed_ns=changed,
                raised_ns=int(incidents["opened_ns"][i]),
                cleared_ns=closed,
                occurrence=int(incidents["occurrence"][i]),
                event_type=texts["event_type"][i],
                probable_cause=texts["probable_cause"][i],
                explain=read_json(texts["explain"][i]),
                source=texts["source"][i],
                foreign_id=texts["foreign_id"][i],
                operator_state=texts["operator_state"][i],
                operator=texts["operator"][i],
                incident=id_text(int(incidents["incident_id"][i])),
                symptoms=tuple(read_json(texts["symptoms"][i])),
                alarms_count=int(incidents["alarms_count"][i]),
                origin=texts["origin"][i],
            )
        )
    return made


def read_json(text: str) -> Any:
    """Return what a column of JSON holds; half a surrogate pair is left for the outbox to mend."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json.loads(text)


def _texts(batch: Batch, names: Iterable[str]) -> dict[str, list[str]]:
    return {name: batch.texts(name) for name in names}
