"""Mutated datagrams: no crash, no hang, bounded memory, every datagram in exactly one count."""

import os
import struct
import tracemalloc

import numpy as np
import pytest

from collectors.config import FlowDecoderSettings
from collectors.flow.decoder import FlowDecoder
from telemetry.batch import Batch
from tests.support.flow_messages import (
    ARRIVAL_NS,
    block,
    data_set,
    ipfix,
    options_set,
    template_set,
    v5,
    v9,
    v9_options_set,
)
from tests.support.frames_on_wire import ethernet, ipv4, ipv6, udp, vxlan
from tocsin.testing import make_context

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
MUTANTS = 1_000_000 if os.environ.get("DEEP") else 50_000
INNER = ethernet(0x0800, ipv4(vxlan(ethernet(0x86DD, ipv6(udp())))), (0x8100, 5))
BIFLOW = [
    (8, 4),
    (12, 4),
    (4, 1),
    (1, 8),
    (1, 8, 29305),
    (2, 4, 29305),
    (6, 1, 29305),
    (21, 4),
    (22, 4),
]
FIELDS = [(8, 4), (12, 4), (7, 2), (1, 8), (95, 65535), (100, 4, 9999), (27, 16), (70, 3), (154, 8)]
RECORD = bytes(range(18)) + b"\x03abc" + bytes(4 + 16 + 3 + 8)
SEEDS = [
    v5((1, 2, 3), (4, 5, 6)),
    ipfix(template_set(256, FIELDS)),
    ipfix(template_set(256, FIELDS), data_set(256, RECORD * 3)),
    ipfix(options_set(400, [(10, 4)], [(82, 8), (34, 4)]), data_set(400, bytes(32))),
    v9(template_set(260, FIELDS[:4], version=9), data_set(260, bytes(54))),
    v9(data_set(260, bytes(54))),
    ipfix(template_set(300, [(1, 0), (2, 0)]), data_set(300, bytes(20))),
    ipfix(*(template_set(256 + n, [(8, 4)] * 40) for n in range(8))),
    ipfix(template_set(310, BIFLOW), data_set(310, bytes(range(38)) * 4)),
    ipfix(
        template_set(311, [(10, 4), (312, 2), (315, 65535), (313, 65535)]),
        data_set(311, bytes(6) + bytes([len(INNER)]) + INNER + b"\x20" + bytes(32)),
    ),
    v9(
        v9_options_set(
            401, [(1, 4)], [(48, 1), (50, 2), (95, 4), (96, 8), (234, 4), (236, 4), (160, 8)]
        ),
        data_set(401, bytes(range(35)) * 2),
    ),
    v9(
        template_set(312, [(8, 4), (48, 1), (104, 64), (323, 8), (161, 4)], version=9),
        data_set(312, bytes(81) + INNER[:64].ljust(81, b"\0")),
    ),
    ipfix(data_set(313, bytes(40)), template_set(313, [(8, 4), (1, 4)])),
]


def mutate(random: np.random.Generator, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(int(random.integers(1, 5))):
        kind = int(random.integers(5))
        if kind == 0 and data:
            data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del data[int(random.integers(len(data) + 1)) :]
        elif kind == 2 and len(data) > 4:
            at = int(random.integers(len(data) - 2))
            data[at : at + 2] = struct.pack("!H", int(random.choice([0, 1, 3, 4, 255, 256, 65535])))
        elif kind == 3:
            data += bytes(random.integers(0, 256, int(random.integers(64)), np.uint8))
        elif data:
            at = int(random.integers(len(data)))
            data[at:at] = data[: int(random.integers(32))]
    return bytes(data[:1400])


def test_mutants_are_counted_and_harm_nobody() -> None:
    random = np.random.default_rng(20)
    context = make_context()
    settings = FlowDecoderSettings(held_seconds=600.0, tunnels="inner")
    made = FlowDecoder(settings, context)
    sent = 0
    sums = np.zeros(4, np.int64)  # sent, decoded, lost, undecodable
    while sent < MUTANTS:
        batch = [mutate(random, SEEDS[int(random.integers(len(SEEDS)))]) for _ in range(500)]
        batches = made.decode(block(*batch, port=int(random.integers(1, 5))))
        for one in batches:  # built unchecked on the data path
            Batch(one.schema, one.columns, one.blobs, one.dictionaries)
        sent += len(batch)
        if sent % 10_000 == 0:
            for ledger in made.advance(ARRIVAL_NS + sent * 10**6):
                if ledger.schema.name != "ledger":  # and what is known of the exporters
                    continue
                names = ("sent", "decoded", "lost_wire", "undecodable")
                sums += np.array([int(ledger[name].astype(np.int64).sum()) for name in names])
                assert (ledger["lost_kernel"] == 0).all()
    counted = context.metrics.value("collector_netflow5_datagrams_total") + context.metrics.value(
        "collector_templated_datagrams_total"
    )
    assert counted == sent
    assert sums[0] == sums[1:].sum() > 0
    assert made.waiting_bytes() <= settings.held_bytes_max
    assert len(made.templates) <= settings.templates_per_exporter_max
    value = context.metrics.value
    gone = ("decoded_later", "held_dropped", "held_expired")
    waiting = sum(sets for _, _, sets in made.waiting_sets())
    held = value("collector_sets_total", reason="held")
    assert held == sum(value("collector_sets_total", reason=r) for r in gone) + waiting


def test_templates_at_random_with_data_at_random() -> None:
    """Any element with any width, fixed and variable, and any bytes behind it."""
    random = np.random.default_rng(21)
    known = [*range(1, 100), *range(130, 180), *range(225, 240), *range(300, 330), 352, 9999]
    context = make_context()
    made = FlowDecoder(FlowDecoderSettings(), context)
    for n in range(MUTANTS // 50):
        fields = []
        for _ in range(int(random.integers(1, 20))):
            width = int(random.choice([0, 1, 2, 3, 4, 5, 8, 16, 17, 65535]))
            enterprise = int(random.choice([0, 0, 0, 29305, 35632]))
            element = int(random.choice(known))
            fields.append((element, width, enterprise) if enterprise else (element, width))
        body = bytes(random.integers(0, 256, int(random.integers(0, 1200)), np.uint8))
        message = ipfix(
            template_set(256 + n % 700, fields), data_set(256 + n % 700, body), domain=n % 3
        )
        made.decode(block(message))
    assert context.metrics.value("collector_templated_datagrams_total") == MUTANTS // 50


def test_templates_one_after_the_other_take_no_room_of_their_own() -> None:
    """Each closes a batch; with records of one octet each batch has room for 65,536 of them."""
    widths = [(n % 8 + 1, n // 8 + 1) for n in range(32)]
    messages = [
        ipfix(
            template_set(256 + n, [(4, 1), (1, one), (2, two)]),
            data_set(256 + n, bytes(1 + one + two)),
        )
        for n, (one, two) in enumerate(widths)
    ]
    made = FlowDecoder(FlowDecoderSettings(), make_context())
    made.decode(block(ipfix(template_set(300, [(4, 1)]))))  # kernels are there
    padding = ipfix(data_set(256, bytes(1300)), domain=9)  # octets that could all be records
    tracemalloc.start()
    try:
        batches = made.decode(block(*messages, *[padding] * 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(batch.rows for batch in batches if batch.schema.name == "flow") == len(widths)
    assert peak < 64 << 20
