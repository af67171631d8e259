"""MRT dumps of BGP (RouteViews, RIPE RIS, FRR, GoBGP, BIRD) as the BMP that a router of these peers would send.

So one decoder reads both: messages that a peer sent are route monitoring, the entries of a table are as well, each as
an UPDATE of its own; a peer comes up before its first message and goes down with its session. What is no BGP
(OSPF, IS-IS), and tables of before 2011 (TABLE_DUMP), is counted and left out.

Source: RFC 6396 (format), 8050 (path ids), 7854 (BMP), draft-ietf-grow-bmp-tlv (version 4, which says of each message
whether its routes carry path ids).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from collectors.bmp.bgp import MARKER, spans
from collectors.bmp.bgp_updates import FAMILY
from collectors.capture.report import CaptureReport
from collectors.datagram import Datagram
from telemetry.errors import DecodeError
from telemetry.identity import V4_MAPPED

HEAD_BYTES = 12
RECORD_BYTES_MAX = 1 << 24
SUBTYPE_MAX = 12  # that a standard names
YEAR_1990, YEAR_2100 = 631_152_000, 4_102_444_800
BMP_PORT = 11019
SECOND_NS = 1_000_000_000

_TABLE2, _BGP, _BGP_FINE = 13, 16, 17  # the last with microseconds
_READ = (_TABLE2, _BGP, _BGP_FINE)
_OTHERS = (11, 12, 32, 33, 48, 49)  # OSPFv2, TABLE_DUMP, ISIS, OSPFv3: known, and left out
# Of TABLE_DUMP_V2: PEER_INDEX_TABLE, RIB_GENERIC, RIB_GENERIC_ADDPATH; RIB_IPV4_UNICAST and those behind it.
_INDEX, _GENERIC, _GENERIC_PATHS = 1, 6, 12
_TABLES = {2: (1, 1), 3: (1, 2), 4: (2, 1), 5: (2, 2)}
_PATHS_BEHIND = 6  # of these tables with path ids
_WITH_PATHS = {_PATHS_BEHIND + table: pair for table, pair in _TABLES.items()}


class _RepeatsError(Exception):
    """A table's record would become many times its own size."""


class _Form(NamedTuple):
    """What a subtype of BGP4MP says of its records."""

    octets: int  # of an AS
    change: bool = False  # of a session's state
    local: bool = False  # a message that the router itself sent
    path_ids: bool = False


_FORMS = {
    0: _Form(2, change=True),  # BGP4MP_STATE_CHANGE
    1: _Form(2),  # BGP4MP_MESSAGE
    4: _Form(4),  # BGP4MP_MESSAGE_AS4
    5: _Form(4, change=True),  # BGP4MP_STATE_CHANGE_AS4
    6: _Form(2, local=True),  # BGP4MP_MESSAGE_LOCAL
    7: _Form(4, local=True),  # BGP4MP_MESSAGE_AS4_LOCAL
    8: _Form(2, path_ids=True),  # BGP4MP_MESSAGE_ADDPATH
    9: _Form(4, path_ids=True),  # BGP4MP_MESSAGE_AS4_ADDPATH
    10: _Form(2, local=True, path_ids=True),  # BGP4MP_MESSAGE_LOCAL_ADDPATH
    11: _Form(4, local=True, path_ids=True),  # BGP4MP_MESSAGE_AS4_LOCAL_ADDPATH
}
_SUBTYPES = {_TABLE2: {_INDEX, _GENERIC, _GENERIC_PATHS, *_TABLES, *_WITH_PATHS},
             _BGP: _FORMS.keys(), _BGP_FINE: _FORMS.keys()}  # fmt: skip
