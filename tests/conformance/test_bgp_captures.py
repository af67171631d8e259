"""BGP sessions of others: their UPDATEs as rows, against golden decodes (NetGauze) and tcpdump's texts.

A session's messages are put into BMP of a router that told nothing of its peers' capabilities: the widths
of AS numbers and path ids must be found from the messages alone.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from collectors.capture.tcp import TcpStreams
from telemetry.identity import address_text
from tests.conformance.test_bmp_captures import expected_routes, our_routes
from tests.support.bmp_messages import MARKER, chunks, make_decoder, monitoring
from tocsin.testing.rows import rows_of

GOLDEN = (
    "netgauze-pmacct/300-BGP-IPv6-CISCO-extNH_enc/traffic-00",
    "netgauze-pmacct/301-BGP-CISCO-pretag/traffic-00",
    "netgauze-pmacct/303-BGP-high-availability/traffic-00",
    "netgauze-pmacct/305-BGP-mem-leak-test/bgp-multi-sources-update-keepalive",
    "netgauze/multiple-sessions/traffic",
)
# The golden decode has one direction of some sessions; the capture has both.
PARTIAL = ("netgauze/multiple-sessions/traffic",)
PEER = ("192.0.2.1", 0, 64500)  # what `monitoring` says of its peer


def messages_of(path: Path) -> list[bytes]:
    """Return the BGP messages of all TCP streams of a capture."""
    streams: dict[tuple[int, ...], bytes] = {}
    for chunk in read_capture(path, CaptureReport(), TcpStreams()):
        if chunk.stream and 179 in (chunk.source_port, chunk.destination_port):
            key = (chunk.source_high, chunk.source_low, chunk.source_port, chunk.destination_port)
            streams[key] = streams.get(key, b"") + chunk.payload
    made = []
    for stream in streams.values():
        at = stream.find(MARKER)
        while 0 <= at <= len(stream) - 19:
            size = int.from_bytes(stream[at + 16 : at + 18], "big")
            if at + size <= len(stream):  # else the capture ends within
                made.append(stream[at : at + size])
            at = stream.find(MARKER, at + max(size, 16))
    return made


def decoded(messages: list[bytes]) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]], Any]:
    """Return the routes of these messages, the same as rows, and the decoder's counts."""
    decoder = make_decoder()
    updates = [monitoring(m) for m in messages if len(m) > 18 and m[18] == 2]
    batches = decoder.decode(chunks(updates))
    return our_routes(batches), rows_of(batches, "route"), decoder.metrics.value  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", GOLDEN)
def test_every_route_as_the_golden_decode_has_it(shared: Path, name: str) -> None:
    """All routes of all sessions; their order between sessions is the tool's own."""
    folder = shared / "captures/bgp"
    wanted: list[tuple[Any, ...]] = []
    for line in (folder / f"{name}-bgp.json").read_text().splitlines():
        body = json.loads(line)
        if isinstance(body, dict) and "Update" in body:
            wanted += expected_routes(body["Update"], PEER)
    ours, _, value = decoded(messages_of(folder / f"{name}.pcap"))
    assert len(wanted) > 10
    # Origins of sets: None.
    loose = [tuple(x for i, x in enumerate(row) if i != 9) for row in wanted]
    found = Counter(tuple(x for i, x in enumerate(row) if i != 9) for row in ours)
    if name in PARTIAL:
        assert not Counter(loose) - found
    else:
        assert found == Counter(loose)
    assert value("collector_bmp_updates_total", verdict="malformed") == 0


def test_no_bgp_capture_breaks_the_decoder(shared: Path) -> None:
    """Every session we have: each UPDATE has a verdict; prefixes of tcpdump's texts are among ours."""
    files = sorted((shared / "captures/bgp").rglob("*.pcap*"))
    assert len(files) >= 25
    for path in files:
        messages = messages_of(path)
        updates = [m for m in messages if len(m) > 18 and m[18] == 2]
        _, rows, value = decoded(messages)
        assert value("collector_bmp_updates_total") == len(updates), path
        text = path.with_suffix(".out")
        if path.name == "bgp-ub.pcap":
            continue  # lengths that contradict each other: tcpdump reads on, RFC 7606 forbids it
        if text.exists() and "update" in text.read_text("utf-8", "replace").lower():
            found = {
                f"{address_text(r['prefix_high'], r['prefix_low'])}/{r['prefix_length']}"
                for r in rows
            }
            plain = re.findall(
                r"^\s+(\d+\.\d+\.\d+\.\d+/\d+)\s*$",
                text.read_text("utf-8", "replace"),
                re.MULTILINE,
            )
            assert set(plain) <= found, (path, set(plain) - found)
