"""Alerts of alarm and incident rows: rows are what is journalled, alerts what sinks and people get."""

from collections.abc import Iterable

from msgspec import Raw

from alerting.words.alert import Alert, SealedAlert, read_json
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
        alarms, (*SHARED, "specific_problem", "suppressed"),
        ("alarm_id", "changed_ns", "raised_ns", "cleared_ns", "occurrence", "incident_id"),
    )  # fmt: skip
    return [
        SealedAlert(
            id=(name := id_text(number)), change=f"{name}-{changed_ns}-{state}", state=state,
            severity=severity, kind=kind, event_type=event_type, probable_cause=probable_cause,
            entity=entity, source=source, foreign_id=foreign_id, operator_state=operator_state,
            operator=operator, origin=origin, changed_ns=changed_ns, title=title,
            explain=Raw(explain), raised_ns=raised_ns, cleared_ns=cleared_ns,
            occurrence=occurrence, suppressed=suppressed,
            incident=id_text(incident) if incident else "",
        )
        for (
            state, severity, kind, event_type, probable_cause, entity, source, foreign_id,
            operator_state, operator, origin, title, suppressed,
        ), (number, changed_ns, raised_ns, cleared_ns, occurrence, incident), explain in rows
    ]  # fmt: skip


def sealed_notices(incidents: Batch) -> list[SealedAlert]:
    """Return what people are told: one alert for each change of an incident, under the id of its lead alarm.

    It reads as the alarm that seems to be the cause and carries the others as symptoms. Those
    that wait for company are told to nobody, nor are those that were merged before anybody heard of
    them; one that was merged later is over, and says into which.
    """
    rows = _rows(
        incidents, (*SHARED, "title", "symptoms"),
        ("lead_alarm_id", "changed_ns", "opened_ns", "closed_ns", "occurrence", "incident_id",
         "alarms_count", "parent_incident_id"),
    )  # fmt: skip
    return [
        SealedAlert(
            id=(name := id_text(number)), change=f"{name}-{changed_ns}-{state}", state=state,
            severity=severity, kind=kind, event_type=event_type, probable_cause=probable_cause,
            entity=entity, source=source, foreign_id=foreign_id, operator_state=operator_state,
            operator=operator, origin=origin, changed_ns=changed_ns,
            title=f"{title} (now part of incident {id_text(parent)})" if parent else title,
            explain=Raw(explain), raised_ns=opened_ns, cleared_ns=closed_ns,
            occurrence=occurrence, incident=id_text(incident), parent=id_text(parent) if parent else "",
            symptoms=() if symptoms == "[]" else tuple(read_json(symptoms)),
            alarms_count=alarms_count,
        )
        for (
            state, severity, kind, event_type, probable_cause, entity, source, foreign_id,
            operator_state, operator, origin, title, symptoms,
        ), (
            number, changed_ns, opened_ns, closed_ns, occurrence, incident, alarms_count, parent,
        ), explain in rows
        if state in TOLD
    ]  # fmt: skip


def _rows(
    batch: Batch, texts: Iterable[str], numbers: Iterable[str]
) -> Iterable[tuple[tuple[str, ...], tuple[int, ...], bytes]]:
    """Return the rows of a batch: (texts, numbers, explain block) of each."""
    words = zip(*(batch.texts(name) for name in texts), strict=True)
    values = zip(*(batch[name].tolist() for name in numbers), strict=True)
    return zip(words, values, batch.raw_texts("explain"), strict=True)
