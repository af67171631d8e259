"""kind = "river": any anomaly model of River as a detector, without River in the node.

The model runs in the teacher, a process that the desk starts: it follows the journal, scores every frame and
sends what is rare back as a control row. Here such rows become scores of the next tick of that view: evidence
that is one tick old, journalled, and therefore the same in a replay. The node imports nothing of River.
"""

import json
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

KIND = "scores"  # of control rows
ROWS_MAX = 1_000


class RiverOptions(Settings, frozen=True, kw_only=True):
    """Options of kind "river"."""

    model: str  # import path: river.anomaly.HalfSpaceTrees
    view: str  # whose series are scored
    measure: str  # which of its measures
    params: dict[str, Any] = {}  # of the model's constructor


def check(payload: dict[str, Any]) -> None:
    """Raise ConfigError for scores that cannot be meant."""
    rows = payload.get("rows")
    named = all(isinstance(payload.get(name), str) for name in ("model", "view", "measure"))
    if not named or not isinstance(rows, list) or len(rows) > ROWS_MAX:
        raise ConfigError(f"scores needs `model`, `view`, `measure` and at most {ROWS_MAX} `rows`")
    for row in rows:
        try:
            series_id, p, score = row
            good = 0.0 < float(p) <= 1.0 and np.isfinite(float(score))
            good = good and 0 <= int(str(series_id), 16) < 1 << 64
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ConfigError("a row of scores is [series id in hex, p-value, score]")


class RiverScores:
    """Says of each row what the teacher's model last said of its series, once.

    Expected values and bands are not the model's to say: they are the value itself.
    """

    def __init__(self, view: View, options: RiverOptions) -> None:
        self._mine = options.view == view.name
        self._options = options
        self._said: dict[int, tuple[float, float]] = {}
        if self._mine and options.measure not in view.scored:
            raise ConfigError(
                f"options: measure {options.measure!r} of view {view.name!r} is none of "
                f"{', '.join(view.scored)}"
            )

    def take(self, payload: dict[str, Any]) -> None:
        """Take a control row of kind `scores`."""
        check(payload)
        named = (self._options.model, self._options.view, self._options.measure)
        if self._mine and (payload["model"], payload["view"], payload["measure"]) == named:
            self._said = {int(str(r[0]), 16): (float(r[1]), float(r[2])) for r in payload["rows"]}

    def admit(self, frame: Batch) -> None:
        """Rows are known by their series id: nothing to make room for."""

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write what was said of the rows' series."""
        value = rates(frame, measure)[:-1]
        n = len(value)
        out.expected[:n] = out.lower[:n] = out.upper[:n] = np.nan_to_num(value)
        out.score[:n][np.isnan(value)] = np.nan
        if measure != self._options.measure or not self._said:
            return
        for i, series_id in enumerate(frame["series_id"][:-1].tolist()):
            if series_id in self._said and np.isfinite(value[i]):
                p, _ = self._said[series_id]
                out.p_value[i], out.score[i] = p, -np.log10(p)

    def learn(self, frame: Batch, measure: str, mask: NDArray[np.bool_]) -> None:  # noqa: ARG002
        """The model learns in the teacher; what was said counts for one tick."""
        if measure == self._options.measure and frame.rows:
            self._said = {}

    def snapshot(self, out: Any) -> None:
        """Write what was said and not used yet."""
        rows = [[f"{series_id:016x}", *pair] for series_id, pair in sorted(self._said.items())]
        write_array(out, "said", np.frombuffer(json.dumps(rows).encode(), np.uint8))

    def restore(self, state: Any) -> None:
        """Take it back."""
        kept = read_array(state, "said")
        if kept is not None:
            self._said = {int(r[0], 16): (r[1], r[2]) for r in json.loads(kept.tobytes())}


def _make(view: View, settings: DetectionSettings, options: RiverOptions) -> RiverScores:  # noqa: ARG001
    return RiverScores(view, options)


DETECTOR = Part("any anomaly model of River, run beside the desk", _make, RiverOptions)
