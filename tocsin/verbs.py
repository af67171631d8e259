"""What the node answers on its request socket: one struct a verb (runtime.bus)."""

from typing import Annotated, Any

import msgspec

from alerting.words.delivery import SinkStatus
from tocsin.families import Family

# Within it comes what is answered once it is journalled: an event tick and what may hold up a node.
JOURNALLED_SECONDS = 15.0
NUMBER_MAX = (1 << 63) - 1  # that SQLite can keep
Limit = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]


class Nothing(msgspec.Struct, frozen=True):
    """A request or an answer without content."""


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One input as seen by the node."""

    name: str
    address: str
    datagrams: int
    receive_buffer_bytes: int
    kernel_drops: int
    queue_blocks: int
    connections: int = 0  # open ones of a tcp:// or tls:// input; `datagrams` are chunks there


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard as seen by the node."""

    shard: int
    pid: int  # 0 = not running
    counts: bool  # ticks wait for it
    restarts: int
    frontier_ns: int
    waiting: int  # closings that wait for other shards


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One source as seen by the gate."""

    name: str
    kind: str
    health: str
    offered: int  # rows that the node has journalled
    refused: int  # offers that failed and will be repeated


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The node at a glance; what the demo's footer, `/health` and `doctor` show."""

    version: str
    profile: str
    ready: bool
    now_ns: int
    started_ns: int
    frontier_ns: int
    last_tick_end_ns: int
    ticks: int
    records: int
    datagrams: int
    series: int  # an entity's metric is one
    exporters: int
    alarms_raised: int
    budget_used: float
    budget_per_day: float
    baselines: dict[str, list[int]] = {}  # by view: series by detectors.life.STAGES
    security: dict[str, str] = {}  # by detector: judging, or warming up (only hard evidence counts)
    on_probation: int = 0  # detectors of a view whose findings are shown, not sent
    journal_next_sequence: int
    rss_bytes: int
    health: list[str]
    listeners: list[ListenerStatus]
    sources: list[SourceStatus] = []  # as the gate last said
    workers: list[WorkerStatus] = []  # empty where the node receives itself
    sinks: list[SinkStatus] = []


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of a source in the gate, as a journal block has them; answered once they are journalled."""

    source: str
    token: str  # "" = none; the same one again counts once
    data: bytes


class GateSays(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of its sources once a second, with its self-metrics."""

    sources: list[SourceStatus]
    metrics: list[Family]


class MetricsText(msgspec.Struct, frozen=True):
    """The node's part of the metrics page."""

    text: str


class AlarmsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which alarms."""

    active_only: bool = True
    limit: Limit = 1000


class Alarms(msgspec.Struct, frozen=True):
    """Alarm records as the API shows them."""

    alarms: list[dict[str, Any]]


class IncidentsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which incidents."""

    open_only: bool = True
    limit: Limit = 1000


class IncidentsAnswer(msgspec.Struct, frozen=True):
    """Incidents as they are now, the open ones first, the newest first."""

    incidents: list[dict[str, Any]]


class DueRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The gate asks for deliveries that are due."""

    limit: Limit = 100


class DeliveriesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries; "" = any."""

    state: str = ""
    sink: str = ""
    limit: Limit = 1000


class RetryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Send what was given up again, to one sink; "" = to all."""

    sink: str = ""


class DropRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody ends what was given up: of one sink ("" = any), of one number (0 = any)."""

    by: str
    sink: str = ""
    number: Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)] = 0


class ToldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The gate asks what a sink was told of that is still up."""

    sink: str


class DecideRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody lets a delivery that waits for approval go, or ends it."""

    number: Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
    approve: bool
    by: str


class OperateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An operator acts: one control row, from the next event tick on; answered when that is on disk."""

    kind: str  # acknowledge, shelve, silence, maintenance, merge, ... (alerting.asked.KINDS)
    payload: dict[str, Any]


class OperateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Since when it counts, or why it was refused."""

    counts_from_ns: int = 0
    refused: str = ""


class WindowsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Planned works, silences and shelved alarms."""

    windows: list[dict[str, Any]]


class ProbationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Which detectors of which views may alert, and what those on probation would have sent."""

    mode: str
    classes: list[dict[str, Any]]
    would_have_sent: list[dict[str, Any]]
    orders: list[dict[str, Any]]  # what operators did, oldest first


class PredictionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions that stand, those that were judged (newest first), and the record of each limit."""

    open: list[dict[str, Any]]
    judged: list[dict[str, Any]]
    limits: dict[str, dict[str, Any]]


class BaselinesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which series: `view=interface,entity=ams1*`, each part optional, and how many."""

    match: str = ""
    limit: Limit = 1000


class BaselinesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far baselines have come: each view as a whole, and the series asked for, youngest first."""

    stages: list[str]
    views: dict[str, list[int]]  # series in each stage
    series: list[dict[str, Any]]


class TeacherSays(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher watches: how often series of each view are strange, and where that drifted."""

    drifts: list[dict[str, Any]] = []  # newest first
    watched: list[dict[str, Any]] = []
    health: str = ""


class FeedbackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts of operators, the model that was learned from them, and what the teacher says."""

    feedback: list[dict[str, Any]]
    model: dict[str, Any] | None
    rates: dict[str, list[int]]  # by view: series-samples scored, of them strange
    teacher: TeacherSays = TeacherSays()
