"""Batches as they lie in memory, in MessagePack: a tenth of the work of the wire format.

For what the same Tocsin reads again, if anybody does: a batch of another version of its schema comes back as none.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.schema import Kind
from telemetry.schemas import CATALOGUE


class _Lying(msgspec.Struct, array_like=True):
    schema: str
    columns: dict[str, Any]
    blobs: dict[str, Any]
    dictionaries: dict[str, tuple[str, ...]]
    source: str
    arrival_ns: int
    frontier_ns: int


_DECODER = msgspec.msgpack.Decoder(list[_Lying])


def encode(batches: Sequence[Batch]) -> bytes:
    """Return batches of our own schemas as bytes."""
    return msgspec.msgpack.encode(
        [
            _Lying(
                batch.schema.label,
                {name: np.ascontiguousarray(column).data for name, column in batch.columns.items()},
                {name: np.ascontiguousarray(blob).data for name, blob in batch.blobs.items()},
                dict(batch.dictionaries),
                batch.source,
                batch.arrival_ns,
                batch.frontier_ns,
            )
            for batch in batches
        ]
    )


def decode(data: bytes) -> tuple[Batch, ...]:
    """Return the batches of `encode`, without those of another version; raise DecodeError for other bytes."""
    made = []
    try:
        for one in _DECODER.decode(data):
            schema = CATALOGUE.get(one.schema.partition("/")[0])
            if schema is None or schema.label != one.schema:
                continue
            dtypes = {f.name: np.int32 if f.kind is Kind.TEXT else f.dtype for f in schema.fields}
            columns = {name: np.frombuffer(one.columns[name], dtypes[name]) for name in dtypes}
            blobs = {name: np.frombuffer(blob, np.uint8) for name, blob in one.blobs.items()}
            made.append(
                Batch(
                    schema, columns, blobs, one.dictionaries, one.source, one.arrival_ns, one.frontier_ns
                )
            )  # fmt: skip
    except (msgspec.MsgspecError, ValueError, LookupError, TypeError) as error:
        raise DecodeError("corrupt", f"no batches as they lie in memory: {error}") from error
    return tuple(made)
