"""The table of prefixes and origins: longest match against a plain one, peers, conflicts, bounds."""

import ipaddress
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.tables.network_map import REFUSED_TABLES, FileNetworkMap
from correlator.tables.routing import PATHS_MAX, RoutingTable
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_pair
from telemetry.schemas import ROUTE

ANNOUNCE, WITHDRAW, END = 0, 1, 2


def route(prefix: str, origin: int = 64500, **more: Any) -> dict[str, Any]:
    """Return a row of schema `route`; `peer` and `router` are addresses."""
    network = ipaddress.ip_network(prefix)
    high, low = address_pair(str(network.network_address))
    peer = address_pair(more.pop("peer", "192.0.2.1"))
    router = address_pair(more.pop("router", "203.0.113.1"))
    return {
        "prefix_high": high, "prefix_low": low, "prefix_length": network.prefixlen,
        "afi": 2 if network.version == 6 else 1, "safi": 1, "origin_as": origin,
        "as_path_length": 2, "change": 1, "peer_address_high": peer[0], "peer_address_low": peer[1],
        "exporter_address_high": router[0], "exporter_address_low": router[1], **more,
    }  # fmt: skip


def gone(prefix: str, **more: Any) -> dict[str, Any]:
    return route(prefix, 0, withdrawn=WITHDRAW, as_path_length=0, **more)


def ended(**more: Any) -> dict[str, Any]:
    return route("0.0.0.0/0", 0, withdrawn=END, safi=0, afi=0, rib=255, **more)


def batch(*rows: dict[str, Any]) -> Batch:
    return batch_from_rows(ROUTE, rows)


def table(*rows: dict[str, Any], **options: Any) -> RoutingTable:
    made = RoutingTable(**options)
    made.learn(batch(*rows))
    return made


def whose(of: RoutingTable, network: str) -> int:
    found = of.origin(network)
    return found.origin_as if found else 0


def test_the_longest_prefix_that_covers() -> None:
    """Of addresses and of networks, in both versions; a shorter one where the longer is gone."""
    made = table(
        route("0.0.0.0/0", 1), route("10.0.0.0/8", 2), route("10.1.0.0/16", 3), route("10.1.1.1/32", 4),
        route("::/0", 5), route("2001:db8::/32", 6), route("2001:db8:0:1::/64", 7),
        route("2001:db8::1/128", 8),
    )  # fmt: skip
    expected = {
        "10.1.1.1": 4, "10.1.1.2": 3, "10.1.0.0/16": 3, "10.0.0.0/9": 2, "10.0.0.0/7": 1, "11.0.0.1": 1,
        "2001:db8::1": 8, "2001:db8::2": 6, "2001:db8:0:1::9": 7, "2001:db8::/48": 6, "2002::": 5,
    }  # fmt: skip
    assert {network: whose(made, network) for network in expected} == expected
    made.learn(batch(gone("10.1.0.0/16"), gone("0.0.0.0/0"), gone("99.0.0.0/8")))
    assert [whose(made, a) for a in ("10.1.1.2", "11.0.0.1", "no address")] == [2, 0, 0]
    found = made.origin("10.1.1.1")
    assert found is not None
    assert (found.prefix, found.peer, found.path_length, found.routes) == (
        "10.1.1.1/32", "203.0.113.1 192.0.2.1", 2, 1,
    )  # fmt: skip


def test_the_best_of_several_and_what_is_left() -> None:
    """Loc-RIB before all, then the shortest path, then the peer heard of first."""
    made = table(
        route("10.0.0.0/8", 1, as_path_length=3),
        route("10.0.0.0/8", 2, peer="192.0.2.2", as_path_length=2),
        route("10.0.0.0/8", 3, peer="192.0.2.3", as_path_length=2),
        route("10.0.0.0/8", 4, peer="::", peer_type=3, rib=4, as_path_length=9),
    )
    assert whose(made, "10.0.0.1") == 4
    made.learn(batch(ended(peer="::", peer_type=3)))
    assert whose(made, "10.0.0.1") == 2
    made.learn(batch(gone("10.0.0.0/8", peer="192.0.2.2")))
    assert whose(made, "10.0.0.1") == 3
    made.learn(batch(ended(peer="192.0.2.3"), ended()))
    assert made.origin("10.0.0.1") is None
    made.learn(batch(route("10.0.0.0/8", 9)))
    assert whose(made, "10.0.0.1") == 9


