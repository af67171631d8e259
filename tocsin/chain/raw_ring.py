"""The ring of what was received, on disk: what a bug report needs, within a fixed budget.

Datagrams, and chunks of TCP and TLS streams (decrypted; one of length 0 ends its stream), in segments of
a megabyte in a simple framed form, each of one listener. Beyond the budget the listener that holds the
most gives up its oldest segment: a flood of flows does not push out the few lines of a router. Written
by the receiving thread's owner after decoding, not synced: it is evidence, not a promise.
"""

import contextlib
import os
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from collectors.block import DatagramBlock
from collectors.listen.gather import gather
from runtime.component import Context

SEGMENT_BYTES = 1024 * 1024
FILE_BYTES_MIN = 64 * 1024  # what a file counts for at least, so that there are not too many
_BLOCK = struct.Struct("<4sHHIIq")  # magic, listener name bytes, pad, datagrams, payload, frontier
_MAGIC = b"RAW1"
_COLUMNS = ("i4", "u8", "u8", "u2", "i8")  # length, exporter high, low, port, arrival


@dataclass(slots=True)
class _Part:
    """What one listener holds of the ring."""

    closed: deque[tuple[Path, int]] = field(default_factory=deque)  # oldest first, with their bytes
    closed_bytes: int = 0
    file: BinaryIO | None = None

    def add(self, path: Path, size: int) -> None:
        size = max(size, FILE_BYTES_MIN)
        self.closed.append((path, size))
        self.closed_bytes += size

    def drop_oldest(self) -> None:
        path, size = self.closed.popleft()
        self.closed_bytes -= size
        path.unlink(missing_ok=True)


class RawRing:
    """Keeps the newest that all listeners received, at most `budget_bytes` on disk."""

    def __init__(self, folder: Path, context: Context, *, budget_bytes: int) -> None:
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._parts: dict[str, _Part] = {}
        self._number = 0
        self._failed = context.metrics.counter(
            "raw_ring_failed_total", "blocks that could not be kept in the raw ring"
        )

    def start(self) -> None:
        """Go on behind what an earlier run left."""
        for path in ring_files(self._folder):
            self._number = int(path.stem)
            with contextlib.suppress(OSError), path.open("rb") as file:
                self._part(_listener_of(file)).add(path, path.stat().st_size)

    def write(self, listener: str, block: DatagramBlock) -> None:
        """Keep a block; a disk that refuses is counted, nothing else suffers."""
        if not block.datagrams:
            return
        part = self._part(listener)
        try:
            if part.file is None or part.file.tell() > SEGMENT_BYTES:
                self._roll(part)
            assert part.file is not None
            part.file.write(_framed(listener, block))
        except OSError:
            self._failed.add()
            self._close(part)

    def _part(self, listener: str) -> _Part:
        return self._parts.setdefault(listener, _Part())

    def flush(self) -> None:
        """Hand what is buffered to the kernel, so that a reader sees it."""
        for part in self._parts.values():
            if part.file is not None:
                with contextlib.suppress(OSError):
                    part.file.flush()

    def stop(self) -> None:
        """Close the open segments."""
        for part in self._parts.values():
            self._close(part)

    def _close(self, part: _Part) -> None:
        if part.file is not None:
            with contextlib.suppress(OSError):
                part.add(Path(part.file.name), part.file.tell())
            with contextlib.suppress(OSError):
                part.file.close()
            part.file = None

    def _roll(self, part: _Part) -> None:
        self._close(part)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        part.file = (self._folder / f"{self._number:012d}.raw").open("wb")
        opened = sum(one.file is not None for one in self._parts.values()) * SEGMENT_BYTES
        while sum(one.closed_bytes for one in self._parts.values()) + opened > self._budget_bytes:
            most = max(self._parts.values(), key=lambda one: one.closed_bytes)
            if not most.closed:
                break
            most.drop_oldest()


def ring_files(folder: Path) -> list[Path]:
    """Return the ring's segments, oldest first."""
    return sorted(path for path in folder.glob("*.raw") if path.stem.isdecimal())


def read_ring(folder: Path, *, since_ns: int, until_ns: int) -> Iterator[tuple[str, DatagramBlock]]:
    """Yield (listener, block) with since_ns <= arrival < until_ns; a torn end is left out.

    Those of one listener come in order. Shards keep a ring each, in folders of their own; they come one
    after the other.
    """
    for place in sorted([folder, *folder.glob("shard-*/")]):
        for path in ring_files(place):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                while (found := _read(file)) is not None:
                    listener, block = found
                    first = int(np.searchsorted(block.arrival_ns, since_ns, side="left"))
                    last = int(np.searchsorted(block.arrival_ns, until_ns, side="left"))
                    if last > first:
                        yield listener, block.slice(first, last)


def _framed(listener: str, block: DatagramBlock) -> bytes:
    name = listener.encode()
    length = np.ascontiguousarray(block.length, np.int32)
    payload = np.empty(int(length.sum()), np.uint8)
    gather(block.payload, np.ascontiguousarray(block.offset), length, payload)
    head = _BLOCK.pack(_MAGIC, len(name), 0, block.datagrams, payload.size, block.frontier_ns)
    columns = (length, block.exporter_high, block.exporter_low, block.exporter_port)
    return b"".join(
        [head, name, *(c.tobytes() for c in columns), block.arrival_ns.tobytes(), payload.data]
    )


def _listener_of(file: BinaryIO) -> str:
    """Return whose segment this is; "" where it was cut before it said so."""
    head = file.read(_BLOCK.size)
    if len(head) < _BLOCK.size or head[:4] != _MAGIC:
        return ""
    return file.read(_BLOCK.unpack(head)[1]).decode(errors="replace")


def _read(file: BinaryIO) -> tuple[str, DatagramBlock] | None:
    head = file.read(_BLOCK.size)
    if len(head) < _BLOCK.size:
        return None
    magic, name_bytes, _, count, payload_bytes, frontier_ns = _BLOCK.unpack(head)
    sizes = [name_bytes, *(count * np.dtype(dtype).itemsize for dtype in _COLUMNS), payload_bytes]
    # A damaged length must not be believed: room for so many bytes would be made first.
    if magic != _MAGIC or sum(sizes) > os.fstat(file.fileno()).st_size - file.tell():
        return None
    name, *columns, payload = (file.read(size) for size in sizes)
    length, high, low, port, arrival = (
        np.frombuffer(column, dtype) for column, dtype in zip(columns, _COLUMNS, strict=True)
    )
    if count and (int(length.min()) < 0 or int(length.sum(dtype=np.int64)) != payload_bytes):
        return None  # decoders read as many bytes as it says
    offset = np.zeros(count, np.int64)
    np.cumsum(length[:-1], out=offset[1:])
    data = np.frombuffer(payload, np.uint8)
    block = DatagramBlock(data, offset, length, high, low, port, arrival, 0, frontier_ns)
    return name.decode(errors="replace"), block
