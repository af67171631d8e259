"""Sampled frames of every kind that we know of, through sFlow and IPFIX 315; tshark is the judge."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collectors.config import FlowDecoderSettings
from collectors.flow import packet
from collectors.flow.decoder import FlowDecoder
from collectors.flow.sflow5 import SflowDecoder
from telemetry.batch import Batch
from telemetry.identity import address_text
from tests.support.decoding import poison
from tests.support.flow_messages import block, data_set, ipfix, template_set, v9
from tests.support.frames_on_wire import (
    FRAMES,
    IN4,
    IN6,
    INNER,
    INNER4,
    INNER6,
    expanded_sample,
    flow_sample,
    mpls,
    pcap,
    raw_header,
    sflow,
    structure,
)
from tocsin.testing import make_context


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def parse(frames: list[bytes], *, tunnels: int, link: int = 1) -> dict[str, list[int]]:
    payload = np.frombuffer(b"".join(frames), np.uint8)
    length = np.array([len(f) for f in frames], np.int32)
    start = np.concatenate([[0], np.cumsum(length[:-1], dtype=np.int64)]).astype(np.int64)
    out = np.zeros((len(packet.FIELDS), len(frames)), np.uint64)
    packet.parse_headers(payload, start, length, np.full(len(frames), link, np.int32), tunnels, out)
    return {name: out[i].tolist() for i, name in enumerate(packet.FIELDS)}


def ends(found: dict[str, list[int]], n: int = 0) -> tuple[str, str]:
    return tuple(  # type: ignore[return-value]
        address_text(found[f"{side}_address_high"][n], found[f"{side}_address_low"][n])
        for side in ("source", "destination")
    )


@pytest.mark.parametrize("name", FRAMES)
def test_addresses_of_the_outer_and_the_innermost_packet(name: str) -> None:
    frame, outer, inner = FRAMES[name]
    assert ends(parse([frame], tunnels=0)) == outer
    assert ends(parse([frame], tunnels=packet.TUNNELS_MAX)) == inner


def test_tshark_sees_the_same(needs: Callable[..., None], tmp_path: Path) -> None:
    """Outer and innermost addresses, ports of the outer packet, first VLAN and label, IP length."""
    needs("tshark")
    path = tmp_path / "frames.pcap"
    frames = [frame for frame, _, _ in FRAMES.values()]
    path.write_bytes(pcap(frames))
    names = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "vlan.id", "mpls.label", "ip.len",
             "ipv6.plen", "udp.srcport", "udp.dstport", "ieee8021ad.id", "frame.protocols")  # fmt: skip
    asked = [word for name in names for word in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
         "-T", "fields", *asked],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    outer, inner = parse(frames, tunnels=0), parse(frames, tunnels=packet.TUNNELS_MAX)
    lines = done.stdout.splitlines()
    assert len(lines) == len(frames)
    for n, (name, line) in enumerate(zip(FRAMES, lines, strict=True)):
        said = {
            field: [part for part in cell.split(",") if part]
            for field, cell in zip(names, line.split("\t"), strict=True)
        }
        layers = [p for p in said["frame.protocols"][0].split(":") if p in ("ip", "ipv6")]
        first, last = layers[0], layers[-1]
        want = (said[f"{first}.src"][0], said[f"{first}.dst"][0])
        assert ends(outer, n) == want, name
        assert ends(inner, n) == (said[f"{last}.src"][-1], said[f"{last}.dst"][-1]), name
        if said["vlan.id"] and "vxlan" not in name:
            first_tag = (said["ieee8021ad.id"] or said["vlan.id"])[0]
            assert outer["vlan_id"][n] == int(first_tag), name
        if said["mpls.label"]:
            assert outer["mpls_top_label"][n] == int(said["mpls.label"][0], 0), name
        whole = int(said["ip.len"][0]) if first == "ip" else int(said["ipv6.plen"][0]) + 40
        assert outer["ip_octets"][n] == whole, name
        if len(layers) == 1 and said["udp.dstport"]:
            ports = (int(said["udp.srcport"][0]), int(said["udp.dstport"][0]))
            assert (outer["source_port"][n], outer["destination_port"][n]) == ports, name


@pytest.mark.parametrize("name", FRAMES)
def test_a_cut_frame_says_the_same_or_nothing(name: str) -> None:
    frame = FRAMES[name][0]
    for tunnels in (0, packet.TUNNELS_MAX):
        for size in range(len(frame)):
            parse([frame[:size]], tunnels=tunnels)  # bounds-checked in the checked run
    whole = parse([frame], tunnels=0)
    for size in range(len(frame)):
        cut = parse([frame[:size]], tunnels=0)
        for field in packet.FIELDS:
            if field != "found":
                assert cut[field][0] in (0, whole[field][0]), (field, size)


@pytest.mark.parametrize(
    ("link", "head"),
    [
        pytest.param(packet.LINK_PPP, b"\x00\x21", id="ppp"),
        pytest.param(packet.LINK_PPP, b"\x21", id="ppp-compressed"),
        pytest.param(packet.LINK_POS, b"\xff\x03\x00\x21", id="packet-over-sonet"),
        pytest.param(packet.LINK_IPV4, b"", id="ipv4"),
        pytest.param(packet.LINK_MPLS, mpls(b"", 99), id="mpls"),
        pytest.param(
            packet.LINK_WLAN,
            b"\x08\x01" + bytes(22) + bytes.fromhex("aaaa030000000800"),
            id="802.11",
        ),
        pytest.param(
            packet.LINK_WLAN,
            b"\x88\x03" + bytes(28) + bytes(2) + bytes.fromhex("aaaa030000000800"),
            id="802.11-qos-bridge",
        ),
    ],
)
def test_other_links(link: int, head: bytes) -> None:
    assert ends(parse([head + IN4], tunnels=0, link=link)) == INNER4


@pytest.mark.parametrize("first", [b"\x08\x41", b"\x80\x00", b"\xb4\x00"])
def test_wlan_frames_without_readable_data(first: bytes) -> None:
    """Encrypted, a beacon, a request to send."""
    frame = first + bytes(22) + bytes.fromhex("aaaa030000000800") + IN4
    assert parse([frame], tunnels=0, link=packet.LINK_WLAN)["found"] == [0]


# ---- the same frames inside export protocols


def flow(batches: list[Batch]) -> Batch:
    (batch,) = [b for b in batches if b.schema.name == "flow"]
    return batch


def sides(batch: Batch, n: int = 0) -> tuple[str, str]:
    return ends({name: batch[name].tolist() for name in batch.columns}, n)


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
@pytest.mark.parametrize("expanded", [False, True])
def test_sflow_samples_of_every_frame(tunnels: str, expanded: bool) -> None:
    make = expanded_sample if expanded else flow_sample
    settings = FlowDecoderSettings(tunnels=tunnels)  # type: ignore[arg-type]
    decoder = SflowDecoder(settings, make_context())
    samples = [make(raw_header(frame, size=1500)) for frame, _, _ in FRAMES.values()]
    batch = flow(decoder.decode(block(*(sflow(s, sequence=n) for n, s in enumerate(samples)))))
    for n, (_, outer, inner) in enumerate(FRAMES.values()):
        assert sides(batch, n) == (inner if tunnels == "inner" else outer)
    assert batch["octets"].tolist() == [1500] * len(FRAMES)
    assert set(batch["sampling_rate"].tolist()) == {1000}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("fixed", [False, True], ids=["variable", "fixed-128"])
def test_ipfix_data_link_frame_section(name: str, fixed: bool) -> None:
    """PSAMP (RFC 5477 section 8.5.1): 315 with the frame's length in 312; one record, one packet."""
    frame, outer, _ = FRAMES[name]
    fields = [(10, 4), (312, 2), (315, 128 if fixed else 65535)]
    size = b"" if fixed else bytes([len(frame)])
    section = frame[:128].ljust(128, b"\0") if fixed else frame
    body = struct.pack("!IH", 7, 1514) + size + section
    message = ipfix(template_set(300, fields), data_set(300, body))
    batch = flow(FlowDecoder(FlowDecoderSettings(), make_context()).decode(block(message)))
    assert sides(batch) == outer
    assert (batch["octets"].tolist(), batch["packets"].tolist()) == ([1514], [1])
    assert batch["ingress_interface"].tolist() == [7]


