"""The seasonal baseline detector: state for all series of one view, in arrays by dense row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import baseline, calibration
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from runtime.checkpoint import read_array, write_array
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch
from telemetry.views import View

ROWS_FIRST = 256
BETWEEN_SECONDS_MAX = 1800.0  # between two samples that still count as one life
MATURE_MIN = 20  # series needed before new ones start from the usual unit of their like
BYTES_PER_SERIES = 4 * (baseline.STATE + baseline.SLOTS + calibration.STATE) + baseline.SLOTS


# Places in the state, values, expectations and scales of a frame's rows without `__other__`.
Expectation = tuple[
    NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
]


class SeasonalBaseline:
    """Point deviations and level shifts against each series' own daily and weekly profile.

    Good for steps, collapses and surges that last two ticks or more; blind to changes slower than
    its local level's half-life (signatures.rising looks at those) and to what a young series does.

    State is at row * measures + m. A row whose series id changed starts afresh, with the unit of
    deviation that is usual among its like.
    """

    def __init__(self, measures: tuple[str, ...], settings: DetectionSettings) -> None:
        self._measures = measures
        self._settings = settings
        self.series_id = np.zeros(0, np.uint64)
        self.pool = np.zeros((len(measures), 4))
        self._scored: dict[str, tuple[Batch, Expectation]] = {}  # what `learn` need not work out
        self._allocate(ROWS_FIRST)

    def _allocate(self, rows: int) -> None:
        size = rows * len(self._measures)
        self.state = np.zeros((size, baseline.STATE), np.float32)
        self.profile = np.zeros((size, baseline.SLOTS), np.float32)
        self.visits = np.zeros((size, baseline.SLOTS), np.uint8)
        self.units = np.zeros((size, calibration.STATE), np.float32)
        self.learned_s = np.zeros(size, np.int64)  # when samples were last learned
        kept = self.series_id
        self.series_id = np.zeros(rows, np.uint64)
        self.series_id[: len(kept)] = kept

    def _grow(self, rows: int) -> None:
        kept = (self.state, self.profile, self.visits, self.units)
        learned_s = self.learned_s
        size = len(self.series_id)
        while size < rows:
            size *= 2
        self._allocate(size)
        self.state[: len(kept[0])] = kept[0]
        self.profile[: len(kept[1])] = kept[1]
        self.visits[: len(kept[2])] = kept[2]
        self.units[: len(kept[3])] = kept[3]
        self.learned_s[: len(learned_s)] = learned_s

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
            for m in range(width):
                places = changed * width + m
                self.state[places] = 0
                self.profile[places] = 0
                self.visits[places] = 0
                self.learned_s[places] = 0
                units = self.units[m::width]
                mature = units[units[:, calibration.AGE] > self._settings.warmup_ticks]
                self.units[places] = 0
                if len(mature) >= MATURE_MIN:
                    # The usual unit of its like, a little wider: a young series says nothing bold.
                    usual = np.median(mature[:, [calibration.UP, calibration.DOWN]], axis=0)
                    self.units[places, calibration.UP] = usual[0] + 0.2
                    self.units[places, calibration.DOWN] = usual[1] + 0.2
            self.series_id[rows] = frame["series_id"][:-1]

    def places(self, frame: Batch, measure: str) -> NDArray[np.int64]:
        """Return where the state of each row's measure lies; `__other__` has none."""
        m = self._measures.index(measure)
        return frame["row"][:-1].astype(np.int64) * len(self._measures) + m

    def _expect(self, frame: Batch, measure: str) -> Expectation:
        places = self.places(frame, measure)
        n = len(places)
        value = rates(frame, measure)[:n]
        expected, scale = np.zeros(n), np.zeros(n)
        baseline.expect(
            places,
            value,
            frame["lost_share"][:n],
            frame["moved_share"][:n],
            middle_s(frame),
            span_s(frame, measure),
            self.state,
            self.profile,
            self.visits,
            expected,
            scale,
        )
        return places, value, expected, scale

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns; see detectors.baseline.expect and detectors.calibration.judge."""
        places, value, expected, scale = found = self._expect(frame, measure)
        self._scored[measure] = (frame, found)
        n = len(places)
        calibration.judge(
            places,
            value,
            expected,
            scale,
            float(self._settings.warmup_ticks),
            self._settings.warmup_seconds,
            self.units,
            self.pool[self._measures.index(measure)],
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
        frame_scored, found = self._scored.pop(measure, (None, None))
        if frame_scored is not frame or found is None:  # never scored, or another tick came between
            found = self._expect(frame, measure)
        places, value, expected, scale = found
        tick_s = float(frame["tick_seconds"][0])
        bits = np.ascontiguousarray(mask[: len(places)]).view(np.uint8)
        calibration.learn(
            places, value, expected, scale, bits, weight_s or tick_s, self.units,
            self.pool[self._measures.index(measure)]
        )  # fmt: skip
        baseline.learn(
            places,
            value,
            bits,
            middle_s(frame),
            span_s(frame, measure),
            tick_s,
            weight_s or tick_s,
            self._settings.level_half_life_seconds,
            self._settings.local_half_life_seconds,
            self._settings.spread_half_life_seconds,
            self.state,
            self.profile,
            self.visits,
        )

        if measure == "value":
            self._live(places[(bits > 0) & np.isfinite(value)], middle_s(frame), tick_s)

    def _live(self, places: NDArray[np.int64], now_s: int, tick_s: float) -> None:
        """Count the time between samples as lived: a series polled each minute has ticks of 10 s."""
        before_s = self.learned_s[places]
        between = np.clip(now_s - before_s - tick_s, 0.0, BETWEEN_SECONDS_MAX)
        between[before_s == 0] = 0.0
        self.units[places, calibration.LIVED] += between.astype(np.float32)
        self.learned_s[places] = now_s

    def column(self, frame: Batch, measure: str, which: int) -> NDArray[np.float32]:
        """Return one state column of the baseline for the frame's rows, without `__other__`."""
        found: NDArray[np.float32] = self.state[self.places(frame, measure), which]
        return found

    def mature(self, frame: Batch, measure: str) -> NDArray[np.bool_]:
        """Return which rows have learned enough to speak for themselves, without `__other__`."""
        units = self.units[self.places(frame, measure)]
        found: NDArray[np.bool_] = (units[:, calibration.AGE] >= self._settings.warmup_ticks) & (
            units[:, calibration.LIVED] >= self._settings.warmup_seconds
        )
        return found

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        for name in ("series_id", "state", "profile", "visits", "units", "pool", "learned_s"):
            write_array(out, name, getattr(self, name))

    def restore(self, state: Any) -> None:
        """Take it back."""
        ids = read_array(state, "series_id")
        if ids is None:
            return
        self.series_id = np.array(ids)
        for name in ("state", "profile", "visits", "units", "pool"):
            setattr(self, name, np.array(read_array(state, name)))
        learned_s = read_array(state, "learned_s")
        size = len(self.series_id) * len(self._measures)
        self.learned_s = np.zeros(size, np.int64) if learned_s is None else np.array(learned_s)


