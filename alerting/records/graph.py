"""The network as a graph: who is next to whom, what is cut off, which links nothing stands in for."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

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
        self._whole: list[set[str]] | None = None  # its parts while all is up
        self._cores: dict[str, set[str]] = {}
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
        if self._whole is None:
            self._whole = self._parts(frozenset(), frozenset())
        parts = self._parts(gone, down)
        # Only what was one part before is cut off by this.
        made: set[str] = set()
        for before in self._whole:
            inside = [part for part in parts if part <= before]
            if len(inside) > 1:
                core = self._core(before)
                inside.sort(key=lambda part: (-len(part & core), -len(part), min(part)))
                for part in inside[1:]:
                    made |= part
        if len(self._cut) > 1000:
            self._cut.clear()
        self._cut[gone, down] = frozenset(made)
        return self._cut[gone, down]

    def _core(self, whole: set[str]) -> set[str]:
        """Return the largest set of nodes of a part that stays whole whichever link fails."""
        key = min(whole)
        if key not in self._cores:
            firm = [p for p in self._parts(frozenset(self.bridges()), frozenset()) if p <= whole]
            self._cores[key] = min(firm, key=lambda part: (-len(part), min(part)))
        return self._cores[key]

    def _parts(self, gone: frozenset[str], down: frozenset[str]) -> list[set[str]]:
        seen: set[str] = set(down)
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
