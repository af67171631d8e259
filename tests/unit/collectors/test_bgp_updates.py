"""UPDATEs as rows: families, path ids, AS paths, and what RFC 7606 makes of errors."""

import struct
from typing import Any

import pytest

from telemetry.identity import address_pair, address_text
from tests.support.bmp_messages import (
    add_path,
    as_path,
    attribute,
    bgp,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    open_message,
    peer_up,
    prefix,
    reach,
    unreach,
    update,
    usual,
)
from tocsin.testing.rows import rows_of

RD = struct.pack("!HHI", 0, 64500, 7)
BOTTOM = b"\x00\x10\x01"  # label 256, bottom of stack


def routes(message: bytes, *, flags: int = 0, ways: tuple[bytes, ...] = ()) -> list[dict[str, Any]]:
    """Return the rows of one UPDATE of a peer that agreed on `ways` in both directions."""
    return decoded(message, flags=flags, ways=ways)[0]


def decoded(
    message: bytes, *, flags: int = 0, ways: tuple[bytes, ...] = ()
) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of one UPDATE and the verdict about it."""
    decoder = make_decoder()
    up = peer_up(sent=open_message(64999, *ways), received=open_message(64500, *ways))
    made = decoder.decode(chunks([initiation() + up + monitoring(message, flags=flags)]))
    value = decoder.metrics.value  # type: ignore[attr-defined]
    verdicts = [
        name
        for name in ("ok", "end_of_rib", "treated_as_withdraw", "not_update", "malformed",
                     "other_family")
        if value("collector_bmp_updates_total", verdict=name)
    ]  # fmt: skip
    return rows_of(made, "route"), verdicts[0]


def network(row: dict[str, Any]) -> str:
    return f"{address_text(row['prefix_high'], row['prefix_low'])}/{row['prefix_length']}"


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/23", "198.51.100.7/32"])
def test_ipv4_prefixes_of_any_length(text: str) -> None:
    """Bits beyond the length do not count, set or not."""
    routes_of = [prefix(text)]
    if int(text.partition("/")[2]) % 8:
        routes_of.append(prefix(text)[:-1] + bytes([prefix(text)[-1] | 1]))
    for route in routes_of:
        (row,) = routes(update(usual(), route))
        assert network(row) == text
        assert (row["afi"], row["safi"], row["withdrawn"]) == (1, 1, 0)


@pytest.mark.parametrize("text", ["::/0", "2001:db8::/29", "2001:db8:1:2::/64", "2001:db8::1/128",
                                  "2001:db8:0:0:8000::/65"])  # fmt: skip
def test_ipv6_in_mp_reach_and_unreach(text: str) -> None:
    """A next hop of 32 octets holds a link-local address behind the one that counts."""
    hop = bytes.fromhex("20010db8000000000000000000000001")
    for next_hop in (hop, hop + b"\xfe\x80" + bytes(14)):
        path = usual() + reach(2, 1, next_hop, prefix(text))
        (row,) = routes(update(path))
        assert (network(row), row["withdrawn"], row["afi"]) == (text, 0, 2)
        assert (
            address_text(row["next_hop_address_high"], row["next_hop_address_low"]) == "2001:db8::1"
        )
    (row,) = routes(update(unreach(2, 1, prefix(text))))
    assert (network(row), row["withdrawn"], row["as_path_hash"]) == (text, 1, 0)


def test_labels_and_distinguishers() -> None:
    """Label stacks end at their bottom; a withdrawn route's label says nothing."""
    hop = bytes(8) + bytes([10, 0, 0, 1])
    vpn = usual() + reach(1, 128, hop, prefix("192.0.2.0/24", before=BOTTOM + RD))
    (row,) = routes(update(vpn))
    assert (network(row), row["mpls_label"], row["safi"]) == ("192.0.2.0/24", 256, 128)
    assert row["route_distinguisher"] == int.from_bytes(RD, "big")
    assert address_text(row["next_hop_address_high"], row["next_hop_address_low"]) == "10.0.0.1"
    stack = b"\x00\x20\x00" + BOTTOM
    labelled = usual() + reach(1, 4, hop[8:], prefix("192.0.2.0/24", before=stack))
    (row,) = routes(update(labelled))
    assert (network(row), row["mpls_label"], row["safi"]) == ("192.0.2.0/24", 512, 4)
    for nothing in (b"\x80\x00\x00", b"\x00\x00\x00"):
        (gone,) = routes(update(unreach(1, 128, prefix("192.0.2.0/24", before=nothing + RD))))
        assert (network(gone), gone["withdrawn"], gone["mpls_label"]) == ("192.0.2.0/24", 1, 0)
        assert gone["route_key"] == routes(update(vpn))[0]["route_key"]


