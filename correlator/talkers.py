"""The largest sampled records behind series: what an alert names as talkers."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from correlator.kept_batches import read_batches, write_batches
from correlator.partial import in_order
from correlator.series_index import SeriesIndex
from runtime.ports import Talker
from telemetry.batch import Batch
from telemetry.identity import address_text
from telemetry.schemas import EVIDENCE
from telemetry.views import View

EVIDENCE_TICKS = 4
U64 = np.uint64


class TalkerSamples:
    """Merges the priority samples of shards, and keeps those of the last ticks."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self._views = views
        self._samples: dict[tuple[str, int], list[Batch]] = {}
        self._kept: OrderedDict[int, list[Batch]] = OrderedDict()

    def take(self, batch: Batch) -> None:
        """Take what one shard has of one tick."""
        key = (batch.text("view", 0), int(batch["tick_start_ns"][0]))
        self._samples.setdefault(key, []).append(batch)

    def start_over(self) -> None:
        """Forget what shards have said of ticks that did not close."""
        self._samples.clear()

    def merged(self, view: View, tick_ns: int, index: SeriesIndex, other: int) -> Batch | None:
        """Return the largest of what shards took of a tick, all together, under the ids of the series.

        Where a key has no row its records are of `other`; in a sparse view nobody asks for them.
        """
        parts = self._samples.pop((view.name, tick_ns), [])
        if not parts or (view.sparse and index.live_count == 0):
            return None
        columns = {
            name: np.concatenate([part[name] for part in parts]) if parts[1:] else parts[0][name]
            for name in parts[0].schema.names()
            if name != "view"
        }
        keys = np.stack([columns.pop(f"key{i}") for i in range(3)], axis=1)
        order = in_order(
            columns["priority"], columns["octets"], columns["source_address_low"],
            columns["destination_address_low"],
        )[: view.talkers]  # fmt: skip
        rows = index.find(keys[order])
        if view.sparse:  # of who has no row, nobody asks
            order, rows = order[rows >= 0], rows[rows >= 0]
            if not rows.size:
                return None
        made = {name: column[order] for name, column in columns.items()}
        made["series_id"] = np.where(rows >= 0, index.series_id[rows], U64(other))
        made["view"] = np.zeros(len(order), np.uint32)
        batch = Batch(EVIDENCE, made, {}, {"view": (view.name,)}, f"view:{view.name}")
        self.remember(batch)
        return batch

    def remember(self, batch: Batch) -> None:
        """Keep the samples of a tick, and no more than those of the last ones."""
        tick_ns = int(batch["tick_start_ns"][0])
        self._kept.setdefault(tick_ns, []).append(batch)
        while len(self._kept) > EVIDENCE_TICKS:
            self._kept.popitem(last=False)

    def talkers(self, series_id: int, tick_start_ns: int, limit: int = 10) -> tuple[Talker, ...]:
        """Return the largest sampled records behind a series in a tick (ports.Evidence)."""
        found: list[Talker] = []
        for batch in self._kept.get(tick_start_ns, ()):
            rows = np.flatnonzero(batch["series_id"] == U64(series_id))
            if not rows.size:
                continue
            order = np.lexsort((rows, -batch["octets"][rows].astype(np.float64)))
            # Each record of the sample stands for max(weight, threshold) (Duffield et al. 2007).
            by_octets = self._views[batch.text("view", 0)].talkers_by == "octets"
            least = int(batch["priority"].min()) if by_octets and self._is_full(batch) else 0
            found += [_talker(batch, int(row), least) for row in rows[order][:limit]]
        return tuple(found[:limit])

    def _is_full(self, batch: Batch) -> bool:
        return batch.rows >= self._views[batch.text("view", 0)].talkers

    def snapshot(self, out: Any) -> None:
        """Write the samples of open ticks, and those of the last ones."""
        write_batches(out, "samples", [b for _, bs in sorted(self._samples.items()) for b in bs])
        write_batches(out, "evidence", [b for bs in self._kept.values() for b in bs])

    def restore(self, state: Any) -> None:
        """Take them back."""
        for batch in read_batches(state, "samples"):
            self.take(batch)
        for batch in read_batches(state, "evidence"):
            self.remember(batch)


def _talker(batch: Batch, row: int, least: int) -> Talker:
    octets, packets = int(batch["octets"][row]), int(batch["packets"][row])
    return Talker(
        address_text(int(batch["source_address_high"][row]), int(batch["source_address_low"][row])),
        address_text(
            int(batch["destination_address_high"][row]), int(batch["destination_address_low"][row])
        ),
        int(batch["protocol"][row]),
        int(batch["source_port"][row]),
        int(batch["destination_port"][row]),
        address_text(
            int(batch["exporter_address_high"][row]), int(batch["exporter_address_low"][row])
        ),
        int(batch["ingress_interface"][row]),
        int(batch["egress_interface"][row]),
        int(batch["tcp_flags"][row]),
        max(octets, least),
        int(packets * max(1.0, least / max(octets, 1))),
    )
