"""How perf prints and keeps its figures: one table, and `perf/results/<name>.json`."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def cpu_of(pid: int) -> float:
    """Return user + system seconds of a process and the children it has reaped."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def best_seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """Return the least CPU time of several runs: noise only ever adds."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def report(name: str, rows: list[dict[str, object]]) -> None:
    """Print the table and keep it as JSON. A row has name, value, unit, goal, better."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    width = max(len(str(row["name"])) for row in rows)
    print(f"\n{name}")
    for row in rows:
        goal, value = row["goal"], float(str(row["value"]))
        if goal is None:
            mark = ""
        else:
            good = (
                value >= float(str(goal))
                if row["better"] == "higher"
                else value <= float(str(goal))
            )
            mark = f"  goal {goal:g}  {'reached' if good else 'NOT reached'}"
        print(f"  {row['name']!s:{width}}  {value:>12.4g} {row['unit']!s:14}{mark}")


def row(
    name: str, value: float, unit: str, goal: float | None = None, better: str = "higher"
) -> dict[str, object]:
    """Return one row of a table."""
    return {
        "name": name,
        "value": float(f"{value:.5g}"),
        "unit": unit,
        "goal": goal,
        "better": better,
    }
