"""Who sends logs: names as dense rows, clocks, what is shed when too much comes, and counts.

Hosts, senders and words (programs, message ids) are found by a hash of their bytes in tables of a
bound; what finds no room is row 0, `__other__`. Rows are inside names: outside there are texts and
hashes of texts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_arrays, write_array
from runtime.kernels import inline, kernel, subroutine
from telemetry.batch import text_column

OTHER = "__other__"
NAME_BYTES_MAX = 255
SECOND = 1_000_000_000
HALF_HOUR = 1800 * SECOND
HALF_HOURS_MAX = 28  # zones lie within 14 h of UTC
PROOFS = 3  # messages in a row that only another zone explains
# Rows of a host's and a sender's clock, int64.
KNOWN, HALVES, CANDIDATE, RUN, OFFSET_NS = range(5)
CLOCK = 5


# What was made of a message's time; the lower-case name is a metric label.
BELIEVED, SHIFTED, DOUBTED, ABSENT = range(4)
BELIEFS = ("believed", "shifted", "doubted", "absent")


@inline
def _mix(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@subroutine
def _hash(b, at, end):  # type: ignore[no-untyped-def]
    """Return a hash of bytes, never 0: FNV-1a, mixed."""
    h = np.uint64(0xCBF29CE484222325)
    for p in range(at, end):
        h = (h ^ np.uint64(b[p])) * np.uint64(0x100000001B3)
    h = _mix(h)
    return h if h != np.uint64(0) else np.uint64(1)


@subroutine
def _row_of(key, keys, rows):  # type: ignore[no-untyped-def]
    """Return the row of a key, or -1 - its free place."""
    mask = keys.size - 1
    place = np.int64(key & np.uint64(mask))
    while keys[place] != np.uint64(0):
        if keys[place] == key:
            return np.int64(rows[place])
        place = (place + 1) & mask
    return -1 - place


@kernel(
    "i8(const u1[::1], const i8[::1], const i8[::1], const i4[::1], const i4[::1], const i4[::1],"
    " const i8[::1], u8[::1])"
)
def message_keys(
    work: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    word: NDArray[np.int32],
    app: NDArray[np.int32],
    host: NDArray[np.int32],
    chosen: NDArray[np.int64],
    out_key: NDArray[np.uint64],
) -> int:
    """Hash what the K chosen of M messages say: those with one key say the same; return K.

    In      texts work[start : start + size]; word, app, host int32[M], rows of names; chosen int64[K].
    Out     out_key uint64[K].
    """
    for k in range(chosen.size):
        m = chosen[k]
        h = _hash(work, start[m], start[m] + size[m])
        h = _mix(h ^ np.uint64(word[m]) << np.uint64(40) ^ np.uint64(app[m]) << np.uint64(20))
        out_key[k] = _mix(h ^ np.uint64(host[m]))
    return chosen.size


@kernel(
    "i8(const u1[::1], const i8[::1], const i8[::1], const u8[::1], const i8[::1], i8, u8[::1], i4[::1],"
    " u8[::1], i8[::1], i4[::1], i4[::1])"
)
def name_rows(
    work: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    instead: NDArray[np.uint64],
    arrival_ns: NDArray[np.int64],
    rows: int,
    keys: NDArray[np.uint64],
    key_rows: NDArray[np.int32],
    row_key: NDArray[np.uint64],
    row_heard_ns: NDArray[np.int64],
    out_row: NDArray[np.int32],
    out_fresh: NDArray[np.int32],
) -> int:
    """Find the row of each of M names, make rows for new ones, and return how many rows there are.

    In      names work[start : start + size]; instead uint64[M]: the key of one that is empty.
    Inout   keys, key_rows: a hash table; row_key uint64[R]; row_heard_ns int64[R]. Row 0 is for what
            finds no room.
    Out     out_row int32[M]; out_fresh int32[R]: by which name row r was made, for new rows.
    """
    for m in range(size.size):
        key = instead[m]
        if size[m] > 0:
            key = _hash(work, start[m], start[m] + size[m])
        row = _row_of(key, keys, key_rows)
        if row < 0:
            if rows >= row_key.size:
                out_row[m] = 0
                continue
            place = -1 - row
            row = rows
            keys[place] = key
            key_rows[place] = row
            row_key[row] = key
            out_fresh[row] = m
            rows += 1
        row_heard_ns[row] = arrival_ns[m]
        out_row[m] = row
    return rows


@kernel(
    "i8(const i8[::1], const i8[::1], const i8[::1], const i8[::1], const i4[::1], i8, i8, i8[:,::1],"
    " i8[::1], u8[::1])"
)
def believe_clocks(
    clock_ns: NDArray[np.int64],
    zone_minutes: NDArray[np.int64],
    default_minutes: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    host: NDArray[np.int32],
    tolerance_ns: int,
    no_zone: int,
    clock: NDArray[np.int64],
    out_time_ns: NDArray[np.int64],
    tally: NDArray[np.uint64],
) -> int:
    """Say when each of M messages was written, by its host's clock or by its arrival.

    In      clock_ns int64[M], as written, 0 = not; zone_minutes int64[M], as written, `no_zone` = not;
            default_minutes int64[M], the zone where none is written; host int32[M]; tolerance_ns:
            a clock further off is not believed, negative: all are, as they stand.
    Inout   clock int64[5, H], see above; tally uint64[4] grows, one for each of BELIEFS.
    Out     out_time_ns int64[M].
    Method  A clock that is off by whole half hours, to within the tolerance, is right in another
            zone. A host keeps its zone until three messages in a row say another; the first says it
            at once. The offset is smoothed over sixteen messages.
    Errors  none; return how many were not believed.
    """
    doubted = 0
    for m in range(clock_ns.size):
        if clock_ns[m] == 0:
            out_time_ns[m] = arrival_ns[m]
            tally[ABSENT] += np.uint64(1)
            continue
        zone = zone_minutes[m] if zone_minutes[m] != no_zone else default_minutes[m]
        said = clock_ns[m] - zone * 60000000000
        if tolerance_ns < 0:
            out_time_ns[m] = said
            tally[BELIEVED] += np.uint64(1)
            continue
        h = host[m]
        off = said - arrival_ns[m]
        near = (off + HALF_HOUR // 2) // HALF_HOUR
        fits = abs(near) <= HALF_HOURS_MAX and abs(off - near * HALF_HOUR) <= tolerance_ns
        halves = clock[HALVES, h] if clock[KNOWN, h] else near
        if fits and near != halves:
            clock[RUN, h] = clock[RUN, h] + 1 if clock[CANDIDATE, h] == near else 1
            clock[CANDIDATE, h] = near
            if clock[RUN, h] >= PROOFS:
                halves = near
        if not fits or near != halves:
            out_time_ns[m] = arrival_ns[m]
            tally[DOUBTED] += np.uint64(1)
            doubted += 1
            continue
        if clock[KNOWN, h] == 0 or clock[HALVES, h] != near:
            clock[OFFSET_NS, h] = off
        clock[KNOWN, h] = 1
        clock[HALVES, h] = near
        clock[RUN, h] = 0
        clock[OFFSET_NS, h] += (off - clock[OFFSET_NS, h]) // 16
        out_time_ns[m] = said - near * HALF_HOUR
        if near == 0:
            tally[BELIEVED] += np.uint64(1)
        else:
            tally[SHIFTED] += np.uint64(1)
    return doubted


@kernel("i8(const i8[::1], const u1[::1], const i8[::1], const i8[::1], i8[::1], u1[::1])")
def shed(
    severity: NDArray[np.int64],
    protected: NDArray[np.uint8],
    arrival_ns: NDArray[np.int64],
    limit: NDArray[np.int64],
    second: NDArray[np.int64],
    out_keep: NDArray[np.uint8],
) -> int:
    """Decide which of M messages are looked at further, and return how many are not.

    In      severity int64[M], 0-7; protected uint8[M]: never shed; limit int64[8]: how many lines a
            second there may be before one of this severity is shed, 0 = no limit.
    Inout   second int64[2]: the current second of arrival, and the lines kept in it.
    """
    dropped = 0
    for m in range(severity.size):
        now = arrival_ns[m] // SECOND
        if now != second[0]:
            second[0] = now
            second[1] = 0
        most = limit[severity[m]]
        if protected[m] == 0 and most > 0 and second[1] >= most:
            out_keep[m] = 0
            dropped += 1
            continue
        out_keep[m] = 1
        second[1] += 1
    return dropped


# Rows of a count's slot, int64.
COUNT, SLOT_HOST, SLOT_SEVERITY = 0, 1, 2  # severity -1: it counts a pattern
SLOT = 3


@kernel(
    "i8(const u8[::1], const i4[::1], const u8[::1], const i8[::1], const i8[::1], i8, i8, i8, u8[::1],"
    " i4[::1], i8[:,::1], u8[::1], i8[::1], i8[::1])"
)
def count_lines(
    host_key: NDArray[np.uint64],
    host: NDArray[np.int32],
    pattern_id: NDArray[np.uint64],
    severity: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    first: int,
    per_host_max: int,
    slots: int,
    keys: NDArray[np.uint64],
    key_slots: NDArray[np.int32],
    slot: NDArray[np.int64],
    slot_pattern: NDArray[np.uint64],
    host_patterns: NDArray[np.int64],
    state: NDArray[np.int64],
) -> int:
    """Count lines by (host, severity) and (host, pattern), from `first` on; return where it stopped.

    In      M lines: host int32[M] and its key uint64[M]; pattern_id uint64[M], 0 = shed before it was
            looked for; per_host_max: patterns of a host that are counted apart, the rest together.
    Inout   keys, key_slots: hash table to slots; slot int64[3, S]; slot_pattern uint64[S], 0 = the
            rest; host_patterns int64[H]; state int64[2]: the second that is being counted, and how
            many slots are taken. It stops at the first line of another second, and where fewer than
            three slots are free (slot 0 takes what finds none once the caller has made room in vain).
    """
    taken = slots
    for m in range(first, host.size):
        second = arrival_ns[m] // SECOND
        if state[0] != second:
            if state[0] >= 0:
                state[1] = taken
                return m
            state[0] = second
        if taken + 3 > slot.shape[1]:
            state[1] = taken
            return m
        h = host[m]
        key = _mix(host_key[m] + np.uint64(severity[m] + 1))
        place = _row_of(key, keys, key_slots)
        if place < 0:
            keys[-1 - place] = key
            key_slots[-1 - place] = taken
            slot[COUNT, taken] = 0
            slot[SLOT_HOST, taken] = h
            slot[SLOT_SEVERITY, taken] = severity[m]
            place = np.int64(taken)
            taken += 1
        slot[COUNT, place] += 1
        if pattern_id[m] == np.uint64(0):
            continue
        key = _mix(_mix(host_key[m]) ^ pattern_id[m])
        place = _row_of(key, keys, key_slots)
        if place < 0:
            pattern = pattern_id[m]
            if host_patterns[h] >= per_host_max:
                pattern = np.uint64(0)
                key = _mix(_mix(host_key[m]) + np.uint64(9))
                place = _row_of(key, keys, key_slots)
            else:
                host_patterns[h] += 1
            if place < 0:
                keys[-1 - place] = key
                key_slots[-1 - place] = taken
                slot[COUNT, taken] = 0
                slot[SLOT_HOST, taken] = h
                slot[SLOT_SEVERITY, taken] = -1
                slot_pattern[taken] = pattern
                place = np.int64(taken)
                taken += 1
        slot[COUNT, place] += 1
    state[1] = taken
    return host.size


class Names:
    """Names of one sort as dense rows, at most `rows_max`; those not heard of the longest give way."""

    def __init__(self, rows_max: int) -> None:
        rows_max = max(rows_max, 16)
        places = 1 << (2 * rows_max - 1).bit_length()
        self._keys = np.zeros(places, np.uint64)
        self._key_rows = np.zeros(places, np.int32)
        self._fresh = np.zeros(rows_max, np.int32)
        self.key = np.zeros(rows_max, np.uint64)
        self.heard_ns = np.zeros(rows_max, np.int64)
        self.text: list[str] = [OTHER]
        self.evicted = 0

    @property
    def rows(self) -> int:
        """How many rows are taken, `__other__` included."""
        return len(self.text)

    def find(
        self,
        work: NDArray[np.uint8],
        start: NDArray[np.int64],
        size: NDArray[np.int64],
        instead: NDArray[np.uint64],
        arrival_ns: NDArray[np.int64],
        name: Any,
    ) -> tuple[NDArray[np.int32], range]:
        """Return each name's row, and the rows that are new; `name(m)` gives the text of name m."""
        row = np.empty(size.size, np.int32)
        before = self.rows
        after = name_rows(
            work, start, size, instead, arrival_ns, before, self._keys, self._key_rows,
            self.key, self.heard_ns, row, self._fresh,
        )  # fmt: skip
        fresh = range(before, after)
        self.text += [name(int(self._fresh[r])) for r in fresh]
        return row, fresh

    def crowded(self) -> bool:
        """Whether less than a quarter of the rows is free."""
        return self.rows > self.key.size * 3 // 4

    def make_room(self) -> NDArray[np.int64]:
        """Keep the half heard of last; return the old rows that stay, in their new order."""
        order = np.lexsort((np.arange(1, self.rows), -self.heard_ns[1 : self.rows])) + 1
        stay = np.sort(order[: self.key.size // 2])
        self.evicted += self.rows - 1 - stay.size
        stay = np.concatenate([np.zeros(1, np.int64), stay])
        self._take(self.key[stay], self.heard_ns[stay], [self.text[r] for r in stay.tolist()])
        return stay

    def _take(self, key: NDArray[np.uint64], heard_ns: NDArray[np.int64], text: list[str]) -> None:
        self._keys[:] = 0
        self.key[:], self.heard_ns[:] = 0, 0
        self.text = text
        rows = len(text)
        self.key[:rows], self.heard_ns[:rows] = key, heard_ns
        mask = self._keys.size - 1
        for row, value in enumerate(key[1:].tolist(), 1):
            place = value & mask
            while self._keys[place]:
                place = (place + 1) & mask
            self._keys[place], self._key_rows[place] = value, row

    def snapshot(self, out: Any, name: str) -> None:
        """Write the names."""
        offsets, data = text_column(self.text)
        write_array(out, f"{name}_key", self.key[: self.rows])
        write_array(out, f"{name}_heard", self.heard_ns[: self.rows])
        write_array(out, f"{name}_offset", offsets)
        write_array(out, f"{name}_text", data)

    def restore(self, state: Any, name: str) -> bool:
        """Take them back; return whether there were any that fit."""
        parts = ("key", "heard", "offset", "text")
        found = read_arrays(state, *(f"{name}_{part}" for part in parts))
        if found is None:
            return False
        key, heard, offsets, data = found
        if not 0 < key.size <= self.key.size:
            return False
        whole, edges = data.tobytes(), offsets.tolist()
        text = [whole[a:b].decode() for a, b in zip(edges[:-1], edges[1:], strict=True)]
        self._take(key, heard, text)
        return True
