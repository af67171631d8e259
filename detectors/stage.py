"""The detection stage: frames in, frames with score columns and anomalies out.

Driver of all detectors: it scores every measure, lets the signatures look at the whole frame, waits
for all views of a tick (the barrier), lets the budget decide in a fixed order, and only then
learns: what was anomalous is learned at most every n-th tick.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import online
from detectors.budget import AlertBudget
from detectors.config import DetectionSettings
from detectors.detector import Finding, ScoreColumns
from detectors.seasonal import SeasonalBaseline, rates
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ANOMALY, FRAME, FrameFlag
from telemetry.views import SCORE_COLUMNS, View, scored_schema

POINT_FINDINGS_MAX = 256  # of one view and tick: a storm is summarised, its strongest are named


class DetectionStage:
    """Score frames of all views against their baselines and under one alert budget."""

    accepts = (FRAME,)
    emits = (FRAME, ANOMALY)

    def __init__(
        self, views: Sequence[View], settings: DetectionSettings, context: Context
    ) -> None:
        self._settings = settings
        self._views = {view.name: view for view in views}
        self._schemas = {view.name: scored_schema(view) for view in views}
        self._models = {view.name: SeasonalBaseline(view.scored, settings) for view in views}
        self._rising = {
            name: online.Rising(settings) for name in self._views if name == "source_prefix"
        }
        self.budget = AlertBudget(false_alerts_per_day=settings.false_alerts_per_day)
        self._waiting: list[tuple[int, str, Batch, dict[str, ScoreColumns], list[Finding]]] = []
        self._since: dict[tuple[str, int, str, str], tuple[int, int, str]] = {}
        self._ticks = 0
        self._found = context.metrics.counter(
            "detection_findings_total",
            "findings by what became of them",
            label="disposition",
            values=("alert", "hard", "digest"),
        )
        self._samples = context.metrics.counter("detection_samples_total", "series-samples scored")

    # ---- stage

    def process(self, batch: Batch) -> list[Batch]:
        """Score one frame and return it with its score columns; anomalies come from `advance`."""
        view = self._views[batch.texts("view")[0]]
        model = self._models[view.name]
        known = len(model.series_id)
        before = model.series_id.copy()
        model.admit(batch)
        rows = batch["row"][:-1].astype(np.int64)
        fresh = np.ones(len(rows), bool)
        old = rows < known
        fresh[old] = before[rows[old]] != batch["series_id"][:-1][old]
        scores: dict[str, ScoreColumns] = {}
        added: dict[str, NDArray[Any]] = {}
        for measure in view.scored:
            columns = ScoreColumns.empty(batch.rows)
            model.score(batch, measure, columns)
            scores[measure] = columns
            for name in SCORE_COLUMNS:
                added[f"{measure}_{name}"] = _six_digits(getattr(columns, name))
            self._samples.array[0] += np.uint64(batch.rows)
        incomplete = bool((batch["flags"] & FrameFlag.INCOMPLETE).any())
        found = [] if incomplete else self._findings(view, batch, scores, model, fresh)
        tick_ns = int(batch["tick_start_ns"][0])
        end_ns = tick_ns + round(float(batch["tick_seconds"][0]) * 1e9)
        self._waiting.append((end_ns, view.name, batch, scores, found))
        widened = batch.with_columns(self._schemas[view.name], {**batch.columns, **added})
        return [widened]

    def _findings(
        self,
        view: View,
        frame: Batch,
        scores: dict[str, ScoreColumns],
        model: SeasonalBaseline,
        fresh: NDArray[np.bool_],
    ) -> list[Finding]:
        found: list[Finding] = []
        if frame.rows < 2:
            return found
        if view.name in ("exporter", "interface"):
            found += online.silent(frame, scores, model, self._settings, view.name)
        if view.name == "destination_prefix":
            found += online.attack(frame, scores)
        if view.name == "source_prefix":
            found += online.scan(frame, scores)
        if view.name in self._rising:
            found += self._rising[view.name].step(frame, scores, fresh)
        for measure, columns in scores.items():
            hits = np.flatnonzero(columns.score[:-1] >= 1.5)
            if hits.size > POINT_FINDINGS_MAX:
                order = np.lexsort((hits, -columns.score[hits]))
                hits = np.sort(hits[order[:POINT_FINDINGS_MAX]])
            value = rates(frame, measure)
            for i in hits.tolist():
                found.append(
                    Finding(
                        i, measure, "level" if columns.score[i] > 3 else "point", False,
                        float(value[i]), float(columns.expected[i]), float(columns.lower[i]),
                        float(columns.upper[i]), float(columns.score[i]), float(columns.p_value[i]),
                        {"z": _round6(float(columns.z[i]))},
                    )
                )  # fmt: skip
        return found

    def advance(self, frontier_ns: int) -> list[Batch]:
        """All views whose tick ends by the frontier are in: let the budget decide, then learn."""
        due = sorted(
            (entry for entry in self._waiting if entry[0] <= frontier_ns), key=lambda e: e[:2]
        )
        self._waiting = [entry for entry in self._waiting if entry[0] > frontier_ns]
        made = []
        for end_ns in sorted({entry[0] for entry in due}):
            tick = [entry for entry in due if entry[0] == end_ns]
            rows = self._decide(end_ns, tick)
            if rows:
                made.append(
                    batch_from_rows(ANOMALY, rows, source="detection", frontier_ns=frontier_ns)
                )
            for _, view, frame, scores, found in tick:
                self._learn(view, frame, scores, found)
            self._ticks += 1
        return made

    def _decide(
        self,
        end_ns: int,
        tick: list[tuple[int, str, Batch, dict[str, ScoreColumns], list[Finding]]],
    ) -> list[dict[str, Any]]:
        self.budget.open_tick(end_ns / 1e9)
        tests = sum((frame.rows - 1) * len(scores) for _, _, frame, scores, _ in tick)
        rows: list[dict[str, Any]] = []
        going: dict[tuple[str, int, str, str], tuple[int, int, str]] = {}
        for _, view, frame, _, found in tick:
            ids = frame["series_id"]
            tick_s = float(frame["tick_seconds"][0])
            level = self.budget.level(tests, tick_s)
            start_ns = int(frame["tick_start_ns"][0])
            for one in sorted(found, key=lambda f: (int(ids[f.row]), f.detector, f.measure)):
                key = (view, int(ids[one.row]), one.detector, one.measure)
                since = self._since.get(key)
                if since is None or start_ns - since[1] > 3 * tick_s * 1e9:
                    disposition = "hard" if one.hard else "digest"
                    first_ns = start_ns
                else:
                    first_ns, _, disposition = since
                if disposition == "digest" and one.p_value <= level and self.budget.take():
                    disposition = "alert"
                going[key] = (first_ns, start_ns, disposition)
                self._found.add(disposition)
                rows.append(
                    {
                        "tick_start_ns": start_ns,
                        "tick_seconds": tick_s,
                        "view": view,
                        "series_id": int(ids[one.row]),
                        "measure": one.measure,
                        "detector": one.detector,
                        "disposition": disposition,
                        "actual": _round6(one.actual),
                        "expected": _round6(one.expected),
                        "lower": _round6(one.lower),
                        "upper": _round6(one.upper),
                        "score": _round6(one.score),
                        "p_value": _round6(one.p_value),
                        "since_ns": first_ns,
                        "detail": json.dumps(one.detail, sort_keys=True),
                    }
                )
        horizon = end_ns - 600_000_000_000
        self._since = {k: v for k, v in self._since.items() if v[1] > horizon} | going
        return rows

    def _learn(
        self, view: str, frame: Batch, scores: dict[str, ScoreColumns], found: list[Finding]
    ) -> None:
        if (frame["flags"] & FrameFlag.INCOMPLETE).any():
            return
        model = self._models[view]
        struck = np.zeros(frame.rows, bool)
        for one in found:
            struck[one.row] = True
        sometimes = self._ticks % self._settings.learn_every_when_anomalous == 0
        for measure, columns in scores.items():
            calm = (np.abs(columns.z) < 2.0) & (columns.score < 1.0)
            mask = (calm & ~struck) | sometimes
            model.learn(frame, measure, mask)

    def bootstrap(self, frame: Batch, *, stands_for_seconds: float) -> None:
        """Learn a frame of history that stands for a longer time; nothing is scored or raised."""
        view = self._views[frame.texts("view")[0]]
        model = self._models[view.name]
        model.admit(frame)
        mask = np.ones(frame.rows, bool)
        for measure in view.scored:
            model.learn(frame, measure, mask, weight_s=stands_for_seconds)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Rows are told apart by their series id: a row in new hands starts afresh by itself."""

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write baselines, runs of findings and the budget."""
        for name, model in self._models.items():
            model.snapshot(out.scoped(name))
        for name, rising in self._rising.items():
            for column in ("fast", "slow", "since_s", "jump"):
                write_array(out.scoped(name), f"rising.{column}", getattr(rising, column))
        self.budget.snapshot(out)
        text = json.dumps([[*key, *value] for key, value in self._since.items()])
        write_array(out, "since", np.frombuffer(text.encode(), np.uint8))
        write_array(out, "ticks", np.array([self._ticks], np.int64))

    def restore(self, state: Any) -> None:
        """Take them back."""
        for name, model in self._models.items():
            model.restore(state.scoped(name))
        for name, rising in self._rising.items():
            for column in ("fast", "slow", "since_s", "jump"):
                kept = read_array(state.scoped(name), f"rising.{column}")
                if kept is not None:
                    setattr(rising, column, np.array(kept))
        self.budget.restore(state)
        since, ticks = read_array(state, "since"), read_array(state, "ticks")
        if since is not None and ticks is not None:
            for view, series_id, detector, measure, *rest in json.loads(since.tobytes()):
                self._since[view, series_id, detector, measure] = (
                    int(rest[0]),
                    int(rest[1]),
                    str(rest[2]),
                )
            self._ticks = int(ticks[0])


def _six_digits(values: NDArray[Any]) -> NDArray[Any]:
    """Round to 6 significant digits, so that compared and stored scores are the same everywhere."""
    wide = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.floor(np.log10(np.abs(wide)))
    power = np.where(np.isfinite(power), power, 0.0)
    factor = 10.0 ** np.clip(5.0 - power, -300.0, 300.0)
    return (np.rint(wide * factor) / factor).astype(values.dtype)


def _round6(value: float) -> float:
    return float(f"{value:.6g}")
