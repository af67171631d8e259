"""Which incident an alarm belongs to: the one whose alarms explain it best, or none of them.

What explains an alarm, the surest first: the incident is about its link; the incident's fault cuts
its way to the network; a raise of the incident most likely set it off (`companions`). The last is
weighed against all other incidents and against the alarm having begun by itself, so two faults side
by side stay two. What no evidence overrules is in `_refuses`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from alerting.config import AlertingSettings
from alerting.incidents.companions import HERE, NEXT, SOON, Companions, Parent
from alerting.incidents.parting import Parting
from alerting.records.alarm import OURS, PRIMARY, ROUTE_FAULTS, Alarm
from alerting.records.incident import NONE, Incident, Member
from alerting.records.layers import ATTACK, EQUIPMENT, LINK, POWER, Nature
from alerting.records.places import Place, Places

LATE_NS = 60_000_000_000  # a cause may be reported so much later than its first symptom
PHYSICAL_NS = 10_000_000_000  # one cause takes several links down within seconds
ABSORB_NS = 60_000_000_000  # symptoms that came before their cause
LASTING_LEAST = 0.3  # trouble that its node has had for hours is preferred to a new one
# So much likelier than a beginning of its own must be that a raise next door, or any other, set an alarm off: a cause
# that joins wrongly takes its own symptoms along.
NEXT_ODDS, ODDS = 2.5, 1.5


class Grouping:
    """Finds the incident of an alarm. Knows which incidents are where, and what they cut off."""

    def __init__(
        self,
        settings: AlertingSettings,
        places: Places,
        incidents: Mapping[int, Incident],
        incident_of: Mapping[int, int],
    ) -> None:
        """`incidents` and `incident_of` (alarm: its incident) are kept by their owner."""
        self._settings = settings
        self._places = places
        self._group_ns = round(settings.group_seconds * 1e9)
        self._repeat_ns = round(settings.repeat_hours * 3600e9)
        self._incidents = incidents
        self._of = incident_of
        self._at: dict[str, dict[int, None]] = {}  # node: incidents there, the newest last
        self._on: dict[str, int] = {}  # link: the newest incident about it
        # Node: when a link of it went down last, and the incident.
        self._fell: dict[str, tuple[int, int]] = {}
        self._cut: dict[str, int] = {}  # node that is cut off: by which incident
        self.companions = Companions(self._group_ns, len(places.graph.nodes))
        self.parting = Parting(places, incidents, self._at, self.companions)

    # ---- finding

    def parents(self, alarm: Alarm, place: Place, nature: Nature, now_ns: int) -> list[Parent]:
        """Return the raises that may have set this one off."""
        near = self.companions.busy_of(self._places.graph.beside(place.nodes[0]))
        return self.companions.parents(
            alarm.kind, nature.layer, place.nodes, near, place.mentioned, now_ns
        )

    def learn(
        self, alarm: Alarm, place: Place, nature: Nature, parents: list[Parent], now_ns: int
    ) -> None:
        """Remember a raise, and learn from it what sets off what."""
        degree = len(self._places.graph.beside(place.nodes[0]))
        self.companions.learn(
            alarm.kind, nature.layer, place.nodes, alarm.id, parents, degree=degree, now_ns=now_ns
        )

    def find(
        self, alarm: Alarm, place: Place, nature: Nature, parents: list[Parent], now_ns: int
    ) -> tuple[Incident | None, bool]:
        """Return the incident that explains an alarm best, and whether the alarm is cut off by it."""
        if place.link:
            found = self._about_link(alarm, place, nature, now_ns)
            if found is None and nature.link_down:
                found = self._about_node(alarm, place, nature, now_ns)
            if found is not None:
                return found, False
        if place.nodes[0] in self._cut:
            over = self._cut_by(alarm, place, nature, now_ns)
            if over is not None:
                return over, True
        if parents:
            return self._likeliest(alarm, place, nature, parents, now_ns), False
        return None, False

    def _about_link(
        self, alarm: Alarm, place: Place, nature: Nature, now_ns: int
    ) -> Incident | None:
        incident = self._incidents.get(self._on.get(place.link, 0))
        if incident is None or self._refuses(incident, alarm, place, nature, now_ns):
            return None
        root = incident.members[incident.root]
        if root.link == place.link:
            going = incident.open and root.up and root.link_down
        else:
            going = incident.open and place.link in incident.links_down()
        return incident if going or now_ns - incident.last_ns <= self._group_ns else None

    def _about_node(
        self, alarm: Alarm, place: Place, nature: Nature, now_ns: int
    ) -> Incident | None:
        """Return the incident in which another link of the same node went down seconds ago: one cause has both."""
        for node in self._places.graph.ends.get(place.link, ()):
            at_ns, number = self._fell.get(node, (0, 0))
            if now_ns - at_ns > PHYSICAL_NS:
                continue
            incident = self._incidents.get(number)
            if incident is None or not incident.open:
                continue
            if not self._refuses(incident, alarm, place, nature, now_ns, rooted=True):
                return incident
        return None

    def _cut_by(self, alarm: Alarm, place: Place, nature: Nature, now_ns: int) -> Incident | None:
        incident = self._incidents.get(self._cut[place.nodes[0]])
        if incident is None or not incident.open:
            return None
        if alarm.kind in PRIMARY and alarm.source == OURS and incident.primary:
            return None
        # Power that fails, hardware that breaks and attacks are no consequence of a lost way.
        if nature.layer in (POWER, EQUIPMENT, ATTACK) and not nature.node_down:
            return None
        graph = self._places.graph
        links, nodes = incident.links_down(), incident.nodes_down()
        # Nor are other links that go down behind it, but for what it takes along.
        if nature.link_down:
            at_once = now_ns - incident.last_ns <= PHYSICAL_NS
            ends = {*nodes, *(end for link in links if at_once for end in graph.ends.get(link, ()))}
            around = graph.ends.get(place.link, (*place.nodes, *graph.beside(place.nodes[0])))
            if ends.isdisjoint(around):
                return None
        return incident if place.nodes[0] in graph.cut_off(links, nodes) else None

    def _likeliest(
        self, alarm: Alarm, place: Place, nature: Nature, parents: list[Parent], now_ns: int
    ) -> Incident | None:
        """Return the incident with the raise that most likely set an alarm off, if it did not begin itself."""
        begins = self.companions.begins(alarm.kind, now_ns)
        weights: dict[int, float] = {}
        odds: dict[int, float] = {}
        lasting: dict[int, float] = {}
        rooted: set[int] = set()  # incidents whose root, or a physical fault, explains the alarm
        for weight, number, _, relation, delay in parents:
            of = self._of.get(number, 0)
            incident = self._incidents.get(of)
            if incident is None:
                continue
            if relation == HERE and nature.link_down:
                if _is_another_port(incident.members[number], alarm, now_ns):
                    continue
            if delay >= SOON:
                if not incident.open and now_ns - incident.closed_ns > self._repeat_ns:
                    continue
                lasting[of] = lasting.get(of, 0.0) + weight
            if weight > begins and (
                number == incident.root or incident.members[number].layer <= LINK
            ):
                rooted.add(of)
            weights[of] = max(weights.get(of, 0.0), weight)
            likelier = weight / (NEXT_ODDS if relation == NEXT else ODDS)
            odds[of] = max(odds.get(of, 0.0), likelier)
        for found, sure, least in (
            (weights, odds, begins),
            (lasting, lasting, begins * LASTING_LEAST),
        ):
            for of in sorted(found, key=lambda one: -found[one]):
                if sure[of] <= least:
                    continue
                incident = self._incidents[of]
                rooted_in = of in rooted
                if not self._refuses(incident, alarm, place, nature, now_ns, rooted=rooted_in):
                    return incident
                # What cannot hold it did not set it off: nothing is learned from that.
                parents[:] = [one for one in parents if self._of.get(one[1]) != of]
        return None

    def _refuses(
        self, incident: Incident, alarm: Alarm, place: Place, nature: Nature, now_ns: int,
        *, rooted: bool = False,
    ) -> bool:  # fmt: skip
        """Whether an incident cannot hold an alarm, whatever speaks for it."""
        root = incident.members[incident.root]
        if alarm.source == OURS:
            if not incident.open:
                return True
            if alarm.kind in PRIMARY and (
                incident.primary or incident.of_routes or incident.is_of_another(place.link)
            ):
                return True
        if alarm.kind in ROUTE_FAULTS and incident.primary:
            return True
        if place.link and place.link == root.link:
            return False
        if place.link and place.link in incident.links_down():
            return False
        layer = nature.layer
        if layer <= LINK:
            if place.link and root.link and root.layer <= LINK:
                together = now_ns - incident.last_ns <= PHYSICAL_NS
                if not together or not self._share_end(place.link, root.link):
                    return True
            # A deeper fault that comes late is no symptom.
            if layer < root.layer and now_ns - incident.opened_ns > LATE_NS:
                return True
        if any(node in root.nodes for node in place.nodes):
            return False
        if layer == EQUIPMENT and root.layer <= LINK and not nature.node_down:
            # Hardware breaks by itself, or with the power of its site, not with its neighbours'.
            site = self._places.site(place.nodes[0])
            if not site or site not in {self._places.site(node) for node in root.nodes}:
                return True
        if len(incident.members) >= self._settings.incident_alarms_max and not rooted:
            return True
        return not self._is_within_reach(root, place)

    def _share_end(self, link: str, other: str) -> bool:
        ends = self._places.graph.ends
        return not set(ends.get(link, ())).isdisjoint(ends.get(other, ()))

    def _is_within_reach(self, root: Member, place: Place) -> bool:
        """Whether a place is near enough to the root, or the words of either name the other."""
        near = self._places.graph.near(place.nodes[0])
        return any(node in near or node in place.mentioned for node in root.nodes)

    def absorbable(
        self, incident: Incident, cut: frozenset[str], now_ns: int
    ) -> list[tuple[Incident, bool]]:
        """Return incidents of symptoms that came just before their cause, and whether it cuts them off.

        Each once, on however many nodes it is.
        """
        root = incident.members[incident.root]
        found: dict[int, tuple[Incident, bool]] = {}
        for node in [*root.nodes, *sorted(cut)]:
            for number in self._at.get(node, ()):
                other = self._incidents[number]
                if now_ns - other.opened_ns > ABSORB_NS or other is incident or number in found:
                    continue
                if not other.open or other.by_hand or other.primary:
                    continue
                theirs = other.members[other.root]
                same = theirs.link and theirs.link == root.link
                if not same and (theirs.layer <= LINK or (other.hard_up and node not in cut)):
                    continue
                if same or set(other.nodes) <= {*root.nodes, *cut}:
                    found[number] = other, node in cut
        return list(found.values())

    # ---- what is where

    def fell(self, incident: Incident, link: str, now_ns: int) -> None:
        """Note that an incident has an alarm of a link that is down."""
        self._on[link] = incident.number
        for node in self._places.graph.ends.get(link, ()):
            self._fell[node] = now_ns, incident.number

    def put(self, incident: Incident, nodes: Iterable[str]) -> None:
        """Note that an incident has alarms on some nodes, and which link it is about."""
        for node in nodes:
            here = self._at.setdefault(node, {})
            here.pop(incident.number, None)
            here[incident.number] = None
        link = incident.members[incident.root].link
        if link:
            self._on[link] = incident.number

    def move(self, into: Incident, other: Incident) -> None:
        """Note that what was of one incident is of another now."""
        for node in other.nodes:
            here = self._at.setdefault(node, {})
            here[into.number] = None
            here.pop(other.number, None)
        for link in {member.link for member in other.members.values()}:
            if self._on.get(link) == other.number:
                self._on[link] = into.number

    def mark_cut(self, incident: Incident) -> frozenset[str]:
        """Note what an incident's links and nodes that are down cut off, and return it."""
        if not incident.cutting:
            return NONE
        cut = self._places.graph.cut_off(incident.links_down(), incident.nodes_down())
        for node in cut:
            self._cut[node] = incident.number
        return cut

    def drop(self, incident: Incident) -> None:
        """Forget where an incident was."""
        self.leave(incident, incident.nodes)

    def leave(self, incident: Incident, nodes: Iterable[str]) -> None:
        """Note that an incident has no alarms on some nodes any more."""
        for node in nodes:
            here = self._at.get(node)
            if here is not None:
                here.pop(incident.number, None)
                if not here:
                    del self._at[node]

    # ---- checkpoint

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "at": [[node, list(numbers)] for node, numbers in self._at.items()],
            "on": list(self._on.items()),
            "fell": list(self._fell.items()),
            "cut": list(self._cut.items()),
            "companions": self.companions.snapshot(),
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        self._at.clear()
        self._at.update((node, dict.fromkeys(numbers)) for node, numbers in kept["at"])
        self._on, self._cut = dict(kept.get("on", ())), dict(kept["cut"])
        self._fell = {node: (at_ns, number) for node, (at_ns, number) in kept.get("fell", ())}
        self.companions.restore(kept["companions"])


def _is_another_port(member: Member, alarm: Alarm, now_ns: int) -> bool:
    """Whether a member is of another port that went down before: one cause takes them down within seconds."""
    late = now_ns - member.raised_ns > PHYSICAL_NS
    return late and member.link_down and member.entity != alarm.entity
