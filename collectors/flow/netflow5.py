"""NetFlow v5: fixed 24-byte header, up to 30 records of 48 bytes, no templates."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from collectors.flow.columns import BYTES, HALVES, PLACE, WIDE, WORDS, bit, bits
from runtime.kernels import inline, kernel, load_u16, load_u32

HEADER_BYTES = 24
RECORD_BYTES = 48
RECORDS_PER_DATAGRAM_MAX = 30

# What a record always carries; the sampling rate where the header states one.
PRESENT = bits(
    "flow_start_ns", "flow_end_ns", "export_ns", "arrival_ns", "exporter_address",
    "observation_domain_id", "source_address", "destination_address", "next_hop_address",
    "source_port", "destination_port", "protocol", "tcp_flags", "ip_class_of_service",
    "ingress_interface", "egress_interface", "octets", "packets", "source_as", "destination_as",
    "source_prefix_length", "destination_prefix_length",
)  # fmt: skip
# Columns that the kernel writes; the high halves of addresses are zero in IPv4.
FILLED = frozenset(
    name
    for name in PLACE
    if name in ("fields_present", "sampling_rate", "exporter_address_high")
    or (PRESENT & bit(name) and not name.endswith("_high"))
)
# Rows of the matrices, for the kernel, whose compile cache does not see other files change.
assert WIDE[:14] == (
    "flow_start_ns", "flow_end_ns", "export_ns", "arrival_ns", "exporter_address_high",
    "exporter_address_low", "source_address_high", "source_address_low",
    "destination_address_high", "destination_address_low", "octets", "packets",
    "next_hop_address_high", "next_hop_address_low",
)  # fmt: skip
assert WIDE[19] == "fields_present"
assert WORDS[:6] == (
    "observation_domain_id", "ingress_interface", "egress_interface", "sampling_rate",
    "source_as", "destination_as",
)  # fmt: skip
assert HALVES[:3] == ("source_port", "destination_port", "tcp_flags")
assert BYTES[:4] == (
    "protocol", "ip_class_of_service", "source_prefix_length", "destination_prefix_length",
)  # fmt: skip
assert bit("sampling_rate") == 1 << 20


class Verdict(IntEnum):
    """What the decoder thought of one datagram; the lower-case name is a metric label."""

    OK = 0
    TRUNCATED = 1
    NOT_VERSION_5 = 2
    WRONG_COUNT = 3  # the header's count contradicts the length; the length is believed


@inline
def _u16(payload, at):  # type: ignore[no-untyped-def]
    return np.uint32(load_u16(payload, at))


@inline
def _u32(payload, at):  # type: ignore[no-untyped-def]
    return np.uint32(load_u32(payload, at))


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const u2[::1], const i8[::1], const i8[::1],"
    " const u4[::1], const i4[::1], const u8[::1], const u8[::1], u8,"
    " u8[:,::1], u4[:,::1], u2[:,::1], u1[:,::1], i4[::1], u1[::1])"
)
def decode_v5(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    engine: NDArray[np.uint16],
    export_ns: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    uptime_ms: NDArray[np.uint32],
    drift: NDArray[np.int32],
    exporter_high: NDArray[np.uint64],
    exporter_low: NDArray[np.uint64],
    present: int,
    wide: NDArray[np.uint64],
    words: NDArray[np.uint32],
    halves: NDArray[np.uint16],
    octets: NDArray[np.uint8],
    out_records: NDArray[np.int32],
    out_verdict: NDArray[np.uint8],
) -> int:
    """Decode D datagrams and return the number of rows written, at most 30 * D.

    In      D datagrams as in DatagramBlock; engine uint16[D], engine type and id; corrected export
            times, arrivals, header uptimes, drift of the uptime (ns a second) and exporters as in
            collectors.flow.streams; present, the mask of what is always there.
    Out     columns of R >= 30 * D rows, see collectors.flow.columns and FILLED; out_records int32[D],
            rows of each datagram; out_verdict uint8[D], a Verdict.
    Errors  none raised: a bad datagram gets a Verdict and no rows, also when only its last record
            is cut (half a datagram would skew the sequence count). A count that contradicts the
            length is counted; the records that are whole are decoded (faulty exporters exist).
    Source  Cisco, NetFlow Export Datagram Format, tables B-3 (header) and B-4 (record).
    """
    row = np.int64(0)
    mapped = np.uint64(0xFFFF) << np.uint64(32)
    for d in range(length.size):
        start = offset[d]
        out_records[d] = 0
        if length[d] < 24:
            out_verdict[d] = 1
            continue
        if _u16(payload, start) != np.uint32(5):
            out_verdict[d] = 2
            continue
        count = np.int64(_u16(payload, start + 2))
        body = np.int64(length[d]) - 24
        out_verdict[d] = 0
        if count > 30 or count * 48 > body:
            # An exporter with a wrong count still sends whole records; a cut datagram does not.
            if body % 48 != 0 or body == 0 or body > 30 * 48:
                out_verdict[d] = 1
                continue
            out_verdict[d] = 3
            count = body // 48
        # The top two bits hold the sampling mode; 0 stays 0, "not known": an override may exist.
        rate = _u16(payload, start + 22) & np.uint32(0x3FFF)
        stop = row + count
        first = start + 24
        stated = np.uint64(present)
        if rate != np.uint32(0):
            stated |= np.uint64(1) << np.uint64(20)
        exported = export_ns[d]
        uptime = uptime_ms[d]
        for i in range(count):
            # Uptime wraps every 49.7 days: only the difference counts, modulo 2^32.
            ago = np.int64(np.int32(uptime - _u32(payload, first + i * 48 + 24)))
            slow = ago * np.int64(drift[d]) // 1000
            wide[0, row + i] = np.uint64(exported - ago * 1000000 - slow)
            ago = np.int64(np.int32(uptime - _u32(payload, first + i * 48 + 28)))
            slow = ago * np.int64(drift[d]) // 1000
            wide[1, row + i] = np.uint64(exported - ago * 1000000 - slow)
        wide[2, row:stop] = np.uint64(exported)
        wide[3, row:stop] = np.uint64(arrival_ns[d])
        wide[4, row:stop] = exporter_high[d]
        wide[5, row:stop] = exporter_low[d]
        for i in range(count):
            wide[7, row + i] = load_u32(payload, first + i * 48) | mapped
            wide[9, row + i] = load_u32(payload, first + i * 48 + 4) | mapped
            wide[13, row + i] = load_u32(payload, first + i * 48 + 8) | mapped
        for i in range(count):
            wide[10, row + i] = load_u32(payload, first + i * 48 + 20)
            wide[11, row + i] = load_u32(payload, first + i * 48 + 16)
        wide[19, row:stop] = stated
        words[0, row:stop] = np.uint32(engine[d])
        words[3, row:stop] = rate
        for i in range(count):
            words[1, row + i] = _u16(payload, first + i * 48 + 12)
            words[2, row + i] = _u16(payload, first + i * 48 + 14)
            words[4, row + i] = _u16(payload, first + i * 48 + 40)
            words[5, row + i] = _u16(payload, first + i * 48 + 42)
        for i in range(count):
            at = first + i * 48
            halves[0, row + i] = load_u16(payload, at + 32)
            halves[1, row + i] = load_u16(payload, at + 34)
            halves[2, row + i] = payload[at + 37]
            octets[0, row + i] = payload[at + 38]
            octets[1, row + i] = payload[at + 39]
            octets[2, row + i] = payload[at + 44]
            octets[3, row + i] = payload[at + 45]
        out_records[d] = count
        row = stop
    return int(row)
