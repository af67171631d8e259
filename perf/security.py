"""Security classes over the demo carrier: recall, false alerts, start named. `python perf/security.py [SEED...]`

Each seed is a day of the carrier's background with attacks of every class, particulars drawn at random
(tocsin.demo.attacks): one of the fast classes every 27 minutes, slow scans and beacons beside them. One
more day of each seed is quiet: what is raised there is false. The chain and its settings are the demo's,
with ticks of 60 s; the carrier has been watched for a week. A quiet day goes before the attacks: history
by the quarter hour teaches nothing of views with ticks of an hour, which learn a day
(docs/detection.md). Then the sample of CESNET, as far as it can speak: one busy address by the hour,
without ports, flags or directions. It says how often the slow scan would fire if every flow of that
address were a probe, the worst there could be.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from correlator.security_views import SecurityViewsSettings, security_views
from detectors.security.detector import SECURITY
from perf.measure import best_seconds, report, row
from perf.quality_sets import SHARED
from tocsin.config import Config
from tocsin.demo.attacks import CLASSES, KINDS
from tocsin.demo.faults import make_fault
from tocsin.demo.network import DemoNetwork, load_demo_network
from tocsin.demo.settings import demo_config
from tocsin.demo.simulate import START_NS, run_days
from tocsin.demo.traffic import Fault
from tocsin.testing.frames import frame

SEEDS = (201, 202, 203)
RECORDS_PER_SECOND = 240.0
SECOND = 1_000_000_000
DAY_SECONDS = 86_400
SLOW = ("slow-scan", "beacon")
FAST = tuple(name for name in CLASSES if name not in SLOW)
SLOT_SECONDS = 1_620
AFTERMATH_NS = 600 * SECOND
CESNET = SHARED / "cesnet-sample" / "ip_103_1h.parquet"


class Judged(msgspec.Struct, frozen=True):
    """What became of one attack."""

    name: str
    entity: str
    found: bool
    delay_ticks: float  # from its start to the alert's tick, in ticks of its view
    start_error_ticks: float  # of the start that the alert names
    title: str
    others: tuple[str, ...]  # other alerts while it went on


def config() -> Config:
    """Return the demo's configuration with ticks of a minute and every view of security."""
    made = demo_config()
    views = msgspec.structs.replace(
        made.views, tick_seconds=60.0, lateness_seconds=30.0, security=SecurityViewsSettings()
    )
    return msgspec.structs.replace(made, views=views)


def attacks(
    network: DemoNetwork, *, seed: int, seconds: int, slot_seconds: int = SLOT_SECONDS,
    slow: bool = True, first: int = 0,
) -> tuple[Fault, ...]:  # fmt: skip
    """Return the attacks of a day: fast ones one after the other, slow ones beside them."""
    random = np.random.default_rng([seed, 79])
    made = []
    order: list[str] = []
    for at in range(first, seconds - slot_seconds + 1, slot_seconds):
        order = order or [FAST[i] for i in random.permutation(len(FAST))]
        name = order.pop()
        _, least, most = CLASSES[name]
        start = START_NS + (at + int(random.integers(60, 240))) * SECOND
        made.append(make_fault(network, name, random, start, float(random.uniform(least, most))))
    for name in SLOW if slow else ():
        for _ in range(4):
            _, least, most = CLASSES[name]
            length = float(random.uniform(least, most))
            start = START_NS + int(random.uniform(first, seconds - length)) * SECOND
            made.append(make_fault(network, name, random, start, length))
    return tuple(made)


def judge(
    faults: Sequence[Fault], alerts: Sequence[dict[str, Any]]
) -> tuple[list[Judged], list[str]]:
    """Return what became of each attack, and the alerts that belong to none."""
    raised = [alert for alert in alerts if alert["state"] == "raised"]
    owned: set[int] = set()
    judged = []
    for fault in faults:
        tick_ns = {"beacon": 300, "slow-scan": 3600}.get(fault.detail["class"], 60) * SECOND
        going = [
            (i, alert) for i, alert in enumerate(raised)
            if fault.start_ns <= alert["changed_ns"] <= fault.end_ns + AFTERMATH_NS + 2 * tick_ns
        ]  # fmt: skip
        mine = [(i, a) for i, a in going if _concerns(fault, a)]
        hits = [a for _, a in mine if a["kind"] == fault.kind]
        owned |= {i for i, _ in mine}
        if not hits:
            judged.append(Judged(fault.detail["class"], fault.entity, False, 0.0, 0.0, "", ()))
            continue
        best = min(hits, key=lambda a: a["changed_ns"])
        delay = (best["changed_ns"] - 30 * SECOND - fault.start_ns) / tick_ns
        error = abs(best["raised_ns"] - fault.start_ns) / tick_ns
        others = tuple(a["title"] for _, a in mine if a is not best and a["kind"] in KINDS)
        judged.append(
            Judged(fault.detail["class"], fault.entity, True, delay, error, best["title"], others)
        )
    return judged, [f"{a['kind']}: {a['title']}" for i, a in enumerate(raised) if i not in owned]


def _concerns(fault: Fault, alert: dict[str, Any]) -> bool:
    names = {str(alert["entity"]), *map(str, alert["explain"].get("touches", ()))}
    return bool(names & {fault.entity, *fault.affects[1:]})


