"""Alarm load as ISA-18.2 and EEMUA 191 measure it: is this a site where alarms can be attended to?

A pure function of alarm changes. What was hidden (planned work, silence, symptom of another) loads
nobody and is counted apart.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from alerting.words.amounts import rounded
from runtime.metrics import Metrics

TEN_MINUTES_NS = 600_000_000_000
HOUR_NS = 3_600_000_000_000
FLOOD_RAISES = 10  # in ten minutes and for one operator: more than can be attended to
# Raises in ten minutes for one operator, and what ISA-18.2 calls that.
GRADES = ((1.0, "acceptable"), (2.0, "manageable"), (5.0, "over-demanding"))
CHATTERING_RAISES = 3  # within a minute
STANDING_NS = 24 * HOUR_NS
TOP = 10
FIGURES = (
    "raises", "hidden", "incidents", "compression", "per_operator_10min", "peak_10min", "floods",
    "flood_share", "standing", "chattering", "acknowledged_share",
)  # fmt: skip


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a span."""

    since_ns: int
    until_ns: int
    operators: int
    raises: int  # came before people: raised, or back from being hidden
    hidden: int  # raised, and told to nobody
    incidents: int
    # Share of raises that no incident of its own stands for; none where nothing was raised.
    compression: float | None
    per_operator_10min: float
    peak_10min: int  # raises of the worst ten minutes
    grade: str
    floods: int  # spans of ten minutes and more with more than ten raises an operator
    flood_share: float  # of the time
    standing: int  # up for more than a day
    chattering: int  # alarms raised three times within a minute
    # Of what was raised, acknowledged within `acknowledge_seconds`; none where nothing was raised.
    acknowledged_share: float | None
    by_severity: dict[str, int]
    top: list[dict[str, Any]]  # the ten alarms raised most often
    # What came later is not in the history yet, so not counted; 0 = not known.
    stored_until_ns: int = 0


def load_of(
    changes: Sequence[Mapping[str, Any]],
    *,
    since_ns: int,
    until_ns: int,
    operators: int = 1,
    acknowledge_seconds: float = 600.0,
) -> Load:
    """Return the figures of alarm changes: rows of schema `alarm`, in order of time.

    Rows of before `since_ns` say how alarms stood then; the last of each that was up will do.

    >>> row = {"alarm_id": 1, "changed_ns": 5, "state": "raised", "severity": "major",
    ...        "kind": "fan", "entity": "r1", "suppressed": "", "operator_state": "none",
    ...        "incident_id": 9, "raised_ns": 5}
    >>> load_of([row], since_ns=0, until_ns=TEN_MINUTES_NS).grade
    'acceptable'
    """
    bins: Counter[int] = Counter()
    raises: Counter[tuple[int, str, str]] = Counter()
    severities: Counter[str] = Counter()
    times: dict[int, list[int]] = {}
    up: dict[int, int] = {}
    waits: dict[int, int] = {}
    incidents: set[int] = set()
    acknowledged = 0
    known: set[int] = set()  # up, and shown since it began
    new = 0  # raises without what is back from being hidden
    shown: set[int] = set()  # up, and not hidden
    veiled: set[int] = set()  # raised in the span, and hidden since
    hidden = 0  # raised in the span, and hidden to their end
    for row in changes:
        number, at_ns, state = int(row["alarm_id"]), int(row["changed_ns"]), str(row["state"])
        began = False
        if state in ("raised", "updated"):
            began = number not in up
            up.setdefault(number, int(row["raised_ns"]))
        else:
            up.pop(number, None)
            hidden += number in veiled
            veiled.discard(number)
            known.discard(number)
        came = back = False
        if number in up and not row["suppressed"]:
            came, back = number not in shown, number in known
            shown.add(number)
            known.add(number)
        else:
            shown.discard(number)
        if at_ns < since_ns or at_ns >= until_ns:
            continue
        if began and row["suppressed"]:
            veiled.add(number)
        elif came:
            veiled.discard(number)
            bins[(at_ns - since_ns) // TEN_MINUTES_NS] += 1
            raises[number, str(row["kind"]), str(row["entity"])] += 1
            severities[str(row["severity"])] += 1
            times.setdefault(number, []).append(at_ns)
            if row["operator_state"] == "acknowledged":  # it was before it was hidden
                acknowledged += 1
            else:
                waits[number] = at_ns
            new += not back
            if row["incident_id"] and not back:
                incidents.add(int(row["incident_id"]))
        elif row["operator_state"] == "acknowledged" and number in waits:
            acknowledged += at_ns - waits.pop(number) <= acknowledge_seconds * 1e9
    total = sum(raises.values())
    spans = max(-(-(until_ns - since_ns) // TEN_MINUTES_NS), 1)
    rate = total / spans / operators
    flooded = [b for b, count in sorted(bins.items()) if count > FLOOD_RAISES * operators]
    return Load(
        since_ns=since_ns,
        until_ns=until_ns,
        operators=operators,
        raises=total,
        hidden=hidden + len(veiled),
        incidents=len(incidents),
        compression=rounded(1.0 - len(incidents) / new, 4) if new else None,
        per_operator_10min=rounded(rate, 4),
        peak_10min=max(bins.values(), default=0),
        grade=next((word for most, word in GRADES if rate <= most), "unacceptable"),
        floods=sum(b - 1 not in flooded for b in flooded),
        flood_share=rounded(len(flooded) / spans, 4),
        standing=sum(until_ns - raised_ns > STANDING_NS for raised_ns in up.values()),
        chattering=sum(_chatters(at) for at in times.values()),
        acknowledged_share=rounded(acknowledged / total, 4) if total else None,
        by_severity=dict(sorted(severities.items())),
        top=[
            {"alarm": f"{number:016x}", "kind": kind, "entity": entity, "raises": count}
            for (number, kind, entity), count in sorted(
                raises.items(), key=lambda one: (-one[1], one[0])
            )[:TOP]
        ],
    )


class LoadMetrics:
    """The figures as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._gauge = metrics.gauge(
            "alarm_load",
            "alarm load of the last 8 hours as ISA-18.2 and EEMUA 191 have it, by figure (docs/alarms.md)",
            label="figure",
            values=FIGURES,
        )

    def show(self, load: Load) -> None:
        """Say these figures from now on; NaN where there is none."""
        for name in FIGURES:
            value = getattr(load, name)
            self._gauge.set(math.nan if value is None else float(value), name)


def _chatters(times: Sequence[int]) -> bool:
    gap = CHATTERING_RAISES - 1
    return any(b - a <= TEN_MINUTES_NS // 10 for a, b in zip(times, times[gap:], strict=False))
