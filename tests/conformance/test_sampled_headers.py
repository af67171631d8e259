"""Frames of many kinds through the header parser, against tshark on the same file at test time."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collectors.capture.reader import _pcap
from collectors.capture.report import CaptureReport
from collectors.flow import packet
from telemetry.identity import address_text

FILES = [
    "akvorado/gre-v4-plain.pcap",
    "akvorado/gre-v6-plain.pcap",
    "akvorado/ipv4-ipv4.pcap",
    "akvorado/mpls-explicit-null-ipv4.pcap",
    "akvorado/mpls-explicit-null-ipv6.pcap",
    "akvorado/mpls-ipv4.pcap",
    "akvorado/mpls-ipv6.pcap",
    "akvorado/vlan-ipv6.pcap",
    "tcpdump/geneve.pcap",
    "tcpdump/mpls-over-udp.pcap",
    "tcpdump/nsh-over-vxlan-gpe.pcap",
]
ASKED = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "vlan.id", "mpls.label", "frame.protocols")


def parse(frames: list[bytes], *, tunnels: int) -> dict[str, list[int]]:
    payload = np.frombuffer(b"".join(frames), np.uint8)
    length = np.array([len(f) for f in frames], np.int32)
    start = np.concatenate([[0], np.cumsum(length[:-1], dtype=np.int64)]).astype(np.int64)
    out = np.zeros((len(packet.FIELDS), len(frames)), np.uint64)
    link = np.full(len(frames), packet.LINK_ETHERNET, np.int32)
    packet.parse_headers(payload, start, length, link, tunnels, out)
    return {name: out[i].tolist() for i, name in enumerate(packet.FIELDS)}


def tshark(path: Path) -> list[dict[str, list[str]]]:
    fields = [word for name in ASKED for word in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-d", "udp.port==6635,mpls", "-T", "fields", *fields],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [
        {
            name: [part for part in cell.split(",") if part]
            for name, cell in zip(ASKED, line.split("\t"), strict=True)
        }
        for line in done.stdout.splitlines()
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("inner", [False, True], ids=["outer", "inner"])
def test_agrees_with_tshark(
    shared: Path, needs: Callable[..., None], name: str, inner: bool
) -> None:
    needs("tshark")
    path = shared / "captures/sampled_headers" / name
    frames = [frame for _, _, frame in _pcap(path.read_bytes(), CaptureReport())]
    ours = parse(frames, tunnels=packet.TUNNELS_MAX if inner else 0)
    for n, theirs in enumerate(tshark(path)):
        protocols = theirs["frame.protocols"][0].split(":")
        layers = [p for p in protocols if p in ("ip", "ipv6")]
        if not layers:
            assert not ours["found"][n] & packet.IS_IP
            continue
        # What ICMP quotes, and what stands behind NSH, is no tunnel to us.
        if inner and any(p in protocols for p in ("icmp", "icmpv6", "nsh")):
            continue
        layer = layers[-1] if inner else layers[0]
        place = -1 if inner else 0
        source = address_text(ours["source_address_high"][n], ours["source_address_low"][n])
        assert source == theirs[f"{layer}.src"][place]
        target = address_text(
            ours["destination_address_high"][n], ours["destination_address_low"][n]
        )
        assert target == theirs[f"{layer}.dst"][place]
        if theirs["vlan.id"]:
            assert ours["vlan_id"][n] == int(theirs["vlan.id"][0])
        if theirs["mpls.label"] and protocols.index("mpls") < protocols.index(layers[0]):
            assert ours["mpls_top_label"][n] == int(theirs["mpls.label"][0])


@pytest.mark.parametrize("name", FILES)
def test_a_cut_header_says_the_same_or_nothing(shared: Path, name: str) -> None:
    """Exporters send the first 64 or 128 bytes: a cut may leave fields out, never change them."""
    path = shared / "captures/sampled_headers" / name
    for _, _, frame in _pcap(path.read_bytes(), CaptureReport()):
        whole = parse([frame], tunnels=0)
        for size in range(len(frame)):
            cut = parse([frame[:size]], tunnels=0)
            for field in packet.FIELDS:
                got, want = cut[field][0], whole[field][0]
                assert got == (got & want if field == "found" else got)
                if field != "found":
                    assert got in (0, want), (field, size)
