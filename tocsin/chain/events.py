"""The order of events within one tick: the same whichever shard they came from.

Alarms are sorted by their fields, because alarms are raised and cleared in this order; two that
compare equal are the same. Logs and routes move no state: they stay as they came.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from telemetry.batch import Batch, Column
from telemetry.schema import Kind
from telemetry.schemas import ALARM


def in_order(batches: Sequence[Batch]) -> list[Batch]:
    """Return the batches of one event tick, its alarms first, as one batch in canonical order."""
    alarms = [batch for batch in batches if batch.schema.name == ALARM.name]
    others = [batch for batch in batches if batch.schema.name != ALARM.name]
    if not alarms:
        return others
    made = joined(alarms)
    return [chosen(made, _canonical(made)), *others]


def _canonical(batch: Batch) -> NDArray[np.int64]:
    """Return the rows by their numbers, and by their texts where those are equal."""
    numbers = [batch[spec.name] for spec in batch.schema.fields if spec.kind is Kind.PLAIN]
    order = np.lexsort(numbers[::-1])
    equal = np.ones(max(len(order) - 1, 0), bool)
    for column in numbers:
        equal &= column[order][1:] == column[order][:-1]
    if not equal.any():
        return order
    texts = [batch.texts(spec.name) for spec in batch.schema.fields if spec.kind is not Kind.PLAIN]
    edges = [0, *(np.flatnonzero(~equal) + 1).tolist(), len(order)]
    rows: list[int] = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        run = order[start:stop].tolist()
        rows += run if len(run) == 1 else sorted(run, key=lambda i: tuple(t[i] for t in texts))
    return np.array(rows, np.int64)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the rows of all batches of one schema, one behind the other."""
    if len(batches) == 1:
        return batches[0]
    schema = batches[0].schema
    columns: dict[str, Column] = {}
    blobs: dict[str, Column] = {}
    dictionaries: dict[str, tuple[str, ...]] = {}
    for spec in schema.fields:
        parts = [batch[spec.name] for batch in batches]
        if spec.kind is Kind.TEXT:
            parts, blobs[spec.name] = _joined_texts(batches, spec.name)
        elif spec.kind is Kind.CODE:
            places: dict[str, int] = {}
            for i, batch in enumerate(batches):
                words = [places.setdefault(w, len(places)) for w in batch.dictionaries[spec.name]]
                parts[i] = np.array(words or [0], np.uint32)[parts[i]]
            dictionaries[spec.name] = tuple(places)
        columns[spec.name] = np.concatenate(parts)
    first = batches[0]
    newest = max(batch.arrival_ns for batch in batches)
    return Batch(schema, columns, blobs, dictionaries, first.source, newest, first.frontier_ns)


def _joined_texts(batches: Sequence[Batch], name: str) -> tuple[list[Column], Column]:
    """Return (parts of the offsets, bytes) of a text column of all batches."""
    parts: list[Column] = [np.zeros(1, np.int32)]
    blobs, at = [], 0
    for batch in batches:
        offsets = batch[name]
        blobs.append(batch.blobs[name][offsets[0] : offsets[-1]])
        parts.append((offsets[1:] - offsets[0] + at).astype(np.int32))
        at += int(offsets[-1] - offsets[0])
    return parts, np.concatenate(blobs)


def chosen(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    """Return some rows of a batch, in this order."""
    columns: dict[str, Column] = {}
    blobs: dict[str, Column] = {}
    for spec in batch.schema.fields:
        column = batch[spec.name]
        if spec.kind is not Kind.TEXT:
            columns[spec.name] = column[rows]
            continue
        starts, sizes = column[:-1][rows], np.diff(column)[rows]
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(sizes, out=offsets[1:])
        at = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        columns[spec.name], blobs[spec.name] = offsets, batch.blobs[spec.name][at]
    return Batch(
        batch.schema, columns, blobs, batch.dictionaries, batch.source, batch.arrival_ns,
        batch.frontier_ns,
    )  # fmt: skip
