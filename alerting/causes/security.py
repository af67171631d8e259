"""Cause rules of security: what the security detectors found becomes one claim for each attack.

Each names its class, who, whom, by what, and the filter against it. What is part of an attack that
has a claim is evidence of that one: the spoofed sources of a flood, the uploads of its bots.
"""

import ipaddress
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Any

import msgspec

from alerting.causes import filters
from alerting.causes.attacks import Flood
from alerting.causes.faces import face_name
from alerting.causes.fast_scans import FastScans
from alerting.causes.flowspec import covering, no_rule
from alerting.causes.rows import Row, bits_text, prefix_of, shares, some, talker_row, within
from alerting.config import AlertingSettings
from alerting.records.alarm import Alarm, Claim, cadence_of
from runtime.metrics import Counter
from runtime.ports import Evidence, NetworkMap, Talker
from telemetry.security import AMPLIFIERS, LOGIN_PORTS

LOOKED_AT = 200  # sampled records of a finding
SHOWN = 10
AGREE = 0.5  # of a sample that must agree on a port, a host, a target


class SecurityRules:
    """Turns findings of `detectors.security` into claims."""

    def __init__(
        self,
        settings: AlertingSettings,
        network: NetworkMap,
        evidence: Evidence,
        left_out: Counter,
    ) -> None:
        self._settings = settings
        self._network = network
        self._evidence = evidence
        self.fast_scans = FastScans(left_out)

    def floods(self, rows: Sequence[Row]) -> list[Flood]:
        """Return the floods of each vector, those of a prefix together, its strongest first."""
        made: list[Flood] = []
        for row in rows:
            if row.detector != "flood":
                continue
            talkers = self._talkers(row)
            hosts = covering(
                talkers, lambda t: t.destination, most=filters.RULES_MAX, by=lambda t: t.packets
            )
            prefix = row.key.key["destination_prefix"]
            of_prefix = msgspec.structs.replace(row, key=replace(row.key, entity=prefix))
            told = sum(t.packets for t in talkers if t.destination in hosts or not hosts)
            share = told / max(sum(t.packets for t in talkers), 1)
            made.append((of_prefix, _vector(row.key.key["vector"]), share, hosts, talkers))
        return sorted(made, key=lambda one: (one[0].key.entity, -one[0].score, one[1]))

    def claims(
        self,
        rows: Sequence[Row],
        attacks: Sequence[Claim],
        under_attack: Set[str],
        alarm_of: Callable[[str, str], Alarm | None],
    ) -> list[Claim]:
        """Return the claims of one tick; what belongs to one of `attacks` is added to it.

        `alarm_of` returns the alarm of a kind on an entity.
        """
        mine = [row for row in rows if row.detector in _RULES]
        if not mine:
            return []
        for row in mine:
            if row.detector == "host_scan" and row.disposition != "would":
                self.fast_scans.note(row)
        aimed_at = {claim.entity: claim for claim in attacks}
        made: dict[tuple[str, str], Claim] = {}
        attacked = {*aimed_at, *under_attack}
        taken: set[tuple[str, str]] = set()  # (source, detector or target) that have a claim
        # Of a class the one that does most is told first: its claim takes in the others.
        for row in sorted(mine, key=lambda r: (_ORDER.index(r.detector), -r.actual, r.key.entity)):
            talkers = self._talkers(row)
            if row.detector in _PARTS_OF_ATTACKS and attacked:
                prefix, share = _most(_weights(talkers, lambda t: prefix_of(t.destination)))
                if share >= AGREE and prefix in attacked:
                    if (claim := aimed_at.get(prefix)) is not None:
                        _part_of(claim, row, _source_text(row))
                    continue
            found = _RULES[row.detector](self, row, talkers)
            source, target = _source(row), _most(_weights(talkers, lambda t: t.destination))[0]
            shown_by = (
                *_SHOWN_BY.get(row.detector, ()),
                *((target,) if target and row.detector == "beacon" else ()),
            )
            if found is None or any((source, one) in taken for one in shown_by):
                continue
            if row.detector == "slow_scan" and self._is_told(
                row, alarm_of(found.kind, found.entity)
            ):
                continue
            found.tick_seconds, found.cadence = row.tick_seconds, cadence_of(row.view)
            key = (found.kind, found.entity)
            if key in made:
                _join(made[key], found)
            else:
                made[key] = found
            taken |= {(source, row.detector), (source, target)}
        return list(made.values())

    # ---- classes

    def _scan(self, row: Row, talkers: Sequence[Talker]) -> Claim | None:
        source, slow = _source(row), row.detector == "slow_scan"
        if (seen := _way(talkers)) is None:
            return None  # many ports of many hosts over UDP: peers looking for each other
        prefix = prefix_of(source)
        name = " ".join(word for word in ("slow" * slow, seen[0], "scan") if word)
        return self._claim(
            row, "port-scan", prefix, "minor", talkers,
            title=f"{name} from {source}: {row.actual:.0f} targets in {within(row)}{seen[1]}",
            unit="{destination}",
            why=name,
            evidence=["each probe is one to three small packets that no handshake follows"],
            affects=[source, prefix],
            filters=filters.against_scan(source, talkers, self._network),
            do=f"ask the owner of {source}; block or rate-limit it at its edge",
            once=slow,
        )  # fmt: skip

    def _logins(self, row: Row, talkers: Sequence[Talker]) -> Claim:
        source, port = _source(row), int(row.key.key["destination_port"])
        service = LOGIN_PORTS.get(port, str(port))
        targets = row.detail.get("targets", 1.0)
        return self._claim(
            row, "brute-force", source, "major", talkers,
            title=f"{service} brute force from {source}: {row.actual:.0f} tries within minutes "
            f"at {targets:.0f} host{'s' if targets >= 1.5 else ''}",
            unit="{flow}",
            why=f"{service} brute force",
            evidence=[f"{row.detail.get('tries', 0.0):.0f} of them in {within(row)}, each a short flow"],
            affects=[source],
            filters=filters.against_logins(source, port, talkers, self._network),
            do=f"look at the logs of the targets for a success; block {source}",
        )  # fmt: skip

    def _tunnel(self, row: Row, talkers: Sequence[Talker]) -> Claim:
        source = _source(row)
        resolvers = some(covering(talkers, lambda t: t.destination, most=filters.RULES_MAX))
        size, usual = (
            row.detail.get("octets_per_question", 0.0),
            row.detail.get("usual_octets", 0.0),
        )
        rate = row.detail.get("octets", 0.0) / max(row.tick_seconds, 1.0)
        asked = row.detail.get("resolvers", 1.0)
        return self._claim(
            row, "dns-tunnel", source, "major", talkers,
            title=f"DNS tunnel from {source}{f' over {resolvers}' if resolvers else ''}: "
            f"{row.actual:.0f} long questions in {within(row)}",
            unit="{flow}",
            why="many long questions for few resolvers",
            evidence=[
                f"{size:.0f} octets a question" + (f", {usual:.0f} is usual" if usual else ""),
                (f"{bits_text(rate * 8)} towards port 53, {row.detail.get('packets', 0.0):.0f} packets in "
                f"{row.actual:.0f} flows, to about {asked:.0f} resolver{'s' if asked >= 1.5 else ''}"),
            ],
            affects=[source],
            filters=filters.against_tunnel(source, talkers, self._network),
            do=f"look at the names that {source} asks for; let it ask your own resolvers only",
        )  # fmt: skip

    def _upload(self, row: Row, talkers: Sequence[Talker]) -> Claim | None:
        source = _source(row)
        target, share = _most(_weights(talkers, lambda t: t.destination, by=lambda t: t.octets))
        owner = self._network.owner_of_prefix(prefix_of(source))
        if target and share < AGREE:
            return None
        if target and owner and self._network.owner_of_prefix(prefix_of(target)) == owner:
            return None  # it stays in the house
        routed = self._network.origin(target) if target else ""
        targets = row.detail.get("targets", 1.0)
        return self._claim(
            row, "unusual-upload", source, "major", talkers,
            title=f"unusual upload from {source}{f' to {target}' if target else ''}: {bits_text(row.actual * 8)}, "
            + (f"{bits_text(row.expected * 8)} is the most so far" if row.expected else "little so far"),
            unit="By/s",
            why="it never sent as much, and nearly all of it goes to one place",
            evidence=[
                (f"{row.detail.get('flows', 0.0):.0f} flows to about {targets:.0f} "
                f"target{'s' if targets >= 1.5 else ''}"),
                *([f"{share:.0%} of the sample goes to {target}"] if target else []),
                *([f"{target} is routed as {routed}"] if routed else []),
            ],
            affects=[source, prefix_of(source)],
            filters=filters.against_upload(source, talkers, self._network, most_so_far=row.expected),
            do=f"ask the owner of {source} whether this is a backup; else treat it as exfiltration",
        )  # fmt: skip

    def _beacon(self, row: Row, talkers: Sequence[Talker]) -> Claim:
        source = _source(row)
        sampled = {t.destination for t in talkers}
        peer = row.key.key["destination_peer"]
        # Of an IPv6 peer the key has a hash; the alarm stays that of the key, the sample names the address.
        target = next(iter(sampled)) if len(sampled) == 1 else peer
        period = row.detail.get("period_seconds", 0.0)
        every = f"{period / 60:.1f} minutes" if period >= 120 else f"{period:.0f} seconds"
        claim = self._claim(
            row, "beacon", peer, "minor", talkers,
            title=f"beacon from {source} to {target}: a small flow every {every} "
            f"for {row.detail.get('hours', 0.0):.1f} hours",
            unit="{flow}",
            why="contacts by the clock",
            evidence=[
                f"{row.actual:.0f} contacts, far more regular than chance (p {row.p_value:.1g})",
                (f"{row.detail.get('octets_per_contact', 0.0):.0f} octets each, varying by "
                f"{row.detail.get('size_varies', 0.0):.0%}"),
            ],
            affects=[target, source],
            filters=filters.against_beacon(source, target, talkers, self._network),
            do=f"ask what on {source} calls {target}: software that looks for updates, or malware",
            once=True,
        )  # fmt: skip
        claim.parts += [target] if target != peer else []
        claim.since_ns = min(claim.since_ns, int(row.detail.get("since_ns", claim.since_ns)))
        return claim

    def _spoofed(self, row: Row, talkers: Sequence[Talker]) -> Claim:
        exporter, index = row.key.key["exporter"], int(row.key.key["ingress_interface"])
        router = self._network.router_of(exporter)
        bogon = row.detector == "bogon"
        known = self._network.interface(exporter, index)
        customer = known.customer if known else ""
        kind = "sources seen once"
        if bogon:
            kind = (
                f"sources that cannot be {customer}'s"
                if customer
                else "sources that nobody can have"
            )
        face = face_name(known, router, index)
        target, share = _most(_weights(talkers, lambda t: t.destination))
        return self._claim(
            row, "spoofed-sources", face, "major", talkers,
            title=f"spoofed sources at {face}: {row.actual:.0f} {kind} in {within(row)}, "
            + (f"{row.expected:.0f} at most so far" if row.expected else "none so far"),
            unit="{source}",
            why=kind,
            evidence=[
                f"{max(row.detail.get('flows', 0.0), row.actual):.0f} flows of about {row.actual:.0f} sources",
                *([f"{share:.0%} of the sample aims at {target}"] if share >= AGREE else []),
            ],
            affects=[face, router],
            filters=filters.against_bogons(talkers)
            if bogon and not customer
            else [no_rule("these sources are forged, it would hit who really has them")],
            do=f"check sources at {face} against its routes (uRPF, BCP 38); ask who is behind it",
        )  # fmt: skip

    # ---- all of them

    def _is_told(self, row: Row, alarm: Alarm | None) -> bool:
        """Whether a slow scan is no more than fast ones whose alarm was up in its hour."""
        told = alarm is not None and (alarm.up or alarm.cleared_ns > row.tick_start_ns)
        return told and self.fast_scans.explain(row)

    def _talkers(self, row: Row) -> tuple[Talker, ...]:
        return self._evidence.talkers(row.key.series_id, row.tick_start_ns, LOOKED_AT)

    def _claim(
        self, row: Row, kind: str, entity: str, severity: str, talkers: Sequence[Talker], *,
        title: str, unit: str, why: str, evidence: list[str], affects: Iterable[str],
        filters: list[str], do: str, once: bool = False,
    ) -> Claim:  # fmt: skip
        owners = [self._network.owner_of_prefix(prefix_of(n)) for n in affects if _is_address(n)]
        targets = shares(talkers, lambda t: t.destination)
        sources = shares(talkers, lambda t: t.source)
        return Claim(
            kind, entity, severity, title, row.since_ns, row.score,
            1 if once else self._settings.confirm_ticks,
            row.actual, row.expected, row.lower, row.upper, unit,
            evidence=evidence
            + ([f"top targets: {targets}"] if targets else [])
            + ([f"top sources: {sources}"] if len({t.source for t in talkers}) > 1 else []),
            causes=[{"kind": kind, "entity": entity, "rank": 1, "why": why}],
            affects=[*dict.fromkeys(name for name in (*owners, *affects) if name)],
            advice=do,
            filters=filters,
            parts=[row.key.key.get("destination_port", "") or _source(row) or row.detector],
            talkers=[talker_row(t) for t in talkers[:SHOWN]],
            series=[f"{row.key.series_id:016x}"],
            disposition=row.disposition,
        )  # fmt: skip


