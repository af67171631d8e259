"""ClickHouse's Native format: columns as they lie in memory, one block at a time.

A third of the CPU that rows in RowBinary cost. Source: ClickHouse docs, "Native" and "LowCardinality"
(SerializationLowCardinality.cpp: version 1, keys of the block itself).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

CODED = "LowCardinality(String)"
_TYPES = {"i8": "Int64", "u8": "UInt64", "u4": "UInt32", "u2": "UInt16", "u1": "UInt8", "f4": "Float32",
          "f8": "Float64", "i4": "Int32", "V16": "IPv6"}  # fmt: skip
_DTYPES = {name: f"<{code}" for code, name in _TYPES.items()} | {"FixedString(16)": "V16"}
_OWN_KEYS = 1 << 9  # of a LowCardinality column: the words stand in the block
_KEYS_OF_U16, _KEYS_OF_U32 = 1, 2


def type_of(column: Any, *, coded: bool) -> str:
    """Return the type that a column has by itself: of an array its dtype's, else text."""
    if coded:
        return CODED
    return _TYPES[column.dtype.str[1:]] if isinstance(column, np.ndarray) else "String"


def block(
    columns: Mapping[str, Any],
    types: Mapping[str, str],
    words: Mapping[str, Sequence[str]],
    *,
    after_type: bytes = b"",
) -> Iterator[bytes]:
    """Yield one block of arrays and lists of texts, each column in the type that is said for it.

    An array named in `words` holds places in that list. `after_type` is what the native protocol has
    after each type since revision 54454, and files have not. Raises KeyError for a type that we never
    write.
    """
    count = len(next(iter(columns.values())))
    yield _length(len(columns)) + _length(count)
    for name, column in columns.items():
        kind = types[name]
        yield _text(name) + _text(kind) + after_type
        if kind == CODED:
            yield from _coded(*((words[name], column) if name in words else _words_of(column)))
        elif kind != "String":
            yield np.ascontiguousarray(column, _DTYPES[kind]).tobytes()
        elif name in words:
            yield b"".join(np.array([*map(_text, words[name])], object)[column])
        else:
            yield b"".join(map(_text, column))


def _coded(words: Sequence[str], places: Any) -> Iterator[bytes]:
    wide = len(words) > 1 << 16
    yield struct.pack("<QQQ", 1, _OWN_KEYS | (_KEYS_OF_U32 if wide else _KEYS_OF_U16), len(words))
    yield b"".join(map(_text, words)) + struct.pack("<Q", len(places))
    yield np.ascontiguousarray(places, "<u4" if wide else "<u2").tobytes()


def _words_of(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the distinct texts, and the place of each row's among them."""
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return list(places), rows


def _length(number: int) -> bytes:
    """Return a number as LEB128."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: object) -> bytes:
    data = str(text).encode()
    return _length(len(data)) + data
