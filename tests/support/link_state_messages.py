"""BGP-LS made by hand: descriptors, NLRI and attributes as the standard has them."""

import ipaddress
import struct

from tests.support.bmp_messages import as_path, attribute, reach, unreach, update

BASE = attribute(1, b"\0") + attribute(2, as_path(64500, 64501))
HOP = bytes((10, 0, 0, 1))
ISIS_L1, ISIS_L2, OSPF, DIRECT, OSPF3 = 1, 2, 3, 4, 6


def tlv(kind: int, value: bytes) -> bytes:
    """Return a TLV."""
    return struct.pack("!HH", kind, len(value)) + value


def address(text: str) -> bytes:
    """Return an address as octets."""
    return ipaddress.ip_address(text).packed


def router(text: str) -> bytes:
    """Return an IGP router id: of OSPF `10.0.0.1`, `10.0.0.1:192.0.2.1`, of IS-IS `1921.6800.1001`."""
    if text.count(".") < 3:
        return bytes.fromhex(text.replace(".", ""))
    if len(text.replace(".", "")) == 14 and ":" not in text:
        return bytes.fromhex(text.replace(".", ""))
    return b"".join(address(part) for part in text.split(":"))


def node(igp: str, *, number: int = 64500, area: int | None = None) -> bytes:
    """Return descriptors of a node."""
    made = tlv(512, struct.pack("!I", number)) + tlv(513, struct.pack("!I", 0))
    if area is not None:
        made += tlv(514, struct.pack("!I", area))
    return made + tlv(515, router(igp))


def nlri(kind: int, value: bytes, *, protocol: int = ISIS_L2, instance: int = 0) -> bytes:
    """Return a NLRI: 1 node, 2 link, 3 and 4 prefixes."""
    return tlv(kind, struct.pack("!BQ", protocol, instance) + value)


def node_nlri(igp: str, *, protocol: int = ISIS_L2, area: int | None = None) -> bytes:
    """Return a node."""
    return nlri(1, tlv(256, node(igp, area=area)), protocol=protocol)


def link_nlri(
    one: str, other: str, *descriptors: bytes, protocol: int = ISIS_L2, area: int | None = None
) -> bytes:
    """Return a link from one node to another."""
    ends = tlv(256, node(one, area=area)) + tlv(257, node(other, area=area))
    return nlri(2, ends + b"".join(descriptors), protocol=protocol)


def over(one: str, other: str) -> bytes:
    """Return link descriptors: the addresses of both ends."""
    first = 259 if "." in one else 261
    return tlv(first, address(one)) + tlv(first + 1, address(other))


def prefix_nlri(igp: str, text: str, *, protocol: int = ISIS_L2) -> bytes:
    """Return a prefix that a node has."""
    net = ipaddress.ip_network(text)
    octets = net.network_address.packed[: (net.prefixlen + 7) // 8]
    reached = tlv(265, bytes([net.prefixlen]) + octets)
    return nlri(3 if net.version == 4 else 4, tlv(256, node(igp)) + reached, protocol=protocol)


def bandwidth(kind: int, bits_per_second: float) -> bytes:
    """Return a bandwidth, bytes per second as a float."""
    return tlv(kind, struct.pack("!f", bits_per_second / 8))


def stated(objects: bytes, *attributes: bytes, safi: int = 71) -> bytes:
    """Return an UPDATE that states objects."""
    told = attribute(29, b"".join(attributes), 0x80) if attributes else b""
    return update(BASE + told + reach(16388, safi, HOP, objects))


def withdrawn(objects: bytes, safi: int = 71) -> bytes:
    """Return an UPDATE that withdraws objects."""
    return update(unreach(16388, safi, objects))
