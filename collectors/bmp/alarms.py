"""Alarms of BGP peers and of BMP sessions: what is down, said once, and cleared when it is back."""

from typing import Any

from collectors.bmp.bgp import distinguisher_text
from collectors.bmp.peers import LOC_RIB_PEER, PeerKey
from collectors.bmp.words import IPV6_PEER
from telemetry.batch import Batch, batch_from_rows
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import V4_MAPPED, address_text
from telemetry.schemas import ALARM

PEER_DOWN, SESSION_DOWN = "bgpBackwardTransition", "bmpSessionDown"
Router = tuple[int, int]  # its address, high and low half


class SessionAlarms:
    """Which peers and routers are down, by the name that their alarm has; the oldest are forgotten first."""

    def __init__(self, source: str, *, peers_max: int, routers_max: int) -> None:
        self._source = source
        self._peers_max, self._routers_max = peers_max, routers_max
        self._peers: dict[tuple[int, ...], str] = {}  # by router and peer
        self._routers: dict[Router, str] = {}

    def is_down(self, router: Router, peer: PeerKey) -> bool:
        """Return whether a peer's alarm is up."""
        return (*router, *_words(peer)) in self._peers

    def peer_up(self, router: Router, peer: PeerKey, now_ns: int, why: str = "") -> list[Batch]:
        """Clear a peer's alarm, if it is up: the peer is, or it is not reported any more (`why`)."""
        name = self._peers.pop((*router, *_words(peer)), "")
        title = f"BGP peer {name}: {why}" if why else f"BGP peer {name} is up again"
        return [self._alarm(PEER_DOWN, name, "cleared", title, now_ns)] if name else []

    def peer_down(
        self, router: Router, peer: PeerKey, name: str, why: str, *, wanted: bool, now_ns: int,
        detail: dict[str, Any],
    ) -> Batch:  # fmt: skip
        """Raise a peer's alarm: major, minor where someone wanted it."""
        self._peers[*router, *_words(peer)] = name
        if len(self._peers) > self._peers_max:
            del self._peers[next(iter(self._peers))]
        title = f"BGP peer {name} (AS{detail['peer_as']}) is down: {why}"
        detail = {"router_address": address_text(*router), "reason": why, **detail}
        severity = "minor" if wanted else "major"
        return self._alarm(PEER_DOWN, name, severity, title, now_ns, why, detail)

    def session_up(self, router: Router, now_ns: int) -> list[Batch]:
        """A router speaks BMP: if its last session was lost, that is over."""
        name = self._routers.pop(router, "")
        title = f"BMP session of {name} is back"
        return [self._alarm(SESSION_DOWN, name, "cleared", title, now_ns)] if name else []

    def session_down(
        self, router: Router, name: str, goodbye: str, peers: int, now_ns: int
    ) -> Batch:
        """Raise a router's alarm: minor, a warning where it said goodbye."""
        self._routers[router] = name
        if len(self._routers) > self._routers_max:
            del self._routers[next(iter(self._routers))]
        why = goodbye or "the connection was closed without a word"
        title = f"BMP session of {name} is down: {why}; the routes of {peers} peers are unknown"
        detail = {"router_address": address_text(*router), "peers": peers}
        severity = "warning" if goodbye else "minor"
        return self._alarm(SESSION_DOWN, name, severity, title, now_ns, why, detail)

    def _alarm(
        self,
        kind: str,
        entity: str,
        severity: str,
        title: str,
        now_ns: int,
        text: str = "",
        detail: dict[str, Any] | None = None,
    ) -> Batch:
        row = alarm_row(
            source=self._source,
            kind=kind,
            entity=entity,
            severity=severity,
            changed_ns=now_ns,
            title=title,
            probable_cause="communicationsProtocolError",
            text=text,
            detail=detail,
        )
        return batch_from_rows(ALARM, [row], source="bmp", arrival_ns=now_ns, frontier_ns=now_ns)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "peers": [[*key, name] for key, name in self._peers.items()],
            "routers": [[*key, name] for key, name in self._routers.items()],
        }

    def take(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self._peers = {tuple(row[:-1]): row[-1] for row in state["peers"]}
        self._routers = {(row[0], row[1]): row[2] for row in state["routers"]}


def peer_key(header: bytes) -> PeerKey:
    """Return the peer of a per-peer header."""
    high, low = int.from_bytes(header[16:24], "big"), int.from_bytes(header[24:32], "big")
    if header[6] != LOC_RIB_PEER and not header[7] & IPV6_PEER:
        high, low = 0, V4_MAPPED | low & 0xFFFFFFFF
    return PeerKey(header[6], int.from_bytes(header[8:16], "big"), high, low)


def peer_address(peer: PeerKey) -> str:
    """Return a peer's address as text."""
    return "loc-rib" if peer.peer_type == LOC_RIB_PEER else address_text(peer.high, peer.low)


def peer_name(router: str, peer: PeerKey, table: str) -> str:
    """Return a peer as people call it: `ams1:192.0.2.1`, `ams1:192.0.2.1 64499:94`."""
    of = distinguisher_text(peer.distinguisher)
    if peer.peer_type == LOC_RIB_PEER and table and table != "global":
        of = table
    return f"{router}:{peer_address(peer)}" + (f" {of}" if of else "")


def _words(peer: PeerKey) -> tuple[int, int, int, int]:
    return peer.peer_type, peer.distinguisher, peer.high, peer.low
