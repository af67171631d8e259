"""Log lines through the chain: counts become series with baselines, a burst is found and named."""

from typing import Any

import numpy as np
import pytest

from alerting.words.alerts import alerts_of
from detectors.config import DetectionSettings
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from telemetry.batch import Batch
from tests.support.syslog_messages import SECOND, block, make_syslog
from tocsin.chain.assembly import make_back
from tocsin.chain.ticks import Closing, Outcome, Tick
from tocsin.config import Config
from tocsin.testing.rows import rows_of

START_NS = 1_790_596_800 * SECOND
SECONDS = 9_000
BURST_S = 7_800  # from here on one router refuses logins
HOSTS = ("ams1", "fra2", "lon1")


def second_of(second: int, random: np.random.Generator) -> list[str]:
    """Return what all routers log in one second."""
    made = []
    for host in HOSTS:
        head = f"Sep 28 12:{second // 60 % 60:02}:{second % 60:02} {host}"
        for n in range(int(random.poisson(2.0))):
            made.append(
                f"<30>{head} rpd[1]: keepalive {n} from peer 10.0.0.{int(random.integers(250))}"
            )
        often = 40.0 if second > BURST_S and host == "fra2" else 0.5
        for n in range(int(random.poisson(often))):
            made.append(f"<35>{head} sshd[9]: error: authentication failed for 10.9.{n}.1 port {n}")
    return made


@pytest.fixture(scope="module")
def lived() -> tuple[list[Tick], list[Outcome], list[Batch]]:
    """Every tick, outcome and batch of log lines of two hours and a half."""
    config = Config(detection=DetectionSettings(false_alerts_per_day=100.0))
    back, random = make_back(config, ManualClock(), Metrics("test")), np.random.default_rng(5)
    ticks: list[Tick] = []
    outcomes: list[Outcome] = []
    back.on_tick = ticks.append
    back.on_outcome = lambda tick, outcome: outcomes.append(outcome)
    decoder, _ = make_syslog()
    logs: list[Batch] = []
    for second in range(SECONDS):
        at_ns = START_NS + second * SECOND
        made = decoder.decode(block(*second_of(second, random), arrival_ns=at_ns))
        made += decoder.advance(at_ns + SECOND)
        logs += [batch for batch in made if batch.schema.name == "log"]
        back.take(Closing(at_ns + SECOND, tuple(made)))
    return ticks, outcomes, logs


def test_a_burst_of_one_pattern_on_one_router_is_found_and_named(
    lived: tuple[list[Tick], list[Outcome], list[Batch]],
) -> None:
    _, outcomes, logs = lived
    changes: list[Any] = [
        alert for one in outcomes for batch in one.alarms for alert in alerts_of(batch)
    ]
    raised = [alert for alert in changes if alert.state == "raised"]
    assert raised
    failed = {row["pattern_id"] for row in rows_of(logs[-1:], "log") if "failed" in row["message"]}
    (pattern,) = failed
    assert all(alert.entity.startswith("fra2") for alert in raised)
    assert any(f"{pattern:016x}" in alert.entity or "error" in alert.entity for alert in raised)
    assert all(alert.title.startswith("log_lines of fra2") for alert in raised)
    assert all(alert.changed_ns > START_NS + BURST_S * SECOND for alert in raised)
    assert min(alert.changed_ns for alert in raised) < START_NS + (BURST_S + 600) * SECOND


def test_each_line_is_journalled_once_and_each_pattern_told(
    lived: tuple[list[Tick], list[Outcome], list[Batch]],
) -> None:
    ticks, _, logs = lived
    kept = [batch for tick in ticks for batch in tick.batches]
    came = sum(batch.rows for batch in logs)
    assert sum(batch.rows for batch in kept if batch.schema.name == "log") == came
    told = [row for row in rows_of(kept, "option") if row["table"] == "log-pattern"]
    assert {row["name"] for row in told} == {
        "keepalive <*> from peer <*>",
        "error: authentication failed for <*> port <*>",
    }
    assert sum(row["novelty"] for row in rows_of(kept, "log")) == 2
