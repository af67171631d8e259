"""Kernels of the windows: group records by key into integer state that merges exactly.

One row a group: three key words and eight u64 counters side by side (64 bytes: one cache line), and
where a view asks for it 64 HyperLogLog registers and 256 entropy buckets. Everything is an integer,
so any order, any cut and any number of shards give the same result.

Source: Flajolet et al. (2007), HyperLogLog; registers for p = 6, 64-bit hashes, no bias correction
beyond linear counting.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

KEY_WORDS = 3
OCTETS, PACKETS, FLOWS, OCTETS_MIN, OCTETS_MAX, SQUARE_LOW, SQUARE_HIGH, UNSURE = range(8)
COUNTERS = 8
REGISTERS = 64
BUCKETS = 256


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


@inline
def _add_square(counters, row, value):  # type: ignore[no-untyped-def]
    low = value & np.uint64(0xFFFFFFFF)
    high = value >> np.uint64(32)
    cross = low * high
    square_low = value * value
    square_high = (
        high * high
        + (
            (((low * low) >> np.uint64(32)) + (cross & np.uint64(0xFFFFFFFF)) * np.uint64(2))
            >> np.uint64(32)
        )
        + ((cross >> np.uint64(32)) << np.uint64(1))
    )
    total = counters[row, 5] + square_low
    if total < square_low:
        square_high += np.uint64(1)
    counters[row, 5] = total
    counters[row, 6] += square_high


@inline
def _register(registers, row, item):  # type: ignore[no-untyped-def]
    h = _mix(item + np.uint64(0x9E3779B97F4A7C15))
    at = np.int64(h >> np.uint64(58))
    rest = h << np.uint64(6)
    rank = 1
    while rank < 59 and (rest & np.uint64(0x8000000000000000)) == np.uint64(0):
        rest = rest << np.uint64(1)
        rank += 1
    if registers[row, at] < rank:
        registers[row, at] = np.uint8(rank)


@kernel(
    "i8(const u8[:,::1], const i4[::1], const u8[::1], const u8[::1], const u8[::1], const u1[::1],"
    " const u8[::1], const u1[::1], i8, i8, u8, i4[::1], u8[::1], u8[:,::1], u8[:,::1],"
    " u1[:,::1], u4[:,::1], i8[::1])"
)
def group(
    key: NDArray[np.uint64],
    record: NDArray[np.int32],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    flows: NDArray[np.uint64],
    unsure: NDArray[np.uint8],
    item: NDArray[np.uint64],
    bucket: NDArray[np.uint8],
    start: int,
    rows: int,
    bound: int,
    table: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    registers: NDArray[np.uint8],
    entropy: NDArray[np.uint32],
    state: NDArray[np.int64],
) -> int:
    """Add pieces of records to their groups; return the piece to go on with, n when done.

    In      key uint64[R, 3] by record; pieces i: record[i], octets, packets, flows[i], by record:
            unsure uint8[R]; item uint64[R], what `distinct` counts (empty: none); bucket uint8[R],
            the entropy bucket (empty: none); rows used so far (row 0 is `__other__`); bound: keys
            whose hash is above it go to row 0.
    Inout   table int32[T], row + 1 or 0, T a power of two; hashes uint64[M]; keys uint64[M, 3];
            counters uint64[M, 8]; registers uint8[M or 0, 64]; entropy uint32[M or 0, 256];
            state int64[1]: rows used.
    Stops   early when the M rows are used up: the caller makes room or lowers the bound.
    """
    n = record.size
    mask = table.size - 1
    rows_max = keys.shape[0]
    state[0] = rows
    with_registers = registers.shape[0] > 0 and item.size > 0
    with_entropy = entropy.shape[0] > 0 and bucket.size > 0
    for i in range(start, n):
        r = record[i]
        k0, k1, k2 = key[r, 0], key[r, 1], key[r, 2]
        h = _hash(k0, k1, k2)
        row = 0
        if h <= bound:
            place = np.int64(h) & mask
            row = -1
            while table[place] != 0:
                candidate = table[place] - 1
                if (
                    hashes[candidate] == h
                    and keys[candidate, 0] == k0
                    and keys[candidate, 1] == k1
                    and keys[candidate, 2] == k2
                ):
                    row = candidate
                    break
                place = (place + 1) & mask
            if row < 0:
                if rows >= rows_max:
                    state[0] = rows
                    return i
                row = rows
                rows += 1
                table[place] = row + 1
                hashes[row] = h
                keys[row, 0], keys[row, 1], keys[row, 2] = k0, k1, k2
        value = octets[i]
        if (
            counters[row, 2] == np.uint64(0) and counters[row, 0] == np.uint64(0)
        ) or value < counters[row, 3]:
            counters[row, 3] = value
        if value > counters[row, 4]:
            counters[row, 4] = value
        counters[row, 0] += value
        counters[row, 1] += packets[i]
        counters[row, 2] += flows[i]
        counters[row, 7] += np.uint64(unsure[r])
        _add_square(counters, row, value)
        if with_registers:
            _register(registers, row, item[r])
        if with_entropy and flows[i] > np.uint64(0):
            entropy[row, bucket[r]] += np.uint32(1)
    state[0] = rows
    return n


@kernel(
    "i8(const u8[:,::1], const u8[:,::1], const u1[:,::1], const u4[:,::1], i8, i8, u8, i4[::1],"
    " u8[::1], u8[:,::1], u8[:,::1], u1[:,::1], u4[:,::1], i8[::1])"
)
def merge(
    from_keys: NDArray[np.uint64],
    from_counters: NDArray[np.uint64],
    from_registers: NDArray[np.uint8],
    from_entropy: NDArray[np.uint32],
    start: int,
    rows: int,
    bound: int,
    table: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    registers: NDArray[np.uint8],
    entropy: NDArray[np.uint32],
    state: NDArray[np.int64],
) -> int:
    """Add whole groups to groups, as `group` adds records; row 0 of the source is its `__other__`."""
    n = int(from_keys.shape[0])
    mask = table.size - 1
    rows_max = keys.shape[0]
    state[0] = rows
    for i in range(start, n):
        row = 0
        if i > 0:
            k0, k1, k2 = from_keys[i, 0], from_keys[i, 1], from_keys[i, 2]
            h = _hash(k0, k1, k2)
            if h <= bound:
                place = np.int64(h) & mask
                row = -1
                while table[place] != 0:
                    candidate = table[place] - 1
                    if (
                        hashes[candidate] == h
                        and keys[candidate, 0] == k0
                        and keys[candidate, 1] == k1
                        and keys[candidate, 2] == k2
                    ):
                        row = candidate
                        break
                    place = (place + 1) & mask
                if row < 0:
                    if rows >= rows_max:
                        state[0] = rows
                        return i
                    row = rows
                    rows += 1
                    table[place] = row + 1
                    hashes[row] = h
                    keys[row, 0], keys[row, 1], keys[row, 2] = k0, k1, k2
        had = counters[row, 2] > np.uint64(0) or counters[row, 0] > np.uint64(0)
        has = from_counters[i, 2] > np.uint64(0) or from_counters[i, 0] > np.uint64(0)
        if has:
            if not had or from_counters[i, 3] < counters[row, 3]:
                counters[row, 3] = from_counters[i, 3]
            if from_counters[i, 4] > counters[row, 4]:
                counters[row, 4] = from_counters[i, 4]
        counters[row, 0] += from_counters[i, 0]
        counters[row, 1] += from_counters[i, 1]
        counters[row, 2] += from_counters[i, 2]
        counters[row, 7] += from_counters[i, 7]
        total = counters[row, 5] + from_counters[i, 5]
        if total < from_counters[i, 5]:
            counters[row, 6] += np.uint64(1)
        counters[row, 5] = total
        counters[row, 6] += from_counters[i, 6]
        if from_registers.shape[0] > 0 and registers.shape[0] > 0:
            for k in range(64):
                if registers[row, k] < from_registers[i, k]:
                    registers[row, k] = from_registers[i, k]
        if from_entropy.shape[0] > 0 and entropy.shape[0] > 0:
            for k in range(256):
                entropy[row, k] += from_entropy[i, k]
    state[0] = rows
    return n


@kernel("i8(const u8[::1], i8, i4[::1])")
def reindex(hashes: NDArray[np.uint64], rows: int, table: NDArray[np.int32]) -> int:
    """Fill an empty hash table with rows 1 to rows - 1; return rows."""
    mask = table.size - 1
    for row in range(1, rows):
        place = np.int64(hashes[row]) & mask
        while table[place] != 0:
            place = (place + 1) & mask
        table[place] = row + 1
    return rows


@kernel(
    "i8(const i8[::1], const i8[::1], const i8[::1], const i8[::1], const u8[::1], const u8[::1],"
    " i8, i8, i8, i4[::1], i8[::1], u8[::1], u8[::1], u8[::1], u8[::1])"
)
def spread(
    start_ns: NDArray[np.int64],
    end_ns: NDArray[np.int64],
    export_ns: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    tick_ns: int,
    oldest_ns: int,
    spans_max: int,
    out_record: NDArray[np.int32],
    out_tick: NDArray[np.int64],
    out_octets: NDArray[np.uint64],
    out_packets: NDArray[np.uint64],
    out_flows: NDArray[np.uint64],
    out_moved: NDArray[np.uint64],
) -> int:
    """Cut each record into one piece for each open tick it touches; return the number of pieces.

    In      R records; oldest_ns, start of the oldest open tick; spans_max, pieces for one record.
    Out     pieces: record, tick index from the oldest open (0, 1, ...), octets, packets, flows (1 in
            the tick of the export time); out_moved uint64[2]: octets in all, octets that belong to
            closed ticks and were put into the oldest open one.
    Method  a flow counts in the tick of its export time; its octets lie evenly over [start, end].
            Shares are whole numbers, the last piece takes the rest: sums are exact.
    """
    n = 0
    for r in range(octets.size):
        export = export_ns[r]
        if export > arrival_ns[r]:
            export = arrival_ns[r]
        last_tick = (export - oldest_ns) // tick_ns
        late = last_tick < 0
        if late:
            last_tick = 0
        begin, end = start_ns[r], end_ns[r]
        out_moved[0] += octets[r]
        if end > export:
            end = export
        if begin <= 0 or end <= begin or late:
            if late:
                out_moved[1] += octets[r]
            out_record[n] = r
            out_tick[n] = last_tick
            out_octets[n] = octets[r]
            out_packets[n] = packets[r]
            out_flows[n] = 1
            n += 1
            continue
        span = end - begin
        first_tick = (begin - oldest_ns) // tick_ns
        end_tick = (end - oldest_ns) // tick_ns
        if first_tick < 0:
            first_tick = 0
            before = min(oldest_ns, end) - begin
            out_moved[1] += np.uint64(float(octets[r]) * (float(before) / float(span)))
        if end_tick < 0:
            end_tick = 0
        if end_tick - first_tick >= spans_max:
            first_tick = end_tick - spans_max + 1
        left_octets, left_packets = octets[r], packets[r]
        counted = False
        for t in range(first_tick, end_tick + 1):
            upto = oldest_ns + (t + 1) * tick_ns
            if t == end_tick:
                share_octets, share_packets = left_octets, left_packets
            else:
                since = begin if t == first_tick else upto - tick_ns
                part = float(min(upto, end) - since) / float(span)
                share_octets = min(np.uint64(float(octets[r]) * part), left_octets)
                share_packets = min(np.uint64(float(packets[r]) * part), left_packets)
            left_octets -= share_octets
            left_packets -= share_packets
            here = t == last_tick
            if share_octets == 0 and share_packets == 0 and not here:
                continue
            out_record[n] = r
            out_tick[n] = t
            out_octets[n] = share_octets
            out_packets[n] = share_packets
            out_flows[n] = 1 if here else 0
            counted = counted or here
            n += 1
        if not counted:
            out_record[n] = r
            out_tick[n] = last_tick
            out_octets[n] = 0
            out_packets[n] = 0
            out_flows[n] = 1
            n += 1
    return n


@kernel("i8(const u1[:,::1], f8[::1])")
def distinct(registers: NDArray[np.uint8], out: NDArray[np.float64]) -> int:
    """Estimate the distinct items of each row of registers; standard error about 13 %.

    Source: Flajolet et al. (2007), figure 3; alpha for m = 64 is 0.709.
    """
    for row in range(registers.shape[0]):
        total = 0.0
        zeros = 0
        for k in range(64):
            total += 2.0 ** -float(registers[row, k])
            if registers[row, k] == 0:
                zeros += 1
        estimate = 0.709 * 64.0 * 64.0 / total
        if estimate <= 160.0 and zeros > 0:
            estimate = 64.0 * np.log(64.0 / float(zeros))
        out[row] = estimate
    return int(registers.shape[0])


@kernel("i8(const u4[:,::1], f8[::1])")
def entropy_bits(buckets: NDArray[np.uint32], out: NDArray[np.float64]) -> int:
    """Shannon entropy in bits of each row of 256 counts; 0 where there are none."""
    for row in range(buckets.shape[0]):
        total = 0.0
        for k in range(256):
            total += float(buckets[row, k])
        bits = 0.0
        if total > 0.0:
            for k in range(256):
                if buckets[row, k] > 0:
                    p = float(buckets[row, k]) / total
                    bits -= p * np.log2(p)
        out[row] = bits
    return int(buckets.shape[0])
