"""How many prefixes each BGP peer tells of, and when that grows as only a leak does."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.config import RouteSettings

WINDOW_NS = 300 * 10**9
GROWTH = 1.2  # over the most that was usual
ORIGINS_SHARE = 0.05  # of the new prefixes, at least so many different origins
ORIGINS_KEPT = 4096
PEERS_MAX = 8192
NEW, WITHDRAWN = 1, 5  # telemetry.schemas.ROUTE, `change`

Peer = tuple[int, ...]


@dataclass(slots=True)
class _Peer:
    up: bool = False
    settled: bool = False  # its table has been told
    prefixes: int = 0
    new: int = 0  # prefixes in this window
    usual: int = 0  # the most at the end of a window that raised nothing
    before: int = 0  # the same, a window earlier
    window_ns: int = 0
    origins: set[int] = field(default_factory=set)  # of new prefixes since the last window but one
    earlier: set[int] = field(default_factory=set)
    leaking_ns: int = 0  # since when; 0 = it does not


@dataclass(frozen=True, slots=True)
class Leak:
    """A leak that begins or ends."""

    raised: bool
    detail: dict[str, Any]


class PeerGrowth:
    """All peers. What a session tells until five minutes with few new prefixes is its table, no leak."""

    def __init__(self, settings: RouteSettings) -> None:
        self._settings = settings
        self._peers: dict[Peer, _Peer] = {}

    def settled(self, peer: Peer) -> bool:
        """Whether the peer's table has been told."""
        known = self._peers.get(peer)
        return known is not None and known.settled

    def take(
        self,
        peer: Peer,
        counts: NDArray[np.bool_],
        change: NDArray[np.uint8],
        origin: NDArray[np.uint32],
        *,
        ended: bool,
        now_ns: int,
    ) -> Leak | None:
        """Count a run of one peer's routes; return a leak that begins or ends with it."""
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= PEERS_MAX:
                return None
            known = self._peers[peer] = _Peer()
        if ended:
            known.up = known.settled = False
            known.prefixes = 0
            return self._end(known, "the peer is down") if known.leaking_ns else None
        if not known.up:
            known.up, known.window_ns, known.new = True, now_ns, 0
        elif now_ns - known.window_ns >= WINDOW_NS:
            self._next_window(known, now_ns)
        new = counts & (change == NEW)
        known.new += int(new.sum())
        known.prefixes += int(new.sum()) - int((counts & (change == WITHDRAWN)).sum())
        room = ORIGINS_KEPT - len(known.origins)
        if known.settled and room > 0 and new.any():
            known.origins.update(np.unique(origin[new])[:room].tolist())
        return self._judge(known, now_ns)

    def _next_window(self, known: _Peer, now_ns: int) -> None:
        known.settled = known.settled or known.new < self._settings.leak_prefixes_min
        known.window_ns, known.new = now_ns, 0
        known.earlier, known.origins = known.origins, set()
        known.before = known.usual
        if not known.leaking_ns:
            known.usual = max(known.usual, known.prefixes)

    def _judge(self, known: _Peer, now_ns: int) -> Leak | None:
        least = self._settings.leak_prefixes_min
        usual = known.before or known.usual
        if known.leaking_ns:
            if known.prefixes < max(GROWTH * usual, usual + least / 2):
                return self._end(known, "its prefixes are back to what is usual")
            if now_ns - known.leaking_ns > self._settings.accept_days * 8.64e13:
                known.before = known.usual = known.prefixes
                return self._end(
                    known, f"it stood for {self._settings.accept_days:g} days and is taken as usual"
                )
            return None
        if not known.settled or not usual:
            return None
        grown = known.prefixes - usual
        origins = len(known.origins | known.earlier)
        if grown < least or known.prefixes < GROWTH * usual or origins < ORIGINS_SHARE * grown:
            return None
        known.leaking_ns = now_ns
        return Leak(True, {"prefixes": known.prefixes, "usual": usual, "new_origins": origins})

    def _end(self, known: _Peer, why: str) -> Leak:
        known.leaking_ns = 0
        return Leak(False, {"prefixes": known.prefixes, "usual": known.usual, "why": why})

    def state(self) -> list[Any]:
        """Return what a checkpoint keeps."""
        return [
            [" ".join(map(str, peer)), p.up, p.settled, p.prefixes, p.new, p.usual, p.before,
             p.window_ns, sorted(p.origins), sorted(p.earlier), p.leaking_ns]
            for peer, p in self._peers.items()
        ]  # fmt: skip

    def take_back(self, kept: list[Any]) -> None:
        """Take it back."""
        for name, *numbers in kept:
            peer = tuple(int(part) for part in name.split(" "))
            made = self._peers[peer] = _Peer(*numbers)
            made.origins, made.earlier = set(made.origins), set(made.earlier)
