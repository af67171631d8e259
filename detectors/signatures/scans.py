"""Scans: a prefix whose extra flows reach far more places than usual, with next to no payload."""

import numpy as np

from detectors.detector import Finding, six
from detectors.seasonal import SeasonalBaseline, rates
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
    mature = model.mature(frame, measure)
    value = frame[measure][:rows].astype(np.float64)
    expected = columns.expected[:rows].astype(np.float64) * mature
    usual = {
        name: scores[name].expected[:rows].astype(np.float64) * mature
        for name in ("octets", "packets", "flows")
    }
    extra = {name: rates(frame, name)[:rows] - usual[name] for name in usual}
    wide = (value > SCAN_RATIO * np.maximum(expected, 10.0)) & (
        value - expected > SCAN_DISTINCT_MIN
    )
    many = mature & (columns.z[:rows] > SCAN_Z) & (scores["flows"].z[:rows] > SCAN_Z)
    busy = far_above_like(columns.expected[:rows], mature)
    many |= ~mature & (value > busy)
    # Each extra flow is one or two small packets; a busy host's extra flows carry payload. What the
    # series' usual traffic does beside it stays within its own band.
    rate = np.maximum(extra["flows"], 1e-9)
    room = {
        name: np.where(mature, scores[name].upper[:rows] - scores[name].expected[:rows], 0.0)
        for name in usual
    }
    thin = (extra["packets"] < SCAN_PACKETS_PER_FLOW * rate + room["packets"]) & (
        extra["octets"] < SCAN_OCTETS_PER_FLOW * rate + room["octets"]
    )
    return [
        finding_of(frame, scores, i, measure, "scan", hard=False,
                 p=together([columns, scores["flows"]], i) if mature[i] else unlike(value[i], busy),
                 detail={"distinct_destinations": six(value[i]),
                         "expected_destinations": six(expected[i]),
                         "flows_per_second": six(rates(frame, "flows")[i]),
                         "extra_octets_per_flow": six(max(extra["octets"][i], 0.0) / rate[i]),
                         "young": not mature[i]})
        for i in np.flatnonzero(wide & many & thin).tolist()
    ]  # fmt: skip
