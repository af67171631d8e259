"""Which raise set off which: learned while alarms come, and from what operators merge and split.

Every raise either began by itself or was set off by one of the raises shortly before it, on its own
node, next to it, or on a node that its words name. How often each kind sets off each other one, how
soon, and how often each begins by itself is learned by counting every raise for its possible parents
in proportion to their weight (a self-exciting point process, fitted by online EM). So a quiet network
lets an alarm minutes later still belong, a busy one asks for better evidence, and a kind that is
always a cause joins nobody.

Source: Zhuang, Ogata, Vere-Jones (2002), Stochastic declustering of space-time earthquake
occurrences, JASA 97; Cappe, Moulines (2009), On-line EM, JRSS B 71.
"""

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from alerting.records.layers import LAYERS

HERE, NEXT, NAMED = 0, 1, 2  # where a parent is: on the node, on a neighbour, where the words say
KINDS_MAX = 512  # those beyond it count as one
KINDS = KINDS_MAX + 1
RECENT_MAX = 12  # raises of one node
BUSY_NODES_MAX = 20_000  # nodes of which raises are remembered
PARENTS_MAX = 32  # that are weighed for one raise, the nearest and newest first
PAIRS_MAX = 100_000
FORGET_AFTER = 50_000  # raises, then all counts are halved: networks change
PAIR_LEAST = 0.01  # smaller counts are forgotten then

# What is believed before anything was seen, and how many raises that is worth: little, so that a
# handful of faults teaches which kinds are causes. Deeper trouble sets off what lies above it.
TRUST = 0.1
DEEPER, LEVEL, ABOVE, SAME_KIND = 0.09, 0.045, 0.009, 0.03
FARTHER = (1.0, 1.0 / 3.0, 10.0)  # by where the parent is; who names a node means it
NEIGHBOURS_USUAL = 3  # of a hub's many neighbours a fault is felt by fewer
BEGINS_TRUST, BEGINS_SECONDS = 1.0, 86_400.0  # a node begins so many faults in so long
KINDS_USUAL = 5

SOON = 8  # steps of delay up to the window, each twice as long as the one before it
LASTING = 8  # and so many more on the node itself, where trouble may last
DELAYS_TRUST = 20.0
# Of how soon one kind is felt next door to another: how many raises make it count as much as what is learned of
# all pairs, and the least part of one that is noted.
OWN_TRUST, OWN_LEAST = 10.0, 0.1
OWN_PAIRS_MAX = 10_000
SOON_SECONDS, LATE_SECONDS, LATE_SHARE = 20.0, 100.0, 0.2
LASTING_SHARE = 0.05

SAID_TIMES = 100.0  # by what a merge by hand makes two kinds likelier; a split keeps them apart
SEEN_TOGETHER = 10.0  # raises that one set off by the other: it takes a split for each so many to keep them apart
SAID_MOST = 3


# A raise that may have set off another: (weight, its alarm, pair of kinds, where, step of delay).
Parent = tuple[float, int, int, int, int]


