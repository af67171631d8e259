"""Synthetic faults with known truth on a network: overlapping in time, near and far from each other."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from telemetry.x733 import CLEARED
from tocsin.files.alarms import Event
from tocsin.files.times import START_NS
from tocsin.files.topologies import network_of

SECOND_NS = 1_000_000_000
DRAWS_MAX = 1000  # for a fault that was not there yet
# kind of the root, severity, what follows it: (kind, where, how likely, most seconds later)
FAULTS = (
    ("linkDown", "critical", (("ospfNbrDown", "here", 0.9, 20), ("bgpDown", "here", 0.6, 60),
                              ("ospfNbrDown", "next", 0.7, 20))),
    ("powerFailure", "critical", (("batteryDischarging", "here", 0.9, 30), ("fanFailure", "here", 0.5, 60),
                                  ("ospfNbrDown", "next", 0.8, 40))),
    ("lineCardProblem", "major", (("linkDown", "here", 0.9, 5), ("bgpDown", "here", 0.7, 60))),
    ("syncLoss", "minor", (("berHigh", "here", 0.8, 60), ("berHigh", "next", 0.4, 90))),
    ("cpuHigh", "warning", (("bgpDown", "here", 0.5, 90), ("snmpTimeout", "here", 0.7, 60))),
)  # fmt: skip


def ring_of_rings(rings: int = 30, size: int = 20) -> list[tuple[str, str]]:
    """Return the links of access rings that hang on a core ring by two nodes each."""
    pairs = [(f"core{i}", f"core{(i + 1) % rings}") for i in range(rings)]
    for ring in range(rings):
        names = [f"r{ring}n{i}" for i in range(size)]
        pairs += list(zip(names[:-1], names[1:], strict=True))
        pairs += [(f"core{ring}", names[0]), (f"core{(ring + 1) % rings}", names[-1])]
    return pairs


def mesh(nodes: int, links_a_node: int, seed: int) -> list[tuple[str, str]]:
    """Return the links of random places in the plane, each to its nearest ones."""
    places = np.random.default_rng(seed).random((nodes, 2))
    far = ((places[:, None] - places[None]) ** 2).sum(-1)
    nearest = np.argsort(far, axis=1)[:, 1 : 1 + links_a_node // 2]
    found = {(min(a, int(b)), max(a, int(b))) for a in range(nodes) for b in nearest[a]}
    return [(f"m{a}", f"m{b}") for a, b in sorted(found)]


def tree(nodes: int, children: int) -> list[tuple[str, str]]:
    """Return the links of an aggregation tree."""
    return [(f"t{(i - 1) // children}", f"t{i}") for i in range(1, nodes)]


def leaf_and_spine(spines: int, leaves: int) -> list[tuple[str, str]]:
    """Return the links of a fabric: every leaf to every spine."""
    return [(f"spine{i}", f"leaf{j}") for i in range(spines) for j in range(leaves)]


def overlapping_faults(
    pairs: Sequence[tuple[str, str]], *, faults: int, mean_gap_seconds: float, seed: int,
    slowness: float = 1.0, late_seconds: float = 0.0, causes_seen: bool = False,
    at_ports: bool = False,
) -> list[Event]:  # fmt: skip
    """Return the alarms of faults that begin at random, on average so long after each other.

    Symptoms appear at the root's node and next to it, spread over a minute and a half (`slowness`
    times as long); each fault lasts some minutes and clears what it raised. The fault itself is reported up
    to `late_seconds` late, its symptoms before it. `fault` of each event is the truth. An alarm is raised once in
    a run; a fault whose own alarm was raised before is not drawn, but where `causes_seen` it is: nothing tells its
    symptoms from those of the fault before it. What is felt next to the root is an alarm of the node there, or,
    `at_ports`, of its port to the root: a session of its own for each neighbour, as routers have them.
    """
    random = np.random.default_rng(seed)
    network = network_of(list(pairs), [])
    nodes = sorted(network.routers())
    near: dict[str, list[str]] = {node: [] for node in nodes}
    for a, b in pairs:
        near[a].append(b)
        near[b].append(a)
    ports = {
        (here, there): f"{here}:{index}"
        for router in nodes
        for link in network.links_of(router)
        for (here, index), (there, _) in (link.ends, link.ends[::-1])
    }
    now, made, up = 0.0, [], set()
    for number in range(faults):
        now += float(random.exponential(mean_gap_seconds))
        for _ in range(DRAWS_MAX):
            root_kind, severity, symptoms = FAULTS[random.integers(len(FAULTS))]
            node = nodes[random.integers(len(nodes))]
            if causes_seen or (root_kind, node) not in up:
                break
        late = float(random.uniform(0, late_seconds)) if late_seconds else 0.0
        raises = [(late, root_kind, node, severity)]
        for kind, where, likely, latest in symptoms:
            for place in [node] if where == "here" else near[node]:
                felt = ports.get((place, node), place) if at_ports else place
                if random.random() < likely:
                    raises.append(
                        (float(random.uniform(0, latest * slowness)), kind, felt, "major")
                    )
        lasts = float(random.uniform(300, 1800))
        for after, kind, place, how in raises:
            if (kind, place) in up:
                continue  # one alarm stands for both faults: its truth would be ambiguous
            up.add((kind, place))
            for at, word in ((now + after, how), (now + lasts + after, CLEARED)):
                made.append(
                    Event(START_NS + round(at * SECOND_NS), kind, place, word, f"{kind} on {place}",
                          f"fault{number}")
                )  # fmt: skip
    return sorted(made, key=lambda event: event.time_ns)


def undecidable(
    pairs: Sequence[tuple[str, str]], events: Sequence[Event], mean_gap_seconds: float
) -> float:
    """Return the share of over-merged alarms of who knows the rules by which `overlapping_faults` made them.

    Each alarm goes to the fault that most likely set it off by FAULTS, or begins one where that is likelier.
    """
    rules = {kind: symptoms for kind, _, symptoms in FAULTS}
    near: dict[str, set[str]] = {}
    for a, b in pairs:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    begins = 1.0 / (mean_gap_seconds * len(near) * len(FAULTS))
    groups: dict[Event, Counter[str]] = {}
    recent: list[Event] = []  # that may still set off others
    for event in events:
        if event.severity == CLEARED:
            continue
        most, root = begins if event.kind in rules else 0.0, event
        for cause in recent:
            for kind, where, likely, latest in rules[cause.kind]:
                there = {cause.entity} if where == "here" else near[cause.entity]
                lag = (event.time_ns - cause.time_ns) / SECOND_NS
                if kind == event.kind and event.entity in there and 0 <= lag <= latest:
                    most, root = max((most, root), (likely / latest, cause), key=lambda one: one[0])
        groups.setdefault(root, Counter())[event.fault] += 1
        recent = [one for one in recent if event.time_ns - one.time_ns < 100 * SECOND_NS]
        recent += [event] if event.kind in rules else []
    mixed = sum(of.total() - max(of.values()) for of in groups.values())
    return mixed / sum(of.total() for of in groups.values())
