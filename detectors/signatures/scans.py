"""Scans: a prefix whose extra flows reach far more places than usual, with next to no payload."""

import math

import numpy as np

from detectors.detector import Finding, six
from detectors.seasonal import SeasonalBaseline, rate, rates
from detectors.signatures.rows import Scores, far_above_like, finding_of, together, unlike
from telemetry.batch import Batch

SCAN_RATIO = 2.5
SCAN_Z = 1.5
SCAN_DISTINCT_MIN = 60.0
SCAN_PACKETS_PER_FLOW = 400.0  # packets a record of sampled exports stands for at most
SCAN_OCTETS_PER_FLOW = 4e4


def scan(frame: Batch, scores: Scores, model: SeasonalBaseline) -> list[Finding]:
    """Find sources that reach far more (address, port) pairs than usual with next to no payload.

    Blind to scans of fewer than 60 pairs a tick, and to those from many prefixes at once.
    """
    measure = "distinct_destination"
    rows = frame.rows - 1
    if rows == 0:
        return []
    columns = scores[measure]
    known = model.mature(frame, measure)
    value = frame[measure][:rows].astype(np.float64)
    expected = columns.expected[:rows].astype(np.float64) * known
    wide = np.flatnonzero(
        (value > SCAN_RATIO * np.maximum(expected, 10.0)) & (value - expected > SCAN_DISTINCT_MIN)
    )
    if not wide.size:
        return []
    mature, value, expected = known[wide], value[wide], expected[wide]
    usual = {
        name: scores[name].expected[wide].astype(np.float64) * mature
        for name in ("octets", "packets", "flows")
    }
    extra = {name: rates(frame, name, wide) - usual[name] for name in usual}
    many = mature & (columns.z[wide] > SCAN_Z) & (scores["flows"].z[wide] > SCAN_Z)
    busy = math.inf if mature.all() else far_above_like(columns.expected[:rows], known)
    many |= ~mature & (value > busy)
    # Each extra flow is one or two small packets; a busy host's extra flows carry payload. What the
    # series' usual traffic does beside it stays within its own band.
    added = np.maximum(extra["flows"], 1e-9)
    room = {
        name: np.where(mature, scores[name].upper[wide] - scores[name].expected[wide], 0.0)
        for name in usual
    }
    thin = (extra["packets"] < SCAN_PACKETS_PER_FLOW * added + room["packets"]) & (
        extra["octets"] < SCAN_OCTETS_PER_FLOW * added + room["octets"]
    )
    return [
        finding_of(frame, scores, row, measure, "scan", hard=False,
                 p=together([columns, scores["flows"]], row) if mature[i] else unlike(value[i], busy),
                 detail={"distinct_destinations": six(value[i]),
                         "expected_destinations": six(expected[i]),
                         "flows_per_second": six(rate(frame, "flows", row)),
                         "extra_octets_per_flow": six(max(extra["octets"][i], 0.0) / added[i]),
                         "young": not mature[i]})
        for i, row in zip(np.flatnonzero(many & thin).tolist(), wide[many & thin].tolist(), strict=True)
    ]  # fmt: skip
