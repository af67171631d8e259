"""Batches as rows, for tests that look at what a decoder or a stage made."""

from collections.abc import Iterable
from typing import Any

from telemetry.batch import Batch
from telemetry.schema import Kind


def rows_of(batches: Iterable[Batch], schema: str) -> list[dict[str, Any]]:
    """Return the rows of one schema as dictionaries."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        if batch.schema.name != schema:
            continue
        columns = {
            field.name: batch[field.name].tolist()
            if field.kind is Kind.PLAIN
            else batch.texts(field.name)
            for field in batch.schema.fields
        }
        found += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return found
