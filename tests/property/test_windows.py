"""Windows, partial frames and their merge against a plain Python group-by: equal as integers, whatever the cuts,
shards, lateness and caps; `__other__` takes exactly the rest."""

from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from correlator.merge import FrameMerger
from correlator.tables.network_map import load_network
from correlator.views import OwnViewSettings, own_view, views_for
from correlator.windows import FlowWindows
from telemetry import wire
from telemetry.batch import Batch
from telemetry.identity import address_text
from telemetry.schemas import FLOW
from telemetry.views import View
from tocsin.testing import make_context

SECOND = 1_000_000_000
TICK_NS = 10 * SECOND
LATENESS_NS = 3 * SECOND
START_NS = 1_790_596_800 * SECOND
V4 = 0xFFFF << 32
Cells = dict[tuple[str, int, str], tuple[int, int, int]]


def shipped() -> tuple[View, ...]:
    wanted = ("exporter", "interface", "source_prefix")
    views = views_for(tick_seconds=10.0, lateness_seconds=3.0)
    return tuple(view for view in views if view.name in wanted)


def flows(rows: int, seed: int, *, spread_seconds: int = 0) -> Batch:
    """Records in arrival order over 60 s, exported up to 25 s before they came: some are late."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {f.name: np.zeros(rows, f.dtype) for f in FLOW.fields}
    arrival = np.sort(START_NS + SECOND + random.integers(0, 60 * SECOND, rows))
    export = arrival - random.choice([0, 2, 25], rows, p=[0.7, 0.2, 0.1]) * SECOND
    columns["arrival_ns"], columns["export_ns"] = arrival, export
    columns["flow_end_ns"] = export
    columns["flow_start_ns"] = export - random.integers(0, spread_seconds + 1, rows) * SECOND
    columns["exporter_address_low"] = V4 | 0x0A000001 + random.integers(0, 4, rows).astype("u8")
    columns["source_address_low"] = V4 | 0xC6336400 + random.integers(0, 1024, rows).astype("u8")
    columns["destination_address_low"] = np.full(rows, V4 | 0x08080808, "u8")
    columns["ingress_interface"] = random.integers(1, 4, rows).astype("u4")
    columns["egress_interface"] = random.integers(1, 4, rows).astype("u4")
    columns["source_as"] = random.integers(64_500, 64_520, rows).astype("u4")
    columns["protocol"] = np.full(rows, 17, "u1")
    # Sums beyond 2**53, so that a float on the way would show; a record may weigh 2**56 at most.
    columns["octets"] = random.integers(1, 2**54, rows).astype("u8")
    columns["packets"] = random.integers(1, 2**40, rows).astype("u8")
    columns["sampling_rate"] = random.integers(0, 4, rows).astype("u4")
    return Batch(FLOW, columns)


def oracle(batch: Batch, until_ns: int) -> Cells:
    """Each record as it comes, into the tick of its export time or the oldest that is open."""
    sums: dict[tuple[str, int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    oldest = int(batch["arrival_ns"][0]) // TICK_NS * TICK_NS
    for i in range(batch.rows):
        arrival = int(batch["arrival_ns"][i])
        while oldest + TICK_NS + LATENESS_NS <= arrival:
            oldest += TICK_NS
        tick = max(int(batch["export_ns"][i]) // TICK_NS * TICK_NS, oldest)
        if tick + TICK_NS + LATENESS_NS > until_ns:
            continue
        exporter = address_text(0, int(batch["exporter_address_low"][i]))
        source = address_text(0, int(batch["source_address_low"][i]) & ~0xFF)
        keys = [
            ("exporter", f"exporter={exporter}"),
            ("interface", f"exporter={exporter},interface={batch['ingress_interface'][i]},direction=in"),
            ("interface", f"exporter={exporter},interface={batch['egress_interface'][i]},direction=out"),
            ("source_prefix", f"source_prefix={source}/24"),
        ]  # fmt: skip
        rate = max(1, int(batch["sampling_rate"][i]))
        for view, key in keys:
            cell = sums[view, tick, key]
            cell[0] += int(batch["octets"][i]) * rate
            cell[1] += int(batch["packets"][i]) * rate if view != "exporter" else 0
            cell[2] += 1
    return {place: (a, b, c) for place, (a, b, c) in sums.items()}


def frames(
    batch: Batch, views: tuple[View, ...], cuts: list[int], shards: int
) -> tuple[list[Batch], FrameMerger, int]:
    """Every frame of a run in which the batch comes in pieces, each exporter on one shard."""
    fronts = [FlowWindows(views, make_context(), shard=shard) for shard in range(shards)]
    merger = FrameMerger(views, make_context(), network=load_network(None), shards=shards)
    arrival: NDArray[np.int64] = batch["arrival_ns"]
    owner = (batch["exporter_address_low"] % np.uint64(shards)).astype(np.int64)
    for front in fronts:
        front.open(int(arrival[0]))
    until_ns = int(arrival[-1]) // TICK_NS * TICK_NS + 2 * TICK_NS + LATENESS_NS
    made: list[Batch] = []
    at = 0
    edges = sorted({min(cut, batch.rows) for cut in cuts} | {batch.rows})

    def advance(frontier_ns: int) -> None:
        for front in fronts:
            for partial in front.advance(frontier_ns):
                merger.process(partial)
        made.extend(b for b in merger.advance(frontier_ns) if b.schema.name == "frame")

    def give(start: int, stop: int) -> None:
        for shard, front in enumerate(fronts):
            mine = start + np.flatnonzero(owner[start:stop] == shard)
            if mine.size:
                columns = {name: column[mine] for name, column in batch.columns.items()}
                front.process(Batch(FLOW, columns))

    for edge in edges:
        while at < edge:
            deadline = fronts[0].next_deadline_ns()
            ready = int(np.searchsorted(arrival, deadline, side="left"))
            if ready > at:
                give(at, min(ready, edge))
                at = min(ready, edge)
            else:
                advance(deadline)
    while (deadline := fronts[0].next_deadline_ns()) <= until_ns:
        advance(deadline)
    return made, merger, until_ns


def cells(made: list[Batch], merger: FrameMerger) -> Cells:
    """The rows of all frames that hold anything, by view, tick and key; without `__other__`."""
    found: Cells = {}
    for frame in made:
        view, tick = frame.texts("view")[0], int(frame["tick_start_ns"][0])
        octets, packets, count = (
            frame["octets"],
            frame.columns.get("packets", np.zeros(frame.rows, np.uint64)),
            frame["records" if "records" in frame.columns else "flows"],
        )
        for row in range(frame.rows - 1):
            if int(count[row]) or int(octets[row]):
                known = merger.key(int(frame["series_id"][row]))
                assert known is not None
                text = ",".join(f"{name}={value}" for name, value in known.key.items())
                found[view, tick, text] = int(octets[row]), int(packets[row]), int(count[row])
    return found


cuts = st.lists(st.integers(1, 400), max_size=12)


@given(st.integers(0, 2**31), st.integers(1, 400), cuts, st.sampled_from([1, 2, 3]))
def test_frames_equal_a_plain_group_by(seed: int, rows: int, cut: list[int], shards: int) -> None:
    batch = flows(rows, seed)
    made, merger, until_ns = frames(batch, shipped(), cut, shards)
    assert cells(made, merger) == oracle(batch, until_ns)


@given(st.integers(0, 2**31), st.integers(2, 300), cuts, st.sampled_from([1, 3]))
def test_cuts_and_shards_change_no_byte(seed: int, rows: int, cut: list[int], shards: int) -> None:
    batch = flows(rows, seed, spread_seconds=40)
    whole, _, _ = frames(batch, shipped(), [], 1)
    parts, _, _ = frames(batch, shipped(), cut, shards)
    assert [wire.encode(frame) for frame in parts] == [wire.encode(frame) for frame in whole]


@given(st.integers(0, 2**31), st.integers(1, 300), cuts)
def test_octets_spread_over_ticks_add_up(seed: int, rows: int, cut: list[int]) -> None:
    batch = flows(rows, seed, spread_seconds=40)
    made, merger, _ = frames(batch, shipped(), cut, 1)
    rate = np.maximum(batch["sampling_rate"], 1).tolist()
    wanted = [
        sum(a * b for a, b in zip(batch[name].tolist(), rate, strict=True))
        for name in ("octets", "packets")
    ]
    found = cells(made, merger)
    for view, times in (("exporter", 1), ("interface", 2), ("source_prefix", 1)):
        mine = [cell for place, cell in found.items() if place[0] == view]
        counted = (0,) if view == "exporter" else (0, 1)  # that one has no packets
        assert [sum(cell[i] for cell in mine) for i in counted] == [
            times * wanted[i] for i in counted
        ]
        assert sum(cell[2] for cell in mine) == times * rows


@given(st.integers(0, 2**31), st.integers(1, 300), cuts, st.sampled_from([1, 3]))
def test_what_the_cap_leaves_out_is_in_other_and_no_order_decides(
    seed: int, rows: int, cut: list[int], shards: int
) -> None:
    settings = OwnViewSettings(key=("source_as",), keys_per_tick_max=5)
    views = (own_view("by_as", settings, tick_seconds=10.0, lateness_seconds=3.0),)
    batch = flows(rows, seed)
    made, merger, _ = frames(batch, views, cut, shards)
    rate = np.maximum(batch["sampling_rate"], 1).tolist()
    total = sum(a * b for a, b in zip(batch["octets"].tolist(), rate, strict=True))
    assert sum(int(frame["octets"].sum(dtype=object)) for frame in made) == total
    assert sum(int(frame["flows"].sum()) for frame in made) == rows
    for frame in made:
        assert np.count_nonzero(frame["flows"][:-1]) <= 5
    whole, _, _ = frames(batch, views, [], 1)
    assert cells(made, merger).keys() == cells(whole, merger).keys()
    assert [wire.encode(frame) for frame in made] == [wire.encode(frame) for frame in whole]
