"""BGP-LS: nodes, links and prefixes of an IGP as a router tells of them by BGP. Pure: knows no peers.

Read are the descriptors that name an object, and of its attributes those that a graph of the network needs:
names, router ids, bandwidths, metrics. What else comes (segment routing, delays, flexible algorithms) is
passed over. Blind to path ids.

Source: RFC 9552 (NLRI, attribute), 7752 (before it); IANA BGP-LS parameters; RFC 3630 and 5305 (bandwidths).
"""

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from collectors.bmp.bgp import path_attributes
from collectors.bmp.words import text_of, tlvs

AFI, SAFI, VPN_SAFI = 16388, 71, 72
NODE, LINK, PREFIXES = 1, 2, (3, 4)
PROTOCOLS = {
    1: "isis-l1", 2: "isis-l2", 3: "ospfv2", 4: "direct", 5: "static", 6: "ospfv3", 7: "bgp",
}  # fmt: skip
_MP_REACH, _MP_UNREACH, _LINK_STATE = 14, 15, 29
_LOCAL_NODE, _REMOTE_NODE = 256, 257
_HEAD_BYTES = 9  # protocol and instance

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """One object as a message states or withdraws it."""

    key: bytes  # what the standard makes its identity: the NLRI
    fields: Fields  # `object` is node, link or prefix; `withdrawn` where it is


def read_update(message: bytes) -> list[Statement] | None:
    """Return what a whole UPDATE states of an IGP, None where that cannot be told.

    An attribute that is malformed is left out (RFC 9552 section 8.2.2): its objects stand without it.
    """
    parts = path_attributes(message)
    made: list[Statement] = []
    told = _told(parts.get(_LINK_STATE, b""))
    for kind, withdrawn in ((_MP_UNREACH, True), (_MP_REACH, False)):
        value = parts.get(kind, b"")
        if len(value) < 3 or int.from_bytes(value[:2], "big") != AFI:
            continue
        safi, at = value[2], 3
        if not withdrawn:
            at = 5 + value[3] if len(value) > 3 else len(value)
        found = _objects(value[at:], safi)
        if found is None:
            return None
        for key, fields in found:
            about = {"withdrawn": True} if withdrawn else told.get(fields["object"], {})
            made.append(Statement(key, fields | about))
    return made


def _objects(data: bytes, safi: int) -> list[tuple[bytes, Fields]] | None:
    """Return (identity, descriptors) of a list of NLRI; those of other types are passed over."""
    found = list(tlvs(data))
    if sum(4 + len(value) for _, value in found) != len(data):
        return None
    made = []
    for kind, whole in found:
        value = whole[8:] if safi == VPN_SAFI else whole  # behind the distinguisher
        if kind not in (NODE, LINK, *PREFIXES):
            continue
        fields = _object(kind, value)
        if fields is None:
            return None
        made.append((bytes((safi, kind)) + whole, fields))
    return made


def _object(kind: int, value: bytes) -> Fields | None:
    parts = _whole(value[_HEAD_BYTES:])
    if parts is None or len(value) < _HEAD_BYTES or _LOCAL_NODE not in parts:
        return None
    fields: Fields = {
        "protocol": PROTOCOLS.get(value[0], f"protocol-{value[0]}"),
        "instance": int.from_bytes(value[1:_HEAD_BYTES], "big"),
    }
    node = _node(parts[_LOCAL_NODE])
    if node is None:
        return None
    if kind == NODE:
        return {"object": "node", "node": node} | fields
    if kind == LINK:
        remote = _node(parts.get(_REMOTE_NODE, b""))
        if remote is None or _REMOTE_NODE not in parts:
            return None
        ends = {"object": "link", "local": node, "remote": remote}
        return ends | fields | _read(parts, _LINK_DESCRIPTORS)
    prefix = _prefix(parts.get(265, b""), 6 if kind == PREFIXES[1] else 4)
    if prefix is None:
        return None
    return {"object": "prefix", "node": node, "prefix": prefix} | fields


def _node(data: bytes) -> Fields | None:
    """Return the descriptors of a node; one of a shared medium has `pseudonode`."""
    parts = _whole(data)
    if parts is None:
        return None
    fields = _read(parts, _NODE_DESCRIPTORS)
    router = parts.get(515, b"")
    fields["igp_router_id"] = _router_id(router)
    if len(router) in (7, 8):
        fields["pseudonode"] = True
    return fields


