"""Counters that describe Tocsin itself, kept as arrays and rendered only when somebody asks.

A data path bumps a counter once per block: `counter.array += np.bincount(verdicts, ...)`. Labels
come from closed sets (a tuple known when the counter is made) or from a bounded open set (exporter
addresses: the first `limit`, then `__other__`). Rendering is done by prometheus_client.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from telemetry.errors import BugError

if TYPE_CHECKING:  # supervisor and gate count without numpy
    import numpy as np
    from numpy.typing import NDArray

OTHER = "__other__"


class _Cells:
    """Numbers in plain memory, seen as a numpy array by those who have numpy."""

    def __init__(self, typecode: str, length: int) -> None:
        self.plain: array[Any] = array(typecode, bytes(8 * length))

    @cached_property
    def view(self) -> NDArray[Any]:
        import numpy as np

        return np.frombuffer(self.plain, self.plain.typecode)


class Counter(NamedTuple):
    """One family: `array[i]` counts for label value `values[i]`. uint64, only ever grows."""

    name: str  # without the tocsin_ prefix, ending in _total
    help: str
    label: str  # the name of the label besides `component`; "" = none
    values: tuple[str, ...]
    component: str
    cells: _Cells

    @property
    def array(self) -> NDArray[np.uint64]:
        """The counts as uint64[len(values)], to be changed in place."""
        return self.cells.view

    @array.setter
    def array(self, same: NDArray[np.uint64]) -> None:
        if same is not self.cells.view:
            raise BugError(f"counter {self.name!r}: its array is changed in place, not replaced")

    @property
    def numbers(self) -> list[int]:
        """The counts in the order of `values`."""
        return self.cells.plain.tolist()

    def add(self, value: str = "", amount: int = 1) -> None:
        """Add `amount` under one label value. For rare things; hot paths use `array`."""
        self.cells.plain[self.values.index(value)] += int(amount)


class Gauge(NamedTuple):
    """One number that goes up and down, per label value of a closed set."""

    name: str
    help: str
    label: str
    values: tuple[str, ...]
    component: str
    cells: _Cells

    @property
    def array(self) -> NDArray[np.float64]:
        """The numbers as float64[len(values)], to be changed in place."""
        return self.cells.view

    @property
    def numbers(self) -> list[float]:
        """The numbers in the order of `values`."""
        return self.cells.plain.tolist()

    def set(self, number: float, value: str = "") -> None:
        """Set the number of one label value."""
        self.cells.plain[self.values.index(value)] = number


class KeyedCounter(NamedTuple):
    """A family whose label values are found at run time, at most `limit`, the rest in one."""

    name: str
    help: str
    label: str
    limit: int
    component: str
    counts: dict[str, int]

    def add(self, value: str, amount: int = 1) -> None:
        """Add `amount` under `value`, or under `__other__` when the limit is reached."""
        if value not in self.counts and len(self.counts) >= self.limit:
            value = OTHER
        self.counts[value] = self.counts.get(value, 0) + amount


Family = Counter | Gauge | KeyedCounter
F = TypeVar("F", bound=Family)


class Metrics:
    """The registry of one process; `scoped(component)` gives each component its own view."""

    def __init__(self, component: str = "", families: dict[tuple[str, str], Family] | None = None):
        self._component = component
        self._families: dict[tuple[str, str], Family] = {} if families is None else families

    def scoped(self, component: str) -> Metrics:
        """Return a view on the same registry whose families carry `component`."""
        return Metrics(component, self._families)

    def counter(
        self, name: str, help: str, *, label: str = "", values: Sequence[str] = ("",)
    ) -> Counter:
        """Make (or return) a counter with a closed set of label values; all start at 0."""
        if not name.endswith("_total"):
            raise BugError(f"counter {name!r} must end in _total")
        cells = _Cells("Q", len(values))
        return self._keep(Counter(name, help, label, tuple(values), self._component, cells))

    def gauge(
        self, name: str, help: str, *, label: str = "", values: Sequence[str] = ("",)
    ) -> Gauge:
        """Make (or return) a gauge with a closed set of label values; all start at 0."""
        cells = _Cells("d", len(values))
        return self._keep(Gauge(name, help, label, tuple(values), self._component, cells))

    def keyed(self, name: str, help: str, *, label: str, limit: int = 500) -> KeyedCounter:
        """Make (or return) a counter whose label values are bounded by `limit`."""
        if not name.endswith("_total"):
            raise BugError(f"counter {name!r} must end in _total")
        return self._keep(KeyedCounter(name, help, label, limit, self._component, {}))

    def _keep(self, made: F) -> F:
        kept = self._families.setdefault((made.name, made.component), made)
        if type(kept) is not type(made):
            raise BugError(f"metric {made.name!r} exists as another type")
        return kept

    def families(self) -> Iterable[Family]:
        """All families, in the order in which they were made."""
        return list(self._families.values())

    def value(self, name: str, **labels: str) -> float:
        """Return the sum over all families and label values that match. For tests and doctor."""
        component = labels.pop("component", None)
        total = 0.0
        for family in self.families():
            if family.name != name or (component is not None and family.component != component):
                continue
            wanted = labels.get(family.label)
            if isinstance(family, KeyedCounter):
                pairs = [(v, float(n)) for v, n in family.counts.items()]
            else:
                pairs = list(zip(family.values, map(float, family.numbers), strict=True))
            total += float(sum(n for v, n in pairs if wanted is None or v == wanted))
        return total

    def render(self) -> bytes:
        """Return the Prometheus text exposition of everything, `tocsin_` put before each name."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Exposition(self))  # type: ignore[arg-type]  # structural, no base class
        return generate_latest(registry)


class _Exposition:
    """Hands our arrays to prometheus_client in its own terms."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[object]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        made: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for family in self._metrics.families():
            labels = ["component"] + ([family.label] if family.label else [])
            name = "tocsin_" + family.name.removesuffix("_total")
            if name not in made:
                kind = GaugeMetricFamily if isinstance(family, Gauge) else CounterMetricFamily
                made[name] = kind(name, family.help, labels=labels)
            pairs: Iterable[tuple[str, float]]
            if isinstance(family, KeyedCounter):
                pairs = [(value, float(count)) for value, count in family.counts.items()]
            else:
                pairs = zip(family.values, map(float, family.numbers), strict=True)
            for value, number in pairs:
                made[name].add_metric(
                    [family.component] + ([value] if family.label else []), number
                )
        return made.values()