ESI, TAG, MAC = bytes(range(10)), struct.pack("!I", 5), bytes.fromhex("02aabbccddee")
EVPN = [
    pytest.param(1, RD + ESI + TAG + BOTTOM, "::/0", 0, id="ethernet-segment-auto-discovery"),
    pytest.param(2, RD + ESI + TAG + b"\x30" + MAC + b"\x00" + BOTTOM, "::/0", 0x02AABBCCDDEE, id="mac"),
    pytest.param(2, RD + ESI + TAG + b"\x30" + MAC + b"\x20" + bytes([192, 0, 2, 9]) + BOTTOM,
                 "192.0.2.9/32", 0x02AABBCCDDEE, id="mac-ip"),
    pytest.param(2, RD + ESI + TAG + b"\x30" + MAC + b"\x80" + bytes(15) + b"\x01" + BOTTOM * 2,
                 "::1/128", 0x02AABBCCDDEE, id="mac-ipv6-two-labels"),
    pytest.param(3, RD + TAG + b"\x20" + bytes([192, 0, 2, 9]), "192.0.2.9/32", 0, id="multicast"),
    pytest.param(4, RD + ESI + b"\x20" + bytes([192, 0, 2, 9]), "192.0.2.9/32", 0, id="segment"),
    pytest.param(5, RD + ESI + TAG + b"\x18" + bytes([192, 0, 2, 0]) + bytes(4) + BOTTOM,
                 "192.0.2.0/24", 0, id="prefix"),
    pytest.param(5, RD + ESI + TAG + b"\x40" + bytes.fromhex("20010db8") + bytes(12) + bytes(16)
                 + BOTTOM, "2001:db8::/64", 0, id="prefix-ipv6"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "text", "mac"), EVPN)
def test_evpn(kind: int, body: bytes, text: str, mac: int) -> None:
    """Each type with its length; one octet more or less is malformed."""
    hop = bytes([10, 0, 0, 1])

    def message(value: bytes) -> bytes:
        return update(usual() + reach(25, 70, hop, bytes([kind, len(value)]) + value))

    (row,) = routes(message(body))
    assert (network(row), row["mac_address"], row["evpn_route_type"]) == (text, mac, kind)
    assert row["route_distinguisher"] == int.from_bytes(RD, "big")
    assert decoded(message(body + b"\0"))[1] == "malformed"
    assert decoded(message(body[:-1]))[1] == "malformed"


def test_an_evpn_route_is_the_same_with_another_label_and_segment() -> None:
    """RFC 7432 section 7.2: label and ESI of a MAC route are no part of its key."""
    hop = bytes([10, 0, 0, 1])
    tail = TAG + b"\x30" + MAC + b"\x00"
    keys = {
        routes(update(usual() + reach(25, 70, hop, bytes([2, 33]) + RD + esi + tail + label)))[0][
            "route_key"
        ]
        for esi, label in ((ESI, BOTTOM), (bytes(10), b"\x00\x30\x01"))
    }
    assert len(keys) == 1