def test_ipfix_ip_header_section_without_a_length() -> None:
    """313 starts at the IP header; octets are what it says itself."""
    fields = [(313, 65535)]
    records = b"".join(bytes([len(p)]) + p for p in (IN4, IN6))
    message = ipfix(template_set(300, fields), data_set(300, records))
    batch = flow(FlowDecoder(FlowDecoderSettings(), make_context()).decode(block(message)))
    assert [sides(batch, n) for n in range(2)] == [INNER4, INNER6]
    assert batch["octets"].tolist() == [len(IN4), len(IN6)]
    assert batch["protocol"].tolist() == [6, 17]
    assert batch["destination_port"].tolist() == [443, 5353]
    assert batch["tcp_flags"].tolist() == [0x12, 0]


def test_what_the_record_says_itself_goes_before_the_frame() -> None:
    fields = [(8, 4), (1, 4), (315, 65535)]
    body = struct.pack("!II", 0x01020304, 99) + bytes([len(INNER)]) + INNER
    message = ipfix(template_set(300, fields), data_set(300, body))
    batch = flow(FlowDecoder(FlowDecoderSettings(), make_context()).decode(block(message)))
    assert sides(batch) == ("1.2.3.4", "10.2.2.2")
    assert batch["octets"].tolist() == [99]


