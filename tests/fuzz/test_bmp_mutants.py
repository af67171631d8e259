"""Mutated BMP streams: no crash, every message and byte in one count, tables bounded."""

import numpy as np
import pytest

from tests.support.bmp_messages import (
    add_path,
    attribute,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    open_message,
    peer_down,
    peer_up,
    prefix,
    reach,
    statistics,
    termination,
    unreach,
    update,
    usual,
)
from tests.support.link_state_messages import (
    bandwidth,
    link_nlri,
    node_nlri,
    over,
    prefix_nlri,
    stated,
    tlv,
    withdrawn,
)
from tocsin.testing.rows import rows_of

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
MUTANTS = 10_000
DEEP_MUTANTS = 200_000
BLOCK = 250
RD = bytes.fromhex("0000fbf400000007")
ROUTER = "1921.6800.1001"
SEEDS = (
    initiation(),
    peer_up(),
    peer_up("2001:db8::1", open_message(1, add_path(3)), open_message(2, add_path(3, 2, 1))),
    monitoring(update(usual((64500, 64501), attribute(8, bytes(8))), prefix("192.0.2.0/24") * 3)),
    monitoring(update(withdrawn=prefix("10.0.0.0/8")), flags=0x40),
    monitoring(update(usual() + reach(2, 1, bytes(16), prefix("2001:db8::/33"))), "2001:db8::1"),
    monitoring(
        update(usual() + reach(1, 128, bytes(12), prefix("10.0.0.0/8", before=b"\0\x10\1" + RD)))
    ),
    monitoring(update(usual() + reach(25, 70, bytes(4), b"\5\x22" + RD + bytes(26)))),
    monitoring(stated(node_nlri(ROUTER), tlv(1026, b"ams1"), bandwidth(1089, 1e9))),
    monitoring(stated(link_nlri(ROUTER, ROUTER + ".01", over("192.0.2.0", "192.0.2.1")))),
    monitoring(withdrawn(prefix_nlri("10.0.0.1:192.0.2.1", "2001:db8::/33"))),
    monitoring(
        update(
            usual()
            + attribute(16, b"\x80\6" + bytes(6))
            + reach(1, 133, b"", b"\6\1\x18\xc6\x33\x64\0")
            + unreach(2, 134, b"\x0f" + RD + b"\3\x81\x11\6\x91\0\x35")
        )
    ),
    monitoring(
        update(
            usual() + reach(1, 133, b"", b"\3\3\x81\6") + unreach(16388, 71, node_nlri(ROUTER)),
            prefix("192.0.2.0/24"),
        )
    ),
    monitoring(update(unreach(2, 1)), flags=0x10),
    monitoring(update(usual(), prefix("192.0.2.0/24", 7)), kind=3),
    statistics((0, bytes(4)), (7, bytes(8)), (9, bytes(11))),
    peer_down(reason=b"\x03" + b"\xff" * 16 + b"\0\x15\3\6\2"),
    peer_down("2001:db8::1", b"\x02\0\1"),
    termination(),
)
PIECES = (b"\xff" * 16, b"\x03\0\0\0\x30\0", b"\x04\0\0\1\0\0", bytes(9), b"\x0e\x90", b"\xff\xff\xff\xff",
          b"\x80\x00\x00", b"\x45\x04\0\1\1\3", b"\x40\x04\x47", b"\1\2\0\x04")  # fmt: skip


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    made = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        at, what = int(random.integers(len(made) + 1)), random.random()
        if what < 0.6 and at < len(made):
            made[at] = int(random.integers(256))
        elif what < 0.8:
            made[at:at] = PIECES[int(random.integers(len(PIECES)))]
        else:
            del made[at : at + int(random.integers(1, 20))]
    # The length says what there is: the inside is wrong.
    if random.random() < 0.6 and len(made) >= 6:
        made[1:5] = len(made).to_bytes(4, "big")
    return bytes(made)


def test_streams_of_mutants(deep: bool) -> None:
    """Whole messages stand between mutants and are found again; sums close; limits hold."""
    decoder = make_decoder(peers_max=64, connections_max=4, routes_max=500, message_bytes_max=8192)
    value = decoder.metrics.value  # type: ignore[attr-defined]
    random = np.random.default_rng(11)
    total = DEEP_MUTANTS if deep else MUTANTS
    sent = handed = ledger = 0
    kinds = set()
    for first in range(0, total, BLOCK):
        stream = b"".join(
            mutate(SEEDS[int(random.integers(len(SEEDS)))], random)
            + (SEEDS[int(random.integers(len(SEEDS)))] if random.random() < 0.5 else b"")
            for _ in range(BLOCK)
        )
        port = 4000 + int(random.integers(6))
        edges = sorted({0, len(stream), *random.integers(0, len(stream), 9).tolist()})
        parts = [stream[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        if random.random() < 0.3:
            parts.append(b"")
        refused = value("collector_bmp_refused_total", what="connection_bytes")
        made = decoder.decode(chunks(parts, port=port, start_ns=(first + 1) * 10**9))
        handed += len(stream) - int(
            value("collector_bmp_refused_total", what="connection_bytes") - refused
        )
        made += decoder.advance((first + BLOCK) * 10**9)
        for row in rows_of(made, "ledger"):
            assert row["sent"] == row["decoded"] + row["undecodable"]
            ledger += row["sent"]
        kinds |= {batch.schema.name for batch in made}
        sent += len(stream)
    messages = int(value("collector_bmp_messages_total"))
    assert ledger == messages > total // 4
    assert value("collector_bmp_skipped_bytes_total") < handed <= sent
    assert value("collector_bmp_state", what="peers") <= 64
    assert value("collector_bmp_state", what="routes") <= 500
    assert value("collector_bmp_state", what="table_bytes") <= 1 << 20
    verdicts = sum(
        value("collector_bmp_updates_total", verdict=name)
        for name in (
            "ok",
            "end_of_rib",
            "treated_as_withdraw",
            "not_update",
            "malformed",
            "other_family",
            "link_state",
            "flow_rules",
        )
    )
    assert verdicts == value("collector_bmp_messages_total", type="route_monitoring")
    assert kinds == {"route", "series", "sample", "alarm", "ledger", "option"}
