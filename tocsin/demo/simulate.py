"""Simulated days: the same model, chain and settings as the live demo, without sockets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from alerting.words.alert import canonical
from alerting.words.alerts import alerts_of
from correlator.windows import FlowWindows
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from tocsin.chain.intake import customer_sources, make_context
from tocsin.chain.ticks import Closing
from tocsin.config import Config
from tocsin.demo.bootstrap import bootstrap
from tocsin.demo.conditions import STEP_NS, Conditions
from tocsin.demo.faults import drawn, write_truth
from tocsin.demo.network import load_demo_network
from tocsin.demo.scoring import Score, judge, table
from tocsin.demo.settings import demo_config
from tocsin.demo.traffic import Fault, TrafficModel

START_NS = 1_790_553_600_000_000_000  # Monday 2026-09-28 00:00 UTC
DAY_NS = 86_400_000_000_000


def run_days(
    *,
    days: int,
    seed: int,
    records_per_second: float,
    hours: float | None = None,
    faults: tuple[Fault, ...] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    alerts_to: list[bytes] | None = None,
    config: Config | None = None,
    learned_days: int = 14,
) -> tuple[Score, list[dict[str, Any]]]:
    """Simulate and return (score, alerts as sent).

    `faults` stand in for those drawn by seed, `config` for that of the live demo.
    """
    config = config or demo_config()
    network = load_demo_network()
    if faults is None:
        faults = drawn(network, start_ns=START_NS, seed=seed, days=days)
    model = TrafficModel(network, seed=seed, faults=faults, records_per_second=records_per_second)
    quiet = TrafficModel(network, seed=seed, records_per_second=records_per_second)
    back = bootstrap(config, quiet, until_ns=START_NS, days=learned_days)
    clock, metrics = ManualClock(START_NS), Metrics("simulate")
    customers = customer_sources(config)
    windows = FlowWindows(
        config.all_views(),
        make_context("windows", clock, metrics, 0),
        backbone=back.backbone(),
        customers=customers,
    )
    tick_ns = round(config.views.tick_seconds * 1e9)
    lateness_ns = round(config.views.lateness_seconds * 1e9)
    length_ns = round(hours * 3.6e12) if hours else days * DAY_NS
    alerts: list[dict[str, Any]] = []
    conditions = Conditions(network, faults, seed=seed)
    at_ns = START_NS
    while at_ns < START_NS + length_ns:
        batch = model.exported(at_ns, tick_ns)
        # What arrives before the last tick's lateness is over belongs to the time before it closes.
        cut = int(np.searchsorted(batch["arrival_ns"], at_ns + lateness_ns))
        windows.process(batch.slice(0, cut))
        closed = windows.advance(at_ns + lateness_ns)
        windows.process(batch.slice(cut, batch.rows))
        if at_ns % STEP_NS == 0:
            back.offer(conditions.batches(at_ns))
        for outcome in back.take(Closing(at_ns + lateness_ns, tuple(closed))):
            for alarms in outcome.alarms:
                for alert in alerts_of(alarms):
                    if alerts_to is not None:
                        alerts_to.append(canonical(alert))
                    alerts.append(msgspec.to_builtins(alert))
        if at_ns % 3_600_000_000_000 == 0:
            progress(f"hour {(at_ns - START_NS) // 3_600_000_000_000}")
        at_ns += tick_ns
    score = judge(
        faults, alerts, tick_ns=tick_ns, lateness_ns=lateness_ns, until_ns=START_NS + length_ns
    )
    return score, alerts


def simulate(
    *, days: int, seed: int, records_per_second: float, echo: Callable[[str], None]
) -> int:
    """Run simulated days, print the table, write truth.jsonl and alerts.jsonl; exit code 0."""
    alerts: list[bytes] = []
    score, _ = run_days(
        days=days, seed=seed, records_per_second=records_per_second, alerts_to=alerts
    )
    network = load_demo_network()
    faults = drawn(network, start_ns=START_NS, seed=seed, days=days)
    write_truth(faults, Path("truth.jsonl"), start_ns=START_NS, end_ns=START_NS + days * DAY_NS)
    Path("alerts.jsonl").write_bytes(b"".join(line + b"\n" for line in alerts))
    echo(table(score))
    echo("truth.jsonl and alerts.jsonl are in this folder")
    return 0
