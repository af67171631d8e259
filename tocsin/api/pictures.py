"""Pictures of alarms and incidents for tickets, mail and chat: the series, its band, what happened."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alerting.words.amounts import SIGNS
from alerting.words.picture import picture
from history.reader import HistoryReader, Line

HOUR_NS = 3_600_000_000_000
BEFORE_NS = HOUR_NS  # so much of what came before an alarm is shown
AFTER_NS = HOUR_NS // 4  # and of what came after it
LONGEST_NS = 48 * HOUR_NS  # of an alarm that stands for weeks, the end
ALARMS_LOOKED_AT = 10  # of an incident: the first of them that has a series is shown
MARKS_MAX = 12
CHANGES_READ = 200
MEASURES = {"By/s": "octets", "{packet}/s": "packets", "{flow}/s": "flows", "{record}/s": "records"}
# measure: (factor, unit): what people call the values
SHOWN = {
    "octets": (8.0, "bit/s"), "packets": (1.0, "packets/s"), "flows": (1.0, "flows/s"),
    "records": (1.0, "records/s"),
}  # fmt: skip


def of_alarm(history: HistoryReader, number: int, *, now_ns: int) -> str:
    """Return the picture of an alarm as SVG, "" where the history has no such alarm or no series of it."""
    changes = history.alarm_changes(number, limit=CHANGES_READ)
    return of_changes(history, changes, now_ns=now_ns) if changes else ""


def of_changes(history: HistoryReader, changes: Sequence[Mapping[str, Any]], *, now_ns: int) -> str:
    """Return the picture of an alarm by its changes, the newest first; "" where no series is stored."""
    newest = changes[0]
    told = _block(newest["explain"])
    raised_ns = int(newest["raised_ns"])
    end_ns = int(newest["cleared_ns"]) + AFTER_NS if newest["cleared_ns"] else now_ns
    until_ns = min(end_ns, now_ns)
    since_ns = max(raised_ns - BEFORE_NS, until_ns - LONGEST_NS)
    line = history.line(
        [int(text, 16) for text in told.get("series", [])[:1]], str(newest["entity"]),
        measure=MEASURES.get(told.get("unit", ""), ""), since_ns=since_ns, until_ns=until_ns,
    )  # fmt: skip
    return _draw(line, str(newest["specific_problem"]), _marks(changes)) if line else ""


def of_alert(history: HistoryReader, alert: Mapping[str, Any], *, now_ns: int) -> str:
    """Return the picture of an alarm as the node tells it: the history follows a little later."""
    return of_changes(history, [{**alert, "specific_problem": alert["title"]}], now_ns=now_ns)


def of_incident(history: HistoryReader, number: int, *, now_ns: int) -> str:
    """Return the picture of the first alarm of an incident that has one, its lead alarm before all."""
    row = history.incident(number)
    if row is None:
        return ""
    alarms = [int(row["lead_alarm_id"]), *(int(one, 16) for one in json.loads(row["alarms"]))]
    for alarm in list(dict.fromkeys(alarms))[:ALARMS_LOOKED_AT]:
        if made := of_alarm(history, alarm, now_ns=now_ns):
            return made
    return ""


def _draw(line: Line, title: str, marks: list[tuple[int, str]]) -> str:
    factor, unit = 1.0, SIGNS.get(line.unit, line.unit) or line.measure
    if line.measure in SHOWN:
        factor, unit = SHOWN[line.measure]
    elif line.unit == "By/s":
        factor, unit = SHOWN["octets"]
    scaled = [
        [value * factor for value in column] for column in (line.values, line.lower, line.upper)
    ]
    return picture(
        line.times_ns, scaled[0], lower=scaled[1], upper=scaled[2], marks=marks,
        title=f"{title} ({line.entity})" if line.entity not in title else title, unit=unit,
    )  # fmt: skip


def _marks(changes: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Return when it was raised, taken on, and cleared, the newest times."""
    made: list[tuple[int, str]] = []
    was, acknowledged = "", False
    for row in reversed(changes):
        state, at_ns = str(row["state"]), int(row["changed_ns"])
        if state in ("raised", "cleared") and state != was:
            made.append((int(row["raised_ns"]) if state == "raised" else at_ns, state))
        elif row["operator_state"] == "acknowledged" and not acknowledged:
            made.append((at_ns, "acknowledged"))
        was, acknowledged = state, row["operator_state"] == "acknowledged"
    return made[-MARKS_MAX:]


def _block(explain: Any) -> dict[str, Any]:
    try:
        made = json.loads(explain or "{}") if isinstance(explain, str) else explain
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}
