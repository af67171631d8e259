"""The BGP peers that routers report by BMP: who they are, what they agreed on, and their counts.

A peer is (connection, peer type, distinguisher, address). Rows are reused; the generation of a row tells
the routes of a peer that fell from those of the one that is there now.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bmp.bgp_updates import FAMILIES
from collectors.bmp.frames import PEERS_TABLE, RIBS, index_peers
from collectors.bmp.rib import COUNTS, GENERATIONS, OWNER_BITS, ROUTES
from runtime.checkpoint import read_array, write_array
from runtime.kernels import kernel

SLOTS = len(RIBS) * len(FAMILIES)  # of one peer: a table of routes and family each
LOC_RIB_PEER = 3  # type of a peer that is the router itself
_FIRST = 64
# The kernel has them as numbers.
assert (SLOTS, len(FAMILIES), OWNER_BITS, COUNTS) == (
    70,
    14,
    14,
    7,
)


@dataclass(frozen=True, slots=True)
class PeerKey:
    """What tells peers of one connection apart."""

    peer_type: int  # 0 global, 1 RD, 2 local instance, LOC_RIB_PEER
    distinguisher: int
    high: int
    low: int


@kernel(
    "i8(const u4[:,::1], const u1[:,::1], i8, i8, i8, const i4[::1], const u1[::1], const i8[::1],"
    " const u1[::1], const u1[::1], i4[:,::1], i8[:,::1], const u4[::1], i8[::1], i8, u4[::1],"
    " i4[::1], u1[::1])"
)
def place_routes(
    words: NDArray[np.uint32],
    octets: NDArray[np.uint8],
    rows: int,
    first: int,
    stop: int,
    peer: NDArray[np.int32],
    rib: NDArray[np.uint8],
    arrival_ns: NDArray[np.int64],
    verdict: NDArray[np.uint8],
    end_of: NDArray[np.uint8],
    slot_count: NDArray[np.int32],
    dump_until_ns: NDArray[np.int64],
    generation: NDArray[np.uint32],
    counts_used: NDArray[np.int64],
    counts_room: int,
    out_owner: NDArray[np.uint32],
    out_count: NDArray[np.int32],
    out_dumping: NDArray[np.uint8],
) -> int:
    """Say for each row whose it is and where it counts; return the messages done.

    In      rows of messages [first, stop) of `decode_updates`, and of each message its peer, table
            of routes, arrival, verdict and, for End-of-RIB, family.
    Inout   slot_count int32[P, 70], the row in the counts of each peer's table and family, 0 = none
            yet; dump_until_ns int64[P, 70], until when routes are the peer's first table, not news;
            counts_used int64[1].
    Out     out_owner uint32[R], out_count int32[R], out_dumping uint8[R].
    Errors  none raised. Stops before a message's rows where counts_room is used up: call again with
            more room and first = what was returned; rows before it are done.
    """
    row = 0
    while row < rows and np.int64(words[0, row]) < first:
        row += 1
    for m in range(first, stop):
        p = peer[m]
        if p < 0:
            continue
        base = np.int64(rib[m]) * 14
        if verdict[m] == 1:
            dump_until_ns[p, base + end_of[m]] = 0
        begin = row
        while row < rows and np.int64(words[0, row]) == m:
            slot = base + octets[3, row]
            if slot_count[p, slot] == 0:
                if counts_used[0] >= counts_room:
                    return m
                slot_count[p, slot] = np.int32(counts_used[0])
                counts_used[0] += 1
            row += 1
        for r in range(begin, row):
            slot = base + octets[3, r]
            out_owner[r] = np.uint32(p) << np.uint32(14) | generation[p]
            out_count[r] = slot_count[p, slot]
            out_dumping[r] = np.uint8(arrival_ns[m] < dump_until_ns[p, slot])
    return stop


class Peers:
    """All peers of all connections as arrays, at most `peers_max`."""

    def __init__(self, peers_max: int) -> None:
        self._peers_max = peers_max
        self.rows = 0
        self.table = np.zeros(PEERS_TABLE, np.int32)
        self._names: list[str] = []  # as people call them
        self._row_of: dict[tuple[int, int, int, int], int] = {}
        self.counts_used = np.ones(1, np.int64)  # row 0 is nobody's
        self.counts = np.zeros((256, COUNTS), np.int64)
        self.reported = np.zeros((256, COUNTS), np.int64)
        self._room(_FIRST)

    def _room(self, rows: int) -> None:
        def longer(name: str, shape: tuple[int, ...], kind: Any) -> None:
            made = np.zeros((rows, *shape), kind)
            old = getattr(self, name, None)
            if old is not None:
                made[: len(old)] = old
            setattr(self, name, made)

        self.key: NDArray[np.uint64]
        self.used: NDArray[np.uint8]
        self.up: NDArray[np.uint8]
        self.generation: NDArray[np.uint32]
        self.path_ids: NDArray[np.int64]
        self.autonomous_system: NDArray[np.uint32]
        self.router: NDArray[np.uint64]
        self.slot_count: NDArray[np.int32]
        self.dump_until_ns: NDArray[np.int64]
        longer("key", (4,), np.uint64)
        longer("used", (), np.uint8)
        longer("up", (), np.uint8)  # a Peer Up was seen
        longer("generation", (), np.uint32)
        longer("path_ids", (3,), np.int64)
        longer("autonomous_system", (), np.uint32)
        longer("router", (2,), np.uint64)
        longer("slot_count", (SLOTS,), np.int32)
        longer("dump_until_ns", (SLOTS,), np.int64)

    def find(self, connection: int, key: PeerKey) -> int:
        """Return the row of a peer, -1 where it is not known."""
        return self._row_of.get(_words(connection, key), -1)

    def add(
        self,
        connection: int,
        key: PeerKey,
        name: str,
        autonomous_system: int,
        router: tuple[int, int],
    ) -> int:
        """Return the row of a new peer, -1 where there is no room."""
        free = np.flatnonzero(self.used[: self.rows] == 0)
        if free.size:
            row = int(free[0])
        elif self.rows >= self._peers_max:
            return -1
        else:
            row = self.rows
            self.rows += 1
            self._names.append("")
            if row >= len(self.used):
                self._room(2 * len(self.used))
        self.key[row] = _words(connection, key)
        self.used[row], self.up[row] = 1, 0
        self.autonomous_system[row] = autonomous_system
        self.router[row] = router
        self.path_ids[row] = 0
        self.dump_until_ns[row] = 0
        self._names[row] = name
        self._row_of[_words(connection, key)] = row
        self.index()
        return row

    def release(self, rows: list[int]) -> None:
        """Forget peers whose routes have ended."""
        for row in rows:
            self._row_of.pop(tuple(self.key[row].tolist()), None)
            self.used[row] = 0
        self.index()

    def name(self, row: int) -> str:
        """Return the peer as people call it."""
        return self._names[row]

    def rename(self, row: int, name: str) -> None:
        """Call a peer something else."""
        self._names[row] = name

    def index(self) -> None:
        """Make the kernels' table anew after rows changed."""
        index_peers(self.table, self.key, self.used, self.rows)

    def of_connection(self, connection: int) -> list[int]:
        """Return the rows of a connection's peers."""
        mine = (self.key[: self.rows, 0] >> np.uint64(8)) == np.uint64(connection)
        rows: list[int] = np.flatnonzero(mine & (self.used[: self.rows] != 0)).tolist()
        return rows

    def end_routes(self, row: int) -> int:
        """End all routes of a peer; return how many were live."""
        counts = self.slot_count[row][self.slot_count[row] > 0]
        routes = int(self.counts[counts, ROUTES].sum())
        self.counts[counts, ROUTES] = 0
        self.generation[row] = (int(self.generation[row]) + 1) % GENERATIONS
        self.up[row] = 0
        return routes

    def counts_room(self) -> None:
        """Double the room for counts."""
        for name in ("counts", "reported"):
            old = getattr(self, name)
            made = np.zeros((2 * len(old), COUNTS), np.int64)
            made[: len(old)] = old
            setattr(self, name, made)

    def counted(self) -> list[tuple[int, int, int]]:
        """Return (row in the counts, peer, slot) of all peers in use."""
        peers, slots = np.nonzero(self.slot_count[: self.rows])
        rows = self.slot_count[peers, slots]
        keep = self.used[peers] != 0
        return list(
            zip(rows[keep].tolist(), peers[keep].tolist(), slots[keep].tolist(), strict=True)
        )

    _KEPT = ("key", "used", "up", "generation", "path_ids", "autonomous_system", "router",
             "slot_count", "dump_until_ns")  # fmt: skip

    def snapshot(self, out: Any) -> None:
        """Write all rows."""
        for name in self._KEPT:
            write_array(out, name, getattr(self, name)[: self.rows])
        used = int(self.counts_used[0])
        write_array(out, "counts", self.counts[:used])
        write_array(out, "reported", self.reported[:used])
        text = "\n".join(self._names).encode()
        write_array(out, "names", np.frombuffer(text, np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back."""
        used = read_array(state, "used")
        names, counts, reported = (read_array(state, n) for n in ("names", "counts", "reported"))
        if used is None or counts is None or reported is None:
            return
        self.rows = len(used)
        self._room(max(_FIRST, 1 << self.rows.bit_length()))
        for name in self._KEPT:
            kept = read_array(state, name)
            if kept is None or not self.rows:
                continue
            now = getattr(self, name)[: self.rows]
            if now.ndim == 2 and now.shape[1] == SLOTS:  # older ones know fewer families
                now, kept = (one.reshape(self.rows, len(RIBS), -1) for one in (now, kept))
                now[:, :, : kept.shape[2]] = kept
            else:
                now[:] = kept
        while len(self.counts) < len(counts):
            self.counts_room()
        self.counts[: len(counts)], self.reported[: len(counts)] = counts, reported
        self.counts_used[0] = len(counts)
        text = names.tobytes().decode() if names is not None else ""
        self._names = text.split("\n") if self.rows else []
        self._row_of = {
            tuple(self.key[row].tolist()): row for row in np.flatnonzero(self.used).tolist()
        }
        self.index()


def _words(connection: int, key: PeerKey) -> tuple[int, int, int, int]:
    return connection << 8 | key.peer_type, key.distinguisher, key.high, key.low
