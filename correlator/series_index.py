"""The series of one view: key words to dense rows, bounded, with stable 64-bit ids outside.

Rows are given out at the close of a tick, in order of (descending weight, key), so the same input
gives the same rows on any number of shards. A row is taken back from the series that was silent
longest, never from one that still speaks: a scan does not displace what was learned.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_array, write_array
from runtime.kernels import inline, kernel

ROWS_FIRST = 1024


@inline
def _mix(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@inline
def _hash(k0, k1, k2):  # type: ignore[no-untyped-def]
    h = _mix(k0 + np.uint64(0x9E3779B97F4A7C15))
    h = _mix(h ^ (k1 + np.uint64(0xD1B54A32D192ED03)))
    return _mix(h ^ (k2 + np.uint64(0x8CB92BA72F3D8DD7)))


@kernel("i8(const u8[:,::1], const i4[::1], const u8[:,::1], i8[::1])")
def find(
    wanted: NDArray[np.uint64],
    table: NDArray[np.int32],
    keys: NDArray[np.uint64],
    out: NDArray[np.int64],
) -> int:
    """Look up key words; return how many were not found.

    In      wanted uint64[N, 3]; table int32[T], row + 1 or 0, T a power of two; keys uint64[M, 3].
    Out     out int64[N], the row or -1.
    """
    mask = table.size - 1
    missing = 0
    for i in range(wanted.shape[0]):
        k0, k1, k2 = wanted[i, 0], wanted[i, 1], wanted[i, 2]
        place = np.int64(_hash(k0, k1, k2)) & mask
        out[i] = -1
        while table[place] != 0:
            row = table[place] - 1
            if keys[row, 0] == k0 and keys[row, 1] == k1 and keys[row, 2] == k2:
                out[i] = row
                break
            place = (place + 1) & mask
        if out[i] < 0:
            missing += 1
    return missing


@kernel("i8(const u8[:,::1], const i8[::1], i4[::1])")
def index_rows(keys: NDArray[np.uint64], rows: NDArray[np.int64], table: NDArray[np.int32]) -> int:
    """Enter rows of keys uint64[M, 3] into the hash table; return how many.

    In      rows int64[N], each < M and not in the table yet. Inout table int32[T], row + 1 or 0, T
            a power of two greater than the rows it holds.
    """
    mask = table.size - 1
    for i in range(rows.size):
        row = rows[i]
        place = np.int64(_hash(keys[row, 0], keys[row, 1], keys[row, 2])) & mask
        while table[place] != 0:
            place = (place + 1) & mask
        table[place] = np.int32(row + 1)
    return int(rows.size)


class SeriesIndex:
    """Key words (3 x u64) of one view to dense rows. Row 0 is never a series."""

    def __init__(self, *, series_max: int) -> None:
        self._most = series_max + 1
        self.rows = 1  # rows ever used; free ones in between are in `_free`
        self._free: list[int] = []
        self._allocate(min(ROWS_FIRST, self._most))

    def _allocate(self, size: int) -> None:
        self.keys = np.zeros((size, 3), np.uint64)
        self.series_id = np.zeros(size, np.uint64)
        self.last_tick_ns = np.zeros(size, np.int64)
        self.ticks_seen = np.zeros(size, np.uint32)
        self.live = np.zeros(size, np.uint8)
        self.table = np.zeros(1 << max(4, (4 * size - 1).bit_length() - 1), np.int32)

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """The rows that are series now, ascending."""
        return np.flatnonzero(self.live[: self.rows])

    @property
    def live_count(self) -> int:
        """How many rows are series now."""
        return self.rows - 1 - len(self._free)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the row of each key, -1 where it is none."""
        out = np.empty(len(keys), np.int64)
        find(np.ascontiguousarray(keys), self.table, self.keys, out)
        return out

    def room(self) -> int:
        """Return how many keys can be admitted without eviction."""
        return self._most - self.rows + len(self._free)

    def evict(
        self, before_ns: int, most: int | None = None, *, seen_below: int | None = None
    ) -> NDArray[np.uint64]:
        """Take back rows last seen before `before_ns`, the longest silent first; return their ids.

        At most `most` of them, and only of series seen in fewer than `seen_below` ticks.
        """
        rows = self.live_rows
        rows = rows[self.last_tick_ns[rows] < before_ns]
        if seen_below is not None:
            rows = rows[self.ticks_seen[rows] < seen_below]
        if not rows.size:
            return np.zeros(0, np.uint64)
        order = np.lexsort((rows, self.last_tick_ns[rows]))[:most]
        return self.take_back(np.sort(rows[order]))

    def take_back(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Free these rows; return the ids they had."""
        ids = self.series_id[rows].copy()
        if rows.size:
            self.live[rows] = 0
            self.series_id[rows] = 0
            self._free = sorted({*self._free, *rows.tolist()}, reverse=True)
            self._reindex()
        return ids

    def saw(self, rows: NDArray[np.int64], end_ns: int) -> None:
        """Note that these series had records in the tick that ends at `end_ns`."""
        self.last_tick_ns[rows] = end_ns
        self.ticks_seen[rows] += np.uint32(1)

    def admit(
        self, keys: NDArray[np.uint64], series_ids: NDArray[np.uint64], end_ns: int
    ) -> NDArray[np.int64]:
        """Give rows to new keys, in their order; there must be room. Return the rows."""
        reused = min(len(keys), len(self._free))
        rows = np.empty(len(keys), np.int64)
        rows[:reused] = [self._free[-1 - i] for i in range(reused)]
        rows[reused:] = np.arange(self.rows, self.rows + len(keys) - reused)
        self.place(rows, keys, series_ids, end_ns)
        return rows

    def place(
        self,
        rows: NDArray[np.int64],
        keys: NDArray[np.uint64],
        series_ids: NDArray[np.uint64],
        end_ns: int,
    ) -> None:
        """Put keys into given rows, as a journal says they were, first seen at `end_ns`."""
        if not len(rows):
            return
        if int(rows.max()) >= len(self.keys):
            self._grow(int(rows.max()) + 1)
        before, self.rows = self.rows, max(self.rows, int(rows.max()) + 1)
        taken = set(rows.tolist())
        between = [row for row in range(before, self.rows) if row not in taken]
        if self._free or between:
            free = [row for row in self._free if row not in taken] + between
            self._free = sorted(free, reverse=True)
        moved = bool(self.live[rows].any())
        self.keys[rows] = keys
        self.series_id[rows] = series_ids
        self.last_tick_ns[rows] = end_ns
        self.ticks_seen[rows] = 0
        self.live[rows] = 1
        if moved:
            self._reindex()
        else:
            index_rows(self.keys, rows, self.table)

    def _grow(self, rows: int) -> None:
        old: list[NDArray[Any]] = self._arrays()
        self._allocate(max(min(2 * len(self.keys), self._most), rows))
        for kept, grown in zip(old, self._arrays(), strict=True):
            grown[: len(kept)] = kept
        self._reindex()

    def _arrays(self) -> list[NDArray[Any]]:
        return [self.keys, self.series_id, self.last_tick_ns, self.ticks_seen, self.live]

    def _reindex(self) -> None:
        self.table[:] = 0
        index_rows(self.keys, self.live_rows, self.table)

    def snapshot(self, out: Any) -> None:
        """Write the used rows."""
        for name in _STATE:
            write_array(out, name, getattr(self, name)[: self.rows])

    def restore(self, state: Any) -> None:
        """Take them back."""
        found = {name: read_array(state, name) for name in _STATE}
        kept = {name: array for name, array in found.items() if array is not None}
        if len(kept) != len(_STATE):
            return
        self.rows = len(kept["live"])
        self._allocate(min(max(ROWS_FIRST, self.rows), max(self._most, self.rows)))
        for name, array in kept.items():
            getattr(self, name)[: self.rows] = array
        free = np.flatnonzero(kept["live"] == 0).tolist()
        self._free = sorted((row for row in free if row > 0), reverse=True)
        self._reindex()


_STATE = ("keys", "series_id", "last_tick_ns", "ticks_seen", "live")
