"""Which AS an address belongs to, by the routes that BMP told of: longest match over all peers.

For joins and explanations: the origin of an attacked prefix, of a talker, of a destination; and for
security: routes whose origin contradicts what is known of the same or a covering prefix
(`contradicting`, to be asked before `learn`).

IPv4 and IPv6 unicast of Adj-RIB-In and Loc-RIB. A prefix keeps the routes of every peer, so that one
withdrawal falls back to another peer's, and at most PATHS_MAX of one. Of several the best is a Loc-RIB's
(its router chose it), then the shortest AS path, then the peer heard of first. A route is 28 bytes, a
prefix 21 bytes at a place, of which up to 3/4 are taken. Blind to policy, VPNs and multicast.
"""

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.checkpoint import read_array, write_array
from runtime.kernels import inline, kernel, subroutine
from telemetry.batch import Batch
from telemetry.identity import address_text

ROUTES_MAX = 2_000_000
PATHS_MAX = 256  # of one peer to one prefix (ADD-PATH, RFC 7911): each new one is held against those before it
PEERS_MAX = 65_535
_FIRST = 1 << 10
_V4 = 0xFFFF << 32


@inline
def _place(high, low, kind, mask):  # type: ignore[no-untyped-def]
    h = (low ^ np.uint64(kind)) * np.uint64(0x9E3779B97F4A7C15)
    h = ((h ^ (h >> np.uint64(29))) + high) * np.uint64(0xBF58476D1CE4E5B9)
    return np.int64((h ^ (h >> np.uint64(32))) >> np.uint64(8)) & mask


@inline
def _masked(word, bits):  # type: ignore[no-untyped-def]
    """Return the first `bits` of a 64-bit word."""
    if bits <= 0:
        return np.uint64(0)
    if bits >= 64:
        return word
    return (word >> np.uint64(64 - bits)) << np.uint64(64 - bits)


@subroutine
def _best(head, source, following, length, age, generation):  # type: ignore[no-untyped-def]
    """Return the best of the routes that begin at `head`, -1 where none is valid."""
    best = np.int64(-1)
    route = np.int64(head) - 1
    while route >= 0:
        peer = np.int64(source[route] >> np.uint64(40))
        if age[route] == generation[peer]:
            if best < 0:
                best = route
            else:
                local = (source[route] >> np.uint64(32)) & np.uint64(255) == np.uint64(4)
                was = (source[best] >> np.uint64(32)) & np.uint64(255) == np.uint64(4)
                if local != was:
                    best = route if local else best
                elif length[route] != length[best]:
                    best = route if length[route] < length[best] else best
                elif source[route] < source[best]:
                    best = route
        route = np.int64(following[route]) - 1
    return best


@subroutine
def _find(high, low, first_kind, bits, keys, kinds, heads, used, source, following, length, age, generation):  # type: ignore[no-untyped-def]  # fmt: skip
    """Return (place, best route) of the longest known prefix of at most `bits` that covers an address."""
    mask = kinds.size - 1
    while bits >= 0:
        kind = first_kind + bits
        if used[kind] > 0:
            if first_kind == 1:
                top = np.uint64(0)
                word = _masked(low << np.uint64(32), bits) >> np.uint64(32)
                rest = word | np.uint64(0xFFFF) << np.uint64(32)
            else:
                top = _masked(high, bits)
                rest = _masked(low, bits - 64)
            place = _place(top, rest, kind, mask)
            while kinds[place] != 0:
                if kinds[place] == kind and keys[0, place] == top and keys[1, place] == rest:
                    best = _best(heads[place], source, following, length, age, generation)
                    if best >= 0:
                        return place, best
                    break
                place = (place + 1) & mask
        bits -= 1
    return np.int64(-1), np.int64(-1)


