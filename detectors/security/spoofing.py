"""Spoofed sources: an interface where sources arrive that cannot be, or that never come again.

Two marks. Bogons, which ingress filtering (RFC 2827, BCP 38) keeps out: at a port whose customer has
prefixes in the network map all other addresses, elsewhere those that nobody can have (RFC 6890);
private ones where they never arrived. Lone sources: many more than ever, each with
one record of one packet, as random source addresses give. Blind to a spoofed source that is one of
the network's own, used moderately; behind an interface with thousands of sources to hundreds; and to
lone sources at exporters that sample packets (sFlow), where every record is one packet.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, seconds, values
from runtime.registry import Part
from telemetry.batch import Batch

OVER_OWN = 4.0
OVER_CROWD = 4.0
YOUNG_FACTOR = 10.0  # over the floor, while nobody knows what arrives where
FLOWS_PER_SOURCE_MAX = 1.6


class SpoofingDetector:
    """Finds interfaces with `least` sources a minute of its view's kind, far more than ever."""

    def __init__(self, name: str, view: str, *, least: float) -> None:
        self.name, self.view = name, view
        self._least = least
        self._usual = Usual(view)

    @property
    def warm(self) -> bool:
        """Whether it knows what is usual; until then, many times the floor."""
        return self._usual.warm

    def find(self, frame: Batch) -> list[Finding]:
        """Return the interfaces."""
        sources, flows = values(frame, "distinct_source"), values(frame, "flows")
        own = self._usual.own(frame)
        floor = max(self._least * min(seconds(frame) / 60.0, 1.0), 15.0)
        floor *= 1.0 if self.warm else YOUNG_FACTOR
        limit = np.maximum(
            np.maximum(OVER_OWN * own, OVER_CROWD * self._usual.busy(frame, sources)), floor
        )
        hit = (sources >= limit) & (flows <= FLOWS_PER_SOURCE_MAX * np.maximum(sources, 1.0))
        return [
            finding(
                self, i, "distinct_source", actual=sources[i], expected=own[i], limit=limit[i],
                detail={"sources": sources[i], "flows": flows[i], "most_so_far": own[i]},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Learn how many sources are usual."""
        self._usual.learn(frame, values(frame, "distinct_source"), calm, every=every)

    def snapshot(self, out: Any) -> None:
        """Write what is usual."""
        self._usual.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self._usual.restore(state)


BOGON = Part("bogon sources", lambda: SpoofingDetector("bogon", "bogon", least=30.0))
LONE = Part("sources seen once", lambda: SpoofingDetector("lone_sources", "lone", least=150.0))
