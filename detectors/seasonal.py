"""The seasonal baseline detector: state for all series of one view, in arrays by dense row."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import baseline, calibration
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.local_time import LocalTime
from detectors.rows import ALL, RowArrays, Rows
from runtime.checkpoint import read_array, write_array
from runtime.registry import NoOptions, Part
from telemetry.batch import Batch
from telemetry.views import View

BETWEEN_SECONDS_MAX = 1800.0  # between two samples that still count as one life
SILENCE_LOST_MAX = 0.5  # with more lost than this, an empty tick says nothing of the network
PACKET_LEAST = 40.0  # octets: what is less is no packet
MATURE_MIN = 20  # series needed before new ones start from the usual unit of their like
BYTES_PER_SERIES = 4 * (baseline.STATE + baseline.SLOTS + calibration.STATE) + baseline.SLOTS


# Places in the state, values, expectations and scales of a frame's rows without `__other__`.
Expectation = tuple[
    NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
]


class SeasonalBaseline:
    """Point deviations and level shifts against each series' own daily and weekly profile.

    Good for steps, collapses and surges that last two ticks or more; blind to changes slower than
    its local level's half-life (signatures.rises looks at those) and to what a young series does.

    State is at row * measures + m. A row whose series id changed starts afresh, with the unit of
    deviation that is usual among its like.
    """

    def __init__(self, measures: tuple[str, ...], settings: DetectionSettings) -> None:
        self._settings = settings
        self._local = LocalTime(settings.zone)
        slots = (baseline.SLOTS,)
        self.rows = RowArrays(
            measures,
            state=(np.float32, (baseline.STATE,)), profile=(np.float32, slots),
            visits=(np.uint8, slots), units=(np.float32, (calibration.STATE,)),
            learned_s=(np.int64, ()),  # when samples were last learned
        )  # fmt: skip
        self.pool = np.zeros((len(measures), 4))
        self._scored: dict[str, tuple[Batch, Expectation]] = {}  # what `learn` need not work out

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and clear those that changed hands. Before `score`."""
        changed = self.rows.admit(frame)
        width = len(self.rows.measures)
        for m in range(width if changed.size else 0):
            units = self.rows["units"][m::width]
            mature = units[units[:, calibration.AGE] > self._settings.warmup_ticks]
            if len(mature) >= MATURE_MIN:
                # The usual unit of its like, a little wider: a young series says nothing bold.
                usual = np.median(mature[:, [calibration.UP, calibration.DOWN]], axis=0)
                units[changed, calibration.UP] = usual[0] + 0.2
                units[changed, calibration.DOWN] = usual[1] + 0.2

    def _expect(self, frame: Batch, measure: str) -> Expectation:
        places = self.rows.places(frame, measure)
        n = len(places)
        value = rates(frame, measure)[:n]
        expected, scale = np.zeros(n), np.zeros(n)
        baseline.expect(
            places,
            value,
            frame["lost_share"][:n],
            frame["moved_share"][:n],
            self._local(middle_s(frame)),
            span_s(frame, measure),
            self.rows["state"],
            self.rows["profile"],
            self.rows["visits"],
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
            events(frame, measure),
            float(self._settings.warmup_ticks),
            self._settings.warmup_seconds,
            self.rows["units"],
            self.pool[self.rows.measures.index(measure)],
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
        state = self.rows["state"]
        lost = places[frame["lost_share"][: len(places)] > SILENCE_LOST_MAX]
        run = state[lost, baseline.ZERO_RUN]
        calibration.learn(
            places, value, expected, scale, events(frame, measure), bits, weight_s or tick_s,
            self.rows["units"], self.pool[self.rows.measures.index(measure)]
        )  # fmt: skip
        baseline.learn(
            places,
            value,
            bits,
            self._local(middle_s(frame)),
            span_s(frame, measure),
            tick_s,
            weight_s or tick_s,
            self._settings.level_half_life_seconds,
            self._settings.local_half_life_seconds,
            self._settings.spread_half_life_seconds,
            state,
            self.rows["profile"],
            self.rows["visits"],
        )
        if lost.size:  # of what they did not carry we know nothing
            state[lost, baseline.ZERO_RUN] = np.minimum(state[lost, baseline.ZERO_RUN], run)
            self._miss(lost)
        if measure == "value":
            self._live(places[(bits > 0) & np.isfinite(value)], middle_s(frame), tick_s)

    def miss(self, frame: Batch, measure: str) -> None:
        """Take a tick of which we have not all: it joins no silence before it to one behind it."""
        self._miss(self.rows.places(frame, measure))

    def _miss(self, places: NDArray[np.int64]) -> None:
        """End silences whose ticks we did not see, but for those long enough to be told: they go on."""
        state = self.rows["state"]
        run, most = state[places, baseline.ZERO_RUN], state[places, baseline.ZERO_RUN_MAX]
        told = (run >= self._settings.silent_ticks) & (run > 2.0 * most)
        state[places[~told], baseline.ZERO_RUN] = 0.0

    def _live(self, places: NDArray[np.int64], now_s: int, tick_s: float) -> None:
        """Count the time between samples as lived: a series polled each minute has ticks of 10 s."""
        before_s = self.rows["learned_s"][places]
        between = np.clip(now_s - before_s - tick_s, 0.0, BETWEEN_SECONDS_MAX)
        between[before_s == 0] = 0.0
        self.rows["units"][places, calibration.LIVED] += between.astype(np.float32)
        self.rows["learned_s"][places] = now_s

    def column(
        self, frame: Batch, measure: str, which: int, rows: Rows = ALL
    ) -> NDArray[np.float32]:
        """Return one state column of the baseline for the frame's rows, without `__other__`."""
        places = self.rows.places(frame, measure, rows)
        found: NDArray[np.float32] = self.rows["state"][places, which]
        return found

    def doubt(self, frame: Batch, measure: str, rows: Rows = ALL) -> NDArray[np.float32]:
        """Return how much each profile may be off at the frame's time, in variances of one tick's noise."""
        return self.column(frame, measure, baseline.doubt_at(self._local(middle_s(frame))), rows)

    def mature(self, frame: Batch, measure: str, rows: Rows = ALL) -> NDArray[np.bool_]:
        """Return which rows have learned enough to speak for themselves, without `__other__`."""
        units, places = self.rows["units"], self.rows.places(frame, measure, rows)
        found: NDArray[np.bool_] = (
            units[places, calibration.AGE] >= self._settings.warmup_ticks
        ) & (units[places, calibration.LIVED] >= self._settings.warmup_seconds)
        return found

    def ages(self) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return (series id, seconds learned from) by dense row (detectors.life)."""
        return self.rows.series_id, self.rows.of_first("units", calibration.LIVED)

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        self.rows.snapshot(out)
        write_array(out, "pool", self.pool)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self.rows.restore(state)
        pool = read_array(state, "pool")
        if pool is not None:
            self.pool = np.array(pool)


def per_second(measure: str) -> bool:
    """Whether a measure is a total that is looked at as a rate; samples, distinct, entropy are not."""
    return not measure.startswith(("value", "distinct", "entropy"))


def rates(frame: Batch, measure: str, rows: Rows = ALL) -> NDArray[np.float64]:
    """Return a measure per second, corrected for lost exports; float64[N], of all rows or some."""
    value = frame[measure][rows]
    if not per_second(measure):
        return value.astype(np.float64)
    rate: NDArray[np.float64] = np.divide(value, float(frame["tick_seconds"][0]), dtype=np.float64)
    lost = frame["lost_share"][rows]
    if lost.any():
        rate /= 1.0 - np.clip(lost, 0.0, 0.9).astype(np.float64)
    return rate


def rate(frame: Batch, measure: str, row: int) -> float:
    """Return the same of one row."""
    return float(rates(frame, measure, slice(row, row + 1))[0])


def span_s(frame: Batch, measure: str) -> float:
    """Return the time over which a value averages: the tick for rates, 1 s for the others."""
    return float(frame["tick_seconds"][0]) if per_second(measure) else 1.0


def events(frame: Batch, measure: str) -> float:
    """Return how many packets, flows or whatever is counted a value of 1 stands for at most."""
    if measure.startswith(("value", "entropy")):
        return math.inf
    return span_s(frame, measure) / (PACKET_LEAST if measure.startswith("octets") else 1.0)


def middle_s(frame: Batch) -> int:
    """Return the middle of the frame's tick in s since 1970."""
    start = int(frame["tick_start_ns"][0])
    return (start + round(float(frame["tick_seconds"][0]) * 5e8)) // 1_000_000_000


def _make(view: View, settings: DetectionSettings, options: NoOptions) -> SeasonalBaseline:  # noqa: ARG001
    return SeasonalBaseline(view.scored, settings)


DETECTOR = Part("each series against its own day and week", _make)
