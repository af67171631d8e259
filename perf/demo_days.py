"""Simulated days by seed: faults found, causes right, false alerts. `python perf/demo_days.py 11 12 13`

Each seed is a day of the demo's carrier with nine faults drawn at random, at least one of them slow, through
the same chain and settings as the live demo (tocsin.demo.simulate). One process a seed, as many at once as
there are cores. The default is 20 seeds, which takes about an hour on two cores.
"""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from perf.measure import report, row
from tocsin.demo.faults import SLOW
from tocsin.demo.scoring import table
from tocsin.demo.simulate import run_days

SEEDS = tuple(range(101, 121))
RECORDS_PER_SECOND = 2000.0


class Found(msgspec.Struct, frozen=True):
    """What became of one fault."""

    kind: str
    entity: str
    found: bool
    cause_right: bool
    delay_seconds: float
    lead_seconds: float = 0.0  # of a slow fault that was predicted


class Day(msgspec.Struct, frozen=True):
    """One seed's day."""

    seed: int
    faults: tuple[Found, ...]
    false: tuple[str, ...]
    table: str
    told: int = 0  # predicted alerts
    true: int = 0  # of those that came true

    @property
    def found(self) -> int:
        return sum(one.found for one in self.faults)

    @property
    def cause_right(self) -> int:
        return sum(one.cause_right for one in self.faults)


def day(seed: int) -> Day:
    """Simulate one day in this process."""
    score, _ = run_days(days=1, seed=seed, records_per_second=RECORDS_PER_SECOND)
    return Day(
        seed,
        tuple(
            Found(
                j.fault.kind,
                j.fault.entity,
                j.found,
                j.cause_right,
                j.delay_seconds,
                j.lead_seconds,
            )
            for j in score.judged
        ),
        tuple(str(alert["title"]) for alert in score.false),
        table(score),
        *score.predictions,
    )


def days(seeds: Sequence[int], *, timeout_seconds: float = 3_000.0) -> list[Day]:
    """Simulate a day for each seed, one process each, as many at once as there are cores."""

    def one(seed: int) -> Day:
        made = subprocess.run(
            [sys.executable, __file__, "--one", str(seed)],
            capture_output=True, check=True, timeout=timeout_seconds,
        )  # fmt: skip
        return msgspec.json.decode(made.stdout.splitlines()[-1], type=Day)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(one, seeds))


def rows_of(made: Sequence[Day]) -> list[dict[str, Any]]:
    """Return the table's rows: the three figures of acceptance, then each kind of fault."""
    faults = [one for day_ in made for one in day_.faults]
    by_kind: dict[str, list[Found]] = defaultdict(list)
    for one in faults:
        by_kind[one.kind].append(one)
    rows = [
        row("faults found", 100 * sum(f.found for f in faults) / len(faults), "%", 90),
        row("cause right", 100 * sum(f.cause_right for f in faults) / len(faults), "%", 80),
        row("false alerts", sum(len(d.false) for d in made) / len(made), "a day", 1, "lower"),
        row("days with more than one false alert", sum(len(d.false) > 1 for d in made), "days", 0,
            "lower"),
        row("days", len(made), "days"),
    ]  # fmt: skip
    for kind, ones in sorted(by_kind.items()):
        seen = [one.delay_seconds for one in ones if one.found]
        rows.append(row(f"{kind}: found", 100 * len(seen) / len(ones), f"% of {len(ones)}"))
        if seen:
            rows.append(row(f"{kind}: delay, median", float(np.median(seen)), "s", None, "lower"))
        if kind in SLOW:
            leads = [one.lead_seconds / 60 for one in ones if one.lead_seconds]
            rows.append(
                row(f"{kind}: predicted", 100 * len(leads) / len(ones), f"% of {len(ones)}")
            )
            if leads:
                rows.append(
                    row(f"{kind}: told before it hurt, median", float(np.median(leads)), "min")
                )
    told, true = sum(d.told for d in made), sum(d.true for d in made)
    if told:
        rows.append(row("predicted alerts that came true", 100 * true / told, f"% of {told}", 80))
        rows.append(
            row("predicted alerts that did not", (told - true) / len(made), "a day", 0.2, "lower")
        )
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.buffer.write(msgspec.json.encode(day(int(sys.argv[2]))) + b"\n")
    else:
        results = days([int(seed) for seed in sys.argv[1:]] or SEEDS)
        for result in results:
            print(f"\nseed {result.seed}\n{result.table}")
        report("demo_days", rows_of(results))
