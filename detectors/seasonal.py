"""The seasonal baseline detector: state for all series of one view, in arrays by dense row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import baseline
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch

ROWS_FIRST = 256


class SeasonalBaseline:
    """Point deviations and level shifts against each series' own daily and weekly profile.

    Good for steps, collapses and surges that last two ticks or more; blind to changes slower than
    its level's half-life (see online.rising) and to what a young series does.

    State is at row * measures + m. A row whose series id changed starts afresh.
    """

    def __init__(self, measures: tuple[str, ...], settings: DetectionSettings) -> None:
        self._measures = measures
        self._settings = settings
        self.series_id = np.zeros(0, np.uint64)
        self._allocate(ROWS_FIRST)

    def _allocate(self, rows: int) -> None:
        size = rows * len(self._measures)
        self.state = np.zeros((size, baseline.STATE), np.float32)
        self.profile = np.zeros((size, baseline.SLOTS), np.float32)
        self.visits = np.zeros((size, baseline.SLOTS), np.uint8)
        kept = self.series_id
        self.series_id = np.zeros(rows, np.uint64)
        self.series_id[: len(kept)] = kept

    def _grow(self, rows: int) -> None:
        state, profile, visits = self.state, self.profile, self.visits
        size = len(self.series_id)
        while size < rows:
            size *= 2
        self._allocate(size)
        self.state[: len(state)] = state
        self.profile[: len(profile)] = profile
        self.visits[: len(visits)] = visits

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and clear those that changed hands. Before `score`."""
        rows = frame["row"][:-1].astype(np.int64)
        if not rows.size:
            return
        if int(rows.max()) >= len(self.series_id):
            self._grow(int(rows.max()) + 1)
        changed = rows[self.series_id[rows] != frame["series_id"][:-1]]
        if changed.size:
            width = len(self._measures)
            places = (changed[:, None] * width + np.arange(width)).ravel()
            self.state[places] = 0
            self.profile[places] = 0
            self.visits[places] = 0
            self.series_id[rows] = frame["series_id"][:-1]

    def places(self, frame: Batch, measure: str) -> NDArray[np.int64]:
        """Return where the state of each row's measure lies; `__other__` has none."""
        m = self._measures.index(measure)
        return frame["row"][:-1].astype(np.int64) * len(self._measures) + m

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns; see detectors.baseline.score."""
        places = self.places(frame, measure)
        n = len(places)
        tick_s = float(frame["tick_seconds"][0])
        lost = float(np.clip(frame["lost_share"].max(initial=0.0), 0.0, 0.9))
        moved = float(np.clip(frame["moved_share"].max(initial=0.0), 0.0, 0.9))
        baseline.score(
            places,
            rates(frame, measure)[:n],
            middle_s(frame),
            tick_s,
            1.0 + 4.0 * lost + moved,
            float(self._settings.warmup_ticks),
            self.state,
            self.profile,
            self.visits,
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
        places = self.places(frame, measure)
        n = len(places)
        baseline.learn(
            places,
            rates(frame, measure)[:n],
            np.ascontiguousarray(mask[:n]).view(np.uint8),
            middle_s(frame),
            weight_s or float(frame["tick_seconds"][0]),
            self._settings.level_half_life_seconds,
            self._settings.spread_half_life_seconds,
            self.state,
            self.profile,
            self.visits,
        )

    def column(self, frame: Batch, measure: str, which: int) -> NDArray[np.float32]:
        """Return one state column for the frame's rows, without `__other__`."""
        found: NDArray[np.float32] = self.state[self.places(frame, measure), which]
        return found

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        for name in ("series_id", "state", "profile", "visits"):
            write_array(out, name, getattr(self, name))

    def restore(self, state: Any) -> None:
        """Take it back."""
        ids = read_array(state, "series_id")
        if ids is None:
            return
        self.series_id = np.array(ids)
        for name in ("state", "profile", "visits"):
            setattr(self, name, np.array(read_array(state, name)))


def rates(frame: Batch, measure: str) -> NDArray[np.float64]:
    """Return a measure per second, corrected for lost exports; float64[N]."""
    lost = np.clip(frame["lost_share"], 0.0, 0.9).astype(np.float64)
    value = frame[measure].astype(np.float64)
    if measure.startswith(("distinct", "entropy")):
        return value
    result: NDArray[np.float64] = value / float(frame["tick_seconds"][0]) / (1.0 - lost)
    return result


def middle_s(frame: Batch) -> int:
    """Return the middle of the frame's tick in s since 1970."""
    start = int(frame["tick_start_ns"][0])
    return (start + round(float(frame["tick_seconds"][0]) * 5e8)) // 1_000_000_000
