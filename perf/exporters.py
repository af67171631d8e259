"""A steady load with a known number of series: NetFlow v5 exporters on loopback addresses.

A series is an entity's metric: an interface has three that are scored, a prefix four. Of the keys four
in ten are interfaces (both directions), three in ten source and three in ten destination prefixes;
exporters and services come on top. Every key has records in every cycle.
"""

import socket
import struct
from dataclasses import dataclass

import numpy as np

HEADER = struct.Struct(">HHIIIIBBH")
RECORDS = 30
RECORD = np.dtype(
    [
        ("source", ">u4"), ("destination", ">u4"), ("next_hop", ">u4"),
        ("input", ">u2"), ("output", ">u2"), ("packets", ">u4"), ("octets", ">u4"),
        ("first_ms", ">u4"), ("last_ms", ">u4"),
        ("source_port", ">u2"), ("destination_port", ">u2"),
        ("pad1", "u1"), ("flags", "u1"), ("protocol", "u1"), ("tos", "u1"),
        ("source_as", ">u2"), ("destination_as", ">u2"),
        ("source_mask", "u1"), ("destination_mask", "u1"), ("pad2", ">u2"),
    ]
)  # fmt: skip
INTERFACES_MAX = 400
UPTIME_MS = 86_400_000
SERVICES = np.array([80, 443, 53, 123, 22, 25], np.uint16)


@dataclass(slots=True)
class _Exporter:
    sock: socket.socket
    records: np.ndarray  # RECORD[n], what it says in one cycle
    sequence: int = 0


class Exporters:
    """Sends one cycle of records evenly over `cycle_seconds`, again and again."""

    def __init__(self, series: int, *, port: int, seed: int = 7) -> None:
        random = np.random.default_rng(seed)
        keys = -(-series * 10 // 36)
        interfaces = max(2, keys * 4 // 10 // 2)  # each counts twice: in and out
        prefixes = max(2, -(-keys * 3 // 10))
        count = max(2, -(-interfaces // INTERFACES_MAX))
        each = -(-interfaces // count)
        total = max(interfaces, prefixes)
        place = np.arange(total)
        records = np.zeros(total, RECORD)
        records["source"] = (10 << 24) + (place % prefixes << 8) + random.integers(1, 255, total)
        records["destination"] = (
            (100 << 24) + (place % prefixes << 8) + random.integers(1, 255, total)
        )
        exporter = place % count
        records["input"] = 1 + place // count % each
        records["output"] = 1 + (place // count + 1) % each
        records["source_port"] = random.integers(1024, 65535, total)
        records["destination_port"] = random.choice(SERVICES, total)
        records["protocol"] = np.where(random.random(total) < 0.8, 6, 17)
        self._port = port
        self._exporters = []
        for i in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((f"127.1.{i // 250}.{1 + i % 250}", 0))
            self._exporters.append(_Exporter(sock, records[exporter == i]))
        self._random = random
        # (exporter, first record) of every datagram of a cycle, spread over the exporters.
        self._plan = sorted(
            (at, i) for i, one in enumerate(self._exporters)
            for at in range(0, len(one.records), RECORDS)
        )  # fmt: skip
        self._at = 0

    @property
    def datagrams_per_cycle(self) -> int:
        """Datagrams in which every series is seen once."""
        return len(self._plan)

    @property
    def records_per_datagram(self) -> float:
        """The mean over a cycle: the last datagram of each exporter is not full."""
        return sum(len(one.records) for one in self._exporters) / len(self._plan)

    def send(self, datagrams: int, now_ns: int) -> None:
        """Send the next datagrams of the cycle, exported at `now_ns`."""
        seconds, rest = divmod(now_ns, 1_000_000_000)
        for _ in range(datagrams):
            first, i = self._plan[self._at]
            self._at = (self._at + 1) % len(self._plan)
            one = self._exporters[i]
            part = one.records[first : first + RECORDS].copy()
            n = len(part)
            part["packets"] = self._random.poisson(40, n) + 1
            part["octets"] = part["packets"].astype(np.int64) * 700
            part["first_ms"] = UPTIME_MS - 1000
            part["last_ms"] = UPTIME_MS
            head = HEADER.pack(5, n, UPTIME_MS, seconds, rest, one.sequence & 0xFFFFFFFF, 0, 0, 0)
            one.sequence += n
            one.sock.sendto(head + part.tobytes(), ("127.0.0.1", self._port))

    def close(self) -> None:
        """Close the sockets."""
        for one in self._exporters:
            one.sock.close()
