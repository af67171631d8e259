"""The table of export streams: one row each, at most `streams_max`; the rest share row 0."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flow.shedding import PACE
from collectors.flow.streams import (
    COUNTS,
    DECODED,
    EXPECTED,
    GAPS,
    HEARD_NS,
    LAST_SEQUENCE,
    LAST_UNITS,
    LAST_UNITS_2,
    MODE,
    NO_TEMPLATE,
    PLACES,
    SEEN,
    SENT,
    STATE,
    UNSURE,
)  # fmt: skip
from runtime.checkpoint import read_array, write_array

SILENT_NS = 3_600_000_000_000  # streams silent for so long make room first


class Streams:
    """The state of all export streams of one decoder."""

    _KEPT = ("key", "state", "counts", "reported", "gaps", "boot", "rate")
    _BY_ROW = (*_KEPT, "pace")

    def __init__(self, *, streams_max: int = 8192, per_exporter_max: int = 1024) -> None:
        self._per_exporter_max = per_exporter_max  # kept when room is made
        rows = min(streams_max, PLACES // 2) + 1
        self.table = np.zeros(PLACES, np.int32)
        self.key = np.zeros((rows, 4), np.uint64)
        self.state = np.zeros((rows, STATE), np.int64)
        self.counts = np.zeros((rows, COUNTS), np.int64)
        self.reported = np.zeros((rows, COUNTS), np.int64)
        self.gaps = np.zeros((rows, GAPS, 2), np.int64)
        self.boot = np.zeros((rows, 4), np.int64)  # see collectors.flow.templated.finish
        self.pace = np.zeros((rows, PACE), np.int64)  # see collectors.flow.shedding
        self.rate = np.zeros(rows, np.uint32)  # sampling rate that holds for the whole stream
        self.rows = 1  # row 0: datagrams that belong to no stream
        self.forgotten = np.zeros(COUNTS, np.int64)  # counts of streams that made room
        self.kernel_drops = 0  # datagrams that the socket lost and no stream has missed yet

    def key_of(self, row: int) -> tuple[int, int, int, int]:
        """Return (exporter high, low, port | version << 16, domain)."""
        high, low, port_version, domain = self.key[row].tolist()
        return high, low, port_version, domain

    def find(self, key: tuple[int, int, int, int]) -> int:
        """Return the row of a stream, 0 where it is not known."""
        place = _python_place(*key)
        while self.table[place]:
            row = int(self.table[place]) - 1
            if self.key_of(row) == key:
                return row
            place = (place + 1) & (PLACES - 1)
        return 0

    def same_exporter(self, key: tuple[int, int, int, int]) -> NDArray[np.int64]:
        """Return the rows of a stream's exporter."""
        own = self.key[: self.rows]
        return np.flatnonzero((own[:, 0] == key[0]) & (own[:, 1] == key[1]))

    def same_domain(self, key: tuple[int, int, int, int]) -> NDArray[np.int64]:
        """Return those of its domain, whatever port: options may leave from another."""
        own = self.key[: self.rows]
        same = (own[:, 0] == key[0]) & (own[:, 1] == key[1]) & (own[:, 3] == key[3])
        return np.flatnonzero(same)

    def found_later(self, row: int, sequence: int, units: int, *, last: bool) -> None:
        """Count units of an unsure datagram that could be decoded after all.

        Its units were unknown when it came. While it is the newest of its stream they are still
        ahead of the sequence; else what came next has told how many they were. `last`: nothing of
        it is unknown any more.
        """
        state, counts = self.state[row], self.counts[row]
        counts[DECODED] += units
        if state[UNSURE] and int(state[LAST_SEQUENCE]) == sequence and state[MODE] != 1:
            counts[SENT] += units
            state[EXPECTED] = (int(state[EXPECTED]) + units) & 0xFFFFFFFF
            state[LAST_UNITS] += units
            state[LAST_UNITS_2] += units
            if last:
                state[UNSURE] = 0
        else:
            counts[NO_TEMPLATE] -= units

    def snapshot(self, out: Any, name: str) -> None:
        """Write everything, under names that begin with `name`."""
        for part in self._KEPT:
            write_array(out, f"{name}.{part}", getattr(self, part)[: self.rows])

    def restore(self, state: Any, name: str) -> bool:
        """Take it back, beside what is there; False where there is nothing.

        Columns that the version which wrote it did not have stay 0, those it had more are left out.
        Sequence numbers begin anew: a snapshot is older than what came before a crash, and a hole
        back to it would blame the network for what was received. The gap is stated by the node.
        """
        kept = {part: read_array(state, f"{name}.{part}") for part in self._KEPT}
        if any(array is None for array in kept.values()):
            return False
        keys = kept["key"]
        assert keys is not None
        for source in range(1, len(keys)):
            high, low, port_version, domain = keys[source].tolist()
            row = self._admit((high, low, port_version, domain))
            for part, array in kept.items():
                assert array is not None
                if row:
                    own = getattr(self, part)[row, ...]
                    common = tuple(map(slice, map(min, own.shape, array.shape[1:])))
                    own[common] = array[source][common]
            self.state[row, SEEN] = 0
        return True

    def _admit(self, key: tuple[int, int, int, int]) -> int:
        """Return the row of a stream, a new one where it is not known; 0 where there is no room."""
        row = self.find(key)
        if not row and self.rows < self.key.shape[0]:
            row = self.rows
            self.rows += 1
            self.key[row] = key
            self._index(row)
        return row

    def make_room(self, now_ns: int) -> int:
        """Forget silent streams and those beyond an exporter's share where few places are left.

        Return how many. Rows move: call it between blocks only.
        """
        if self.rows < self.key.shape[0] * 3 // 4:
            return 0
        rows = np.arange(1, self.rows)
        heard = self.state[rows, HEARD_NS]
        keep = heard > now_ns - SILENT_NS
        order = np.lexsort((-heard, self.key[rows, 1], self.key[rows, 0]))
        same = np.ones(rows.size, bool)
        same[1:] = (np.diff(self.key[rows[order], :2].astype(np.int64), axis=0) == 0).all(axis=1)
        same[0] = False
        began = np.maximum.accumulate(np.where(same, 0, np.arange(rows.size)))
        keep[order[np.arange(rows.size) - began >= self._per_exporter_max]] = False
        kept = np.concatenate([[0], rows[keep]])
        gone = self.rows - kept.size
        self.forgotten += self.counts[rows[~keep]].sum(axis=0)
        for name in self._BY_ROW:
            array = getattr(self, name)
            array[: kept.size] = array[kept]
            array[kept.size : self.rows] = 0
        self.rows = int(kept.size)
        self.reindex()
        return int(gone)

    def reindex(self) -> None:
        """Rebuild the hash table after rows moved."""
        self.table[:] = 0
        for row in range(1, self.rows):
            self._index(row)

    def _index(self, row: int) -> None:
        place = _python_place(*self.key_of(row))
        while self.table[place]:
            place = (place + 1) & (PLACES - 1)
        self.table[place] = row + 1


def _python_place(high: int, low: int, port_version: int, domain: int) -> int:
    mask = (1 << 64) - 1
    h = (low * 0x9E3779B97F4A7C15 + high) & mask
    h = ((h ^ (h >> 32)) + port_version * 0xC2B2AE3D27D4EB4F + domain * 0x165667B19E3779F9) & mask
    h ^= h >> 29
    return (h * 0xBF58476D1CE4E5B9 & mask) >> 49
