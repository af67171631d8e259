"""Raw flow records from their spool into the table `flows`, each file once.

A file is one insert, marked by the file's number in every row; it is deleted when the insert is
synced. After a crash one of the files that lie there can have been inserted already, whole or in part
(shards write into folders of their own, so it need not be the oldest): the rows of each are counted,
and what is there in part is taken away before it goes in again.
"""

import errno
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from history.flow_spool import read_spooled, spooled
from history.store import Connection
from runtime.component import Context
from runtime.damaged import set_aside
from telemetry.batch import Batch
from telemetry.errors import DecodeError, TransientError

FILES_PER_TURN = 4  # between two inserts of ticks, which come first
ADDRESSES = {
    "exporter_address": "exporter",
    "source_address": "source",
    "destination_address": "destination",
    "next_hop_address": "next_hop",
}
COUNT_FILE = "select count() as rows from flows where file = {file:UInt64}"
DELETE_FILE = "alter table flows delete where file = {file:UInt64} settings mutations_sync = 2"


class FlowLoader:
    """Used from the history's thread."""

    def __init__(self, folder: Path, connection: Connection, context: Context) -> None:
        self._folder = folder
        self._db = connection
        self._context = context
        self._doubted: set[str] | None = None  # files that an earlier run may have inserted
        self._rows = context.metrics.counter("history_flow_rows_total", "raw flow records stored")

    def step(self) -> int:
        """Load the oldest files; return how many. Raises TransientError, and may be called again."""
        folders = sorted([self._folder, *self._folder.glob("shard-*/")])
        files = sorted(
            (path for folder in folders for path in spooled(folder)), key=lambda p: p.name
        )
        if self._doubted is None:
            self._doubted = {path.name for path in files}
        for path in files[:FILES_PER_TURN]:
            try:
                batches = list(read_spooled(path))
            except FileNotFoundError:
                continue  # shed meanwhile
            except OSError as error:
                if error.errno != errno.EIO:  # of this machine at this moment, not of the file
                    raise TransientError(f"{path}: {error.strerror}") from error
                self._give_up(path, error)
                continue
            except DecodeError as error:
                self._give_up(path, error)
                continue
            self._load(int(path.stem), batches, doubted=path.name in self._doubted)
            self._doubted.add(path.name)  # until it is gone
            path.unlink(missing_ok=True)
            self._doubted.discard(path.name)
        return min(len(files), FILES_PER_TURN)

    def _give_up(self, path: Path, error: Exception) -> None:
        set_aside(path, error, self._context, kind="flows")

    def _load(self, number: int, batches: list[Batch], *, doubted: bool) -> None:
        rows = sum(batch.rows for batch in batches)
        if doubted:
            there = int(self._db.rows(COUNT_FILE, {"file": number})[0]["rows"])
            if there and there != rows:
                self._db.run(DELETE_FILE, {"file": number})
            if there == rows:
                return
        columns = _columns(number, batches)
        # The time is in the token: rows that were deleted above must not be taken for a repeat.
        mark = self._context.clock.now_ns() if doubted else 0
        self._db.insert("flows", columns, token=f"flows-{number}-{rows}-{mark:x}")
        self._rows.add(amount=rows)


def _columns(number: int, batches: list[Batch]) -> dict[str, Any]:
    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([batch[name] for batch in batches])

    columns: dict[str, Any] = {}
    for field in batches[0].schema.fields:
        stem, _, half = field.name.rpartition("_")
        if stem not in ADDRESSES:
            columns[field.name] = joined(field.name)
        elif half == "high":
            halves = np.stack([joined(f"{stem}_high"), joined(f"{stem}_low")], axis=1)
            columns[ADDRESSES[stem]] = halves.astype(">u8").view("V16").reshape(-1)
    columns["file"] = np.full(len(columns["arrival_ns"]), number, np.uint64)
    return columns