def test_as_paths_hash_alike_in_two_and_four_octets_and_any_segments() -> None:
    """Also where four-octet numbers come as AS_TRANS with AS4_PATH (RFC 6793)."""
    tail = attribute(1, b"\0"), attribute(3, bytes([10, 0, 0, 1]))
    numbers = (64500, 4200000001, 64502)
    whole = tail[0] + attribute(2, as_path(*numbers)) + tail[1]
    cut = tail[0] + attribute(2, as_path(64500) + as_path(*numbers[1:])) + tail[1]
    old = attribute(2, as_path(64500, 23456, 64502, width=2))
    merged = tail[0] + old + tail[1] + attribute(17, as_path(4200000001, 64502))
    rows = [
        routes(update(whole, prefix("192.0.2.0/24")))[0],
        routes(update(cut, prefix("192.0.2.0/24")))[0],
        routes(update(merged, prefix("192.0.2.0/24")), flags=0x20)[0],
    ]
    assert {(r["as_path_hash"], r["as_path_length"], r["origin_as"]) for r in rows} == {
        (rows[0]["as_path_hash"], 3, 64502)
    }
    longer = tail[0] + old + tail[1] + attribute(17, as_path(1, 2, 3, 4))  # longer: is ignored
    row = routes(update(longer, prefix("192.0.2.0/24")), flags=0x20)[0]
    assert (row["as_path_length"], row["origin_as"]) == (3, 64502)
    assert row["as_path_hash"] != rows[0]["as_path_hash"]


def test_as_numbers_wider_than_the_header_says() -> None:
    """Cisco IOS-XR sent paths of two octets under a header that says four (capture 206)."""
    path = attribute(1, b"\0") + attribute(2, as_path(64500, 64501, width=2))
    (row,) = routes(update(path, prefix("192.0.2.0/24")))
    assert (row["as_path_length"], row["origin_as"], row["withdrawn"]) == (2, 64501, 0)


def test_sets_confederations_and_empty_paths() -> None:
    """A set counts one, confederations none; an empty path begins where the peer is."""
    head = attribute(1, b"\0")

    def row(path: bytes) -> dict[str, Any]:
        return routes(update(head + attribute(2, path), prefix("192.0.2.0/24")))[0]

    several = row(as_path(1, 2) + as_path(7, 8, kind=1))
    assert (several["as_path_length"], several["origin_as"]) == (3, 0)
    assert several["as_path_hash"] == row(as_path(1, 2) + as_path(8, 7, kind=1))["as_path_hash"]
    assert row(as_path(1) + as_path(7, kind=1))["origin_as"] == 7
    assert row(as_path(65001, kind=3) + as_path(1))["as_path_length"] == 1
    assert (row(b"")["as_path_length"], row(b"")["origin_as"]) == (0, 64500)


def test_communities_in_any_order_are_the_same() -> None:
    """Standard, extended and large ones all count."""

    def key(*more: bytes) -> int:
        found: int = routes(update(usual((1,), *more), prefix("192.0.2.0/24")))[0][
            "communities_hash"
        ]
        return found

    a, b = b"\0\1\0\2", b"\0\3\0\4"
    assert key(attribute(8, a + b)) == key(attribute(8, b + a)) != key(attribute(8, a))
    assert (
        len({key(), key(attribute(32, a * 3)), key(attribute(16, a * 2)), key(attribute(8, a))})
        == 4
    )


def test_numbers_of_a_route() -> None:
    """MED and local preference, and whether they are there at all."""
    more = attribute(4, struct.pack("!I", 70)), attribute(5, struct.pack("!I", 200))
    (row,) = routes(update(usual((1,), *more), prefix("192.0.2.0/24")))
    assert (row["multi_exit_discriminator"], row["local_preference"], row["attributes"]) == (
        70,
        200,
        3,
    )
    (row,) = routes(update(usual((1,)), prefix("192.0.2.0/24")))
    assert row["attributes"] == 0


