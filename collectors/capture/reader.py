"""Capture files as datagram blocks: pcap, pcapng, MRT dumps (`mrt`), and files that hold one payload.

Link types: Ethernet (with VLAN tags, PPPoE), Linux cooked v1 and v2, raw IP, loopback. Fragments are put
together within bounds. TCP gives chunks of its byte streams where the caller hands in
`tcp.TcpStreams`; what else is not UDP is counted and left out. A damaged file gives everything
before the damage, and one sentence. Files are mapped, not read: they may be larger than memory.

Source: pcap and pcapng file formats (draft-ietf-opsawg-pcap, -pcapng); RFC 791, 768, 8200.
"""

import bz2
import gzip
import io
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from collectors.capture.mrt import looks_like_mrt, read_mrt
from collectors.capture.report import CaptureReport
from collectors.datagram import Datagram
from telemetry.errors import DecodeError
from telemetry.identity import V4_MAPPED

if TYPE_CHECKING:
    from collectors.capture.tcp import TcpStreams

FRAGMENTS_MAX = 1024
PACKET_BYTES_MAX = 1 << 20

LATEST_NS = 1 << 62  # a time beyond the year 2116 is damage
LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_LOOP, LINK_COOKED, LINK_COOKED2 = 0, 1, 101, 108, 113, 276
PCAP_MAGIC = (
    b"\xa1\xb2\xc3\xd4",
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x4d\x3c\xb2\xa1",
)
_PACKED: dict[bytes, Callable[[BinaryIO], object]] = {b"\x1f\x8b\x08": gzip.open, b"BZh": bz2.open}
HEAD_BYTES = 64
# Dumps are packed to a tenth, those of quiet collectors to a fiftieth.
UNPACKED_TIMES_MAX, UNPACKED_BYTES_FREE = 100, 64 << 20
_RAW_IP = {LINK_RAW, 12, 14, 228, 229}
PPPOE_SESSION = 0x8864
_PPP = {b"\x00\x21": 0x0800, b"\x00\x57": 0x86DD}
_VLAN = {0x8100, 0x88A8, 0x9100}


@dataclass(slots=True)
class _Interface:
    link_type: int
    ticks_per_second: int = 1_000_000
    offset_seconds: int = 0


@dataclass(slots=True)
class _Unpacking:
    """What is in a packed dump, as long as that is in proportion to what it is packed to."""

    packed: BinaryIO
    unpacked: BinaryIO
    taken: int = 0

    def read(self, size: int, /) -> bytes:
        """Return the next octets; raises DecodeError beyond all proportion."""
        data = self.unpacked.read(size)
        self.taken += len(data)
        most = max(UNPACKED_BYTES_FREE, UNPACKED_TIMES_MAX * self.packed.tell())
        if self.taken > most:
            raise DecodeError("too_large", f"what is packed becomes more than {most} bytes")
        return data


def read_capture(
    path: Path, report: CaptureReport, tcp: "TcpStreams | None" = None
) -> Iterator[Datagram]:
    """Yield the UDP datagrams of a pcap or pcapng file, or the one payload of any other file.

    With `tcp` also chunks of TCP streams, in the same order of time.
    Raises DecodeError only where nothing can be read at all.
    """
    with path.open("rb") as file:
        if (unpacked := _unpacked_dump(file, path)) is not None:
            yield from read_mrt(unpacked, report)
            return
        size = path.stat().st_size if path.is_file() else 0
        if not size:
            yield from parse_capture(file.read(), report, path, tcp)
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from parse_capture(data, report, path, tcp)


