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
from correlator.partial import evidence_batch, in_order, partial_batch
from correlator.records import Records, Scratch, check, key_words
from correlator.suspects import Held, Homes
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.schemas import EVIDENCE, FLOW, LEDGER
from telemetry.views import View

OPEN_TICKS_MAX = 64
ROWS_PER_PASS = 16_384  # records taken together: what they need beside the groups stays in cache
ROWS_WORTH_A_PASS = 12_288  # fewer wait for more: a pass costs a millisecond of calls
U64 = np.uint64


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
            check(view)
        self._views = tuple(views)
        self._plain = tuple(view for view in views if not view.where)
        self._picky = tuple(view for view in views if view.where)
        self._layouts: dict[str, Layout] = {view.name: layout_of(view) for view in views}
        self._shard = shard
        self._salt = salt
        self._open: dict[str, dict[int, _Open]] = {view.name: {} for view in views}
        self._oldest: dict[str, int] = dict.fromkeys((view.name for view in views), 0)
        self._spare: dict[str, list[Groups]] = {view.name: [] for view in views}
        self._scratch = Scratch()
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
                    self._process(Records(together, self._backbone, self._homes, self._scratch))
                    together, rows = [], 0
                together.append(part)
                rows += part.rows
        if together:
            self._process(Records(together, self._backbone, self._homes, self._scratch))

    def _work_off_held(self) -> None:
        held, self._held, self._held_rows = self._held, [], 0
        if held:
            self._add_to(self._picky, Records(held, self._backbone, self._homes, self._scratch))

    def _process(self, records: Records) -> None:
        late = self._add_to(self._plain, records)
        self._records.array += np.array([records.rows - late, late], np.uint64)
        self._left_out.array += records.left_out
        if self._picky and (held := records.suspects().held()):
            self._held.append(held)
            self._held_rows += held.rows
            if self._held_rows >= ROWS_WORTH_A_PASS:
                self._work_off_held()

    def _add_to(self, views: Sequence[View], records: Records) -> int:
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

    def _add(self, view: View, state: _Open, records: Records, way: Way, pieces: Pieces) -> None:
        by_flows = -1 if not view.talkers else int(view.talkers_by == "flows")
        heavy = self._scratch.take("heavy", np.int32, pieces.record.size)
        found = state.groups.add(way, pieces, heavy, state.threshold, by_flows)
        if found:
            self._sample(view, state, records, way, pieces, heavy[:found])

    def _sample(
        self,
        view: View,
        state: _Open,
        records: Records,
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
                "key": key_words(way, rows),
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


def _interface_word(exporter_low: int, index: int) -> int:
    return (exporter_low << 32 | index) & 0xFFFF_FFFF_FFFF_FFFF
