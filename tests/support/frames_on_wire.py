"""Packets and frames of many kinds, built from the standards' tables, and sFlow datagrams of them."""

import ipaddress
import struct
from collections.abc import Sequence

MACS = bytes.fromhex("020000000002020000000001")


def udp(source: int = 1111, destination: int = 53, data: bytes = bytes(12)) -> bytes:
    """Build a UDP datagram."""
    return struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data


def tcp(source: int = 2222, destination: int = 443, flags: int = 0x12) -> bytes:
    """Build a TCP header."""
    return struct.pack("!HHIIBBHHH", source, destination, 1, 0, 0x50, flags, 1024, 0, 0)


def ipv4(
    body: bytes,
    *,
    protocol: int = 17,
    source: str = "192.0.2.1",
    destination: str = "198.51.100.2",
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """Build an IPv4 packet; `fragment` is the flags and offset word."""
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0x20, 20 + len(options) + len(body), 7, fragment,
        64, protocol, 0, ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed,
    )  # fmt: skip
    return head + options + body


def ipv6(
    body: bytes,
    *,
    following: int = 17,
    source: str = "2001:db8::1",
    destination: str = "2001:db8::2",
) -> bytes:
    """Build an IPv6 packet."""
    head = struct.pack("!IHBB", 6 << 28 | 0x20 << 20, len(body), following, 64)
    return (
        head + ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + body
    )


