"""BMP sessions of the demo's routers: what each hears from its neighbours, also when a link is cut.

Each router is an AS of its own that speaks BGP with its neighbours over their links (RFC 7938), and
originates its customers' prefixes. What a neighbour tells is its shortest path, never back to where
it came from.

Source: RFC 7854 sections 4.1 to 4.10 (BMP); RFC 4271 section 4 (OPEN, UPDATE), RFC 6793 (AS numbers).
"""

import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tocsin.demo.network import HOPS_MAX, DemoNetwork, Paths
from tocsin.demo.syslog_lines import as_number, session_address

SPEAKERS = ("ams1", "fra1", "lon1", "par1", "mil1", "war1")
ROUTE_MONITORING, PEER_DOWN, PEER_UP, INITIATION = 0, 2, 3, 4
NO_NOTIFICATION = 4  # the remote side closed without a notification
_MARKER = b"\xff" * 16
_PREFIXES_PER_UPDATE = 100

Route = tuple[int, ...]  # the rows of routers that a prefix's path goes through, nearest first


class BmpSpeaker:
    """One monitored router: what it heard from each neighbour, and the messages that say so."""

    def __init__(self, network: DemoNetwork, router: str) -> None:
        self.router = router
        self._network = network
        self._row = network.row[router]
        self._address = network.addresses[self._row]
        self._links = {
            (link.b if link.a == router else link.a): link.name
            for link in network.file.link
            if router in (link.a, link.b)
        }
        self._prefixes: dict[int, list[bytes]] = defaultdict(list)
        for entry, row in zip(network.file.prefix, network.prefix_router.tolist(), strict=True):
            self._prefixes[row].append(_nlri(entry.prefix))
        self._heard: dict[str, dict[int, Route]] = {}
        self._stolen: frozenset[tuple[str, int]] = frozenset()

    def begin(self, now_ns: int) -> Iterator[bytes]:
        """Yield what a session opens with: who speaks, every peer, every route."""
        self._heard, self._stolen = {}, frozenset()
        texts = ((1, b"Junos 23.4R2, demo carrier"), (2, self.router.encode()))
        body = b"".join(struct.pack("!HH", kind, len(text)) + text for kind, text in texts)
        yield _message(INITIATION, body)
        yield from self.state(frozenset(), now_ns)

    def state(self, down: Iterable[str], now_ns: int) -> Iterator[bytes]:
        """Yield what changes when exactly these links are down: peers first, then routes."""
        gone = frozenset(down)
        paths = self._network.paths(gone)
        for peer, link in sorted(self._links.items()):
            far = self._network.row[peer]
            head = self._peer_header(far, now_ns)
            if link in gone:
                if self._heard.pop(peer, None) is not None:
                    yield _message(PEER_DOWN, head + bytes((NO_NOTIFICATION,)))
                continue
            if peer not in self._heard:
                self._heard[peer] = {}
                yield _message(PEER_UP, head + self._session(far))
            tells = self._told_by(far, paths)
            for update in self._updates(far, self._heard[peer], tells):
                yield _message(ROUTE_MONITORING, head + update)
            self._heard[peer] = tells

    def hijacks(self, active: Iterable[tuple[str, int]], now_ns: int) -> Iterator[bytes]:
        """Yield what changes when exactly these (prefix, AS) are announced by who may not, over a peer."""
        now = frozenset(active)
        if now == self._stolen or not self._heard:
            return
        far = self._network.row[min(self._heard)]
        head = self._peer_header(far, now_ns)
        hop = socket.inet_aton(session_address(self._row, far))
        gone = [_nlri(prefix) for prefix, _ in sorted(self._stolen - now)]
        if gone:
            yield _message(ROUTE_MONITORING, head + _update(withdrawn=gone))
        for prefix, origin in sorted(now - self._stolen):
            attributes = _attributes((as_number(far), origin), hop)
            update = _update(attributes=attributes, announced=[_nlri(prefix)])
            yield _message(ROUTE_MONITORING, head + update)
        self._stolen = now

    def _told_by(self, far: int, paths: Paths) -> dict[int, Route]:
        """Return the path by which a neighbour reaches each router, without those through us."""
        count = len(self._network.names)
        found: dict[int, Route] = {}
        for end in range(count):
            hops = paths.router[far * count + end][:HOPS_MAX].tolist()
            route = tuple(hop for hop in hops if hop >= 0)
            if end == far:
                route = (far,)
            if route and self._row not in route:
                found[end] = route
        return found

    def _updates(
        self, far: int, before: dict[int, Route], after: dict[int, Route]
    ) -> Iterator[bytes]:
        gone = [end for end in before if end not in after]
        for part in _cut([p for end in gone for p in self._prefixes[end]]):
            yield _update(withdrawn=part)
        hop = socket.inet_aton(session_address(self._row, far))
        for end, route in after.items():
            if before.get(end) == route or not self._prefixes[end]:
                continue
            attributes = _attributes([as_number(row) for row in route], hop)
            yield _update(attributes=attributes, announced=self._prefixes[end])

    def _peer_header(self, far: int, now_ns: int) -> bytes:
        address = bytes(12) + socket.inet_aton(session_address(self._row, far))
        seconds, rest = divmod(now_ns, 10**9)
        identifier = socket.inet_aton(self._network.addresses[far])
        return (
            struct.pack("!BB8x", 0, 0)
            + address
            + struct.pack("!I4sII", as_number(far), identifier, seconds, rest // 1000)
        )

    def _session(self, far: int) -> bytes:
        local = bytes(12) + socket.inet_aton(session_address(far, self._row))
        opens = _open(as_number(self._row), self._address)
        opens += _open(as_number(far), self._network.addresses[far])
        return local + struct.pack("!HH", 179, 40_000 + far) + opens


def _nlri(prefix: str) -> bytes:
    base, _, length = prefix.partition("/")
    return bytes((int(length),)) + socket.inet_aton(base)[: (int(length) + 7) // 8]


def _attributes(path: Sequence[int], hop: bytes) -> bytes:
    segment = struct.pack(f"!BB{len(path)}I", 2, len(path), *path)
    origin = bytes((0x40, 1, 1, 0))  # IGP
    return origin + bytes((0x40, 2, len(segment))) + segment + bytes((0x40, 3, 4)) + hop


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("!BIB", 3, 6 + len(body), kind) + body


def _bgp(kind: int, body: bytes) -> bytes:
    return _MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def _open(number: int, identifier: str) -> bytes:
    capabilities = bytes((1, 4, 0, 1, 0, 1)) + struct.pack("!BBI", 65, 4, number)
    options = bytes((2, len(capabilities))) + capabilities
    head = struct.pack("!BHH4sB", 4, number, 90, socket.inet_aton(identifier), len(options))
    return _bgp(1, head + options)


def _update(
    *,
    withdrawn: list[bytes] | None = None,
    attributes: bytes = b"",
    announced: list[bytes] | None = None,
) -> bytes:
    gone, new = b"".join(withdrawn or ()), b"".join(announced or ())
    lengths = struct.pack("!H", len(gone)), struct.pack("!H", len(attributes))
    return _bgp(2, lengths[0] + gone + lengths[1] + attributes + new)


def _cut(prefixes: list[bytes]) -> Iterator[list[bytes]]:
    for first in range(0, len(prefixes), _PREFIXES_PER_UPDATE):
        yield prefixes[first : first + _PREFIXES_PER_UPDATE]
