"""Route monitoring: a run of BMP messages of one connection as one batch of routes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bmp.bgp_updates import (
    FAMILIES,
    OCTETS,
    WIDE,
    WORDS,
    RouteMemory,
    Verdict,
    decode_updates,
)
from collectors.bmp.flow_rules import MALFORMED, FlowUpdate, read_rules, stand_in
from collectors.bmp.frames import locate_peers
from collectors.bmp.link_state import read_update
from collectors.bmp.peers import Peers, place_routes
from collectors.bmp.rib import RouteTable
from collectors.bmp.sessions import Sessions
from runtime.component import Context
from telemetry.batch import Batch, batch_from_rows, text_column
from telemetry.identity import stable_id
from telemetry.schema import Kind
from telemetry.schemas import OPTION, ROUTE

MESSAGES = 4096  # looked at in one go
ROWS = 1 << 16  # a message of 65,535 octets cannot hold more routes
_AFI = np.array([afi for afi, _ in FAMILIES], np.uint16)
_SAFI = np.array([safi for _, safi in FAMILIES], np.uint8)
_NO_TEXT = np.zeros(0, np.uint8)
ALL_RIBS = 255  # `rib` of a row that ends all routes of a peer
_UNDECODABLE = (Verdict.MALFORMED, Verdict.NOT_UPDATE)


class RouteDecoder:
    """Turns route monitoring messages into `route` batches, by what their peers agreed on.

    Those of BGP-LS, which are rare, into `option` batches; rules of FlowSpec into `route` batches of their own.
    """

    def __init__(
        self,
        peers: Peers,
        table: RouteTable,
        sessions: Sessions,
        context: Context,
        *,
        tolerance_ns: int,
    ) -> None:
        self._peers = peers
        self._sessions = sessions
        self._table = table
        self._tolerance_ns = tolerance_ns
        self._memory = RouteMemory.room(ROWS)
        self._now, self._place = np.zeros(13, np.uint64), np.zeros(7, np.int64)
        self._tally = np.zeros(2, np.int64)
        self.peer = np.zeros(MESSAGES, np.int32)
        self._rib = np.zeros(MESSAGES, np.uint8)
        self._time_ns = np.zeros(MESSAGES, np.int64)
        self._key = np.zeros((4, MESSAGES), np.uint64)
        self._update_at = np.zeros(MESSAGES, np.int64)
        self._update_size = np.zeros(MESSAGES, np.int32)
        self._two_octet_as = np.zeros(MESSAGES, np.uint8)
        self._path_ids = np.zeros(MESSAGES, np.int64)
        self._verdict = np.zeros(MESSAGES, np.uint8)
        self._end_of = np.zeros(MESSAGES, np.uint8)
        self._owner = np.zeros(ROWS, np.uint32)
        self._count_row = np.zeros(ROWS, np.int32)
        self._dumping = np.zeros(ROWS, np.uint8)
        self._updates = context.metrics.counter(
            "collector_bmp_updates_total",
            "BGP UPDATE messages from BMP by what the decoder thought of them",
            label="verdict",
            values=tuple(v.name.lower() for v in Verdict),
        )
        self._malformed_rules = context.metrics.counter(
            "collector_bmp_flow_rules_malformed_total",
            "FlowSpec rules that could not be told, by reason; what stands beside them in a message is read",
            label="reason",
            values=MALFORMED,
        )
        self._routes = context.metrics.counter(
            "collector_bmp_routes_total", "routes announced and withdrawn, as decoded from BMP"
        )

    def decode(
        self,
        connection: int,
        buffer: NDArray[np.uint8],
        at: NDArray[np.int64],
        size: NDArray[np.int32],
        arrival_ns: NDArray[np.int64],
        first: int,
        stop: int,
        introduce: Callable[[int], None],
    ) -> tuple[list[Batch], int]:
        """Return the routes of messages [first, stop), and how many could not be decoded.

        `introduce` is called with the first message of each peer that nobody told us of.
        """
        if self._locate(connection, buffer, at, size, first, stop):
            told = set()
            for message in np.flatnonzero(self.peer[first:stop] == -1).tolist():
                key = tuple(self._key[:, first + message].tolist())
                if key not in told:
                    told.add(key)
                    introduce(first + message)
            self._locate(connection, buffer, at, size, first, stop)
        made = []
        message = first
        while message < stop:
            rows = self._decode(buffer, message, stop)
            done = int(self._tally[0])
            rules = np.flatnonzero(self._verdict[message:done] == Verdict.FLOW_RULES)
            for rule in (message + rules).tolist():  # they keep their place among routes
                if rule > message:
                    before = self._decode(buffer, message, rule)
                    made += self._routes_of(arrival_ns, message, rule, before)
                made += self._flow_rules(buffer, arrival_ns, rule)
                message = rule + 1
            if rules.size and message < done:
                rows = self._decode(buffer, message, done)
            if message < done:
                made += self._routes_of(arrival_ns, message, done, rows)
            message = done
        made += self._link_state(buffer, arrival_ns, first, stop)
        verdicts = np.bincount(self._verdict[first:stop], minlength=len(Verdict))
        self._updates.array += verdicts.astype("u8")
        return made, int(verdicts[list(_UNDECODABLE)].sum())

    def _link_state(
        self, buffer: NDArray[np.uint8], arrival_ns: NDArray[np.int64], first: int, stop: int
    ) -> list[Batch]:
        """Return what messages of BGP-LS state, one row for each object."""
        rows: list[dict[str, Any]] = []
        for m in (first + np.flatnonzero(self._verdict[first:stop] == Verdict.LINK_STATE)).tolist():
            start = int(self._update_at[m])
            found = read_update(buffer[start : start + int(self._update_size[m])].tobytes())
            if found is None:
                self._verdict[m] = Verdict.MALFORMED
            elif self.peer[m] >= 0:
                rows += self._sessions.stated(
                    int(self.peer[m]), int(self._rib[m]), found, int(arrival_ns[m])
                )
        return [batch_from_rows(OPTION, rows, source="bmp")] if rows else []

    def _flow_rules(
        self, buffer: NDArray[np.uint8], arrival_ns: NDArray[np.int64], m: int
    ) -> list[Batch]:
        """Return what a message of FlowSpec announces and withdraws, one row for each rule."""
        start = int(self._update_at[m])
        message = buffer[start : start + int(self._update_size[m])].tobytes()
        found = read_rules(message, int(self._path_ids[m]))
        for why in found.malformed:
            self._malformed_rules.add(why)
        plain = stand_in(message, len(found.withdrawn), len(found.announced))
        self._update_at[m], self._update_size[m], self._path_ids[m] = 0, len(plain), 0
        rows = self._decode(np.frombuffer(plain, np.uint8), m, m + 1)
        if not found.rules or rows != len(found.rules):
            self._verdict[m] = Verdict.MALFORMED
            return []
        made = self._batch(arrival_ns, m, m + 1, rows, found)
        if self._verdict[m] == Verdict.OK:
            self._verdict[m] = Verdict.FLOW_RULES
        return [made]

    def _routes_of(
        self, arrival_ns: NDArray[np.int64], first: int, stop: int, rows: int
    ) -> list[Batch]:
        if rows:
            return [self._batch(arrival_ns, first, stop, rows)]
        self._end_dumps(arrival_ns, first, stop)
        return []

    def _enter_rules(self, found: FlowUpdate) -> None:
        """Put rules in the place of the routes that stood in for them."""
        memory, rules = self._memory, found.rules
        rows = len(rules)
        memory.wide[0, :rows] = [rule.high for rule in rules]
        memory.wide[1, :rows] = [rule.low for rule in rules]
        # What a rule does is its way: done otherwise it is another path for the table of routes.
        memory.wide[2, :rows], memory.wide[3, :rows] = found.next_hop[0], stable_id(found.actions)
        memory.wide[4, :rows] = [rule.distinguisher for rule in rules]
        memory.wide[7, :rows] = [rule.key for rule in rules]
        memory.words[1, :rows] = [rule.path_id for rule in rules]
        memory.octets[0, :rows] = [rule.length for rule in rules]
        memory.octets[3, :rows] = [rule.family for rule in rules]

    def _locate(
        self,
        connection: int,
        buffer: NDArray[np.uint8],
        at: NDArray[np.int64],
        size: NDArray[np.int32],
        first: int,
        stop: int,
    ) -> int:
        return locate_peers(
            buffer, at, size, first, stop, connection, self._peers.table, self._peers.key,
            self._peers.path_ids, self.peer, self._rib, self._time_ns, self._key, self._update_at,
            self._update_size, self._two_octet_as, self._path_ids,
        )  # fmt: skip

    def _decode(self, buffer: NDArray[np.uint8], first: int, stop: int) -> int:
        memory = self._memory
        return decode_updates(
            buffer, self._update_at, self._update_size, self._two_octet_as, self._path_ids, first,
            stop, memory.wide, memory.words, memory.lengths, memory.octets, self._verdict,
            self._end_of, self._now, self._place, self._tally,
        )  # fmt: skip

    def _end_dumps(self, arrival_ns: NDArray[np.int64], first: int, stop: int) -> None:
        self._place_rows(arrival_ns, first, stop, 0)

    def _place_rows(self, arrival_ns: NDArray[np.int64], first: int, stop: int, rows: int) -> None:
        peers, memory = self._peers, self._memory
        while True:
            first = place_routes(
                memory.words, memory.octets, rows, first, stop, self.peer, self._rib, arrival_ns,
                self._verdict, self._end_of, peers.slot_count, peers.dump_until_ns,
                peers.generation, peers.counts_used, len(peers.counts), self._owner,
                self._count_row, self._dumping,
            )  # fmt: skip
            if first >= stop:
                return
            peers.counts_room()

    def _batch(
        self,
        arrival_ns: NDArray[np.int64],
        first: int,
        stop: int,
        rows: int,
        found: FlowUpdate | None = None,
    ) -> Batch:
        if found is not None:
            self._enter_rules(found)
        self._place_rows(arrival_ns, first, stop, rows)
        peers, memory = self._peers, self._memory
        change = self._table.apply(
            memory.wide, memory.words, memory.octets, rows, self._owner, self._count_row,
            self._dumping, peers.counts, peers.generation,
        )  # fmt: skip
        self._routes.array[0] += np.uint64(rows)
        message = memory.words[0, :rows].astype(np.int64)
        peer = self.peer[message]
        arrival = arrival_ns[message]
        stated = self._time_ns[message]
        wrong = (stated == 0) | (stated > arrival + self._tolerance_ns)
        family = memory.octets[3, :rows]
        key = peers.key[peer]
        columns: dict[str, NDArray[Any]] = {
            "time_ns": np.where(wrong, arrival, stated),
            "arrival_ns": arrival,
            "peer_address_high": key[:, 2].copy(),
            "peer_address_low": key[:, 3].copy(),
            "as_path_length": memory.lengths[:rows].copy(),
            "exporter_address_high": peers.router[peer, 0],
            "exporter_address_low": peers.router[peer, 1],
            "peer_as": peers.autonomous_system[peer],
            "peer_distinguisher": key[:, 1].copy(),
            "peer_type": (key[:, 0] & np.uint64(255)).astype(np.uint8),
            "rib": self._rib[message],
            "afi": _AFI[family],
            "safi": _SAFI[family],
            "change": change,
        }
        for names, matrix in ((WIDE, memory.wide), (WORDS, memory.words), (OCTETS, memory.octets)):
            for row, name in enumerate(names):
                if name in ROUTE.by_name:
                    columns[name] = matrix[row, :rows].copy()
        # A path of no AS starts where the peer itself is.
        local = (columns["as_path_length"] == 0) & (columns["withdrawn"] == 0)
        columns["origin_as"][local] = columns["peer_as"][local]
        columns["flow_rule"] = columns["flow_actions"] = np.zeros(rows + 1, np.int32)
        blobs = {"flow_rule": _NO_TEXT, "flow_actions": _NO_TEXT}
        if found is not None:
            there = columns["withdrawn"] == 0
            for half, side in enumerate(("high", "low")):
                columns[f"next_hop_address_{side}"][:] = np.where(there, found.next_hop[half], 0)
            done = [found.actions if one else "" for one in there.tolist()]
            for name, texts in (
                ("flow_rule", [rule.match for rule in found.rules]), ("flow_actions", done),
            ):  # fmt: skip
                columns[name], blobs[name] = text_column(texts)
        newest = int(arrival_ns[stop - 1])
        return Batch(ROUTE, columns, blobs, source="bmp", arrival_ns=newest, frontier_ns=newest)


def ended(peers: Peers, rows: list[int], time_ns: int) -> Batch:
    """Return a row for each of these peers that ends all its routes."""
    texts = [field.name for field in ROUTE.fields if field.kind is Kind.TEXT]
    columns = {
        field.name: np.zeros(len(rows) + (field.name in texts), field.dtype)
        for field in ROUTE.fields
    }
    key = peers.key[rows]
    columns["time_ns"][:] = columns["arrival_ns"][:] = time_ns
    columns["peer_address_high"][:], columns["peer_address_low"][:] = key[:, 2], key[:, 3]
    columns["peer_distinguisher"][:] = key[:, 1]
    columns["peer_type"][:] = key[:, 0] & np.uint64(255)
    columns["exporter_address_high"][:] = peers.router[rows, 0]
    columns["exporter_address_low"][:] = peers.router[rows, 1]
    columns["peer_as"][:] = peers.autonomous_system[rows]
    columns["withdrawn"][:], columns["rib"][:] = 2, ALL_RIBS
    blobs = dict.fromkeys(texts, _NO_TEXT)
    return Batch(ROUTE, columns, blobs, source="bmp", arrival_ns=time_ns, frontier_ns=time_ns)
