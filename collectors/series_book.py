"""Names of sampled series that many threads of a source use, announced until the node has them."""

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from telemetry.batch import Batch
from telemetry.sample_series import NO_DIMENSIONS, SampleKind, SeriesNames
from telemetry.schemas import SAMPLE

SLOW_SECONDS = 300.0  # what is measured no more often than this belongs to the slow view


class SeriesBook:
    """Series ids of the fast and the slow view, and `series` batches not yet acknowledged."""

    def __init__(self, *, series_max: int) -> None:
        self._fast = SeriesNames(series_max=series_max)
        self._slow = SeriesNames(view="slow_sample", series_max=series_max)
        self._lock = threading.Lock()
        self._waiting: list[Batch] = []

    def id(
        self,
        entity: str,
        metric: str,
        dimensions: Mapping[str, str] = NO_DIMENSIONS,
        *,
        unit: str = "",
        interval_seconds: float = 0.0,
    ) -> int:
        """Return the id of a series."""
        names = self._slow if interval_seconds >= SLOW_SECONDS else self._fast
        with self._lock:
            return names.id(entity, metric, dimensions, unit=unit)

    def waiting(self) -> list[Batch]:
        """Return `series` batches that go before the next samples."""
        with self._lock:
            self._waiting += [made for names in (self._fast, self._slow) if (made := names.new())]
            return list(self._waiting)

    def arrived(self, batches: Iterable[Batch]) -> None:
        """The node has these batches: those of series are not announced again."""
        known = {id(batch) for batch in batches}
        with self._lock:
            self._waiting = [batch for batch in self._waiting if id(batch) not in known]


Sample = tuple[int, int, float, SampleKind]  # time in ns, series id, value, kind


def sample_batch(samples: Sequence[Sample], source: str, arrival_ns: int) -> Batch:
    """Return a batch of these samples."""
    times, ids, values, kinds = zip(*samples, strict=True) if samples else ((), (), (), ())
    return Batch(
        SAMPLE,
        {
            "time_ns": np.array(times, np.int64),
            "arrival_ns": np.full(len(samples), arrival_ns, np.int64),
            "series_id": np.array(ids, np.uint64),
            "value": np.array(values, np.float64),
            "kind": np.array(kinds, np.uint8),
        },
        source=source,
        arrival_ns=arrival_ns,
    )