_V6_PEER, _TWO_OCTET_AS, _SENT = 0x80, 0x20, 0x10  # flags of BMP's per-peer header (RFC 7854, 8671)
_ESTABLISHED = 6
_UPDATE, _NEXT_HOP, _MP_REACH = 2, 3, 14
_MESSAGE_BYTES_MAX = 0xFFFF
_AROUND_BYTES = 52  # of an UPDATE around an entry's attributes and route, at most
_FIRST_WITHOUT_HOP = 133  # the first SAFI whose routes need no next hop
# An entry takes 8 bytes and becomes an UPDATE with the whole route in it: of 0.6 MB 4 GB were made. Tables of
# up to so many peers are never near it.
_REPEATED_MAX = 64  # bytes of a route that is repeated, for each byte of its record
_REPEATS = "MRT tables that repeat a long route beyond measure"
_CONTRADICT = "MRT records that contradict themselves"
_EVERY_PATH_ID = b"".join(struct.pack("!HBB", *pair, 3) for pair in FAMILY)


class Readable(Protocol):
    """What octets are read from: a file, a mapped one, or one that is unpacked on the way."""

    def read(self, size: int, /) -> bytes:
        """Return the next octets, fewer at the end."""
        ...


@dataclass(frozen=True, slots=True)
class _Peer:
    address: bytes  # 4 or 16 octets
    autonomous_system: int
    identifier: int = 0

    def header(self, seconds: int, micros: int, flags: int = 0) -> bytes:
        """Return the per-peer header of BMP."""
        flags |= _V6_PEER if len(self.address) == 16 else 0
        return (
            struct.pack("!BBQ", 0, flags, 0)
            + self.address.rjust(16, b"\0")
            + struct.pack("!IIII", self.autonomous_system, self.identifier, seconds, micros)
        )


def looks_like_mrt(head: bytes) -> bool:
    """Whether a file that begins so is an MRT dump, of whatever kind its first record is."""
    if len(head) < HEAD_BYTES:
        return False
    seconds, kind, subtype, size = struct.unpack_from("!IHHI", head)
    return (
        YEAR_1990 < seconds < YEAR_2100
        and kind in (*_READ, *_OTHERS)
        and subtype <= SUBTYPE_MAX
        and 8 <= size <= RECORD_BYTES_MAX
    )


def read_mrt(file: Readable, report: CaptureReport) -> Iterator[Datagram]:
    """Yield the records of a dump as chunks of one BMP connection, in their order."""
    dump = _Dump()
    while head := _next(file, HEAD_BYTES, report):
        if len(head) < HEAD_BYTES:
            report.damage = report.damage or f"the head of record {report.packets + 1} is cut"
            return
        seconds, kind, subtype, size = struct.unpack("!IHHI", head)
        if size > RECORD_BYTES_MAX:
            report.damage = (
                f"record {report.packets + 1} would have {size} bytes: it is damaged there"
            )
            return
        body = _next(file, size, report)
        if len(body) < size:
            report.damage = report.damage or f"record {report.packets + 1} is cut"
            return
        report.packets += 1
        if kind not in _READ:
            report.left_out[f"MRT records of type {kind}"] += 1
            continue
        if subtype not in _SUBTYPES[kind]:
            report.left_out[f"MRT records of type {kind}, subtype {subtype}"] += 1
            continue
        try:
            messages = dump.messages(seconds, kind, subtype, body)
        except (struct.error, IndexError):
            report.undecoded[_CONTRADICT] += 1
            continue
        except _RepeatsError:
            report.undecoded[_REPEATS] += 1
            continue
        for micros, message in messages:
            when = seconds * SECOND_NS + micros * 1000
            yield Datagram(when, *dump.router, 0, BMP_PORT, message, stream=True)


def _next(file: Readable, size: int, report: CaptureReport) -> bytes:
    try:
        return file.read(size)
    except DecodeError as error:
        report.damage = f"{error} behind record {report.packets}"
        return b""
    except (OSError, EOFError, zlib.error):
        report.damage = f"what is packed is damaged behind record {report.packets}"
        return b""


