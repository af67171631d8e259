"""One block of flow datagrams on its way: located, judged, cut into parts that one kernel call takes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.flow import netflow5, templated
from collectors.flow.columns import FlowMemory
from collectors.flow.elements import DIRECT, SLOT
from collectors.flow.held import Held, Message
from collectors.flow.streams import Fate
from collectors.flow.templates import StreamKey
from runtime.metrics import Metrics
from telemetry.batch import Batch
from telemetry.schemas import FLOW

# Columns that `templated_finish.finish` writes for every batch.
FINISHED = frozenset(
    {
        "flow_start_ns",
        "flow_end_ns",
        "export_ns",
        "arrival_ns",
        "exporter_address_high",
        "exporter_address_low",
        "observation_domain_id",
        "sampling_rate",
        "fields_present",
    }
)


@dataclass(frozen=True, slots=True)
class Located:
    """Where datagrams belong: their stream, and what it says of their order and time."""

    stream: NDArray[np.int32]
    kind: NDArray[np.uint8]  # version, 0 = no export
    export_ns: NDArray[np.int64]
    offset_ns: NDArray[np.int64]
    sequence: NDArray[np.int64]
    uptime_ms: NDArray[np.uint32]
    drift: NDArray[np.int32]
    booted_ms: NDArray[np.int64]
    weight: NDArray[np.uint32]  # for how many datagrams of its stream it stands, 0 = shed

    @classmethod
    def room(cls, count: int) -> "Located":
        """Return arrays for so many datagrams, for the kernel to fill."""
        kinds = ("i4", "u1", "i8", "i8", "i8", "u4", "i4", "i8", "u4")
        made = cls(*(np.empty(count, kind) for kind in kinds))
        made.weight[:] = 1
        return made


class FlowBatches:
    """Makes batches of rows that were decoded, and counts them."""

    def __init__(self, metrics: Metrics) -> None:
        self._records = metrics.counter("collector_records_total", "flow records decoded")

    def made(
        self, columns: dict[str, NDArray[Any]], rows: int, block: DatagramBlock, source: str
    ) -> Batch:
        """Return a batch of a block's rows."""
        self._records.array[0] += np.uint64(rows)
        newest = int(block.arrival_ns[-1]) if block.datagrams else 0
        return Batch.unchecked(
            FLOW, columns, source=source, arrival_ns=newest, frontier_ns=block.frontier_ns
        )


class Late(NamedTuple):
    """Sets of an earlier datagram that the template in datagram `at` made readable."""

    at: int
    stream_row: int = 0
    message: Message | None = None
    records: int = 0
    rows: int = 0


class FlowBlock:
    """A block at work: what its datagrams count for in the ledger, filled in as they are decoded."""

    def __init__(self, block: DatagramBlock, located: Located, count: int) -> None:
        self.block = block
        self.located = located
        self.units = np.zeros((count, 3), np.int32)  # as the standard counts; two other ways
        self.fate = np.zeros(count, np.uint8)
        self.unsure = np.zeros(count, np.uint8)
        self.rows = np.zeros(count, np.int32)
        self.messages: list[tuple[int, Message]] = []  # datagrams with sets that wait(ed)
        self.late: list[Late] = []

    def judge(self, at: int, message: Message) -> None:
        """Say in the ledger what sets without a template mean for their datagram."""
        if not message.sets:
            return
        nine = self.located.kind[at] == 9
        if not nine:
            self.unsure[at] = Fate.NO_TEMPLATE
        if not self.units[at, 1 if nine else 0]:
            self.fate[at] = Fate.NO_TEMPLATE
            message.undecodable = True

    def shed(self) -> None:
        """Say in the ledger what was shed."""
        over = np.flatnonzero(self.located.weight == 0)
        self.fate[over] = Fate.SHED
        version = self.located.kind[over]
        five, nine, ten = over[version == 5], over[version == 9], over[version == 10]
        at = self.block.offset[five] + 2
        said = self.block.payload[at].astype(np.int32) << 8 | self.block.payload[at + 1]
        self.units[five, 0] = self.units[five, 2] = said.clip(max=netflow5.RECORDS_PER_DATAGRAM_MAX)
        self.units[five, 1] = 1
        self.units[nine] = (1, 0, 1)
        self.units[ten] = (0, 1, 0)
        self.unsure[ten] = Fate.SHED


