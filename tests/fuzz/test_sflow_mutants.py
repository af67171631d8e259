"""Mutated sFlow datagrams, sampled headers and capture files: no crash, everything counted, bounded."""

from pathlib import Path

import numpy as np
import pytest

from collectors.capture import CaptureReport, Datagram, pack, read_capture
from collectors.config import FlowDecoderSettings
from collectors.sflow5 import SflowDecoder, Verdict
from telemetry.errors import DecodeError
from tocsin.testing import make_context

FOLDER = Path(__file__).parents[1] / "captures"
MUTANTS = 40_000
FILES = 10_000


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


@pytest.mark.parametrize("name", ["softflowd-v9", "openvswitch-ipfix"])
def test_a_damaged_file_gives_what_came_before(tmp_path: Path, name: str, deep: bool) -> None:
    random = make_context().random
    original = (FOLDER / f"{name}.pcapng").read_bytes()[:4000]
    path = tmp_path / "damaged.pcapng"
    for _ in range((100_000 if deep else FILES) // 20):
        path.write_bytes(mutate(original, random))
        report = CaptureReport()
        try:
            found = list(read_capture(path, report))
        except DecodeError as error:
            report.damage, found = str(error), []
        assert sum(len(d.payload) for d in found) <= len(original)
        assert "\n" not in report.damage  # one sentence, for people
