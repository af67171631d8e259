"""Sampled series (gauges, counters, deltas) become frames of the views `sample` and `slow_sample`.

Samples are folded row by row in arrival order, each into the tick in which it was measured; one of a
tick that is closed counts in the oldest that is open, one from the future in the tick it came in. A gauge
said again for the same time takes the place of what was said, and counts no more where that tick is closed. A
tick's value is the mean of a gauge, the rate a second of a counter or of deltas. Silent gauges and
counters are NaN, silent deltas 0. A counter that falls has wrapped, at 2**32 or 2**64, where that gives
a rate like the one before; else it was reset, and that interval says nothing.

New series get rows in the order of their ids, at event ticks: the same for any cut and any number of
shards. What a series is called comes before its samples (schema `series`). Used by the node alone;
blind to everything between two samples.

About 130 bytes of numbers and 200 of text a series.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.series_index import SeriesIndex
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.kernels import kernel
from runtime.ports import SeriesKey
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import stable_id
from telemetry.schemas import FRAME, SAMPLE, SERIES, FrameFlag
from telemetry.views import View, frame_schema

COUNTED, LATE, AHEAD, NOT_A_NUMBER, RESET, DISORDER, REPLACED = range(7)
RESULTS = ("counted", "late", "ahead", "not_a_number", "counter_reset", "out_of_order", "replaced")
BACK_NS = 300_000_000_000  # a counter's time that falls by more than this is a clock that was set
WRAP_RATE = 10.0  # times the rate before: what a wrap may look like
GAP_TICKS_MAX = 64
EVICT_IDLE_TICKS = 10  # when full, a row must have been silent for so long before it is given away
NO_ROW = 0xFFFF_FFFF
GAUGE_SEEN = 1  # in `kinds`; what is above it counts up, and is a rate in frames
OTHER = "__other__"
NEVER_NS = 1 << 62


@kernel(
    "i8(const i8[::1], const f8[::1], const i8[::1], const i8[::1], const u1[::1], i8, i8,"
    " u1[::1], f8[::1], i8[::1], f8[::1], f8[:,::1], f8[:,::1], i8[::1])"
)
def fold(
    row: NDArray[np.int64],
    value: NDArray[np.float64],
    time_ns: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    kind: NDArray[np.uint8],
    oldest_ns: int,
    tick_ns: int,
    kinds: NDArray[np.uint8],
    last: NDArray[np.float64],
    last_ns: NDArray[np.int64],
    rate: NDArray[np.float64],
    total: NDArray[np.float64],
    weight: NDArray[np.float64],
    out_results: NDArray[np.int64],
) -> int:
    """Fold N samples into the open ticks, in order; return how many counted.

    In      row int64[N], < M, negative = not ours; value float64[N]; time_ns, arrival_ns int64[N], 0 =
            measured on arrival; kind uint8[N], 0 gauge, 1 counter, 2 delta; oldest_ns, start of the
            oldest open tick; tick_ns.
    Inout   kinds uint8[M], kind + 1 or 0; last float64[M], last_ns int64[M]; rate float64[M], of
            counters; total, weight float64[K, M], of tick t in line t // tick_ns % K: sum and count, of
            counters the increase and its seconds.
    Out     out_results int64[7], how many by COUNTED, LATE (counted too), AHEAD (counted too), ...
    Errors  -1 when a length is wrong: nothing was written.
    """
    n, rows, lines = row.size, kinds.size, total.shape[0]
    if value.size != n or time_ns.size != n or arrival_ns.size != n or kind.size != n:
        return -1
    if last.size != rows or last_ns.size != rows or rate.size != rows or out_results.size < 7:
        return -1
    if total.shape[1] != rows or weight.shape[0] != lines or weight.shape[1] != rows:
        return -1
    first = oldest_ns // tick_ns
    for i in range(n):
        r = row[i]
        if r < 0 or r >= rows:
            continue
        v = value[i]
        if not np.isfinite(v):
            out_results[NOT_A_NUMBER] += 1
            continue
        at = time_ns[i] if time_ns[i] > 0 else arrival_ns[i]
        if at > arrival_ns[i]:
            if at // tick_ns > arrival_ns[i] // tick_ns:
                out_results[AHEAD] += 1
            at = arrival_ns[i]
        tick = at // tick_ns
        again = kind[i] == 0 and kinds[r] == 1 and time_ns[i] > 0 and last_ns[r] == at
        if tick < first:
            if again:
                out_results[DISORDER] += 1
                continue
            out_results[LATE] += 1
            tick = first
        line = min(tick, first + lines - 1) % lines
        if kinds[r] != kind[i] + 1:
            kinds[r] = kind[i] + 1
            last_ns[r] = 0
        if again:
            alone = weight[line, r] == 1.0
            total[line, r] = v if alone else total[line, r] + (v - last[r])
            last[r] = v
            out_results[REPLACED] += 1
            continue
        if kind[i] != 1:
            total[line, r] += v
            weight[line, r] += 1.0
            last[r], last_ns[r] = v, at
            out_results[COUNTED] += 1
            continue
        before, before_ns = last[r], last_ns[r]
        if before_ns > 0 and at <= before_ns and before_ns - at <= BACK_NS:
            out_results[DISORDER] += 1
            continue
        last[r], last_ns[r] = v, at
        if before_ns == 0 or at <= before_ns:
            rate[r] = -1.0  # not known
            continue
        seconds = (at - before_ns) / 1e9
        more = v - before
        if more < 0.0:
            span = 2.0**32 if before < 2.0**32 else 2.0**64
            wrapped = more + span
            fits = before >= 0.5 * span and wrapped < 0.5 * span
            if fits and (rate[r] < 0.0 or wrapped <= WRAP_RATE * rate[r] * seconds + WRAP_RATE):
                more = wrapped
            else:
                out_results[RESET] += 1
                rate[r] = -1.0
                continue
        rate[r] = more / seconds
        total[line, r] += more
        weight[line, r] += seconds
        out_results[COUNTED] += 1
    return int(out_results[COUNTED])


@dataclass(slots=True)
class _Window:
    """One view: rows, open ticks, and what is to be told of new series."""

    view: View
    index: SeriesIndex
    lines: int
    kinds: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    last: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    last_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rate: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    oldest_ns: int = 0  # start of the oldest open tick, 0 = none was opened
    new: list[int] = field(default_factory=list)  # ids to be told with the next frame

    def fit(self) -> None:
        """Make room for all rows of the index."""
        size, kept = len(self.index.keys), len(self.kinds)
        if size == kept:
            return
        for name in ("kinds", "last", "last_ns", "rate"):
            old = getattr(self, name)
            made = np.zeros(size, old.dtype)
            made[:kept] = old
            setattr(self, name, made)
        for name in ("total", "weight"):
            made = np.zeros((self.lines, size))
            made[:, :kept] = getattr(self, name) if kept else 0.0
            setattr(self, name, made)

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Forget what these rows hold."""
        self.kinds[rows], self.last_ns[rows] = 0, 0
        self.total[:, rows], self.weight[:, rows] = 0.0, 0.0


