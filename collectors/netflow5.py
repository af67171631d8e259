"""NetFlow v5: fixed 24-byte header, up to 30 records of 48 bytes, no templates."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, load_u16, load_u32

HEADER_BYTES = 24
RECORD_BYTES = 48
RECORDS_PER_DATAGRAM_MAX = 30

# Columns the kernel fills, in this order, as rows of one uint32 matrix: 16 x R.
COLUMNS = (
    "source_address",
    "destination_address",
    "next_hop_address",
    "ingress_interface",
    "egress_interface",
    "packets",
    "octets",
    "first_ms",
    "last_ms",
    "ports",
    "flags_protocol_tos",
    "as_numbers",
    "masks",
    "sampling_rate",
)


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


@kernel("i8(const u1[::1], const i8[::1], const i4[::1], u4[:,::1], i4[::1], u1[::1])")
def decode_v5(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    out: NDArray[np.uint32],
    out_datagram: NDArray[np.int32],
    out_verdict: NDArray[np.uint8],
) -> int:
    """Decode D datagrams and return the number of rows written, at most 30 * D.

    In      D datagrams as in DatagramBlock.
    Out     out uint32[14, 30 * D], rows as in COLUMNS; out_datagram int32[30 * D], whose row it is;
            out_verdict uint8[D], a Verdict.
    Errors  none raised: a bad datagram gets a Verdict and no rows, also when only its last record
            is cut (half a datagram would skew the sequence count). A count that contradicts the
            length is counted; the records that are whole are decoded (faulty exporters exist).
    Source  Cisco, NetFlow Export Datagram Format, tables B-3 (header) and B-4 (record).
    """
    row = 0
    for d in range(length.size):
        start = offset[d]
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
        sampling_rate = _u16(payload, start + 22) & np.uint32(0x3FFF)
        for i in range(count):
            at = start + 24 + i * 48
            out[0, row] = _u32(payload, at)
            out[1, row] = _u32(payload, at + 4)
            out[2, row] = _u32(payload, at + 8)
            out[3, row] = _u16(payload, at + 12)
            out[4, row] = _u16(payload, at + 14)
            out[5, row] = _u32(payload, at + 16)
            out[6, row] = _u32(payload, at + 20)
            out[7, row] = _u32(payload, at + 24)
            out[8, row] = _u32(payload, at + 28)
            out[9, row] = _u32(payload, at + 32)
            out[10, row] = _u32(payload, at + 36) & np.uint32(0xFFFFFF)
            out[11, row] = _u32(payload, at + 40)
            out[12, row] = _u16(payload, at + 44)
            out[13, row] = sampling_rate
            out_datagram[row] = d
            row += 1
    return row
