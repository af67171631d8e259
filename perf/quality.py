"""Detection quality by set: one configuration, prequential, beside plain baselines in the same run.

`python perf/quality.py [--all]` prints a table for each set, one for clean noise, and what each part
of the chain is worth. Without --all every n-th series of the large sets is taken (a minute or two);
with it, it takes three of CPU.
Sets of `shared/datasets` are used where that folder lies beside the checkout; generated ones always.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from detectors.exceedances import FALSE_ALERTS_PER_DAY
from detectors.look_kernels import LOOKS as LOOKS_BESIDE
from detectors.looks import look_at
from detectors.series import STEP_ROWS, score_series, step_of
from detectors.series_detector import BYTES_PER_SERIES
from detectors.series_kernels import DAY, EVERY_LOOK, LOOKS
from perf import quality_measures as measures
from perf import quality_sets as sets
from perf.measure import report, row

# time and value in, score and alert out
Detector = Callable[
    [NDArray[np.int64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.int8]]
]
VUS_WINDOW_MAX = 100
SERIES_OF_PEERS, ROWS_OF_PEERS = 4, 8_000  # peers take up to 500 us a point
CLEAN_MOST = 1.5  # of the budget, on any kind of clean noise
GOALS = {  # measure by set: what issue 6 asks for
    ("aiops", "recall at 0.1"): 0.78, ("aiops", "recall at 1.0"): 0.92, ("aiops", "VUS-PR"): 0.52,
    ("wsd", "recall at 0.1"): 0.92, ("wsd", "recall at 1.0"): 0.985, ("wsd", "VUS-PR"): 0.60,
    ("nab-like", "NAB standard"): 68.0, ("nab-like", "NAB low FP"): 55.0,
    ("nab-like", "NAB low FN"): 74.0, ("nab-like", "VUS-PR"): 0.30, ("ucr-like", "accuracy"): 0.68,
}  # fmt: skip


def ours(looks: int = EVERY_LOOK) -> Detector:
    """The chain of `tocsin score`, or a part of it."""

    def run(
        time_s: NDArray[np.int64], value: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        scores = score_series(time_s, value, looks=looks)
        return scores.score, scores.alert.astype(np.int8)

    return run


def ewma_z(
    time_s: NDArray[np.int64],  # noqa: ARG001
    value: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Deviation from an exponentially weighted mean, over the series' own 99.9 % quantile so far."""
    made = np.zeros(len(value))
    mean = variance = 0.0
    seen = 0
    for n, one in enumerate(value.tolist()):
        if one != one:
            continue
        seen += 1
        if seen == 1:
            mean = one
            continue
        gain, off = max(1 / 288, 1 / seen), one - mean
        deviation = max(variance**0.5, 1e-9 + 1e-3 * abs(mean))
        if seen > 10:
            made[n] = min(abs(off) / deviation, 1e6)
            off = max(min(off, 3 * deviation), -3 * deviation)
        mean += gain * off
        variance = (1 - gain) * (variance + gain * off * off)
    return _over_own_quantile(made)


