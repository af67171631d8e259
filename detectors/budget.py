"""The alert budget: how many false alerts a day the site may raise, shared by all series.

A finding enters when its p-value is below what the number of tests a day leaves for it, and while
the day's budget is not used up; what does not enter goes to the digest, counted and visible. Hard
faults are outside. The budget never mutes.

Source: Benjamini-Hochberg's idea in its simplest online form: a fixed level per test, spent from a
bucket that fills over the day (compare Javanmard and Montanari, 2018, LORD).
"""

from typing import Any

import numpy as np

from runtime.checkpoint import read_array, write_array

DAY_S = 86_400.0


class AlertBudget:
    """Decides over p-values in the order (tick end, view, series id)."""

    def __init__(self, *, false_alerts_per_day: float) -> None:
        self._per_day = false_alerts_per_day
        self._left = max(false_alerts_per_day, 1.0)
        self.spent = 0.0
        self._last_s = 0.0

    @property
    def used(self) -> float:
        """Return how much of a day's budget is spent at the moment."""
        return max(self._per_day, 1.0) - self._left

    @property
    def per_day(self) -> float:
        """False alerts a day that the operator allows."""
        return self._per_day

    def open_tick(self, at_s: float) -> None:
        """Let the bucket fill for the time that went by."""
        if self._last_s:
            gained = (at_s - self._last_s) / DAY_S * self._per_day
            self._left = min(max(self._per_day, 1.0), self._left + max(gained, 0.0))
        self._last_s = at_s

    def level(self, tests_per_tick: int, tick_s: float) -> float:
        """Return the p-value below which a test of this tick may alert."""
        return self._per_day / max(tests_per_tick * DAY_S / tick_s, 1.0)

    def take(self) -> bool:
        """Spend one alert; False when the day's budget is used up."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        self.spent += 1.0
        return True

    def snapshot(self, out: Any) -> None:
        """Write the state."""
        write_array(out, "budget", np.array([self._left, self.spent, self._last_s]))

    def restore(self, state: Any) -> None:
        """Take it back."""
        kept = read_array(state, "budget")
        if kept is not None:
            self._left, self.spent, self._last_s = kept.tolist()
