"""Alarms that others state (traps, log lines, VES, other managers) as rows of schema `alarm`.

Every collector makes them here, so that key, id and fields are the same whatever the source.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from telemetry.identity import stable_id
from telemetry.x733 import CLEARED, EVENT_TYPE_OF, SEVERITIES


def foreign_alarm_id(source: str, kind: str, entity: str, qualifier: str = "") -> int:
    """Return the id of a foreign alarm: who says it, what, of which resource; no severity, no state.

    Source: RFC 8632 section 3.1 (resource, alarm-type-id, alarm-type-qualifier).
    """
    return stable_id(f"alarm|{source}|{kind}|{entity}|{qualifier}")


def alarm_row(
    *,
    source: str,
    kind: str,
    entity: str,
    severity: str,
    changed_ns: int,
    title: str,
    qualifier: str = "",
    raised_ns: int = 0,
    event_type: str = "",
    probable_cause: str = "other",
    text: str = "",
    foreign_id: str = "",
    occurrence: int = 1,
    detail: Mapping[str, Any] | None = None,
    do: str = "",
) -> dict[str, Any]:
    """Return one change of a foreign alarm, for `batch_from_rows(ALARM, rows)`.

    `source` is the name of the collector or source in the configuration ("edge-traps"); `kind` the
    alarm type ("linkDown", "bgpBackwardTransition"); `entity` the managed object as people call it
    (`ams1:et-0/0/3`); `qualifier` tells several alarms of one type on one entity apart. `severity`
    is one of ours or "cleared"; a clear carries the same source, kind, entity and qualifier as its
    raise. `detail` goes to the explain block (varbinds, original fields), as does `do`: what to do about
    it, where the source knows. Raises ValueError for a severity that is none of these.
    """
    if severity != CLEARED and severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}, {CLEARED}")
    cleared = severity == CLEARED
    return {
        "changed_ns": changed_ns,
        "alarm_id": foreign_alarm_id(source, kind, entity, qualifier),
        "raised_ns": raised_ns or (0 if cleared else changed_ns),
        "cleared_ns": changed_ns if cleared else 0,
        "state": "cleared" if cleared else "raised",
        "severity": "indeterminate" if cleared else severity,
        "kind": kind,
        "event_type": event_type or EVENT_TYPE_OF.get(probable_cause, "other"),
        "probable_cause": probable_cause,
        "entity_id": stable_id(entity),
        "entity": entity,
        "specific_problem": title,
        "additional_text": text,
        "source": source,
        "foreign_id": foreign_id,
        "explain": msgspec.json.encode(
            {"detail": detail or {}} | ({"do": do} if do else {}), order="sorted"
        ).decode(),
        "occurrence": occurrence,
    }
