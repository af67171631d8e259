"""Capture files: every link type, time resolution, byte order, fragments, and damage."""

import struct
from pathlib import Path

import pytest

from collectors.capture.reader import parse_capture, read_capture
from collectors.capture.report import CaptureReport
from collectors.capture.tcp import TcpStreams
from collectors.capture.writer import PcapngWriter
from collectors.datagram import Datagram, blocks
from telemetry.errors import DecodeError
from telemetry.identity import address_pair
from tests.support.capture_files import (
    SECOND,
    block,
    enhanced,
    fragments_of,
    interface,
    pcap,
    section,
)
from tests.support.frames_on_wire import ethernet, extension, ipv4, ipv6, tcp, udp

NS = SECOND * 10**9
DATA = b"the payload of an export"
SENT4 = ipv4(udp(4000, 2055, DATA))
SENT6 = ipv6(udp(4000, 2055, DATA))
NOWHERE = Path("made.pcap")


def read(data: bytes) -> tuple[list[Datagram], CaptureReport]:
    report = CaptureReport()
    return list(parse_capture(data, report, NOWHERE)), report


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [
        pytest.param(1, ethernet(0x0800, SENT4), id="ethernet"),
        pytest.param(1, ethernet(0x0800, SENT4) + bytes(20), id="ethernet-padded"),
        pytest.param(1, ethernet(0x0800, SENT4, (0x8100, 7)), id="vlan"),
        pytest.param(1, ethernet(0x0800, SENT4, (0x88A8, 7), (0x8100, 8)), id="q-in-q"),
        pytest.param(1, ethernet(0x86DD, SENT6), id="ethernet-ipv6"),
        pytest.param(101, SENT4, id="raw"),
        pytest.param(101, SENT6, id="raw-ipv6"),
        pytest.param(12, SENT4, id="raw-bsd"),
        pytest.param(228, SENT4, id="ipv4"),
        pytest.param(229, SENT6, id="ipv6"),
        pytest.param(0, b"\x02\x00\x00\x00" + SENT4, id="null"),
        pytest.param(108, b"\x00\x00\x00\x02" + SENT4, id="loop"),
        pytest.param(113, bytes(14) + b"\x08\x00" + SENT4, id="cooked"),
        pytest.param(113, bytes(14) + b"\x81\x00\x00\x07\x08\x00" + SENT4, id="cooked-vlan"),
        pytest.param(276, b"\x86\xdd" + bytes(18) + SENT6, id="cooked-2"),
        pytest.param(
            276, b"\x81\x00" + bytes(18) + b"\x00\x07\x08\x00" + SENT4, id="cooked-2-vlan"
        ),
        pytest.param(101, ipv4(udp(4000, 2055, DATA), options=bytes([1] * 4)), id="ip-options"),
        pytest.param(
            101, ipv6(extension(17) + udp(4000, 2055, DATA), following=0), id="ipv6-hop-by-hop"
        ),
    ],
)
@pytest.mark.parametrize("kind", ["pcap", "pcap-big", "pcapng", "pcapng-big"])
def test_the_payload_of_every_link_type(link_type: int, packet: bytes, kind: str) -> None:
    order = ">" if kind.endswith("big") else "<"
    if kind.startswith("pcapng"):
        data = section(order) + interface(link_type, order) + enhanced(packet, 1, 0, order)
    else:
        data = pcap([packet], link_type, order=order)
    (found,), report = read(data)
    assert found.payload == DATA
    assert (found.source_port, found.destination_port) == (4000, 2055)
    source = "192.0.2.1" if packet.count(SENT4[12:16]) else "2001:db8::1"
    assert (found.source_high, found.source_low) == address_pair(source)
    assert not report.damage
    assert not report.left_out