@kernel(
    "i8(const u8[::1], const u8[::1], const u1[::1], const u1[::1], const u1[::1], const i4[::1],"
    " const u1[::1], const u4[::1], const u4[::1], const u2[::1], i8, i8, u8[:,::1], u1[::1],"
    " i4[::1], i4[::1], u8[::1], i4[::1], u4[::1], u2[::1], u4[::1], u4[::1], i8[::1])"
)
def learn_routes(
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    bits: NDArray[np.uint8],
    version6: NDArray[np.uint8],
    withdrawn: NDArray[np.uint8],
    peer: NDArray[np.int32],
    rib: NDArray[np.uint8],
    path_id: NDArray[np.uint32],
    origin_as: NDArray[np.uint32],
    path_length: NDArray[np.uint16],
    first: int,
    stop: int,
    keys: NDArray[np.uint64],
    kinds: NDArray[np.uint8],
    heads: NDArray[np.int32],
    used: NDArray[np.int32],
    source: NDArray[np.uint64],
    following: NDArray[np.int32],
    origin: NDArray[np.uint32],
    length: NDArray[np.uint16],
    age: NDArray[np.uint32],
    generation: NDArray[np.uint32],
    state: NDArray[np.int64],
) -> int:
    """Enter routes [first, stop) and return the row to go on with.

    In      one row a route; version6 1 for IPv6; peer int32, -1 = left out; withdrawn 2 ends all routes of
            a peer.
    Inout   keys uint64[2, S], kinds uint8[S] (IPv4: bits + 1, IPv6: bits + 34, 0 = free), heads
            int32[S], first route + 1; used int32[256], prefixes by kind; routes: source uint64[R], peer
            << 40 | table << 32 | path id, following int32[R], origin, length, age[R]; generation
            uint32[P]; state int64[4]: places taken, routes made, first free route + 1, refused.
    Errors  none raised. Stops where it needs a place or a route more: `make_room`, go on; state[3]
            counts routes for which there is no room, those beyond PATHS_MAX among them.
    """
    mask = kinds.size - 1
    for r in range(first, stop):
        if peer[r] < 0:
            continue
        if withdrawn[r] == 2:
            generation[peer[r]] += np.uint32(1)
            continue
        kind = np.int64(bits[r]) + (34 if version6[r] else 1)
        place = _place(high[r], low[r], kind, mask)
        while kinds[place] != 0 and (
            kinds[place] != kind or keys[0, place] != high[r] or keys[1, place] != low[r]
        ):
            place = (place + 1) & mask
        mine = (
            np.uint64(peer[r]) << np.uint64(40)
            | np.uint64(rib[r]) << np.uint64(32)
            | np.uint64(path_id[r])
        )
        # Look for this route, and drop those of peers that fell on the way.
        found = np.int64(-1)
        before = np.int64(-1)
        paths = 0
        route = np.int64(heads[place]) - 1 if kinds[place] != 0 else np.int64(-1)
        while route >= 0:
            after = np.int64(following[route]) - 1
            stale = age[route] != generation[np.int64(source[route] >> np.uint64(40))]
            same = source[route] == mine
            if stale or (same and withdrawn[r] == 1):
                if before < 0:
                    heads[place] = np.int32(after + 1)
                else:
                    following[before] = np.int32(after + 1)
                following[route] = np.int32(state[2])
                state[2] = route + 1
                if heads[place] == 0:
                    used[kind] -= 1
            else:
                if same:
                    found = route
                if source[route] >> np.uint64(32) == mine >> np.uint64(32):
                    paths += 1
                before = route
            route = after
        if withdrawn[r] == 1:
            continue
        if found < 0 and paths >= PATHS_MAX:
            state[3] += 1
            continue
        if found < 0:
            if state[2] == 0 and state[1] >= source.size:
                return r
            if kinds[place] == 0:
                if state[0] >= kinds.size // 4 * 3:
                    return r
                kinds[place] = np.uint8(kind)
                keys[0, place] = high[r]
                keys[1, place] = low[r]
                heads[place] = 0
                state[0] += 1
            if state[2] > 0:
                found = state[2] - 1
                state[2] = np.int64(following[found])
            else:
                found = state[1]
                state[1] += 1
            if heads[place] == 0:
                used[kind] += 1
            following[found] = heads[place]
            heads[place] = np.int32(found + 1)
            source[found] = mine
        age[found] = generation[peer[r]]
        origin[found] = origin_as[r]
        length[found] = path_length[r]
    return stop


