"""The order in which the closings of shards reach the merger: the same whatever process was fast.

Closings are given out in the order of (frontier, shard), each only when every shard that counts has
passed its frontier. Pure: who lives and who died is told to it (tocsin.node.workers).
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Given:
    """A closing whose turn it is. `whole`: every shard has a part in what closes now."""

    shard: int
    sequence: int
    frontier_ns: int
    data: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A shard that no longer counts: all it had said is given out. What waited for it may close."""

    shard: int
    frontier_ns: int  # the newest it had told
    passed_ns: int  # the newest frontier given out by any


@dataclass(slots=True)
class _Place:
    counts: bool = True
    dead: bool = False  # counts until what it said is given out
    frontier_ns: int = 0
    given_ns: int = 0
    waiting: "deque[tuple[int, int, bytes]]" = field(default_factory=deque)


class Barrier:
    """Holds what shards said until it is its turn."""

    def __init__(self, shards: int) -> None:
        self._places = [_Place() for _ in range(shards)]
        self.passed_ns = 0  # all that count have given out what closes up to this frontier

    def closing(self, shard: int, sequence: int, frontier_ns: int, data: bytes) -> None:
        """Take a closing; those of one shard come in order."""
        place = self._places[shard]
        place.waiting.append((sequence, frontier_ns, data))
        place.frontier_ns = max(place.frontier_ns, frontier_ns)

    def frontier(self, shard: int, frontier_ns: int) -> None:
        """Hear that a shard has told everything up to here."""
        place = self._places[shard]
        place.frontier_ns = max(place.frontier_ns, frontier_ns)

    def died(self, shard: int) -> None:
        """Hear that a shard will say no more."""
        self._places[shard].dead = True

    def may_join(self, shard: int) -> bool:
        """Whether a new process may take this place: nothing of an old one is left in it."""
        place = self._places[shard]
        return not (place.dead and place.counts)

    def join(self, shard: int, first_ns: int) -> bool:
        """Count a shard from `first_ns` on; return whether it had been missing."""
        place = self._places[shard]
        missing = not place.counts
        place.counts, place.dead = True, False
        place.frontier_ns, place.given_ns = first_ns, self.passed_ns
        return missing

    def counts(self, shard: int) -> bool:
        """Whether ticks wait for this shard."""
        return self._places[shard].counts

    def frontier_of(self, shard: int) -> int:
        """Return the newest frontier a shard has told."""
        return self._places[shard].frontier_ns

    def waiting(self, shard: int) -> int:
        """Return how many closings of a shard wait for others."""
        return len(self._places[shard].waiting)

    @property
    def complete_ns(self) -> int:
        """After `give`: all that closes up to here was given out."""
        return min((p.frontier_ns for p in self._places if p.counts), default=self.passed_ns)

    def give(self) -> list[Given | Left]:
        """Return everything whose turn has come, in order."""
        made: list[Given | Left] = []
        while True:
            for shard, place in enumerate(self._places):
                if place.counts and place.dead and not place.waiting:
                    place.counts = False
                    newest = max(one.given_ns for one in self._places)
                    made.append(Left(shard, place.frontier_ns, newest))
                    self._pass()
            heads = [(p.waiting[0][1], shard) for shard, p in enumerate(self._places) if p.waiting]
            if not heads:
                return made
            frontier_ns, shard = min(heads)
            if any(
                p.counts and not p.waiting and p.frontier_ns < frontier_ns for p in self._places
            ):
                return made
            place = self._places[shard]
            sequence, _, data = place.waiting.popleft()
            place.given_ns = frontier_ns
            whole = all(p.counts for p in self._places)
            made.append(Given(shard, sequence, frontier_ns, data, whole))
            self._pass()

    def _pass(self) -> None:
        counted = [p.given_ns for p in self._places if p.counts]
        newest = max(p.given_ns for p in self._places)
        # With none left, what all of them had said is all there will be.
        self.passed_ns = max(self.passed_ns, min(counted, default=newest))
