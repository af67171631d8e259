"""Records as all views see them: weighted counts, key words, hashes and cuts, made once for all of them.

What windows_kernels.prepare and spread say of some batches of flow records; correlator.windows groups them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.groups import Pieces, Way
from correlator.keys import ADDRESSES, packing_of
from correlator.suspects import Held, Homes, Suspects, port_bits
from correlator.windows_kernels import (
    BY_EXPORTER,
    BY_INTERFACE,
    BY_PREFIX,
    BY_SERVICE,
    BY_WORDS,
    by_tick,
    prepare,
    spread,
)
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.views import View

SPANS_MAX = 64  # a record is spread over at most so many open ticks
U64 = np.uint64
# Ports above 1023 that name a service all the same (IANA registrations, amplification vectors).
NAMED_PORTS = np.array(
    [1194, 1433, 1521, 1701, 1723, 1900, 3074, 3128, 3306, 3389, 3478, 3702, 4500, 4789, 5004, 5060,
     5061, 5222, 5228, 5353, 5432, 5683, 5938, 6379, 6881, 8000, 8080, 8443, 8883, 9000, 9200, 10001,
     11211, 19132, 25565, 27015, 27017, 30120, 32400, 37810, 51820],
    np.uint16,
)  # fmt: skip
_IS_NAMED = np.zeros(65_536, np.uint8)
_IS_NAMED[NAMED_PORTS] = 1
_PORT_BITS = port_bits(NAMED_PORTS)
_NO_U8: NDArray[np.uint8] = np.zeros(0, np.uint8)
_NO_U32: NDArray[np.uint32] = np.zeros(0, np.uint32)
_NO_U64: NDArray[np.uint64] = np.zeros(0, np.uint64)
_KINDS = {
    ("exporter",): BY_EXPORTER,
    ("exporter", "interface", "direction"): BY_INTERFACE,
    ("protocol", "port_class"): BY_SERVICE,
    ("source_prefix",): BY_PREFIX,
    ("destination_prefix",): BY_PREFIX,
}
# What `distinct` can count: the other side, and for sources of scans also its port.
_ITEMS = (("source_address",), ("destination_address", "destination_port"))

EVIDENCE_FIELDS = (
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
    "source_port",
    "destination_port",
    "protocol",
    "tcp_flags",
    "exporter_address_high",
    "exporter_address_low",
    "ingress_interface",
    "egress_interface",
)


class Scratch:
    """Arrays that are used again for every batch: fresh memory costs a page fault each 4 KB."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def take(self, name: str, kind: Any, size: int) -> NDArray[Any]:
        """Return `size` places with anything in them."""
        kept = self._arrays.get(name)
        if kept is None or len(kept) < size:
            kept = self._arrays[name] = np.empty(max(size, 4096), kind)
        return kept[:size]


