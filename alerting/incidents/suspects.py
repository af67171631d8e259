"""Why: ranked probable causes with their evidence, what a fault touches, what redundancy is left."""

from collections import Counter, deque
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from alerting.life.windows import Windows
from alerting.records.alarm import OURS, Alarm
from alerting.records.incident import Incident
from alerting.records.layers import (
    ATTACK,
    EQUIPMENT,
    LAYERS,
    LINK,
    LOAD,
    POWER,
    SOFTWARE,
    nature_of,
    says_lost,
)
from alerting.records.places import Places
from alerting.words.amounts import rounded
from runtime.ports import NetworkMap
from telemetry.identity import id_text

EVENT_NODES_MAX = 2_000  # nodes of which changes and software events are remembered
EVENTS_MAX = 8  # of one node
NEAR_NS = 900_000_000_000  # so long before a fault may its cause lie
AFTER_EVENT_NS = 60_000_000_000  # and its message may be so late
AFTER_WORK_NS = 3_600_000_000_000  # so long after planned work is it a suspect
CAUSES_SHOWN = 5
BRIDGES_MAX = 64  # of which is asked what they would cut
NAMED_MAX = 10
SERVICE_CUTS = (EQUIPMENT, LINK, ATTACK)  # layers whose alarms take service from what they name
PAST_KINDS_MAX = 200  # kinds of root of which past incidents are remembered
PAST_MAX = 20  # of one kind
SIMILAR_SHOWN = 3
SIMILAR_LEAST = 0.5
SHOWN_OF_PAST = ("id", "title", "opened_ns", "closed_ns", "ended")

# How likely a cause of each kind is before anything is known of this case: changes and planned
# works lead every published survey of outages, so they stand above what they set off.
CHANGE, PLANNED, SOFT = "change", "planned-work", "software"
NODE_DOWN, LOST = "node-down", 0.9  # named by no alarm: its neighbours lost all links to it
NAMED, OTHERWISE = 0.95, 0.5  # what a rule of ours names first, and what else it could be
PRIOR = {
    PLANNED: 0.9,
    "power": 0.85,
    CHANGE: 0.8,
    "equipment": 0.7,
    "link": 0.65,
    SOFT: 0.6,
    "attack": 0.6,
    "load": 0.35,
    "protocol": 0.3,
    "other": 0.2,
}
# Entities, and (how like, place among the past ones, entity, what is shown), the likest first.
_Ranked = tuple[set[str], list[tuple[float, int, str, dict[str, Any]]]]