def _router_id(value: bytes) -> str:
    """Return an IGP router id as people write it: OSPF's as addresses, IS-IS's in three groups.

    >>> _router_id(bytes.fromhex("19216800100102")), _router_id(bytes((10, 0, 0, 1, 192, 0, 2, 1)))
    ('1921.6800.1001.02', '10.0.0.1:192.0.2.1')
    """
    if len(value) in (4, 8):
        parts = (value[at : at + 4] for at in range(0, len(value), 4))
        return ":".join(str(ipaddress.IPv4Address(part)) for part in parts)
    said = value.hex()
    return ".".join(said[at : at + 4] for at in range(0, len(said), 4))


def _prefix(value: bytes, version: int) -> str | None:
    width = 4 if version == 4 else 16
    bits = value[0] if value else 255
    if bits > 8 * width or len(value) - 1 != (bits + 7) // 8:
        return None
    number = int.from_bytes(value[1:].ljust(width, b"\0"), "big")
    number &= -1 << (8 * width - bits)
    return f"{ipaddress.ip_address(number.to_bytes(width, 'big'))}/{bits}"


def _told(data: bytes) -> dict[str, Fields]:
    """Return what the attribute says of nodes, links and prefixes; nothing where it is malformed."""
    parts = _whole(data)
    if parts is None:
        return {}
    node, link = _read(parts, _NODE_ATTRIBUTES), _read(parts, _LINK_ATTRIBUTES)
    return {"node": node, "link": link, "prefix": _read(parts, _PREFIX_ATTRIBUTES)}


def _whole(data: bytes) -> dict[int, bytes] | None:
    """Return TLVs by type, of two the first; None where they do not fill the room they have."""
    found: dict[int, bytes] = {}
    size = 0
    for kind, value in tlvs(data):
        found.setdefault(kind, value)
        size += 4 + len(value)
    return found if size == len(data) else None


def _read(parts: dict[int, bytes], table: "dict[int, tuple[str, Reader]]") -> Fields:
    """Return what a table has names for; a value of another size than it must have is left out."""
    made = {}
    for kind, (name, reader) in table.items():
        value = reader(parts[kind]) if kind in parts else None
        if value is not None:
            made[name] = value
    return made


Reader = Callable[[bytes], Any]


def _number(value: bytes) -> int | None:
    return int.from_bytes(value, "big") if 0 < len(value) <= 4 else None


def _address(value: bytes) -> str | None:
    return str(ipaddress.ip_address(value)) if len(value) in (4, 16) else None


def _identifiers(value: bytes) -> list[int] | None:
    return list(struct.unpack("!II", value)) if len(value) == 8 else None


def _bits_per_second(value: bytes) -> int | None:
    """Return a bandwidth: on the wire it is in bytes per second, as a float of 32 bits."""
    if len(value) != 4:
        return None
    (said,) = struct.unpack("!f", value)
    return round(8 * said) if 0 <= said < float("inf") else None


_NODE_DESCRIPTORS: dict[int, tuple[str, Reader]] = {
    512: ("as", _number), 513: ("bgp_ls_id", _number), 514: ("area", _number),
    516: ("bgp_router_id", _address), 517: ("member_as", _number),
}  # fmt: skip
_LINK_DESCRIPTORS: dict[int, tuple[str, Reader]] = {
    258: ("identifiers", _identifiers), 259: ("interface", _address), 260: ("neighbor", _address),
    261: ("interface6", _address), 262: ("neighbor6", _address),
}  # fmt: skip
_NODE_ATTRIBUTES: dict[int, tuple[str, Reader]] = {
    1026: ("name", text_of), 1028: ("router_id", _address), 1029: ("router_id6", _address),
}  # fmt: skip
_LINK_ATTRIBUTES: dict[int, tuple[str, Reader]] = {
    1028: ("router_id", _address), 1029: ("router_id6", _address),
    1030: ("remote_router_id", _address), 1031: ("remote_router_id6", _address),
    1089: ("bits_per_second", _bits_per_second),
    1090: ("reservable_bits_per_second", _bits_per_second), 1092: ("te_metric", _number),
    1095: ("igp_metric", _number), 1098: ("name", text_of),
}  # fmt: skip
_PREFIX_ATTRIBUTES: dict[int, tuple[str, Reader]] = {1155: ("metric", _number)}
