"""Self-metrics of one process, told to another, whose page shows them: shards and gate have no page."""

from collections.abc import Iterable

import msgspec

from runtime.metrics import Counter, Gauge, KeyedCounter, Metrics


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One self-metric of a shard."""

    kind: str
    name: str
    help: str
    label: str
    values: list[str]
    component: str
    numbers: list[float]


def families_of(metrics: Metrics) -> list[Family]:
    """Return the self-metrics of this process, for the node's page."""
    made = []
    for family in metrics.families():
        if isinstance(family, KeyedCounter):
            values, numbers = list(family.counts), [float(n) for n in family.counts.values()]
        else:
            values, numbers = list(family.values), [float(n) for n in family.numbers]
        kind = type(family).__name__
        made.append(
            Family(kind, family.name, family.help, family.label, values, family.component, numbers)
        )
    return made


def take_families(metrics: Metrics, families: Iterable[Family], part: str) -> None:
    """Put a shard's metrics beside the node's own, under components that begin with `part`."""
    for one in families:
        scoped = metrics.scoped(f"{part}.{one.component}")
        if one.kind == KeyedCounter.__name__:
            kept = scoped.keyed(one.name, one.help, label=one.label)
            kept.counts.clear()
            kept.counts.update(zip(one.values, map(int, one.numbers), strict=True))
            continue
        made: Counter | Gauge
        if one.kind == Counter.__name__:
            made = scoped.counter(one.name, one.help, label=one.label, values=one.values)
        else:
            made = scoped.gauge(one.name, one.help, label=one.label, values=one.values)
        made.array[:] = one.numbers
