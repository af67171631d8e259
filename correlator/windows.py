"""Windows: flow records become partial frames, one for each closed tick of each view.

One shard's half. All merged state is integer, so partial frames of shards add up exactly
(correlator.merge). A tick [s, e) closes when the arrival frontier reaches e + lateness, and for no
other reason (design section 5).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.groups import Groups
from correlator.partial import evidence_batch, partial_batch
from correlator.views import PREFIX_LENGTHS
from correlator.windows_kernels import spread
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.schemas import FLOW, LEDGER
from telemetry.views import View

SPANS_MAX = 64  # a record is spread over at most so many open ticks
OPEN_TICKS_MAX = 64
DYNAMIC_PORT = 65_536  # port class of two high ports: an ephemeral conversation
U64 = np.uint64
_NO_ITEM = np.zeros(0, np.uint64)
_NO_BUCKET = np.zeros(0, np.uint8)
# Ports above 1023 that name a service all the same (IANA registrations, amplification vectors).
NAMED_PORTS = np.array(
    [1194, 1433, 1521, 1701, 1723, 1900, 3074, 3128, 3306, 3389, 3478, 3702, 4500, 4789, 5004, 5060,
     5061, 5222, 5228, 5353, 5432, 5683, 5938, 6379, 6881, 8000, 8080, 8443, 8883, 9000, 9200, 10001,
     11211, 19132, 25565, 27015, 27017, 30120, 32400, 37810, 51820],
    np.uint16,
)  # fmt: skip


@dataclass(slots=True)
class _Open:
    """One open tick of one view."""

    groups: Groups
    octets_all: int = 0
    octets_moved: int = 0
    sample: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    threshold: float = 0.0
    sampled: int = 0


class FlowWindows:
    """Group flow records by view and tick.

    `backbone` names the interfaces, as (exporter low half, ifIndex), that lead to other routers of
    the network: a record counts in service and prefix views only where it enters, so that transit
    routers do not count it again. Without it every record counts.
    """

    accepts = (FLOW, LEDGER)

    def __init__(
        self,
        views: Sequence[View],
        context: Context,
        *,
        backbone: Iterable[tuple[int, int]] = (),
        shard: int = 0,
    ) -> None:
        self._views = tuple(views)
        self._shard = shard
        self._open: dict[str, dict[int, _Open]] = {view.name: {} for view in views}
        self._oldest: dict[str, int] = dict.fromkeys((view.name for view in views), 0)
        self._backbone = np.unique(
            np.array([_interface_word(low, index) for low, index in backbone], np.uint64)
        )
        self._late = context.metrics.counter(
            "windows_records_total",
            "records by how their time stood to the open ticks",
            label="time",
            values=("in_time", "moved_to_oldest"),
        )

    # ---- time

    def next_deadline_ns(self) -> int:
        """Return the frontier at which the next tick closes; 0 before the first frontier."""
        deadlines = [
            self._oldest[view.name] + view.tick_ns + round(view.lateness_seconds * 1e9)
            for view in self._views
            if self._oldest[view.name]
        ]
        return min(deadlines, default=0)

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Close what is due; one partial for each closed tick of each view, also empty ones."""
        made: list[Batch] = []
        for view in self._views:
            if not self._oldest[view.name]:
                self._oldest[view.name] = frontier_ns // view.tick_ns * view.tick_ns
            lateness = round(view.lateness_seconds * 1e9)
            while self._oldest[view.name] + view.tick_ns + lateness <= frontier_ns:
                made += self._close(view, self._oldest[view.name], frontier_ns)
                self._oldest[view.name] += view.tick_ns
                behind = frontier_ns - self._oldest[view.name] - view.tick_ns - lateness
                if behind > OPEN_TICKS_MAX * view.tick_ns and not self._open[view.name]:
                    # A gap of hours (replay of files far apart) is no reason to close each tick.
                    self._oldest[view.name] = frontier_ns // view.tick_ns * view.tick_ns
        return made

    def _close(self, view: View, tick_ns: int, frontier_ns: int) -> list[Batch]:
        state = self._open[view.name].pop(tick_ns, None) or self._new(view)
        state.groups.settle()
        partial = partial_batch(
            view,
            state.groups,
            tick_start_ns=tick_ns,
            shard=self._shard,
            octets_all=state.octets_all,
            octets_moved=state.octets_moved,
            frontier_ns=frontier_ns,
        )
        made = [partial]
        if view.talkers and state.sample:
            made.append(evidence_batch(view, _top(state.sample, view.talkers), tick_ns))
        return made

    def _new(self, view: View) -> _Open:
        functions = {measure.function for measure in view.measures}
        return _Open(
            Groups(
                keys_max=view.keys_per_tick_max,
                registers="distinct" in functions,
                entropy="entropy" in functions,
            )
        )

    def _tick(self, view: View, tick_ns: int) -> _Open:
        ticks = self._open[view.name]
        if tick_ns not in ticks:
            ticks[tick_ns] = self._new(view)
        return ticks[tick_ns]

    # ---- records

    def process(self, batch: Batch) -> list[Batch]:
        """Add flow records to the open ticks; an exporter ledger is passed on to the merger."""
        if batch.schema.name == LEDGER.name:
            return [batch]
        if not batch.rows:
            return []
        records = _Records(batch, self._backbone)
        for view in self._views:
            oldest = self._oldest[view.name] or (
                int(batch["arrival_ns"].min()) // view.tick_ns * view.tick_ns
            )
            self._oldest[view.name] = oldest
            self._add(view, records, oldest)
        return []

    def _add(self, view: View, records: "_Records", oldest_ns: int) -> None:
        pieces = records.pieces(view.tick_ns, oldest_ns)
        self._late.array[1] += pieces.late
        self._late.array[0] += records.rows - pieces.late
        for key, chosen, item, bucket in records.keys(view):
            for index in pieces.ticks.tolist():
                here = pieces.tick == index
                if chosen is not None:
                    here &= chosen[pieces.record]
                state = self._tick(view, oldest_ns + index * view.tick_ns)
                state.octets_all += pieces.octets_all
                state.octets_moved += pieces.octets_moved
                record = pieces.record[here]
                if not record.size:
                    continue
                octets, packets = pieces.octets[here], pieces.packets[here]
                flows = pieces.flows[here]
                state.groups.add(key, record, octets, packets, flows, records.unsure, item, bucket)
                if view.talkers:
                    self._sample(view, state, records, key, record, octets, packets, flows)

    def _sample(
        self,
        view: View,
        state: _Open,
        records: "_Records",
        key: NDArray[np.uint64],
        record: NDArray[np.int32],
        octets: NDArray[np.uint64],
        packets: NDArray[np.uint64],
        flows: NDArray[np.uint64],
    ) -> None:
        """Priority sample (Duffield, Lund, Thorup 2007): keep the largest weight / uniform.

        The uniform number is a hash of the record's content: no order, no cut changes the sample.
        A scan is many small flows, so where distinct peers are the point each flow weighs the same.
        """
        weight = flows if view.name == "source_prefix" else octets
        uniform = (records.content[record] >> U64(11)).astype(np.float64) + 1.0
        priority = weight.astype(np.float64) * 2.0**53 / uniform
        good = np.flatnonzero((priority > state.threshold) & (weight > 0))
        if not good.size:
            return
        if good.size > view.talkers:
            best = np.partition(priority[good], -view.talkers)[-view.talkers]
            good = good[priority[good] >= best]
        rows = record[good]
        state.sample.append(
            {
                "record": records.evidence(rows),
                "key": key[rows],
                "octets": octets[good],
                "packets": packets[good],
                "priority": priority[good],
                "content": records.content[rows],
            }
        )
        state.sampled += good.size
        if state.sampled > 4 * view.talkers:
            state.sample = [_top(state.sample, view.talkers)]
            state.sampled = len(state.sample[0]["priority"])
            if state.sampled >= view.talkers:
                state.threshold = float(state.sample[0]["priority"].min())

    # ---- state

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Nothing here is kept by row."""

    def restart(self) -> None:
        """Drop all open ticks: what was in them is lost with a crash, and is said to be."""
        for view in self._views:
            self._open[view.name].clear()
            self._oldest[view.name] = 0


def _top(parts: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return the rows of the largest priority, in an order that depends on content alone."""
    columns = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("key", "octets", "packets", "priority", "content", "record")
    }
    order = np.lexsort((columns["octets"], columns["content"], -columns["priority"]))[:limit]
    return {name: column[order] for name, column in columns.items()}


