"""VES events in our words: alarms, samples, log rows, signs of life. Pure: an event in, rows out.

Source: ONAP VES Event Listener 7.2.1 (sections "fault", "heartbeat", "measurement", "syslog",
"thresholdCrossingAlert", "stndDefined") and 5.4.1; 3GPP TS 28.532 and 28.111 for what stndDefined
events carry.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors.foreign_sync import ForeignAlarm
from collectors.foreign_text import LATEST_NS, clean, integer, iso_ns
from collectors.ves.measurements import Measured, measured, measured_3gpp, measured_stream
from telemetry.x733 import CAUSE_NAMES, CLEARED, EVENT_TYPES, SEVERITIES, severity_from

FAULT_NAMESPACE = "3GPP-FaultSupervision"
HEARTBEAT_NAMESPACE = "3GPP-Heartbeat"
ALARM_NOTIFICATIONS = (
    "notifyNewAlarm",
    "notifyNewSecAlarm",
    "notifyChangedAlarm",
    "notifyChangedAlarmGeneral",
    "notifyChangedSecAlarmGeneral",
    "notifyClearedAlarm",
)
SYSLOG_SEVERITIES = (
    "Emergency",
    "Alert",
    "Critical",
    "Error",
    "Warning",
    "Notice",
    "Info",
    "Debug",
)
PRIORITY_AS_SYSLOG = {"High": 3, "Medium": 4, "Normal": 6, "Low": 7}
FACILITY_LOCAL7 = 23
MESSAGE_MAX = 8_192
CATEGORIES = {
    "link": "communicationsAlarm",
    "routing": "communicationsAlarm",
    "signaling": "communicationsAlarm",
    "communication": "communicationsAlarm",
    "license": "processingErrorAlarm",
    "software": "processingErrorAlarm",
    "security": "securityServiceOrMechanismViolation",
    "equipment": "equipmentAlarm",
    "hardware": "equipmentAlarm",
    "environment": "environmentalAlarm",
    "qos": "qualityOfServiceAlarm",
}


@dataclass(slots=True)
class Reading:
    """What one or more events say."""

    alarms: list[ForeignAlarm] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    heartbeats: dict[str, float] = field(default_factory=dict)  # source: promised interval, s
    keep_suspect: bool = False  # take numbers that their sender does not trust


def epoch_ns(value: object) -> int:
    """Return a time of a header in ns: microseconds, or what senders mistake for them.

    >>> epoch_ns(1534868602564759), epoch_ns(1539239592379), epoch_ns(1531616794), epoch_ns(-1)
    (1534868602564759000, 1539239592379000000, 1531616794000000000, 0)
    """
    made = integer(value)
    for limit, scale in ((10**11, 10**9), (10**14, 10**6), (9 * 10**15, 10**3)):
        if 0 < made < limit:
            return made * scale if made * scale < LATEST_NS else 0
    return 0


def read_event(event: Mapping[str, Any], out: Reading, arrival_ns: int) -> None:
    """Add what a checked event says."""
    header = event["commonEventHeader"]
    domain = header["domain"]
    if domain == "fault":
        out.alarms.append(fault_alarm(header, event["faultFields"]))
    elif domain == "thresholdCrossingAlert":
        out.alarms.append(threshold_alarm(header, event["thresholdCrossingAlertFields"]))
    elif domain in ("measurement", "measurementsForVfScaling"):
        out.measured.append(
            measured(
                header,
                event[f"{domain}Fields"],
                epoch_ns(header["lastEpochMicrosec"]),
                keep_suspect=out.keep_suspect,
            )
        )
    elif domain == "perf3gpp":
        block = event["perf3gppFields"]["measDataCollection"]
        out.measured.append(
            measured_3gpp(
                header, block, epoch_ns(header["lastEpochMicrosec"]), keep_suspect=out.keep_suspect
            )
        )
    elif domain == "heartbeat":
        interval = event.get("heartbeatFields", {}).get("heartbeatInterval", -1)
        out.heartbeats[clean(header["sourceName"])] = float(interval)
    elif domain == "syslog":
        out.logs.append(syslog_row(header, event["syslogFields"], arrival_ns))
    elif domain == "stndDefined":
        _standard(event, out, arrival_ns)
    else:
        out.logs.append(log_row(event, arrival_ns))


def fault_alarm(header: Mapping[str, Any], block: Mapping[str, Any]) -> ForeignAlarm:
    """Return the alarm of a fault event: its key is source, interface and alarm condition."""
    more = block.get("alarmAdditionalInformation", {})
    if isinstance(more, list):  # the 5.x form: [{"name": ..., "value": ...}]
        more = {clean(pair.get("name")): pair.get("value") for pair in more}
    category = clean(block.get("eventCategory")).lower()
    event_type = next((t for word, t in CATEGORIES.items() if category.startswith(word)), "")
    return ForeignAlarm(
        kind=clean(block["alarmCondition"], 200),
        entity=_entity(header, block.get("alarmInterfaceA")),
        severity=severity_from("ves", block["eventSeverity"]),
        title=clean(block["specificProblem"], 500),
        changed_ns=epoch_ns(header["lastEpochMicrosec"]),
        raised_ns=epoch_ns(header["startEpochMicrosec"]),
        event_type=event_type,
        foreign_id=clean(header["eventId"], 200),
        detail={
            **_origin(header),
            "event_source_type": clean(block["eventSourceType"]),
            "status": clean(block["vfStatus"]),
            "category": clean(block.get("eventCategory")),
            "information": {clean(k): clean(v) for k, v in more.items()},
        },
    )


def threshold_alarm(header: Mapping[str, Any], block: Mapping[str, Any]) -> ForeignAlarm:
    """Return the alarm of a threshold crossing: SET and CONT raise it, CLEAR ends it."""
    severity = severity_from("ves", block["eventSeverity"])
    if block["alertAction"] == "CLEAR":
        severity = CLEARED
    crossed = [clean(c.get("thresholdCrossed")) for c in block["additionalParameters"]]
    description = clean(block["alertDescription"], 200)
    value = clean(block.get("alertValue"))
    return ForeignAlarm(
        kind=description,
        entity=_entity(header, block.get("interfaceName")),
        severity=severity,
        title=f"{description}: {value or 'threshold crossed'}",
        changed_ns=epoch_ns(header["lastEpochMicrosec"]),
        raised_ns=epoch_ns(header["startEpochMicrosec"]),
        event_type="qualityOfServiceAlarm",
        probable_cause="thresholdCrossed",
        text="; ".join(text for text in crossed if text),
        foreign_id=clean(header["eventId"], 200),
        detail={
            **_origin(header),
            "alert_type": block["alertType"],
            "parameters": block["additionalParameters"],
            "possible_root_cause": clean(block.get("possibleRootCause")),
        },
    )


def syslog_row(
    header: Mapping[str, Any], block: Mapping[str, Any], arrival_ns: int
) -> dict[str, Any]:
    """Return the log row of a syslog event."""
    priority = integer(block.get("syslogPri"), -1)
    named = clean(block.get("syslogSev"))
    severity = SYSLOG_SEVERITIES.index(named) if named in SYSLOG_SEVERITIES else 6
    facility = integer(block.get("syslogFacility"), FACILITY_LOCAL7)
    if 0 <= priority <= 191:
        facility, severity = divmod(priority, 8)
    host = block.get("syslogMsgHost") or block.get("eventSourceHost") or header["sourceName"]
    return _log(
        epoch_ns(header["lastEpochMicrosec"]) or arrival_ns,
        arrival_ns,
        host=clean(host, 255),
        app=clean(block.get("syslogProc") or block["syslogTag"], 128),
        severity=severity,
        message=clean(block["syslogMsg"], MESSAGE_MAX),
        facility=min(max(facility, 0), FACILITY_LOCAL7),
    )


def log_row(event: Mapping[str, Any], arrival_ns: int) -> dict[str, Any]:
    """Return an event of a domain that has no table of its own as a log row."""
    header = event["commonEventHeader"]
    blocks = {name: block for name, block in event.items() if name != "commonEventHeader"}
    body = json.dumps(blocks, ensure_ascii=False, separators=(",", ":"))
    return _log(
        epoch_ns(header["lastEpochMicrosec"]) or arrival_ns,
        arrival_ns,
        host=clean(header["sourceName"], 255),
        app=f"ves-{header['domain']}",
        severity=PRIORITY_AS_SYSLOG[header["priority"]],
        message=clean(f"{header['eventName']} {body}", MESSAGE_MAX),
    )


def _log(
    time_ns: int,
    arrival_ns: int,
    *,
    host: str,
    app: str,
    severity: int,
    message: str,
    facility: int = FACILITY_LOCAL7,
) -> dict[str, Any]:
    return {
        "time_ns": min(time_ns, arrival_ns),  # nothing is logged before it happened
        "arrival_ns": arrival_ns,
        "host": host,
        "facility": facility,
        "severity": severity,
        "app": app,
        "variables": "[]",
        "message": message,
    }


def _standard(event: Mapping[str, Any], out: Reading, arrival_ns: int) -> None:
    header = event["commonEventHeader"]
    namespace = header["stndDefinedNamespace"]
    data = event["stndDefinedFields"]["data"]
    told = data.get("notificationType")
    is_fault = namespace == FAULT_NAMESPACE or not namespace.startswith("3GPP-")
    if namespace == HEARTBEAT_NAMESPACE:
        interval = data.get("heartbeatNtfPeriod", -1)
        out.heartbeats[clean(header["sourceName"])] = float(integer(interval, -1))
    elif is_fault and told in ALARM_NOTIFICATIONS and data.get("alarmId") not in (None, ""):
        out.alarms.append(standard_alarm(header, data))
    elif isinstance(data.get("measurements"), list):
        out.measured.append(measured_stream(header, data, epoch_ns(header["lastEpochMicrosec"])))
    else:
        out.logs.append(log_row(event, arrival_ns))


def standard_alarm(header: Mapping[str, Any], data: Mapping[str, Any]) -> ForeignAlarm:
    """Return the alarm of a 3GPP notification (TS 28.532 clause 11.2, TS 28.111 clause 12).

    New, changed and cleared carry alarmId and alarmType alike, so these are its key.
    """
    event_type = event_type_of(data.get("alarmType"))
    number = integer(data.get("probableCause"), -1)
    cause = CAUSE_NAMES.get(number) or clean(data.get("probableCause"), 200) or "other"
    word = clean(data.get("perceivedSeverity")).lower()
    severity = word if word in (*SEVERITIES, CLEARED) else "indeterminate"
    if data["notificationType"] == "notifyClearedAlarm":
        severity = CLEARED
    problem = clean(data.get("specificProblem"), 500)
    time_ns = epoch_ns(header["lastEpochMicrosec"])
    with contextlib.suppress(ValueError):  # else the header's time stands
        time_ns = iso_ns(clean(data.get("eventTime")))
    return ForeignAlarm(
        kind=event_type,
        entity=_entity(header, _distinguished_name(data.get("href"))),
        severity=severity,
        title=problem or clean(data.get("additionalText"), 500) or cause,
        qualifier=clean(data["alarmId"], 200),
        changed_ns=time_ns,
        event_type=event_type,
        probable_cause=cause,
        text=clean(data.get("additionalText")),
        foreign_id=clean(data["alarmId"], 200),
        detail={
            **_origin(header),
            "notification": data["notificationType"],
            "system": clean(data.get("systemDN")),
            "repair": clean(data.get("proposedRepairActions")),
            "root_cause": bool(data.get("rootCauseIndicator")),
            "trend": clean(data.get("trendIndication")),
            "threshold": data.get("thresholdInfo") or {},
            "information": data.get("additionalInformation") or {},
            "correlated": data.get("correlatedNotifications") or [],
        },
    )


def event_type_of(word: object) -> str:
    """Return an X.733 event type from the words others have for it, "other" where unknown.

    >>> event_type_of("COMMUNICATIONS_ALARM"), event_type_of("processingErrorAlarm"), event_type_of(7)
    ('communicationsAlarm', 'processingErrorAlarm', 'other')
    """
    flat = re.sub(r"[^a-z]", "", str(word).lower())
    return _EVENT_TYPES.get(flat, "other")


_EVENT_TYPES = {
    flat: name
    for name in EVENT_TYPES
    for flat in (name.lower(), name.lower().removesuffix("alarm"))
} | {"environmentalarm": "environmentalAlarm", "communicationalarm": "communicationsAlarm"}


def _distinguished_name(href: object) -> str:
    """Return the part of a 3GPP object's address that names it: from its first `Class=id` on."""
    parts = clean(href).split("/")
    first = next((i for i, part in enumerate(parts) if "=" in part and "?" not in part), None)
    return "" if first is None else "/".join(parts[first:])


def _entity(header: Mapping[str, Any], part: object) -> str:
    name, component = clean(header["sourceName"], 255), clean(part, 255)
    return f"{name}:{component}" if component else name


def _origin(header: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event_name": clean(header["eventName"]),
        "reported_by": clean(header["reportingEntityName"]),
        "vendor": clean(header.get("nfVendorName")),
    }