@pytest.mark.parametrize("path_id", [1, 0x01020304])
def test_path_ids_where_both_sides_agreed(path_id: int) -> None:
    """RFC 7911: by the two OPEN messages of the peer."""
    message = update(usual(), prefix("192.0.2.0/24", path_id) + prefix("10.0.0.0/8", path_id + 1))
    rows = routes(message, ways=(add_path(3),))
    assert [(network(r), r["path_id"]) for r in rows] == [
        ("192.0.2.0/24", path_id), ("10.0.0.0/8", path_id + 1),
    ]  # fmt: skip
    # Agreed for another family only: then these are no path ids, and nonsense as routes.
    assert decoded(message, ways=(add_path(3, 2, 1),))[1] in ("malformed", "ok")
    one_way = make_decoder()
    up = peer_up(sent=open_message(1, add_path(1)), received=open_message(2, add_path(2)))
    plain = update(usual(), prefix("192.0.2.0/24"))
    made = one_way.decode(chunks([up + monitoring(message) + monitoring(plain, flags=0x10)]))
    found = [(network(r), r["path_id"], r["rib"]) for r in rows_of(made, "route")]
    assert found == [
        ("192.0.2.0/24", path_id, 0), ("10.0.0.0/8", path_id + 1, 0), ("192.0.2.0/24", 0, 2),
    ]  # fmt: skip


def test_path_ids_of_a_peer_that_nobody_told_us_of() -> None:
    """Picked up in the middle: by what can be read, and never as default routes out of nothing."""
    decoder = make_decoder()
    marked = update(usual(), prefix("192.0.2.0/24", 1) + prefix("198.51.100.0/24", 2))
    plain = update(usual(), prefix("192.0.2.0/24") + prefix("0.0.0.0/0"))
    made = decoder.decode(chunks([monitoring(marked) + monitoring(plain)]))
    assert [(network(r), r["path_id"]) for r in rows_of(made, "route")] == [
        ("192.0.2.0/24", 1), ("198.51.100.0/24", 2), ("192.0.2.0/24", 0), ("0.0.0.0/0", 0),
    ]  # fmt: skip


ONE = prefix("192.0.2.0/24")
WITHDRAWN = [
    pytest.param(attribute(1, b"\3") + attribute(2, as_path(1)), id="origin-beyond-incomplete"),
    pytest.param(attribute(1, b"\0\0") + attribute(2, as_path(1)), id="origin-of-two-octets"),
    pytest.param(attribute(1, b"\0") + attribute(2, as_path(1, 2)[:-1]), id="as-path-cut"),
    pytest.param(attribute(1, b"\0") + attribute(2, b"\2\0"), id="as-path-empty-segment"),
    pytest.param(attribute(1, b"\0") + attribute(2, b"\5\1\0\0\0\1"), id="as-path-segment-type"),
    pytest.param(attribute(1, b"\0") + attribute(2, as_path(1)) + attribute(3, b"\1\2\3"),
                 id="next-hop-of-three-octets"),
    pytest.param(usual((1,), attribute(4, b"\1")), id="med-of-one-octet"),
    pytest.param(usual((1,), attribute(5, b"\1")), id="preference-of-one-octet"),
    pytest.param(usual((1,), attribute(8, b"\1\2\3")), id="community-of-three-octets"),
    pytest.param(usual((1,), attribute(8, b"")), id="communities-empty"),
    pytest.param(usual((1,), attribute(16, b"\1\2\3\4")), id="extended-community-of-four"),
    pytest.param(usual((1,), attribute(32, b"\1\2\3\4")), id="large-community-of-four"),
    pytest.param(usual((1,), attribute(9, b"\1")), id="originator-of-one-octet"),
    pytest.param(usual((1,), attribute(10, b"\1")), id="cluster-list-of-one-octet"),
    pytest.param(attribute(1, b"\0", 0xC0) + attribute(2, as_path(1)), id="origin-optional"),
    pytest.param(attribute(1, b"\0"), id="no-as-path"),
    pytest.param(attribute(2, as_path(1)), id="no-origin"),
    pytest.param(usual((1,)) + b"\xc0\x63\x09\x00", id="attribute-beyond-the-attributes"),
]  # fmt: skip


@pytest.mark.parametrize("attributes", WITHDRAWN)
def test_treat_as_withdraw(attributes: bytes) -> None:
    """RFC 7606 section 7: the attribute is wrong, the route can be told, so it is withdrawn."""
    rows, verdict = decoded(update(attributes, ONE))
    assert verdict == "treated_as_withdraw"
    assert [(network(r), r["withdrawn"], r["as_path_length"]) for r in rows] == [
        ("192.0.2.0/24", 1, 0)
    ]


