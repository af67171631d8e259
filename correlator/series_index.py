"""The series of one view: key words to dense rows, bounded, with stable 64-bit ids outside.

Rows are given out at the close of a tick, in order of (descending weight, key), so the same input
gives the same rows on any number of shards. A row is taken back from the series that was silent
longest, never from one that still speaks: a scan does not displace what was learned.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.windows_kernels import reindex
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


@kernel("i8(const u8[:,::1], u8[::1])")
def hash_keys(keys: NDArray[np.uint64], out: NDArray[np.uint64]) -> int:
    """Write the hash of each key to out uint64[N]."""
    for i in range(keys.shape[0]):
        out[i] = _hash(keys[i, 0], keys[i, 1], keys[i, 2])
    return int(keys.shape[0])


class SeriesIndex:
    """Key words (3 x u64) of one view to dense rows. Row 0 is never a series."""

    def __init__(self, *, series_max: int) -> None:
        self._most = series_max + 1
        self.rows = 1  # rows ever used; free ones in between are in `_free`
        self._free: list[int] = []
        self._allocate(min(ROWS_FIRST, self._most))

    def _allocate(self, size: int) -> None:
        self.keys = np.zeros((size, 3), np.uint64)
        self.hashes = np.zeros(size, np.uint64)
        self.series_id = np.zeros(size, np.uint64)
        self.last_tick_ns = np.zeros(size, np.int64)
        self.live = np.zeros(size, np.uint8)
        self.table = np.zeros(1 << max(4, (4 * size - 1).bit_length() - 1), np.int32)

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """The rows that are series now, ascending."""
        return np.flatnonzero(self.live[: self.rows])

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the row of each key, -1 where it is none."""
        out = np.empty(len(keys), np.int64)
        find(np.ascontiguousarray(keys), self.table, self.keys, out)
        return out

    def room(self) -> int:
        """Return how many keys can be admitted without eviction."""
        return self._most - self.rows + len(self._free)

    def evict(self, before_ns: int, most: int) -> NDArray[np.int64]:
        """Take back up to `most` rows last seen before `before_ns`, the longest silent first."""
        rows = self.live_rows
        rows = rows[self.last_tick_ns[rows] < before_ns]
        order = np.lexsort((rows, self.last_tick_ns[rows]))[:most]
        gone = np.sort(rows[order])
        if gone.size:
            self.live[gone] = 0
            self.series_id[gone] = 0
            self._free = sorted({*self._free, *gone.tolist()}, reverse=True)
            self._reindex()
        return gone

    def admit(self, keys: NDArray[np.uint64], series_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Give rows to new keys, in their order; there must be room. Return the rows."""
        rows = np.empty(len(keys), np.int64)
        for i in range(len(keys)):
            if self._free:
                rows[i] = self._free.pop()
            else:
                rows[i] = self.rows
                self.rows += 1
                if self.rows > len(self.keys):
                    self._grow()
        self.place(rows, keys, series_ids)
        return rows

    def place(
        self, rows: NDArray[np.int64], keys: NDArray[np.uint64], series_ids: NDArray[np.uint64]
    ) -> None:
        """Put keys into given rows, as a journal says they were."""
        if not len(rows):
            return
        while int(rows.max()) >= len(self.keys):
            self.rows = max(self.rows, len(self.keys))
            self._grow()
        self.rows = max(self.rows, int(rows.max()) + 1)
        taken = set(rows.tolist())
        if self._free:
            self._free = [row for row in self._free if row not in taken]
        self.keys[rows] = keys
        hashes = np.empty(len(keys), np.uint64)
        hash_keys(np.ascontiguousarray(keys), hashes)
        self.hashes[rows] = hashes
        self.series_id[rows] = series_ids
        self.live[rows] = 1
        self._reindex()

    def _grow(self) -> None:
        old: list[NDArray[Any]] = self._arrays()
        self._allocate(min(2 * len(self.keys), self._most))
        for kept, grown in zip(old, self._arrays(), strict=True):
            grown[: len(kept)] = kept
        self._reindex()

    def _arrays(self) -> list[NDArray[Any]]:
        return [self.keys, self.hashes, self.series_id, self.last_tick_ns, self.live]

    def _reindex(self) -> None:
        self.table[:] = 0
        rows = self.live_rows
        if rows.size == self.rows - 1:
            reindex(self.hashes, self.rows, self.table)
            return
        packed = np.concatenate([np.zeros(1, np.uint64), self.hashes[rows]])
        table = np.zeros_like(self.table)
        reindex(packed, len(packed), table)
        used = table > 0
        self.table[used] = rows[table[used] - 2] + 1

    def snapshot(self, out: Any) -> None:
        """Write the used rows."""
        for name in ("keys", "series_id", "last_tick_ns", "live"):
            write_array(out, name, getattr(self, name)[: self.rows])

    def restore(self, state: Any) -> None:
        """Take them back."""
        live, keys = read_array(state, "live"), read_array(state, "keys")
        ids, last = read_array(state, "series_id"), read_array(state, "last_tick_ns")
        if live is None or keys is None or ids is None or last is None:
            return
        rows = np.flatnonzero(live)
        self.place(rows, keys[rows], ids[rows])
        while len(self.keys) < len(live):
            self._grow()
        self.rows = max(self.rows, len(live))
        self.last_tick_ns[: len(last)] = last
        free = np.flatnonzero(live == 0).tolist()
        self._free = sorted((row for row in free if row > 0), reverse=True)
