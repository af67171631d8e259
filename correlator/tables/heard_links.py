"""Links that routers state themselves: what LLDP hears at each port, what an IGP knows (BGP-LS), BGP sessions.

Beside the network file, never against it: between two routers that the file joins, what is heard adds
nothing; of the others LLDP comes first, then BGP-LS, then sessions. Each has an age: `heard_ns` of an edge is
when it was last told (SNMP polling and the BMP collector tell all there is each hour), and what was not told
for `heard_hours` is gone. A link that fails stays as long: its neighbours are who feels it. Blind to two routers
with one system name.

A BGP session, told by BMP, is a link where both routers tell of it and its two addresses are of one subnet for
two (/30, /31, /126, /127): sessions between loopbacks say nothing of who is next to whom.
"""

import ipaddress
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from correlator.tables.link_state import LinkState, Teller
from runtime.ports import Link

PORTS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Edge:
    """One link of the graph, who states it, and when it was last told."""

    link: Link
    origin: str  # "file", "lldp", "bgp-ls", "bmp"
    heard_ns: int = 0  # 0 = it stands in the file
    ports: tuple[str, str] = ("", "")  # names of the ports at its ends, where they were told


@dataclass(frozen=True, slots=True)
class Port:
    """What one port of a device heard."""

    number: int
    local: str  # its own name
    remote: str  # system name of who is at the other end
    far: tuple[str, ...]  # names of the port there
    heard_ns: int


@dataclass(frozen=True, slots=True)
class Session:
    """A BGP session as one of its routers tells it."""

    router: str  # the address that its BMP comes from
    local: str  # "" where it is no link
    peer: str
    heard_ns: int
    up_ns: int  # since then, as far as we know


