"""Schemas: the names, types and units of the columns that stages hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # configuration reads the views' schemas without numpy
    import numpy as np


class Kind(StrEnum):
    """How a field's values lie in memory."""

    PLAIN = "plain"  # one fixed-width value a row: columns[name] has n values of `dtype`
    TEXT = "text"  # UTF-8: columns[name] is int32[n + 1] offsets into the uint8 blobs[name]
    CODE = "code"  # columns[name] is uint32[n], an index into the tuple dictionaries[name]


@dataclass(frozen=True)
class Field:
    """One column. `unit` is a UCUM code ("By", "ns", "{packet}") or "" for plain labels."""

    name: str
    format: str  # of columns[name] in numpy's short form; "i4" for text, "u4" for code
    unit: str = ""
    doc: str = ""
    kind: Kind = Kind.PLAIN

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """`format` as numpy has it."""
        import numpy as np

        return np.dtype(self.format)


def plain(name: str, dtype: str, unit: str = "", doc: str = "") -> Field:
    """Return a fixed-width field; `dtype` in numpy's short form, such as "u8"."""
    return Field(name, dtype, unit, doc)


def text(name: str, doc: str = "") -> Field:
    """Return a field of UTF-8 texts of any length."""
    return Field(name, "i4", "", doc, Kind.TEXT)


def code(name: str, doc: str = "") -> Field:
    """Return a field of texts from a small set, stored as numbers into a dictionary."""
    return Field(name, "u4", "", doc, Kind.CODE)


@dataclass(frozen=True)
class Schema:
    """An ordered set of fields under a name and a version.

    A field added at the end is a new minor version: readers fill what they miss with zero and
    ignore what they do not know. A changed meaning is a new major version, which a reader that
    does not know it must park and report, never guess (design section 4, wire format).
    """

    name: str
    major: int
    minor: int
    fields: tuple[Field, ...]

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """The fields by their name."""
        return {field.name: field for field in self.fields}

    @property
    def label(self) -> str:
        """Name and version as text: `flow/1.0`."""
        return f"{self.name}/{self.major}.{self.minor}"

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def names(self) -> tuple[str, ...]:
        """The names of the fields in order."""
        return self._names

    @cached_property
    def shape(self) -> tuple[tuple[str, np.dtype[Any], Kind], ...]:
        """Name, type and kind of each field, as a batch is checked against them."""
        return tuple((field.name, field.dtype, field.kind) for field in self.fields)

    def wider(self, *fields: Field) -> Schema:
        """Return this schema with more fields at its end: a table gains columns room by room."""
        return Schema(self.name, self.major, self.minor, self.fields + fields)
