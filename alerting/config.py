"""Settings of alerting: alarm life, sinks and their delivery."""

from typing import Any, Literal

import msgspec

from runtime.settings import PositiveFloat, PositiveInt, Settings


class SinkSettings(Settings, frozen=True, kw_only=True):
    """`[alerting.sinks.<name>]`"""

    kind: str  # "webhook", "pagerduty", "snmp", ... (docs/sinks.md has all), or a plug-in's
    url: str = ""  # where to: https://..., smtp://..., tcp://host:port
    path: str = ""  # file
    token_file: str = ""  # its content is sent as a bearer token
    user: str = ""  # with the password in `password_file`, where the other side wants both
    password_file: str = ""
    ca_file: str = ""  # trusted instead of the system's authorities
    certificate_file: str = ""  # ours, with its key in `key_file`, where the other side wants one
    key_file: str = ""
    mode: Literal["structured", "batch"] = "structured"  # webhook: CloudEvents one by one or many
    template: str = ""  # webhook: "slack", "teams", "jira", or the path of one of your own
    send: Literal["alarms", "incidents"] = "alarms"  # each alarm, or one alert for each incident
    least_severity: Literal["critical", "major", "minor", "warning"] = "warning"
    kinds: tuple[str, ...] = ()  # alarm kinds; empty = all
    timeout_seconds: PositiveFloat = 5.0
    options: dict[str, Any] = {}  # a plug-in's own settings


class AlertingSettings(Settings, frozen=True, kw_only=True):
    """`[alerting]`"""

    clear_ticks: PositiveInt = 3  # quiet ticks before an alarm clears
    confirm_ticks: PositiveInt = 2  # ticks a scan or an attack must last
    deviation_ticks: PositiveInt = 6  # ticks an unexplained deviation must last
    deviation_ratio: PositiveFloat = 2.5  # and by how much: smaller ones stay in the digest
    reopen_seconds: PositiveFloat = 900.0  # a re-raise within this time is the same occurrence
    flap_changes: PositiveInt = 6  # so many raises within flap_seconds: the alarm flaps
    flap_seconds: PositiveFloat = 3600.0
    update_seconds: PositiveFloat = (
        60.0  # growth is told at most so often; a worse severity at once
    )
    aftermath_seconds: PositiveFloat = 300.0  # deviations so soon after a fault belong to it
    alarms_max: PositiveInt = 10_000
    retry_seconds_first: PositiveFloat = 1.0
    retry_seconds_max: PositiveFloat = 300.0
    attempts_max: PositiveInt = 50
    waiting_max: PositiveInt = 10_000  # deliveries of one sink; the oldest are given up beyond it
    sinks: dict[str, SinkSettings] = msgspec.field(default_factory=dict)