class Records:
    """Batches as all views see them: weighted counts, keys, hashes and cuts made once.

    Lives until the next one is made: both use the same scratch memory.
    """

    def __init__(
        self, batches: Sequence[Batch | Held], backbone: NDArray[np.uint64], homes: Homes,
        scratch: Scratch,
    ) -> None:  # fmt: skip
        self._batches = batches
        self._columns: dict[str, NDArray[Any]] = {}
        self._scratch = scratch
        self._cuts: dict[tuple[str, int, int], list[tuple[int, Pieces]]] = {}
        self._suspects: Suspects | None = None
        self._backbone, self._homes = backbone, homes
        n = self.rows = sum(batch.rows for batch in batches)

        def room(name: str, kind: Any) -> NDArray[Any]:
            return scratch.take(name, kind, n)

        self._octets, self._packets = room("octets", np.uint64), room("packets", np.uint64)
        self._unsure, self._enters = room("unsure", np.uint8), room("enters", np.uint8)
        self._port_class = room("port_class", np.uint32)
        self._source, self._target = room("source", np.uint64), room("target", np.uint64)
        self._bucket, self._content = room("bucket", np.uint8), room("content", np.uint64)
        column = self.column
        prepare(
            column("source_address_high"), column("source_address_low"),
            column("destination_address_high"), column("destination_address_low"),
            column("source_port"), column("destination_port"), column("protocol"),
            column("tcp_flags"), column("exporter_address_high"), column("exporter_address_low"),
            column("ingress_interface"), column("egress_interface"), column("octets"),
            column("packets"), column("sampling_rate"), column("flow_start_ns"),
            column("export_ns"), _IS_NAMED, backbone, n,
            self._octets, self._packets, self._unsure, self._enters, self._port_class,
            self._source, self._target, self._bucket, self._content,
        )  # fmt: skip

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of all batches as kernels want it: contiguous."""
        found = self._columns.get(name)
        if found is None:
            parts = [batch[name] for batch in self._batches]
            if len(parts) == 1:
                found = np.ascontiguousarray(parts[0])
            else:
                found = self._scratch.take(f"column.{name}", parts[0].dtype, self.rows)
                np.concatenate(parts, out=found)
            self._columns[name] = found
        return found

    @property
    def left_out(self) -> NDArray[np.uint64]:
        """Records without ingress interface, without egress interface, in over the backbone."""
        seen = (self.column("ingress_interface"), self.column("egress_interface"), self._enters)
        return np.array([self.rows - np.count_nonzero(one) for one in seen], np.uint64)

    def late(self, oldest_ns: int) -> int:
        """Return how many records were exported before the oldest open tick."""
        exported = self.column("export_ns")
        return int(np.count_nonzero((exported < oldest_ns) & (exported > 0)))

    def evidence(self, rows: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return uint64[R, 12]: the fields of EVIDENCE_FIELDS."""
        fields = np.empty((len(rows), len(EVIDENCE_FIELDS)), np.uint64)
        for i, name in enumerate(EVIDENCE_FIELDS):
            fields[:, i] = self.column(name)[rows]
        return fields

    def suspects(self) -> Suspects:
        """Return the records that views with `where` look at, told apart once for all of them."""
        if self._suspects is None:
            self._suspects = Suspects(
                self.column,
                lambda name, kind: self._scratch.take(name, kind, self.rows),
                rows=self.rows,
                enters=self._enters,
                ports=_PORT_BITS,
                homes=self._homes,
            )
        return self._suspects

    def cut(self, view: View, oldest_ns: int) -> list[tuple[int, Pieces]]:
        """Return (tick index from the oldest open, its pieces) for every tick that has pieces."""
        key = (view.where, view.tick_ns, oldest_ns)
        if key not in self._cuts:
            if view.where:
                self._cuts[key] = self.suspects().cut(
                    view.where, view.tick_ns, oldest_ns, self._octets, self._packets
                )
            else:
                self._cuts[key] = self._cut(view.tick_ns, oldest_ns, f"{len(self._cuts)}.")
        return self._cuts[key]

    def _cut(self, tick_ns: int, oldest_ns: int, prefix: str) -> list[tuple[int, Pieces]]:
        scratch = self._scratch
        newest = int(self.column("arrival_ns").max())
        ticks = max(1, (newest - oldest_ns) // tick_ns + 1)
        spans = min(SPANS_MAX, ticks)
        size = self.rows * (spans + 1)
        counts = np.zeros(ticks, np.int64)

        def room(order: str) -> tuple[NDArray[Any], ...]:
            kinds = (np.int32, np.uint64, np.uint64, np.uint8, np.uint64)
            return tuple(
                scratch.take(f"{prefix}{order}{i}", kind, size) for i, kind in enumerate(kinds)
            )

        record, octets, packets, flows, moved = found = room("found")
        tick = scratch.take(f"{prefix}tick", np.int32, size)
        n = spread(
            self.column("flow_start_ns"), self.column("flow_end_ns"), self.column("export_ns"),
            self.column("arrival_ns"), self._octets, self._packets, self.rows, tick_ns, oldest_ns,
            spans, record, tick, octets, packets, flows, moved, counts,
        )  # fmt: skip
        used = np.flatnonzero(counts)
        if used.size == 1:
            return [(int(used[0]), Pieces(*(array[:n] for array in found)))]
        ends = np.cumsum(counts)
        place = ends - counts
        sorted_ = room("sorted")
        by_tick(n, record, tick, octets, packets, flows, moved, place, *sorted_)
        return [
            (index, Pieces(*(a[ends[index] - counts[index] : ends[index]] for a in sorted_)))
            for index in used.tolist()
        ]

    def ways(self, view: View) -> list[Way]:
        """Return how the records get their key in this view, once for each direction."""
        kind = _KINDS.get(view.key, BY_WORDS)
        chosen = self._enters if self._backbone.size else _NO_U8
        item = _NO_U64
        for measure in view.measures:
            if measure.function == "distinct":
                item = self._source if measure.of == _ITEMS[0] else self._target
        if view.where:
            words = self.suspects().words(view.key, view.where)
            return [self._by_words(words, _NO_U8, item)]
        if kind == BY_EXPORTER:
            return [self._way(kind, "exporter")]
        if kind == BY_INTERFACE:
            return [
                self._way(kind, "exporter", way=0, number=self.column("ingress_interface")),
                self._way(kind, "exporter", way=1, number=self.column("egress_interface")),
            ]
        if kind == BY_SERVICE:
            number = self._port_class
            return [self._way(kind, "exporter", number=number, chosen=chosen, item=item)]
        if kind == BY_WORDS:
            if "exporter" in view.key:  # each router counts for itself
                chosen = _NO_U8
            return [self._packed(view, chosen, item)]
        address = "source" if view.key == ("source_prefix",) else "destination"
        return [self._way(kind, address, chosen=chosen, item=item)]

    def _packed(self, view: View, chosen: NDArray[np.uint8], item: NDArray[np.uint64]) -> Way:
        """Return the way of a packed key (correlator.keys)."""
        packing = packing_of(view.key)
        words = [
            self._scratch.take(f"{view.name}.word{i}", kind, self.rows)
            for i, kind in enumerate((np.uint64, np.uint64, np.uint32))
        ]
        for word in words:
            word[:] = 0
        if packing.address:
            name = ADDRESSES[packing.address]
            words[0][:] = self.column(f"{name}_high")
            words[1][:] = self.column(f"{name}_low")
            if packing.address.endswith("_prefix"):
                four = (words[0] == 0) & (words[1] >> U64(32) == U64(0xFFFF))
                words[0] &= U64(0xFFFF_FFFF_FFFF_0000)
                words[1][:] = np.where(four, words[1] & U64(0xFFFF_FFFF_FFFF_FF00), U64(0))
        for place in packing.places:
            column = self._port_class if place.part == "port_class" else self.column(place.part)
            word = words[place.word]
            part = column.astype(word.dtype) & word.dtype.type((1 << place.bits) - 1)
            word |= part << word.dtype.type(place.shift)
        return self._by_words((words[0], words[1], words[2]), chosen, item)

    def _by_words(
        self,
        words: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint32]],
        chosen: NDArray[np.uint8],
        item: NDArray[np.uint64],
    ) -> Way:
        return Way(
            BY_WORDS, 0, *words, self.column("protocol"), chosen, item,
            self._bucket, self._octets, self._unsure, self._content,
        )  # fmt: skip

    def _way(
        self,
        kind: int,
        address: str,
        *,
        way: int = 0,
        number: NDArray[np.uint32] = _NO_U32,
        chosen: NDArray[np.uint8] = _NO_U8,
        item: NDArray[np.uint64] = _NO_U64,
    ) -> Way:
        return Way(
            kind,
            way,
            self.column(f"{address}_address_high"),
            self.column(f"{address}_address_low"),
            number,
            self.column("protocol"),
            chosen,
            item,
            self._bucket,
            self._octets,
            self._unsure,
            self._content,
        )


