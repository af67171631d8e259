"""Alerts on series without a fault, over the budget: simulated noise of six kinds, cuts of real sets.

`python perf/quality_clean.py [--series 100000] [--real 1000]`: a week of minutes each, one process a core.
100,000 series are 1.0e9 values: 6 minutes of one quiet core. Real cuts are out of `shared/datasets`, without what
is labelled there and half an hour around it.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from detectors.exceedances import FALSE_ALERTS_PER_DAY
from detectors.series import score_series
from perf import quality_sets as sets
from perf.measure import report, row

DAYS = 7
EACH = 500  # series of one task


def _some(task: tuple[str, int, int]) -> tuple[str, int, int]:
    """Return kind, series and alerts of one task; a process of its own runs it."""
    kind, count, seed = task
    time_s = sets.START_S + 60 * np.arange(DAYS * 1440)
    values = sets.noise(kind, count, DAYS, seed=seed)
    return kind, count, sum(int(score_series(time_s, value).alert.sum()) for value in values)


def simulated(series: int, *, processes: int = 0) -> dict[str, float]:
    """Return alerts a day over the budget by kind of noise; `series` in all."""
    each = -(-series // len(sets.NOISE))
    tasks = [
        (kind, min(EACH, each - start), 1_000 + start)
        for start in range(0, each, EACH)
        for kind in sets.NOISE
    ]
    alerts, counts = dict.fromkeys(sets.NOISE, 0), dict.fromkeys(sets.NOISE, 0)
    if processes == 1:
        results: Iterable[tuple[str, int, int]] = map(_some, tasks)
    else:
        pool = ProcessPoolExecutor(processes or os.cpu_count())
        results = pool.map(_some, tasks)
    for kind, count, found in results:
        alerts[kind] += found
        counts[kind] += count
    return {kind: alerts[kind] / counts[kind] / DAYS / FALSE_ALERTS_PER_DAY for kind in sets.NOISE}


def real(series: int) -> float:
    """Return alerts a day over the budget on cuts of real sets."""
    found = [
        int(score_series(one.time_s, one.value).alert.sum())
        for one in sets.real_clean(series, DAYS)
    ]
    return sum(found) / len(found) / DAYS / FALSE_ALERTS_PER_DAY


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=1_000)
    asked = parser.parse_args()
    rows = []
    for kind, ratio in simulated(asked.series).items():
        rows.append(row(f"{kind}: alerts / budget", ratio, "", 1.5, "lower"))
    if sets.SHARED.is_dir():
        rows.append(row("cuts of real sets: alerts / budget", real(asked.real), "", 1.5, "lower"))
    report("quality_clean", rows)


if __name__ == "__main__":
    main()
