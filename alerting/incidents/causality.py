"""Which kinds of alarm cause which, learned from a history of raises: a directed graph of kinds.

For each pair of kinds it counts how often the second was raised on the same node, or on a
neighbouring one where the topology is known, within a window behind the first. An edge needs two
things: that this happened more often than the kinds' own rates explain (z of a Poisson count above
`Z_LEAST`), and that the other order was not clearly more frequent (a cause comes first). What stays
undecided keeps both directions out of the two unless the counts are all but equal.

Blind to causes that act within one tick of the clock, to chains (a cause of a cause is an edge too),
and to a common cause that no alarm states. docs/alarms.md has the figures on public data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alerting.words.amounts import rounded

WINDOW_SECONDS = 600.0
Z_LEAST = 3.0
AGAINST_MOST = 1.0  # deviations by which the other order may be ahead


@dataclass(frozen=True, slots=True)
class Edge:
    """One kind raises another."""

    cause: str
    effect: str
    strength: float  # z of the count over chance
    share: float  # of the cause's raises that the effect followed


@dataclass(frozen=True, slots=True)
class _Counts:
    followed: NDArray[np.float64]  # [i, j]: raises of i with a j in the window behind
    expected: NDArray[np.float64]  # by the rates alone


def learn(
    kinds: Sequence[str],
    nodes: Sequence[str],
    times_ns: Sequence[int],
    neighbours: Mapping[str, Sequence[str]] | None = None,
) -> list[Edge]:
    """Return the edges of the causal graph, the strongest first. One entry a raise, in any order."""
    names = sorted(set(kinds))
    number = {name: i for i, name in enumerate(names)}
    of_node = _by_node(kinds, nodes, times_ns, number)
    times = np.asarray(times_ns, np.int64)
    if len(times) < 2:
        return []
    span = max(float(times.max() - times.min()), 1.0)
    scales = [_count(of_node, {node: [node] for node in of_node}, len(names), span)]
    if neighbours:
        around = {
            node: [n for n in neighbours.get(node, ()) if n in of_node and n != node]
            for node in of_node
        }
        scales.append(_count(of_node, around, len(names), span))
    strength = _together([_excess(counts) for counts in scales])
    order = _together([_order(counts) for counts in scales])
    raised = np.bincount([number[kind] for kind in kinds], minlength=len(names))
    own = scales[0].followed
    found = np.argwhere((strength > Z_LEAST) & (order > -AGAINST_MOST))
    edges = [
        Edge(
            names[i], names[j], rounded(strength[i, j], 4),
            rounded(min(own[i, j] / raised[i], 1.0), 4),
        )
        for i, j in found.tolist()
        if i != j
    ]  # fmt: skip
    return sorted(edges, key=lambda edge: (-edge.strength, edge.cause, edge.effect))


def _by_node(
    kinds: Sequence[str], nodes: Sequence[str], times_ns: Sequence[int], number: Mapping[str, int]
) -> dict[str, dict[int, NDArray[np.int64]]]:
    lists: dict[str, dict[int, list[int]]] = {}
    for kind, node, at in zip(kinds, nodes, times_ns, strict=True):
        lists.setdefault(node, {}).setdefault(number[kind], []).append(at)
    return {
        node: {kind: np.sort(np.array(times, np.int64)) for kind, times in sorted(by.items())}
        for node, by in sorted(lists.items())
    }


def _count(
    of_node: Mapping[str, Mapping[int, NDArray[np.int64]]],
    around: Mapping[str, Sequence[str]],
    kinds: int,
    span_ns: float,
) -> _Counts:
    followed, expected = np.zeros((kinds, kinds)), np.zeros((kinds, kinds))
    window_ns = round(WINDOW_SECONDS * 1e9)
    for node, firsts in of_node.items():
        seconds = _merged([of_node[other] for other in around[node]])
        for i, times in firsts.items():
            for j, later in seconds.items():
                if i == j:
                    continue
                begin = np.searchsorted(later, times, "right")
                end = np.searchsorted(later, times + window_ns, "right")
                followed[i, j] += np.count_nonzero(end > begin)
                rate = len(later) * window_ns / span_ns
                expected[i, j] += len(times) * (1.0 - np.exp(-rate))
    return _Counts(followed, expected)


def _merged(
    parts: Sequence[Mapping[int, NDArray[np.int64]]],
) -> Mapping[int, NDArray[np.int64]]:
    if len(parts) == 1:
        return parts[0]
    lists: dict[int, list[NDArray[np.int64]]] = {}
    for part in parts:
        for kind, times in part.items():
            lists.setdefault(kind, []).append(times)
    return {kind: np.sort(np.concatenate(times)) for kind, times in lists.items()}


def _excess(counts: _Counts) -> NDArray[np.float64]:
    """Return how many deviations each count lies over chance; the 1 keeps rare pairs quiet."""
    made: NDArray[np.float64] = (counts.followed - counts.expected) / np.sqrt(counts.expected + 1.0)
    return made


def _order(counts: _Counts) -> NDArray[np.float64]:
    """Return by how many deviations i before j is ahead of j before i."""
    back = counts.followed.T
    made: NDArray[np.float64] = (counts.followed - back) / np.sqrt(counts.followed + back + 1.0)
    return made


def _together(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return Stouffer's sum of independent deviations."""
    made: NDArray[np.float64] = np.sum(parts, axis=0) / np.sqrt(len(parts))
    return made
