"""The demo's exporters: real NetFlow v9, IPFIX and sFlow datagrams over loopback.

Exporter i sends from 127.1.0.i. Encoders are vectorised and independent of our decoders. Router
number modulo 5 says what it speaks: 0 to 1 IPFIX, 2 to 3 NetFlow v9, 4 sFlow.
"""

import contextlib
import json
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.clock import Clock, SystemClock
from telemetry.batch import Batch
from tocsin.demo.faults import played_line, scripted
from tocsin.demo.network import DemoNetwork, load_demo_network
from tocsin.demo.traffic import SAMPLING_RATE, Fault, TrafficModel

SLICE_NS = 500_000_000
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


class Exporter:
    """One router's exporting process: sequence numbers, templates, uptime."""

    def __init__(self, network: DemoNetwork, row: int, boot_ns: int) -> None:
        self.name = network.names[row]
        self.address = network.addresses[row]
        self.protocol = ("ipfix", "ipfix", "v9", "v9", "sflow")[row % 5]
        self._domain = row + 1
        self._boot_ns = boot_ns
        self._sequence = 0
        self._template_due_ns = 0
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
        samples: list[bytes] = []
        agent = socket.inet_aton(self.address)
        uptime = (now_ns - self._boot_ns) // 1_000_000 & 0xFFFFFFFF
        names = ("source_address_low", "destination_address_low", "source_port", "destination_port",
                 "protocol", "tcp_flags", "octets", "packets", "ingress_interface", "egress_interface")  # fmt: skip
        columns = [batch[name][rows].tolist() for name in names]
        for source, destination, sport, dport, protocol, flags, octets, packets, into, out in zip(
            *columns, strict=True
        ):
            frame = min(max(octets // packets, 64), 9000)
            rate = max(octets * SAMPLING_RATE // frame, 1)
            ip = struct.pack(
                "!BBHHHBBHII", 0x45, 0, (frame - 14) & 0xFFFF, 0, 0, 64, protocol, 0,
                source & 0xFFFFFFFF, destination & 0xFFFFFFFF,
            )  # fmt: skip
            transport = struct.pack("!HHIIBBHHH", sport, dport, 0, 0, 0x50, flags & 0xFF, 0, 0, 0)
            header = bytes(12) + b"\x08\x00" + ip + transport
            header += bytes(-len(header) % 4)
            record = struct.pack("!IIIIII", 1, 16 + len(header), 1, frame, 4, 54) + header
            body = struct.pack("!IIIIIIII", 0, into, rate & 0xFFFFFFFF, 0, 0, into, out, 1) + record
            samples.append(struct.pack("!II", 1, len(body)) + body)
            if len(samples) == 10:
                yield self._sflow_datagram(agent, uptime, samples)
                samples = []
        if samples:
            yield self._sflow_datagram(agent, uptime, samples)

    def _sflow_datagram(self, agent: bytes, uptime: int, samples: list[bytes]) -> bytes:
        self._sequence += 1
        head = struct.pack(
            "!II4sIIII", 5, 1, agent, 0, self._sequence & 0xFFFFFFFF, uptime, len(samples)
        )
        return head + b"".join(samples)


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

    def send(self, start_ns: int, length_ns: int) -> None:
        """Send everything exported in [start, start + length)."""
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

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()


def play(sender: Sender, faults: tuple[Fault, ...], clock: Clock, *, until_ns: int) -> None:
    """Send in real time until `until_ns`, and say each fault as it begins, as JSON lines."""
    at_ns = clock.now_ns() // SLICE_NS * SLICE_NS
    told: set[int] = set()
    while at_ns < until_ns:
        for number, fault in enumerate(faults):
            if number not in told and fault.active(at_ns):
                told.add(number)
                line = {"played": played_line(fault), "kind": fault.kind, "entity": fault.entity}
                _say({**line, "start_ns": fault.start_ns, "end_ns": fault.end_ns})
        sender.send(at_ns, SLICE_NS)
        at_ns += SLICE_NS
        wait = (at_ns - clock.now_ns()) / 1e9
        if wait > 0:
            clock.sleep(wait)


def _say(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """`python -m tocsin.demo.exporters JSON`: the sender process of `tocsin demo`."""
    wish = json.loads(sys.argv[1])
    clock = SystemClock()
    network = load_demo_network(Path(wish["network"]) if wish.get("network") else None)
    start_ns = int(wish["start_ns"])
    faults = scripted(network, start_ns=start_ns, seed=wish["seed"])
    model = TrafficModel(network, seed=wish["seed"], faults=faults)
    sender = Sender(
        model, ports=wish["ports"], host="127.0.0.1", boot_ns=start_ns - 86_400_000_000_000
    )
    try:
        play(sender, faults, clock, until_ns=start_ns + round(wish["seconds"] * 1e9))
    except KeyboardInterrupt:
        pass
    finally:
        sender.close()


if __name__ == "__main__":
    main()
