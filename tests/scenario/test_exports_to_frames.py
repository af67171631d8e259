"""From datagrams to frames: lost exports mark their frames, names of options tables name their series."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from collectors.block import DatagramBlock, silence
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow.decoder import FlowDecoder
from correlator.merge import FrameMerger
from correlator.tables.network_map import FileNetworkMap
from correlator.views import OwnViewSettings, own_view, views_for
from correlator.windows import FlowWindows
from telemetry.batch import Batch
from telemetry.identity import address_pair
from telemetry.views import View
from tests.support.flow_messages import data_set, ipfix, options_set, template_set, v9
from tocsin.chain.front import Front
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_000_040 * SECOND
FIELDS = [(8, 4), (12, 4), (95, 4), (10, 4), (1, 4), (2, 4)]


def message(make: object, *sets: bytes, sequence: int, seconds: int) -> bytes:
    data = bytearray(make(*sets, sequence=sequence))  # type: ignore[operator]
    at = 4 if make is ipfix else 8
    data[at : at + 4] = struct.pack("!I", seconds)
    return bytes(data)


def arrive(parts: list[tuple[int, bytes]], *, drops: int = 0, until_ns: int = 0) -> DatagramBlock:
    high, low = address_pair("192.0.2.1")
    made = pack([Datagram(ns, high, low, 4000, 2055, data) for ns, data in parts])
    return DatagramBlock(
        made.payload, made.offset, made.length, made.exporter_high, made.exporter_low,
        made.exporter_port, made.arrival_ns, drops, max(until_ns, int(made.arrival_ns[-1])),
    )  # fmt: skip


def frames(
    views: list[View], blocks: list[DatagramBlock], settings: FlowDecoderSettings | None = None
) -> tuple[list[Batch], FrameMerger]:
    front = Front(
        {"flow": FlowDecoder(settings or FlowDecoderSettings(), make_context())},
        FlowWindows(views, make_context()),
    )
    merger = FrameMerger(views, make_context(), network=FileNetworkMap())
    made: list[Batch] = []
    for block in blocks:
        front.feed("flow", block)
        for closing in front.step():
            for batch in closing.batches:
                merger.process(batch)
            made += merger.advance(closing.frontier_ns)
    return made, merger


def record(octets: int = 1000, application: int = 0) -> bytes:
    return struct.pack("!6I", 0x0A000001, 0x0A000002, application, 3, octets, 1)


@pytest.mark.parametrize(
    ("kept", "drops", "share"),
    [
        pytest.param(range(20), 0, 0.0, id="all-came"),
        pytest.param([n for n in range(20) if n % 4 != 1], 0, 0.25, id="lost-on-the-wire"),
        pytest.param([n for n in range(20) if n % 4 != 1], 5, 0.25, id="dropped-in-the-kernel"),
    ],
)
def test_lost_exports_mark_their_frames(kept: range | list[int], drops: int, share: float) -> None:
    views = [v for v in views_for(tick_seconds=60.0, lateness_seconds=5.0) if v.name == "exporter"]
    seconds = START_NS // SECOND
    parts = []
    for n in range(20):
        sets = [template_set(256, FIELDS, version=9), data_set(256, record())]
        parts.append((START_NS + n * SECOND, message(v9, *sets, sequence=n, seconds=seconds + n)))
    first = arrive([parts[n] for n in kept], drops=drops)
    # Nothing more comes; time goes on.
    rest = arrive([(START_NS + 130 * SECOND, b"x")])
    made, _ = frames(views, [first, rest])
    frame = next(b for b in made if b.schema.name == "frame")
    assert float(frame["lost_share"][0]) == pytest.approx(share)
    assert int(frame["datagrams"][0]) == len(list(kept))
    assert int(frame["lost"][0]) == 20 * share


def test_what_was_shed_is_made_up_for_in_counts_and_is_no_silence() -> None:
    wanted = ("exporter", "interface")
    views = [v for v in views_for(tick_seconds=60.0, lateness_seconds=5.0) if v.name in wanted]
    seconds, total = START_NS // SECOND, 9_000
    quiet = struct.pack("!6I", 0x0A000001, 0x0A000002, 0, 7, 1000, 1)  # once, by another interface
    sets = [template_set(256, FIELDS, version=9), data_set(256, quiet)]
    parts = [(START_NS, message(v9, *sets, sequence=0, seconds=seconds))]
    for n in range(total):
        at = 70 + 30 * n // total  # within the tick that follows, 300 a second
        body = message(v9, data_set(256, record()), sequence=1 + n, seconds=seconds + at)
        parts.append((START_NS + at * SECOND, body))
    rest = arrive([(START_NS + 190 * SECOND, b"x")])
    limit = FlowDecoderSettings(datagrams_per_second_max=20)
    made, _ = frames(views, [arrive(parts), rest], limit)
    told = [b for b in made if b.schema.name == "frame"]
    surge = [b for b in told if int(b["tick_start_ns"][0]) == START_NS + 60 * SECOND]
    exporter, interface = (next(b for b in surge if b.text("view", 0) == name) for name in wanted)
    assert int(exporter["records"][0]) == pytest.approx(total, rel=0.1)
    assert int(exporter["datagrams"][0]) == total
    assert int(exporter["lost"][0]) == 0
    assert float(exporter["lost_share"][0]) == 0.0
    silent = interface["flows"][:-1] == 0
    assert silent.any()
    assert (interface["lost_share"][:-1][silent] > 0.8).all()
    assert (interface["lost_share"][:-1][~silent] == 0.0).all()
    assert int(interface["octets"][:-1].sum()) == pytest.approx(1000 * total, rel=0.1)
    assert int(interface["flows"][:-1].sum()) == pytest.approx(total, rel=0.1)


def test_drops_of_a_block_without_datagrams_reach_the_ledger() -> None:
    decoder = FlowDecoder(FlowDecoderSettings(), make_context())
    views = [v for v in views_for(tick_seconds=60.0, lateness_seconds=5.0) if v.name == "exporter"]
    front = Front({"flow": decoder}, FlowWindows(views, make_context()))
    seconds = START_NS // SECOND
    sent = [
        (
            START_NS + n * SECOND,
            message(v9, template_set(256, FIELDS, version=9), sequence=n, seconds=seconds),
        )
        for n in (0, 1, 4)
    ]
    front.feed("flow", arrive(sent[:2]))
    nothing = silence(START_NS + 2 * SECOND)
    front.feed("flow", replace(nothing, kernel_drops=2))
    front.feed("flow", arrive(sent[2:], until_ns=START_NS + 130 * SECOND))
    told = [b for c in front.step() for b in c.batches if b.schema.name == "ledger"]
    assert sum(int(b["lost_kernel"].sum()) for b in told) == 2
    assert sum(int(b["lost_wire"].sum()) for b in told) == 0


def test_sets_without_template_mark_their_frames_until_it_comes() -> None:
    views = [v for v in views_for(tick_seconds=60.0, lateness_seconds=5.0) if v.name == "exporter"]
    seconds = START_NS // SECOND
    # One template is known, the other one never comes: half of the records cannot be read.
    parts = [(START_NS, message(ipfix, template_set(256, FIELDS), sequence=0, seconds=seconds))]
    for n in range(1, 21):
        body = data_set(256 + n % 2, record())
        parts.append(
            (START_NS + n * SECOND, message(ipfix, body, sequence=n - 1, seconds=seconds + n))
        )
    made, _ = frames(views, [arrive(parts), arrive([(START_NS + 130 * SECOND, b"x")])])
    frame = next(b for b in made if b.schema.name == "frame")
    assert float(frame["lost_share"][0]) == pytest.approx(0.5)


def test_applications_of_options_data_name_their_series() -> None:
    view = own_view(
        "applications",
        OwnViewSettings(key=("exporter", "application_id")),
        tick_seconds=60.0,
        lateness_seconds=5.0,
    )
    ssl, dns = 13 << 24 | 453, 3 << 24 | 53
    table = options_set(300, [(95, 4)], [(96, 8)])
    names = data_set(300, struct.pack("!I8s", ssl, b"ssl"))
    seconds = START_NS // SECOND
    sets = [
        table,
        names,
        template_set(256, FIELDS),
        data_set(256, record(700, ssl) + record(5, dns)),
    ]
    parts = [(START_NS, message(ipfix, *sets, sequence=0, seconds=seconds))]
    made, merger = frames([view], [arrive(parts), arrive([(START_NS + 130 * SECOND, b"x")])])
    frame = next(b for b in made if b.schema.name == "frame")
    sums = {}
    for i in np.flatnonzero(frame["octets"]).tolist():
        key = merger.key(int(frame["series_id"][i]))
        assert key is not None
        sums[key.entity] = int(frame["octets"][i])
    assert sums == {"192.0.2.1 application_id=ssl": 700, f"192.0.2.1 application_id={dns}": 5}