class Companions:
    """Recent raises of each node, and counts of who set off whom; all bounded."""

    def __init__(self, window_ns: int, nodes: int = 0) -> None:
        """`nodes` of the network, as far as it is known."""
        self._window_ns = window_ns
        self._nodes = nodes
        self._seen_nodes: dict[str, None] = {}
        self._numbers: dict[str, int] = {}
        self._layers: list[int] = []
        self._set_off: dict[int, float] = {}  # pair: raises so explained
        self._chances: list[list[float]] = [[], [], []]  # where, kind: places where it could
        self._began: list[float] = []  # kind: raises that nothing set off
        self._began_all = 0.0
        self._raises = 0
        self._first_ns = 0
        seconds = window_ns / 1e9
        prior = [share * DELAYS_TRUST for share in _delays_before(seconds)]
        self._delays = [list(prior) for _ in FARTHER]
        self._delays_all = [sum(prior)] * len(FARTHER)
        self._own_delays: dict[int, list[float]] = {}  # pair next door: of it alone, the sum last
        self._ahead = [1.0 - felt for felt in accumulate(_delays_before(seconds)[:SOON])]
        self._widths = [seconds / (1 << SOON) * (1 << max(i, 1)) for i in range(SOON + LASTING)]
        # After how long the next step of delay begins, rounded up: as many have passed as a delay has steps.
        self._steps = [-(-(window_ns << i) >> SOON - 1) for i in range(SOON + LASTING)]
        self._said: dict[tuple[int, int], int] = {}
        # at, kind, alarm, degree; the node with the newest raise last
        self._recent: OrderedDict[str, list[tuple[int, int, int, int]]] = OrderedDict()

    # ---- one raise

    def parents(
        self, kind: str, layer: int, nodes: Iterable[str], near: Sequence[str],
        named: Iterable[str], now_ns: int,
    ) -> list[Parent]:  # fmt: skip
        """Return what may have set off a raise now: on its nodes, next to it, where its words say."""
        number = self._number(kind, layer)
        found: list[Parent] = []
        for node in nodes:
            self._weigh(found, number, node, HERE, now_ns)
        for other in named:
            self._weigh(found, number, other, NAMED, now_ns)
        for other in self._newest_first(near):
            if len(found) >= PARENTS_MAX:
                break
            self._weigh(found, number, other, NEXT, now_ns)
        return found

    def _newest_first(self, near: Sequence[str]) -> Sequence[str]:
        """Return busy nodes by their newest raise, where they are so many that some are not looked at."""
        if len(near) * RECENT_MAX <= PARENTS_MAX:
            return near
        return sorted(near, key=lambda node: -self._recent[node][-1][0])

    def _weigh(
        self, found: list[Parent], number: int, node: str, relation: int, now_ns: int
    ) -> None:
        recent = self._recent.get(node)
        if recent is None:
            return
        set_off, said, widths = self._set_off, self._said, self._widths
        own_delays, ahead, steps = self._own_delays, self._ahead, self._steps
        earliest_ns = now_ns - self._window_ns * (1 << LASTING if relation == HERE else 1)
        delays, chances = self._delays[relation], self._chances[relation]
        every = self._delays_all[relation]
        first = relation * KINDS * KINDS + number  # of the pairs with what comes next
        for at_ns, before, alarm, degree in reversed(recent):
            if at_ns <= earliest_ns:
                break
            pair = first + before * KINDS
            share = set_off.get(pair)
            if share is None:
                share = TRUST * self._believed(before, number, relation, degree)
                set_off[pair] = share
            delay = bisect_right(steps, now_ns - at_ns)
            soon = delays[delay] / every
            chance = chances[before] + TRUST
            if relation == NEXT:
                if pair in own_delays:
                    own = own_delays[pair]
                    soon = (soon * OWN_TRUST + own[delay]) / (OWN_TRUST + own[-1])
                # Neighbours that it may still reach say nothing against it.
                chance -= degree * ahead[delay]
                if chance < share:
                    chance = share
            weight = share * soon / (chance * widths[delay])
            if said:
                opinion = said.get((min(before, number), max(before, number)), 0)
                if opinion < 0:
                    if share < SEEN_TOGETHER * -opinion:
                        continue
                    opinion = 0  # no one mistake undoes what was learned
                weight *= SAID_TIMES**opinion
            found.append((weight, alarm, pair, relation, delay))

    def share(self, before: str, kind: str, relation: int, degree: int) -> float:
        """Return how likely a raise that was just learned set off another kind, in a place so related."""
        first, number = self._numbers.get(before), self._numbers.get(kind)
        if first is None or number is None:
            return 0.0
        share = self._set_off.get((relation * KINDS + first) * KINDS + number)
        if share is None:
            share = TRUST * self._believed(first, number, relation, degree)
        return share / (self._chances[relation][first] + TRUST)

    def weight(self, before: str, kind: str, relation: int, degree: int, lag_ns: int) -> float:
        """Return at what rate it does so after such a time, in 1/s."""
        delay = bisect_right(self._steps, lag_ns)
        if delay >= (SOON if relation != HERE else SOON + LASTING):
            return 0.0
        density = self._delays[relation][delay] / (self._delays_all[relation] * self._widths[delay])
        return self.share(before, kind, relation, degree) * density

    def _believed(self, before: int, number: int, relation: int, degree: int) -> float:
        """Return how likely the one sets off the other before anything is known of the two."""
        first, second = self._layers[before], self._layers[number]
        if before == number:
            likely = SAME_KIND
        elif first == second:
            likely = LEVEL
        else:
            likely = DEEPER if first < second else ABOVE
        if relation == NEXT and degree > NEIGHBOURS_USUAL:
            likely *= NEIGHBOURS_USUAL / degree
        return likely * FARTHER[relation]

    def begins(self, kind: str, now_ns: int) -> float:
        """Return at what rate raises of a kind begin by themselves on one node, in 1/s."""
        number = self._numbers.get(kind, KINDS_MAX)
        nodes = max(self._nodes, len(self._seen_nodes), 1)
        seconds = nodes * max(now_ns - self._first_ns, 0) / 1e9 if self._first_ns else 0.0
        rate = (self._began_all + BEGINS_TRUST) / (seconds + BEGINS_TRUST * BEGINS_SECONDS)
        own = self._began[number] if number < len(self._began) else 0.0
        share = own + BEGINS_TRUST / max(len(self._numbers), KINDS_USUAL)
        return rate * share / (self._began_all + BEGINS_TRUST)

    def learn(
        self, kind: str, layer: int, nodes: Sequence[str], alarm: int, parents: Sequence[Parent],
        *, degree: int, now_ns: int,
    ) -> None:  # fmt: skip
        """Count a raise for those that may have set it off, and remember it as one that may."""
        number = self._number(kind, layer)
        itself = 1.0  # how likely it began by itself
        if parents:
            own = self.begins(kind, now_ns)
            total = own + sum([parent[0] for parent in parents])
            itself = own / total
        set_off, delays, delays_all = self._set_off, self._delays, self._delays_all
        for weight, _, pair, relation, delay in parents:
            part = weight / total
            set_off[pair] += part
            delays[relation][delay] += part
            delays_all[relation] += part
            if part >= OWN_LEAST and relation == NEXT:
                self._note_delay(pair, delay, part)
        self._began[number] += itself
        self._began_all += itself
        here, near, named = self._chances
        here[number] += 1
        near[number] += degree
        named[number] += 1
        self._first_ns = self._first_ns or now_ns
        self._raises += 1
        if self._raises >= FORGET_AFTER or len(self._set_off) > PAIRS_MAX:
            self._forget(now_ns)
        for node in nodes:
            if len(self._seen_nodes) < BUSY_NODES_MAX:
                self._seen_nodes[node] = None
            recent = [one for one in self._recent.pop(node, ()) if one[2] != alarm]
            recent.append((now_ns, number, alarm, degree))
            self._recent[node] = recent[-RECENT_MAX:]
            if len(self._recent) > BUSY_NODES_MAX:
                self._recent.popitem(last=False)

    def _note_delay(self, pair: int, delay: int, part: float) -> None:
        own = self._own_delays.get(pair)
        if own is None:
            if len(self._own_delays) >= OWN_PAIRS_MAX:
                return
            own = self._own_delays[pair] = [0.0] * (SOON + LASTING + 1)
        own[delay] += part
        own[-1] += part

    def busy_of(self, nodes: Mapping[str, Any]) -> list[str]:
        """Return those of some nodes on which something was raised not long ago."""
        if len(nodes) <= len(self._recent):
            return [node for node in nodes if node in self._recent]
        return [node for node in self._recent if node in nodes]

    def _forget(self, now_ns: int) -> None:
        self._raises = 0
        self._first_ns += (now_ns - self._first_ns) // 2
        self._set_off = {p: n / 2 for p, n in self._set_off.items() if n / 2 >= PAIR_LEAST}
        self._own_delays = {
            pair: [n / 2 for n in own]
            for pair, own in self._own_delays.items()
            if pair in self._set_off
        }
        self._chances = [[n / 2 for n in counts] for counts in self._chances]
        self._began = [n / 2 for n in self._began]
        self._began_all /= 2

    # ---- by hand

    def said(self, kind: str, other: str, *, together: bool) -> None:
        """Take what an operator did: merged the two, or split them."""
        a, b = (self._number(one, len(LAYERS) - 1) for one in (kind, other))
        key = (min(a, b), max(a, b))
        said = self._said.get(key, 0) + (1 if together else -1)
        self._said[key] = max(-SAID_MOST, min(SAID_MOST, said))

    def opinion(self, kind: str, other: str) -> int:
        """Return what operators said of two kinds: above 0 they belong together, below they do not."""
        a, b = self._numbers.get(kind, KINDS_MAX), self._numbers.get(other, KINDS_MAX)
        return self._said.get((min(a, b), max(a, b)), 0)

    def _number(self, kind: str, layer: int) -> int:
        number = self._numbers.get(kind)
        if number is None:
            number = min(len(self._numbers), KINDS_MAX)
            if number < KINDS_MAX:
                self._numbers[kind] = number
            if number == len(self._layers):
                self._layers.append(layer)
                self._began.append(0.0)
                for counts in self._chances:
                    counts.append(0.0)
        return number

    # ---- checkpoint

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "kinds": list(self._numbers),
            "layers": self._layers,
            "set_off": list(self._set_off.items()),
            "own_delays": list(self._own_delays.items()),
            "chances": self._chances,
            "began": self._began,
            "began_all": self._began_all,
            "raises": self._raises,
            "first_ns": self._first_ns,
            "delays": self._delays,
            "delays_all": self._delays_all,
            "seen_nodes": list(self._seen_nodes),
            "said": [[*key, n] for key, n in self._said.items()],
            "recent": [[node, recent] for node, recent in self._recent.items()],
        }

    def restore(self, kept: Any) -> None:
        """Take it back; what was counted in another way, before, is left behind."""
        if "set_off" not in kept:
            return
        self._numbers = {kind: number for number, kind in enumerate(kept["kinds"])}
        self._layers, self._began = list(kept["layers"]), list(kept["began"])
        self._set_off = dict(kept["set_off"])
        self._own_delays = {pair: list(own) for pair, own in kept.get("own_delays", ())}
        self._chances = [list(counts) for counts in kept["chances"]]
        self._began_all, self._raises = kept["began_all"], kept["raises"]
        self._first_ns = kept["first_ns"]
        self._delays = [list(counts) for counts in kept["delays"]]
        self._delays_all = list(kept["delays_all"])
        self._seen_nodes = dict.fromkeys(kept["seen_nodes"])
        self._said = {(a, b): n for a, b, n in kept["said"]}
        self._recent = OrderedDict(
            (node, [(at, kind, alarm, degree) for at, kind, alarm, degree in recent])
            for node, recent in kept["recent"]
        )


def _delays_before(window_seconds: float) -> list[float]:
    """Return the shares of delays that are believed before any was seen: soon, with a long tail."""

    def beyond(seconds: float) -> float:
        soon, late = math.exp(-seconds / SOON_SECONDS), math.exp(-seconds / LATE_SECONDS)
        return (1.0 - LATE_SHARE) * soon + LATE_SHARE * late

    edges = [0.0] + [window_seconds / (1 << SOON) * (2 << i) for i in range(SOON)]
    parts = [beyond(a) - beyond(b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return parts + [LASTING_SHARE / LASTING] * LASTING
