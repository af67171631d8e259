"""Route monitoring built from the standards, each next to what tshark 4.0 reads in the same octets.

Families, next hops, labels, distinguishers and AS paths in the forms that routers send them. What tshark
shows no number for (BGP-LS and others that are no routes or that we count and leave) has no rows.
"""

import struct

import pytest

from collectors.bmp.bgp import distinguisher_text
from collectors.bmp.bgp_updates import FAMILIES, FAMILY_NAMES
from telemetry.identity import address_pair, address_text
from tests.support.bmp_messages import (
    as_path,
    attribute,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    peer_up,
    prefix,
    reach,
    unreach,
    update,
    usual,
)  # fmt: skip
from tocsin.testing.rows import rows_of

V4_HOP = bytes((10, 0, 0, 1))
BASE = attribute(1, b"\0") + attribute(2, as_path(64500, 64501))
RD0 = struct.pack("!HHI", 0, 64500, 94)
RD1 = struct.pack("!H4sH", 1, bytes((192, 0, 2, 1)), 7)
RD2 = struct.pack("!HIH", 2, 4_200_000_000, 9)
ESI, TAG, MAC = bytes(10), struct.pack("!I", 100), bytes.fromhex("02aabbccddee")
MAC_LENGTH = b"\x30"
HOST = bytes((192, 0, 2, 9))


def v6(text: str) -> bytes:
    high, low = address_pair(text)
    return (high << 64 | low).to_bytes(16, "big")


def label(value: int, bottom: int = 1) -> bytes:
    return struct.pack("!I", value << 4 | bottom)[1:]


def evpn(kind: int, body: bytes, hop: bytes = V4_HOP) -> bytes:
    return update(BASE + reach(25, 70, hop, bytes((kind, len(body))) + body))


def labelled(*labels: bytes) -> bytes:
    return update(BASE + reach(1, 4, V4_HOP, prefix("10.9.0.0/16", before=b"".join(labels))))


def path(value: bytes, *more: bytes) -> bytes:
    attributes = attribute(1, b"\0") + attribute(2, value) + attribute(3, V4_HOP)
    return update(attributes + b"".join(more), prefix("198.51.100.0/24"))


