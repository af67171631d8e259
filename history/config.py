"""Settings of the history."""

from runtime.settings import PositiveInt, Settings


class HistorySettings(Settings, frozen=True, kw_only=True):
    """`[history]`"""

    memory_bytes_max: PositiveInt = 400 * 1024**2  # of the embedded engine
    frames_days: PositiveInt = 7  # ticks as they closed
    rollup_minute_days: PositiveInt = 35
    rollup_days: PositiveInt = 400  # 15 minutes and longer
    alarms_days: PositiveInt = 400
    disk_bytes_max: PositiveInt = 20 * 1024**3  # beyond it the oldest days of ticks go first
    query_seconds_max: PositiveInt = 20
    query_rows_max: PositiveInt = 100_000
