"""What a stage may ask of a part it does not import. The node hands in whoever fulfils it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from telemetry.batch import Batch


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What a series id stands for. Made once per new series, never per record."""

    series_id: int
    entity_id: int
    view: str
    entity: str  # as people call it: `ams1`, `ams1:et-0/0/3`, `198.51.100.0/24`, `udp/123`
    key: Mapping[str, str]  # {"exporter": "127.1.0.1", "interface": "3", "direction": "in"}
    unit: str = ""  # UCUM code of a sampled series' values, where its source named one


class SeriesDirectory(Protocol):
    """Resolves series ids. Implemented by `correlator` (the node's SeriesIndex)."""

    def key(self, series_id: int) -> SeriesKey | None:
        """Return the key, or None where this process never saw the id."""
        ...


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a router as inventory or options data name it."""

    router: str
    index: int  # SNMP ifIndex
    name: str
    link: str  # name of the link it ends, "" where it ends none (customer, peering)
    speed_bits_per_second: int
    customer: str  # who is behind it, "" for backbone links


@dataclass(frozen=True, slots=True)
class Link:
    """A backbone link between two interfaces."""

    name: str  # `ams1-fra2`
    ends: tuple[tuple[str, int], tuple[str, int]]  # (router, ifIndex) twice
    bits_per_second: int = 0  # as a router states it; 0 = not known


class NetworkMap(Protocol):
    """Names and neighbourhood. Implemented by `correlator.tables`; empty where none is given."""

    def router_of(self, exporter: str) -> str:
        """Return the router's name for what a source calls it (address, host name), or that itself."""
        ...

    def interface(self, exporter: str, index: int) -> Interface | None:
        """Return what is known of an interface."""
        ...

    def reference(self, exporter: str, table: str, key: int) -> str:
        """Return what the exporter calls a number of its flows, "" where it never said.

        `table` as in the option schema: interface, vrf, application.
        """
        ...

    def link(self, name: str) -> Link | None:
        """Return a link by name."""
        ...

    def links_of(self, router: str) -> tuple[Link, ...]:
        """Return the links that end at a router."""
        ...

    def routers(self) -> tuple[str, ...]:
        """Return all routers known."""
        ...

    def owner_of_prefix(self, prefix: str) -> str:
        """Return the customer or router that a prefix belongs to, or ""."""
        ...

    def router_of_prefix(self, prefix: str) -> str:
        """Return the router behind which a prefix lies, or ""."""
        ...

    def origin(self, address: str) -> str:
        """Return how an address or prefix is routed, `AS64500 (198.51.100.0/24)`, "" where BMP told nothing."""
        ...

    def site_of(self, router: str) -> str:
        """Return the site where a router stands, or ""."""
        ...

    def team_of(self, name: str) -> str:
        """Return the team that owns a link, a router or the router's site, or ""."""
        ...

    def interfaces_of(self, router: str) -> tuple[Interface, ...]:
        """Return what is known of a router's interfaces."""
        ...

    def topology(self, now_ns: int) -> int:
        """Return a number that changes when links do: those that routers state come and go."""
        ...

    def served(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return (customers, services) behind a router, a link or a prefix."""
        ...


@dataclass(frozen=True, slots=True)
class Talker:
    """One flow record of the tick's priority sample: evidence for people."""

    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    exporter: str
    ingress_interface: int
    egress_interface: int
    tcp_flags: int
    octets: int  # estimated: multiplied by the sampling rate and the sample's own weight
    packets: int


class Evidence(Protocol):
    """Top records behind a series in one closed tick. Implemented by `correlator.windows`."""

    def talkers(self, series_id: int, tick_start_ns: int, limit: int = 10) -> tuple[Talker, ...]:
        """Return the largest sampled records of that series and tick, largest first."""
        ...


class HistoryReader(Protocol):
    """Read access to what happened before. Implemented by `history`, faked in tests."""

    def frames(self, view: str, *, start_ns: int, end_ns: int) -> Iterator[Batch]:
        """Yield closed ticks of a view with start_ns <= tick_start_ns < end_ns in time order."""
        ...


class HistoryWriter(Protocol):
    """Takes closed ticks and alarm changes, each exactly once by (kind, view, tick, revision)."""

    def write(self, batches: Iterable[Batch], *, token: str) -> None:
        """Store all or raise TransientError; the same token twice stores once."""
        ...
