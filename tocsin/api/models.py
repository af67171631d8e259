"""What the REST API takes and gives. The OpenAPI document is generated from these structs."""

from typing import Annotated, Any, Literal

import msgspec

from alerting.words.alert import Alert
from tocsin import verbs

Limit = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=86_400 * 31)]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`, or what an operator should act on."""

    status: Literal["ok", "degraded"]
    problems: list[str]


class HistoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the history stands."""

    high_water_ns: int  # end of the newest tick stored; 0 before the first
    next_sequence: int  # journal block that comes next
    behind_seconds: float  # what the node has judged and the history does not have yet
    health: str


class DeskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """This process."""

    rss_bytes: int
    history: HistoryStatus


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Node and desk at a glance; `node` is null while it is away."""

    version: str
    node: verbs.Status | None
    desk: DeskStatus


class AlarmsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which alarms."""

    state: Literal["active", "all"] = "active"
    limit: Limit = 1000


class AlarmsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms with their newest change, the newest first."""

    alarms: list[Alert]


class AlarmChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an alarm, from the history: what it was, and who did what with it."""

    changed_ns: int
    state: str
    severity: str
    raised_ns: int
    cleared_ns: int
    occurrence: int
    specific_problem: str
    explain: dict[str, Any]
    operator_state: str
    operator: str
    operator_note: str
    suppressed: str  # why nobody was told, "" where people were
    shelved_until_ns: int
    incident_id: str  # 16 hex digits, "" for none


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An answer from the history. What came after `stored_until_ns` is not in it yet."""

    stored_until_ns: int


class AlarmAnswer(Stored, frozen=True, kw_only=True):
    """One alarm through its life, the newest change first."""

    id: str
    kind: str
    entity: str
    changes: list[AlarmChange]


class SpanQuery(msgspec.Struct, frozen=True, kw_only=True):
    """From when: RFC 3339, or `2h` for two hours ago."""

    since: str = "24h"
    limit: Limit = 1000


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms that belong together."""

    incident_id: str
    changed_ns: int
    opened_ns: int
    closed_ns: int
    severity: str
    title: str
    causes: Any
    alarms: Any


class IncidentsAnswer(Stored, frozen=True, kw_only=True):
    """Incidents with their newest change, the newest first."""

    incidents: list[Incident]


class DigestRow(msgspec.Struct, frozen=True, kw_only=True):
    """Findings over the alert budget: one row an hour and class."""

    hour: str
    view: str
    detector: str
    measure: str
    findings: int
    series: int
    highest_score: float
    would: int = 0  # of them, those that only probation held back


class DigestAnswer(Stored, frozen=True, kw_only=True):
    """The digest, newest hour first."""

    digest: list[DigestRow]


class SeriesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which series, from when to when, in which steps.

    `match` is `view=interface,entity=ams1*,measure=octets` (each part optional); `step` is in seconds,
    0 = as fits; `aggregates` is a list of avg, min, max, stdev, count, last, p95.
    """

    match: str = ""
    since: str = "1h"
    until: str = ""
    step: Seconds = 0
    aggregates: str = "avg"
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10_000


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One series: columns of equal length."""

    series_id: str
    view: str
    entity: str
    measure: str
    key: str
    time_s: list[int]  # start of each step
    values: dict[str, list[float | None]]  # by aggregate


class SeriesAnswer(Stored, frozen=True, kw_only=True):
    """Series in order of view, entity and measure."""

    step_seconds: int
    series: list[Series]
    truncated: bool  # the limit of points was reached
    note: str = ""  # what to ask instead where it is empty or cut


class BaselinesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which series: `view=interface,entity=ams1*`, each part optional."""

    match: str = ""
    limit: Limit = 1000


class SqlQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A read-only statement and the output format."""

    sql: Annotated[str, msgspec.Meta(min_length=1, max_length=262_144)]
    format: str = "JSONCompact"


class ActionBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator does; `payload` as docs/alarms.md has it for each kind."""

    kind: str
    payload: dict[str, Any]


class LoadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Of which span, for how many operators, and in which time alarms should be acknowledged.

    0 = as `alerting.operators` and `alerting.acknowledge_seconds` say.
    """

    since: str = "8h"
    operators: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    acknowledge_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
