"""Cause rules of floods: a prefix that receives far more, and whose records agree on one vector."""

import math
from collections.abc import Sequence, Set

from alerting.causes import filters
from alerting.causes.faces import face_name
from alerting.causes.flowspec import is_host
from alerting.causes.rows import (
    Row,
    age_words,
    bits_text,
    prefix_of,
    shares,
    some,
    talker_row,
    unit_of,
)
from alerting.config import AlertingSettings
from alerting.records.alarm import Claim
from alerting.words.amounts import amount
from runtime.ports import Evidence, NetworkMap, Talker
from telemetry.security import AMPLIFIERS

# A flood: (row under the prefix's name, vector, its share of the sample, hosts, sample)
Flood = tuple[Row, str, float, tuple[str, ...], tuple[Talker, ...]]
TOP_LEAST = 0.02  # of the sample: of hundreds of sources alike none is the top
AMPLIFICATIONS = frozenset(f"{name} amplification" for name in AMPLIFIERS.values())
VECTOR_SHARE = 0.35  # of the sampled octets (floods: packets) that one vector must hold
VECTOR_SOURCES_MIN = 5
SMALL_FLOODS = ("SYN flood", "ICMP flood")  # measured in packets, not in octets
SMALL_PACKET_OCTETS_MAX = 200.0
MANY_SOURCES_MIN = 50.0
MANY_SOURCES_RATIO = 3.0
SERVICE_RATIO = 3.0  # a service so far over its usual volume may be a flood at one host
TALKERS_LOOKED_AT = 200
_ADMITTED = ("hard", "alert", "would", "digest")
TALKERS_SHOWN = 10