class Suspects:
    """Ranks causes. Remembers changes, software events, and incidents of the past; all bounded."""

    def __init__(self, network: NetworkMap, places: Places, windows: Windows) -> None:
        self._network = network
        self._places = places
        self._windows = windows
        self._events: dict[str, deque[tuple[int, str, str]]] = {}
        self._past: dict[str, dict[str, dict[str, Any]]] = {}
        self._known: dict[tuple[str, tuple[str, ...]], _Ranked] = {}  # what `_ranked` found

    def changed(self, node: str, alarm: Alarm, now_ns: int) -> None:
        """Remember that a configuration changed."""
        self.event(CHANGE, node, f"{alarm.source}: {alarm.title or alarm.kind}", now_ns)

    def event(self, kind: str, node: str, words: str, now_ns: int) -> None:
        """Remember something that happened on a node: a change, a software event."""
        events = self._events.pop(node, None) or deque(maxlen=EVENTS_MAX)
        events.append((now_ns, kind, words))
        self._events[node] = events  # the newest node last
        if len(self._events) > EVENT_NODES_MAX:
            del self._events[next(iter(self._events))]

    def before(self, nodes: Sequence[str], at_ns: int) -> list[str]:
        """Return what happened on nodes just before a moment, in words, the newest first."""
        if not self._events:
            return []
        found = [
            (at_ns - then_ns, f"{words} on {node}")
            for node in nodes
            for then_ns, _, words in self._events.get(node, ())
            if -AFTER_EVENT_NS <= at_ns - then_ns <= NEAR_NS
        ]
        return [f"{words}, {_ago(ns)} the first sign" for ns, words in sorted(found)]

    # ---- causes

    def judge(self, incident: Incident, alarms: Sequence[Alarm], now_ns: int) -> None:
        """Set an incident's causes, impact and similar ones of the past."""
        found = self._of_alarms(incident, alarms) + self._of_nodes(incident)
        if self._events:
            found += self._of_events(incident)
        if self._windows.any:
            found += self._of_works(incident, alarms, now_ns)
        if len(found) > 1:
            found.sort(key=lambda cause: (-cause["likely"], cause["kind"], cause["entity"]))
        ranked: dict[tuple[str, str], dict[str, Any]] = {}
        for cause in found:
            name = cause["kind"], cause["entity"]
            if name not in ranked:
                rank, sure = len(ranked) + 1, _words(cause["likely"])
                ranked[name] = {**cause, "rank": rank, "sure": sure}
        incident.causes = list(ranked.values())[:CAUSES_SHOWN]
        incident.impact = self.impact(incident)
        if incident.told_ns == now_ns:
            incident.similar = self._similar(incident)

    def _of_alarms(self, incident: Incident, alarms: Sequence[Alarm]) -> list[dict[str, Any]]:
        root = incident.members[incident.root]
        site = self._places.site(root.nodes[0])
        made: list[dict[str, Any]] = []
        for alarm in alarms:
            member = incident.members[alarm.id]
            if member is root:
                own = alarm.explain.get("causes", []) if alarm.source == OURS else []
                if own:
                    made += [
                        {**cause, "likely": max(OTHERWISE - 0.1 * (i - 1), 0.1) if i else NAMED}
                        for i, cause in enumerate(own)
                    ]
                    continue
                others = len(incident.members) - 1
                why = f"the deepest fault of {others + 1} alarms" if others else alarm.title
                made.append(
                    _cause(alarm.kind, alarm.entity, 0.1 + PRIOR[LAYERS[member.layer]], why)
                )
            elif member.layer in (POWER, ATTACK, SOFTWARE) and not nature_of(alarm).change:
                same = site and self._places.site(member.nodes[0]) == site
                near = set(member.nodes) & set(root.nodes)
                if same or near:
                    likely = PRIOR[LAYERS[member.layer]] - (0.0 if near else 0.1)
                    made.append(_cause(alarm.kind, alarm.entity, likely, alarm.title))
            elif member.layer == LOAD and member.raised_ns < root.raised_ns:
                made.append(_cause("load", alarm.entity, PRIOR["load"], alarm.title))
        return made

    def _of_nodes(self, incident: Incident) -> list[dict[str, Any]]:
        """Return the node all of whose links are down, as its several neighbours say and it says nothing."""
        links = incident.links_down()
        if len(links) < 2:
            return []
        graph = self._places.graph
        ends = Counter(end for link in links for end in graph.ends.get(link, ()))
        most = max(ends.values(), default=0)
        for node in sorted(node for node, down in ends.items() if down == most):
            if most < len(graph.links_of(node)) or len(graph.beside(node)) < 2:
                continue
            own = [one for one in incident.members.values() if one.nodes[0] == node]
            if all(says_lost(one.kind) and not one.node_down for one in own):
                why = f"all {most} of its links are down, and it says nothing"
                return [_cause(NODE_DOWN, node, LOST, why)]
        return []

    def _of_events(self, incident: Incident) -> list[dict[str, Any]]:
        root = incident.members[incident.root]
        nodes = dict.fromkeys(root.nodes, 0)
        for own in root.nodes:
            for node, hops in self._places.graph.near(own).items():
                nodes.setdefault(node, hops)
        made = []
        for node, hops in nodes.items():
            for at_ns, kind, words in self._events.get(node, ()):
                before_ns = root.raised_ns - at_ns
                if not -AFTER_EVENT_NS <= before_ns <= NEAR_NS:
                    continue
                likely = PRIOR[kind] + 0.15 - 0.25 * hops - 0.3 * max(before_ns, 0) / NEAR_NS
                made.append(
                    _cause(kind, node, likely, f"{words}, {_ago(before_ns)} the first sign")
                )
        return made

    def _of_works(
        self, incident: Incident, alarms: Sequence[Alarm], now_ns: int
    ) -> list[dict[str, Any]]:
        root = next((alarm for alarm in alarms if alarm.id == incident.root), None)
        if root is None:
            return []
        place = self._places.of(root.entity, root.title)
        made = []
        for window in self._windows.near(root, place, now_ns, AFTER_WORK_NS):
            going = window.span(now_ns) is not None
            state = "goes on" if going else "should be over: it overruns, or it broke this"
            words = f"planned work {window.name}{f' ({window.reason})' if window.reason else ''}"
            made.append(_cause(PLANNED, root.entity, PRIOR[PLANNED] + 0.05, f"{words} {state}"))
        return made

    # ---- impact

    def impact(self, incident: Incident) -> dict[str, Any]:
        """Return what an incident touches, and what one more failure would cut.

        Links, nodes that are cut off, sites; customers and services of these and of the ports and
        prefixes that its alarms name; capacity of the links that are down and of the ports that are
        cut off with their node, in bit/s; redundancy left.
        """
        links, nodes = sorted(incident.links_down()), sorted(incident.nodes_down())
        cut = sorted(self._places.graph.cut_off(links, nodes)) if links or nodes else []
        touched = [*nodes, *cut]
        entities = {m.entity for m in incident.members.values() if m.up and m.layer in SERVICE_CUTS}
        customers = set(map(self._places.customer, entities))
        services: set[str] = set()
        served = self._network.served
        for name in entities.union(touched, links):
            theirs, runs = served(name)
            if theirs or runs:
                customers.update(theirs)
                services.update(runs)
        sites = set(map(self._places.site, touched))
        customers.discard("")
        sites.discard("")
        made: dict[str, Any] = {
            "links": links[:NAMED_MAX],
            "cut_off": cut[:NAMED_MAX],
            "cut_off_count": len(cut),
            "sites": _first(sites),
            "customers": _first(customers),
            "customers_count": len(customers),
            "services": _first(services),
            "services_count": len(services),
            "capacity_bits_per_second": sum(map(self._capacity, links)),
            "capacity_behind_bits_per_second": sum(map(self._capacity_behind, touched)),
        }
        if links:
            made["redundancy"] = self._redundancy(links)
        return made

    def _capacity(self, name: str) -> int:
        link = self._network.link(name)
        faces = (
            face
            for router, index in (link.ends if link is not None else ())
            for face in self._network.interfaces_of(router)
            if face.index == index
        )
        known = max((face.speed_bits_per_second for face in faces), default=0)
        return known or (link.bits_per_second if link is not None else 0)

    def _capacity_behind(self, node: str) -> int:
        faces = self._network.interfaces_of(node)
        return sum([face.speed_bits_per_second for face in faces if face.customer]) if faces else 0

    def _redundancy(self, down: list[str]) -> list[dict[str, Any]]:
        """Return the links that became the only way by this, with what the loss of one would cut."""
        graph = self._places.graph
        made = []
        for name in graph.new_bridges(down)[:BRIDGES_MAX]:
            behind = sorted(graph.cut_off([*down, name]) - graph.cut_off(down))
            made.append({"if": name, "cuts": behind[:NAMED_MAX], "cuts_count": len(behind)})
        made.sort(key=lambda one: (-int(str(one["cuts_count"])), str(one["if"])))
        return made[:CAUSES_SHOWN]

    # ---- the past

    def ended(self, incident: Incident) -> None:
        """Remember an incident that is over, by the kind of its root."""
        if incident.parent:
            return
        self._known.clear()
        root = incident.members[incident.root]
        number = id_text(incident.number)
        past = self._past.pop(root.kind, {})
        past.pop(number, None)
        past[number] = {
            "id": number,
            "kinds": list(incident.kinds),
            "entity": root.entity,
            "title": incident.title,
            "opened_ns": incident.opened_ns,
            "closed_ns": incident.closed_ns,
            "ended": _ended(incident),
        }
        if len(past) > PAST_MAX:
            del past[next(iter(past))]
        self._past[root.kind] = past  # the newest kind last
        if len(self._past) > PAST_KINDS_MAX:
            del self._past[next(iter(self._past))]

    def _similar(self, incident: Incident) -> list[dict[str, Any]]:
        """Return past incidents of this root kind with much the same alarms, the likest first."""
        root = incident.members[incident.root]
        number = id_text(incident.number)
        entities, ranked = self._ranked(root.kind, tuple(incident.kinds))
        if root.entity in entities:
            again = (
                (a + 0.3 * (entity == root.entity), place, entity, shown)
                for a, place, entity, shown in ranked
            )
            ranked = sorted(again, key=itemgetter(0, 1), reverse=True)
        found: list[dict[str, Any]] = []
        for alike, _, _, shown in ranked:
            if alike < SIMILAR_LEAST or len(found) == SIMILAR_SHOWN:
                break
            if shown["id"] != number:
                found.append(shown)
        return found

    def _ranked(self, kind: str, kinds: tuple[str, ...]) -> _Ranked:
        """Return past incidents of a root kind by how like these kinds theirs are, and where they were.

        Kept until the next incident ends: a hundred that begin in one tick ask the same.
        """
        known = self._known.get((kind, kinds))
        if known is None:
            if len(self._known) >= PAST_KINDS_MAX:
                self._known.clear()
            past = self._past.get(kind, {}).values()
            ranked = []
            for place, one in enumerate(past):
                same = len(set(kinds).intersection(one["kinds"]))
                alike = same / (len(kinds) + len(one["kinds"]) - same)
                shown = {name: one[name] for name in SHOWN_OF_PAST}
                ranked.append((0.7 * alike, place, one["entity"], shown))
            ranked.sort(key=itemgetter(0, 1), reverse=True)
            known = self._known[kind, kinds] = ({one["entity"] for one in past}, ranked)
        return known

    # ---- checkpoint

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "events": [[node, list(events)] for node, events in self._events.items()],
            "past": [[kind, list(past.values())] for kind, past in self._past.items()],
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        self._events = {
            node: deque(((at, kind, words) for at, kind, words in events), EVENTS_MAX)
            for node, events in kept["events"]
        }
        self._known.clear()
        self._past = {kind: {one["id"]: one for one in past} for kind, past in kept["past"]}


def _first(names: set[str]) -> list[str]:
    return sorted(names)[:NAMED_MAX] if names else []


def _cause(kind: str, entity: str, likely: float, why: str) -> dict[str, Any]:
    return {"kind": kind, "entity": entity, "likely": rounded(min(likely, 0.99), 3), "why": why}


def _ago(before_ns: int) -> str:
    seconds = before_ns / 1e9
    return f"{seconds:.0f} s before" if before_ns >= 0 else f"{-seconds:.0f} s after"


def _words(likely: float) -> str:
    return "very likely" if likely >= 0.85 else "likely" if likely >= 0.6 else "possible"


def _ended(incident: Incident) -> str:
    """Return in words what ended an incident."""
    said = [one.get("note", "") for one in incident.said if one.get("note")]
    minutes = (incident.closed_ns - incident.opened_ns) / 60e9
    return said[-1] if said else f"it cleared by itself after {minutes:.0f} min"
