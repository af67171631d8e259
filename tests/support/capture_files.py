"""Capture files built block by block, for tests."""

import struct
from collections.abc import Sequence

from tests.support.frames_on_wire import ipv4, udp

SECOND = 1_790_000_000


def pcap(
    packets: Sequence[bytes],
    link_type: int = 1,
    *,
    order: str = "<",
    nanoseconds: bool = False,
    snap: int = 65535,
) -> bytes:
    """Build a pcap file; packet n was caught n ticks after SECOND."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    made = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link_type)
    for n, packet in enumerate(packets):
        kept = packet[:snap]
        made += struct.pack(order + "IIII", SECOND, n, len(kept), len(packet)) + kept
    return made


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """Build a pcapng block."""
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    """Build a section header."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(
    link_type: int = 1,
    order: str = "<",
    *,
    resolution: int | None = None,
    offset_seconds: int | None = None,
) -> bytes:
    """Build an interface description; resolution as in if_tsresol."""
    body = struct.pack(order + "HHI", link_type, 0, 0)
    body += struct.pack(order + "HH", 2, 3) + b"eth\0"
    if resolution is not None:
        body += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_seconds is not None:
        body += struct.pack(order + "HHq", 14, 8, offset_seconds)
    return block(1, body + struct.pack(order + "HH", 0, 0), order)


def enhanced(packet: bytes, ticks: int, number: int = 0, order: str = "<") -> bytes:
    """Build an enhanced packet block."""
    head = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), len(packet)
    )
    return block(6, head + packet, order)


def fragments_of(data: bytes, size: int) -> list[bytes]:
    """Cut a UDP datagram into IPv4 fragments of `size` bytes."""
    whole = udp(4000, 2055, data)
    places = range(0, len(whole), size)
    return [
        ipv4(whole[at : at + size], fragment=(at // 8) | (0x2000 if at + size < len(whole) else 0))
        for at in places
    ]
