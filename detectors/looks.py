"""Detectors that look at how a series moves: `rate`, `variance`, `distribution`, `sums`, `drift`, `arrival`.

What each is for, blind to and taken from stands in `detectors.look_kernels`. All are off by default: on
the labelled sets none earns its false alerts beside the looks of `series` (perf/README.md has the
table). Set one beside the baseline where its fault is yours: `[detection.also.NAME] kind = "drift"`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import exceedances
from detectors import look_kernels as kernels
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.rows import RowArrays
from detectors.seasonal import middle_s, rates
from detectors.tails import Tails
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch
from telemetry.views import View

BYTES_PER_SERIES = kernels.BYTES + exceedances.BYTES + 4 + 8 + 8


class LookDetector:
    """One of the six looks over a frame's rows; 244 bytes a series."""

    def __init__(self, look: str, measures: tuple[str, ...], settings: DetectionSettings) -> None:
        self._look = kernels.LOOKS.index(look)
        self._tails = Tails(measures, settings.warmup_seconds)
        self._work = np.zeros(kernels.STATE)
        self.rows = RowArrays(
            measures,
            state=(np.float32, (kernels.STATE,)), runs=(np.float32, (exceedances.STATE,)),
            step=(np.float32, ()), last_s=(np.int64, ()),
        )  # fmt: skip

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and clear those that changed hands. Before `score`."""
        self.rows.admit(frame)

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns. The band is the usual range of values, not what this look expects."""
        rows, places = self.rows, self.rows.places(frame, measure)
        n, tick_s = len(places), float(frame["tick_seconds"][0])
        expected, room, z = (np.empty(n) for _ in range(3))
        kernels.judge(
            self._look, places, np.ascontiguousarray(rates(frame, measure)[:n]), middle_s(frame),
            tick_s, rows["state"], rows["step"], rows["last_s"], self._work, expected, room, z,
        )  # fmt: skip
        self._tails.judge(rows, measure, places, np.abs(z), tick_s, out)
        out.expected[:n], out.lower[:n], out.upper[:n] = expected, expected - room, expected + room
        out.z[:n] = z

    def learn(self, frame: Batch, measure: str, mask: NDArray[np.bool_]) -> None:
        """Learn rows where mask is set; what goes on now is followed in all."""
        rows, places = self.rows, self.rows.places(frame, measure)
        n, tick_s = len(places), float(frame["tick_seconds"][0])
        score = np.empty(n)
        kernels.learn(
            self._look, places, np.ascontiguousarray(rates(frame, measure)[:n]),
            np.ascontiguousarray(mask[:n]).view(np.uint8), middle_s(frame), tick_s, rows["state"],
            rows["step"], rows["last_s"], self._work, score,
        )  # fmt: skip
        self._tails.learn(rows, measure, places, score, tick_s)

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        self.rows.snapshot(out)
        self._tails.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self.rows.restore(state)
        self._tails.restore(state)


def look_at(
    look: str,
    time_s: NDArray[np.int64],
    value: NDArray[np.float64],
    step_s: float,
    *,
    false_alerts_per_day: float = exceedances.FALSE_ALERTS_PER_DAY,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return score and alerts of one look at all rows of a series, causal as `score_series` is."""
    rows = len(value)
    score, step, level = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    alert, work = np.zeros(rows, np.uint8), np.zeros(kernels.STATE)
    kernels.walk(
        kernels.LOOKS.index(look), np.ascontiguousarray(time_s, np.int64),
        np.ascontiguousarray(value, np.float64), step_s,
        np.zeros((1, kernels.STATE), np.float32), work, score, step,
    )  # fmt: skip
    exceedances.follow(
        score, step, false_alerts_per_day, int(kernels.WARM),
        np.zeros((1, exceedances.STATE), np.float32), work, level, alert,
    )  # fmt: skip
    return score, alert


def _maker(look: str) -> Callable[[View, DetectionSettings, NoOptions], LookDetector]:
    def make(view: View, settings: DetectionSettings, options: NoOptions) -> LookDetector:  # noqa: ARG001
        return LookDetector(look, view.scored, settings)

    return make


RATE = Part("a change faster than usual", _maker("rate"))
VARIANCE = Part("wilder or calmer than usual", _maker("variance"))
DISTRIBUTION = Part(
    "values that fall otherwise than usual around their level", _maker("distribution")
)
SUMS = Part("small deviations that add up, over 8 to 128 values", _maker("sums"))
DRIFT = Part("hour after hour above or below the day before", _maker("drift"))
ARRIVAL = Part("values that come sooner or later than usual", _maker("arrival"))
