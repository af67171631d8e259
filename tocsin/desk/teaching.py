"""What River learns: triage from operators' verdicts, drift of score rates, and river models as detectors.

Pure but for the library: rows in, coefficients, drifts and scores out. Only `tocsin.desk.teacher`, a process of
its own that the desk starts when there is something to learn, imports this module; the node never does.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
from river import drift, linear_model, optim

from alerting.life.triage import FEATURES_MAX, Model
from alerting.words.amounts import rounded
from detectors import calibration
from detectors.river_scores import RiverOptions
from detectors.seasonal import rates
from telemetry.batch import Batch
from telemetry.errors import ConfigError

PASSES = 5  # over the verdicts: a site gives few of them
LEARNING_RATE = 0.1
DRIFTS_KEPT = 100
DRIFT_MIN_SAMPLES = 200  # series-samples of one look at a view
MODELS_MAX = 10_000  # river models of one detector, one a series
POOL = 20_000  # scores of the recent past, of all series of a measure
POOL_MIN = 500
TAIL = 0.05  # share of the pool by which the tail is fitted
REPORT_P = 1e-5
UNASKED = 10  # values that a model learns before it is asked: of less some make no number, for good
ALIKE_MIN, ALIKE = 2, 0.05  # more series than both, the second a share of all, are struck together
REPORT_MAX = 256  # rows of a tick


def learn_triage(feedback: Sequence[Mapping[str, Any]]) -> tuple[Model, Any]:
    """Return coefficients and the river model they come from. Expected alarms count as not worth it.

    Learned anew from all verdicts, in their order: the same verdicts give the same model.
    """
    model = linear_model.LogisticRegression(optimizer=optim.SGD(LEARNING_RATE), l2=1e-4)
    for _ in range(PASSES):
        for one in feedback:
            model.learn_one(dict(one["features"]), one["verdict"] == "true")
    ranked = sorted(model.weights.items(), key=lambda item: (-abs(item[1]), item[0]))
    kept = dict(sorted(ranked[:FEATURES_MAX]))
    exported = Model(
        list(kept),
        [float(weight) for weight in kept.values()],
        float(model.intercept),
        len(feedback),
    )
    return exported, model


class DriftWatch:
    """Watches how often series of each view are strange: ADWIN and Page-Hinkley on the rate.

    A drift means that the views' normal changed, or that something goes on: it is said, nothing follows.
    """

    def __init__(self) -> None:
        self._before: dict[str, list[int]] = {}
        self._monitors: dict[str, tuple[Any, Any]] = {}
        self._means: dict[str, float] = {}
        self.drifts: deque[dict[str, Any]] = deque(maxlen=DRIFTS_KEPT)

    def take(self, counts: Mapping[str, Sequence[int]], now_ns: int) -> None:
        """Take counters since the node's start: series-samples, and those that were strange."""
        for view, (samples, strange) in sorted(counts.items()):
            before = self._before.get(view, [0, 0])
            if samples < before[0] or strange < before[1]:  # the node began again
                before = [0, 0]
            grown = samples - before[0]
            if grown < DRIFT_MIN_SAMPLES:
                continue
            self._before[view] = [samples, strange]
            self._update(view, (strange - before[1]) / grown, now_ns)

    def _update(self, view: str, rate: float, now_ns: int) -> None:
        if view not in self._monitors:
            self._monitors[view] = (
                drift.ADWIN(delta=0.002),  # type: ignore[no-untyped-call]
                drift.PageHinkley(min_instances=30, delta=0.005, threshold=0.5),
            )
        for monitor in self._monitors[view]:
            monitor.update(rate)
            if monitor.drift_detected:
                self.drifts.appendleft(
                    {
                        "view": view, "at_ns": now_ns, "monitor": type(monitor).__name__,
                        "rate": rounded(rate), "usual": rounded(self._means.get(view, rate)),
                    }
                )  # fmt: skip
        mean = self._means.get(view, rate)
        self._means[view] = mean + 0.02 * (rate - mean)

    def watched(self) -> list[dict[str, Any]]:
        """Return the usual rate of each view."""
        return [{"view": view, "rate": rounded(rate)} for view, rate in sorted(self._means.items())]


