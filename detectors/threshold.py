"""Fixed limits: what an operator knows better than any baseline (a contract, a licence, a capacity).

A series beyond its limit is a finding in every tick it stays there. Blind to everything within the
limits, and no judge of what is usual: use it beside the baseline.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.seasonal import rates
from runtime.checkpoint import read_array, write_array
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.views import View

P_BEYOND = 1e-12  # a limit is no matter of chance


class ThresholdOptions(Settings, frozen=True, kw_only=True):
    """Options of kind "threshold". Limits are per second for totals (octets, packets, flows)."""

    view: str  # whose series are watched
    measure: str  # which of its measures
    above: float | None = None  # one of the two, or both
    below: float | None = None  # the other one


class ThresholdDetector:
    """Says which series of one view and measure are beyond a limit.

    A row that was never learned says nothing, as the contract wants it: a series speaks from its
    second tick on.
    """

    def __init__(self, view: View, options: ThresholdOptions) -> None:
        self._measure = options.measure if options.view == view.name else ""
        self._above = np.inf if options.above is None else options.above
        self._below = -np.inf if options.below is None else options.below
        if self._measure and self._measure not in view.scored:
            raise ConfigError(
                f"options: measure {options.measure!r} of view {view.name!r} is none of "
                f"{', '.join(view.scored)}"
            )
        if options.above is None and options.below is None:
            raise ConfigError("options: give `above`, `below` or both")
        self.series_id = np.zeros(0, np.uint64)  # by dense row: the series that was learned there

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows."""
        rows = frame["row"][:-1]
        if rows.size and int(rows.max()) >= len(self.series_id):
            grown = np.zeros(2 * int(rows.max()) + 1, np.uint64)
            grown[: len(self.series_id)] = self.series_id
            self.series_id = grown

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns; the band is the limits."""
        if measure != self._measure:
            return
        value = rates(frame, measure)[:-1]
        known = self.series_id[frame["row"][:-1]] == frame["series_id"][:-1]
        beyond = known & ((value > self._above) | (value < self._below))
        n = len(value)
        with np.errstate(over="ignore"):
            out.expected[:n] = np.clip(value, self._below, self._above)
            out.lower[:n], out.upper[:n] = self._below, self._above
        out.p_value[:n][beyond] = P_BEYOND
        out.score[:n][beyond] = -np.log10(P_BEYOND)
        out.z[:n][beyond] = np.where(value[beyond] > self._above, 10.0, -10.0)
        missing = np.isnan(value)
        out.score[:n][missing] = out.z[:n][missing] = np.nan

    def learn(self, frame: Batch, measure: str, mask: NDArray[np.bool_]) -> None:
        """Remember who was there."""
        if measure == self._measure:
            rows = frame["row"][:-1][mask[:-1]]
            self.series_id[rows] = frame["series_id"][:-1][mask[:-1]]

    def snapshot(self, out: Any) -> None:
        """Write the rows' series."""
        write_array(out, "series_id", self.series_id)

    def restore(self, state: Any) -> None:
        """Take them back."""
        kept = read_array(state, "series_id")
        if kept is not None:
            self.series_id = np.array(kept)


def _make(view: View, settings: DetectionSettings, options: ThresholdOptions) -> ThresholdDetector:  # noqa: ARG001
    return ThresholdDetector(view, options)


DETECTOR = Part("fixed limits of a view's measure", _make, ThresholdOptions)
