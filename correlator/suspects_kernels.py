"""Which records security looks at: one pass that says of each what it might be part of.

Most records are part of nothing: they cost the pass (some 6 ns) and no view more. A record is judged
by what stands in it alone, as exported and never multiplied by its sampling rate, so that shards,
cuts and order change nothing. Whether there are too many of a sort is for detectors to say.
"""

import numpy as np
from numpy.typing import NDArray

from correlator.keys import VECTOR_ICMP, VECTOR_SYN
from runtime.kernels import inline, kernel

# Bits of a class; the names are `View.where`.
PROBE, LOGIN, QUERY, VECTOR, CONTACT, UPLOAD, BOGON, LONE = 1, 2, 4, 8, 16, 32, 64, 128
BITS = {
    "probe": PROBE,
    "login": LOGIN,
    "query": QUERY,
    "vector": VECTOR,
    "contact": CONTACT,
    "upload": UPLOAD,
    "bogon": BOGON,
    "lone": LONE,
}
# What a destination port may be (one byte each), beside the source ports of amplifiers.
PORT_NAMED, PORT_LOGIN, PORT_AMPLIFIER, PORT_ROUTINE = 1, 2, 4, 8
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16

PROBE_PACKETS_MAX = 3
PROBE_OCTETS_MAX = 100  # a packet
LOGIN_PACKETS_MAX = 60  # of a try: key exchange, a password, the end
LOGIN_OCTETS_MAX = 400
AMPLIFIED_OCTETS_MIN = 200
CONTACT_PACKETS_MAX = 30
CONTACT_OCTETS_MAX = 8_000
QUERY_OCTETS_MIN = 105  # a question, with IP and UDP header: ordinary ones have 60 to 90
UPLOAD_PACKET_MIN = 400
UPLOAD_OCTETS_MIN = 4_000
UPLOAD_SAMPLE_MIN = 1_000  # of a sampled packet


@inline
def _is_bogon4(low):  # type: ignore[no-untyped-def]
    # What the IANA IPv4 registry (RFC 6890 and later) calls not globally reachable, and multicast. Shared address
    # space (RFC 6598) is many carriers' own.
    a = (low >> np.uint64(24)) & np.uint64(0xFF)
    b = (low >> np.uint64(16)) & np.uint64(0xFF)
    c = (low >> np.uint64(8)) & np.uint64(0xFF)
    d = low & np.uint64(0xFF)
    if a == 0 or a == 10 or a == 127 or a >= 224:
        return True
    if a == 192:
        if b == 0 and c == 0:
            return d != 9 and d != 10  # PCP and TURN anycast (RFC 7723, RFC 8155)
        return b == 168 or (b == 0 and c == 2) or (b == 88 and c == 99 and d == 2)
    if a == 172:
        return b >= 16 and b < 32
    if a == 198:
        return b == 18 or b == 19 or (b == 51 and c == 100)
    return (a == 169 and b == 254) or (a == 203 and b == 0 and c == 113)


@inline
def _is_bogon6(high, low):  # type: ignore[no-untyped-def]
    # The same of the IANA IPv6 registry, and what is no global unicast space. Link-local is no route's business.
    top = high >> np.uint64(48)
    if high == np.uint64(0x0064FF9B00000000) and low >> np.uint64(32) == np.uint64(0):
        return _is_bogon4(low)  # NAT64: stands for global IPv4 addresses only (RFC 6052, 3.1)
    if top & np.uint64(0xE000) != np.uint64(0x2000):
        return top & np.uint64(0xFFC0) != np.uint64(0xFE80)
    if top == np.uint64(0x2002):
        return _is_bogon4(high >> np.uint64(16))  # 6to4 (RFC 3964, 5.3)
    if top == np.uint64(0x3FFF):
        return (high >> np.uint64(44)) & np.uint64(0xF) == np.uint64(0)  # documentation (RFC 9637)
    second = (high >> np.uint64(32)) & np.uint64(0xFFFF)
    if top != np.uint64(0x2001) or second >= np.uint64(0x200):
        return top == np.uint64(0x2001) and second == np.uint64(0xDB8)  # documentation
    # 2001::/23: Teredo, anycast (RFC 7723, RFC 8155, RFC 9665), AMT, AS112, ORCHIDv2 and DRIP are reachable.
    if second == 0 or second == 3 or (second >= 0x20 and second < 0x40):
        return False
    if second == 1:
        return high & np.uint64(0xFFFFFFFF) != np.uint64(0) or low < 1 or low > 3
    return second != 4 or (high >> np.uint64(16)) & np.uint64(0xFFFF) != np.uint64(0x112)


