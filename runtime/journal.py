"""The frame journal: the one durable thing behind the windows, and the queue to every reader.

A tick that closes is appended as one block and fdatasync'ed before it is scored, so all that comes
after can be computed again. Files are `<folder>/<sequence of first block>.arrows`, each a 16-byte
header and blocks of:

    magic "TBLK" | kind u8 | pad 3 | CRC-32 of the rest u32 | payload bytes u32 | sequence u64 |
    tick end i64 ns | payload: count u32, count lengths u32, then that many Arrow IPC streams

all little-endian. Sequence numbers rise by one over the life of a journal. A block cut by a power
failure is found by its checksum: what follows it in that file is set aside as
`*.damaged-<sequence>` and said, never guessed. Readers keep a cursor each; beyond the
budget the oldest segment is deleted; one that a cursor still needs, counted and said.

Design section 7. CRC-32 is zlib's (ADR 0004).
"""

import contextlib
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from runtime.component import Context
from telemetry import wire
from telemetry.batch import Batch
from telemetry.errors import ConfigError, DecodeError, TransientError

FILE_HEADER = b"TOCSINJOURNAL\x00\x01\x00"
BLOCK_HEADER = struct.Struct("<4sB3xIIQq")
MAGIC = b"TBLK"
BLOCK_BYTES_MAX = 1 << 30
PENDING_BYTES_MAX = 64 * 1024 * 1024


class BlockKind(IntEnum):
    """What a block holds."""

    TICK = 1  # merged frames, new series, control rows of one tick end: fdatasync'ed
    RESULT = 2  # score columns, anomalies, alarm and incident changes: can be computed again


@dataclass(frozen=True, slots=True)
class Block:
    """One block as read back."""

    sequence: int
    kind: BlockKind
    tick_end_ns: int
    batches: tuple[Batch, ...]


def pack(batches: Sequence[Batch]) -> bytes:
    """Return the payload of a block."""
    return b"".join(_parts(batches))


def _parts(batches: Sequence[Batch]) -> list[bytes]:
    """Return the payload of a block in parts: a megabyte need not be copied to be written."""
    parts = [wire.encode(batch) for batch in batches]
    lengths = [len(part) for part in parts]
    return [struct.pack(f"<I{len(parts)}I", len(parts), *lengths), *parts]


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


