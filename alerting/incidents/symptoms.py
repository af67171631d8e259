"""Alarms that nobody is told of because a fault cuts their way off: only as long as it does."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from alerting.records.alarm import NEVER_NS, Alarm
from alerting.records.incident import Incident
from alerting.records.places import Places


class Symptoms:
    """Knows which alarms are symptoms of a cut that is still there, and when to look again.

    What a cut took away comes back a little after it: what is still up `wait_ns` later has a fault of its own.
    """

    def __init__(
        self,
        places: Places,
        incidents: Mapping[int, Incident],
        incident_of: Mapping[int, int],
        wait_ns: int,
    ) -> None:
        """`incidents` and `incident_of` (alarm: its incident) are kept by their owner."""
        self._places = places
        self._incidents = incidents
        self._of = incident_of
        self._wait_ns = wait_ns
        # Incident: when to look at its symptoms, the first first, which is found at once in an OrderedDict.
        self._ended: OrderedDict[int, int] = OrderedDict()

    def __contains__(self, alarm: Alarm) -> bool:
        """Whether an alarm is in its incident because its way is cut, and it still is."""
        incident = self._incidents.get(self._of.get(alarm.id, 0))
        member = incident.members.get(alarm.id) if incident else None
        if incident is None or member is None or not member.behind:
            return False
        cut = self._places.graph.cut_off(incident.links_down(), incident.nodes_down())
        return any(node in cut for node in member.nodes)

    def cut_ended(self, number: int, now_ns: int) -> None:
        """Look at an incident's symptoms in a while: something that cut them off is over."""
        self._ended.setdefault(number, now_ns + self._wait_ns)

    @property
    def due_ns(self) -> int:
        """When to look next."""
        return next(iter(self._ended.values()), NEVER_NS)

    def due(self, now_ns: int) -> Iterator[Incident]:
        """Yield the incidents whose symptoms are to be looked at, each once."""
        while self.due_ns <= now_ns:
            number, _ = self._ended.popitem(last=False)
            if number in self._incidents:
                yield self._incidents[number]

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return list(self._ended.items())

    def restore(self, kept: Any) -> None:
        """Take it back."""
        self._ended = OrderedDict(kept)
