"""Our own recording of FRRouting's BMP, and demo and hand-made messages, against tshark's decode."""

import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from telemetry.identity import address_text
from tests.support.bmp_messages import chunks, make_decoder
from tests.support.frames_on_wire import ipv4, pcap
from tocsin.testing.rows import rows_of

RECORDED = Path(__file__).parents[1] / "captures/frr.bmp"
_TYPES = {
    "0": "route_monitoring",
    "1": "statistics",
    "2": "peer_down",
    "3": "peer_up",
    "4": "initiation",
}


def test_frr_as_tshark_reads_it(needs: Callable[..., None], tmp_path: Path) -> None:
    """Messages by type, and every prefix announced and withdrawn, in order."""
    needs("tshark")
    stream = RECORDED.read_bytes()
    decoder = make_decoder()
    batches = decoder.decode(chunks([stream], router="10.255.1.2"))
    capture = tmp_path / "frr.pcap"
    parts = [stream[at : at + 1200] for at in range(0, len(stream), 1200)]
    capture.write_bytes(
        pcap([ipv4(_segment(i * 1200, p), protocol=6) for i, p in enumerate(parts)], 101)
    )
    lines = subprocess.run(
        ["tshark", "-r", str(capture), "-d", "tcp.port==11019,bmp", "-T", "fields", "-E", "aggregator=;",
         "-e", "bmp.type", "-e", "bgp.nlri_prefix", "-e", "bgp.withdrawn_prefix",
         "-e", "bgp.mp_reach_nlri_ipv6_prefix", "-e", "bgp.mp_unreach_nlri_ipv6_prefix"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    found = [[cell.split(";") if cell else [] for cell in line.split("\t")] for line in lines]
    kinds = Counter(_TYPES[kind] for row in found for kind in row[0])
    value = decoder.metrics.value  # type: ignore[attr-defined]
    assert {kind: value("collector_bmp_messages_total", type=kind) for kind in kinds} == kinds
    assert sum(kinds.values()) == value("collector_bmp_messages_total")
    routes = rows_of(batches, "route")
    for column, afi, withdrawn in ((1, 1, 0), (2, 1, 1), (3, 2, 0), (4, 2, 1)):
        ours = [
            address_text(r["prefix_high"], r["prefix_low"])
            for r in routes
            if (r["afi"], r["withdrawn"]) == (afi, withdrawn)
        ]
        assert ours == [prefix for row in found for prefix in row[column]], (afi, withdrawn)
    assert len(routes) > 20
    downs = [r["specific_problem"] for r in rows_of(batches, "alarm") if r["state"] == "raised"]
    assert 'administrative shutdown ("new line card")' in downs[-1]


def _segment(sequence: int, body: bytes) -> bytes:
    return struct.pack("!HHIIBBHHH", 4000, 11019, sequence, 0, 5 << 4, 0x10, 0xFFFF, 0, 0) + body
