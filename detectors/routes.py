"""Security of routing: who announces what belongs to others, and who suddenly passes on far too much.

Looks at every route that BMP tells, before it is learned, and states alarms:

- `prefix-hijack`, `subprefix-hijack`: a prefix of ours, or a part of one, is announced by an AS that may
  not. Ours are the prefixes of the network map and of `own_prefixes`; who may is configured, else learned
  in the first hour. Up until every peer that told of it has withdrawn it.
- `origin-takeover`: an AS announces many prefixes that others are known to originate: a leak that
  originates anew, or a hijack of others' networks.
- `route-leak`: a peer passes on far more prefixes than ever, of many origins, within minutes (RFC 7908
  types 1 to 4 look so from outside). Judged on peers that had settled.

Blind to: a forged path that ends in the right origin; leaks smaller than a fifth of what the peer tells
anyway, so most of what a full-table peer could leak; VPN and multicast routes. Churn of routes is left to
the series `bgp_announcements`, `bgp_withdrawals`, `bgp_path_changes`.

Source: RFC 4271 (origin of a path), RFC 7908 (leaks); detection by origin as in Lad et al., PHAS, 2006.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from ipaddress import ip_network
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.config import RouteSettings
from detectors.prefixes import Network, PrefixSet, bits_of_128
from detectors.route_growth import PeerGrowth
from runtime.checkpoint import read_array, write_array
from runtime.component import Context
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import address_text
from telemetry.schemas import ALARM

SOURCE = "routes"
HIJACK, PART_HIJACK, TAKEOVER = "prefix-hijack", "subprefix-hijack", "origin-takeover"
CLAIMS_MAX = 20_000
TAKEOVER_WINDOW_NS = 600 * 10**9
EXPIRE_EVERY_NS = 60 * 10**9
SHOWN_MAX = 20  # names in the detail of an alarm
_PEER = ("exporter_address_high", "exporter_address_low", "peer_type", "peer_distinguisher",
         "peer_address_high", "peer_address_low")  # fmt: skip

Prefix = tuple[int, int, int]  # address halves, bits of 128
Peer = tuple[int, ...]
Contradicting = Callable[[Batch, NDArray[np.bool_]], tuple[NDArray[np.int64], NDArray[np.uint32]]]


@dataclass(slots=True)
class Claim:
    """One origin of one prefix that should not be it, and the peers that tell so."""

    prefix: Prefix
    origin: int
    own: int  # place of the prefix of ours, -1 for others'
    since_ns: int
    rightful: int = 0  # of others' prefixes: the origin that was known
    peers: dict[Peer, None] = field(default_factory=dict)


@dataclass(slots=True)
class Case:
    """What one AS claims, as one alarm has it: of one prefix of ours, or of others'."""

    kind: str
    origin: int
    own: int
    since_ns: int
    told: bool = False
    claims: dict[Prefix, Claim] = field(default_factory=dict)
    end: str = ""  # why it ended, once all claims have


CaseKey = tuple[str, int, int]  # kind, origin, own