class SampleWindows:
    """Folds samples and closes ticks of the sample views. See the module."""

    accepts = (SERIES, SAMPLE)
    emits = (SERIES, FRAME)

    def __init__(
        self,
        views: Sequence[View],
        context: Context,
        *,
        event_tick_ns: int,
        idle_seconds: float = 86_400.0,
    ) -> None:
        self._event_tick_ns = event_tick_ns
        self._idle_ns = round(idle_seconds * 1e9)
        self._windows = {
            view.name: _Window(
                view,
                SeriesIndex(series_max=view.series_max),
                2 + -(-round(view.lateness_seconds * 1e9) // view.tick_ns),
            )
            for view in views
        }
        for window in self._windows.values():
            window.fit()
        self._schemas = {view.name: frame_schema(view) for view in views}
        self._other = {stable_id(f"{view.name}|{OTHER}"): view.name for view in views}
        self._other_of = {name: number for number, name in self._other.items()}
        # Names of all series that were announced: "entity id, view, entity, key, unit", \0 between.
        self._names: OrderedDict[int, str] = OrderedDict()
        self._names_max = 2 * sum(view.series_max for view in views)
        self._incomplete_until_ns = 0
        metrics = context.metrics
        self._results = metrics.counter(
            "samples_total", "samples by what became of them; late and ahead are counted as well",
            label="result", values=(*RESULTS, "unknown_series", "not_admitted"),
        )  # fmt: skip
        self._series = metrics.gauge(
            "sample_series", "sampled series with a row", label="view", values=tuple(self._windows)
        )

    # ---- ports

    def key(self, series_id: int) -> SeriesKey | None:
        """Return what a series id stands for (ports.SeriesDirectory)."""
        if series_id in self._other:
            return SeriesKey(series_id, series_id, self._other[series_id], OTHER, {})
        name = self._names.get(series_id)
        if name is None:
            return None
        entity_id, view, entity, key, _ = name.split("\0")
        unit = self._unit(series_id)
        return SeriesKey(series_id, int(entity_id, 16), view, entity, key_of_text(key), unit)

    def _unit(self, series_id: int) -> str:
        """Return the unit of a series' values in frames: of what counts up, its unit a second."""
        _, view, _, _, unit = self._names[series_id].split("\0")
        if not unit or unit.endswith("/s") or (window := self._windows.get(view)) is None:
            return unit
        (row,) = window.index.find(_keys(np.array([series_id], np.uint64)))
        return f"{unit}/s" if row >= 0 and window.kinds[row] > GAUGE_SEEN else unit

    @property
    def series(self) -> int:
        """How many series have a row."""
        return int(sum(self._series.numbers))

    def mark_incomplete(self, until_ns: int) -> None:
        """Flag ticks that start before `until_ns`: a restart lost what was in open windows."""
        self._incomplete_until_ns = max(self._incomplete_until_ns, until_ns)

    # ---- samples

    def process(self, batches: Sequence[Batch]) -> None:
        """Take all series and samples of one event tick: names first, then values in their order."""
        for batch in batches:
            if batch.schema.name == SERIES.name:
                self._announce(batch)
        samples = [b for b in batches if b.schema.name == SAMPLE.name and b.rows]
        if samples:
            columns = {
                name: np.concatenate([batch[name] for batch in samples]) for name in SAMPLE.names()
            }
            self._fold(columns)

    def _announce(self, batch: Batch) -> None:
        texts = [batch.texts(name) for name in ("view", "entity", "key", "unit")]
        for series_id, entity_id, *rest in zip(
            batch["series_id"].tolist(), batch["entity_id"].tolist(), *texts, strict=True
        ):
            if rest[0] in self._windows:
                texts_of = (text.replace("\0", " ") for text in rest)
                self._names[series_id] = "\0".join((f"{entity_id:x}", *texts_of))
                self._names.move_to_end(series_id)
        for _ in range(len(self._names)):
            if len(self._names) <= self._names_max:
                break
            oldest = next(iter(self._names))
            if self._lives(oldest):
                self._names.move_to_end(oldest)
            else:
                del self._names[oldest]

    def _lives(self, series_id: int) -> bool:
        keys = _keys(np.array([series_id], np.uint64))
        return any(window.index.find(keys)[0] >= 0 for window in self._windows.values())

    def _fold(self, columns: Mapping[str, NDArray[Any]]) -> None:
        ids = columns["series_id"]
        keys = _keys(ids)
        found = {name: window.index.find(keys) for name, window in self._windows.items()}
        unknown = np.unique(ids[np.all([rows < 0 for rows in found.values()], axis=0)])
        if unknown.size and self._admit(unknown, int(columns["arrival_ns"].max())):
            found = {name: window.index.find(keys) for name, window in self._windows.items()}
        results = np.zeros(len(RESULTS), np.int64)
        for name, window in self._windows.items():
            rows = found[name]
            mine = rows >= 0
            if not mine.any():
                continue
            if not window.oldest_ns:
                # Begin with the first that was measured, if its tick would still be open.
                arrival_ns, time_ns = columns["arrival_ns"][mine], columns["time_ns"][mine]
                measured_ns = np.where(time_ns > 0, np.minimum(time_ns, arrival_ns), arrival_ns)
                late_ns = round(window.view.lateness_seconds * 1e9)
                first_ns = max(int(measured_ns.min()), int(arrival_ns.min()) - late_ns)
                window.oldest_ns = first_ns // window.view.tick_ns * window.view.tick_ns
            fold(
                rows, columns["value"], columns["time_ns"], columns["arrival_ns"], columns["kind"],
                window.oldest_ns, window.view.tick_ns, window.kinds, window.last, window.last_ns,
                window.rate, window.total, window.weight, results,
            )  # fmt: skip
        for name, count in zip(RESULTS, results.tolist(), strict=True):
            self._results.add(name, count)
        lost = np.all([rows < 0 for rows in found.values()], axis=0)
        if lost.any():
            named = sum(int(i) in self._names for i in ids[lost].tolist())
            self._results.add("not_admitted", named)
            self._results.add("unknown_series", int(lost.sum()) - named)

    def _admit(self, unknown: NDArray[np.uint64], now_ns: int) -> bool:
        """Give rows to new series, in order of their ids; return whether any got one."""
        wanted: dict[str, list[int]] = {}
        for series_id in unknown.tolist():
            name = self._names.get(series_id)
            if name is not None:
                wanted.setdefault(name.split("\0", 2)[1], []).append(series_id)
        for view, ids in wanted.items():
            window = self._windows[view]
            lacking = len(ids) - window.index.room()
            if lacking > 0:
                idle_ns = now_ns - EVICT_IDLE_TICKS * window.view.tick_ns
                window.index.evict(idle_ns, lacking)
            chosen = np.array(ids[: window.index.room()], np.uint64)
            if chosen.size:
                rows = window.index.admit(_keys(chosen), chosen, now_ns)
                window.fit()
                window.clear(rows)
                window.new += chosen.tolist()
            self._series.set(float(window.index.live_rows.size), view)
        return bool(wanted)

    # ---- ticks

    def next_deadline_ns(self) -> int:
        """Return when the next tick closes: at the first event tick behind its end and lateness."""
        return min(
            (self._closes_ns(window) for window in self._windows.values() if window.oldest_ns),
            default=NEVER_NS,
        )

    def _closes_ns(self, window: _Window) -> int:
        view = window.view
        due_ns = window.oldest_ns + view.tick_ns + round(view.lateness_seconds * 1e9)
        return -(-due_ns // self._event_tick_ns) * self._event_tick_ns

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return the frames of every tick that closes by the frontier, new series before them."""
        made: list[Batch] = []
        for window in self._windows.values():
            while window.oldest_ns and self._closes_ns(window) <= frontier_ns:
                made += self._close(window, self._closes_ns(window))
        return made

    def skip(self, time_ns: int) -> None:
        """Leave out ticks that would be closed by `time_ns` where there are many and they hold nothing.

        Time jumped, or nothing ran in it.
        """
        for window in self._windows.values():
            behind_ticks = (time_ns - self._closes_ns(window)) // window.view.tick_ns
            if window.oldest_ns and behind_ticks > GAP_TICKS_MAX and not window.weight.any():
                window.oldest_ns += behind_ticks * window.view.tick_ns

    def _close(self, window: _Window, closed_ns: int) -> list[Batch]:
        view, index, start_ns = window.view, window.index, window.oldest_ns
        end_ns = start_ns + view.tick_ns
        line = start_ns // view.tick_ns % window.lines
        rows = index.live_rows
        total, weight, kinds = (
            window.total[line, rows],
            window.weight[line, rows],
            window.kinds[rows],
        )
        spoke = weight > 0.0
        value = np.full(rows.size + 1, np.nan)
        np.divide(total, weight, out=value[:-1], where=spoke)
        deltas = kinds == 3
        value[:-1][deltas] = total[deltas] / view.tick_seconds
        index.saw(rows[spoke], end_ns)
        window.total[line], window.weight[line] = 0.0, 0.0
        window.oldest_ns = end_ns
        made = []
        if window.new:
            made.append(self._told(window.new, view.name, closed_ns))
            window.new = []
        if rows.size:
            made.append(self._frame(view, start_ns, closed_ns, rows, index.series_id[rows], value))
        index.evict(end_ns - self._idle_ns)
        if not index.live_rows.size:
            window.oldest_ns = 0  # nothing to close until something comes
        self._series.set(float(index.live_rows.size), view.name)
        return made

    def _frame(
        self,
        view: View,
        start_ns: int,
        closed_ns: int,
        rows: NDArray[np.int64],
        ids: NDArray[np.uint64],
        value: NDArray[np.float64],
    ) -> Batch:
        count = rows.size + 1
        flags = np.zeros(count, np.uint8)
        if start_ns < self._incomplete_until_ns:
            flags |= FrameFlag.INCOMPLETE
        flags[-1] |= FrameFlag.OTHER
        columns: dict[str, NDArray[Any]] = {
            "tick_start_ns": np.full(count, start_ns, np.int64),
            "tick_seconds": np.full(count, view.tick_seconds, np.float32),
            "view": np.zeros(count, np.uint32),
            "series_id": np.append(ids, np.uint64(self._other_of[view.name])),
            "row": np.append(rows, NO_ROW).astype(np.uint32),
            "flags": flags,
            "lost_share": np.zeros(count, np.float32),
            "moved_share": np.zeros(count, np.float32),
            "value": value,
        }
        schema = self._schemas[view.name]
        return Batch(schema, columns, {}, {"view": (view.name,)}, f"view:{view.name}", 0, closed_ns)

    def _told(self, ids: Sequence[int], view: str, closed_ns: int) -> Batch:
        rows = []
        for series_id in ids:
            entity_id, _, entity, key, _ = self._names[series_id].split("\0")
            rows.append(
                {
                    "series_id": series_id,
                    "entity_id": int(entity_id, 16),
                    "view": view,
                    "entity": entity,
                    "key": key,
                    "unit": self._unit(series_id),
                }
            )
        return batch_from_rows(SERIES, rows, source=view, frontier_ns=closed_ns)

    # ---- journal and checkpoint

    def has(self, batch: Batch) -> bool:
        """Whether a frame is of one of these views, as they are configured now."""
        if batch.schema.name != FRAME.name or not batch.rows:
            return False
        view = batch.text("view", 0)
        return view in self._windows and batch.schema == self._schemas[view]

    def absorb(self, batches: Sequence[Batch]) -> None:
        """Take a journalled tick: names and frames as they are, then samples that sources offered."""
        for batch in batches:
            if batch.schema.name == SERIES.name:
                self._announce(batch)
        for batch in batches:
            if self.has(batch):
                self._absorb_frame(batch)
        self.process([batch for batch in batches if batch.schema.name == SAMPLE.name])

    def _absorb_frame(self, frame: Batch) -> None:
        window = self._windows[frame.text("view", 0)]
        row, ids = frame["row"][:-1].astype(np.int64), frame["series_id"][:-1]
        view, index = window.view, window.index
        end_ns = int(frame["tick_start_ns"][0]) + view.tick_ns
        live = index.live_rows
        if not np.array_equal(live, row) or not np.array_equal(index.series_id[live], ids):
            self._place(window, row, ids, end_ns)
        index.saw(row[~np.isnan(frame["value"][:-1])], end_ns)
        told = set(ids.tolist())
        window.new = [one for one in window.new if one not in told]
        if window.oldest_ns:  # ticks that are closed hold nothing any more
            end = end_ns // view.tick_ns
            for tick in range(max(window.oldest_ns // view.tick_ns, end - window.lines), end):
                window.total[tick % window.lines] = 0.0
                window.weight[tick % window.lines] = 0.0
        window.oldest_ns = end_ns
        self._series.set(float(index.live_rows.size), view.name)

    def _place(
        self, window: _Window, row: NDArray[np.int64], ids: NDArray[np.uint64], end_ns: int
    ) -> None:
        """Give series the rows that the journal says; what is known of them moves along."""
        before = window.index
        at = before.find(_keys(ids))
        known = at >= 0
        window.index = index = SeriesIndex(series_max=window.view.series_max)
        index.place(row, _keys(ids), ids, end_ns)
        index.last_tick_ns[row[known]] = before.last_tick_ns[at[known]]
        index.ticks_seen[row[known]] = before.ticks_seen[at[known]]
        old = {name: getattr(window, name) for name in _STATE}
        for name in _STATE:
            setattr(window, name, np.zeros(0 if old[name].ndim == 1 else (0, 0), old[name].dtype))
        window.fit()
        for name in _STATE:
            getattr(window, name)[..., row[known]] = old[name][..., at[known]]

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Nothing to do: rows are taken back here."""

    def snapshot(self, out: Any) -> None:
        """Write rows, open ticks and names."""
        names = json.dumps([[number, name] for number, name in self._names.items()])
        write_array(out, "names", np.frombuffer(names.encode(), np.uint8))
        write_array(out, "incomplete_until_ns", np.array([self._incomplete_until_ns], np.int64))
        for view, window in self._windows.items():
            scope = out.scoped(view)
            window.index.snapshot(scope.scoped("index"))
            write_array(scope, "oldest_ns", np.array([window.oldest_ns], np.int64))
            write_array(scope, "new", np.array(window.new, np.uint64))
            for name in _STATE:
                used = getattr(window, name)[..., : window.index.rows]
                write_array(scope, name, np.ascontiguousarray(used.T))

    def restore(self, state: Any) -> None:
        """Take them back; a view whose ticks are otherwise now begins its open ticks anew."""
        names, until = read_array(state, "names"), read_array(state, "incomplete_until_ns")
        if names is None or until is None:
            return
        self._incomplete_until_ns = int(until[0])
        for number, name in json.loads(names.tobytes()):
            self._names[number] = name
        for view, window in self._windows.items():
            scope = state.scoped(view)
            oldest, new = read_array(scope, "oldest_ns"), read_array(scope, "new")
            if oldest is None or new is None:
                continue
            window.index.restore(scope.scoped("index"))
            window.fit()
            same = int(oldest[0]) % window.view.tick_ns == 0
            for name in _STATE:
                kept = read_array(scope, name)
                target = getattr(window, name)
                if kept is not None and (
                    target.ndim == 1 or (same and kept.shape[1] == window.lines)
                ):
                    target[..., : len(kept)] = kept.T
            window.oldest_ns = int(oldest[0]) if same else 0
            window.new = new.tolist()
            self._series.set(float(window.index.live_rows.size), view)


_STATE = ("kinds", "last", "last_ns", "rate", "total", "weight")


def _keys(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = np.zeros((len(ids), 3), np.uint64)
    keys[:, 0] = ids
    return keys


def key_of_text(text: str) -> dict[str, str]:
    """Return the parts of a series key as SeriesNames wrote it.

    >>> key_of_text("entity=ams1,metric=in_octets,interface=et%2C0")
    {'entity': 'ams1', 'metric': 'in_octets', 'interface': 'et,0'}
    """
    parts = (part.partition("=") for part in text.split(",") if part)
    return {name: _unescaped(value) for name, _, value in parts}


def _unescaped(value: str) -> str:
    return value.replace("%3D", "=").replace("%2C", ",").replace("%25", "%")