@kernel(
    "i8(const u8[:,::1], const u1[::1], const i4[::1], const u8[::1], const i4[::1], const u4[::1],"
    " const u2[::1], const u4[::1], const u4[::1], u8[:,::1], u1[::1], i4[::1], i4[::1], u8[::1],"
    " i4[::1], u4[::1], u2[::1], u4[::1])"
)
def move_prefixes(
    keys: NDArray[np.uint64],
    kinds: NDArray[np.uint8],
    heads: NDArray[np.int32],
    source: NDArray[np.uint64],
    following: NDArray[np.int32],
    origin: NDArray[np.uint32],
    length: NDArray[np.uint16],
    age: NDArray[np.uint32],
    generation: NDArray[np.uint32],
    to_keys: NDArray[np.uint64],
    to_kinds: NDArray[np.uint8],
    to_heads: NDArray[np.int32],
    used: NDArray[np.int32],
    to_source: NDArray[np.uint64],
    to_following: NDArray[np.int32],
    to_origin: NDArray[np.uint32],
    to_length: NDArray[np.uint16],
    to_age: NDArray[np.uint32],
) -> int:
    """Move every prefix with a valid route into empty tables; return the number of routes.

    Places taken are the sum of used int32[256], which is counted anew.
    """
    mask = to_kinds.size - 1
    routes = 0
    for kind in range(used.size):
        used[kind] = 0
    for i in range(kinds.size):
        if kinds[i] == 0:
            continue
        place = np.int64(-1)
        route = np.int64(heads[i]) - 1
        while route >= 0:
            if age[route] == generation[np.int64(source[route] >> np.uint64(40))]:
                if place < 0:
                    place = _place(keys[0, i], keys[1, i], np.int64(kinds[i]), mask)
                    while to_kinds[place] != 0:
                        place = (place + 1) & mask
                    to_kinds[place] = kinds[i]
                    to_keys[0, place] = keys[0, i]
                    to_keys[1, place] = keys[1, i]
                    used[kinds[i]] += 1
                to_source[routes] = source[route]
                to_origin[routes] = origin[route]
                to_length[routes] = length[route]
                to_age[routes] = age[route]
                to_following[routes] = to_heads[place]
                routes += 1
                to_heads[place] = np.int32(routes)
            route = np.int64(following[route]) - 1
    return routes


