"""Settings of the history."""

from runtime.settings import PositiveInt, Settings


class HistorySettings(Settings, frozen=True, kw_only=True):
    """`[history]`"""

    memory_bytes_max: PositiveInt = 400 * 1024**2  # of the embedded engine
    frames_days: PositiveInt = 7  # ticks as they closed
    rollup_minute_days: PositiveInt = 35  # minutes of series
    rollup_days: PositiveInt = 400  # 15 minutes and longer
    alarms_days: PositiveInt = 400  # every change of every alarm and incident
    logs_days: PositiveInt = 14  # lines with their patterns
    routes_days: PositiveInt = 14  # what BGP peers told
    flows: bool = False  # raw flow records as well
    flows_rows_per_second_max: PositiveInt = 5_000  # beyond, whole conversations are left out
    flows_days: PositiveInt = 3  # raw flow records
    flows_waiting_bytes_max: PositiveInt = 256 * 1024**2  # on their way; beyond, the oldest go
    disk_bytes_max: PositiveInt = 20 * 1024**3  # beyond: raw flows go first, then logs, then ticks
    query_seconds_max: PositiveInt = 20  # a query that takes longer is ended
    query_rows_max: PositiveInt = 100_000  # an answer ends there, and says so
