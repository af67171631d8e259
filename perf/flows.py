"""Decode, decode + views, and the whole chain, against nfcapd, nfacctd and a plain parser.

The same datagrams for all. Kernels are timed in this process (CPU seconds, best of five); the peers
and our node receive over loopback at a rate where they count no loss, and their CPU time (user +
system of the process) is divided by the records they count.
"""

import contextlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow.columns import FlowMemory
from collectors.flow.decoder import FlowDecoder
from collectors.flow.netflow5 import PRESENT, decode_v5
from collectors.flow.sflow5 import SflowDecoder
from correlator.tables.network_map import FileNetworkMap
from correlator.views import views_for
from correlator.windows import FlowWindows
from perf.measure import best_seconds, cpu_of, report, row
from perf.programs import Program
from telemetry.batch import Batch
from telemetry.identity import address_pair
from tests.support.live_node import LiveNode, write_config
from tocsin.demo.exporters import Exporter
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import TrafficModel
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND
RECORDS = 200_000


def datagrams(protocol: str) -> tuple[list[bytes], int]:
    """Return datagrams of about RECORDS records of one exporter, and how many records."""
    network = load_demo_network()
    model = TrafficModel(network, seed=1, records_per_second=4000)
    made: list[bytes] = []
    count = 0
    exporter = next(
        e for e in (Exporter(network, r, START_NS - 86_400 * SECOND) for r in range(30))
        if e.protocol == protocol
    ) if protocol != "v5" else None  # fmt: skip
    step = 0
    while count < RECORDS:
        batch = model.records(START_NS + step * 5 * SECOND, 5 * SECOND)
        step += 1
        rows = np.arange(batch.rows)
        count += batch.rows
        now_ns = START_NS + step * 5 * SECOND
        made += (
            list(exporter.datagrams(batch, rows, now_ns)) if exporter else list(v5(batch, now_ns))
        )
    return made, count


def v5(batch: Batch, now_ns: int) -> Iterator[bytes]:
    """Encode a batch as NetFlow v5."""
    data = np.zeros(
        batch.rows,
        [("source", ">u4"), ("destination", ">u4"), ("hop", ">u4"), ("into", ">u2"), ("out", ">u2"),
         ("packets", ">u4"), ("octets", ">u4"), ("first", ">u4"), ("last", ">u4"), ("sport", ">u2"),
         ("dport", ">u2"), ("pad", "u1"), ("flags", "u1"), ("protocol", "u1"), ("tos", "u1"),
         ("sas", ">u2"), ("das", ">u2"), ("masks", ">u2"), ("pad2", ">u2")],
    )  # fmt: skip
    low = np.uint64(0xFFFFFFFF)
    data["source"], data["destination"] = (
        batch["source_address_low"] & low,
        batch["destination_address_low"] & low,
    )
    data["into"], data["out"] = batch["ingress_interface"], batch["egress_interface"]
    data["packets"], data["octets"] = batch["packets"], np.minimum(batch["octets"], low)
    data["sport"], data["dport"] = batch["source_port"], batch["destination_port"]
    data["protocol"], data["flags"] = batch["protocol"], batch["tcp_flags"]
    uptime = 86_400_000
    data["first"] = data["last"] = uptime - 1000
    for number, first in enumerate(range(0, batch.rows, 30)):
        part = data[first : first + 30]
        head = struct.pack(
            "!HHIIIIBBH", 5, len(part), uptime, now_ns // SECOND, 0, number * 30, 0, 0, 0x4064
        )
        yield head + part.tobytes()


def to_blocks(made: list[bytes], size: int = 1024) -> list[DatagramBlock]:
    """Pack datagrams into blocks of a receiver's size."""
    high, low = address_pair("127.1.0.1")
    parts = [Datagram(START_NS + i * 1000, high, low, 4000, 2055, d) for i, d in enumerate(made)]
    return [pack(parts[i : i + size]) for i in range(0, len(parts), size)]


