"""Groups of interfaces that the network map knows: sites, link bundles, services, customers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from correlator.tables.network_map import InterfaceEntry, NetworkFile

KINDS = ("site", "bundle", "service", "customer")
DIRECTIONS = ("in", "out")


@dataclass(frozen=True, slots=True)
class Group:
    """Interfaces whose traffic is looked at as one, in each direction."""

    name: str
    members: frozenset[str]  # entities, as the series of view `interface` have them
    octets_per_second: float  # what all of them carry at most; 0 where a speed is not known


def groups(file: NetworkFile, kind: str) -> list[Group]:
    """Return the groups of a kind, by name. A bundle is seen from its first end, as the map has it."""
    faces = {(one.router, one.index): one for one in file.interface}
    found: dict[str, dict[str, InterfaceEntry]] = {}

    def add(name: str, members: Iterable[InterfaceEntry | None]) -> None:
        for one in members:
            if name and one is not None:
                found.setdefault(name, {})[f"{one.router}:{one.name or one.index}"] = one

    if kind == "site":
        for router in file.router:
            add(router.site, (one for one in file.interface if one.router == router.name))
    elif kind == "customer":
        for one in file.interface:
            add(one.customer, [one])
    elif kind == "bundle":
        for link in file.link:
            add(f"{link.a}-{link.b}", [faces.get((link.a, link.a_index))])
    else:
        for router in file.router:
            mine = [one for one in file.interface if one.router == router.name]
            for service in router.services:
                add(service, mine)
        for link in file.link:
            for service in link.services:
                add(service, [faces.get((link.a, link.a_index))])
        for prefix in file.prefix:
            own = (prefix.router, prefix.customer)
            mine = [one for one in file.interface if (one.router, one.customer) == own]
            for service in prefix.services:
                add(service, mine)
    return [_group(name, members) for name, members in sorted(found.items())]


def _group(name: str, members: dict[str, InterfaceEntry]) -> Group:
    speeds = [one.speed for one in members.values()]
    return Group(name, frozenset(members), sum(speeds) / 8.0 if all(speeds) else 0.0)


def direction_of(key: str) -> str:
    """Return in which direction an interface's series goes, by the key in its row, "" for neither.

    >>> direction_of("direction=in,exporter=192.0.2.1,interface=7"), direction_of("site=AMS")
    ('in', '')
    """
    return next((d for d in DIRECTIONS if f"direction={d}" in key.split(",")), "")


def sums(
    rows: Sequence[dict[str, Any]], chosen: Sequence[Group]
) -> dict[tuple[str, str, str], list[tuple[int, float]]]:
    """Return the sum over each group by (group, measure, direction): (time, value) in order of time.

    Of a flow series that says nothing nothing was heard: it counts as 0 while others speak.
    """
    of: dict[str, list[str]] = {}  # an interface may be of several services
    for group in chosen:
        for member in group.members:
            of.setdefault(member, []).append(group.name)
    total: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in rows:
        if row["entity"] not in of or row["avg"] is None:
            continue
        direction = direction_of(row["key"])
        for name in of[row["entity"]]:
            at = total.setdefault((name, row["measure"], direction), {})
            time_s = int(row["time_s"])
            at[time_s] = at.get(time_s, 0.0) + float(row["avg"])
    return {key: sorted(points.items()) for key, points in sorted(total.items())}
