"""Cause rules: the anomalies of one tick become claims, one for each fault, most certain first.

A rule takes the anomalies it explains away from those after it, so that a cut link is one alarm and
not forty. Each claim names its evidence; causes are ranked.
"""

import math
from collections.abc import Callable, Sequence, Set

from alerting.causes import filters
from alerting.causes.attacks import AttackRules
from alerting.causes.faces import Faces
from alerting.causes.flowspec import ACK, TCP, UDP
from alerting.causes.foretold import predicted
from alerting.causes.rows import Row, age_words, measured, talker_row, unit_of, within
from alerting.causes.security import SecurityRules
from alerting.causes.silences import SilenceRules
from alerting.config import AlertingSettings
from alerting.records.alarm import SAMPLED, Alarm, Claim, cadence_of
from alerting.words.amounts import amount
from runtime.metrics import Counter
from runtime.ports import Evidence, NetworkMap, Talker
from telemetry.security import FINDINGS

# Detectors whose findings a rule reads, or that claim nothing: lone points are the digest's.
SIGNATURES = ("point", "exporter_silent", "attack", "scan", "trend", "predicted", *FINDINGS)
OWN_DEVIATIONS = ("level", "silence")  # of the baseline; others were set beside it by the operator
DEVIATION_RECORDS_MIN = 30.0  # in a tick, seen or expected
PROBE_OCTETS_MAX = 128.0  # a packet, with what sFlow counts of its frame
TALKERS_LOOKED_AT = 200
TALKERS_SHOWN = 10


class CauseRules:
    """All rules, with what they may ask."""

    def __init__(
        self,
        settings: AlertingSettings,
        network: NetworkMap,
        evidence: Evidence,
        faces: Faces,
        left_out: Counter,
    ) -> None:
        self._settings = settings
        self._network = network
        self._evidence = evidence
        self._silences = SilenceRules(network, faces)
        self._attacks = AttackRules(settings, network, evidence)
        self._security = SecurityRules(settings, network, evidence, left_out)
        self.fast_scans = self._security.fast_scans

    def claims(
        self,
        rows: Sequence[Row],
        under_attack: Set[str] = frozenset(),
        alarm_of: Callable[[str, str], Alarm | None] = lambda kind, entity: None,
    ) -> list[Claim]:
        """Return the claims of one tick: every fault that a rule can name.

        `under_attack` are prefixes whose attack alarm is up: there the vector is known. `alarm_of`
        returns the alarm of a kind on an entity, None = there is none.
        """
        down = self._silences.exporters_down(rows)
        dark = {claim.entity for claim in down}
        rest = [row for row in rows if self._silences.router(row) not in dark]
        attacks = self._attacks.claims(rest, under_attack)
        attacks = self._attacks.with_vectors(attacks, self._security.floods(rest))
        made = down + self._silences.links_cut(rest, dark, alarm_of) + attacks
        made += self._security.claims(rest, attacks, under_attack, alarm_of)
        made += self._scans(rest, {claim.entity for claim in made})
        made += self._leaks(
            rest, {place for claim in made for place in (claim.entity, *claim.affects)}
        )
        made += predicted(rest, self._network)
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

    def _talkers(self, row: Row) -> tuple[Talker, ...]:
        return self._evidence.talkers(row.key.series_id, row.tick_start_ns, TALKERS_LOOKED_AT)

    def _scans(self, rows: Sequence[Row], attacked: set[str]) -> list[Claim]:
        made = []
        for row in rows:
            if row.detector != "scan" or row.key.entity in attacked:
                continue
            talkers = self._talkers(row)
            source, way = scanner_of(talkers)
            mine = [t for t in talkers if t.source == source and is_probe(t)]
            prefix = row.key.entity
            who = source or prefix
            made.append(
                Claim(
                    "port-scan", prefix, "minor",
                    f"{way} scan from {who}: {row.actual:.0f} destinations in {within(row)}, "
                    f"{row.expected:.0f} expected",
                    row.since_ns, row.score, self._settings.confirm_ticks, row.actual,
                    row.expected, row.lower, row.upper, "{destination}",
                    evidence=["its extra flows are one or two small packets each", *age_words(row)],
                    causes=[
                        {"kind": "port-scan", "entity": prefix, "rank": 1, "why": f"{way} scan"},
                    ],
                    affects=self._owned(prefix),
                    advice=f"ask the owner of {who}; rate-limit or block it at its edge",
                    filters=filters.against_scan(source, mine, self._network) if source else [],
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
                    evidence=[f"ten-minute ratio {ratio:.2f}, one-hour ratio {hour:.2f}",
                              *_largest_pair(talkers), *age_words(row)],
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
        unit = unit_of(row)
        talkers = self._evidence.talkers(row.key.series_id, row.tick_start_ns, TALKERS_SHOWN)
        entity = row.key.entity
        own = row.detector in OWN_DEVIATIONS
        ticks = self._settings.deviation_ticks if own else self._settings.confirm_ticks
        return Claim(
            "deviation", entity, "warning",
            f"{measured(row)} {way} its band: {amount(row.actual, unit)}, {amount(row.expected, unit)} "
            f"expected ({amount(row.lower, unit)} to {amount(row.upper, unit)})",
            row.since_ns, row.score, ticks, row.actual, row.expected,
            row.lower, row.upper, unit,
            evidence=[f"{row.detector}: p-value {row.p_value:.2g}", *age_words(row)],
            causes=[
                {"kind": "deviation", "entity": entity, "rank": 1, "why": "no rule explains it"},
            ],
            affects=[entity],
            advice=f"compare with changes and works around {entity}",
            talkers=[talker_row(t) for t in talkers],
            series=[f"{row.key.series_id:016x}"],
            disposition=row.disposition,
        )  # fmt: skip


def scanner_of(talkers: Sequence[Talker]) -> tuple[str, str]:
    """Return (the source whose probes reach most, "" = no probe is seen; `horizontal` or `vertical`).

    Who answers many clients reaches as many ports of them, and is no scanner.
    """
    reached: dict[str, set[tuple[str, int]]] = {}
    for t in talkers:
        if is_probe(t):
            reached.setdefault(t.source, set()).add((t.destination, t.destination_port))
    if not reached:
        return "", "horizontal"
    source = max(sorted(reached), key=lambda s: len(reached[s]))
    hosts = {host for host, _ in reached[source]}
    ports = {port for _, port in reached[source]}
    return source, "vertical" if len(ports) > 2 * len(hosts) else "horizontal"


def is_probe(t: Talker) -> bool:
    """Return whether a sampled record may be a probe: small packets that no handshake follows."""
    if t.octets > PROBE_OCTETS_MAX * max(t.packets, 1):
        return False
    if t.protocol == TCP:
        return not t.tcp_flags & ACK
    return t.protocol != UDP or (t.source_port > 1023 and t.destination_port not in (53, 443))


def _largest_pair(talkers: Sequence[Talker]) -> list[str]:
    octets: dict[tuple[str, str], int] = {}
    for t in talkers:
        octets[t.source, t.destination] = octets.get((t.source, t.destination), 0) + t.octets
    if not octets:
        return []
    pair = max(sorted(octets), key=lambda p: octets[p])
    share = octets[pair] / max(sum(octets.values()), 1)
    return [f"{pair[0]} to {pair[1]} is {share:.0%} of the sample"]
