"""Partial frames: what a shard says of one closed tick of one view, as a batch of plain columns."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.groups import Groups
from correlator.windows_kernels import BUCKETS, COUNTERS, KEY_WORDS, REGISTERS
from telemetry.batch import Batch
from telemetry.schema import Schema, code, plain
from telemetry.schemas import EVIDENCE
from telemetry.views import View

_COLUMNS = (
    [f"key{i}" for i in range(KEY_WORDS)] + [f"counter{i}" for i in range(COUNTERS)],
    [f"registers{i}" for i in range(REGISTERS // 8)],
    [f"entropy{i}" for i in range(BUCKETS // 2)],
)


@lru_cache(maxsize=8)
def partial_schema(registers: bool, entropy: bool) -> Schema:
    """Return the schema of partial frames with or without sketches. Row 0 is `__other__`."""
    names = list(_COLUMNS[0])
    names += _COLUMNS[1] if registers else []
    names += _COLUMNS[2] if entropy else []
    return Schema(
        "partial",
        1,
        0,
        (
            plain("tick_start_ns", "i8", "ns"),
            plain("tick_ns", "i8", "ns"),
            code("view"),
            plain("shard", "u4"),
            plain("octets_all", "u8", "By"),
            plain("octets_moved", "u8", "By", "of octets_all: belongs to ticks already closed"),
            *(plain(name, "u8") for name in names),
        ),
    )


PARTIAL_EVIDENCE = EVIDENCE.wider(*(plain(f"key{i}", "u8") for i in range(KEY_WORDS)))


def partial_batch(
    view: View,
    groups: Groups,
    *,
    tick_start_ns: int,
    shard: int,
    octets_all: int,
    octets_moved: int,
    frontier_ns: int,
) -> Batch:
    """Return the partial frame of a closed tick."""
    rows = groups.rows
    matrices = [np.hstack([groups.keys[:rows], groups.counters[:rows]])]
    if len(groups.registers):
        matrices.append(groups.registers[:rows].view(np.uint64))
    if len(groups.entropy):
        matrices.append(groups.entropy[:rows].view(np.uint64))
    schema = partial_schema(bool(len(groups.registers)), bool(len(groups.entropy)))
    flat = np.ascontiguousarray(np.hstack(matrices).T)
    columns: dict[str, NDArray[Any]] = dict(zip(schema.names()[6:], flat, strict=True))
    columns |= {
        "tick_start_ns": np.full(rows, tick_start_ns, np.int64),
        "tick_ns": np.full(rows, view.tick_ns, np.int64),
        "view": np.zeros(rows, np.uint32),
        "shard": np.full(rows, shard, np.uint32),
        "octets_all": np.full(rows, octets_all % 2**64, np.uint64),
        "octets_moved": np.full(rows, octets_moved % 2**64, np.uint64),
    }
    return Batch(schema, columns, {}, {"view": (view.name,)}, f"view:{view.name}", 0, frontier_ns)


def arrays_of(
    partial: Batch,
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint32]]:
    """Return (keys, counters, registers, entropy) of a partial frame, as Groups.merge takes them."""
    names = partial.schema.names()[6:]
    matrix = np.ascontiguousarray(np.stack([partial[name] for name in names], axis=1))
    keys = np.ascontiguousarray(matrix[:, :KEY_WORDS])
    counters = np.ascontiguousarray(matrix[:, KEY_WORDS : KEY_WORDS + COUNTERS])
    at = KEY_WORDS + COUNTERS
    registers = np.zeros((0, REGISTERS), np.uint8)
    entropy = np.zeros((0, BUCKETS), np.uint32)
    if f"registers{0}" in names:
        words = REGISTERS // 8
        registers = np.ascontiguousarray(matrix[:, at : at + words]).view(np.uint8)
        at += words
    if f"entropy{0}" in names:
        entropy = np.ascontiguousarray(matrix[:, at : at + BUCKETS // 2]).view(np.uint32)
    return keys, counters, registers, entropy


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
