"""How far the baseline of a series has come, by the time it has learned from.

Time with nothing to learn (silence of a sampled series, incomplete ticks, what was anomalous) is no age.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

STAGES = ("warming up", "first day", "daily profile", "settled")
DAY_S, WEEK_S = 86_400.0, 604_800.0


class Aging(Protocol):
    """What tells the age of its series."""

    def ages(self) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return (series id, seconds learned from) by dense row; id 0 = no series."""
        ...


def stages(age_s: NDArray[np.float32], warmup_s: float) -> NDArray[np.int64]:
    """Return places in STAGES.

    >>> [STAGES[k] for k in stages(np.array([60.0, 7200.0, 1e5, 1e6], np.float32), 3600.0)]
    ['warming up', 'first day', 'daily profile', 'settled']
    """
    found: NDArray[np.int64] = np.searchsorted([warmup_s, DAY_S, WEEK_S], age_s, side="right")
    return found


def counts(models: Iterable[Aging], warmup_s: float) -> list[int]:
    """Return how many series are in each stage."""
    total = np.zeros(len(STAGES), np.int64)
    for model in models:
        series_id, age_s = model.ages()
        total += np.bincount(stages(age_s[series_id != 0], warmup_s), minlength=len(STAGES))
    return [int(count) for count in total]
