"""BMP: what routers hear from their BGP peers, as routes, samples of them, and alarms of peers.

The pure half. A block's rows are chunks of byte streams, one stream for each router's connection.
Messages are found in them by a kernel (`frames`), UPDATEs become rows in another (`bgp_updates`), a
third (`rib`) says what each row changed; Python sees a message only where it is rare: a peer that comes
or goes, statistics, what a router says of itself.

Nothing is shed: a router that sends faster than we read is slowed down by TCP. When a peer goes down
one row with withdrawn = 2 ends all its routes; when a connection ends, one for each of its peers.

Source: RFC 7854, 8671, 9069; draft-ietf-grow-bmp-tlv (version 4).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock
from collectors.bmp.alarms import SessionAlarms, peer_address, peer_key, peer_name
from collectors.bmp.bgp import families_with_path_ids
from collectors.bmp.bgp_updates import UNKNOWN_PATH_IDS
from collectors.bmp.frames import PEERS_LIMIT, Kind, frame_messages
from collectors.bmp.peers import Peers
from collectors.bmp.rib import GENERATIONS, RouteTable
from collectors.bmp.routes import MESSAGES, ROWS, RouteDecoder, ended
from collectors.bmp.series import PeerSeries
from collectors.bmp.sessions import AGAIN_NS, Sessions
from collectors.bmp.words import (
    HEADER_BYTES,
    read_peer_up,
    read_statistics,
    text_of,
    tlvs,
    why_down,
    why_terminated,
)
from collectors.config import ListenerSettings
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds, Settings
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.identity import address_text
from telemetry.schema import Schema
from telemetry.schemas import ALARM, LEDGER, OPTION, ROUTE, SAMPLE, SERIES

SECOND_NS = 1_000_000_000
PERIODS_MAX = 60  # of silence are told one by one
KINDS = (*(kind.name.lower() for kind in Kind), "other")
_NOBODY = np.zeros(0, np.uint8)


class BmpOptions(Settings, frozen=True, kw_only=True):
    """`[collectors.<name>.options]` of kind "bmp"."""

    message_bytes_max: PositiveInt = 131_072  # a longer one is taken for broken framing
    connections_max: PositiveInt = 1024  # of routers, whose state is kept; more are refused
    peers_max: PositiveInt = 8192  # of all routers; the routes of others are refused
    routes_max: PositiveInt = 2_000_000  # tracked for changes: up to 53 bytes each; others pass on
    sample_seconds: PositiveSeconds = 10.0  # how often counts of routes and updates become samples
    # A peer that comes up sends its whole table: until its end, at most so long, that is no churn.
    table_seconds: PositiveSeconds = 300.0
    # A router's time further ahead is not believed.
    clock_tolerance_seconds: PositiveSeconds = 300.0


@dataclass(slots=True)
class _Connection:
    """One router's byte stream."""

    number: int
    high: int
    low: int
    port: int
    name: str  # sysName, else the address
    rest: NDArray[np.uint8] = field(default_factory=lambda: _NOBODY)
    state: NDArray[np.int64] = field(default_factory=lambda: np.array([0, 1, 0, 0], np.int64))
    messages: int = 0
    goodbye: str = ""  # why it was terminated
    restored: bool = False  # from a checkpoint, and silent since

    @property
    def router(self) -> tuple[int, int]:
        return self.high, self.low


