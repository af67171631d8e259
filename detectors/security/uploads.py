"""Unusual uploads: a host that sends far more than it ever did, most of it to one place.

Only flows from a client to a service, of large packets: what a server answers is no upload. Whether
the place lies outside is for alerting to say, which knows whose prefixes are whose. Blind to hosts
that always send much, to uploads below 1 Mbit/s, and for its first hour to everything.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, seconds, values
from runtime.registry import Part
from telemetry.batch import Batch

OCTETS_PER_SECOND_MIN = 125_000.0
OVER_OWN = 4.0
OVER_CROWD = 3.0
FLOWS_MIN = 5.0
TARGETS_MAX = 2.5
TARGET_SHARE_MAX = 0.3
SEEN_SECONDS_MIN = 3_600.0  # before anything is unusual


class UploadDetector:
    """Finds hosts that send far more to few targets than they and their like ever did."""

    name, view = "upload", "upload"

    def __init__(self) -> None:
        self._usual = Usual(self.view, half_life_seconds=14 * 86_400.0)

    @property
    def warm(self) -> bool:
        """Whether it knows what is usual; until then it says nothing."""
        return self._usual.seen_s >= SEEN_SECONDS_MIN

    def find(self, frame: Batch) -> list[Finding]:
        """Return the hosts that upload."""
        rate = values(frame, "octets") / seconds(frame)
        flows, targets = values(frame, "flows"), values(frame, "distinct_destination")
        own = self._usual.own(frame)
        if not self.warm:
            return []
        limit = np.maximum(
            np.maximum(OVER_OWN * own, OVER_CROWD * self._usual.busy(frame, rate)),
            OCTETS_PER_SECOND_MIN,
        )
        few = targets <= np.maximum(TARGETS_MAX, TARGET_SHARE_MAX * flows)
        hit = (rate >= limit) & (flows >= FLOWS_MIN) & few
        return [
            finding(
                self, i, "octets", actual=rate[i], expected=own[i], limit=limit[i],
                detail={"octets_per_second": rate[i], "flows": flows[i], "targets": targets[i],
                        "most_so_far": own[i]},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Learn what is usual to send."""
        self._usual.learn(frame, values(frame, "octets") / seconds(frame), calm, every=every)

    def snapshot(self, out: Any) -> None:
        """Write what is usual."""
        self._usual.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self._usual.restore(state)


DETECTOR = Part("unusual uploads", UploadDetector)
