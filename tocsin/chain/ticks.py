"""The deterministic chain from datagrams to alarms: the same code live, in a shard, and in replay.

`Front` (tocsin.chain.front) is one shard's half: decoders and windows. It cuts its input at tick
deadlines, so that what a tick holds depends on arrival times alone, never on how datagrams came in
blocks. `Back` (tocsin.chain.back) is the node's half: merge, journal, detection, alerting. Neither
knows a socket or a clock. Here is what goes from one to the other, and what comes of it.

Time is the arrival frontier. A view's tick [s, e) closes at e + lateness. What is not aggregated
(alarms, logs, routes) and samples go on at the end of each event tick, a second. Each is journalled
under the time at which it closed: those times rise, whatever view they are of, and are "now" for
detection and alerting (ADR 0025).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from telemetry.batch import Batch
from telemetry.schemas import ALARM, FRAME, LOG, ROUTE, SAMPLE, SERIES

EVENT_TICK_NS = 1_000_000_000
EVENTS = frozenset((ALARM.name, LOG.name, ROUTE.name))  # journalled at event ticks as they are
AT_EVENT_TICKS = EVENTS | {SAMPLE.name, SERIES.name}
NEVER_NS = 1 << 62
Promise = Callable[[], None]  # an answer that is due once what it is about is on disk


@dataclass(frozen=True, slots=True)
class Closing:
    """What a shard has to say when its frontier passes a deadline: of a view, or of an event tick."""

    frontier_ns: int
    batches: tuple[Batch, ...]  # partial frames, and records that are not aggregated
    blind: bool = False  # we ourselves lost much of what was sent: quiet proves nothing


@dataclass(frozen=True, slots=True)
class Tick:
    """What closed at one time, as journalled: everything detection and alerting may look at.

    A view tick holds frames, with the series, evidence, ledgers and options that go with them; an
    event tick holds none. Both may hold alarms, logs, routes, control rows, and what sources in the
    gate offered.
    """

    tick_end_ns: int  # the arrival frontier at which it closed; rises from tick to tick
    batches: tuple[Batch, ...]

    @property
    def has_frames(self) -> bool:
        """Whether a view's tick ended here."""
        return any(batch.schema.name == FRAME.name for batch in self.batches)


@dataclass(slots=True)
class Outcome:
    """What came of one tick."""

    tick_end_ns: int
    promises: Sequence[Promise] = ()  # to those who wait until the tick is on disk
    frames: list[Batch] = field(default_factory=list)  # widened by the score columns
    anomalies: list[Batch] = field(default_factory=list)
    alarms: list[Batch] = field(default_factory=list)
    incidents: list[Batch] = field(default_factory=list)
    digest: list[Batch] = field(default_factory=list)
    # What is put into words only when it is asked for.
    _alarms: Iterator[Batch] = field(default_factory=lambda: iter(()))
    _incidents: Iterator[Batch] = field(default_factory=lambda: iter(()))
    _changed: bool = False

    def follow(
        self, alarms: Iterator[Batch], incidents: Iterator[Batch], *, changed: bool = True
    ) -> None:
        """Alarms, if some `changed`, and incidents, a part at a time, follow when they are asked for."""
        self._alarms, self._incidents, self._changed = alarms, incidents, changed

    def begin(self, *, alarms: bool) -> None:
        """Put into words what will be asked for first: alarms, or else a part of the incidents."""
        if alarms:
            self.every_alarm()
        else:
            self.incidents.extend(itertools.islice(self._incidents, 1))

    def every_alarm(self) -> list[Batch]:
        """Return all batches of alarms."""
        self.alarms.extend(self._alarms)
        return self.alarms

    def every_incident(self) -> Iterator[Batch]:
        """Yield all batches of incidents, one after the other."""
        yield from self.incidents
        for batch in self._incidents:
            self.incidents.append(batch)
            yield batch

    def complete(self) -> None:
        """Have all in the lists."""
        self.every_alarm()
        self.incidents.extend(self._incidents)

    @property
    def tells(self) -> bool:
        """Whether there are alarms or incidents."""
        if self.alarms or self._changed or self.incidents:
            return True
        self.begin(alarms=False)
        return bool(self.incidents)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether anything came of it: of most event ticks nothing does."""
        return bool(self.frames or self.digest or self.tells)

    def result(self) -> list[Batch]:
        """Return what the journal's result block keeps."""
        return [*self.frames, *self.anomalies, *self.alarms, *self.incidents, *self.digest]


def tick_end_of(frame: Batch) -> int:
    """Return the end of a frame's tick in ns; a frame has at least one row."""
    return int(frame["tick_start_ns"][0]) + round(float(frame["tick_seconds"][0]) * 1e9)
