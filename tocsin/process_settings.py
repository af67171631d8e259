"""What the supervisor and the gate read of the configuration, without what checking it all takes.

Checking the whole imports every collector and detector, and numpy with them. So it is done once, by
`tocsin run`, which hands this part on in its environment.
"""

import os
from typing import Annotated, Literal

import msgspec

from alerting.config import AlertingSettings
from collectors.sources import SourceSettings
from runtime.settings import NotNegativeInt, PositiveInt, PositiveSeconds, Settings

ENVIRONMENT = "TOCSIN_PROCESS_SETTINGS"

Workers = Annotated[int, msgspec.Meta(ge=1, le=256)]


class NodeSettings(Settings, frozen=True, kw_only=True):
    """`[node]`"""

    # What runs, and how much of it: docs/architecture.md.
    profile: Literal["sensor", "site", "core"] = "site"
    state_dir: str = ""  # default: TOCSIN_STATE_DIR, /var/lib/tocsin, ~/.local/state/tocsin
    # of everything that is drawn at random: same input, same seed, same alerts
    seed: NotNegativeInt = 0
    workers: Workers = 1  # processes that receive and decode; an exporter is always on one
    # The least that is written to the log.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # of disk; beyond it the oldest segments go, whenever one ends: by one segment it may be more
    journal_bytes_max: PositiveInt = 2 * 1024**3
    # A segment is closed at this size, or at the age that follows.
    journal_segment_bytes: PositiveInt = 64 * 1024**2
    journal_segment_seconds: PositiveSeconds = 600.0  # of a segment
    checkpoint_seconds: PositiveSeconds = 600.0  # a restart replays at most about so much
    # The newest raw datagrams are kept in so much, for bug reports; 0 = none.
    raw_ring_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 64 * 1024**2


class ApiSettings(Settings, frozen=True, kw_only=True):
    """`[api]`"""

    # the console and the REST API; 128 requests at a time, 96 of one address
    listen: str = "127.0.0.1:8470"
    sql_listen: str = "127.0.0.1:8123"  # the SQL door, ClickHouse's HTTP interface; "" = none
    token_file: str = ""  # one token a line; needed to listen on anything but loopback
    # Profile sensor: the gate serves metrics and health; "" = none.
    metrics_listen: str = "127.0.0.1:8470"


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of a checked `tocsin.config.Config` that all processes read."""

    node: NodeSettings
    alerting: AlertingSettings
    api: ApiSettings
    sources: dict[str, SourceSettings] = {}

    def environment(self) -> dict[str, str]:
        """Return what to add to a child's environment; it is readable by this user alone."""
        return {ENVIRONMENT: msgspec.json.encode(self).decode()}

    @classmethod
    def handed_on(cls) -> "ProcessSettings | None":
        """Return what the supervisor put into this process's environment."""
        handed = os.environ.get(ENVIRONMENT)
        return msgspec.json.decode(handed, type=cls) if handed else None
