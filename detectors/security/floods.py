"""Floods by vector: what a prefix receives of SYNs, of ICMP, and from each amplifier's port.

The detector of attacks (detectors.attack) looks at all that a prefix receives and needs a surge of
the whole; here each vector stands alone, so that a flood far below the prefix's usual volume shows,
and its name is certain. Blind to floods of plain UDP, and to fewer than five sources.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, seconds, values
from runtime.registry import Part
from telemetry.batch import Batch

OCTETS_PER_SECOND_MIN = 125_000.0  # of answers of amplifiers
PACKETS_PER_SECOND_MIN = 500.0  # of SYNs and ICMP: they are small
SMALL_OCTETS = 150.0  # a packet
YOUNG_FACTOR = 10.0  # over the floors, while there is nothing to compare with
SOURCES_MIN = 5.0
OVER_OWN = 4.0
OVER_CROWD = 4.0


class FloodDetector:
    """Finds (prefix, vector) that receive far more than is usual, from several sources."""

    name, view = "flood", "vector"

    def __init__(self) -> None:
        self._octets, self._packets = Usual(self.view), Usual(self.view)

    @property
    def warm(self) -> bool:
        """Whether it knows what is usual; until then, many times the floors."""
        return self._octets.warm

    def find(self, frame: Batch) -> list[Finding]:
        """Return the prefixes under a flood of one vector."""
        rates = {m: values(frame, m) / seconds(frame) for m in ("octets", "packets", "flows")}
        sources = values(frame, "distinct_source")
        small = rates["octets"] <= SMALL_OCTETS * rates["packets"]
        found = []
        for measure, usual, least, mine in (
            ("octets", self._octets, OCTETS_PER_SECOND_MIN, ~small),
            ("packets", self._packets, PACKETS_PER_SECOND_MIN, small),
        ):
            own = usual.own(frame)
            factor = 1.0 if self.warm else YOUNG_FACTOR
            limit = np.maximum(
                np.maximum(OVER_OWN * own, OVER_CROWD * usual.busy(frame, rates[measure])),
                factor * least,
            )
            hit = mine & (rates[measure] >= limit) & (sources >= SOURCES_MIN)
            found += [
                finding(
                    self, i, measure, actual=rates[measure][i], expected=own[i], limit=limit[i],
                    detail={"octets_per_second": rates["octets"][i],
                            "expected_octets_per_second": self._octets.own(frame)[i],
                            "packets_per_second": rates["packets"][i],
                            "flows_per_second": rates["flows"][i], "distinct_sources": sources[i]},
                )
                for i in np.flatnonzero(hit).tolist()
            ]  # fmt: skip
        return found

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Learn what is usual of each vector."""
        self._octets.learn(frame, values(frame, "octets") / seconds(frame), calm, every=every)
        self._packets.learn(frame, values(frame, "packets") / seconds(frame), calm, every=every)

    def snapshot(self, out: Any) -> None:
        """Write what is usual."""
        self._octets.snapshot(out.scoped("octets"))
        self._packets.snapshot(out.scoped("packets"))

    def restore(self, state: Any) -> None:
        """Take it back."""
        self._octets.restore(state.scoped("octets"))
        self._packets.restore(state.scoped("packets"))


DETECTOR = Part("floods by vector", FloodDetector)
