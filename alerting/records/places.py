"""Where an alarm is: the node, link and neighbours that its entity and its words name."""

import re

import msgspec

from alerting.records.graph import Graph
from runtime.ports import Link, NetworkMap
from telemetry.identity import prefix_number

KNOWN_MAX = 100_000
_WORD = re.compile(r"[A-Za-z0-9_.\-]{2,64}")
_AFTER_NODE = re.compile(r"[:/ ]")
MENTIONED_MAX = 4


class Place(msgspec.Struct, frozen=True):
    """Where something is. A link is at both its ends."""

    nodes: tuple[str, ...]  # never empty
    link: str = ""
    mentioned: tuple[str, ...] = ()  # other nodes that its words name, and the far end of its port


class Places:
    """Finds places by the network map; a device that it does not know is a node of its own."""

    def __init__(self, network: NetworkMap, graph: Graph | None = None) -> None:
        self._network = network
        self._fixed = graph is not None
        self._version = network.topology(0)
        self._links = _links(network)
        self.graph = graph or _graph(network, self._links)
        self._known: dict[tuple[str, str], Place] = {}
        self._split: dict[str, tuple[str, str]] = {}  # entity: its node and what follows
        self._words: dict[str, str] = {}  # word: the node that it names, or ""

    def refresh(self, now_ns: int) -> None:
        """Look at the network anew where its links changed."""
        version = self._network.topology(now_ns)
        if version != self._version and not self._fixed:
            self._version = version
            self._links = _links(self._network)
            self.graph = _graph(self._network, self._links)
            self._known.clear()
            self._split.clear()
            self._words.clear()

    def customer(self, entity: str) -> str:
        """Return who is behind an interface, or ""."""
        node, rest = self._node_of(entity)
        faces = self._network.interfaces_of(node) if rest else ()
        return next((f.customer for f in faces if rest in (f.name, str(f.index))), "")

    def of(self, entity: str, words: str = "") -> Place:
        """Return the place of an entity; `words` may name others (`BGP neighbour lon1 is down`)."""
        key = (entity, words)
        place = self._known.get(key)
        if place is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            place = self._known[key] = self._find(entity, words)
        return place

    def site(self, node: str) -> str:
        """Return the site where a node stands, or ""."""
        return self._network.site_of(node)

    def nodes_at(self, site: str) -> list[str]:
        """Return the nodes of a site; a router's own name is a site of one."""
        found = [node for node in self._network.routers() if self._network.site_of(node) == site]
        return found or [site]

    def knows(self, name: str) -> bool:
        """Whether a name is a node or a site of the network map."""
        return name in self.graph or self.nodes_at(name) != [name]

    def behind(self, nodes: list[str]) -> list[str]:
        """Return these nodes and what loses its way to the network without them."""
        return sorted({*nodes, *self.graph.cut_off((), nodes)})

    def link_name(self, entity: str) -> bool:
        """Whether an entity is a link of the network map."""
        return entity in self._links or entity in self.graph.ends

    def _find(self, entity: str, words: str) -> Place:
        if entity in self.graph.ends:
            return Place(self.graph.ends[entity], entity)
        node, rest = self._node_of(entity)
        link = self._link_of(node, rest) if rest else ""
        if link:  # what hurts at a port may come from its far end, as if the words named it
            far = (end for end in self.graph.ends.get(link, ()) if end != node)
            named = dict.fromkeys((*far, *self._mentioned(words, node)))
            return Place((node,), link, tuple(named)[:MENTIONED_MAX])
        return Place((node,), "", self._mentioned(words, node))

    def _node_of(self, entity: str) -> tuple[str, str]:
        found = self._split.get(entity)
        if found is None:
            if len(self._split) >= KNOWN_MAX:
                self._split.clear()
            found = self._split[entity] = self._take_apart(entity)
        return found

    def _take_apart(self, entity: str) -> tuple[str, str]:
        if entity in self.graph:
            return entity, ""
        if prefix_number(entity) is not None:
            if "/" in entity:
                return self._network.router_of_prefix(entity) or entity, ""
            return self._network.router_of(entity), ""
        match = _AFTER_NODE.search(entity)
        if match is None:
            return self._network.router_of(entity), ""
        return self._network.router_of(entity[: match.start()]), entity[match.end() :]

    def _link_of(self, node: str, rest: str) -> str:
        """Return the link that an interface ends, by its name or its number."""
        for face in self._network.interfaces_of(node):
            if face.link and rest in (face.name, str(face.index)):
                return face.link
        for link in self._network.links_of(node):
            if any(router == node and str(index) == rest for router, index in link.ends):
                return link.name
        return ""

    def _mentioned(self, words: str, node: str) -> tuple[str, ...]:
        known = self._words
        found = _WORD.findall(words)
        names = [known[word] if word in known else self._named(word) for word in found]
        return tuple(dict.fromkeys([one for one in names if one and one != node]))[:MENTIONED_MAX]

    def _named(self, word: str) -> str:
        if len(self._words) >= KNOWN_MAX:
            self._words.clear()
        name = self._network.router_of(word)
        self._words[word] = name if name in self.graph.nodes else ""
        return self._words[word]


def _links(network: NetworkMap) -> dict[str, Link]:
    return {link.name: link for router in network.routers() for link in network.links_of(router)}


def _graph(network: NetworkMap, links: dict[str, Link]) -> Graph:
    ends = ((link.name, link.ends[0][0], link.ends[1][0]) for link in links.values())
    return Graph(ends, network.routers())
