"""Kernels of the windows: group records by key into integer state that merges exactly.

One row a group, all of its state side by side (`Layout` in correlator.groups): key, counters and,
where the view asks for them, flow sizes, 64 HyperLogLog registers and 256 entropy buckets. The
first eight words are one cache line, which is what makes this fast: separate arrays cost a miss
each. Everything is an integer, so any order, any cut and any number of shards give the same result.

Source: Flajolet et al. (2007), HyperLogLog; registers for p = 6, 64-bit hashes, no bias correction
beyond linear counting. Duffield, Lund, Thorup (2007), Priority sampling.
"""

import numpy as np
from numpy.typing import NDArray

from correlator.keys import DYNAMIC_PORT
from runtime.kernels import inline, kernel

# Words of a row. All views have the first eight.
KEY_WORDS = 3
OCTETS, PACKETS, FLOWS, UNSURE, MOVED = 3, 4, 5, 6, 7
HEAD_WORDS = 8
# Of the whole records that count in this tick: views with min, max, mean or m2.
SIZE_SUM, SIZE_MIN, SIZE_MAX, SQUARE_LOW, SQUARE_HIGH = 8, 9, 10, 11, 12
SIZE_WORDS = 8
REGISTERS = 64  # bytes
REGISTER_WORDS = 8
BUCKETS = 256  # uint32 each
ENTROPY_WORDS = 128

# Kinds of key, as `group` makes them from a record.
BY_EXPORTER, BY_INTERFACE, BY_SERVICE, BY_PREFIX, BY_WORDS = 0, 1, 2, 3, 4

_POWERS = 2.0 ** -np.arange(256.0)  # 2^-r of a register r
WEIGHTED_OCTETS_MAX = 1 << 56  # one record cannot say more: sums of a tick must not wrap


