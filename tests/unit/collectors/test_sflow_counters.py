"""Interface counters that sFlow agents send become rates of the view `sample`, as polled ones do."""

import struct

from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow.sflow5 import SflowDecoder
from correlator.sample_windows import SampleWindows
from correlator.views import SampleViewSettings, sample_view
from telemetry.batch import Batch
from telemetry.identity import address_pair
from tests.support.flow_messages import ARRIVAL_NS
from tocsin.testing import make_context

SECOND = 1_000_000_000
NOT_KEPT = 0xFFFFFFFF
AGENT = "192.0.2.1"


def datagram(sequence: int, ports: dict[int, tuple[int, int]], name: str = "") -> bytes:
    """Return a datagram with (octets, unicast packets) in of each port; no other counter is kept.

    `name`: of each port, four letters.
    """
    head = struct.pack("!IIIIII", 5, 1, 0xC0000201, 0, sequence, 1)
    samples = b""
    for port, (octets, packets) in ports.items():
        counters = struct.pack("!IIQII", port, 6, 10**9, 1, 3)
        counters += struct.pack("!QIIIIII", octets, packets, *[NOT_KEPT] * 5)
        counters += struct.pack("!QIIIIII", 2**64 - 1, *[NOT_KEPT] * 5, 0)
        record = struct.pack("!II", 1, len(counters)) + counters
        if name:
            record += struct.pack("!III4s", 1005, 8, 4, name.encode())
        body = struct.pack("!III", sequence, port, 1 + bool(name)) + record
        samples += struct.pack("!II", 2, len(body)) + body
    return head + struct.pack("!I", len(ports)) + samples


def arrived(
    decoder: SflowDecoder, at_s: int, ports: dict[int, tuple[int, int]], name: str = ""
) -> list[Batch]:
    high, low = address_pair(AGENT)
    data = datagram(at_s, ports, name)
    return decoder.decode(pack([Datagram(ARRIVAL_NS + at_s * SECOND, high, low, 1, 6343, data)]))


def test_counters_become_rates_in_frames() -> None:
    settings = SampleViewSettings(tick_seconds=60.0, lateness_seconds=5.0)
    windows = SampleWindows(
        (sample_view("sample", settings),), make_context(), event_tick_ns=SECOND, idle_seconds=1e6
    )
    decoder = SflowDecoder(FlowDecoderSettings(), make_context())
    for at_s in range(0, 120, 20):
        # Port 7's packets wrap at 32 bits.
        ports = {3: (1000 * at_s, 10 * at_s), 7: (5, (2**32 - 100 + 10 * at_s) % 2**32)}
        batches = arrived(decoder, at_s, ports)
        assert [batch.schema.name for batch in batches] == ["series", "sample"][at_s > 0 :]
        windows.process(batches)
    rates: dict[str, float] = {}
    for batch in windows.advance(ARRIVAL_NS + 200 * SECOND):
        if batch.schema.name == "frame":
            for series_id, value in zip(
                batch["series_id"].tolist(), batch["value"].tolist(), strict=True
            ):
                key = windows.key(series_id)
                if key is not None and value == value:
                    rates[f"{key.entity} {dict(key.key)['metric']}"] = value
    assert rates == {
        f"{AGENT} 3 in_octets": 1000.0,
        f"{AGENT} 3 in_unicast_packets": 10.0,
        f"{AGENT} 7 in_octets": 0.0,
        f"{AGENT} 7 in_unicast_packets": 10.0,
    }


def test_names_of_ports_are_told_once_and_forgotten_when_nobody_says_them_any_more() -> None:
    settings = FlowDecoderSettings(template_expiry_seconds=86_400)
    decoder, high, low = SflowDecoder(settings, make_context()), *address_pair(AGENT)
    said = [0, 40_000, 80_000, 120_000]  # in s; each is news to no one but the first
    told = []
    for at_s in said:
        batches = arrived(decoder, at_s, {3: (1, 1)}, "xe-0")
        told.append(sum(b.rows for b in batches if b.schema.name == "option"))
        decoder.advance(ARRIVAL_NS + at_s * SECOND)
    assert told == [1, 0, 0, 0]
    assert decoder.reference.name(high, low, "interface", 3) == "xe-0"
    decoder.advance(ARRIVAL_NS + (said[-1] + 86_401) * SECOND)
    assert decoder.reference.name(high, low, "interface", 3) == ""