CASES = {
    "two routes": (
        update(usual(), prefix("198.51.100.0/24") + prefix("0.0.0.0/0")),
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 64501/2",
        "ipv4 0.0.0.0/0 via 10.0.0.1 as 64501/2",
    ),
    "withdrawn and announced": (
        update(usual(), prefix("198.51.100.0/25"), prefix("203.0.113.128/26")),
        "-ipv4 203.0.113.128/26",
        "ipv4 198.51.100.0/25 via 10.0.0.1 as 64501/2",
    ),
    "communities of all sizes, AIGP, only-to-customer": (
        path(
            as_path(64500), attribute(8, struct.pack("!HH", 64500, 1)), attribute(16, bytes(8)),
            attribute(32, struct.pack("!III", 1, 2, 3)),
            attribute(26, b"\1\0\x0b" + bytes(8), 0x80),
            attribute(35, struct.pack("!I", 64500), 0xC0),
        ),
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 64500/1",
    ),
    "IPv6, global and link-local next hop": (
        update(BASE + reach(2, 1, v6("2001:db8::1") + v6("fe80::1"), prefix("2001:db8:1::/48"))),
        "ipv6 2001:db8:1::/48 via 2001:db8::1 as 64501/2",
    ),
    "IPv6 default route": (
        update(BASE + reach(2, 1, v6("2001:db8::1"), prefix("::/0"))),
        "ipv6 ::/0 via 2001:db8::1 as 64501/2",
    ),
    "IPv6 withdrawn": (update(unreach(2, 1, prefix("2001:db8:1::/48"))), "-ipv6 2001:db8:1::/48"),
    "IPv4 over an IPv6 next hop (RFC 8950)": (
        update(BASE + reach(1, 1, v6("2001:db8::1"), prefix("198.51.100.0/24"))),
        "ipv4 198.51.100.0/24 via 2001:db8::1 as 64501/2",
    ),
    "IPv4 and IPv6 in one message": (
        update(
            BASE + attribute(3, V4_HOP)
            + reach(2, 1, v6("2001:db8::1"), prefix("2001:db8:1::/48")),
            prefix("198.51.100.0/24"),
        ),
        "ipv6 2001:db8:1::/48 via 2001:db8::1 as 64501/2",
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 64501/2",
    ),
    "IPv4 multicast": (
        update(BASE + reach(1, 2, V4_HOP, prefix("198.51.100.0/24"))),
        "ipv4-multicast 198.51.100.0/24 via 10.0.0.1 as 64501/2",
    ),
    "VPN, distinguishers of all types": (
        update(
            BASE + reach(
                1, 128, bytes(8) + V4_HOP,
                prefix("10.1.0.0/16", before=label(16) + RD0)
                + prefix("10.2.0.0/16", before=label(17) + RD1)
                + prefix("10.3.0.0/24", before=label(18) + RD2),
            )
        ),
        "vpnv4 64500:94 10.1.0.0/16 label 16 via 10.0.0.1 as 64501/2",
        "vpnv4 192.0.2.1:7 10.2.0.0/16 label 17 via 10.0.0.1 as 64501/2",
        "vpnv4 4200000000:9 10.3.0.0/24 label 18 via 10.0.0.1 as 64501/2",
    ),
    "VPN withdrawn with 0x800000 for a label": (
        update(unreach(1, 128, prefix("10.1.0.0/16", before=b"\x80\0\0" + RD0))),
        "-vpnv4 64500:94 10.1.0.0/16",
    ),
    "VPN withdrawn with 0 for a label": (
        update(unreach(1, 128, prefix("10.1.0.0/16", before=bytes(3) + RD0))),
        "-vpnv4 64500:94 10.1.0.0/16",
    ),
    "VPN, IPv6 behind an IPv4 core": (
        update(
            BASE + reach(
                2, 128, bytes(8) + v6("::ffff:10.0.0.1"),
                prefix("2001:db8:5::/48", before=label(20) + RD0),
            )
        ),
        "vpnv6 64500:94 2001:db8:5::/48 label 20 via 10.0.0.1 as 64501/2",
    ),
    "a stack of two labels": (
        labelled(label(100, 0), label(200)),
        "ipv4-labelled 10.9.0.0/16 label 100 via 10.0.0.1 as 64501/2",
    ),
    "explicit null": (labelled(label(0)), "ipv4-labelled 10.9.0.0/16 via 10.0.0.1 as 64501/2"),
    "6PE": (
        update(
            BASE
            + reach(2, 4, v6("::ffff:10.0.0.1"), prefix("2001:db8:7::/48", before=label(2)))
        ),
        "ipv6-labelled 2001:db8:7::/48 label 2 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 1, Ethernet segment": (
        evpn(1, RD1 + ESI + TAG + label(1000)),
        "evpn 192.0.2.1:7 type 1 ::/0 label 1000 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 2, MAC with an IPv6 address": (
        evpn(2, RD1 + ESI + TAG + MAC_LENGTH + MAC + b"\x80" + v6("2001:db8::9") + label(1000)),
        "evpn 192.0.2.1:7 type 2 2001:db8::9/128 mac 02aabbccddee label 1000 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 2, MAC with an address and two labels": (
        evpn(2, RD1 + ESI + TAG + MAC_LENGTH + MAC + b"\x20" + HOST + label(1000) + label(2000)),
        "evpn 192.0.2.1:7 type 2 192.0.2.9/32 mac 02aabbccddee label 1000 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 2 withdrawn": (
        update(
            unreach(25, 70, bytes((2, 33)) + RD1 + ESI + TAG + MAC_LENGTH + MAC + b"\0" + label(0))
        ),
        "-evpn 192.0.2.1:7 type 2 ::/0 mac 02aabbccddee",
    ),
    "EVPN 3, multicast": (
        evpn(3, RD1 + TAG + b"\x20" + HOST),
        "evpn 192.0.2.1:7 type 3 192.0.2.9/32 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 4, segment": (
        evpn(4, RD1 + ESI + b"\x20" + HOST),
        "evpn 192.0.2.1:7 type 4 192.0.2.9/32 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 5, IPv4 prefix": (
        evpn(5, RD1 + ESI + TAG + b"\x18" + bytes((192, 0, 2, 0)) + bytes(4) + label(5000)),
        "evpn 192.0.2.1:7 type 5 192.0.2.0/24 label 5000 via 10.0.0.1 as 64501/2",
    ),
    "EVPN 5, IPv6 prefix": (
        evpn(
            5, RD1 + ESI + TAG + b"\x40" + v6("2001:db8:a::") + bytes(16) + label(5000),
            v6("2001:db8::1"),
        ),
        "evpn 192.0.2.1:7 type 5 2001:db8:a::/64 label 5000 via 2001:db8::1 as 64501/2",
    ),
    "EVPN 6, multicast of hosts (RFC 9251)": (
        evpn(6, RD1 + TAG + b"\0\x20\xef\1\1\1\x20" + V4_HOP + b"\2"),
        "evpn 192.0.2.1:7 type 6 ::/0 via 10.0.0.1 as 64501/2",
    ),
    "flowspec": (
        update(BASE + reach(1, 133, b"", b"\5\1\x18\xc6\x33\x64")),
        "ipv4-flowspec 198.51.100.0/24 via :: as 64501/2",
    ),
    "flowspec of a VPN": (
        update(BASE + reach(1, 134, b"", b"\x0d" + RD0 + b"\1\x18\xc6\x33\x64")),
        "vpnv4-flowspec 64500:94 198.51.100.0/24 via :: as 64501/2",
    ),
    "BGP-LS": (
        update(BASE + reach(16388, 71, V4_HOP, b"\0\1\0\x0d\2" + bytes(8) + b"\1\0\0\0")),
    ),
    "route target constraint": (
        update(BASE + reach(1, 132, V4_HOP, b"\x60" + struct.pack("!I", 64500) + RD0)),
    ),
    "multicast VPN": (update(BASE + reach(1, 5, V4_HOP, b"\1\x0c" + RD0 + V4_HOP)),),
    "VPLS": (
        update(BASE + reach(25, 65, V4_HOP, b"\0\x11" + RD0 + b"\0\1\0\1\0\x08" + label(8000))),
    ),
    "segment routing policy": (
        update(BASE + reach(1, 73, V4_HOP, b"\x60" + struct.pack("!II", 1, 100) + V4_HOP)),
    ),
    "End-of-RIB": (update(),),
    "End-of-RIB of EVPN": (update(unreach(25, 70)),),
    "a set at the end: no one origin": (
        path(as_path(64500, 64501) + as_path(65001, 65002, kind=1)),
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 0/3",
    ),
    "a confederation counts nothing": (
        path(as_path(65100, 65101, kind=3) + as_path(64501)),
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 64501/1",
    ),
    "200 ASes": (
        path(as_path(*range(64512, 64712))),
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 64711/200",
    ),
    "no AS: the peer's own": (path(b""), "ipv4 198.51.100.0/24 via 10.0.0.1 as 64500/0"),
    "an attribute with a length of two octets": (
        update(
            b"\x50\1\0\1\0" + attribute(2, as_path(64500)) + attribute(3, V4_HOP),
            prefix("198.51.100.0/24"),
        ),
        "ipv4 198.51.100.0/24 via 10.0.0.1 as 64500/1",
    ),
    "bits behind the prefix": (
        update(usual(), b"\x14\xc6\x33\xff"), "ipv4 198.51.240.0/20 via 10.0.0.1 as 64501/2",
    ),
    "a prefix of 33 bits": (update(usual(), b"\x21\xc6\x33\x64\0\0"),),
}  # fmt: skip
# The same route by what the per-peer header says: its flags, the peer's type and address.
HEADERS = {
    "before policy": ({}, 0),
    "after policy": ({"flags": 0x40}, 1),
    "sent, before policy (RFC 8671)": ({"flags": 0x10}, 2),
    "sent, after policy (RFC 8671)": ({"flags": 0x50}, 3),
    "Loc-RIB (RFC 9069)": ({"kind": 3}, 4),
    "a VPN's instance": ({"kind": 1, "distinguisher": int.from_bytes(RD0, "big")}, 0),
    "a peer with an IPv6 address": ({"peer": "2001:db8::2"}, 0),
}


def words(row: dict[str, int]) -> str:
    """Return a route as the tables above have it."""
    family = FAMILY_NAMES[FAMILIES.index((row["afi"], row["safi"]))]
    parts = [f"-{family}" if row["withdrawn"] else family]
    parts += [text for text in (distinguisher_text(row["route_distinguisher"]),) if text]
    if row["evpn_route_type"]:
        parts.append(f"type {row['evpn_route_type']}")
    parts.append(f"{address_text(row['prefix_high'], row['prefix_low'])}/{row['prefix_length']}")
    if row["mac_address"]:
        parts.append(f"mac {row['mac_address']:012x}")
    if row["mpls_label"]:
        parts.append(f"label {row['mpls_label']}")
    if not row["withdrawn"]:
        hop = address_text(row["next_hop_address_high"], row["next_hop_address_low"])
        parts.append(f"via {hop} as {row['origin_as']}/{row['as_path_length']}")
    return " ".join(parts)


@pytest.mark.parametrize("name", CASES)
def test_routes_are_those_that_tshark_reads(name: str) -> None:
    message, *expected = CASES[name]
    batches = make_decoder().decode(chunks([initiation() + peer_up() + monitoring(message)]))
    assert [words(row) for row in rows_of(batches, "route")] == expected


@pytest.mark.parametrize("name", HEADERS)
def test_the_table_that_a_route_is_of(name: str) -> None:
    header, rib = HEADERS[name]
    up = {key: value for key, value in header.items() if key != "flags"}
    route = monitoring(update(usual(), prefix("198.51.100.0/24")), **header)
    batches = make_decoder().decode(chunks([initiation() + peer_up(**up) + route]))
    (row,) = rows_of(batches, "route")
    assert (row["rib"], row["peer_type"]) == (rib, header.get("kind", 0))


def test_two_octet_as_numbers_where_the_header_says_so() -> None:
    attributes = attribute(1, b"\0") + attribute(2, as_path(64500, 23456, width=2))
    attributes += attribute(3, V4_HOP) + attribute(17, as_path(4_200_000_001), 0xC0)
    message = monitoring(update(attributes, prefix("198.51.100.0/24")), flags=0x20)
    batches = make_decoder().decode(chunks([initiation() + peer_up() + message]))
    (row,) = rows_of(batches, "route")
    assert words(row) == "ipv4 198.51.100.0/24 via 10.0.0.1 as 4200000001/2"