_Rule = Callable[[SecurityRules, Row, Sequence[Talker]], Claim | None]
_RULES: dict[str, _Rule] = {
    "host_scan": SecurityRules._scan,
    "slow_scan": SecurityRules._scan,
    "login_tries": SecurityRules._logins,
    "dns_tunnel": SecurityRules._tunnel,
    "bogon": SecurityRules._spoofed,
    "lone_sources": SecurityRules._spoofed,
    "upload": SecurityRules._upload,
    "beacon": SecurityRules._beacon,
}
_ORDER = [*_RULES]
# What may be no more than a sight of a flood, or of another claim about the same host.
_PARTS_OF_ATTACKS = ("host_scan", "slow_scan", "bogon", "lone_sources", "upload")
# What records of others show as well; a beacon is also what goes to the target of any of them.
_SHOWN_BY = {"slow_scan": ("host_scan", "login_tries"), "upload": ("dns_tunnel",)}


def _source(row: Row) -> str:
    return row.key.key.get("source_address", "")


def _source_text(row: Row) -> str:
    words = {"bogon": "sources that nobody can have", "lone_sources": "sources seen once"}
    return words.get(row.detector, f"{_source(row)} takes part")


def _part_of(claim: Claim, row: Row, words: str) -> None:
    text = f"{words}: {row.actual:.0f}" if row.detector in ("bogon", "lone_sources") else words
    if len(claim.evidence) < SHOWN and text not in claim.evidence:
        claim.evidence.append(text)
    claim.series.append(f"{row.key.series_id:016x}")


