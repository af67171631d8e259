"""Alerts of alarm and incident rows: rows are what is journalled, alerts what sinks and people get."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from alerting.alert import Alert
from telemetry.batch import Batch
from telemetry.identity import id_text

TOLD = ("raised", "updated", "cleared")  # states of an incident of which people hear


SHARED = (
    "state", "severity", "kind", "event_type", "probable_cause", "entity", "explain", "source",
    "foreign_id", "operator_state", "operator", "origin",
)  # fmt: skip


def alerts_of(alarms: Batch) -> list[Alert]:
    """Return the alerts of an alarm batch, in order: one for each change of each alarm."""
    texts = _texts(alarms, (*SHARED, "specific_problem", "suppressed"))
    made = []
    for i in range(alarms.rows):
        incident = int(alarms["incident_id"][i])
        made.append(
            _alert(
                texts, i, number=int(alarms["alarm_id"][i]), changed_ns=int(alarms["changed_ns"][i]),
                title=texts["specific_problem"][i],
                raised_ns=int(alarms["raised_ns"][i]),
                cleared_ns=int(alarms["cleared_ns"][i]),
                occurrence=int(alarms["occurrence"][i]),
                suppressed=texts["suppressed"][i],
                incident=id_text(incident) if incident else "",
            )
        )  # fmt: skip
    return made


def notices_of(incidents: Batch) -> list[Alert]:
    """Return what people are told: one alert for each change of an incident, told as its lead alarm.

    An incident of one alarm reads as that alarm; one of many carries the others as symptoms. Those
    that wait for company are told to nobody, nor are those that were merged before anybody heard of
    them; one that was merged later is over, and says into which.
    """
    texts = _texts(incidents, (*SHARED, "title", "symptoms"))
    made = []
    for i in range(incidents.rows):
        title = texts["title"][i]
        if texts["state"][i] not in TOLD:
            continue
        if parent := int(incidents["parent_incident_id"][i]):
            title = f"{title} (now part of incident {id_text(parent)})"
        made.append(
            _alert(
                texts, i, number=int(incidents["lead_alarm_id"][i]),
                changed_ns=int(incidents["changed_ns"][i]),
                title=title,
                raised_ns=int(incidents["opened_ns"][i]),
                cleared_ns=int(incidents["closed_ns"][i]),
                occurrence=int(incidents["occurrence"][i]),
                incident=id_text(int(incidents["incident_id"][i])),
                symptoms=tuple(read_json(texts["symptoms"][i])),
                alarms_count=int(incidents["alarms_count"][i]),
            )
        )  # fmt: skip
    return made


def _alert(
    texts: dict[str, list[str]], i: int, *, number: int, changed_ns: int, **fields: Any
) -> Alert:
    """Return the alert of a row: what rows of alarms and incidents say alike, and the other fields."""
    shared: dict[str, Any] = {name: texts[name][i] for name in SHARED if name != "explain"}
    name = id_text(number)
    return Alert(
        id=name, change=f"{name}-{changed_ns}-{shared['state']}", changed_ns=changed_ns,
        explain=read_json(texts["explain"][i]), **shared, **fields,
    )  # fmt: skip


def read_json(text: str) -> Any:
    """Return what a column of JSON holds; half a surrogate pair is left for the outbox to mend."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return json.loads(text)


def _texts(batch: Batch, names: Iterable[str]) -> dict[str, list[str]]:
    return {name: batch.texts(name) for name in names}
