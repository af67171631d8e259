"""Which kinds of alarm come together, learned while they come, and what operators say to it.

For each raise it counts which other kinds were raised on the same or a neighbouring node shortly
before. Two kinds belong together when that happens more often than each alone would explain; people
who merge and split incidents count for more than any statistics.
"""

import math
from collections import deque
from typing import Any

KINDS_MAX = 512
NODES_MAX = 20_000
RECENT_MAX = 16  # raises of one node
SAID_STEP = 1.5  # what one merge or split by hand adds
SAID_MOST = 4.5


class Companions:
    """Counts of pairs of kinds, bounded; `lift` says how much more often than by chance."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._numbers: dict[str, int] = {}
        self._pairs: dict[tuple[int, int], int] = {}  # (before, raised)
        self._before: dict[int, int] = {}
        self._raised: dict[int, int] = {}
        self._total = 0
        self._said: dict[tuple[int, int], float] = {}
        self._recent: dict[str, deque[tuple[int, int]]] = {}

    def seen(self, kind: str, node: str, now_ns: int) -> None:
        """Count a raise and what was raised on its node shortly before."""
        number = self._number(kind)
        recent = self._recent.get(node)
        if recent is None:
            if len(self._recent) >= NODES_MAX:
                del self._recent[next(iter(self._recent))]
            recent = self._recent[node] = deque(maxlen=RECENT_MAX)
        self._total += 1
        self._raised[number] = self._raised.get(number, 0) + 1
        earliest_ns = now_ns - self._window_ns
        for other in {one for one, at in recent if at >= earliest_ns and one != number}:
            self._pairs[other, number] = self._pairs.get((other, number), 0) + 1
            self._before[other] = self._before.get(other, 0) + 1
        recent.append((number, now_ns))

    def lift(self, kind: str, other: str) -> float:
        """Return the logarithm of seen over expected for two kinds, 0 where nothing is known."""
        a, b = self._numbers.get(kind), self._numbers.get(other)
        if a is None or b is None or a == b:
            return 0.0
        said = self._said.get((min(a, b), max(a, b)), 0.0)
        if not self._total:
            return said
        seen = self._pairs.get((b, a), 0) + self._pairs.get((a, b), 0)
        expected = (
            self._raised.get(a, 0) * self._before.get(b, 0)
            + self._raised.get(b, 0) * self._before.get(a, 0)
        ) / self._total
        return said + math.log((seen + 2.0) / (expected + 2.0))

    def leads(self, kind: str, other: str) -> bool:
        """Whether `kind` is seen before `other` more often than behind it."""
        a, b = self._numbers.get(kind, -1), self._numbers.get(other, -1)
        return self._pairs.get((a, b), 0) > self._pairs.get((b, a), 0)

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
            "pairs": [[*key, n] for key, n in self._pairs.items()],
            "before": list(self._before.items()),
            "raised": list(self._raised.items()),
            "total": self._total,
            "said": [[*key, n] for key, n in self._said.items()],
            "recent": [[node, list(recent)] for node, recent in self._recent.items()],
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        self._numbers = {kind: number for number, kind in enumerate(kept["kinds"])}
        self._pairs = {(a, b): n for a, b, n in kept["pairs"]}
        self._before, self._raised = dict(kept["before"]), dict(kept["raised"])
        self._total = kept["total"]
        self._said = {(a, b): n for a, b, n in kept["said"]}
        self._recent = {
            node: deque(((n, at) for n, at in recent), maxlen=RECENT_MAX)
            for node, recent in kept["recent"]
        }