class HeardLinks:
    """What each port of each device heard, bounded, and the links that follow from it."""

    def __init__(self, kept_ns: int) -> None:
        """`kept_ns`: how long what is not told again is believed."""
        self._kept_ns = kept_ns
        self._oldest_ns = 1 << 62  # nothing here was last told before
        self._systems: dict[str, str] = {}  # system name: address
        self._names: dict[str, str] = {}  # address: what the configuration calls the device
        self._ports: dict[tuple[str, int], Port] = {}  # by address and number
        self._sessions: dict[Teller, Session] = {}  # by address and key
        self._link_state = LinkState()
        self.version = 0  # of what can be read here
        self._refused: Counter[str] = Counter()  # by table: what is beyond PORTS_MAX

    def name(self, address: str, text: str) -> None:
        """Take what a device is called: JSON with `entity` and `system`, its own name of itself."""
        said = _object(text)
        entity, system = str(said.get("entity", "")), str(said.get("system", ""))
        if not entity:
            return
        new = address not in self._names or system not in self._systems
        if new and max(len(self._names), len(self._systems)) >= PORTS_MAX:
            self._refused["devices"] += 1
            return
        if (self._names.get(address), self._systems.get(system)) != (entity, address):
            self._names[address], self._systems[system] = entity, address
            self.version += 1

    def address(self, system: str) -> str:
        """Return where the device with a system name was polled, or ""."""
        return self._systems.get(system, "")

    def port(self, address: str, port: int, text: str, at_ns: int) -> None:
        """Take who is at the other end of a port: JSON with local_port, remote, remote_port."""
        said = _object(text)
        known = self._ports.get((address, port))
        if known is None and len(self._ports) >= PORTS_MAX:
            self._refused["lldp_ports"] += 1
            return
        names = (str(said.get(name, "")) for name in ("remote_port", "remote_port_description"))
        far = tuple(name for name in names if name)
        new = Port(port, str(said.get("local_port", "")), str(said.get("remote", "")), far, at_ns)
        self._ports[address, port] = new
        self._oldest_ns = min(self._oldest_ns, at_ns)
        if known is None or replace(known, heard_ns=at_ns) != new:
            self.version += 1

    def session(self, address: str, key: int, text: str, at_ns: int) -> None:
        """Take a BGP session that came up, lasts, or ended: JSON with peer, state, local and router_id."""
        said = _object(text)
        local, peer = str(said.get("local", "")), str(said.get("peer", ""))
        if not _is_link(local, peer) or local in (address, said.get("router_id")):
            local = ""
        known = self._sessions.get((address, key))
        if known is None and said.get("state") == "down":
            return
        if known is None and len(self._sessions) >= PORTS_MAX:
            self._refused["bgp_sessions"] += 1
            return
        new = said.get("state") == "up" or known is None
        up_ns = at_ns if new or known is None else known.up_ns
        self._sessions[address, key] = Session(address, local, peer, at_ns, up_ns)
        self._oldest_ns = min(self._oldest_ns, at_ns)
        was = (known.local, known.peer) if known else ("", "")
        if was != (local, peer) and (local or was[0]):
            self.version += 1

    def state(self, address: str, key: int, session: int, text: str, at_ns: int) -> None:
        """Take what an IGP states over a session: JSON as `collectors.bmp.link_state` has it."""
        if self._link_state.take(address, key, session, _object(text), at_ns):
            self.version += 1
        self._oldest_ns = min(self._oldest_ns, at_ns)

    def refused(self) -> dict[str, int]:
        """Return how much found its table full, by table."""
        return {**self._refused, "link_state": self._link_state.refused}

    def expire(self, now_ns: int) -> None:
        """Drop what was not told for too long."""
        before_ns = now_ns - self._kept_ns
        if self._oldest_ns >= before_ns:
            return
        gone, self._oldest_ns = self._link_state.expire(self._told_ns, before_ns)
        for kept in (self._ports, self._sessions):
            old = [place for place, one in kept.items() if one.heard_ns < before_ns]
            for place in old:
                del kept[place]
            gone += len(old)
            newest = (one.heard_ns for one in kept.values())
            self._oldest_ns = min(self._oldest_ns, min(newest, default=self._oldest_ns))
        self.version += gone > 0

    def _told_ns(self, teller: Teller, stated_ns: int) -> int:
        """Return until when a session bore out what it stated: it has told all there is since it is up."""
        session = self._sessions.get(teller)
        if session is None:
            return stated_ns
        return max(stated_ns, session.heard_ns if stated_ns >= session.up_ns else session.up_ns)

    def edges(
        self,
        joined: Iterable[frozenset[str]],
        router_of: Callable[[str], str],
        is_router: Callable[[str], bool],
    ) -> list[Edge]:
        """Return the links heard that the file does not have; `joined` are pairs that it joins.

        Of the two ends of a link one is enough; both make one link, also of several in parallel.
        """
        not_these = set(joined)
        sides: dict[tuple[str, str], tuple[list[Port], list[Port]]] = {}
        for (address, _), port in sorted(self._ports.items(), key=lambda one: one[0]):
            near = self._called(address, router_of, is_router)
            other = self._called(port.remote, router_of, is_router)
            if not other or near == other:
                continue
            if frozenset((near, other)) not in not_these:
                pair = (min(near, other), max(near, other))
                sides.setdefault(pair, ([], []))[near == pair[1]].append(port)
        made = []
        for (a, b), (of_a, of_b) in sorted(sides.items()):
            for number, (one, other_end) in enumerate(_matched(of_a, of_b)):
                ends = ((a, one.number if one else 0), (b, other_end.number if other_end else 0))
                heard_ns = max(port.heard_ns for port in (one, other_end) if port)
                names = (one.local if one else "", other_end.local if other_end else "")
                name = f"{a}-{b}" if number == 0 else f"{a}-{b}#{number + 1}"
                made.append(Edge(Link(name, ends), "lldp", heard_ns, names))
        not_these.update(frozenset(pair) for pair in sides)
        made += self._of_link_state(not_these, router_of, is_router)
        not_these.update(frozenset(router for router, _ in edge.link.ends) for edge in made)
        return made + self._of_sessions(not_these, router_of, is_router)

    def _of_link_state(
        self,
        not_these: set[frozenset[str]],
        router_of: Callable[[str], str],
        is_router: Callable[[str], bool],
    ) -> list[Edge]:
        """Return the links that BGP-LS states."""

        def called(names: Iterable[str]) -> str:
            found = [self._called(name, router_of, is_router) for name in names]
            return next((name for name in found if is_router(name)), found[0])

        numbers: Counter[str] = Counter()
        made = []
        for one in self._link_state.links(called, self._told_ns):
            if frozenset((one.a, one.b)) in not_these:
                continue
            name = f"{one.a}-{one.b}"
            numbers[name] += 1
            name += f"#{numbers[name]}" if numbers[name] > 1 else ""
            link = Link(name, ((one.a, 0), (one.b, 0)), one.bits_per_second)
            made.append(Edge(link, "bgp-ls", one.told_ns))
        return made

    def _of_sessions(
        self,
        not_these: set[frozenset[str]],
        router_of: Callable[[str], str],
        is_router: Callable[[str], bool],
    ) -> list[Edge]:
        """Return a link for each session of which both its routers tell.

        Over a link that carries IPv4 and IPv6 there is one of each: the protocol that has most of them
        says how many links there are.
        """
        ends = {(one.local, one.peer): one for one in self._sessions.values() if one.local}
        found: dict[tuple[str, str], list[list[int]]] = {}
        for (local, peer), one in sorted(ends.items()):
            other = ends.get((peer, local))
            if other is None or local > peer:
                continue
            a, b = sorted(self._called(each.router, router_of, is_router) for each in (one, other))
            if a != b and frozenset((a, b)) not in not_these:
                of_version = found.setdefault((a, b), [[], []])[":" in local]
                of_version.append(max(one.heard_ns, other.heard_ns))
        most = [(pair, max(found[pair], key=len)) for pair in sorted(found)]
        return [
            Edge(
                Link(f"{a}-{b}" if not number else f"{a}-{b}#{number + 1}", ((a, 0), (b, 0))),
                "bmp",
                at_ns,
            )
            for (a, b), times in most
            for number, at_ns in enumerate(times)
        ]

    def _called(
        self, said: str, router_of: Callable[[str], str], is_router: Callable[[str], bool]
    ) -> str:
        """Return what people call a device that is known by an address or by its system name."""
        short = said.partition(".")[0]
        address = self._systems.get(said) or self._systems.get(short) or said
        entity = self._names.get(address, "")
        for name in (router_of(address), router_of(said), entity):
            if is_router(name):
                return name
        return entity or said

    # ---- checkpoint

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {
            "names": self._names,
            "systems": self._systems,
            "ports": [
                [address, port.number, port.local, port.remote, port.far, port.heard_ns]
                for (address, _), port in self._ports.items()
            ],
            "sessions": [
                [address, key, one.local, one.peer, one.heard_ns, one.up_ns]
                for (address, key), one in self._sessions.items()
            ],
            "link_state": self._link_state.snapshot(),
            "version": self.version,
        }

    def restore(self, kept: Any) -> None:
        """Take it back."""
        self._names, self._systems = dict(kept["names"]), dict(kept["systems"])
        self._ports = {
            (address, number): Port(number, local, remote, tuple(far), heard_ns)
            for address, number, local, remote, far, heard_ns in kept["ports"]
        }
        self._sessions = {
            (address, key): Session(address, local, peer, heard_ns, up_ns[0] if up_ns else heard_ns)
            for address, key, local, peer, heard_ns, *up_ns in kept.get("sessions", ())
        }
        self._link_state.restore(kept.get("link_state", ()))
        self._oldest_ns = 0  # to be found
        self.version = kept["version"]


def _matched(of_a: list[Port], of_b: list[Port]) -> list[tuple[Port | None, Port | None]]:
    """Return the ports of two devices in pairs: by name where either names the other, else in order."""
    left = list(of_b)
    made: list[tuple[Port | None, Port | None]] = []
    alone = []
    for one in of_a:
        fits = (port for port in left if one.local in port.far or port.local in one.far)
        other = next(fits, None)
        if other is None:
            alone.append(one)
        else:
            left.remove(other)
            made.append((one, other))
    return made + list(zip_longest(alone, left))


def _is_link(local: str, peer: str) -> bool:
    """Whether two addresses are of one subnet that has room for two."""
    try:
        a, b = ipaddress.ip_address(local), ipaddress.ip_address(peer)
    except ValueError:
        return False
    return a != b and a.version == b.version and int(a) >> 2 == int(b) >> 2


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
