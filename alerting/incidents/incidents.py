"""Incidents: how they begin, grow, are told and end. Which one an alarm joins: `grouping`.

Streaming, a few dictionary look-ups for each change. An incident is open while anything under it is
up; its key is fixed when people first hear of it; title and root may move in its first minute, and
twice after. Merged or split by an operator only new alarms join it, and what they did is learned.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import pairwise
from typing import Any

import msgspec

from alerting.config import AlertingSettings
from alerting.incidents.explain import Explainer
from alerting.incidents.grouping import Grouping
from alerting.incidents.suspects import Suspects
from alerting.incidents.symptoms import Symptoms
from alerting.records.alarm import NEVER_NS, OURS, PRIMARY, SEVERITIES, Alarm
from alerting.records.incident import Incident, Member, incident_id, member_of
from alerting.records.layers import LINK, POWER, Nature, nature_of
from alerting.records.places import Place, Places
from telemetry.identity import stable_id

INCIDENTS_MAX = 20_000
TOLD_TOGETHER = 64  # incidents; while they are on their way the next ones are put into words
PARTED_MAX = 5  # sentences about what went from one incident to another


class Incidents:
    """All incidents that are open, or were not long ago."""

    def __init__(
        self,
        settings: AlertingSettings,
        places: Places,
        suspects: Suspects,
        explainer: Explainer,
        alarm: Callable[[int], Alarm | None],
    ) -> None:
        self._settings = settings
        self._places = places
        self._suspects = suspects
        self._explainer = explainer
        self._alarm = alarm
        self._wait_ns = round(settings.wait_seconds * 1e9)
        self._again_ns = round(settings.update_seconds * 1e9)
        self._calm_ns = round(settings.reopen_seconds * 1e9)
        self._repeat_ns = round(settings.repeat_hours * 3600e9)
        self.all: dict[int, Incident] = {}
        self._of: dict[int, int] = {}  # alarm: its incident
        self.grouping = Grouping(settings, places, self.all, self._of)
        self.symptoms = Symptoms(places, self.all, self._of, self._wait_ns)
        self._raised: dict[int, list[int]] = {}  # alarm: when it was last raised, a few times
        # The first of an OrderedDict is found at once; of a dict behind all that were taken out before it.
        self._closed: OrderedDict[int, None] = OrderedDict()  # in order of closing
        self._waiting: OrderedDict[int, None] = OrderedDict()  # not told yet
        self._changed: dict[int, bool] = {}  # incident: whether the change is told at once
        # Alarms that are of another incident, or a symptom, since the last tick.
        self._altered: dict[int, None] = {}

    # ---- alarms come and go

    def take(self, alarm: Alarm, now_ns: int, *, hidden: bool) -> None:
        """Take a change of an alarm. One that is hidden begins no incident and joins none."""
        incident = self.all.get(self._of.get(alarm.id, 0))
        member = incident.members.get(alarm.id) if incident else None
        blip = alarm.state == "cleared" and alarm.raised_ns == alarm.cleared_ns == now_ns
        if alarm.up or blip:
            if incident is not None and member is not None and incident.open and member.up:
                self._update(incident, member, alarm, hidden=hidden)
            elif not hidden:
                self._raise(alarm, incident, now_ns)
        elif incident is not None and member is not None and member.up:
            member.up = False
            if member.cuts:
                self.symptoms.cut_ended(incident.number, now_ns)
            self._touch(incident, at_once=False)
            self._settle(incident, now_ns)

    def _update(self, incident: Incident, member: Member, alarm: Alarm, *, hidden: bool) -> None:
        at_once = alarm.id == incident.front and not hidden
        at_once |= SEVERITIES.index(alarm.severity) < SEVERITIES.index(incident.severity)
        member.severity, member.title = alarm.severity, alarm.title
        if hidden != member.hidden:
            member.hidden, incident.hides = hidden, True
        at_once |= incident.follow(member, alarm)
        incident.first = 0
        self._touch(incident, at_once=at_once)

    def _raise(self, alarm: Alarm, before: Incident | None, now_ns: int) -> None:
        place, nature = self._places.of(alarm.entity, alarm.title), nature_of(alarm)
        if nature.change and alarm.source != OURS:
            self._suspects.changed(place.nodes[0], alarm, now_ns)
        times = self._raised.setdefault(alarm.id, [])
        times.append(now_ns)
        del times[: -self._settings.repeat_changes]
        parents = self.grouping.parents(alarm, place, nature, now_ns)
        behind = False
        back = before if before and self._comes_back(before, alarm, times, now_ns) else None
        if back is not None and (back.open or back.is_root(alarm.id, place.link)):
            incident = back
        else:  # a symptom that is back may be one of another fault now
            found, behind = self.grouping.find(alarm, place, nature, parents, now_ns)
            incident = found or back or self._begin(alarm, now_ns)
        if not incident.open:
            self._reopen(incident, now_ns)
        self.grouping.learn(alarm, place, nature, parents, now_ns)
        cut = self._join(incident, alarm, place, nature, now_ns, behind=behind)
        if nature.layer <= LINK:
            for other, cut_off in self.grouping.absorbable(incident, cut, now_ns):
                incident = self._unite(incident, other, now_ns, behind=cut_off)
                cut = self.grouping.mark_cut(incident)
            for other, taken in list(self.grouping.parting.claims(incident, cut, now_ns)):
                if len(taken) == len(other.members):
                    incident = self._unite(incident, other, now_ns, behind=False)
                else:
                    self._take_over(incident, other, taken, now_ns)
        if not alarm.up:
            incident.members[alarm.id].up = False
            self._settle(incident, now_ns)

    def _comes_back(self, before: Incident, alarm: Alarm, times: list[int], now_ns: int) -> bool:
        """Whether an alarm re-opens the incident that it was part of."""
        if before.open:
            return True
        if before.parent:
            return False
        if alarm.raised_ns == before.members[alarm.id].raised_ns:
            return True  # the same occurrence
        # What our own rules name anew after its clearing was confirmed is a fault of its own.
        repeats = alarm.source != OURS and len(times) >= self._settings.repeat_changes
        return repeats and now_ns - before.closed_ns <= self._repeat_ns

    def _begin(self, alarm: Alarm, now_ns: int) -> Incident:
        number = incident_id(alarm)
        while number in self.all:  # it began another one before, which was merged or split
            number = stable_id(f"incident|{number}|{now_ns}")
        incident = Incident(number, alarm.id, alarm.id, alarm.raised_ns, last_ns=now_ns)
        if len(self.all) >= INCIDENTS_MAX and self._closed:
            self._drop(next(iter(self._closed)))
        self.all[number] = incident
        self._waiting[number] = None
        return incident

    def _join(
        self, incident: Incident, alarm: Alarm, place: Place, nature: Nature, now_ns: int,
        *, behind: bool,
    ) -> frozenset[str]:  # fmt: skip
        """Take an alarm into an incident; return what that cuts off now."""
        primary = alarm.source == OURS and alarm.kind in PRIMARY
        incident.add(alarm.id, member_of(alarm, place, nature, primary=primary, behind=behind))
        self._of[alarm.id] = alarm.incident = incident.number
        incident.last_ns = now_ns
        for node in place.nodes:
            incident.nodes[node] = now_ns
        self.grouping.put(incident, place.nodes)
        if place.link and nature.link_down:
            self.grouping.fell(incident, place.link, now_ns)
        if behind and not alarm.suppressed:
            alarm.suppressed = "parent"
        self._touch(incident, at_once=alarm.id == incident.front)
        return self.grouping.mark_cut(incident)

    def _reopen(self, incident: Incident, now_ns: int) -> None:
        incident.reopen(anew=now_ns - incident.closed_ns > self._calm_ns)
        self._closed.pop(incident.number, None)
        incident.state = "pending" if not incident.told_ns else "reopening"
        if not incident.told_ns:
            self._waiting[incident.number] = None
        self._touch(incident, at_once=True)

    # ---- merged and split

    def _unite(
        self, incident: Incident, symptoms: Incident, now_ns: int, *, behind: bool
    ) -> Incident:
        """Make a cause's incident and one of its symptoms one: that which people know already."""
        if not symptoms.told_ns or incident.told_ns:
            self._merge(incident, symptoms, now_ns, behind=behind)
            return incident
        self._mark_all_behind(symptoms, behind=behind)
        self._merge(symptoms, incident, now_ns, behind=False)
        return symptoms

    def _mark_all_behind(self, incident: Incident, *, behind: bool) -> None:
        if not behind:
            return
        incident.first = 0
        for number, member in incident.members.items():
            member.behind = True
            alarm = self._alarm(number)
            if alarm is not None and alarm.up and not alarm.suppressed:
                alarm.suppressed = "parent"
                self._altered[number] = None

    def _merge(self, into: Incident, other: Incident, now_ns: int, *, behind: bool) -> None:
        self._mark_all_behind(other, behind=behind)
        for number, member in other.members.items():
            into.add(number, copy(member))  # as a checkpoint has it: each its own
            self._belongs(number, into)
        for node, at in other.nodes.items():
            into.nodes[node] = max(into.nodes.get(node, 0), at)
        into.last_ns = max(into.last_ns, other.last_ns)
        into.hides |= other.hides
        self.grouping.move(into, other)
        other.parent, other.closed_ns = into.number, now_ns
        self._waiting.pop(other.number, None)
        self._closed[other.number] = None
        self._changed[other.number] = True
        if other.told_ns and not into.told_ns:
            into.told_ns = now_ns  # who hears that the one is over hears of the other
        self._touch(into, at_once=bool(other.told_ns))
        self.grouping.mark_cut(into)
        if not into.open and any(member.up for member in into.members.values()):
            self._reopen(into, now_ns)

    def _belongs(self, number: int, incident: Incident) -> Alarm | None:
        """Let an alarm be another incident's from now on; return it."""
        self._of[number] = incident.number
        alarm = self._alarm(number)
        if alarm is not None:
            alarm.incident = incident.number
            self._altered[number] = None
        return alarm

    def altered(self, now_ns: int) -> list[Alarm]:
        """Return the alarms that are of another incident, a symptom, or none any more, since the last call."""
        for incident in self.symptoms.due(now_ns):
            for alarm in self._members(incident):
                if alarm.up and alarm.suppressed == "parent" and alarm not in self.symptoms:
                    alarm.suppressed = ""
                    self._altered[alarm.id] = None
        altered, self._altered = self._altered, {}
        return self._known(altered)

    def _whole(self, number: int) -> Incident | None:
        """Return the incident that people mean by a number: that which it became part of, where it did."""
        incident = self.all.get(number)
        while incident is not None and incident.parent:
            incident = self.all.get(incident.parent)
        return incident

    def merge(self, numbers: list[int], now_ns: int, by: str) -> bool:
        """Merge incidents into the first of them; what came together here is learned."""
        found = {one.number: one for one in map(self._whole, numbers) if one is not None}
        if len(found) < 2:
            return False
        into, *others = found.values()
        for other in others:
            for kind in into.kinds:
                for theirs in other.kinds:
                    if kind != theirs:
                        self.grouping.companions.said(kind, theirs, together=True)
            if into.acknowledged and not other.acknowledged and other.open:
                into.acknowledged = ""  # nobody has taken on all of it
            self._merge(into, other, now_ns, behind=False)
        into.by_hand, into.operator = True, by
        self._touch(into, at_once=True)
        return True

    def _take_over(
        self, incident: Incident, other: Incident, numbers: list[int], now_ns: int
    ) -> None:
        """Let an incident have alarms that were taken for another one's before its cause showed itself."""
        self._move(incident, other, numbers)
        count = len(numbers)
        words = f"{count} alarm{'s' if count > 1 else ''} that came before"
        for one, what in ((incident, f"were taken for {other.title_of(other.deepest())}"),
                          (other, f"belong to {incident.title_of(incident.deepest())}")):  # fmt: skip
            one.parted = [*one.parted[1 - PARTED_MAX :], f"{words} {what}"]
            self._touch(one, at_once=True)
        self.grouping.mark_cut(incident)
        self._settle(other, now_ns)

    def _move(self, into: Incident, other: Incident, numbers: list[int]) -> None:
        """Move some alarms, not all, from one incident to another."""
        for number in numbers:
            member = other.leave(number)
            into.add(number, member)
            member.behind = False
            alarm = self._belongs(number, into)
            if alarm is not None and alarm.suppressed == "parent":
                alarm.suppressed = ""
            for node in member.nodes:
                into.nodes[node] = max(into.nodes.get(node, 0), other.nodes[node])
        if other.front not in other.members:  # not told yet, or split by hand
            other.front = next(iter(other.members))
        if other.root not in other.members:
            other.root = other.deepest()
        into.hides |= other.hides
        left = {node for member in other.members.values() for node in member.nodes}
        gone = [node for node in other.nodes if node not in left]
        self.grouping.leave(other, gone)
        for node in gone:
            del other.nodes[node]
        self.grouping.put(into, into.nodes)

    def split(self, number: int, alarms: list[int], now_ns: int, by: str) -> bool:
        """Take alarms out of an incident into one of their own; that they differ is learned."""
        incident = self._whole(number)
        if incident is None:
            return False
        going = [one for one in alarms if one in incident.members]
        if not going or len(going) == len(incident.members):
            return False
        staying = [one for one in incident.members if one not in going]
        for one in going:
            for other in staying:
                kinds = incident.members[one].kind, incident.members[other].kind
                if kinds[0] != kinds[1]:
                    self.grouping.companions.said(*kinds, together=False)
        first = self._alarm(going[0])
        if first is None:
            return False
        new = self._begin(first, now_ns)
        self._move(new, incident, going)
        new.by_hand = incident.by_hand = True
        new.operator = incident.operator = by
        for one_of in (new, incident):
            one_of.first = 0
            one_of.root = one_of.deepest()
            self.grouping.put(one_of, one_of.nodes)
            self._touch(one_of, at_once=True)
            self._settle(one_of, now_ns)
        return True

    # ---- what is told

    def _touch(self, incident: Incident, *, at_once: bool) -> None:
        self._changed[incident.number] = self._changed.get(incident.number, False) or at_once

    def touch(self, number: int) -> None:
        """Tell an incident anew: what operators did with it changed."""
        if number in self.all:
            self._touch(self.all[number], at_once=True)

    def _settle(self, incident: Incident, now_ns: int) -> None:
        """Close an incident under which nothing is up any more."""
        if incident.open and not any(member.up for member in incident.members.values()):
            incident.closed_ns = now_ns
            self._closed[incident.number] = None
            self._waiting.pop(incident.number, None)
            self._touch(incident, at_once=True)
            self._suspects.ended(incident)

    def advance(self, now_ns: int) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of incidents that changed or whose wait is over, a part at a time.

        In order of their ids; where they are more than one part, the gravest go first.
        """
        for number in self._waiting:
            incident = self.all[number]
            if incident.state == "pending" and self._is_due(incident, now_ns):
                self._touch(incident, at_once=True)
        # One step for all, then the next: of what a step needs the processor then has all at hand.
        changed = [self.all[number] for number in sorted(self._changed)]
        told = [(one, front) for one in changed if (front := self._move_on(one, now_ns))]
        if len(told) > TOLD_TOGETHER:  # those that were merged first: their heirs have their sinks
            told.sort(key=lambda pair: (not pair[0].parent, SEVERITIES.index(pair[0].severity)))
        merged = sum([bool(one.parent) for one, _ in told])
        edges = range(merged + TOLD_TOGETHER, len(told), TOLD_TOGETHER)
        for begins, ends in pairwise((0, *edges, len(told))):
            if ends > begins:
                yield self._rows(told[begins:ends], now_ns)
        self._expire(now_ns)

    def _rows(self, told: list[tuple[Incident, Alarm]], now_ns: int) -> list[dict[str, Any]]:
        """Return the rows of incidents, each with the alarm that it is told as."""
        rows = []
        for one, front in told:
            if one.state in ("raised", "updated") or not (one.told_ns or one.parent):
                self._suspects.judge(one, self._members(one), now_ns)
            # Title, place, kind and explanation are all of the alarm that seems to be the cause.
            alarm = front if one.root == one.front else self._alarm(one.root) or front
            rows.append(one.row(alarm, self._explainer.incident(one, alarm)))
            one.origin = ""
        return rows

    @property
    def open(self) -> int:
        """How many are open."""
        return len(self.all) - len(self._closed)

    @property
    def due_ns(self) -> int:
        """When the wait of the incident that waits longest is over."""
        first = next(iter(self._waiting), None)
        told_ns = self.all[first].opened_ns + self._wait_ns if first is not None else NEVER_NS
        return min(told_ns, self.symptoms.due_ns)

    def _is_due(self, incident: Incident, now_ns: int) -> bool:
        own = self._alarm(incident.front)
        if own is not None and own.source == OURS:
            return True
        return now_ns - incident.opened_ns >= self._wait_ns

    def _move_on(self, incident: Incident, now_ns: int) -> Alarm | None:
        """Move an incident on to its next state; return the alarm it is told as, None where it can wait."""
        at_once = incident.hide() or self._changed[incident.number]
        before = (incident.severity, incident.root)
        self._judge(incident, now_ns)
        worse = SEVERITIES.index(incident.severity) < SEVERITIES.index(before[0])
        if worse and incident.changed_ns and incident.acknowledged == "until-worse":
            incident.acknowledged = ""
        at_once = at_once or worse or incident.root != before[1]
        state = self._next_state(incident, now_ns)
        if state == "updated":
            grown = len(incident.members) >= 2 * incident.told_count
            if not at_once and not (grown and now_ns - incident.changed_ns >= self._again_ns):
                if not grown:
                    del self._changed[incident.number]
                return None
        del self._changed[incident.number]
        # Its front may be over for so long that it is forgotten, while others of it are up.
        front = self._alarm(incident.front) or next(iter(self._members(incident)), None)
        front = front or incident.members[incident.front].remembered(incident.front)
        if state == "raised" and not incident.told_ns:
            incident.told_ns = now_ns
        if state != "pending":
            self._waiting.pop(incident.number, None)
        incident.state, incident.changed_ns = state, now_ns
        incident.told_count = len(incident.members)
        return front

    def _next_state(self, incident: Incident, now_ns: int) -> str:
        if not incident.open:
            if incident.parent:
                return "cleared" if incident.told_ns else "merged"
            return "cleared" if incident.told_ns else "pending"
        if incident.state in ("raised", "updated"):
            return "updated"
        if incident.told_ns or self._is_due(incident, now_ns):
            return "raised"
        return "pending"

    def _judge(self, incident: Incident, now_ns: int) -> None:
        """Judge severity, symptoms, root and title anew."""
        incident.severity = incident.worst()
        links = incident.links_down()
        if links:
            self._mark_behind(incident, links)
        incident.choose_root(now_ns)

    def _mark_behind(self, incident: Incident, links: frozenset[str]) -> None:
        """Mark members whose way to the network these links cut: they are symptoms, not causes.

        Not what lost its power, nor a node all of whose several links are down: there the node is
        the likelier cause.
        """
        cut = self._places.graph.cut_off(links)
        for member in incident.members.values():
            away = all(node in cut for node in member.nodes)
            if not away or member.layer == POWER or member.link in links:
                continue
            around = set(self._places.graph.links_of(member.nodes[0]))
            behind = not (member.node_down and len(around) > 1 and around <= links)
            if behind != member.behind:
                member.behind, incident.first = behind, 0

    def _members(self, incident: Incident) -> list[Alarm]:
        return self._known(incident.members)

    def _known(self, numbers: Iterable[int]) -> list[Alarm]:
        return [alarm for number in numbers if (alarm := self._alarm(number)) is not None]

    def _expire(self, now_ns: int) -> None:
        """Forget incidents that closed too long ago to come back."""
        while self._closed:
            number = next(iter(self._closed))
            if now_ns - self.all[number].closed_ns < self._repeat_ns:
                break
            self._drop(number)

    def _drop(self, number: int) -> None:
        incident = self.all.pop(number)
        self._closed.pop(number, None)
        self._waiting.pop(number, None)
        self._changed.pop(number, None)
        for alarm in incident.members:
            if self._of.get(alarm) == number:
                del self._of[alarm]
                self._raised.pop(alarm, None)
        self.grouping.drop(incident)

    def listed(self, *, open_only: bool, limit: int) -> list[dict[str, Any]]:
        """Return the incidents that people were told of, the open ones first, the newest first."""
        told = [one for one in self.all.values() if one.told_ns and not one.parent]
        if open_only:
            told = [one for one in told if one.open]
        told.sort(key=lambda one: (not one.open, -one.changed_ns, one.number))
        return [one.shown() for one in told[:limit]]

    # ---- checkpoint

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "all": list(self.all.values()),
            "raised": list(self._raised.items()),
            "closed": list(self._closed),
            "waiting": list(self._waiting),
            "changed": list(self._changed.items()),
            "of": list(self._of.items()),
            "symptoms": self.symptoms.snapshot(),
            "grouping": self.grouping.snapshot(),
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        found = (msgspec.convert(fields, Incident) for fields in kept["all"])
        for incident in found:
            incident.cutting = {n: None for n, member in incident.members.items() if member.cuts}
            self.all[incident.number] = incident
        self._raised = dict(kept["raised"])
        self._closed = OrderedDict.fromkeys(kept["closed"])
        self._waiting = OrderedDict.fromkeys(kept["waiting"])
        self._changed = dict(kept["changed"])
        self._of.update(kept["of"])
        self.symptoms.restore(kept.get("symptoms", ()))
        self.grouping.restore(kept.get("grouping", kept))
