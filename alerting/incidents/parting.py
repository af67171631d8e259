"""What a cause that shows itself after its symptoms takes from other incidents: all of one, or a part.

Symptoms may be told before the fault that they are of, and those of two faults then look like one. When a
cause shows itself, each alarm around it is held against it by the same evidence that groups alarms
(`grouping`): its link, what it cuts off, and how often and how soon its kind sets off theirs. An incident
whose first alarms did not begin by themselves after all is one with the cause's; from one that has a cause of
its own it takes what is on its nodes, or names them, and is explained clearly better. It takes seldom: on synthetic
faults told up to 90 s late 3 alarms in 54 runs, 2 of them its own, none of the other incident's.
"""

from collections.abc import Iterator, Mapping

from alerting.incidents.companions import HERE, NAMED, NEXT, Companions
from alerting.records.incident import Incident, Member
from alerting.records.layers import LINK
from alerting.records.places import Places

SECOND_NS = 1_000_000_000
LATE_NS = 120_000_000_000  # so much later than its symptoms may a cause be told
LATE_LIKELY = 0.3  # causes that are told late
CLEARLY = 2.5  # times as likely as in the incident that has them
ALL_CLEARLY = 8.0  # as by itself, for a whole incident
CERTAIN = (1e9, 1e6)  # of its link, cut off by it: no count of companions weighs that much
INCIDENTS_MAX = 64  # that are looked at for one cause
MEMBERS_MAX = 60  # of one of them


class Parting:
    """Finds what a cause takes from other incidents. Keeps nothing."""

    def __init__(
        self,
        places: Places,
        incidents: Mapping[int, Incident],
        at: Mapping[str, Mapping[int, None]],
        companions: Companions,
    ) -> None:
        """`at` are the incidents of each node."""
        self._places = places
        self._incidents = incidents
        self._at = at
        self._companions = companions

    def claims(
        self, incident: Incident, cut: frozenset[str], now_ns: int
    ) -> Iterator[tuple[Incident, list[int]]]:
        """Yield other incidents with those of their alarms that are this one's; all where it is this one.

        `cut` is what it cuts off.
        """
        root = incident.members[incident.deepest()]
        if root.layer > LINK or incident.by_hand:
            return
        beside = [other for node in root.nodes for other in self._places.graph.beside(node)]
        around = dict.fromkeys((*root.nodes, *sorted(cut), *beside))
        found: dict[int, None] = {}
        for node in self._companions.busy_of(around):
            found.update(self._at.get(node, {}))
        if len(found) == 1 and incident.number in found:
            return
        for number in list(found)[-INCIDENTS_MAX:]:
            other = self._incidents[number]
            if now_ns - other.opened_ns > 2 * LATE_NS or len(other.members) > MEMBERS_MAX:
                continue  # most are: that is asked first
            if other is incident or not other.open or other.by_hand or other.primary:
                continue
            taken = self._taken(root, cut, other, now_ns)
            if taken:
                yield other, taken

    def _taken(self, root: Member, cut: frozenset[str], other: Incident, now_ns: int) -> list[int]:
        """Return what a root takes: all, or the alarms of nodes that are its own or that name these."""
        first = other.members[other.deepest()]
        if first.layer > LINK and all(self._may_go(one, now_ns) for one in other.members.values()):
            there = [one for one in other.members.values() if one.nodes == first.nodes]
            begins = max(self._companions.begins(one.kind, now_ns) for one in there)
            explained = max(self._explained(one, there, other) for one in there)
            ours = sum(self._weight(root, cut, one) for one in there)
            if ours > ALL_CLEARLY * max(begins, explained):
                return list(other.members)
        kept = {other.deepest(), other.root} if first.layer <= LINK else set()
        kept |= {other.root, other.front} if other.told_ns else set()  # it is told as these
        # Where no cause is known yet, being on one node says too little of who belongs together.
        telling = (HERE, NAMED) if first.layer <= LINK else (NAMED,)
        of_node: dict[str, list[int]] = {}
        for number, member in other.members.items():
            of_node.setdefault(member.nodes[0], []).append(number)
        made = []
        for numbers in of_node.values():
            going = [n for n in numbers if n not in kept and self._may_go(other.members[n], now_ns)]
            ours, theirs, begins = 0.0, 0.0, 0.0
            for number in going:
                member = other.members[number]
                if self._relation(root, member)[0] in telling or member.nodes[0] in cut:
                    ours += self._weight(root, cut, member)
                begins = max(begins, self._companions.begins(member.kind, now_ns))
                theirs += sum(
                    self._weight(one, frozenset(), member)
                    for of, one in other.members.items()
                    if one.layer < member.layer and (one is first or of not in numbers)
                )
            if ours > max(CLEARLY * theirs, begins):
                made += going
        return made if len(made) < len(other.members) else []

    def _explained(self, member: Member, beside: list[Member], incident: Incident) -> float:
        """Return how well what came before an alarm, and not beside it, explains it in its own incident."""
        return max(
            (
                self._weight(one, frozenset(), member)
                for one in incident.members.values()
                if one not in beside and one.raised_ns < member.raised_ns
            ),
            default=0.0,
        )

    def _may_go(self, member: Member, now_ns: int) -> bool:
        late = now_ns - member.raised_ns > LATE_NS
        return member.up and not late and member.layer > LINK and not member.primary

    def _weight(self, root: Member, cut: frozenset[str], member: Member) -> float:
        """Return how well one alarm explains another one, by where, what, and when they are."""
        if member.link and member.link == root.link:
            return CERTAIN[0]
        if member.nodes[0] in cut:
            return CERTAIN[1]
        relation, degree = self._relation(root, member)
        if relation < 0:
            return 0.0
        lag_ns = member.raised_ns - root.raised_ns
        if lag_ns < 0:  # how late a fault is told says nothing of how soon it acts
            share = self._companions.share(root.kind, member.kind, relation, degree)
            return share * LATE_LIKELY * SECOND_NS / LATE_NS
        return self._companions.weight(root.kind, member.kind, relation, degree, lag_ns)

    def _relation(self, root: Member, member: Member) -> tuple[int, int]:
        """Return how a member stands to a root, and how many neighbours that has; -1 for not at all."""
        graph = self._places.graph
        degree = len(graph.beside(root.nodes[0]))
        if any(node in root.nodes for node in member.nodes):
            return HERE, degree
        mentioned = self._places.of(member.entity, member.title).mentioned
        if any(node in root.nodes for node in mentioned):
            return NAMED, degree
        beside = any(one in graph.beside(node) for node in root.nodes for one in member.nodes)
        return (NEXT if beside else -1), degree
