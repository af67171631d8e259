"""The batch: a few thousand rows of one schema, stored as columns. What every stage takes and gives."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.errors import BugError
from telemetry.schema import Kind, Schema
from telemetry.text import sound

Column = NDArray[Any]
NO_BLOBS: Mapping[str, Column] = {}
NO_DICTIONARIES: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one schema as read-only columns of equal length. Slices are views.

    `source` says who made it ("netflow", "view:interface"); `arrival_ns` is the arrival time of
    its newest row, `frontier_ns` the arrival time up to which everything was decoded when it was
    made; both ns since 1970 UTC, 0 where the batch was not made from the network.

    >>> from telemetry.schema import Schema, plain
    >>> load = Schema("load", 1, 0, (plain("time_ns", "i8", "ns"), plain("octets", "u8", "By")))
    >>> Batch(load, {"time_ns": np.array([5]), "octets": np.array([9], "u8")}).rows
    1
    >>> Batch(load, {"time_ns": np.array([5])})
    Traceback (most recent call last):
    telemetry.errors.BugError: batch load/1.0 lacks column 'octets'
    """

    schema: Schema
    columns: Mapping[str, Column]
    blobs: Mapping[str, Column] = field(default_factory=dict)
    dictionaries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""
    arrival_ns: int = 0
    frontier_ns: int = 0

    def __post_init__(self) -> None:
        rows, columns = self.rows, self.columns
        # Looked up once: forty columns a batch.
        plain, text, code = (
            Kind.PLAIN,
            Kind.TEXT,
            Kind.CODE,
        )
        for name, dtype, kind in self.schema.shape:
            column = columns.get(name)
            if column is None:
                raise BugError(f"batch {self.schema.label} lacks column {name!r}")
            if column.dtype is not dtype and column.dtype != dtype:
                raise BugError(
                    f"batch {self.schema.label} column {name!r} is {column.dtype}, must be {dtype}"
                )
            want = rows + 1 if kind is text else rows
            if len(column) != want:
                raise BugError(
                    f"batch {self.schema.label} column {name!r} has {len(column)} values, not {want}"
                )
            if kind is not plain:
                if kind is text and name not in self.blobs:
                    raise BugError(f"batch {self.schema.label} lacks the bytes of {name!r}")
                if kind is code and name not in self.dictionaries:
                    raise BugError(f"batch {self.schema.label} lacks the dictionary of {name!r}")
            column.setflags(write=False)  # a stage that edits its input would rewrite history

    @classmethod
    def unchecked(
        cls,
        schema: Schema,
        columns: Mapping[str, Column],
        *,
        source: str,
        arrival_ns: int,
        frontier_ns: int,
    ) -> "Batch":
        """Return a batch of plain columns for whose shapes, types and being read-only the caller vouches.

        For kernels' output alone: checking forty columns costs as much as decoding a thousand rows.
        Its tests build the same batch with checks.
        """
        made = object.__new__(cls)
        for name, value in (
            ("schema", schema),
            ("columns", columns),
            ("blobs", NO_BLOBS),
            ("dictionaries", NO_DICTIONARIES),
            ("source", source),
            ("arrival_ns", arrival_ns),
            ("frontier_ns", frontier_ns),
        ):
            object.__setattr__(made, name, value)
        return made

    @property
    def rows(self) -> int:
        """The number of rows."""
        first = self.schema.fields[0]
        return len(self.columns[first.name]) - (first.kind is Kind.TEXT)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def texts(self, name: str) -> list[str]:
        """Return a text or code column as Python strings. For people and rare rows only."""
        spec = self.schema.by_name[name]
        if spec.kind is Kind.CODE:
            words = self.dictionaries[name]
            return [words[code] for code in self.columns[name].tolist()]
        data = self.blobs[name].tobytes()
        if not data:
            return [""] * self.rows
        edges = itertools.pairwise(self.columns[name].tolist())
        if data.isascii():
            text = data.decode("ascii")
            return [text[start:end] for start, end in edges]
        return [data[start:end].decode("utf-8", "replace") for start, end in edges]

    def raw_texts(self, name: str) -> list[bytes]:
        """Return a text column as it was encoded."""
        data = self.blobs[name].tobytes()
        return [data[start:end] for start, end in itertools.pairwise(self.columns[name].tolist())]

    def text(self, name: str, row: int) -> str:
        """Return the text of one row."""
        column = self.columns[name]
        if self.schema.by_name[name].kind is Kind.CODE:
            return self.dictionaries[name][int(column[row])]
        data = self.blobs[name][column[row] : column[row + 1]].tobytes()
        return data.decode("utf-8", "replace")

    def slice(self, start: int, stop: int) -> "Batch":
        """Return rows [start, stop) as a batch of views; text bytes are shared whole."""
        columns = {
            spec.name: self.columns[spec.name][start : stop + (1 if spec.kind is Kind.TEXT else 0)]
            for spec in self.schema.fields
        }
        return self.with_columns(self.schema, columns)

    def take(self, rows: NDArray[np.int64]) -> "Batch":
        """Return the rows at these places, in this order; a place may come more than once."""
        columns: dict[str, Column] = {}
        blobs: dict[str, Column] = {}
        for spec in self.schema.fields:
            column = self.columns[spec.name]
            if spec.kind is not Kind.TEXT:
                columns[spec.name] = column[rows]
                continue
            data, edges = self.blobs[spec.name].tobytes(), column.tolist()
            parts = [data[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
            columns[spec.name] = offsets = np.zeros(rows.size + 1, np.int32)
            np.cumsum(np.diff(column)[rows], out=offsets[1:])
            blobs[spec.name] = np.frombuffer(b"".join([parts[i] for i in rows.tolist()]), np.uint8)
        return Batch(
            self.schema,
            columns,
            blobs,
            self.dictionaries,
            self.source,
            self.arrival_ns,
            self.frontier_ns,
        )

    def with_columns(self, schema: Schema, columns: Mapping[str, Column]) -> "Batch":
        """Return a batch of `schema` with these columns and everything else as here."""
        return Batch(
            schema,
            columns,
            self.blobs,
            self.dictionaries,
            self.source,
            self.arrival_ns,
            self.frontier_ns,
        )


def text_column(values: Sequence[Any]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return (offsets int32[n + 1], UTF-8 bytes) of `values`. For rare rows only."""
    try:
        whole = "".join(values)
    except TypeError:  # not all are text
        return text_column(list(map(str, values)))
    if not whole:
        return np.zeros(len(values) + 1, np.int32), np.zeros(0, np.uint8)
    try:
        data = whole.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, out of JSON or a command line
        return text_column([sound(value) for value in values])
    parts = values if len(data) == len(whole) else [value.encode("utf-8") for value in values]
    ends = itertools.accumulate(map(len, parts), initial=0)
    return np.fromiter(ends, np.int32, len(parts) + 1), np.frombuffer(data, np.uint8)


def code_column(values: Sequence[Any]) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
    """Return (codes uint32[n], dictionary in order of first appearance) of `values`."""
    if values and type(values[0]) is str and values.count(values[0]) == len(values):  # as most are
        return np.zeros(len(values), np.uint32), (sound(values[0]),)
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    if any(type(value) is not str for value in places):
        return code_column(list(map(str, values)))
    codes = np.fromiter(map(places.__getitem__, values), np.uint32, len(values))
    return codes, tuple(map(sound, places))


def batch_from_rows(
    schema: Schema,
    rows: Sequence[Mapping[str, Any]],
    *,
    source: str = "",
    arrival_ns: int = 0,
    frontier_ns: int = 0,
) -> Batch:
    """Build a batch from dictionaries; a missing key is 0 or "". For rare rows and tests only."""
    given = dict(zip(schema.names(), _by_column(schema, rows), strict=True))
    return batch_from_columns(
        schema, given, source=source, arrival_ns=arrival_ns, frontier_ns=frontier_ns
    )


def batch_from_columns(
    schema: Schema,
    given: Mapping[str, Sequence[Any]],
    *,
    source: str = "",
    arrival_ns: int = 0,
    frontier_ns: int = 0,
) -> Batch:
    """Build a batch from the Python values of each column, all of which are given. For rare rows only."""
    columns: dict[str, Column] = {}
    blobs: dict[str, Column] = {}
    dictionaries: dict[str, tuple[str, ...]] = {}
    for name, dtype, kind in schema.shape:
        values = given[name]
        if kind is Kind.PLAIN:
            columns[name] = np.array(values, dtype)
        elif kind is Kind.TEXT:
            columns[name], blobs[name] = text_column(values)
        else:
            columns[name], dictionaries[name] = code_column(values)
    return Batch(schema, columns, blobs, dictionaries, source, arrival_ns, frontier_ns)


def _by_column(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
    """Return the values of each field; a missing one is 0 or ""."""
    names = schema.names()
    if rows and len(names) > 1:
        try:
            # Most rows have every key.
            return list(zip(*map(itemgetter(*names), rows), strict=True))
        except KeyError:
            pass
    return [_values(rows, name, 0 if kind is Kind.PLAIN else "") for name, _, kind in schema.shape]


def _values(rows: Sequence[Mapping[str, Any]], name: str, missing: Any) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name, missing) for row in rows]


def empty(schema: Schema, *, source: str = "") -> Batch:
    """Return a batch of `schema` without rows."""
    return batch_from_rows(schema, (), source=source)
