"""Data sets that came before their template: a bounded ring, fair among exporters and their sets.

Where a bound is reached, the oldest set goes, of whoever waits with most bytes: first among the
sets of one exporter, then among all. So a template that is never announced costs its own sets, not
those of others. What waits too long goes as well. Each set is counted once when it comes and once
when it goes.
"""

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from collectors.flow.templates import StreamKey
from runtime.checkpoint import read_array, write_array

K = TypeVar("K", bound=Hashable)
SetKey = tuple[StreamKey, int]  # stream and set id
Exporter = tuple[int, int]


@dataclass(slots=True, eq=False)
class Message:
    """The datagram that waiting sets came in: what the ledger must know when they are decoded."""

    stream: StreamKey
    sequence: int
    sets: int = 0  # sets of it that are not decoded (yet)
    undecodable: bool = False  # nothing of it was decoded, and it was counted so


@dataclass(frozen=True, slots=True)
class Held:
    """A data set with what was known of its datagram when it came."""

    data: bytes  # a whole message of this one set
    arrival_ns: int
    export_ns: int
    offset_ns: int
    uptime_ms: int
    drift: int
    weight: int  # for how many datagrams its own stands: collectors.flow.shedding
    message: Message


class _Fullest(Generic[K]):
    """Bytes by key, and which key has most of them. A heap whose stale entries are skipped."""

    def __init__(self) -> None:
        self.bytes: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._number = 0  # of equals, the one that grew first

    def add(self, key: K, amount: int) -> None:
        now = self.bytes.get(key, 0) + amount
        if not now:
            self.bytes.pop(key, None)
            return
        self.bytes[key] = now
        self._push(key, now)
        if len(self._heap) > 4 * len(self.bytes) + 64:
            self._heap = []
            for kept, size in self.bytes.items():
                self._push(kept, size)

    def _push(self, key: K, size: int) -> None:
        self._number += 1
        heapq.heappush(self._heap, (-size, self._number, key))

    def top(self) -> K:
        while True:
            size, _, key = self._heap[0]
            if self.bytes.get(key) == -size:
                return key
            heapq.heappop(self._heap)


class HeldSets:
    """Sets that wait for their template. `count(reason, n)` is told of each one that goes."""

    def __init__(
        self,
        *,
        bytes_max: int,
        per_exporter_max: int,
        count: Callable[[str, int], None],
    ) -> None:
        self._bytes_max = bytes_max
        self._per_exporter_max = min(per_exporter_max, bytes_max)
        self._count = count
        self._sets: dict[SetKey, deque[Held]] = {}
        self._exporters: _Fullest[Exporter] = _Fullest()
        self._own: dict[Exporter, _Fullest[SetKey]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return sum(len(sets) for sets in self._sets.values())

    def put(self, key: SetKey, held: Held) -> None:
        """Keep a set; older ones may go for it, or itself where it is larger than all room."""
        size = len(held.data)
        self._count("held", 1)
        if size > self._per_exporter_max:
            self._count("held_dropped", 1)
            return
        exporter = key[0][:2]
        own = self._own.setdefault(exporter, _Fullest())
        self._sets.setdefault(key, deque()).append(held)
        self._change(key, size)
        while self._exporters.bytes[exporter] > self._per_exporter_max:
            self._drop_oldest(own.top())
        while self.bytes > self._bytes_max:
            self._drop_oldest(self._own[self._exporters.top()].top())

    def take(self, key: SetKey, before_ns: int = 0) -> list[Held]:
        """Return the sets that waited for this template, oldest first, but those that expired.

        Looked at here too, so that a set's age decides, not when `expire` was last called.
        """
        waiting = list(self._sets.pop(key, ()))
        if waiting:
            self._change(key, -sum(len(held.data) for held in waiting))
        good = [held for held in waiting if held.arrival_ns >= before_ns]
        self._count("decoded_later", len(good))
        self._count("held_expired", len(waiting) - len(good))
        return good

    def expire(self, before_ns: int) -> None:
        """Give up what came before `before_ns`."""
        for key in list(self._sets):
            gone = 0
            sets = self._sets[key]
            while sets and sets[0].arrival_ns < before_ns:
                self._change(key, -len(sets.popleft().data))
                gone += 1
            if gone:
                self._count("held_expired", gone)
            if not sets:
                del self._sets[key]

    def waiting(self) -> Iterator[tuple[SetKey, int]]:
        """Yield (stream and set id, number of sets)."""
        for key, sets in self._sets.items():
            yield key, len(sets)

    def _drop_oldest(self, key: SetKey) -> None:
        sets = self._sets[key]
        self._change(key, -len(sets.popleft().data))
        if not sets:
            del self._sets[key]
        self._count("held_dropped", 1)

    def _change(self, key: SetKey, amount: int) -> None:
        exporter = key[0][:2]
        self.bytes += amount
        self._exporters.add(exporter, amount)
        self._own[exporter].add(key, amount)
        if exporter not in self._exporters.bytes:
            del self._own[exporter]

    # ---- over a restart

    def snapshot(self, out: Any) -> None:
        """Write all sets, in the order in which they are kept."""
        messages: dict[int, int] = {}
        heads: list[tuple[int, ...]] = []
        said: list[tuple[int, ...]] = []
        data: list[bytes] = []
        for (stream, set_id), sets in self._sets.items():
            for held in sets:
                place = messages.setdefault(id(held.message), len(messages))
                if place == len(said):
                    message = held.message
                    said.append(
                        (*message.stream, message.sequence, message.sets, message.undecodable)
                    )
                heads.append(
                    (
                        *stream, set_id, place, len(held.data), held.arrival_ns, held.export_ns,
                        held.offset_ns, held.uptime_ms, held.drift, held.weight,
                    )
                )  # fmt: skip
                data.append(held.data)
        write_array(out, "held", np.array(_unsigned(heads), np.uint64).reshape(-1, 13))
        write_array(out, "held.messages", np.array(said, np.uint64).reshape(-1, 7))
        write_array(out, "held.data", np.frombuffer(b"".join(data), np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back; they were counted before."""
        parts = [read_array(state, name) for name in ("held", "held.messages", "held.data")]
        if any(part is None for part in parts):
            return
        heads, said, data = (part for part in parts if part is not None)
        if heads.shape[1] == 12:  # of a version without weights
            heads = np.insert(heads, 12, 1, axis=1)
        messages = [
            Message((high, low, port, domain), sequence, sets, bool(bad))
            for high, low, port, domain, sequence, sets, bad in said.tolist()
        ]
        at = 0
        for (
            *stream,
            set_id,
            place,
            size,
            arrival,
            export,
            offset,
            uptime,
            drift,
            weight,
        ) in heads.tolist():
            key = ((stream[0], stream[1], stream[2], stream[3]), set_id)
            message = messages[place]
            held = Held(
                data[at : at + size].tobytes(), arrival, export, _signed(offset), uptime,
                _signed(drift), weight, message,
            )  # fmt: skip
            at += size
            self._own.setdefault(key[0][:2], _Fullest())
            self._sets.setdefault(key, deque()).append(held)
            self._change(key, size)


def _unsigned(rows: list[tuple[int, ...]]) -> list[list[int]]:
    return [[value & 0xFFFF_FFFF_FFFF_FFFF for value in row] for row in rows]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
