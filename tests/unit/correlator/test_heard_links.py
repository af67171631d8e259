"""Links that routers state themselves: LLDP read by SNMP becomes the graph that incidents go by."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collectors.snmp.poll import PollOptions, SnmpPoller
from correlator.merge import FrameMerger
from correlator.tables import heard_links, link_state, network_map
from correlator.tables.heard_links import HeardLinks
from correlator.tables.network_map import FileNetworkMap, LinkEntry, NetworkFile, RouterEntry
from runtime.checkpoint import Snapshot
from runtime.clock import ManualClock
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import OPTION
from telemetry.snmp import ber
from tests.support.bmp_messages import (
    chunks,
    initiation,
    make_decoder,
    peer_down,
    peer_up,
)
from tests.support.snmp_agent import SMALL, Agent, AgentServer
from tests.support.source_world import MemoryNode
from tocsin.testing import make_context
from tocsin.testing.alarms import START_NS, AlarmWorld

REMOTE, LOCAL = "1.0.8802.1.1.2.1.4.1.1", "1.0.8802.1.1.2.1.3.7.1"
MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def agent(name: str, *neighbors: tuple[int, str, str, str]) -> Agent:
    """Return a device with LLDP neighbors: (port, its name, remote system, remote port)."""
    data = dict(SMALL) | {"1.3.6.1.2.1.1.5.0": ber.octets(name.encode())}
    for port, local, remote, far in neighbors:
        for column, value in (
            (4, ber.number(4)), (5, ber.octets(bytes(6))), (6, ber.number(5)),
            (7, ber.octets(far.encode())), (9, ber.octets(remote.encode())),
        ):  # fmt: skip
            data[f"{REMOTE}.{column}.0.{port}.1"] = value
        data[f"{LOCAL}.3.{port}"] = ber.octets(local.encode())
    return Agent(data)


AGENTS = {
    "127.2.0.1": agent("core1.example.net", (1, "et-0", "core2.example.net", "ge-1")),
    "127.2.0.2": agent(
        "core2.example.net",
        (4, "ge-1", "core1.example.net", "et-0"), (5, "ge-2", "edge3", "wan"),
    ),
    "127.2.0.3": agent("edge3", (9, "wan", "core2.example.net", "ge-2")),
}  # fmt: skip


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> MemoryNode:
    """Return the node to which the three devices' answers were given."""
    node = MemoryNode()
    with AgentServer(dict(AGENTS)) as server:
        devices = [
            {"address": address, "port": server.port, "name": name, "profiles": ["lldp"]}
            for address, name in zip(AGENTS, ("c1", "c2", "e3"), strict=True)
        ]
        options = msgspec.convert({"devices": devices, "timeout_seconds": 0.5}, PollOptions)
        folder: Path = tmp_path_factory.mktemp("poll")
        poller = SnmpPoller(
            "poll", options, make_context("sources.poll", clock=ManualClock(START_NS)), node, folder
        )
        poller.prepare()

        async def all_devices() -> None:
            await asyncio.gather(*(poller.poll(one) for one in poller.devices))

        asyncio.run(all_devices())
        poller.hand_over()
    return node


def heard(node: MemoryNode, network: FileNetworkMap) -> FileNetworkMap:
    for batch in node.batches:
        if batch.schema.name == "option":
            network.learn(batch)
    network.topology(START_NS + MINUTE)
    return network


def edges(network: FileNetworkMap) -> dict[str, tuple[Any, str]]:
    return {edge.link.name: (edge.link.ends, edge.origin) for edge in network.edges()}


def test_neighbors_that_devices_hear_are_links_under_the_names_of_the_configuration(
    polled: MemoryNode,
) -> None:
    network = heard(polled, FileNetworkMap())
    assert edges(network) == {
        "c1-c2": ((("c1", 1), ("c2", 4)), "lldp"),
        "c2-e3": ((("c2", 5), ("e3", 9)), "lldp"),
    }
    assert all(edge.heard_ns for edge in network.edges())
    assert [link.name for link in network.links_of("c2")] == ["c1-c2", "c2-e3"]
    assert set(network.routers()) == {"c1", "c2", "e3"}


def test_a_link_of_the_file_wins_over_what_is_heard(polled: MemoryNode) -> None:
    routers = [RouterEntry(name=f"R{n}", address=f"127.2.0.{n}") for n in (1, 2)]
    link = LinkEntry(name="trunk", a="R1", a_index=7, b="R2", b_index=8)
    network = heard(polled, FileNetworkMap(NetworkFile(router=routers, link=[link])))
    assert edges(network) == {
        "trunk": ((("R1", 7), ("R2", 8)), "file"),
        "R2-e3": ((("R2", 5), ("e3", 9)), "lldp"),
    }