@inline
def _mix(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@inline
def _hash(k0, k1, k2, salt):  # type: ignore[no-untyped-def]
    # Keys differ in one word where outsiders choose them: odd factors keep those apart.
    h = (
        k0 * np.uint64(0x9E3779B97F4A7C15)
        + k1 * np.uint64(0xD1B54A32D192ED03)
        + k2 * np.uint64(0x8CB92BA72F3D8DD7)
    )
    return _mix(h ^ salt)


@inline
def _add_square(cells, row, value):  # type: ignore[no-untyped-def]
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
    total = cells[row, SQUARE_LOW] + square_low
    if total < square_low:
        square_high += np.uint64(1)
    cells[row, SQUARE_LOW] = total
    cells[row, SQUARE_HIGH] += square_high


@kernel(
    "i8(const u8[::1], const u8[::1], const u8[::1], const u8[::1], const u2[::1], const u2[::1],"
    " const u1[::1], const u2[::1], const u8[::1], const u8[::1], const u4[::1], const u4[::1],"
    " const u8[::1], const u8[::1], const u4[::1], const i8[::1], const i8[::1], const u1[::1],"
    " const u8[::1], i8, u8[::1], u8[::1], u1[::1], u1[::1], u4[::1], u8[::1], u8[::1], u1[::1],"
    " u8[::1])"
)
def prepare(
    source_high: NDArray[np.uint64],
    source_low: NDArray[np.uint64],
    destination_high: NDArray[np.uint64],
    destination_low: NDArray[np.uint64],
    source_port: NDArray[np.uint16],
    destination_port: NDArray[np.uint16],
    protocol: NDArray[np.uint8],
    tcp_flags: NDArray[np.uint16],
    exporter_high: NDArray[np.uint64],
    exporter_low: NDArray[np.uint64],
    ingress: NDArray[np.uint32],
    egress: NDArray[np.uint32],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    sampling_rate: NDArray[np.uint32],
    start_ns: NDArray[np.int64],
    export_ns: NDArray[np.int64],
    named_port: NDArray[np.uint8],
    backbone: NDArray[np.uint64],
    n: int,
    out_octets: NDArray[np.uint64],
    out_packets: NDArray[np.uint64],
    out_unsure: NDArray[np.uint8],
    out_enters: NDArray[np.uint8],
    out_port_class: NDArray[np.uint32],
    out_source: NDArray[np.uint64],
    out_target: NDArray[np.uint64],
    out_bucket: NDArray[np.uint8],
    out_content: NDArray[np.uint64],
) -> int:
    """Work out once for all views what they share; return n.

    In      n records, all columns at least n long; named_port uint8[65536], 1 where a port names a
            service; backbone uint64[B] ascending, (exporter low half << 32 | ifIndex) of the
            interfaces between routers.
    Out     octets, packets times the sampling rate (0 counts as 1, and unsure is 1), octets at most
            2^56; enters 0 where the record came in over the backbone; port_class, the port that
            names the service, DYNAMIC_PORT, or 0 without ports; source, target: hashes of the
            source address and of (destination address, port); bucket: 8 bits of the destination's
            hash; content: a hash of the record, its deterministic random number.
    """
    for r in range(n):
        rate = np.uint64(sampling_rate[r])
        out_unsure[r] = 0
        if rate == np.uint64(0):
            rate = np.uint64(1)
            out_unsure[r] = 1
        o, p = octets[r], packets[r]
        if o >> np.uint64(24) != np.uint64(0) and o > np.uint64(WEIGHTED_OCTETS_MAX) // rate:
            out_octets[r] = np.uint64(WEIGHTED_OCTETS_MAX)
        else:
            out_octets[r] = o * rate
        if p >> np.uint64(24) != np.uint64(0) and p > np.uint64(WEIGHTED_OCTETS_MAX) // rate:
            out_packets[r] = np.uint64(WEIGHTED_OCTETS_MAX)
        else:
            out_packets[r] = p * rate

        sport, dport, proto = source_port[r], destination_port[r], protocol[r]
        port = np.uint32(0)
        if proto == 6 or proto == 17 or proto == 132 or proto == 33:
            low = min(sport, dport)
            if low < 1024:
                port = np.uint32(low)
            elif named_port[np.uint64(dport)] != 0:
                port = np.uint32(dport)
            elif named_port[np.uint64(sport)] != 0:
                port = np.uint32(sport)
            else:
                port = np.uint32(DYNAMIC_PORT)
        out_port_class[r] = port

        source = _mix(
            source_low[r] * np.uint64(0x9E3779B97F4A7C15)
            + source_high[r] * np.uint64(0xD1B54A32D192ED03)
        )
        target = _mix(
            destination_low[r] * np.uint64(0x9E3779B97F4A7C15)
            + destination_high[r] * np.uint64(0xD1B54A32D192ED03)
        )
        out_source[r] = source
        out_bucket[r] = np.uint8(target >> np.uint64(56))
        out_target[r] = _mix(target + np.uint64(dport) * np.uint64(0x8CB92BA72F3D8DD7))
        words = (
            np.uint64(sport) << np.uint64(48)
            | np.uint64(dport) << np.uint64(32)
            | np.uint64(tcp_flags[r]) << np.uint64(8)
            | np.uint64(proto)
        )
        faces = np.uint64(ingress[r]) << np.uint64(32) | np.uint64(egress[r])
        h = (
            source
            + target * np.uint64(3)
            + words * np.uint64(0x9FB21C651E98DF25)
            + out_octets[r] * np.uint64(0xD6E8FEB86659FD93)
            + out_packets[r] * np.uint64(0xA0761D6478BD642F)
            + np.uint64(export_ns[r]) * np.uint64(0xE7037ED1A0B428DB)
            + np.uint64(start_ns[r]) * np.uint64(0x8EBC6AF09C88C6E3)
            + (exporter_low[r] + exporter_high[r] * np.uint64(5)) * np.uint64(0x589965CC75374CC3)
            + faces * np.uint64(0x1D8E4E27C47D124F)
        )
        out_content[r] = _mix(h)

        enters = np.uint8(1)
        if backbone.size > 0:
            wanted = exporter_low[r] << np.uint64(32) | np.uint64(ingress[r])
            first, last = 0, backbone.size
            while first < last:
                middle = (first + last) >> 1
                if backbone[middle] < wanted:
                    first = middle + 1
                else:
                    last = middle
            if first < backbone.size and backbone[first] == wanted:
                enters = np.uint8(0)
        out_enters[r] = enters
    return n


@kernel(
    "i8(const i8[::1], const i8[::1], const i8[::1], const i8[::1], const u8[::1], const u8[::1],"
    " i8, i8, i8, i8, i4[::1], i4[::1], u8[::1], u8[::1], u1[::1], u8[::1], i8[::1])"
)
def spread(
    start_ns: NDArray[np.int64],
    end_ns: NDArray[np.int64],
    export_ns: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    n: int,
    tick_ns: int,
    oldest_ns: int,
    spans_max: int,
    out_record: NDArray[np.int32],
    out_tick: NDArray[np.int32],
    out_octets: NDArray[np.uint64],
    out_packets: NDArray[np.uint64],
    out_flows: NDArray[np.uint8],
    out_moved: NDArray[np.uint64],
    out_pieces: NDArray[np.int64],
) -> int:
    """Cut each record into one piece for each open tick it touches; return the number of pieces.

    In      n records; oldest_ns, start of the oldest open tick; spans_max, pieces for one record.
    Out     pieces, at most n * (spans_max + 1): record, tick index from the oldest open (0, 1, ...),
            octets, packets, flows (1 in the tick of the export time), moved: octets of the piece
            that belong to closed ticks; out_pieces int64[T]: pieces of each tick; a tick index is
            less than T.
    Method  a flow counts in the tick of its export time (not after its arrival: a clock that is
            ahead opens no tick of the future); its octets lie evenly over [start, end]. Shares are
            whole numbers, the last piece takes the rest: sums are exact.
    """
    made = 0
    ticks = out_pieces.size
    for t in range(ticks):
        out_pieces[t] = 0
    # Most records lie in the tick of the one before: that spares the divisions.
    last_tick, last_from, last_to = 0, oldest_ns, oldest_ns + tick_ns
    for r in range(n):
        export = export_ns[r]
        if export > arrival_ns[r] or export <= 0:
            export = arrival_ns[r]
        if export < last_from or export >= last_to:
            last_tick = (export - oldest_ns) // tick_ns
            if last_tick >= ticks:
                last_tick = ticks - 1
            last_from = oldest_ns + last_tick * tick_ns
            last_to = last_from + tick_ns
        late = last_tick < 0
        tick = 0 if late else last_tick
        begin, end = start_ns[r], end_ns[r]
        if end > export:
            end = export
        whole = begin <= 0 or end <= begin or late
        if whole or (begin >= last_from and end < last_to):
            out_record[made] = r
            out_tick[made] = tick
            out_octets[made] = octets[r]
            out_packets[made] = packets[r]
            out_flows[made] = 1
            out_moved[made] = octets[r] if late else np.uint64(0)
            out_pieces[tick] += 1
            made += 1
            continue
        span = float(end - begin)
        first_tick = (begin - oldest_ns) // tick_ns
        end_tick = (end - oldest_ns) // tick_ns
        moved = np.uint64(0)
        if first_tick < 0:
            first_tick = 0
            before = min(oldest_ns, end) - begin
            moved = np.uint64(float(octets[r]) * (float(before) / span))
            if moved > octets[r]:
                moved = octets[r]
        if end_tick < 0:
            end_tick = 0
        if end_tick >= ticks:
            end_tick = ticks - 1
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
                part = float(min(upto, end) - since) / span
                share_octets = min(np.uint64(float(octets[r]) * part), left_octets)
                share_packets = min(np.uint64(float(packets[r]) * part), left_packets)
            left_octets -= share_octets
            left_packets -= share_packets
            here = t == tick
            if share_octets == 0 and share_packets == 0 and not here:
                continue
            out_record[made] = r
            out_tick[made] = t
            out_octets[made] = share_octets
            out_packets[made] = share_packets
            out_flows[made] = 1 if here else 0
            out_moved[made] = min(moved, share_octets) if t == first_tick else np.uint64(0)
            out_pieces[t] += 1
            counted = counted or here
            made += 1
        if not counted:
            out_record[made] = r
            out_tick[made] = tick
            out_octets[made] = 0
            out_packets[made] = 0
            out_flows[made] = 1
            out_moved[made] = 0
            out_pieces[tick] += 1
            made += 1
    return made


@kernel(
    "i8(i8, const i4[::1], const i4[::1], const u8[::1], const u8[::1], const u1[::1],"
    " const u8[::1], i8[::1], i4[::1], u8[::1], u8[::1], u1[::1], u8[::1])"
)
def by_tick(
    n: int,
    record: NDArray[np.int32],
    tick: NDArray[np.int32],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    flows: NDArray[np.uint8],
    moved: NDArray[np.uint64],
    place: NDArray[np.int64],
    out_record: NDArray[np.int32],
    out_octets: NDArray[np.uint64],
    out_packets: NDArray[np.uint64],
    out_flows: NDArray[np.uint8],
    out_moved: NDArray[np.uint64],
) -> int:
    """Copy n pieces so that those of one tick lie together, in their order; return n.

    In      pieces as `spread` made them. Inout place int64[T]: where the pieces of each tick begin;
            afterwards where they end. Out: the pieces, n places each.
    """
    for i in range(n):
        at = place[tick[i]]
        place[tick[i]] = at + 1
        out_record[at] = record[i]
        out_octets[at] = octets[i]
        out_packets[at] = packets[i]
        out_flows[at] = flows[i]
        out_moved[at] = moved[i]
    return n


@kernel(
    "i8(i8, i8, const u8[::1], const u8[::1], const u4[::1], const u1[::1], const u1[::1],"
    " const u8[::1], const u1[::1], const u8[::1], const u1[::1], const u8[::1],"
    " const i4[::1], const u8[::1], const u8[::1], const u1[::1], const u8[::1],"
    " f8, i8, i8, i8, i8, i8, i8, u8, u8, i4[::1], u8[:,::1], u1[:,::1], u4[:,::1], i4[::1],"
    " i8[::1])"
)
def group(
    kind: int,
    way: int,
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    number: NDArray[np.uint32],
    protocol: NDArray[np.uint8],
    chosen: NDArray[np.uint8],
    item: NDArray[np.uint64],
    bucket: NDArray[np.uint8],
    whole: NDArray[np.uint64],
    unsure: NDArray[np.uint8],
    content: NDArray[np.uint64],
    record: NDArray[np.int32],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    flows: NDArray[np.uint8],
    moved: NDArray[np.uint64],
    threshold: float,
    by_flows: int,
    with_sizes: int,
    register_at: int,
    bucket_at: int,
    start: int,
    rows: int,
    bound: int,
    salt: int,
    table: NDArray[np.int32],
    cells: NDArray[np.uint64],
    cell_bytes: NDArray[np.uint8],
    cell_quarters: NDArray[np.uint32],
    out_heavy: NDArray[np.int32],
    state: NDArray[np.int64],
) -> int:
    """Add pieces of records to their groups; return the piece to go on with, n when done.

    In      By record: high, low, the address that makes the key (BY_EXPORTER, BY_INTERFACE: of the
            exporter; BY_PREFIX: the one whose /24 or /48 it is); number, the interface or the port
            class; protocol; chosen (empty: all records count); item, what `distinct` counts;
            bucket, the entropy bucket; whole, octets of the whole record; unsure; content. Pieces
            i: record[i], octets, packets, flows, moved[i]. threshold: pieces of a priority surely
            below it are no candidates for the sample; by_flows: every flow weighs the same, else
            its octets (by_flows -1: no sample). with_sizes, register_at, bucket_at: what the row
            holds, 0 = none, else 1, the byte where the registers and the uint32 where the buckets
            begin. rows used so far (row 0 is `__other__`); bound: keys whose hash is above it go to
            row 0.
    Inout   table int32[T], row + 1 or 0, T a power of two; cells uint64[M, W], cell_bytes
            uint8[M, 8 * W] and cell_quarters uint32[M, 2 * W] are the same memory; out_heavy
            int32[>= n]: candidates for the sample; state int64[2]: rows used, candidates so far.
    Stops   early when the M rows are used up: the caller makes room or lowers the bound.
    """
    n = record.size
    mask = np.uint64(table.size - 1)
    rows_max = cells.shape[0]
    state[0] = rows
    heavy = state[1]
    some = chosen.size > 0
    for i in range(start, n):
        r = record[i]
        if some and chosen[r] == 0:
            continue
        k0, k1, k2 = np.uint64(0), np.uint64(0), np.uint64(0)
        if kind == BY_PREFIX:
            k0, k1 = high[r], low[r]
            if k0 == np.uint64(0) and k1 >> np.uint64(32) == np.uint64(0xFFFF):
                k1 = k1 & np.uint64(0xFFFFFFFFFFFFFF00)
                k2 = np.uint64(24)
            else:
                k0 = k0 & np.uint64(0xFFFFFFFFFFFF0000)
                k1 = np.uint64(0)
                k2 = np.uint64(48)
        elif kind == BY_INTERFACE:
            if number[r] == 0:
                continue
            k0, k1 = high[r], low[r]
            k2 = np.uint64(number[r]) << np.uint64(1) | np.uint64(way)
        elif kind == BY_SERVICE:
            k2 = np.uint64(protocol[r]) << np.uint64(32) | np.uint64(number[r])
        elif kind == BY_WORDS:
            k0, k1, k2 = high[r], low[r], np.uint64(number[r])
        else:
            k0, k1 = high[r], low[r]
        h = _hash(k0, k1, k2, salt)
        row = np.uint64(0)
        if h <= bound:
            place = h & mask
            found = False
            while table[place] != 0:
                row = np.uint64(table[place] - 1)
                if cells[row, 1] == k1 and cells[row, 2] == k2 and cells[row, 0] == k0:
                    found = True
                    break
                place = (place + np.uint64(1)) & mask
            if not found:
                if rows >= rows_max:
                    state[0] = rows
                    state[1] = heavy
                    return i
                row = np.uint64(rows)
                rows += 1
                table[place] = np.int32(rows)
                cells[row, 0], cells[row, 1], cells[row, 2] = k0, k1, k2
        value = octets[i]
        one = np.uint64(flows[i])
        cells[row, OCTETS] += value
        cells[row, PACKETS] += packets[i]
        cells[row, UNSURE] += np.uint64(unsure[r])
        cells[row, MOVED] += moved[i]
        if with_sizes > 0 and one > np.uint64(0):
            size = whole[r]
            if cells[row, FLOWS] == np.uint64(0) or size < cells[row, SIZE_MIN]:
                cells[row, SIZE_MIN] = size
            if size > cells[row, SIZE_MAX]:
                cells[row, SIZE_MAX] = size
            cells[row, SIZE_SUM] += size
            _add_square(cells, row, size)
        cells[row, FLOWS] += one
        if register_at > 0:
            h = item[r]
            at = np.uint64(register_at) + (h >> np.uint64(58))
            rest = h << np.uint64(6)
            kept = cell_bytes[row, at]
            # A rank above the register's value needs that many leading zeros: seldom so.
            if kept == 0 or rest >> np.uint64(64 - kept) == np.uint64(0):
                rank = 1
                while rank < 59 and (rest & np.uint64(0x8000000000000000)) == np.uint64(0):
                    rest = rest << np.uint64(1)
                    rank += 1
                if rank > kept:
                    cell_bytes[row, at] = np.uint8(rank)
        if bucket_at > 0:
            cell_quarters[row, np.uint64(bucket_at) + np.uint64(bucket[r])] += np.uint32(one)
        if by_flows >= 0:
            weight = float(one) if by_flows > 0 else float(value)
            uniform = float((content[r] * np.uint64(2 * way + 1)) >> np.uint64(11)) + 1.0
            if weight > 0.0 and weight * 9007199254740992.0 >= threshold * uniform:
                out_heavy[heavy] = i
                heavy += 1
    state[0] = rows
    state[1] = heavy
    return n


@kernel(
    "i8(const u8[:,::1], i8, i8, i8, i8, i8, u8, u8, i4[::1], u8[:,::1], u1[:,::1], u4[:,::1],"
    " i8[::1])"
)
def merge(
    from_cells: NDArray[np.uint64],
    with_sizes: int,
    register_at: int,
    bucket_at: int,
    start: int,
    rows: int,
    bound: int,
    salt: int,
    table: NDArray[np.int32],
    cells: NDArray[np.uint64],
    cell_bytes: NDArray[np.uint8],
    cell_quarters: NDArray[np.uint32],
    state: NDArray[np.int64],
) -> int:
    """Add whole groups to groups, as `group` adds records; row 0 of the source is its `__other__`.

    In      from_cells uint64[N, W] of the same layout. The rest as in `group`.
    """
    n = int(from_cells.shape[0])
    mask = np.uint64(table.size - 1)
    rows_max = cells.shape[0]
    state[0] = rows
    for i in range(start, n):
        row = np.uint64(0)
        if i > 0:
            k0, k1, k2 = from_cells[i, 0], from_cells[i, 1], from_cells[i, 2]
            h = _hash(k0, k1, k2, salt)
            if h <= bound:
                place = h & mask
                found = False
                while table[place] != 0:
                    row = np.uint64(table[place] - 1)
                    if cells[row, 1] == k1 and cells[row, 2] == k2 and cells[row, 0] == k0:
                        found = True
                        break
                    place = (place + np.uint64(1)) & mask
                if not found:
                    if rows >= rows_max:
                        state[0] = rows
                        return i
                    row = np.uint64(rows)
                    rows += 1
                    table[place] = np.int32(rows)
                    cells[row, 0], cells[row, 1], cells[row, 2] = k0, k1, k2
        if with_sizes > 0 and from_cells[i, FLOWS] > np.uint64(0):
            least, most = from_cells[i, SIZE_MIN], from_cells[i, SIZE_MAX]
            if cells[row, FLOWS] == np.uint64(0) or least < cells[row, SIZE_MIN]:
                cells[row, SIZE_MIN] = least
            if most > cells[row, SIZE_MAX]:
                cells[row, SIZE_MAX] = most
            cells[row, SIZE_SUM] += from_cells[i, SIZE_SUM]
            total = cells[row, SQUARE_LOW] + from_cells[i, SQUARE_LOW]
            if total < from_cells[i, SQUARE_LOW]:
                cells[row, SQUARE_HIGH] += np.uint64(1)
            cells[row, SQUARE_LOW] = total
            cells[row, SQUARE_HIGH] += from_cells[i, SQUARE_HIGH]
        for word in range(OCTETS, MOVED + 1):
            cells[row, word] += from_cells[i, word]
        if register_at > 0:
            for k in range(REGISTERS):
                shift = np.uint64(8 * (k & 7))
                word = (register_at + k) >> 3
                value = np.uint8((from_cells[i, word] >> shift) & np.uint64(0xFF))
                if cell_bytes[row, register_at + k] < value:
                    cell_bytes[row, register_at + k] = value
        if bucket_at > 0:
            for k in range(BUCKETS):
                word = (bucket_at + k) >> 1
                shift = np.uint64(32 * (k & 1))
                value = (from_cells[i, word] >> shift) & np.uint64(0xFFFFFFFF)
                cell_quarters[row, bucket_at + k] += np.uint32(value)
    state[0] = rows
    return n


@kernel("i8(const u8[:,::1], i8, u8, i4[::1])")
def reindex(cells: NDArray[np.uint64], rows: int, salt: int, table: NDArray[np.int32]) -> int:
    """Fill an empty hash table with rows 1 to rows - 1; return rows."""
    mask = np.uint64(table.size - 1)
    for row in range(1, rows):
        place = _hash(cells[row, 0], cells[row, 1], cells[row, 2], salt) & mask
        while table[place] != 0:
            place = (place + np.uint64(1)) & mask
        table[place] = np.int32(row + 1)
    return rows


@kernel("i8(const u8[:,::1], u8, u8[::1])")
def hash_keys(keys: NDArray[np.uint64], salt: int, out: NDArray[np.uint64]) -> int:
    """Write the hash of the first three words of each row to out uint64[N]; return N."""
    for i in range(keys.shape[0]):
        out[i] = _hash(keys[i, 0], keys[i, 1], keys[i, 2], salt)
    return int(keys.shape[0])


@kernel("i8(const u1[:,::1], f8[::1])")
def distinct(registers: NDArray[np.uint8], out: NDArray[np.float64]) -> int:
    """Estimate the distinct items of each row of registers; standard error about 13 %.

    Source: Flajolet et al. (2007), figure 3; alpha for m = 64 is 0.709.
    """
    for row in range(registers.shape[0]):
        total = 0.0
        zeros = 0
        for k in range(64):
            total += _POWERS[registers[row, k]]
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
