"""Alarm files through the alerting stage: what incidents, causes and graph of alarm types come out."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from alerting.config import AlertingSettings
from alerting.incidents.causality import Edge, learn
from alerting.records.places import Places
from alerting.stage import AlertingStage
from correlator.tables.network_map import FileNetworkMap
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from runtime.ports import SeriesKey, Talker
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.foreign_alarm import alarm_row, foreign_alarm_id
from telemetry.schemas import ALARM
from telemetry.x733 import CLEARED
from tocsin.chain.intake import make_context
from tocsin.files.alarms import Event

SOURCE = "file"
SECOND_NS = 1_000_000_000
BEFORE_NS = 300 * SECOND_NS  # an incident's first alarm by so much may others of it come before
CHUNK_ROWS = 10_000  # of a file at once: columns are made for many seconds together
PLAIN = (
    "state", "severity", "title", "entity", "opened_ns", "closed_ns", "alarms_count",
    "parent_incident_id",
)  # fmt: skip


class _NoSeries:
    """Of an alarm file there are no series and no flows."""

    def key(self, series_id: int) -> SeriesKey | None:  # noqa: ARG002  # the port's
        return None

    def talkers(
        self,
        series_id: int,  # noqa: ARG002
        tick_start_ns: int,  # noqa: ARG002
        limit: int = 10,  # noqa: ARG002
    ) -> tuple[Talker, ...]:
        return ()


def make_stage(network: FileNetworkMap, settings: AlertingSettings | None = None) -> AlertingStage:
    """Return an alerting stage on a network, for alarms from elsewhere."""
    context = make_context("alerting", ManualClock(), Metrics("correlate"), 7)
    none = _NoSeries()
    return AlertingStage(
        settings or AlertingSettings(), context, network=network, directory=none, evidence=none
    )


@dataclass(slots=True)
class Report:
    """What came of an alarm file."""

    raises: int = 0
    changes: int = 0  # raises and clears
    alarms: int = 0  # distinct keys
    incidents: list[dict[str, Any]] = field(default_factory=list)  # newest row of each
    seconds: float = 0.0  # in the stage
    mixed: int = 0  # alarms in an incident of another fault
    strays: int = 0  # alarms that sit apart from most of their fault
    judged: int = 0  # alarms whose true fault is known

    @property
    def compression(self) -> float:
        """Share of raises that nobody needs to look at."""
        return 1.0 - len(self.incidents) / self.raises if self.raises else 0.0

    @property
    def largest(self) -> int:
        """Alarms of the largest incident."""
        return max((incident["alarms_count"] for incident in self.incidents), default=0)

    @property
    def over_merge(self) -> float:
        """Share of alarms that sit in an incident of another fault than most of its alarms."""
        return self.mixed / self.judged if self.judged else 0.0

    @property
    def torn(self) -> float:
        """Share of alarms that sit in another incident than most alarms of their fault."""
        return self.strays / self.judged if self.judged else 0.0

    @property
    def microseconds_a_change(self) -> float:
        """Processor time in the stage for each raise and clear."""
        return self.seconds * 1e6 / max(self.changes, 1)

    def line(self) -> str:
        """Return the figures in one line."""
        known = ""
        if self.judged:
            known = f", over-merge {self.over_merge:.1%}, torn apart {self.torn:.1%}"
        return (
            f"{self.raises} raises of {self.alarms} alarms -> {len(self.incidents)} incidents: "
            f"compression {self.compression:.1%}, largest {self.largest} alarms{known}, "
            f"{self.microseconds_a_change:.0f} us a change"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures and incidents."""
        return {
            "raises": self.raises, "alarms": self.alarms, "compression": self.compression,
            "largest": self.largest, "over_merge": self.over_merge if self.judged else None,
            "torn": self.torn if self.judged else None,
            "microseconds_a_change": self.microseconds_a_change, "incidents": self.incidents,
        }  # fmt: skip


def seconds_of(events: Sequence[Event]) -> Iterator[tuple[int, Batch]]:
    """Yield (end, batch) of each second in which something was reported."""
    start = 0
    while start < len(events):
        stop = min(start + CHUNK_ROWS, len(events))
        while stop < len(events) and _second(events[stop]) == _second(events[stop - 1]):
            stop += 1  # a second is never cut in two
        chunk = events[start:stop]
        batch = batch_from_rows(ALARM, [_row(event) for event in chunk], source=SOURCE)
        first = 0
        for second, group in groupby(chunk, key=_second):
            last = first + sum(1 for _ in group)
            yield (second + 1) * SECOND_NS, batch.slice(first, last)
            first = last
        start = stop


