"""The merger: partial frames of all shards become frames with dense rows, ids and zeros for silence.

It also resolves series ids (ports.SeriesDirectory). What exporters lost is in `correlator.unseen`, the
records behind a series (ports.Evidence) in `correlator.talkers`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.entity_names import describe
from correlator.groups import EVERYTHING, SALT, Groups, above_bound, layout_of
from correlator.kept_batches import read_batches, write_batches
from correlator.keys import key_text, words_of
from correlator.measures import measures_of, pick
from correlator.named_alarms import name_alarms
from correlator.partial import cells_of
from correlator.series_index import SeriesIndex
from correlator.tables.network_map import REFUSED_TABLES, FileNetworkMap
from correlator.talkers import TalkerSamples
from correlator.unseen import Ledgers, Unseen, shares
from correlator.windows_kernels import FLOWS, KEY_WORDS, MOVED, OCTETS, UNSURE
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.ports import SeriesKey, Talker
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import stable_id
from telemetry.schemas import (
    ALARM,
    EVIDENCE,
    FRAME,
    LEDGER,
    OPTION,
    ROUTE,
    SERIES,
    FrameFlag,
)
from telemetry.views import View, frame_schema

NEW_SERIES_PER_TICK_MAX = 4096
NEW_SPARSE_PER_SECOND_MAX = 2.0  # hosts come and go by thousands, and each costs Python
EVICT_IDLE_TICKS = 10  # when full, a row must have been silent for so long before it is given away
TRAINED_TICKS = 30  # and have spoken in fewer ticks than this: what was learned is not displaced
NO_ROW = 0xFFFF_FFFF
NEVER_NS = 1 << 62
OTHER = "__other__"
U64 = np.uint64


class FrameMerger:
    """Merge partials of `shards` shards into frames.

    Frames of one tick end come out together in order of the view's name, new series before them.
    A known series without records is present with zeros while its row lives; what has no row is in
    the last row, `__other__`. Rows silent for `idle_seconds` are taken back.
    """

    accepts = (LEDGER, OPTION, ROUTE)
    emits = (SERIES, EVIDENCE, FRAME)

    def __init__(
        self,
        views: Sequence[View],
        context: Context,
        *,
        network: FileNetworkMap,
        shards: int = 1,
        idle_seconds: float = 86_400.0,
        salt: int = SALT,
    ) -> None:
        self._views = {view.name: view for view in views}
        self._layouts = {view.name: layout_of(view) for view in views}
        self._salt = salt
        self._schemas = {view.name: frame_schema(view) for view in views}
        self._network = network
        self._shards = shards
        self._idle_ns = round(idle_seconds * 1e9)
        self._index = {view.name: SeriesIndex(series_max=view.series_max) for view in views}
        self._where: dict[int, tuple[str, int]] = {}
        self._partials: dict[tuple[int, str, int], list[Batch]] = {}
        self._samples = TalkerSamples(self._views)
        self._ledgers = Ledgers(self._views)
        self._closed: dict[str, dict[int, int]] = {name: {} for name in self._views}
        self._incomplete_until_ns = 0
        self._other = {name: stable_id(f"{name}|{OTHER}") for name in self._views}
        self._dropped = context.metrics.counter(
            "series_not_admitted_total",
            "keys that got no row in a tick and count in __other__",
            label="view",
            values=tuple(self._views),
        )
        self._refused = context.metrics.counter(
            "network_map_refused_total",
            "what routers state of themselves that found its table full, by table",
            label="table",
            values=REFUSED_TABLES,
        )
        self._series = context.metrics.gauge(
            "series_keys",
            "entities with a row, each with several series",
            label="view",
            values=tuple(self._views),
        )

    # ---- ports

    def key(self, series_id: int) -> SeriesKey | None:
        """Return what a series id stands for (ports.SeriesDirectory)."""
        for name, other in self._other.items():
            if series_id == other:
                return SeriesKey(series_id, series_id, name, OTHER, {})
        view, row = self._where.get(series_id, ("", 0))
        index = self._index.get(view)
        if index is None or int(index.series_id[row]) != series_id:
            return None
        return describe(self._network, self._views[view], index.keys[row].tolist(), series_id)

    def talkers(self, series_id: int, tick_start_ns: int, limit: int = 10) -> tuple[Talker, ...]:
        """Return the largest sampled records behind a series in a tick (ports.Evidence)."""
        return self._samples.talkers(series_id, tick_start_ns, limit)

    def backbone(self) -> list[tuple[int, int]]:
        """Return (exporter low half, ifIndex) of the interfaces between routers."""
        return self._network.backbone()

    def _idle(self, view: View) -> int:
        return round(view.idle_seconds * 1e9) or self._idle_ns

    @property
    def series(self) -> int:
        """How many series are scored: an entity's metric is one (design section 4)."""
        keys = self._series.numbers
        return sum(
            int(n) * len(view.scored) for n, view in zip(keys, self._views.values(), strict=True)
        )

    # ---- stage

    def mark_incomplete(self, until_ns: int) -> None:
        """Flag ticks that start before `until_ns`: a restart lost what was in open windows."""
        self._incomplete_until_ns = max(self._incomplete_until_ns, until_ns)

    def start_over(self) -> None:
        """Forget what shards said to an earlier process of this node: it is lost with their windows."""
        self._partials.clear()
        self._samples.start_over()
        for closed in self._closed.values():
            closed.clear()

    def leave(self, shard: int) -> None:
        """Wait for a shard no more."""
        for closed in self._closed.values():
            closed[shard] = NEVER_NS

    def join(self, shard: int, first_ns: int) -> None:
        """Wait for a shard again, from the tick on that holds `first_ns`."""
        for closed in self._closed.values():
            closed[shard] = first_ns

    def process(self, batch: Batch) -> list[Batch]:
        """Take a partial frame, a sample, a ledger or options; frames come from `advance`."""
        name = batch.schema.name
        if name == "partial":
            view = batch.text("view", 0)
            tick_ns = int(batch["tick_start_ns"][0])
            end_ns = tick_ns + int(batch["tick_ns"][0])
            self._partials.setdefault((end_ns, view, tick_ns), []).append(batch)
            shard, closed = int(batch["shard"][0]), self._closed[view]
            closed[shard] = max(closed.get(shard, 0), end_ns)
        elif name == EVIDENCE.name and batch.rows:
            self._samples.take(batch)
        elif name == LEDGER.name:
            self._ledgers.take(batch)
        elif name in (OPTION.name, ROUTE.name):
            self._network.learn(batch)
            self._refused.array[:] = self._network.refused()
        return []

    def named(self, batch: Batch) -> Batch:
        """Return a batch with foreign alarms under the names of the network map."""
        if batch.schema.name != ALARM.name or not batch.rows:
            return batch
        return name_alarms(batch, self._network)

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return the frames of every tick that all shards have closed, in order.

        `frontier_ns` of a frame is when its tick closed: its end and the lateness of its view.

        A shard closes its ticks in order, also empty ones: a later partial of it says that this
        tick is closed too.
        """
        passed = {
            name: min(closed.values()) if len(closed) >= self._shards else 0
            for name, closed in self._closed.items()
        }
        ready = sorted(
            key
            for key in self._partials
            if key[0] <= passed[key[1]]
            and key[0] + round(self._views[key[1]].lateness_seconds * 1e9) <= frontier_ns
        )
        made: list[Batch] = []
        for end_ns, view, tick_ns in ready:
            partials = self._partials.pop((end_ns, view, tick_ns))
            lost = self._ledgers.of_tick(self._views[view], end_ns)
            closed_ns = end_ns + round(self._views[view].lateness_seconds * 1e9)
            made += self._frame(self._views[view], tick_ns, end_ns, partials, lost, closed_ns)
        if ready:
            self._ledgers.trim()
        return made

    def _frame(
        self,
        view: View,
        tick_ns: int,
        end_ns: int,
        partials: list[Batch],
        lost: dict[tuple[int, int], Unseen],
        frontier_ns: int,
    ) -> list[Batch]:
        cells, bound = self._merged(view, partials)
        keys = cells[:, :KEY_WORDS]
        index = self._index[view.name]
        self._forget(index.evict(end_ns - self._idle(view)))
        rows = index.find(keys[1:])
        new = self._admit(view, index, cells[1:], rows, end_ns)
        seen = rows >= 0
        index.saw(rows[seen & (cells[1:, FLOWS] > 0)], end_ns)
        # Source row of each frame row: its group, or a group of zeros for the silent.
        place = np.full(index.rows, -1, np.int64)
        place[rows[seen]] = np.flatnonzero(seen) + 1
        live = np.flatnonzero(place >= 0) if view.sparse else index.live_rows
        source = np.append(place[live], 0)
        outside = np.concatenate([[0], np.flatnonzero(~seen) + 1])
        due = np.count_nonzero(cells[outside[1:], FLOWS] >= U64(view.flows_min))
        self._dropped.add(view.name, int(due))
        taken = pick(cells, source, outside)
        columns = measures_of(view, self._layouts[view.name], cells, taken, source, outside)
        count = len(source)
        octets_all = int(taken[:, OCTETS].sum(dtype=np.uint64))
        moved = int(taken[:, MOVED].sum(dtype=np.uint64)) / octets_all if octets_all else 0.0
        flags = np.zeros(count, np.uint8)
        if tick_ns < self._incomplete_until_ns:
            flags |= FrameFlag.INCOMPLETE
        flags[-1] |= FrameFlag.OTHER
        flags[taken[:, UNSURE] > 0] |= FrameFlag.SAMPLING_UNKNOWN
        share, shed, by_exporter = shares(view, index.keys[live], lost)
        if shed.any():
            # Rates of sampling make up for what was shed; counts of records have none.
            for measure in view.measures:
                if measure.function in ("count", "sum") and not measure.weighted:
                    counts = columns[measure.name]
                    counts[:-1] = np.rint(counts[:-1] / (1.0 - np.minimum(shed, 0.999)))
            nothing = source[:-1] < 0  # a row of which none was drawn is no silent one
            share[nothing] = np.minimum(share[nothing] + shed[nothing], 1.0)
        for name, values in by_exporter.items():
            if name in columns:
                columns[name][:-1] = values
        if bound < EVERYTHING:
            # The cap sent this key's records to `__other__`: its zero is no silence.
            capped = (source[:-1] < 0) & above_bound(index.keys[live], bound, self._salt)
            flags[:-1][capped] |= FrameFlag.CAPPED
            share[capped] = 1.0
        columns |= {
            "tick_start_ns": np.full(count, tick_ns, np.int64),
            "tick_seconds": np.full(count, (end_ns - tick_ns) / 1e9, np.float32),
            "view": np.zeros(count, np.uint32),
            "series_id": np.append(index.series_id[live], U64(self._other[view.name])),
            "row": np.append(live, NO_ROW).astype(np.uint32),
            "flags": flags,
            "lost_share": np.append(share, 0.0).astype(np.float32),
            "moved_share": np.full(count, moved, np.float32),
        }
        self._series.set(float(live.size), view.name)
        made = []
        if new:
            made.append(batch_from_rows(SERIES, new, source=view.name, frontier_ns=frontier_ns))
        evidence = self._samples.merged(view, tick_ns, index, self._other[view.name])
        if evidence is not None:
            made.append(evidence)
        made.append(
            Batch(
                self._schemas[view.name],
                columns,
                {},
                {"view": (view.name,)},
                f"view:{view.name}",
                0,
                frontier_ns,
            )
        )
        return made

    def _merged(self, view: View, partials: list[Batch]) -> tuple[NDArray[np.uint64], int]:
        """Return (rows of groups, row 0 being `__other__`; bound above which keys are in row 0)."""
        if len(partials) == 1:
            return cells_of(partials[0]), int(partials[0]["bound"][0])
        groups = Groups(self._layouts[view.name], keys_max=view.keys_per_tick_max, salt=self._salt)
        for partial in partials:
            groups.merge(cells_of(partial), int(partial["bound"][0]))
        groups.settle()
        return groups.cells, groups.bound

    def _admit(
        self,
        view: View,
        index: SeriesIndex,
        cells: NDArray[np.uint64],
        rows: NDArray[np.int64],
        end_ns: int,
    ) -> list[dict[str, Any]]:
        """Give rows to new keys; fill them into `rows` and return the SERIES rows."""
        unknown = np.flatnonzero((rows < 0) & (cells[:, FLOWS] >= U64(view.flows_min)))
        if not unknown.size:
            return []
        keys = cells[:, :KEY_WORDS]
        by_flows = view.sparse and view.talkers_by == "flows"
        weight = cells[unknown, FLOWS if by_flows else OCTETS].astype(np.float64)
        order = np.lexsort((keys[unknown, 2], keys[unknown, 1], keys[unknown, 0], -weight))
        most = NEW_SERIES_PER_TICK_MAX
        if view.sparse:
            most = min(max(round(NEW_SPARSE_PER_SECOND_MAX * view.tick_seconds), 20), most)
        chosen = unknown[order][:most]
        lacking = chosen.size - index.room()
        if lacking > 0:
            before_ns = end_ns - EVICT_IDLE_TICKS * view.tick_ns
            self._forget(index.evict(before_ns, lacking, seen_below=TRAINED_TICKS))
            chosen = chosen[: index.room()]
        described = [describe(self._network, view, words) for words in keys[chosen].tolist()]
        ids = np.array([key.series_id for key in described], np.uint64)
        rows[chosen] = index.admit(keys[chosen], ids, end_ns)
        for key, row in zip(described, rows[chosen].tolist(), strict=True):
            self._where[key.series_id] = (view.name, row)
        return [
            {
                "series_id": key.series_id,
                "entity_id": key.entity_id,
                "view": key.view,
                "entity": key.entity,
                "key": key_text(key.key),
            }
            for key in described
        ]

    def _forget(self, series_ids: NDArray[np.uint64]) -> None:
        for series_id in series_ids.tolist():
            self._where.pop(series_id, None)

    # ---- journal and checkpoint

    def knows(self, batch: Batch) -> bool:
        """Return whether a journalled batch is of a view as it is configured now."""
        if batch.schema.name not in (FRAME.name, EVIDENCE.name) or not batch.rows:
            return True
        view = batch.text("view", 0)
        if batch.schema.name == EVIDENCE.name:
            return view in self._views
        return view in self._views and batch.schema == self._schemas[view]

    def absorb(self, batches: Sequence[Batch]) -> NDArray[np.int64]:
        """Take a journalled tick as if it had been merged here. Returns no rows: see forget."""
        words: dict[int, tuple[str, list[int]]] = {}
        for batch in batches:
            if batch.schema.name == SERIES.name:
                for series_id, view, text in zip(
                    batch["series_id"].tolist(),
                    batch.texts("view"),
                    batch.texts("key"),
                    strict=True,
                ):
                    if view in self._views:
                        words[series_id] = (view, words_of(text))
            elif batch.schema.name == EVIDENCE.name:
                self._samples.remember(batch)
            elif batch.schema.name == OPTION.name:
                self.process(batch)
        for batch in batches:
            if batch.schema.name == FRAME.name:
                self._absorb_frame(batch, words)
        return np.zeros(0, np.int64)

    def _absorb_frame(self, frame: Batch, words: dict[int, tuple[str, list[int]]]) -> None:
        view = frame.text("view", 0)
        index = self._index[view]
        row, series_id = frame["row"][:-1].astype(np.int64), frame["series_id"][:-1]
        end_ns = int(frame["tick_start_ns"][0]) + round(float(frame["tick_seconds"][0]) * 1e9)
        if self._views[view].sparse:  # who is not in the frame was silent, and may live on
            self._forget(index.evict(end_ns - self._idle(self._views[view])))
        else:
            self._forget(index.take_back(np.setdiff1d(index.live_rows, row)))
        known = index.series_id[np.minimum(row, len(index.series_id) - 1)]
        changed = np.flatnonzero((row >= index.rows) | (known != series_id))
        new = [i for i in changed.tolist() if int(series_id[i]) in words]
        if new:
            reused = row[new][row[new] < index.rows]
            self._forget(index.series_id[reused][index.live[reused] > 0])
            keys = np.array([words[int(series_id[i])][1] for i in new], np.uint64)
            index.place(row[new], keys, series_id[new], end_ns)
            for i in new:
                self._where[int(series_id[i])] = (view, int(row[i]))
        count = next(m.name for m in self._views[view].measures if m.function == "count")
        index.saw(row[frame[count][:-1] > 0], end_ns)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Nothing to do: the merger is who takes rows back."""

    def snapshot(self, out: Any) -> None:
        """Write the index of each view and the last samples."""
        for name, index in self._index.items():
            index.snapshot(out.scoped(name))
        write_array(out, "incomplete_until_ns", np.array([self._incomplete_until_ns], np.int64))
        for name, closed in self._closed.items():
            pairs = np.array(sorted(closed.items()), np.int64).reshape(-1, 2)
            write_array(out.scoped(name), "closed", pairs)
        write_batches(out, "partials", [b for _, bs in sorted(self._partials.items()) for b in bs])
        self._samples.snapshot(out)
        self._ledgers.snapshot(out)
        self._network.snapshot(out.scoped("network"))

    def restore(self, state: Any) -> None:
        """Take them back."""
        self._network.restore(state.scoped("network"))
        for name, index in self._index.items():
            index.restore(state.scoped(name))
            for row in index.live_rows.tolist():
                self._where[int(index.series_id[row])] = (name, row)
            self._series.set(float(index.live_rows.size), name)
        kept = read_array(state, "incomplete_until_ns")
        if kept is not None:
            self._incomplete_until_ns = int(kept[0])
        for batch in read_batches(state, "partials"):
            self.process(batch)
        for name in self._closed:
            pairs = read_array(state.scoped(name), "closed")
            if pairs is not None:
                self._closed[name] = {int(shard): int(end_ns) for shard, end_ns in pairs}
        self._samples.restore(state)
        self._ledgers.restore(state)
