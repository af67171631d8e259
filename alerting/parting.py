"""What a cause that shows itself after its symptoms takes from other incidents: all of one, or a part.

Symptoms may be told before the fault that they are of, and those of two faults then look like one. When a
cause shows itself, each alarm around it is held against it by the same evidence that groups alarms
(`grouping`): its link, what it cuts off, and how often and how soon its kind sets off theirs. An incident
whose first alarm did not begin by itself after all is merged into the cause's; from one that has a cause of
its own it takes those alarms that it explains clearly better.
"""

from collections.abc import Iterator, Mapping

from alerting.companions import HERE, NAMED, NEXT, Companions
from alerting.incident import Incident, Member
from alerting.layers import LINK
from alerting.places import Places

LATE_NS = 120_000_000_000  # so much later than its symptoms may a cause be told
LATE_LIKELY = 0.3  # causes that are told late
CLEARLY = 3.0  # times as likely as in the incident that has them
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

    def claims(self, incident: Incident, now_ns: int) -> Iterator[tuple[Incident, list[int]]]:
        """Yield other incidents with those of their alarms that are this one's; all where it is this one."""
        root = incident.members[incident.deepest()]
        if root.layer > LINK or incident.by_hand:
            return
        links, nodes = incident.links_down(), incident.nodes_down()
        graph = self._places.graph
        cut = graph.cut_off(links, nodes) if links or nodes else frozenset()
        around = dict.fromkeys([*root.nodes, *sorted(cut)])
        for node in root.nodes:
            around.update(dict.fromkeys(graph.beside(node)))
        found: dict[int, None] = {}
        for node in self._companions.busy_of(around):
            found.update(self._at.get(node, {}))
        for number in list(found)[-INCIDENTS_MAX:]:
            other = self._incidents[number]
            if other is incident or not other.open or other.by_hand or other.primary:
                continue
            if len(other.members) > MEMBERS_MAX or now_ns - other.opened_ns > 2 * LATE_NS:
                continue
            theirs = other.members[other.deepest()]
            if theirs.layer > LINK:
                if now_ns - other.opened_ns <= LATE_NS and self._begins_here(root, cut, theirs, now_ns):
                    yield other, list(other.members)
            elif taken := self._taken(root, cut, other, now_ns):
                yield other, taken

    def _begins_here(self, root: Member, cut: frozenset[str], theirs: Member, now_ns: int) -> bool:
        begins = self._companions.begins(theirs.kind, now_ns)
        return self._weight(root, cut, theirs) > CLEARLY * begins

    def _taken(self, root: Member, cut: frozenset[str], other: Incident, now_ns: int) -> list[int]:
        keep = {other.deepest(), other.root, other.front}
        made = []
        for number, member in other.members.items():
            if number in keep or not member.up or member.layer <= LINK or member.behind:
                continue
            if now_ns - member.raised_ns > LATE_NS:
                continue
            ours = self._weight(root, cut, member)
            theirs = sum(
                self._weight(one, frozenset(), member)
                for of, one in other.members.items()
                if of != number
            )
            if ours > CLEARLY * theirs:
                made.append(number)
        return made

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
        late = LATE_LIKELY if lag_ns < 0 else 1.0
        return late * self._companions.weight(root.kind, member.kind, relation, degree, abs(lag_ns))

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
