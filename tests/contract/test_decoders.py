"""Every registered collector sits the exam of tocsin.testing.checks_decoder, on real messages."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from collectors.block import Decoder
from collectors.config import ListenerSettings
from collectors.registry import COLLECTORS, make_decoder
from tests.support.bmp_messages import (
    initiation,
    monitoring,
    peer_down,
    peer_up,
    prefix,
    statistics,
    termination,
    update,
    usual,
)
from tests.support.flow_messages import v5
from tests.support.snmp_messages import varied
from tests.support.syslog_messages import SYSLOG_LINES
from tocsin.demo.exporters import Exporter
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import TrafficModel
from tocsin.testing import checks_decoder, make_context

SECOND = 1_000_000_000


def messages(protocols: set[str]) -> list[bytes]:
    """Return what the demo's exporters of these protocols send in 5 s: templates, options, data."""
    network = load_demo_network()
    end_ns = checks_decoder.ARRIVAL_NS
    batch = TrafficModel(network, seed=1, records_per_second=40).records(
        end_ns - 5 * SECOND, 5 * SECOND
    )
    made: list[bytes] = []
    for number in range(30):
        exporter = Exporter(network, number, end_ns - 86_400 * SECOND)
        if exporter.protocol in protocols:
            made += exporter.datagrams(batch, np.arange(batch.rows), end_ns)
        if len(made) > 20:
            break
    return made


def bmp_session() -> list[bytes]:
    """Return a router's BMP session in chunks that do not keep to its messages."""
    stream = initiation() + peer_up() + peer_up("2001:db8::1")
    for i in range(40):
        announced = update(usual((64500, 64501 + i % 3)), prefix(f"10.{i % 20}.0.0/16"))
        stream += monitoring(announced) + monitoring(update(withdrawn=prefix("10.1.0.0/16")))
        stream += statistics((0, i.to_bytes(4, "big")), (7, i.to_bytes(8, "big")))
    stream += peer_down() + peer_up() + termination()
    cuts = [0, 5, 6, 300, 301, *range(500, len(stream), 190), len(stream)]
    return [stream[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)] + [b"", initiation()]


@pytest.fixture(scope="module")
def samples() -> dict[str, list[bytes]]:
    """What the exam feeds each kind."""
    old = [v5((0x0A000001 + i, i + 1, 1000 * i), sequence=i) for i in range(5)]
    return {
        "flow": old + messages({"v9", "ipfix"}),
        "sflow": messages({"sflow"}),
        "bmp": bmp_session(),
        "snmp-trap": varied(1500),
        "syslog": SYSLOG_LINES,
    }


@pytest.mark.parametrize("kind", COLLECTORS.kinds())
@pytest.mark.parametrize("check", checks_decoder.CHECKS, ids=lambda c: c.__name__)
def test_exam(
    kind: str,
    check: Callable[[Callable[[], Decoder], Sequence[bytes]], None],
    samples: dict[str, list[bytes]],
) -> None:
    settings = ListenerSettings(kind=kind, listen="udp://127.0.0.1:2055")
    check(lambda: make_decoder(settings, make_context()), samples[kind])
    decoder = make_decoder(settings, make_context())
    made = [b for block in checks_decoder.blocks(samples[kind]) for b in decoder.decode(block)]
    of_records = ("flow", "route", "alarm", "log")
    records = sum(batch.rows for batch in made if batch.schema.name in of_records)
    assert records > 20, "an exam on messages without records"