def _join(claim: Claim, other: Claim) -> None:
    """Add another finding of the same attack: a second port, a second bot."""
    claim.evidence += [one for one in (other.title,) if len(claim.evidence) < SHOWN]
    claim.affects = [*dict.fromkeys((*claim.affects, *other.affects))]
    claim.filters = [*dict.fromkeys((*claim.filters, *other.filters))]
    claim.parts = [*dict.fromkeys((*claim.parts, *other.parts))]
    claim.series += other.series
    claim.since_ns = min(claim.since_ns, other.since_ns)
    claim.ticks_needed = min(claim.ticks_needed, other.ticks_needed)
    if claim.disposition == "digest":
        claim.disposition = other.disposition


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _vector(text: str) -> str:
    if text in ("syn", "icmp"):
        return f"{text.upper()} flood"
    return f"{AMPLIFIERS[int(text)]} amplification"


def _weights(
    talkers: Sequence[Talker],
    of: Callable[[Talker], Any],
    *,
    by: Callable[[Talker], int] = lambda t: 1,
) -> Tally[Any]:
    made: Tally[Any] = Tally()
    for t in talkers:
        made[of(t)] += by(t)
    return made


def _most(weights: Tally[Any]) -> tuple[Any, float]:
    """Return what weighs most and its share; ("", 0) of nothing."""
    if not weights:
        return "", 0.0
    best = max(sorted(weights), key=lambda one: weights[one])
    return best, weights[best] / max(sum(weights.values()), 1)


def _way(talkers: Sequence[Talker]) -> tuple[str, str] | None:
    """Return (how a scan goes, what it aims at), "" where too little of it is seen; None = it is none."""
    if len(talkers) < filters.SAMPLE_LEAST:
        return "", ""
    host, host_share = _most(_weights(talkers, lambda t: t.destination))
    port, port_share = _most(_weights(talkers, lambda t: t.destination_port))
    if host_share >= AGREE and len({t.destination_port for t in talkers}) > 1:
        return "vertical", f", ports of {host}"
    protocol, _ = _most(_weights(talkers, lambda t: t.protocol))
    if protocol in (1, 58):
        return "horizontal", ", ping"
    if port_share >= AGREE:
        return "horizontal", f", port {port}"
    ports = len({t.destination_port for t in talkers})
    few = covering(talkers, lambda t: t.destination_port, most=filters.PORTS_MAX)
    if few or (protocol == 6 and ports <= 0.5 * len(talkers)):
        return "horizontal", f", {ports} ports"
    return None if protocol == 17 else ("horizontal and vertical", "")