def test_incidents_go_by_links_that_were_heard_while_the_node_runs(polled: MemoryNode) -> None:
    world = AlarmWorld(network=FileNetworkMap())
    world.notices(seconds=1)
    heard(polled, world.network)
    world.second(world.report("linkDown", "c2:5", "critical", probable_cause="lossOfSignal"))
    world.second(world.report("bgpDown", "e3", probable_cause="communicationsProtocolError"))
    (told,) = world.notices(seconds=20)
    assert told.alarms_count == 2
    assert told.explain["impact"]["links"] == ["c2-e3"]


def test_what_was_heard_outlives_a_restart(polled: MemoryNode) -> None:
    before, state = heard(polled, FileNetworkMap()), Snapshot()
    before.snapshot(state)
    after = FileNetworkMap()
    after.restore(state)
    assert after.edges() == before.edges()
    later = START_NS + 2 * MINUTE
    assert after.topology(later) == before.topology(later)


def test_parallel_links_are_paired_by_their_ports_and_age() -> None:
    links = HeardLinks(DAY)
    links.port("a", 1, '{"local_port": "x1", "remote": "b", "remote_port": "y1"}', 1)
    links.port("a", 2, '{"local_port": "x2", "remote": "b", "remote_port": "y2"}', 1)
    links.port("b", 7, '{"local_port": "y2", "remote": "a", "remote_port": "x2"}', 1)
    links.port("b", 8, "no json", 1)

    def found() -> list[Any]:
        return [e.link.ends for e in links.edges([], lambda name: name, lambda name: False)]

    assert found() == [(("a", 2), ("b", 7)), (("a", 1), ("b", 0))]
    links.port("a", 1, '{"local_port": "x1", "remote": "b", "remote_port": "y1"}', 2 * DAY)
    links.expire(2 * DAY)
    assert found() == [(("a", 1), ("b", 0))]


def bmp(network: FileNetworkMap, router: str, local: str, peer: str, at_ns: int = START_NS) -> None:
    told = chunks([initiation(), peer_up(peer, local=local)], router=router, start_ns=at_ns)
    learn(network, make_decoder().decode(told))


def learn(network: FileNetworkMap, batches: list[Batch]) -> None:
    for batch in batches:
        if batch.schema.name == "option":
            network.learn(batch)


def test_a_bgp_session_on_a_link_of_which_both_routers_tell_is_a_link() -> None:
    routers = [RouterEntry(name=name, address=f"127.2.0.{i}") for i, name in enumerate("abcd", 1)]
    network = FileNetworkMap(NetworkFile(router=routers))
    bmp(network, "127.2.0.1", "198.51.100.0", "198.51.100.1")
    network.topology(START_NS)
    assert edges(network) == {}  # one alone may say anything
    bmp(network, "127.2.0.2", "198.51.100.1", "198.51.100.0")
    bmp(network, "127.2.0.2", "2001:db8::5", "2001:db8::6")
    bmp(network, "127.2.0.3", "2001:db8::6", "2001:db8::5")
    bmp(network, "127.2.0.3", "127.2.0.3", "127.2.0.1")  # loopbacks of one /30
    bmp(network, "127.2.0.1", "127.2.0.1", "127.2.0.3")
    bmp(network, "127.2.0.3", "198.51.100.17", "198.51.100.40")  # a route server's network
    bmp(network, "127.2.0.4", "198.51.100.40", "198.51.100.17")
    network.topology(START_NS + MINUTE)
    assert edges(network) == {
        "a-b": ((("a", 0), ("b", 0)), "bmp"),
        "b-c": ((("b", 0), ("c", 0)), "bmp"),
    }
    state, after = Snapshot(), FileNetworkMap(NetworkFile(router=routers))
    network.snapshot(state)
    after.restore(state)
    assert after.edges() == network.edges()


def test_what_lldp_and_the_file_join_is_not_joined_again(polled: MemoryNode) -> None:
    network = heard(polled, FileNetworkMap())
    bmp(network, "127.2.0.1", "198.51.100.0", "198.51.100.1")
    bmp(network, "127.2.0.2", "198.51.100.1", "198.51.100.0")
    network.topology(START_NS + 3 * MINUTE)
    assert {origin for _, origin in edges(network).values()} == {"lldp"}


