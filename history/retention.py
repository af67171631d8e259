"""What goes when: by age, and beyond the disk budget in a stated order.

Order of eviction beyond `disk_bytes_max`: raw flow records, hour by hour, but never the newest hour;
logs and routes, day by day, but never the newest day; the oldest day of ticks and findings, day by
day, but never the newest day; then the oldest month of 1-minute rollups, then of 15-minute rollups.
Hourly and daily rollups, alarms, incidents and the series dictionary are never dropped for room.
"""

from dataclasses import dataclass

import numpy as np

from history.config import HistorySettings
from history.store import Connection

PARTS = (
    "select table, partition, sum(bytes_on_disk) as size from system.parts"
    " where database = currentDatabase() and active group by table, partition order by table, partition"
)
DAILY = ("frames", "anomalies")
EVENTS = ("logs", "routes")


@dataclass(frozen=True, slots=True)
class _Part:
    table: str
    partition: str
    size: int
    last_day: int  # days since 1970 of its newest possible row
    period: int = 0  # of rollups


class Retention:
    """Drops partitions. Used from the writer's thread."""

    def __init__(self, connection: Connection, settings: HistorySettings) -> None:
        self._db = connection
        self._settings = settings

    def trim(self, now_ns: int) -> list[str]:
        """Drop what is over its age, then what is over the budget; return what was dropped."""
        today = now_ns // 10**9 // 86_400
        parts = [_part(row) for row in self._db.rows(PARTS)]
        total = sum(part.size for part in parts)
        gone = [part for part in parts if today - part.last_day > self._days(part)]
        total -= sum(part.size for part in gone)
        for part in self._order([part for part in parts if part not in gone]):
            if total <= self._settings.disk_bytes_max:
                break
            gone.append(part)
            total -= part.size
        for part in gone:
            self._db.run(f"alter table {part.table} drop partition {part.partition}")
        return [f"{part.table} {part.partition}" for part in gone]

    def _days(self, part: _Part) -> int:
        if part.table in DAILY:
            return self._settings.frames_days
        if part.table == "flows":
            return self._settings.flows_days
        if part.table in EVENTS:
            return self._settings.logs_days if part.table == "logs" else self._settings.routes_days
        if part.table == "rollups":
            return (
                self._settings.rollup_minute_days
                if part.period == 60
                else self._settings.rollup_days
            )
        return self._settings.alarms_days if part.table == "alarms" else 1 << 30

    def _order(self, parts: list[_Part]) -> list[_Part]:
        hours = sorted((p for p in parts if p.table == "flows"), key=lambda p: int(p.partition))
        events = [part for part in parts if part.table in EVENTS]
        return [
            *hours[:-1],
            *_old_days(events),
            *_old_days([part for part in parts if part.table in DAILY]),
            *sorted(
                (part for part in parts if part.period in (60, 900)),
                key=lambda part: (part.period, part.last_day),
            ),
        ]


def _part(row: dict[str, object]) -> _Part:
    table, partition, size = str(row["table"]), str(row["partition"]), int(str(row["size"]))
    if table in DAILY + EVENTS:  # '2026-11-24'
        day = int(np.datetime64(partition.strip("'"), "D").astype(int))
        return _Part(table, f"'{partition.strip(chr(39))}'", size, day)
    if table == "flows":  # hours since 1970
        return _Part(table, partition, size, int(partition) // 24)
    if table == "rollups":  # (60,202611)
        period, month = (int(part) for part in partition.strip("()").split(","))
        return _Part(table, f"({period},{month})", size, _last_day(month), period)
    if table == "alarms":  # 202611
        return _Part(table, partition, size, _last_day(int(partition)))
    return _Part(table, partition, size, 1 << 40)


def _old_days(parts: list[_Part]) -> list[_Part]:
    """Return all but the newest day, the oldest first."""
    newest = max((part.last_day for part in parts), default=0)
    old = (part for part in parts if part.last_day < newest)
    return sorted(old, key=lambda part: (part.last_day, part.table))


def _last_day(month: int) -> int:
    """Return the last day, in days since 1970, of a month written as 202611."""
    year, number = divmod(month, 100)
    first = np.datetime64(f"{year:04d}-{number:02d}", "M")
    return int((first + 1).astype("datetime64[D]").astype(int)) - 1
