"""BGP-LS over BMP becomes links of the graph: what both ends state, for as long as somebody states it."""

import pytest

from correlator.tables.network_map import FileNetworkMap, LinkEntry, NetworkFile, RouterEntry
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from tests.support.bmp_messages import (
    START_NS,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    peer_down,
    peer_up,
)
from tests.support.link_state_messages import (
    ISIS_L1,
    OSPF,
    address,
    bandwidth,
    link_nlri,
    node_nlri,
    over,
    stated,
    tlv,
    withdrawn,
)

HOUR = 3_600_000_000_000
A, B, C, D = (f"1921.6800.100{i}" for i in range(1, 5))
WIRE = over("192.0.2.0", "192.0.2.1")
BACK = over("192.0.2.1", "192.0.2.0")


class Feed:
    """A router that tells of an IGP by BMP, and a map that hears it."""

    def __init__(self, network: FileNetworkMap | None = None) -> None:
        self.network = network or FileNetworkMap()
        self.decoder = make_decoder()
        self.now_ns = START_NS
        self.say(initiation(), peer_up())

    def say(self, *messages: bytes) -> list[Batch]:
        """Hand over BMP messages."""
        self.now_ns += 60_000_000_000
        return self.learn(self.decoder.decode(chunks(list(messages), start_ns=self.now_ns)))

    def learn(self, batches: list[Batch]) -> list[Batch]:
        """Give what was decoded to the map."""
        for batch in batches:
            if batch.schema.name == "option":
                self.network.learn(batch)
        return batches

    def state(self, *updates: bytes) -> list[Batch]:
        """State or withdraw objects."""
        return self.say(*map(monitoring, updates))

    def links(self, hours: int = 0) -> list[str]:
        """Return the links of the map, so many hours later, with the collector running."""
        for _ in range(hours):
            self.now_ns += HOUR
            self.learn(self.decoder.advance(self.now_ns))
        self.now_ns += 60_000_000_000
        self.network.topology(self.now_ns)
        return [edge.link.name for edge in self.network.edges()]


def both(one: str, other: str, *, protocol: int = 2) -> list[bytes]:
    """Return a link as both its ends state it."""
    return [
        stated(link_nlri(one, other, WIRE, protocol=protocol)),
        stated(link_nlri(other, one, BACK, protocol=protocol)),
    ]


def test_a_link_is_what_both_ends_state_under_the_names_that_nodes_have() -> None:
    feed = Feed()
    feed.state(stated(node_nlri(A), tlv(1026, b"ams1")), stated(node_nlri(B), tlv(1026, b"fra1")))
    feed.state(stated(link_nlri(A, B, WIRE), bandwidth(1089, 10e9)))
    assert feed.links() == []  # one end alone: the IGP does not use it either
    feed.state(stated(link_nlri(B, A, BACK), bandwidth(1089, 10e9)))
    assert feed.links() == ["ams1-fra1"]
    (edge,) = feed.network.edges()
    assert (edge.origin, edge.link.bits_per_second) == ("bgp-ls", 10_000_000_000)
    assert edge.heard_ns >= START_NS


def test_routers_of_the_map_are_known_by_any_of_their_names() -> None:
    routers = [RouterEntry(name=f"R{i}", address=f"10.0.0.{i}") for i in range(1, 5)]
    file = LinkEntry(name="trunk", a="R1", a_index=1, b="R3", b_index=1)
    feed = Feed(FileNetworkMap(NetworkFile(router=routers, link=[file])))
    feed.state(
        stated(node_nlri(A), tlv(1026, b"host-a"), tlv(1028, address("10.0.0.1"))),
        stated(link_nlri(A, B, WIRE), tlv(1030, address("10.0.0.2"))),
        stated(link_nlri(B, A, BACK)),
        *both("10.0.0.3", "10.0.0.4", protocol=OSPF),
        stated(node_nlri(C), tlv(1026, b"R3")),
        *both(A, C),
    )
    assert feed.links() == ["trunk", "R1-R2", "R3-R4"]


def test_one_link_under_two_levels_and_protocols_is_one_and_two_in_parallel_are_two() -> None:
    feed = Feed()
    feed.state(*both(A, B), *both(A, B, protocol=ISIS_L1))
    assert len(feed.links()) == 1
    more = over("192.0.2.2", "192.0.2.3"), over("192.0.2.3", "192.0.2.2")
    feed.state(stated(link_nlri(A, B, more[0])), stated(link_nlri(B, A, more[1])))
    assert feed.links() == [f"{A}-{B}", f"{A}-{B}#2"]


