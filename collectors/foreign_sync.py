"""Alarms of other managers: which are open, what changed, and what is gone after an outage.

A source says what it read; what comes out are the changes, each once. State moves only after the
node has journalled the changes, so a failure anywhere in between loses nothing: the next read finds
the same differences again.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from collectors.source_ledger import SourceLedger
from collectors.sources import Offer
from runtime.component import Context
from runtime.kept_file import KeptFile
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import TransientError
from telemetry.foreign_alarm import alarm_row, foreign_alarm_id
from telemetry.identity import stable_id
from telemetry.schemas import ALARM
from telemetry.x733 import CLEARED

ALARMS_PER_OFFER = 2_000  # some megabytes in one message to the node
DOUBTFUL_ALARMS = 50
REPEAT_NS = 6 * 3_600_000_000_000  # an open alarm is told again, lest it be taken for forgotten


@dataclass(frozen=True, slots=True)
class ForeignAlarm:
    """One alarm as another system states it now, in our words; severity "cleared" ends it."""

    kind: str
    entity: str
    severity: str
    title: str
    qualifier: str = ""
    changed_ns: int = 0  # 0 = now
    raised_ns: int = 0
    event_type: str = ""
    probable_cause: str = "other"
    text: str = ""
    foreign_id: str = ""
    occurrence: int = 1  # how often its system counted it
    acknowledged: bool = False
    owner: str = ""  # who works on it there
    suppressed: str = ""  # why its system tells nobody: maintenance, ...
    detail: Mapping[str, Any] = field(default_factory=dict)

    def row(self, source: str, now_ns: int) -> dict[str, Any]:
        """Return it as a row of schema `alarm`; what is said to come from the future is from now."""
        changed_ns = min(self.changed_ns or now_ns, now_ns)
        occurrence = max(1, min(self.occurrence, 2**32 - 1))
        row = alarm_row(
            source=source,
            kind=self.kind,
            entity=self.entity,
            severity=self.severity,
            changed_ns=changed_ns,
            title=self.title,
            qualifier=self.qualifier,
            raised_ns=min(self.raised_ns, changed_ns),
            event_type=self.event_type,
            probable_cause=self.probable_cause,
            text=self.text,
            foreign_id=self.foreign_id,
            detail={
                **self.detail,
                "acknowledged": self.acknowledged,
                "owner": self.owner,
                "suppressed": self.suppressed,
                "occurrences": occurrence,
            },
        )
        row |= {"suppressed": self.suppressed, "operator": self.owner, "tally": occurrence}
        return row | {"operator_state": "acknowledged" if self.acknowledged else "none"}

    def digest(self) -> int:
        """Return a hash of all that makes a change worth telling."""
        told = (self.severity, self.title, self.text, self.foreign_id, self.occurrence)
        state = (self.acknowledged, self.owner, self.suppressed, self.changed_ns)
        return stable_id(repr((told, state, sorted(self.detail.items(), key=str))))


@dataclass(frozen=True, slots=True)
class Open:
    """What must be kept of an open alarm to tell a change from a repeat, and to clear it."""

    kind: str
    entity: str
    qualifier: str
    title: str
    raised_ns: int
    foreign_id: str
    digest: int
    told_ns: int
    marks: str = ""  # what its source recognises it by

    def cleared(self, reason: str) -> ForeignAlarm:
        """Return the end of it."""
        return ForeignAlarm(
            self.kind,
            self.entity,
            CLEARED,
            self.title,
            self.qualifier,
            raised_ns=self.raised_ns,
            text=reason,
            foreign_id=self.foreign_id,
            detail={"cleared_by": reason},
        )


def decoded_alarms(kind: str, alarms: Iterable[ForeignAlarm]) -> list[Batch]:
    """Return alarms of a captured message as a batch, with the times that they state themselves."""
    rows = [alarm.row(kind, alarm.changed_ns) for alarm in alarms]
    return [batch_from_rows(ALARM, rows, source=kind)] if rows else []


OPEN_FIELDS = tuple(field.name for field in fields(Open))


@dataclass(slots=True)
class Changes:
    """What is new, and what will be known once it was taken over."""

    alarms: list[ForeignAlarm] = field(default_factory=list)
    opened: dict[int, Open] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)


class OpenAlarms:
    """The open alarms of one other system, by the id they have with us; `alarms_max` and as many that ended.

    What is beyond the limit is told every time it is read and cannot be cleared by its absence.
    """

    def __init__(self, source: str, alarms_max: int) -> None:
        self.source = source
        self._alarms_max = alarms_max
        self.open: dict[int, Open] = {}
        self._closed: OrderedDict[int, int] = OrderedDict()  # the last ones that ended, and when

    def id_of(self, alarm: ForeignAlarm) -> int:
        """Return the id that an alarm has with us."""
        return foreign_alarm_id(self.source, alarm.kind, alarm.entity, alarm.qualifier)

    def changes(
        self,
        alarms: Iterable[ForeignAlarm],
        now_ns: int,
        *,
        marks: Mapping[int, str] | None = None,
    ) -> Changes:
        """Return what these alarms change. A later one of the same id counts, within one read.

        One that did not change is told again after `REPEAT_NS`: it is still there. The end of an
        alarm is told once, also of one that was never seen open.
        """
        made = Changes()
        latest = {self.id_of(alarm): alarm for alarm in alarms}
        for alarm_id, alarm in latest.items():
            before = self.open.get(alarm_id)
            if alarm.severity == CLEARED:
                if before is not None or alarm_id not in self._closed:
                    made.alarms.append(alarm)
                    made.closed.append(alarm_id)
                continue
            digest = alarm.digest()
            if before is None or before.digest != digest or now_ns - before.told_ns >= REPEAT_NS:
                made.alarms.append(alarm)
                made.opened[alarm_id] = Open(
                    alarm.kind,
                    alarm.entity,
                    alarm.qualifier,
                    alarm.title,
                    alarm.raised_ns,
                    alarm.foreign_id,
                    digest,
                    now_ns,
                    (marks or {}).get(alarm_id, ""),
                )
        return made

    def told_since(self, since_ns: int) -> set[int]:
        """Return the ids of alarms of which a change was told after a time."""
        opened = {i for i, alarm in self.open.items() if alarm.told_ns > since_ns}
        return opened | {i for i, ended_ns in self._closed.items() if ended_ns > since_ns}

    def absent(self, present: Iterable[int], reason: str) -> Changes:
        """Return the end of every open alarm whose id is not among those present."""
        made = Changes(closed=sorted(self.open.keys() - set(present)))
        made.alarms = [self.open[alarm_id].cleared(reason) for alarm_id in made.closed]
        return made

    def commit(self, changes: Changes, now_ns: int) -> None:
        """Know what was told."""
        for alarm_id, alarm in changes.opened.items():
            self._closed.pop(alarm_id, None)
            if alarm_id in self.open or len(self.open) < self._alarms_max:
                self.open[alarm_id] = alarm
        for alarm_id in changes.closed:
            self.open.pop(alarm_id, None)
            self._closed[alarm_id] = now_ns
            self._closed.move_to_end(alarm_id)
        while len(self._closed) > self._alarms_max:
            self._closed.popitem(last=False)

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return len(self.open) >= self._alarms_max

    def state(self) -> dict[str, Any]:
        """Return all that must survive a restart."""
        return {
            "open": [
                [alarm_id, *(getattr(alarm, name) for name in OPEN_FIELDS)]
                for alarm_id, alarm in self.open.items()
            ],
            "closed": list(self._closed),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.open = {row[0]: Open(*row[1:]) for row in state["open"]}
        self._closed = OrderedDict.fromkeys(state["closed"], 0)


class AlarmFeed:
    """Takes what a source read, offers the changes to the node, and remembers them on disk.

    `memory` is the source's own small state (positions, ids of subscriptions), kept along.
    """

    def __init__(
        self,
        name: str,
        protocol: str,
        context: Context,
        offer: Offer,
        folder: Path,
        *,
        alarms_max: int,
    ) -> None:
        self.alarms = OpenAlarms(name, alarms_max)
        self.ledger = SourceLedger(protocol)
        self.memory: dict[str, Any] = {}
        self._context = context
        self._offer = offer
        self._file = KeptFile(folder / "open_alarms.state", context)
        self._lock = threading.RLock()
        self._saved: dict[str, Any] = {}
        # Of offers: a repeat of the same changes after a crash counts once; where the state is lost,
        # nothing is taken for a repeat.
        self._sequence = 0
        self._doubted = False
        self._told = context.metrics.counter(
            "foreign_alarm_changes_total",
            "alarm changes of other managers handed to the node",
            label="change",
            values=("raised", "cleared"),
        )
        self._open = context.metrics.gauge(
            "foreign_alarms_open", "alarms of other managers that are open"
        )

    def load(self) -> None:
        """Continue where the last run ended."""
        state = self._file.load()
        self._sequence = self._now_ns()
        if state is not None:
            self.alarms.restore(state["alarms"])
            self.memory = state["memory"]
            self._sequence = state["sequence"]
            self._saved = deepcopy(self.memory)
        self._open.set(len(self.alarms.open))

    def tell(
        self, alarms: Sequence[ForeignAlarm], *, marks: Mapping[int, str] | None = None
    ) -> int:
        """Offer what these change and return how many changes; raise TransientError and know nothing."""
        with self._lock:
            return self._take(self.alarms.changes(alarms, self._now_ns(), marks=marks))

    def tell_all(
        self,
        alarms: Sequence[ForeignAlarm],
        *,
        reason: str,
        began_ns: int | None = None,
        marks: Mapping[int, str] | None = None,
    ) -> int:
        """As `tell` with all that are open: those that are not among them are cleared with the reason.

        `began_ns` is when the reading of the list began, where events come beside it: what they told
        since is newer than the list, and stands.

        Where more than half of many are gone at once, a second such list must confirm it: systems
        that are failing over, or have lost a part, answer with what is left.
        """
        with self._lock:
            now_ns = self._now_ns()
            newer = set() if began_ns is None else self.alarms.told_since(began_ns)
            older = [alarm for alarm in alarms if self.alarms.id_of(alarm) not in newer]
            made = self.alarms.changes(older, now_ns, marks=marks)
            present = [self.alarms.id_of(a) for a in older if a.severity != CLEARED]
            gone = self.alarms.absent([*present, *made.closed, *newer], reason)
            many = len(gone.alarms) > max(DOUBTFUL_ALARMS, len(self.alarms.open) / 2)
            if many and not self._doubted:
                self._context.log.warning(
                    "list_shrunk open=%d gone=%d; a second list must confirm it before they clear",
                    len(self.alarms.open),
                    len(gone.alarms),
                )
                gone = Changes()
            self._doubted = many and not self._doubted
            made.alarms += gone.alarms
            made.closed += gone.closed
            return self._take(made)

    def roll_back(self) -> None:
        """Let the source's own state be what it was when it was saved last: nothing was taken since."""
        self.memory = deepcopy(self._saved)

    def save(self) -> None:
        """Write what is known; raise TransientError."""
        self._file.save(
            {"alarms": self.alarms.state(), "memory": self.memory, "sequence": self._sequence}
        )
        self._saved = deepcopy(self.memory)

    def _now_ns(self) -> int:
        return self._context.clock.now_ns()

    def _take(self, changes: Changes) -> int:
        """Offer the changes part by part; a part counts once the node has it."""
        now_ns = self._now_ns()
        parts = [
            changes.alarms[i : i + ALARMS_PER_OFFER]
            for i in range(0, len(changes.alarms), ALARMS_PER_OFFER)
        ]
        for part in parts or [[]]:
            self._offer_part(part, now_ns)
            told = {self.alarms.id_of(alarm) for alarm in part}
            self.alarms.commit(
                Changes(
                    part,
                    {i: alarm for i, alarm in changes.opened.items() if i in told},
                    [i for i in changes.closed if i in told],
                ),
                now_ns,
            )
            ends = sum(alarm.severity == CLEARED for alarm in part)
            self._told.add("cleared", ends)
            self._told.add("raised", len(part) - ends)
        self._open.set(len(self.alarms.open))
        if changes.alarms or self.memory != self._saved:
            self.save()
        return len(changes.alarms)

    def _offer_part(self, part: Sequence[ForeignAlarm], now_ns: int) -> None:
        name = self.alarms.source
        rows = [alarm.row(name, now_ns) for alarm in part]
        batches = [batch_from_rows(ALARM, rows, source=name, arrival_ns=now_ns)] if rows else []
        batches += self.ledger.report(now_ns)
        if not batches:
            return
        said = stable_id(repr([(alarm.digest(), self.alarms.id_of(alarm)) for alarm in part]))
        try:
            self._offer(batches, token=f"{name}|{self._sequence}|{said:016x}")
        except TransientError:
            self.ledger.keep()
            self.roll_back()
            raise
        self.ledger.reported()
        self._sequence += 1
