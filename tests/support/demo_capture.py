"""A capture of the demo network's own datagrams, made without sockets: faults in a few minutes."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from collectors.capture.writer import PcapngWriter
from collectors.datagram import Datagram
from telemetry.identity import address_pair
from tests.support import flow_messages
from tocsin.demo.exporters import Exporter
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import Fault, TrafficModel

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND


CHANGING = "10.255.9.9"
_WIDE = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (14, 4), (1, 8), (2, 8), (152, 8), (153, 8),
         (34, 4))  # fmt: skip
_NARROW = ((153, 8), (152, 8), (34, 4), (2, 4), (1, 4), (14, 2), (10, 2), (4, 1), (11, 2), (7, 2), (12, 4),
           (8, 4))  # fmt: skip


def changing_exporter(seconds: int) -> Iterator[Datagram]:
    """Yield what an IPFIX exporter sends that does all that templates may do, and then falls silent.

    Every half second 20 records. Second 40: template 300 gets another layout, in the message that
    uses it. 60 to 62: records under 301 before its template. 80: 300 is withdrawn, the rate of
    sampling changes. 110 to 140: silence.
    """
    high, low = address_pair(CHANGING)
    sequence = 0
    for step in range(2 * seconds):
        at = step / 2
        if 110 <= at < 140:
            continue
        now_ns = START_NS + step * SECOND // 2 + 490_000_000
        sets, layout, number = [], _WIDE, 300
        if at >= 40:
            layout = _NARROW
        if at >= 60:
            number = 301
        if (at < 60 and step % 40 == 0) or (at >= 62 and step % 40 == 4):
            sets.append(flow_messages.template_set(number, layout))
        if at == 80:
            sets.append(struct.pack("!HHHH", 2, 8, 300, 0))  # RFC 7011 section 8.1: withdrawal
        body = b""
        for i in range(20):
            values = {
                8: 0x0A640000 + 256 * (i % 4) + i, 12: 0x0AC80000 + 256 * (i % 5) + i, 7: 443,
                11: 50_000 + i, 4: 6, 10: 1, 14: 2, 1: 60_000 + 100 * (step % 7), 2: 60,
                152: (now_ns - SECOND) // 1_000_000, 153: now_ns // 1_000_000,
                34: 10 if at < 80 else 20,
            }  # fmt: skip
            body += b"".join(values[element].to_bytes(width, "big") for element, width in layout)
        sets.append(flow_messages.data_set(number, body))
        data = flow_messages.ipfix(*sets, sequence=sequence, domain=9, seconds=now_ns // SECOND)
        sequence += 20
        yield Datagram(now_ns, high, low, 40_999, 0, data)


def write_demo_capture(
    path: Path, *, seconds: int, faults: tuple[Fault, ...] = (), records_per_second: float = 600.0,
    more: tuple[Datagram, ...] = (),
) -> int:  # fmt: skip
    """Write a pcapng of all exporters' datagrams; return the number of the model's flow records.

    `more` is written among them by its arrival.
    """
    network = load_demo_network()
    model = TrafficModel(network, seed=3, faults=faults, records_per_second=records_per_second)
    boot_ns = START_NS - 86_400 * SECOND
    exporters = [Exporter(network, row, boot_ns) for row in range(len(network.names))]
    writer = PcapngWriter(path)
    records, rest = 0, sorted(more, key=lambda d: d.arrival_ns)
    for step in range(2 * seconds):
        start_ns = START_NS + step * SECOND // 2
        batch = model.records(start_ns, SECOND // 2)
        records += batch.rows
        sent: list[Datagram] = []
        for row, exporter in enumerate(exporters):
            mine = np.flatnonzero(batch["exporter_address_low"] == network.address_low[row])
            if not mine.size:
                continue
            high, low = address_pair(exporter.address)
            for number, data in enumerate(exporter.datagrams(batch, mine, start_ns + SECOND // 2)):
                # Spread over the half second, so that ticks close between datagrams.
                arrival = start_ns + SECOND // 2 + row * 10_000_000 + number * 50_000
                sent.append(Datagram(arrival, high, low, 40_000 + row, 0, data))
        while rest and rest[0].arrival_ns < start_ns + SECOND:
            sent.append(rest.pop(0))
        for datagram in sorted(sent, key=lambda d: d.arrival_ns):
            writer.write(datagram, destination_port=2055)
    writer.close()
    return records
