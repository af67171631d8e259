"""What alarms cost: a flood collapsed in columns, a change in the state machine at 10,000 active alarms."""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from alerting.config import AlertingSettings
from alerting.life.flood import collapse
from perf.measure import report, row
from runtime import garbage
from telemetry.batch import Batch, batch_from_rows
from telemetry.foreign_alarm import alarm_row
from telemetry.schemas import ALARM
from tocsin.files.topologies import network_of
from tocsin.reports.correlation import make_stage

ACTIVE = 10_000
NODES = 1_000
CHANGES = 500  # of 250 alarms, in two event ticks
TICKS = 40
FLOOD_ROWS = 20_000
SECOND_NS = 1_000_000_000
KINDS = (
    "linkDown",
    "bgpDown",
    "fan",
    "highTemp",
    "los",
    "ospfNbrDown",
    "psu",
    "card",
    "sync",
    "ber",
)
OF_PORTS = ("linkDown", "bgpDown", "los", "ospfNbrDown", "ber")


def reported(number: int, severity: str, now_ns: int, *, at_ports: bool) -> dict[str, object]:
    """Return the report of one of the 10,000 alarms: ten kinds on each of a thousand nodes, or on its first port."""
    kind, node = KINDS[number % 10], f"r{number // 10}"
    entity = f"{node}:1" if at_ports and kind in OF_PORTS else node
    return alarm_row(
        source="perf", kind=kind, entity=entity, severity=severity, changed_ns=now_ns,
        title=f"{kind} on {entity}",
    )  # fmt: skip


def batch(numbers: np.ndarray, severity: str, now_ns: int, *, at_ports: bool = False) -> Batch:
    """Return the reports of some alarms."""
    rows = [reported(int(n), severity, now_ns, at_ports=at_ports) for n in numbers]
    return batch_from_rows(ALARM, rows)


def flood() -> float:
    """Return seconds a report for 20,000 reports of 400 alarms."""
    random = np.random.default_rng(3)
    made = batch(random.integers(0, 400, FLOOD_ROWS), "major", SECOND_NS)
    best = min(_timed(lambda: collapse(made)) for _ in range(20))
    return best / FLOOD_ROWS


def changes(*, at_ports: bool = False) -> np.ndarray:
    """Return seconds a change, of 250 clears and their raises at a time, while 10,000 alarms are up.

    `at_ports`: links and what runs over them are alarms of ports of the topology, so a thousand links are down.
    """
    garbage.calm()  # as a node does
    pairs = [(f"r{i}", f"r{(i * 7 + 3) % NODES}") for i in range(NODES)]
    pairs += [(f"r{i}", f"r{(i + 1) % NODES}") for i in range(NODES)]
    settings = AlertingSettings(alarms_max=2 * ACTIVE, storm_alarms=ACTIVE)
    stage = make_stage(network_of(pairs, []), settings)
    now_ns = 1_700_000_000 * SECOND_NS
    for start in range(0, ACTIVE, 1000):
        now_ns += 20 * SECOND_NS
        stage.process(batch(np.arange(start, start + 1000), "major", now_ns, at_ports=at_ports))
        stage.event(now_ns)
    random = np.random.default_rng(4)
    spent = []
    for _ in range(TICKS):
        some = random.choice(ACTIVE, CHANGES // 2, replace=False)
        for severity in ("cleared", "major"):
            now_ns += 20 * SECOND_NS
            made = batch(some, severity, now_ns, at_ports=at_ports)

            def play(made: Batch = made, now_ns: int = now_ns) -> None:
                stage.process(made)
                stage.event(now_ns)

            spent.append(_timed(play))
    return np.array(spent).reshape(TICKS, 2).sum(axis=1) / CHANGES


def _timed(call: object) -> float:
    began = time.process_time()
    call()  # type: ignore[operator]
    return time.process_time() - began


def main() -> None:
    """Print both figures, the second also for the quickest tenth: other jobs slow the rest."""
    spent, at_ports = changes() * 1e6, changes(at_ports=True) * 1e6
    report(
        "alerting",
        [
            row("flood collapsed by key", flood() * 1e6, "us / report", 1, "lower"),
            row(
                f"change at {ACTIVE} active alarms, median",
                np.median(spent),
                "us",
                50,
                "lower",
            ),
            row("  its quickest tenth", np.percentile(spent, 10), "us", None, "lower"),
            row(
                "  with a thousand links of a topology down",
                np.median(at_ports),
                "us",
                None,
                "lower",
            ),
        ],
    )


if __name__ == "__main__":
    main()
