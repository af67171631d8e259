"""Sampled packet headers: from the first bytes of a frame to addresses, ports and tags.

Ethernet with VLAN tags and MPLS, IPv4 and IPv6 with extension headers. The outer packet is what the
interface carried, so the outer addresses are the flow's; the inner ones of tunnels are left alone.

Source: IEEE 802.1Q, RFC 3032 (MPLS), RFC 791, RFC 8200 section 4, RFC 9293, RFC 768.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

# Rows of the output matrix.
FIELDS = (
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
    "protocol",
    "source_port",
    "destination_port",
    "tcp_flags",
    "ip_class_of_service",
    "vlan_id",
    "mpls_top_label",
    "is_ip",
)
LINK_ETHERNET, LINK_IPV4, LINK_IPV6 = 1, 11, 12


@inline
def _u16(payload, at):  # type: ignore[no-untyped-def]
    return (np.uint64(payload[at]) << np.uint64(8)) | np.uint64(payload[at + 1])


@inline
def _u32(payload, at):  # type: ignore[no-untyped-def]
    return (_u16(payload, at) << np.uint64(16)) | _u16(payload, at + 2)


@inline
def _u64(payload, at):  # type: ignore[no-untyped-def]
    return (_u32(payload, at) << np.uint64(32)) | _u32(payload, at + 4)


@kernel("i8(const u1[::1], const i8[::1], const i4[::1], const i4[::1], u8[:,::1])")
def parse_headers(
    payload: NDArray[np.uint8],
    start: NDArray[np.int64],
    length: NDArray[np.int32],
    link: NDArray[np.int32],
    out: NDArray[np.uint64],
) -> int:
    """Parse N sampled headers; return how many were IP.

    In      payload; header n is payload[start[n] : start[n] + length[n]]; link int32[N]: 1 Ethernet,
            11 IPv4, 12 IPv6 (sFlow header_protocol). The caller guarantees the range.
    Out     out uint64[12, N], rows as in FIELDS; what a cut header does not hold is 0.
    """
    found = 0
    for n in range(start.size):
        for f in range(12):
            out[f, n] = np.uint64(0)
        at = start[n]
        end = at + length[n]
        kind = np.uint64(0)
        if link[n] == 1:
            at += 12
            while at + 2 <= end:
                kind = _u16(payload, at)
                at += 2
                if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
                    if at + 2 > end:
                        break
                    if out[9, n] == np.uint64(0):
                        out[9, n] = _u16(payload, at) & np.uint64(0xFFF)
                    at += 2
                    kind = np.uint64(0)
                    continue
                break
            if kind == 0x8847 or kind == 0x8848:
                first = True
                kind = np.uint64(0)
                while at + 4 <= end:
                    label = _u32(payload, at)
                    at += 4
                    if first:
                        out[10, n] = label >> np.uint64(12)
                        first = False
                    if label & np.uint64(0x100) != np.uint64(0):
                        if at < end:
                            version = payload[at] >> 4
                            kind = np.uint64(0x0800) if version == 4 else np.uint64(0)
                            if version == 6:
                                kind = np.uint64(0x86DD)
                        break
        elif link[n] == 11:
            kind = np.uint64(0x0800)
        elif link[n] == 12:
            kind = np.uint64(0x86DD)
        transport = np.int64(-1)
        protocol = np.uint64(255)
        if kind == 0x0800:
            if at + 20 > end or payload[at] >> 4 != 4:
                continue
            header = np.int64(payload[at] & 15) * 4
            out[8, n] = np.uint64(payload[at + 1])
            protocol = np.uint64(payload[at + 9])
            mapped = np.uint64(0xFFFF) << np.uint64(32)
            out[1, n] = _u32(payload, at + 12) | mapped
            out[3, n] = _u32(payload, at + 16) | mapped
            if _u16(payload, at + 6) & np.uint64(0x1FFF) == np.uint64(0) and header >= 20:
                transport = at + header
        elif kind == 0x86DD:
            if at + 40 > end or payload[at] >> 4 != 6:
                continue
            out[8, n] = (_u16(payload, at) >> np.uint64(4)) & np.uint64(0xFF)
            protocol = np.uint64(payload[at + 6])
            out[0, n] = _u64(payload, at + 8)
            out[1, n] = _u64(payload, at + 16)
            out[2, n] = _u64(payload, at + 24)
            out[3, n] = _u64(payload, at + 32)
            transport = at + 40
            for _ in range(8):
                if protocol == 44:
                    if transport + 8 > end:
                        transport = np.int64(-1)
                        break
                    later = _u16(payload, transport + 2) & np.uint64(0xFFF8)
                    protocol = np.uint64(payload[transport])
                    transport = transport + 8 if later == np.uint64(0) else np.int64(-1)
                    if transport < 0:
                        break
                elif protocol == 0 or protocol == 43 or protocol == 60:
                    if transport + 8 > end:
                        transport = np.int64(-1)
                        break
                    protocol = np.uint64(payload[transport])
                    transport += (np.int64(payload[transport + 1]) + 1) * 8
                else:
                    break
        else:
            continue
        found += 1
        out[11, n] = np.uint64(1)
        out[4, n] = protocol
        if transport >= 0:
            if protocol == 6 or protocol == 17 or protocol == 132 or protocol == 33:
                if transport + 4 <= end:
                    out[5, n] = _u16(payload, transport)
                    out[6, n] = _u16(payload, transport + 2)
                if protocol == 6 and transport + 14 <= end:
                    out[7, n] = _u16(payload, transport + 12) & np.uint64(0x1FF)
            elif (protocol == 1 or protocol == 58) and transport + 2 <= end:
                out[6, n] = _u16(payload, transport)
    return found
