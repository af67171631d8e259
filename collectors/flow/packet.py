"""Sampled packet headers: from the first bytes of a frame to addresses, ports and tags.

Ethernet with VLAN tags, LLC, PPPoE and MPLS, 802.11, PPP; IPv4 and IPv6 with extension headers. The
outer packet is what the interface carried, so by default its addresses are the flow's; on request the
innermost packet of tunnels is taken (GRE, ERSPAN, IP in IP, VXLAN, Geneve, GTP-U, MPLS in UDP, SRv6).

Source: IEEE 802.1Q, 802.2, 802.1BR, 802.11 section 9.2, RFC 3032 (MPLS), RFC 4385 (pseudowires), RFC
791, RFC 8200 section 4, RFC 9293, RFC 768, RFC 2516 (PPPoE), RFC 1661 and 1662 (PPP), RFC 2784 and 2890
(GRE), RFC 2637 (PPTP), RFC 2003, RFC 7348 (VXLAN), RFC 8926 (Geneve), RFC 7510 (MPLS in UDP), RFC 8986
(SRv6), 3GPP TS 29.281 (GTP-U).
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import kernel, load_u16, load_u32, load_u64, subroutine

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
    "found",
    "ip_octets",
)
# Bits of `found`.
IS_IP, HAS_PORTS, HAS_TCP_FLAGS, HAS_VLAN, HAS_MPLS = 1, 2, 4, 8, 16
# sFlow header_protocol.
LINK_ETHERNET, LINK_PPP, LINK_IPV4, LINK_IPV6, LINK_MPLS, LINK_POS, LINK_WLAN = (
    1,
    7,
    11,
    12,
    13,
    14,
    15,
)
TUNNELS_MAX = 4  # how deep "inner" goes; deeper ones are left closed


@subroutine
def _labels(payload, at, end, n, out):  # type: ignore[no-untyped-def]
    """Walk a label stack; return (link of what is below, its place)."""
    first = out[11, n] & np.uint64(16) == np.uint64(0)
    while at + 4 <= end:
        label = load_u32(payload, at)
        at += 4
        if first:
            out[10, n] = label >> np.uint64(12)
            out[11, n] |= np.uint64(16)
            first = False
        if label & np.uint64(0x100) != np.uint64(0):
            if at < end:
                version = payload[at] >> 4
                if version == 4:
                    return np.int64(11), np.int64(at)
                if version == 6:
                    return np.int64(12), np.int64(at)
                if version == 0:  # a pseudowire's control word, a frame behind it
                    return np.int64(1), np.int64(at + 4)
            break
    return np.int64(0), np.int64(at)


@subroutine
def _by_ether_type(kind):  # type: ignore[no-untyped-def]
    if kind == 0x0800:
        return np.int64(11)
    if kind == 0x86DD:
        return np.int64(12)
    if kind == 0x6558:
        return np.int64(1)
    if kind == 0x8847 or kind == 0x8848:
        return np.int64(13)
    return np.int64(0)


@subroutine
def _ppp(payload, at, end):  # type: ignore[no-untyped-def]
    """Return (link, place) behind a PPP protocol field, of one byte or two."""
    if at + 2 <= end and load_u16(payload, at) == 0xFF03:
        at += 2
    if at + 2 > end:
        return np.int64(0), np.int64(at)
    kind = load_u16(payload, at)
    if payload[at] & 1 != 0:  # compressed to one byte
        kind = np.uint64(payload[at])
        at -= 1
    if kind == 0x0021:
        return np.int64(11), np.int64(at + 2)
    if kind == 0x0057:
        return np.int64(12), np.int64(at + 2)
    if kind == 0x0281:
        return np.int64(13), np.int64(at + 2)
    return np.int64(0), np.int64(at)


@subroutine
def _tagged(payload, at, end, n, out):  # type: ignore[no-untyped-def]
    """Walk tags from an Ethernet type on; return (link of what is below, its place)."""
    while at + 2 <= end:
        kind = load_u16(payload, at)
        at += 2
        if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100 or kind == 0x9200:
            if at + 2 > end:
                break
            if out[11, n] & np.uint64(8) == np.uint64(0):
                out[9, n] = load_u16(payload, at) & np.uint64(0xFFF)
                out[11, n] |= np.uint64(8)
            at += 2
            continue
        if kind == 0x8926 or kind == 0x893F:  # VN-tag, E-tag: which port of an extender
            at += 4 if kind == 0x8926 else 6
            continue
        if kind < 0x600:  # a length: LLC, with SNAP an Ethernet type follows
            if at + 8 <= end and load_u16(payload, at) == 0xAAAA and payload[at + 2] == 3:
                at += 6
                continue
            break
        if kind == 0x8864 and at + 8 <= end:
            return _ppp(payload, at + 6, end)
        link = _by_ether_type(kind)
        if link == 13:
            return _labels(payload, at, end, n, out)
        if link == 11 or link == 12:
            return link, np.int64(at)
        break
    return np.int64(0), np.int64(at)


@subroutine
def _wlan(payload, at, end, n, out):  # type: ignore[no-untyped-def]
    """Walk an 802.11 data frame; return (link of what is below, its place)."""
    if at + 24 > end or payload[at] & 0x0C != 8 or payload[at] & 0x40 != 0:
        return np.int64(0), np.int64(at)  # management, control, no data
    flags = payload[at + 1]
    if flags & 0x40 != 0:  # encrypted
        return np.int64(0), np.int64(at)
    header = 24
    if flags & 3 == 3:
        header += 6
    if payload[at] & 0x80 != 0:  # QoS, and then perhaps HT control
        header += 2
        if flags & 0x80 != 0:
            header += 4
    at += header
    if at + 8 <= end and load_u16(payload, at) == 0xAAAA and payload[at + 2] == 3:
        return _tagged(payload, at + 6, end, n, out)
    return np.int64(0), np.int64(at)


@subroutine
def _gtp(payload, at, end):  # type: ignore[no-untyped-def]
    """Return (link, place) of the user packet in a GTP-U message."""
    inner = at + 8
    if payload[at] & 7 != 0:  # sequence number, N-PDU and type of the next header are there
        inner += 4
        following = np.int64(0)
        if payload[at] & 4 != 0 and inner <= end:
            following = np.int64(payload[inner - 1])
        for _ in range(8):
            if following == 0:
                break
            if inner + 4 > end or payload[inner] == 0:
                return np.int64(0), np.int64(at)
            size = np.int64(payload[inner]) * 4
            if inner + size > end:
                return np.int64(0), np.int64(at)
            inner += size
            following = np.int64(payload[inner - 1])
    if inner < end:
        if payload[inner] >> 4 == 4:
            return np.int64(11), np.int64(inner)
        if payload[inner] >> 4 == 6:
            return np.int64(12), np.int64(inner)
    return np.int64(0), np.int64(inner)


@subroutine
def _inside(payload, protocol, at, end):  # type: ignore[no-untyped-def]
    """Return (link, place) of the packet that a tunnel carries; link 0: it is none."""
    if protocol == 4:
        return np.int64(11), np.int64(at)
    if protocol == 41:
        return np.int64(12), np.int64(at)
    if protocol == 143:
        return np.int64(1), np.int64(at)
    if protocol == 137:
        return np.int64(13), np.int64(at)
    if protocol == 47 and at + 4 <= end:
        flags = load_u16(payload, at)
        kind = load_u16(payload, at + 2)
        inner = at + 4
        for bit in (0x8000, 0x2000, 0x1000):
            if flags & np.uint64(bit) != np.uint64(0):
                inner += 4
        if kind == 0x88BE:  # ERSPAN: with a sequence number it has a header of its own
            if flags & np.uint64(0x1000) != np.uint64(0):
                inner += 8
            return np.int64(1), np.int64(inner)
        if flags & np.uint64(7) == np.uint64(0):
            return _by_ether_type(kind), np.int64(inner)
        if kind == 0x22EB:  # ERSPAN type III: 12 bytes, 8 more where the last bit says so
            if inner + 12 <= end and payload[inner + 11] & 1 != 0:
                inner += 8
            return np.int64(1), np.int64(inner + 12)
        if flags & np.uint64(7) == np.uint64(1) and kind == 0x880B:  # PPTP: a PPP frame
            if flags & np.uint64(0x80) != np.uint64(0):
                inner += 4
            return _ppp(payload, inner, end)
    if protocol == 17 and at + 16 <= end:
        port = load_u16(payload, at + 2)
        inner = at + 16
        if port == 4789 or port == 8472:
            return np.int64(1), np.int64(inner)
        if port == 4790:
            following = payload[at + 11]
            if following == 1:
                return np.int64(11), np.int64(inner)
            if following == 2:
                return np.int64(12), np.int64(inner)
            if following == 3:
                return np.int64(1), np.int64(inner)
        if port == 6081:
            options = np.int64(payload[at + 8] & 0x3F) * 4
            return _by_ether_type(load_u16(payload, at + 10)), np.int64(inner + options)
        if port == 6635:
            return np.int64(13), np.int64(at + 8)
        if port == 2152 and payload[at + 8] & 0xF0 == 0x30 and payload[at + 9] == 0xFF:
            return _gtp(payload, at + 8, end)
    return np.int64(0), np.int64(at)


@kernel("i8(const u1[::1], const i8[::1], const i4[::1], const i4[::1], i8, u8[:,::1])")
def parse_headers(
    payload: NDArray[np.uint8],
    start: NDArray[np.int64],
    length: NDArray[np.int32],
    link: NDArray[np.int32],
    tunnels: int,
    out: NDArray[np.uint64],
) -> int:
    """Parse N sampled headers; return how many were IP.

    In      payload; header n is payload[start[n] : start[n] + length[n]]; link int32[N]: 1 Ethernet,
            7 PPP, 11 IPv4, 12 IPv6, 13 MPLS, 14 packet over SONET, 15 802.11 (sFlow
            header_protocol); tunnels: how many to look into, 0 = the outer packet. The caller guarantees the range.
    Out     out uint64[13, N], rows as in FIELDS; what a cut header does not hold is 0, and its bit
            in `found` too; ip_octets is the length that the outer IP header states. Tags are the
            outermost, addresses and ports of the innermost packet that was reached.
    """
    count = 0
    for n in range(start.size):
        for f in range(13):
            out[f, n] = np.uint64(0)
        at = start[n]
        end = at + length[n]
        layer = np.int64(link[n])
        for depth in range(tunnels + 1):
            if layer == 1 and at + 14 <= end:  # the usual frame needs no walk through tags
                kind = load_u16(payload, at + 12)
                if kind == 0x0800 or kind == 0x86DD:
                    layer = np.int64(11) if kind == 0x0800 else np.int64(12)
                    at += 14
            for _ in range(3):  # a frame may lie in a pseudowire, a label stack in a frame
                if layer == 1:
                    layer, at = _tagged(payload, at + 12, end, n, out)
                elif layer == 13:
                    layer, at = _labels(payload, at, end, n, out)
                elif layer == 7 or layer == 14:
                    layer, at = _ppp(payload, at, end)
                elif layer == 15:
                    layer, at = _wlan(payload, at, end, n, out)
                else:
                    break
            transport = np.int64(-1)
            if layer == 11:
                if at + 20 > end or payload[at] >> 4 != 4:
                    break
                header = np.int64(payload[at] & 15) * 4
                if out[12, n] == np.uint64(0):
                    out[12, n] = load_u16(payload, at + 2)
                out[8, n] = np.uint64(payload[at + 1])
                protocol = np.uint64(payload[at + 9])
                mapped = np.uint64(0xFFFF) << np.uint64(32)
                out[0, n] = np.uint64(0)
                out[1, n] = load_u32(payload, at + 12) | mapped
                out[2, n] = np.uint64(0)
                out[3, n] = load_u32(payload, at + 16) | mapped
                if load_u16(payload, at + 6) & np.uint64(0x1FFF) == np.uint64(0) and header >= 20:
                    transport = at + header
            elif layer == 12:
                if at + 40 > end or payload[at] >> 4 != 6:
                    break
                if out[12, n] == np.uint64(0):
                    out[12, n] = load_u16(payload, at + 4) + np.uint64(40)
                out[8, n] = (load_u16(payload, at) >> np.uint64(4)) & np.uint64(0xFF)
                protocol = np.uint64(payload[at + 6])
                out[0, n] = load_u64(payload, at + 8)
                out[1, n] = load_u64(payload, at + 16)
                out[2, n] = load_u64(payload, at + 24)
                out[3, n] = load_u64(payload, at + 32)
                transport = at + 40
                for _ in range(8):
                    if protocol == 44 and transport + 8 <= end:
                        later = load_u16(payload, transport + 2) & np.uint64(0xFFF8)
                        protocol = np.uint64(payload[transport])
                        if later != np.uint64(0):
                            transport = np.int64(-1)
                            break
                        transport += 8
                    elif (
                        protocol == 0
                        or protocol == 43
                        or protocol == 60
                        or protocol == 51
                        or protocol == 135
                        or protocol == 139
                        or protocol == 140
                    ) and transport + 8 <= end:
                        words = np.int64(payload[transport + 1])
                        following = np.uint64(payload[transport])
                        transport += (words + 2) * 4 if protocol == 51 else (words + 1) * 8
                        protocol = following
                    elif (
                        protocol == 0
                        or protocol == 43
                        or protocol == 44
                        or protocol == 51
                        or protocol == 60
                        or protocol == 135
                        or protocol == 139
                        or protocol == 140
                    ):
                        # Cut inside the chain: what it leads to is not known.
                        protocol = np.uint64(0)
                        transport = np.int64(-1)
                        break
                    else:
                        break
            else:
                break
            out[4, n] = protocol
            out[5, n] = out[6, n] = out[7, n] = np.uint64(0)
            seen = (out[11, n] & np.uint64(0xF8)) | np.uint64(1)
            if transport >= 0:
                if protocol == 6 or protocol == 17 or protocol == 132 or protocol == 33:
                    if transport + 4 <= end:
                        out[5, n] = load_u16(payload, transport)
                        out[6, n] = load_u16(payload, transport + 2)
                        seen |= np.uint64(2)
                    if protocol == 6 and transport + 14 <= end:
                        out[7, n] = load_u16(payload, transport + 12) & np.uint64(0x1FF)
                        seen |= np.uint64(4)
                elif (protocol == 1 or protocol == 58) and transport + 2 <= end:
                    out[6, n] = load_u16(payload, transport)
                    seen |= np.uint64(2)
            out[11, n] = seen
            if transport < 0 or depth == tunnels:
                break
            layer, at = _inside(payload, protocol, transport, end)
            if layer == 0:
                break
        if out[11, n] & np.uint64(1) != np.uint64(0):
            count += 1
    return count
