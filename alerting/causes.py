"""Cause rules: the anomalies of one tick become claims, one for each fault, most certain first.

A rule takes the anomalies it explains away from those after it, so that a cut link is one alarm and
not forty. Each claim names its evidence; causes are ranked.
"""

import math
from collections.abc import Callable, Sequence, Set

from alerting import flowspec
from alerting.alarm import SAMPLED, Claim, cadence_of
from alerting.config import AlertingSettings
from alerting.faces import Faces, face_name
from alerting.foretold import predicted
from alerting.rows import Row as Row  # part of this room
from alerting.rows import prefix_of as prefix_of
from alerting.rows import rows_of as rows_of
from alerting.rows import some, talker_row
from alerting.security_claims import SecurityRules
from runtime.ports import Evidence, Link, NetworkMap, Talker
from telemetry.security import AMPLIFIERS, FINDINGS

AMPLIFICATIONS = frozenset(f"{name} amplification" for name in AMPLIFIERS.values())
VECTOR_SHARE = 0.35  # of the sampled octets (floods: packets) that one vector must hold
VECTOR_SOURCES_MIN = 5
SMALL_FLOODS = ("SYN flood", "ICMP flood")  # measured in packets, not in octets
SMALL_PACKET_OCTETS_MAX = 200.0
MANY_SOURCES_MIN = 50.0
MANY_SOURCES_RATIO = 3.0
# Detectors whose findings a rule reads, or that claim nothing: lone points are the digest's.
SIGNATURES = ("point", "exporter_silent", "attack", "scan", "trend", "predicted", *FINDINGS)
OWN_DEVIATIONS = ("level", "silence")  # of the baseline; others were set beside it by the operator
DEVIATION_RECORDS_MIN = 30.0  # in a tick, seen or expected
SERVICE_RATIO = 3.0  # a service so far over its usual volume may be a flood at one host
TALKERS_LOOKED_AT = 200
TALKERS_SHOWN = 10
UNITS = {
    "octets": "By/s", "packets": "{packet}/s", "flows": "{flow}/s", "records": "{record}/s",
    "distinct_source": "{source}", "distinct_destination": "{destination}",
}  # fmt: skip


