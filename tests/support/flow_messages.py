"""NetFlow and IPFIX messages built from the standards' tables, for tests."""

import struct
from collections.abc import Sequence

from collectors.block import DatagramBlock
from collectors.datagram import Datagram, pack
from telemetry.identity import address_pair

ARRIVAL_NS = 1_790_000_000_000_000_000
SECONDS = ARRIVAL_NS // 10**9


def block(*datagrams: bytes, exporter: str = "192.0.2.1", port: int = 4000) -> DatagramBlock:
    """Return datagrams of one exporter, a millisecond apart."""
    high, low = address_pair(exporter)
    parts = [
        Datagram(ARRIVAL_NS + i * 1_000_000, high, low, port, 2055, data)
        for i, data in enumerate(datagrams)
    ]
    return pack(parts)


def v5(
    *flows: tuple[int, int, int], interval: int = 0, count: int | None = None, sequence: int = 0
) -> bytes:
    """Build a v5 datagram from (source, packets, octets) triples."""
    header = struct.pack(
        "!HHIIIIBBH",
        5,
        len(flows) if count is None else count,
        0,
        SECONDS,
        0,
        sequence,
        0,
        0,
        interval,
    )
    return header + b"".join(
        struct.pack("!I12xII24x", source, packets, octets) for source, packets, octets in flows
    )


def template_set(
    template_id: int, fields: Sequence[tuple[int, ...]], *, version: int = 10
) -> bytes:
    """Build a template set; a field is (element, width) or (element, width, enterprise)."""
    body = struct.pack("!HH", template_id, len(fields))
    for element, width, *enterprise in fields:
        if enterprise:
            body += struct.pack("!HHI", element | 0x8000, width, enterprise[0])
        else:
            body += struct.pack("!HH", element, width)
    return struct.pack("!HH", 2 if version == 10 else 0, len(body) + 4) + body


def options_set(
    template_id: int, scopes: Sequence[tuple[int, int]], fields: Sequence[tuple[int, int]]
) -> bytes:
    """Build an IPFIX options template set."""
    body = struct.pack("!HHH", template_id, len(scopes) + len(fields), len(scopes))
    body += b"".join(struct.pack("!HH", *field) for field in (*scopes, *fields))
    return struct.pack("!HH", 3, len(body) + 4) + body


def v9_options_set(
    template_id: int,
    scopes: Sequence[tuple[int, int]],
    fields: Sequence[tuple[int, int]],
    *,
    padding: int | None = None,
) -> bytes:
    """Build a v9 options template set: lengths in bytes, padded to 4 bytes where not told otherwise."""
    body = struct.pack("!HHH", template_id, 4 * len(scopes), 4 * len(fields))
    body += b"".join(struct.pack("!HH", *field) for field in (*scopes, *fields))
    body += bytes(-(len(body) + 4) % 4 if padding is None else padding)
    return struct.pack("!HH", 1, len(body) + 4) + body


def data_set(set_id: int, body: bytes) -> bytes:
    """Build a data set."""
    return struct.pack("!HH", set_id, len(body) + 4) + body


def ipfix(*sets: bytes, sequence: int = 0, domain: int = 1, seconds: int = SECONDS) -> bytes:
    """Build an IPFIX message."""
    body = b"".join(sets)
    return struct.pack("!HHIII", 10, 16 + len(body), seconds, sequence, domain) + body


def v9(
    *sets: bytes, count: int = 1, sequence: int = 0, source_id: int = 1, uptime_ms: int = 1_000_000
) -> bytes:
    """Build a NetFlow v9 datagram."""
    return struct.pack("!HHIIII", 9, count, uptime_ms, SECONDS, sequence, source_id) + b"".join(
        sets
    )