def check(view: View) -> None:
    """Refuse a view that these windows cannot make."""
    if view.key not in _KINDS or view.where:
        packing = packing_of(view.key)
        if view.where and (not packing.address or any(p.word != 2 for p in packing.places)):
            raise ConfigError(f"view {view.name}: its key must be an address and 32 bits at most")
    distinct = {measure.of for measure in view.measures if measure.function == "distinct"}
    if len(distinct) > 1:
        raise ConfigError(f"view {view.name}: distinct is counted of one thing only")
    if distinct - set(_ITEMS):
        known = " or ".join(",".join(of) for of in _ITEMS)
        raise ConfigError(
            f"view {view.name}: distinct is counted of {known}, not of {','.join(distinct.pop())}"
        )
    for measure in view.measures:
        if measure.function == "entropy" and measure.of != ("destination_address",):
            raise ConfigError(
                f"view {view.name}: {measure.name}: entropy is of destination_address only"
            )


def key_words(way: Way, rows: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Return uint64[R, 3], the key that windows_kernels.group gives these records."""
    high, low = way.high[rows], way.low[rows]
    zero = np.zeros(len(rows), np.uint64)
    if way.kind == BY_EXPORTER:
        words = (high, low, zero)
    elif way.kind == BY_WORDS:
        words = (high, low, way.number[rows].astype(np.uint64))
    elif way.kind == BY_INTERFACE:
        words = (high, low, way.number[rows].astype(np.uint64) << U64(1) | U64(way.way))
    elif way.kind == BY_SERVICE:
        protocol = way.protocol[rows].astype(np.uint64)
        words = (zero, zero, protocol << U64(32) | way.number[rows].astype(np.uint64))
    else:
        four = (high == 0) & (low >> U64(32) == U64(0xFFFF))
        words = (
            np.where(four, zero, high & U64(0xFFFF_FFFF_FFFF_0000)),
            np.where(four, low & U64(0xFFFF_FFFF_FFFF_FF00), zero),
            np.where(four, U64(24), U64(48)),
        )
    made = np.empty((len(rows), 3), np.uint64)
    made[:, 0], made[:, 1], made[:, 2] = words
    return made
