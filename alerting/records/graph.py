"""The network as a graph: who is next to whom, what is cut off, which links nothing stands in for."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from alerting.records.cuts import Cuts

NEIGHBOURS_MAX = 256  # looked at around one node; a hub with more joins nobody by nearness


class Graph:
    """Nodes and named links between two of them; parallel links are told apart by name."""

    def __init__(self, links: Iterable[tuple[str, str, str]], nodes: Iterable[str] = ()) -> None:
        """`links` are (name, one end, other end)."""
        self.ends: dict[str, tuple[str, str]] = {}
        self._next: dict[str, dict[str, list[str]]] = {node: {} for node in nodes}
        for name, a, b in links:
            if a == b or name in self.ends:
                continue
            self.ends[name] = (a, b)
            self._next.setdefault(a, {}).setdefault(b, []).append(name)
            self._next.setdefault(b, {}).setdefault(a, []).append(name)
        self._cuts: Cuts | None = None
        self._cores: list[set[str]] = []  # of each part
        self._near: dict[str, dict[str, int]] = {}
        self._cut: dict[tuple[frozenset[str], frozenset[str]], frozenset[str]] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._next

    @property
    def nodes(self) -> Collection[str]:
        """Every node."""
        return self._next.keys()

    def near(self, node: str) -> Mapping[str, int]:
        """Return nodes at most two hops away with their distance; a node alone where it is unknown.

        >>> Graph([("ab", "a", "b"), ("bc", "b", "c"), ("cd", "c", "d")]).near("a")
        {'a': 0, 'b': 1, 'c': 2}
        """
        found = self._near.get(node)
        if found is None:
            found = {node: 0}
            for hops in (1, 2):
                for one in [n for n, at in found.items() if at == hops - 1]:
                    for other in self._next.get(one, ()):
                        if len(found) < NEIGHBOURS_MAX:
                            found.setdefault(other, hops)
            if len(self._near) > 100_000:
                self._near.clear()
            self._near[node] = found
        return found

    def beside(self, node: str) -> Mapping[str, list[str]]:
        """Return the neighbours of a node with the links to each."""
        return self._next.get(node, {})

    def links_of(self, node: str) -> list[str]:
        """Return the names of a node's links."""
        return [name for names in self._next.get(node, {}).values() for name in names]

    def cut_off(self, links: Iterable[str], nodes: Iterable[str] = ()) -> frozenset[str]:
        """Return what cannot be reached from the core of the network without these links and nodes.

        The core is the largest part that no single link can split; in a network that is a tree, the
        largest part that is left. The nodes that are down themselves are not cut off.

        >>> links = [("ab", "a", "b"), ("bc", "b", "c"), ("ca", "c", "a"), ("cd", "c", "d")]
        >>> sorted(Graph(links).cut_off(["cd"]))
        ['d']
        """
        gone = frozenset(filter(self.ends.__contains__, links))
        down = frozenset(filter(self._next.__contains__, nodes))
        if not gone and not down:
            return frozenset()
        known = self._cut.get((gone, down))
        if known is not None:
            return known
        made: set[str] = set()
        for part in self._cuts_now().parted(gone, down):
            made |= self._apart(part, gone, down)
        if len(self._cut) > 1000:
            self._cut.clear()
        self._cut[gone, down] = frozenset(made)
        return self._cut[gone, down]

    def _apart(self, part: int, gone: frozenset[str], down: frozenset[str]) -> set[str]:
        """Return what of a part of the network is apart from its core."""
        cuts = self._cuts_now()
        whole, core = cuts.parts[part], self._core(part)
        found = cuts.pieces(part, gone, down)
        most = max(((len(one & core), len(one)) for one in found), default=(0, 0))
        cores = len(core) - sum(len(one & core) for one in found) - len(core & down)
        rest = len(whole) - sum(map(len, found)) - len(whole & down)
        if (cores, rest) <= most:  # the last one is not the largest
            last = whole.difference(down, *found)
            found += [last] if last else []
            found.remove(min(found, key=lambda one: (-len(one & core), -len(one), min(one))))
        return set().union(*found)

    def _cuts_now(self) -> Cuts:
        if self._cuts is None:
            self._cuts = Cuts(self.ends, self._next)
        return self._cuts

    def _core(self, part: int) -> set[str]:
        """Return the largest set of nodes of a part that stays whole whichever link fails."""
        if not self._cores:
            cuts = self._cuts_now()
            firm: list[list[set[str]]] = [[] for _ in cuts.parts]
            for one in self._firm(frozenset(cuts.bridges)):
                firm[cuts.part_of[next(iter(one))]].append(one)
            self._cores = [min(of, key=lambda one: (-len(one), min(one))) for of in firm]
        return self._cores[part]

    def _firm(self, gone: frozenset[str]) -> list[set[str]]:
        """Return the connected parts without some links."""
        seen: set[str] = set()
        parts = []
        for start in self._next:
            if start in seen:
                continue
            part = {start}
            seen.add(start)
            queue = deque([start])
            while queue:
                node = queue.popleft()
                for other, names in self._next[node].items():
                    if other not in seen and any(name not in gone for name in names):
                        seen.add(other)
                        part.add(other)
                        queue.append(other)
            parts.append(part)
        return parts

    def new_bridges(self, down: Collection[str]) -> list[str]:
        """Return the links that become the only way to something because some are down, in order.

        >>> Graph([("ab", "a", "b"), ("bc", "b", "c"), ("ca", "c", "a")]).new_bridges(["ab"])
        ['bc', 'ca']
        """
        known = [link for link in down if link in self.ends]
        found = self._cuts_now().bridges_without(known)
        return sorted(self.bridges(known) - self.bridges()) if found is None else found

    def bridges(self, without: Collection[str] = ()) -> set[str]:
        """Return the links whose loss would cut something off, given that some are down already.

        Tarjan (1974), by iteration; parallel links stand in for each other.

        >>> sorted(Graph([("ab", "a", "b"), ("bc", "b", "c"), ("ca", "c", "a")]).bridges(["ab"]))
        ['bc', 'ca']
        """
        gone = set(without)
        order: dict[str, int] = {}
        low: dict[str, int] = {}
        made = set()
        for root in self._next:
            if root in order:
                continue
            order[root] = low[root] = len(order)
            stack = [(root, "", iter(self._steps(root, gone)))]
            while stack:
                node, came_by, steps = stack[-1]
                for link, other in steps:
                    if link == came_by:
                        continue
                    if other in order:
                        low[node] = min(low[node], order[other])
                        continue
                    order[other] = low[other] = len(order)
                    stack.append((other, link, iter(self._steps(other, gone))))
                    break
                else:
                    stack.pop()
                    if stack:
                        above = stack[-1][0]
                        low[above] = min(low[above], low[node])
                        if low[node] > order[above]:
                            made.add(came_by)
        return made

    def _steps(self, node: str, gone: Collection[str]) -> list[tuple[str, str]]:
        return [
            (name, other)
            for other, names in self._next[node].items()
            for name in names
            if name not in gone
        ]
