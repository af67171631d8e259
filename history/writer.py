"""The writer: journal blocks become rows, each tick exactly once, rollups from closed ticks.

Ticks go in order and each insert is one block, so after a crash the newest tick in the table says
where to go on; within a run a retried insert carries the same token. Rollups are built here and not
by materialized views, which double on a retried insert.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from history.config import HistorySettings
from history.store import DATABASE, Connection
from runtime.component import Context
from telemetry.batch import Batch

ROWS_PER_INSERT = 100_000
PERIODS = (60, 900, 3600, 86_400)
ABSOLUTE = ("distinct", "entropy", "octets_min", "octets_max", "octets_mean", "octets_m2")


class HistoryWriter:
    """Writes ticks and what came of them. Used from one thread."""

    def __init__(self, connection: Connection, settings: HistorySettings, context: Context) -> None:
        self._db = connection
        self._settings = settings
        self._context = context
        self._waiting: list[dict[str, Any]] = []
        self._waiting_rows = 0
        self._first_end_ns = 0
        self._last_end_ns = 0
        self._rolled: dict[int, int] = {}  # period → start of the first bucket not rolled up
        self._views: list[str] = []
        self._measures: list[str] = []
        self.high_water_ns = 0
        self._rows = context.metrics.counter(
            "history_rows_total", "rows written", label="table",
            values=("frames", "rollups", "series", "alarms", "incidents", "anomalies"),
        )  # fmt: skip

    def start(self) -> None:
        """Find out what is already there."""
        found = self._db.rows(f"select max(tick_end_ns) as n from {DATABASE}.frames")
        self.high_water_ns = int(found[0]["n"]) if found else 0
        self._last_end_ns = self.high_water_ns
        for row in self._db.rows(
            f"select period, max(bucket) as b from {DATABASE}.rollups group by period"
        ):
            self._rolled[int(row["period"])] = int(row["b"]) + int(row["period"])
        found = self._db.rows(
            f"select min(tick_end_ns) as first, count() as n from {DATABASE}.frames"
        )
        if found and int(found[0]["n"]):
            self._roll_from(int(found[0]["first"]))

    def _roll_from(self, tick_end_ns: int) -> None:
        """Begin rollups at the first tick there is."""
        first_s = (tick_end_ns - 1) // 10**9
        for period in PERIODS:
            self._rolled.setdefault(period, first_s // period * period)

    def tick(self, tick_end_ns: int, batches: Sequence[Batch]) -> None:
        """Take one closed tick; what was stored before is passed over."""
        for batch in batches:
            self._rare(batch)
        if tick_end_ns <= self.high_water_ns:
            return
        for batch in batches:
            if batch.schema.name == "frame":
                self._frame(tick_end_ns, batch)
        self._first_end_ns = self._first_end_ns or tick_end_ns
        self._last_end_ns = tick_end_ns

    @property
    def waiting_rows(self) -> int:
        """Rows taken and not yet inserted."""
        return self._waiting_rows

    def flush(self) -> None:
        """Insert what waits, and roll up every bucket that is over. Raises TransientError."""
        if self._waiting:
            columns = {
                name: np.concatenate([part[name] for part in self._waiting])
                for name in self._waiting[0]
            }
            self._db.insert(
                f"{DATABASE}.frames",
                columns,
                token=f"frames-{self._first_end_ns}-{self._last_end_ns}-{self._waiting_rows}",
                words={"view": self._views, "measure": self._measures},
            )
            self._rows.add("frames", self._waiting_rows)
            self._waiting, self._waiting_rows, self._first_end_ns = [], 0, 0
            self.high_water_ns = self._last_end_ns
        self._roll_up()

    def _frame(self, tick_end_ns: int, frame: Batch) -> None:
        view = frame.texts("view")[0]
        n = frame.rows
        seconds = float(frame["tick_seconds"][0])
        names = frame.schema.by_name
        skip = {"tick_start_ns", "tick_seconds", "view", "series_id", "row", "flags", "lost_share",
                "moved_share"}  # fmt: skip
        endings = ("_expected", "_lower", "_upper", "_score", "_p_value")
        if not self._rolled:
            self._roll_from(tick_end_ns)
        for name in names:
            if name in skip or name.endswith(endings):
                continue
            absolute = name.startswith(ABSOLUTE)
            value = frame[name].astype(np.float64)
            zeros = np.zeros(n, np.float32)
            scored = f"{name}_score" in names
            self._waiting.append(
                {
                    "tick_end_ns": np.full(n, tick_end_ns, np.int64),
                    "tick_seconds": np.full(n, seconds, np.float32),
                    "view": np.full(n, _place(self._views, view), np.uint16),
                    "measure": np.full(n, _place(self._measures, name), np.uint16),
                    "series_id": frame["series_id"],
                    "value": value if absolute else value / seconds,
                    "expected": frame[f"{name}_expected"] if scored else zeros,
                    "lower": frame[f"{name}_lower"] if scored else zeros,
                    "upper": frame[f"{name}_upper"] if scored else zeros,
                    "score": frame[f"{name}_score"] if scored else zeros,
                    "flags": frame["flags"],
                    "lost_share": frame["lost_share"],
                }
            )
            self._waiting_rows += n

    def _rare(self, batch: Batch) -> None:
        """Series, alarms, incidents, anomalies: tables that take the same row twice as one."""
        table = {
            "series": "series",
            "alarm": "alarms",
            "incident": "incidents",
            "anomaly": "anomalies",
        }
        name = table.get(batch.schema.name)
        if name is None or not batch.rows:
            return
        columns: dict[str, Any] = {}
        for spec in batch.schema.fields:
            text = spec.kind != "plain"
            columns[spec.name] = batch.texts(spec.name) if text else batch[spec.name]
        self._db.insert(f"{DATABASE}.{name}", columns, token="")
        self._rows.add(name, batch.rows)

    def _roll_up(self) -> None:
        """Add every bucket that is over, all views at once; an empty bucket costs nothing."""
        done_s = self._last_end_ns // 10**9
        for period in PERIODS:
            first = self._rolled.get(period, 0)
            last = done_s // period * period
            if not first or last <= first:
                continue
            self._db.run(
                f"insert into {DATABASE}.rollups"
                f" settings insert_deduplication_token = 'rollups-{period}-{first}-{last}-0'"
                " select {period:UInt32}, intDiv(tick_end_ns - 1, 1000000000 * {period:Int64})"
                " * {period:Int64} as b, view, measure, series_id, count(), sum(value),"
                " sum(value * value), min(value), max(value), argMax(value, tick_end_ns),"
                f" quantileExact(0.95)(value), 0 from {DATABASE}.frames"
                " where tick_end_ns > {first:Int64} * 1000000000"
                " and tick_end_ns <= {last:Int64} * 1000000000"
                " group by b, view, measure, series_id",
                {"period": period, "first": first, "last": last},
            )
            self._rolled[period] = last
            self._rows.add("rollups", (last - first) // period)

    def trim(self, now_ns: int) -> list[str]:
        """Drop days beyond their time, then beyond the disk budget; return what was dropped."""
        dropped = []
        day = 86_400
        oldest = now_ns // 10**9 // day - self._settings.frames_days
        rows = self._db.rows(
            "select table, partition, sum(bytes_on_disk) as size, any(active) as a from system.parts"
            f" where database = '{DATABASE}' and active group by table, partition order by partition"
        )
        total = sum(int(row["size"]) for row in rows)
        for row in rows:
            if row["table"] not in ("frames", "anomalies"):
                continue
            number = int(np.datetime64(row["partition"].strip("'"), "D").astype(int))
            over = total > self._settings.disk_bytes_max
            if number < oldest or over:
                self._db.run(
                    f"alter table {DATABASE}.{row['table']} drop partition '{row['partition']}'"
                )
                total -= int(row["size"])
                dropped.append(f"{row['table']} {row['partition']}")
        return dropped


def _place(words: list[str], word: str) -> int:
    """Return the place of a word in a growing list."""
    if word not in words:
        words.append(word)
    return words.index(word)
