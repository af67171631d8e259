"""Which links together part a network, told without a search of all of it.

Each link that closes a ring over a spanning forest gets a random word; each link of the forest the exclusive or
of the words of those that close a ring with it. A set of links is a cut where its words add up to nothing, and
else is none, but for a chance of 2^-64. What such a cut leaves apart is found by searching from all its ends at
once until all but the last one are through: that costs what the small sides do.

Source: Pritchard and Thurimella, Fast computation of small cuts via cycle space sampling, ACM TALG 7(4), 2011.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from telemetry.identity import stable_id

SUMS_MAX = 10  # links of which all sums are looked at

# Of each node, its neighbours with the links to each.
Beside = Mapping[str, Mapping[str, list[str]]]


class Cuts:
    """The words of a graph's links, and its parts while all is up."""

    def __init__(self, ends: Mapping[str, tuple[str, str]], beside: Beside) -> None:
        self._ends = ends
        self._beside = beside
        self.parts: list[set[str]] = []
        self.part_of: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self._with_word: dict[int, list[str]] = {}
        order, came_by = self._forest()
        tree = {link for link, _ in came_by.values()}
        open_words = dict.fromkeys(beside, 0)  # of the rings that go on above a node
        for link, (a, b) in ends.items():
            if link not in tree:
                self._words[link] = word = stable_id(f"ring|{link}")
                open_words[a] ^= word
                open_words[b] ^= word
        for node in reversed(order):
            if node in came_by:
                link, above = came_by[node]
                self._words[link] = open_words[node]
                open_words[above] ^= open_words[node]
        for link, word in self._words.items():
            self._with_word.setdefault(word, []).append(link)

    def _forest(self) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """Return all nodes, those above before those below, and by which link each came from which node."""
        order: list[str] = []
        came_by: dict[str, tuple[str, str]] = {}
        for start in self._beside:
            if start in self.part_of:
                continue
            self.part_of[start] = len(self.parts)
            queue = deque([start])
            part = {start}
            while queue:
                node = queue.popleft()
                order.append(node)
                for other, links in self._beside[node].items():
                    if other not in part:
                        part.add(other)
                        self.part_of[other] = len(self.parts)
                        came_by[other] = links[0], node
                        queue.append(other)
            self.parts.append(part)
        return order, came_by

    @property
    def bridges(self) -> list[str]:
        """Links whose loss alone parts the network."""
        return self._with_word.get(0, [])

    def parted(self, links: Collection[str], nodes: Collection[str]) -> list[int]:
        """Return the parts of which these links and nodes leave more than one piece, beside the nodes themselves."""
        of_part: dict[int, set[str]] = {}
        for link in links:
            of_part.setdefault(self.part_of[self._ends[link][0]], set()).add(link)
        for node in nodes:
            lost = of_part.setdefault(self.part_of[node], set())
            lost.update(link for some in self._beside[node].values() for link in some)
        alone: dict[int, int] = {}
        for node in nodes:
            alone[self.part_of[node]] = alone.get(self.part_of[node], 0) + 1
        return [
            part for part, lost in of_part.items()
            if len(lost) - len(_basis(self._words[link] for link in lost)) > alone.get(part, 0)
        ]  # fmt: skip

    def bridges_without(self, down: Collection[str]) -> list[str] | None:
        """Return the links that become bridges when some are down; None where these are too many."""
        basis = _basis(self._words[link] for link in down)
        if len(basis) > SUMS_MAX:
            return None
        sums = [0]
        for word in basis:
            sums += [one ^ word for one in sums]
        found = (link for word in sums[1:] for link in self._with_word.get(word, ()))
        return sorted(link for link in found if link not in down)

    def pieces(self, part: int, links: Collection[str], nodes: Collection[str]) -> list[set[str]]:
        """Return the pieces that these leave of a part, but for the one that is found last."""
        whole = self.parts[part]
        ends = [end for link in links for end in self._ends[link]]
        ends += [other for node in nodes for other in self._beside[node]]
        starts = {end: None for end in ends if end in whole and end not in nodes}
        # Of each node that was reached, the start that it is with.
        owner = {node: node for node in starts}
        of: dict[str, tuple[set[str], deque[str]]] = {
            node: ({node}, deque([node])) for node in starts
        }
        going = deque(starts)
        done: list[set[str]] = []
        while len(going) > 1:
            start = going.popleft()
            if start not in of:
                continue  # met another one
            seen, queue = of[start]
            if not queue:
                done.append(seen)
                del of[start]
                continue
            going.append(start)
            node = queue.popleft()
            for other, names in self._beside[node].items():
                if other in nodes or all(name in links for name in names):
                    continue
                theirs = owner.get(other)
                if theirs is None:
                    owner[other] = start
                    seen.add(other)
                    queue.append(other)
                elif theirs != start:
                    start = self._join(of, owner, start, theirs)
                    seen, queue = of[start]
        return done

    @staticmethod
    def _join(
        of: dict[str, tuple[set[str], deque[str]]], owner: dict[str, str], one: str, other: str
    ) -> str:
        """Let the larger of two searches that met go on with what both reached; return it."""
        if len(of[one][0]) < len(of[other][0]):
            one, other = other, one
        seen, queue = of.pop(other)
        of[one][0].update(seen)
        of[one][1].extend(queue)
        owner.update(dict.fromkeys(seen, one))
        return one


def _basis(words: Iterable[int]) -> list[int]:
    """Return words of which no sum is nothing, and of which all others are sums."""
    found: list[int] = []
    for word in words:
        for one in found:
            word = min(word, word ^ one)
        if word:
            found.append(word)
    return found