class AttackRules:
    """Names the attack behind what a prefix receives; many ordinary conversations are none."""

    def __init__(self, settings: AlertingSettings, network: NetworkMap, evidence: Evidence) -> None:
        self._settings = settings
        self._network = network
        self._evidence = evidence

    def claims(self, rows: Sequence[Row], under_attack: Set[str]) -> list[Claim]:
        """Return the attacks of a tick. `under_attack` are prefixes whose attack alarm is up."""
        made = []
        for row in rows:
            if row.detector != "attack":
                continue
            talkers = self._talkers(row)
            vector, share, host = vector_of(talkers, small_and_many=_small_and_many(row))
            if vector:
                made.append(self.claim(row, vector, share, (host,), talkers))
            elif row.key.entity in under_attack:
                made.append(_goes_on(row))  # this tick's sample missed it, the volume did not end
            # Else many ordinary conversations: a flash crowd, or a new service.
        return made + self._by_service(rows, {claim.entity for claim in made})

    def _by_service(self, rows: Sequence[Row], named: Set[str]) -> list[Claim]:
        """Return claims of floods that hide in a busy prefix, but not in their service.

        Reflected NTP that adds a third to what a large customer receives is many times what the
        whole network sees of NTP, and its sample names the host.
        """
        best: dict[str, tuple[float, Claim]] = {}
        for row in rows:
            if row.view != "service" or row.detector not in ("point", "level"):
                continue
            if row.measure != "octets" or row.actual < SERVICE_RATIO * row.expected:
                continue
            talkers = self._talkers(row)
            vector, share, host = vector_of(talkers)
            if vector not in AMPLIFICATIONS:
                continue
            prefix = prefix_of(host)
            if prefix in named or best.get(prefix, (-1.0,))[0] >= row.score:
                continue
            claim = self.claim(row, vector, share, (host,), talkers, prefix=prefix)
            best[prefix] = (row.score, claim)
        return [claim for _, claim in best.values()]

    def with_vectors(self, attacks: Sequence[Claim], floods: Sequence[Flood]) -> list[Claim]:
        """Return the attacks with what single vectors show: those of a prefix are one attack.

        What all of a prefix's volume shows may be over the budget where its vector alone is not; and an
        attack that goes on unnamed is named.
        """
        named = {one.entity: one for one in attacks if one.disposition != "digest" and one.title}
        for row, vector, share, hosts, talkers in floods:
            one = self.claim(row, vector, share, hosts, talkers)
            known = named.setdefault(one.entity, one)
            if vector not in known.parts:
                known.parts += one.parts
                known.evidence.append(f"and {one.title}")
                known.filters = [*dict.fromkeys((*known.filters, *one.filters))]
            if one is not known:
                known.series += one.series
                known.disposition = min(known.disposition, one.disposition, key=_ADMITTED.index)
        return [*named.values(), *(one for one in attacks if one.entity not in named)]

    def claim(
        self, row: Row, vector: str, share: float, hosts: Sequence[str],
        talkers: Sequence[Talker], *, prefix: str = "",
    ) -> Claim:  # fmt: skip
        """Return the claim of one attack; no `hosts` where it is spread over the prefix.

        `prefix` is given where the row is not that of the prefix.
        """
        of_service = f"of {row.key.entity} " if prefix else ""
        prefix = prefix or row.key.entity
        rate, usual = (8 * value for value in _octets(row))
        owner = self._network.owner_of_prefix(prefix)
        sources = row.detail.get("distinct_sources", 0.0)
        aimed = [
            t for t in talkers if (t.destination in hosts or not hosts) and vector == _vector(t)
        ]
        entries = self._entries(aimed)
        much, packets = bits_text(rate), row.detail.get("packets_per_second", 0.0)
        if vector in SMALL_FLOODS and packets:  # small packets: their number is what hurts
            much = f"{packets:,.0f} packets/s, {much}"
        at, origins = some(hosts) or prefix, self._origins(aimed)
        routed = self._network.origin(hosts[0]) if len(hosts) == 1 else ""
        cut = [f"{host}/{128 if ':' in host else 32}" for host in hosts if is_host(host)]
        top = shares(aimed, lambda t: t.source, least=TOP_LEAST)
        return Claim(
            "volumetric-attack", prefix, "critical",
            f"{vector} on {f'{at} in ' if hosts else ''}{prefix}: {much} {of_service}".rstrip()
            + (f", {bits_text(usual)} expected" if usual else ", usually none"),
            row.since_ns, row.score, self._settings.confirm_ticks, rate / 8, usual / 8,
            *(row.lower, row.upper) if row.measure == "octets" else (0.0, 0.0), "By/s",
            evidence=[
                f"{share:.0%} of the sample behind {row.key.entity} is {vector} to {at}",
                *([f"about {sources:.0f} sources in this tick"] if sources else []),
                *age_words(row),
                f"{amount(row.actual, unit_of(row))}, {amount(row.expected, unit_of(row))} expected",
                *([f"{at} is routed as {routed}"] if routed else []),
                *([f"top sources: {top}"] if top else []),
                *([f"its sources are of {some(origins)}"] if origins else []),
            ] + ([f"it enters at {some(entries)}"] if entries else []),
            causes=[
                {"kind": "volumetric-attack", "entity": prefix, "rank": 1,
                 "why": f"{vector}, {share:.0%} of the sample"},
                {"kind": "deviation", "entity": prefix, "rank": 2, "why": "a legitimate surge"},
            ],
            affects=[name for name in (owner, prefix) if name],
            advice=f"filter {vector} to {at}"
            + (f" (or a blackhole route for {some(cut)}, which cuts it off whole)" if cut else ""),
            filters=filters.against_flood(
                vector, hosts or ((prefix,) if aimed else ()), aimed, usual=usual / 8, now=rate / 8
            ),
            talkers=[talker_row(t) for t in aimed[:TALKERS_SHOWN]],
            series=[f"{row.key.series_id:016x}"],
            disposition=row.disposition,
            parts=[vector],
        )  # fmt: skip

    def _origins(self, talkers: Sequence[Talker]) -> list[str]:
        """Return the ASes that sources are routed to, most octets first, where BMP told."""
        octets: dict[str, int] = {}
        for t in talkers:
            if origin := self._network.origin(t.source).partition(" ")[0]:
                octets[origin] = octets.get(origin, 0) + t.octets
        return sorted(octets, key=lambda name: (-octets[name], name))

    def _entries(self, talkers: Sequence[Talker]) -> list[str]:
        """Return where sampled traffic enters, most first, as interface names."""
        octets: dict[str, int] = {}
        for t in talkers:
            router = self._network.router_of(t.exporter)
            face = self._network.interface(t.exporter, t.ingress_interface)
            name = face_name(face, router, t.ingress_interface)
            octets[name] = octets.get(name, 0) + t.octets
        return sorted(octets, key=lambda name: (-octets[name], name))

    def _talkers(self, row: Row) -> tuple[Talker, ...]:
        return self._evidence.talkers(row.key.series_id, row.tick_start_ns, TALKERS_LOOKED_AT)


