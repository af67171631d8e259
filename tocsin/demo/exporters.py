"""The demo's exporters: real NetFlow v9, IPFIX and sFlow datagrams over loopback.

Exporter i sends from 127.1.0.i. Encoders are vectorised and independent of our decoders. What a router
speaks is `tocsin.demo.network.speaks`.
"""

import contextlib
import json
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from runtime.clock import Clock, SystemClock
from telemetry.batch import Batch
from tocsin.demo.faults import played_line, scripted
from tocsin.demo.network import NETWORK_FILE, DemoNetwork, load_demo_network, speaks
from tocsin.demo.traffic import SAMPLING_RATE, Fault, TrafficModel, sampled_packet
from tocsin.demo.voices import VoicePorts, Voices

SLICE_NS = 500_000_000
UPTIME_NS = 86_400_000_000_000  # of every router when the demo begins
TEMPLATE_EVERY_NS = 20_000_000_000
TEMPLATE_ID, OPTIONS_ID, SAMPLER_ID = 260, 261, 262
PAYLOAD_MAX = 1380

_IPFIX = np.dtype(
    [("source", ">u4"), ("destination", ">u4"), ("source_port", ">u2"), ("destination_port", ">u2"),
     ("protocol", "u1"), ("flags", ">u2"), ("ingress", ">u4"), ("egress", ">u4"), ("octets", ">u8"),
     ("packets", ">u8"), ("start", ">u8"), ("end", ">u8")]
)  # fmt: skip
_IPFIX_ELEMENTS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 2), (10, 4), (14, 4), (1, 8), (2, 8),
                   (152, 8), (153, 8))  # fmt: skip
_V9 = np.dtype(
    [("source", ">u4"), ("destination", ">u4"), ("source_port", ">u2"), ("destination_port", ">u2"),
     ("protocol", "u1"), ("flags", "u1"), ("ingress", ">u4"), ("egress", ">u4"), ("octets", ">u4"),
     ("packets", ">u4"), ("start", ">u4"), ("end", ">u4")]
)  # fmt: skip
_V9_ELEMENTS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 1), (10, 4), (14, 4), (1, 4), (2, 4),
                (22, 4), (21, 4))  # fmt: skip

# One flow sample with one raw packet header record: sFlow v5, structures flow_sample (0:1) and
# sampled_header (0:1). The 54 octets of header are Ethernet, IPv4 and 20 octets of transport.
_SFLOW = np.dtype(
    [("sample_type", ">u4"), ("sample_length", ">u4"), ("number", ">u4"), ("source_id", ">u4"),
     ("rate", ">u4"), ("pool", ">u4"), ("drops", ">u4"), ("input", ">u4"), ("output", ">u4"),
     ("records", ">u4"), ("record_type", ">u4"), ("record_length", ">u4"), ("header_protocol", ">u4"),
     ("frame", ">u4"), ("stripped", ">u4"), ("header_length", ">u4"),
     ("macs", "V12"), ("ethertype", ">u2"), ("version", "u1"), ("tos", "u1"), ("total_length", ">u2"),
     ("id_fragment", ">u4"), ("ttl_protocol", ">u2"), ("checksum", ">u2"), ("source", ">u4"),
     ("destination", ">u4"), ("source_port", ">u2"), ("destination_port", ">u2"),
     ("udp_length", ">u2"), ("sequence", "V6"), ("offset", "u1"), ("flags", "u1"), ("window", "V6"),
     ("padding", "V2")]
)  # fmt: skip
_SFLOW_FIXED = {
    "sample_type": 1, "sample_length": _SFLOW.itemsize - 8, "records": 1, "record_type": 1,
    "record_length": _SFLOW.itemsize - 48, "header_protocol": 1, "stripped": 4, "header_length": 54,
    "ethertype": 0x0800, "version": 0x45,
}  # fmt: skip