def parse_capture(
    data: bytes | mmap.mmap, report: CaptureReport, path: Path, tcp: "TcpStreams | None" = None
) -> Iterator[Datagram]:
    """Yield the datagrams of a file's bytes; `path` is for messages, and `.ipfix` is RFC 5655."""
    magic = data[:4]
    if magic == b"\x0a\x0d\x0d\x0a":
        packets = _pcapng(data, report)
    elif magic in PCAP_MAGIC:
        packets = _pcap(data, report)
    elif looks_like_mrt(data[:HEAD_BYTES]):
        yield from read_mrt(io.BytesIO(data) if isinstance(data, bytes) else data, report)
        return
    elif not len(data):
        raise DecodeError("empty", f"{path} is empty")
    else:
        # A payload alone is one datagram; an RFC 5655 file is IPFIX messages one after the other.
        whole = data[:]
        parts = split_messages(whole) if path.suffix == ".ipfix" else [whole]
        report.packets = len(parts)
        yield from (Datagram(0, 0, V4_MAPPED | 0x7F000001, 0, 0, part) for part in parts)
        return
    fragments = _Fragments(report)
    for link_type, arrival_ns, packet in packets:
        report.packets += 1
        when = arrival_ns if 0 <= arrival_ns < LATEST_NS else 0
        yield from _datagrams(link_type, when, packet, fragments, report, tcp)
    fragments.end()
    if tcp is not None:
        yield from tcp.end()
        if tcp.bytes_missing:
            report.left_out["TCP bytes missing from the capture"] += tcp.bytes_missing


def is_capture(head: bytes) -> bool:
    """Whether a file that begins so is a pcap or pcapng file, or an MRT dump, packed or not."""
    return (
        head[:4] in (*PCAP_MAGIC, b"\x0a\x0d\x0d\x0a")
        or looks_like_mrt(head)
        or head[:3] in _PACKED
    )


def _unpacked_dump(file: BinaryIO, path: Path) -> _Unpacking | None:
    """Return what is in a packed file where that is an MRT dump, as archives have them."""
    made = _PACKED.get(file.read(3))
    file.seek(0)
    if made is None:
        return None
    unpacked = cast("BinaryIO", made(file))
    try:
        head = unpacked.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DecodeError("corrupt", f"what is packed in {path} is damaged: {error}") from error
    if looks_like_mrt(head):
        unpacked.seek(0)
        return _Unpacking(file, unpacked)
    file.seek(0)
    return None


def split_messages(data: bytes) -> list[bytes]:
    """Return the IPFIX messages of a file that holds several, else the data as one."""
    parts, at = [], 0
    while at + 16 <= len(data) and data[at : at + 2] == b"\x00\x0a":
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if size < 16 or at + size > len(data):
            break
        parts.append(data[at : at + size])
        at += size
    if len(parts) < 2:
        return [data]
    return [*parts, data[at:]] if at < len(data) else parts


def _pcap(data: bytes | mmap.mmap, report: CaptureReport) -> Iterator[tuple[int, int, bytes]]:
    order = ">" if data[:2] == b"\xa1\xb2" else "<"
    nanoseconds = b"\x3c\x4d" in (data[2:4], data[0:2][::-1]) or data[:2] == b"\x4d\x3c"
    if len(data) < 24:
        raise DecodeError("corrupt", f"pcap header is cut at byte {len(data)}")
    link_type = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    at = 24
    record = struct.Struct(order + "IIII")
    while at + 16 <= len(data):
        seconds, fraction, captured, _ = record.unpack_from(data, at)
        if captured > PACKET_BYTES_MAX:
            report.damage = f"packet of {captured} bytes at byte {at}: the file is damaged there"
            return
        if at + 16 + captured > len(data):
            report.damage = f"the last packet is cut at byte {len(data)}"
            return
        ns = seconds * 1_000_000_000 + fraction * (1 if nanoseconds else 1000)
        yield link_type, ns, data[at + 16 : at + 16 + captured]
        at += 16 + captured
    if at < len(data):
        report.damage = f"the last packet header is cut at byte {len(data)}"


