"""The writer: journal blocks become rows, each tick exactly once, rollups from closed ticks.

How once is once. Ticks go in order. One insert holds whole ticks of one day (one part, which the engine
adds whole or not at all) or, where a tick is larger than an insert, a piece of one tick. So after a
crash at most the newest tick can be there in part: `start` looks at it, and `tick` writes it again
where its rows do not add up. Within a run a retried insert carries the same token, which the engine
knows. Rollups go the same way: only the newest buckets of a period can be incomplete. They are built
here and not by materialized views, which double on a retried insert.

Everything is kept until its insert succeeded: a `flush` that raised may simply be called again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from history.store import DATABASE, Connection
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.schema import Kind

ROWS_PER_INSERT = 100_000  # blocks of a million rows cost 300 MB of memory
PERIODS = (60, 900, 3600, 86_400)
DAY_NS = 86_400 * 10**9
SECOND_NS = 10**9

# Measures that are no totals: the others are stored as rates a second.
ABSOLUTE = ("distinct", "entropy", "octets_min", "octets_max", "octets_mean", "octets_m2")
SCORES = ("expected", "lower", "upper", "score")
NO_MEASURES = frozenset(
    ("tick_start_ns", "tick_seconds", "view", "series_id", "row", "flags", "lost_share", "moved_share")
)  # fmt: skip
SCORE_ENDINGS = ("_expected", "_lower", "_upper", "_score", "_p_value")

# Tables of rare rows by schema; each tick's rows are one insert under the tick's token.
RARE = {"series": "series", "alarm": "alarms", "incident": "incidents", "anomaly": "anomalies"}

# What one rollup statement may look at and make: its memory follows from these.
ROLLUP_ROWS_READ = 1_000_000
ROLLUP_SPAN_SECONDS = 3_600

WHAT_IS_THERE = (
    "select max(tick_end_ns) as newest, min(tick_end_ns) as oldest, count() as rows,"
    f" max(tick_seconds) as tick_seconds from {DATABASE}.frames"
)
COUNT_TICK = f"select count() as rows from {DATABASE}.frames where tick_end_ns = {{tick:Int64}}"
DELETE_TICK = (
    f"alter table {DATABASE}.frames delete where tick_end_ns = {{tick:Int64}}"
    " settings mutations_sync = 2"
)
NEWEST_BUCKETS = f"select period, max(bucket) as bucket from {DATABASE}.rollups group by period"
COUNT_SPAN = (
    f"select count() as rows from {DATABASE}.frames"
    " where tick_end_ns > {first:Int64} * 1000000000 and tick_end_ns <= {last:Int64} * 1000000000"
)
COUNT_ROLLED = (
    f"select (select count() from {DATABASE}.rollups where period = {{period:UInt32}}"
    "  and bucket >= {first:Int64} and bucket < {last:Int64}) as there,"
    " (select count() from (select distinct intDiv(tick_end_ns - 1, 1000000000 * {period:Int64}),"
    f"  view, measure, series_id from {DATABASE}.frames"
    "  where tick_end_ns > {first:Int64} * 1000000000"
    "  and tick_end_ns <= {last:Int64} * 1000000000)) as wanted"
)
DELETE_ROLLED = (
    f"alter table {DATABASE}.rollups delete where period = {{period:UInt32}}"
    " and bucket >= {first:Int64} and bucket < {last:Int64} settings mutations_sync = 2"
)
ROLL_UP = (
    " select {period:UInt32}, intDiv(tick_end_ns - 1, 1000000000 * {period:Int64})"
    " * {period:Int64} as bucket_start, view, measure, series_id, count(), sum(value),"
    " sum(value * value), min(value), max(value), argMax(value, tick_end_ns),"
    f" quantileExact(0.95)(value), 0 from {DATABASE}.frames"
    " where tick_end_ns > {first:Int64} * 1000000000 and tick_end_ns <= {last:Int64} * 1000000000"
    " and series_id % {pieces:UInt64} = {piece:UInt64}"
    " group by view, measure, series_id, bucket_start"
)


@dataclass(slots=True)
class _Tick:
    """The rows of one tick, ready to insert."""

    end_ns: int
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
        self._rare: deque[tuple[str, str, dict[str, Any]]] = deque()  # table, token, columns
        self._rolled: dict[int, int] = {}  # period → start of the first bucket not rolled up
        self._views: list[str] = []
        self._measures: list[str] = []
        self._run = ""
        self._newest_in_doubt = False
        self._tick_seconds = 0.0
        self.waiting_rows = 0
        self.high_water_ns = 0
        self._rows = context.metrics.counter(
            "history_rows_total",
            "rows written",
            label="table",
            values=("frames", "series", "alarms", "incidents", "anomalies"),
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
        """Find out what is already there, and take away rollups that were cut off."""
        # Tokens of an earlier run must not swallow the rows that mend it.
        self._run = f"{self._context.clock.now_ns():x}"
        found = self._db.rows(WHAT_IS_THERE)[0]
        if not int(found["rows"]):
            return
        self.high_water_ns = int(found["newest"])
        self._tick_seconds = float(found["tick_seconds"])
        self._newest_in_doubt = True
        self._roll_from(int(found["oldest"]))
        for row in self._db.rows(NEWEST_BUCKETS):
            period = int(row["period"])
            self._rolled[period] = self._whole_until(period, int(row["bucket"]) + period)

    def _whole_until(self, period: int, last: int) -> int:
        """Return the end of the rollups that are whole: `last`, or less what a crash cut off."""
        span = _span_seconds(period)
        values = {"period": period, "first": (last - 1) // span * span, "last": last}
        counts = self._db.rows(COUNT_ROLLED, values)[0]
        # More than the ticks say is whole too: retention drops ticks and keeps rollups.
        if int(counts["there"]) >= int(counts["wanted"]):
            return last
        self._db.run(DELETE_ROLLED, values)
        self._mended.array[0] += 1
        self._context.log.warning("history_rollup_mended period=%d until=%d", period, last)
        return values["first"]

    def _roll_from(self, tick_end_ns: int) -> None:
        """Begin rollups at the first tick there is."""
        first_s = (tick_end_ns - 1) // SECOND_NS
        for period in PERIODS:
            self._rolled.setdefault(period, first_s // period * period)

    def tick(self, tick_end_ns: int, batches: Sequence[Batch]) -> None:
        """Take one closed tick. What is stored already is passed over; nothing is written yet."""
        for batch in batches:
            table = RARE.get(batch.schema.name)
            if table is not None and batch.rows:
                self._rare.append((table, f"{table}-{tick_end_ns}", _columns(batch)))
        mend = self._newest_in_doubt and tick_end_ns == self.high_water_ns
        if tick_end_ns <= self.high_water_ns and not mend:
            return
        made = _Tick(tick_end_ns, mend=mend)
        for batch in batches:
            if batch.schema.name == "frame" and batch.rows:
                self._frame(made, batch)
        if made.rows:
            if not self._rolled:
                self._roll_from(tick_end_ns)
            self._ticks.append(made)
            self.waiting_rows += made.rows

    def flush(self) -> None:
        """Insert what waits, then roll up every bucket that is over. Raises TransientError."""
        while self._rare:
            table, token, columns = self._rare[0]
            self._db.insert(f"{DATABASE}.{table}", columns, token=token)
            self._rare.popleft()
            self._rows.add(table, len(next(iter(columns.values()))))
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
            same_day = (following.end_ns - 1) // DAY_NS == (first.end_ns - 1) // DAY_NS
            if first.mend or not same_day or rows + following.rows > ROWS_PER_INSERT:
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
                f"{DATABASE}.frames",
                {name: column[start : start + ROWS_PER_INSERT] for name, column in columns.items()},
                token=f"frames-{group[0].end_ns}-{group[-1].end_ns}-{rows}-{start}-{self._run}",
                words={"view": self._views, "measure": self._measures},
            )
        self._rows.add("frames", rows)
        self._done(group)

    def _done(self, group: list[_Tick]) -> None:
        for tick in group:
            self._ticks.popleft()
            self.waiting_rows -= tick.rows
        self._group = []
        self.high_water_ns = group[-1].end_ns
        self._newest_in_doubt = False

    def _must_write_again(self, tick: _Tick) -> bool:
        """Return whether the newest tick of the last run is not whole, and clear it away then."""
        values = {"tick": tick.end_ns}
        if int(self._db.rows(COUNT_TICK, values)[0]["rows"]) == tick.rows:
            return False
        self._db.run(DELETE_TICK, values)
        self._run += "x"  # the tokens of the rows just deleted are spent
        self._mended.array[0] += 1
        self._context.log.warning("history_tick_mended tick_end_ns=%d", tick.end_ns)
        return True

    def _frame(self, made: _Tick, frame: Batch) -> None:
        """Add a frame's rows in long form: one row a series and measure."""
        view = _place(self._views, frame.texts("view")[0])
        n = frame.rows
        seconds = frame["tick_seconds"].astype(np.float64)
        self._tick_seconds = float(seconds[0])
        names = frame.schema.by_name
        zeros = np.zeros(n, np.float32)
        for name in names:
            if name in NO_MEASURES or name.endswith(SCORE_ENDINGS):
                continue
            value = frame[name].astype(np.float64)
            columns = {
                "tick_end_ns": np.full(n, made.end_ns, np.int64),
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
            for label, column in columns.items():
                made.columns.setdefault(label, []).append(column)
            made.rows += n

    def _roll_up(self) -> None:
        """Build every bucket that is over. A bucket of 60 s that ends at s is over at the tick s."""
        done_s = self.high_water_ns // SECOND_NS
        for period, first in sorted(self._rolled.items()):
            if period <= self._tick_seconds:  # it would hold the ticks once more
                continue
            for start, end in _spans(first, done_s // period * period, period):
                self._roll_span(period, start, end)
                self._rolled[period] = end

    def _roll_span(self, period: int, first: int, last: int) -> None:
        span = {"first": first, "last": last}
        rows = int(self._db.rows(COUNT_SPAN, span)[0]["rows"])
        if not rows:
            return
        pieces = -(-rows // ROLLUP_ROWS_READ)
        for piece in range(pieces):
            self._db.run(
                f"insert into {DATABASE}.rollups settings insert_deduplication_token ="
                f" 'rollups-{period}-{first}-{last}-{piece}of{pieces}-{self._run}'{ROLL_UP}",
                {"period": period, **span, "pieces": pieces, "piece": piece},
            )
        self._buckets.add(str(period), (last - first) // period)


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
    return {
        spec.name: batch[spec.name] if spec.kind is Kind.PLAIN else batch.texts(spec.name)
        for spec in batch.schema.fields
    }


def _place(words: list[str], word: str) -> int:
    """Return the place of a word in a growing list."""
    if word not in words:
        words.append(word)
    return words.index(word)
