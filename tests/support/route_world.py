"""A world of prefixes, origins and BGP peers that churns as the internet does, with faults drawn at random.

Everything is said in BMP and read by the real decoder. A step is a minute. Rates of what is no fault
follow what public collectors show for a peer: flaps and other paths all the time, now and then a new
prefix, a customer's part of another's block, a second origin (anycast), a session that restarts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from correlator.tables.routing import RoutingTable
from detectors.config import RouteSettings
from detectors.routes import RouteWatch
from telemetry.batch import Batch
from tests.support.bmp_messages import (
    START_NS,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    peer_down,
    peer_up,
    prefix,
    update,
    usual,
)
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

MINUTE_NS = 60 * 10**9
FLAPS, PATHS = 6.0, 20.0  # a minute, over all peers
NEW_PREFIXES, PARTS, SECOND_ORIGINS = 0.1, 0.05, 0.02
RESTARTS = 1 / 720  # sessions
OWN = 40


@dataclass(slots=True)
class RouteFault:
    """Something that must be found: the kind of alarm, its entity, from when to when (minutes)."""

    kind: str
    entity: str
    start: int
    stop: int
    said: list[tuple[str, str, int]] = field(default_factory=list)  # peer, prefix, origin
    found: int = -1
    cleared: int = -1


class RouteWorld:
    """Peers, what each announces, and the watch that looks at it."""

    def __init__(self, seed: int, *, peers: int = 8, prefixes: int = 1500) -> None:
        self.random = np.random.default_rng(seed)
        self.minute = 0
        self._decoder = make_decoder()
        self._table = RoutingTable()
        self.peers = [f"192.0.2.{i + 1}" for i in range(peers)]
        origins = self.random.integers(65_000, 90_000, prefixes // 3)
        places = self.random.choice(200 * 256, prefixes, replace=False)
        self.rightful = {
            f"{20 + place // 256}.{place % 256}.0.0/16": int(self.random.choice(origins))
            for place in places.tolist()
        }
        names = list(self.rightful)
        self.own = names[:OWN]
        self._tells: dict[str, dict[str, int]] = {}  # by peer: prefix, origin
        for i, peer in enumerate(self.peers):
            share = 1.0 if i < 2 else float(self.random.uniform(0.05, 0.4))  # transit, or a peer
            self._tells[peer] = {
                name: self.rightful[name] for name in names if self.random.random() < share
            }
        self.watch = RouteWatch(
            RouteSettings(), make_context("routes"),
            own={name: f"customer {i}" for i, name in enumerate(self.own)},
            contradicting=self._table.contradicting,
        )  # fmt: skip
        self.faults: list[RouteFault] = []
        self.alarms: list[tuple[int, str, str, str]] = []  # minute, kind, entity, state
        first = [initiation(), *(self._up(peer) for peer in self.peers)]
        self._say([*first, *(m for peer in self.peers for m in self._whole(peer))])

    # ---- what is said

    def _up(self, peer: str) -> bytes:
        return peer_up(peer)

    def _whole(self, peer: str) -> Iterator[bytes]:
        for name, origin in self._tells[peer].items():
            yield self._announce(peer, name, origin)

    def _announce(self, peer: str, name: str, origin: int) -> bytes:
        way = [64500, *self.random.integers(100, 60_000, int(self.random.integers(0, 4))).tolist()]
        return monitoring(update(usual([*way, origin]), prefix(name)), peer)

    def _withdraw(self, peer: str, name: str) -> bytes:
        return monitoring(update(withdrawn=prefix(name)), peer)

    def _say(self, parts: list[bytes]) -> None:
        now_ns = START_NS + self.minute * MINUTE_NS
        if not parts:
            return
        for batch in self._decoder.decode(chunks(parts, start_ns=now_ns, step_ns=1000)):
            if batch.schema.name != "route":
                continue
            self._note(self.watch.process(batch, now_ns))
            self._table.learn(batch)

    def _note(self, made: list[Batch]) -> None:
        for row in rows_of(made, "alarm"):
            told: dict[str, Any] = row
            self.alarms.append((self.minute, told["kind"], told["entity"], told["state"]))

    # ---- one minute

    def step(self) -> None:
        """Let a minute pass: churn, and the faults that begin or end."""
        self.minute += 1
        self._say([*self._churn(), *self._of_faults()])

    def _churn(self) -> Iterator[bytes]:
        random = self.random
        peer = self._any_peer
        for _ in range(random.poisson(FLAPS)):
            who = peer()
            name = self._any_of(who)
            yield self._withdraw(who, name)
            yield self._announce(who, name, self._tells[who][name])
        for _ in range(random.poisson(PATHS)):
            who = peer()
            name = self._any_of(who)
            yield self._announce(who, name, self._tells[who][name])
        for _ in range(random.poisson(NEW_PREFIXES)):
            name = f"{random.integers(230, 250)}.{random.integers(256)}.{random.integers(256)}.0/24"
            yield from self._spread(name, int(random.integers(65_000, 90_000)))
        for _ in range(random.poisson(PARTS)):  # a customer with a block of its provider's
            whole = self._others()
            part = whole.replace(".0.0/16", f".{random.integers(256)}.0/24")
            yield from self._spread(part, int(random.integers(65_000, 90_000)))
        for _ in range(random.poisson(SECOND_ORIGINS)):
            yield from self._spread(self._others(), int(random.integers(65_000, 90_000)))
        if random.random() < RESTARTS:
            who = peer()
            yield peer_down(who)
            yield self._up(who)
            yield from self._whole(who)

    def _spread(self, name: str, origin: int) -> Iterator[bytes]:
        for who in self.peers:
            if self.random.random() < 0.5:
                self._tells[who][name] = origin
                yield self._announce(who, name, origin)

    def _any_peer(self) -> str:
        return self.peers[int(self.random.integers(len(self.peers)))]

    def _any_of(self, peer: str) -> str:
        names = list(self._tells[peer])
        return names[int(self.random.integers(len(names)))]

    def _others(self) -> str:
        names = list(self.rightful)
        return names[int(self.random.integers(OWN, len(names)))]

    # ---- faults

    def plan(self, kind: str, start: int) -> None:
        """Draw a fault of this kind: whom it hits, how wide, who tells of it, how long."""
        random = self.random
        stop = start + int(random.integers(3, 120))
        attacker = int(random.integers(100_000, 200_000))
        tellers = [p for p in self.peers if random.random() < 0.5] or [self.peers[0]]
        if kind in ("prefix-hijack", "subprefix-hijack"):
            whole = self.own[int(random.integers(OWN))]
            bits = 16 if kind == "prefix-hijack" else int(random.integers(17, 25))
            name = f"{whole.rpartition('/')[0]}/{bits}"
            fault = RouteFault(kind, whole, start, stop, [(p, name, attacker) for p in tellers])
        elif kind == "origin-takeover":
            names = {self._others() for _ in range(int(random.integers(40, 200)))}
            said = [(p, name, attacker) for name in sorted(names) for p in tellers[:2]]
            fault = RouteFault(kind, f"AS{attacker}", start, stop, said)
        else:
            leaker = self.peers[int(random.integers(2, len(self.peers)))]
            new = [name for name in self.rightful if name not in self._tells[leaker]]
            count = int(random.integers(400, len(new)))
            said = [(leaker, name, self.rightful[name]) for name in new[:count]]
            fault = RouteFault("route-leak", f"203.0.113.1:{leaker}", start, stop, said)
        self.faults.append(fault)

    def _of_faults(self) -> Iterator[bytes]:
        for fault in self.faults:
            for who, name, origin in fault.said:
                if fault.start == self.minute:
                    yield self._announce(who, name, origin)
                elif fault.stop == self.minute:
                    usual_origin = self._tells[who].get(name)
                    if usual_origin is None:
                        yield self._withdraw(who, name)
                    else:
                        yield self._announce(who, name, usual_origin)

    def judge(self) -> tuple[int, list[tuple[int, str, str, str]]]:
        """Return how many faults were found within two minutes and cleared, and the false alarms."""
        false = []
        for minute, kind, entity, state in self.alarms:
            mine = [f for f in self.faults if (f.kind, f.entity) == (kind, entity)]
            near = [f for f in mine if f.start <= minute <= f.stop + 6]
            if not near:
                false.append((minute, kind, entity, state))
            for fault in near:
                if state == "raised" and minute <= fault.start + 2:
                    fault.found = minute
                elif state == "cleared" and minute >= fault.stop:
                    fault.cleared = minute
        done = [fault for fault in self.faults if fault.found >= 0 and fault.cleared >= 0]
        return len(done), [alarm for alarm in false if alarm[3] == "raised"]