def plain_parser(made: list[bytes]) -> int:
    """Parse v5 with struct, as one writes it first; return the records."""
    count = 0
    for data in made:
        _, n, *_ = struct.unpack_from("!HHIIIIBBH", data)
        for i in range(n):
            fields = struct.unpack_from("!IIIHHIIIIHHBBBBHHHH", data, 24 + i * 48)
            record = {
                "source": fields[0],
                "destination": fields[1],
                "octets": fields[6],
                "packets": fields[5],
            }
            count += len(record) > 0
    return count


def flood(made: list[bytes], port: int, *, per_second: int, source: str = "127.1.0.1") -> None:
    """Send datagrams over loopback at a rate."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    began = time.perf_counter()
    for number, data in enumerate(made):
        sock.sendto(data, ("127.0.0.1", port))
        if number % 20 == 0:
            wait = number / per_second - (time.perf_counter() - began)
            if wait > 0:
                time.sleep(wait)
    sock.close()


def in_process() -> list[dict[str, object]]:
    rows = []
    context = make_context()
    made, count = datagrams("v5")
    parts = to_blocks(made)
    out = FlowMemory.room(30 * 1024)
    records, verdict = np.empty(1024, np.int32), np.empty(1024, np.uint8)
    engine, drift = np.zeros(1024, np.uint16), np.zeros(1024, np.int32)
    uptime = np.full(1024, 86_400_000, np.uint32)

    def kernel_only() -> None:
        for part in parts:
            decode_v5(
                part.payload, part.offset, part.length, engine, part.arrival_ns, part.arrival_ns,
                uptime, drift, part.exporter_high, part.exporter_low, PRESENT,
                out.wide, out.words, out.halves, out.octets, records, verdict,
            )  # fmt: skip

    kernel_only()
    rows.append(row("v5 kernel", count / best_seconds(kernel_only) / 1e6, "M records/s", 50))
    views = views_for()
    network = FileNetworkMap(load_demo_network().file)
    for protocol, goal, both in (("v5", None, 5), ("v9", 20, 3), ("ipfix", 20, 3), ("sflow", 5, 3)):
        made, count = datagrams(protocol)
        parts = to_blocks(made)

        def decoder() -> FlowDecoder | SflowDecoder:
            settings = FlowDecoderSettings(clock_tolerance_seconds=5e9)
            return (SflowDecoder if protocol == "sflow" else FlowDecoder)(settings, context)

        known = decoder()

        def decode() -> int:
            return sum(
                b.rows for part in parts for b in known.decode(part) if b.schema.name == "flow"
            )

        def with_views() -> None:
            one = decoder()
            windows = FlowWindows(views, context, backbone=network.backbone())
            for part in parts:
                for batch in one.decode(part):
                    if batch.schema.name == "flow":
                        windows.process(batch)

        decode()
        with_views()
        seconds = best_seconds(decode, repeats=15)
        rows.append(
            row(f"{protocol} decode to columns", decode() / seconds / 1e6, "M records/s", goal)
        )
        rows.append(
            row(
                f"{protocol} decode + default views",
                count / best_seconds(with_views, repeats=3) / 1e6,
                "M records/s",
                both,
            )
        )
    made, count = datagrams("v5")
    made = made[:1500]
    seconds = best_seconds(lambda: plain_parser(made), repeats=3)
    plain = seconds / plain_parser(made) * 1e6
    parts = to_blocks(made)
    one = FlowDecoder(FlowDecoderSettings(clock_tolerance_seconds=5e9), context)
    ours = best_seconds(lambda: [one.decode(p) for p in parts]) / (len(made) * 30) * 1e6
    rows.append(row("plain struct parser, v5", plain, "CPU s / M records", None, "lower"))
    rows.append(row("our decoder, v5", ours, "CPU s / M records", None, "lower"))
    rows.append(row("plain parser / ours", plain / ours, "times", 300))
    return rows


def over_loopback() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    made, count = datagrams("v9")
    made, count = made * 5, count * 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = _ours(folder, made)
        rows.append(row("node, whole chain, v9", ours, "CPU s / M records", None, "lower"))
        for peer, goal, measured in (("nfcapd", 10, _nfcapd), ("nfacctd", 20, _nfacctd)):
            if shutil.which(peer) is None:
                print(f"{peer} is not installed: left out (apt install nfdump pmacct)")
                continue
            figure = measured(folder, made, count)
            rows.append(row(f"{peer}, v9", figure, "CPU s / M records", None, "lower"))
            rows.append(row(f"{peer} / node", figure / ours, "times", goal))
    return rows


def _ours(folder: Path, made: list[bytes]) -> float:
    port, other = free_port(43055, socket.SOCK_DGRAM), free_port(43343, socket.SOCK_DGRAM)
    config = write_config(folder, port=port, sflow_port=other)
    config.write_text(
        config.read_text().replace("tick_seconds = 1.0", "tick_seconds = 5.0"), "utf-8"
    )
    node = LiveNode(config, folder / "state").start()
    node.ask()
    flood(made[:200], port, per_second=2000)  # what is compiled or loaded at first use
    time.sleep(1)
    assert node.process is not None
    first, began = node.ask(), cpu_of(node.process.pid)
    flood(made, port, per_second=8000)
    time.sleep(2)
    last, used = node.ask(), cpu_of(node.process.pid) - began
    node.stop()
    got = last.records - first.records
    print(
        f"node: {got} records, {sum(x.kernel_drops for x in last.listeners)} datagrams dropped by the kernel"
    )
    return used / got * 1e6


def _nfcapd(folder: Path, made: list[bytes], count: int) -> float:
    target = folder / "nfcapd"
    target.mkdir()
    port = free_port(44055, socket.SOCK_DGRAM)
    flags = (
        ["-w", str(target)]
        if b"-w" in subprocess.run(["nfcapd", "-h"], capture_output=True, check=False).stdout
        else ["-l", str(target)]
    )
    peer = Program(["nfcapd", "-p", str(port), "-b", "127.0.0.1", "-B", "4000000", *flags], folder)
    time.sleep(1)
    peer.must_run()
    flood(made, port, per_second=8000)
    time.sleep(1)
    used = cpu_of(peer.pid)
    peer.send_signal(signal.SIGTERM)
    peer.wait(10)
    counted = 0
    for file in target.glob("nfcapd.*"):
        text = subprocess.run(
            ["nfdump", "-r", str(file), "-I"], capture_output=True, text=True, check=False
        ).stdout
        for line in text.splitlines():
            if line.startswith("Flows:"):
                counted += int(line.split(":")[1])
    print(f"nfcapd: {counted} of {count} records")
    return used / max(counted, 1) * 1e6


def _nfacctd(folder: Path, made: list[bytes], count: int) -> float:
    port = free_port(45055, socket.SOCK_DGRAM)
    output = folder / "nfacctd.out"
    config = folder / "nfacctd.conf"
    config.write_text(
        f"nfacctd_port: {port}\nnfacctd_ip: 127.0.0.1\nplugins: print\nprint_refresh_time: 3600\n"
        "aggregate: src_host, dst_host, src_port, dst_port, proto, in_iface, out_iface\n"
        f"print_output_file: {output}\nnfacctd_pipe_size: 4000000\nplugin_buffer_size: 102400\n"
        "plugin_pipe_size: 40960000\n",
        "utf-8",
    )
    peer = Program(["nfacctd", "-f", str(config)], folder)
    time.sleep(2)
    peer.must_run()
    flood(made, port, per_second=8000)
    time.sleep(2)
    children = subprocess.run(
        ["pgrep", "-P", str(peer.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    used = cpu_of(peer.pid) + sum(cpu_of(int(child)) for child in children)
    peer.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        peer.wait(10)
    peer.kill()
    return used / count * 1e6


if __name__ == "__main__":
    report("flows", in_process() + over_loopback())
