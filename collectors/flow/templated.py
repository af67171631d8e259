"""NetFlow v9 and IPFIX: the kernel that walks messages and gathers records by compiled template.

The kernel decodes data sets and stops at what is rare (templates, options data, unknown templates):
Python deals with that one set and lets the kernel go on behind it. So the order of things inside a
datagram is kept: a template counts for what follows it, and nothing before.

Source: RFC 7011 section 3 (message, sets, records), section 7 (variable length), RFC 3954 section 5.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from collectors.flow.elements import VARIABLE
from runtime.kernels import inline, kernel, load_u16, load_u32, load_u64, subroutine

V9_HEADER_BYTES = 20
IPFIX_HEADER_BYTES = 16
FIRST_DATA_ID = 256
NTP_TO_UNIX_SECONDS = 2208988800


class Verdict(IntEnum):
    """What the decoder thought of one datagram; the lower-case name is a metric label."""

    OK = 0
    TRUNCATED_HEADER = 1
    UNKNOWN_VERSION = 2
    LENGTH_BEYOND_DATAGRAM = 3  # header or set says more than there is; what is whole is decoded
    BAD_SET_LENGTH = 4  # a set shorter than its header; the rest of the datagram is dropped


class Stop(IntEnum):
    """Why the kernel came back."""

    END = 0
    TEMPLATE_SET = 1
    OPTIONS_TEMPLATE_SET = 2
    OPTIONS_DATA = 3
    UNKNOWN_TEMPLATE = 4
    FULL = 5  # no room for the next set's rows: take what is there, then go on


# Places in `cursor`, the kernel's memory between calls.
AT_DATAGRAM, AT_BYTE, ROWS, SEGMENTS, SET_ID, SET_AT, SET_END, RESERVED_SETS = range(8)
CURSOR_SIZE = 8


@inline
def _u16(payload, at):  # type: ignore[no-untyped-def]
    return np.int64(load_u16(payload, at))


@inline
def _unsigned(payload, at, width):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(width):
        value = (value << np.uint64(8)) | np.uint64(payload[at + i])
    return value


@inline
def _ntp(payload, at, micro):  # type: ignore[no-untyped-def]
    """Rounded, as a fraction of 32 bits hits no decimal place. RFC 7011 sections 6.1.9, 6.1.10."""
    seconds = load_u32(payload, at)
    fraction = load_u32(payload, at + 4)
    if seconds < np.uint64(NTP_TO_UNIX_SECONDS):
        return np.uint64(0)
    whole = (seconds - np.uint64(NTP_TO_UNIX_SECONDS)) * np.uint64(1000000000)
    half = np.uint64(0x80000000)
    if micro:
        part = ((fraction * np.uint64(1000000) + half) >> np.uint64(32)) * np.uint64(1000)
    else:
        part = (fraction * np.uint64(1000000000) + half) >> np.uint64(32)
    return whole + part


@inline
def _slot(high, low, port_version, domain_id):  # type: ignore[no-untyped-def]
    h = low * np.uint64(0x9E3779B97F4A7C15) + high
    h = (
        (h ^ (h >> np.uint64(32)))
        + port_version * np.uint64(0xC2B2AE3D27D4EB4F)
        + domain_id * np.uint64(0x165667B19E3779F9)
    )
    h ^= h >> np.uint64(29)
    return np.int64((h * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(50))


@subroutine
def _plan(table_key, table_plan, high, low, port_version, domain_id):  # type: ignore[no-untyped-def]
    """Return the plan of a template, -1 where it is not known, -2 for options."""
    place = _slot(high, low, port_version, domain_id)
    while table_plan[place] != -1:
        if (
            table_key[place, 3] == domain_id
            and table_key[place, 1] == low
            and table_key[place, 2] == port_version
            and table_key[place, 0] == high
        ):
            return table_plan[place]
        place = (place + 1) & (table_plan.size - 1)
    return np.int32(-1)


@subroutine
def _gather(payload, source, size, count, width, out):  # type: ignore[no-untyped-def]
    """Copy one field of `count` records of `size` bytes into a column."""
    if width == 4:
        for r in range(count):
            out[r] = load_u32(payload, source + r * size)
    elif width == 2:
        for r in range(count):
            out[r] = load_u16(payload, source + r * size)
    elif width == 1:
        for r in range(count):
            out[r] = payload[source + r * size]
    elif width == 8:
        for r in range(count):
            out[r] = load_u64(payload, source + r * size)
    else:
        for r in range(count):
            out[r] = _unsigned(payload, source + r * size, width)


@inline
def _keep(out, row, r, value, fill):  # type: ignore[no-untyped-def]
    if not fill or out[row, r] == 0:
        out[row, r] = value


@subroutine
def _store(payload, at, width, how, fill, kind, row, r, wide, words, halves, octets):  # type: ignore[no-untyped-def]
    """Convert one field of one record; `fill`: an earlier one of the record goes first."""
    if how == 1 or how == 4:
        value = _unsigned(payload, at, width)
        if how == 4:
            value = value >> np.uint64(4)
        if kind == 0:
            _keep(wide, row, r, value, fill)
        elif kind == 1:
            _keep(words, row, r, value, fill)
        elif kind == 2:
            _keep(halves, row, r, value, fill)
        else:
            _keep(octets, row, r, value, fill)
    elif how == 2 or how == 3:
        mapped = np.uint64(0xFFFF) << np.uint64(32)
        if how == 2:
            high = np.uint64(0)
            low = load_u32(payload, at)
            said = low
            low |= mapped
        else:
            high = load_u64(payload, at)
            low = load_u64(payload, at + 8)
            said = high | low
        empty = wide[row, r] == np.uint64(0) and (
            wide[row + 1, r] == np.uint64(0) or wide[row + 1, r] == mapped
        )
        if not fill or (empty and said != np.uint64(0)):
            wide[row, r] = high
            wide[row + 1, r] = low
    elif how == 5 or how == 8:
        _keep(wide, row, r, _ntp(payload, at, how == 8), fill)
    elif (how == 6 or how == 7) and not fill:
        wide[row, r] = np.uint64(at)
        wide[row + 1, r] = np.uint64(width) | (np.uint64(how == 6) << np.uint64(32))


@subroutine
def _clear(slot_active, slot_kind, slot_row, present, whole, a, b, wide, words, halves, octets):  # type: ignore[no-untyped-def]
    """Write zeros to rows [a, b) of the columns that this plan does not fill, others do."""
    for s in range(slot_active.size):
        if slot_active[s] == 0:
            continue
        if not whole and (present >> np.uint64(s)) & np.uint64(1) != np.uint64(0):
            continue
        row = slot_row[s]
        if slot_kind[s] == 0:
            wide[row, a:b] = np.uint64(0)
        elif slot_kind[s] == 1:
            words[row, a:b] = np.uint32(0)
        elif slot_kind[s] == 2:
            halves[row, a:b] = np.uint16(0)
        else:
            octets[row, a:b] = np.uint8(0)


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const u8[::1], const u8[::1], const u2[::1],"
    " const u8[:,::1], const i4[::1], const i4[::1], const i4[::1], const i4[::1], const u8[::1],"
    " const i4[::1], const u1[::1], const i4[::1], const u1[::1],"
    " const u1[::1], const u1[::1], const u1[::1], const i4[::1],"
    " u8[:,::1], u4[:,::1], u2[:,::1], u1[:,::1], i4[:,::1], i8[::1], u1[::1], i4[::1])"
)
def walk(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    exporter_high: NDArray[np.uint64],
    exporter_low: NDArray[np.uint64],
    exporter_port: NDArray[np.uint16],
    table_key: NDArray[np.uint64],
    table_plan: NDArray[np.int32],
    plan_first: NDArray[np.int32],
    plan_count: NDArray[np.int32],
    plan_bytes: NDArray[np.int32],
    plan_present: NDArray[np.uint64],
    field_width: NDArray[np.int32],
    field_kind: NDArray[np.uint8],
    field_row: NDArray[np.int32],
    field_convert: NDArray[np.uint8],
    slot_active: NDArray[np.uint8],
    high_active: NDArray[np.uint8],
    slot_kind: NDArray[np.uint8],
    slot_row: NDArray[np.int32],
    wide: NDArray[np.uint64],
    words: NDArray[np.uint32],
    halves: NDArray[np.uint16],
    octets: NDArray[np.uint8],
    segment: NDArray[np.int32],
    cursor: NDArray[np.int64],
    verdict: NDArray[np.uint8],
    records: NDArray[np.int32],
) -> int:
    """Decode data sets from `cursor` on and return a Stop.

    In      D datagrams as in DatagramBlock; the template table (keys uint64[T, 4], plans int32[T],
            -1 empty, -2 options); plans by row; fields by index: width in bytes, where they go
            (width class and row, see collectors.flow.columns), how; the same of slots, with
            slot_active uint8[S], those that some plan fills (the others are never written);
            high_active uint8[W]: rows of `wide` that some plan fills.
    Out     wide, words, halves, octets: [*, R], columns as rows; segment int32[G, 6]: datagram,
            plan, first row, rows, first byte and end in payload of each decoded set; cursor
            int64[8], where to go on; verdict uint8[D], a Verdict; records int32[D], data records
            decoded of each datagram.
    Errors  none raised: bad lengths give a verdict, what is whole before and inside is decoded.
    Source  RFC 7011 section 3.3.2: a set's length includes its header and padding; 3.3.1: padding
            is shorter than a record.
    """
    rows = cursor[2]
    segments = cursor[3]
    rows_max = wide.shape[1]
    segments_max = segment.shape[0]
    d = cursor[0]
    resume = cursor[1]
    while d < length.size:
        start = offset[d]
        stop = start + length[d]
        if length[d] < 16:
            verdict[d] = 1
            d += 1
            continue
        version = _u16(payload, start)
        if version == 9:
            if length[d] < 20:
                verdict[d] = 1
                d += 1
                continue
            at = start + 20
            domain = load_u32(payload, start + 16)
        elif version == 10:
            at = start + 16
            domain = load_u32(payload, start + 12)
            said = _u16(payload, start + 2)
            if said < 16:
                verdict[d] = 4
                d += 1
                continue
            if start + said > stop:
                verdict[d] = 3
            else:
                stop = start + said
        else:
            verdict[d] = 2
            d += 1
            continue
        if resume > 0:
            at = resume
            resume = 0
        port_version = np.uint64(exporter_port[d]) | (np.uint64(version) << np.uint64(16))
        while at + 4 <= stop:
            set_id = _u16(payload, at)
            set_bytes = _u16(payload, at + 2)
            if set_bytes < 4:
                if set_id != 0 or set_bytes != 0:  # zeros are padding (Palo Alto does it)
                    verdict[d] = 4
                break
            set_end = at + set_bytes
            if set_end > stop:
                verdict[d] = 3
                set_end = stop
            body = at + 4
            if set_id < 256:
                is_template = (version == 9 and set_id == 0) or (version == 10 and set_id == 2)
                is_options = (version == 9 and set_id == 1) or (version == 10 and set_id == 3)
                if is_template or is_options:
                    cursor[0], cursor[1], cursor[2], cursor[3] = d, set_end, rows, segments
                    cursor[4], cursor[5], cursor[6] = set_id, body, set_end
                    return 1 if is_template else 2
                cursor[7] += 1
                at = set_end
                continue
            domain_id = (domain << np.uint64(16)) | np.uint64(set_id)
            plan = _plan(
                table_key, table_plan, exporter_high[d], exporter_low[d], port_version, domain_id
            )
            if plan < 0:
                cursor[0], cursor[1], cursor[2], cursor[3] = d, set_end, rows, segments
                cursor[4], cursor[5], cursor[6] = set_id, body, set_end
                return 3 if plan == -2 else 4
            size = plan_bytes[plan]
            if size == 0:  # a template of zero-length fields only: its sets say nothing
                at = set_end
                continue
            most = (set_end - body) // size if size > 0 else set_end - body
            if segments >= segments_max or rows + most > rows_max:
                if rows > 0 or segments > 0:
                    cursor[0], cursor[1], cursor[2], cursor[3] = d, at, rows, segments
                    return 5
                # An empty buffer holds any set: its caller made it for all bytes of the block.
            most = min(most, rows_max - rows)
            first = plan_first[plan]
            fields = plan_count[plan]
            present = plan_present[plan]
            _clear(
                slot_active, slot_kind, slot_row, present, size < 0, rows, rows + most,
                wide, words, halves, octets,
            )  # fmt: skip
            done = 0
            if size > 0:
                done = most
                source = np.int64(body)
                for f in range(first, first + fields):
                    width = np.int64(field_width[f])
                    how = field_convert[f] & 0x7F
                    fill = (field_convert[f] & 0x80) != 0
                    row = field_row[f]
                    kind = field_kind[f]
                    if how == 0:
                        pass
                    elif how == 1 and not fill:
                        if kind == 0:
                            _gather(payload, source, size, done, width, wide[row, rows:])
                        elif kind == 1:
                            _gather(payload, source, size, done, width, words[row, rows:])
                        elif kind == 2:
                            _gather(payload, source, size, done, width, halves[row, rows:])
                        else:
                            _gather(payload, source, size, done, width, octets[row, rows:])
                    elif how == 2 and not fill:
                        # The high half is zero: written only where some plan has IPv6 there too.
                        if high_active[row] != 0:
                            wide[row, rows : rows + done] = np.uint64(0)
                        for r in range(done):
                            wide[row + 1, rows + r] = load_u32(payload, source + r * size) | (
                                np.uint64(0xFFFF) << np.uint64(32)
                            )
                    elif how == 3 and not fill:
                        _gather(payload, source, size, done, 8, wide[row, rows:])
                        _gather(payload, source + 8, size, done, 8, wide[row + 1, rows:])
                    else:
                        for r in range(done):
                            _store(
                                payload, source + r * size, width, how, fill, kind, row, rows + r,
                                wide, words, halves, octets,
                            )  # fmt: skip
                    source += width
            else:
                here = body
                while here < set_end and done < most:
                    r = rows + done
                    whole = True
                    begin = here
                    for f in range(first, first + fields):
                        width = np.int64(field_width[f])
                        if width == VARIABLE:
                            if here + 1 > set_end:
                                whole = False
                                break
                            width = np.int64(payload[here])
                            here += 1
                            if width == 255:
                                if here + 2 > set_end:
                                    whole = False
                                    break
                                width = _u16(payload, here)
                                here += 2
                        if here + width > set_end:
                            whole = False
                            break
                        how = field_convert[f] & 0x7F
                        if how != 0 and (how != 1 or (width >= 1 and width <= 8)):
                            fill = (field_convert[f] & 0x80) != 0
                            _store(
                                payload, here, width, how, fill, field_kind[f], field_row[f], r,
                                wide, words, halves, octets,
                            )  # fmt: skip
                        here += width
                    if not whole or here == begin:
                        _clear(
                            slot_active, slot_kind, slot_row, present, True, r, r + 1,
                            wide, words, halves, octets,
                        )  # fmt: skip
                        break
                    done += 1
            segment[segments, 0] = d
            segment[segments, 1] = plan
            segment[segments, 2] = rows
            segment[segments, 3] = done
            segment[segments, 4] = body
            segment[segments, 5] = set_end
            segments += 1
            rows += done
            records[d] += done
            at = set_end
        d += 1
    cursor[0], cursor[1], cursor[2], cursor[3] = d, 0, rows, segments
    return 0


@kernel(
    "i8(const u1[::1], const i8[::1], const u1[::1], const i4[::1], i4[:,::1], i4[::1], u1[::1],"
    " u1[::1], u8[::1])"
)
def tally(
    kind: NDArray[np.uint8],
    chosen: NDArray[np.int64],
    verdict: NDArray[np.uint8],
    records: NDArray[np.int32],
    units: NDArray[np.int32],
    rows: NDArray[np.int32],
    fate: NDArray[np.uint8],
    unsure: NDArray[np.uint8],
    verdicts: NDArray[np.uint64],
) -> int:
    """Count what datagrams of v9 and IPFIX hold for the ledger; return the data records.

    In      per datagram walked: its version, its place in the block, verdict, data records.
    Inout   per datagram of the block: units int32[D, 3], rows, fate, unsure as in
            collectors.flow.streams.account; verdicts uint64[V], how many had each verdict.
    """
    total = 0
    for i in range(kind.size):
        d = chosen[i]
        n = records[i]
        total += n
        verdicts[verdict[i]] += np.uint64(1)
        nine = kind[i] == 9
        units[d, 0] += 1 if nine else n
        units[d, 1] += n if nine else 1
        units[d, 2] += 1 if nine else n
        rows[d] += n
        if verdict[i] != 0:
            if n == 0:
                fate[d] = 2
            if not nine:  # a set cut short may have held more: only the next number says how many
                unsure[d] = 2
    return total


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const u1[::1], const u8[::1], const u8[::1],"
    " const u2[::1], const u8[:,::1], const i4[::1], u1[::1])"
)
def find_sheddable(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    kind: NDArray[np.uint8],
    exporter_high: NDArray[np.uint64],
    exporter_low: NDArray[np.uint64],
    exporter_port: NDArray[np.uint16],
    table_key: NDArray[np.uint64],
    table_plan: NDArray[np.int32],
    out_sheddable: NDArray[np.uint8],
) -> int:
    """Say which datagrams hold nothing but flow records; return how many do.

    In      D datagrams as in DatagramBlock; kind uint8[D], their version (5, 9, 10; else no export);
            the template table as in `walk`: options are known by it from the next block on.
    Out     out_sheddable uint8[D]: 1, or 0 for what has templates or options data among its sets,
            and for what is cut short of its header.
    """
    found = 0
    for d in range(length.size):
        out_sheddable[d] = 0
        version = kind[d]
        if version == 5:
            head = 24
        elif version == 9:
            head = 20
        else:
            head = 16
        if version == 0 or length[d] < head:
            continue
        only_flows = True
        at = offset[d] + head
        stop = offset[d] + length[d]
        domain = load_u32(payload, at - 4)
        port_version = np.uint64(exporter_port[d]) | (np.uint64(version) << np.uint64(16))
        while version != 5 and only_flows and at + 4 <= stop:
            set_id = _u16(payload, at)
            set_bytes = _u16(payload, at + 2)
            if set_bytes < 4:
                break
            if set_id < 256:
                first = 0 if version == 9 else 2
                only_flows = set_id != first and set_id != first + 1
            else:
                domain_id = (domain << np.uint64(16)) | np.uint64(set_id)
                plan = _plan(
                    table_key,
                    table_plan,
                    exporter_high[d],
                    exporter_low[d],
                    port_version,
                    domain_id,
                )
                only_flows = plan != -2
            at += set_bytes
        if only_flows:
            out_sheddable[d] = 1
            found += 1
    return found