@inline
def _is_bogon(high, low):  # type: ignore[no-untyped-def]
    if high != np.uint64(0):
        return _is_bogon6(high, low)
    # ::, ::1, v4-compatible: nobody's
    return low >> np.uint64(32) != np.uint64(0xFFFF) or _is_bogon4(low)


@inline
def _belongs(port, high, low, homes, first, spans):  # type: ignore[no-untyped-def]
    # 1 = the source is the customer's at this port, 0 = it is not, -1 = nothing is known of it there.
    left, right = 0, homes.size
    while left < right:
        middle = (left + right) // 2
        if homes[middle] < port:
            left = middle + 1
        else:
            right = middle
    if left == homes.size or homes[left] != port:
        return -1
    four = high == np.uint64(0)
    known = -1
    for k in range(first[left], first[left + 1]):
        if (spans[k, 0] == np.uint64(0)) != four:
            continue
        known = 0
        after = high > spans[k, 0] or (high == spans[k, 0] and low >= spans[k, 1])
        before = high < spans[k, 2] or (high == spans[k, 2] and low <= spans[k, 3])
        if after and before:
            return 1
    return known


@kernel(
    "i8(const u8[::1], const u8[::1], const u8[::1], const u8[::1], const u2[::1], const u2[::1],"
    " const u1[::1], const u2[::1], const u8[::1], const u8[::1], const i8[::1], const u1[::1],"
    " const u1[::1], const u8[::1], const u4[::1], const u8[::1], const i8[::1], const u8[:,::1],"
    " i8, u1[::1], u4[::1], u4[::1])"
)
def classify(
    source_high: NDArray[np.uint64],
    source_low: NDArray[np.uint64],
    destination_high: NDArray[np.uint64],
    destination_low: NDArray[np.uint64],
    source_port: NDArray[np.uint16],
    destination_port: NDArray[np.uint16],
    protocol: NDArray[np.uint8],
    tcp_flags: NDArray[np.uint16],
    octets: NDArray[np.uint64],
    packets: NDArray[np.uint64],
    flow_start_ns: NDArray[np.int64],
    enters: NDArray[np.uint8],
    ports: NDArray[np.uint8],
    exporter_low: NDArray[np.uint64],
    ingress: NDArray[np.uint32],
    homes: NDArray[np.uint64],
    home_first: NDArray[np.int64],
    home_spans: NDArray[np.uint64],
    n: int,
    out_class: NDArray[np.uint8],
    out_vector: NDArray[np.uint32],
    out_peer: NDArray[np.uint32],
) -> int:
    """Write the class bits of n records; return how many have any.

    A record of one packet that states no start is a sampled packet (sFlow, PSAMP): of the flow that
    it is part of nothing is known, so it is no contact, no single packet of a source, and a try to log
    in only where it is a SYN.

    In      columns of n records at least, octets and packets as exported; enters 0 where a record
            came in over the backbone and is counted elsewhere; ports uint8[65536] of PORT_* bits.
            homes uint64[P], ascending: customers' ports as exporter << 32 | ifIndex; of port p the rows
            home_first[p] to [p + 1] of home_spans uint64[S, 4], halves of first and last address. There
            a source is what it must be or BOGON; elsewhere the special addresses are.
    Out     class; of VECTOR records the vector (an amplifier's port, VECTOR_SYN, VECTOR_ICMP); peer,
            the low 32 bits of an IPv4 destination, a hash of an IPv6 one.
    Source  RFC 6890 and IANA's registries as of 2025-10 (special addresses), RFC 2827 (what may not enter),
            nmap(1) (kinds of probes).
    """
    found = 0
    for r in range(n):
        out_class[r] = 0
        if enters[r] == 0:
            continue
        o, p = octets[r], packets[r]
        proto = protocol[r]
        sport, dport = np.uint64(source_port[r]), np.uint64(destination_port[r])
        at = ports[dport]
        sampled = p <= np.uint64(1) and flow_start_ns[r] == 0
        bits = 0
        if p <= np.uint64(1) and not sampled:
            bits |= LONE
        at_home = -1
        if homes.size > 0:
            port = exporter_low[r] << np.uint64(32) | np.uint64(ingress[r])
            at_home = _belongs(port, source_high[r], source_low[r], homes, home_first, home_spans)
        if at_home == 0 or (at_home < 0 and _is_bogon(source_high[r], source_low[r])):
            bits |= BOGON
        if proto == 6:
            flags = tcp_flags[r] & 0x3F
            # SYN, or what answers no handshake: NULL, FIN and XMAS probes.
            bare = flags & (_SYN | _ACK | _PSH | _FIN) == _SYN or flags in (0, _FIN, 0x29)
            if bare and o <= np.uint64(PROBE_OCTETS_MAX) * p:
                if flags & (0x3F ^ _RST) == _SYN:
                    bits |= VECTOR
                    out_vector[r] = VECTOR_SYN
                    if sampled and at & PORT_LOGIN:
                        bits |= LOGIN
                if p <= np.uint64(PROBE_PACKETS_MAX):
                    bits |= PROBE
            elif (
                at & PORT_LOGIN
                and not sampled
                and p <= np.uint64(LOGIN_PACKETS_MAX)
                and o <= np.uint64(LOGIN_OCTETS_MAX) * p
            ):
                bits |= LOGIN
        elif proto == 17:
            if ports[sport] & PORT_AMPLIFIER and o >= np.uint64(AMPLIFIED_OCTETS_MIN) * p:
                bits |= VECTOR
                out_vector[r] = np.uint32(sport)
            elif (
                p <= np.uint64(PROBE_PACKETS_MAX)
                and o <= np.uint64(PROBE_OCTETS_MAX) * p
                and dport != 53
                and dport != 443
                and sport > 1023
            ):
                bits |= PROBE
        elif proto == 1 or proto == 58:
            bits |= VECTOR
            out_vector[r] = VECTOR_ICMP
            asks = dport == 0 or dport == 2048 or (proto == 58 and dport == 32768)
            if asks and p <= np.uint64(PROBE_PACKETS_MAX) and o <= np.uint64(128) * p:
                bits |= PROBE
        if (proto == 6 or proto == 17) and bits & (PROBE | LOGIN) == 0:
            if dport == 53:
                if o >= np.uint64(QUERY_OCTETS_MIN) * p:
                    bits |= QUERY
            elif sport > 1023 and (dport < 1024 or at & PORT_NAMED or dport < sport):
                if sampled:
                    if o >= np.uint64(UPLOAD_SAMPLE_MIN):
                        bits |= UPLOAD
                elif (
                    p <= np.uint64(CONTACT_PACKETS_MAX)
                    and o <= np.uint64(CONTACT_OCTETS_MAX)
                    and at & PORT_ROUTINE == 0
                ):
                    bits |= CONTACT
                    if destination_high[r] == np.uint64(0):
                        out_peer[r] = np.uint32(destination_low[r] & np.uint64(0xFFFFFFFF))
                    else:
                        h = destination_high[r] * np.uint64(0x9E3779B97F4A7C15)
                        h = (h ^ destination_low[r]) * np.uint64(0xBF58476D1CE4E5B9)
                        out_peer[r] = np.uint32(h >> np.uint64(32))
                elif o >= np.uint64(UPLOAD_OCTETS_MIN) and o >= np.uint64(UPLOAD_PACKET_MIN) * p:
                    bits |= UPLOAD
        out_class[r] = bits
        if bits != 0:
            found += 1
    return found