def per_second(measure: str) -> bool:
    """Whether a measure is a total that is looked at as a rate; samples, distinct, entropy are not."""
    return not measure.startswith(("value", "distinct", "entropy"))


def rates(frame: Batch, measure: str) -> NDArray[np.float64]:
    """Return a measure per second, corrected for lost exports; float64[N]."""
    value = frame[measure].astype(np.float64)
    if not per_second(measure):
        return value
    lost = np.clip(frame["lost_share"], 0.0, 0.9).astype(np.float64)
    result: NDArray[np.float64] = value / float(frame["tick_seconds"][0]) / (1.0 - lost)
    return result


def span_s(frame: Batch, measure: str) -> float:
    """Return the time over which a value averages: the tick for rates, 1 s for the others."""
    return float(frame["tick_seconds"][0]) if per_second(measure) else 1.0


def middle_s(frame: Batch) -> int:
    """Return the middle of the frame's tick in s since 1970."""
    start = int(frame["tick_start_ns"][0])
    return (start + round(float(frame["tick_seconds"][0]) * 5e8)) // 1_000_000_000


def _make(view: View, settings: DetectionSettings, options: NoOptions) -> SeasonalBaseline:  # noqa: ARG001
    return SeasonalBaseline(view.scored, settings)


DETECTOR = Part("each series against its own day and week", _make)
