"""The demo carrier's network: routers, links, customers and prefixes, and the paths between routers."""

import heapq
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from correlator.tables.network_map import (
    InterfaceEntry,
    LinkEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
)
from runtime.settings import load
from telemetry.errors import ConfigError
from telemetry.identity import address_pair

# name, latitude, longitude, weight (share of the traffic that begins or ends there)
CITIES = (
    ("ams1", 52.37, 4.90, 9.0), ("fra1", 50.11, 8.68, 9.0), ("fra2", 50.05, 8.60, 6.0),
    ("lon1", 51.51, -0.13, 9.0), ("lon2", 51.50, -0.02, 5.0), ("par1", 48.86, 2.35, 8.0),
    ("mad1", 40.42, -3.70, 5.0), ("bcn1", 41.39, 2.17, 3.0), ("lis1", 38.72, -9.14, 2.0),
    ("mil1", 45.46, 9.19, 5.0), ("rom1", 41.90, 12.50, 3.0), ("vie1", 48.21, 16.37, 4.0),
    ("zur1", 47.38, 8.54, 4.0), ("ber1", 52.52, 13.40, 5.0), ("ham1", 53.55, 9.99, 3.0),
    ("cph1", 55.68, 12.57, 3.0), ("sto1", 59.33, 18.07, 4.0), ("osl1", 59.91, 10.75, 2.0),
    ("hel1", 60.17, 24.94, 2.0), ("war1", 52.23, 21.01, 4.0), ("prg1", 50.08, 14.44, 3.0),
    ("bud1", 47.50, 19.04, 2.0), ("bru1", 50.85, 4.35, 2.0), ("dub1", 53.35, -6.26, 2.0),
    ("man1", 53.48, -2.24, 2.0), ("muc1", 48.14, 11.58, 3.0), ("dus1", 51.23, 6.77, 3.0),
    ("lux1", 49.61, 6.13, 1.0), ("mrs1", 43.30, 5.37, 2.0), ("buc1", 44.43, 26.10, 2.0),
)  # fmt: skip
CUSTOMERS_PER_ROUTER = 3
PREFIXES_PER_CUSTOMER = 2
KINDS_SHARE = (0.5, 0.35, 0.15)  # of a city's traffic: access, hosting, enterprise
# Customers bought the next of these rates above three times what they use on the average.
RATES = (100_000_000, 200_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000)
TRAFFIC = 24_600_000_000  # bit/s of the whole carrier, by 2,000 sampled records a second
HOPS_MAX = 12
SPEAKS = ("ipfix", "ipfix", "v9", "v9", "sflow")  # what a router exports, by its number modulo 5
NETWORK_FILE = Path(__file__).parents[2] / "deploy" / "demo" / "network.toml"


