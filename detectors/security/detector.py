"""The contract of a security detector, and those that there are.

Beside the contract of `detectors.detector`, which scores one measure of one series at a time: a
security class shows in several measures of a row at once, and has a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding, six
from detectors.security.usual import p_beyond
from runtime.registry import Registry
from telemetry.batch import Batch

if TYPE_CHECKING:
    MakeSecurity = Callable[[], "SecurityDetector"]


class SecurityDetector(Protocol):
    """Finds one class in the frames of one view. `learn` is the only writer of state.

    `find` is called once for each tick of the view, `learn` after it, with the rows that showed
    nothing. The frame holds only the rows that spoke. State is bounded by the view's rows.
    """

    name: str  # of its findings
    view: str

    @property
    def warm(self) -> bool:
        """Whether it has seen enough to know what is usual; until then only hard evidence counts."""
        ...

    def find(self, frame: Batch) -> list[Finding]:
        """Return the rows that show the class."""
        ...

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Learn a tick: of rows that are not calm no notion of normal, unless `every` row is to be."""
        ...

    def snapshot(self, out: Any) -> None:
        """Write all state, bit for bit."""
        ...

    def restore(self, state: Any) -> None:
        """Take it back."""
        ...


SECURITY: Registry[MakeSecurity] = Registry(
    "tocsin.security",
    {
        "host_scan": "detectors.security.scans:HOST_SCAN",
        "slow_scan": "detectors.security.scans:SLOW_SCAN",
        "login_tries": "detectors.security.logins:DETECTOR",
        "dns_tunnel": "detectors.security.tunnels:DETECTOR",
        "upload": "detectors.security.uploads:DETECTOR",
        "flood": "detectors.security.floods:DETECTOR",
        "bogon": "detectors.security.spoofing:BOGON",
        "lone_sources": "detectors.security.spoofing:LONE",
        "beacon": "detectors.security.beacons:DETECTOR",
    },
)


def finding(
    detector: SecurityDetector,
    row: int,
    measure: str,
    *,
    actual: float,
    expected: float,
    limit: float,
    detail: dict[str, Any],
    p_value: float = 0.0,
) -> Finding:
    """Return a finding of what lies beyond the limit of a rule."""
    p = p_value or p_beyond(actual, limit)
    return Finding(
        row, measure, detector.name, False, float(actual), float(expected), 0.0, float(limit),
        float(-np.log10(p)), p, {name: six(value) for name, value in detail.items()},
    )  # fmt: skip
