"""Rows of files as people have them: CSV of any delimiter, JSON lines or a JSON document, packed or not.

What a file is shows in its content, not in its name. UTF-8 and UTF-16 are told apart by their marks;
what is no UTF-8 is read as ISO-8859-1.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from collectors.foreign_text import decode_text
from telemetry.errors import ConfigError

Row = tuple[tuple[str, ...], Sequence[str]]  # names of its columns, values
DELIMITERS = ",;\t|"
FIELD_CHARACTERS_MAX = 16 * 1024 * 1024
HEAD_BYTES = 65_536
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
CONTROLS = bytes({*range(1, 32), 127} - set(b"\t\n\v\f\r\x1b"))  # zeros are in CSV of some
TEXT_SHARE_MIN = 0.98
_PACKED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)
UNREADABLE = (
    OSError, EOFError, ValueError, RecursionError, csv.Error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip


def bytes_of(path: Path) -> IO[bytes]:
    """Return a file opened to read, unpacked where it is packed. A pipe is read whole: it comes once."""
    with path.open("rb") as file:
        whole = None if path.is_file() else file.read()
        head = file.read(6) if whole is None else whole[:6]
    if head.startswith(b"PK\x03\x04") and path.suffix != ".npz":  # numpy's own are zips too
        with zipfile.ZipFile(path) as archive:  # it stays open while its file is
            return archive.open(archive.namelist()[0])
    unpack = next((how for mark, how in _PACKED if head.startswith(mark)), None)
    if whole is not None:
        return io.BytesIO(unpack(io.BytesIO(whole)).read() if unpack else whole)
    opened: IO[bytes] = unpack(path) if unpack else path.open("rb")
    return opened


def text_of(path: Path) -> io.TextIOWrapper:
    """Return a text file opened to read, whatever its encoding."""
    opened = bytes_of(path)
    try:
        head = opened.read(HEAD_BYTES)
        opened.seek(0)
        _check_text(path, head)
    except BaseException:
        opened.close()
        raise
    encoding = "utf-16" if head[:2] in UTF_16 else "utf-8-sig"
    return io.TextIOWrapper(
        opened, encoding, errors="tocsin-latin-1" if encoding == "utf-8-sig" else "replace",
        newline="",
    )  # fmt: skip


def _check_text(path: Path, head: bytes) -> None:
    """Raise ConfigError for a file that is no text: what is in it is for no terminal."""
    if head[:2] not in UTF_16 and len(head.translate(None, CONTROLS)) < TEXT_SHARE_MIN * len(head):
        raise ConfigError(f"{path}: a binary file; text is read here: CSV, JSON, an edge list")


def delimiter_of(line: str) -> str:
    """Return what separates the fields of a line; what is within quotes separates nothing.

    >>> delimiter_of('"time";"CPU, all, %"')
    ';'
    """
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, or raise ConfigError where it has none."""
    try:
        with text_of(path) as file:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            if head.lstrip()[:1] in ("{", "["):
                yield from _of_json(file, head)
            else:
                yield from _of_csv(file, head)
    except UNREADABLE as error:
        raise ConfigError(
            f"{path}: neither CSV with a header nor JSON lines nor a JSON list: {error}"
        ) from error


def _of_csv(file: io.TextIOWrapper, head: str) -> Iterator[Row]:
    first = next((line for line in head.splitlines() if line.strip()), "")
    delimiter = delimiter_of(first)
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    rows = csv.reader((line.replace("\0", "") for line in file), delimiter=delimiter)
    names: tuple[str, ...] = ()
    for row in rows:
        if not names:
            names = tuple(name.strip() for name in row) if any(row) else ()
        elif row:
            yield names, row + [""] * (len(names) - len(row))


def _of_json(file: io.TextIOWrapper, head: str) -> Iterator[Row]:
    """Yield records of JSON lines, of a list, or of the longest list that a document has."""
    first, _, more = (part.strip() for part in head.lstrip().partition("\n"))
    if first.startswith("{") and more:
        try:
            json.loads(first)
        except ValueError:
            pass  # a document of many lines
        else:
            for line in file:
                if line.strip():
                    yield _record(json.loads(line, strict=False))
            return
    tree = json.loads(file.read(), strict=False)
    for record in _longest(tree) or [tree]:
        yield _record(record)


def _longest(tree: Any) -> list[Any]:
    """Return the longest list of objects in a document, at most three levels down."""
    level: list[Any] = [tree]
    best: list[Any] = []
    for _ in range(4):
        for one in level:
            if isinstance(one, list) and len(one) > len(best) and isinstance(one[0], dict):
                best = one
        level = [below for one in level if isinstance(one, dict) for below in one.values()]
    return best


def _record(record: Any) -> Row:
    if not isinstance(record, dict):
        raise ValueError(f"{str(record)[:60]!r} is no object")  # noqa: TRY004  # as json says it
    flat = dict(_flat(record))
    return tuple(flat), list(flat.values())


def _flat(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", "" if value is None else str(value)


def document_of(path: Path) -> str:
    """Return a whole file as text, or raise ConfigError."""
    try:
        with bytes_of(path) as file:
            data = file.read()
    except UNREADABLE as error:
        raise ConfigError(f"{path}: {error}") from error
    _check_text(path, data[:HEAD_BYTES])
    if data[:2] in UTF_16:
        return data.decode("utf-16", "replace")
    return decode_text(data.removeprefix(b"\xef\xbb\xbf"))
