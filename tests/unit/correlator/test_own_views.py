"""Views of the user's own: keys that are packed and come back, and sums as plain Python has them."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.keys import ADDRESSES, BITS, key_of, key_text, packing_of, words_of
from correlator.merge import FrameMerger
from correlator.tables.network_map import load_network
from correlator.views import OwnViewSettings, own_view
from correlator.windows import FlowWindows
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import address_text
from telemetry.schemas import FLOW
from telemetry.views import View
from tocsin.config import load_config
from tocsin.testing import make_context

TICK_NS = 60_000_000_000
START_NS = 1_790_596_800_000_000_000


@given(st.data())
def test_a_packed_key_comes_back_from_its_words_and_from_its_text(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from(sorted(BITS)), min_size=1, max_size=5, unique=True))
    address = data.draw(st.sampled_from([None, *sorted(ADDRESSES)]))
    if address:
        parts = [address, *parts[:1]]
    if sum(BITS.get(part, 0) for part in parts) > 128 - 96 * bool(address):
        parts = parts[: 1 + bool(address)]
    parts_key = tuple(parts)
    key = {}
    for part in parts_key:
        if part in ADDRESSES:
            low = data.draw(st.integers(0, 2**32 - 1))
            text = address_text(0, 0xFFFF << 32 | (low & 0xFFFF_FF00))
            key[part] = f"{text}/24" if part.endswith("_prefix") else text
        else:
            key[part] = str(data.draw(st.integers(0, 2 ** BITS[part] - 1)))
    words = words_of(key_text(key))
    again = key_of(parts_key, words)
    assert words_of(key_text(again)) == words
    assert {part: again[part] for part in parts_key if part not in ("protocol", "port_class")} == {
        part: key[part] for part in parts_key if part not in ("protocol", "port_class")
    }


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (("source_address", "destination_address"), "two addresses"),
        (("source_as", "source_as"), "twice"),
        (("colour",), "none of"),
        (("exporter", "source_as", "destination_as"), "too long"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_the_reason(
    key: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        packing_of(key)


def flows(rows: int, seed: int) -> Batch:
    """Return flow records of a few AS pairs, VLANs and next hops."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {f.name: np.zeros(rows, f.dtype) for f in FLOW.fields}
    v4 = 0xFFFF << 32
    columns["exporter_address_low"] = (v4 | 0x7F010001) + random.integers(0, 3, rows).astype("u8")
    columns["source_address_low"] = (v4 | 0x0A000000) + random.integers(0, 2**16, rows).astype("u8")
    columns["next_hop_address_high"] = np.full(rows, 0x20010DB8 << 32, np.uint64)
    columns["next_hop_address_low"] = random.integers(0, 4, rows).astype(np.uint64)
    columns["source_as"] = random.integers(64500, 64504, rows).astype(np.uint32)
    columns["destination_as"] = random.integers(1, 4, rows).astype(np.uint32)
    columns["vlan_id"] = random.integers(0, 5, rows).astype(np.uint16)
    columns["protocol"] = random.choice([6, 17], rows).astype(np.uint8)
    columns["octets"] = random.integers(1, 10_000, rows).astype(np.uint64)
    columns["packets"] = random.integers(1, 10, rows).astype(np.uint64)
    columns["sampling_rate"] = random.integers(1, 4, rows).astype(np.uint32)
    columns["ingress_interface"][:] = 1
    arrival = np.sort(START_NS + random.integers(0, TICK_NS, rows))
    columns["arrival_ns"] = columns["export_ns"] = arrival
    columns["flow_start_ns"] = columns["flow_end_ns"] = arrival
    return Batch(FLOW, columns)


def frame_of(view: View, batch: Batch) -> tuple[Batch, FrameMerger]:
    """Return the frame of one tick of one view."""
    windows = FlowWindows([view], make_context())
    merger = FrameMerger([view], make_context(), network=load_network(None))
    for first in range(0, batch.rows, 100):
        windows.process(batch.slice(first, min(first + 100, batch.rows)))
    frontier_ns = START_NS + TICK_NS + round(view.lateness_seconds * 1e9)
    for partial in windows.advance(frontier_ns):
        merger.process(partial)
    return next(b for b in merger.advance(frontier_ns) if b.schema.name == "frame"), merger


@pytest.mark.parametrize(
    "key",
    [
        ("source_as", "destination_as"),
        ("exporter", "vlan_id"),
        ("next_hop_address",),
        ("source_prefix", "protocol"),
        ("source_as", "destination_as", "vlan_id", "protocol", "ip_class_of_service"),
    ],
)
def test_sums_are_those_of_a_plain_group_by(key: tuple[str, ...]) -> None:
    view = own_view("mine", OwnViewSettings(key=key), tick_seconds=60.0, lateness_seconds=30.0)
    batch = flows(2_000, seed=len(key))
    wanted: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for i in range(batch.rows):
        parts = {}
        for part in key:
            if part in ADDRESSES:
                name = ADDRESSES[part]
                high, low = int(batch[f"{name}_high"][i]), int(batch[f"{name}_low"][i])
                if part.endswith("_prefix"):
                    parts[part] = address_text(high, low & ~0xFF) + "/24"
                else:
                    parts[part] = address_text(high, low)
            elif part == "protocol":
                parts[part] = {6: "tcp", 17: "udp"}[int(batch[part][i])]
            else:
                parts[part] = str(int(batch[part][i]))
        rate = int(batch["sampling_rate"][i])
        sums = wanted[key_text(parts)]
        sums[0] += int(batch["octets"][i]) * rate
        sums[1] += int(batch["packets"][i]) * rate
        sums[2] += 1
    frame, merger = frame_of(view, batch)
    found = {}
    for i in range(frame.rows - 1):
        known = merger.key(int(frame["series_id"][i]))
        assert known is not None
        found[key_text(known.key)] = [
            int(frame[name][i]) for name in ("octets", "packets", "flows")
        ]
    assert found == dict(wanted)


def test_a_view_in_the_configuration_is_made_and_a_wrong_one_names_its_place(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tocsin.toml"
    path.write_text('[views.own.as_pairs]\nkey = ["source_as", "destination_as"]\n', "utf-8")
    assert [view.name for view in load_config(path).all_views()][-1] == "as_pairs"
    path.write_text('[views.own.bad]\nkey = ["source_ass"]\n', "utf-8")
    with pytest.raises(
        ConfigError, match=r"tocsin\.toml:2: views\.own\.bad\.key part 'source_ass'"
    ):
        load_config(path)
    path.write_text("[views.keys_per_tick_max]\ninterfaces = 9\n", "utf-8")
    with pytest.raises(ConfigError, match="no view has this name"):
        load_config(path)
