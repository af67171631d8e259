"""Settings of the history."""

from typing import Annotated, Literal

import msgspec

from runtime.settings import Port, PositiveInt, PositiveSeconds, Settings

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Server = Annotated[str, msgspec.Meta(pattern=r"^[^\s,/@]+:[0-9]+$")]


class ServerSettings(Settings, frozen=True, kw_only=True):
    """`[history.clickhouse]`: the servers of `store = "clickhouse"`"""

    # host:port of the native protocol; the first that answers is taken
    servers: Annotated[tuple[Server, ...], msgspec.Meta(min_length=1)] = ("127.0.0.1:9000",)
    # As the servers name it: tables are replicated; needed for several servers.
    cluster: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    database: Name = "tocsin"  # made where it is not there
    user: str = "default"  # docs/install.md has what it must be granted
    password_file: str = ""  # its content is the password
    tls: bool = False  # the servers' ports are then 9440 and 8443, as a rule
    ca_file: str = ""  # trusted instead of the system's authorities
    compression: Literal["lz4", "none"] = "lz4"  # of blocks on the way, in both directions
    http_port: Port = 0  # makes the formats of SQL clients; 0 = 8123, with tls 8443
    # A server that takes longer is away; the next one is asked.
    connect_seconds: PositiveSeconds = 5.0
    # Silent for longer: the statement is given up, and tried again.
    answer_seconds: PositiveSeconds = 60.0


class HistorySettings(Settings, frozen=True, kw_only=True):
    """`[history]`"""

    store: Literal["chdb", "clickhouse"] = "chdb"  # in our own process, or on servers
    clickhouse: ServerSettings = ServerSettings()
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