@pytest.mark.parametrize(("nanoseconds", "ns"), [(False, 1000), (True, 1)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_times(nanoseconds: bool, ns: int, order: str) -> None:
    found, _ = read(pcap([SENT4] * 3, 101, order=order, nanoseconds=nanoseconds))
    assert [one.arrival_ns for one in found] == [NS + n * ns for n in range(3)]


@pytest.mark.parametrize(
    ("resolution", "ticks"),
    [
        (None, SECOND * 10**6),
        (6, SECOND * 10**6),
        (9, NS),
        (3, SECOND * 1000),
        (0, SECOND),
        (0x80 | 10, SECOND << 10),
        (0x80 | 20, SECOND << 20),
    ],
)
def test_pcapng_time_resolutions(resolution: int | None, ticks: int) -> None:
    (found,), _ = read(section() + interface(101, resolution=resolution) + enhanced(SENT4, ticks))
    assert found.arrival_ns == NS


def test_pcapng_time_offset() -> None:
    (found,), _ = read(
        section() + interface(101, offset_seconds=SECOND) + enhanced(SENT4, 1_500_000)
    )
    assert found.arrival_ns == NS + 1_500_000_000


def test_pcapng_with_several_interfaces_and_sections() -> None:
    """Each interface has its own link type and clock; a new section forgets them all."""
    data = (
        section()
        + interface(1)
        + interface(101, resolution=9)
        + enhanced(SENT4, NS, 1)
        + enhanced(ethernet(0x0800, SENT4), SECOND * 10**6, 0)
        + section(">")
        + interface(276, ">")
        + enhanced(b"\x08\x00" + bytes(18) + SENT4, SECOND * 10**6, 0, ">")
        + enhanced(SENT4, NS, 1, ">")
    )
    found, report = read(data)
    assert [one.payload for one in found] == [DATA] * 3
    assert [one.arrival_ns for one in found] == [NS] * 3
    assert report.left_out == {"bad packet block": 1}  # the second section has one interface


def test_pcapng_old_and_simple_packet_blocks_and_unknown_ones() -> None:
    old = struct.pack("<HHIIII", 0, 0, 0, SECOND * 10**6 & 0xFFFFFFFF, len(SENT4), len(SENT4))
    data = (
        section()
        + interface(101)
        + block(0x0BAD, b"of somebody else")
        + block(2, old + SENT4)
        + block(3, struct.pack("<I", len(SENT4)) + SENT4)
        + block(5, bytes(16))
    )
    found, report = read(data)
    assert [one.payload for one in found] == [DATA] * 2
    assert not report.damage


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [0, 0, 1, 2, 3, 3]])
def test_fragments_in_any_order(order: list[int]) -> None:
    data = bytes(range(256)) * 12
    pieces = fragments_of(data, 800)
    found, report = read(pcap([pieces[n] for n in order], 101))
    assert found[0].payload == data
    assert len(found) == 1
    # What came after it was whole waits for more that never comes.
    assert sum(report.left_out.values()) == (1 if len(order) > 4 else 0)


def test_ipv6_fragments() -> None:
    data = bytes(range(256)) * 8
    whole = udp(4000, 2055, data)
    packets = [
        ipv6(struct.pack("!BBHI", 17, 0, at | (at + 1000 < len(whole)), 99) + whole[at : at + 1000],
             following=44)
        for at in range(0, len(whole), 1000)
    ]  # fmt: skip
    found, report = read(pcap(packets, 101))
    assert [one.payload for one in found] == [data]
    assert not report.left_out


def test_fragments_that_never_become_whole_are_bounded_and_counted() -> None:
    packets = []
    for number in range(1100):
        first = bytearray(fragments_of(bytes(64), 40)[0])
        first[4:6] = struct.pack("!H", number)
        packets.append(bytes(first))
    found, report = read(pcap(packets, 101))
    assert found == []
    assert report.left_out == {"fragments that never became whole": 1100}


def test_what_is_no_udp_is_counted_and_left_out() -> None:
    packets = [
        ethernet(0x0806, bytes(28)),
        ethernet(0x0800, ipv4(tcp(), protocol=6)),
        ethernet(0x86DD, ipv6(tcp(), following=6)),
        ethernet(0x0800, ipv4(udp()[:5])),
        ethernet(0x0800, b"\x41" + SENT4[1:]),
        b"short",
        ethernet(0x0800, SENT4),
    ]
    found, report = read(pcap(packets))
    assert len(found) == 1
    assert report.left_out == {"not IP": 3, "not UDP": 2, "cut UDP header": 1}
    assert report.packets == 7