def extension(following: int, body: bytes = bytes(6)) -> bytes:
    """Build an IPv6 extension header whose length is a multiple of 8."""
    assert (len(body) + 2) % 8 == 0
    return bytes([following, (len(body) + 2) // 8 - 1]) + body


def ethernet(kind: int, body: bytes, *tags: tuple[int, int]) -> bytes:
    """Build a frame; a tag is (TPID, VLAN id), the outermost first."""
    made = MACS
    for protocol, vlan in tags:
        made += struct.pack("!HH", protocol, vlan)
    return made + struct.pack("!H", kind) + body


def mpls(body: bytes, *labels: int) -> bytes:
    """Build a label stack."""
    last = len(labels) - 1
    words = [label << 12 | (0x100 if i == last else 0) | 64 for i, label in enumerate(labels)]
    return struct.pack(f"!{len(words)}I", *words) + body


def gre(kind: int, body: bytes, *, key: int | None = None, sequence: int | None = None) -> bytes:
    """Build a GRE header (RFC 2890)."""
    flags = (0x2000 if key is not None else 0) | (0x1000 if sequence is not None else 0)
    words = [word for word in (key, sequence) if word is not None]
    return struct.pack(f"!HH{len(words)}I", flags, kind, *words) + body


def vxlan(frame: bytes, vni: int = 5000) -> bytes:
    """Build VXLAN in UDP (RFC 7348)."""
    return udp(40000, 4789, struct.pack("!II", 0x08000000, vni << 8) + frame)


def gtp(packet: bytes, *, extended: bool = False) -> bytes:
    """Build GTP-U in UDP (TS 29.281); extended: with a PDU session container."""
    if not extended:
        return udp(2152, 2152, struct.pack("!BBHI", 0x30, 255, len(packet), 9) + packet)
    optional = struct.pack("!HBB", 0, 0, 0x85) + bytes([1, 0, 9, 0])
    size = len(packet) + len(optional)
    return udp(2152, 2152, struct.pack("!BBHI", 0x34, 255, size, 9) + optional + packet)


def pcap(frames: Sequence[bytes], link_type: int = 1) -> bytes:
    """Build a capture file of these frames."""
    made = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)
    for n, frame in enumerate(frames):
        made += struct.pack("<IIII", 1_790_000_000, n, len(frame), len(frame)) + frame
    return made


IN4 = ipv4(tcp(), protocol=6, source="10.1.1.1", destination="10.2.2.2")
IN6 = ipv6(udp(5353, 5353), source="fd00::1", destination="fd00::2")
INNER = ethernet(0x0800, IN4)
OUTER4 = ("192.0.2.1", "198.51.100.2")
OUTER6 = ("2001:db8::1", "2001:db8::2")
INNER4 = ("10.1.1.1", "10.2.2.2")
INNER6 = ("fd00::1", "fd00::2")

# name: (frame, outer source and destination, inner ones)
FRAMES: dict[str, tuple[bytes, tuple[str, str], tuple[str, str]]] = {
    "ipv4": (ethernet(0x0800, ipv4(udp())), OUTER4, OUTER4),
    "ipv6": (ethernet(0x86DD, ipv6(udp())), OUTER6, OUTER6),
    "vlan": (ethernet(0x0800, ipv4(udp()), (0x8100, 0x2064)), OUTER4, OUTER4),
    "q-in-q": (ethernet(0x0800, ipv4(udp()), (0x88A8, 200), (0x8100, 100)), OUTER4, OUTER4),
    "three-tags": (
        ethernet(0x86DD, ipv6(udp()), (0x9100, 7), (0x8100, 8), (0x8100, 9)),
        OUTER6,
        OUTER6,
    ),
    "llc-snap": (
        ethernet(8 + len(IN4), bytes.fromhex("aaaa03000000") + struct.pack("!H", 0x0800) + IN4),
        INNER4,
        INNER4,
    ),
    "ipv4-options": (ethernet(0x0800, ipv4(udp(), options=bytes([1] * 8))), OUTER4, OUTER4),
    "first-fragment": (ethernet(0x0800, ipv4(udp(), fragment=0x2000)), OUTER4, OUTER4),
    "later-fragment": (ethernet(0x0800, ipv4(bytes(40), fragment=0x00B9)), OUTER4, OUTER4),
    "hop-by-hop": (
        ethernet(0x86DD, ipv6(extension(17, bytes([1, 4, 0, 0, 0, 0])) + udp(), following=0)),
        OUTER6,
        OUTER6,
    ),
    "routing-and-destination": (
        ethernet(
            0x86DD,
            ipv6(
                extension(60, bytes([0, 0, 0, 0, 0, 0]))
                + extension(6, bytes([1, 4, 0, 0, 0, 0]))
                + tcp(),
                following=43,
            ),
        ),
        OUTER6,
        OUTER6,
    ),
    "ipv6-fragment": (
        ethernet(0x86DD, ipv6(struct.pack("!BBHI", 17, 0, 1, 77) + udp(), following=44)),
        OUTER6,
        OUTER6,
    ),
    "mpls-one": (ethernet(0x8847, mpls(IN4, 1234)), INNER4, INNER4),
    "mpls-three": (ethernet(0x8847, mpls(IN6, 16, 300_000, 1_048_575)), INNER6, INNER6),
    "pppoe": (
        ethernet(0x8864, struct.pack("!BBHHH", 0x11, 0, 1, len(IN4) + 2, 0x0021) + IN4),
        INNER4,
        INNER4,
    ),
    "pppoe-ipv6-in-vlan": (
        ethernet(
            0x8864,
            struct.pack("!BBHHH", 0x11, 0, 1, len(IN6) + 2, 0x0057) + IN6,
            (0x8100, 35),
        ),
        INNER6,
        INNER6,
    ),
    "ip-in-ip": (ethernet(0x0800, ipv4(IN4, protocol=4)), OUTER4, INNER4),
    "6in4": (ethernet(0x0800, ipv4(IN6, protocol=41)), OUTER4, INNER6),
    "4in6": (ethernet(0x86DD, ipv6(IN4, following=4)), OUTER6, INNER4),
    "gre": (ethernet(0x0800, ipv4(gre(0x0800, IN4), protocol=47)), OUTER4, INNER4),
    "gre-key-sequence": (
        ethernet(0x0800, ipv4(gre(0x86DD, IN6, key=9, sequence=3), protocol=47)),
        OUTER4,
        INNER6,
    ),
    "nvgre": (ethernet(0x0800, ipv4(gre(0x6558, INNER, key=77), protocol=47)), OUTER4, INNER4),
    "erspan-2": (
        ethernet(
            0x0800,
            ipv4(gre(0x88BE, struct.pack("!HHI", 0x1064, 1, 0) + INNER, sequence=1), protocol=47),
        ),
        OUTER4,
        INNER4,
    ),
    "gre-in-ipv6": (ethernet(0x86DD, ipv6(gre(0x0800, IN4), following=47)), OUTER6, INNER4),
    "vxlan": (ethernet(0x0800, ipv4(vxlan(INNER))), OUTER4, INNER4),
    "vxlan-vlan-inside": (
        ethernet(0x0800, ipv4(vxlan(ethernet(0x86DD, IN6, (0x8100, 42))))),
        OUTER4,
        INNER6,
    ),
    "vxlan-over-ipv6": (ethernet(0x86DD, ipv6(vxlan(INNER))), OUTER6, INNER4),
    "geneve": (
        ethernet(
            0x0800,
            ipv4(udp(40000, 6081, struct.pack("!BBHI", 1, 0, 0x6558, 5 << 8) + bytes(4) + INNER)),
        ),
        OUTER4,
        INNER4,
    ),
    "gtp-u": (ethernet(0x0800, ipv4(gtp(IN4))), OUTER4, INNER4),
    "gtp-u-extended": (ethernet(0x0800, ipv4(gtp(IN6, extended=True))), OUTER4, INNER6),
    "vxlan-in-mpls": (ethernet(0x8847, mpls(ipv4(vxlan(INNER)), 17)), OUTER4, INNER4),
}


# ---- sFlow v5


def structure(tag: int, body: bytes) -> bytes:
    """Build a tagged structure, padded to 4 bytes; the length is without padding."""
    return struct.pack("!II", tag, len(body)) + body + bytes(-len(body) % 4)


def raw_header(frame: bytes, *, protocol: int = 1, size: int | None = None) -> bytes:
    """Build a sampled header record; the frame had 4 bytes more (the checksum)."""
    length = len(frame) + 4 if size is None else size
    return structure(
        1, struct.pack("!IIII", protocol, length, 4, len(frame)) + frame + bytes(-len(frame) % 4)
    )


def flow_sample(
    *records: bytes,
    rate: int = 1000,
    interfaces: tuple[int, int] = (3, 5),
    count: int | None = None,
) -> bytes:
    """Build a flow sample."""
    number = len(records) if count is None else count
    head = struct.pack("!IIIIIIII", 1, 3, rate, 7000, 0, *interfaces, number)
    return structure(1, head + b"".join(records))


def expanded_sample(*records: bytes, rate: int = 1000) -> bytes:
    """Build an expanded flow sample."""
    head = struct.pack(
        "!IIIIIIIIIII", 1, 0, 70_000, rate, 7000, 0, 0, 70_000, 0, 70_001, len(records)
    )
    return structure(3, head + b"".join(records))


def sflow(
    *samples: bytes, sequence: int = 1, agent: str = "192.0.2.9", sub_agent: int = 0
) -> bytes:
    """Build a datagram."""
    address = ipaddress.ip_address(agent)
    head = struct.pack("!II", 5, 1 if address.version == 4 else 2) + address.packed
    return head + struct.pack("!IIII", sub_agent, sequence, 99, len(samples)) + b"".join(samples)