KEPT = [
    pytest.param(usual((1,), attribute(6, b"\1", 0x40)), id="atomic-aggregate-with-a-value"),
    pytest.param(usual((1,), attribute(7, b"\1", 0xC0)), id="aggregator-of-one-octet"),
    pytest.param(usual((1,), attribute(99, b"\1\2\3", 0xC0)), id="unknown"),
    pytest.param(usual((1,)) + attribute(1, b"\3"), id="origin-twice-the-first-counts"),
    pytest.param(attribute(1, b"\0") + attribute(2, as_path(1)), id="no-next-hop"),
]


@pytest.mark.parametrize("attributes", KEPT)
def test_what_is_discarded_or_not_missed(attributes: bytes) -> None:
    """RFC 7606: attribute discard; and IOS-XR leaves NEXT_HOP out of routes of its own."""
    rows, verdict = decoded(update(attributes, ONE))
    assert (verdict, [r["withdrawn"] for r in rows]) == ("ok", [0])


BAD = [
    pytest.param(update(usual(), b"\x21" + bytes(5)), id="ipv4-length-33"),
    pytest.param(update(usual(), b"\x18\xc0\x00"), id="route-cut"),
    pytest.param(update(usual(), ONE, b"\x18\xc0"), id="withdrawn-cut"),
    pytest.param(update(usual() + reach(2, 1, bytes(5), prefix("::/0"))), id="next-hop-of-five"),
    pytest.param(update(usual() + attribute(14, b"\0\1")), id="mp-reach-cut"),
    pytest.param(update(usual() + attribute(15, b"\0\1")), id="mp-unreach-cut"),
    pytest.param(update(usual() + reach(2, 1, bytes(16), b"\x81" + bytes(17))), id="ipv6-129"),
    pytest.param(update(unreach(1, 1) + unreach(1, 1)), id="mp-unreach-twice"),
    pytest.param(update(usual() + reach(1, 128, bytes(12), b"\x17" + bytes(3))), id="label-cut"),
    pytest.param(update(usual() + reach(1, 4, bytes(4), b"\x30\0\x20\0\0\x20\0")), id="no-bottom"),
    pytest.param(bgp(2, b"\0"), id="no-lengths"),
    pytest.param(bgp(2, b"\0\7\0\0"), id="withdrawn-length-beyond"),
    pytest.param(bgp(2, b"\0\0\0\7"), id="attribute-length-beyond"),
]


@pytest.mark.parametrize("message", BAD)
def test_where_routes_cannot_be_told_there_are_none(message: bytes) -> None:
    """RFC 7606 would end the session; we count the message and invent nothing."""
    assert decoded(message) == ([], "malformed")


def test_end_of_rib_other_messages_and_families() -> None:
    """None of them has rows; each has a verdict of its own."""
    assert decoded(update()) == ([], "end_of_rib")
    assert decoded(update(unreach(2, 1))) == ([], "end_of_rib")
    assert decoded(bgp(4, b"")) == ([], "not_update")
    route_targets = reach(1, 132, b"", b"\x00")
    assert decoded(update(usual() + route_targets)) == ([], "other_family")
    assert decoded(update(usual())) == ([], "ok")


def test_withdrawals_come_before_announcements() -> None:
    """Four lists in one message, in an order that leaves what was announced last."""
    hop = address_pair("2001:db8::1")
    v6 = (hop[0] << 64 | hop[1]).to_bytes(16, "big")
    message = update(
        usual() + reach(2, 1, v6, prefix("2001:db8::/32")) + unreach(2, 1, prefix("2001:db9::/32")),
        ONE,
        prefix("10.0.0.0/8"),
    )
    assert [(network(r), r["withdrawn"]) for r in routes(message)] == [
        ("10.0.0.0/8", 1), ("2001:db9::/32", 1), ("2001:db8::/32", 0), ("192.0.2.0/24", 0),
    ]  # fmt: skip