class CauseRules:
    """All rules, with what they may ask."""

    def __init__(
        self, settings: AlertingSettings, network: NetworkMap, evidence: Evidence, faces: Faces
    ) -> None:
        self._settings = settings
        self._network = network
        self._evidence = evidence
        self._faces = faces
        self._security = SecurityRules(settings, network, evidence)

    def claims(
        self,
        rows: Sequence[Row],
        under_attack: Set[str] = frozenset(),
        last_ns: Callable[[str, str], int] = lambda kind, entity: 0,
    ) -> list[Claim]:
        """Return the claims of one tick: every fault that a rule can name.

        `under_attack` are prefixes whose attack alarm is up: there the vector is known. `last_ns` says
        when the alarm of a kind on an entity was last shown, 0 = never.
        """
        down = [self._exporter_down(row) for row in rows if row.detector == "exporter_silent"]
        dark = {claim.entity for claim in down}
        rest = [row for row in rows if self._router(row) not in dark]
        attacks = self._attacks(rest, under_attack)
        named = {claim.entity for claim in attacks}
        attacks += [
            self._attack(row, vector, share, host, talkers)
            for row, vector, share, host, talkers in self._security.floods(rest, named)
        ]
        made = down + self._links_cut(rest, dark) + attacks
        made += self._security.claims(rest, attacks, under_attack, last_ns)
        made += self._scans(rest, {claim.entity for claim in made})
        made += self._leaks(
            rest, {place for claim in made for place in (claim.entity, *claim.affects)}
        )
        made += predicted(rest)
        for claim in made:
            claim.tick_seconds = claim.tick_seconds or rows[0].tick_seconds
            claim.cadence = claim.cadence or cadence_of(rows[0].view)
        return made

    def deviations(self, rows: Sequence[Row]) -> list[Claim]:
        """Return claims for rows that nothing explains: lasting, large, admitted by the budget.

        One for each entity, the strangest first.
        """
        best: dict[str, Row] = {}
        for row in rows:
            if row.detector in SIGNATURES or row.disposition == "digest":
                continue
            if row.detector in OWN_DEVIATIONS and not self._is_worth_saying(row):
                continue
            known = best.get(row.key.entity)
            if known is None or row.score > known.score:
                best[row.key.entity] = row
        ranked = sorted(best.values(), key=lambda row: (-row.score, row.key.entity))
        made = [self._deviation(row) for row in ranked]
        for claim, row in zip(made, ranked, strict=True):
            claim.tick_seconds = row.tick_seconds
            claim.cadence = cadence_of(row.view)
        return made

    def _is_worth_saying(self, row: Row) -> bool:
        """Whether a deviation from a baseline is large, and of something that people look after."""
        if row.view in SAMPLED:  # may be negative, and is what somebody chose to watch
            change = abs(row.actual - row.expected)
            return change >= (self._settings.deviation_ratio - 1.0) * abs(row.expected)
        if row.view not in ("interface", "exporter", "service"):
            return False
        most = max(row.actual, row.expected) * row.tick_seconds
        if row.measure in ("flows", "records") and most < DEVIATION_RECORDS_MIN:
            return False  # a handful of records: nobody gets up for it
        ratio = (row.actual + 1e-9) / (row.expected + 1e-9)
        return abs(math.log(ratio)) >= math.log(self._settings.deviation_ratio)

    # ---- rules

    def _router(self, row: Row) -> str:
        exporter = row.key.key.get("exporter", "")
        return self._network.router_of(exporter) if exporter else ""

    def _exporter_down(self, row: Row) -> Claim:
        router = row.key.entity
        ticks = row.detail.get("ticks", 0)
        busy, idle = self._faces.busy_far_ends(router)
        evidence = [f"{row.expected:.0f} records/s expected, none for {ticks} ticks"]
        if busy:
            evidence.append(
                f"the far ends of {len(busy)} of its links still carry traffic: {some(busy)}"
            )
            why, what = "all its streams fell silent, its neighbours still see it forward", "silent"
        elif idle:
            evidence.append(f"the far ends of all its {len(idle)} links are idle too")
            why, what = "it exports nothing and its neighbours see nothing from it", "down"
        else:
            why, what = "all its streams fell silent at once", "silent"
        faces = len(self._network.links_of(router))
        return Claim(
            "exporter-down", router, "critical" if what == "down" else "major",
            f"exporter {router} is {what}: no record for {ticks} ticks, "
            f"{row.expected:.0f}/s expected",
            row.since_ns, row.score, 1, row.actual, row.expected, row.lower, row.upper,
            "{record}/s",
            evidence=evidence,
            causes=[{"kind": "exporter-down", "entity": router, "rank": 1, "why": why}],
            affects=[router, f"{faces} links are not seen from its side"],
            advice=(
                f"{router} itself seems down: check power, console, and who reaches it"
                if what == "down"
                else f"reach {router}; check its flow export and the path to this collector"
            ),
            series=[f"{row.key.series_id:016x}"],
            disposition="hard",
        )  # fmt: skip

    def _links_cut(self, rows: Sequence[Row], dark: set[str]) -> list[Claim]:
        silent: dict[str, dict[str, list[Row]]] = {}
        risen: dict[str, float] = {}
        # Of an exporter that sends nothing at all (it is down, its path is, or its templates are
        # not here yet after a restart) no interface proves anything.
        mute = self._faces.mute_routers() if any(r.detector == "silence" for r in rows) else set()
        blind = dark | mute
        for row in rows:
            if row.view != "interface" or self._router(row) in mute:
                continue
            face = self._network.interface(row.key.key["exporter"], int(row.key.key["interface"]))
            if face is None or not face.link:
                continue
            if row.detector == "silence":
                silent.setdefault(face.link, {}).setdefault(face.router, []).append(row)
            elif row.actual > row.expected:
                gained = row.actual - row.expected if row.measure == "octets" else 0.0
                risen[face.link] = max(risen.get(face.link, 0.0), gained)
        gone = set()
        for router in sorted(blind):
            busy, idle = self._faces.busy_far_ends(router)
            if idle and not busy:
                gone.add(router)
        carriers = {name: gained for name, gained in risen.items() if name not in silent}
        made = []
        for name, by_router in sorted(silent.items()):
            link = self._network.link(name)
            if link is None:
                continue
            ends = {router for router, _ in link.ends}
            if ends & gone:
                continue  # the router at one end is down: that is the fault, not its links
            seen = ends - blind
            if seen and all(end in by_router or self._faces.is_idle(link, end) for end in seen):
                made.append(self._link_cut(link, by_router, carriers))
        return made

    def _link_cut(
        self, link: Link, by_router: dict[str, list[Row]], carriers: dict[str, float]
    ) -> Claim:
        own = [row for part in by_router.values() for row in part]
        carried = f": {len(carriers)} links carry its traffic" if carriers else ""
        if len(carriers) == 1:
            carried = f": {next(iter(carriers))} carries its traffic"
        evidence = [
            f"{row.key.entity} {row.key.key['direction']}: no flow for "
            f"{row.detail.get('ticks', 0)} ticks, {row.expected:.1f}/s expected"
            for row in own
        ]
        most = sorted(carriers, key=lambda name: (-carriers[name], name))
        if most:
            evidence.append(f"{len(most)} other links rose at the same time, most {some(most)}")
        return Claim(
            "link-cut", link.name, "major" if carriers else "critical",
            f"link {link.name} is down{carried}",
            min(row.since_ns for row in own), max(row.score for row in own), 1, 0.0,
            sum(row.expected for row in own if row.key.key["direction"] == "out"), 0.0, 0.0,
            "{flow}/s",
            evidence=evidence,
            causes=[
                {"kind": "link-cut", "entity": link.name, "rank": 1,
                 "why": "every end that we see fell silent, the routers themselves did not"},
            ],
            affects=[
                face_name(self._network.interface(router, index), router, index)
                for router, index in link.ends
            ],
            advice=f"check the line and optics of {link.name}; see planned works of its carrier",
            series=[f"{row.key.series_id:016x}" for row in own],
            disposition="hard",
        )  # fmt: skip

    def _talkers(self, row: Row) -> tuple[Talker, ...]:
        return self._evidence.talkers(row.key.series_id, row.tick_start_ns, TALKERS_LOOKED_AT)

    def _attacks(self, rows: Sequence[Row], under_attack: Set[str]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "attack":
                continue
            talkers = self._talkers(row)
            vector, share, host = vector_of(talkers, small_and_many=_small_and_many(row))
            if vector:
                made.append(self._attack(row, vector, share, host, talkers))
            elif row.key.entity in under_attack:
                made.append(_goes_on(row))  # this tick's sample missed it, the volume did not end
            # Else many ordinary conversations: a flash crowd, or a new service.
        return made + self._attacks_by_service(rows, {claim.entity for claim in made})

    def _attacks_by_service(self, rows: Sequence[Row], named: Set[str]) -> list[Claim]:
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
            claim = self._attack(row, vector, share, host, talkers, prefix=prefix)
            best[prefix] = (row.score, claim)
        return [claim for _, claim in best.values()]

    def _attack(
        self, row: Row, vector: str, share: float, host: str, talkers: Sequence[Talker],
        *, prefix: str = "",
    ) -> Claim:  # fmt: skip
        of_service = f"of {row.key.entity} " if prefix else ""
        prefix = prefix or row.key.entity
        rate = row.detail.get("octets_per_second", row.actual) * 8
        usual = row.detail.get("expected_octets_per_second", row.expected) * 8
        owner = self._network.owner_of_prefix(prefix)
        sources = row.detail.get("distinct_sources", 0.0)
        aimed = [t for t in talkers if t.destination == host and vector == _vector(t)]
        entries = self._entries(aimed)
        one = f"{host}/{128 if ':' in host else 32}"
        routed, origins = self._network.origin(host), self._origins(aimed)
        return Claim(
            "volumetric-attack", prefix, "critical",
            f"{vector} on {host} in {prefix}: {_bits(rate)} {of_service}".rstrip()
            + f", {_bits(usual)} expected",
            row.since_ns, row.score, self._settings.confirm_ticks, rate / 8, usual / 8,
            row.lower, row.upper, "By/s",
            evidence=[
                f"{share:.0%} of the sample behind {row.key.entity} is {vector} to {host}",
                *([f"about {sources:.0f} sources in this tick"] if sources else []),
                f"{row.measure}: {row.actual:.4g}/s, {row.expected:.4g}/s expected",
                *([f"{host} is routed as {routed}"] if routed else []),
                *([f"its sources are of {some(origins)}"] if origins else []),
            ] + ([f"it enters at {some(entries)}"] if entries else []),
            causes=[
                {"kind": "volumetric-attack", "entity": prefix, "rank": 1,
                 "why": f"{vector}, {share:.0%} of the sample"},
                {"kind": "deviation", "entity": prefix, "rank": 2, "why": "a legitimate surge"},
            ],
            affects=[name for name in (owner, prefix) if name],
            advice=f"filter {vector} to {host}: FlowSpec `"
            + flowspec.rule(vector, host, aimed, usual_octets=usual / 8)
            + f"`, or a blackhole route for {one}",
            talkers=[talker_row(t) for t in aimed[:TALKERS_SHOWN]],
            series=[f"{row.key.series_id:016x}"],
            disposition=row.disposition,
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

    def _scans(self, rows: Sequence[Row], attacked: set[str]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "scan" or row.key.entity in attacked:
                continue
            talkers = self._talkers(row)
            source, way = scanner_of(talkers)
            prefix = row.key.entity
            who = source or prefix
            made.append(
                Claim(
                    "port-scan", prefix, "minor",
                    f"{way} scan from {who}: {row.actual:.0f} destinations in a tick, "
                    f"{row.expected:.0f} expected",
                    row.since_ns, row.score, self._settings.confirm_ticks, row.actual,
                    row.expected, row.lower, row.upper, "{destination}",
                    evidence=["its extra flows are one or two small packets each"],
                    causes=[
                        {"kind": "port-scan", "entity": prefix, "rank": 1, "why": f"{way} scan"},
                    ],
                    affects=self._owned(prefix),
                    advice=f"ask the owner of {who}; rate-limit or block it at its edge",
                    talkers=[talker_row(t) for t in talkers[:TALKERS_SHOWN]],
                    series=[f"{row.key.series_id:016x}"],
                    disposition=row.disposition,
                )
            )  # fmt: skip
        return made

    def _owned(self, prefix: str) -> list[str]:
        return [name for name in (self._network.owner_of_prefix(prefix), prefix) if name]

    def _leaks(self, rows: Sequence[Row], named: set[str]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "trend" or row.key.entity in named:
                continue
            talkers = self._talkers(row)
            prefix = row.key.entity
            ratio = row.detail.get("ratio", 1.0)
            hour = row.detail.get("ratio_an_hour", 1.0)
            minutes = row.detail.get("since_seconds", 0.0) / 60
            made.append(
                Claim(
                    "slow-leak", prefix, "minor",
                    f"traffic from {prefix} has been rising for {minutes:.0f} minutes: "
                    f"{ratio:.2f} times what is expected, and growing",
                    row.since_ns, row.score, 1, row.actual, row.expected, row.lower, row.upper,
                    "By/s",
                    evidence=[f"ten-minute ratio {ratio:.2f}, one-hour ratio {hour:.2f}", *_largest_pair(talkers)],
                    causes=[
                        {"kind": "slow-leak", "entity": prefix, "rank": 1,
                         "why": "a steady rise, no step"},
                        {"kind": "deviation", "entity": prefix, "rank": 2,
                         "why": "growth of a customer"},
                    ],
                    affects=self._owned(prefix),
                    advice=f"look at who {prefix} sends to; the top talkers are below",
                    talkers=[talker_row(t) for t in talkers[:TALKERS_SHOWN]],
                    series=[f"{row.key.series_id:016x}"],
                    disposition=row.disposition,
                )
            )  # fmt: skip
        return made

    def _deviation(self, row: Row) -> Claim:
        way = "above" if row.actual > row.expected else "below"
        what, per = row.measure, "/s"
        if row.view in SAMPLED:  # its one measure is called after the metric, in the metric's unit
            what, per = row.key.key.get("metric", what), ""
        talkers = self._evidence.talkers(row.key.series_id, row.tick_start_ns, TALKERS_SHOWN)
        entity = row.key.entity
        own = row.detector in OWN_DEVIATIONS
        ticks = self._settings.deviation_ticks if own else self._settings.confirm_ticks
        return Claim(
            "deviation", entity, "warning",
            f"{what} of {entity} {way} its band: {row.actual:.4g}{per}, "
            f"{row.expected:.4g}{per} expected ({row.lower:.4g} to {row.upper:.4g})",
            row.since_ns, row.score, ticks, row.actual, row.expected,
            row.lower, row.upper, UNITS.get(row.measure, "1/s") if per else "",
            evidence=[f"{row.detector}: p-value {row.p_value:.2g}"],
            causes=[
                {"kind": "deviation", "entity": entity, "rank": 1, "why": "no rule explains it"},
            ],
            affects=[entity],
            advice=f"compare with changes and works around {entity}",
            talkers=[talker_row(t) for t in talkers],
            series=[f"{row.key.series_id:016x}"],
            disposition=row.disposition,
        )  # fmt: skip


def _goes_on(row: Row) -> Claim:
    """Return a claim that keeps an attack's alarm up and has nothing new to tell."""
    return Claim(
        "volumetric-attack", row.key.entity, "indeterminate", "", row.since_ns, 0.0,
        actual=row.actual, expected=row.expected, series=[f"{row.key.series_id:016x}"],
        disposition=row.disposition,
    )  # fmt: skip


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


def scanner_of(talkers: Sequence[Talker]) -> tuple[str, str]:
    """Return (the source address with most destinations, `horizontal` or `vertical`)."""
    reached: dict[str, set[tuple[str, int]]] = {}
    for t in talkers:
        reached.setdefault(t.source, set()).add((t.destination, t.destination_port))
    if not reached:
        return "", "horizontal"
    source = max(sorted(reached), key=lambda s: len(reached[s]))
    hosts = {host for host, _ in reached[source]}
    ports = {port for _, port in reached[source]}
    return source, "vertical" if len(ports) > 2 * len(hosts) else "horizontal"


def _largest_pair(talkers: Sequence[Talker]) -> list[str]:
    octets: dict[tuple[str, str], int] = {}
    for t in talkers:
        octets[t.source, t.destination] = octets.get((t.source, t.destination), 0) + t.octets
    if not octets:
        return []
    pair = max(sorted(octets), key=lambda p: octets[p])
    share = octets[pair] / max(sum(octets.values()), 1)
    return [f"{pair[0]} to {pair[1]} is {share:.0%} of the sample"]


def _bits(rate: float) -> str:
    for unit, size in (("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.0f} bit/s"