@pytest.mark.parametrize(
    ("medium", "routers", "protocol", "hub"),
    [
        pytest.param(f"{C}.01", (A, B, C), 2, C, id="named after one that is there"),
        pytest.param("1921.6800.1009.01", (A, B, C), 2, A, id="named after none"),
        pytest.param("10.0.0.2:192.0.2.9", ("10.0.0.1", "10.0.0.2"), OSPF, "10.0.0.2", id="ospf"),
    ],
)
def test_a_shared_medium_joins_its_routers_to_the_designated_one(
    medium: str, routers: tuple[str, ...], protocol: int, hub: str
) -> None:
    feed = Feed()
    feed.state(
        *(
            stated(link_nlri(*ends, protocol=protocol))
            for router in routers
            for ends in ((router, medium), (medium, router))
        ),
        stated(link_nlri(D, medium, protocol=protocol)),  # one way only
    )
    ends = {tuple(sorted((hub, router))) for router in routers if router != hub}
    assert feed.links() == [f"{a}-{b}" for a, b in sorted(ends)]


def test_what_is_withdrawn_is_missed_for_a_day_and_then_gone() -> None:
    feed = Feed()
    feed.state(*both(A, B), *both(C, D))
    feed.state(withdrawn(link_nlri(A, B, WIRE)))
    assert feed.links(23) == [f"{A}-{B}", f"{C}-{D}"]
    assert feed.links(2) == [f"{C}-{D}"]
    assert feed.links(48) == [f"{C}-{D}"]  # stated once: the session that it came over lasts


def test_a_session_that_ends_takes_what_it_stated_along_and_one_that_returns_states_anew() -> None:
    feed = Feed()
    feed.state(*both(A, B), *both(C, D))
    feed.say(peer_down())
    assert feed.links(23) == [f"{A}-{B}", f"{C}-{D}"]
    feed.say(peer_up())
    feed.state(*both(C, D))
    assert feed.links(25) == [f"{C}-{D}"]
    feed.say(b"")  # the connection ends
    assert feed.links(25) == []


def test_two_sessions_that_state_the_same_are_not_two_links() -> None:
    feed = Feed()
    feed.say(peer_up("192.0.2.7"))
    feed.say(*(monitoring(one, peer) for one in both(A, B) for peer in ("192.0.2.1", "192.0.2.7")))
    assert feed.links() == [f"{A}-{B}"]
    feed.state(withdrawn(link_nlri(A, B, WIRE)))
    assert feed.links(30) == [f"{A}-{B}"]  # the other one still states it


def test_what_was_stated_outlives_a_restart_of_map_and_collector() -> None:
    feed = Feed()
    feed.state(*both(A, B))
    links = feed.links()
    states = Snapshot(), Snapshot()
    feed.network.snapshot(states[0])
    feed.decoder.snapshot(states[1])
    feed.network, feed.decoder = FileNetworkMap(), make_decoder()
    feed.network.restore(states[0])
    feed.decoder.restore(states[1])
    assert feed.links() == links
    feed.state(*both(C, D))  # on the connection of before
    assert feed.links(48) == [*links, f"{C}-{D}"]


def test_rows_do_not_depend_on_how_the_stream_was_cut() -> None:
    stream = b"".join([initiation(), peer_up(), *map(monitoring, both(A, B))])

    def rows(parts: list[bytes]) -> list[tuple[str, str]]:
        made = make_decoder().decode(chunks(parts, step_ns=0))
        options = [batch for batch in made if batch.schema.name == "option"]
        return [
            pair
            for batch in options
            for pair in zip(batch.texts("table"), batch.texts("name"), strict=True)
        ]

    whole = rows([stream])
    assert [table for table, _ in whole] == ["bgp-session", "link-state", "link-state"]
    assert rows([stream[i : i + 7] for i in range(0, len(stream), 7)]) == whole


def test_what_cannot_be_told_is_counted() -> None:
    feed = Feed()
    feed.state(stated(link_nlri(A, B)[:-2]), stated(node_nlri(A)))
    count = feed.decoder.metrics.value  # type: ignore[attr-defined]
    for verdict in ("malformed", "link_state"):
        name = "collector_bmp_updates_total"
        assert count(name, component="collectors.edge-bmp", verdict=verdict) == 1