def test_what_is_left_out() -> None:
    """VPN and multicast routes, and what a router sends: they say nothing of whose an address is."""
    made = table(
        route("10.0.0.0/8", safi=128), route("10.0.0.0/8", safi=2), route("10.0.0.0/8", rib=2),
        route("10.0.0.0/8", rib=3),
    )  # fmt: skip
    assert made.prefixes == 0


def test_origins_of_many_addresses_at_once() -> None:
    """As a join of flow records asks."""
    made = table(route("10.0.0.0/8", 5), route("2001:db8::/32", 6))
    pairs = [address_pair(a) for a in ("10.9.9.9", "11.0.0.0", "2001:db8::9", "::1")]
    high, low = (np.array(half, np.uint64) for half in zip(*pairs, strict=True))
    assert made.origin_as(high, low).tolist() == [5, 0, 6, 0]


def test_contradicting_routes() -> None:
    """Another origin for the same or a more specific prefix; not for what nothing covers."""
    made = table(
        route("0.0.0.0/0", 1),
        route("10.0.0.0/8", 64500),
        route("10.0.0.0/8", 64501, peer="192.0.2.2"),
    )
    routes = batch(
        route("10.0.0.0/8", 64666), route("10.9.0.0/16", 64666, peer="192.0.2.9"),
        route("10.0.0.0/8", 64501), route("10.9.0.0/16", 64500), route("11.0.0.0/8", 7),
        route("10.9.0.0/16", 64666, change=2), route("10.9.0.0/16", 0), gone("10.0.0.0/8"),
    )  # fmt: skip
    rows, known = made.contradicting(routes, np.ones(routes.rows, bool))
    assert rows.tolist() == [0, 1]
    assert known.tolist() == [64500, 64500]
    assert not made.contradicting(routes, np.zeros(routes.rows, bool))[0].size
    made.learn(batch(route("10.0.0.0/8", 0, peer="192.0.2.3")))  # a set: any origin may be in it
    again = batch(route("10.0.0.0/8", 64666))
    assert not made.contradicting(again, np.ones(1, bool))[0].size


PREFIXES = [
    "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.64.0.0/10", "10.64.3.0/24", "10.64.3.7/32",
    "::/0", "2001:db8::/32", "2001:db8::/63", "2001:db8::/64", "2001:db8::/65", "2001:db8::7/128",
]  # fmt: skip
PEERS = ("192.0.2.1", "192.0.2.2", "2001:db8:ffff::1")
ROWS = st.one_of(
    st.tuples(st.just(ANNOUNCE), st.sampled_from(PREFIXES), st.sampled_from(PEERS), st.integers(1, 9),
              st.integers(0, 3), st.integers(0, 1)),
    st.tuples(st.just(WITHDRAW), st.sampled_from(PREFIXES), st.sampled_from(PEERS), st.just(0),
              st.just(0), st.integers(0, 1)),
    st.tuples(st.just(END), st.just(""), st.sampled_from(PEERS), st.just(0), st.just(0), st.just(0)),
)  # fmt: skip


