"""The routes of all peers as a table of fingerprints: what is new, gone, or has another path.

A route is 20 bytes: a 64-bit hash of its identity (peer, table of routes, family, prefix, path id), and
32 bits each of its path (AS path and next hop), its origin AS, and its owner. With the table between
3/8 and 3/4 full that is 27 to 53 bytes a route. Two routes share a place with a probability of
n^2 / 2^65: 3e-8 for a million. Blind to changes of other attributes: they count as the same path.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_array, write_array
from runtime.kernels import inline, kernel

PLACES_FIRST = 1 << 12
OWNER_BITS = 14  # generation of a peer's row in the owner; a peer that falls ends all its routes
GENERATIONS = 1 << OWNER_BITS


class Change(IntEnum):
    """What a row meant for the table it is about."""

    NOT_KNOWN = 0  # the table is full
    NEW = 1
    SAME_PATH = 2  # announced again, perhaps with other attributes
    PATH = 3  # another AS path or next hop
    ORIGIN = 4  # another origin AS
    WITHDRAWN = 5
    WITHDRAWN_UNKNOWN = 6  # it was not there


# Columns of `counts`.
ANNOUNCED, WITHDRAWN, PATH_CHANGED, ORIGIN_CHANGED, DUMPED, ROUTES, UNTRACKED = range(7)
COUNTS = 7


@inline
def _identity(route, path_id, owner, slot):  # type: ignore[no-untyped-def]
    h = (route ^ (np.uint64(owner) << np.uint64(32) | np.uint64(path_id))) * np.uint64(
        0x9E3779B97F4A7C15
    )
    h = ((h ^ (h >> np.uint64(31))) + np.uint64(slot)) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(30)
    return h if h != np.uint64(0) else np.uint64(1)


@kernel(
    "i8(const u8[:,::1], const u4[:,::1], const u1[:,::1], const u4[::1], const i4[::1],"
    " const u1[::1], i8, i8, i8, u8[::1], u4[::1], u4[::1], u4[::1], i8[:,::1], i8[::1], u1[::1])"
)
def apply_routes(
    wide: NDArray[np.uint64],
    words: NDArray[np.uint32],
    octets: NDArray[np.uint8],
    owner: NDArray[np.uint32],
    count_row: NDArray[np.int32],
    dumping: NDArray[np.uint8],
    first: int,
    stop: int,
    routes_max: int,
    key: NDArray[np.uint64],
    path: NDArray[np.uint32],
    origin: NDArray[np.uint32],
    held_by: NDArray[np.uint32],
    counts: NDArray[np.int64],
    state: NDArray[np.int64],
    out_change: NDArray[np.uint8],
) -> int:
    """Enter rows [first, stop) into the table; return the row to go on with.

    In      columns of `decode_updates`; for each row owner uint32, peer row << 14 | generation;
            count_row int32, its row in `counts`; dumping uint8, 1 while the peer sends its whole
            table. routes_max: more live routes are not entered.
    Inout   key uint64[S] (0 = free), path uint32[S] (0 = withdrawn), origin, held_by uint32[S]; counts
            int64[C, 7]; state int64[2]: places taken, live routes.
    Out     out_change uint8[R], a Change.
    Errors  none raised. Stops before a row that needs a place where 3/4 are taken: `grow`, go on.
    """
    mask = key.size - 1
    full = key.size // 4 * 3
    for r in range(first, stop):
        identity = _identity(wide[7, r], words[1, r], owner[r], count_row[r])
        row = count_row[r]
        place = np.int64(identity >> np.uint64(20)) & mask
        while key[place] != np.uint64(0) and key[place] != identity:
            place = (place + 1) & mask
        known = key[place] == identity
        live = known and path[place] != np.uint32(0)
        if octets[1, r] != 0:
            out_change[r] = 6
            counts[row, 1] += 1
            if live:
                path[place] = 0
                state[1] -= 1
                counts[row, 5] -= 1
                out_change[r] = 5
            continue
        if not known and state[0] >= full and state[1] < routes_max:
            return r
        if dumping[r]:
            counts[row, 4] += 1
        else:
            counts[row, 0] += 1
        h = (wide[5, r] ^ wide[3, r]) * np.uint64(0x9E3779B97F4A7C15) + wide[2, r]
        way = np.uint32((h ^ (h >> np.uint64(29))) >> np.uint64(3)) | np.uint32(1)
        number = words[2, r]
        if not live and state[1] >= routes_max:
            out_change[r] = 0
            counts[row, 6] += 1
            continue
        if not known:
            key[place] = identity
            held_by[place] = owner[r]
            state[0] += 1
        if not live:
            state[1] += 1
            counts[row, 5] += 1
        if live and origin[place] != number:
            out_change[r] = 4
            counts[row, 3] += 1
            counts[row, 2] += 1
        elif not live:
            out_change[r] = 1
        elif path[place] != way:
            out_change[r] = 3
            counts[row, 2] += 1
        else:
            out_change[r] = 2
        path[place] = way
        origin[place] = number
    return stop


@kernel(
    "i8(const u8[::1], const u4[::1], const u4[::1], const u4[::1], const u4[::1], i8,"
    " u8[::1], u4[::1], u4[::1], u4[::1])"
)
def move_routes(
    key: NDArray[np.uint64],
    path: NDArray[np.uint32],
    origin: NDArray[np.uint32],
    held_by: NDArray[np.uint32],
    generation: NDArray[np.uint32],
    rows: int,
    to_key: NDArray[np.uint64],
    to_path: NDArray[np.uint32],
    to_origin: NDArray[np.uint32],
    to_held_by: NDArray[np.uint32],
) -> int:
    """Enter the live routes of the first `rows` places into an empty table; return how many.

    In      generation uint32[P], the present one of each peer row.
    """
    mask = to_key.size - 1
    moved = 0
    for i in range(rows):
        if key[i] == np.uint64(0) or path[i] == np.uint32(0):
            continue
        if generation[held_by[i] >> np.uint32(14)] != held_by[i] & np.uint32(16383):
            continue
        place = np.int64(key[i] >> np.uint64(20)) & mask
        while to_key[place] != np.uint64(0):
            place = (place + 1) & mask
        to_key[place] = key[i]
        to_path[place] = path[i]
        to_origin[place] = origin[i]
        to_held_by[place] = held_by[i]
        moved += 1
    return moved


class RouteTable:
    """Fingerprints of the routes of all peers, at most `routes_max` of them alive."""

    def __init__(self, routes_max: int) -> None:
        self._routes_max = routes_max
        self.state = np.zeros(2, np.int64)  # places taken, live routes
        self._empty(PLACES_FIRST)

    def _empty(self, places: int) -> None:
        self.key = np.zeros(places, np.uint64)
        self.path = np.zeros(places, np.uint32)
        self.origin = np.zeros(places, np.uint32)
        self.held_by = np.zeros(places, np.uint32)

    @property
    def live(self) -> int:
        """Routes that are announced."""
        return int(self.state[1])

    @property
    def table_bytes(self) -> int:
        """Memory of the table."""
        return self.key.size * 20

    def apply(
        self,
        wide: NDArray[np.uint64],
        words: NDArray[np.uint32],
        octets: NDArray[np.uint8],
        rows: int,
        owner: NDArray[np.uint32],
        count_row: NDArray[np.int32],
        dumping: NDArray[np.uint8],
        counts: NDArray[np.int64],
        generation: NDArray[np.uint32],
    ) -> NDArray[np.uint8]:
        """Enter decoded routes; return the Change of each. See `apply_routes`."""
        change = np.empty(rows, np.uint8)
        row = 0
        while True:
            row = apply_routes(
                wide, words, octets, owner, count_row, dumping, row, rows, self._routes_max,
                self.key, self.path, self.origin, self.held_by, counts, self.state, change,
            )  # fmt: skip
            if row >= rows:
                return change
            self.grow(generation)

    def grow(self, generation: NDArray[np.uint32]) -> None:
        """Drop what is withdrawn or of a peer that fell, and double the table where that frees little."""
        places = self.key.size * (2 if self.live > self.key.size * 3 // 8 else 1)
        old = self.key, self.path, self.origin, self.held_by
        self._empty(places)
        moved = move_routes(
            *old, generation, old[0].size, self.key, self.path, self.origin, self.held_by
        )
        self.state[0] = moved

    def fell(self, routes: int) -> None:
        """Note that so many live routes ended with their peer's generation."""
        self.state[1] -= routes

    def snapshot(self, out: Any) -> None:
        """Write the live routes."""
        rows = np.flatnonzero(self.path)
        for name in ("key", "path", "origin", "held_by"):
            write_array(out, name, getattr(self, name)[rows])

    def restore(self, state: Any, generation: NDArray[np.uint32]) -> None:
        """Take them back."""
        key, path = read_array(state, "key"), read_array(state, "path")
        origin, held_by = read_array(state, "origin"), read_array(state, "held_by")
        if key is None or path is None or origin is None or held_by is None:
            return
        rows = key.size
        places = PLACES_FIRST
        while places * 3 // 4 < rows:
            places *= 2
        self._empty(places)
        moved = move_routes(
            key, path, origin, held_by, generation, rows,
            self.key, self.path, self.origin, self.held_by,
        )  # fmt: skip
        self.state[:] = moved