def _pcapng(data: bytes | mmap.mmap, report: CaptureReport) -> Iterator[tuple[int, int, bytes]]:
    at, order = 0, "<"
    interfaces: list[_Interface] = []
    while at + 12 <= len(data):
        kind = struct.unpack_from(order + "I", data, at)[0]
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = ">" if data[at + 8 : at + 12] == b"\x1a\x2b\x3c\x4d" else "<"
            interfaces = []
            kind = 0x0A0D0D0A
        size = struct.unpack_from(order + "I", data, at + 4)[0]
        if size < 12 or size % 4 or at + size > len(data):
            report.damage = f"block of {size} bytes at byte {at}: the file is cut or damaged there"
            return
        body = data[at + 8 : at + size - 4]
        at += size
        if kind == 1 and len(body) >= 8:
            interfaces.append(_interface(body, order))
        elif kind == 6 and len(body) >= 20:
            number, high, low, captured = struct.unpack_from(order + "IIII", body)
            if number < len(interfaces) and 20 + captured <= len(body):
                face = interfaces[number]
                yield face.link_type, _time_ns(face, high, low), body[20 : 20 + captured]
            else:
                report.left_out["bad packet block"] += 1
        elif kind == 2 and len(body) >= 20:  # the packet block of old files
            number, _, high, low, captured = struct.unpack_from(order + "HHIII", body)
            if number < len(interfaces) and 20 + captured <= len(body):
                face = interfaces[number]
                yield face.link_type, _time_ns(face, high, low), body[20 : 20 + captured]
            else:
                report.left_out["bad packet block"] += 1
        elif kind == 3 and len(body) >= 4 and interfaces:
            captured = min(struct.unpack_from(order + "I", body)[0], len(body) - 4)
            yield interfaces[0].link_type, 0, body[4 : 4 + captured]
    if at < len(data):
        report.damage = f"the last block is cut at byte {len(data)}"


def _time_ns(face: _Interface, high: int, low: int) -> int:
    ticks = high << 32 | low
    return face.offset_seconds * 1_000_000_000 + ticks * 1_000_000_000 // face.ticks_per_second


def _interface(body: bytes, order: str) -> _Interface:
    made = _Interface(struct.unpack_from(order + "H", body)[0])
    at = 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + size]
        if code == 0:
            break
        if code == 9 and value:  # if_tsresol
            power = value[0] & 0x7F
            if power <= 60:
                made.ticks_per_second = 2**power if value[0] & 0x80 else 10**power
        elif code == 14 and size == 8:
            made.offset_seconds = struct.unpack(order + "q", value)[0]
        at += 4 + (size + 3) // 4 * 4
    return made


def _datagrams(
    link_type: int,
    arrival_ns: int,
    packet: bytes,
    fragments: "_Fragments",
    report: CaptureReport,
    tcp: "TcpStreams | None",
) -> Iterator[Datagram]:
    ip = _network_layer(link_type, packet)
    if ip is None or not ip:
        report.left_out["not IP"] += 1
        return
    if ip[0] >> 4 == 4 and len(ip) >= 20:
        found = _ipv4(ip, fragments, report)
    elif ip[0] >> 4 == 6 and len(ip) >= 40:
        found = _ipv6(ip, fragments)
    else:
        report.left_out["not IP"] += 1
        return
    if found is None:
        return
    protocol, high, low, udp = found
    if protocol == 41 and len(udp) >= 40 and udp[0] >> 4 == 6:  # IPv6 in IPv4 (RFC 4213)
        inner = _ipv6(udp, fragments)
        if inner is None:
            return
        protocol, high, low, udp = inner
    if protocol == 6 and tcp is not None:
        yield from tcp.segment(arrival_ns, (high, low), udp)
        return
    if protocol != 17:
        report.left_out["not UDP"] += 1
        return
    if len(udp) < 8:
        report.left_out["cut UDP header"] += 1
        return
    source_port, destination_port, size = struct.unpack_from("!HHH", udp)
    payload = udp[8 : max(size, 8)] if size else udp[8:]
    if size > len(udp):
        report.left_out["datagrams cut short by the capture (what is there was read)"] += 1
    yield Datagram(arrival_ns, high, low, source_port, destination_port, payload)