class JournalWriter:
    """Appends blocks. Owned by the node; there is one writer per folder."""

    def __init__(
        self,
        folder: Path,
        context: Context,
        *,
        segment_bytes: int = 64 * 1024 * 1024,
        segment_seconds: float = 600.0,
        budget_bytes: int = 2 * 1024**3,
    ) -> None:
        self._folder = folder
        self._context = context
        self._segment_bytes = segment_bytes
        self._segment_ns = round(segment_seconds * 1e9)
        self._budget_bytes = budget_bytes
        self._fd = -1
        self._size = 0
        self._first_tick_ns = 0
        self._next = 1
        self._trouble = ""
        self._disk = ThreadPoolExecutor(1, "journal")  # starts its thread with the first job
        self._syncing: Future[None] | None = None
        self._unsynced = False  # a block that was to be on disk may not be there
        # Blocks that a full disk refused; written first as soon as there is room again.
        self._pending: deque[list[bytes]] = deque()
        self._pending_bytes = 0
        metrics = context.metrics
        self._blocks = metrics.counter("journal_blocks_total", "blocks appended to the journal")
        self._bytes = metrics.counter("journal_bytes_total", "bytes appended to the journal")
        self._dropped = metrics.counter(
            "journal_dropped_total",
            "blocks or segments lost, by reason",
            label="reason",
            values=("damaged_tail", "segment_over_budget", "disk_refused"),
        )

    def start(self) -> None:
        """Open the folder, cut off a torn tail, and stand behind the last good block."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for segment in segments(self._folder)[-1:]:
                self._continue(segment)
        except OSError as error:
            raise ConfigError(
                f"journal folder {self._folder}: {error.strerror}; make it writable for this user "
                f"or set another state_dir. The node was not started."
            ) from error

    def _continue(self, segment: Path) -> None:
        good, last, _ = _scan(segment)
        size = segment.stat().st_size
        if good < size:
            aside = segment.with_name(f"{segment.name}.damaged-{last + 1}")
            data = segment.read_bytes()
            aside.write_bytes(data[good:])
            with segment.open("r+b") as file:
                file.truncate(good)
                os.fsync(file.fileno())
            self._dropped.add("damaged_tail")
            self._context.log.warning(
                "journal_tail_set_aside file=%s bytes=%d kept_until_sequence=%d",
                aside, size - good, last,
            )  # fmt: skip
        else:  # what a kill left unsynced must be on disk before anybody acts on it
            with segment.open("rb") as file:
                os.fsync(file.fileno())
        # A segment without a good block still says by its name which number comes next.
        self._next = max(last + 1, int(segment.stem))
        if good <= len(FILE_HEADER):
            segment.unlink()

    def go_on_from(self, sequence: int) -> None:
        """Give no number below `sequence`: readers that have passed it would take a block for read.

        After a power cut the journal may end before what a checkpoint or a cursor has seen of it.
        """
        self._next = max(self._next, sequence)

    def stop(self) -> None:
        """Close the open segment."""
        self.settle()
        self._disk.shutdown()
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def health(self) -> str:
        """Return "" or what the disk refuses."""
        return self._trouble

    @property
    def next_sequence(self) -> int:
        """The number the next block will get."""
        return self._next

    def append(
        self,
        kind: BlockKind,
        tick_end_ns: int,
        batches: Sequence[Batch],
        *,
        sync: bool,
        behind: bool = False,
    ) -> int:
        """Append one block and return its sequence number; with `sync` it is on disk on return.

        With `behind` the disk does its part while the caller goes on, who says `settle` before
        anything is told to others.
        A disk that refuses (full, read-only) does not stop the node: the block is kept in memory,
        at most 64 MB of them, and written when there is room; `health` says so meanwhile.
        """
        self.settle()
        block = _framed(kind, self._next, tick_end_ns, _parts(batches))
        size = sum(map(len, block))
        sequence = self._next
        self._next += 1
        self._unsynced |= sync
        self._pending.append(block)
        self._pending_bytes += size
        try:
            while self._pending:
                self._roll(tick_end_ns)
                self._write(self._pending[0])
                self._pending_bytes -= sum(map(len, self._pending.popleft()))
            if sync and behind:
                self._syncing = self._disk.submit(os.fdatasync, self._fd)
            elif self._unsynced:
                os.fdatasync(self._fd)
                self._unsynced = False
            self._well()
        except OSError as error:
            self._refused(error)
        self._blocks.array[0] += 1
        self._bytes.array[0] += size - BLOCK_HEADER.size
        return sequence

    def settle(self) -> None:
        """Return when what was appended with `behind` is on disk."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            try:
                syncing.result()
                self._unsynced = False
                self._well()
            except OSError as error:
                self._refused(error)

    def _well(self) -> None:
        """Nothing waits in memory: once the disk has it too, the trouble is over."""
        if self._trouble and not self._unsynced:
            self._context.log.info("journal_writes_again folder=%s", self._folder)
            self._trouble = ""

    def _refused(self, error: OSError) -> None:
        if not self._trouble:
            self._context.log.error(
                "journal_refused folder=%s error=%s kept_in_memory=%d",
                self._folder, error.strerror, len(self._pending),
            )  # fmt: skip
        self._trouble = (
            f"the journal in {self._folder} cannot be written: {error.strerror}; "
            f"{len(self._pending)} blocks wait in memory ({PENDING_BYTES_MAX >> 20} MB at most). "
            f"Free space or make it writable"
        )
        while self._pending_bytes > PENDING_BYTES_MAX:
            self._pending_bytes -= sum(map(len, self._pending.popleft()))
            self._dropped.add("disk_refused")

    def _write(self, parts: Sequence[bytes]) -> None:
        at = self._size
        try:
            for part in parts:
                written = 0
                while written < len(part):
                    written += os.pwrite(self._fd, memoryview(part)[written:], at + written)
                at += written
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)  # no half block for the next start to find
            raise
        self._size = at

    def _roll(self, tick_end_ns: int) -> None:
        full = self._size >= self._segment_bytes
        old = tick_end_ns - self._first_tick_ns >= self._segment_ns
        if self._fd >= 0 and not full and not old:
            return
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
        (sequence,) = struct.unpack_from("<Q", self._pending[0][0], 16)
        path = self._folder / f"{sequence:016d}.arrows"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
        self._size = 0
        try:
            self._write([FILE_HEADER])
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name of the new file is part of what must survive
            finally:
                os.close(folder)
        except OSError:  # a segment without its header could never be read: begin it again
            os.close(self._fd)
            self._fd = -1
            raise
        self._first_tick_ns = tick_end_ns

    def trim(self, cursors: Sequence["Cursor"], *, keep_sequence: int) -> None:
        """Keep the journal within its budget, the oldest segments going first.

        What all cursors and the last checkpoint have passed stays as long as there is room: it is
        what `replay`, `trace` and cases read. A segment that is still needed goes only when there
        is no other way: counted and logged.
        """
        files = segments(self._folder)
        needed = min([keep_sequence, *(cursor.next_sequence for cursor in cursors)])
        total = sum(file.stat().st_size for file in files)
        for file, following in zip(files, files[1:], strict=False):
            if total <= self._budget_bytes:
                break
            passed = int(following.stem) <= needed
            total -= file.stat().st_size
            file.unlink()
            if not passed:
                self._dropped.add("segment_over_budget")
                self._context.log.error(
                    "journal_segment_dropped file=%s budget_bytes=%d", file, self._budget_bytes
                )


