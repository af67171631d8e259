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
