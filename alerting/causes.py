"""Cause rules: the anomalies of one tick become claims, one for each fault, most certain first.

A rule takes the anomalies it explains away from those after it, so that a cut link is one alarm and
not forty. Each claim names its evidence; causes are ranked.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alerting.alarm import Claim
from alerting.config import AlertingSettings
from runtime.ports import Evidence, NetworkMap, SeriesDirectory, SeriesKey, Talker
from telemetry.batch import Batch

AMPLIFIERS = {
    17: "QOTD", 19: "chargen", 53: "DNS", 69: "TFTP", 111: "portmap", 123: "NTP", 137: "NetBIOS",
    161: "SNMP", 389: "CLDAP", 520: "RIP", 1900: "SSDP", 3283: "ARMS", 3702: "WS-Discovery",
    5353: "mDNS", 5683: "CoAP", 10001: "Ubiquiti discovery", 11211: "memcached",
    37810: "DVR DHCPDiscover",
}  # fmt: skip
VECTOR_SHARE = 0.35  # of the sampled octets behind a prefix that one vector must hold
TALKERS_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an anomaly batch, with its series resolved."""

    tick_start_ns: int
    view: str
    key: SeriesKey
    measure: str
    detector: str
    disposition: str
    actual: float
    expected: float
    lower: float
    upper: float
    score: float
    p_value: float
    since_ns: int
    detail: dict[str, Any]


def rows_of(anomalies: Batch, directory: SeriesDirectory) -> list[Row]:
    """Return the rows of an anomaly batch; a series that nobody knows any more is left out."""
    made = []
    texts = {
        name: anomalies.texts(name)
        for name in ("view", "measure", "detector", "disposition", "detail")
    }
    for i in range(anomalies.rows):
        key = directory.key(int(anomalies["series_id"][i]))
        if key is not None:
            numbers = {
                name: float(anomalies[name][i])
                for name in ("actual", "expected", "lower", "upper", "score", "p_value")
            }
            made.append(
                Row(
                    int(anomalies["tick_start_ns"][i]), texts["view"][i], key, texts["measure"][i],
                    texts["detector"][i], texts["disposition"][i], **numbers,
                    since_ns=int(anomalies["since_ns"][i]), detail=json.loads(texts["detail"][i]),
                )
            )  # fmt: skip
    return made