class RouteWatch:
    """Turns routes into alarms; see the module. State is bounded by CLAIMS_MAX and peers_max."""

    accepts = ("route",)

    def __init__(
        self,
        settings: RouteSettings,
        context: Context,
        *,
        own: Mapping[str, str],
        contradicting: Contradicting = lambda *_: (np.zeros(0, np.int64), np.zeros(0, np.uint32)),
        router_of: Callable[[str], str] = lambda address: address,
    ) -> None:
        """`own`: prefixes of the network map and whose they are. `contradicting` gives, of
        some rows of a batch, those whose origin is not the known one, and that one."""
        self._settings = settings
        self._contradicting = contradicting
        self._router_of = router_of
        owners: dict[Network, str] = {
            ip_network(text, strict=False): of for text, of in own.items()
        }
        may: dict[int, set[int]] = {}
        for text, numbers in settings.own_prefixes.items():
            network = _network(text)
            owners.setdefault(network, "")
            if numbers:
                may[list(owners).index(network)] = {*numbers, *settings.own_as}
        self._networks = list(owners)
        self._owners = list(owners.values())
        self._own = PrefixSet(self._networks)
        self._stated = frozenset(may)  # who may originate these is configured, not learned
        self._may = may
        self._learned_from_ns: dict[int, int] = {}
        self._claims: dict[Prefix, dict[int, Claim]] = {}
        self._count = 0
        self._cases: dict[CaseKey, Case] = {}
        self._changed: dict[CaseKey, Case] = {}  # since alarms were last stated
        self._only: NDArray[np.uint32] | None = None  # by prefix of ours its one origin, 0 = look
        self._claimed: NDArray[np.uint64] | None = None  # low halves of what is claimed, sorted
        self._expire_due_ns = 0
        self._growth = PeerGrowth(settings)
        self._first_ns = 0
        metrics = context.metrics
        self._told = metrics.counter(
            "route_watch_alarms_total", "alarms of routing that were raised", label="kind",
            values=(HIJACK, PART_HIJACK, TAKEOVER, "route-leak"),
        )  # fmt: skip
        self._refused = metrics.counter(
            "route_watch_refused_total", "claims of wrong origins that found no room"
        )
        self._standing = metrics.gauge(
            "route_watch_claims", "prefixes announced by who may not, as they stand"
        )

    def process(self, routes: Batch, now_ns: int) -> list[Batch]:
        """Return the alarms that a batch of routes raises and clears; the routes are not learned yet."""
        self._first_ns = self._first_ns or now_ns
        unicast = (routes["safi"] == 1) & (routes["rib"] != 2) & (routes["rib"] != 3)
        unicast &= (routes["peer_distinguisher"] == 0) & (routes["prefix_length"] > 0)
        ended = routes["withdrawn"] == 2
        rows = []
        if now_ns >= self._expire_due_ns:
            self._expire_due_ns = now_ns + EXPIRE_EVERY_NS
            self._expire(now_ns)
        settled = np.zeros(routes.rows, bool)
        for start, stop, key in _runs(routes):
            span = slice(start, stop)
            leak = self._growth.take(
                key, unicast[span] & ~ended[span], routes["change"][span],
                routes["origin_as"][span], ended=bool(ended[span].any()), now_ns=now_ns,
            )  # fmt: skip
            settled[span] = self._growth.settled(key)
            if leak is not None:
                rows.append(self._leak_row(key, leak.raised, leak.detail, now_ns))
        self._judge(routes, unicast, ended, settled, now_ns)
        rows += [self._case_row(case, now_ns) for _, case in sorted(self._changed.items())]
        self._changed = {}
        self._standing.array[0] = self._count
        if not rows:
            return []
        return [batch_from_rows(ALARM, rows, source=SOURCE, arrival_ns=now_ns, frontier_ns=now_ns)]

    @property
    def claims(self) -> int:
        """How many (prefix, wrong origin) stand."""
        return self._count

    # ---- origins

    def _judge(
        self,
        routes: Batch,
        unicast: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        settled: NDArray[np.bool_],
        now_ns: int,
    ) -> None:
        """Look one by one at the few rows that touch a claim, or make one."""
        bits = bits_of_128(routes["afi"], routes["prefix_length"])
        high, low = routes["prefix_high"], routes["prefix_low"]
        origin = routes["origin_as"]
        own = np.full(routes.rows, -1, np.int64)
        at = np.flatnonzero(unicast)
        own[at] = self._own.covering(high[at], low[at], bits[at])
        touched = ended | (unicast & self._is_claimed(high, low, bits))
        announced = unicast & (routes["withdrawn"] == 0) & (origin != 0)
        touched |= announced & (own >= 0) & ~self._is_right(own, origin)
        rightful: dict[int, int] = {}
        if now_ns - self._first_ns >= self._settings.learn_hours * 3.6e12:
            found, known = self._contradicting(routes, settled & announced & (own < 0))
            rightful = dict(zip(found.tolist(), known.tolist(), strict=True))
            touched[found] = True
        for row in np.flatnonzero(touched).tolist():
            peer = tuple(int(routes[name][row]) for name in _PEER)
            if ended[row]:
                for prefix in list(self._claims):
                    self._drop(prefix, peer)
                continue
            prefix = (int(high[row]), int(low[row]), int(bits[row]))
            new = int(origin[row]) if announced[row] else 0
            self._drop(prefix, peer, but=new)
            if not new:
                continue
            if own[row] >= 0:
                if self._may_announce(int(own[row]), new, now_ns):
                    continue
            elif row not in rightful and new not in self._claims.get(prefix, ()):
                continue
            time_ns = int(routes["time_ns"][row])
            self._add(prefix, new, peer, int(own[row]), rightful.get(row, 0), time_ns)

    def _is_claimed(self, high: Any, low: Any, bits: Any) -> NDArray[np.bool_]:
        """Whether each row's prefix is one that somebody claims; by its low half first."""
        if not self._claims:
            return np.zeros(high.size, bool)
        if self._claimed is None:
            self._claimed = np.unique(np.array([prefix[1] for prefix in self._claims], np.uint64))
        maybe = np.flatnonzero(np.isin(low, self._claimed))
        found = np.zeros(high.size, bool)
        for row in maybe.tolist():
            found[row] = (int(high[row]), int(low[row]), int(bits[row])) in self._claims
        return found

    def _is_right(self, own: NDArray[np.int64], origin: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Whether a row needs no look: its origin is the one that may announce this prefix of ours."""
        if self._only is None:
            self._only = np.zeros(len(self._networks) + 1, np.uint32)
            for place, numbers in self._may.items():
                if len(numbers) == 1:
                    (self._only[place],) = numbers
        right: NDArray[np.bool_] = self._only[own] == origin
        return right

    def _may_announce(self, own: int, origin: int, now_ns: int) -> bool:
        if origin in self._settings.own_as or origin in self._may.get(own, ()):
            return True
        if own in self._stated:
            return False
        first_ns = self._learned_from_ns.setdefault(own, now_ns)
        if now_ns - first_ns > self._settings.learn_hours * 3.6e12:
            return False
        self._learn(own, origin)
        return True

    def _learn(self, own: int, origin: int) -> None:
        self._may.setdefault(own, set()).add(origin)
        self._only = None

    def _add(
        self, prefix: Prefix, origin: int, peer: Peer, own: int, rightful: int, time_ns: int
    ) -> None:
        claims = self._claims.setdefault(prefix, {})
        claim = claims.get(origin)
        if claim is None:
            if self._count >= CLAIMS_MAX:
                self._refused.array[0] += 1
                if not claims:
                    del self._claims[prefix]
                return
            claim = claims[origin] = Claim(prefix, origin, own, time_ns, rightful)
            self._count += 1
            self._claimed = None
            self._enter(claim, time_ns)
        claim.peers[peer] = None

    def _enter(self, claim: Claim, began_ns: int) -> None:
        """Put a claim into its case, and tell that if it is one by now."""
        key = self._key(claim)
        case = self._cases.setdefault(key, Case(*key, began_ns))
        case.claims[claim.prefix] = claim
        if claim.own < 0 and not case.told:
            least = self._settings.takeover_prefixes_min
            victims = {one.rightful for one in case.claims.values()}
            if len(case.claims) < least or 4 * len(victims) < least:
                return
        if not case.told:
            case.told = True
            self._told.add(case.kind, 1)
        self._changed[key] = case

    def _drop(self, prefix: Prefix, peer: Peer, *, but: int = 0) -> None:
        """This peer tells no more of claims on a prefix, but for the origin `but`."""
        for origin, claim in list(self._claims.get(prefix, {}).items()):
            if origin != but and peer in claim.peers:
                del claim.peers[peer]
                if not claim.peers:
                    self._end(
                        claim, "no peer tells of it any more: withdrawn, or the peers are down"
                    )

    def _end(self, claim: Claim, why: str) -> None:
        key = self._key(claim)
        del self._claims[claim.prefix][claim.origin]
        self._count -= 1
        self._claimed = None
        if not self._claims[claim.prefix]:
            del self._claims[claim.prefix]
        case = self._cases[key]
        del case.claims[claim.prefix]
        if not case.claims:
            del self._cases[key]
            if case.told:
                case.claims[claim.prefix] = claim  # the last one, for the words of the clear
                case.end = why
                self._changed[key] = case

    def _expire(self, now_ns: int) -> None:
        """End claims that have stood so long that they are taken as right, and windows with too few."""
        limit_ns = now_ns - round(self._settings.accept_days * 8.64e13)
        days = f"{self._settings.accept_days:g} days"
        for claim in [c for by in self._claims.values() for c in by.values()]:
            if claim.since_ns < limit_ns and claim.own not in self._stated:
                if claim.own >= 0:
                    self._learn(claim.own, claim.origin)
                self._end(claim, f"it stood for {days} and is taken as right")
        for case in list(self._cases.values()):
            if not case.told and case.since_ns < now_ns - TAKEOVER_WINDOW_NS:
                for claim in list(case.claims.values()):
                    self._end(claim, "")

    def _key(self, claim: Claim) -> CaseKey:
        if claim.own < 0:
            return TAKEOVER, claim.origin, -1
        whole = self._networks[claim.own]
        bits = whole.prefixlen + (96 if whole.version == 4 else 0)
        return HIJACK if claim.prefix[2] == bits else PART_HIJACK, claim.origin, claim.own

    # ---- alarms

    def _case_row(self, case: Case, now_ns: int) -> dict[str, Any]:
        told = self._takeover_words(case) if case.own < 0 else self._hijack_words(case)
        peers = {peer for claim in case.claims.values() for peer in claim.peers}
        prefixes = [prefix_text(prefix) for prefix in nsmallest(SHOWN_MAX, case.claims)]
        told["detail"] |= {
            "origin_as": case.origin,
            "prefixes": prefixes,
            "prefixes_count": len(case.claims),
            "peers": [self._peer_text(peer) for peer in nsmallest(SHOWN_MAX, peers)],
            "peers_count": len(peers),
        }
        if case.end:
            told["text"] = case.end
        return alarm_row(
            source=SOURCE, kind=case.kind, changed_ns=now_ns, raised_ns=case.since_ns,
            event_type="securityServiceOrMechanismViolation",
            probable_cause="unauthorizedAccessAttempt", **told,
            severity="cleared" if case.end else "major" if case.own < 0 else "critical",
        )  # fmt: skip

    def _hijack_words(self, case: Case) -> dict[str, Any]:
        whole, owner = str(self._networks[case.own]), self._owners[case.own]
        right = sorted({*self._may.get(case.own, ()), *self._settings.own_as})
        by = ", ".join(f"AS{number}" for number in right) or "nobody so far"
        of = f" of {owner}" if owner else ""
        what, draws = f"{whole}{of}", ""
        if case.kind == PART_HIJACK:
            more = f" and {len(case.claims) - 1} more" if len(case.claims) > 1 else ""
            what = f"{prefix_text(min(case.claims))}{more}, part of {whole}{of},"
            draws = "; being longer, it draws all traffic of that part"
        return {
            "entity": whole,
            "qualifier": f"AS{case.origin}",
            "title": f"AS{case.origin} announces {what} which {by} originates{draws}",
            "do": f"call AS{case.origin} and its upstreams; announce the parts of {whole} yourself "
            f"meanwhile; if it is right, name the AS in detection.routes.own_prefixes",
            "detail": {"own_prefix": whole, "owner": owner, "rightful_origin_as": right},
        }

    def _takeover_words(self, case: Case) -> dict[str, Any]:
        victims = sorted({claim.rightful for claim in case.claims.values()})
        count = f"{len(case.claims)} prefixes that {len(victims)} other ASes originate"
        return {
            "entity": f"AS{case.origin}",
            "title": f"AS{case.origin} announces {count if not case.end else 'prefixes of others'}",
            "do": "look at what your upstreams accept from it; filter it where you can",
            "detail": {"rightful_origin_as": victims[:SHOWN_MAX]},
        }

    def _leak_row(
        self, peer: Peer, raised: bool, detail: dict[str, Any], now_ns: int
    ) -> dict[str, Any]:
        name = self._peer_text(peer)
        if raised:
            self._told.add("route-leak", 1)
        return alarm_row(
            source=SOURCE, kind="route-leak", entity=name,
            severity="major" if raised else "cleared", changed_ns=now_ns,
            event_type="securityServiceOrMechanismViolation",
            probable_cause="unexpectedInformation",
            title=f"BGP peer {name} passes on {detail['prefixes']} prefixes, {detail['usual']} are "
            f"usual: a route leak",
            text="" if raised else detail["why"],
            do="set a maximum of prefixes on the session; ask the peer what it changed",
            detail=detail,
        )  # fmt: skip

    def _peer_text(self, peer: Peer) -> str:
        router = self._router_of(address_text(peer[0], peer[1]))
        return f"{router}:loc-rib" if peer[2] == 3 else f"{router}:{address_text(peer[4], peer[5])}"

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write what is learned and what stands."""
        kept = {
            "first_ns": self._first_ns,
            "expire_due_ns": self._expire_due_ns,
            "may": [[str(self._networks[own]), sorted(numbers), self._learned_from_ns.get(own, 0)]
                    for own, numbers in self._may.items() if own not in self._stated],
            "claims": [
                [_text_of(c.prefix), c.origin, c.since_ns, c.rightful, [_text_of(p) for p in c.peers]]
                for by in self._claims.values() for c in by.values()
            ],
            "cases": [[kind, origin, str(self._networks[own]) if own >= 0 else "", c.since_ns, c.told]
                      for (kind, origin, own), c in self._cases.items()],
            "growth": self._growth.state(),
        }  # fmt: skip
        write_array(out, "routes", np.frombuffer(msgspec.msgpack.encode(kept), np.uint8))

    def restore(self, state: Any) -> None:
        """Take it back; what is of prefixes that are ours no more is dropped."""
        data = read_array(state, "routes")
        if data is None:
            return
        kept = msgspec.msgpack.decode(data.tobytes())
        self._first_ns = kept["first_ns"]
        self._expire_due_ns = kept.get("expire_due_ns", 0)  # older checkpoints lack it
        places = {str(network): place for place, network in enumerate(self._networks)}
        for text, numbers, from_ns in kept["may"]:
            if (place := places.get(text, -1)) >= 0 and place not in self._stated:
                self._may[place] = set(numbers)
                self._only = None
                self._learned_from_ns[place] = from_ns
        for kind, origin, text, since_ns, is_told in kept["cases"]:
            own = places.get(text, -1)
            if own >= 0 or not text:
                self._cases[kind, origin, own] = Case(kind, origin, own, since_ns, is_told)
        for text, origin, since_ns, rightful, peers in kept["claims"]:
            high, low, bits = _numbers(text)
            (own,) = self._own.covering(
                np.array([high], np.uint64), np.array([low], np.uint64), np.array([bits], np.uint8)
            ).tolist()
            claim = Claim((high, low, bits), origin, own, since_ns, rightful)
            claim.peers = dict.fromkeys(_numbers(peer) for peer in peers)
            case = self._cases.get(self._key(claim))
            if case is not None:
                case.claims[claim.prefix] = claim
                self._claims.setdefault(claim.prefix, {})[origin] = claim
                self._count += 1
        self._cases = {key: case for key, case in self._cases.items() if case.claims}
        self._growth.take_back(kept["growth"])


def prefix_text(prefix: Prefix) -> str:
    """Return a prefix in text."""
    high, low, bits = prefix
    v4 = high == 0 and low >> 32 == 0xFFFF and bits >= 96
    return f"{address_text(high, low)}/{bits - 96 if v4 else bits}"


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"detection.routes.own_prefixes: {error}") from error


def _runs(routes: Batch) -> Iterator[tuple[int, int, Peer]]:
    """Yield (start, stop, peer) of runs of rows of one peer."""
    if not routes.rows:
        return
    new = np.zeros(routes.rows, bool)
    new[0] = True
    for name in _PEER:
        new[1:] |= routes[name][1:] != routes[name][:-1]
    edges = [*np.flatnonzero(new).tolist(), routes.rows]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        yield start, stop, tuple(int(routes[name][start]) for name in _PEER)


def _text_of(numbers: Sequence[int]) -> str:
    """Numbers of 64 bits without sign, as msgpack and JSON readers all take them."""
    return " ".join(map(str, numbers))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(" "))
