"""Series of unknown nature, online: the kernels of `detectors.series_kernels` over a frame's rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import series_kernels as kernels
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.seasonal import middle_s, rates
from detectors.series import FALSE_ALERTS_PER_DAY
from runtime.checkpoint import read_array, write_array
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch
from telemetry.views import View

ROWS_FIRST = 64
BYTES_PER_SERIES = kernels.BYTES + 4 + 8 + 8
KEPT = ("series_id", "state", "profile", "spread", "visits", "step", "last_s")


class SeriesDetector:
    """Forecast, season and shift of gauges and rates that may be negative, silent or odd in any way.

    For sampled series, where nothing is known of the noise; flow views have `SeasonalBaseline`, which
    knows that traffic varies with its root. Blind to what its three looks are blind to (see the
    kernels), to silence (a missing value says nothing) and to a series' first hour.

    State is at row * measures + m: 980 bytes each.
    """

    def __init__(self, measures: tuple[str, ...], settings: DetectionSettings) -> None:
        self._measures = measures
        self._warmup_s = settings.warmup_seconds
        self._work = np.zeros(kernels.WORK)
        self.series_id = np.zeros(0, np.uint64)
        self._allocate(ROWS_FIRST)

    def _allocate(self, rows: int) -> None:
        size = rows * len(self._measures)
        self.series_id = np.zeros(rows, np.uint64)
        self.state = np.zeros((size, kernels.STATE), np.float32)
        self.profile = np.zeros((size, kernels.SLOTS), np.float32)
        self.spread = np.zeros((size, kernels.SLOTS), np.uint16)
        self.visits = np.zeros((size, kernels.SLOTS), np.uint8)
        self.step = np.zeros(size, np.float32)
        self.last_s = np.zeros(size, np.int64)

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and clear those that changed hands. Before `score`."""
        rows = frame["row"][:-1].astype(np.int64)
        if not rows.size:
            return
        size = len(self.series_id)
        if int(rows.max()) >= size:
            kept = {name: getattr(self, name) for name in KEPT}
            while size <= int(rows.max()):
                size *= 2
            self._allocate(size)
            for name, array in kept.items():
                getattr(self, name)[: len(array)] = array
        changed = rows[self.series_id[rows] != frame["series_id"][:-1]]
        for m in range(len(self._measures)):
            places = changed * len(self._measures) + m
            for name in KEPT[1:]:
                getattr(self, name)[places] = 0
        self.series_id[rows] = frame["series_id"][:-1]

    def _places(self, frame: Batch, measure: str) -> NDArray[np.int64]:
        m = self._measures.index(measure)
        return frame["row"][:-1].astype(np.int64) * len(self._measures) + m

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns; see detectors.series_kernels.judge."""
        places = self._places(frame, measure)
        n = len(places)
        kernels.judge(
            places,
            np.ascontiguousarray(rates(frame, measure)[:n]),
            middle_s(frame),
            float(frame["tick_seconds"][0]),
            FALSE_ALERTS_PER_DAY,
            self._warmup_s,
            self.state,
            self.profile,
            self.spread,
            self.visits,
            self.step,
            self._work,
            out.expected[:n],
            out.lower[:n],
            out.upper[:n],
            out.score[:n],
            out.p_value[:n],
            out.z[:n],
        )

    def learn(
        self, frame: Batch, measure: str, mask: NDArray[np.bool_], *, weight_s: float = 0.0
    ) -> None:
        """Learn rows where mask is set; `weight_s` is the time a tick stands for in bootstrap."""
        places = self._places(frame, measure)
        n = len(places)
        kernels.learn(
            places,
            np.ascontiguousarray(rates(frame, measure)[:n]),
            np.ascontiguousarray(mask[:n]).view(np.uint8),
            middle_s(frame),
            weight_s or float(frame["tick_seconds"][0]),
            FALSE_ALERTS_PER_DAY,
            self.state,
            self.profile,
            self.spread,
            self.visits,
            self.step,
            self.last_s,
            self._work,
        )

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        for name in KEPT:
            write_array(out, name, getattr(self, name))

    def restore(self, state: Any) -> None:
        """Take it back."""
        if read_array(state, "series_id") is None:
            return
        for name in KEPT:
            setattr(self, name, np.array(read_array(state, name)))


def _make(view: View, settings: DetectionSettings, options: NoOptions) -> SeriesDetector:  # noqa: ARG001
    return SeriesDetector(view.scored, settings)


DETECTOR = Part("series of any kind: forecast, season, shift", _make)
