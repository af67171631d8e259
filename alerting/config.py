"""Settings of alerting: alarm life, sinks and their delivery."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from runtime.settings import (
    Minutes,
    NotNegativeInt,
    PositiveFloat,
    PositiveHours,
    PositiveInt,
    PositiveSeconds,
    Seconds,
    Settings,
)

Severity = Literal["critical", "major", "minor", "warning", "indeterminate"]
_REALM = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,30}\.)?")  # in keys, labels and paths of others
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class SinkSettings(Settings, frozen=True, kw_only=True):
    """`[alerting.sinks.<name>]`"""

    kind: str  # "webhook", "pagerduty", "snmp", ... (docs/sinks.md has all), or a plug-in's
    url: str = ""  # where to: https://..., smtp://..., tcp://host:port
    path: str = ""  # kind "file": where to write; of actions: what is in force
    token_file: str = ""  # its content is sent as a bearer token
    user: str = ""  # with the password in `password_file`, where the other side wants both
    password_file: str = ""  # its content is the password of `user`
    ca_file: str = ""  # trusted instead of the system's authorities
    certificate_file: str = ""  # ours, with its key in `key_file`, where the other side wants one
    key_file: str = ""  # the key of certificate_file; empty = it is in there
    mode: Literal["structured", "batch"] = "structured"  # webhook: CloudEvents one by one or many
    template: str = ""  # webhook: "slack", "teams", "jira", or the path of one of your own
    send: Literal["incidents", "alarms"] = "incidents"  # one alert for each incident, or each alarm
    # less severe ones are not sent to it
    least_severity: Literal["critical", "major", "minor", "warning"] = "warning"
    kinds: tuple[str, ...] = ()  # alarm kinds; empty = all
    # what others know alarms by begins with it: where Tocsins that watch different networks tell one system
    realm: str = ""
    timeout_seconds: PositiveSeconds = 5.0  # an attempt that takes longer has failed
    # Raises told one by one, the rest in a summary; 0 = no limit.
    rate_per_minute: NotNegativeInt = 0
    approval: bool = False  # a raise waits until somebody approves it: `tocsin outbox approve`
    options: dict[str, Any] = {}  # the kind's own settings

    def __post_init__(self) -> None:
        """A realm stands where only plain words may."""
        if not _REALM.fullmatch(self.realm):
            raise ValueError(
                f"realm {self.realm!r} is no word of letters, digits, - and _ with a dot behind it,"
                ' such as "west."'
            )


class TimesSettings(Settings, frozen=True, kw_only=True):
    """`[alerting.times.<name>]`: hours of the week, for routes."""

    days: tuple[Day, ...] = ()  # empty = every day
    start: str = "00:00"  # of the day, local time
    end: str = "24:00"  # before `start`: past midnight
    zone: str = "UTC"  # whose local time: "Europe/Amsterdam"


class RouteSettings(Settings, frozen=True, kw_only=True):
    """`[alerting.routes.<name>]`: who is told of what. The first route that matches decides, and the
    first below it that matches decides better; `continue` lets those after it have a say too."""

    under: str = ""  # the route above; "" = a root
    severities: tuple[Severity, ...] = ()  # empty = any, as for all that follow
    kinds: tuple[str, ...] = ()  # with * and ?
    entities: tuple[str, ...] = ()  # of what it is about, with * and ?
    sources: tuple[str, ...] = ()  # of who raised it
    event_types: tuple[str, ...] = ()  # of X.733: "communicationsAlarm", "environmentalAlarm", ...
    times: tuple[str, ...] = ()  # names of [alerting.times]
    to: tuple[str, ...] = ()  # names of [alerting.sinks]; empty = those of the route above
    # true: the routes that follow are looked at as well
    goes_on: bool = msgspec.field(default=False, name="continue")
    # Not acknowledged for so long: `escalate_to` is told; 0 = never.
    escalate_minutes: Minutes = 0.0
    escalate_to: tuple[str, ...] = ()  # and then these sinks get it too
    group_by: tuple[str, ...] = ()  # told as one: "site", "node", "link", "owner", "kind", ...
    group_wait_seconds: Seconds = 30.0  # the first of a group waits so long for others
    group_interval_seconds: Seconds = 300.0  # between two tellings of a group that changes
    repeat_minutes: Minutes = 240.0  # a group that stays as it is is told again; 0 = never


class MaintenanceSettings(Settings, frozen=True, kw_only=True):
    """`[alerting.maintenance.<name>]`: planned work, once or every week."""

    start: str  # "02:00" with days, or one moment: "2026-12-01T02:00:00+01:00"
    minutes: PositiveInt  # how long it lasts
    days: tuple[Day, ...] = ()  # empty = once
    zone: str = "UTC"  # of a weekly start: "Europe/Amsterdam"
    sites: tuple[str, ...] = ()  # where: every node there,
    routers: tuple[str, ...] = ()  # these nodes,
    links: tuple[str, ...] = ()  # these links; names as in the network map
    kinds: tuple[str, ...] = ()  # alarm kinds; empty = all
    behind: bool = False  # also what loses its way to the core when this is down
    reason: str = ""  # told with each alarm that it keeps back


class RunbookSettings(Settings, frozen=True, kw_only=True):
    """`[alerting.runbooks.<name>]`: where it says what to do. The first that matches counts."""

    url: str  # may name ${kind}, ${entity}, ${severity}, ${source}
    kinds: tuple[str, ...] = ()  # with * and ?; empty = any, as for those that follow
    entities: tuple[str, ...] = ()  # of what the alarm is about
    sources: tuple[str, ...] = ()  # of who raised it: "tocsin", "netcool", ...


class AlertingSettings(Settings, frozen=True, kw_only=True):
    """`[alerting]`"""

    clear_ticks: PositiveInt = 3  # quiet ticks before an alarm clears
    confirm_ticks: PositiveInt = 2  # ticks a scan or an attack must last
    deviation_ticks: PositiveInt = 6  # ticks an unexplained deviation must last
    deviation_ratio: PositiveFloat = 2.5  # and by how much: smaller ones stay in the digest
    reopen_seconds: PositiveSeconds = 900.0  # a re-raise within this time is the same occurrence
    flap_changes: PositiveInt = 6  # so many raises within flap_seconds: the alarm flaps
    flap_seconds: PositiveSeconds = 3600.0  # see flap_changes
    # Growth is told at most so often; a worse severity at once.
    update_seconds: PositiveSeconds = 60.0
    aftermath_seconds: PositiveSeconds = 300.0  # deviations so soon after a fault belong to it
    # Kept at one time, and as many of other systems; cleared ones make room first.
    alarms_max: PositiveInt = 10_000
    hold_up_seconds: Seconds = 0.0  # a foreign alarm must last so long before it is raised
    hold_down_seconds: Seconds = 0.0  # and be clear so long before it is cleared
    silent_hours_max: PositiveHours = 24.0  # a foreign alarm not reported for so long is cleared
    storm_alarms: PositiveInt = 200  # new alarms of one source and kind a minute, told one by one
    group_seconds: PositiveSeconds = 300.0  # alarms further apart belong together only by cause
    wait_seconds: Seconds = 15.0  # an incident of foreign alarms waits so long for company
    incident_alarms_max: PositiveInt = 50  # beyond it only what the topology justifies joins
    # Raises within repeat_hours that make an alarm a repeater, which re-opens its incident.
    repeat_changes: PositiveInt = 2
    repeat_hours: PositiveHours = 24.0  # see repeat_changes
    windows_max: PositiveInt = 10_000  # planned works, silences, shelved alarms
    operators: PositiveInt = 1  # who attend to alarms at the same time: for the alarm load
    acknowledge_seconds: PositiveSeconds = 600.0  # in which an alarm should be acknowledged
    owners: dict[str, str] = {}  # source of alarms: the system that owns their acknowledgement
    maintenance: dict[str, MaintenanceSettings] = msgspec.field(default_factory=dict)
    runbooks: dict[str, RunbookSettings] = msgspec.field(default_factory=dict)
    links_url: str = ""  # how people reach the API: alerts then carry a link to their picture
    # a delivery that failed is tried again after it, then after twice that, and so on
    retry_seconds_first: PositiveSeconds = 1.0
    retry_seconds_max: PositiveSeconds = 300.0  # at most so long between two tries
    # tries until a delivery is a dead letter (`tocsin outbox list`); a sink that takes nothing at all is waited for
    attempts_max: PositiveInt = 50
    waiting_max: PositiveInt = 10_000  # deliveries of one sink; the oldest are given up beyond it
    sinks: dict[str, SinkSettings] = msgspec.field(default_factory=dict)
    routes: dict[str, RouteSettings] = msgspec.field(default_factory=dict)
    times: dict[str, TimesSettings] = msgspec.field(default_factory=dict)


def any_of(patterns: Sequence[str], text: str) -> bool:
    """Whether a text fits one of the patterns (`*` and `?`), or there are none."""
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