class _Dump:
    """What the records of one file have in common: who dumped it, its peers, and which of them are up."""

    def __init__(self) -> None:
        self.router = (0, 0)
        self._index: list[_Peer] = []
        self._up: set[bytes] = set()

    def messages(
        self, seconds: int, kind: int, subtype: int, body: bytes
    ) -> Iterator[tuple[int, bytes]]:
        """Return (microseconds, BMP message) of one record, made one by one as they are taken.

        A record that contradicts itself raises struct.error or IndexError here, before it changes anything, one
        that would become beyond measure _RepeatsError.
        """
        if kind != _TABLE2:
            micros = 0
            if kind == _BGP_FINE:
                (micros,), body = struct.unpack_from("!I", body), body[4:]
            made = self._session(seconds, micros, _FORMS[subtype], body)
            return ((micros, message) for message in made)
        if subtype == _INDEX:
            self._read_index(body)
            return iter(())
        return ((0, message) for message in self._entries(seconds, subtype, body))

    def _session(self, seconds: int, micros: int, form: _Form, body: bytes) -> list[bytes]:
        """Return what a message of a peer, or a change of its session, is in BMP."""
        width = form.octets
        theirs, _ = struct.unpack_from("!II" if width == 4 else "!HH", body)
        (family,) = struct.unpack_from("!H", body, 2 * width + 2)
        octets, at = 4 if family == 1 else 16, 2 * width + 4
        peer = _Peer(body[at : at + octets], theirs)
        local, rest = body[at + octets : at + 2 * octets], body[at + 2 * octets :]
        if len(local) < octets or len(rest) > _MESSAGE_BYTES_MAX:
            raise IndexError(at)
        before, after = struct.unpack_from("!HH", rest) if form.change else (0, 0)
        if not any(self.router) and any(local):
            self.router = _halves(local)
        flags = _TWO_OCTET_AS if width == 2 else 0
        header = peer.header(seconds, micros, flags)
        if form.change:
            if after == _ESTABLISHED:
                return [self._come_up(peer, header, local)]
            if before == _ESTABLISHED:
                self._up.discard(peer.address)
                return [_bmp(2, header + b"\4")]
            return []
        if len(rest) < 19 or rest[18] != _UPDATE:
            return []  # OPEN, KEEPALIVE, NOTIFICATION: a change of state says as much
        made = [] if peer.address in self._up else [self._come_up(peer, header, local)]
        if form.local:
            header = peer.header(seconds, micros, flags | _SENT)
        return [*made, _monitoring(header, rest, path_ids=form.path_ids)]

    def _come_up(self, peer: _Peer, header: bytes, local: bytes) -> bytes:
        self._up.add(peer.address)
        ends = local.rjust(16, b"\0") + struct.pack("!HH", 0, 0)
        return _bmp(3, header + ends + _open(0) + _open(peer.autonomous_system))

    # ---- tables

    def _read_index(self, body: bytes) -> None:
        collector, name = struct.unpack_from("!IH", body)
        (count,), at = struct.unpack_from("!H", body, 6 + name), 8 + name
        index = []
        for _ in range(count):
            kind, identifier = struct.unpack_from("!BI", body, at)
            octets = 16 if kind & 1 else 4
            address, at = body[at + 5 : at + 5 + octets], at + 5 + octets
            number = "!I" if kind & 2 else "!H"
            (autonomous_system,) = struct.unpack_from(number, body, at)
            at += struct.calcsize(number)
            index.append(_Peer(address, autonomous_system, identifier))
        self.router, self._index = (0, V4_MAPPED | collector), index

    def _entries(self, seconds: int, subtype: int, body: bytes) -> Iterator[bytes]:
        """Return the entries of one route, each as an UPDATE of its peer, after a look at all of them."""
        path_ids = subtype > _GENERIC
        if subtype in (_GENERIC, _GENERIC_PATHS):
            afi, safi = struct.unpack_from("!HB", body, 4)
            start = 7
        else:
            afi, safi = (_TABLES | _WITH_PATHS)[subtype]
            start = 4
        end = start + _route_bytes(body, start, afi, safi)
        route = body[start:end]
        (count,), at = struct.unpack_from("!H", body, end), end + 2
        if count * len(route) > _REPEATED_MAX * len(body):
            raise _RepeatsError
        places = []  # (peer, where its path id and where its attributes begin, where they end)
        for _ in range(count):
            (number,) = struct.unpack_from("!H", body, at)
            begin = at + 6 + 4 * path_ids
            (size,) = struct.unpack_from("!H", body, begin)
            places.append((self._index[number], at + 6, begin + 2, begin + 2 + size))
            at = begin + 2 + size
            if at > len(body) or size + len(route) + _AROUND_BYTES > _MESSAGE_BYTES_MAX:
                raise IndexError(at)

        def updates() -> Iterator[bytes]:
            for peer, at, begin, end in places:
                header = peer.header(seconds, 0)
                if peer.address not in self._up:
                    yield self._come_up(peer, header, b"")
                named = body[at : begin - 2] + route
                update = _update(afi, safi, named, body[begin:end])
                yield _monitoring(header, update, path_ids=path_ids)

        return updates()


