"""The writer of the frame journal: what it says is on disk survives a power cut.

A tick that closes is appended as one block and fdatasync'ed, so all that comes after can be computed
again. A disk that refuses (full, read-only, broken) does not stop the node: blocks wait in memory and
`health` says so. Where a sync fails, the kernel may have dropped what it could not write, and says so
only once: a later sync that succeeds proves nothing. What was not synced is therefore written again,
into a new segment, before it counts (ADR 0014).
"""

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runtime.component import Context
from runtime.journal import (
    BLOCK_HEADER,
    FILE_HEADER,
    Block,
    BlockKind,
    Cursor,
    Sheet,
    framed,
    scan,
    segments,
)
from telemetry.batch import Batch
from telemetry.errors import ConfigError

WAITING_BYTES_MAX = 64 * 1024 * 1024
COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Kept:
    """A block that is not known to be on disk."""

    block: Block
    sync: bool  # somebody waits for it to be there
    size: int


def _write_again(path: Path) -> None:
    """Have on disk what a kill left unsynced, before anybody acts on it.

    The sync of an earlier process may have failed: then only what is written again is sure to be there.
    """
    with path.open("r+b", buffering=0) as file:
        at = 0
        while part := os.pread(file.fileno(), COPY_BYTES, at):
            at += os.pwrite(file.fileno(), part, at)
        os.fsync(file.fileno())


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
        self._sheet = Sheet()
        self._size = 0
        self._first_tick_ns = 0
        self._next = 1
        self.newest_tick_ns = 0  # of what an earlier process wrote
        self._on_disk = 0
        self._trouble = ""
        self._missing = ""  # a block that is in no journal and will be in none
        self._disk = ThreadPoolExecutor(1, "journal")  # starts its thread with the first job
        self._behind: Future[bool] | None = None  # owns the segment until it is settled
        self._unwritten: deque[_Kept] = deque()  # a disk refused the first of them
        self._unwritten_bytes = 0
        # Written: the first that is to be on disk and may not be, and all behind it in the segment.
        self._unsynced: list[_Kept] = []
        self._unsynced_at = 0
        self.rolled = False  # a segment was begun; who trims says False
        metrics = context.metrics
        self._blocks = metrics.counter("journal_blocks_total", "blocks appended to the journal")
        self._bytes = metrics.counter("journal_bytes_total", "bytes appended to the journal")
        self._dropped = metrics.counter(
            "journal_dropped_total",
            "blocks or segments lost, by reason",
            label="reason",
            values=("damaged_tail", "segment_over_budget"),
        )

    def start(self) -> None:
        """Open the folder, cut off a torn tail, and stand behind the last good block."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = segments(self._folder)
            for segment in found[-1:]:
                self._continue(segment)
            # The newest may have no block: begun, and then the power went.
            ends = (scan(segment)[2] for segment in reversed(found[:-1]))
            self.newest_tick_ns = self.newest_tick_ns or next(filter(None, ends), 0)
        except OSError as error:
            raise ConfigError(
                f"journal folder {self._folder}: {error.strerror}; make it writable for this user "
                f"or set another state_dir. The node was not started."
            ) from error
        self._on_disk = self._next - 1

    def _continue(self, segment: Path) -> None:
        good, last, self.newest_tick_ns = scan(segment)
        size = segment.stat().st_size
        if good < size:
            aside = segment.with_name(f"{segment.name}.damaged-{last + 1}")
            with segment.open("rb") as torn, aside.open("wb") as kept:
                torn.seek(good)
                shutil.copyfileobj(torn, kept)
            os.truncate(segment, good)
            self._dropped.add("damaged_tail")
            self._context.log.warning(
                "journal_tail_set_aside file=%s bytes=%d kept_until_sequence=%d",
                aside, size - good, last,
            )  # fmt: skip
        _write_again(segment)
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
        """Try once more to write what waits, and close the open segment."""
        self.retry()
        if self._unwritten:
            self._context.log.error(
                "journal_stopped folder=%s blocks_lost=%d", self._folder, len(self._unwritten)
            )
        self._disk.shutdown()
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def health(self) -> str:
        """Return "" or what the disk refuses."""
        return self._missing or self._trouble

    @property
    def full(self) -> bool:
        """Whether so much waits in memory for the disk that no more ticks should be made."""
        return self._unwritten_bytes >= WAITING_BYTES_MAX

    @property
    def next_sequence(self) -> int:
        """The number the next block will get."""
        return self._next

    @property
    def on_disk(self) -> int:
        """The number up to which every block that was appended with `sync` is on disk."""
        return self._on_disk

    def append(
        self,
        kind: BlockKind,
        tick_end_ns: int,
        batches: Sequence[Batch],
        *,
        sync: bool,
        behind: bool = False,
    ) -> int:
        """Append one block and return its sequence number; `on_disk` says whether it is there.

        With `behind` a thread syncs it while the caller goes on, who says `settle` before it asks; a tick is
        encoded and written by that thread too.
        """
        self.settle()
        block = Block(self._next, kind, tick_end_ns, tuple(batches))
        self._next += 1
        if not behind:
            self._put(block, sync=sync, behind=False)
        elif kind is BlockKind.TICK:
            self._behind = self._disk.submit(self._put_and_sync, block, sync=sync)
        elif self._put(block, sync=sync, behind=True):
            self._behind = self._disk.submit(self._sync_behind)
        return block.sequence

    def _put_and_sync(self, block: Block, *, sync: bool) -> bool:
        return self._put(block, sync=sync, behind=True) and self._sync_behind()

    def _sync_behind(self) -> bool:
        os.fdatasync(self._fd)
        return True

    def _put(self, block: Block, *, sync: bool, behind: bool) -> bool:
        """Write a block behind those that wait; return whether it is still to be synced, for `settle` to count."""
        try:
            # Nobody waits for a result, which may be several times as large.
            whole = framed(block, None if block.kind is BlockKind.RESULT else self._sheet)
        except Exception as error:  # its number is given out, and nothing may count as kept past it
            self._missing = f"block {block.sequence} could not be journalled: {error!r}"
            raise
        size = len(whole)
        self._blocks.array[0] += 1
        self._bytes.array[0] += size - BLOCK_HEADER.size
        self._unwritten.append(_Kept(block, sync, size))
        self._unwritten_bytes += size
        self._go_on(whole if len(self._unwritten) == 1 else None, behind=behind)
        return behind and not self._unwritten and bool(self._unsynced)

    def settle(self) -> None:
        """Return when the disk has done, or refused, what was appended with `behind`."""
        behind, self._behind = self._behind, None
        if behind is None:
            return
        try:
            if behind.result():
                self._synced()
        except OSError as error:
            self._take_back()
            self._refused(error)
            self._go_on()  # in a new segment: an error may be that of a place, or of a moment

    def retry(self) -> None:
        """Write what waits in memory, where the disk takes it again."""
        self.settle()
        if self._trouble:
            self._go_on()

    def _go_on(self, first: memoryview | None = None, *, behind: bool = False) -> None:
        """Write all that waits, and sync it unless that comes behind; `first` is the first of it, where made."""
        try:
            while self._unwritten:
                kept = self._unwritten[0]
                self._roll(kept.block)
                at = self._size
                self._write(first or framed(kept.block, self._sheet))
                first = None
                if kept.sync and not self._unsynced:
                    self._unsynced_at = at
                if kept.sync or self._unsynced:
                    self._unsynced.append(kept)
                self._unwritten_bytes -= self._unwritten.popleft().size
            if not behind:
                self._sync()
        except OSError as error:
            self._refused(error)

    def _sync(self) -> None:
        if self._unsynced:
            try:
                os.fdatasync(self._fd)
            except OSError:
                self._take_back()
                raise
        self._synced()

    def _synced(self) -> None:
        for kept in self._unsynced:
            if kept.sync:
                self._on_disk = kept.block.sequence
        self._unsynced.clear()
        if self._trouble and not self._unwritten:
            self._context.log.info("journal_writes_again folder=%s", self._folder)
            self._trouble = ""

    def _take_back(self) -> None:
        """A sync failed: what it was for is to be written again, and not to this segment."""
        with contextlib.suppress(OSError):  # a reader that finds a block twice takes it once
            os.ftruncate(self._fd, self._unsynced_at)
        self._close()
        self._unwritten.extendleft(reversed(self._unsynced))
        self._unwritten_bytes += sum(kept.size for kept in self._unsynced)
        self._unsynced.clear()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            os.close(fd)

    def _refused(self, error: OSError) -> None:
        if not self._trouble:
            self._context.log.error(
                "journal_refused folder=%s error=%s kept_in_memory=%d",
                self._folder, error.strerror, len(self._unwritten),
            )  # fmt: skip
        self._trouble = (
            f"the journal in {self._folder} cannot be written: {error.strerror}; "
            f"{len(self._unwritten)} blocks wait in memory, their alerts with them; beyond "
            f"{WAITING_BYTES_MAX >> 20} MB nothing more is read. Free space or make it writable"
        )

    def _write(self, data: bytes | memoryview) -> None:
        written = 0
        try:
            while written < len(data):
                left = memoryview(data)[written:]
                written += os.pwrite(self._fd, left, self._size + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)  # no half block for the next start to find
            raise
        self._size += written

    def _roll(self, block: Block) -> None:
        """See to it that a segment is open that this block may go to."""
        full = self._size >= self._segment_bytes
        old = block.tick_end_ns - self._first_tick_ns >= self._segment_ns
        if self._fd >= 0 and not full and not old:
            return
        if self._fd >= 0:
            self._sync()
            with contextlib.suppress(OSError):  # results alone: they can be computed again
                os.fsync(self._fd)
            self._close()
        path = self._folder / f"{block.sequence:016d}.arrows"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
        self._size = 0
        try:
            self._write(FILE_HEADER)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name of the new file is part of what must survive
            finally:
                os.close(folder)
        except OSError:  # a segment without its header could never be read: begin it again
            self._close()
            raise
        self._first_tick_ns = block.tick_end_ns
        self.rolled = True

    def trim(self, cursors: Sequence[Cursor], *, keep_sequence: int, spare: bool = False) -> bool:
        """Keep the journal within its budget, the oldest segments going first; return whether it is.

        What all cursors and the last checkpoint have passed stays as long as there is room: it is
        what `replay`, `trace` and cases read. A segment that is still needed goes only when there
        is no other way: counted and logged. `spare` what the last checkpoint needs, from `keep_sequence` on.
        """
        files = segments(self._folder)
        needed = min([keep_sequence, *(cursor.next_sequence for cursor in cursors)])
        total = sum(file.stat().st_size for file in files)
        for file, following in zip(files, files[1:], strict=False):
            if total <= self._budget_bytes or (spare and int(following.stem) > keep_sequence):
                break
            passed = int(following.stem) <= needed
            total -= file.stat().st_size
            file.unlink()
            if not passed:
                self._dropped.add("segment_over_budget")
                self._context.log.error(
                    "journal_segment_dropped file=%s budget_bytes=%d", file, self._budget_bytes
                )
        return total <= self._budget_bytes