def test_a_snap_length_is_told() -> None:
    (found,), report = read(pcap([SENT4], 101, snap=40))
    assert found.payload == DATA[:12]
    assert report.left_out == {"datagrams cut short by the capture (what is there was read)": 1}


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_file_cut_anywhere_gives_what_came_before(kind: str) -> None:
    head = section() + interface(101) if kind == "pcapng" else pcap([], 101)
    one = enhanced(SENT4, 5) if kind == "pcapng" else pcap([SENT4], 101)[24:]
    data = head + one * 3
    for size in range(len(head), len(data)):
        found, report = read(data[:size])
        assert len(found) == (size - len(head)) // len(one)
        assert bool(report.damage) == ((size - len(head)) % len(one) != 0)
        assert report.damage.count("\n") == 0


@pytest.mark.parametrize("size", range(1, 24))
def test_a_pcap_header_that_is_cut(size: int) -> None:
    data = pcap([], 101)[:size]
    if size < 4:
        (found,), _ = read(data)  # nobody can tell: a payload of its own
        assert found.payload == data
        return
    with pytest.raises(DecodeError, match="header is cut"):
        read(data)


def test_impossible_sizes_and_times_are_damage_and_no_crash() -> None:
    data = pcap([SENT4], 101) + struct.pack("<IIII", SECOND, 0, 1 << 30, 1 << 30)
    found, report = read(data)
    assert len(found) == 1
    assert "damaged" in report.damage
    far = section() + interface(101, resolution=0) + enhanced(SENT4, 2**64 - 1)
    before = section() + interface(101, offset_seconds=-(2**60)) + enhanced(SENT4, 5)
    for data in (far, before):
        found, _ = read(data)
        assert found[0].arrival_ns == 0
        assert sum(b.datagrams for b in blocks(iter(found))) == 1


def test_files_that_hold_one_payload_or_many(tmp_path: Path) -> None:
    one = struct.pack("!HHIII", 10, 16, SECOND, 0, 1)
    path = tmp_path / "flows.ipfix"
    path.write_bytes(one * 3)
    assert [d.payload for d in read_capture(path, CaptureReport())] == [one] * 3
    path.write_bytes(one * 2 + b"rest")
    assert [d.payload for d in read_capture(path, CaptureReport())] == [one, one, b"rest"]
    other = tmp_path / "flows.dat"
    other.write_bytes(one * 3)
    assert [d.payload for d in read_capture(other, CaptureReport())] == [one * 3]
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(b"")
    with pytest.raises(DecodeError, match="is empty"):
        list(read_capture(empty, CaptureReport()))


def test_what_the_writer_writes_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "made.pcapng"
    sent = [
        Datagram(NS + n, *address_pair(address), 4000 + n, 2055, bytes([n]) * (n * 7 % 1400))
        for n, address in enumerate(["192.0.2.1", "2001:db8::9", "10.0.0.1"] * 20)
    ]
    writer = PcapngWriter(path)
    for one in sent:
        writer.write(one, destination_port=2055)
    writer.close()
    assert list(read_capture(path, CaptureReport())) == sent


def test_chunks_of_streams_come_back_as_their_connections(tmp_path: Path) -> None:
    path = tmp_path / "made.pcapng"
    senders = [("192.0.2.1", 4000), ("2001:db8::9", 4001), ("192.0.2.1", 4002)]
    sent = [
        Datagram(NS + n, *address_pair(host), port, 514, bytes([n]) * (1 + n * 7000), stream=True)
        for n, (host, port) in enumerate(senders * 4)
    ]
    ended = Datagram(NS + 20, *address_pair("192.0.2.1"), 4000, 514, b"", stream=True)
    again = Datagram(NS + 21, *address_pair("192.0.2.1"), 4000, 514, b"another", stream=True)
    writer = PcapngWriter(path)
    for one in [*sent, ended, again]:
        writer.write(one, destination_port=514)
    writer.close()
    assert writer.datagrams == len(sent) + 2
    found = list(read_capture(path, CaptureReport(), TcpStreams()))
    for host, port in senders:
        key = (*address_pair(host), port)

        def of(some: list[Datagram], key: tuple[int, int, int] = key) -> list[Datagram]:
            return [
                d for d in some if (d.source_high, d.source_low, d.source_port) == key and d.stream
            ]

        wanted = b"".join(d.payload for d in of(sent))
        chunks = of(found)
        whole = b"".join(d.payload for d in chunks)
        assert whole.startswith(wanted)
        if port == 4000:
            assert whole == wanted + b"another"
            (end,) = [n for n, d in enumerate(chunks) if not d.payload]
            assert b"".join(d.payload for d in chunks[:end]) == wanted
