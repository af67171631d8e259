"""Comparing what was found with what was played: found, cause right, false, delay, and told how long before."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tocsin.demo.faults import NO_FAULT, SLOW
from tocsin.demo.traffic import Fault

AFTERMATH_NS = 300_000_000_000
TICKS_TO_FIND = 3
ADDS_UP_NS = 60_000_000_000  # tries, questions and sources that show by their number


@dataclass(frozen=True, slots=True)
class Judged:
    """One fault and the alarm that found it."""

    fault: Fault
    found: bool
    delay_seconds: float
    cause_right: bool
    alarm: str
    # Of a slow fault: so long before its limit was passed it was predicted.
    lead_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """A whole run."""

    judged: tuple[Judged, ...]
    false: tuple[dict[str, Any], ...]
    # Raised during a fault, but naming neither it nor its victims.
    elsewhere: tuple[dict[str, Any], ...]
    predictions: tuple[int, int] = (0, 0)  # told, and of those that came true
    unjudged: tuple[Fault, ...] = ()  # not found yet, and there was time left to

    @property
    def found(self) -> int:
        """How many faults were found."""
        return sum(one.found for one in self.judged)

    @property
    def cause_right(self) -> int:
        """How many of them under the right cause."""
        return sum(one.cause_right for one in self.judged)


def judge(
    faults: Sequence[Fault],
    alerts: Sequence[dict[str, Any]],
    *,
    tick_ns: int,
    lateness_ns: int,
    until_ns: int,
) -> Score:
    """Score alerts (as sent) against the faults that were found, or began early enough to be.

    Found: an alarm on the fault's entity, or on one it affects, raised by the end of the third whole tick
    after its start (a slow fault: before its end; a class of security: within a minute). Cause right: the
    first-ranked cause names kind and entity. Predicted: a `predicted` alert on it came true. False: an
    alarm that overlaps no fault nor the 5 minutes after it. Elsewhere: one that does, but is neither on a
    fault's entity or one it affects, nor names such a fault as cause: told beside the figures, for an
    operator would be sent to the wrong place. The delay counts until the alert leaves: the end of its tick
    and the lateness.
    """
    raised = [alert for alert in alerts if alert["state"] == "raised"]
    judged, unjudged = [], []
    for fault in faults:
        if fault.kind in NO_FAULT:
            continue
        first_whole_tick_ns = -(-fault.start_ns // tick_ns) * tick_ns
        latest = first_whole_tick_ns + TICKS_TO_FIND * tick_ns
        if fault.kind in SLOW:
            latest = fault.end_ns
        elif "class" in fault.detail:
            latest = max(latest, fault.start_ns + ADDS_UP_NS)
        hits = [
            alert
            for alert in raised
            if fault.start_ns < alert["changed_ns"] - lateness_ns <= latest
            and _concerns(fault, alert)
        ]
        hits.sort(key=lambda alert: (not _right(fault, alert), alert["changed_ns"]))
        if not hits and latest + lateness_ns > until_ns:
            unjudged.append(fault)
            continue
        best = hits[0] if hits else None
        delay = (best["changed_ns"] - fault.start_ns) / 1e9 if best else 0.0
        judged.append(
            Judged(
                fault, best is not None, delay, best is not None and _right(fault, best),
                best["title"] if best else "", _lead_seconds(fault, alerts),
            )
        )  # fmt: skip
    real = [fault for fault in faults if fault.kind not in NO_FAULT]
    false, elsewhere = [], []
    for alert in raised:
        around = [
            fault
            for fault in real
            if fault.start_ns <= alert["changed_ns"] - lateness_ns
            and alert["raised_ns"] <= fault.end_ns + AFTERMATH_NS
        ]
        if not around:
            false.append(alert)
        elif not any(_concerns(fault, alert) or _right(fault, alert) for fault in around):
            elsewhere.append(alert)
    told = {alert["id"] for alert in raised if alert["kind"] == "predicted"}
    true = {alert["id"] for alert in alerts if _outcome(alert) in ("hit", "late")} & told
    predictions = len(told), len(true)
    return Score(tuple(judged), tuple(false), tuple(elsewhere), predictions, tuple(unjudged))


def _outcome(alert: dict[str, Any]) -> str:
    return str(alert["explain"].get("forecast", {}).get("outcome", ""))


def _lead_seconds(fault: Fault, alerts: Sequence[dict[str, Any]]) -> float:
    """Return how long before its limit was passed a fault was predicted; 0 where it was not."""
    if fault.kind not in SLOW:
        return 0.0
    leads = [
        alert["explain"]["forecast"]["ended_ns"] - alert["explain"]["forecast"]["made_ns"]
        for alert in alerts
        if _outcome(alert) in ("hit", "late")
        and fault.start_ns <= alert["explain"]["forecast"]["made_ns"] < fault.end_ns
        and _concerns(fault, alert)
    ]
    return max(leads, default=0) / 1e9


def _concerns(fault: Fault, alert: dict[str, Any]) -> bool:
    entity = str(alert["entity"])
    return entity == fault.entity or entity in fault.affects


def _right(fault: Fault, alert: dict[str, Any]) -> bool:
    causes = alert["explain"].get("causes") or [{}]
    return bool(causes[0].get("kind") == fault.kind and causes[0].get("entity") == fault.entity)


def table(score: Score) -> str:
    """Return the table that the demo ends with."""
    rows = [("fault", "entity", "found", "delay", "cause right", "predicted")]
    for one in score.judged:
        rows.append(
            (
                one.fault.kind,
                one.fault.entity,
                "yes" if one.found else "NO",
                f"{one.delay_seconds:.0f} s" if one.found else "",
                ("yes" if one.cause_right else "no") if one.found else "",
                _predicted(one),
            )
        )
    rows += [(one.kind, one.entity, "too soon", "", "", "") for one in score.unjudged]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines.append("")
    lines.append(
        f"{score.found} of {len(score.judged)} faults found, cause right for {score.cause_right}, "
        f"{len(score.false)} false"
    )
    if score.unjudged:
        lines.append(f"{len(score.unjudged)} began too shortly before the end to be judged")
    told, true = score.predictions
    if told:
        lines.append(f"{told} predicted alerts, {true} came true")
    lines += [f"  false: {json.dumps(alert['title'])}" for alert in score.false]
    lines += [f"  beside a fault: {json.dumps(alert['title'])}" for alert in score.elsewhere]
    return "\n".join(lines)


def _predicted(one: Judged) -> str:
    if one.fault.kind not in SLOW:
        return ""
    return f"{one.lead_seconds / 60:.0f} min before" if one.lead_seconds else "no"
