"""Records out of bytes: JSON, JSON lines, CSV, lines with a pattern, XML; files also Arrow and Parquet.

What comes in lines is streamed: memory is bounded by `line_bytes_max` and the size of a chunk.
"""

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from collectors.foreign_text import clean, decode_text, json_of, xml_of, xml_tree
from collectors.mapped.mapping import RecordMapping, value_at
from telemetry.digest import blake2b
from telemetry.errors import ConfigError, DecodeError

BLOCK_BYTES = 262_144
CHUNK_ROWS = 5_000  # some megabytes in one message to the node, also of long log lines


@dataclass(slots=True)
class Chunk:
    """Some records: as dictionaries, or as columns of equal length."""

    records: Sequence[Mapping[str, Any]] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rows: int = 0
    malformed: int = 0
    digest: str = ""  # of the bytes it was made of

    def column(self, path: str) -> Sequence[Any]:
        """Return the values at a path, None where there are none."""
        if not self.records:
            return self.columns.get(path) or [None] * self.rows
        return [value_at(record, path) for record in self.records]

    def each(self) -> Iterator[Mapping[str, Any]]:
        """Yield the records one by one."""
        if self.records or not self.columns:
            yield from self.records
        else:
            names = list(self.columns)
            for values in zip(*self.columns.values(), strict=True):
                yield dict(zip(names, values, strict=True))


class LineAssembler:
    """Bytes cut anywhere in, whole lines out; a line beyond `most` bytes is dropped and counted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = b""
        self._skipping = False
        self.too_long = 0

    def feed(self, block: bytes) -> list[bytes]:
        """Return the lines that this block completes, without their ends."""
        *lines, rest = (self._rest + block).split(b"\n")
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        elif self._skipping:
            rest = b""
        if len(rest) > self._most:
            rest, self._skipping = b"", True
            self.too_long += 1
        self._rest = rest
        kept = [line for line in lines if len(line) <= self._most]
        self.too_long += len(lines) - len(kept)
        return [line.rstrip(b"\r") for line in kept]

    def end(self) -> list[bytes]:
        """Return the last line where it has no end."""
        rest, self._rest = self._rest, b""
        return [rest.rstrip(b"\r")] if rest else []


class RecordReader:
    """Reads one stream of records in the form that a mapping describes."""

    def __init__(self, mapping: RecordMapping, *, names: Sequence[str] = ()) -> None:
        self._mapping = mapping
        self._file = mapping.file
        self._lines = LineAssembler(self._file.line_bytes_max)
        self.names: list[str] = list(names or self._file.columns)  # csv: of the columns

    def chunks(self, blocks: Iterable[bytes], *, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yield all records of a stream; raise DecodeError where the document as a whole is none."""
        if self._file.format in ("json", "xml"):
            yield from _parts(self._document(blocks), rows)
            return
        waiting: list[bytes] = []
        for block in blocks:
            waiting += self._lines.feed(block)
            while len(waiting) >= rows:
                yield self.of_lines(waiting[:rows])
                del waiting[:rows]
        waiting += self._lines.end()
        if waiting or self._lines.too_long:
            yield self.of_lines(waiting)

    def of_lines(self, lines: Sequence[bytes]) -> Chunk:
        """Return the records of whole lines."""
        too_long, self._lines.too_long = self._lines.too_long, 0
        made = {"jsonl": self._of_json, "csv": self._of_csv, "lines": self._of_text}[
            self._file.format
        ]([line for line in lines if line.strip()])
        made.malformed += too_long
        made.digest = _digest(b"\n".join(lines))
        return made

    def _of_json(self, lines: Sequence[bytes]) -> Chunk:
        made: list[Mapping[str, Any]] = []
        for line in lines:
            try:
                value = json_of(line, self._file.encoding)
            except ValueError:
                continue
            if isinstance(value, dict):
                made.append(value)
        return Chunk(made, rows=len(made), malformed=len(lines) - len(made))

    def _of_text(self, lines: Sequence[bytes]) -> Chunk:
        match = self._mapping.pattern.search
        found = [match(decode_text(line, self._file.encoding)) for line in lines]
        made = [{k: v or "" for k, v in one.groupdict().items()} for one in found if one]
        return Chunk(made, rows=len(made), malformed=len(lines) - len(made))

    def _of_csv(self, lines: Sequence[bytes]) -> Chunk:
        text = [decode_text(line, self._file.encoding).replace("\x00", "") for line in lines]
        try:
            rows = list(csv.reader(text, delimiter=self._file.delimiter))
        except csv.Error as error:
            raise DecodeError("malformed", f"no CSV: {error}") from error
        if not self.names and rows:
            self.names = [name.strip().lstrip("\ufeff") for name in rows.pop(0)]
        good = [row for row in rows if len(row) == len(self.names)]
        columns = dict(zip(self.names, zip(*good, strict=True), strict=True)) if good else {}
        return Chunk(columns=columns, rows=len(good), malformed=len(rows) - len(good))

    def _document(self, blocks: Iterable[bytes]) -> Chunk:
        """Return the records of a document that must be read as a whole."""
        parts, size = [], 0
        for block in blocks:
            parts.append(block)
            size += len(block)
            if size > self._file.document_bytes_max:
                raise DecodeError(
                    "too_large",
                    f"the document is longer than document_bytes_max = {self._file.document_bytes_max}; "
                    "JSON lines and CSV are streamed",
                )
        return document_chunk(b"".join(parts), self._mapping)


