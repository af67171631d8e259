"""What signatures share: findings of a row by its scores, and series too young for a baseline."""

import math

import numpy as np
from numpy.typing import NDArray

from detectors import calibration
from detectors.detector import Finding, ScoreColumns
from detectors.seasonal import rate
from telemetry.batch import Batch

YOUNG_FACTOR = 4.0  # over the busiest 1 % of mature series of the view
MATURE_MIN = 20

# The p-value of the least that is a finding of each signature.
P_LEAST = {"attack": 0.06, "scan": 0.14, "trend": 3.2e-5}

Scores = dict[str, ScoreColumns]


def far_above_like(expected: NDArray[np.float32], mature: NDArray[np.bool_]) -> float:
    """Return what a young series must exceed; infinite where too few mature ones are known."""
    if int(mature.sum()) < MATURE_MIN:
        return math.inf
    return YOUNG_FACTOR * float(np.quantile(expected[mature], 0.99))


def together(columns: list[ScoreColumns], i: int) -> float:
    """Return one p-value of several measures of one row: Bonferroni over the smallest."""
    return min(1.0, len(columns) * min(float(one.p_value[i]) for one in columns))


def unlike(value: float, busy: float) -> float:
    """Return how rarely a series of this kind is so busy: the prior tail beyond the busiest 1 %."""
    over: float = YOUNG_FACTOR * value / max(busy, 1e-9)
    rarity: float = 0.01 * max(over, 1.0) ** -calibration.TAIL_FIRST
    return rarity


def finding_of(
    frame: Batch, scores: Scores, i: int, measure: str, detector: str, *, hard: bool, p: float,
    detail: dict[str, object], expected: float | None = None,
) -> Finding:  # fmt: skip
    """Return a finding of row `i`, no less strange than its measure's score."""
    columns = scores[measure]
    p, score = max(p, 1e-300), float(columns.score[i])
    return Finding(
        i,
        measure,
        detector,
        hard,
        rate(frame, measure, i),
        float(columns.expected[i]) if expected is None else expected,
        float(columns.lower[i]),
        float(columns.upper[i]),
        max(0.0 if math.isnan(score) else score, -math.log10(p)),
        p,
        detail,
    )
