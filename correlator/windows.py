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

from correlator.groups import SALT, Groups, Layout, Pieces, Way, layout_of
from correlator.keys import ADDRESSES, packing_of
from correlator.partial import evidence_batch, in_order, partial_batch
from correlator.suspects import Held, Homes, Suspects, port_bits
from correlator.windows_kernels import (
    BY_EXPORTER,
    BY_INTERFACE,
    BY_PREFIX,
    BY_SERVICE,
    BY_WORDS,
    by_tick,
    prepare,
    spread,
)
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.schemas import EVIDENCE, FLOW, LEDGER
from telemetry.views import View

SPANS_MAX = 64  # a record is spread over at most so many open ticks
OPEN_TICKS_MAX = 64
ROWS_PER_PASS = 16_384  # records taken together: what they need beside the groups stays in cache
ROWS_WORTH_A_PASS = 12_288  # fewer wait for more: a pass costs a millisecond of calls
U64 = np.uint64
# Ports above 1023 that name a service all the same (IANA registrations, amplification vectors).
NAMED_PORTS = np.array(
    [1194, 1433, 1521, 1701, 1723, 1900, 3074, 3128, 3306, 3389, 3478, 3702, 4500, 4789, 5004, 5060,
     5061, 5222, 5228, 5353, 5432, 5683, 5938, 6379, 6881, 8000, 8080, 8443, 8883, 9000, 9200, 10001,
     11211, 19132, 25565, 27015, 27017, 30120, 32400, 37810, 51820],
    np.uint16,
)  # fmt: skip


_IS_NAMED = np.zeros(65_536, np.uint8)
_IS_NAMED[NAMED_PORTS] = 1
_PORT_BITS = port_bits(NAMED_PORTS)
_NO_U8: NDArray[np.uint8] = np.zeros(0, np.uint8)
_NO_U32: NDArray[np.uint32] = np.zeros(0, np.uint32)
_NO_U64: NDArray[np.uint64] = np.zeros(0, np.uint64)
_KINDS = {
    ("exporter",): BY_EXPORTER,
    ("exporter", "interface", "direction"): BY_INTERFACE,
    ("protocol", "port_class"): BY_SERVICE,
    ("source_prefix",): BY_PREFIX,
    ("destination_prefix",): BY_PREFIX,
}
# What `distinct` can count: the other side, and for sources of scans also its port.
_ITEMS = (("source_address",), ("destination_address", "destination_port"))


@dataclass(slots=True)
class _Open:
    """One open tick of one view."""

    groups: Groups
    sample: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    threshold: float = 0.0
    sampled: int = 0


