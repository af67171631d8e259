"""Checkpoints: the state of all stages in one file, so that a restart reads only the journal's end.

`<folder>/<journal sequence>.checkpoint`: a header line of JSON (format version, sequence, tick end)
and records of named array blocks, each with a CRC-32, closed by an end record. A damaged or unknown
file, and one that is whole and does not fit the stages, is set aside as `*.damaged-<time>`, named in the
log, and the one before it is used; with none left the journal is read from its beginning.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from runtime.component import Context
from runtime.damaged import set_aside, set_asides
from telemetry.errors import DecodeError

FORMAT = 1
ROWS_PER_BLOCK = 4096
_RECORD = struct.Struct("<IIQ")  # bytes of the JSON head, CRC-32 of head + data, bytes of data


class Snapshot:
    """Named arrays in blocks, in memory. A SnapshotWriter and a SnapshotReader."""

    def __init__(
        self, prefix: str = "", blocks: dict[str, list[tuple[int, NDArray[Any]]]] | None = None
    ) -> None:
        self._prefix = prefix
        self._blocks: dict[str, list[tuple[int, NDArray[Any]]]] = {} if blocks is None else blocks

    def scoped(self, name: str) -> "Snapshot":
        """Return a view whose names all start with `name.`: one for each stage."""
        return Snapshot(f"{self._prefix}{name}.", self._blocks)

    def write(self, name: str, first_row: int, block: NDArray[Any]) -> None:
        """Keep a copy of one block."""
        self._blocks.setdefault(self._prefix + name, []).append((first_row, np.array(block)))

    def read(self, name: str) -> Iterable[tuple[int, NDArray[Any]]]:
        """Yield the blocks of one array in the order in which they were written."""
        yield from self._blocks.get(self._prefix + name, ())

    def names(self) -> list[str]:
        """The names below this scope."""
        return [n.removeprefix(self._prefix) for n in self._blocks if n.startswith(self._prefix)]


class CheckpointFile:
    """Writes a snapshot straight to disk, block by block, so that no second copy stays in memory."""

    def __init__(self, file: BinaryIO, prefix: str = "") -> None:
        self._file = file
        self._prefix = prefix

    def scoped(self, name: str) -> "CheckpointFile":
        """Return a writer whose names all start with `name.`."""
        return CheckpointFile(self._file, f"{self._prefix}{name}.")

    def write(self, name: str, first_row: int, block: NDArray[Any]) -> None:
        """Append one block."""
        data = np.ascontiguousarray(block)
        head = {
            "name": self._prefix + name,
            "first_row": first_row,
            "dtype": np.lib.format.dtype_to_descr(data.dtype),
            "shape": data.shape,
        }
        append_record(self._file, head, data.tobytes())


def write_array(out: Any, name: str, array: NDArray[Any]) -> None:
    """Write a whole array in blocks of 4,096 rows, also when it is empty."""
    for first in range(0, max(len(array), 1), ROWS_PER_BLOCK):
        out.write(name, first, array[first : first + ROWS_PER_BLOCK])


def read_array(state: Any, name: str) -> NDArray[Any] | None:
    """Return an array that `write_array` wrote, or None."""
    parts = [block for _, block in state.read(name)]
    return np.concatenate(parts) if parts else None


def read_arrays(state: Any, *names: str) -> list[NDArray[Any]] | None:
    """Return several arrays that `write_array` wrote, or None where one is missing."""
    found = [array for name in names if (array := read_array(state, name)) is not None]
    return found if len(found) == len(names) else None


class Checkpoints:
    """The folder of checkpoints: save, load the newest good one, keep the last two."""

    def __init__(self, folder: Path, context: Context, *, kind: str = "checkpoint") -> None:
        self._folder = folder
        self._context = context
        self._kind = kind
        self._loaded = folder
        set_asides(context)

    def save(self, sequence: int, tick_end_ns: int, stages: dict[str, Any]) -> Path:
        """Write the state of each stage under its name. Raises OSError; the old ones stay."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{sequence:016d}.checkpoint"
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            append_record(
                file, {"format": FORMAT, "sequence": sequence, "tick_end_ns": tick_end_ns}, b""
            )
            writer = CheckpointFile(file)
            for name, stage in stages.items():
                stage.snapshot(writer.scoped(name))
            append_record(file, {"end": True}, b"")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        for old in self._files()[:-2]:
            old.unlink()
        return path

    def load(self) -> tuple[int, int, Snapshot] | None:
        """Return (journal sequence, tick end, state) of the newest good checkpoint, or None."""
        for path in reversed(self._files()):
            try:
                self._loaded = path
                return read_checkpoint(path)
            except FileNotFoundError:
                continue  # another shard's, which has saved newer ones meanwhile
            except (DecodeError, OSError) as error:
                set_aside(path, error, self._context, kind=self._kind)
        return None

    def taken(self, take: Callable[[Snapshot], None], state: Snapshot) -> bool:
        """Let `take` have the state that was loaded last; return False where it does not fit what it is for.

        Then it is set aside: whole as it is, each start after would end by it. What took half of it is to be
        made anew before the next one is loaded. MemoryError and OSError are of this machine, and raised.
        """
        try:
            take(state)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # what a stage says of a state of others may be anything
            said = f"it does not fit this configuration or version: {type(error).__name__}: {error}"
            self._context.log.error("checkpoint_misfits file=%s", self._loaded, exc_info=error)
            set_aside(self._loaded, said, self._context, kind=self._kind)
            return False
        return True

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.checkpoint")) if self._folder.exists() else []


