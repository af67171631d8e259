"""Mutated datagrams: no crash, no hang, bounded memory, every datagram in exactly one count."""

import os
import struct

import numpy as np

from collectors.config import FlowDecoderSettings
from collectors.flow import FlowDecoder
from tests.support.flow_messages import block, data_set, ipfix, options_set, template_set, v5, v9
from tocsin.testing import make_context

MUTANTS = 1_000_000 if os.environ.get("DEEP") else 50_000
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
    made = FlowDecoder(FlowDecoderSettings(), context)
    sent = 0
    while sent < MUTANTS:
        batch = [mutate(random, SEEDS[int(random.integers(len(SEEDS)))]) for _ in range(500)]
        made.decode(block(*batch, port=int(random.integers(1, 5))))
        sent += len(batch)
        if sent % 10_000 == 0:
            made.advance(sent)
    counted = context.metrics.value("collector_netflow5_datagrams_total") + context.metrics.value(
        "collector_templated_datagrams_total"
    )
    assert counted == sent
    assert made.waiting_bytes() <= FlowDecoderSettings().held_bytes_max
    assert len(made.templates) <= FlowDecoderSettings().templates_per_exporter_max
