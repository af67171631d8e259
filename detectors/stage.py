"""The detection stage: frames in, frames with score columns and anomalies out.

Driver of all detectors: it scores every measure, lets the signatures look at the whole frame, waits
for all views of a tick (the barrier), lets the budget decide in a fixed order, and only then
learns: what was anomalous is learned at most every n-th tick.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import life, river_scores
from detectors.budget import AlertBudget
from detectors.config import DetectionSettings
from detectors.detector import Finding, ScoreColumns, six
from detectors.prediction import DETECTOR as PREDICTED
from detectors.prediction import Predictor
from detectors.probation import Probation
from detectors.registry import make_detector
from detectors.seasonal import SeasonalBaseline, rates
from detectors.security.stage import SecurityDetectors
from detectors.series_detector import SeriesDetector
from detectors.signatures import attacks, rises, scans, silences
from detectors.signatures.rows import P_LEAST
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.ports import NetworkMap, SeriesDirectory
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schemas import ANOMALY, CONTROL, FRAME, FrameFlag
from telemetry.views import SCORE_COLUMNS, View, scored_schema

POINT_FINDINGS_MAX = 256  # of one measure and tick: a storm is summarised, its strongest are named
POINT_P_MAX = 1e-5  # rarer deviations are findings; whether they alert is the budget's decision
LEVEL_TICKS = 3  # a deviation that goes on so long is a level shift
CALM_Z = 1.3  # units: beyond, a tick teaches nothing
CALM_SCORE = 2.0
STRANGE = 1.0  # units: what one tick in a hundred exceeds; its rate is watched for drift
GOES_ON_TICKS = 3  # a finding that paused for fewer ticks is the same one
SLOW_NS = {"trend": 1_800 * 10**9}  # and for so long where what is looked at is slow
AGES_NS = 60_000_000_000
KEPT_NS = 3_600_000_000_000

# Sorts of tests by detector, "" being all others: the view they look at, their part of the budget.
PARTS = {
    "attack": ("destination_prefix", 0.2),
    "scan": ("source_prefix", 0.2),
    "trend": ("source_prefix", 0.2),
    "security": ("", 0.2),  # all classes of detectors.security, on their own views
    "": ("", 0.2),
}
DETAIL = json.JSONEncoder(sort_keys=True)
RATE_TESTS_MAX = 5e7  # tests after which older ones fade

Run = tuple[int, int, str]  # start of its first tick, start of its last tick, disposition
# (tick end, view, frame, scores by measure, findings): what waits for the other views of its tick
Waiting = tuple[int, str, Batch, dict[str, ScoreColumns], list[Finding]]


class DetectionStage:
    """Score frames of all views against their baselines and under one alert budget."""

    accepts = (FRAME, CONTROL)
    emits = (FRAME, ANOMALY)

    def __init__(
        self, views: Sequence[View], settings: DetectionSettings, context: Context, *,
        directory: SeriesDirectory | None = None, network: NetworkMap | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._views = {view.name: view for view in views}
        self._schemas = {view.name: scored_schema(view) for view in views}
        sampled = sum(view.source == "sample" for view in views)  # they share the pool of shapes
        # What no view scores has no baseline; the detectors of security look at it themselves.
        self._models = {
            view.name: _model_of(view, settings, sampled) for view in views if view.scored
        }
        self.security = SecurityDetectors(views)
        # Detectors set beside the baseline, by name and view.
        self._also = {
            name: {view.name: make_detector(also, view, settings) for view in views if view.scored}
            for name, also in settings.also.items()
        }
        self._budgets = {
            sort: AlertBudget(false_alerts_per_day=part * settings.false_alerts_per_day)
            for sort, (_, part) in PARTS.items()
        }
        self.probation = Probation(settings.probation)
        self.predictor = Predictor(
            views, settings.forecast, context, directory=directory, network=network
        )
        # What classes on probation find asks a budget of its own, as large.
        self._trials = {
            sort: AlertBudget(false_alerts_per_day=budget.per_day)
            for sort, budget in self._budgets.items()
        }
        self._waiting: list[Waiting] = []
        self._lessons: list[Waiting] = []  # decided, not learned yet
        # Of each signature: runs of findings so far, and tests.
        self._fired = {sort: [0.0, 0.0] for sort, (view, _) in PARTS.items() if view}
        self._since: dict[tuple[str, int, str, str], Run] = {}
        self._kept_ns = {view.name: KEPT_NS + (GOES_ON_TICKS + 1) * view.tick_ns for view in views}
        self._ticks = {view.name: 0 for view in views}
        self._rates = {view.name: [0, 0] for view in views}  # since the start
        self._found = context.metrics.counter(
            "detection_findings_total",
            "findings by what became of them",
            label="disposition",
            values=("alert", "hard", "digest", "would"),
        )
        self._aged_ns = 0  # when baselines were last counted
        self._stages = context.metrics.gauge(
            "detection_baselines", "series by how far their baseline has come, counted once a minute",
            label="stage", values=life.STAGES,
        )  # fmt: skip
        self._on_probation = context.metrics.gauge(
            "detection_probation_classes", "detectors of a view whose findings are shown, not sent"
        )
        self._log = context.log
        self._samples = context.metrics.counter("detection_samples_total", "series-samples scored")

    @property
    def budget_used(self) -> float:
        """How many false alerts of a day's budget are used up at the moment."""
        return sum(budget.used for budget in self._budgets.values())

    def baselines(self) -> dict[str, list[int]]:
        """Return of each view how many series are in each of detectors.life.STAGES."""
        warmup_s = self._settings.warmup_seconds
        return {name: life.counts([model], warmup_s) for name, model in self._models.items()}

    def ages(self) -> Iterator[tuple[str, int, float, str]]:
        """Yield (view, series id, seconds learned from, stage) of every series."""
        for name, model in self._models.items():
            series_id, age_s = model.ages()
            stages = life.stages(age_s, self._settings.warmup_seconds)
            for row in np.flatnonzero(series_id).tolist():
                yield name, int(series_id[row]), float(age_s[row]), life.STAGES[stages[row]]

    def rates(self) -> dict[str, list[int]]:
        """Return of each view how many series-samples were scored since the start, and how many strange."""
        return {name: list(counts) for name, counts in self._rates.items()}

    # ---- stage

    def process(self, batch: Batch) -> list[Batch]:
        """Score one frame and return it with its score columns; anomalies come from `advance`."""
        self.learn()
        if batch.schema.name == CONTROL.name:
            self.probation.take(batch)
            self._hear_teacher(batch)
            return []
        view = self._views[batch.text("view", 0)]
        incomplete = bool((batch["flags"] & FrameFlag.INCOMPLETE).any())
        tick_ns = int(batch["tick_start_ns"][0])
        end_ns = tick_ns + round(float(batch["tick_seconds"][0]) * 1e9)
        if view.name not in self._models:
            found = [] if incomplete else self.security.find(view.name, batch)
            self._waiting.append((end_ns, view.name, batch, {}, found))
            return [batch]
        model = self._models[view.name]
        model.admit(batch)
        scores: dict[str, ScoreColumns] = {}
        added: dict[str, NDArray[Any]] = {}
        for measure in view.scored:
            columns = ScoreColumns.empty(batch.rows)
            model.score(batch, measure, columns)
            scores[measure] = columns
            for name in SCORE_COLUMNS:
                added[f"{measure}_{name}"] = getattr(columns, name)
            self._samples.array[0] += np.uint64(batch.rows)
        found = [] if incomplete else self._findings(view, batch, scores, model)
        for name, models in self._also.items():
            models[view.name].admit(batch)
            for measure in view.scored:
                columns = ScoreColumns.empty(batch.rows)
                models[view.name].score(batch, measure, columns)
                if not incomplete and batch.rows > 1:
                    found += _points(batch, measure, columns, name)
        if not incomplete:
            found += self.predictor.take(view.name, batch, found)
        self._waiting.append((end_ns, view.name, batch, scores, found))
        widened = batch.with_columns(self._schemas[view.name], {**batch.columns, **added})
        return [widened]

    def _hear_teacher(self, control: Batch) -> None:
        """Hand what river models said to the detectors that stand for them."""
        for kind, payload in zip(control.texts("kind"), control.texts("payload"), strict=True):
            if kind == river_scores.KIND:
                for models in self._also.values():
                    for model in models.values():
                        if isinstance(model, river_scores.RiverScores):
                            try:
                                model.take(json.loads(payload))
                            except (ConfigError, ValueError, AttributeError) as error:
                                self._log.warning("scores_refused error=%s", error)

    def _findings(
        self,
        view: View,
        frame: Batch,
        scores: dict[str, ScoreColumns],
        model: SeasonalBaseline | SeriesDetector,
    ) -> list[Finding]:
        found: list[Finding] = []
        if frame.rows < 2:
            return found
        if isinstance(model, SeasonalBaseline):
            found += self._signatures(view, frame, scores, model)
        for measure, columns in scores.items():
            found += _points(frame, measure, columns, "point")
        return found

    def _signatures(
        self,
        view: View,
        frame: Batch,
        scores: dict[str, ScoreColumns],
        model: SeasonalBaseline,
    ) -> list[Finding]:
        found: list[Finding] = []
        if view.name in ("exporter", "interface"):
            found += silences.silent(frame, scores, model, self._settings, view.name)
        if view.name == "destination_prefix":
            found += attacks.attack(frame, scores, model)
        if view.name == "source_prefix":
            found += scans.scan(frame, scores, model)
            found += rises.rising(frame, scores, model, self._settings)
        return found

    def advance(self, frontier_ns: int) -> list[Batch]:
        """All views whose tick ends by the frontier are in: let the budget decide.

        What the newest tick teaches is learned when the caller has time for it (`learn`), at the
        latest before anything else is scored or the state is written: alerts do not wait for it.
        """
        self.learn()
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
            self.learn()
            self._lessons = tick
        return made

    def learn(self) -> None:
        """Learn what the last tick teaches, if that is not done yet."""
        lessons, self._lessons = self._lessons, []
        for _, view, frame, scores, found in lessons:
            self._learn(view, frame, scores, found)
            self._ticks[view] += 1
        if lessons:
            end_ns = lessons[-1][0]
            since_ns = {name: end_ns - kept_ns for name, kept_ns in self._kept_ns.items()}
            for key in [k for k, run in self._since.items() if run[1] < since_ns.get(k[0], end_ns)]:
                del self._since[key]

    def _decide(
        self,
        end_ns: int,
        tick: list[Waiting],
    ) -> list[dict[str, Any]]:
        tests = dict.fromkeys(PARTS, 0)
        for _, name, frame, scores, _ in tick:
            tests[""] += (frame.rows - 1) * len(scores)
            tests["security"] += self.security.tests(name, frame)
            for sort, (view, _) in PARTS.items():
                if view == name:  # a series that did not speak was not tested
                    tests[sort] += int(np.count_nonzero(frame["flows"][:-1]))
        entries = [
            (view, int(frame["series_id"][one.row]), one, frame)
            for _, view, frame, _, found in tick
            for one in found
        ]
        entries.sort(key=lambda e: (e[0], e[1], e[2].detector, e[2].measure))
        entries = [(*e[:2], self._calibrated(e[2]), e[3]) for e in entries]
        predicted = [one.detector == PREDICTED for _, _, one, _ in entries]
        runs = [self._run(view, series_id, one, frame) for view, series_id, one, frame in entries]
        self._watch_newcomers(end_ns, tick)
        for (view, series_id, one, _), run in zip(entries, runs, strict=True):
            if one.detector == PREDICTED and run[2] == "would":
                known = self._since.get((view, series_id, PREDICTED, one.measure))
                if known is None or (known[0], known[2]) != (run[0], "would"):
                    self.probation.event(view, PREDICTED)
        tick_s = min(float(frame["tick_seconds"][0]) for _, _, frame, _, _ in tick)
        for budgets, trial in ((self._budgets, False), (self._trials, True)):
            for sort, budget in budgets.items():
                budget.open_tick(end_ns / 1e9)
                asking = [
                    k
                    for k, (entry, run) in enumerate(zip(entries, runs, strict=True))
                    if run[2] == "digest"
                    and not predicted[k]
                    and self._sort(entry[2]) == sort
                    and self.probation.holds(entry[0], entry[2].detector) == trial
                ]
                before = budget.events
                admitted = budget.admit(
                    [entries[k][2].p_value for k in asking], tests=tests[sort], tick_s=tick_s
                )
                let_in = [k for k, enters in zip(asking, admitted, strict=True) if enters]
                for k in let_in:
                    runs[k] = (runs[k][0], runs[k][1], "would" if trial else "alert")
                if trial and budget.events > before:  # one event, whatever classes it shows in
                    for view, detector in sorted(
                        {(entries[k][0], entries[k][2].detector) for k in let_in}
                    ):
                        self.probation.event(view, detector)
        for sort, counts in self._fired.items():
            counts[0] += sum(
                entry[2].detector == sort and run[0] == run[1]
                for entry, run in zip(entries, runs, strict=True)
            )
            counts[1] += tests[sort]
            if counts[1] > RATE_TESTS_MAX:
                counts[:] = [0.5 * value for value in counts]
        self.security.count(
            [entry[2].detector for entry, run in zip(entries, runs, strict=True)
             if run[0] == run[1] and self.security.knows(entry[2].detector)],
            [(name, frame) for _, name, frame, _, _ in tick],
        )  # fmt: skip
        rows = []
        for (view, series_id, one, frame), run in zip(entries, runs, strict=True):
            first_ns, start_ns, disposition = run
            self._since[view, series_id, one.detector, one.measure] = run
            self._found.add(disposition)
            ticks = (start_ns - first_ns) / (float(frame["tick_seconds"][0]) * 1e9)
            detail = one.detail | self._age(view, one.row, frame)
            lasting = one.detector == "point" and ticks >= LEVEL_TICKS - 1.5
            rows.append(
                {
                    "tick_start_ns": start_ns,
                    "tick_seconds": float(frame["tick_seconds"][0]),
                    "view": view,
                    "series_id": series_id,
                    "measure": one.measure,
                    "detector": "level" if lasting else one.detector,
                    "disposition": disposition,
                    "actual": six(one.actual),
                    "expected": six(one.expected),
                    "lower": six(one.lower),
                    "upper": six(one.upper),
                    "score": six(one.score),
                    "p_value": six(one.p_value),
                    "since_ns": first_ns,
                    "detail": DETAIL.encode(detail),
                }
            )
        return rows

    def _age(self, view: str, row: int, frame: Batch) -> dict[str, Any]:
        """Return how long the baseline behind a finding has learned."""
        if view not in self._models:
            return {}
        series_id, age_s = self._models[view].ages()
        place = int(frame["row"][row])
        if place >= len(series_id) or series_id[place] != frame["series_id"][row]:
            return {}
        return {"baseline_s": round(float(age_s[place]))}

    def _watch_newcomers(self, end_ns: int, tick: list[Waiting]) -> None:
        allowed = {sort: self._budgets[sort].per_day for sort in PARTS}
        for _, view, frame, _, _ in tick:
            detectors = ["point", *(s for s, (at, _) in PARTS.items() if at == view), *self._also]
            detectors += [PREDICTED] if self.predictor.watches(view) else []
            detectors += self.security.names(view)
            self.probation.tick(
                view, detectors, end_ns=end_ns, tick_s=float(frame["tick_seconds"][0]),
                allowed={name: allowed.get(name, allowed[""]) for name in detectors},
            )  # fmt: skip
        self._on_probation.set(self.probation.waiting)
        if end_ns >= self._aged_ns + AGES_NS:
            self._aged_ns = end_ns
            total = life.counts(self._models.values(), self._settings.warmup_seconds)
            for name, count in zip(life.STAGES, total, strict=True):
                self._stages.set(count, name)

    def _sort(self, one: Finding) -> str:
        """Return whose part of the budget a finding asks for."""
        if self.security.knows(one.detector):
            return "security"
        return one.detector if one.detector in PARTS else ""

    def _calibrated(self, one: Finding) -> Finding:
        """Return a signature's finding with the p-value that its own record gives it.

        A signature fires when several things come together, far more seldom than the p-value of
        its strongest measure says. So: how often has it fired in so many tests (what it found
        rightly counts too), times how much further out this one lies than the least that fires.
        One that fires wrongly every day loses its credit by itself.
        """
        if self.security.knows(one.detector):
            return self.security.calibrated(one)
        counts = self._fired.get(one.detector)
        if counts is None or one.hard:
            return one
        rate = (counts[0] + 1.0) / (counts[1] + 1.0)
        p = one.p_value * min(rate / P_LEAST[one.detector], 1.0)
        return replace(one, p_value=max(p, 1e-300))

    def _run(self, view: str, series_id: int, one: Finding, frame: Batch) -> Run:
        """Return the run of findings that this one goes on with, or a new one."""
        start_ns = int(frame["tick_start_ns"][0])
        if one.detector == PREDICTED:  # it has a budget and a beginning of its own
            held = self.probation.holds(view, PREDICTED)
            told = "digest" if not one.admitted else "would" if held else "alert"
            return int(one.detail["made_ns"]), start_ns, told
        tick_ns = float(frame["tick_seconds"][0]) * 1e9
        known = self._since.get((view, series_id, one.detector, one.measure))
        goes_on_ns = max(GOES_ON_TICKS * tick_ns, SLOW_NS.get(one.detector, 0))
        if known is None or start_ns - known[1] > goes_on_ns:
            return start_ns, start_ns, "hard" if one.hard else "digest"
        # Whether it goes on as it was told or not is asked again where its class was switched.
        switched = known[2] in ("alert", "would") and (
            self.probation.holds(view, one.detector) != (known[2] == "would")
        )
        return known[0], start_ns, "digest" if switched else known[2]

    def _learn(
        self, view: str, frame: Batch, scores: dict[str, ScoreColumns], found: list[Finding]
    ) -> None:
        strange = [np.count_nonzero(np.abs(columns.z) > STRANGE) for columns in scores.values()]
        self._rates[view][0] += frame.rows * len(strange)
        self._rates[view][1] += int(sum(strange))
        if (frame["flags"] & FrameFlag.INCOMPLETE).any():
            model = self._models.get(view)
            if isinstance(model, SeasonalBaseline) and frame.rows > 1:
                for measure in scores:
                    model.miss(frame, measure)
            return
        struck = np.zeros(frame.rows, bool)
        for one in found:
            if one.detector not in ("trend", PREDICTED):
                struck[one.row] = True
        sometimes = self._ticks[view] % self._settings.learn_every_when_anomalous == 0
        self.security.learn(view, frame, ~struck[:-1], every=sometimes)
        if view not in self._models or frame.rows < 2:
            return
        model = self._models[view]
        for measure, columns in scores.items():
            calm = (np.abs(columns.z) < CALM_Z) & (columns.score < CALM_SCORE)
            mask = (calm & ~struck) | sometimes
            model.learn(frame, measure, mask)
            for models in self._also.values():
                models[view].learn(frame, measure, mask)

    def bootstrap(self, frame: Batch, *, stands_for_seconds: float) -> None:
        """Learn a frame of history that stands for a longer time; nothing is scored or raised."""
        self.learn()
        view = self._views[frame.text("view", 0)]
        mask = np.ones(frame.rows, bool)
        if view.name not in self._models:
            self.security.learn(view.name, frame, mask[:-1])
            return
        model = self._models[view.name]
        model.admit(frame)
        for measure in view.scored:
            model.learn(frame, measure, mask, weight_s=stands_for_seconds)
        self.predictor.bootstrap(view.name, frame)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Rows are told apart by their series id: a row in new hands starts afresh by itself."""

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write baselines, runs of findings, probation and the budgets."""
        self.learn()
        self.probation.snapshot(out)
        self.predictor.snapshot(out.scoped("predictions"))
        for name, model in self._models.items():
            model.snapshot(out.scoped(name))
        for also, models in self._also.items():
            for name, one in models.items():
                one.snapshot(out.scoped(f"also.{also}.{name}"))
        self.security.snapshot(out.scoped("security"))
        for sort, budget in self._budgets.items():
            budget.snapshot(out.scoped(f"budget.{sort}"))
            self._trials[sort].snapshot(out.scoped(f"trial.{sort}"))
        text = json.dumps([[*key, *value] for key, value in self._since.items()])
        write_array(out, "since", np.frombuffer(text.encode(), np.uint8))
        write_array(
            out, "ticks", np.array([self._ticks[name] for name in sorted(self._ticks)], np.int64)
        )
        write_array(out, "fired", np.array([self._fired[sort] for sort in sorted(self._fired)]))

    def restore(self, state: Any) -> None:
        """Take them back."""
        self._lessons = []
        for name, model in self._models.items():
            model.restore(state.scoped(name))
        for also, models in self._also.items():
            for name, one in models.items():
                one.restore(state.scoped(f"also.{also}.{name}"))
        self.security.restore(state.scoped("security"))
        for sort, budget in self._budgets.items():
            budget.restore(state.scoped(f"budget.{sort}"))
            self._trials[sort].restore(state.scoped(f"trial.{sort}"))
        self.probation.restore(state)
        self.predictor.restore(state.scoped("predictions"))
        fired = read_array(state, "fired")
        if fired is not None and len(fired) == len(self._fired):
            self._fired = dict(zip(sorted(self._fired), fired.tolist(), strict=True))
        since, ticks = read_array(state, "since"), read_array(state, "ticks")
        if since is not None and ticks is not None:
            for view, series_id, detector, measure, *rest in json.loads(since.tobytes()):
                self._since[view, series_id, detector, measure] = (
                    int(rest[0]),
                    int(rest[1]),
                    str(rest[2]),
                )
            kept = ticks.tolist() if len(ticks) == len(self._ticks) else [int(ticks[0])] * 99
            self._ticks = dict(zip(sorted(self._ticks), kept, strict=False))


def _model_of(
    view: View, settings: DetectionSettings, sampled: int
) -> SeasonalBaseline | SeriesDetector:
    """Flow views have the baseline that knows traffic; what is sampled may be of any kind."""
    if view.source != "sample":
        return SeasonalBaseline(view.scored, settings)
    return SeriesDetector(view.scored, settings, shape_bytes=settings.shape_bytes_max // sampled)


def _points(frame: Batch, measure: str, columns: ScoreColumns, detector: str) -> list[Finding]:
    """Return a finding for each row that is rare enough by one detector's columns."""
    hits = np.flatnonzero(columns.p_value[:-1] <= POINT_P_MAX)
    if hits.size > POINT_FINDINGS_MAX:
        order = np.lexsort((hits, -columns.score[hits]))
        hits = np.sort(hits[order[:POINT_FINDINGS_MAX]])
    if not hits.size:
        return []
    return [
        Finding(
            i, measure, detector, False, value, float(columns.expected[i]),
            float(columns.lower[i]), float(columns.upper[i]), float(columns.score[i]),
            float(columns.p_value[i]), {"z": six(float(columns.z[i]))},
        )
        for i, value in zip(hits.tolist(), rates(frame, measure, hits).tolist(), strict=True)
    ]  # fmt: skip
