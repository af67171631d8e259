"""The demo carrier: its file, its paths, and what a cut does to them."""

from pathlib import Path

import numpy as np
import pytest

from runtime.settings import load
from telemetry.errors import ConfigError
from tocsin.demo.network import (
    HOPS_MAX,
    NETWORK_FILE,
    DemoNetwork,
    NetworkFile,
    build,
    load_demo_network,
    write,
)


@pytest.fixture(scope="module")
def network() -> DemoNetwork:
    return load_demo_network()


def test_shipped_file_is_what_build_writes(tmp_path: Path) -> None:
    write(build(), tmp_path / "network.toml")
    assert (tmp_path / "network.toml").read_bytes() == NETWORK_FILE.read_bytes()
    assert load(NETWORK_FILE, NetworkFile, environment={}) == build()


def test_carrier_has_thirty_routers_that_no_single_cut_parts(network: DemoNetwork) -> None:
    assert len(network.names) == 30
    assert {"ams1-fra2"} <= {link.name for link in network.file.link}
    for link in network.file.link:
        paths = network.paths([link.name])
        starts = paths.router[:, 0].reshape(30, 30)
        assert (starts >= 0).all(), f"{link.name} parts the network"


def hops(network: DemoNetwork, a: str, b: str, down: tuple[str, ...] = ()) -> list[str]:
    paths = network.paths(down)
    pair = network.row[a] * len(network.names) + network.row[b]
    return [network.names[node] for node in paths.router[pair] if node >= 0]


def test_paths_are_shortest_by_weight(network: DemoNetwork) -> None:
    """Floyd and Warshall's table, too simple to be wrong, is the judge of every path's length."""
    count = len(network.names)
    best = np.full((count, count), np.inf)
    np.fill_diagonal(best, 0.0)
    weight = {}
    for link in network.file.link:
        a, b = network.row[link.a], network.row[link.b]
        best[a, b] = best[b, a] = weight[a, b] = weight[b, a] = link.weight
    for k in range(count):
        best = np.minimum(best, best[:, k : k + 1] + best[k : k + 1])
    router = network.paths().router
    for pair in range(count * count):
        way = [int(node) for node in router[pair] if node >= 0]
        assert way[0] == pair // count
        assert way[-1] == pair % count
        length = sum(weight[a, b] for a, b in zip(way, way[1:], strict=False))
        assert length == pytest.approx(best[pair // count, pair % count])
        assert len(way) <= HOPS_MAX


def test_interfaces_of_a_hop_are_the_ends_of_its_link(network: DemoNetwork) -> None:
    ends = {}
    for link in network.file.link:
        ends[network.row[link.a], link.a_index] = (network.row[link.b], link.b_index)
        ends[network.row[link.b], link.b_index] = (network.row[link.a], link.a_index)
    paths = network.paths()
    for pair in range(len(paths.router)):
        for hop in range(HOPS_MAX - 1):
            node, after = int(paths.router[pair, hop]), int(paths.router[pair, hop + 1])
            if after < 0:
                break
            end = ends[node, int(paths.egress[pair, hop])]
            assert end == (after, int(paths.ingress[pair, hop + 1]))


def test_a_cut_link_is_on_no_path_and_others_stay(network: DemoNetwork) -> None:
    before, after = hops(network, "ams1", "fra2"), hops(network, "ams1", "fra2", ("ams1-fra2",))
    assert before == ["ams1", "fra2"]
    assert len(after) > 2
    assert hops(network, "mad1", "lis1") == hops(network, "mad1", "lis1", ("ams1-fra2",))


def test_busiest_links_come_first_and_each_once(network: DemoNetwork) -> None:
    used = network.links_used()
    assert len(used) == len(set(used))
    quiet = {link.name for link in network.file.link} - set(used)
    paths = network.paths()
    for name in quiet:  # a link that is not named carries no path at all
        link = next(link for link in network.file.link if link.name == name)
        on = (paths.router == network.row[link.a]) & (paths.egress == link.a_index)
        assert not on.any()


def test_names_of_ends_and_customers(network: DemoNetwork) -> None:
    a, b = network.ends("ams1-fra2")
    assert a.startswith("ams1:et-0/0/")
    assert b.startswith("fra2:et-0/0/")
    first = network.file.prefix[0]
    assert network.customer_interface(first.prefix) == f"{first.router}:xe-1/0/0"


def test_a_network_of_one_router_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text('[[router]]\nname = "ams1"\naddress = "127.1.0.1"\n', "utf-8")
    with pytest.raises(ConfigError, match="two routers"):
        load_demo_network(path)
