"""A group-by table that keeps the keys with the smallest hashes: the same for any order of input."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.windows_kernels import (
    BUCKETS,
    COUNTERS,
    KEY_WORDS,
    REGISTERS,
    group,
    merge,
    reindex,
)

ROWS_FIRST = 1024
EVERYTHING = 0xFFFF_FFFF_FFFF_FFFF


class Groups:
    """Rows of integer state by key; row 0 is `__other__`.

    Holds at most `keys_max` keys when `settle` was called, up to twice as many in between. A key
    above the bound goes to row 0 with its sums and never returns (design section 4).
    """

    def __init__(self, *, keys_max: int, registers: bool, entropy: bool) -> None:
        self._keys_max = keys_max
        self._with_registers = registers
        self._with_entropy = entropy
        self._bound = EVERYTHING
        self.rows = 1
        self._state = np.zeros(1, np.int64)
        self._allocate(min(ROWS_FIRST, 2 * keys_max + 1))

    def _allocate(self, size: int) -> None:
        self.hashes = np.zeros(size, np.uint64)
        self.keys = np.zeros((size, KEY_WORDS), np.uint64)
        self.counters = np.zeros((size, COUNTERS), np.uint64)
        self.registers = np.zeros((size if self._with_registers else 0, REGISTERS), np.uint8)
        self.entropy = np.zeros((size if self._with_entropy else 0, BUCKETS), np.uint32)
        self.table = np.zeros(1 << max(4, (4 * size - 1).bit_length() - 1), np.int32)

    def add(
        self,
        key: NDArray[np.uint64],
        record: NDArray[np.int32],
        octets: NDArray[np.uint64],
        packets: NDArray[np.uint64],
        flows: NDArray[np.uint64],
        unsure: NDArray[np.uint8],
        item: NDArray[np.uint64],
        bucket: NDArray[np.uint8],
    ) -> None:
        """Add pieces of records; see windows_kernels.group."""
        at = 0
        while True:
            at = group(
                key, record, octets, packets, flows, unsure, item, bucket, at, self.rows,
                self._bound, self.table, self.hashes, self.keys, self.counters, self.registers,
                self.entropy, self._state,
            )  # fmt: skip
            self.rows = int(self._state[0])
            if at >= record.size:
                return
            self._make_room()

    def merge(
        self,
        keys: NDArray[np.uint64],
        counters: NDArray[np.uint64],
        registers: NDArray[np.uint8],
        entropy: NDArray[np.uint32],
    ) -> None:
        """Add the rows of another table, its row 0 being its `__other__`."""
        at = 0
        while True:
            at = merge(
                keys, counters, registers, entropy, at, self.rows, self._bound, self.table,
                self.hashes, self.keys, self.counters, self.registers, self.entropy, self._state,
            )  # fmt: skip
            self.rows = int(self._state[0])
            if at >= keys.shape[0]:
                return
            self._make_room()

    def settle(self) -> None:
        """Cut down to the keys with the smallest hashes, exactly `keys_max` at most."""
        if self.rows - 1 > self._keys_max:
            self._cut()

    def _make_room(self) -> None:
        if self.rows - 1 >= 2 * self._keys_max:
            self._cut()
            return
        old = self._arrays()
        self._allocate(min(4 * self.rows, 2 * self._keys_max + 1))
        for kept, grown in zip(old, self._arrays(), strict=True):
            grown[: len(kept)] = kept
        reindex(self.hashes, self.rows, self.table)

    def _cut(self) -> None:
        hashes = self.hashes[1 : self.rows]
        self._bound = int(np.partition(hashes, self._keys_max - 1)[self._keys_max - 1])
        stays = np.concatenate([[True], hashes <= np.uint64(self._bound)])
        gone = np.flatnonzero(~stays)
        nothing = np.zeros((0, REGISTERS), np.uint8), np.zeros((0, BUCKETS), np.uint32)
        # Their sums go to row 0: a merge whose bound lets no key in.
        outside = np.concatenate([[0], gone])
        keys, counters = self.keys[outside], self.counters[outside].copy()
        counters[0] = 0
        registers = self.registers[outside].copy() if self._with_registers else nothing[0]
        entropy = self.entropy[outside].copy() if self._with_entropy else nothing[1]
        if self._with_registers:
            registers[0] = 0
        if self._with_entropy:
            entropy[0] = 0
        keep = np.flatnonzero(stays)
        for array in self._arrays():
            if len(array):
                array[: keep.size] = array[keep]
                array[keep.size : self.rows] = 0
        self.rows = int(keep.size)
        self.table[:] = 0
        reindex(self.hashes, self.rows, self.table)
        self.merge(keys, counters, registers, entropy)

    def _arrays(self) -> list[NDArray[Any]]:
        return [self.hashes, self.keys, self.counters, self.registers, self.entropy]
