"""The alert budget: how much it lets through, what it costs, and that it never mutes hard faults."""

import numpy as np
import pytest

from detectors.budget import LEAST_COST, AlertBudget
from runtime.checkpoint import Snapshot


def test_as_many_false_alerts_as_allowed_whatever_the_number_of_series() -> None:
    for series in (10, 1_000, 50_000):
        random = np.random.default_rng([1, series])
        budget = AlertBudget(false_alerts_per_day=10.0)
        days, tick_s = 20, 60.0
        alerts = 0
        for tick in range(round(days * 86_400 / tick_s)):
            budget.open_tick(1e9 + tick * tick_s)
            # Only the smallest of `series` uniform p-values can matter: draw that one.
            least = 1.0 - (1.0 - random.random()) ** (1.0 / series)
            alerts += sum(budget.admit([least], tests=series, tick_s=tick_s))
        assert 6.0 <= alerts / days <= 14.0, series


def test_sure_findings_cost_little_and_doubtful_ones_a_whole_alert() -> None:
    budget = AlertBudget(false_alerts_per_day=5.0)
    budget.open_tick(1e9)
    level = 5.0 * 5.0 / 86_400.0 / 1_000.0
    assert budget.admit([level * 0.99], tests=1_000, tick_s=5.0) == [True]
    assert budget.spent == pytest.approx(0.99)
    budget.open_tick(1e9 + 600)
    assert budget.admit([1e-30], tests=1_000, tick_s=5.0) == [True]
    assert budget.spent == pytest.approx(0.99 + LEAST_COST)


def test_one_event_is_charged_once() -> None:
    budget = AlertBudget(false_alerts_per_day=1.0)
    budget.open_tick(1e9)
    assert budget.admit([1e-20] * 40, tests=1_000, tick_s=5.0) == [True] * 40
    budget.open_tick(1e9 + 200)
    assert budget.admit([1e-20], tests=1_000, tick_s=5.0) == [True]
    assert budget.spent == pytest.approx(LEAST_COST)


def test_even_a_model_that_is_always_wrong_sends_a_bounded_number() -> None:
    budget = AlertBudget(false_alerts_per_day=2.0)
    alerts = 0
    for tick in range(86_400 // 60):
        budget.open_tick(1e9 + tick * 60.0)
        events = budget.spent
        budget.admit([1e-40], tests=1_000, tick_s=60.0)
        alerts += budget.spent > events
    assert alerts <= 2 * 2.0 / LEAST_COST + 1  # a full account and what a day adds
    assert budget.used <= 2.0


def test_many_at_once_help_each_other() -> None:
    """Benjamini-Hochberg: what alone is not rare enough is so among many as rare."""
    budget = AlertBudget(false_alerts_per_day=1.0)
    budget.open_tick(1e9)
    alone = 5.0 / 86_400.0 / 1_000.0 * 3.0
    assert budget.admit([alone], tests=1_000, tick_s=5.0) == [False]
    assert budget.admit([alone] * 4, tests=1_000, tick_s=5.0) == [True] * 4


def test_state_comes_back() -> None:
    first, second = (AlertBudget(false_alerts_per_day=3.0) for _ in range(2))
    first.open_tick(1e9)
    first.admit([1e-9], tests=100, tick_s=5.0)
    kept = Snapshot()
    first.snapshot(kept)
    second.restore(kept)
    for budget in (first, second):
        budget.open_tick(1e9 + 1_000)
    assert (first.used, first.spent) == (second.used, second.spent)


def test_what_is_used_is_a_plain_number_that_can_be_sent() -> None:
    budget = AlertBudget(false_alerts_per_day=10.0)
    budget.open_tick(1.0)
    assert budget.admit([np.float64(1e-12)], tests=100, tick_s=60.0) == [True]
    assert budget.used > 0.0
    assert type(budget.used) is float