def build() -> NetworkFile:
    """Return the demo network: every city linked to its three nearest, and a few long links."""
    names = [city[0] for city in CITIES]
    place = np.array([(city[1], city[2] * 0.64) for city in CITIES])  # a degree east is shorter
    distance = np.hypot(*(place[:, None, :] - place[None, :, :]).transpose(2, 0, 1))
    pairs = set()
    for i in range(len(names)):
        for j in np.argsort(distance[i])[1:4]:
            pairs.add((min(i, int(j)), max(i, int(j))))
    long = (("lon1", "ams1"), ("ams1", "fra2"), ("lon2", "par1"), ("par1", "mad1"), ("mad1", "mil1"),
            ("dub1", "lon1"), ("mil1", "rom1"), ("rom1", "vie1"), ("sto1", "ber1"), ("hel1", "war1"),
            ("war1", "fra1"), ("buc1", "vie1"), ("lis1", "par1"), ("ham1", "fra2"), ("buc1", "war1"))  # fmt: skip
    for a, b in long:
        i, j = sorted((names.index(a), names.index(b)))
        pairs.add((i, j))
    free = dict.fromkeys(names, 1)
    links, interfaces, prefixes = [], [], []
    routers = [
        RouterEntry(name=name, address=f"127.1.0.{i + 1}", site=name[:3].upper())
        for i, name in enumerate(names)
    ]
    for i, j in sorted(pairs):
        a, b = names[i], names[j]
        link = LinkEntry(
            name=f"{a}-{b}", a=a, a_index=free[a], b=b, b_index=free[b],
            weight=round(1.0 + float(distance[i, j]), 2),
        )  # fmt: skip
        links.append(link)
        for router, index in ((a, free[a]), (b, free[b])):
            interfaces.append(
                InterfaceEntry(
                    router=router, index=index, name=f"et-0/0/{index}", link=link.name,
                    speed=100_000_000_000,
                )
            )  # fmt: skip
            free[router] += 1
    kinds = ("access", "hosting", "enterprise")
    for i, (name, _, _, weight) in enumerate(CITIES):
        for c in range(CUSTOMERS_PER_ROUTER):
            index = 100 + c
            customer = f"{name}-{kinds[c]}"
            interfaces.append(
                InterfaceEntry(
                    router=name, index=index, name=f"xe-1/0/{c}", customer=customer,
                    speed=_speed(weight * KINDS_SHARE[c]),
                )
            )  # fmt: skip
            for p in range(PREFIXES_PER_CUSTOMER):
                prefixes.append(
                    PrefixEntry(
                        prefix=f"100.{64 + i}.{c * 16 + p}.0/24", router=name, customer=customer,
                        weight=round(weight * KINDS_SHARE[c] * (0.65, 0.35)[p], 4),
                        kind=kinds[c],
                    )
                )  # fmt: skip
    return NetworkFile(router=routers, interface=interfaces, link=links, prefix=prefixes)


def _speed(weight: float) -> int:
    share = weight / sum(city[3] for city in CITIES)
    return next(rate for rate in RATES if rate >= 3 * share * TRAFFIC)


def write(network: NetworkFile, path: Path) -> None:
    """Write a network file as TOML."""
    lines = ["# The demo carrier. Made by `python -m tocsin.demo.network`; edit freely."]
    for table in ("router", "interface", "link", "prefix"):
        for entry in getattr(network, table):
            lines.append(f"\n[[{table}]]")
            for name in entry.__struct_fields__:
                value = getattr(entry, name)
                if value:
                    lines.append(f"{name} = {json.dumps(value)}")  # texts, numbers, lists: as TOML
    path.write_text("\n".join(lines) + "\n", "utf-8")


def speaks(router: int) -> str:
    """Return what a router exports: it decides what its records know of a flow."""
    return SPEAKS[router % len(SPEAKS)]


@dataclass(frozen=True, slots=True)
class Paths:
    """For each ordered pair of routers (a * R + b) the hops of its shortest path.

    `hops` int64[pairs], 0 for a pair that is cut off; `router`, `ingress`, `egress`
    int32[pairs, HOPS_MAX], router -1 behind the last hop; the customer side of the first and the
    last hop is 0 and filled by the traffic model.
    """

    hops: NDArray[np.int64]
    router: NDArray[np.int32]
    ingress: NDArray[np.int32]
    egress: NDArray[np.int32]


