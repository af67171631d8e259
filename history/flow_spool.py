"""Raw flow records on their way from the receiving process to the history.

Off by default. What is decoded is thinned to a rate of rows by a hash of the conversation, so that
both ways of it and all its records are kept or left out together, and goes into small files that
the desk loads and deletes. It is the first thing to be shed: the files have a bound, beyond which
the oldest go, counted; nothing else waits for them, and they are not synced.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.schema import Schema, plain
from telemetry.schemas import FLOW
from telemetry.wire import decode, encode

ROWS_PER_FILE = 100_000
FILE_NS = 5_000_000_000
SECOND_NS = 1_000_000_000
_FRAME = struct.Struct("<II")  # bytes of a batch, their CRC-32: Arrow's reader may crash on damage
_LEFT_OUT = (
    "export_ns", "fields_present", "source_prefix_length", "destination_prefix_length",
    "post_nat_source_address_high", "post_nat_source_address_low", "post_nat_destination_address_high",
    "post_nat_destination_address_low", "post_nat_source_port", "post_nat_destination_port",
)  # fmt: skip
KEPT_FLOW = Schema(
    "kept_flow",
    1,
    0,
    (
        *(field for field in FLOW.fields if field.name not in _LEFT_OUT),
        plain("kept_share", "f4", "1", "share of conversations that was kept when this row was"),
    ),
)
_DTYPES = {field.name: field.dtype for field in KEPT_FLOW.fields}
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class FlowSpool:
    """Owns the files that one receiving process writes. Used from one thread."""

    def __init__(
        self,
        folder: Path,
        context: Context,
        *,
        rows_per_second_max: int,
        waiting_bytes_max: int,
        shard: int = 0,
    ) -> None:
        self._folder = folder
        self._context = context
        self._rate = rows_per_second_max
        self._bytes_max = waiting_bytes_max
        self._shard = shard
        self._file: BinaryIO | None = None
        self._path = folder
        self._number = 0
        self._opened_ns = 0
        self._rows = 0
        self._second = 0  # of arrival, in which rows are counted
        self._seen = 0
        self._share = 1.0
        self._kept = context.metrics.counter(
            "flow_spool_rows_total",
            "raw flow records by what became of them on the way to the history",
            label="result",
            values=("kept", "thinned"),
        )
        self._shed = context.metrics.counter(
            "flow_spool_shed_total",
            "files of raw flow records that were given up",
            label="reason",
            values=("backlog", "disk"),
        )

    def start(self) -> None:
        """Go on behind what an earlier run left; a file that it did not finish is given up."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for torn in self._folder.glob("*.part"):
            torn.unlink(missing_ok=True)
        self._number = max((int(path.stem) for path in spooled(self._folder)), default=0)

    def write(self, batch: Batch) -> None:
        """Keep a batch of flow records, or the share of it that the rate allows."""
        now_ns = int(batch["arrival_ns"][-1]) if batch.rows else 0
        if not batch.rows:
            return
        self._count(now_ns, batch.rows)
        columns = {f.name: batch[f.name] for f in KEPT_FLOW.fields if f.name in FLOW.by_name}
        if self._share < 1.0:
            mask = _conversation(batch) < np.uint64(min(self._share, 0.999999) * 2.0**64)
            columns = {name: column[mask] for name, column in columns.items()}
        rows = len(columns["arrival_ns"])
        self._kept.array[0] += np.uint64(rows)
        self._kept.array[1] += np.uint64(batch.rows - rows)
        if rows:
            columns["kept_share"] = np.full(rows, self._share, np.float32)
            data = encode(Batch(KEPT_FLOW, columns, source=batch.source))
            self._append(data, rows, now_ns)

    def _count(self, now_ns: int, rows: int) -> None:
        """Set the share by the second before: a burst's first second may pass whole."""
        second = now_ns // SECOND_NS
        if second != self._second:
            wanted = self._rate / max(self._seen, 1)
            self._share = min(1.0, wanted) if self._second else 1.0
            self._second, self._seen = second, 0
        self._seen += rows

    def _append(self, data: bytes, rows: int, now_ns: int) -> None:
        try:
            if self._file is None:
                self._open(now_ns)
            assert self._file is not None
            self._file.write(_FRAME.pack(len(data), zlib.crc32(data)))
            self._file.write(data)
        except OSError:
            self._give_up()
            return
        self._rows += rows
        if self._rows >= ROWS_PER_FILE or now_ns - self._opened_ns >= FILE_NS:
            self.roll()

    def _open(self, now_ns: int) -> None:
        # The number grows with time and differs between shards: it is the rows' own mark.
        self._number = (
            max(self._number + 1, now_ns // 1_000_000) // 1024 * 1024 + 1024 + self._shard
        )
        self._path = self._folder / f"{self._number:020d}.part"
        self._file = self._path.open("wb")
        self._opened_ns = now_ns
        self._rows = 0

    def _give_up(self) -> None:
        self._shed.add("disk")
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
                self._path.unlink(missing_ok=True)
            except OSError as error:
                self._context.log.debug("flow_spool_refused error=%s", error)

    def roll(self) -> None:
        """Finish the open file, so that the desk may take it; keep the bound."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
            self._path.rename(self._path.with_suffix(".flows"))
            self._trim()
        except OSError:
            self._shed.add("disk")

    def _trim(self) -> None:
        sizes = [(path, path.stat().st_size) for path in spooled(self._folder)]
        over = sum(size for _, size in sizes) - self._bytes_max
        for path, size in sizes:
            if over <= 0:
                break
            path.unlink(missing_ok=True)
            self._shed.add("backlog")
            over -= size

    def tidy(self, now_ns: int) -> None:
        """Finish a file that has been open for long though little comes."""
        if self._file is not None and now_ns - self._opened_ns >= FILE_NS:
            self.roll()

    def stop(self) -> None:
        """Finish the open file."""
        self.roll()


def spooled(folder: Path) -> list[Path]:
    """Return the finished files of a spool, oldest first."""
    return sorted(path for path in folder.glob("*.flows") if path.stem.isdecimal())


def read_spooled(path: Path) -> Iterator[Batch]:
    """Yield the batches of a file. Raises DecodeError where it is damaged, OSError where it is gone."""
    data = memoryview(path.read_bytes())
    if not data:  # its name survived a power cut, and what it held did not
        raise DecodeError("corrupt", f"{path.name} is empty")
    at = 0
    while at < len(data):
        if at + _FRAME.size > len(data):
            raise DecodeError("corrupt", f"{path.name}: cut off at byte {at}")
        length, crc = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        part = data[at : at + length]
        if len(part) < length or zlib.crc32(part) != crc:
            raise DecodeError("corrupt", f"{path.name}: cut off or damaged behind byte {at}")
        batch = decode(part)
        if {name: column.dtype for name, column in batch.columns.items()} != _DTYPES:
            raise DecodeError("corrupt", f"{path.name} is of a Tocsin with other columns")
        yield batch
        at += length


def _conversation(batch: Batch) -> NDArray[np.uint64]:
    """Return a hash of each row's conversation, the same for both ways. Source: splitmix64."""

    def end(name: str) -> NDArray[np.uint64]:
        mixed: NDArray[np.uint64] = (
            batch[f"{name}_address_high"] * _MIX[0]
            ^ batch[f"{name}_address_low"] * _MIX[1]
            ^ batch[f"{name}_port"].astype(np.uint64)
        )
        return _finish(mixed)

    both: NDArray[np.uint64] = end("source") + end("destination") + batch["protocol"]
    return _finish(both)


def _finish(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MIX[0]
    value = (value ^ (value >> np.uint64(27))) * _MIX[1]
    return value ^ (value >> np.uint64(31))
