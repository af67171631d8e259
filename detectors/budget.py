"""The alert budget: how many false alerts a day may be raised, shared by all series.

Two controls. A finding must be rarer than the budget allows for as many tests as are made in a day:
Benjamini-Hochberg's step-up over the findings of one tick, at the share of the budget that belongs
to the tick, so that the expected number of false alerts a day is the budget, for ten series and for
a million. And because p-values can be wrong, admissions are charged to an account that fills over
the day: the surer a finding the less it costs, but never less than a two-hundredth of an alert, so
that even a model that is always wrong and always sure is bounded. What begins within five minutes
of a charged finding is the same event and costs nothing more.

What does not enter goes to the digest, counted and visible. Hard faults are outside. The budget
never mutes. Tests of different sorts have an own part of the site's budget each (detectors.stage): a
few hundred tests for attacks are not lost among a hundred thousand of single series.

Source: Benjamini and Hochberg (1995); weighted tests: Genovese, Roeder and Wasserman (2006); batches
in time: Zrnic, Jiang, Ramdas and Jordan (2020).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.checkpoint import read_array, write_array

DAY_S = 86_400.0
LEAST_COST = 0.005
EVENT_S = 300.0


class AlertBudget:
    """Decides over p-values in the order (tick end, view, series id)."""

    def __init__(self, *, false_alerts_per_day: float) -> None:
        self._per_day = false_alerts_per_day
        self._left = self.capacity
        self.spent = 0.0
        self.events = 0  # charged so far
        self._last_s = 0.0
        self._event_s = 0.0  # when the last charged event began

    @property
    def capacity(self) -> float:
        """Most that the account can hold."""
        return max(self._per_day, 1.0)

    @property
    def used(self) -> float:
        """Return how much of a day's budget is spent at the moment."""
        return float(self.capacity - self._left)  # p-values are numpy's

    @property
    def per_day(self) -> float:
        """False alerts a day that the operator allows."""
        return self._per_day

    def open_tick(self, at_s: float) -> None:
        """Let the account fill for the time that went by."""
        if self._last_s:
            gained = (at_s - self._last_s) / DAY_S * self._per_day
            self._left = min(self.capacity, self._left + max(gained, 0.0))
        # A slow view's tick may end before one judged earlier.
        self._last_s = max(self._last_s, at_s)

    def admit(self, p_values: Sequence[float], *, tests: int, tick_s: float) -> list[bool]:
        """Return which findings of a tick may alert, in the order in which they came.

        `tests` is how many tests were made in the tick, with and without a finding.
        """
        if not p_values:
            return []
        share = self._per_day * tick_s / DAY_S  # false alerts that this tick may raise
        level = 0.0
        for rank, p in enumerate(sorted(p_values), 1):
            if p <= share * rank / max(tests, 1):
                level = share * rank / max(tests, 1)
        made = []
        for p in p_values:
            enters = p <= level and self._charge(p / level if level else 1.0)
            made.append(enters)
        return made

    def spend(self, doubt: float) -> bool:
        """Charge the account for one alert that is false with this probability; False: no room."""
        return self._charge(doubt)

    def _charge(self, doubt: float) -> bool:
        if self._event_s and self._last_s - self._event_s < EVENT_S:
            return True
        cost = max(LEAST_COST, min(doubt, 1.0))
        if self._left < cost:
            return False
        self._left -= cost
        self.spent += cost
        self.events += 1
        self._event_s = self._last_s
        return True

    def snapshot(self, out: Any) -> None:
        """Write the state."""
        state = [self._left, self.spent, self._last_s, self._event_s]
        write_array(out, "budget", np.array(state))

    def restore(self, state: Any) -> None:
        """Take it back."""
        kept = read_array(state, "budget")
        if kept is not None:
            self._left, self.spent, self._last_s, self._event_s = kept.tolist()