@pytest.mark.parametrize("links", [1, 2])
def test_sessions_of_both_protocols_over_a_link_are_one_link(links: int) -> None:
    known, key = HeardLinks(DAY), 0
    for number in range(links):
        four = (f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}")
        six = (f"2001:db8:{number}::2", f"2001:db8:{number}::3")
        for local, peer in (four, four[::-1], six, six[::-1]):
            key += 1
            router = "10.0.0.1" if local in (four[0], six[0]) else "10.0.0.2"
            text = json.dumps({"local": local, "peer": peer})
            known.session(router, key, text, MINUTE)
    edges = known.edges((), lambda address: address, lambda name: True)
    assert [edge.link.name for edge in edges] == ["10.0.0.1-10.0.0.2", "10.0.0.1-10.0.0.2#2"][
        :links
    ]


PAIR = ("198.51.100.0", "198.51.100.1")


def joined(network: FileNetworkMap, at_ns: int) -> list[str]:
    network.topology(at_ns)
    return [edge.link.name for edge in network.edges()]


def test_a_session_is_a_link_as_long_as_its_routers_tell_of_it_and_a_day_longer() -> None:
    """The collector tells of every session each hour; when one ends, its link is missed, not forgotten."""
    network, decoders = FileNetworkMap(), [make_decoder(), make_decoder()]
    for decoder, (local, peer), router in zip(
        decoders, (PAIR, PAIR[::-1]), ("127.2.0.1", "127.2.0.2"), strict=True
    ):
        learn(
            network,
            decoder.decode(chunks([initiation(), peer_up(peer, local=local)], router=router)),
        )
    name = "127.2.0.1-127.2.0.2"
    assert joined(network, START_NS) == [name]
    for hour in range(1, 60):
        for decoder in decoders:
            learn(network, decoder.advance(START_NS + hour * HOUR))
        assert joined(network, START_NS + hour * HOUR) == [name]
    ended_ns = START_NS + 60 * HOUR
    ends = [
        chunks([part], router="127.2.0.1", start_ns=ended_ns) for part in (peer_down(PAIR[1]), b"")
    ]
    for block in ends:
        learn(network, decoders[0].decode(block))
    for decoder in decoders:
        learn(network, decoder.advance(ended_ns + 30 * HOUR))
    assert joined(network, ended_ns + 23 * HOUR) == [name]
    assert joined(network, ended_ns + 25 * HOUR) == []


def test_what_finds_its_table_full_is_counted_by_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard_links, "PORTS_MAX", 2)
    monkeypatch.setattr(network_map, "NAMES_MAX", 1)
    monkeypatch.setattr(link_state, "STATEMENTS_MAX", 1)
    context = make_context("correlator")
    merger = FrameMerger([], context, network=FileNetworkMap())
    node = {"object": "node", "node": {"igp_router_id": "10.0.0.1"}}
    stated: list[tuple[str, int, dict[str, Any]]] = [
        ("lldp", 3, {"local_port": "et", "remote": "b", "remote_port": "ge"}),
        ("device", 4, {"entity": "a", "system": "a.example.net"}),
        ("bgp-session", 5, {"local": PAIR[0], "peer": PAIR[1]}),
        ("link-state", 6, node),
        ("interface", 2, {}),
        ("vrf", 2, {}),
    ]
    for table, count, said in stated:
        rows = [
            {
                "exporter_address_low": 0xFFFF_0A00_0000 + number, "table": table, "key": number,
                "name": json.dumps(said) if said else f"{table}{number}",
            }
            for number in range(count)
        ]  # fmt: skip
        for batch in (batch_from_rows(OPTION, rows),) * 2:
            merger.process(batch)
    counted = {
        table: context.metrics.value(
            "network_map_refused_total", component="correlator", table=table
        )
        for table in network_map.REFUSED_TABLES
    }
    assert counted == {
        "lldp_ports": 2, "devices": 4, "bgp_sessions": 6, "link_state": 10, "interfaces": 2,
        "names": 2, "routes": 0,
    }  # fmt: skip


def test_how_long_links_are_believed_is_a_setting_and_counts_from_ticks_over_a_restart(
    polled: MemoryNode,
) -> None:
    network, state = FileNetworkMap(heard_hours=2.0), Snapshot()
    heard(polled, network)
    network.snapshot(state)
    after = FileNetworkMap(heard_hours=2.0)
    after.restore(state)
    for one in (network, after):
        before = one.topology(START_NS + HOUR)
        assert joined(one, START_NS + HOUR) == ["c1-c2", "c2-e3"]
        assert joined(one, START_NS + 3 * HOUR) == []
        assert one.topology(START_NS + 3 * HOUR) != before