class CauseRules:
    """All rules, with what they may ask."""

    def __init__(
        self,
        settings: AlertingSettings,
        network: NetworkMap,
        evidence: Evidence,
    ) -> None:
        self._settings = settings
        self._network = network
        self._evidence = evidence

    def claims(self, rows: Sequence[Row]) -> list[Claim]:
        """Return the claims of one tick."""
        made: list[Claim] = []
        down = self._exporters_down(rows)
        made += down
        dark = {claim.entity for claim in down}
        rows = [r for r in rows if self._router(r) not in dark]
        made += self._links_cut(rows, dark)
        attacks = self._attacks(rows)
        made += attacks
        made += self._scans(rows, {claim.entity for claim in attacks})
        named = {claim.entity for claim in made}
        made += self._leaks(rows, named)
        return made

    def deviations(self, rows: Sequence[Row], explained: bool) -> list[Claim]:
        """Return claims for what no rule explains: lasting, large, and admitted by the budget."""
        if explained:
            return []
        best: dict[str, Row] = {}
        for row in rows:
            if row.detector not in ("level", "silence") or row.disposition == "digest":
                continue
            if row.view not in ("interface", "exporter", "service"):
                continue
            ratio = (row.actual + 1e-9) / (row.expected + 1e-9)
            if abs(math.log(ratio)) < math.log(self._settings.deviation_ratio):
                continue
            known = best.get(row.key.entity)
            if known is None or row.score > known.score:
                best[row.key.entity] = row
        return [self._deviation(row) for row in best.values()]

    # ---- rules

    def _router(self, row: Row) -> str:
        exporter = row.key.key.get("exporter", "")
        return self._network.router_of(exporter) if exporter else ""

    def _exporters_down(self, rows: Sequence[Row]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "exporter_silent":
                continue
            router = row.key.entity
            links = self._network.links_of(router)
            made.append(
                Claim(
                    "exporter-down", router, "major",
                    f"exporter {router} is silent: no record for {row.detail.get('ticks', 0)} ticks, "
                    f"{row.expected:.0f}/s expected",
                    row.since_ns, row.score, 1, row.actual, row.expected, row.lower, row.upper,
                    "{record}/s",
                    evidence=[f"{row.expected:.0f} records/s expected, none came"],
                    causes=[
                        {"kind": "exporter-down", "entity": router, "rank": 1,
                         "why": "all its streams fell silent at once"},
                    ],
                    affects=[f"{router} and {len(links)} links are not seen from its side"],
                    advice=f"reach {router}; check its flow export and the path to this collector",
                    series=[f"{row.key.series_id:016x}"],
                    disposition="hard",
                )
            )  # fmt: skip
        return made

    def _links_cut(self, rows: Sequence[Row], dark: set[str]) -> list[Claim]:
        silent: dict[str, dict[str, list[Row]]] = {}
        up: set[str] = set()
        for row in rows:
            if row.view != "interface":
                continue
            face = self._network.interface(row.key.key["exporter"], int(row.key.key["interface"]))
            if face is None or not face.link:
                continue
            if row.detector == "silence":
                silent.setdefault(face.link, {}).setdefault(face.router, []).append(row)
            elif row.actual > row.expected:
                up.add(face.link)
        made = []
        for name, by_router in sorted(silent.items()):
            link = self._network.link(name)
            if link is None:
                continue
            ends = {router for router, _ in link.ends}
            seen = ends - dark
            if not seen or not seen <= set(by_router):
                continue  # one end still carries traffic: not the link
            own = [row for part in by_router.values() for row in part]
            carriers = len(up - set(silent))
            first = min(row.since_ns for row in own)
            lost = sum(row.expected for row in own if row.key.key["direction"] == "out")
            carried = f": {carriers} links carry its traffic" if carriers else ""
            made.append(
                Claim(
                    "link-cut", name, "critical" if not carriers else "major",
                    f"link {name} is down{carried}",
                    first, max(row.score for row in own), 1, 0.0, lost, 0.0, 0.0, "{flow}/s",
                    evidence=[
                        f"{row.key.entity} {row.key.key['direction']}: no flow for "
                        f"{row.detail.get('ticks', 0)} ticks, {row.expected:.1f}/s expected"
                        for row in own
                    ] + ([f"{carriers} other links rose at the same time"] if carriers else []),
                    causes=[
                        {"kind": "link-cut", "entity": name, "rank": 1,
                         "why": "both ends fell silent in the same tick, their routers did not"},
                    ],
                    affects=[f"{router}" for router in sorted(ends)],
                    advice=f"check the line and optics of {name}; see planned works of its carrier",
                    series=[f"{row.key.series_id:016x}" for row in own],
                    disposition="hard",
                )
            )  # fmt: skip
        return made

    def _attacks(self, rows: Sequence[Row]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "attack":
                continue
            talkers = self._evidence.talkers(
                row.key.series_id, row.tick_start_ns, TALKERS_LOOKED_AT
            )
            vector, share, host = vector_of(talkers)
            if not vector:
                continue  # many ordinary conversations: a flash crowd, or a new service
            made.append(self._attack(row, vector, share, host, talkers))
        return made

    def _attack(
        self, row: Row, vector: str, share: float, host: str, talkers: Sequence[Talker]
    ) -> Claim:
        prefix = row.key.entity
        rate = row.detail.get("octets_per_second", 0.0) * 8
        usual = row.detail.get("expected_octets_per_second", 0.0) * 8
        owner = self._network.owner_of_prefix(prefix)
        sources = row.detail.get("distinct_sources", 0.0)
        return Claim(
            "volumetric-attack", prefix, "critical",
            f"{vector} on {host} in {prefix}: {_bits(rate)}, {_bits(usual)} expected",
            row.since_ns, row.score, self._settings.confirm_ticks, rate / 8, usual / 8,
            row.lower, row.upper, "By/s",
            evidence=[
                f"{share:.0%} of the sampled octets are {vector}",
                f"about {sources:.0f} sources in this tick",
            ],
            causes=[
                {"kind": "volumetric-attack", "entity": prefix, "rank": 1, "why": f"{vector}, {share:.0%}"},
                {"kind": "deviation", "entity": prefix, "rank": 2, "why": "a legitimate surge"},
            ],
            affects=[name for name in (owner, prefix) if name],
            advice=f"filter {vector} to {host}: FlowSpec or a blackhole route for {host}/32",
            talkers=[_talker(t) for t in talkers[:10]],
            series=[f"{row.key.series_id:016x}"],
        )  # fmt: skip

    def _scans(self, rows: Sequence[Row], attacked: set[str]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "scan" or row.key.entity in attacked:
                continue
            talkers = self._evidence.talkers(
                row.key.series_id, row.tick_start_ns, TALKERS_LOOKED_AT
            )
            source, way = scanner_of(talkers)
            prefix = row.key.entity
            made.append(
                Claim(
                    "port-scan", prefix, "minor",
                    f"{way} scan from {source or prefix}: {row.actual:.0f} destinations in a tick, "
                    f"{row.expected:.0f} expected",
                    row.since_ns, row.score, self._settings.confirm_ticks, row.actual, row.expected,
                    row.lower, row.upper, "{destination}",
                    evidence=["its extra flows are one or two small packets each"],
                    causes=[{"kind": "port-scan", "entity": prefix, "rank": 1, "why": f"{way} scan"}],
                    affects=[name for name in (self._network.owner_of_prefix(prefix), prefix) if name],
                    advice=f"ask the owner of {source or prefix}; rate-limit or block it at its edge",
                    talkers=[_talker(t) for t in talkers[:10]],
                    series=[f"{row.key.series_id:016x}"],
                )
            )  # fmt: skip
        return made

    def _leaks(self, rows: Sequence[Row], named: set[str]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "trend" or row.key.entity in named:
                continue
            talkers = self._evidence.talkers(
                row.key.series_id, row.tick_start_ns, TALKERS_LOOKED_AT
            )
            prefix = row.key.entity
            ratio = row.detail.get("ratio", 1.0)
            made.append(
                Claim(
                    "slow-leak", prefix, "minor",
                    f"traffic from {prefix} has been rising for {row.detail.get('since_seconds', 0) / 60:.0f} "
                    f"minutes: {ratio:.2f} times what is expected, and growing",
                    row.since_ns, row.score, 1, row.actual, row.expected, row.lower, row.upper, "By/s",
                    evidence=[
                        f"ten-minute ratio {ratio:.2f}, one-hour ratio {row.detail.get('ratio_an_hour', 1):.2f}"
                    ],
                    causes=[
                        {"kind": "slow-leak", "entity": prefix, "rank": 1, "why": "a steady rise, no step"},
                        {"kind": "deviation", "entity": prefix, "rank": 2, "why": "growth of a customer"},
                    ],
                    affects=[name for name in (self._network.owner_of_prefix(prefix), prefix) if name],
                    advice=f"look at who {prefix} sends to; the top talkers are below",
                    talkers=[_talker(t) for t in talkers[:10]],
                    series=[f"{row.key.series_id:016x}"],
                )
            )  # fmt: skip
        return made

    def _deviation(self, row: Row) -> Claim:
        way = "above" if row.actual > row.expected else "below"
        talkers = self._evidence.talkers(row.key.series_id, row.tick_start_ns, 10)
        return Claim(
            "deviation", row.key.entity, "warning",
            f"{row.measure} of {row.key.entity} {way} its band: {row.actual:.4g}/s, "
            f"{row.expected:.4g}/s expected ({row.lower:.4g} to {row.upper:.4g})",
            row.since_ns, row.score, self._settings.deviation_ticks, row.actual, row.expected,
            row.lower, row.upper, "1/s",
            evidence=[f"p-value {row.p_value:.2g}, {row.detector}"],
            causes=[{"kind": "deviation", "entity": row.key.entity, "rank": 1, "why": "not explained"}],
            affects=[row.key.entity],
            advice=f"compare with changes and works around {row.key.entity}",
            talkers=[_talker(t) for t in talkers],
            series=[f"{row.key.series_id:016x}"],
            disposition=row.disposition,
        )  # fmt: skip


def vector_of(talkers: Sequence[Talker]) -> tuple[str, float, str]:
    """Return (attack vector or "", its share of the sampled octets, the host it aims at)."""
    total = sum(t.octets for t in talkers)
    if not total:
        return "", 0.0, ""
    hosts: dict[str, int] = {}
    for t in talkers:
        hosts[t.destination] = hosts.get(t.destination, 0) + t.octets
    host = max(sorted(hosts), key=lambda h: hosts[h])
    aimed = [t for t in talkers if t.destination == host]
    named: dict[str, int] = {}
    packets = sum(t.packets for t in talkers)
    for t in aimed:
        if t.protocol == 17 and t.source_port in AMPLIFIERS:
            name = f"{AMPLIFIERS[t.source_port]} amplification"
        elif t.protocol == 6 and t.tcp_flags & 0x3F == 0x02:
            name = "SYN flood"
        elif (
            t.protocol == 17
            and t.destination_port not in (443, 4500)
            and t.source_port not in (443, 4500)
        ):
            name = "UDP flood"
        elif t.protocol in (1, 58):
            name = "ICMP flood"
        else:
            continue
        weight = t.packets if name == "SYN flood" else t.octets
        named[name] = named.get(name, 0) + weight
    best, best_share = "", 0.0
    for name, weight in sorted(named.items()):
        share = weight / (packets if name == "SYN flood" else total)
        if share > best_share:
            best, best_share = name, share
    sources = {t.source for t in aimed}
    if best_share < VECTOR_SHARE or len(sources) < 5:
        return "", best_share, host
    return best, best_share, host


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


def _talker(t: Talker) -> dict[str, Any]:
    return {
        "source": t.source,
        "destination": t.destination,
        "protocol": t.protocol,
        "source_port": t.source_port,
        "destination_port": t.destination_port,
        "octets": t.octets,
        "packets": t.packets,
    }


def _bits(rate: float) -> str:
    for unit, size in (("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.0f} bit/s"
