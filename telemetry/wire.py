"""The wire format: one batch as one Arrow IPC stream, the same on ZeroMQ, NATS, in the journal, in files.

A stream is a schema message and one record batch. What Arrow has no place for travels as metadata
of the schema: our schema's name and version, units, the dictionaries of `code` columns, source,
arrival and frontier. Any Arrow reader sees the plain columns.

Source: Apache Arrow columnar format, IPC streaming format.
"""

import json
import struct
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import nanoarrow as na
import numpy as np
from nanoarrow.ipc import StreamWriter

from telemetry import arrow_stream
from telemetry.batch import Batch, Column, code_column, text_column
from telemetry.errors import BugError, DecodeError
from telemetry.schema import Field, Kind, Schema
from telemetry.schemas import CATALOGUE
from telemetry.text import sound

_ARROW = {  # as arrays want it: made once, not for each column
    "i1": na.c_schema(na.int8()),
    "i2": na.c_schema(na.int16()),
    "i4": na.c_schema(na.int32()),
    "i8": na.c_schema(na.int64()),
    "u1": na.c_schema(na.uint8()),
    "u2": na.c_schema(na.uint16()),
    "u4": na.c_schema(na.uint32()),
    "u8": na.c_schema(na.uint64()),
    "f4": na.c_schema(na.float32()),
    "f8": na.c_schema(na.float64()),
}
_TEXT = na.c_schema(na.string())
_UNFIT = (  # what bytes that are none of ours lead to
    *(BugError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError),
    struct.error,
)


class Writable(Protocol):
    """What `write` writes to."""

    def write(self, data: Any) -> int:
        """Keep a copy of a buffer; the writer goes on with its own."""
        ...


def encode(batch: Batch) -> bytes:
    """Return the Arrow IPC stream of a batch."""
    out = _Parts()
    write(batch, out)
    return b"".join(out.parts)


def write(batch: Batch, out: Writable) -> None:
    """Write the Arrow IPC stream of a batch."""
    rows, columns = batch.rows, []
    for spec in batch.schema.fields:
        column = batch.columns[spec.name]
        if spec.kind is Kind.TEXT:
            start, end = int(column[0]), int(column[-1])
            offsets = np.ascontiguousarray(column - start, np.int32)
            data = np.ascontiguousarray(batch.blobs[spec.name][start:end])
            columns.append(
                na.c_array_from_buffers(_TEXT, rows, [None, offsets, data], null_count=0)
            )
        else:
            kind = _ARROW[spec.dtype.str[1:]]
            data = np.ascontiguousarray(column)
            columns.append(na.c_array_from_buffers(kind, rows, [None, data], null_count=0))
    metadata = {
        "tocsin.source": batch.source,
        "tocsin.arrival_ns": str(batch.arrival_ns),
        "tocsin.frontier_ns": str(batch.frontier_ns),
    }
    codes = {f.name: batch.dictionaries[f.name] for f in batch.schema.fields if f.kind is Kind.CODE}
    if codes:
        metadata["tocsin.dictionaries"] = json.dumps(codes, ensure_ascii=False)
    schema = _arrow_schema(batch.schema).modify(metadata={**_identity(batch.schema), **metadata})
    array = na.c_array_from_buffers(schema, rows, [None], children=columns)
    with StreamWriter.from_writable(out) as writer:
        writer.write_array(array)


