"""Series of unknown nature, online: the kernels of `detectors.series_kernels` over a frame's rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import exceedances
from detectors import series_kernels as kernels
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.local_time import LocalTime
from detectors.rows import RowArrays
from detectors.seasonal import middle_s, rates
from detectors.shape_pool import ShapePool
from detectors.tails import Tails
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch
from telemetry.views import View

BYTES_PER_SERIES = kernels.BYTES + exceedances.BYTES + 4 + 8 + 8


class SeriesDetector:
    """Forecast, season, shift, flat and, from a pool, shape of gauges and rates of any kind.

    For sampled series, where nothing is known of the noise; flow views have `SeasonalBaseline`, which
    knows that traffic varies with its root. Blind to what its looks are blind to (see the kernels), to
    silence (a missing value says nothing) and to a series' first hour.

    State is at row * measures + m: 1,012 bytes each, and the pool of shapes.
    """

    def __init__(
        self, measures: tuple[str, ...], settings: DetectionSettings, *, shape_bytes: int = 0
    ) -> None:
        """`shape_bytes`: memory for the shapes of the series with the clearest periods."""
        self._local = LocalTime(settings.zone)
        self._tails = Tails(measures, settings.warmup_seconds)
        self._work = np.zeros(kernels.WORK)
        self.shape = ShapePool(shape_bytes)
        slots = (kernels.SLOTS,)
        self.rows = RowArrays(
            measures,
            state=(np.float32, (kernels.STATE,)), profile=(np.float32, slots),
            spread=(np.uint16, slots), visits=(np.uint8, slots), step=(np.float32, ()),
            last_s=(np.int64, ()), runs=(np.float32, (exceedances.STATE,)),
        )  # fmt: skip

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and clear those that changed hands. Before `score`."""
        changed = self.rows.admit(frame) * len(self.rows.measures)
        for m in range(len(self.rows.measures)):
            self.shape.forget(changed + m)

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns; see the kernels' and exceedances' `judge`."""
        rows, places = self.rows, self.rows.places(frame, measure)
        n, tick_s = len(places), float(frame["tick_seconds"][0])
        expected, room, score, z = (np.empty(n) for _ in range(4))
        value = np.ascontiguousarray(rates(frame, measure)[:n])
        kernels.judge(
            places, value, self.shape.score(places, value), self._local(middle_s(frame)), tick_s,
            rows["state"], rows["profile"], rows["spread"], rows["visits"], rows["step"],
            self._work, expected, room, score, z,
        )  # fmt: skip
        level = self._tails.judge(rows, measure, places, score, tick_s, out)
        room *= level
        out.expected[:n], out.lower[:n], out.upper[:n] = expected, expected - room, expected + room
        out.z[:n] = z

    def learn(
        self, frame: Batch, measure: str, mask: NDArray[np.bool_], *, weight_s: float = 0.0
    ) -> None:
        """Learn rows where mask is set; `weight_s` is the time a tick stands for in bootstrap."""
        rows, places = self.rows, self.rows.places(frame, measure)
        n, tick_s = len(places), weight_s or float(frame["tick_seconds"][0])
        score = np.empty(n)
        value = np.ascontiguousarray(rates(frame, measure)[:n])
        shape = np.zeros(n) if weight_s else self.shape.learn(places, value)
        kernels.learn(
            places, value, shape,
            np.ascontiguousarray(mask[:n]).view(np.uint8), self._local(middle_s(frame)), tick_s, rows["state"],
            rows["profile"], rows["spread"], rows["visits"], rows["step"], rows["last_s"],
            self._work, score,
        )  # fmt: skip
        self._tails.learn(rows, measure, places, score, tick_s)

    def ages(self) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return (series id, seconds learned from) by dense row (detectors.life)."""
        return self.rows.series_id, self.rows.of_first("runs", exceedances.LIVED)

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        self.rows.snapshot(out)
        self._tails.snapshot(out)
        self.shape.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self.rows.restore(state)
        self._tails.restore(state)
        self.shape.restore(state)


def _make(view: View, settings: DetectionSettings, options: NoOptions) -> SeriesDetector:  # noqa: ARG001
    return SeriesDetector(view.scored, settings)


DETECTOR = Part("series of any kind: forecast, season, shift, flat", _make)