class DemoNetwork:
    """The network file as arrays, and shortest paths with any set of links down."""

    def __init__(self, file: NetworkFile) -> None:
        self.file = file
        self.names = [router.name for router in file.router]
        self.row = {name: i for i, name in enumerate(self.names)}
        pairs = [address_pair(router.address) for router in file.router]
        self.address_low = np.array([low for _, low in pairs], np.uint64)
        self.addresses = [router.address for router in file.router]
        self.prefix_text = [prefix.prefix for prefix in file.prefix]
        self.prefix_router = np.array([self.row[p.router] for p in file.prefix], np.int32)
        self.prefix_weight = np.array([p.weight for p in file.prefix])
        self.prefix_low = np.array(
            [address_pair(p.prefix.split("/")[0])[1] for p in file.prefix], np.uint64
        )
        by_customer = {
            (face.router, face.customer): face.index for face in file.interface if face.customer
        }
        self.prefix_interface = np.array(
            [by_customer.get((p.router, p.customer), 0) for p in file.prefix], np.int32
        )
        self._cache: dict[frozenset[str], Paths] = {}

    def paths(self, down: Iterable[str] = ()) -> Paths:
        """Return all shortest paths with these links down."""
        key = frozenset(down)
        if key not in self._cache:
            if len(self._cache) > 64:
                self._cache.clear()
            self._cache[key] = self._shortest(key)
        return self._cache[key]

    def _shortest(self, down: frozenset[str]) -> Paths:
        count = len(self.names)
        near: list[list[tuple[int, float, int, int]]] = [[] for _ in range(count)]
        for link in self.file.link:
            if link.name in down:
                continue
            a, b = self.row[link.a], self.row[link.b]
            near[a].append((b, link.weight, link.a_index, link.b_index))
            near[b].append((a, link.weight, link.b_index, link.a_index))
        router = np.full((count * count, HOPS_MAX), -1, np.int32)
        ingress, egress = np.zeros_like(router), np.zeros_like(router)
        for start in range(count):
            came = self._tree(start, near)
            for end in range(count):
                hops: list[tuple[int, int, int]] = []
                at, out = end, 0
                while at != start and at in came:
                    before, out_before, into = came[at]
                    hops.append((at, into, out))
                    at, out = before, out_before
                if at != start:
                    continue  # cut off
                hops.append((start, 0, out))
                hops = hops[::-1][:HOPS_MAX]
                pair = start * count + end
                for h, (node, into, outward) in enumerate(hops):
                    router[pair, h], ingress[pair, h], egress[pair, h] = node, into, outward
        return Paths((router >= 0).sum(axis=1), router, ingress, egress)

    @staticmethod
    def _tree(
        start: int, near: list[list[tuple[int, float, int, int]]]
    ) -> dict[int, tuple[int, int, int]]:
        """Dijkstra: node → (node before, its egress interface, our ingress interface)."""
        best = {start: 0.0}
        came: dict[int, tuple[int, int, int]] = {}
        queue = [(0.0, start)]
        while queue:
            length, node = heapq.heappop(queue)
            if length > best[node]:
                continue
            for other, weight, out, into in near[node]:
                total = length + weight
                if total < best.get(other, 1e18) - 1e-9:
                    best[other] = total
                    came[other] = (node, out, into)
                    heapq.heappush(queue, (total, other))
        return came

    def ends(self, link: str) -> tuple[str, str]:
        """Return the interfaces at both ends of a link, as `ams1:et-0/0/1`."""
        a, b = (f"{face.router}:{face.name}" for face in self.file.interface if face.link == link)
        return a, b

    def customer_face(self, prefix: str) -> InterfaceEntry:
        """Return the interface that a prefix is reached by."""
        entry = self.file.prefix[self.prefix_text.index(prefix)]
        return next(
            face
            for face in self.file.interface
            if (face.router, face.customer) == (entry.router, entry.customer)
        )

    def customer_interface(self, prefix: str) -> str:
        """Return its name, as `ams1:xe-1/0/0`."""
        face = self.customer_face(prefix)
        return f"{face.router}:{face.name}"

    def links_used(self) -> list[str]:
        """Return links by how many pairs of routers use them, most first: good ones to cut."""
        paths = self.paths()
        end_of = {(self.row[link.a], link.a_index): link.name for link in self.file.link} | {
            (self.row[link.b], link.b_index): link.name for link in self.file.link
        }
        count = len(self.names)
        weight = np.bincount(self.prefix_router, self.prefix_weight, minlength=count)
        used: dict[str, float] = {}
        for pair in range(count * count):
            share = float(weight[pair // count] * weight[pair % count])
            for h in range(HOPS_MAX):
                node = int(paths.router[pair, h])
                if node < 0:
                    break
                name = end_of.get((node, int(paths.egress[pair, h])))
                if name:
                    used[name] = used.get(name, 0.0) + share
        return sorted(used, key=lambda name: -used[name])


def load_demo_network(path: Path = NETWORK_FILE) -> DemoNetwork:
    """Return the network of a file; the demo's own one unless told otherwise."""
    network = load(path, NetworkFile, environment={})
    if len(network.router) < 2:
        raise ConfigError(f"{path}: a demo network needs two routers at least")
    return DemoNetwork(network)


if __name__ == "__main__":
    write(build(), NETWORK_FILE)
