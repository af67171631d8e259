"""Routes a second from BMP, lookups in the table of routes, and results a second from PM files.

Part of `perf/collectors.py`. A full table is a million IPv4 routes of one peer, four in an UPDATE, in
chunks of 64 KB as TCP gives them. The peer of BMP is tshark's decode of the first part of it; the peer of
PM files is the standard library's tree (xml.etree.iterparse) that does nothing but walk.
"""

import shutil
import struct
import subprocess
import tempfile
import time
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import iterparse

import numpy as np

from collectors.block import DatagramBlock
from collectors.bmp.decoder import BmpDecoder
from collectors.pm.xml import PmReader, read_measurements
from correlator.tables.routing import RoutingTable
from perf.measure import best_seconds, row
from telemetry.batch import Batch
from tests.support.bmp_messages import (
    attribute,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    peer_up,
    statistics,
    update,
    usual,
)
from tests.support.frames_on_wire import ipv4, pcap

Rows = list[dict[str, object]]
ROUTES = 1_000_000
PER_UPDATE = 4
CHUNK_BYTES = 65_536
MORE = (attribute(4, bytes(4)), attribute(5, b"\0\0\0\x64"), attribute(8, struct.pack("!II", 7, 5)))


def full_table(seed: int, routes: int = ROUTES) -> list[bytes]:
    """Return a table of /24s with paths that change with `seed`."""
    made = []
    for first in range(0, routes, PER_UPDATE):
        path = (64500, 3356, 1000 + (first * 7 + seed) % 50_000, 2000 + first % 60_000)
        prefixes = b"".join(
            b"\x18" + struct.pack("!I", (first + k) * 256 + 0x01000000)[:3]
            for k in range(PER_UPDATE)
        )
        made.append(monitoring(update(usual(path, *MORE), prefixes)))
    return made


def blocks(messages: list[bytes]) -> list[DatagramBlock]:
    """Return messages as blocks of sixteen chunks of one connection."""
    stream = b"".join(messages)
    parts = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    return [chunks(parts[at : at + 16], step_ns=0) for at in range(0, len(parts), 16)]


def _seconds(decoder: BmpDecoder, made: list[DatagramBlock]) -> tuple[float, list[Batch]]:
    """Return the CPU time of one pass, which changes what the next one finds."""
    began = time.process_time()
    batches = [batch for block in made for batch in decoder.decode(block)]
    seconds = time.process_time() - began
    return seconds, [batch for batch in batches if batch.schema.name == "route"]


def bmp() -> Rows:
    """A new table, the same again, all paths changed; statistics; the join; tshark."""
    hello, first = [initiation(), peer_up()], full_table(0)
    make_decoder().decode(chunks([*hello, *first[:1000]]))
    decoder = make_decoder()
    found: Rows = []
    kept: list[Batch] = []
    for name, messages in (
        ("a full table", [*hello, *first]), ("the same again", first),
        ("every path changes", full_table(1)),
    ):  # fmt: skip
        seconds, batches = _seconds(decoder, blocks(messages))
        kept = kept or batches
        assert sum(batch.rows for batch in batches) == ROUTES
        found.append(row(f"bmp, {name}", ROUTES / seconds, "routes/s", 1_000_000))
        found.append(row(f"bmp, {name}", len(messages) / seconds, "messages/s"))
        found.append(row(f"bmp, {name}", seconds / ROUTES * 1e6, "CPU s/M routes", None, "lower"))
    decoder.advance(time.time_ns())
    value = decoder.metrics.value  # type: ignore[attr-defined]
    size = value("collector_bmp_state", what="table_bytes")
    found.append(row("bmp, table of a million routes", size / ROUTES, "B/route", 53, "lower"))
    reports = [statistics(*[(k, bytes(4)) for k in range(7)], (7, bytes(8)))] * 5000
    seconds, _ = _seconds(decoder, blocks(reports))
    found.append(row("bmp, statistics reports of 8 numbers", len(reports) / seconds, "messages/s"))
    return found + _joins(kept) + (_tshark(first[:20_000]) if shutil.which("tshark") else [])


def _joins(batches: list[Batch]) -> Rows:
    RoutingTable().learn(batches[0])
    table = RoutingTable()
    began = time.process_time()
    for batch in batches:
        table.learn(batch)
    seconds = time.process_time() - began
    low = np.random.default_rng(1).integers(0x01000000, 0x10000000, 100_000).astype(np.uint64)
    low |= np.uint64(0xFFFF << 32)
    high = np.zeros(low.size, np.uint64)
    asked = best_seconds(lambda: table.origin_as(high, low))
    return [
        row("routing table, routes entered", ROUTES / seconds, "routes/s"),
        row("routing table, addresses looked up", low.size / asked, "addresses/s"),
    ]


def _tshark(messages: list[bytes]) -> Rows:
    stream = b"".join(messages)
    frames = []
    for at in range(0, len(stream), 1400):
        head = struct.pack("!HHIIBBHHH", 4000, 11019, at, 0, 5 << 4, 0x10, 0xFFFF, 0, 0)
        frames.append(ipv4(head + stream[at : at + 1400], protocol=6))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.pcap"
        path.write_bytes(pcap(frames, 101))
        began = time.monotonic()
        subprocess.run(
            ["tshark", "-r", str(path), "-d", "tcp.port==11019,bmp", "-T", "fields",
             "-e", "bgp.nlri_prefix"],
            check=True, capture_output=True,
        )  # fmt: skip
        seconds = time.monotonic() - began
    routes = len(messages) * PER_UPDATE
    return [row("bmp, peer tshark (fields)", routes / seconds, "routes/s")]


def pm_file(objects: int = 2000, counters: int = 50) -> bytes:
    """Return a PM file of so many objects with so many counters each."""
    names = "".join(f'<measType p="{c + 1}">RRC.Counter{c}</measType>' for c in range(counters))
    values = "".join(
        f'<measValue measObjLdn="ENBFunction=1,EUtranCell={o}">'
        + "".join(f'<r p="{c + 1}">{o * c % 977}</r>' for c in range(counters))
        + "<suspect>false</suspect></measValue>"
        for o in range(objects)
    )
    return (
        '<?xml version="1.0"?><measCollecFile><fileHeader dnPrefix="SubNetwork=1"><fileSender localDn="E=1"/>'
        '<measCollec beginTime="2026-03-01T12:00:00Z"/></fileHeader><measData>'
        '<managedElement localDn="ManagedElement=A"/><measInfo measInfoId="i">'
        f'<granPeriod duration="PT900S" endTime="2026-03-01T12:15:00Z"/>{names}{values}'
        "</measInfo></measData></measCollecFile>"
    ).encode()


def pm_files() -> Rows:
    """Results a second of one long file, beside a walk over its tree."""
    data = pm_file()
    results = data.count(b"<r ")
    ours = best_seconds(lambda: sum(1 for _ in read_measurements([data], PmReader())))

    def walk() -> None:
        for _, element in iterparse(BytesIO(data)):
            element.clear()

    theirs = best_seconds(walk)
    return [
        row("pm-files, XML to counters", results / ours, "results/s"),
        row("pm-files, XML to counters", len(data) / ours / 1e6, "MB/s"),
        row("pm-files, peer xml.etree.iterparse (walk alone)", results / theirs, "results/s"),
    ]
