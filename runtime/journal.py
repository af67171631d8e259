"""The frame journal as it lies on disk, and its readers: the queue to all who come behind the windows.

Files are `<folder>/<sequence of first block>.arrows`, each a 16-byte
header and blocks of:

    magic "TBLK" | kind u8 | pad 3 | CRC-32 of the rest u32 | payload bytes u32 | sequence u64 |
    tick end i64 ns | payload: count u32, count lengths u32, then that many Arrow IPC streams
    (of a TOLD block: `telemetry.as_they_lie`)

all little-endian. Sequence numbers rise by one over the life of a journal. A block cut by a power
failure is found by its checksum: what follows it in that file is set aside as
`*.damaged-<sequence>` and said, never guessed. Readers keep a cursor each. Blocks are appended by
`runtime.journal_writer`.

Design section 7. CRC-32 is zlib's (ADR 0004).
"""

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from telemetry import as_they_lie, wire
from telemetry.batch import Batch
from telemetry.errors import ConfigError, DecodeError, TransientError

FILE_HEADER = b"TOCSINJOURNAL\x00\x01\x00"
BLOCK_HEADER = struct.Struct("<4sB3xIIQq")
MAGIC = b"TBLK"
SHEET_BYTES, SHEET_BYTES_MAX = 1 << 16, 1 << 21
BLOCK_BYTES_MAX = 1 << 30


class BlockKind(IntEnum):
    """What a block holds."""

    TICK = 1  # merged frames, new series, control rows of one tick end: fdatasync'ed
    RESULT = 2  # score columns, anomalies, alarm and incident changes: can be computed again
    TOLD = 3  # directly behind its TICK, fdatasync'ed: what leaves before the outbox has it


@dataclass(frozen=True, slots=True)
class Block:
    """One block as read back."""

    sequence: int
    kind: BlockKind
    tick_end_ns: int
    batches: tuple[Batch, ...]


def pack(batches: Sequence[Batch]) -> bytes:
    """Return the payload of a block."""
    parts = [wire.encode(batch) for batch in batches]
    lengths = [len(part) for part in parts]
    return b"".join([struct.pack(f"<I{len(parts)}I", len(parts), *lengths), *parts])


class Sheet:
    """Memory that a block is laid out in, and then the next one: a megabyte of pages that nobody has touched
    before costs more than what is written to them."""

    def __init__(self) -> None:
        self._data = bytearray(SHEET_BYTES)
        self.size = 0

    def write(self, data: Any) -> int:
        """Add a copy of a buffer."""
        with memoryview(data) as given, given.cast("B") as part:
            begins, self.size = self.size, self.size + len(part)
            if self.size > len(self._data):
                larger = bytearray(max(2 * len(self._data), self.size))
                larger[:begins] = self._data[:begins]
                self._data = larger
            memoryview(self._data)[begins : self.size] = part
            return len(part)

    def view(self) -> memoryview:
        """Return all of it; writable, until it is cleared."""
        return memoryview(self._data)[: self.size]

    def clear(self) -> None:
        """Begin anew; of much memory none is kept."""
        self.size = 0
        if len(self._data) > SHEET_BYTES_MAX:
            self._data = bytearray(SHEET_BYTES)


def unpack(payload: bytes) -> tuple[Batch, ...]:
    """Return the batches of a payload, or raise DecodeError."""
    try:
        (count,) = struct.unpack_from("<I", payload)
        lengths = struct.unpack_from(f"<{count}I", payload, 4)
    except struct.error as error:
        raise DecodeError("corrupt", f"journal block: {error}") from error
    at = 4 + 4 * count
    made = []
    for length in lengths:
        made.append(wire.decode(payload[at : at + length]))
        at += length
    return tuple(made)