def _network_layer(link_type: int, packet: bytes) -> bytes | None:
    if link_type == LINK_ETHERNET:
        at = 12
        while at + 2 <= len(packet):
            kind = int.from_bytes(packet[at : at + 2], "big")
            at += 2
            if kind in _VLAN:
                at += 2
                continue
            if kind == PPPOE_SESSION:
                kind = _PPP.get(packet[at + 6 : at + 8], 0)
                at += 8
            return packet[at:] if kind in (0x0800, 0x86DD) else None
        return None
    if link_type == LINK_COOKED:  # the protocol is its last field: from there on it is a frame
        return _network_layer(LINK_ETHERNET, bytes(12) + packet[14:])
    if link_type == LINK_COOKED2:  # here its first, and 20 bytes in all
        return _network_layer(LINK_ETHERNET, bytes(12) + packet[:2] + packet[20:])
    if link_type in (LINK_NULL, LINK_LOOP):
        return packet[4:]
    return packet if link_type in _RAW_IP else None


class _Fragments:
    """Pieces of datagrams until they are whole; the oldest go where there are too many."""

    def __init__(self, report: CaptureReport) -> None:
        self._report = report
        self._pieces: dict[tuple[bytes, bytes, int], dict[int, tuple[bytes, bool]]] = {}

    def add(
        self, key: tuple[bytes, bytes, int], begins: int, body: bytes, more: bool
    ) -> bytes | None:
        """Take a piece; return the datagram once it is whole."""
        if key not in self._pieces and len(self._pieces) >= FRAGMENTS_MAX:
            self._pieces.pop(next(iter(self._pieces)))
            self._lost()
        pieces = self._pieces.setdefault(key, {})
        pieces[begins] = (body, more)
        whole = b""
        for begin in sorted(pieces):
            piece, follows = pieces[begin]
            if begin != len(whole):
                return None
            whole += piece
            if not follows:
                del self._pieces[key]
                return whole
        return None

    def end(self) -> None:
        """Count what is left at the end of the file."""
        for _ in self._pieces:
            self._lost()

    def _lost(self) -> None:
        self._report.left_out["fragments that never became whole"] += 1


# (protocol, source high, source low, what IP carries)
_Carried = tuple[int, int, int, bytes]


def _ipv4(ip: bytes, fragments: _Fragments, report: CaptureReport) -> _Carried | None:
    header = (ip[0] & 15) * 4
    if header < 20:
        report.left_out["not IP"] += 1
        return None
    total = int.from_bytes(ip[2:4], "big")
    body = ip[header : total if header <= total <= len(ip) else len(ip)]
    flags = int.from_bytes(ip[6:8], "big")
    more, begins = bool(flags & 0x2000), (flags & 0x1FFF) * 8
    source = V4_MAPPED | int.from_bytes(ip[12:16], "big")
    if not more and not begins:
        return ip[9], 0, source, body
    key = (ip[12:16], ip[16:20], int.from_bytes(ip[4:6], "big"))
    whole = fragments.add(key, begins, body, more)
    return None if whole is None else (ip[9], 0, source, whole)


def _ipv6(ip: bytes, fragments: _Fragments) -> _Carried | None:
    size = int.from_bytes(ip[4:6], "big")
    ip = ip[: 40 + size] if size else ip  # 0: a jumbogram, or segmentation left to the card
    following, at = ip[6], 40
    piece: tuple[int, bool, int] | None = None
    while following in (0, 43, 44, 60) and at + 8 <= len(ip):
        if following == 44:
            word = int.from_bytes(ip[at + 2 : at + 4], "big")
            piece = (word & 0xFFF8, bool(word & 1), int.from_bytes(ip[at + 4 : at + 8], "big"))
            following, at = ip[at], at + 8
            break  # behind it lies a part of the datagram
        following, at = ip[at], at + (ip[at + 1] + 1) * 8
    source = int.from_bytes(ip[8:24], "big")
    body: bytes | None = ip[at:]
    if piece is not None:
        begins, more, number = piece
        body = fragments.add((ip[8:24], ip[24:40], number), begins, ip[at:], more)
        if body is None:
            return None
    assert body is not None
    return following, source >> 64, source & 0xFFFF_FFFF_FFFF_FFFF, body
