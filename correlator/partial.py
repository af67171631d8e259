"""Partial frames: what a shard says of one closed tick of one view, as a batch of plain columns."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.groups import Groups, Layout
from correlator.windows_kernels import ENTROPY_WORDS, KEY_WORDS, REGISTER_WORDS, SIZE_WORDS
from telemetry.batch import Batch
from telemetry.schema import Schema, code, plain
from telemetry.schemas import EVIDENCE
from telemetry.views import View

_HEAD = 5  # columns before the words of a row
_COUNTERS = ("octets", "packets", "flows", "unsure", "moved")


@lru_cache(maxsize=8)
def partial_schema(layout: Layout) -> Schema:
    """Return the schema of partial frames of a layout. Row 0 is `__other__`."""
    names = [f"key{i}" for i in range(KEY_WORDS)] + list(_COUNTERS)
    names += [f"size{i}" for i in range(SIZE_WORDS * layout.sizes)]
    names += [f"registers{i}" for i in range(REGISTER_WORDS * layout.registers)]
    names += [f"entropy{i}" for i in range(ENTROPY_WORDS * layout.entropy)]
    return Schema(
        "partial",
        1,
        0,
        (
            plain("tick_start_ns", "i8", "ns"),
            plain("tick_ns", "i8", "ns"),
            code("view"),
            plain("shard", "u4"),
            plain("bound", "u8", "", "keys whose hash is above it count in row 0"),
            *(plain(name, "u8") for name in names),
        ),
    )


PARTIAL_EVIDENCE = EVIDENCE.wider(*(plain(f"key{i}", "u8") for i in range(KEY_WORDS)))


def partial_batch(
    view: View, groups: Groups, *, tick_start_ns: int, shard: int, frontier_ns: int
) -> Batch:
    """Return the partial frame of a closed tick."""
    rows = groups.rows
    schema = partial_schema(groups.layout)
    flat = groups.cells.T.copy()  # a transposed copy: each word becomes a column
    columns: dict[str, NDArray[Any]] = dict(zip(schema.names()[_HEAD:], flat, strict=True))
    columns |= {
        "tick_start_ns": np.full(rows, tick_start_ns, np.int64),
        "tick_ns": np.full(rows, view.tick_ns, np.int64),
        "view": np.zeros(rows, np.uint32),
        "shard": np.full(rows, shard, np.uint32),
        "bound": np.full(rows, groups.bound, np.uint64),
    }
    return Batch(schema, columns, {}, {"view": (view.name,)}, f"view:{view.name}", 0, frontier_ns)


def cells_of(partial: Batch) -> NDArray[np.uint64]:
    """Return the rows of a partial frame, as Groups.merge takes them."""
    words = partial.schema.names()[_HEAD:]
    cells = np.empty((partial.rows, len(words)), np.uint64)
    for i, name in enumerate(words):
        cells[:, i] = partial[name]
    return cells


def evidence_batch(view: View, sample: dict[str, Any], tick_start_ns: int) -> Batch:
    """Return a shard's priority sample; the series is still given by its key words."""
    rows = len(sample["priority"])
    record = sample["record"]
    names = PARTIAL_EVIDENCE.names()[3:15]
    columns: dict[str, NDArray[Any]] = {
        name: record[:, i].astype(PARTIAL_EVIDENCE.by_name[name].dtype)
        for i, name in enumerate(names)
    }
    columns |= {f"key{i}": np.ascontiguousarray(sample["key"][:, i]) for i in range(KEY_WORDS)}
    columns |= {
        "tick_start_ns": np.full(rows, tick_start_ns, np.int64),
        "view": np.zeros(rows, np.uint32),
        "series_id": np.zeros(rows, np.uint64),
        "octets": sample["octets"],
        "packets": sample["packets"],
        "priority": sample["priority"],
    }
    return Batch(PARTIAL_EVIDENCE, columns, {}, {"view": (view.name,)}, f"view:{view.name}")


def in_order(priority: NDArray[np.float64], *then: NDArray[Any]) -> NDArray[np.int64]:
    """Return the order of a sample: the largest priority first, then the least of `then`, by turns.

    Priorities are as good as never equal, so one sort does; where they are, all columns decide.
    """
    order: NDArray[np.int64] = np.argsort(-priority, kind="stable")
    ranked = priority[order]
    if (ranked[1:] == ranked[:-1]).any():
        order = np.lexsort((*then[::-1], -priority))
    return order
