"""Route monitoring: a run of BMP messages of one connection as one batch of routes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bmp.bgp_updates import (
    FAMILIES,
    FLOW_RULES,
    LINK_STATE,
    OCTETS,
    OTHER,
    WIDE,
    WORDS,
    RouteMemory,
    Verdict,
    decode_updates,
)
from collectors.bmp.flow_rules import MALFORMED, FlowRule, FlowUpdate, read_rules, stand_in
from collectors.bmp.frames import locate_peers
from collectors.bmp.link_state import read_update
from collectors.bmp.peers import Peers, place_routes
from collectors.bmp.rib import RouteTable
from collectors.bmp.sessions import Sessions
from runtime.component import Context
from telemetry.batch import Batch, batch_from_rows, code_column, text_column
from telemetry.schema import Kind
from telemetry.schemas import OPTION, ROUTE

MESSAGES = 4096  # looked at in one go
ROWS = 1 << 16  # a message of 65,535 octets cannot hold more routes
RULE_BYTES = 1 << 16  # of messages of FlowSpec, about, whose rules are one batch: at most ROWS
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
        self._tally = np.zeros(1, np.int64)
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
        self._others = np.zeros(MESSAGES, np.uint8)
        self._plain = _Plain()
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
        self._left = context.metrics.counter(
            "collector_bmp_left_beside_total",
            "BGP UPDATE messages whose routes are read, but not those of another family beside them",
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
            runs = self._runs_of_rules(message, done)
            for begin, end in runs:  # they keep their place among routes
                beside = end if self._verdict[begin] != Verdict.FLOW_RULES else begin
                if beside > message:
                    before = self._decode(buffer, message, beside)
                    made += self._routes_of(arrival_ns, message, beside, before)
                made += self._flow_rules(buffer, arrival_ns, begin, end)
                message = end
            if runs and message < done:
                rows = self._decode(buffer, message, done)
            if message < done:
                made += self._routes_of(arrival_ns, message, done, rows)
            message = done
        made += self._link_state(buffer, arrival_ns, first, stop)
        verdicts = np.bincount(self._verdict[first:stop], minlength=len(Verdict))
        self._updates.array += verdicts.astype("u8")
        alone = self._verdict[first:stop] == Verdict.OTHER_FAMILY
        left = (self._others[first:stop] & OTHER != 0) & ~alone
        self._left.array[0] += np.uint64(np.count_nonzero(left))
        return made, int(verdicts[list(_UNDECODABLE)].sum())

    def _link_state(
        self, buffer: NDArray[np.uint8], arrival_ns: NDArray[np.int64], first: int, stop: int
    ) -> list[Batch]:
        """Return what messages of BGP-LS state, one row for each object."""
        rows: list[dict[str, Any]] = []
        for m in (first + np.flatnonzero(self._others[first:stop] & LINK_STATE)).tolist():
            start = int(self._update_at[m])
            found = read_update(buffer[start : start + int(self._update_size[m])].tobytes())
            if found is None:
                self._verdict[m] = Verdict.MALFORMED
            elif self.peer[m] >= 0:
                rows += self._sessions.stated(
                    int(self.peer[m]), int(self._rib[m]), found, int(arrival_ns[m])
                )
        return [batch_from_rows(OPTION, rows, source="bmp")] if rows else []

    def _runs_of_rules(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Return [first, behind) of messages with rules: such as hold nothing else together, within bounds."""
        found = first + np.flatnonzero(self._others[first:stop] & FLOW_RULES)
        if not found.size:
            return []
        alone = self._verdict[found] == Verdict.FLOW_RULES
        room = np.cumsum(self._update_size[found], dtype=np.int64) // RULE_BYTES
        apart = np.ones(found.size, bool)
        apart[1:] = (np.diff(found) > 1) | ~alone[1:] | ~alone[:-1] | (np.diff(room) > 0)
        begins = np.flatnonzero(apart)
        behind = found[np.append(begins[1:], found.size) - 1] + 1
        return list(zip(found[begins].tolist(), behind.tolist(), strict=True))

    def _flow_rules(
        self, buffer: NDArray[np.uint8], arrival_ns: NDArray[np.int64], first: int, stop: int
    ) -> list[Batch]:
        """Return what a run of messages of FlowSpec announces and withdraws, one row for each rule."""
        plain, found = self._plain, []
        octets = bytearray()
        for m in range(first, stop):
            start = int(self._update_at[m])
            message = buffer[start : start + int(self._update_size[m])].tobytes()
            update = read_rules(message, int(self._path_ids[m]))
            for why in update.malformed:
                self._malformed_rules.add(why)
            found.append(update)
            plain.at[m] = len(octets)
            octets += stand_in(message, len(update.withdrawn), len(update.announced))
            plain.size[m] = len(octets) - plain.at[m]
        rows = self._decode(np.frombuffer(octets, np.uint8), first, stop, plain)
        alone = self._verdict[first] == Verdict.FLOW_RULES
        if alone:
            ok = plain.verdict[first:stop] != Verdict.TREATED_AS_WITHDRAW
            told = [bool(update.rules) for update in found]
            self._verdict[first:stop] = np.where(
                told,
                np.where(ok, Verdict.FLOW_RULES, Verdict.TREATED_AS_WITHDRAW),
                Verdict.MALFORMED,
            )
        rules = [(rule, update) for update in found for rule in update.rules]
        return [self._batch(arrival_ns, first, stop, rows, rules)] if rules else []

    def _routes_of(
        self, arrival_ns: NDArray[np.int64], first: int, stop: int, rows: int
    ) -> list[Batch]:
        if rows:
            return [self._batch(arrival_ns, first, stop, rows)]
        self._end_dumps(arrival_ns, first, stop)
        return []

    def _enter_rules(self, rules: "Rules") -> None:
        """Put rules in the place of the routes that stood in for them."""
        memory, rows = self._memory, len(rules)
        memory.wide[0, :rows] = [rule.high for rule, _ in rules]
        memory.wide[1, :rows] = [rule.low for rule, _ in rules]
        # What a rule does is its way: done otherwise it is another path for the table of routes.
        memory.wide[2, :rows] = [update.next_hop[0] for _, update in rules]
        memory.wide[3, :rows] = [update.way for _, update in rules]
        memory.wide[4, :rows] = [rule.distinguisher for rule, _ in rules]
        memory.wide[7, :rows] = [rule.key for rule, _ in rules]
        memory.words[1, :rows] = [rule.path_id for rule, _ in rules]
        memory.octets[0, :rows] = [rule.length for rule, _ in rules]
        memory.octets[3, :rows] = [rule.family for rule, _ in rules]

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

    def _decode(
        self, buffer: NDArray[np.uint8], first: int, stop: int, plain: "_Plain | None" = None
    ) -> int:
        """Read messages, or what stands in for them."""
        memory = self._memory
        if plain is None:
            places = self._update_at, self._update_size, self._two_octet_as, self._path_ids
            said = self._verdict, self._end_of, self._others
        else:
            places = plain.at, plain.size, self._two_octet_as, plain.path_ids
            said = plain.verdict, plain.end_of, plain.others
        return decode_updates(
            buffer, *places, first, stop, memory.wide, memory.words, memory.lengths, memory.octets,
            *said, self._now, self._place, self._tally,
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
        rules: "Rules" = (),
    ) -> Batch:
        if rules:
            self._enter_rules(rules)
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
        columns["flow_rule"], columns["flow_actions"] = (
            np.zeros(rows + 1, np.int32),
            np.zeros(rows, "u4"),
        )
        blob = _NO_TEXT
        words: tuple[str, ...] = ("",)
        if rules:
            there = columns["withdrawn"] == 0
            for half, side in enumerate(("high", "low")):
                hops = [update.next_hop[half] for _, update in rules]
                columns[f"next_hop_address_{side}"][:] = np.where(there, hops, 0)
            columns["flow_rule"], blob = text_column([rule.text for rule, _ in rules])
            columns["flow_actions"], words = code_column(
                [
                    update.actions if one else ""
                    for (_, update), one in zip(rules, there.tolist(), strict=True)
                ]
            )
        newest = int(arrival_ns[stop - 1])
        return Batch(
            ROUTE, columns, {"flow_rule": blob}, {"flow_actions": words},
            source="bmp", arrival_ns=newest, frontier_ns=newest,
        )  # fmt: skip


Rules = Sequence[tuple[FlowRule, FlowUpdate]]  # in the order of their rows


class _Plain:
    """Places of messages that stand in for those with rules, and what the kernel says of them."""

    def __init__(self) -> None:
        self.at = np.zeros(MESSAGES, np.int64)
        self.size = np.zeros(MESSAGES, np.int32)
        self.path_ids = np.zeros(MESSAGES, np.int64)
        self.verdict, self.end_of, self.others = np.zeros((3, MESSAGES), np.uint8)


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
    words = {field.name: ("",) for field in ROUTE.fields if field.kind is Kind.CODE}
    return Batch(
        ROUTE, columns, blobs, words, source="bmp", arrival_ns=time_ns, frontier_ns=time_ns
    )
