"""Frames made by hand, and a small carrier of them: gravity-like series with a day and heavy tails."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Batch, code_column
from telemetry.schemas import FrameFlag
from telemetry.views import View, frame_schema

SECOND = 1_000_000_000
MONDAY_S = 1_790_553_600  # 2026-09-28 00:00 UTC


def frame(
    view: View,
    start_ns: int,
    measures: Mapping[str, Sequence[float] | NDArray[Any]],
    *,
    rows: Sequence[int] | None = None,
    tick_seconds: float = 5.0,
    flags: int = 0,
    lost_share: Sequence[float] | float = 0.0,
    moved_share: Sequence[float] | float = 0.0,
) -> Batch:
    """Return a frame of this view with the given measures and an empty `__other__` row."""
    count = len(next(iter(measures.values())))
    schema = frame_schema(view)
    place = np.arange(count, dtype=np.uint32) if rows is None else np.array(rows, np.uint32)
    codes, names = code_column([view.name] * (count + 1))
    share = np.zeros((2, count + 1), np.float32)
    share[0, :-1], share[1, :-1] = lost_share, moved_share
    columns: dict[str, Any] = {
        "tick_start_ns": np.full(count + 1, start_ns, np.int64),
        "tick_seconds": np.full(count + 1, tick_seconds, np.float32),
        "view": codes,
        "series_id": np.append(place.astype(np.uint64) + np.uint64(1_000), np.uint64(1)),
        "row": np.append(place, np.uint32(0xFFFF_FFFF)),
        "flags": np.append(np.full(count, flags, np.uint8), np.uint8(flags | FrameFlag.OTHER)),
        "lost_share": share[0],
        "moved_share": share[1],
    }
    for field in schema.fields:
        if field.name not in columns:
            values = np.zeros(count + 1)
            if field.name in measures:
                values[:-1] = measures[field.name]
            columns[field.name] = values.astype(field.dtype)
    return Batch(schema, columns, {}, {"view": names}, "test", 0, start_ns)


def day_factor(time_s: float) -> float:
    """Return the shape of the day, 1 on average, peak to trough 2.3."""
    return float(1.0 - 0.4 * np.cos(2 * np.pi * (time_s / 3600.0 - 4.5) / 24.0))


class Carrier:
    """Series of compound Poisson traffic: rates from a log-normal, sizes with a heavy tail.

    Random numbers depend on (seed, tick) alone.
    """

    def __init__(self, series: int, *, seed: int, least_flows: float = 2.0) -> None:
        self._seed = seed
        random = np.random.default_rng([seed, 0])
        self.flows_per_second = np.maximum(random.lognormal(1.5, 1.0, series), least_flows / 5.0)

    def tick(
        self, time_s: float, tick_s: float = 5.0, *, factor: NDArray[np.float64] | float = 1.0
    ) -> dict[str, NDArray[Any]]:
        """Return octets, packets and flows of every series in the tick that begins at time_s."""
        random = np.random.default_rng([self._seed, round(time_s), round(tick_s)])
        flows = random.poisson(self.flows_per_second * day_factor(time_s) * tick_s * factor)
        if tick_s > 60.0:  # so many flows that their sum is normal; its moments are the same
            octets = flows * 60_000.0 + random.standard_normal(len(flows)) * 60_000.0 * np.sqrt(
                np.e * flows
            )
            return {"octets": np.maximum(octets, 0.0), "packets": flows * 67, "flows": flows}
        total = int(flows.sum())
        size = random.lognormal(-0.5, 1.0, total) * 60_000.0
        owner = np.repeat(np.arange(len(flows)), flows)
        octets = np.bincount(owner, size, len(flows))
        packets = np.bincount(owner, np.maximum(size // 900.0, 1.0), len(flows))
        return {"octets": octets, "packets": packets, "flows": flows}
