"""Which kinds of alarm come together, learned while they come, and what operators say to it.

For each raise it counts which other kinds were raised on the same or a neighbouring node shortly
before. Two kinds belong together when that happens more often than each alone would explain; people
who merge and split incidents count for more than any statistics.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

KINDS_MAX = 512
NODES_MAX = 20_000
RECENT_MAX = 16  # raises of one node
SAID_STEP = 1.5  # what one merge or split by hand adds
SAID_MOST = 4.5


@dataclass(slots=True)
class _Pairs:
    """Counts of one relation: on one node, or on nodes next to each other."""

    both: dict[tuple[int, int], int] = field(default_factory=dict)  # (before, raised)
    before: dict[int, int] = field(default_factory=dict)  # raises that had this kind before them

    def add(self, others: Iterable[int], number: int) -> None:
        """Count a raise and the kinds that were raised before it."""
        for other in others:
            self.both[other, number] = self.both.get((other, number), 0) + 1
            self.before[other] = self.before.get(other, 0) + 1


class Companions:
    """Counts of pairs of kinds, bounded; `lift` says how much more often than by chance."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._numbers: dict[str, int] = {}
        self._here, self._next = _Pairs(), _Pairs()
        self._raised: dict[int, int] = {}
        self._alone: dict[int, int] = {}  # raises before which nothing was raised near by
        self._total = 0
        self._said: dict[tuple[int, int], float] = {}
        self._recent: dict[str, deque[tuple[int, int]]] = {}

    def seen(self, kind: str, node: str, near: Iterable[str], now_ns: int) -> None:
        """Count a raise, and what was raised on its node and next to it shortly before."""
        number = self._number(kind)
        earliest_ns = now_ns - self._window_ns
        here = self._kinds(node, earliest_ns)
        beside: set[int] = set()
        for other in near:
            beside |= self._kinds(other, earliest_ns)
        self._total += 1
        self._raised[number] = self._raised.get(number, 0) + 1
        if not here and not beside:
            self._alone[number] = self._alone.get(number, 0) + 1
        self._here.add(here - {number}, number)
        self._next.add(beside - {number}, number)
        recent = self._recent.get(node)
        if recent is None:
            if len(self._recent) >= NODES_MAX:
                del self._recent[next(iter(self._recent))]
            recent = self._recent[node] = deque(maxlen=RECENT_MAX)
        recent.append((number, now_ns))

    def _kinds(self, node: str, earliest_ns: int) -> set[int]:
        return {kind for kind, at in self._recent.get(node, ()) if at >= earliest_ns}

    def lift(self, kind: str, other: str, *, beside: bool = False) -> float:
        """Return the logarithm of seen over expected for two kinds, 0 where nothing is known.

        On one node, or `beside` each other on neighbouring nodes.
        """
        a, b = self._numbers.get(kind), self._numbers.get(other)
        if a is None or b is None or a == b:
            return 0.0
        said = self._said.get((min(a, b), max(a, b)), 0.0)
        if not self._total:
            return said
        pairs = self._next if beside else self._here
        seen = pairs.both.get((b, a), 0) + pairs.both.get((a, b), 0)
        expected = (
            self._raised.get(a, 0) * pairs.before.get(b, 0)
            + self._raised.get(b, 0) * pairs.before.get(a, 0)
        ) / self._total
        return said + math.log((seen + 2.0) / (expected + 2.0))

    def begins(self, kind: str) -> float:
        """Return the share of a kind's raises before which nothing was raised near by.

        One half while little is known of it. Such a kind is a fault more often than a symptom.
        """
        number = self._numbers.get(kind, -1)
        raised = self._raised.get(number, 0)
        return (self._alone.get(number, 0) + 5.0) / (raised + 10.0)

    def said(self, kind: str, other: str, *, together: bool) -> None:
        """Take what an operator did: merged the two, or split them."""
        a, b = self._number(kind), self._number(other)
        key = (min(a, b), max(a, b))
        step = SAID_STEP if together else -SAID_STEP
        self._said[key] = max(-SAID_MOST, min(SAID_MOST, self._said.get(key, 0.0) + step))

    def _number(self, kind: str) -> int:
        number = self._numbers.get(kind)
        if number is None:
            if len(self._numbers) >= KINDS_MAX:
                return KINDS_MAX  # all the rest together
            number = self._numbers[kind] = len(self._numbers)
        return number

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "kinds": list(self._numbers),
            "here": _kept(self._here),
            "next": _kept(self._next),
            "alone": list(self._alone.items()),
            "raised": list(self._raised.items()),
            "total": self._total,
            "said": [[*key, n] for key, n in self._said.items()],
            "recent": [[node, list(recent)] for node, recent in self._recent.items()],
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        self._numbers = {kind: number for number, kind in enumerate(kept["kinds"])}
        self._here = _pairs(kept["here"])
        self._next = _pairs(kept["next"])
        self._raised, self._alone = dict(kept["raised"]), dict(kept["alone"])
        self._total = kept["total"]
        self._said = {(a, b): n for a, b, n in kept["said"]}
        self._recent = {
            node: deque(((n, at) for n, at in recent), maxlen=RECENT_MAX)
            for node, recent in kept["recent"]
        }


def _kept(pairs: _Pairs) -> Any:
    return [[[*key, n] for key, n in pairs.both.items()], list(pairs.before.items())]


def _pairs(kept: Any) -> _Pairs:
    both, before = kept
    return _Pairs({(a, b): n for a, b, n in both}, dict(before))