class FlowWindows:
    """Group flow records by view and tick.

    `backbone` names the interfaces, as (exporter low half, ifIndex), that lead to other routers of
    the network: a record counts in service and prefix views only where it enters, so that transit
    routers do not count it again. Without it every record counts. `customers` says what sources belong
    to a customer's port (FileNetworkMap.customer_sources). All shards must be given the same
    `salt`, and the same first frontier (`open`): a record is spread over the ticks that are open.
    """

    accepts = (FLOW, LEDGER)
    emits = (EVIDENCE, LEDGER)  # beside partial frames, whose columns depend on the view

    def __init__(
        self,
        views: Sequence[View],
        context: Context,
        *,
        backbone: Iterable[tuple[int, int]] = (),
        customers: Iterable[tuple[int, int, Sequence[tuple[int, int]]]] = (),
        shard: int = 0,
        salt: int = SALT,
    ) -> None:
        for view in views:
            _check(view)
        self._views = tuple(views)
        self._plain = tuple(view for view in views if not view.where)
        self._picky = tuple(view for view in views if view.where)
        self._layouts: dict[str, Layout] = {view.name: layout_of(view) for view in views}
        self._shard = shard
        self._salt = salt
        self._open: dict[str, dict[int, _Open]] = {view.name: {} for view in views}
        self._oldest: dict[str, int] = dict.fromkeys((view.name for view in views), 0)
        self._spare: dict[str, list[Groups]] = {view.name: [] for view in views}
        self._scratch = _Scratch()
        self._waiting: list[Batch] = []
        self._waiting_rows = 0
        self._held: list[Held] = []  # what views with `where` look at: few of many records
        self._held_rows = 0
        self._backbone = np.unique(
            np.array([_interface_word(low, index) for low, index in backbone], np.uint64)
        )
        self._homes = Homes(customers)
        self._records = context.metrics.counter(
            "windows_records_total",
            "records by how their time stood to the open ticks",
            label="time",
            values=("in_time", "moved_to_oldest"),
        )
        self._left_out = context.metrics.counter(
            "windows_left_out_total",
            "records that a kind of view does not count: no interface number (by direction), or "
            "counted where they entered the network",
            label="why",
            values=("no_ingress_interface", "no_egress_interface", "over_backbone"),
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

    @property
    def holds_records(self) -> bool:
        """Whether records lie in ticks that are not closed yet, of the views with the shortest ones.

        A longer tick holds what they told before; to close it takes ticks of theirs without a record.
        """
        shortest = min((view.tick_ns for view in self._views), default=0)
        mine = (view.name for view in self._views if view.tick_ns == shortest)
        return bool(self._waiting or self._held) or any(self._open[name] for name in mine)

    def open(self, frontier_ns: int) -> None:
        """Begin with the ticks that hold `frontier_ns`; does nothing once ticks are open.

        Without it the first record, or the first frontier, begins.
        """
        for view in self._views:
            if not self._oldest[view.name]:
                self._oldest[view.name] = frontier_ns // view.tick_ns * view.tick_ns

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Close what is due; one partial for each closed tick of each view, also empty ones."""
        self.open(frontier_ns)
        if self.next_deadline_ns() <= frontier_ns:
            self._work_off()
            self._work_off_held()
        made: list[Batch] = []
        for view in self._views:
            lateness = round(view.lateness_seconds * 1e9)
            while self._oldest[view.name] + view.tick_ns + lateness <= frontier_ns:
                made += self._close(view, self._oldest[view.name], frontier_ns)
                self._oldest[view.name] += view.tick_ns
        return made

    def skip(self, time_ns: int) -> None:
        """Leave out ticks that end by `time_ns` where there are many: time jumped, nothing was heard."""
        self._work_off()
        for view in self._views:
            oldest_ns, first_ns = self._oldest[view.name], time_ns // view.tick_ns * view.tick_ns
            if oldest_ns and not self._open[view.name]:
                if first_ns - oldest_ns > OPEN_TICKS_MAX * view.tick_ns:
                    self._oldest[view.name] = first_ns

    def _close(self, view: View, tick_ns: int, frontier_ns: int) -> list[Batch]:
        state = self._open[view.name].pop(tick_ns, None) or self._new(view)
        state.groups.settle()
        made = [
            partial_batch(
                view,
                state.groups,
                tick_start_ns=tick_ns,
                shard=self._shard,
                frontier_ns=frontier_ns,
            )
        ]
        if view.talkers and state.sample:
            made.append(evidence_batch(view, _top(state.sample, view.talkers), tick_ns))
        if len(self._spare[view.name]) < 2:
            state.groups.clear()
            self._spare[view.name].append(state.groups)
        return made

    def _new(self, view: View) -> _Open:
        spare = self._spare[view.name]
        if spare:
            return _Open(spare.pop())
        return _Open(
            Groups(self._layouts[view.name], keys_max=view.keys_per_tick_max, salt=self._salt)
        )

    def _tick(self, view: View, tick_ns: int) -> _Open:
        ticks = self._open[view.name]
        if tick_ns not in ticks:
            ticks[tick_ns] = self._new(view)
        return ticks[tick_ns]

    # ---- records

    def process(self, batch: Batch) -> list[Batch]:
        """Add flow records to the open ticks; an exporter ledger is passed on to the merger.

        Small batches wait for one another until a pass is worth its calls, or a tick closes: what
        they count in depends on the ticks open now, and those stay open until then.
        """
        if batch.schema.name == LEDGER.name:
            return [batch]
        if not batch.rows:
            return []
        self.open(int(batch["arrival_ns"].min()))
        self._waiting.append(batch)
        self._waiting_rows += batch.rows
        if self._waiting_rows >= ROWS_WORTH_A_PASS:
            self._work_off()
        return []

    def _work_off(self) -> None:
        """Group the records that wait."""
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        together: list[Batch] = []
        rows = 0
        for batch in waiting:
            for first in range(0, batch.rows, ROWS_PER_PASS):
                part = batch
                if batch.rows > ROWS_PER_PASS:
                    part = batch.slice(first, min(first + ROWS_PER_PASS, batch.rows))
                if rows + part.rows > ROWS_PER_PASS and together:
                    self._process(_Records(together, self._backbone, self._homes, self._scratch))
                    together, rows = [], 0
                together.append(part)
                rows += part.rows
        if together:
            self._process(_Records(together, self._backbone, self._homes, self._scratch))

    def _work_off_held(self) -> None:
        held, self._held, self._held_rows = self._held, [], 0
        if held:
            self._add_to(self._picky, _Records(held, self._backbone, self._homes, self._scratch))

    def _process(self, records: "_Records") -> None:
        late = self._add_to(self._plain, records)
        self._records.array += np.array([records.rows - late, late], np.uint64)
        self._left_out.array += records.left_out
        if self._picky and (held := records.suspects().held()):
            self._held.append(held)
            self._held_rows += held.rows
            if self._held_rows >= ROWS_WORTH_A_PASS:
                self._work_off_held()

    def _add_to(self, views: Sequence[View], records: "_Records") -> int:
        """Add records to these views; return how many came after the first one's tick was closed."""
        late = 0
        for number, view in enumerate(views):
            oldest_ns = self._oldest[view.name]
            cut = records.cut(view, oldest_ns)
            if number == 0:
                late = records.late(oldest_ns)
            ways = records.ways(view)
            for index, pieces in cut:
                state = self._tick(view, oldest_ns + index * view.tick_ns)
                for way in ways:
                    self._add(view, state, records, way, pieces)
        return late

    def _add(self, view: View, state: _Open, records: "_Records", way: Way, pieces: Pieces) -> None:
        by_flows = -1 if not view.talkers else int(view.talkers_by == "flows")
        heavy = self._scratch.take("heavy", np.int32, pieces.record.size)
        found = state.groups.add(way, pieces, heavy, state.threshold, by_flows)
        if found:
            self._sample(view, state, records, way, pieces, heavy[:found])

    def _sample(
        self,
        view: View,
        state: _Open,
        records: "_Records",
        way: Way,
        pieces: Pieces,
        heavy: NDArray[np.int32],
    ) -> None:
        """Priority sample (Duffield, Lund, Thorup 2007): keep the largest weight / uniform.

        The uniform number is a hash of the record's content: no order, no cut changes the sample.
        A scan is many small flows, so where distinct peers are the point each flow weighs the same.
        """
        record, octets = pieces.record[heavy], pieces.octets[heavy]
        weight = pieces.flows[heavy] if view.talkers_by == "flows" else octets
        content = way.content[record] * U64(2 * way.way + 1)
        uniform = (content >> U64(11)).astype(np.float64) + 1.0
        priority = weight.astype(np.float64) * 2.0**53 / uniform
        least = state.threshold
        if priority.size > view.talkers:
            # So many records reach this: what lies below is in no sample of this tick.
            least = max(least, float(np.partition(priority, -view.talkers)[-view.talkers]))
            state.threshold = least
        good = np.flatnonzero(priority >= least)
        if not good.size:
            return
        rows = record[good]
        state.sample.append(
            {
                "record": records.evidence(rows),
                "key": _key_words(way, rows),
                "octets": octets[good],
                "packets": pieces.packets[heavy][good],
                "priority": priority[good],
                "content": content[good],
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
        self._waiting, self._waiting_rows = [], 0
        self._held, self._held_rows = [], 0

    def snapshot(self, out: Any) -> None:
        """Write the open ticks, so that `restore` goes on bit for bit."""
        self._work_off()
        self._work_off_held()
        for view in self._views:
            scope = out.scoped(view.name)
            ticks = sorted(self._open[view.name])
            write_array(scope, "ticks", np.array([self._oldest[view.name], *ticks], np.int64))
            for tick_ns in ticks:
                state, own = self._open[view.name][tick_ns], scope.scoped(str(tick_ns))
                write_array(own, "cells", state.groups.cells)
                write_array(own, "bound", np.array([state.groups.bound], np.uint64))
                write_array(own, "threshold", np.array([state.threshold]))
                if state.sample:
                    for name, column in _top(state.sample, state.sampled).items():
                        write_array(own, f"sample.{name}", column)

    def restore(self, state: Any) -> None:
        """Take the open ticks back."""
        self.restart()
        for view in self._views:
            scope = state.scoped(view.name)
            ticks = read_array(scope, "ticks")
            if ticks is None:
                continue
            self._oldest[view.name] = int(ticks[0])
            for tick_ns in ticks[1:].tolist():
                own, made = scope.scoped(str(tick_ns)), self._tick(view, tick_ns)
                cells, bound = read_array(own, "cells"), read_array(own, "bound")
                threshold = read_array(own, "threshold")
                if cells is None or bound is None or threshold is None:
                    continue
                made.groups.restore(cells, int(bound[0]))
                made.threshold = float(threshold[0])
                sample = {name: read_array(own, f"sample.{name}") for name in _SAMPLE}
                kept = {name: column for name, column in sample.items() if column is not None}
                if len(kept) == len(_SAMPLE):
                    made.sample = [kept]
                    made.sampled = len(kept["priority"])


_SAMPLE = ("key", "octets", "packets", "priority", "content", "record")


def _top(parts: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return the rows of the largest priority, in an order that depends on content alone."""
    columns = parts[0]
    if parts[1:]:
        columns = {name: np.concatenate([part[name] for part in parts]) for name in _SAMPLE}
    order = in_order(columns["priority"], columns["content"], columns["octets"])[:limit]
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


class _Scratch:
    """Arrays that are used again for every batch: fresh memory costs a page fault each 4 KB."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def take(self, name: str, kind: Any, size: int) -> NDArray[Any]:
        """Return `size` places with anything in them."""
        kept = self._arrays.get(name)
        if kept is None or len(kept) < size:
            kept = self._arrays[name] = np.empty(max(size, 4096), kind)
        return kept[:size]


class _Records:
    """Batches as all views see them: weighted counts, keys, hashes and cuts made once.

    Lives until the next one is made: both use the same scratch memory.
    """

    def __init__(
        self, batches: "Sequence[Batch | Held]", backbone: NDArray[np.uint64], homes: Homes,
        scratch: _Scratch,
    ) -> None:  # fmt: skip
        self._batches = batches
        self._columns: dict[str, NDArray[Any]] = {}
        self._scratch = scratch
        self._cuts: dict[tuple[str, int, int], list[tuple[int, Pieces]]] = {}
        self._suspects: Suspects | None = None
        self._backbone, self._homes = backbone, homes
        n = self.rows = sum(batch.rows for batch in batches)

        def room(name: str, kind: Any) -> NDArray[Any]:
            return scratch.take(name, kind, n)

        self._octets, self._packets = room("octets", np.uint64), room("packets", np.uint64)
        self._unsure, self._enters = room("unsure", np.uint8), room("enters", np.uint8)
        self._port_class = room("port_class", np.uint32)
        self._source, self._target = room("source", np.uint64), room("target", np.uint64)
        self._bucket, self._content = room("bucket", np.uint8), room("content", np.uint64)
        column = self.column
        prepare(
            column("source_address_high"), column("source_address_low"),
            column("destination_address_high"), column("destination_address_low"),
            column("source_port"), column("destination_port"), column("protocol"),
            column("tcp_flags"), column("exporter_address_high"), column("exporter_address_low"),
            column("ingress_interface"), column("egress_interface"), column("octets"),
            column("packets"), column("sampling_rate"), column("flow_start_ns"),
            column("export_ns"), _IS_NAMED, backbone, n,
            self._octets, self._packets, self._unsure, self._enters, self._port_class,
            self._source, self._target, self._bucket, self._content,
        )  # fmt: skip

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of all batches as kernels want it: contiguous."""
        found = self._columns.get(name)
        if found is None:
            parts = [batch[name] for batch in self._batches]
            if len(parts) == 1:
                found = np.ascontiguousarray(parts[0])
            else:
                found = self._scratch.take(f"column.{name}", parts[0].dtype, self.rows)
                np.concatenate(parts, out=found)
            self._columns[name] = found
        return found

    @property
    def left_out(self) -> NDArray[np.uint64]:
        """Records without ingress interface, without egress interface, in over the backbone."""
        seen = (self.column("ingress_interface"), self.column("egress_interface"), self._enters)
        return np.array([self.rows - np.count_nonzero(one) for one in seen], np.uint64)

    def late(self, oldest_ns: int) -> int:
        """Return how many records were exported before the oldest open tick."""
        exported = self.column("export_ns")
        return int(np.count_nonzero((exported < oldest_ns) & (exported > 0)))

    def evidence(self, rows: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return uint64[R, 12]: the fields of EVIDENCE_FIELDS."""
        fields = np.empty((len(rows), len(EVIDENCE_FIELDS)), np.uint64)
        for i, name in enumerate(EVIDENCE_FIELDS):
            fields[:, i] = self.column(name)[rows]
        return fields

    def suspects(self) -> Suspects:
        """Return the records that views with `where` look at, told apart once for all of them."""
        if self._suspects is None:
            self._suspects = Suspects(
                self.column,
                lambda name, kind: self._scratch.take(name, kind, self.rows),
                rows=self.rows,
                enters=self._enters,
                ports=_PORT_BITS,
                homes=self._homes,
            )
        return self._suspects

    def cut(self, view: View, oldest_ns: int) -> list[tuple[int, Pieces]]:
        """Return (tick index from the oldest open, its pieces) for every tick that has pieces."""
        key = (view.where, view.tick_ns, oldest_ns)
        if key not in self._cuts:
            if view.where:
                self._cuts[key] = self.suspects().cut(
                    view.where, view.tick_ns, oldest_ns, self._octets, self._packets
                )
            else:
                self._cuts[key] = self._cut(view.tick_ns, oldest_ns, f"{len(self._cuts)}.")
        return self._cuts[key]

    def _cut(self, tick_ns: int, oldest_ns: int, prefix: str) -> list[tuple[int, Pieces]]:
        scratch = self._scratch
        newest = int(self.column("arrival_ns").max())
        ticks = max(1, (newest - oldest_ns) // tick_ns + 1)
        spans = min(SPANS_MAX, ticks)
        size = self.rows * (spans + 1)
        counts = np.zeros(ticks, np.int64)

        def room(order: str) -> tuple[NDArray[Any], ...]:
            kinds = (np.int32, np.uint64, np.uint64, np.uint8, np.uint64)
            return tuple(
                scratch.take(f"{prefix}{order}{i}", kind, size) for i, kind in enumerate(kinds)
            )

        record, octets, packets, flows, moved = found = room("found")
        tick = scratch.take(f"{prefix}tick", np.int32, size)
        n = spread(
            self.column("flow_start_ns"), self.column("flow_end_ns"), self.column("export_ns"),
            self.column("arrival_ns"), self._octets, self._packets, self.rows, tick_ns, oldest_ns,
            spans, record, tick, octets, packets, flows, moved, counts,
        )  # fmt: skip
        used = np.flatnonzero(counts)
        if used.size == 1:
            return [(int(used[0]), Pieces(*(array[:n] for array in found)))]
        ends = np.cumsum(counts)
        place = ends - counts
        sorted_ = room("sorted")
        by_tick(n, record, tick, octets, packets, flows, moved, place, *sorted_)
        return [
            (index, Pieces(*(a[ends[index] - counts[index] : ends[index]] for a in sorted_)))
            for index in used.tolist()
        ]

    def ways(self, view: View) -> list[Way]:
        """Return how the records get their key in this view, once for each direction."""
        kind = _KINDS.get(view.key, BY_WORDS)
        chosen = self._enters if self._backbone.size else _NO_U8
        item = _NO_U64
        for measure in view.measures:
            if measure.function == "distinct":
                item = self._source if measure.of == _ITEMS[0] else self._target
        if view.where:
            words = self.suspects().words(view.key, view.where)
            return [self._by_words(words, _NO_U8, item)]
        if kind == BY_EXPORTER:
            return [self._way(kind, "exporter")]
        if kind == BY_INTERFACE:
            return [
                self._way(kind, "exporter", way=0, number=self.column("ingress_interface")),
                self._way(kind, "exporter", way=1, number=self.column("egress_interface")),
            ]
        if kind == BY_SERVICE:
            number = self._port_class
            return [self._way(kind, "exporter", number=number, chosen=chosen, item=item)]
        if kind == BY_WORDS:
            if "exporter" in view.key:  # each router counts for itself
                chosen = _NO_U8
            return [self._packed(view, chosen, item)]
        address = "source" if view.key == ("source_prefix",) else "destination"
        return [self._way(kind, address, chosen=chosen, item=item)]

    def _packed(self, view: View, chosen: NDArray[np.uint8], item: NDArray[np.uint64]) -> Way:
        """Return the way of a packed key (correlator.keys)."""
        packing = packing_of(view.key)
        words = [
            self._scratch.take(f"{view.name}.word{i}", kind, self.rows)
            for i, kind in enumerate((np.uint64, np.uint64, np.uint32))
        ]
        for word in words:
            word[:] = 0
        if packing.address:
            name = ADDRESSES[packing.address]
            words[0][:] = self.column(f"{name}_high")
            words[1][:] = self.column(f"{name}_low")
            if packing.address.endswith("_prefix"):
                four = (words[0] == 0) & (words[1] >> U64(32) == U64(0xFFFF))
                words[0] &= U64(0xFFFF_FFFF_FFFF_0000)
                words[1][:] = np.where(four, words[1] & U64(0xFFFF_FFFF_FFFF_FF00), U64(0))
        for place in packing.places:
            column = self._port_class if place.part == "port_class" else self.column(place.part)
            word = words[place.word]
            part = column.astype(word.dtype) & word.dtype.type((1 << place.bits) - 1)
            word |= part << word.dtype.type(place.shift)
        return self._by_words((words[0], words[1], words[2]), chosen, item)

    def _by_words(
        self,
        words: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint32]],
        chosen: NDArray[np.uint8],
        item: NDArray[np.uint64],
    ) -> Way:
        return Way(
            BY_WORDS, 0, *words, self.column("protocol"), chosen, item,
            self._bucket, self._octets, self._unsure, self._content,
        )  # fmt: skip

    def _way(
        self,
        kind: int,
        address: str,
        *,
        way: int = 0,
        number: NDArray[np.uint32] = _NO_U32,
        chosen: NDArray[np.uint8] = _NO_U8,
        item: NDArray[np.uint64] = _NO_U64,
    ) -> Way:
        return Way(
            kind,
            way,
            self.column(f"{address}_address_high"),
            self.column(f"{address}_address_low"),
            number,
            self.column("protocol"),
            chosen,
            item,
            self._bucket,
            self._octets,
            self._unsure,
            self._content,
        )


def _check(view: View) -> None:
    """Refuse a view that these windows cannot make."""
    if view.key not in _KINDS or view.where:
        packing = packing_of(view.key)
        if view.where and (not packing.address or any(p.word != 2 for p in packing.places)):
            raise ConfigError(f"view {view.name}: its key must be an address and 32 bits at most")
    distinct = {measure.of for measure in view.measures if measure.function == "distinct"}
    if len(distinct) > 1:
        raise ConfigError(f"view {view.name}: distinct is counted of one thing only")
    if distinct - set(_ITEMS):
        known = " or ".join(",".join(of) for of in _ITEMS)
        raise ConfigError(
            f"view {view.name}: distinct is counted of {known}, not of {','.join(distinct.pop())}"
        )
    for measure in view.measures:
        if measure.function == "entropy" and measure.of != ("destination_address",):
            raise ConfigError(
                f"view {view.name}: {measure.name}: entropy is of destination_address only"
            )


def _key_words(way: Way, rows: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Return uint64[R, 3], the key that windows_kernels.group gives these records."""
    high, low = way.high[rows], way.low[rows]
    zero = np.zeros(len(rows), np.uint64)
    if way.kind == BY_EXPORTER:
        words = (high, low, zero)
    elif way.kind == BY_WORDS:
        words = (high, low, way.number[rows].astype(np.uint64))
    elif way.kind == BY_INTERFACE:
        words = (high, low, way.number[rows].astype(np.uint64) << U64(1) | U64(way.way))
    elif way.kind == BY_SERVICE:
        protocol = way.protocol[rows].astype(np.uint64)
        words = (zero, zero, protocol << U64(32) | way.number[rows].astype(np.uint64))
    else:
        four = (high == 0) & (low >> U64(32) == U64(0xFFFF))
        words = (
            np.where(four, zero, high & U64(0xFFFF_FFFF_FFFF_0000)),
            np.where(four, low & U64(0xFFFF_FFFF_FFFF_FF00), zero),
            np.where(four, U64(24), U64(48)),
        )
    made = np.empty((len(rows), 3), np.uint64)
    made[:, 0], made[:, 1], made[:, 2] = words
    return made


def _interface_word(exporter_low: int, index: int) -> int:
    return (exporter_low << 32 | index) & 0xFFFF_FFFF_FFFF_FFFF
