"""Names and neighbourhood: routers, interfaces, links and prefixes from a TOML file and options data."""

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.ports import Interface, Link
from runtime.settings import Settings, load
from telemetry.batch import Batch
from telemetry.identity import address_text

if TYPE_CHECKING:
    from correlator.tables.routing import RoutingTable

NAMES_MAX = 100_000


class RouterEntry(Settings, frozen=True, kw_only=True):
    """`[[router]]`"""

    name: str
    address: str  # the exporter's address
    site: str = ""
    owner: str = ""  # the team; "" = that of its site


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


class PrefixEntry(Settings, frozen=True, kw_only=True):
    """`[[prefix]]`"""

    prefix: str
    router: str
    customer: str = ""
    weight: float = 1.0
    kind: str = ""


class NetworkFile(Settings, frozen=True, kw_only=True):
    """A whole network file."""

    site: list[SiteEntry] = []
    router: list[RouterEntry] = []
    interface: list[InterfaceEntry] = []
    link: list[LinkEntry] = []
    prefix: list[PrefixEntry] = []


class FileNetworkMap:
    """A runtime.ports.NetworkMap from a file; empty without one. Options data add interface names."""

    def __init__(self, network: NetworkFile | None = None) -> None:
        network = network or NetworkFile()
        self._address = {router.address: router.name for router in network.router}
        self._exporter = {router.name: router.address for router in network.router}
        self._site = {router.name: router.site for router in network.router}
        sites = {site.name: site.owner for site in network.site}
        self._teams = {
            router.name: router.owner or sites.get(router.site, "") for router in network.router
        }
        self._teams |= {link.name: link.owner for link in network.link}
        self._interfaces: dict[tuple[str, int], Interface] = {}
        self._names: dict[tuple[str, str, int], str] = {}  # (router, table, number)
        for entry in network.interface:
            self._interfaces[entry.router, entry.index] = Interface(
                entry.router, entry.index, entry.name, entry.link, entry.speed, entry.customer
            )
        self._links = {
            link.name: Link(link.name, ((link.a, link.a_index), (link.b, link.b_index)))
            for link in network.link
        }
        self._links_of: dict[str, list[Link]] = {}
        for link in self._links.values():
            for router, _ in link.ends:
                self._links_of.setdefault(router, []).append(link)
        self._routing: RoutingTable | None = None  # from the first route on
        self._prefixes = [
            (ipaddress.ip_network(entry.prefix), entry.customer or entry.router)
            for entry in network.prefix
        ]

    def router_of(self, exporter: str) -> str:
        """Return the router's name for an exporter address, or the address itself."""
        return self._address.get(exporter, exporter)

    def address_of(self, router: str) -> str:
        """Return a router's exporter address, or "" where it is not known."""
        return self._exporter.get(router, "")

    def interface(self, exporter: str, index: int) -> Interface | None:
        """Return what is known of an interface."""
        return self._interfaces.get((self.router_of(exporter), index))

    def link(self, name: str) -> Link | None:
        """Return a link by name."""
        return self._links.get(name)

    def links_of(self, router: str) -> tuple[Link, ...]:
        """Return the links that end at a router."""
        return tuple(self._links_of.get(router, ()))

    def routers(self) -> tuple[str, ...]:
        """Return all routers known."""
        return tuple(self._exporter)

    def own_prefixes(self) -> dict[str, str]:
        """Return the prefixes of the file and whose they are."""
        return {str(network): owner for network, owner in self._prefixes}

    def owner_of_prefix(self, prefix: str) -> str:
        """Return the owner of the smallest known prefix that holds this one, or ""."""
        try:
            wanted = ipaddress.ip_network(prefix, strict=False)
        except ValueError:
            return ""
        best = ""
        length = -1
        for network, owner in self._prefixes:
            fits = network.version == wanted.version and wanted.subnet_of(network)  # type: ignore[arg-type]
            if fits and network.prefixlen > length:
                best, length = owner, network.prefixlen
        return best

    def site_of(self, router: str) -> str:
        """Return the site where a router stands, or ""."""
        return self._site.get(router, "")

    def interfaces_of(self, router: str) -> tuple[Interface, ...]:
        """Return what is known of a router's interfaces."""
        return tuple(face for face in self._interfaces.values() if face.router == router)

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
        """Write the routes."""
        if self._routing is not None:
            self._routing.snapshot(out)

    def restore(self, state: Any) -> None:
        """Take them back."""
        if any(state.read("routing.kinds")):
            self.routing().restore(state)

    def backbone(self) -> list[tuple[int, int]]:
        """Return (exporter low half, ifIndex) of every interface that ends a link."""
        made = []
        for (router, index), face in self._interfaces.items():
            address = self._exporter.get(router)
            if face.link and address:
                number = int(ipaddress.ip_address(address))
                low = (0xFFFF << 32 | number) if number < 1 << 32 else number & (1 << 64) - 1
                made.append((low, index))
        return made

    def reference(self, exporter: str, table: str, key: int) -> str:
        """Return what the exporter calls a number of its flows, "" where it never said."""
        if table == "interface":
            known = self.interface(exporter, key)
            return known.name if known else ""
        return self._names.get((self.router_of(exporter), table, key), "")

    def learn(self, option: Batch) -> None:
        """Take names of interfaces, VRFs and applications from options data, and routes.

        What the file says stays. Of what has a name already, the newest name counts.
        """
        if option.schema.name == "route":
            self.routing().learn(option)
            return
        tables, names = option.texts("table"), option.texts("name")
        for i, (table, name) in enumerate(zip(tables, names, strict=True)):
            if not name or table not in ("interface", "vrf", "application"):
                continue
            exporter = address_text(
                int(option["exporter_address_high"][i]), int(option["exporter_address_low"][i])
            )
            router, number = self.router_of(exporter), int(option["key"][i])
            if table == "interface":
                self._learn_interface((router, number), name)
            elif (router, table, number) in self._names or len(self._names) < NAMES_MAX:
                self._names[router, table, number] = name

    def _learn_interface(self, key: tuple[str, int], name: str) -> None:
        known = self._interfaces.get(key)
        if (known is not None and known.name) or len(self._interfaces) >= NAMES_MAX:
            return
        link, speed, customer = (
            (known.link, known.speed_bits_per_second, known.customer) if known else ("", 0, "")
        )
        self._interfaces[key] = Interface(key[0], key[1], name, link, speed, customer)


def load_network(path: Path | None) -> FileNetworkMap:
    """Return the map of a network file; raise ConfigError with file, key and fix."""
    if path is None:
        return FileNetworkMap()
    return FileNetworkMap(load(path, NetworkFile, environment={}))


def encode_network(network: NetworkFile) -> dict[str, object]:
    """Return a network file as plain tables."""
    made = msgspec.to_builtins(network)
    assert isinstance(made, dict)
    return made
