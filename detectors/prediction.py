"""Predicted alerts: which series will pass a limit, when and how surely, judged when the time has come.

Looks only at series with a limit: a capacity, a threshold, a multiple of what is usual. A prediction is
opened where the trend is real (detectors.outlook_kernels), the 90 % quantile of the time to the breach lies
before the horizon, three evaluations in a row say so, and the series' own forecasts were no worse than seasonal
naive. It is judged in any case. It is told where the record of its limit leaves it more likely than not and the
budget for false predictions has room; then it is shown until it is judged or no longer likely. Where another
rule has found the same rise (detectors.signatures), less does.

Blind to what has no trend: a step, a failure, a peak that is higher than yesterday's for the first time.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import limits, outlook
from detectors.budget import AlertBudget
from detectors.config import ForecastSettings, LimitSettings
from detectors.detector import Finding, six
from detectors.judging import OUTCOMES, UNSEEN, Judge, Prediction
from detectors.outlook import Outlooks
from detectors.seasonal import rates
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.ports import NetworkMap, SeriesDirectory, SeriesKey
from telemetry.batch import Batch
from telemetry.views import View

DETECTOR = "predicted"
SURE = 3.0  # sigmas that a trend must be
SURE_FOUND, LIKELY_FOUND = 2.0, 0.8  # sigmas, share of the probability, where a rule found it too
RISE = "trend"  # that rule
CONFIRM = 3  # evaluations in a row
PASSED = 2  # fast steps in a row beyond a limit: one is a peak
TOLD = 0.5  # calibrated: likelier than not
LET_GO = 0.5  # of the probability asked: below, it no longer looks like it
SLACK = 1.25  # of the latest time, before a prediction is false
Z = (-1.645, -0.674, 0.0, 0.674, 1.645)  # of the quantiles .05, .25, .5, .75, .95
LEAD_LEAST_S = 600.0  # told less before the breach, a prediction is late
LISTED_MAX = 1000


class _Watched:
    """One view and measure: the places of its rows, and where their limits come from."""

    def __init__(self, limits: Mapping[str, LimitSettings], fast_s: float) -> None:
        self.limits = limits
        self.outlooks = Outlooks(fast_s)
        self.series_id = np.zeros(0, np.uint64)  # by dense row: the series looked at
        self.place = np.zeros(0, np.int64)  # by dense row, -1 = no limit
        self.limit: dict[int, str] = {}  # by place
        self.key: dict[int, SeriesKey] = {}  # by place
        self.sources: dict[tuple[str, str], int] = {}  # (metric, entity): row a limit is read from
        self.source_at: dict[int, tuple[str, str]] = {}  # the same by row
        self.follow: dict[int, tuple[str, str]] = {}  # place: the source of its limit

    def name_source(self, row: int, source: tuple[str, str] | None) -> None:
        """Say what limits may be read from a row now; what its former series stated is forgotten."""
        before = self.source_at.pop(row, None)
        if before is not None and self.sources.get(before) == row:
            del self.sources[before]
        if source is not None:
            self.sources[source] = row
            self.source_at[row] = source


class Predictor:
    """Forecasts for series with limits, and their predictions."""

    def __init__(
        self, views: Sequence[View], settings: ForecastSettings, context: Context, *,
        directory: SeriesDirectory | None, network: NetworkMap | None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._limits = settings.watched
        self._log = context.log
        self._directory = directory
        self._network = network
        self._budget = AlertBudget(false_alerts_per_day=settings.false_predictions_per_day)
        self.judge = Judge(round(LEAD_LEAST_S * 1e9))
        self._watched: dict[tuple[str, str], _Watched] = {}
        if settings.enabled and directory is not None:
            known = {view.name: view for view in views}
            for name, limit in self._limits.items():
                limits.check(name, limit, known)
            for view, measure in sorted({(x.view, x.measure) for x in self._limits.values()}):
                named = {
                    name: limit for name, limit in self._limits.items()
                    if (limit.view, limit.measure) == (view, measure)
                }  # fmt: skip
                fast_s = max(settings.step_seconds, known[view].tick_seconds)
                self._watched[view, measure] = _Watched(named, fast_s)
        self._judged = context.metrics.counter(
            "predictions_total",
            "predictions by what became of them",
            label="outcome",
            values=("made", "held_back", *OUTCOMES),
        )
        self._series = context.metrics.gauge("prediction_series", "series whose limit is watched")
        self._refused = context.metrics.counter(
            "prediction_refused_total", "series with a limit beyond forecast.series_max"
        )

    def watches(self, view: str) -> bool:
        """Whether a view has limits."""
        return any(name == view for name, _ in self._watched)

    # ---- ticks

    def take(self, view: str, frame: Batch, found: Sequence[Finding] = ()) -> list[Finding]:
        """Take a frame and what others found in it; return a finding for each prediction that stands."""
        made: list[Finding] = []
        for (name, measure), watched in self._watched.items():
            if name != view or frame.rows < 2:
                continue
            self._fold(view, measure, watched, frame, weight=1.0)
            rising = [one.row for one in found if one.detector == RISE and one.measure == measure]
            if rising:
                places = watched.place[frame["row"][rising].astype(np.int64)]
                watched.outlooks.found[places[places >= 0]] = watched.outlooks.step[outlook.FAST]
            made += self._findings(view, measure, watched, frame)
        return made

    def bootstrap(self, view: str, frame: Batch) -> None:
        """Learn a frame of history."""
        for (name, measure), watched in self._watched.items():
            if name == view and frame.rows > 1:
                self._fold(view, measure, watched, frame, weight=0.0)

    def _fold(
        self, view: str, measure: str, watched: _Watched, frame: Batch, *, weight: float
    ) -> None:
        self._admit(view, measure, watched, frame)
        rows = frame["row"][:-1].astype(np.int64)
        places = watched.place[rows]
        tracked = places >= 0
        value = rates(frame, measure)[:-1]
        if watched.follow:
            self._follow(watched, value, rows)
        start_ns = int(frame["tick_start_ns"][0])
        ended = watched.outlooks.take(places[tracked], value[tracked], start_ns / 1e9)
        if weight == 0.0:
            return
        for pace, step, mean in ended:
            now_ns = round((step + 1) * watched.outlooks.steps_s[pace] * 1e9)
            past = self._beyond(watched, mean, now_ns, watched.outlooks.steps_s[pace])
            if pace == outlook.FAST:
                over = watched.outlooks.over[: len(past)]
                over[past == 1.0] = np.minimum(over[past == 1.0] + 1, PASSED)
                over[past == 0.0] = 0
                self._judge(view, measure, watched, past, now_ns)
            self._look_ahead(view, measure, watched, pace, step, past, now_ns)

    # ---- limits

    def _admit(self, view: str, measure: str, watched: _Watched, frame: Batch) -> None:
        rows = frame["row"][:-1].astype(np.int64)
        if rows.size and int(rows.max()) >= len(watched.series_id):
            size = 2 * int(rows.max()) + 1
            grown, places = np.zeros(size, np.uint64), np.full(size, -1, np.int64)
            grown[: len(watched.series_id)] = watched.series_id
            places[: len(watched.place)] = watched.place
            watched.series_id, watched.place = grown, places
        ids = frame["series_id"][:-1]
        for i in np.flatnonzero(watched.series_id[rows] != ids).tolist():
            row = int(rows[i])
            watched.series_id[row] = ids[i]
            self._place(view, measure, watched, row, int(ids[i]))

    def _place(self, view: str, measure: str, watched: _Watched, row: int, series_id: int) -> None:
        """Find the limit of a new series and give it a place; clear that of the one before it."""
        place = int(watched.place[row])
        if place >= 0:
            self._clear(view, measure, watched, place)
        key = self._directory.key(series_id) if self._directory is not None else None
        watched.name_source(row, limits.source_of(key))
        if key is not None and (found := limits.first(watched.limits, key, self._network)):
            self._give(watched, row, key, found)

    def _clear(self, view: str, measure: str, watched: _Watched, place: int) -> None:
        """Forget the series of a place and what was predicted of it."""
        watched.outlooks.clear(place)
        watched.follow.pop(place, None)
        watched.limit.pop(place, None)
        watched.key.pop(place, None)
        self._drop((view, measure, place))
        self._count()

    def _drop(self, key: tuple[str, str, int]) -> None:
        """Let go of what was predicted of a place; nobody can judge it any more."""
        if self.judge.drop(key):
            self._judged.add(UNSEEN)

    def _give(self, watched: _Watched, row: int, key: SeriesKey, found: limits.Found) -> None:
        """Watch a row's limit, at a place of its own, as long as there is one."""
        looks, place = watched.outlooks, int(watched.place[row])
        if place < 0:
            if (
                sum(one.outlooks.places for one in self._watched.values())
                >= self._settings.series_max
            ):
                self._refused.add()
                return
            place = watched.place[row] = looks.add()
        looks.series_id[place], looks.logs[place] = watched.series_id[row], found.logs
        looks.limit[place], looks.usual_times[place] = found.value, found.usual_times
        # 0 until its source has said something.
        looks.sign[place] = 0.0 if found.source else found.sign
        watched.limit[place], watched.key[place] = found.name, key
        if found.source:
            watched.follow[place] = (found.source, key.entity)
        self._count()

    def _count(self) -> None:
        self._series.set(sum(len(one.limit) for one in self._watched.values()))

    def _follow(
        self, watched: _Watched, value: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> None:
        """Read limits that other series state: the speed of an interface, the size of a disk."""
        at = {int(row): i for i, row in enumerate(rows.tolist())}
        for place, source in watched.follow.items():
            i = at.get(watched.sources.get(source, -1), -1)
            if i < 0 or not value[i] > 0.0:
                continue
            limit, looks = watched.limits[watched.limit[place]], watched.outlooks
            looks.limit[place] = limits.stated(limit, float(value[i]))
            looks.sign[place] = limits.sign(limit)

    # ---- judging and looking ahead

    def _beyond(
        self, watched: _Watched, mean: NDArray[np.float64], now_ns: int, step_s: float
    ) -> Any:
        """Return 1 where a place is past its limit, 0 where it is not, NaN where nothing came."""
        looks = watched.outlooks
        n = looks.places
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where(looks.logs[:n] > 0, np.log(np.maximum(mean, 1.0)), mean)
        usual = looks.usual(now_ns / 1e9 - 0.5 * step_s)
        limit = looks.limit[:n] + looks.usual_times[:n] * usual
        past = np.where(looks.sign[:n] * (value - limit) > 0.0, 1.0, 0.0)
        past[~np.isfinite(value) | (looks.sign[:n] == 0.0)] = np.nan
        return past

    def _judge(
        self, view: str, measure: str, watched: _Watched, past: NDArray[np.float64], now_ns: int
    ) -> None:
        step_ns = round(watched.outlooks.steps_s[outlook.FAST] * 1e9)
        first_ns = now_ns - (PASSED - 1) * step_ns
        for key in [key for key in self.judge.open if key[:2] == (view, measure)]:
            told = float(past[key[2]])
            beyond = None if math.isnan(told) else told > 0.0
            passed = beyond and watched.outlooks.over[key[2]] >= PASSED
            outcome = self.judge.step(
                key,
                beyond=beyond,
                passed_ns=first_ns if passed else 0,
                now_ns=now_ns,
                step_ns=step_ns,
            )
            if outcome:
                self._judged.add(outcome)

    def _look_ahead(
        self, view: str, measure: str, watched: _Watched, pace: int, step: int,
        past: NDArray[np.float64], now_ns: int,
    ) -> None:  # fmt: skip
        looks, n = watched.outlooks, len(past)
        if not n:
            return
        out = looks.breaches(pace, step)
        trend = getattr(looks, f"now{pace}")[:n]
        asked, likely, sure = self._settings.probability, out[:, 0], trend[:, 2]
        promising = (likely >= asked) & (sure >= SURE)
        if pace == outlook.FAST:
            found = looks.found[:n] >= step - 1
            promising |= found & (likely >= LIKELY_FOUND * asked) & (sure >= SURE_FOUND)
            promising &= (looks.whole[:n] > 0) | (looks.logs[:n] == 0)  # the morning is no trend
        promising &= (out[:, 1] > 0) & looks.licensed(pace)
        promising &= looks.sign[:n] * trend[:, 1] > 0.0
        promising &= np.isfinite(past) & (looks.over[:n] < PASSED)
        if pace == outlook.SLOW:
            promising &= past == 0.0
        streak = looks.streak[:n, pace]
        streak[:] = np.where(promising, streak + 1, 0)
        self._budget.open_tick(now_ns / 1e9)
        for key, one in self.judge.open.items():
            if key[:2] == (view, measure) and one.pace == pace and not one.outcome:
                if promising[key[2]]:
                    self._refresh(one, watched, key[2], out[key[2]], pace, now_ns)
                else:
                    one.said = bool(out[key[2], 0] >= LET_GO * self._settings.probability)
        for place in np.flatnonzero(streak >= CONFIRM).tolist():
            known = (view, measure, place)
            if known in self.judge.open:
                one = self.judge.open[known]
                if one.admitted or one.outcome or one.pace != pace:
                    continue
            else:
                one = self._open(view, measure, watched, place, out[place], pace, now_ns)
                self.judge.open[known] = one
                self._judged.add("made")
            one.admitted = one.probability >= TOLD and self._budget.spend(1.0 - one.probability)
            if not one.admitted:
                self._judged.add("held_back")

    def _open(
        self, view: str, measure: str, watched: _Watched, place: int, out: NDArray[np.float64],
        pace: int, now_ns: int,
    ) -> Prediction:  # fmt: skip
        ours, naive, judged = (column[place] for column in watched.outlooks.record(pace))
        one = Prediction(
            view, measure, int(watched.outlooks.series_id[place]), watched.key[place].entity,
            watched.limit[place], bool(watched.outlooks.sign[place] > 0), pace, now_ns, 0,
            0.0, 0.0, 0.0, 0.0, 0.0, [], 0, 0, 0, six(ours), six(naive), int(judged),
        )  # fmt: skip
        self._refresh(one, watched, place, out, pace, now_ns)
        step_ns = round(watched.outlooks.steps_s[pace] * 1e9)
        latest = one.latest_ns or now_ns + outlook.LEADS[pace] * step_ns
        one.deadline_ns = max(
            now_ns + round(SLACK * (latest - now_ns)), one.likely_ns + 2 * step_ns
        )
        return one

    def _refresh(
        self, one: Prediction, watched: _Watched, place: int, out: NDArray[np.float64], pace: int,
        now_ns: int,
    ) -> None:  # fmt: skip
        looks = watched.outlooks
        step_ns = round(looks.steps_s[pace] * 1e9)
        plain = math.exp if looks.logs[place] else float
        one.said, one.stated = True, six(out[0])
        one.probability = six(self.judge.calibrated(one.limit, one.stated))
        one.likely_ns, one.earliest_ns = (now_ns + int(out[k]) * step_ns for k in (1, 2))
        one.latest_ns = now_ns + int(out[3]) * step_ns if out[3] else 0
        one.quantiles = [six(plain(min(out[4] + z * out[5], 700.0))) for z in Z]
        one.low, one.median, one.high = one.quantiles[0], one.quantiles[2], one.quantiles[4]
        usual = looks.usual(one.likely_ns / 1e9)[place] * looks.usual_times[place]
        one.value = six(plain(looks.limit[place] + usual))

    def _findings(self, view: str, measure: str, watched: _Watched, frame: Batch) -> list[Finding]:
        standing = {
            key[2]: one for key, one in self.judge.open.items()
            if key[:2] == (view, measure) and one.said
        }  # fmt: skip
        if not standing:
            return []
        places = watched.place[frame["row"][:-1].astype(np.int64)]
        value = rates(frame, measure)
        made = []
        for i in np.flatnonzero(np.isin(places, list(standing))).tolist():
            one = standing[int(places[i])]
            doubt = max(1.0 - one.probability, 1e-6)
            actual = float(value[i]) if np.isfinite(value[i]) else one.median
            made.append(
                Finding(
                    i, measure, DETECTOR, False, actual, one.median, one.low, one.high,
                    -math.log10(doubt) + (12.0 if one.outcome else 0.0), doubt,
                    self._detail(one), admitted=one.admitted,
                )
            )  # fmt: skip
        return made

    def _detail(self, one: Prediction) -> dict[str, Any]:
        record = self.judge.counted(one.limit)
        return {
            "limit": one.limit, "limit_value": one.value, "above": one.above,
            "cause": self._limits[one.limit].cause if one.limit in self._limits else DETECTOR,
            "probability": one.probability, "made_ns": one.made_ns, "likely_ns": one.likely_ns,
            "earliest_ns": one.earliest_ns, "latest_ns": one.latest_ns,
            "quantiles": one.quantiles, "outcome": one.outcome, "ended_ns": one.ended_ns,
            "error": one.error, "error_seasonal_naive": one.error_naive,
            "forecasts_judged": one.judged_before, "record": record,
        }  # fmt: skip

    # ---- telling

    def table(self) -> dict[str, Any]:
        """Return open and judged predictions and the records, as people see them."""
        records = {}
        for watched in self._watched.values():
            for name in watched.limits:
                mine = [p for p, limit in watched.limit.items() if limit == name]
                records[name] = self._record(name, watched, mine)
        return {
            "open": [_told(one) for one in list(self.judge.open.values())[:LISTED_MAX]],
            "judged": [_told(one) for one in reversed(self.judge.ended)],
            "limits": records,
        }

    def _record(self, name: str, watched: _Watched, places: list[int]) -> dict[str, Any]:
        row: dict[str, Any] = {"series": len(places), **self.judge.counted(name)}
        for pace, word in ((outlook.FAST, "hours"), (outlook.SLOW, "days")):
            ours, naive, judged = (column[places] for column in watched.outlooks.record(pace))
            old = judged >= outlook.JUDGED_MIN
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.median(ours[old] / naive[old]) if old.any() else math.nan
            row[f"error_over_naive_{word}"] = None if not math.isfinite(share) else six(share)
            row[f"licensed_{word}"] = int(watched.outlooks.licensed(pace)[places].sum())
        return row

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write forecasts, predictions and records."""
        write_array(out, "judge", np.frombuffer(self.judge.snapshot(), np.uint8))
        self._budget.snapshot(out)
        for (view, measure), watched in self._watched.items():
            inner = out.scoped(f"{view}.{measure}")
            watched.outlooks.snapshot(inner)
            write_array(inner, "row_series_id", watched.series_id)
            write_array(inner, "row_place", watched.place)

    def restore(self, state: Any) -> None:
        """Take them back; limits are found again, they may be configured otherwise by now."""
        kept = read_array(state, "judge")
        if kept is None:
            return
        self.judge.restore(kept.tobytes())
        self._budget.restore(state)
        for (view, measure), watched in self._watched.items():
            inner = state.scoped(f"{view}.{measure}")
            ids, places = read_array(inner, "row_series_id"), read_array(inner, "row_place")
            if ids is None or places is None:
                continue
            forgotten = watched.outlooks.restore(inner)
            if forgotten:
                self._log.warning(
                    "prediction_state_of_an_older_version view=%s measure=%s begins_anew=%s"
                    " (trends of this view are predicted again in about %d minutes)",
                    view, measure, ",".join(forgotten), watched.outlooks.fast_wait_s // 60,
                )  # fmt: skip
            watched.series_id, watched.place = np.array(ids), np.array(places)
            self._name_again(view, measure, watched)

    def _name_again(self, view: str, measure: str, watched: _Watched) -> None:
        """Find the limit of every known row: others may be configured by now."""
        looks = watched.outlooks
        for row in np.flatnonzero(watched.series_id).tolist():
            place = int(watched.place[row])
            key = self._directory.key(int(watched.series_id[row])) if self._directory else None
            watched.name_source(row, limits.source_of(key))
            found = limits.first(watched.limits, key, self._network) if key is not None else None
            if place >= 0 and found is not None and found.logs != bool(looks.logs[place]):
                self._clear(view, measure, watched, place)  # its values are kept in another way
            if found is None or key is None:
                if place >= 0:
                    looks.sign[place] = 0.0
                continue
            before = (float(looks.limit[place]), float(looks.sign[place])) if place >= 0 else (0, 0)
            self._give(watched, row, key, found)
            if place >= 0 and found.source and before[1]:  # what its source said last
                looks.limit[place], looks.sign[place] = before[0], found.sign
        for known in [key for key in self.judge.open if key[:2] == (view, measure)]:
            if watched.limit.get(known[2]) != self.judge.open[known].limit:
                self._drop(known)


def _told(one: Prediction) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__} | {
        "series_id": f"{one.series_id:016x}"
    }
