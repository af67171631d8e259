"""What cuts a network, and what that leaves apart, against a search of all of it; and that it searches little."""

import time
from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from alerting.records.graph import Graph
from tests.support.faults import ring_of_rings

NODES = [f"n{i}" for i in range(9)]
LINKS = st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=14)


def parts(links: dict[str, tuple[str, str]], nodes: Collection[str]) -> list[set[str]]:
    """Return the connected parts, by merging sets."""
    found = [{node} for node in nodes]
    for a, b in links.values():
        if a in nodes and b in nodes:
            joined = [part for part in found if a in part or b in part]
            found = [part for part in found if part not in joined] + [set().union(*joined)]
    return found


def bridges(links: dict[str, tuple[str, str]]) -> set[str]:
    """Return the links without which there is a part more."""
    count = len(parts(links, NODES))
    return {
        name for name in links
        if len(parts({k: v for k, v in links.items() if k != name}, NODES)) > count
    }  # fmt: skip


@given(LINKS, st.sets(st.integers(0, 13)), st.sets(st.sampled_from(NODES), max_size=3))
def test_what_is_cut_off_is_what_a_search_of_all_finds(
    pairs: list[tuple[str, str]], numbers: set[int], down: set[str]
) -> None:
    links = {f"l{i}": pair for i, pair in enumerate(pairs) if pair[0] != pair[1]}
    graph = Graph([(name, a, b) for name, (a, b) in links.items()], NODES)
    gone = {f"l{i}" for i in numbers} & set(links)
    left = {name: ends for name, ends in links.items() if name not in gone}
    firm = parts({k: v for k, v in links.items() if k not in bridges(links)}, NODES)
    wanted: set[str] = set()
    for whole in parts(links, NODES):
        core = min((part for part in firm if part <= whole), key=lambda p: (-len(p), min(p)))
        pieces = parts(left, whole - down)
        pieces.sort(key=lambda p: (-len(p & core), -len(p), min(p)))
        wanted.update(*pieces[1:])
    assert graph.cut_off([*gone, "unknown"], [*down, "nobody"]) == wanted
    assert set(graph.new_bridges(sorted(gone))) == bridges(left) - bridges(links)


def test_a_cut_costs_what_is_behind_it_and_not_what_the_network_has() -> None:
    """Cuts of access rings in networks of 60 and 6,000 nodes."""
    seconds = []
    for rings in (3, 300):
        pairs = ring_of_rings(rings, 20)
        graph = Graph([(f"{a}-{b}", a, b) for a, b in pairs])
        graph.cut_off(["core0-core1", "core1-core2"])  # what is worked out once
        began = time.process_time()
        for i in range(1, 18):
            for two in ([f"r1n{i}-r1n{i + 1}"], [f"r1n{i}-r1n{i + 1}", "core1-r1n0"]):
                graph.cut_off(two)
                graph.new_bridges(two)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 10 * max(seconds[0], 1e-3)