def day(
    seed: int, *, quiet: bool, hours: float | None = None, learned_days: int = 7,
    slot_seconds: int = SLOT_SECONDS,
) -> tuple[list[Judged], list[str]]:  # fmt: skip
    """Simulate one day, with attacks or without; `hours` of one have no slow attacks, and no day before them."""
    network = load_demo_network()
    faults: tuple[Fault, ...] = ()
    whole = hours is None and not quiet
    if not quiet:
        seconds = round(hours * 3600) if hours else 2 * DAY_SECONDS
        faults = attacks(
            network, seed=seed, seconds=seconds, slot_seconds=slot_seconds, slow=whole,
            first=DAY_SECONDS if whole else 0,
        )  # fmt: skip
    _, alerts = run_days(
        days=2 if whole else 1, hours=hours, seed=seed, records_per_second=RECORDS_PER_SECOND, faults=faults,
        config=config(), learned_days=learned_days,
    )  # fmt: skip
    return judge(faults, alerts)


def cesnet(path: Path = CESNET) -> tuple[int, float]:
    """Return (slow scans found, days) of one address, every flow of which is taken for a probe."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    detector = SECURITY.get("slow_scan").make()
    views = security_views(SecurityViewsSettings(), tick_seconds=60.0, lateness_seconds=30.0)
    view = next(one for one in views if one.name == detector.view)
    began, last = 0, False
    columns = [table[name].to_pylist() for name in ("timestamp", "n_flows", "sum_n_dest_ip")]
    for time_s, flows, targets in zip(*columns, strict=True):
        values = {"flows": [flows], "distinct_destination": [targets]}
        batch = frame(view, time_s * SECOND, values, tick_seconds=3600.0)
        found = bool(detector.find(batch))
        detector.learn(batch, np.array([not found]), every=True)
        began, last = began + (found and not last), found
    return began, (columns[0][-1] - columns[0][0]) / 86_400


def cost(rows: int = 10_000, ticks: int = 20) -> list[dict[str, Any]]:
    """Return what each detector takes for a row of a tick."""
    made = []
    random = np.random.default_rng(1)
    views = security_views(SecurityViewsSettings(), tick_seconds=60.0, lateness_seconds=30.0)
    for kind in SECURITY.kinds():
        detector = SECURITY.get(kind).make()
        view = next(one for one in views if one.name == detector.view)
        frames = [
            frame(
                view, START_NS + round(k * view.tick_seconds) * SECOND,
                {m.name: random.poisson(3.0, rows) for m in view.measures},
                tick_seconds=view.tick_seconds,
            )
            for k in range(ticks)
        ]  # fmt: skip
        calm = np.ones(rows, bool)

        def work(one: Any = detector, batches: Any = frames, calm: Any = calm) -> None:
            for batch in batches:
                one.find(batch)
                one.learn(batch, calm)

        seconds = best_seconds(work, repeats=3)
        made.append(
            row(f"{kind}: a row of a tick", 1e6 * seconds / rows / ticks, "us", 0.5, "lower")
        )
    return made


def rows_of(
    judged: Sequence[Judged], stray: Sequence[str], quiet: Sequence[str], days: int
) -> list[dict[str, Any]]:
    """Return the table's rows."""
    by_class: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_class[one.name].append(one)
    security = [title for title in quiet if title.split(":")[0] in KINDS]
    rows = [
        row("recall, all classes", float(np.mean([j.found for j in judged])), f"of {len(judged)}", 0.9),
        row("false alerts of security classes", len(security) / days, "a quiet day", 1, "lower"),
        row("false alerts of all kinds", len(quiet) / days, "a quiet day", 1, "lower"),
        row("alerts of no attack on days of attacks",
            sum(title.split(":")[0] in KINDS for title in stray) / days, "a day", None, "lower"),
        row("second alerts of one attack",
            float(np.mean([len(j.others) for j in judged if j.found])), "an attack", None, "lower"),
    ]  # fmt: skip
    for name in CLASSES:
        ones = by_class.get(name, [])
        seen = [one for one in ones if one.found]
        if ones:
            rows.append(row(f"{name}: recall", len(seen) / len(ones), f"of {len(ones)}", 0.9))
        if seen:
            rows.append(
                row(
                    f"{name}: delay, median",
                    float(np.median([o.delay_ticks for o in seen])),
                    "ticks of its view",
                    None,
                    "lower",
                )
            )
            in_time = float(np.mean([one.start_error_ticks <= 2 for one in seen]))
            rows.append(row(f"{name}: start named within 2 ticks", in_time, f"of {len(seen)}", 0.9))
    return rows


if __name__ == "__main__":
    seeds = [int(one) for one in sys.argv[1:]] or SEEDS
    every: list[Judged] = []
    strays: list[str] = []
    falses: list[str] = []
    for seed in seeds:
        found, stray = day(seed, quiet=False)
        _, false = day(seed + 1000, quiet=True)
        every, strays, falses = every + found, strays + stray, falses + false
        for one in found:
            print(f"{'found' if one.found else 'MISSED':6} {one.name:16} {one.entity:20} "
                  f"{one.delay_ticks:5.1f} {one.start_error_ticks:5.1f} {one.title}")  # fmt: skip
            for other in one.others:
                print(f"       also: {other}")
        for title in stray:
            print(f"stray  {title}")
        for title in false:
            print(f"FALSE  {title}")
        sys.stdout.flush()
    rows = rows_of(every, strays, falses, len(seeds)) + cost()
    if CESNET.exists():
        scans, days = cesnet()
        rows.append(
            row("CESNET: slow scans were every flow a probe", scans / days, "a day", 1, "lower")
        )
    report("security", rows)
