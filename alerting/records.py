"""Alerts of alarm and incident rows: rows are what is journalled, alerts what sinks and people get."""

from collections.abc import Iterable
from typing import Any

import msgspec

from alerting.alert import Alert, SealedAlert, read_json
from telemetry.batch import Batch
from telemetry.identity import id_text

TOLD = ("raised", "updated", "cleared")  # states of an incident of which people hear


SHARED = (
    "state", "severity", "kind", "event_type", "probable_cause", "entity", "source", "foreign_id",
    "operator_state", "operator", "origin",
)  # fmt: skip


def alerts_of(alarms: Batch) -> list[Alert]:
    """Return the alerts of an alarm batch, in order: one for each change of each alarm."""
    return [sealed.opened() for sealed in sealed_alerts(alarms)]


def notices_of(incidents: Batch) -> list[Alert]:
    """Return what people are told of an incident batch (`sealed_notices`)."""
    return [sealed.opened() for sealed in sealed_notices(incidents)]


def sealed_alerts(alarms: Batch) -> list[SealedAlert]:
    """Return the alerts of an alarm batch as the outbox takes them."""
    rows = _rows(
        alarms, (*SHARED, "explain", "specific_problem", "suppressed"),
        ("alarm_id", "changed_ns", "raised_ns", "cleared_ns", "occurrence", "incident_id"),
    )  # fmt: skip
    return [
        _sealed(
            shared, number=number, changed_ns=changed_ns, explain=explain, title=title,
            raised_ns=raised_ns, cleared_ns=cleared_ns, occurrence=occurrence, suppressed=suppressed,
            incident=id_text(incident) if incident else "",
        )
        for (*shared, explain, title, suppressed), (
            number, changed_ns, raised_ns, cleared_ns, occurrence, incident,
        ) in rows
    ]  # fmt: skip


def sealed_notices(incidents: Batch) -> list[SealedAlert]:
    """Return what people are told: one alert for each change of an incident, told as its lead alarm.

    An incident of one alarm reads as that alarm; one of many carries the others as symptoms. Those
    that wait for company are told to nobody, nor are those that were merged before anybody heard of
    them; one that was merged later is over, and says into which.
    """
    rows = _rows(
        incidents, (*SHARED, "explain", "title", "symptoms"),
        ("lead_alarm_id", "changed_ns", "opened_ns", "closed_ns", "occurrence", "incident_id",
         "alarms_count", "parent_incident_id"),
    )  # fmt: skip
    made = []
    for (state, *others, explain, title, symptoms), (
        number, changed_ns, opened_ns, closed_ns, occurrence, incident, alarms_count, parent,
    ) in rows:  # fmt: skip
        if state in TOLD:
            merged = f"{title} (now part of incident {id_text(parent)})" if parent else title
            made.append(
                _sealed(
                    (state, *others), number=number, changed_ns=changed_ns, explain=explain, title=merged,
                    raised_ns=opened_ns, cleared_ns=closed_ns, occurrence=occurrence,
                    incident=id_text(incident), symptoms=tuple(read_json(symptoms)),
                    alarms_count=alarms_count,
                )
            )  # fmt: skip
    return made


def _sealed(
    shared: Iterable[str], *, number: int, changed_ns: int, explain: str, **fields: Any
) -> SealedAlert:
    """Return the alert of a row: what rows of alarms and incidents say alike, and the other fields."""
    fields.update(zip(SHARED, shared, strict=True))
    name = id_text(number)
    return SealedAlert(
        id=name, change=f"{name}-{changed_ns}-{fields['state']}", changed_ns=changed_ns,
        explain=msgspec.Raw(explain.encode()), **fields,
    )  # fmt: skip


def _rows(
    batch: Batch, texts: Iterable[str], numbers: Iterable[str]
) -> Iterable[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return the rows of a batch: (texts, numbers) of each."""
    words = zip(*(batch.texts(name) for name in texts), strict=True)
    return zip(words, zip(*(batch[name].tolist() for name in numbers), strict=True), strict=True)