class Exporter:
    """One router's exporting process: sequence numbers, templates, uptime."""

    def __init__(self, network: DemoNetwork, row: int, boot_ns: int) -> None:
        self.name = network.names[row]
        self.address = network.addresses[row]
        self.protocol = speaks(row)
        self._domain = row + 1
        self._boot_ns = boot_ns
        self._sequence = 0
        self._template_due_ns = 0
        self._sampled: dict[int, tuple[int, int]] = {}  # sFlow: samples and pool by interface
        self._interfaces = [
            (face.index, face.name) for face in network.file.interface if face.router == self.name
        ]

    def datagrams(self, batch: Batch, rows: NDArray[np.int64], now_ns: int) -> Iterator[bytes]:
        """Yield the datagrams for these rows of a flow batch, templates before them when due."""
        if self.protocol == "sflow":
            yield from self._sflow(batch, rows, now_ns)
            return
        if now_ns >= self._template_due_ns:
            self._template_due_ns = now_ns + TEMPLATE_EVERY_NS
            yield self._announce(now_ns)
        ipfix = self.protocol == "ipfix"
        dtype = _IPFIX if ipfix else _V9
        data = np.zeros(len(rows), dtype)
        data["source"] = batch["source_address_low"][rows] & np.uint64(0xFFFFFFFF)
        data["destination"] = batch["destination_address_low"][rows] & np.uint64(0xFFFFFFFF)
        data["source_port"] = batch["source_port"][rows]
        data["destination_port"] = batch["destination_port"][rows]
        data["protocol"] = batch["protocol"][rows]
        data["flags"] = batch["tcp_flags"][rows]
        data["ingress"] = batch["ingress_interface"][rows]
        data["egress"] = batch["egress_interface"][rows]
        data["packets"] = batch["packets"][rows]
        start, end = batch["flow_start_ns"][rows], batch["flow_end_ns"][rows]
        if ipfix:
            data["octets"] = batch["octets"][rows]
            data["start"], data["end"] = start // 1_000_000, end // 1_000_000
        else:
            data["octets"] = np.minimum(batch["octets"][rows], np.uint64(0xFFFFFFFF))
            data["start"] = (start - self._boot_ns) // 1_000_000
            data["end"] = (end - self._boot_ns) // 1_000_000
        each = (PAYLOAD_MAX - 24) // dtype.itemsize
        for first in range(0, len(rows), each):
            part = data[first : first + each]
            yield self._message(TEMPLATE_ID, part.tobytes(), len(part), now_ns)

    def _message(self, set_id: int, body: bytes, records: int, now_ns: int) -> bytes:
        if self.protocol == "ipfix":
            one = struct.pack("!HH", set_id, len(body) + 4) + body
            head = struct.pack(
                "!HHIII",
                10,
                16 + len(one),
                now_ns // 10**9,
                self._sequence & 0xFFFFFFFF,
                self._domain,
            )
            self._sequence += records if set_id >= 256 else 0
            return head + one
        body += bytes(-len(body) % 4)
        one = struct.pack("!HH", set_id, len(body) + 4) + body
        uptime = (now_ns - self._boot_ns) // 1_000_000 & 0xFFFFFFFF
        head = struct.pack(
            "!HHIIII",
            9,
            records,
            uptime,
            now_ns // 10**9,
            self._sequence & 0xFFFFFFFF,
            self._domain,
        )
        self._sequence += 1
        return head + one

    def _announce(self, now_ns: int) -> bytes:
        """Return one message with the data template, the options templates and their data."""
        ipfix = self.protocol == "ipfix"
        elements = _IPFIX_ELEMENTS if ipfix else _V9_ELEMENTS
        template = struct.pack("!HH", TEMPLATE_ID, len(elements))
        template += b"".join(struct.pack("!HH", *element) for element in elements)
        if ipfix:
            names = struct.pack("!HHHHHHH", OPTIONS_ID, 2, 1, 10, 4, 82, 16)
            rate = struct.pack("!HHHHHHH", SAMPLER_ID, 2, 1, 144, 4, 34, 4)
        else:
            names = struct.pack("!HHHHHHH", OPTIONS_ID, 4, 4, 2, 4, 82, 16)
            rate = struct.pack("!HHHHHHH", SAMPLER_ID, 4, 4, 1, 4, 34, 4)
        faces = b"".join(
            struct.pack("!I16s", index, name.encode()) for index, name in self._interfaces
        )
        sampler = struct.pack("!II", 0, SAMPLING_RATE)
        sets = b""
        kinds = (2, 3) if ipfix else (0, 1)
        for set_id, body in (
            (kinds[0], template), (kinds[1], names), (kinds[1], rate),
            (OPTIONS_ID, faces), (SAMPLER_ID, sampler),
        ):  # fmt: skip
            body += bytes(-len(body) % 4)
            sets += struct.pack("!HH", set_id, len(body) + 4) + body
        records = len(self._interfaces) + 1
        if ipfix:
            head = struct.pack(
                "!HHIII",
                10,
                16 + len(sets),
                now_ns // 10**9,
                self._sequence & 0xFFFFFFFF,
                self._domain,
            )
            self._sequence += records
            return head + sets
        uptime = (now_ns - self._boot_ns) // 1_000_000 & 0xFFFFFFFF
        head = struct.pack(
            "!HHIIII",
            9,
            records + 3,
            uptime,
            now_ns // 10**9,
            self._sequence & 0xFFFFFFFF,
            self._domain,
        )
        self._sequence += 1
        return head + sets

    def _sflow(self, batch: Batch, rows: NDArray[np.int64], now_ns: int) -> Iterator[bytes]:
        """One sampled packet stands for a whole flow: its rate is the flow's packets times ours."""
        data = np.zeros(len(rows), _SFLOW)
        for name, value in _SFLOW_FIXED.items():
            data[name] = value
        frame, rate = sampled_packet(batch["octets"][rows], batch["packets"][rows])
        ingress = batch["ingress_interface"][rows]
        data["source_id"] = data["input"] = ingress
        data["output"] = batch["egress_interface"][rows]
        data["rate"] = rate
        data["frame"] = frame
        for face in np.unique(ingress).tolist():  # sample numbers and pools count per source
            mine = np.flatnonzero(ingress == face)
            number, pool = self._sampled.get(face, (0, 0))
            data["number"][mine] = number + 1 + np.arange(mine.size)
            pools = pool + np.cumsum(rate[mine].astype(np.int64))
            data["pool"][mine] = pools & 0xFFFFFFFF
            self._sampled[face] = (number + mine.size, int(pools[-1]))
        protocol = batch["protocol"][rows]
        data["total_length"] = frame - 18  # without Ethernet header and frame check sequence
        data["ttl_protocol"] = (64 << 8) | protocol.astype(np.uint16)
        data["source"] = batch["source_address_low"][rows] & np.uint64(0xFFFFFFFF)
        data["destination"] = batch["destination_address_low"][rows] & np.uint64(0xFFFFFFFF)
        data["checksum"] = _header_checksum(data)
        data["source_port"] = batch["source_port"][rows]
        data["destination_port"] = batch["destination_port"][rows]
        tcp = protocol == 6
        data["offset"] = np.where(tcp, 0x50, 0)
        data["flags"] = np.where(tcp, batch["tcp_flags"][rows] & 0xFF, 0)
        data["udp_length"] = np.where(protocol == 17, data["total_length"] - 20, 0)
        agent = socket.inet_aton(self.address)
        uptime = (now_ns - self._boot_ns) // 1_000_000 & 0xFFFFFFFF
        each = (PAYLOAD_MAX - 28) // _SFLOW.itemsize
        for first in range(0, len(rows), each):
            part = data[first : first + each]
            self._sequence += 1
            yield (
                struct.pack(
                    "!II4sIIII", 5, 1, agent, 0, self._sequence & 0xFFFFFFFF, uptime, len(part)
                )
                + part.tobytes()
            )


