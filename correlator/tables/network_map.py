"""Names and neighbourhood: routers, interfaces, links and prefixes from a TOML file and options data."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from correlator.tables.heard_links import Edge, HeardLinks
from runtime.checkpoint import read_array, write_array
from runtime.ports import Interface, Link
from runtime.settings import Settings, load
from telemetry.batch import Batch
from telemetry.identity import address_pair, address_text, prefix_number

if TYPE_CHECKING:
    from correlator.tables.routing import RoutingTable

NAMES_MAX = 100_000
REFUSED_TABLES = (
    "interfaces",
    "names",
    "devices",
    "lldp_ports",
    "bgp_sessions",
    "link_state",
    "routes",
)
SPANS_MAX = 64  # of a customer's addresses at its port: who has more passes on those of others
_HOST = re.compile(r"(?=[^.]*[A-Za-z])[\w-]+(\.[\w-]+)*")  # a host's name, not an address or a port
HEARD_EVERY_NS = 60_000_000_000  # so often do links that were heard change the topology


Span = tuple[int, int]  # first and last address, as 128 bits, IPv4 mapped


class RouterEntry(Settings, frozen=True, kw_only=True):
    """`[[router]]`"""

    name: str
    address: str  # the exporter's address
    site: str = ""
    owner: str = ""  # the team; "" = that of its site
    customers: list[str] = []  # who hangs on it
    services: list[str] = []  # what runs over it: "mpls-vpn-17", "voice"


class SiteEntry(Settings, frozen=True, kw_only=True):
    """`[[site]]`"""

    name: str
    owner: str = ""


class InterfaceEntry(Settings, frozen=True, kw_only=True):
    """`[[interface]]`"""

    router: str
    index: int
    name: str = ""
    link: str = ""
    customer: str = ""
    speed: int = 0  # bit/s


class LinkEntry(Settings, frozen=True, kw_only=True):
    """`[[link]]`: a and b are routers, a_index and b_index the interfaces at its ends."""

    name: str
    a: str
    a_index: int
    b: str
    b_index: int
    weight: float = 1.0
    owner: str = ""  # the team; "" = that of the router at its end
    customers: list[str] = []  # who is served over it
    services: list[str] = []


class PrefixEntry(Settings, frozen=True, kw_only=True):
    """`[[prefix]]`"""

    prefix: str
    router: str
    customer: str = ""
    weight: float = 1.0
    kind: str = ""
    services: list[str] = []

    @property
    def owner(self) -> str:
        """Whose it is: the customer, else the router."""
        return self.customer or self.router


class NetworkFile(Settings, frozen=True, kw_only=True):
    """A whole network file."""

    site: list[SiteEntry] = []
    router: list[RouterEntry] = []
    interface: list[InterfaceEntry] = []
    link: list[LinkEntry] = []
    prefix: list[PrefixEntry] = []


class FileNetworkMap:
    """A runtime.ports.NetworkMap from a file; empty without one. Options data add interface names."""

    def __init__(self, network: NetworkFile | None = None, *, heard_hours: float = 24.0) -> None:
        network = network or NetworkFile()
        self._address = {router.address: router.name for router in network.router}
        self._exporter = {router.name: router.address for router in network.router}
        self._meant: dict[str, str] = {}  # answers of `router_of`
        self._hosts: dict[str, list[str]] = {}  # routers by the first label of their names
        for name in self._exporter:
            self._hosts.setdefault(name.partition(".")[0].casefold(), []).append(name)
        self._site = {router.name: router.site for router in network.router}
        sites = {site.name: site.owner for site in network.site}
        self._teams = {
            router.name: router.owner or sites.get(router.site, "") for router in network.router
        }
        self._teams |= {link.name: link.owner for link in network.link}
        self._served = _served(network)
        self._interfaces: dict[tuple[str, int], Interface] = {}
        self._faces: dict[str, dict[int, Interface]] = {}  # the same by router
        self._names: dict[tuple[str, str, int], str] = {}  # (router, table, number)
        for entry in network.interface:
            self._keep(
                Interface(
                    entry.router, entry.index, entry.name, entry.link, entry.speed, entry.customer
                )
            )
        self._links = {
            link.name: Link(link.name, ((link.a, link.a_index), (link.b, link.b_index)))
            for link in network.link
        }
        self._links_of: dict[str, list[Link]] = {}
        for link in self._links.values():
            for router, _ in link.ends:
                self._links_of.setdefault(router, []).append(link)
        self._heard = HeardLinks(round(heard_hours * 3600e9))
        self._refused: Counter[str] = Counter()
        self._heard_edges: dict[str, Edge] = {}
        self._heard_of: dict[str, list[Link]] = {}
        self._heard_version, self._heard_ns = 0, 0  # of what is in these two
        self._routing: RoutingTable | None = None  # from the first route on
        self._prefixes = [(ipaddress.ip_network(one.prefix), one) for one in network.prefix]
        self._by_length: dict[tuple[int, int], dict[int, PrefixEntry]] = {}  # the longest first
        for prefix, one in sorted(self._prefixes, key=lambda pair: -pair[0].prefixlen):
            of_length = self._by_length.setdefault((prefix.max_prefixlen, prefix.prefixlen), {})
            of_length.setdefault(int(prefix.network_address), one)

    def router_of(self, exporter: str) -> str:
        """Return the router's name for what a source calls it, or that itself where none is meant.

        One rule for all sources: the name as it is, an address of the map, the system name that
        polling heard at such an address, else the first label of a host name where it fits one
        router: `ams1.example.net` is `ams1`, not `ams1.lab.example.org`.
        """
        meant = self._meant.get(exporter)
        if meant is None:
            if len(self._meant) >= NAMES_MAX:
                self._meant.clear()
            meant = self._meant[exporter] = self._router_of(exporter)
        return meant

    def _router_of(self, exporter: str) -> str:
        name = self._address.get(exporter, exporter)
        if name in self._exporter or not _HOST.fullmatch(name):
            return name
        heard = self._address.get(self._heard.address(name), "")
        return heard or self._by_label(name) or name

    def _by_label(self, host: str) -> str:
        whole = host.casefold() + "."
        near = [
            router
            for router in self._hosts.get(whole.partition(".")[0], ())
            for known in (router.casefold() + ".",)
            if whole.startswith(known) or known.startswith(whole)
        ]
        return near[0] if len(near) == 1 else ""

    def address_of(self, router: str) -> str:
        """Return a router's exporter address, or "" where it is not known."""
        return self._exporter.get(router, "")

    def interface(self, exporter: str, index: int) -> Interface | None:
        """Return what is known of an interface."""
        return self._interfaces.get((self.router_of(exporter), index))

    def link(self, name: str) -> Link | None:
        """Return a link by name."""
        heard = self._heard_edges.get(name)
        return self._links.get(name) or (heard.link if heard else None)

    def links_of(self, router: str) -> tuple[Link, ...]:
        """Return the links that end at a router."""
        return (*self._links_of.get(router, ()), *self._heard_of.get(router, ()))

    def routers(self) -> tuple[str, ...]:
        """Return all routers known."""
        heard = (router for router in self._heard_of if router not in self._exporter)
        return (*self._exporter, *heard)

    def edges(self) -> list[Edge]:
        """Return every link, who states it, and when it was last told."""
        return [*(Edge(link, "file") for link in self._links.values()), *self._heard_edges.values()]

    def topology(self, now_ns: int) -> int:
        """Return a number that changes when links do; what was heard counts once a minute."""
        if self._heard_ns and now_ns - self._heard_ns < HEARD_EVERY_NS:
            return self._heard_version
        self._heard.expire(now_ns)
        if self._heard.version != self._heard_version:
            self._heard_version, self._heard_ns = self._heard.version, now_ns
            self._hear()
        return self._heard_version

    def _hear(self) -> None:
        joined = (frozenset(router for router, _ in one.ends) for one in self._links.values())
        edges = self._heard.edges(joined, self.router_of, self._exporter.__contains__)
        self._heard_edges, self._heard_of = {}, {}
        numbers = {(face.router, face.name): index for (_, index), face in self._interfaces.items()}
        for edge in edges:
            if edge.link.name in self._links:
                continue
            ends = (self._end(edge, 0, numbers), self._end(edge, 1, numbers))
            link = Link(edge.link.name, ends, edge.link.bits_per_second)
            self._heard_edges[link.name] = replace(edge, link=link)
            for router, _ in ends:
                self._heard_of.setdefault(router, []).append(link)

    def _end(self, edge: Edge, side: int, numbers: dict[tuple[str, str], int]) -> tuple[str, int]:
        """Return (router, ifIndex) of one end: a port has an interface's name, its number may differ."""
        router, port = edge.link.ends[side]
        return router, numbers.get((router, edge.ports[side]), port)

    def served(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return (customers, services) of a router, a link or a prefix, as the file says.

        Of a prefix or an address within one of the file, those of the smallest that holds it.
        """
        known = self._served.get(name)
        if known is None and (entry := self._smallest(name)) is not None:
            known = self._served[entry.prefix]
        return known or ((), ())

    def own_prefixes(self) -> dict[str, str]:
        """Return the prefixes of the file and whose they are."""
        return {str(network): entry.owner for network, entry in self._prefixes}

    def owner_of_prefix(self, prefix: str) -> str:
        """Return the owner of the smallest known prefix that holds this one, or ""."""
        entry = self._smallest(prefix)
        return entry.owner if entry is not None else ""

    def router_of_prefix(self, prefix: str) -> str:
        """Return the router behind which a prefix lies, or ""."""
        entry = self._smallest(prefix)
        return entry.router if entry is not None else ""

    def _smallest(self, prefix: str) -> PrefixEntry | None:
        """Return the smallest prefix of the file that holds a prefix or an address."""
        wanted = prefix_number(prefix) if self._by_length else None
        if wanted is None:
            return None
        bits, number, most = wanted
        for (family, length), entries in self._by_length.items():
            if family == bits and length <= most:
                entry = entries.get(number >> bits - length << bits - length)
                if entry is not None:
                    return entry
        return None

    def site_of(self, router: str) -> str:
        """Return the site where a router stands, or ""."""
        return self._site.get(router, "")

    def interfaces_of(self, router: str) -> tuple[Interface, ...]:
        """Return what is known of a router's interfaces."""
        return tuple(self._faces.get(router, {}).values())

    def team_of(self, name: str) -> str:
        """Return the team that owns a link, a router or the router's site, or ""."""
        return self._teams.get(name, "")

    def origin(self, address: str) -> str:
        """Return how an address or prefix is routed by what BMP told, `AS64500 (198.51.100.0/24)`, or ""."""
        found = self._routing.origin(address) if self._routing is not None else None
        if found is None or not found.origin_as:
            return ""
        return f"AS{found.origin_as} ({found.prefix})"

    def routing(self) -> "RoutingTable":
        """Return the table of prefixes and their origins."""
        if self._routing is None:
            from correlator.tables.routing import RoutingTable  # kernels: not for the gate

            self._routing = RoutingTable()
        return self._routing

    def snapshot(self, out: Any) -> None:
        """Write routes and what routers said of their neighbours."""
        if self._routing is not None:
            self._routing.snapshot(out)
        kept = [self._heard.snapshot(), self._heard_version, self._heard_ns]
        write_array(out, "heard", np.frombuffer(msgspec.msgpack.encode(kept), np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back."""
        if any(state.read("routing.kinds")):
            self.routing().restore(state)
        kept = read_array(state, "heard")
        if kept is not None:
            heard, _, self._heard_ns = msgspec.msgpack.decode(kept.tobytes())
            self._heard.restore(heard)
            self._meant.clear()
            self._heard_version = self._heard.version
            self._hear()

    def backbone(self) -> list[tuple[int, int]]:
        """Return (exporter low half, ifIndex) of every interface that ends a link."""
        return [
            (_low_half(self._exporter[router]), index)
            for (router, index), face in self._interfaces.items()
            if face.link and router in self._exporter
        ]

    def customer_sources(self) -> list[tuple[int, int, list[Span]]]:
        """Return (exporter low half, ifIndex, spans of addresses) of every customer's interface.

        The spans are the customer's prefixes; one without any, or with more than SPANS_MAX, is left out:
        nobody knows what may come from there.
        """
        of_owner: dict[str, list[Any]] = {}
        for network, entry in self._prefixes:
            of_owner.setdefault(entry.owner, []).append(network)
        spans = {owner: _spans(networks) for owner, networks in of_owner.items()}
        return [
            (_low_half(self._exporter[router]), index, spans[face.customer])
            for (router, index), face in self._interfaces.items()
            if router in self._exporter and 0 < len(spans.get(face.customer, ())) <= SPANS_MAX
        ]

    def reference(self, exporter: str, table: str, key: int) -> str:
        """Return what the exporter calls a number of its flows, "" where it never said."""
        if table == "interface":
            known = self.interface(exporter, key)
            return known.name if known else ""
        return self._names.get((self.router_of(exporter), table, key), "")

    def learn(self, option: Batch) -> None:
        """Take names of interfaces, VRFs and applications, neighbours as routers state them, and routes.

        What the file says stays. Of what has a name already, the newest name counts.
        """
        if option.schema.name == "route":
            self.routing().learn(option)
            return
        tables, names = option.texts("table"), option.texts("name")
        for i, (table, name) in enumerate(zip(tables, names, strict=True)):
            if not name or table not in (
                "interface",
                "vrf",
                "application",
                "lldp",
                "device",
                "bgp-session",
                "link-state",
            ):
                continue
            exporter = address_text(
                int(option["exporter_address_high"][i]), int(option["exporter_address_low"][i])
            )
            router, number = self.router_of(exporter), int(option["key"][i])
            if table == "lldp":
                self._heard.port(exporter, number, name, int(option["arrival_ns"][i]))
                continue
            if table == "bgp-session":
                self._heard.session(exporter, number, name, int(option["arrival_ns"][i]))
                continue
            if table == "link-state":
                session = int(option["value"][i])
                self._heard.state(exporter, number, session, name, int(option["arrival_ns"][i]))
                continue
            if table == "device":
                self._heard.name(exporter, name)
                self._meant.clear()
                continue
            if table == "interface":
                self._learn_interface((router, number), name)
            elif (router, table, number) in self._names or len(self._names) < NAMES_MAX:
                self._names[router, table, number] = name
            else:
                self._refused["names"] += 1

    def refused(self) -> list[int]:
        """Return how much of what routers state found its table full, in the order of REFUSED_TABLES."""
        counted = {**self._refused, **self._heard.refused()}
        if self._routing is not None:
            counted["routes"] = self._routing.refused
        return [counted.get(table, 0) for table in REFUSED_TABLES]

    def _learn_interface(self, key: tuple[str, int], name: str) -> None:
        known = self._interfaces.get(key)
        if known is not None and known.name:
            return
        if known is None and len(self._interfaces) >= NAMES_MAX:
            self._refused["interfaces"] += 1
            return
        link, speed, customer = (
            (known.link, known.speed_bits_per_second, known.customer) if known else ("", 0, "")
        )
        self._keep(Interface(key[0], key[1], name, link, speed, customer))

    def _keep(self, face: Interface) -> None:
        self._interfaces[face.router, face.index] = face
        self._faces.setdefault(face.router, {})[face.index] = face


def _low_half(address: str) -> int:
    return address_pair(address)[1]


def _spans(networks: list[Any]) -> list[Span]:
    """Return the addresses of networks as spans in order, IPv4 first."""
    made = []
    for version, mapped in ((4, 0xFFFF << 32), (6, 0)):
        mine = ipaddress.collapse_addresses(one for one in networks if one.version == version)
        made += [(mapped + int(one[0]), mapped + int(one[-1])) for one in mine]
    return made


def _served(network: NetworkFile) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return (customers, services) by router, link and prefix."""
    made: dict[str, tuple[set[str], set[str]]] = {}

    def add(name: str, customers: Iterable[str], services: Iterable[str]) -> None:
        known = made.setdefault(name, (set(), set()))
        known[0].update(one for one in customers if one)
        known[1].update(services)

    for router in network.router:
        add(router.name, router.customers, router.services)
    for link in network.link:
        add(link.name, link.customers, link.services)
    for prefix in network.prefix:
        add(prefix.router, [prefix.customer], prefix.services)
        add(prefix.prefix, [prefix.customer], prefix.services)
    for face in network.interface:
        add(face.router, [face.customer], ())
    return {name: (tuple(sorted(a)), tuple(sorted(b))) for name, (a, b) in made.items()}


def load_network(path: Path | None, *, heard_hours: float = 24.0) -> FileNetworkMap:
    """Return the map of a network file; raise ConfigError with file, key and fix."""
    network = load(path, NetworkFile, environment={}) if path is not None else None
    return FileNetworkMap(network, heard_hours=heard_hours)
