"""Records that security looks at, as pieces for the groups of a view with `where`.

Such a view counts whole flows: nothing is spread over ticks, so the few records of its class are all
that is touched.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.groups import Pieces
from correlator.keys import ADDRESSES, packing_of
from correlator.suspects_kernels import (
    BITS,
    PORT_AMPLIFIER,
    PORT_LOGIN,
    PORT_NAMED,
    PORT_ROUTINE,
    classify,
)
from telemetry.security import AMPLIFIERS, LOGIN_PORTS, ROUTINE_PORTS

Column = Callable[[str], NDArray[Any]]
Room = Callable[[str, Any], NDArray[Any]]  # scratch memory: name and dtype
Words = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint32]]
U64 = np.uint64
_U64_MAX = 0xFFFF_FFFF_FFFF_FFFF
FIELDS = (
    "source_address_high", "source_address_low", "destination_address_high",
    "destination_address_low", "source_port", "destination_port", "protocol", "tcp_flags",
    "exporter_address_high", "exporter_address_low", "ingress_interface", "egress_interface",
    "octets", "packets", "sampling_rate", "flow_start_ns", "export_ns", "arrival_ns",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """The suspects of one pass, kept until there are enough for a pass of their own."""

    columns: dict[str, NDArray[Any]]
    rows: int

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]


class Homes:
    """Customers' ports and the sources that belong there, as `classify` wants them."""

    def __init__(self, sources: Iterable[tuple[int, int, Sequence[tuple[int, int]]]] = ()) -> None:
        """`sources`: (exporter low half, ifIndex, spans of 128-bit addresses)."""
        by_port = {(low << 32 | index) & _U64_MAX: spans for low, index, spans in sources}
        self.ports = np.array(sorted(by_port), np.uint64)
        counts = [len(by_port[port]) for port in sorted(by_port)]
        self.first = np.cumsum([0, *counts], dtype=np.int64)
        halves = [
            (begin >> 64, begin & _U64_MAX, end >> 64, end & _U64_MAX)
            for port in sorted(by_port)
            for begin, end in by_port[port]
        ]
        self.spans = np.array(halves, np.uint64).reshape(-1, 4)


def port_bits(named: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return what each port may be, uint8[65536] of PORT_* bits; `named` ports name a service."""
    bits = np.zeros(65_536, np.uint8)
    bits[named] |= PORT_NAMED
    bits[list(LOGIN_PORTS)] |= PORT_LOGIN
    bits[list(AMPLIFIERS)] |= PORT_AMPLIFIER
    bits[list(ROUTINE_PORTS)] |= PORT_ROUTINE
    return bits


class Suspects:
    """The classes of a pass of records, and the rows of each class. `room` gives scratch memory."""

    def __init__(
        self,
        column: Column,
        room: Room,
        *,
        rows: int,
        enters: NDArray[np.uint8],
        ports: NDArray[np.uint8],
        homes: Homes,
    ) -> None:
        self._column, self._room = column, room
        self._class = room("suspects.class", np.uint8)
        self._derived = {
            "vector": room("suspects.vector", np.uint32),
            "destination_peer": room("suspects.peer", np.uint32),
        }
        classify(
            column("source_address_high"), column("source_address_low"),
            column("destination_address_high"), column("destination_address_low"),
            column("source_port"), column("destination_port"), column("protocol"),
            column("tcp_flags"), column("octets"), column("packets"),
            column("flow_start_ns"), enters, ports, column("exporter_address_low"),
            column("ingress_interface"), homes.ports, homes.first, homes.spans, rows, self._class,
            self._derived["vector"], self._derived["destination_peer"],
        )  # fmt: skip
        self._picked: dict[str, NDArray[np.int32]] = {}
        self._words: dict[tuple[tuple[str, ...], str], Words] = {}

    def held(self) -> Held | None:
        """Return a copy of the rows that have any class."""
        rows = np.flatnonzero(self._class)
        if not rows.size:
            return None
        return Held({name: self._column(name)[rows] for name in FIELDS}, rows.size)

    def picked(self, where: str) -> NDArray[np.int32]:
        """Return the rows of a class, ascending."""
        if where not in self._picked:
            rows = np.flatnonzero(self._class & np.uint8(BITS[where]))
            self._picked[where] = rows.astype(np.int32)
        return self._picked[where]

    def cut(
        self,
        where: str,
        tick_ns: int,
        oldest_ns: int,
        octets: NDArray[np.uint64],
        packets: NDArray[np.uint64],
    ) -> list[tuple[int, Pieces]]:
        """Return (tick index from the oldest open, its pieces) for every tick that has some."""
        rows = self.picked(where)
        if not rows.size:
            return []
        export, arrival = self._column("export_ns")[rows], self._column("arrival_ns")[rows]
        at = np.where((export > arrival) | (export <= 0), arrival, export) - oldest_ns
        first, last = max(int(at.min()) // tick_ns, 0), max(int(at.max()) // tick_ns, 0)
        if first == last:
            return [(first, self._pieces(rows, at < 0, octets, packets))]
        tick = np.maximum(at // tick_ns, 0)
        return [
            (index, self._pieces(rows[tick == index], at[tick == index] < 0, octets, packets))
            for index in np.unique(tick).tolist()
        ]

    @staticmethod
    def _pieces(
        rows: NDArray[np.int32],
        late: NDArray[np.bool_],
        octets: NDArray[np.uint64],
        packets: NDArray[np.uint64],
    ) -> Pieces:
        size = octets[rows]
        ones = np.ones(rows.size, np.uint8)
        return Pieces(rows, size, packets[rows], ones, np.where(late, size, U64(0)))

    def words(self, key: tuple[str, ...], where: str) -> Words:
        """Return the three key words by record, set for the rows of the class only."""
        if (key, where) not in self._words:
            self._words[key, where] = self._make_words(key, where)
        return self._words[key, where]

    def _make_words(self, key: tuple[str, ...], where: str) -> Words:
        rows, packing = self.picked(where), packing_of(key)
        high = self._room(f"{where}.{key}.word0", np.uint64)
        low = self._room(f"{where}.{key}.word1", np.uint64)
        third = self._room(f"{where}.{key}.word2", np.uint32)
        address = ADDRESSES[packing.address]
        top, bottom = self._column(f"{address}_high")[rows], self._column(f"{address}_low")[rows]
        if packing.address.endswith("_prefix"):
            four = (top == 0) & (bottom >> U64(32) == U64(0xFFFF))
            top = top & U64(0xFFFF_FFFF_FFFF_0000)
            bottom = np.where(four, bottom & U64(0xFFFF_FFFF_FFFF_FF00), U64(0))
        high[rows], low[rows] = top, bottom
        number = np.zeros(rows.size, np.uint32)
        for place in packing.places:  # an address fills the first two words
            column = self._derived.get(place.part)
            if column is None:
                column = self._column(place.part)
            number |= column[rows].astype(np.uint32) << np.uint32(place.shift)
        third[rows] = number
        return high, low, third
