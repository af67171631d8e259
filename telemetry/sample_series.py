"""Names of sampled series: what a collector calls its numbers, and the dictionary that goes with them."""

from collections import OrderedDict
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import stable_id
from telemetry.schemas import SERIES

NO_DIMENSIONS: Mapping[str, str] = {}


class SampleKind(IntEnum):
    """How the values of a series add up in a tick (`kind` of schema `sample`)."""

    GAUGE = 0  # a state: the tick's mean; silent = unknown
    COUNTER = 1  # grows until it wraps or restarts: the tick's rate a second; silent = unknown
    DELTA = 2  # counts since the last value: the tick's sum as a rate a second; silent = 0


class SeriesNames:
    """Series ids of one collector, and `series` rows for those it names for the first time.

    Keeps the ids of the `series_max` keys used last; one that was forgotten is announced again,
    which is harmless. Ids are hashes of the key: the same in replay, elsewhere and after a restart.

    >>> names = SeriesNames()
    >>> octets = names.id("ams1", "in_octets", {"interface": "et-0/0/3"}, unit="By")
    >>> names.id("ams1", "in_octets", {"interface": "et-0/0/3"}) == octets
    True
    >>> names.new().texts("key")
    ['entity=ams1,metric=in_octets,interface=et-0/0/3']
    >>> names.new() is None
    True
    """

    def __init__(self, *, view: str = "sample", series_max: int = 100_000) -> None:
        """`view` is "sample", or "slow_sample" for what comes every quarter of an hour."""
        self._view = view
        self._series_max = series_max
        self._ids: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._new: list[dict[str, Any]] = []

    def id(
        self,
        entity: str,
        metric: str,
        dimensions: Mapping[str, str] = NO_DIMENSIONS,
        *,
        unit: str = "",
    ) -> int:
        """Return the id of a series; `dimensions` count in their order. `unit` is a UCUM code."""
        parts = (entity, metric, *dimensions, *dimensions.values())
        known = self._ids.get(parts)
        if known is not None:
            self._ids.move_to_end(parts)
            return known
        pairs = {"entity": entity, "metric": metric, **dimensions}
        key = ",".join(f"{name}={_plain(value)}" for name, value in pairs.items())
        made = stable_id(f"{self._view}|{key}")
        self._ids[parts] = made
        if len(self._ids) > self._series_max:
            self._ids.popitem(last=False)
        self._new.append(
            {
                "series_id": made,
                "entity_id": stable_id(entity),
                "view": self._view,
                "entity": " ".join((entity, *dimensions.values())),
                "key": key,
                "unit": unit,
            }
        )
        return made

    def new(self) -> Batch | None:
        """Return `series` rows of those named first since the last call; send them before samples."""
        rows, self._new = self._new, []
        return batch_from_rows(SERIES, rows, source=self._view) if rows else None


def _plain(value: str) -> str:
    return value.replace("%", "%25").replace(",", "%2C").replace("=", "%3D")
