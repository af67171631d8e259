"""Links that an IGP knows, as BGP-LS states them: the third source of the graph beside the file, LLDP and BMP.

A link is what both its ends state, under whatever protocol and level: in parallel between two routers are as
many as the protocol that has most of them says. A shared medium joins its routers to the designated one, the
first that it names where that is not known. A statement stands as long as the session that it came over
is told; withdrawn, or over a session that ended, it grows old and is gone when nobody states it again.

Routers are called by the name that their node states, else by a router id. Source: RFC 9552.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

STATEMENTS_MAX = 200_000
Teller = tuple[str, int]  # the router that speaks BMP, and a session of it
Node = str  # instance, AS, BGP-LS identifier, router id of the IGP
Wire = tuple[str, str, str]  # sort, and addresses or identifiers: the near end's own first


@dataclass(frozen=True, slots=True)
class StatedLink:
    """A link between two routers, and what is stated of it."""

    a: str
    b: str
    bits_per_second: int
    told_ns: int


@dataclass(frozen=True, slots=True)
class _Statement:
    """What one session says of one object; `far` is empty where it is a node."""

    teller: Teller
    protocol: str
    near: Node
    far: Node
    wire: Wire
    names: tuple[str, ...]  # of the near end, the best first
    far_names: tuple[str, ...]
    bits_per_second: int
    heard_ns: int
    withdrawn: bool = False


class LinkState:
    """Nodes and links as sessions state them, bounded."""

    def __init__(self) -> None:
        self._statements: dict[tuple[str, int], _Statement] = {}  # by address and key
        self.refused = 0  # statements beyond STATEMENTS_MAX

    def take(
        self, address: str, key: int, session: int, said: Mapping[str, Any], at_ns: int
    ) -> bool:
        """Take a statement; return whether the graph may be another one."""
        known = self._statements.get((address, key))
        if said.get("withdrawn"):
            if known is None or known.withdrawn:
                return False
            self._statements[address, key] = replace(known, heard_ns=at_ns, withdrawn=True)
            return False  # its link stays until it is old
        new = _statement((address, session), said, at_ns)
        if new is None:
            return False
        if known is None and len(self._statements) >= STATEMENTS_MAX:
            self.refused += 1
            return False
        self._statements[address, key] = new
        return known is None or replace(known, heard_ns=at_ns, withdrawn=False) != new

    def expire(self, told_ns: Callable[[Teller, int], int], before_ns: int) -> tuple[int, int]:
        """Drop what was last told before a time; return how many, and when the oldest left was told.

        `told_ns` says until when a session bore out what it stated at some time.
        """
        oldest_ns, old = 1 << 62, []
        for place, one in self._statements.items():
            at_ns = one.heard_ns if one.withdrawn else told_ns(one.teller, one.heard_ns)
            if at_ns < before_ns:
                old.append(place)
            else:
                oldest_ns = min(oldest_ns, at_ns)
        for place in old:
            del self._statements[place]
        return len(old), oldest_ns

    def links(
        self, called: Callable[[Iterable[str]], str], told_ns: Callable[[Teller, int], int]
    ) -> list[StatedLink]:
        """Return the links that both ends state; `called` names a router by the best of its names."""
        names = self._names(called)
        of_view: dict[tuple[str, str], dict[tuple[Node, Node], dict[Wire, _Statement]]] = {}
        for one in self._statements.values():
            if one.far:
                view = of_view.setdefault((one.protocol, one.wire[0]), {})
                way = view.setdefault((one.near, one.far), {})
                before = way.get(one.wire)
                if before is None or before.heard_ns < one.heard_ns:  # of several sessions
                    way[one.wire] = one
        most: dict[tuple[str, str], list[StatedLink]] = {}
        for view in (of_view[key] for key in sorted(of_view)):
            made: dict[tuple[str, str], list[StatedLink]] = {}
            for ends, there in sorted(_of_mediums(view).items()):
                near, far = (names[node] for node in ends)
                # There: over a medium, whose ends were looked at.
                back = view.get(ends[::-1], there)
                for one, other in zip(_in_order(there), _in_order(back), strict=False):
                    speed = max(one.bits_per_second, other.bits_per_second)
                    at_ns = max(told_ns(each.teller, each.heard_ns) for each in (one, other))
                    a, b = sorted((near, far))
                    if a != b:
                        made.setdefault((a, b), []).append(StatedLink(a, b, speed, at_ns))
            for pair, links in made.items():
                if len(links) > len(most.get(pair, ())):
                    most[pair] = links
        return [link for pair in sorted(most) for link in most[pair]]

    def _names(self, called: Callable[[Iterable[str]], str]) -> dict[Node, str]:
        """Return what people call each node."""
        said: dict[Node, dict[str, None]] = {}
        for one in sorted(self._statements.values(), key=lambda one: bool(one.far)):
            for node, names in ((one.near, one.names), (one.far, one.far_names)):
                if node:
                    said.setdefault(node, {}).update(dict.fromkeys(name for name in names if name))
        return {node: called([*names, node.rpartition("|")[2]]) for node, names in said.items()}

    # ---- checkpoint

    def snapshot(self) -> list[Any]:
        """Return what `restore` takes."""
        return [[*place, one] for place, one in self._statements.items()]

    def restore(self, kept: Iterable[Any]) -> None:
        """Take it back."""
        self._statements = {
            (address, key): msgspec.convert(one, _Statement) for address, key, one in kept
        }


def _of_mediums(
    view: Mapping[tuple[Node, Node], dict[Wire, _Statement]],
) -> dict[tuple[Node, Node], dict[Wire, _Statement]]:
    """Return links between routers that both ends state, each once; those of a medium from its designated router."""
    made: dict[tuple[Node, Node], dict[Wire, _Statement]] = {}
    members: dict[Node, list[Node]] = {}
    for (near, far), there in view.items():
        if (far, near) not in view:
            continue
        if _designated(far):
            members.setdefault(far, []).append(near)
        elif not _designated(near) and near < far:
            made[near, far] = there
    for medium, routers in members.items():
        hub = _designated(medium) if _designated(medium) in routers else min(routers)
        for router in routers:
            if router != hub:
                ends = (hub, router)
                made[ends] = made.get(ends, {}) | view[router, medium]
    return made


def _designated(node: Node) -> Node:
    """Return the router that a shared medium is named after, "" where a node is none.

    >>> _designated("0|64500|0|1921.6800.1002.03"), _designated("0|64500|0|10.0.0.1")
    ('0|64500|0|1921.6800.1002', '')
    """
    head, _, router = node.rpartition("|")
    if ":" in router:
        return f"{head}|{router.partition(':')[0]}"
    parts = router.split(".")
    return f"{head}|{'.'.join(parts[:3])}" if len(parts) == 4 and len(parts[0]) == 4 else ""


def _in_order(way: Mapping[Wire, _Statement]) -> list[_Statement]:
    """Return statements of one direction so that those of the other come in the same order."""
    return [way[wire] for wire in sorted(way, key=lambda wire: (sorted(wire[1:]), wire))]


def _statement(teller: Teller, said: Mapping[str, Any], at_ns: int) -> _Statement | None:
    """Return a node or a link, None for what is neither."""
    kind = said.get("object")
    if kind not in ("node", "link"):
        return None
    instance = said.get("instance", 0)
    near, far = _node(instance, said.get("node" if kind == "node" else "local")), ""
    names = [said.get("router_id"), said.get("router_id6")]
    far_names = [said.get("remote_router_id"), said.get("remote_router_id6")]
    if kind == "node":
        names.insert(0, said.get("name"))
    else:
        far = _node(instance, said.get("remote"))
    if not near or (kind == "link" and not far):
        return None
    speed = said.get("bits_per_second", 0)
    return _Statement(
        teller, str(said.get("protocol", "")), near, far, _wire(said), _texts(names),
        _texts(far_names), speed if isinstance(speed, int) else 0, at_ns,
    )  # fmt: skip


def _texts(said: Iterable[Any]) -> tuple[str, ...]:
    return tuple(one for one in said if isinstance(one, str) and one)


def _node(instance: Any, said: Any) -> Node:
    if not isinstance(said, dict) or not said.get("igp_router_id"):
        return ""
    parts = (instance, said.get("as", 0), said.get("bgp_ls_id", 0), said["igp_router_id"])
    return "|".join(map(str, parts))


def _wire(said: Mapping[str, Any]) -> Wire:
    """Return which of the links between two routers one is: by addresses, else by identifiers."""
    for sort, near, far in (("4", "interface", "neighbor"), ("6", "interface6", "neighbor6")):
        if near in said:
            return sort, str(said[near]), str(said.get(far, ""))
    identifiers = said.get("identifiers")
    if isinstance(identifiers, list) and len(identifiers) == 2:
        return "id", str(identifiers[0]), str(identifiers[1])
    return "", "", ""