def block_of(held: Held, stream_row: int, frontier_ns: int) -> FlowBlock:
    """Return a set that waited as a block of its own, with the times of its datagram."""
    high, low, port_version, _ = held.message.stream
    block = DatagramBlock(
        np.frombuffer(held.data, np.uint8),
        np.zeros(1, np.int64),
        np.array([len(held.data)], np.int32),
        np.array([high], np.uint64),
        np.array([low], np.uint64),
        np.array([port_version & 0xFFFF], np.uint16),
        np.array([held.arrival_ns], np.int64),
        0,
        frontier_ns,
    )
    located = Located(
        np.array([stream_row], np.int32),
        np.array([port_version >> 16], np.uint8),
        np.array([held.export_ns], np.int64),
        np.array([held.offset_ns], np.int64),
        np.zeros(1, np.int64),
        np.array([held.uptime_ms], np.uint32),
        np.array([held.drift], np.int32),
        np.zeros(1, np.int64),
        np.array([held.weight], np.uint32),
    )
    return FlowBlock(block, located, 1)


@dataclass(frozen=True, slots=True)
class Buffers:
    """What one call of the walk fills."""

    memory: FlowMemory
    segment: NDArray[np.int32]  # datagram, plan, first row, rows, first byte, end
    active: NDArray[np.uint8]
    wide_active: NDArray[np.uint8]
    plans: int  # how many there were when it was made
    high: int  # what they fill
    rate: NDArray[np.uint32]  # stream-wide sampling rate of each segment

    def filled(self, *, icmp: bool) -> frozenset[str]:
        """Return the columns that hold values."""
        key = self.high << 1 | icmp
        found = _filled.get(key)
        if found is None:
            names = {name for name in DIRECT if self.high >> SLOT[name] & 1}
            found = FINISHED | names | ({"destination_port"} if icmp else set())
            if len(_filled) > 4096:
                _filled.clear()
            _filled[key] = found
        return found


_filled: dict[int, frozenset[str]] = {}


class CallPart:
    """The datagrams of a block that one kernel call works on, with what is known of them."""

    def __init__(self, work: FlowBlock, chosen: NDArray[np.int64]) -> None:
        block, located = work.block, work.located
        self.work = work
        self.chosen = chosen
        self.payload = block.payload
        if chosen.size == block.datagrams:  # all of them in order: no copies
            self.offset, self.length, self.arrival_ns = block.offset, block.length, block.arrival_ns
            self.exporter_high, self.exporter_low = block.exporter_high, block.exporter_low
            self.exporter_port = block.exporter_port
            self.stream, self.kind = located.stream, located.kind
            self.export_ns, self.offset_ns = located.export_ns, located.offset_ns
            self.uptime_ms, self.drift = located.uptime_ms, located.drift
            self.weight = located.weight
        else:
            self.offset, self.length = block.offset[chosen], block.length[chosen]
            self.arrival_ns = block.arrival_ns[chosen]
            self.exporter_high = block.exporter_high[chosen]
            self.exporter_low = block.exporter_low[chosen]
            self.exporter_port = block.exporter_port[chosen]
            self.stream, self.kind = located.stream[chosen], located.kind[chosen]
            self.export_ns = located.export_ns[chosen]
            self.offset_ns = located.offset_ns[chosen]
            self.uptime_ms, self.drift = located.uptime_ms[chosen], located.drift[chosen]
            self.weight = located.weight[chosen]
        self.bytes = int(self.length.sum())

    def exporters(self, d: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return (high, low) of the exporters of these datagrams."""
        return self.exporter_high[d], self.exporter_low[d]

    @property
    def thinned(self) -> bool:
        """Whether any of its datagrams stands for others that were shed."""
        return bool((self.weight > 1).any())

    def arrival(self, d: int) -> int:
        return int(self.arrival_ns[d])

    def count(self, d: int) -> int:
        """Return the count of a v5 header, 0 where even that is cut off."""
        start = int(self.offset[d])
        whole = int(self.length[d]) >= 4
        return int.from_bytes(self.payload[start + 2 : start + 4].tobytes(), "big") if whole else 0

    def header(self, d: int) -> bytes:
        start = int(self.offset[d])
        version = int(self.payload[start + 1])
        size = templated.V9_HEADER_BYTES if version == 9 else templated.IPFIX_HEADER_BYTES
        return self.payload[start : start + size].tobytes()

    def stream_key(self, d: int) -> StreamKey:
        """Return the key as the template table has it, also where streams overflowed."""
        header = self.header(d)
        domain = int.from_bytes(header[-4:], "big")
        version = header[1]
        return (
            int(self.exporter_high[d]),
            int(self.exporter_low[d]),
            int(self.exporter_port[d]) | version << 16,
            domain,
        )


def message_of(header: bytes, set_id: int, body: bytes) -> bytes:
    """Return a message of one set under a copy of the header it came with."""
    one = set_id.to_bytes(2, "big") + (len(body) + 4).to_bytes(2, "big") + body
    if header[1] == 10:
        header = header[:2] + (16 + len(one)).to_bytes(2, "big") + header[4:]
    return header + one