def document_chunk(body: bytes, mapping: RecordMapping) -> Chunk:
    """Return the records of a whole JSON or XML document, or raise DecodeError."""
    file = mapping.file
    try:
        tree = xml_tree(xml_of(body)) if file.format == "xml" else json_of(body, file.encoding)
    except ValueError as error:
        raise DecodeError("malformed", f"no {file.format.upper()}: {error}") from error
    found = value_at(tree, file.records) if file.records else tree
    if found is None or found == "":
        if file.records and not _is_there(tree, file.records):
            raise DecodeError("malformed", f"nothing at records = {file.records!r}")
        found = []
    entries = found if isinstance(found, list) else [found]
    made = [entry for entry in entries if isinstance(entry, dict)]
    return Chunk(made, rows=len(made), malformed=len(entries) - len(made), digest=_digest(body))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _is_there(tree: Any, path: str) -> bool:
    above, _, last = path.rpartition(".")
    value = value_at(tree, above) if above else tree
    return isinstance(value, dict) and last in value


def _parts(chunk: Chunk, rows: int) -> Iterator[Chunk]:
    entries = iter(chunk.records)
    malformed = chunk.malformed
    while part := list(islice(entries, rows)):
        yield Chunk(part, rows=len(part), malformed=malformed, digest=chunk.digest)
        malformed = 0
    if malformed:
        yield Chunk(malformed=malformed, digest=chunk.digest)


def file_chunks(
    path: Path, mapping: RecordMapping, progress: Callable[[int], None] = lambda position: None
) -> Iterator[Chunk]:
    """Yield the records of a file, packed (.gz) or not; `progress` is told the position in bytes.

    Raises DecodeError where the file is not what the mapping says, OSError where it cannot be read.
    """
    if mapping.file.format in ("arrow", "parquet"):
        yield from _arrow_chunks(path, mapping.file.format, progress)
        return
    with path.open("rb") as raw:
        file: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw

        def blocks() -> Iterator[bytes]:
            try:
                while block := file.read(BLOCK_BYTES):
                    progress(raw.tell())
                    yield block
            except (EOFError, gzip.BadGzipFile, OSError) as error:
                if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                    raise
                raise DecodeError("malformed", f"no whole gzip file: {error}") from error

        yield from RecordReader(mapping).chunks(blocks())


def _arrow_chunks(path: Path, form: str, progress: Callable[[int], None]) -> Iterator[Chunk]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{form} files need pyarrow: pip install 'tocsin[site]'") from error
    try:
        if form == "parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                total, seen, size = max(file.metadata.num_rows, 1), 0, path.stat().st_size
                for batch in file.iter_batches(CHUNK_ROWS):
                    seen += batch.num_rows
                    progress(size * seen // total)
                    yield _columns(batch)
            return
        with path.open("rb") as raw:
            data: Any = raw if path.suffix != ".gz" else gzip.GzipFile(fileobj=raw)
            is_file = data.read(6) == b"ARROW1"
            data.seek(0)
            if is_file:
                opened = pyarrow.ipc.open_file(data)
                batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            else:
                batches = iter(pyarrow.ipc.open_stream(data))
            for batch in batches:
                progress(raw.tell())
                for start in range(0, batch.num_rows, CHUNK_ROWS):
                    yield _columns(batch.slice(start, CHUNK_ROWS))
    except (
        pyarrow.ArrowException,
        EOFError,
        ValueError,
        OverflowError,
        MemoryError,
        OSError,
    ) as error:
        # The library calls damage an OSError, too; a length that is none asks for memory without end.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = str(error).partition("\n")[0][:200] or "a length in it is none"
        raise DecodeError("malformed", f"no {form} file: {said}") from error


def _columns(batch: Any) -> Chunk:
    batch.validate(full=True)  # else an offset out of bounds would be read
    # Of two of one name the last counts.
    named = zip(batch.schema.names, batch.columns, strict=True)
    columns = {name: _values(name, column) for name, column in named}
    return Chunk(columns=columns, rows=batch.num_rows, digest=_digest(batch.serialize()))


def _values(name: str, column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (LookupError, ValueError, OverflowError, OSError) as error:
        # Times of a zone that nobody knows.
        said = f"column {clean(name, 64)}, {clean(column.type, 100)}: {clean(error, 100)} cannot be read"
        raise DecodeError("malformed", said) from error
    return values