def _second(event: Event) -> int:
    return event.time_ns // SECOND_NS


def _row(event: Event) -> dict[str, Any]:
    return alarm_row(
        source=SOURCE, kind=event.kind, entity=event.entity, severity=event.severity,
        changed_ns=event.time_ns, title=event.title,
    )  # fmt: skip


def correlate(
    events: Sequence[Event], network: FileNetworkMap, settings: AlertingSettings | None = None
) -> Report:
    """Play a file to the stage, second by second, and count what came out."""
    settings = settings or AlertingSettings()
    keys = {(event.kind, event.entity) for event in events}
    settings = msgspec.structs.replace(
        settings,
        alarms_max=max(settings.alarms_max, len(keys)),
        storm_alarms=max(settings.storm_alarms, len(events)),
    )
    stage = make_stage(network, settings)
    report = Report(
        raises=sum(e.severity != CLEARED for e in events), alarms=len(keys), changes=len(events)
    )
    newest: dict[int, dict[str, Any]] = {}
    for end_ns, batch in seconds_of(events):
        began = time.process_time()
        stage.process(batch)
        _, rows = stage.changes(end_ns)
        report.seconds += time.process_time() - began
        newest.update((row["incident_id"], row) for row in rows)
    report.incidents = [_told(row) for row in newest.values() if row["state"] != "merged"]
    _judge(report, events)
    return report


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of an incident to who correlates a file."""
    return {name: row[name] for name in PLAIN} | {
        name: msgspec.json.decode(row[name]) for name in ("causes", "alarms", "impact")
    }


def _judge(report: Report, events: Sequence[Event]) -> None:
    """Count alarms that sit with those of another fault, and those that sit apart from their own.

    Only where the file says which is which.
    """
    raises: dict[str, list[tuple[int, str]]] = {}
    for event in events:
        if event.fault and event.severity != CLEARED:
            number = f"{foreign_alarm_id(SOURCE, event.kind, event.entity):016x}"
            raises.setdefault(number, []).append((event.time_ns, event.fault))
    of_fault: dict[str, Counter[int]] = {}
    for place, incident in enumerate(report.incidents):
        if incident["parent_incident_id"]:
            continue  # told, then merged into another one, which has its alarms
        known = [
            fault
            for number in incident["alarms"]
            for fault in _faults(raises.get(number, ()), incident)
        ]
        if known:
            report.judged += len(known)
            report.mixed += len(known) - Counter(known).most_common(1)[0][1]
        for name in known:
            of_fault.setdefault(name, Counter())[place] += 1
    for places in of_fault.values():
        report.strays += places.total() - places.most_common(1)[0][1]


def _faults(raises: Sequence[tuple[int, str]], incident: Mapping[str, Any]) -> set[str]:
    """Return the faults of an alarm's raises while an incident was open, of the last before where there is none."""
    past = [
        (at, of) for at, of in raises if not incident["closed_ns"] or at <= incident["closed_ns"]
    ]
    during = {of for at, of in past if at >= incident["opened_ns"] - BEFORE_NS}
    return during or {of for _, of in past[-1:]}


def causes(events: Sequence[Event], network: FileNetworkMap) -> list[Edge]:
    """Return the causal graph of alarm kinds that the raises of a file show."""
    raised = [event for event in events if event.severity != CLEARED]
    places = Places(network)
    nodes = [places.of(event.entity).nodes[0] for event in raised]
    near = {
        node: [other for other, hops in places.graph.near(node).items() if hops == 1]
        for node in dict.fromkeys(nodes)
    }
    neighbours = near if any(near.values()) else None
    kinds, times = [event.kind for event in raised], [event.time_ns for event in raised]
    return learn(kinds, nodes, times, neighbours)


def score(graph: Sequence[Edge], events: Sequence[Event], truth: Path) -> dict[str, float]:
    """Return how well a graph agrees with a matrix of true edges, kinds being its numbers."""
    import numpy as np

    matrix = np.load(truth)
    kinds = {event.kind for event in events}
    if matrix.ndim != 2 or not all(kind.isdigit() for kind in kinds):
        raise ConfigError(f"{truth}: needs a matrix, and kinds that are its row numbers")
    true = {(str(a), str(b)) for a, b in np.argwhere(matrix).tolist() if a != b}
    found = {(edge.cause, edge.effect) for edge in graph}
    hits = len(true & found)
    pairs = len(matrix) * (len(matrix) - 1)
    return {
        "precision": hits / max(len(found), 1),
        "recall": hits / max(len(true), 1),
        "f1": 2 * hits / max(len(found) + len(true), 1),
        "f1_of_all_pairs": 2 * len(true) / (pairs + len(true)),
    }