class _Parts:
    """Keeps what is written to it. A BytesIO grows step by step into pages that nobody has touched
    before: of a megabyte that cost more than all the rest."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        """Keep a copy."""
        self.parts.append(bytes(data))
        return len(data)


def decode(data: bytes | memoryview) -> Batch:
    """Return the batch of one Arrow IPC stream.

    A column that our version of the schema does not know is ignored when it stands after the known
    ones; a missing one is filled with zero or "". Columns that a room added (frames) are kept.
    Raises DecodeError: `corrupt` when it is no Arrow stream, `unknown_major` for a schema of
    another major version (park it, do not drop it).
    """
    data = bytes(data)  # columns are views: numpy wants them at whole words
    try:
        head = arrow_stream.read_head(data)
        name = head.metadata["tocsin.schema"]
        major, minor = (int(part) for part in head.metadata["tocsin.version"].split("."))
    except (ValueError, LookupError, struct.error) as error:
        raise DecodeError("corrupt", f"not a Tocsin Arrow stream: {error}") from error
    known = CATALOGUE.get(name)
    if known is not None and known.major != major:
        raise DecodeError(
            "unknown_major",
            f"{name}/{major}.{minor} was written by a newer Tocsin, this one knows "
            f"{known.label}; upgrade the core first, then sites, then sensors",
        )
    try:
        return _batch(data, head, Schema(name, major, minor, ()), known)
    except _UNFIT as error:
        raise DecodeError("corrupt", f"{name} stream does not fit its schema: {error}") from error


def _batch(data: bytes, head: arrow_stream.Head, told: Schema, known: Schema | None) -> Batch:
    metadata = head.metadata
    rows, parts = arrow_stream.read_batch(data, head)
    dictionaries = _dictionaries(metadata.get("tocsin.dictionaries", "{}"))
    units = json.loads(metadata.get("tocsin.units", "{}"))
    fields: list[Field] = []
    columns: dict[str, Column] = {}
    blobs: dict[str, Column] = {}
    for (label, dtype), part in zip(head.columns, parts, strict=True):
        spec = known.by_name.get(label) if known else None
        if not dtype and spec is not None and spec.kind is Kind.CODE:
            # An older writer: it had a text of its own for each row.
            text = part[1].tobytes()
            texts = [text[a:b].decode("utf-8", "replace") for a, b in pairwise(part[0].tolist())]
            columns[label], dictionaries[label] = code_column(texts)
            fields.append(spec)
        elif not dtype:
            columns[label], blobs[label] = part
            fields.append(spec or Field(label, "i4", "", "", Kind.TEXT))
        else:
            columns[label] = part[0]
            kind = Kind.CODE if dtype == "u4" and label in dictionaries else Kind.PLAIN
            fields.append(spec or Field(label, dtype, str(units.get(label, "")), "", kind))
            if fields[-1].kind is Kind.CODE and rows:
                if int(part[0].max()) >= len(dictionaries[label]):
                    raise ValueError(f"column {label!r} has codes without a word")
    for spec in known.fields if known else ():
        if spec.name in columns:
            continue
        fields.append(spec)  # an older writer: fill in what it did not have
        if spec.kind is Kind.TEXT:
            columns[spec.name], blobs[spec.name] = text_column([""] * rows)
        else:
            columns[spec.name] = np.zeros(rows, spec.dtype)
            if spec.kind is Kind.CODE:
                dictionaries[spec.name] = ("",)
    return Batch(
        Schema(told.name, told.major, told.minor, tuple(fields)),
        columns,
        blobs,
        dictionaries,
        metadata.get("tocsin.source", ""),
        int(np.int64(metadata.get("tocsin.arrival_ns", "0"))),
        int(np.int64(metadata.get("tocsin.frontier_ns", "0"))),
    )


def _dictionaries(text: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(map(sound, words)) for name, words in json.loads(text).items()}


@lru_cache(maxsize=256)
def _arrow_schema(schema: Schema) -> Any:
    return na.c_schema(
        na.struct(
            {
                spec.name: _TEXT if spec.kind is Kind.TEXT else _ARROW[spec.dtype.str[1:]]
                for spec in schema.fields
            }
        )
    )


@lru_cache(maxsize=256)
def _identity(schema: Schema) -> dict[str, str]:
    units = {spec.name: spec.unit for spec in schema.fields if spec.unit}
    return {
        "tocsin.schema": schema.name,
        "tocsin.version": f"{schema.major}.{schema.minor}",
        "tocsin.units": json.dumps(units),
    }