EVIDENCE_FIELDS = (
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
    "source_port",
    "destination_port",
    "protocol",
    "tcp_flags",
    "exporter_address_high",
    "exporter_address_low",
    "ingress_interface",
    "egress_interface",
)


@dataclass(frozen=True, slots=True)
class _Pieces:
    record: NDArray[np.int32]
    tick: NDArray[np.int64]
    octets: NDArray[np.uint64]
    packets: NDArray[np.uint64]
    flows: NDArray[np.uint64]
    ticks: NDArray[np.int64]  # the distinct tick indexes
    octets_all: int
    octets_moved: int
    late: int


class _Records:
    """A batch of flow records with what the views need of it, each computed once."""

    def __init__(self, batch: Batch, backbone: NDArray[np.uint64]) -> None:
        self._batch = batch
        self.rows = batch.rows
        rate = batch["sampling_rate"].astype(np.uint64)
        self.unsure = (rate == 0).astype(np.uint8)
        factor = np.maximum(rate, U64(1))
        self._octets = batch["octets"] * factor
        self._packets = batch["packets"] * factor
        self._cut: dict[tuple[int, int], _Pieces] = {}
        words = _interface_words(batch["exporter_address_low"], batch["ingress_interface"])
        self._enters = ~np.isin(words, backbone) if backbone.size else None
        self.content = _content(batch)

    def evidence(self, rows: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return uint64[R, 12]: the fields of EVIDENCE_FIELDS."""
        return np.stack([self._batch[name][rows].astype(np.uint64) for name in EVIDENCE_FIELDS], 1)

    def pieces(self, tick_ns: int, oldest_ns: int) -> _Pieces:
        """Cut the records at tick borders."""
        key = (tick_ns, oldest_ns)
        if key not in self._cut:
            self._cut[key] = self._pieces(tick_ns, oldest_ns)
        return self._cut[key]

    def _pieces(self, tick_ns: int, oldest_ns: int) -> _Pieces:
        batch = self._batch
        newest = int(batch["arrival_ns"].max())
        spans = min(SPANS_MAX, max(2, (newest - oldest_ns) // tick_ns + 2))
        room = self.rows * (spans + 1)
        record, tick = np.empty(room, np.int32), np.empty(room, np.int64)
        octets, packets = np.empty(room, np.uint64), np.empty(room, np.uint64)
        flows, moved = np.empty(room, np.uint64), np.zeros(2, np.uint64)
        n = spread(
            batch["flow_start_ns"], batch["flow_end_ns"], batch["export_ns"], batch["arrival_ns"],
            self._octets, self._packets, tick_ns, oldest_ns, spans,
            record, tick, octets, packets, flows, moved,
        )  # fmt: skip
        tick = tick[:n]
        late = int((np.minimum(batch["export_ns"], batch["arrival_ns"]) < oldest_ns).sum())
        return _Pieces(
            record[:n], tick, octets[:n], packets[:n], flows[:n], np.unique(tick),
            int(moved[0]), int(moved[1]), late,
        )  # fmt: skip

    def keys(
        self, view: View
    ) -> list[tuple[NDArray[np.uint64], NDArray[np.bool_] | None, NDArray[Any], NDArray[Any]]]:
        """Return (key words, which records, distinct item, entropy bucket) for each way in."""
        b = self._batch
        if view.key == ("exporter",):
            key = _words(b["exporter_address_high"], b["exporter_address_low"], None)
            return [(key, None, _NO_ITEM, _NO_BUCKET)]
        if view.key == ("exporter", "interface", "direction"):
            made = []
            for way, name in ((0, "ingress_interface"), (1, "egress_interface")):
                index = b[name].astype(np.uint64)
                word = index << U64(1) | U64(way)
                key = _words(b["exporter_address_high"], b["exporter_address_low"], word)
                made.append((key, index != 0, _NO_ITEM, _NO_BUCKET))
            return made
        if view.key == ("protocol", "port_class"):
            word = b["protocol"].astype(np.uint64) << U64(32) | self._port_class()
            bucket = (_mix(b["destination_address_low"]) >> U64(56)).astype(np.uint8)
            item = _item(b["source_address_high"], b["source_address_low"])
            return [(_words(None, None, word, self.rows), self._enters, item, bucket)]
        source = view.key == ("source_prefix",)
        side = "source" if source else "destination"
        key = _prefix(b[f"{side}_address_high"], b[f"{side}_address_low"])
        if source:
            item = _item(b["destination_address_high"], b["destination_address_low"])
            item = _mix(item ^ b["destination_port"].astype(np.uint64))
        else:
            item = _item(b["source_address_high"], b["source_address_low"])
        return [(key, self._enters, item, _NO_BUCKET)]

    def _port_class(self) -> NDArray[np.uint64]:
        b = self._batch
        low = np.minimum(b["source_port"], b["destination_port"])
        named = low < 1024
        for side in ("destination_port", "source_port"):
            port = b[side]
            hit = np.isin(port, NAMED_PORTS) & ~named
            low = np.where(hit, port, low)
            named = named | hit
        transport = np.isin(b["protocol"], np.array([6, 17, 132, 33], np.uint8))
        made = np.where(named, low.astype(np.uint64), U64(DYNAMIC_PORT))
        result: NDArray[np.uint64] = np.where(transport, made, U64(0))
        return result


def _words(
    first: NDArray[Any] | None,
    second: NDArray[Any] | None,
    third: NDArray[Any] | None,
    rows: int = 0,
) -> NDArray[np.uint64]:
    rows = rows or len(second if second is not None else third if third is not None else ())
    key = np.zeros((rows, 3), np.uint64)
    for column, word in enumerate((first, second, third)):
        if word is not None:
            key[:, column] = word
    return key


def _prefix(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return key words of /24 (IPv4) and /48 (IPv6); the last word is the prefix length."""
    four = (high == 0) & (low >> U64(32) == U64(0xFFFF))
    v4_length, v6_length = PREFIX_LENGTHS
    key = np.zeros((len(low), 3), np.uint64)
    key[:, 0] = np.where(
        four, U64(0), high & U64((0xFFFF_FFFF_FFFF_FFFF << (64 - v6_length)) % 2**64)
    )
    key[:, 1] = np.where(
        four, low & U64((0xFFFF_FFFF_FFFF_FFFF << (32 - v4_length)) % 2**64), U64(0)
    )
    key[:, 2] = np.where(four, U64(v4_length), U64(v6_length))
    return key


def _mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    h = (h ^ (h >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> U64(27))) * U64(0x94D049BB133111EB)
    return h ^ (h >> U64(31))


def _item(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _mix(low ^ _mix(high + U64(0x9E3779B97F4A7C15)))


def _content(batch: Batch) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each record's content: its deterministic random number."""
    h = _item(batch["source_address_high"], batch["source_address_low"])
    h = _mix(
        h ^ _item(batch["destination_address_high"], batch["destination_address_low"]) * U64(3)
    )
    ports = batch["source_port"].astype(np.uint64) << U64(16) | batch["destination_port"]
    h = _mix(h ^ (ports << U64(8) | batch["protocol"]))
    h = _mix(h ^ batch["octets"] ^ (batch["packets"] << U64(40)))
    h = _mix(h ^ batch["export_ns"].astype(np.uint64) ^ batch["exporter_address_low"])
    return _mix(h ^ batch["flow_start_ns"].astype(np.uint64) ^ batch["ingress_interface"])


def _interface_word(exporter_low: int, index: int) -> int:
    return (exporter_low << 32 | index) & 0xFFFF_FFFF_FFFF_FFFF


def _interface_words(low: NDArray[np.uint64], index: NDArray[np.uint32]) -> NDArray[np.uint64]:
    result: NDArray[np.uint64] = low << U64(32) | index.astype(np.uint64)
    return result