class Cursor:
    """Where one reader stands, kept in `<folder>/<reader>` with a checksum."""

    def __init__(self, folder: Path, reader: str) -> None:
        self.path = folder / reader
        self.next_sequence = 1

    def load(self) -> None:
        """Read the file; without one, reading starts at the beginning.

        Raises DecodeError for a damaged one, and starts at the beginning as well; `start` of the reader
        whose cursor it is sets it aside.
        """
        try:
            fields = json.loads(self.path.read_bytes())
            if zlib.crc32(str(fields["next_sequence"]).encode()) != fields["crc32"]:
                raise ValueError("its checksum does not fit")
            self.next_sequence = int(fields["next_sequence"])
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(f"cursor {self.path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DecodeError("corrupt", f"cursor {self.path}: {error}") from error

    def commit(self, next_sequence: int) -> None:
        """Keep `next_sequence`: everything before it is done. Atomic and synced."""
        crc = zlib.crc32(str(next_sequence).encode())
        new = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                json.dump({"next_sequence": next_sequence, "crc32": crc}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise TransientError(f"cursor {self.path}: {error.strerror}") from error
        self.next_sequence = next_sequence


class JournalReader:
    """Reads blocks in order from a sequence number on, while the writer goes on writing."""

    def __init__(self, folder: Path, *, next_sequence: int = 1) -> None:
        self._folder = folder
        self.next_sequence = next_sequence
        self.gap_blocks = 0  # blocks that were gone before we came to them
        self._file: Path | None = None
        self._offset = 0
        self._damaged = False  # there, and later files exist

    def read(self, *, limit: int = 1_000_000) -> Iterator[Block]:
        """Yield what is there now, at most `limit` blocks. Returns at the end; call it again.

        Raises DecodeError for a damaged block that is not the end of the newest file, and for a block that
        holds no batches of ours; `skip` goes on behind it.
        """
        for _ in range(limit):
            found = self._next()
            if found is None:
                return
            kind, sequence, tick_end_ns, payload = found
            made = as_they_lie.decode(payload) if kind is BlockKind.TOLD else unpack(payload)
            yield Block(sequence, kind, tick_end_ns, made)

    def heads(self) -> Iterator[tuple[BlockKind, int]]:
        """Yield (kind, tick end) of the blocks that are there now; raises as `read` does."""
        while (found := self._next()) is not None:
            yield found[0], found[2]

    def skip(self) -> None:
        """Give up on what `read` raised for: one block, or where bytes are damaged the rest of that file."""
        if not self._damaged:  # a block that is whole and none of ours: `read` is behind it
            self.gap_blocks += 1
            return
        self._damaged = False
        later = [file for file in segments(self._folder) if self._file and file > self._file]
        if later:
            self.gap_blocks += max(0, int(later[0].stem) - self.next_sequence)
            self.next_sequence = int(later[0].stem)
            self._file = None

    def _next(self) -> tuple[BlockKind, int, int, bytes] | None:
        """Return (kind, sequence, tick end, payload) of the next block."""
        while True:
            if self._file is None and not self._open():
                return None
            assert self._file is not None
            found = _read_block(self._file, self._offset)
            if found is None:
                files = segments(self._folder)
                if self._file not in files:
                    self._file = None  # trimmed under us
                    continue
                if self._file == files[-1]:
                    return None
                # Nothing is appended any more; before the next file was begun, something may have been.
                found = _read_block(self._file, self._offset)
                if found is None:
                    self._leave(files[files.index(self._file) + 1])
                    continue
            kind, sequence, tick_end_ns, payload, end = found
            self._offset = end
            if sequence < self.next_sequence:
                continue
            self.next_sequence = sequence + 1
            return BlockKind(kind), sequence, tick_end_ns, payload

    def _leave(self, following: Path) -> None:
        """Go on with the file behind, or raise DecodeError where blocks are missing in between."""
        assert self._file is not None
        missing = int(following.stem) > self.next_sequence
        if missing and self._file.exists():  # it was not trimmed just now
            self._damaged = True
            raise DecodeError(
                "corrupt",
                f"journal {self._file} is damaged at byte {self._offset}; blocks "
                f"{self.next_sequence} to {int(following.stem) - 1} cannot be read",
            )
        self._file = None

    def _open(self) -> bool:
        files = segments(self._folder)
        older = [file for file in files if int(file.stem) <= self.next_sequence]
        if older:
            self._file = older[-1]
        elif files:
            self.gap_blocks += int(files[0].stem) - self.next_sequence
            self.next_sequence = int(files[0].stem)
            self._file = files[0]
        else:
            return False
        self._offset = len(FILE_HEADER)
        return True


def segments(folder: Path) -> list[Path]:
    """Return the segment files of a journal folder, oldest first."""
    return sorted(file for file in folder.glob("*.arrows") if file.stem.isdigit())


def write_segment(folder: Path, blocks: Iterable[Block]) -> int:
    """Write blocks under their own numbers into one new segment; return how many. Not synced.

    For cases and tests: a running journal is written by JournalWriter alone.
    """
    file: BinaryIO | None = None
    count = 0
    try:
        for block in blocks:
            if file is None:
                folder.mkdir(parents=True, exist_ok=True)
                file = (folder / f"{block.sequence:016d}.arrows").open("wb")
                file.write(FILE_HEADER)
            file.write(framed(block))
            count += 1
    finally:
        if file is not None:
            file.close()
    return count


def framed(block: Block, sheet: Sheet | None = None) -> memoryview:
    """Return a block as it is written; it stays until the next one is laid out on the sheet."""
    sheet = sheet or Sheet()
    sheet.clear()
    sheet.write(bytes(BLOCK_HEADER.size))
    if block.kind is BlockKind.TOLD:
        sheet.write(as_they_lie.encode(block.batches))
    else:
        count, lengths = len(block.batches), []
        sheet.write(struct.pack(f"<I{count}I", count, *[0] * count))
        for batch in block.batches:
            begins = sheet.size
            wire.write(batch, sheet)
            lengths.append(sheet.size - begins)
        struct.pack_into(f"<{count}I", sheet.view(), BLOCK_HEADER.size + 4, *lengths)
    size = sheet.size - BLOCK_HEADER.size
    if size > BLOCK_BYTES_MAX:
        raise ConfigError(f"a tick of {size} bytes is over {BLOCK_BYTES_MAX}; lower caps")
    view = sheet.view()
    fields = (size, block.sequence, block.tick_end_ns)
    rest = BLOCK_HEADER.pack(MAGIC, block.kind, 0, *fields)[12:]
    crc = zlib.crc32(view[BLOCK_HEADER.size :], zlib.crc32(bytes([block.kind]) + rest))
    BLOCK_HEADER.pack_into(view, 0, MAGIC, block.kind, crc, *fields)
    return view


def _read_block(path: Path, offset: int) -> tuple[int, int, int, bytes, int] | None:
    """Return (kind, sequence, tick end, payload, end offset), or None where no whole block is."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            header = file.read(BLOCK_HEADER.size)
            if len(header) < BLOCK_HEADER.size:
                return None
            magic, kind, crc, length, sequence, tick_end_ns = BLOCK_HEADER.unpack(header)
            # A damaged length must not be believed: room for so many bytes would be made first.
            if magic != MAGIC or length > os.fstat(file.fileno()).st_size - file.tell():
                return None
            payload = file.read(length)
    except FileNotFoundError:
        return None
    if len(payload) < length or zlib.crc32(bytes([kind]) + header[12:] + payload) != crc:
        return None
    return kind, sequence, tick_end_ns, payload, offset + BLOCK_HEADER.size + length


def scan(path: Path) -> tuple[int, int, int]:
    """Return (end of the last good block, its sequence or 0, its tick end or 0) of a file."""
    with path.open("rb") as file:
        if file.read(len(FILE_HEADER)) != FILE_HEADER:
            return 0, 0, 0
    offset, last, tick = len(FILE_HEADER), 0, 0
    while (found := _read_block(path, offset)) is not None:
        _, last, tick, _, offset = found
    return offset, last, tick