class Cursor:
    """Where one reader stands, kept in `<folder>/<reader>` with a checksum."""

    def __init__(self, folder: Path, reader: str) -> None:
        self._path = folder / reader
        self.next_sequence = 1

    def load(self) -> None:
        """Read the file; a damaged one is set aside and reading starts at the beginning."""
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            return
        try:
            fields = json.loads(text)
            if zlib.crc32(str(fields["next_sequence"]).encode()) != fields["crc32"]:
                raise ValueError("checksum")
            self.next_sequence = int(fields["next_sequence"])
        except (ValueError, KeyError, TypeError):
            self._path.rename(self._path.with_name(self._path.name + ".damaged"))

    def commit(self, next_sequence: int) -> None:
        """Keep `next_sequence`: everything before it is done. Atomic and synced."""
        crc = zlib.crc32(str(next_sequence).encode())
        new = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                json.dump({"next_sequence": next_sequence, "crc32": crc}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise TransientError(f"cursor {self._path}: {error.strerror}") from error
        self.next_sequence = next_sequence


class JournalReader:
    """Reads blocks in order from a sequence number on, while the writer goes on writing."""

    def __init__(self, folder: Path, *, next_sequence: int = 1) -> None:
        self._folder = folder
        self.next_sequence = next_sequence
        self.gap_blocks = 0  # blocks that were gone before we came to them
        self._file: Path | None = None
        self._offset = 0

    def read(self, *, limit: int = 1_000_000) -> Iterator[Block]:
        """Yield what is there now, at most `limit` blocks. Returns at the end; call it again.

        Raises DecodeError for a damaged block that is not the end of the newest file; `skip`
        goes on behind it.
        """
        for _ in range(limit):
            found = self._next()
            if found is None:
                return
            yield found

    def skip(self) -> None:
        """Give up on the rest of the current file (a damaged block) and go on with the next."""
        later = [file for file in segments(self._folder) if self._file and file > self._file]
        if later:
            self.gap_blocks += max(0, int(later[0].stem) - self.next_sequence)
            self.next_sequence = int(later[0].stem)
            self._file = None

    def _next(self) -> Block | None:
        while True:
            if self._file is None and not self._open():
                return None
            assert self._file is not None
            framed = _read_block(self._file, self._offset)
            if framed is None:
                files = segments(self._folder)
                if self._file not in files or self._file == files[-1]:
                    if self._file not in files:
                        self._file = None  # trimmed under us
                        continue
                    return None
                following = files[files.index(self._file) + 1]
                if int(following.stem) > self.next_sequence:
                    raise DecodeError(
                        "corrupt",
                        f"journal {self._file} is damaged at byte {self._offset}; blocks "
                        f"{self.next_sequence} to {int(following.stem) - 1} cannot be read",
                    )
                self._file = None
                continue
            kind, sequence, tick_end_ns, payload, end = framed
            self._offset = end
            if sequence < self.next_sequence:
                continue
            self.next_sequence = sequence + 1
            return Block(sequence, BlockKind(kind), tick_end_ns, unpack(payload))

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
            parts = _parts(block.batches)
            file.writelines(_framed(block.kind, block.sequence, block.tick_end_ns, parts))
            count += 1
    finally:
        if file is not None:
            file.close()
    return count


def _framed(
    kind: BlockKind, sequence: int, tick_end_ns: int, payload: Sequence[bytes]
) -> list[bytes]:
    """Return a block in parts, the header first."""
    size = sum(map(len, payload))
    if size > BLOCK_BYTES_MAX:
        raise ConfigError(f"a tick of {size} bytes is over {BLOCK_BYTES_MAX}; lower caps")
    rest = BLOCK_HEADER.pack(MAGIC, kind, 0, size, sequence, tick_end_ns)[12:]
    crc = zlib.crc32(bytes([kind]) + rest)
    for part in payload:
        crc = zlib.crc32(part, crc)
    return [BLOCK_HEADER.pack(MAGIC, kind, crc, size, sequence, tick_end_ns), *payload]


def _read_block(path: Path, offset: int) -> tuple[int, int, int, bytes, int] | None:
    """Return (kind, sequence, tick end, payload, end offset), or None where no whole block is."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            header = file.read(BLOCK_HEADER.size)
            if len(header) < BLOCK_HEADER.size:
                return None
            magic, kind, crc, length, sequence, tick_end_ns = BLOCK_HEADER.unpack(header)
            if magic != MAGIC or length > BLOCK_BYTES_MAX:
                return None
            payload = file.read(length)
    except FileNotFoundError:
        return None
    if len(payload) < length or zlib.crc32(bytes([kind]) + header[12:] + payload) != crc:
        return None
    return kind, sequence, tick_end_ns, payload, offset + BLOCK_HEADER.size + length


def _scan(path: Path) -> tuple[int, int, int]:
    """Return (end of the last good block, its sequence or 0, its tick end or 0) of a file."""
    with path.open("rb") as file:
        if file.read(len(FILE_HEADER)) != FILE_HEADER:
            return 0, 0, 0
    offset, last, tick = len(FILE_HEADER), 0, 0
    while (framed := _read_block(path, offset)) is not None:
        _, last, tick, _, offset = framed
    return offset, last, tick
