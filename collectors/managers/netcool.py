"""Alarms of a Netcool/OMNIbus ObjectServer, read over its HTTP interface: poll what changed, and diff.

Every `poll_seconds` the rows are read whose StateChange is new; every `resync_seconds`, at the start
and after any trouble all open rows are, so that deleted ones are seen to be gone. A row is known by
its Identifier, which neither a failover nor a second insert changes.

Source: IBM Netcool/OMNIbus ObjectServer HTTP interface reference (row sets, filter, collist,
orderby), alerts.status table reference (Severity, Type, Tally, SuppressEscl).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from collectors.foreign_sync import AlarmFeed, ForeignAlarm, decoded_alarms
from collectors.foreign_text import clean, integer, json_of, seconds_ns
from collectors.http.client import Answer, HttpPeer, PeerError, PeerSettings
from collectors.polling import Poller
from collectors.sources import Offer
from runtime.component import Context
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds
from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.x733 import CAUSE_NAMES, CLEARED, EVENT_TYPES, SEVERITIES, severity_from

TABLE = "/objectserver/restapi/alerts/status"
POLL_SECONDS_FLOOR = 5.0
RESOLUTIONS = (2, 4)  # Type: resolution, and that of Visionary
SUPPRESSED = {4: "suppressed", 5: "hidden", 6: "maintenance"}
NOBODY = 65_534
EVENT_TYPE_NAMES = {number: name for name, number in EVENT_TYPES.items()}
COLUMNS = (
    "Identifier", "ServerName", "ServerSerial", "Node", "NodeAlias", "Manager", "Agent",
    "AlertGroup", "AlertKey", "Severity", "Type", "Tally", "Summary", "StateChange",
    "FirstOccurrence", "LastOccurrence", "Acknowledged", "OwnerUID", "SuppressEscl", "Location",
    "Service", "Customer", "LocalPriObj", "RemoteNodeAlias", "RemotePriObj", "NmosCauseType",
    "X733EventType", "X733ProbableCause", "X733SpecificProb", "URL",
)  # fmt: skip
KEPT = ("NodeAlias", "Manager", "Agent", "AlertGroup", "AlertKey", "Location", "Service", "Customer",
        "RemoteNodeAlias", "RemotePriObj", "URL")  # fmt: skip


class NetcoolOptions(PeerSettings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "netcool"."""

    filter: str = ""  # SQL for WHERE: which rows are ours to see; empty = all
    columns: tuple[str, ...] = ()  # more columns, kept with the alarm
    poll_seconds: PositiveSeconds = 30.0  # how often what changed is asked for
    resync_seconds: PositiveSeconds = 300.0  # how often all open alarms are read and compared
    pause_seconds_max: PositiveSeconds = 600.0  # between tries while there is trouble
    # Each poll asks so far back again: rows that were written while we read.
    overlap_seconds: PositiveInt = 10
    page_rows: PositiveInt = 5_000  # as many as the server gives at once
    pages_max: PositiveInt = 200  # of one answer
    alarms_max: PositiveInt = 100_000  # open at one time; more are refused and counted
    # Beyond: its clock is off, times are corrected.
    clock_tolerance_seconds: PositiveSeconds = 300.0
    encoding: str = "utf-8"  # of texts; what is no UTF-8 is read as ISO-8859-1
    severities: dict[str, str] = {}  # {"1": "warning"}: another meaning than the usual
    exclude_manager: str = "tocsin"  # rows whose Manager is this are left out: we wrote them