def read_checkpoint(path: Path) -> tuple[int, int, Snapshot]:
    """Return (journal sequence, tick end, state) of one file, or raise DecodeError."""
    try:
        with path.open("rb") as file:
            return _read_checkpoint(file)
    except (KeyError, ValueError, TypeError) as error:  # whole, and not written by us
        raise DecodeError("corrupt", f"{path} is no checkpoint of ours: {error!r}") from error


def _read_checkpoint(file: BinaryIO) -> tuple[int, int, Snapshot]:
    head, _ = read_record(file)
    if head.get("format") != FORMAT:
        raise DecodeError("unknown_version", f"{file.name} has format {head.get('format')!r}")
    state = Snapshot()
    while True:
        record, data = read_record(file)
        if record.get("end"):
            return int(head["sequence"]), int(head["tick_end_ns"]), state
        descr = record["dtype"]
        dtype = np.dtype([tuple(part) for part in descr] if isinstance(descr, list) else descr)
        block = np.frombuffer(data, dtype).reshape(record["shape"])
        state.write(record["name"], record["first_row"], block)


def append_record(file: BinaryIO, head: dict[str, Any], data: bytes) -> None:
    """Append one checksummed record: a JSON head and bytes."""
    text = json.dumps(head).encode()
    file.write(_RECORD.pack(len(text), zlib.crc32(data, zlib.crc32(text)), len(data)))
    file.write(text)
    file.write(data)


def read_record(file: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one record back, or raise DecodeError."""
    fixed = file.read(_RECORD.size)
    if len(fixed) < _RECORD.size:
        raise DecodeError("corrupt", "checkpoint ends too early")
    head_bytes, crc, data_bytes = _RECORD.unpack(fixed)
    # A damaged length must not be believed: room for so many bytes would be made first.
    if head_bytes + data_bytes > os.fstat(file.fileno()).st_size - file.tell():
        raise DecodeError("corrupt", "checkpoint record is longer than the rest of its file")
    text = file.read(head_bytes)
    data = file.read(data_bytes)
    if len(data) < data_bytes or zlib.crc32(data, zlib.crc32(text)) != crc:
        raise DecodeError("corrupt", "checkpoint record does not match its checksum")
    try:
        head = json.loads(text)
    except ValueError:
        head = None
    if not isinstance(head, dict):
        raise DecodeError("corrupt", "checkpoint record without a head")
    return head, data
