"""Attacks by volume: a prefix that suddenly receives far more than usual."""

import math

import numpy as np

from detectors.detector import Finding, six
from detectors.seasonal import SeasonalBaseline, rates
from detectors.signatures.rows import Scores, far_above_like, finding_of, together, unlike
from telemetry.batch import Batch

ATTACK_RATIO = 1.8
ATTACK_Z = 2.0
ATTACK_OCTETS_PER_SECOND_MIN = 1e6


def attack(frame: Batch, scores: Scores, model: SeasonalBaseline) -> list[Finding]:
    """Find prefixes that suddenly receive far more octets, packets or flows.

    A flash crowd rises as well, and by volume, sources and sizes of flows it cannot be told apart
    for certain: the detail carries the shape of the extra traffic, and the vector, which is in the
    records themselves, is looked at by alerting, which has the sample.
    """
    rows = frame.rows - 1
    if rows == 0:
        return []
    mature = model.mature(frame, "octets")
    value = {m: rates(frame, m)[:rows] for m in ("octets", "packets", "flows")}
    octets, packets, flows = value.values()
    strong = np.zeros(rows, bool)
    for measure in value:
        columns = scores[measure]
        expected = np.maximum(columns.expected[:rows], 1e-9)
        strong |= (
            mature & (value[measure] / expected > ATTACK_RATIO) & (columns.z[:rows] > ATTACK_Z)
        )
    big, busy = octets > ATTACK_OCTETS_PER_SECOND_MIN, math.inf
    if (big & ~mature).any():
        busy = far_above_like(scores["octets"].expected[:rows], mature)
        strong |= ~mature & (octets > busy)
    hits = np.flatnonzero(strong & big)
    found = []
    for i in hits.tolist():
        best = max(("octets", "packets", "flows"), key=lambda m: float(scores[m].z[i]))
        usual = {m: float(scores[m].expected[i]) for m in ("octets", "packets", "flows")}
        extra_octets = max(octets[i] - usual["octets"], 0.0)
        extra_packets = max(packets[i] - usual["packets"], 1e-9)
        extra_flows = max(flows[i] - usual["flows"], 1e-9)
        found.append(
            finding_of(
                frame, scores, i, best, "attack", hard=False,
                p=together([scores[m] for m in ("octets", "packets", "flows")], i)
                if mature[i] else unlike(octets[i], busy),
                detail={
                    "octets_per_second": six(octets[i]),
                    "packets_per_second": six(packets[i]),
                    "flows_per_second": six(flows[i]),
                    "distinct_sources": six(frame["distinct_source"][i]),
                    "expected_octets_per_second": six(usual["octets"]),
                    "expected_distinct_sources": six(scores["distinct_source"].expected[i]),
                    "extra_octets_per_packet": six(extra_octets / extra_packets),
                    "extra_packets_per_flow": six(extra_packets / extra_flows),
                    "young": not mature[i],
                },
            )
        )  # fmt: skip
    return found
