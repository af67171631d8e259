"""What a listener hands to a decoder: raw datagrams, packed, with their sender and arrival time."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.component import SnapshotReader, SnapshotWriter
from telemetry.batch import Batch
from telemetry.errors import BugError
from telemetry.schema import Schema


@dataclass(frozen=True, slots=True)
class DatagramBlock:
    """D datagrams, in order of arrival, in one buffer.

    `payload` uint8[N]; datagram d is payload[offset[d] : offset[d] + length[d]]. `offset` int64[D],
    `length` int32[D]. The sender: `exporter_high`, `exporter_low` uint64[D] (v4 mapped) and
    `exporter_port` uint16[D]. `arrival_ns` int64[D], kernel receive time, ns since 1970 UTC, never
    falling. `kernel_drops` is what the socket lost since the last block (SO_RXQ_OVFL);
    `frontier_ns` the arrival time up to which everything is in this or an earlier block.
    """

    payload: NDArray[np.uint8]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    exporter_high: NDArray[np.uint64]
    exporter_low: NDArray[np.uint64]
    exporter_port: NDArray[np.uint16]
    arrival_ns: NDArray[np.int64]
    kernel_drops: int = 0
    frontier_ns: int = 0

    def __post_init__(self) -> None:
        if self.offset.size:  # the kernels trust this: numba checks no bounds
            ends = self.offset + self.length
            if int(ends.max()) > self.payload.size or int(self.offset.min()) < 0:
                raise BugError(f"datagram beyond the block's {self.payload.size} bytes")
            if int(self.length.min()) < 0:
                raise BugError("datagram of negative length")

    @property
    def datagrams(self) -> int:
        """The number of datagrams."""
        return int(self.offset.size)

    def slice(self, start: int, stop: int) -> "DatagramBlock":
        """Return datagrams [start, stop) as views on the same payload."""
        return DatagramBlock(
            self.payload,
            self.offset[start:stop],
            self.length[start:stop],
            self.exporter_high[start:stop],
            self.exporter_low[start:stop],
            self.exporter_port[start:stop],
            self.arrival_ns[start:stop],
            self.kernel_drops if start == 0 else 0,
            self.frontier_ns,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """A datagram back to the sender of one that came, from the socket on which it came.

    `at_once`: it promises nothing, such as an answer to who we are. Else it is sent only after the
    journal has what its request gave rise to.
    """

    exporter_high: int
    exporter_low: int
    exporter_port: int
    payload: bytes
    at_once: bool
    about: int = 0  # by which the decoder knows what was asked


class Decoder(Protocol):
    """The pure half of a collector: any bytes in, batches out, no exception, no I/O.

    State (templates, sequence numbers, clocks) is bounded per exporter. Output depends only on
    the datagrams and their arrival times, not on how they were cut into blocks: `decode` of two
    blocks gives the same rows in the same order as `decode` of both in one. A decoder whose senders
    wait for answers has a list `replies` of Reply, which whoever calls `decode` empties, and may have
    `answered(reply)`, called when one is sent: the journal has what it is about. One whose state must
    survive a crash counts its changes in `changes`.
    """

    emits: tuple[Schema, ...]

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all datagrams: batches of schema `flow`, `sample`, `option`."""
        ...

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Expire templates and held sets; return `ledger` rows for each exporter heard of."""
        ...

    def snapshot(self, out: SnapshotWriter) -> None:
        """Write templates, sampling rates and sequence state."""
        ...

    def restore(self, state: SnapshotReader) -> None:
        """Take them back."""
        ...


def silence(frontier_ns: int) -> DatagramBlock:
    """Return a block without datagrams: nothing came up to `frontier_ns`."""
    return DatagramBlock(
        np.zeros(0, np.uint8),
        np.zeros(0, np.int64),
        np.zeros(0, np.int32),
        np.zeros(0, np.uint64),
        np.zeros(0, np.uint64),
        np.zeros(0, np.uint16),
        np.zeros(0, np.int64),
        0,
        frontier_ns,
    )


def choose(block: DatagramBlock, rows: NDArray[np.int64]) -> DatagramBlock:
    """Return some datagrams of a block, in order, on the same payload and frontier."""
    return DatagramBlock(
        block.payload,
        block.offset[rows],
        block.length[rows],
        block.exporter_high[rows],
        block.exporter_low[rows],
        block.exporter_port[rows],
        block.arrival_ns[rows],
        0,
        block.frontier_ns,
    )
