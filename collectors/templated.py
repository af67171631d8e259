"""NetFlow v9 and IPFIX: the kernel that walks messages and gathers records by compiled template.

The kernel decodes data sets and stops at what is rare (templates, options data, unknown templates):
Python deals with that one set and lets the kernel go on behind it. So the order of things inside a
datagram is kept: a template counts for what follows it, and nothing before.

Source: RFC 7011 section 3 (message, sets, records), section 7 (variable length), RFC 3954 section 5.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, load_u16, load_u32, load_u64, subroutine

TABLE_BITS = 14  # of the template hash table, see templates.TABLE_SIZE
V9_HEADER_BYTES = 20
IPFIX_HEADER_BYTES = 16
FIRST_DATA_ID = 256
VARIABLE_WIDTH = 65535
NTP_TO_UNIX_SECONDS = 2208988800
V4_MAPPED_HIGH_BITS = 0xFFFF


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
def _u32(payload, at):  # type: ignore[no-untyped-def]
    return load_u32(payload, at)


@inline
def _u64(payload, at):  # type: ignore[no-untyped-def]
    return load_u64(payload, at)


@inline
def _unsigned(payload, at, width):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(width):
        value = (value << np.uint64(8)) | np.uint64(payload[at + i])
    return value


@inline
def _ntp(payload, at):  # type: ignore[no-untyped-def]
    seconds = _u32(payload, at)
    fraction = _u32(payload, at + 4)
    if seconds < np.uint64(2208988800):
        return np.uint64(0)
    whole = (seconds - np.uint64(2208988800)) * np.uint64(1000000000)
    return whole + ((fraction * np.uint64(1000000000)) >> np.uint64(32))


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
def _store(payload, at, width, how, fill, slot, row, out):  # type: ignore[no-untyped-def]
    if how == 1:
        if not fill or out[slot, row] == np.uint64(0):
            out[slot, row] = _unsigned(payload, at, width)
    elif how == 2:
        if not fill or (out[slot, row] | out[slot + 1, row]) == np.uint64(0):
            value = _u32(payload, at)
            if not fill or value != np.uint64(0):
                out[slot, row] = np.uint64(0)
                out[slot + 1, row] = value | (np.uint64(0xFFFF) << np.uint64(32))
    elif how == 3:
        mapped_zero = np.uint64(0xFFFF) << np.uint64(32)
        empty = out[slot, row] == np.uint64(0) and (
            out[slot + 1, row] == np.uint64(0) or out[slot + 1, row] == mapped_zero
        )
        if not fill or empty:
            high = _u64(payload, at)
            low = _u64(payload, at + 8)
            if not fill or (high | low) != np.uint64(0):
                out[slot, row] = high
                out[slot + 1, row] = low
    elif how == 4:
        if not fill or out[slot, row] == np.uint64(0):
            out[slot, row] = _unsigned(payload, at, 3) >> np.uint64(4)
    elif how == 5 and (not fill or out[slot, row] == np.uint64(0)):
        out[slot, row] = _ntp(payload, at)


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const u8[::1], const u8[::1], const u2[::1],"
    " const u8[:,::1], const i4[::1], const i4[::1], const i4[::1], const i4[::1], const u8[::1],"
    " const i4[::1], const i4[::1], const u1[::1], const u1[::1],"
    " u8[:,::1], i4[:,::1], i8[::1], u1[::1], i4[::1])"
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
    field_slot: NDArray[np.int32],
    field_convert: NDArray[np.uint8],
    slot_active: NDArray[np.uint8],
    out: NDArray[np.uint64],
    segment: NDArray[np.int32],
    cursor: NDArray[np.int64],
    verdict: NDArray[np.uint8],
    records: NDArray[np.int32],
) -> int:
    """Decode data sets from `cursor` on and return a Stop.

    In      D datagrams as in DatagramBlock; the template table (keys uint64[T, 4], plans int32[T],
            -1 empty, -2 options); plans by row; fields by index; slot_active uint8[S], slots that
            some plan fills (the others are never written).
    Out     out uint64[S, R], row r of slot s; segment int32[G, 6]: datagram, plan, first row,
            rows, first byte and end in payload of each decoded set; cursor int64[8], where to go
            on; verdict uint8[D], a Verdict; records int32[D],
            data records decoded of each datagram.
    Errors  none raised: bad lengths give a verdict, what is whole before and inside is decoded.
    Source  RFC 7011 section 3.3.2: a set's length includes its header and padding; 3.3.1: padding
            is shorter than a record.
    """
    rows = cursor[2]
    segments = cursor[3]
    rows_max = out.shape[1]
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
            domain = _u32(payload, start + 16)
        elif version == 10:
            at = start + 16
            domain = _u32(payload, start + 12)
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
            plan = -1
            domain_id = (domain << np.uint64(16)) | np.uint64(set_id)
            place = _slot(exporter_high[d], exporter_low[d], port_version, domain_id)
            while table_plan[place] != -1:
                if (
                    table_key[place, 3] == domain_id
                    and table_key[place, 1] == exporter_low[d]
                    and table_key[place, 2] == port_version
                    and table_key[place, 0] == exporter_high[d]
                ):
                    plan = table_plan[place]
                    break
                place = (place + 1) & (table_plan.size - 1)
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
                # An empty buffer holds any set: a set is at most 64 KiB, a record at least a byte.
            first = plan_first[plan]
            fields = plan_count[plan]
            present = plan_present[plan]
            for s in range(slot_active.size):
                missing = (present >> np.uint64(s)) & np.uint64(1) == np.uint64(0)
                if slot_active[s] != 0 and (missing or size < 0):
                    for r in range(rows, rows + most):
                        out[s, r] = np.uint64(0)
            done = 0
            if size > 0:
                done = most
                place_in_record = np.int64(0)
                for f in range(first, first + fields):
                    width = np.int64(field_width[f])
                    how = field_convert[f] & 0x7F
                    fill = (field_convert[f] & 0x80) != 0
                    slot = field_slot[f]
                    source = body + place_in_record
                    if how == 0:
                        pass
                    elif fill:
                        for r in range(done):
                            _store(
                                payload, source + r * size, width, how, True, slot, rows + r, out
                            )
                    elif how == 1 and width == 4:
                        for r in range(done):
                            out[slot, rows + r] = _u32(payload, source + r * size)
                    elif how == 1 and width == 2:
                        for r in range(done):
                            out[slot, rows + r] = np.uint64(_u16(payload, source + r * size))
                    elif how == 1 and width == 1:
                        for r in range(done):
                            out[slot, rows + r] = np.uint64(payload[source + r * size])
                    elif how == 1 and width == 8:
                        for r in range(done):
                            out[slot, rows + r] = _u64(payload, source + r * size)
                    elif how == 2:
                        for r in range(done):
                            out[slot, rows + r] = np.uint64(0)
                            out[slot + 1, rows + r] = _u32(payload, source + r * size) | (
                                np.uint64(0xFFFF) << np.uint64(32)
                            )
                    elif how == 3:
                        for r in range(done):
                            out[slot, rows + r] = _u64(payload, source + r * size)
                            out[slot + 1, rows + r] = _u64(payload, source + r * size + 8)
                    else:
                        for r in range(done):
                            _store(
                                payload, source + r * size, width, how, False, slot, rows + r, out
                            )
                    place_in_record += np.int64(width)
            else:
                here = body
                while here < set_end and done < most:
                    row = rows + done
                    whole = True
                    begin = here
                    for f in range(first, first + fields):
                        width = np.int64(field_width[f])
                        if width == 65535:
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
                            _store(payload, here, width, how, fill, field_slot[f], row, out)
                        here += width
                    if not whole or here == begin:
                        if whole is False:
                            for s in range(slot_active.size):
                                if slot_active[s] != 0:
                                    out[s, row] = np.uint64(0)
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
