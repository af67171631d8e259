"""What a fault explains is attached to its alarm, never alerted beside it and never lost.

An anomaly belongs to a fault when the fault can reach it (a cut link moves traffic on any interface,
a flood raises what it passes, a silent exporter takes its own series away) and when it began about
when the fault began or ended. What merely happens while some fault is up elsewhere is not explained, nor
is a further step of what a fault explains so far: traffic that a cut link moved does not move by as much
again, and a flood that goes on takes none away. Blind to a second fault that does the same as the first.
"""

import math
from collections.abc import Iterable, Sequence

from alerting.causes.rows import Row
from alerting.causes.rules import SIGNATURES
from alerting.records.alarm import MANY_SMALL, PRIMARY, Alarm
from alerting.words.amounts import rounded
from runtime.ports import NetworkMap

BEFORE_TICKS = 2  # a detector may be faster than the rule that names the fault
ATTACHED_MAX = 200  # of one alarm
NOTHING = 1e-9  # beside any rate: the ratio of two rates is one number
UNUSED = 0.001  # of what a service carries now: nobody used it before


class Explanations:
    """Attaches the anomalies of a tick to the faults that explain them. State is in the alarms."""

    def __init__(
        self, network: NetworkMap, *, aftermath_seconds: float, deviation_ratio: float
    ) -> None:
        self._network = network
        self._step = math.log(deviation_ratio)
        self.aftermath_ns = round(aftermath_seconds * 1e9)

    def rest(self, rows: Sequence[Row], alarms: Iterable[Alarm], now_ns: int) -> list[Row]:
        """Attach what is explained and return the rows that nothing explains."""
        faults = [alarm for alarm in alarms if self._counts(alarm, now_ns)]
        left = []
        for row in rows:
            if row.detector in SIGNATURES:
                continue
            for fault in faults:
                if self._explains(fault, row):
                    attach(fault, _name(row))
                    _note_shift(fault, row)
                    break
            else:
                left.append(row)
        return left

    def _counts(self, alarm: Alarm, now_ns: int) -> bool:
        if alarm.kind not in PRIMARY:
            return False
        return alarm.state != "cleared" or now_ns - alarm.cleared_ns < self.aftermath_ns

    def _explains(self, fault: Alarm, row: Row) -> bool:
        over = _is_over(fault)
        if _name(row) in fault.attached:
            return over or self._goes_on(fault, row)
        if not self._reaches(fault, row, over=over):
            return False
        tick_ns = round(row.tick_seconds * 1e9)
        if fault.first_ns - BEFORE_TICKS * tick_ns <= row.since_ns:
            if row.since_ns <= fault.first_ns + self.aftermath_ns:
                return True
            # It ended: what comes back or falls back now, also while its clearing is confirmed.
            ended_ns = fault.last_ns if fault.last_ns else fault.cleared_ns
            return over and row.since_ns >= ended_ns - BEFORE_TICKS * tick_ns
        return False

    def _goes_on(self, fault: Alarm, row: Row) -> bool:
        """Whether what a fault explains still does what the fault can do to it while it lasts."""
        span = fault.moved.get(_name(row))
        if span is None or row.tick_start_ns <= fault.first_ns + self.aftermath_ns:
            return True
        shift = _shift(row)
        adds = fault.kind != "link-cut"  # as much as it likes
        return span[0] - self._step <= shift and (adds or shift <= span[1] + self._step)

    def _reaches(self, fault: Alarm, row: Row, *, over: bool) -> bool:
        up = row.actual > row.expected
        if fault.kind == "link-cut":
            return row.view in ("interface", "exporter")
        if fault.kind == "exporter-down":
            exporter = row.key.key.get("exporter", "")
            return not exporter or self._network.router_of(exporter) == fault.entity
        if fault.kind in MANY_SMALL:
            # A scan of all ports also uses services that nobody uses: there its octets show.
            unused = row.view == "service" and row.expected < UNUSED * row.actual
            return up and (row.measure in ("flows", "packets", "records") or unused)
        return up or over  # a flood or a leak adds; its end takes away


def _name(row: Row) -> str:
    return f"{row.view} {row.key.entity}"


def _shift(row: Row) -> float:
    """Return by how much a rate is away from what is expected of it, as a logarithm; below 0 for less."""
    return math.log((max(row.actual, 0.0) + NOTHING) / (max(row.expected, 0.0) + NOTHING))


def _is_over(fault: Alarm) -> bool:
    """Whether a fault has ended, or is being confirmed to have."""
    return fault.state == "cleared" or fault.quiet_ticks > 0


def _note_shift(fault: Alarm, row: Row) -> None:
    """Remember how far a fault moved what it explains, to either side; what is as usual is never too far."""
    name = _name(row)
    if fault.kind == "exporter-down" or _is_over(fault) or name not in fault.attached:
        return
    low, high = fault.moved.get(name, (0.0, 0.0))
    shift = _shift(row)
    if shift < low or shift > high:
        fault.moved[name] = (rounded(min(low, shift)), rounded(max(high, shift)))


def attach(fault: Alarm, name: str) -> None:
    """Note on an alarm what else it explains, in the order seen; beyond the limit the first stay.

    The order is that of the tick's rows, by id: what a thing is called does not move it.
    """
    if name not in fault.attached and len(fault.attached) < ATTACHED_MAX:
        fault.attached.append(name)
