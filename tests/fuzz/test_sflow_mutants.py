"""Mutated sFlow datagrams, sampled headers and capture files: no crash, everything counted, bounded."""

from pathlib import Path

import numpy as np
import pytest

from collectors.capture.reader import parse_capture, read_capture
from collectors.capture.report import CaptureReport
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, blocks, pack
from collectors.flow import packet
from collectors.flow.sflow5 import SflowDecoder
from collectors.flow.sflow_kernels import Verdict
from telemetry.errors import DecodeError
from tests.support.capture_files import enhanced, fragments_of, interface, pcap, section
from tests.support.frames_on_wire import FRAMES
from tocsin.testing import make_context

FOLDER = Path(__file__).parents[1] / "captures"
pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
MUTANTS = 50_000
FILES = 50_000


def seeds() -> list[bytes]:
    return [
        datagram.payload
        for name in ("pmacct-sflow", "openvswitch-sflow")
        for datagram in read_capture(FOLDER / f"{name}.pcapng", CaptureReport())
    ]


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    made = bytearray(data[: random.integers(0, len(data) + 1)] if random.random() < 0.3 else data)
    for _ in range(int(random.integers(1, 6))):
        if not made:
            break
        at = int(random.integers(len(made)))
        if random.random() < 0.5:
            made[at] ^= 1 << int(random.integers(8))
        else:  # a wrong length: big-endian words of extremes
            word = (0, 1, 3, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[int(random.integers(6))]
            made[at : at + 4] = word.to_bytes(4, "big")
    return bytes(made)


def test_each_mutant_is_decoded_or_counted(deep: bool) -> None:
    context = make_context()
    decoder = SflowDecoder(FlowDecoderSettings(tunnels="inner"), context)
    originals, total = seeds(), (1_000_000 if deep else MUTANTS)
    for start in range(0, total, 500):
        block = pack(
            [
                Datagram(
                    1, 0, 1, 1, 1, mutate(originals[(start + i) % len(originals)], context.random)
                )
                for i in range(500)
            ]
        )
        rows = sum(b.rows for b in decoder.decode(block) if b.schema.name == "flow")
        assert rows <= block.payload.size // 40
    seen = [
        context.metrics.value("collector_sflow5_datagrams_total", verdict=v.name.lower())
        for v in Verdict
    ]
    assert sum(seen) == total
    assert seen[Verdict.BAD_LENGTH] > 0
    (ledger,) = decoder.advance(1)
    assert (ledger["sent"] == ledger["decoded"] + ledger["lost_wire"].clip(0).astype("u8")).any()


@pytest.mark.parametrize("tunnels", [0, packet.TUNNELS_MAX])
def test_mutated_frames_of_every_kind(tunnels: int, deep: bool) -> None:
    """Any bytes as a frame on any link: what was found lies within the frame (bounds-checked run)."""
    random = make_context().random
    links = [1, 7, 11, 12, 13, 14, 15]
    frames = [frame for frame, _, _ in FRAMES.values()]
    for _ in range((1_000_000 if deep else MUTANTS) // 500):
        made = [mutate(frames[int(random.integers(len(frames)))], random) for _ in range(500)]
        payload = np.frombuffer(b"".join(made), np.uint8)
        length = np.array([len(one) for one in made], np.int32)
        start = np.zeros(len(made), np.int64)
        np.cumsum(length[:-1], out=start[1:])
        link = random.choice(links, len(made), p=[0.7, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
        out = np.empty((len(packet.FIELDS), len(made)), np.uint64)
        count = packet.parse_headers(payload, start, length, link.astype(np.int32), tunnels, out)
        assert count == int((out[11] & packet.IS_IP != 0).sum())
        assert int(out[9].max()) < 4096
        assert int(out[10].max()) < 1 << 20


def capture_seeds() -> list[bytes]:
    packets = [frame for frame, _, _ in FRAMES.values()][::4] + fragments_of(bytes(900), 304)
    tagged = section() + interface(1) + interface(101, resolution=9) + b"".join(
        enhanced(one, 10**15 + n, n % 2) for n, one in enumerate(packets)
    )  # fmt: skip
    files = [pcap(packets), pcap(packets, order=">", nanoseconds=True), tagged, section(">")]
    return files + [
        (FOLDER / f"{name}.pcapng").read_bytes()[:4000]
        for name in ("softflowd-v9", "openvswitch-ipfix", "pmacct-v9")
    ]


def test_damaged_capture_files_give_what_came_before(deep: bool) -> None:
    random = make_context().random
    originals = capture_seeds()
    damaged = read = 0
    for n in range(1_000_000 if deep else FILES):
        data = mutate(originals[n % len(originals)], random)
        report = CaptureReport()
        try:
            found = list(parse_capture(data, report, Path("damaged.pcapng")))
        except DecodeError as error:
            report.damage, found = str(error), []
        assert sum(len(d.payload) for d in found) <= len(data)
        assert "\n" not in report.damage  # one sentence, for people
        assert sum(b.datagrams for b in blocks(iter(found))) == len(found)
        damaged += bool(report.damage)
        read += len(found)
    assert damaged > FILES // 20
    assert read > FILES
