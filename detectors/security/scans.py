"""Scans: a host that tries many addresses or ports, fast or slowly, with nothing to say.

Looks at probes alone (SYNs without a handshake, small single UDP packets, echo requests), so that a
busy host is no scanner however many it talks to. The number of targets comes from a HyperLogLog of
64 registers: within 13 %.

The slow form counts over an hour: a probe every minute or two is a scan that no single tick shows.
Blind to what is spread over many sources, and to probes that the exporter's sampling never sees:
one in a hundred sampled, a scan needs a hundred times the targets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, values
from runtime.registry import Part
from telemetry.batch import Batch

OVER_OWN = 4.0  # times the most this host ever tried
OVER_CROWD = 4.0  # times what the busy ones of all hosts try
NEW_SHARE = 0.4  # of its probes that go to a target of their own: a retry is none


class ScanDetector:
    """Finds hosts that probe `least` targets in a tick of its view, and far more than is usual.

    Until it knows what is usual, `at_first` targets: in an hour a host that watches others pings dozens.
    """

    def __init__(self, name: str, view: str, *, least: float, at_first: float) -> None:
        self.name, self.view = name, view
        self._least, self._at_first = least, at_first
        self._usual = Usual(view)

    @property
    def warm(self) -> bool:
        """Whether it knows what is usual."""
        return self._usual.warm

    def find(self, frame: Batch) -> list[Finding]:
        """Return the hosts that scan."""
        targets, probes = values(frame, "distinct_destination"), values(frame, "flows")
        own = self._usual.own(frame)
        crowd = OVER_CROWD * self._usual.busy(frame, targets)
        least = self._least if self.warm else self._at_first
        limit = np.maximum(OVER_OWN * own, max(crowd, least))
        hit = (targets >= limit) & (targets >= NEW_SHARE * probes)
        return [
            finding(
                self, i, "distinct_destination", actual=targets[i], expected=own[i],
                limit=limit[i], detail={"targets": targets[i], "probes": probes[i]},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Learn how many targets are usual."""
        self._usual.learn(frame, values(frame, "distinct_destination"), calm, every=every)

    def snapshot(self, out: Any) -> None:
        """Write what is usual."""
        self._usual.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self._usual.restore(state)


HOST_SCAN = Part(
    "scans, horizontal and vertical",
    lambda: ScanDetector("host_scan", "probe", least=50.0, at_first=50.0),
)
SLOW_SCAN = Part(
    "slow scans", lambda: ScanDetector("slow_scan", "slow_probe", least=24.0, at_first=150.0)
)
