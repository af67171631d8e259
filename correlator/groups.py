"""A group-by table that keeps the keys with the smallest hashes: the same for any order of input."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlator.windows_kernels import (
    BUCKETS,
    ENTROPY_WORDS,
    HEAD_WORDS,
    KEY_WORDS,
    REGISTER_WORDS,
    REGISTERS,
    SIZE_WORDS,
    group,
    hash_keys,
    merge,
    reindex,
)
from telemetry.views import View

ROWS_FIRST = 1024
EVERYTHING = 0xFFFF_FFFF_FFFF_FFFF
LINE_WORDS = 8  # a cache line
SALT = 0x5DEE_CE66_D1CE_CAFE  # public: a site that fears crafted keys gives its own

_SIZES = frozenset({"min", "max", "mean", "m2"})


@dataclass(frozen=True, slots=True)
class Layout:
    """What a row of a view's groups holds beside its key and counters."""

    sizes: bool
    registers: bool
    entropy: bool

    @property
    def register_at(self) -> int:
        """The first byte of the HyperLogLog registers, 0 = none."""
        return 8 * (HEAD_WORDS + SIZE_WORDS * self.sizes) if self.registers else 0

    @property
    def bucket_at(self) -> int:
        """The first uint32 of the entropy buckets, 0 = none."""
        before = HEAD_WORDS + SIZE_WORDS * self.sizes + REGISTER_WORDS * self.registers
        return 2 * before if self.entropy else 0

    @property
    def words(self) -> int:
        """The length of a row in u64."""
        return (
            HEAD_WORDS
            + SIZE_WORDS * self.sizes
            + REGISTER_WORDS * self.registers
            + ENTROPY_WORDS * self.entropy
        )

    def registers_of(self, cells: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return uint8[N, 64] of rows of this layout."""
        at = self.register_at // 8
        return np.ascontiguousarray(cells[:, at : at + REGISTER_WORDS]).view(np.uint8)

    def buckets_of(self, cells: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return uint32[N, 256] of rows of this layout."""
        at = self.bucket_at // 2
        return np.ascontiguousarray(cells[:, at : at + ENTROPY_WORDS]).view(np.uint32)


def layout_of(view: View) -> Layout:
    """Return the layout that a view's measures need."""
    functions = {measure.function for measure in view.measures}
    return Layout(bool(functions & _SIZES), "distinct" in functions, "entropy" in functions)


def rows_most(keys_max: int) -> int:
    """Return how many rows a table of so many keys may take before it is cut down again."""
    return keys_max + max(keys_max // 4, 16) + 1


def table_size(rows: int) -> int:
    """Return the places of the hash table of so many rows: a power of two, at most half full."""
    return 1 << max(4, (2 * rows - 1).bit_length())


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of records that lie in one tick; see windows_kernels.spread."""

    record: NDArray[np.int32]
    octets: NDArray[np.uint64]
    packets: NDArray[np.uint64]
    flows: NDArray[np.uint8]
    moved: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Way:
    """How records get their key in a view: the arguments of windows_kernels.group, by record."""

    kind: int
    way: int
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    number: NDArray[np.uint32]
    protocol: NDArray[np.uint8]
    chosen: NDArray[np.uint8]
    item: NDArray[np.uint64]
    bucket: NDArray[np.uint8]
    whole: NDArray[np.uint64]
    unsure: NDArray[np.uint8]
    content: NDArray[np.uint64]


class Groups:
    """Rows of integer state by key; row 0 is `__other__`.

    Holds at most `keys_max` keys when `settle` was called, a quarter more in between. A key above
    the bound goes to row 0 with its sums and never returns (design section 4).
    """

    def __init__(self, layout: Layout, *, keys_max: int, salt: int = SALT) -> None:
        self.layout = layout
        self._keys_max = keys_max
        self._rows_most = rows_most(keys_max)
        self._salt = salt
        self._state = np.zeros(2, np.int64)
        self.bound = EVERYTHING  # keys of a greater hash are in row 0
        self.rows = 1
        self._allocate(min(ROWS_FIRST, self._rows_most))

    def _allocate(self, size: int) -> None:
        words = self.layout.words
        spare = np.zeros(size * words + LINE_WORDS, np.uint64)
        # A row that starts at a cache line touches half as many of them.
        skip = -(spare.ctypes.data // 8) % LINE_WORDS
        self._cells = spare[skip : skip + size * words].reshape(size, words)
        self._bytes = self._cells.view(np.uint8)
        self._quarters = self._cells.view(np.uint32)
        self._table = np.zeros(table_size(size), np.int32)

    @property
    def cells(self) -> NDArray[np.uint64]:
        """The rows in use, uint64[rows, layout.words]; row 0 is `__other__`."""
        return self._cells[: self.rows]

    @property
    def bytes(self) -> int:
        """What the table takes now, in bytes."""
        return self._cells.nbytes + self._table.nbytes

    def clear(self) -> None:
        """Empty the table for another tick; its memory stays."""
        self._cells[: self.rows] = 0
        self._table[:] = 0
        self.rows = 1
        self.bound = EVERYTHING

    def add(
        self, way: Way, pieces: Pieces, heavy: NDArray[np.int32], threshold: float, by_flows: int
    ) -> int:
        """Add pieces of records; return how many candidates for the sample are in `heavy`.

        See windows_kernels.group for `threshold` and `by_flows`.
        """
        layout = self.layout
        self._state[1] = 0
        at = 0
        while True:
            at = group(
                way.kind, way.way, way.high, way.low, way.number, way.protocol, way.chosen, way.item,
                way.bucket, way.whole, way.unsure, way.content,
                pieces.record, pieces.octets, pieces.packets, pieces.flows, pieces.moved,
                threshold, by_flows, int(layout.sizes), layout.register_at, layout.bucket_at,
                at, self.rows, self.bound, self._salt,
                self._table, self._cells, self._bytes, self._quarters, heavy, self._state,
            )  # fmt: skip
            self.rows = int(self._state[0])
            if at >= pieces.record.size:
                return int(self._state[1])
            self._make_room()

    def merge(self, cells: NDArray[np.uint64], bound: int = EVERYTHING) -> None:
        """Add the rows of another table of this layout, its row 0 being its `__other__`."""
        if bound < self.bound:
            self._cut(bound)
        layout = self.layout
        at = 0
        while True:
            at = merge(
                cells, int(layout.sizes), layout.register_at, layout.bucket_at,
                at, self.rows, self.bound, self._salt,
                self._table, self._cells, self._bytes, self._quarters, self._state,
            )  # fmt: skip
            self.rows = int(self._state[0])
            if at >= len(cells):
                return
            self._make_room()

    def settle(self) -> None:
        """Cut down to the keys with the smallest hashes, exactly `keys_max` at most."""
        if self.rows - 1 > self._keys_max:
            self._cut(self._smallest())

    def above_bound(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which keys, uint64[N, 3], went to row 0 because the table was full."""
        return above_bound(keys, self.bound, self._salt)

    def restore(self, cells: NDArray[np.uint64], bound: int) -> None:
        """Take the rows of an earlier table as they were."""
        self.clear()
        if len(cells) > len(self._cells):
            self._allocate(min(max(len(cells), ROWS_FIRST), self._rows_most))
        self._cells[: len(cells)] = cells
        self.rows = len(cells)
        self.bound = bound
        reindex(self._cells, self.rows, self._salt, self._table)

    def _smallest(self) -> int:
        hashes = self._hashes()
        return int(np.partition(hashes, self._keys_max - 1)[self._keys_max - 1])

    def _hashes(self) -> NDArray[np.uint64]:
        hashes = np.empty(self.rows, np.uint64)
        keys = np.ascontiguousarray(self._cells[: self.rows, :KEY_WORDS])
        hash_keys(keys, self._salt, hashes)
        return hashes[1:]

    def _make_room(self) -> None:
        if self.rows >= self._rows_most:
            self._cut(self._smallest())
            return
        old = self._cells[: self.rows]
        self._allocate(min(4 * len(self._cells), self._rows_most))
        self._cells[: self.rows] = old
        reindex(self._cells, self.rows, self._salt, self._table)

    def _cut(self, bound: int) -> None:
        """Keep the keys whose hash is at most `bound`; the sums of the others go to row 0."""
        self.bound = bound
        stays = np.concatenate([[True], self._hashes() <= np.uint64(bound)])
        gone = self._cells[: self.rows][~stays]
        kept = self._cells[: self.rows][stays]
        self._cells[: len(kept)] = kept
        self._cells[len(kept) : self.rows] = 0
        self.rows = len(kept)
        self._table[:] = 0
        reindex(self._cells, self.rows, self._salt, self._table)
        if len(gone):
            # A merge whose bound lets no key in; its own row 0 is empty.
            self.merge(np.concatenate([np.zeros((1, gone.shape[1]), np.uint64), gone]))


def above_bound(keys: NDArray[np.uint64], bound: int, salt: int = SALT) -> NDArray[np.bool_]:
    """Return which keys, uint64[N, 3], have a hash above a table's bound."""
    hashes = np.empty(len(keys), np.uint64)
    hash_keys(np.ascontiguousarray(keys), salt, hashes)
    result: NDArray[np.bool_] = hashes > np.uint64(bound)
    return result


def bytes_most(view: View) -> int:
    """Return the most bytes that the groups of one open tick of a view can take."""
    rows = rows_most(view.keys_per_tick_max)
    return rows * layout_of(view).words * 8 + table_size(rows) * 4


assert REGISTER_WORDS * 8 == REGISTERS, "a register is a byte"
assert ENTROPY_WORDS * 2 == BUCKETS, "a bucket is a uint32"