def _route_bytes(body: bytes, at: int, afi: int, safi: int) -> int:
    """Return how long the route at a place is, as its family says it."""
    if afi == 16388:  # BGP-LS
        return 4 + int.from_bytes(body[at + 2 : at + 4], "big")
    if safi == 70:  # EVPN
        return 2 + body[at + 1]
    if safi in (133, 134):  # FlowSpec
        wide = body[at] >= 0xF0
        return 2 + ((body[at] & 0x0F) << 8 | body[at + 1]) if wide else 1 + body[at]
    return 1 + (body[at] + 7) // 8


def _update(afi: int, safi: int, route: bytes, attributes: bytes) -> bytes:
    """Return a table's entry as an UPDATE: in tables the next hop alone stands for MP_REACH."""
    kept, hop, plain, at = b"", b"", b"", 0
    for kind, body, end in spans(attributes):
        value = attributes[body:end]
        plain = value if kind == _NEXT_HOP else plain
        if kind != _MP_REACH:
            kept += attributes[at:end]
        elif value and value[0] == len(value) - 1:
            hop = value[1:]
        else:  # some write it whole
            hop = value[4 : 4 + value[3]] if len(value) > 3 else b""
        at = end
    kept += attributes[at:]
    if (afi, safi) == (1, 1) and not hop:
        return _message(kept, route)
    if not hop and safi < _FIRST_WITHOUT_HOP:
        hop = plain[:4] or bytes(16 if afi == 2 else 4)
    value = struct.pack("!HBB", afi, safi, len(hop)) + hop + b"\0" + route
    return _message(kept + struct.pack("!BBH", 0x90, _MP_REACH, len(value)) + value, b"")


def _message(attributes: bytes, routes: bytes) -> bytes:
    body = struct.pack("!HH", 0, len(attributes)) + attributes + routes
    return MARKER + struct.pack("!HB", 19 + len(body), _UPDATE) + body


def _open(autonomous_system: int) -> bytes:
    """Return an OPEN that says who speaks, and that no routes carry path ids."""
    short = min(autonomous_system, 23456) if autonomous_system > 0xFFFF else autonomous_system
    parameter = b"\2\6\x41\4" + struct.pack("!I", autonomous_system)
    body = struct.pack("!BHHIB", 4, short, 180, 0, len(parameter)) + parameter
    return MARKER + struct.pack("!HB", 19 + len(body), 1) + body


def _monitoring(header: bytes, update: bytes, *, path_ids: bool) -> bytes:
    if not path_ids:
        return _bmp(0, header + update)
    stated = bytes((69, len(_EVERY_PATH_ID))) + _EVERY_PATH_ID
    tlvs = ((1, stated), (4, update))
    body = b"".join(struct.pack("!HHH", kind, len(value), 0) + value for kind, value in tlvs)
    return _bmp(0, header + body, version=4)


def _bmp(kind: int, body: bytes, version: int = 3) -> bytes:
    return struct.pack("!BIB", version, 6 + len(body), kind) + body


def _halves(address: bytes) -> tuple[int, int]:
    if len(address) == 4:
        return 0, V4_MAPPED | int.from_bytes(address, "big")
    return int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big")