def seasonal_naive(
    time_s: NDArray[np.int64], value: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Difference to a day before, over the usual such difference so far."""
    step = float(np.median(np.diff(time_s[:200]))) if len(time_s) > 1 else 60.0
    lag = max(round(86400 / step), 1) if step <= 21600 else 1
    before = np.concatenate([np.full(min(lag, len(value)), np.nan), value[:-lag]])[: len(value)]
    off = np.nan_to_num(np.abs(value - before), nan=0.0, posinf=0.0)
    usual = np.cumsum(off) / np.arange(1, len(off) + 1)
    usual = np.concatenate([[0.0], usual[:-1]]) + 1e-9 + 1e-3 * np.abs(np.nan_to_num(value))
    return _over_own_quantile(np.where(np.arange(len(off)) > 2 * lag, off / usual, 0.0))


def _over_own_quantile(score: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    made = np.zeros(len(score))
    for at in range(0, len(score), 256):
        past = score[max(0, at - 20_000) : at]
        made[at : at + 256] = score[at : at + 256] / max(np.quantile(past, 0.999) if at else 1.0, 1)
    alert = np.zeros(len(score), np.int8)
    last = -250
    for n in np.flatnonzero((made >= 1.0) & (np.concatenate([[0.0], made[:-1]]) < 1.0)).tolist():
        if n - last >= 250:
            alert[n], last = 1, n
    return made, alert


def half_space_trees() -> Detector | None:
    """river's half-space trees on value and difference, where river is installed."""
    try:
        from river import anomaly
    except ImportError:
        return None

    def run(
        time_s: NDArray[np.int64],  # noqa: ARG001
        value: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        trees = anomaly.HalfSpaceTrees(n_trees=10, height=8, window_size=250, seed=1)
        low = high = last = float(value[0])
        made = np.zeros(len(value))
        for n, one in enumerate(value.tolist()):
            if one != one:
                continue
            low, high = min(low, one), max(high, one)
            room = max(high - low, 1e-9)
            sample = {"value": (one - low) / room, "moved": 0.5 + 0.5 * (one - last) / room}
            made[n], last = trees.score_one(sample), one
            trees.learn_one(sample)
        return _over_own_quantile(made)

    return run


def pysad(name: str, **options: object) -> Detector | None:
    """A streaming model of pysad on the value, as its documentation uses it, where it is installed."""
    try:
        from pysad import models
    except ImportError:
        return None

    def run(
        time_s: NDArray[np.int64],  # noqa: ARG001
        value: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        model, made = getattr(models, name)(**options), np.zeros(len(value))
        for n, one in enumerate(value.tolist()):
            if one == one:
                found = float(np.ravel(model.fit_score_partial(np.array([one])))[0])
                made[n] = found if np.isfinite(found) else 0.0
        return _over_own_quantile(made)

    return run


def beside(look: str) -> Detector:
    """The chain with one of the looks that are off by default: scores joined, alerts of both."""

    def run(
        time_s: NDArray[np.int64], value: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        scores, (score, alert) = (
            score_series(time_s, value),
            look_at(look, time_s, value, step_of(time_s[:STEP_ROWS])),
        )
        return np.maximum(scores.score, score), (scores.alert | alert).astype(np.int8)

    return run


def measure(series: Sequence[sets.Labelled], detect: Detector) -> dict[str, float]:
    """Return every measure that fits the set."""
    parts, volumes, delays, nab, shapes = [], [], [], [], []
    hits = events = false = points = 0
    spent = 0.0
    for one in series:
        began = time.process_time()
        score, alert = detect(one.time_s, one.value)
        spent += time.process_time() - began
        points += len(score)
        if one.truth is not None:
            shapes.append(measures.ucr_hit(score, *one.truth)[0])
            continue
        if one.windows is not None:
            which, worth = measures.nab_point_values(one.time_s, one.windows)
            nab.append((which, worth, len(one.windows), alert))
        parts.append(measures.event_parts(one.time_s, one.label, score))
        h, n, f, d = measures.alert_events(one.time_s, one.label, alert)
        hits, events, false, delays = hits + h, events + n, false + f, delays + d
        if one.label.any():
            window = min(measures.period_guess(one.value), VUS_WINDOW_MAX)
            volumes.append(measures.vus_pr(one.label, score, window))
    made: dict[str, float] = {}
    if parts:
        found, _, days = measures.sweep_events(parts, [0.1, 1.0])
        made["recall at 0.1"] = found["0.1"]["recall"]
        made["recall at 1.0"] = found["1.0"]["recall"]
        made["VUS-PR"] = float(np.mean(volumes)) if volumes else float("nan")
        made["recall of alerts"] = hits / max(events, 1)
        made["false alerts a day"] = false / max(days, 1e-9)
        made["delay, median s"] = float(np.median(delays)) if delays else float("nan")
    for name, weights in measures.PROFILES.items():
        if nab:
            raw = sum(measures.nab_raw(*one, weights) for one in nab)
            made[f"NAB {name}"] = measures.nab_normal(raw, sum(one[2] for one in nab), weights)
    if shapes:
        made["accuracy"] = float(np.mean(shapes))
    made["us a point"] = spent / max(points, 1) * 1e6
    return made


def budget_held(count: int, detect: Detector) -> dict[str, float]:
    """Return alerts a day over the budget, by kind of clean noise, in the first week of a series."""
    made = {}
    for kind, values in sets.clean(count).items():
        time_s = sets.START_S + 60 * np.arange(len(values[0]))
        alerts = sum(int(detect(time_s, value)[1].sum()) for value in values)
        made[kind] = alerts / count / 7.0 / FALSE_ALERTS_PER_DAY
    return made


def parts_left_out() -> dict[str, Detector]:
    """Return the chain without one part each, and with one of those that are off by default."""
    made = {f"without {name}": ours(EVERY_LOOK & ~(1 << k)) for k, name in enumerate(LOOKS)}
    made["without the daily profile"] = ours(EVERY_LOOK & ~DAY)
    made["forecast alone"] = ours(DAY | 1)
    made |= {f"with {look}": beside(look) for look in LOOKS_BESIDE}
    return made


def the_sets(*, everything: bool) -> dict[str, list[sets.Labelled]]:
    """Return all sets that are there, by name."""
    made = {"generated": list(sets.generated())}
    if sets.SHARED.is_dir():
        made["aiops"] = list(sets.kpis("aiops-kpi", 1 if everything else 3))
        made["wsd"] = list(sets.kpis("wsd", 1 if everything else 10))
        made["tods"] = list(sets.kpis("tods", 1))
        made["nab-like"] = list(sets.nab_like(1))
        made["ucr-like"] = list(sets.ucr_like(1 if everything else 4))
    return made


def table(name: str, columns: dict[str, dict[str, float]]) -> None:
    """Print measures as rows and detectors as columns, or the other way where there are more detectors."""
    print(f"\n{name}")
    keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    if len(columns) > len(keys):
        columns = {
            key: {one: column.get(key, float("nan")) for one, column in columns.items()}
            for key in keys
        }
        keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    width = max(9, *(len(one) for one in columns))
    first = max(20, *(len(key) for key in keys))
    print(" " * (first + 2) + " ".join(f"{one:>{width}}" for one in columns))
    for key in keys:
        figures = (column.get(key, float("nan")) for column in columns.values())
        print(f"  {key:{first}}" + " ".join(f"{one:>{width}.3f}" for one in figures))


def main(arguments: Iterable[str] | None = None) -> None:
    """Print all tables and keep our own figures in perf/results/quality.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every series of every set")
    parser.add_argument("--clean", type=int, default=100, help="clean series of each kind")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    detectors: dict[str, Detector] = {
        "tocsin": ours(), "EWMA-z": ewma_z, "seasonal naive": seasonal_naive,
    }  # fmt: skip
    slow = {
        "river HST": half_space_trees(),
        "pysad KNN-CAD": pysad("KNNCAD", probationary_period=250),
        "pysad LODA": pysad("LODA"),
    }
    peers = {"tocsin": ours()} | {one: peer for one, peer in slow.items() if peer is not None}
    found = the_sets(everything=asked.all)
    rows = [row("state of a series", BYTES_PER_SERIES, "bytes", 1024, "lower")]
    ours()(found["generated"][0].time_s, found["generated"][0].value)  # compiled before it is timed
    for name, series in found.items():
        shown = {one: measure(series, detect) for one, detect in detectors.items()}
        table(f"{name}: {len(series)} series", shown)
        if len(peers) > 1:
            few = [
                replace(
                    one,
                    time_s=one.time_s[:ROWS_OF_PEERS],
                    value=one.value[:ROWS_OF_PEERS],
                    label=one.label[:ROWS_OF_PEERS],
                    windows=None,
                )
                for one in series[:: max(len(series) // SERIES_OF_PEERS, 1)]
                if one.truth is None
            ]
            if few:
                against = {one: measure(few, peer) for one, peer in peers.items()}
                table(f"{name}, public peers: the first rows of {len(few)} series", against)
        for key, figure in shown["tocsin"].items():
            goal = GOALS.get((name, key))
            lower = key in ("false alerts a day", "delay, median s", "us a point")
            rows.append(row(f"{name}: {key}", figure, "", goal, "lower" if lower else "higher"))
    held = budget_held(asked.clean, detectors["tocsin"])
    table("clean noise, alerts over the budget", {"tocsin": held})
    rows += [
        row(f"clean {kind}: alerts / budget", ratio, "", CLEAN_MOST, "lower")
        for kind, ratio in held.items()
    ]
    names = [name for name in ("aiops", "wsd", "nab-like", "ucr-like") if name in found]
    for name in names or ["generated"]:
        thinned = found[name][::2]
        parts = {"whole": measure(thinned, detectors["tocsin"])}
        parts |= {one: measure(thinned, detect) for one, detect in parts_left_out().items()}
        table(f"what parts are worth on {name}: {len(thinned)} series", parts)
        for one, figures in parts.items():
            for key in (
                "recall at 0.1",
                "recall at 1.0",
                "VUS-PR",
                "false alerts a day",
                "NAB standard",
                "accuracy",
            ):
                if key in figures:
                    rows.append(row(f"{name}, {one}: {key}", figures[key], ""))
    report("quality", rows)


if __name__ == "__main__":
    main()