def model_class(path: str) -> type[Any]:
    """Return the class at an import path such as river.anomaly.HalfSpaceTrees, or raise ConfigError."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"model {path!r} cannot be imported: {error}") from error
    if not (hasattr(found, "score_one") and hasattr(found, "learn_one")):
        raise ConfigError(f"model {path!r} has no score_one and learn_one: it is no anomaly model")
    return found  # type: ignore[no-any-return]


class RiverDetector:
    """One river model for each series of one measure; scores become p-values by the pool of all of them.

    A score is compared with those of the recent past of all series: its surprise is that of its rank, and
    beyond all of them that of the exponential tail that fits the upper twentieth. Surprises of consecutive
    ticks add up as those of our own baseline do (detectors.calibration): many models give scores that end
    at 1, and one tick alone proves little. What strikes more than a few series in one tick is no matter of
    theirs: models that begin to score, or learn alike, are strange all at once. It begins anew.

    Where `score_one` asks for a target (river.anomaly.PredictiveAnomalyDetection), the value is it, and the value
    before it the feature.
    """

    def __init__(self, options: RiverOptions) -> None:
        self._options = options
        self._class = model_class(options.model)
        self._make()  # a wrong parameter is said now
        self._models: OrderedDict[int, Any] = OrderedDict()
        self._values: dict[int, float] = {}
        self._pool: deque[float] = deque(maxlen=POOL)
        self._sums: dict[int, float] = {}
        self._supervised = "y" in signature(self._class.score_one).parameters
        self._learned: dict[int, int] = {}
        self._before: dict[int, float] = {}  # of a supervised model: the value before

    def _make(self) -> Any:
        try:
            return self._class(**self._options.params)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model {self._options.model!r}: {error}") from error

    def take(self, frame: Batch) -> list[tuple[int, float, float]]:
        """Score and learn a frame's rows; return (series id, p-value, score) of the strangest ones."""
        value = rates(frame, self._options.measure)[:-1]
        pool = np.sort(np.array(self._pool))
        found: list[tuple[int, float, float]] = []
        scores: list[float] = []
        for series_id, x in zip(frame["series_id"][:-1].tolist(), value.tolist(), strict=True):
            if not math.isfinite(x):
                continue
            model = self._models.get(series_id)
            if model is None:
                if len(self._models) >= MODELS_MAX:
                    gone, _ = self._models.popitem(last=False)
                    self._values.pop(gone, None)
                    self._sums.pop(gone, None)
                    self._before.pop(gone, None)
                    self._learned.pop(gone, None)
                model = self._models[series_id] = self._make()
            score = self._score(model, series_id, self._scale(series_id, x))
            if not math.isfinite(score):
                continue
            scores.append(score)
            if len(pool) >= POOL_MIN:
                before = self._sums.get(series_id, 0.0)
                self._sums[series_id] = total = _add_up(before, _surprise(score, pool))
                p = math.exp(-calibration.OMEGA * total)
                if p <= REPORT_P:
                    found.append((series_id, p, score))
        self._pool.extend(scores)
        if len(found) > max(ALIKE_MIN, ALIKE * len(scores)):
            for series_id, _, _ in found:
                self._sums[series_id] = 0.0
            return []
        found.sort(key=lambda row: (row[1], row[0]))
        return found[:REPORT_MAX]

    def _score(self, model: Any, series_id: int, x: float) -> float:
        """Score a value, then learn it; ConfigError where the model cannot."""
        row = {"value": x}
        if self._supervised:
            row = {"before": self._before.get(series_id, x)}
            self._before[series_id] = x
        target = (x,) if self._supervised else ()
        learned = self._learned[series_id] = self._learned.get(series_id, 0) + 1
        score = math.nan
        try:
            if learned > UNASKED:
                score = float(model.score_one(row, *target))
            model.learn_one(row, *target)
        except Exception as error:  # it is somebody else's code
            raise ConfigError(
                f"model {self._options.model!r} on {self._options.view}/{self._options.measure}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return score

    def _scale(self, series_id: int, x: float) -> float:
        """Return a value as its share of the largest usual one: many models ask for 0 to 1."""
        most = max(abs(x), self._values.get(series_id, 0.0) * 0.999)
        self._values[series_id] = most
        return x / most if most > 0.0 else 0.0


def _surprise(score: float, pool: Any) -> float:
    """Return -log p of a score among sorted ones."""
    rest = len(pool) - int(np.searchsorted(pool, score, "left"))
    rarity = (rest + 1.0) / (len(pool) + 1.0)
    if rest == 0:
        edge = float(np.quantile(pool, 1.0 - TAIL))
        mean = float(np.maximum(pool - edge, 0.0).mean()) / TAIL
        if mean > 0.0:
            rarity = min(rarity, TAIL * math.exp(-min((score - edge) / mean, 600.0)))
    return min(-math.log(max(rarity, 1e-300)), calibration.SOFT_CAP)


def _add_up(before: float, surprise: float) -> float:
    after = before + surprise - calibration.DRIFT
    if surprise < 0.5 * calibration.AT_UNIT:
        after = min(after, 0.5 * before)
    return min(max(after, 0.0), calibration.SUM_MOST)