def _header_checksum(data: NDArray[Any]) -> NDArray[np.int64]:
    """Return the IPv4 header checksum of each row (RFC 791, 3.1): no options, no fragments."""
    total = np.full(len(data), 0x4500, np.int64)
    total += data["total_length"].astype(np.int64) + data["ttl_protocol"]
    for name in ("source", "destination"):
        address = data[name].astype(np.int64)
        total += (address >> 16) + (address & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


class Sender:
    """All exporters of the network, each on its own source address."""

    def __init__(
        self, model: TrafficModel, *, ports: dict[str, int], host: str, boot_ns: int
    ) -> None:
        self._model = model
        self._host = host
        self._ports = ports
        count = len(model.network.names)
        self.exporters = [Exporter(model.network, row, boot_ns) for row in range(count)]
        self._sockets: list[socket.socket] = []
        for exporter in self.exporters:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((exporter.address, 0))
            self._sockets.append(sock)
        self.records = 0

    def send(self, start_ns: int, length_ns: int) -> Batch:
        """Send everything exported in [start, start + length) and return it."""
        batch = self._model.records(start_ns, length_ns)
        now_ns = start_ns + length_ns
        low = batch["exporter_address_low"]
        for row, exporter in enumerate(self.exporters):
            mine = np.flatnonzero(low == self._model.network.address_low[row])
            if not mine.size:
                continue
            port = self._ports["sflow" if exporter.protocol == "sflow" else "flow"]
            for data in exporter.datagrams(batch, mine, now_ns):
                with contextlib.suppress(OSError):
                    self._sockets[row].sendto(data, (self._host, port))
        self.records += batch.rows
        return batch

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()


def play(
    sender: Sender, voices: Voices, faults: tuple[Fault, ...], clock: Clock, *, until_ns: int
) -> None:
    """Send in real time until `until_ns`, and say each fault as it begins, as JSON lines."""
    at_ns = clock.now_ns() // SLICE_NS * SLICE_NS
    told: set[int] = set()
    while at_ns < until_ns:
        for number, fault in enumerate(faults):
            if number not in told and fault.active(at_ns):
                told.add(number)
                line = {"played": played_line(fault), "kind": fault.kind, "entity": fault.entity}
                _say({**line, "start_ns": fault.start_ns, "end_ns": fault.end_ns})
        batch = sender.send(at_ns, SLICE_NS)
        at_ns += SLICE_NS
        voices.step(batch, at_ns)
        wait = (at_ns - clock.now_ns()) / 1e9
        if wait > 0:
            clock.sleep(wait)


def _say(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Draws traffic and faults.")
@click.option("--for", "seconds", type=click.FloatRange(min=0.1), help="Stop after so long.")
@click.option("--start-ns", type=int, help="When the script begins, ns since 1970; default: now.")
@click.option("--flow-port", type=click.IntRange(1, 65535), default=2055, show_default=True)
@click.option("--sflow-port", type=click.IntRange(1, 65535), default=6343, show_default=True)
@click.option("--syslog-port", type=click.IntRange(0, 65535), default=0, help="0 = says nothing.")
@click.option("--trap-port", type=click.IntRange(0, 65535), default=0, help="SNMP traps.")
@click.option("--bmp-port", type=click.IntRange(0, 65535), default=0)
@click.option("--snmp-port", type=click.IntRange(0, 65535), default=0, help="Agents answer here.")
@click.option("--alarms-port", type=click.IntRange(0, 65535), default=0, help="TMF642 alarm list.")
@click.option("--records-per-second", type=click.FloatRange(50, 1e6), default=2400.0)
@click.option(
    "--network",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=NETWORK_FILE,
    help="Another carrier than the demo's.",
)
def main(
    seed: int,
    seconds: float | None,
    start_ns: int | None,
    flow_port: int,
    sflow_port: int,
    syslog_port: int,
    trap_port: int,
    bmp_port: int,
    snmp_port: int,
    alarms_port: int,
    records_per_second: float,
    network: Path,
) -> None:
    """Export the demo carrier's flows to 127.0.0.1 and play the scripted faults, in real time.

    Each fault is said as one JSON line on stdout when it begins.
    """
    clock = SystemClock()
    carrier = load_demo_network(network)
    start_ns = clock.now_ns() if start_ns is None else start_ns
    faults = scripted(carrier, start_ns=start_ns, seed=seed)
    model = TrafficModel(carrier, seed=seed, faults=faults, records_per_second=records_per_second)
    sender = Sender(
        model,
        ports={"flow": flow_port, "sflow": sflow_port},
        host="127.0.0.1",
        boot_ns=start_ns - UPTIME_NS,
    )
    ports = VoicePorts(
        syslog=syslog_port, trap=trap_port, bmp=bmp_port, snmp=snmp_port, alarms=alarms_port
    )
    voices = Voices(
        carrier, faults, ports, host="127.0.0.1", boot_ns=start_ns - UPTIME_NS, seed=seed
    )
    voices.start(start_ns)
    until_ns = start_ns + round(seconds * 1e9) if seconds else 1 << 62
    try:
        play(sender, voices, faults, clock, until_ns=until_ns)
    except KeyboardInterrupt:
        pass
    finally:
        voices.stop()
        sender.close()


if __name__ == "__main__":
    main()
