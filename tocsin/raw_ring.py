"""The ring of raw datagrams on disk: what a bug report needs, within a fixed budget.

Segments of a few MB in a simple framed form, oldest deleted first. Written by the receiving thread's
owner after decoding, not synced: it is evidence, not a promise. Byte streams (TCP, TLS) are not kept.
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from collectors.block import DatagramBlock
from collectors.gather import gather
from runtime.component import Context

SEGMENT_BYTES = 4 * 1024 * 1024
_BLOCK = struct.Struct("<4sHHIIq")  # magic, listener name bytes, pad, datagrams, payload, frontier
_MAGIC = b"RAW1"


class RawRing:
    """Keeps the newest datagrams of all listeners, at most `budget_bytes` on disk."""

    def __init__(self, folder: Path, context: Context, *, budget_bytes: int) -> None:
        self._folder = folder
        self._context = context
        self._segments_max = max(2, budget_bytes // SEGMENT_BYTES)
        self._file: BinaryIO | None = None
        self._number = 0
        self._failed = context.metrics.counter(
            "raw_ring_failed_total", "blocks that could not be kept in the raw ring"
        )

    def start(self) -> None:
        """Go on behind what an earlier run left."""
        files = ring_files(self._folder)
        self._number = int(files[-1].stem) + 1 if files else 1

    def write(self, listener: str, block: DatagramBlock) -> None:
        """Keep a block; a disk that refuses is counted, nothing else suffers."""
        if not block.datagrams:
            return
        try:
            if self._file is None or self._file.tell() > SEGMENT_BYTES:
                self._roll()
            assert self._file is not None
            self._file.write(_framed(listener, block))
        except OSError:
            self._failed.add()
            self._file = None

    def flush(self) -> None:
        """Hand what is buffered to the kernel, so that a reader sees it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.flush()

    def stop(self) -> None:
        """Close the open segment."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _roll(self) -> None:
        if self._file is not None:
            self._file.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / f"{self._number:012d}.raw").open("wb")
        self._number += 1
        for old in ring_files(self._folder)[: -self._segments_max]:
            old.unlink(missing_ok=True)


def ring_files(folder: Path) -> list[Path]:
    """Return the ring's segments, oldest first."""
    return sorted(folder.glob("*.raw"))


def read_ring(folder: Path, *, since_ns: int, until_ns: int) -> Iterator[tuple[str, DatagramBlock]]:
    """Yield (listener, datagrams) with since_ns <= arrival < until_ns; a torn end is left out.

    Shards keep a ring each, in folders of their own; they come one after the other.
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


def _read(file: BinaryIO) -> tuple[str, DatagramBlock] | None:
    head = file.read(_BLOCK.size)
    if len(head) < _BLOCK.size:
        return None
    magic, name_bytes, _, count, payload_bytes, frontier_ns = _BLOCK.unpack(head)
    if magic != _MAGIC:
        return None
    name = file.read(name_bytes).decode(errors="replace")
    columns: list[Any] = []
    for dtype in ("i4", "u8", "u8", "u2", "i8"):
        column = file.read(count * np.dtype(dtype).itemsize)
        if len(column) < count * np.dtype(dtype).itemsize:
            return None
        columns.append(np.frombuffer(column, dtype))
    payload = file.read(payload_bytes)
    if len(payload) < payload_bytes:
        return None
    length, high, low, port, arrival = columns
    offset = np.zeros(count, np.int64)
    np.cumsum(length[:-1], out=offset[1:])
    data = np.frombuffer(payload, np.uint8)
    return name, DatagramBlock(data, offset, length, high, low, port, arrival, 0, frontier_ns)
