"""What fast scans of a host explain of its hour: the view of slow scans counts their probes as well.

Of each tick that a fast scan filled its probes are known, and of the ticks beside those that they are
fewer than a fast scan needs: there it began, paused or ended. What an hour holds beyond that is its own.
Targets cannot be taken from one another, so an hour's own share of its probes stands for that of its
targets: near, for a scanner seldom comes twice. Blind to a slow scan that ends within the hour of a fast
one and adds less than a slow scan needs.
"""

from typing import Any

from alerting.causes.rows import Row
from runtime.metrics import Counter

TICKS_MAX = 20_000  # of all hosts; a host that has not scanned for longest is forgotten
KEPT_NS = 86_400 * 10**9


class FastScans:
    """Probes by host and start of tick, those of the host that scanned last at the end."""

    def __init__(self, left_out: Counter) -> None:
        self._left_out = left_out
        self._probes: dict[str, dict[int, float]] = {}
        self._ticks = 0

    def note(self, row: Row) -> None:
        """Note a tick of a fast scan, and that those beside it may hold a part of one."""
        source = row.key.key["source_address"]
        probes = float(row.detail.get("probes", row.actual))
        at_ns, tick_ns = row.tick_start_ns, round(row.tick_seconds * 1e9)
        part = row.upper * max(probes / max(row.actual, 1.0), 1.0)
        ticks = self._probes.pop(source, {})
        self._probes[source] = ticks
        before = len(ticks)
        ticks.setdefault(at_ns - tick_ns, part)
        ticks[at_ns] = probes
        ticks.setdefault(at_ns + tick_ns, part)
        while (oldest_ns := next(iter(ticks))) < at_ns - KEPT_NS:  # they came in the order of time
            del ticks[oldest_ns]
        self._ticks += len(ticks) - before
        while self._ticks > TICKS_MAX and len(self._probes) > 1:
            gone = len(self._probes.pop(next(iter(self._probes))))
            self._ticks -= gone
            self._left_out.add("fast_scan_ticks", gone)

    def explain(self, row: Row) -> bool:
        """Return whether a slow scan's row holds too little beside them to be one."""
        over_ns = row.tick_start_ns + round(row.tick_seconds * 1e9)
        ticks = self._probes.get(row.key.key.get("source_address", ""), {})
        theirs = [probes for at, probes in ticks.items() if row.tick_start_ns <= at < over_ns]
        if not theirs:
            return False
        probes = float(row.detail.get("probes", row.actual))
        own = max(probes - sum(theirs), 0.0) / max(probes, 1.0)
        return own * row.actual < row.upper

    def snapshot(self) -> list[Any]:
        """Return what `restore` takes."""
        return [[source, list(ticks.items())] for source, ticks in self._probes.items()]

    def restore(self, kept: list[Any]) -> None:
        """Take it back."""
        self._probes = {source: dict(map(tuple, ticks)) for source, ticks in kept}
        self._ticks = sum(map(len, self._probes.values()))
