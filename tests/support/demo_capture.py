"""A capture of the demo network's own datagrams, made without sockets: faults in a few minutes."""

from pathlib import Path

import numpy as np

from collectors.capture import Datagram, PcapngWriter
from telemetry.identity import address_pair
from tocsin.demo.exporters import Exporter
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import Fault, TrafficModel

SECOND = 1_000_000_000
START_NS = 1_790_596_800 * SECOND


def write_demo_capture(
    path: Path, *, seconds: int, faults: tuple[Fault, ...] = (), records_per_second: float = 600.0
) -> int:
    """Write a pcapng of all exporters' datagrams; return the number of flow records in it."""
    network = load_demo_network()
    model = TrafficModel(network, seed=3, faults=faults, records_per_second=records_per_second)
    boot_ns = START_NS - 86_400 * SECOND
    exporters = [Exporter(network, row, boot_ns) for row in range(len(network.names))]
    writer = PcapngWriter(path)
    records = 0
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
        for datagram in sorted(sent, key=lambda d: d.arrival_ns):
            writer.write(datagram, destination_port=2055)
    writer.close()
    return records