def _goes_on(row: Row) -> Claim:
    """Return a claim that keeps an attack's alarm up and has nothing new to tell."""
    actual, expected = _octets(row)
    return Claim(
        "volumetric-attack", row.key.entity, "indeterminate", "", row.since_ns, 0.0,
        actual=actual, expected=expected, series=[f"{row.key.series_id:016x}"],
        disposition=row.disposition,
    )  # fmt: skip


def _octets(row: Row) -> tuple[float, float]:
    """Return (By/s, By/s expected) behind a row, whichever measure found it."""
    actual = row.detail.get("octets_per_second", row.actual)
    return actual, row.detail.get("expected_octets_per_second", row.expected)


def _small_and_many(row: Row) -> bool:
    """Whether the frame itself says: far more sources than usual, with small packets."""
    sources = row.detail.get("distinct_sources", 0.0)
    usual = row.detail.get("expected_distinct_sources", math.inf)
    packet = row.detail.get("extra_octets_per_packet", math.inf)
    return bool(
        sources >= MANY_SOURCES_MIN
        and sources >= MANY_SOURCES_RATIO * usual
        and packet <= SMALL_PACKET_OCTETS_MAX
    )


def vector_of(talkers: Sequence[Talker], *, small_and_many: bool = False) -> tuple[str, float, str]:
    """Return (attack vector or "", its share of the sample, the host it aims at).

    A vector is looked for on each host by itself: the target of a flood of small packets is not the
    host with the most octets. Its records are rare in a sample drawn by octets, so where the frame
    says `small_and_many`, one of them is enough; else several sources must be seen.
    """
    octets = sum(t.octets for t in talkers)
    packets = sum(t.packets for t in talkers)
    if not octets or not packets:
        return "", 0.0, ""
    found: dict[tuple[str, str], float] = {}
    sources: dict[tuple[str, str], set[str]] = {}
    for t in talkers:
        name = _vector(t)
        if name:
            small = name in SMALL_FLOODS
            share = t.packets / packets if small else t.octets / octets
            found[name, t.destination] = found.get((name, t.destination), 0.0) + share
            sources.setdefault((name, t.destination), set()).add(t.source)
    for name, host in sorted(found, key=lambda key: (-found[key], key)):
        if found[name, host] < VECTOR_SHARE:
            break
        least = 1 if small_and_many and name in SMALL_FLOODS else VECTOR_SOURCES_MIN
        if len(sources[name, host]) >= least:
            return name, found[name, host], host
    return "", max(found.values(), default=0.0), ""


def _vector(t: Talker) -> str:
    if t.protocol == 17 and t.source_port in AMPLIFIERS:
        return f"{AMPLIFIERS[t.source_port]} amplification"
    if t.protocol == 17:
        # QUIC and IPsec are what large ordinary UDP conversations are made of.
        return "" if {443, 4500} & {t.source_port, t.destination_port} else "UDP flood"
    if t.protocol == 6:
        return "SYN flood" if t.tcp_flags & 0x3F == 0x02 else ""
    return "ICMP flood" if t.protocol in (1, 58) else ""