@given(st.lists(ROWS, max_size=60), st.lists(st.integers(0, 60), max_size=3), st.booleans())
def test_as_a_plain_table_has_it(
    rows: list[tuple[int, str, str, int, int, int]], cuts: list[int], again: bool
) -> None:
    """Any rows, any cut into batches, also through a snapshot: a dictionary and a walk over all prefixes."""
    made, plain, first_heard = RoutingTable(), {}, {}  # type: ignore[var-annotated]
    built = []
    for what, prefix, peer, origin, length, path_id in rows:
        first_heard.setdefault(peer, len(first_heard))
        if what == END:
            built.append(ended(peer=peer))
            plain = {key: value for key, value in plain.items() if key[1] != peer}
        elif what == WITHDRAW:
            built.append(gone(prefix, peer=peer, path_id=path_id))
            plain.pop((prefix, peer, path_id), None)
        else:
            built.append(route(prefix, origin, peer=peer, as_path_length=length, path_id=path_id))
            plain[prefix, peer, path_id] = (length, first_heard[peer], path_id, origin)
    edges = [0, *sorted(cut for cut in cuts if cut < len(built)), len(built)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if built[start:stop]:
            made.learn(batch(*built[start:stop]))
        if again:
            kept = Snapshot()
            made.snapshot(kept)
            made = RoutingTable()
            made.restore(kept)
    for wanted in ("10.64.3.7", "10.64.3.8", "10.0.0.1", "11.1.1.1", "2001:db8::7", "2001:db8:0:1::",
                   "2001:db8::8000:0:0:0", "3000::"):  # fmt: skip
        network = ipaddress.ip_network(wanted)
        best: tuple[int, ...] = ()
        for prefix in PREFIXES:
            covering = ipaddress.ip_network(prefix)
            if covering.version != network.version or not network.subnet_of(covering):  # type: ignore[arg-type]
                continue
            routes = [value for key, value in plain.items() if key[0] == prefix]
            if routes and (not best or covering.prefixlen > best[0]):
                best = (covering.prefixlen, min(routes)[3])
        assert whose(made, wanted) == (best[1] if best else 0)


@pytest.mark.parametrize("routes_max", [3000, 100_000])
def test_it_grows_forgets_and_is_bounded(routes_max: int) -> None:
    """20,000 prefixes, then their peer falls and another one's come: what does not fit is counted."""
    made = RoutingTable(routes_max=routes_max)
    for peer in PEERS:
        rows = [route(f"10.{i >> 8}.{i & 255}.0/24", i + 1, peer=peer) for i in range(20_000)]
        made.learn(batch(*rows))
        kept = min(routes_max, 20_000)
        assert made.prefixes == kept
        assert [whose(made, f"10.{i >> 8}.{i & 255}.9") for i in (0, 5, kept - 1)] == [1, 6, kept]
        made.learn(batch(ended(peer=peer)))
        assert made.origin("10.0.0.1") is None
    assert made.refused == 3 * max(0, 20_000 - routes_max)
    assert len(made._source) <= max(routes_max, 32_768)


def test_the_paths_of_one_peer_to_one_prefix_are_bounded_and_counted() -> None:
    """An UPDATE full of path ids of one prefix; other peers, and paths that are known, find room as ever."""
    network = FileNetworkMap()
    routes = [route("::/0", 64500 + n, path_id=n) for n in range(PATHS_MAX + 50)]
    network.learn(batch(*routes, route("::/0", 7, peer="192.0.2.2"), route("::/0", 8, path_id=3)))
    found = network.routing().origin("2a00::1")
    assert found is not None
    assert found.routes == PATHS_MAX + 1
    assert dict(zip(REFUSED_TABLES, network.refused(), strict=True))["routes"] == 50
    network.learn(batch(gone("::/0", path_id=0), route("::/0", 9, path_id=999)))
    assert network.routing().refused == 50


def test_what_a_path_more_costs_does_not_grow_with_those_before_it() -> None:
    """40,000 path ids of one prefix, a megabyte of UPDATEs: each was held against all before it."""
    made, few, many = RoutingTable(), RoutingTable(), 40_000
    made.learn(batch(route("::/0")))  # compiled
    columns = batch(*[route("::/0", path_id=n) for n in range(many)])
    seconds = []
    for table, rows in ((few, many // 8), (made, many)):
        began = time.process_time()
        table.learn(columns.slice(0, rows))
        seconds.append(time.process_time() - began)
    assert seconds[1] < 30 * max(seconds[0], 1e-3)


def test_the_network_map_says_how_an_address_is_routed() -> None:
    """From the first route on, also after a restart; without any it has nothing to say."""
    network, again, none = FileNetworkMap(), FileNetworkMap(), FileNetworkMap()
    empty = Snapshot()
    network.snapshot(empty)
    none.restore(empty)
    assert (network.origin("10.1.2.3"), none.origin("10.1.2.3")) == ("", "")
    network.learn(batch(route("10.0.0.0/8", 64500), route("11.0.0.0/8", 0)))
    kept = Snapshot()
    network.snapshot(kept)
    again.restore(kept)
    for made in (network, again):
        assert made.origin("10.1.2.3") == "AS64500 (10.0.0.0/8)"
        assert made.origin("10.1.0.0/16") == "AS64500 (10.0.0.0/8)"
        assert made.origin("11.0.0.1") == ""