def test_a_configured_rate_for_sampled_frames() -> None:
    fields = [(315, 65535)]
    message = ipfix(template_set(300, fields), data_set(300, bytes([len(INNER)]) + INNER))
    settings = FlowDecoderSettings(sampling_override={"192.0.2.0/24": 512})
    batch = flow(FlowDecoder(settings, make_context()).decode(block(message)))
    assert batch["sampling_rate"].tolist() == [512]
    assert sides(batch) == INNER4
    assert not any(column.flags.writeable for column in batch.columns.values())


def test_layer_2_packet_section_of_cisco_v9() -> None:
    """Element 104, forerunner of 315, of a fixed width padded with zeros."""
    fields = [(10, 4), (103, 2), (104, 128)]
    body = struct.pack("!IH", 9, len(INNER)) + INNER.ljust(128, b"\0")
    message = v9(template_set(300, fields, version=9), data_set(300, body))
    batch = flow(FlowDecoder(FlowDecoderSettings(), make_context()).decode(block(message)))
    assert sides(batch) == INNER4


def test_sflow_structures_of_vendors_are_skipped_by_length() -> None:
    """Extended MPLS, tunnels, NAT, VLAN stacks, Arista and Broadcom ones around the header."""
    strange = [
        structure(tag, bytes(4 * n))
        for n, tag in enumerate(
            [1006, 1007, 1009, 1012, 1015, 1021, 1024, 1029, 1036, 30065 << 12 | 1], 1
        )
    ]
    odd = structure(4413 << 12 | 1, bytes(7))  # a length that is no multiple of 4
    sample = flow_sample(
        *strange, odd, raw_header(INNER), structure(1001, struct.pack("!4I", 5, 0, 6, 0))
    )
    context = make_context()
    decoder = SflowDecoder(FlowDecoderSettings(), context)
    batch = flow(decoder.decode(block(sflow(sample))))
    assert sides(batch) == INNER4
    assert batch["vlan_id"].tolist() == [5]
    assert context.metrics.value("collector_sflow5_skipped_total", structure="record") == 11
    assert context.metrics.value("collector_sflow5_datagrams_total", verdict="ok") == 1


def test_sflow_samples_of_vendors_are_skipped_by_length() -> None:
    strange = structure(9 << 12 | 1, bytes(21))
    message = sflow(
        strange, flow_sample(raw_header(INNER)), structure(77, b""), agent="2001:db8::9"
    )
    batch = flow(SflowDecoder(FlowDecoderSettings(), make_context()).decode(block(message)))
    assert sides(batch) == INNER4
    assert batch["exporter_address_high"].tolist() == [0x20010DB8 << 32]


def test_sflow_interfaces_that_are_none() -> None:
    """Top bits 01: dropped and why; 10: sent out of so many; all ones below: the box itself."""
    samples = [
        flow_sample(raw_header(INNER), interfaces=pair)
        for pair in ((1, 0x40000102), (1, 0x80000004), (0x3FFFFFFF, 2), (1, 0x3FFFFFFF))
    ]
    batch = flow(SflowDecoder(FlowDecoderSettings(), make_context()).decode(block(sflow(*samples))))
    assert batch["egress_interface"].tolist() == [0, 0, 2, 0]
    assert batch["ingress_interface"].tolist() == [1, 1, 0, 1]
    assert batch["forwarding_status"].tolist() == [128, 0, 0, 0]


def test_sflow_expanded_interfaces_beyond_24_bits() -> None:
    message = sflow(expanded_sample(raw_header(INNER)))
    batch = flow(SflowDecoder(FlowDecoderSettings(), make_context()).decode(block(message)))
    assert (batch["ingress_interface"].tolist(), batch["egress_interface"].tolist()) == (
        [70_000],
        [70_001],
    )


@pytest.mark.parametrize("expanded", [False, True])
def test_sflow_port_names_are_interface_names(expanded: bool) -> None:
    """Counter structure 1005: told once, and again when it changes."""

    def counters(name: bytes) -> bytes:
        text = struct.pack("!I", len(name)) + name + bytes(-len(name) % 4)
        record = structure(1005, text)
        source = struct.pack("!II", 0, 70_000) if expanded else struct.pack("!I", 7)
        return structure(4 if expanded else 2, struct.pack("!I", 1) + source
                         + struct.pack("!I", 1) + record)  # fmt: skip

    decoder = SflowDecoder(FlowDecoderSettings(), make_context())
    told = []
    for name in (b"eno1", b"eno1", b"Ethernet1/1"):
        for batch in decoder.decode(block(sflow(counters(name)))):
            if batch.schema.name == "option":
                told += list(zip(batch["key"].tolist(), batch.texts("name"), strict=True))
    index = 70_000 if expanded else 7
    assert told == [(index, "eno1"), (index, "Ethernet1/1")]
    assert decoder.reference.name(0, 0xFFFF_C0000209, "interface", index) == "Ethernet1/1"