class NetcoolSource:
    """One ObjectServer, or a pair behind one address."""

    def __init__(
        self, name: str, options: NetcoolOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._options = options
        self._context = context
        self._peer = HttpPeer(options, context.clock)
        self._feed = AlarmFeed(
            name, "netcool", context, offer, folder, alarms_max=options.alarms_max
        )
        self._poller = Poller(
            context,
            self.turn,
            floor_seconds=POLL_SECONDS_FLOOR,
            pause_seconds_max=options.pause_seconds_max,
        )
        self._resync_ns = 0  # when all rows are read next
        self._asked_ns = 0  # when the last poll that succeeded began
        self._marks: dict[int, str] = {}  # last occurrence and pair of the rows just read
        self._malformed = context.metrics.counter(
            "netcool_rows_malformed_total", "rows of an ObjectServer that cannot be alarms"
        )

    def start(self) -> None:
        """Continue from what is kept, and read all rows first."""
        self._feed.load()
        self._poller.start()

    def stop(self) -> None:
        """Stop reading."""
        self._poller.stop()

    def health(self) -> str:
        """Return what keeps us from reading."""
        return self._poller.health()

    def turn(self) -> float:
        """Read once: what changed, or all."""
        now_ns = self._context.clock.now_ns()
        try:
            if now_ns >= self._resync_ns or not self._read_changes():
                self._read_all()
                self._resync_ns = now_ns + round(self._options.resync_seconds * 1e9)
        except PeerError:
            self._resync_ns = 0  # what was missed is found by reading all
            raise
        self._asked_ns = now_ns
        return self._options.poll_seconds

    # ---- reading

    def _read_all(self) -> None:
        """Read every open row, page by page in the order of ServerSerial, and clear what is gone.

        A server may cap its answers without a word, so the end is a page that brings nothing new.
        """
        began_ns = self._context.clock.now_ns()
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        serial, server = 0, ""
        for _ in range(self._options.pages_max):
            scope = ["Severity > 0", f"ServerSerial >= {serial}"] if serial else ["Severity > 0"]
            page, _, server = self._page(scope, "ServerSerial ASC")
            fresh = {key: row for row in page if (key := _key(row)) not in rows}
            rows |= fresh
            serial = max((key[1] for key in fresh), default=serial)
            if not fresh:
                break
        else:
            raise PeerError(
                f"{self._options.url}: more than {self._options.pages_max} pages of open alarms; "
                "narrow `filter` or raise `pages_max`"
            )
        seconds = (self._context.clock.now_ns() - began_ns) / 1e9
        newest = max((integer(row.get("StateChange")) for row in rows.values()), default=0)
        known = integer(self._feed.memory.get("state_change"))
        # What changed while we read may lie behind the newest row: the next poll begins before it.
        self._feed.memory["state_change"] = max(
            newest - int(seconds) - 1, known if not newest else 0
        )
        alarms = self._alarms(list(rows.values()))
        told = self._feed.tell_all(
            alarms, reason=f"no longer open at {server or self._options.url}", marks=self._marks
        )
        self._count(told, len(rows) - len(alarms))

    def _read_changes(self) -> bool:
        """Read the rows that changed since the last time, and some seconds before.

        Return False where there are more than can be told apart by the second of their change.
        """
        for _ in range(self._options.pages_max):
            since = integer(self._feed.memory.get("state_change"))
            page, whole, _ = self._page(
                [f"StateChange >= {max(since - self._options.overlap_seconds, 0)}"],
                "StateChange ASC, ServerSerial ASC",
            )
            newest = max((integer(row.get("StateChange")) for row in page), default=since)
            alarms = self._alarms(page)
            self._feed.memory["state_change"] = max(newest, since)
            told = self._feed.tell(alarms, marks=self._marks)
            self._count(told, len(page) - len(alarms))
            if whole or newest <= since or self._poller.ended:
                return whole
        return False

    def _page(self, scope: Sequence[str], order: str) -> tuple[list[dict[str, Any]], bool, str]:
        """Return (rows, whether these are all, server name) of one request."""
        options = self._options
        where = [f"({options.filter})"] if options.filter else []
        if options.exclude_manager:
            where.append(f"Manager <> '{options.exclude_manager}'")
        answer = self._peer.ask(
            TABLE,
            {
                "filter": " AND ".join([*where, *scope]),
                "collist": ",".join(dict.fromkeys((*COLUMNS, *options.columns))),
                "orderby": order,
            },
            headers={"Accept": "application/json"},
        )
        try:
            rows, affected, server = row_set(answer.body, options.encoding)
        except ValueError as error:
            raise PeerError(f"{options.url}{TABLE}: the answer is no row set: {error}") from error
        self._learn_clock(answer, rows)
        return rows, len(rows) >= affected and len(rows) < options.page_rows, server

    def _learn_clock(self, answer: Answer, rows: Sequence[Mapping[str, Any]]) -> None:
        """Estimate by how much the server's clock is ahead of ours; within the tolerance it is believed."""
        now_ns = self._context.clock.now_ns()
        memory = self._feed.memory
        newest_ns = max((seconds_ns(row.get("StateChange")) for row in rows), default=0)
        known_ns = seconds_ns(memory.get("state_change"))
        offset_ns = answer.clock_offset_ns(now_ns)
        if offset_ns is not None:
            pass
        elif newest_ns <= known_ns:
            return  # nothing new was stamped
        elif newest_ns > now_ns:
            offset_ns = newest_ns - now_ns
        elif self._asked_ns and known_ns:
            # It was stamped between the last poll and this one, which bounds the offset.
            offset_ns = max(min(newest_ns - self._asked_ns, 0), newest_ns - now_ns)
        else:
            return
        believed = abs(offset_ns) <= self._options.clock_tolerance_seconds * 1e9
        offset_ns = 0 if believed else offset_ns
        same_ns = max(2 * self._options.poll_seconds, 60.0) * 1e9
        if abs(offset_ns - integer(memory.get("clock_offset_ns"))) > same_ns:
            self._context.log.warning(
                "clock_off server=%s seconds=%d; its times are corrected; check its NTP",
                self._options.url,
                offset_ns // 10**9,
            )
            memory["clock_offset_ns"] = offset_ns

    # ---- meaning

    def _alarms(self, rows: Sequence[Mapping[str, Any]]) -> list[ForeignAlarm]:
        """Return the alarms of these rows; resolutions clear what they pair with."""
        offset_ns = integer(self._feed.memory.get("clock_offset_ns"))
        self._marks = {}
        problems: list[ForeignAlarm] = []
        resolutions: dict[str, int] = self._feed.memory.setdefault("resolutions", {})
        fresh: dict[str, int] = {}
        for row in rows:
            if integer(row.get("Type")) in RESOLUTIONS:
                pair, last = pair_of(row), integer(row.get("LastOccurrence"))
                if last > resolutions.get(pair, -1):
                    fresh[pair] = last
                    resolutions[pair] = last
        while len(resolutions) > self._options.alarms_max:
            del resolutions[next(iter(resolutions))]
        for row in rows:
            if integer(row.get("Type")) in RESOLUTIONS:
                continue
            alarm = alarm_of(row, offset_ns, self._options)
            if alarm is None:
                self._malformed.add()
                continue
            last = integer(row.get("LastOccurrence"))
            if last <= resolutions.get(pair_of(row), -1):
                alarm = _resolved(alarm, resolutions[pair_of(row)], offset_ns)
            problems.append(alarm)
            self._marks[self._feed.alarms.id_of(alarm)] = f"{last} {pair_of(row)}"
        return problems + self._paired(fresh, offset_ns)

    def _paired(self, fresh: Mapping[str, int], offset_ns: int) -> list[ForeignAlarm]:
        """Return the end of open alarms that a new resolution pairs with."""
        if not fresh:
            return []
        ended = []
        for known in self._feed.alarms.open.values():
            last, _, pair = known.marks.partition(" ")
            if pair in fresh and integer(last) <= fresh[pair]:
                alarm = known.cleared("cleared by its resolution")
                ended.append(_resolved(alarm, fresh[pair], offset_ns))
        return ended

    def _count(self, told: int, malformed: int) -> None:
        self._feed.ledger.count(
            self._peer.address,
            decoded=told,
            undecodable=max(malformed, 0),
            clock_offset_ns=integer(self._feed.memory.get("clock_offset_ns")),
        )


def row_set(body: bytes, encoding: str = "utf-8") -> tuple[list[dict[str, Any]], int, str]:
    """Return (rows, rows that matched, server name) of an answer, or raise ValueError."""
    document = json_of(body, encoding)
    found = document.get("rowset") if isinstance(document, dict) else None
    rows = found.get("rows") if isinstance(found, dict) else None
    if (
        found is None
        or not isinstance(rows, list)
        or not all(isinstance(row, dict) for row in rows)
    ):
        raise ValueError("it has no rowset.rows")
    return rows, integer(found.get("affectedRows"), len(rows)), clean(found.get("osname"), 64)


def alarm_of(
    row: Mapping[str, Any], offset_ns: int, options: NetcoolOptions
) -> ForeignAlarm | None:
    """Return the alarm of a row that is no resolution, None where it names nothing."""
    identifier = clean(row.get("Identifier"), 255) or clean(
        f"{row.get('ServerName', '')}:{row.get('ServerSerial', '')}", 255
    )
    node = clean(row.get("Node"), 255) or clean(row.get("NodeAlias"), 255)
    if not node or identifier == ":":
        return None
    word = str(integer(row.get("Severity"), -1))
    severity = options.severities.get(word) or severity_from("netcool", word)
    part = clean(row.get("LocalPriObj"), 255)
    problem = clean(row.get("X733SpecificProb"), 255)
    owner = integer(row.get("OwnerUID"), NOBODY)
    cause = clean(row.get("X733ProbableCause"), 255)
    return ForeignAlarm(
        kind=clean(row.get("AlertGroup"), 255) or problem or "netcool",
        entity=f"{node}:{part}" if part else node,
        severity=severity if severity in SEVERITIES else CLEARED,
        title=clean(row.get("Summary"), 500) or problem,
        qualifier=identifier,
        changed_ns=_corrected(row.get("LastOccurrence"), offset_ns),
        raised_ns=_corrected(row.get("FirstOccurrence"), offset_ns),
        event_type=EVENT_TYPE_NAMES.get(integer(row.get("X733EventType")), ""),
        probable_cause=CAUSE_NAMES.get(integer(cause), "")
        or (cause if not cause.lstrip("-").isdigit() and cause else "other"),
        foreign_id=f"{clean(row.get('ServerName'), 64)}:{integer(row.get('ServerSerial'))}",
        occurrence=integer(row.get("Tally"), 1),
        acknowledged=integer(row.get("Acknowledged")) == 1,
        owner="" if owner == NOBODY else str(owner),
        suppressed=SUPPRESSED.get(integer(row.get("SuppressEscl")), ""),
        detail={
            name: clean(row[name]) for name in (*KEPT, *options.columns) if clean(row.get(name))
        }
        | {"root_cause": {1: "cause", 2: "symptom"}.get(integer(row.get("NmosCauseType")), "")},
    )


def pair_of(row: Mapping[str, Any]) -> str:
    """Return what a problem and its resolution have in common (the automation GenericClear)."""
    return "|".join(
        clean(row.get(name), 255) for name in ("Node", "AlertKey", "AlertGroup", "Manager")
    )


def _resolved(alarm: ForeignAlarm, last: int, offset_ns: int) -> ForeignAlarm:
    return replace(
        alarm,
        severity=CLEARED,
        changed_ns=_corrected(last, offset_ns),
        detail={**alarm.detail, "cleared_by": "its resolution"},
    )


def _corrected(value: object, offset_ns: int) -> int:
    at_ns = seconds_ns(value)
    return max(at_ns - offset_ns, 0) if at_ns else 0


def _key(row: Mapping[str, Any]) -> tuple[str, int]:
    return clean(row.get("ServerName"), 64), integer(row.get("ServerSerial"))


def parse(data: bytes, name: str) -> list[Batch]:  # noqa: ARG001  # the contract of Reads
    """Return the alarms of a captured answer, or raise DecodeError."""
    try:
        rows, _, _ = row_set(data)
    except ValueError as error:
        raise DecodeError("malformed", f"no row set: {error}") from error
    options = NetcoolOptions(url="")
    ends = {pair_of(row): integer(row.get("LastOccurrence")) for row in rows
            if integer(row.get("Type")) in RESOLUTIONS}  # fmt: skip
    made = []
    for row in rows:
        alarm = alarm_of(row, 0, options)
        if alarm is None or integer(row.get("Type")) in RESOLUTIONS:
            continue
        end = ends.get(pair_of(row), -1)
        made.append(
            _resolved(alarm, end, 0) if end >= integer(row.get("LastOccurrence")) else alarm
        )
    return decoded_alarms("netcool", made)


SOURCE = Part(
    "alarms of a Netcool/OMNIbus ObjectServer (HTTP interface)",
    NetcoolSource,
    NetcoolOptions,
    reads=Reads(looks_like=lambda head: b'"rowset"' in head, parse=parse),
    sheds="nothing: what is not read stays there until the next poll",
)
