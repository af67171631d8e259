"""The writer: journal blocks become rows, each tick exactly once, rollups from closed ticks.

How once is once. Ticks go in the order in which they closed. One insert holds whole ticks of one day
(one part, which the engine adds whole or not at all) or, where a tick is larger than an insert, a piece
of one tick. So after a crash at most the newest tick can be there in part: `start` looks at it, and
`tick` writes it again where its rows do not add up. Within a run a retried insert carries the same
token, which the engine knows. Rollups go the same way: only the newest buckets of a period can be
incomplete. They are built here and not by materialized views, which double on a retried insert.

Everything is kept until its insert succeeded: a `flush` that raised may simply be called again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from history.store import Connection, migrate
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.schema import Kind

ROWS_PER_INSERT = 100_000  # blocks of a million rows cost 300 MB of memory
PERIODS = (60, 900, 3600, 86_400)
DAY_NS = 86_400 * 10**9
SECOND_NS = 10**9

# Measures that are no totals: the others are stored as rates a second.
ABSOLUTE = ("value", "distinct", "entropy", "octets_min", "octets_max", "octets_mean", "octets_m2")
SCORES = ("expected", "lower", "upper", "score")
NO_MEASURES = frozenset(
    ("tick_start_ns", "tick_seconds", "view", "series_id", "row", "flags", "lost_share", "moved_share")
)  # fmt: skip
SCORE_ENDINGS = ("_expected", "_lower", "_upper", "_score", "_p_value")

# Tables of rows that are not frames, by schema; each batch of a tick is an insert under its own token.
BESIDE = {
    "series": "series",
    "alarm": "alarms",
    "incident": "incidents",
    "anomaly": "anomalies",
    "log": "logs",
    "route": "routes",
    "option": "names",
}
# Of these come small batches each second. They are gathered over ten seconds of closing times, so that
# the same rows go in under the same token whenever and however often the journal is read.
GATHERED = ("logs", "routes")
GATHER_NS = 10 * SECOND_NS

# What one rollup statement may look at and make: its memory follows from these.
ROLLUP_ROWS_READ = 1_000_000
ROLLUP_SPAN_SECONDS = 3_600

WHAT_IS_THERE = (
    "select view, max(closed_ns) as newest, min(tick_end_ns) as oldest,"
    " argMax(tick_seconds, closed_ns) as seconds, argMax(closed_ns - tick_end_ns, closed_ns) as"
    " lateness from frames group by view order by view"
)
ONE_TICK = "closed_ns = {tick:Int64} and intDiv(tick_end_ns - 1, 86400000000000) = {day:Int64}"
COUNT_TICK = f"select count() as rows from frames where {ONE_TICK}"
DELETE_TICK = f"alter table frames delete where {ONE_TICK} settings mutations_sync = 2"
OF_VIEWS = "position({views:String}, concat(',', view, ',')) > 0"
NEWEST_BUCKETS = (
    f"select period, max(bucket) as bucket from rollups where {OF_VIEWS} group by period"
)
COUNT_SPAN = (
    "select count() as rows from frames"
    " where tick_end_ns > {first:Int64} * 1000000000 and tick_end_ns <= {last:Int64} * 1000000000"
    f" and {OF_VIEWS}"
)
COUNT_ROLLED = (
    f"select (select count() from rollups where period = {{period:UInt32}}"
    f"  and bucket >= {{first:Int64}} and bucket < {{last:Int64}} and {OF_VIEWS}) as there,"
    " (select count() from (select distinct intDiv(tick_end_ns - 1, 1000000000 * {period:Int64}),"
    "  view, measure, series_id from frames"
    "  where tick_end_ns > {first:Int64} * 1000000000"
    f"  and tick_end_ns <= {{last:Int64}} * 1000000000 and {OF_VIEWS})) as wanted"
)
DELETE_ROLLED = (
    f"alter table rollups delete where period = {{period:UInt32}}"
    f" and bucket >= {{first:Int64}} and bucket < {{last:Int64}} and {OF_VIEWS}"
    " settings mutations_sync = 2"
)
ROLL_UP = (
    "select {period:UInt32}, intDiv(tick_end_ns - 1, 1000000000 * {period:Int64})"
    " * {period:Int64} as bucket_start, view, measure, series_id, count(), sum(value),"
    " sum(value * value), min(value), max(value), argMax(value, tick_end_ns),"
    " quantileExact(0.95)(value), 0 from frames"
    " where tick_end_ns > {first:Int64} * 1000000000 and tick_end_ns <= {last:Int64} * 1000000000"
    f" and {OF_VIEWS} and series_id % {{pieces:UInt64}} = {{piece:UInt64}}"
    " group by view, measure, series_id, bucket_start"
)


@dataclass(slots=True)
class _Cadence:
    """Views whose ticks are as long and close as late: what is over of them is rolled up together."""

    tick_seconds: float
    lateness_ns: int
    views: list[str] = field(default_factory=list)
    rolled: dict[int, int] = field(default_factory=dict)  # period → first bucket not rolled up

    @property
    def names(self) -> str:
        """The views, as OF_VIEWS takes them."""
        return f",{','.join(self.views)},"


@dataclass(slots=True)
class _Tick:
    """The rows of one tick and day, ready to insert."""

    closed_ns: int
    day: int
    columns: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    rows: int = 0
    mend: bool = False  # some of it may be in the table already


class HistoryWriter:
    """Writes ticks and what came of them. Used from one thread."""

    def __init__(self, connection: Connection, context: Context) -> None:
        self._db = connection
        self._context = context
        self._ticks: deque[_Tick] = deque()
        self._group: list[_Tick] = []  # what the insert in progress holds, first in _ticks
        self._rows_beside: deque[tuple[str, str, dict[str, Any]]] = deque()  # table, token, columns
        self._gathered: dict[str, list[dict[str, Any]]] = {table: [] for table in GATHERED}
        self._span = 0  # of closing times: what `_gathered` holds is of it alone
        self._pieces = 0  # of this span that are sealed
        # Journal block of the first gathered row of the span, 0 = none. It stays while pieces of the
        # span go in: read again from there, the same pieces are made under the same tokens.
        self.gathers_from = 0
        self._cadences: list[_Cadence] = []
        self._views: list[str] = []
        self._measures: list[str] = []
        self._run = ""
        self._newest_in_doubt = False
        self.waiting_rows = 0
        self.high_water_ns = 0
        self._rows = context.metrics.counter(
            "history_rows_total",
            "rows written",
            label="table",
            values=("frames", *BESIDE.values()),
        )
        self._buckets = context.metrics.counter(
            "history_buckets_total",
            "rollup buckets built",
            label="period",
            values=tuple(str(period) for period in PERIODS),
        )
        self._mended = context.metrics.counter(
            "history_mended_total", "ticks and buckets found half written after a crash, and mended"
        )

    def start(self) -> None:
        """Bring the tables up to date, find out what is there, take away rollups that were cut off."""
        migrate(self._db)
        self._cadences.clear()
        # Tokens of an earlier run must not swallow the rows that mend it.
        self._run = f"{self._context.clock.now_ns():x}"
        oldest: dict[int, int] = {}  # by cadence
        for view in self._db.rows(WHAT_IS_THERE):
            self.high_water_ns = max(self.high_water_ns, int(view["newest"]))
            self._newest_in_doubt = True
            cadence = self._cadence(view["view"], float(view["seconds"]), int(view["lateness"]))
            at = self._cadences.index(cadence)
            oldest[at] = min(oldest.get(at, int(view["oldest"])), int(view["oldest"]))
        for at, cadence in enumerate(self._cadences):
            _roll_from(cadence, oldest[at])
            for row in self._db.rows(NEWEST_BUCKETS, {"views": cadence.names}):
                period = int(row["period"])
                last = int(row["bucket"]) + period
                cadence.rolled[period] = self._whole_until(cadence, period, last)

    def _cadence(self, view: str, tick_seconds: float, lateness_ns: int) -> _Cadence:
        """Return the cadence of a view; one that was configured otherwise goes on where it stood."""
        before = next((one for one in self._cadences if view in one.views), None)
        kind = (tick_seconds, lateness_ns)
        if before is not None and (before.tick_seconds, before.lateness_ns) == kind:
            return before
        found = next(
            (one for one in self._cadences if (one.tick_seconds, one.lateness_ns) == kind), None
        )
        if found is None:
            found = _Cadence(*kind, rolled=dict(before.rolled) if before is not None else {})
            self._cadences.append(found)
        if before is not None:
            before.views.remove(view)
        found.views.append(view)
        return found

    def _whole_until(self, cadence: _Cadence, period: int, last: int) -> int:
        """Return the end of the rollups that are whole: `last`, or less what a crash cut off."""
        span = _span_seconds(period)
        first = (last - 1) // span * span
        values = {"period": period, "first": first, "last": last, "views": cadence.names}
        counts = self._db.rows(COUNT_ROLLED, values)[0]
        # More than the ticks say is whole too: retention drops ticks and keeps rollups.
        if int(counts["there"]) >= int(counts["wanted"]):
            return last
        self._db.run(DELETE_ROLLED, values)
        self._mended.array[0] += 1
        self._context.log.warning("history_rollup_mended period=%d until=%d", period, last)
        return first

    def tick(self, closed_ns: int, batches: Sequence[Batch], *, sequence: int = 0) -> None:
        """Take what closed at one time. What is stored already is passed over; nothing is written yet.

        `sequence` is that of the journal block: read again from `gathers_from` on, all is as it was.
        """
        if closed_ns // GATHER_NS > self._span:  # results may be late: they gather nothing
            self._seal()
            self._span, self._pieces, self.gathers_from = closed_ns // GATHER_NS, 0, 0
        places: dict[str, int] = {}
        for batch in batches:
            table = BESIDE.get(batch.schema.name)
            if table is None or not batch.rows:
                continue
            for start in range(0, batch.rows, ROWS_PER_INSERT):
                part = batch.slice(start, min(start + ROWS_PER_INSERT, batch.rows))
                if table in GATHERED:
                    self._gather(table, _columns(part), sequence)
                    continue
                place = places[table] = places.get(table, 0) + 1
                self._rows_beside.append((table, f"{table}-{closed_ns}-{place}", _columns(part)))
                self.waiting_rows += part.rows
        mend = self._newest_in_doubt and closed_ns == self.high_water_ns
        if closed_ns <= self.high_water_ns and not mend:
            return
        days: dict[int, _Tick] = {}  # a slow view's tick may have ended on the day before
        for batch in batches:
            if batch.schema.name == "frame" and batch.rows:
                day = (_end_of(batch) - 1) // DAY_NS
                self._frame(days.setdefault(day, _Tick(closed_ns, day, mend=mend)), batch)
        for _, made in sorted(days.items()):
            self._ticks.append(made)
            self.waiting_rows += made.rows

    def _gather(self, table: str, columns: dict[str, Any], sequence: int) -> None:
        rows = sum(_count(part) for part in self._gathered[table])
        if rows + _count(columns) > ROWS_PER_INSERT:
            self._seal()
        self._gathered[table].append(columns)
        self.gathers_from = self.gathers_from or sequence

    def _seal(self) -> None:
        """Let what was gathered go in as one insert a table."""
        for table, parts in self._gathered.items():
            if parts:
                columns = {
                    name: np.concatenate([part[name] for part in parts])
                    if isinstance(first, np.ndarray)
                    else [text for part in parts for text in part[name]]
                    for name, first in parts[0].items()
                }
                token = f"{table}-{self._span}-{self._pieces}"
                self._rows_beside.append((table, token, columns))
                self.waiting_rows += _count(columns)
                parts.clear()
        self._pieces += 1

    def flush(self) -> None:
        """Insert what waits, then roll up every bucket that is over. Raises TransientError."""
        while self._rows_beside:
            table, token, columns = self._rows_beside[0]
            self._db.insert(table, columns, token=token)
            self._rows_beside.popleft()
            self.waiting_rows -= _count(columns)
            self._rows.add(table, _count(columns))
        while self._ticks:
            # A group that was refused is tried again as it was: its token stands for these rows.
            self._group = self._group or self._whole_ticks()
            self._insert(self._group)
        self._roll_up()

    def _whole_ticks(self) -> list[_Tick]:
        """Return the next ticks that fit one insert: of one day, at most 100,000 rows, or one tick."""
        first = self._ticks[0]
        group, rows = [first], first.rows
        for following in list(self._ticks)[1:]:
            if first.mend or following.day != first.day or rows + following.rows > ROWS_PER_INSERT:
                break
            group.append(following)
            rows += following.rows
        return group

    def _insert(self, group: list[_Tick]) -> None:
        if group[0].mend and not self._must_write_again(group[0]):
            self._done(group)
            return
        columns = {
            name: np.concatenate([part for tick in group for part in tick.columns[name]])
            for name in group[0].columns
        }
        rows = sum(tick.rows for tick in group)
        for start in range(0, rows, ROWS_PER_INSERT):
            self._db.insert(
                "frames",
                {name: column[start : start + ROWS_PER_INSERT] for name, column in columns.items()},
                token=f"frames-{group[0].closed_ns}-{group[-1].closed_ns}-{group[0].day}-{rows}-{start}"
                f"-{self._run}",
                words={"view": self._views, "measure": self._measures},
            )
        self._rows.add("frames", rows)
        self._done(group)

    def _done(self, group: list[_Tick]) -> None:
        for tick in group:
            self._ticks.popleft()
            self.waiting_rows -= tick.rows
        self._group = []
        self.high_water_ns = group[-1].closed_ns
        self._newest_in_doubt = False

    def _must_write_again(self, tick: _Tick) -> bool:
        """Return whether the newest tick of the last run is not whole, and clear it away then."""
        values = {"tick": tick.closed_ns, "day": tick.day}
        if int(self._db.rows(COUNT_TICK, values)[0]["rows"]) == tick.rows:
            return False
        self._db.run(DELETE_TICK, values)
        self._run += "x"  # the tokens of the rows just deleted are spent
        self._mended.array[0] += 1
        self._context.log.warning("history_tick_mended closed_ns=%d", tick.closed_ns)
        return True

    def _frame(self, made: _Tick, frame: Batch) -> None:
        """Add a frame's rows in long form: one row a series and measure."""
        view = _place(self._views, frame.text("view", 0))
        n, end_ns = frame.rows, _end_of(frame)
        seconds = frame["tick_seconds"].astype(np.float64)
        cadence = self._cadence(
            self._views[view], float(seconds[0]), max(frame.frontier_ns - end_ns, 0)
        )
        if not cadence.rolled:
            _roll_from(cadence, end_ns)
        names = frame.schema.by_name
        zeros = np.zeros(n, np.float32)
        for name in names:
            if name in NO_MEASURES or name.endswith(SCORE_ENDINGS):
                continue
            value = frame[name].astype(np.float64)
            columns = {
                "tick_end_ns": np.full(n, end_ns, np.int64),
                "closed_ns": np.full(n, made.closed_ns, np.int64),
                "tick_seconds": frame["tick_seconds"],
                "view": np.full(n, view, np.uint16),
                "measure": np.full(n, _place(self._measures, name), np.uint16),
                "series_id": frame["series_id"],
                "value": value if name.startswith(ABSOLUTE) else value / seconds,
                **{
                    score: frame[f"{name}_{score}"] if f"{name}_{score}" in names else zeros
                    for score in SCORES
                },
                "flags": frame["flags"],
                "lost_share": frame["lost_share"],
            }
            known = ~np.isnan(value)  # a gauge that said nothing has no row
            if not known.all():
                columns = {label: column[known] for label, column in columns.items()}
            for label, column in columns.items():
                made.columns.setdefault(label, []).append(column)
            made.rows += len(columns["value"])

    def _roll_up(self) -> None:
        """Build every bucket that is over. A bucket of 60 s that ends at s is over at the tick s."""
        for cadence in self._cadences:
            done_s = (self.high_water_ns - cadence.lateness_ns) // SECOND_NS
            for period, first in sorted(cadence.rolled.items()):
                if period < cadence.tick_seconds or period == cadence.tick_seconds == PERIODS[0]:
                    continue  # it would hold the ticks once more
                for start, end in _spans(first, done_s // period * period, period):
                    self._roll_span(cadence, period, start, end)
                    cadence.rolled[period] = end

    def _roll_span(self, cadence: _Cadence, period: int, first: int, last: int) -> None:
        span = {"first": first, "last": last, "views": cadence.names}
        rows = int(self._db.rows(COUNT_SPAN, span)[0]["rows"])
        if not rows:
            return
        pieces = -(-rows // ROLLUP_ROWS_READ)
        for piece in range(pieces):
            self._db.insert_rows_of(
                "rollups",
                ROLL_UP,
                {"period": period, **span, "pieces": pieces, "piece": piece},
                token=f"rollups-{cadence.tick_seconds:g}-{cadence.lateness_ns}-{period}-{first}-{last}"
                f"-{piece}of{pieces}-{self._run}",
            )
        self._buckets.add(str(period), (last - first) // period)


def _roll_from(cadence: _Cadence, tick_end_ns: int) -> None:
    """Begin rollups at the first tick there is."""
    first_s = (tick_end_ns - 1) // SECOND_NS
    for period in PERIODS:
        cadence.rolled.setdefault(period, first_s // period * period)


def _end_of(frame: Batch) -> int:
    return int(frame["tick_start_ns"][0]) + round(float(frame["tick_seconds"][0]) * 1e9)


def _spans(first: int, last: int, period: int) -> Iterator[tuple[int, int]]:
    """Cut [first, last) into spans of whole buckets that one statement may build.

    A span holds one bucket or an hour, and stays within one day and so within one partition.
    """
    span = _span_seconds(period)
    while first < last:
        end = min(first // span * span + span, last)
        yield first, end
        first = end


def _span_seconds(period: int) -> int:
    return max(period, ROLLUP_SPAN_SECONDS)


def _columns(batch: Batch) -> dict[str, Any]:
    """Return a batch as a table has it: texts as texts, the two halves of an address as one."""
    columns: dict[str, Any] = {}
    names = batch.schema.by_name
    for spec in batch.schema.fields:
        stem, _, half = spec.name.rpartition("_")
        if half == "low" and f"{stem}_high" in names:
            halves = np.stack([batch[f"{stem}_high"], batch[spec.name]], axis=1)
            columns[stem] = halves.astype(">u8").view("V16").reshape(-1)
        elif half != "high" or f"{stem}_low" not in names:
            columns[spec.name] = (
                batch[spec.name] if spec.kind is Kind.PLAIN else batch.texts(spec.name)
            )
    return columns


def _count(columns: dict[str, Any]) -> int:
    return len(next(iter(columns.values())))


def _place(words: list[str], word: str) -> int:
    """Return the place of a word in a growing list."""
    if word not in words:
        words.append(word)
    return words.index(word)
