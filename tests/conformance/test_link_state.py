"""BGP-LS built from RFC 9552: tshark and ExaBGP read the same octets, and say the same of them."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collectors.bmp.link_state import PROTOCOLS, Statement, read_update
from tests.support.frames_on_wire import ipv4, pcap, tcp
from tests.support.link_state_messages import (
    DIRECT,
    ISIS_L1,
    OSPF,
    OSPF3,
    address,
    bandwidth,
    link_nlri,
    nlri,
    node,
    node_nlri,
    over,
    prefix_nlri,
    router,
    stated,
    tlv,
    withdrawn,
)

A, B = "1921.6800.1001", "1921.6800.1002"
NODE_A = {"as": 64500, "bgp_ls_id": 0, "igp_router_id": A}
NODE_B = NODE_A | {"igp_router_id": B}
L2 = {"protocol": "isis-l2", "instance": 0}
LINK = {"object": "link", "local": NODE_A, "remote": NODE_B} | L2
WIRE = {"interface": "192.0.2.0", "neighbor": "192.0.2.1"}
OSPF_A = {"as": 64500, "bgp_ls_id": 0, "area": 1, "igp_router_id": "10.0.0.1"}

CASES: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "a node with its name and router ids": (
        stated(
            node_nlri(A), tlv(1026, b"ams1"), tlv(1028, address("10.0.0.1")),
            tlv(1029, address("2001:db8::1")), tlv(1027, b"\x49\0\1"),
        ),
        [{"object": "node", "node": NODE_A, "name": "ams1", "router_id": "10.0.0.1",
          "router_id6": "2001:db8::1"} | L2],
    ),
    "a node without an attribute": (
        stated(node_nlri(A)), [{"object": "node", "node": NODE_A} | L2],
    ),
    "a link with addresses and bandwidths": (
        stated(
            link_nlri(A, B, over("192.0.2.0", "192.0.2.1")), bandwidth(1089, 10e9),
            bandwidth(1090, 8e9), tlv(1091, struct.pack("!8f", *[1.25e9] * 8)),
            tlv(1092, struct.pack("!I", 20)), tlv(1095, b"\0\0\x0a"), tlv(1098, b"ams1 to fra1"),
            tlv(1028, address("10.0.0.1")), tlv(1030, address("10.0.0.2")),
        ),
        [LINK | WIRE | {
            "bits_per_second": 10_000_000_000, "reservable_bits_per_second": 8_000_000_000,
            "te_metric": 20, "igp_metric": 10, "name": "ams1 to fra1", "router_id": "10.0.0.1",
            "remote_router_id": "10.0.0.2",
        }],
    ),
    "a link over IPv6": (
        stated(link_nlri(A, B, over("2001:db8:1::1", "2001:db8:1::2"))),
        [LINK | {"interface6": "2001:db8:1::1", "neighbor6": "2001:db8:1::2"}],
    ),
    "a link without numbers": (
        stated(link_nlri(A, B, tlv(258, struct.pack("!II", 17, 23)))),
        [LINK | {"identifiers": [17, 23]}],
    ),
    "two links in one message": (
        stated(
            link_nlri(A, B, over("192.0.2.0", "192.0.2.1"))
            + link_nlri(A, B, over("192.0.2.2", "192.0.2.3"))
        ),
        [LINK | WIRE, LINK | {"interface": "192.0.2.2", "neighbor": "192.0.2.3"}],
    ),
    "a link withdrawn": (
        withdrawn(link_nlri(A, B, over("192.0.2.0", "192.0.2.1"))),
        [LINK | WIRE | {"withdrawn": True}],
    ),
    "a shared medium of IS-IS": (
        stated(link_nlri(A, "1921.6800.1002.03", protocol=ISIS_L1)),
        [LINK | {"protocol": "isis-l1", "remote": NODE_A | {
            "igp_router_id": "1921.6800.1002.03", "pseudonode": True}}],
    ),
    "OSPF, an area and a shared medium": (
        stated(link_nlri("10.0.0.1", "10.0.0.2:192.0.2.9", protocol=OSPF, area=1)),
        [{"object": "link", "protocol": "ospfv2", "instance": 0, "local": OSPF_A,
          "remote": OSPF_A | {"igp_router_id": "10.0.0.2:192.0.2.9", "pseudonode": True}}],
    ),
    "prefixes of a node": (
        stated(
            prefix_nlri(A, "198.51.100.0/25") + prefix_nlri(A, "2001:db8:7::/48")
            + prefix_nlri(A, "0.0.0.0/0"),
            tlv(1155, struct.pack("!I", 10)),
        ),
        [{"object": "prefix", "node": NODE_A, "prefix": text, "metric": 10} | L2
         for text in ("198.51.100.0/25", "2001:db8:7::/48", "0.0.0.0/0")],
    ),
    "direct and OSPFv3": (
        stated(node_nlri("10.0.0.1", protocol=DIRECT) + node_nlri("10.0.0.1", protocol=OSPF3)),
        [{"object": "node", "protocol": how, "instance": 0, "node": NODE_A | {
            "igp_router_id": "10.0.0.1"}} for how in ("direct", "ospfv3")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_objects_are_read(name: str) -> None:
    message, expected = CASES[name]
    found = read_update(message)
    assert found is not None
    assert [one.fields for one in found] == expected
    assert len({one.key for one in found}) == len(found)


def test_what_is_withdrawn_has_the_identity_of_what_was_stated() -> None:
    link = link_nlri(A, B, over("192.0.2.0", "192.0.2.1"))
    (one,), (other,) = read_update(stated(link)) or [], read_update(withdrawn(link)) or []
    assert one.key == other.key


def test_an_object_of_a_vpn_is_read_behind_its_distinguisher() -> None:
    plain = node_nlri(A)
    inside = tlv(1, bytes(8) + plain[4:])
    (one,) = read_update(stated(inside, safi=72)) or []
    assert one.fields == {"object": "node", "node": NODE_A} | L2


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param(node_nlri(A)[:-3], id="cut off"),
        pytest.param(tlv(1, b"\2"), id="too short for a protocol"),
        pytest.param(nlri(1, b""), id="no node"),
        pytest.param(nlri(2, tlv(256, node(A))), id="a link without a far end"),
        pytest.param(nlri(1, tlv(256, b"\2\3\0\xff")), id="a descriptor longer than its room"),
        pytest.param(
            nlri(3, tlv(256, node(A)) + tlv(265, b"\x21\xc6\x33\x64\0\0")), id="33 bits"
        ),
    ],
)  # fmt: skip
def test_objects_that_cannot_be_told_are_none(objects: bytes) -> None:
    assert read_update(stated(objects)) is None


def test_types_that_are_not_known_are_passed_over_and_so_is_a_broken_attribute() -> None:
    found = read_update(stated(nlri(6, b"srv6") + node_nlri(A), b"\4\2\xff\xff"))
    assert [one.fields for one in found or []] == [{"object": "node", "node": NODE_A} | L2]


SHOWN = {
    "protocol": "nlri_node.protocol_id", "as": "tlv.autonomous_system.id",
    "area": "tlv.area_id.id", "igp_router_id": "tlv.igp_router_id",
    "interface": "nlri_ipv4_interface_address", "neighbor": "nlri_ipv4_neighbor_address",
    "interface6": "nlri_ipv6_interface_address", "neighbor6": "nlri_ipv6_neighbor_address",
    "identifiers": "nlri_link_local_identifier", "prefix": "nlri_ip_reachability_prefix_ip",
    "prefix6": "nlri_ip_reachability_prefix_ip6", "name": "tlv.node_name_value",
    "link name": "tlv.link_name_attribute_value", "router_id": "tlv.ipv4_router_id_value",
    "router_id6": "tlv.ipv6_router_id_of_local_node_value", "bits_per_second": "bandwidth_value",
    "te_metric": "tlv.te_default_metric_value", "igp_metric": "tlv.metric_value",
    "metric": "tlv.prefix_metric_value",
}  # fmt: skip


def shown(found: list[Statement]) -> dict[str, list[str]]:
    """Return what we read as tshark shows it."""
    made: dict[str, list[str]] = {name: [] for name in SHOWN}
    numbers = {name: str(number) for number, name in PROTOCOLS.items()}
    about = {}
    for one in found:
        said = one.fields
        made["protocol"].append(numbers[said["protocol"]])
        for end in (said.get(name) for name in ("node", "local", "remote")):
            if end:
                made["as"].append(str(end["as"]))
                made["area"] += [str(end["area"])] if "area" in end else []
                made["igp_router_id"].append(router(end["igp_router_id"]).hex())
        for name in ("interface", "neighbor", "interface6", "neighbor6"):
            made[name] += [said[name]] if name in said else []
        if "identifiers" in said:
            made["identifiers"].append(f"0x{said['identifiers'][0]:08x}")
        if "prefix" in said:
            name = "prefix6" if ":" in said["prefix"] else "prefix"
            made[name].append(said["prefix"].partition("/")[0])
        about |= said
    for name in ("te_metric", "igp_metric", "metric"):
        if name in about:
            made[name].append(f"0x{about[name]:0{6 if name == 'igp_metric' else 8}x}")
    for name in ("router_id", "remote_router_id", "router_id6"):
        if name in about:
            made[name.removeprefix("remote_")].append(about[name])
    if "name" in about:
        made["link name" if about["object"] == "link" else "name"].append(about["name"])
    for name in ("bits_per_second", "reservable_bits_per_second"):
        if name in about:
            made["bits_per_second"].append(f"{about[name] / 1e6:.0f}")
    return made


def test_tshark_reads_the_same(needs: Callable[..., None], tmp_path: Path) -> None:
    needs("tshark")
    path = tmp_path / "link-state.pcap"
    packets = [
        ipv4(tcp(40_000 + n, 179, 0x18) + message, protocol=6)
        for n, (message, _) in enumerate(CASES.values())
    ]
    path.write_bytes(pcap(packets, 101))
    asked = [word for name in SHOWN.values() for word in ("-e", f"bgp.ls.{name}")]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", *asked],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = done.stdout.split("\n")
    for (name, (message, _)), line in zip(CASES.items(), lines, strict=False):
        cells = [[part for part in cell.split(",") if part] for cell in line.split("\t")]
        said = dict(zip(SHOWN, cells, strict=True))
        said["bits_per_second"] = said["bits_per_second"][:2]  # behind them: what is not reserved
        assert shown(read_update(message) or []) == said, name
