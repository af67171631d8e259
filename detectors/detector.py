"""The detector contract: score, then learn, with the driver between them deciding what is learned."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Batch


@dataclass(slots=True)
class ScoreColumns:
    """What a detector writes for one measure of a frame: N rows, the last one is `__other__`."""

    expected: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    score: NDArray[np.float32]  # -log10 of the p-value; 0 = as expected, NaN = no value
    p_value: NDArray[np.float64]
    z: NDArray[np.float32]  # signed deviation, 1 = what one tick in a hundred exceeds

    @classmethod
    def empty(cls, rows: int) -> "ScoreColumns":
        """Return columns that say: as expected."""
        expected, lower, upper, score, z = np.zeros((5, rows), np.float32)
        return cls(expected, lower, upper, score, np.ones(rows), z)


class Detector(Protocol):
    """Scores the values of many series. `learn` is the only writer of state.

    `score` may be called any number of times and changes nothing that `learn` has not changed. A
    row that was never learned scores 0. `learn` gets every row of every tick, in tick order: where
    mask is False the row is anomalous and may move no notion of normal, only counts of what is
    going on.
    """

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and forget what rows that changed hands had. Before `score`."""
        ...

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns for every row. NaN gives score NaN and p-value 1."""
        ...

    def learn(self, frame: Batch, measure: str, mask: NDArray[np.bool_]) -> None:
        """Learn the rows where mask is set, in tick order."""
        ...

    def snapshot(self, out: Any) -> None:
        """Write all state, bit for bit."""
        ...

    def restore(self, state: Any) -> None:
        """Take it back."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One detector's finding about one row of a frame."""

    row: int  # place in the frame
    measure: str
    detector: str
    hard: bool
    actual: float
    expected: float
    lower: float
    upper: float
    score: float
    p_value: float
    detail: dict[str, Any]
    admitted: bool = False  # of a prediction: its own budget let it in


def six(value: Any) -> Any:
    """Return a number rounded as replays compare it: to six digits."""
    return value if isinstance(value, (int, str)) else float(f"{float(value):.6g}")