class BmpDecoder:
    """Turn BMP into `route`, `series`, `sample`, `alarm` and `ledger` batches. Owns no socket.

    A router's ledger counts BMP messages. Blind to families other than IP unicast, multicast, labelled,
    VPN, EVPN, FlowSpec and BGP-LS (counted), and to attributes other than path, next hop, MED, preference,
    communities, and those of BGP-LS.
    """

    emits: tuple[Schema, ...] = (ROUTE, SERIES, SAMPLE, ALARM, OPTION, LEDGER)

    def __init__(self, options: BmpOptions, context: Context) -> None:
        self._options = options
        self._period_ns = int(options.sample_seconds * SECOND_NS)
        self._period = -1
        self._connections: dict[tuple[int, int, int], _Connection] = {}
        self._numbers = 0
        self._peers = Peers(options.peers_max)
        self._table = RouteTable(options.routes_max)
        tolerance_ns = int(options.clock_tolerance_seconds * SECOND_NS)
        self._sessions = Sessions(self._peers)
        self._routes = RouteDecoder(
            self._peers, self._table, self._sessions, context, tolerance_ns=tolerance_ns
        )
        self._series = PeerSeries(options.peers_max * 64)
        self._alarms = SessionAlarms(
            context.name.rpartition(".")[2],
            peers_max=options.peers_max,
            routers_max=options.connections_max,
        )
        self._ledger: dict[tuple[int, int], list[int]] = {}  # decoded, undecodable, bytes skipped
        self._at, self._size = np.zeros(MESSAGES, np.int64), np.zeros(MESSAGES, np.int32)
        self._needed = np.zeros(MESSAGES, np.int64)
        metrics = context.metrics
        self._messages = metrics.counter(
            "collector_bmp_messages_total", "BMP messages by type", label="type", values=KINDS
        )
        self._skipped = metrics.counter(
            "collector_bmp_skipped_bytes_total",
            "bytes passed over in search of the next BMP message",
        )
        self._refused = metrics.counter(
            "collector_bmp_refused_total",
            "what came over a limit: bytes of connections, messages of peers",
            label="what",
            values=("connection_bytes", "peer_messages"),
        )
        self._gauge = metrics.gauge(
            "collector_bmp_state",
            "what is known from BMP now: connections, peers, routes, bytes of the table of routes",
            label="what",
            values=("connections", "peers", "routes", "table_bytes"),
        )

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Decode all chunks; see the class."""
        made: list[Batch] = []
        for start, stop in self._runs(block):
            now_ns = int(block.arrival_ns[start])
            made += self._close(now_ns)
            ends = not block.length[start]
            connection = self._connection(block, start, made, ends=ends)
            if connection is None:
                self._refused.add("connection_bytes", int(block.length[start:stop].sum()))
            elif ends:
                made += self._end(connection, now_ns)
            else:
                made += self._feed(connection, block, start, stop)
        return made

    def advance(self, frontier_ns: int) -> list[Batch]:
        """Return samples of periods that are over, and a ledger row for each router heard of."""
        made = self._close(frontier_ns) if self._period >= 0 else []
        self._gauge.array[:] = (
            len(self._connections),
            int(self._peers.used.sum()),
            self._table.live,
            self._table.table_bytes,
        )
        if self._ledger:
            made.append(self._report(frontier_ns))
        return made

    # ---- streams

    def _runs(self, block: DatagramBlock) -> Iterator[tuple[int, int]]:
        """Yield runs of chunks of one connection and one sample period; an end is a run of its own."""
        count = block.datagrams
        if not count:
            return
        new = np.zeros(count, bool)
        new[0] = True
        period = block.arrival_ns // self._period_ns
        for column in (block.exporter_high, block.exporter_low, block.exporter_port, period):
            new[1:] |= column[1:] != column[:-1]
        ends = block.length == 0
        new |= ends
        new[1:] |= ends[:-1]
        edges = [*np.flatnonzero(new).tolist(), count]
        yield from zip(edges[:-1], edges[1:], strict=True)

    def _connection(
        self, block: DatagramBlock, row: int, made: list[Batch], *, ends: bool
    ) -> _Connection | None:
        key = (
            int(block.exporter_high[row]), int(block.exporter_low[row]), int(block.exporter_port[row]),
        )  # fmt: skip
        known = self._connections.get(key)
        if known is None and not ends:
            now_ns = int(block.arrival_ns[row])
            # A router that comes back after our restart: its old connection is gone unseen.
            for old in [
                c for c in self._connections.values() if c.restored and c.router == key[:2]
            ]:
                made += self._end(old, now_ns, tell=False)
            if len(self._connections) >= self._options.connections_max:
                return None
            self._numbers += 1
            known = _Connection(self._numbers, *key, address_text(*key[:2]))
            self._connections[key] = known
        elif known is not None:
            known.restored = False
        return known

    def _feed(
        self, connection: _Connection, block: DatagramBlock, start: int, stop: int
    ) -> list[Batch]:
        length = block.length[start:stop]
        begin, total = int(block.offset[start]), int(length.sum())
        ends = np.cumsum(length, dtype=np.int64)
        if stop - start == 1 or (np.diff(block.offset[start:stop]) == length[:-1]).all():
            buffer = block.payload[begin : begin + total]
        else:
            buffer = np.concatenate(
                [
                    block.payload[
                        int(block.offset[i]) : int(block.offset[i]) + int(block.length[i])
                    ]
                    for i in range(start, stop)
                ]
            )
        if connection.rest.size:
            ends += connection.rest.size
            buffer = np.concatenate([connection.rest, buffer])
        made: list[Batch] = []
        state = connection.state
        state[0] = 0
        skipped = int(state[2])
        while True:
            count = frame_messages(
                buffer, buffer.size, self._options.message_bytes_max, self._at, self._size,
                self._needed, state,
            )  # fmt: skip
            if count:
                chunk = np.searchsorted(ends, self._needed[:count])
                made += self._read(connection, buffer, count, block.arrival_ns[start:stop][chunk])
            if count < MESSAGES:
                break
        connection.rest = buffer[int(state[0]) :].copy()
        state[3] = max(0, int(state[3]) - int(state[0]))
        if skipped != state[2]:
            self._skipped.array[0] += np.uint64(int(state[2]) - skipped)
        return made

    def _read(
        self,
        connection: _Connection,
        buffer: NDArray[np.uint8],
        count: int,
        arrival_ns: NDArray[np.int64],
    ) -> list[Batch]:
        """Deal with whole messages in their order, those of routes in runs."""
        at, size = self._at[:count], self._size[:count]
        kind = np.minimum(buffer[at + 5], len(KINDS) - 1)
        self._messages.array += np.bincount(kind, minlength=len(KINDS)).astype("u8")
        made: list[Batch] = []
        if not connection.messages:
            made += self._alarms.session_up(connection.router, int(arrival_ns[0]))
        connection.messages += count
        undecodable = 0

        def introduce(message: int) -> None:
            header = buffer[at[message] : at[message] + HEADER_BYTES].tobytes()
            self._peer(connection, header, told=False)

        def routes(first: int, stop: int) -> None:
            nonlocal undecodable
            batches, bad = self._routes.decode(
                connection.number, buffer, at, size, arrival_ns, first, stop, introduce
            )
            refused = int((self._routes.peer[first:stop] == -1).sum())
            self._refused.add("peer_messages", refused)
            undecodable += bad
            made.extend(batches)

        first = 0
        for rare in np.flatnonzero(kind != Kind.ROUTE_MONITORING).tolist():
            if rare > first:
                routes(first, rare)
            message = buffer[at[rare] : at[rare] + size[rare]].tobytes()
            batches, good = self._rare(connection, message, int(kind[rare]), int(arrival_ns[rare]))
            made += batches
            undecodable += not good
            first = rare + 1
        if first < count:
            routes(first, count)
        ledger = self._ledger.setdefault(connection.router, [0, 0])
        ledger[0] += count - undecodable
        ledger[1] += undecodable
        return made

    # ---- messages that are rare

    def _rare(
        self, connection: _Connection, message: bytes, kind: int, now_ns: int
    ) -> tuple[list[Batch], bool]:
        """Deal with one message; return what it gives and whether it could be decoded."""
        if kind == Kind.INITIATION:
            names = [text_of(value) for tlv, value in tlvs(message[6:]) if tlv == 2]
            connection.name = next((name for name in names if name), connection.name)
            return [], True
        if kind == Kind.TERMINATION:
            connection.goodbye = why_terminated(message)
            return [], True
        if kind == Kind.ROUTE_MIRRORING:
            return [], len(message) >= HEADER_BYTES  # copies of messages: nothing to add
        if (
            kind not in (Kind.STATISTICS, Kind.PEER_DOWN, Kind.PEER_UP)
            or len(message) < HEADER_BYTES
        ):
            return [], False
        if kind == Kind.PEER_UP:
            return self._peer_up(connection, message, now_ns)
        peer = self._peer(connection, message, told=False)
        if peer < 0:
            self._refused.add("peer_messages")
            return [], False
        if kind == Kind.PEER_DOWN:
            return self._peer_down(connection, peer, message, now_ns), True
        found = read_statistics(message)
        name = self._peers.name(peer)
        return self._series.statistics(peer, name, found, now_ns, now_ns), bool(found)

    def _peer(self, connection: _Connection, header: bytes, *, told: bool, table: str = "") -> int:
        """Return the row of the peer of a per-peer header, a new one where it is not known; -1: full."""
        key = peer_key(header)
        row = self._peers.find(connection.number, key)
        if row >= 0:
            return row
        autonomous_system = int.from_bytes(header[32:36], "big")
        name = peer_name(connection.name, key, table)
        row = self._peers.add(connection.number, key, name, autonomous_system, connection.router)
        if row >= 0 and not told:  # picked up in the middle: nobody said what the peers agreed on
            self._peers.path_ids[row] = UNKNOWN_PATH_IDS
        return row

    def _peer_up(
        self, connection: _Connection, message: bytes, now_ns: int
    ) -> tuple[list[Batch], bool]:
        said = read_peer_up(message)
        if said is None:
            return [], False
        peer = self._peer(connection, message, told=True, table=said.table)
        if peer < 0:
            self._refused.add("peer_messages")
            return [], False
        peers = self._peers
        peers.path_ids[peer] = families_with_path_ids(said.sent, said.received)
        peers.autonomous_system[peer] = int.from_bytes(message[32:36], "big")
        if not peers.up[peer]:  # some routers say it once for each table of routes
            peers.up[peer] = 1
            peers.dump_until_ns[peer] = now_ns + int(self._options.table_seconds * SECOND_NS)
        key = peer_key(message)
        made = self._alarms.peer_up(connection.router, key, now_ns)
        return [*made, *self._sessions.up(peer, key, said, message, now_ns)], True

    def _peer_down(
        self, connection: _Connection, peer: int, message: bytes, now_ns: int
    ) -> list[Batch]:
        peers = self._peers
        was_up = bool(peers.up[peer])
        routes = self._end_routes(peer)
        made = [ended(peers, [peer], now_ns), *self._sessions.down([peer], now_ns)]
        router, key = connection.router, peer_key(message)
        why, wanted = why_down(message)
        if message[HEADER_BYTES : HEADER_BYTES + 1] == b"\x05":  # no longer reported: nothing broke
            return made + self._alarms.peer_up(router, key, now_ns, why)
        if was_up or not self._alarms.is_down(router, key):  # else told for another of its tables
            detail = {
                "router": connection.name,
                "peer": peer_address(key),
                "peer_as": int(peers.autonomous_system[peer]),
                "routes_ended": routes,
            }
            name = peers.name(peer)
            made.append(
                self._alarms.peer_down(
                    router, key, name, why, wanted=wanted, now_ns=now_ns, detail=detail
                )
            )
        return made

    def _end_routes(self, peer: int) -> int:
        routes = self._peers.end_routes(peer)
        self._table.fell(routes)
        if int(self._peers.generation[peer]) == GENERATIONS - 1:  # before numbers come again
            self._table.grow(self._peers.generation)
        return routes

    # ---- sessions

    def _end(self, connection: _Connection, now_ns: int, *, tell: bool = True) -> list[Batch]:
        """A connection is gone: what its peers announce is not known any more."""
        del self._connections[connection.high, connection.low, connection.port]
        peers = self._peers.of_connection(connection.number)
        made = self._series.close(self._peers, now_ns, set(peers)) if peers else []
        for peer in peers:
            self._end_routes(peer)
            self._series.forget(peer)
        if peers:
            made.append(ended(self._peers, peers, now_ns))
            made += self._sessions.down(peers, now_ns)
            self._peers.release(peers)
        if connection.rest.size:
            self._skipped.add("", connection.rest.size)
        again = any(c.router == connection.router for c in self._connections.values())
        if tell and connection.messages and not again:
            made.append(
                self._alarms.session_down(
                    connection.router, connection.name, connection.goodbye, len(peers), now_ns
                )
            )
        return made

    # ---- periods and ledger

    def _close(self, now_ns: int) -> list[Batch]:
        """Return samples of all periods that ended at or before `now_ns`, each hour the sessions too."""
        period = now_ns // self._period_ns
        if self._period < 0 or period <= self._period:
            self._period = max(self._period, period)
            return []
        made: list[Batch] = []
        for ended_period in range(self._period, min(period, self._period + PERIODS_MAX)):
            made += self._series.close(self._peers, (ended_period + 1) * self._period_ns - 1)
        hour_ns = period * self._period_ns // AGAIN_NS * AGAIN_NS
        if hour_ns > self._period * self._period_ns:
            live = {one.number for one in self._connections.values() if not one.restored}
            made += self._sessions.still(live, hour_ns)
        self._period = period
        return made

    def _report(self, frontier_ns: int) -> Batch:
        rows = [
            {
                "arrival_ns": frontier_ns,
                "exporter_address_high": high,
                "exporter_address_low": low,
                "protocol": "bmp",
                "sent": decoded + undecodable,
                "decoded": decoded,
                "undecodable": undecodable,
                "malformed": undecodable,
                "datagrams": decoded + undecodable,
                "records": decoded,
            }
            for (high, low), (decoded, undecodable) in self._ledger.items()
        ]
        self._ledger.clear()
        return batch_from_rows(
            LEDGER, rows, source="ledger", arrival_ns=frontier_ns, frontier_ns=frontier_ns
        )

    # ---- checkpoints

    def snapshot(self, out: Any) -> None:
        """Write connections, peers, routes, counters and what is open."""
        rest = [c.rest for c in self._connections.values()]
        write_array(out, "rest", np.concatenate([_NOBODY, *rest]))
        kept = {
            "period": self._period,
            "numbers": self._numbers,
            "connections": [
                [
                    c.number, c.high, c.low, c.port, c.name, c.rest.size, c.state.tolist(), c.messages,
                    c.goodbye,
                ]
                for c in self._connections.values()
            ],
            "alarms": self._alarms.state(),
            "sessions": self._sessions.state(),
            "ledger": [[*key, *counts] for key, counts in self._ledger.items()],
        }  # fmt: skip
        write_array(out, "kept", np.frombuffer(json.dumps(kept).encode(), np.uint8))
        self._peers.snapshot(out.scoped("peers"))
        self._table.snapshot(out.scoped("routes"))
        self._series.snapshot(out.scoped("series"))

    def restore(self, state: Any) -> None:
        """Take them back. A connection that never speaks again ends when its router has a new one."""
        data, rest = read_array(state, "kept"), read_array(state, "rest")
        if data is None or rest is None:
            return
        kept = json.loads(data.tobytes())
        self._period, self._numbers = kept["period"], kept["numbers"]
        at = 0
        for number, high, low, port, name, size, stream, messages, goodbye in kept["connections"]:
            connection = _Connection(number, high, low, port, name, rest[at : at + size].copy())
            connection.state[:] = stream
            connection.messages, connection.goodbye, connection.restored = messages, goodbye, True
            self._connections[high, low, port] = connection
            at += size
        self._alarms.take(kept["alarms"])
        self._sessions.take(kept.get("sessions", []))
        self._ledger = {(row[0], row[1]): row[2:] for row in kept["ledger"]}
        self._peers.restore(state.scoped("peers"))
        self._table.restore(state.scoped("routes"), self._peers.generation)
        self._series.restore(state.scoped("series"), self._peers)


def _make(settings: ListenerSettings, options: BmpOptions, context: Context) -> BmpDecoder:  # noqa: ARG001
    if options.peers_max > PEERS_LIMIT:
        raise ConfigError(
            f"peers_max is {options.peers_max}, at most {PEERS_LIMIT} fit; start a second node for more"
        )
    if options.message_bytes_max >= ROWS * 8:
        raise ConfigError(
            f"message_bytes_max is {options.message_bytes_max}, at most {ROWS * 8 - 1};"
            f" BGP messages end at 65535 octets"
        )
    return BmpDecoder(options, context)


def _looks_like(head: bytes) -> bool:
    size = int.from_bytes(head[1:5], "big")
    return len(head) >= 6 and head[0] in (3, 4) and 6 < size < 1 << 17 and head[5] <= max(Kind)


READS = Reads(
    tcp_ports=(11019, 1790, 5000),
    file="stream",
    looks_like=_looks_like,
    reasons={
        "collector_bmp_updates_total": {
            "malformed": "BGP UPDATE messages whose routes cannot be told",
            "treated_as_withdraw": "BGP UPDATE messages with wrong attributes (read as withdrawals)",
            "other_family": "BGP UPDATE messages of families that are not read",
            "not_update": "route monitoring messages without an UPDATE",
        },
        "collector_bmp_left_beside_total": {
            "": "BGP UPDATE messages with routes of a family that is not read beside others"
        },
        "collector_bmp_flow_rules_malformed_total": {
            "cut_off": "FlowSpec rules that are cut off",
            "empty": "FlowSpec rules that match nothing",
            "order": "FlowSpec rules whose components are not in order",
            "component": "FlowSpec rules with a component of an unknown type",
            "prefix": "FlowSpec rules with an impossible prefix",
            "operator": "FlowSpec rules with a list of values that is cut off",
        },
        "collector_bmp_skipped_bytes_total": {"": "bytes between BMP messages"},
        "collector_bmp_messages_total": {"other": "BMP messages of an unknown type"},
    },
)
COLLECTOR = Part(
    "BMP: routes of routers' BGP peers (RFC 7854, 8671, 9069)",
    _make,
    BmpOptions,
    reads=READS,
    sheds="nothing: a router that sends faster than we read is slowed down by TCP",
)
