"""BGP and BMP messages made by hand, and decoders of BMP to give them to."""

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from collectors.block import DatagramBlock
from collectors.bmp.decoder import BmpDecoder, BmpOptions
from collectors.datagram import Datagram, pack
from telemetry.identity import address_pair
from tocsin.testing import make_context

MARKER = b"\xff" * 16
START_NS = 1_790_000_000 * 10**9
PEER = "192.0.2.1"


def bgp(kind: int, body: bytes) -> bytes:
    """Return a BGP message."""
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def attribute(kind: int, value: bytes, flags: int | None = None) -> bytes:
    """Return a path attribute with the flags of its kind."""
    if flags is None:
        flags = {4: 0x80, 8: 0xC0, 9: 0x80, 10: 0x80, 14: 0x80, 15: 0x80, 16: 0xC0, 17: 0xC0,
                 32: 0xC0}.get(kind, 0x40)  # fmt: skip
    if len(value) > 255:
        return struct.pack("!BBH", flags | 0x10, kind, len(value)) + value
    return struct.pack("!BBB", flags, kind, len(value)) + value


def as_path(*numbers: int, width: int = 4, kind: int = 2) -> bytes:
    """Return the value of an AS_PATH of one segment, none for an empty path."""
    if not numbers:
        return b""
    code = "!BB" + ("H" if width == 2 else "I") * len(numbers)
    return struct.pack(code, kind, len(numbers), *numbers)


def usual(path: Sequence[int] = (64500, 64501), *more: bytes, next_hop: str = "10.0.0.1") -> bytes:
    """Return ORIGIN, AS_PATH and NEXT_HOP, and what else is given."""
    hop = attribute(3, address_pair(next_hop)[1].to_bytes(8, "big")[4:])
    return attribute(1, b"\0") + attribute(2, as_path(*path)) + hop + b"".join(more)


def prefix(text: str, path_id: int | None = None, before: bytes = b"") -> bytes:
    """Return a route `192.0.2.0/24` as in a list of routes; `before` are labels and distinguisher."""
    address, _, length = text.partition("/")
    high, low = address_pair(address)
    octets = low.to_bytes(8, "big")[4:] if "." in text else (high << 64 | low).to_bytes(16, "big")
    bits = int(length)
    head = b"" if path_id is None else struct.pack("!I", path_id)
    return head + bytes([bits + 8 * len(before)]) + before + octets[: (bits + 7) // 8]


def update(attributes: bytes = b"", routes: bytes = b"", withdrawn: bytes = b"") -> bytes:
    """Return a BGP UPDATE."""
    body = struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes))
    return bgp(2, body + attributes + routes)


def reach(afi: int, safi: int, next_hop: bytes, routes: bytes) -> bytes:
    """Return MP_REACH_NLRI."""
    return attribute(14, struct.pack("!HBB", afi, safi, len(next_hop)) + next_hop + b"\0" + routes)


def unreach(afi: int, safi: int, routes: bytes = b"") -> bytes:
    """Return MP_UNREACH_NLRI."""
    return attribute(15, struct.pack("!HB", afi, safi) + routes)


def open_message(number: int, *capabilities: bytes) -> bytes:
    """Return a BGP OPEN with these capabilities and the four-octet AS number."""
    every = b"".join(capabilities) + b"\x41\x04" + struct.pack("!I", number)
    parameter = bytes([2, len(every)]) + every
    head = struct.pack("!BHHI", 4, min(number, 23456), 180, 0x0A000001)
    return bgp(1, head + bytes([len(parameter)]) + parameter)


def add_path(way: int, afi: int = 1, safi: int = 1) -> bytes:
    """Return the capability ADD-PATH: 1 receive, 2 send, 3 both."""
    return b"\x45\x04" + struct.pack("!HBB", afi, safi, way)


def bmp(kind: int, body: bytes, version: int = 3) -> bytes:
    """Return a BMP message."""
    return struct.pack("!BIB", version, 6 + len(body), kind) + body


def header(
    peer: str = PEER,
    *,
    kind: int = 0,
    flags: int = 0,
    distinguisher: int = 0,
    number: int = 64500,
    time_s: int = START_NS // 10**9,
) -> bytes:
    """Return a per-peer header."""
    if kind == 3:
        address = bytes(16)
    elif ":" in peer:
        high, low = address_pair(peer)
        address, flags = (high << 64 | low).to_bytes(16, "big"), flags | 0x80
    else:
        address = bytes(12) + address_pair(peer)[1].to_bytes(8, "big")[4:]
    head = struct.pack("!BBQ", kind, flags, distinguisher) + address
    return head + struct.pack("!IIII", number, 0x0A000001, time_s, 0)


def initiation(name: str = "ams1") -> bytes:
    """Return an Initiation message."""
    text = name.encode()
    return bmp(4, struct.pack("!HH", 1, 2) + b"os" + struct.pack("!HH", 2, len(text)) + text)


def termination(reason: int = 0) -> bytes:
    """Return a Termination message."""
    return bmp(5, struct.pack("!HHH", 1, 2, reason))


def peer_up(
    peer: str = PEER,
    sent: bytes | None = None,
    received: bytes | None = None,
    local: str = "",
    **more: Any,
) -> bytes:
    """Return a Peer Up message."""
    near = ipaddress.ip_address(local).packed.rjust(16, b"\0") if local else bytes(16)
    ports = near + struct.pack("!HH", 179, 40000)
    opens = (sent or open_message(64999)) + (received or open_message(64500))
    return bmp(3, header(peer, **more) + ports + opens)


def peer_down(peer: str = PEER, reason: bytes = b"\x04", **more: Any) -> bytes:
    """Return a Peer Down message."""
    return bmp(2, header(peer, **more) + reason)


def monitoring(message: bytes, peer: str = PEER, **more: Any) -> bytes:
    """Return a Route Monitoring message."""
    return bmp(0, header(peer, **more) + message)


def statistics(*numbers: tuple[int, bytes], peer: str = PEER, **more: Any) -> bytes:
    """Return a Statistics Report of (type, value)."""
    body = b"".join(struct.pack("!HH", kind, len(value)) + value for kind, value in numbers)
    return bmp(1, header(peer, **more) + struct.pack("!I", len(numbers)) + body)


def make_decoder(**options: Any) -> BmpDecoder:
    """Return a decoder with its own metrics (`decoder.metrics`, for tests)."""
    context = make_context("collectors.edge-bmp")
    made = BmpDecoder(BmpOptions(**options), context)
    made.metrics = context.metrics  # type: ignore[attr-defined]
    return made


def chunks(
    parts: Iterable[bytes],
    *,
    router: str = "203.0.113.1",
    port: int = 4000,
    start_ns: int = START_NS,
    step_ns: int = 1_000_000,
) -> DatagramBlock:
    """Return chunks of one connection as a block; an empty one ends it."""
    high, low = address_pair(router)
    return pack(
        [
            Datagram(start_ns + i * step_ns, high, low, port, 11019, part)
            for i, part in enumerate(parts)
        ]
    )
