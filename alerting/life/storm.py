"""Storms: when one source raises one kind of alarm on ever more entities, one alarm says so.

Up to `storm_alarms` new alarms a minute of a class (source and kind) are told one by one. Those
beyond are counted in the class's storm alarm, each once; the journal has every one of them, and a clear
is never dropped: one of an alarm that was only counted takes from the storm's count. A storm is over when
it is calm and all that it counted is clear, or told by itself since. Of more ids than are kept a repeat counts
as another alarm.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from alerting.records.alarm import NEVER_NS
from telemetry.foreign_alarm import foreign_alarm_id

KIND = "alarm-storm"
WINDOW_NS = 60_000_000_000
CLASSES_MAX = 1_000
NAMED_MAX = 10


@dataclass(slots=True)
class Storm:
    """One class of foreign alarms in the last minute."""

    source: str
    kind: str
    since_ns: int = 0  # start of the minute that is counted
    new: int = 0  # alarms that began in it
    hidden: int = 0  # alarms that were only counted, and neither cleared nor told since
    ids: dict[int, None] = field(default_factory=dict)  # of these, as far as there is room
    told: int = 0  # `hidden` when it was last told
    entities: list[str] = field(default_factory=list)  # the first of them
    up: bool = False
    last_ns: int = 0

    @property
    def alarm(self) -> int:
        """The id of the alarm that stands for this storm."""
        return foreign_alarm_id(self.source, KIND, self.kind)


class Storms:
    """Counts new alarms by class, bounded; says which are to be hidden."""

    def __init__(self, alarms_a_minute: int, *, calm_ns: int, silent_ns: int, ids_max: int) -> None:
        """`silent_ns`: what was counted is over when nothing was heard of its class for so long."""
        self._most = alarms_a_minute
        self._calm_ns = calm_ns
        self._silent_ns = silent_ns
        self._ids_max = ids_max
        self._ids = 0  # kept in all classes
        self.classes: dict[tuple[str, str], Storm] = {}

    def hides(self, source: str, kind: str, entity: str, number: int, now_ns: int) -> bool:
        """Count a new alarm; return whether its class is in a storm, so that it is only counted."""
        storm = self.classes.get((source, kind))
        if storm is None:
            if len(self.classes) >= CLASSES_MAX and not self._make_room(now_ns):
                return False
            storm = self.classes[source, kind] = Storm(source, kind, since_ns=now_ns)
        if now_ns - storm.since_ns >= WINDOW_NS:
            storm.since_ns, storm.new = now_ns, 0
        storm.new += 1
        storm.last_ns = now_ns
        if storm.new <= self._most:
            self._leave(storm, number)
            return False
        if number in storm.ids:
            return True
        storm.hidden += 1
        if self._ids < self._ids_max:
            storm.ids[number] = None
            self._ids += 1
        if len(storm.entities) < NAMED_MAX:
            storm.entities.append(entity)
        return True

    def clear(self, source: str, kind: str, number: int, now_ns: int) -> bool:
        """Take a clear that belongs to no alarm; return whether a storm had counted its raise."""
        storm = self.classes.get((source, kind))
        if storm is None:
            return False
        if not self._leave(storm, number):
            if storm.hidden == len(storm.ids):
                return False
            storm.hidden -= 1
        storm.last_ns = now_ns
        return True

    def _leave(self, storm: Storm, number: int) -> bool:
        """Count an alarm no longer; return whether its id was kept."""
        if number not in storm.ids:
            return False
        del storm.ids[number]
        self._ids -= 1
        storm.hidden -= 1
        return True

    def was_deaf(self, gap_ns: int) -> None:
        """Give sources the time in which nothing could be heard."""
        for storm in self.classes.values():
            storm.last_ns += gap_ns

    def restore(self, storms: Iterable[Storm]) -> None:
        """Take the classes of a checkpoint back."""
        self.classes = {(storm.source, storm.kind): storm for storm in storms}
        self._ids = sum(len(storm.ids) for storm in self.classes.values())

    def changed(self, now_ns: int) -> list[Storm]:
        """Return storms that began, doubled or are over; those over forget what they counted."""
        made = []
        for storm in self.classes.values():
            over = storm.up and now_ns >= self._ends_ns(storm)
            if over or (storm.hidden and (not storm.up or storm.hidden >= 2 * storm.told)):
                storm.up = not over
                storm.told = storm.hidden
                made.append(storm)
        return made

    @property
    def due_ns(self) -> int:
        """When the next storm is over if nothing comes of it any more."""
        ends = (self._ends_ns(storm) for storm in self.classes.values() if storm.up)
        return min(ends, default=NEVER_NS)

    def is_up(self, alarm: int) -> bool:
        """Whether an alarm stands for a storm that goes on."""
        return any(storm.up and storm.alarm == alarm for storm in self.classes.values())

    def _ends_ns(self, storm: Storm) -> int:
        return storm.last_ns + (self._silent_ns if storm.hidden else self._calm_ns)

    def forget(self, storm: Storm) -> None:
        """Drop a storm that is over."""
        self._ids -= len(storm.ids)
        del self.classes[storm.source, storm.kind]

    def _make_room(self, now_ns: int) -> bool:
        for key, storm in self.classes.items():
            if not (storm.hidden or storm.up) and now_ns - storm.last_ns >= WINDOW_NS:
                del self.classes[key]
                return True
        return False
