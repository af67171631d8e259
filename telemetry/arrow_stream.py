"""Read one Arrow IPC stream whose bytes may be anything: damaged on a disk, or made to do harm.

Every library that reads Arrow at speed trusts offsets somewhere, and one bad byte can then end the process.
Here each place is read through `struct` and numpy, which refuse what lies outside the bytes; what a column
holds is a view of them. Read is what `wire` writes: numbers and UTF-8 text, one batch, not compressed.

Source: Apache Arrow columnar format 1.5 (encapsulated messages; Schema.fbs, Message.fbs), FlatBuffers internals.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS_MAX = 4096
METADATA_MAX = 1024
_SCHEMA, _RECORD_BATCH = 1, 3  # MessageHeader
_INT, _FLOAT, _TEXT = 2, 3, 5  # Type
_FLOATS = {1: "f4", 2: "f8"}
_U1, _U2, _I2, _I4, _U4, _I8, _TWO_U4, _TWO_I8 = (
    struct.Struct(f"<{code}").unpack_from for code in ("B", "H", "h", "i", "I", "q", "2I", "2q")
)
_MARK = 0xFFFFFFFF  # begins each message, before its length


@dataclass(frozen=True, slots=True)
class Head:
    """What a stream says of itself: columns as (name, dtype; "" for text), and where that ends."""

    columns: tuple[tuple[str, str], ...]
    metadata: dict[str, str]
    ends: int


def read_head(data: bytes) -> Head:
    """Return what a stream says of itself. Raises ValueError, or struct.error where it points outside of itself."""
    first = _message(data, 0)
    if first is None or first.kind != _SCHEMA:
        raise ValueError("it does not begin with a schema")
    schema = first.header
    if schema.number(0, _I2):
        raise ValueError("its bytes are big-endian")
    columns = tuple((field.text(0), _dtype(field)) for field in schema.tables(1, COLUMNS_MAX))
    metadata = {pair.text(0): pair.text(1) for pair in schema.tables(2, METADATA_MAX)}
    return Head(columns, metadata, first.ends)


def read_batch(data: bytes, head: Head) -> tuple[int, list[list[NDArray[Any]]]]:
    """Return the rows of the stream's one batch, and of each column [values], or [offsets, bytes] of a text.

    Raises as `read_head` does. Offsets rise and lie within their bytes; a value that is missing is what lies there.
    """
    only = _message(data, head.ends)
    if only is None or (_message(data, only.ends) is not None and only.kind == _RECORD_BATCH):
        raise ValueError("not 1 record batch in the stream")
    if only.kind != _RECORD_BATCH or only.header.place(3):
        raise ValueError("its batch is compressed or has dictionaries")
    body = np.frombuffer(data, np.uint8)[only.begins : only.ends]
    rows = only.header.number(0, _I8)
    if not head.columns or not 0 <= rows <= len(body):
        raise ValueError(f"{rows} rows in {len(body)} bytes")
    buffers = only.header.pairs(2)
    return rows, [_values(body, rows, dtype, buffers) for _, dtype in head.columns]


def _values(
    body: NDArray[np.uint8], rows: int, dtype: str, buffers: Iterator[tuple[int, int]]
) -> list[NDArray[Any]]:
    next(buffers)  # which values are there: Tocsin has no missing ones
    if dtype:
        return [_part(body, *next(buffers), dtype, rows)]
    edges = next(buffers)
    offsets = _part(body, *edges, "i4", rows + 1) if rows or edges[1] else np.zeros(1, np.int32)
    words = _part(body, *next(buffers), "u1", int(offsets[-1]))
    if offsets[0] < 0 or np.any(offsets[1:] < offsets[:-1]):
        raise ValueError("a text ends before it begins")
    return [offsets, words]


def _part(body: NDArray[np.uint8], begins: int, size: int, dtype: str, count: int) -> NDArray[Any]:
    wanted = count * np.dtype(dtype).itemsize
    if begins % 8 or not 0 <= begins <= begins + wanted <= begins + size <= len(body):
        raise ValueError(f"{count} values of {dtype} in {size} bytes at {begins} of {len(body)}")
    return body[begins : begins + wanted].view(dtype)


def _dtype(field: "_Table") -> str:
    kind, of = field.number(2, _U1), field.table(3)
    if kind == _TEXT:
        return ""
    if kind == _INT and (bits := of.number(0, _I4)) in (8, 16, 32, 64):
        return f"{'i' if of.number(1, _U1) else 'u'}{bits // 8}"
    if kind == _FLOAT and (precision := of.number(0, _I2)) in _FLOATS:
        return _FLOATS[precision]
    raise ValueError(f"column {field.text(0)!r} is neither a number nor text")


@dataclass(frozen=True, slots=True)
class _Message:
    kind: int
    header: "_Table"
    begins: int  # its body
    ends: int


def _message(data: bytes, at: int) -> _Message | None:
    """Return the message at `at`, None where the stream ends."""
    if at == len(data):
        return None
    mark, size = _TWO_U4(data, at)
    if mark != _MARK:
        raise ValueError(f"no message at byte {at}")
    if not size:
        return None
    begins = at + 8 + size
    if size % 8 or begins > len(data):
        raise ValueError(f"a message of {size} bytes at byte {at} of {len(data)}")
    flat = data[at + 8 : begins]
    message = _Table(flat, _U4(flat, 0)[0])
    body = message.number(3, _I8)
    if body % 8 or not 0 <= body <= len(data) - begins:
        raise ValueError(f"a body of {body} bytes at byte {begins} of {len(data)}")
    return _Message(message.number(1, _U1), message.table(2), begins, begins + body)


class _Table:
    """One table of a FlatBuffer: fields by their place in its definition, 0 or nothing where it has none."""

    __slots__ = ("_at", "_data", "_fields")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        vtable = at - _I4(data, at)[0]
        if vtable < 0:
            raise ValueError("a table begins outside of its message")
        self._fields = data[vtable + 4 : vtable + _U2(data, vtable)[0]]

    def place(self, slot: int) -> int:
        """Return where a field lies, 0 where it is not there."""
        if 2 * slot + 2 > len(self._fields):
            return 0
        offset: int = _U2(self._fields, 2 * slot)[0]
        return offset and self._at + offset

    def number(self, slot: int, unpack: Any) -> int:
        """Return a number, 0 by default."""
        at = self.place(slot)
        return int(unpack(self._data, at)[0]) if at else 0

    def _far(self, slot: int) -> int:
        at = self.place(slot)
        return at and at + int(_U4(self._data, at)[0])

    def table(self, slot: int) -> "_Table":
        """Return a table, which must be there."""
        if not (at := self._far(slot)):
            raise ValueError(f"field {slot} of a table is not there")
        return _Table(self._data, at)

    def text(self, slot: int) -> str:
        """Return a text, "" by default."""
        if not (at := self._far(slot)):
            return ""
        size = _U4(self._data, at)[0]
        if at + 4 + size > len(self._data):
            raise ValueError("a text ends outside of its message")
        return self._data[at + 4 : at + 4 + size].decode()

    def tables(self, slot: int, most: int) -> Iterator["_Table"]:
        """Yield the tables of a vector."""
        at = self._far(slot)
        count = _U4(self._data, at)[0] if at else 0
        if count > most:
            raise ValueError(f"{count} tables in one vector, {most} at most")
        for one in range(at + 4, at + 4 + 4 * count, 4):
            yield _Table(self._data, one + _U4(self._data, one)[0])

    def pairs(self, slot: int) -> Iterator[tuple[int, int]]:
        """Yield the structs of two int64 of a vector; ValueError behind the last."""
        at = self._far(slot)
        for one in range(at + 4, at + 4 + 16 * (_U4(self._data, at)[0] if at else 0), 16):
            yield _TWO_I8(self._data, one)
        raise ValueError("a column lacks its values")