@kernel(
    "i8(const u8[::1], const u8[::1], const u1[::1], const u1[::1], const u8[:,::1],"
    " const u1[::1], const i4[::1], const i4[::1], const u8[::1], const i4[::1], const u2[::1],"
    " const u4[::1], const u4[::1], i8[::1], i8[::1])"
)
def find_routes(
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    bits: NDArray[np.uint8],
    version6: NDArray[np.uint8],
    keys: NDArray[np.uint64],
    kinds: NDArray[np.uint8],
    heads: NDArray[np.int32],
    used: NDArray[np.int32],
    source: NDArray[np.uint64],
    following: NDArray[np.int32],
    length: NDArray[np.uint16],
    age: NDArray[np.uint32],
    generation: NDArray[np.uint32],
    out_place: NDArray[np.int64],
    out_route: NDArray[np.int64],
) -> int:
    """Find the longest prefix that covers each network of `bits`, and its best route; -1 for none.

    Returns how many were found.
    """
    found = 0
    for i in range(high.size):
        out_place[i], out_route[i] = _find(
            high[i], low[i], 34 if version6[i] else 1, np.int64(bits[i]), keys, kinds, heads, used,
            source, following, length, age, generation,
        )  # fmt: skip
        if out_route[i] >= 0:
            found += 1
    return found


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of the longest prefix that covers something."""

    prefix: str
    origin_as: int  # 0 = a set of several
    path_length: int
    peer: str  # the router and the BGP peer that its best route came from
    routes: int  # how many are known of the prefix


class RoutingTable:
    """Prefixes and their routes; at most `routes_max` routes, what is over that is counted."""

    def __init__(self, routes_max: int = ROUTES_MAX) -> None:
        self._routes_max = routes_max
        self._peers: dict[tuple[int, ...], int] = {}
        self._names: list[str] = []
        self._generation = np.zeros(_FIRST, np.uint32)
        self._used = np.zeros(256, np.int32)
        self._state = np.zeros(4, np.int64)  # places taken, routes made, first free + 1, refused
        self._make_places(_FIRST)
        self._make_routes(_FIRST)

    def _make_places(self, places: int) -> None:
        self._keys = np.zeros((2, places), np.uint64)
        self._kinds = np.zeros(places, np.uint8)
        self._heads = np.zeros(places, np.int32)

    def _make_routes(self, routes: int) -> None:
        self._source = np.zeros(routes, np.uint64)
        self._following = np.zeros(routes, np.int32)
        self._origin = np.zeros(routes, np.uint32)
        self._length = np.zeros(routes, np.uint16)
        self._age = np.zeros(routes, np.uint32)

    @property
    def prefixes(self) -> int:
        """Prefixes with a route, those of peers that fell a moment ago among them."""
        return int(self._used.sum())

    @property
    def refused(self) -> int:
        """Routes that found no room."""
        return int(self._state[3])

    def learn(self, routes: Batch) -> None:
        """Take what a batch of routes announces and withdraws."""
        wanted = (routes["safi"] == 1) & (routes["rib"] != 2) & (routes["rib"] != 3)
        ended = routes["withdrawn"] == 2
        rows = np.flatnonzero(wanted | ended)
        if not rows.size:
            return
        peer = self._peer_rows(routes, rows)
        version6 = (routes["afi"][rows] == 2).astype(np.uint8)
        high, low = routes["prefix_high"][rows], routes["prefix_low"][rows]
        bits, withdrawn = routes["prefix_length"][rows], routes["withdrawn"][rows]
        rib, path_id = routes["rib"][rows], routes["path_id"][rows]
        origin, length = routes["origin_as"][rows], routes["as_path_length"][rows]
        row = 0
        while True:
            row = learn_routes(
                high, low, bits, version6, withdrawn, peer, rib, path_id, origin, length, row,
                rows.size, self._keys, self._kinds, self._heads, self._used, self._source,
                self._following, self._origin, self._length, self._age, self._generation,
                self._state,
            )  # fmt: skip
            if row >= rows.size:
                return
            if not self._make_room():
                self._state[3] += 1
                row += 1

    def _peer_rows(self, routes: Batch, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the number of each row's peer, -1 where there are too many."""
        names = ("exporter_address_high", "exporter_address_low", "peer_type", "peer_distinguisher",
                 "peer_address_high", "peer_address_low")  # fmt: skip
        keys = np.stack([routes[name][rows].astype(np.uint64) for name in names], axis=1)
        changes = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
        edges = [0, *changes.tolist(), len(rows)]
        peer = np.empty(len(rows), np.int32)
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            key = tuple(keys[start].tolist())
            known = self._peers.get(key)
            if known is None and len(self._peers) < PEERS_MAX:
                known = self._peers[key] = len(self._names)
                self._names.append(_peer_text(key))
                if known >= len(self._generation):
                    self._generation = np.resize(self._generation, 2 * known)
                    self._generation[known:] = 0
            peer[start:stop] = -1 if known is None else known
        return peer

    def _make_room(self) -> bool:
        """Drop routes of peers that fell; grow where little was freed. False: nothing can be done."""
        places, routes = len(self._kinds), len(self._source)
        old = (self._keys, self._kinds, self._heads, self._source, self._following, self._origin,
               self._length, self._age)  # fmt: skip
        live = self._live()
        if live * 4 > routes * 3:
            routes = min(routes * 2, self._routes_max)
        if int(self._used.sum()) * 2 > places:
            places *= 2
        if live >= routes:
            return False
        self._make_places(places)
        self._make_routes(routes)
        moved = move_prefixes(
            *old, self._generation, self._keys, self._kinds, self._heads, self._used,
            self._source, self._following, self._origin, self._length, self._age,
        )  # fmt: skip
        self._state[:3] = self._used.sum(), moved, 0
        return True

    def _live(self) -> int:
        made = int(self._state[1])
        valid = self._age[:made] == self._generation[self._source[:made] >> np.uint64(40)]
        free, at = 0, int(self._state[2])
        while at:
            free, at = free + 1, int(self._following[at - 1])
        return int(valid.sum()) - free

    def find(
        self, high: NDArray[np.uint64], low: NDArray[np.uint64], bits: NDArray[np.uint8],
        version6: NDArray[np.uint8],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
        """Return (place, route) of the longest prefix that covers each network, -1 for none."""
        place, route = np.empty(high.size, np.int64), np.empty(high.size, np.int64)
        find_routes(
            high, low, bits, version6, self._keys, self._kinds, self._heads, self._used,
            self._source, self._following, self._length, self._age, self._generation, place, route,
        )  # fmt: skip
        return place, route

    def origin_as(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Return the origin AS of each address (two u64, IPv4 mapped), 0 where it is not known."""
        version6 = ((high != 0) | (low >> np.uint64(32) != np.uint64(0xFFFF))).astype(np.uint8)
        bits = np.where(version6, 128, 32).astype(np.uint8)
        _, route = self.find(high, low, bits, version6)
        return np.where(route >= 0, self._origin[route], 0).astype(np.uint32)

    def origin(self, network: str) -> Origin | None:
        """Return what is known of the longest prefix that covers an address or network in text."""
        try:
            wanted = ip_network(network, strict=False)
        except ValueError:
            return None
        number, six = int(wanted.network_address), wanted.version == 6
        high, low = (number >> 64, number & (1 << 64) - 1) if six else (0, _V4 | number)
        place, route = self.find(
            np.array([high], np.uint64), np.array([low], np.uint64),
            np.array([wanted.prefixlen], np.uint8), np.array([six], np.uint8),
        )  # fmt: skip
        best = int(route[0])
        if best < 0:
            return None
        return Origin(
            self._prefix_text(int(place[0])),
            int(self._origin[best]),
            int(self._length[best]),
            self._names[int(self._source[best]) >> 40],
            len(self._routes_of(int(place[0]))),
        )

    def contradicting(
        self, routes: Batch, among: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return rows of a batch, not learned yet, whose origin contradicts what is known; and that.

        New routes and those of another origin only: what is known is the longest prefix that covers
        the route's, over all peers. A prefix covered by nothing but a default route, or whose own
        origin is not known (a set), contradicts nothing.
        """
        news = np.isin(routes["change"], (0, 1, 4)) & (routes["withdrawn"] == 0)
        wanted = news & (routes["safi"] == 1) & (routes["rib"] != 2) & (routes["rib"] != 3)
        rows = np.flatnonzero(among & wanted & (routes["origin_as"] != 0))
        if not rows.size:
            return rows, np.zeros(0, np.uint32)
        place, route = self.find(
            np.ascontiguousarray(routes["prefix_high"][rows]),
            np.ascontiguousarray(routes["prefix_low"][rows]),
            np.ascontiguousarray(routes["prefix_length"][rows]),
            (routes["afi"][rows] == 2).astype(np.uint8),
        )
        known = self._origin[route]
        other = (route >= 0) & (known != routes["origin_as"][rows])
        # A default route covers everything and says nothing of whose it is.
        other &= ~np.isin(self._kinds[place], (1, 34))
        of_place: dict[int, set[int]] = {}  # the best route's is not the only origin
        for i in np.flatnonzero(other).tolist():
            at = int(place[i])
            if at not in of_place:
                of_place[at] = {int(self._origin[r]) for r in self._routes_of(at)}
            other[i] = of_place[at].isdisjoint((int(routes["origin_as"][rows[i]]), 0))
        return rows[other], known[other]

    def _routes_of(self, place: int) -> list[int]:
        """Return the valid routes of a prefix."""
        found, route = [], int(self._heads[place]) - 1
        while route >= 0:
            if self._age[route] == self._generation[int(self._source[route]) >> 40]:
                found.append(route)
            route = int(self._following[route]) - 1
        return found

    def _prefix_text(self, place: int) -> str:
        kind = int(self._kinds[place])
        bits = kind - 34 if kind >= 34 else kind - 1
        if kind >= 34:
            number = int(self._keys[0, place]) << 64 | int(self._keys[1, place])
            return str(ip_network((number, bits)))
        return f"{address_text(0, int(self._keys[1, place]))}/{bits}"

    def snapshot(self, out: Any) -> None:
        """Write all tables as they are."""
        made = int(self._state[1])
        for name, array in (
            ("keys_high", self._keys[0]), ("keys_low", self._keys[1]), ("kinds", self._kinds),
            ("heads", self._heads), ("source", self._source[:made]),
            ("following", self._following[:made]), ("origin", self._origin[:made]),
            ("length", self._length[:made]), ("age", self._age[:made]),
            ("generation", self._generation), ("used", self._used), ("state", self._state),
            ("room", np.array([len(self._source)])),
            ("peers", np.array([*self._peers], np.uint64).reshape(-1, 6)),
        ):  # fmt: skip
            write_array(out, f"routing.{name}", array)

    def restore(self, state: Any) -> None:
        """Take them back."""
        names = ("keys_high", "keys_low", "kinds", "heads", "source", "following", "origin",
                 "length", "age", "generation", "used", "state", "room", "peers")  # fmt: skip
        kept = {name: read_array(state, f"routing.{name}") for name in names}
        if any(array is None for array in kept.values()):
            return
        found = {name: array for name, array in kept.items() if array is not None}
        self._make_places(len(found["kinds"]))
        self._keys[0], self._keys[1] = found["keys_high"], found["keys_low"]
        self._kinds[:], self._heads[:] = found["kinds"], found["heads"]
        self._make_routes(int(found["room"][0]))
        for name in ("source", "following", "origin", "length", "age"):
            getattr(self, f"_{name}")[: len(found[name])] = found[name]
        self._generation = found["generation"].copy()
        self._used[:], self._state[:] = found["used"], found["state"]
        self._peers = {tuple(key): number for number, key in enumerate(found["peers"].tolist())}
        self._names = [_peer_text(key) for key in self._peers]


def _peer_text(key: tuple[int, ...]) -> str:
    router = address_text(key[0], key[1])
    return f"{router} loc-rib" if key[2] == 3 else f"{router} {address_text(key[4], key[5])}"
