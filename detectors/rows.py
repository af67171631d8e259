"""State of many series in arrays by dense row: grown, cleared, checkpointed in one way by all detectors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch

ROWS_FIRST = 64
Rows = slice | NDArray[np.int64]  # of a frame
ALL = slice(None)


class RowArrays:
    """Arrays whose first axis is row * measures + m, and the series that each row holds.

    A row whose series id changed starts afresh, with zeros. Memory follows the highest row seen;
    how many rows there are is bounded where they are given out (`series_max` of a view).
    """

    def __init__(
        self,
        measures: tuple[str, ...],
        *,
        rows_max: int = 1 << 32,
        **arrays: tuple[type[np.generic], tuple[int, ...]],
    ) -> None:
        """`rows_max`: rows from there on have no state; `arrays`: dtype and shape behind the first axis."""
        self.measures = measures
        self.rows_max = rows_max
        self._arrays = arrays
        self.series_id = np.zeros(ROWS_FIRST, np.uint64)
        self.held: dict[str, NDArray[Any]] = self._empty(ROWS_FIRST)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.held[name]

    def _empty(self, rows: int) -> dict[str, NDArray[Any]]:
        size = rows * len(self.measures)
        return {
            name: np.zeros((size, *shape), dtype) for name, (dtype, shape) in self._arrays.items()
        }

    def admit(self, frame: Batch) -> NDArray[np.int64]:
        """Make room for the frame's rows, clear those that changed hands, and return these."""
        rows, ids = frame["row"][:-1].astype(np.int64), frame["series_id"][:-1]
        if rows.size and int(rows.max()) >= self.rows_max:
            rows, ids = rows[rows < self.rows_max], ids[rows < self.rows_max]
        if not rows.size:
            return rows
        size = len(self.series_id)
        if int(rows.max()) >= size:
            while size <= int(rows.max()):
                size *= 2
            grown = self._empty(size)
            for name, array in self.held.items():
                grown[name][: len(array)] = array
            known = np.zeros(size, np.uint64)
            known[: len(self.series_id)] = self.series_id
            self.held, self.series_id = grown, known
        new = self.series_id[rows] != ids
        changed: NDArray[np.int64] = rows[new]
        if not changed.size:
            return changed
        for m in range(len(self.measures)):
            places = changed * len(self.measures) + m
            for array in self.held.values():
                array[places] = 0
        self.series_id[changed] = ids[new]
        return changed

    def places(self, frame: Batch, measure: str, rows: Rows = ALL) -> NDArray[np.int64]:
        """Return where the state of each row's measure lies, or of some rows'; `__other__` has none."""
        places = np.multiply(frame["row"][:-1][rows], len(self.measures), dtype=np.int64)
        places += self.measures.index(measure)
        return places

    def of_first(self, name: str, column: int) -> NDArray[np.float32]:
        """Return one column of the first measure by dense row; 0 where a view has no measure."""
        if not self.measures:
            return np.zeros(len(self.series_id), np.float32)
        found: NDArray[np.float32] = self.held[name][:: len(self.measures), column]
        return found

    def snapshot(self, out: Any) -> None:
        """Write all of it."""
        write_array(out, "series_id", self.series_id)
        for name, array in self.held.items():
            write_array(out, name, array)

    def restore(self, state: Any) -> None:
        """Take it back; what an older version did not keep starts afresh."""
        ids = read_array(state, "series_id")
        if ids is None:
            return
        self.series_id = np.array(ids)
        self.held = self._empty(len(ids))
        for name, array in self.held.items():
            kept = read_array(state, name)
            if kept is not None and kept.shape == array.shape:
                self.held[name] = np.array(kept, array.dtype)
