"""Detectors that look at several columns of a frame at once: silence, attack, scan, slow rise.

Each is a plain rule on arrays with its limits as named numbers. What a rule calls hard was stated by
the network itself and stands outside the alert budget.
"""

import numpy as np
from numpy.typing import NDArray

from detectors import baseline
from detectors.config import DetectionSettings
from detectors.detector import Finding, ScoreColumns
from detectors.seasonal import SeasonalBaseline, rates
from telemetry.batch import Batch
from telemetry.schemas import FrameFlag

SILENCE_EXPECTED_MIN = 12.0  # records or flows a tick: below, an empty tick proves little
ATTACK_RATIO = 1.8
ATTACK_Z = 2.0
ATTACK_OCTETS_PER_SECOND_MIN = 1e6
SCAN_RATIO = 2.5
SCAN_DISTINCT_MIN = 60.0
SCAN_OCTETS_PER_PACKET_MAX = 120.0

Scores = dict[str, ScoreColumns]


def silent(
    frame: Batch, scores: Scores, model: SeasonalBaseline, settings: DetectionSettings, view: str
) -> list[Finding]:
    """Find series that fell silent: no record for more ticks than ever before, where many were due.

    The chance of an empty tick with `expected` records is exp(-expected) at most; the longest
    silence seen so far guards against exporters that send in bursts.
    """
    measure = "records" if view == "exporter" else "flows"
    tick_s = float(frame["tick_seconds"][0])
    due = scores[measure].expected[:-1] * tick_s
    run = model.column(frame, measure, baseline.ZERO_RUN)
    most = model.column(frame, measure, baseline.ZERO_RUN_MAX)
    age = model.column(frame, measure, baseline.SEEN)
    hit = (run >= settings.silent_ticks) & (run > 2 * most) & (due >= SILENCE_EXPECTED_MIN)
    hit &= (age >= settings.warmup_ticks) & ((frame["flags"][:-1] & FrameFlag.INCOMPLETE) == 0)
    name = "exporter_silent" if view == "exporter" else "silence"
    return [
        _finding(frame, scores, int(i), measure, name, hard=True, p=float(np.exp(-due[i])),
                 detail={"ticks": int(run[i])})
        for i in np.flatnonzero(hit)
    ]  # fmt: skip


def attack(frame: Batch, scores: Scores) -> list[Finding]:
    """Find prefixes that suddenly receive far more: octets or packets, from far more sources.

    A flash crowd rises as well; what tells them apart (the vector) is in the records themselves and
    is looked at by alerting, which has the sample.
    """
    found = []
    strong = np.zeros(frame.rows - 1, bool)
    for measure in ("octets", "packets", "flows"):
        columns = scores[measure]
        value = rates(frame, measure)[:-1]
        expected = np.maximum(columns.expected[:-1], 1e-9)
        strong |= (value / expected > ATTACK_RATIO) & (columns.z[:-1] > ATTACK_Z)
    octets = rates(frame, "octets")[:-1]
    packets = rates(frame, "packets")[:-1]
    enough = octets > ATTACK_OCTETS_PER_SECOND_MIN
    for i in np.flatnonzero(strong & enough):
        best = max(("octets", "packets", "flows"), key=lambda m: float(scores[m].z[i]))
        found.append(
            _finding(
                frame, scores, int(i), best, "attack", hard=False,
                p=_convinced(float(scores[best].z[i])),
                detail={
                    "octets_per_second": _round(octets[i]),
                    "packets_per_second": _round(packets[i]),
                    "distinct_sources": _round(frame["distinct_source"][i]),
                    "expected_octets_per_second": _round(scores["octets"].expected[i]),
                },
            )
        )  # fmt: skip
    return found


def scan(frame: Batch, scores: Scores) -> list[Finding]:
    """Find sources that reach far more (address, port) pairs than usual with next to no payload."""
    measure = "distinct_destination"
    columns = scores[measure]
    value = frame[measure][:-1]
    expected = columns.expected[:-1].astype(np.float64)
    extra_octets = rates(frame, "octets")[:-1] - scores["octets"].expected[:-1]
    extra_packets = rates(frame, "packets")[:-1] - scores["packets"].expected[:-1]
    extra_flows = rates(frame, "flows")[:-1] - scores["flows"].expected[:-1]
    flows_z = scores["flows"].z[:-1]
    wide = (value > SCAN_RATIO * np.maximum(expected, 10.0)) & (
        value - expected > SCAN_DISTINCT_MIN
    )
    many = (columns.z[:-1] > 1.5) & (flows_z > 1.5)
    # Each extra flow is one or two small packets; a busy host's extra flows carry payload.
    rate = np.maximum(extra_flows, 1e-9)
    thin = (extra_packets < 400.0 * rate) & (
        extra_octets < 0.5 * np.maximum(scores["octets"].expected[:-1], 1.0) + 4e4 * rate
    )
    return [
        _finding(frame, scores, int(i), measure, "scan", hard=False,
                 p=_convinced(float(columns.z[i])),
                 detail={"distinct_destinations": _round(value[i]),
                         "expected_destinations": _round(expected[i])})
        for i in np.flatnonzero(wide & many & thin)
    ]  # fmt: skip


class Rising:
    """Find volumes that rise slowly and steadily over their expectation: a leak, or a new customer.

    Keeps two averages of actual / expected for each series, of ten minutes and of an hour; says so
    when the short one stays above `leak_ratio` for `leak_seconds` while the long one was lower all
    along. Blind to what rises by less than the ratio before the level has learned it.
    """

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings
        self.fast = np.ones(0, np.float32)
        self.slow = np.ones(0, np.float32)
        self.since_s = np.zeros(0, np.float32)
        self.jump = np.zeros(0, np.float32)

    def step(self, frame: Batch, scores: Scores, fresh: NDArray[np.bool_]) -> list[Finding]:
        """Advance by one tick and return the series that rise."""
        measure = "octets"
        rows = frame["row"][:-1].astype(np.int64)
        if rows.size and int(rows.max()) >= len(self.fast):
            more = int(rows.max()) + 1 + len(self.fast) // 2 - len(self.fast)
            self.fast = np.append(self.fast, np.ones(more, np.float32))
            self.slow = np.append(self.slow, np.ones(more, np.float32))
            self.since_s = np.append(self.since_s, np.zeros(more, np.float32))
            self.jump = np.append(self.jump, np.zeros(more, np.float32))
        tick_s = float(frame["tick_seconds"][0])
        expected = scores[measure].expected[:-1].astype(np.float64)
        value = rates(frame, measure)[:-1]
        ratio = np.where(expected > 0, value / np.maximum(expected, 1e-9), 1.0).clip(0.0, 5.0)
        ratio[fresh] = 1.0
        self.fast[rows[fresh]] = 1.0
        self.slow[rows[fresh]] = 1.0
        fast, slow = self.fast[rows], self.slow[rows]
        fast += np.float32(tick_s / (600.0 + tick_s)) * (ratio.astype(np.float32) - fast)
        slow += np.float32(tick_s / (3600.0 + tick_s)) * (ratio.astype(np.float32) - slow)
        high = fast > self._settings.leak_ratio
        since = np.where(high, self.since_s[rows] + np.float32(tick_s), np.float32(0.0))
        self.fast[rows], self.slow[rows], self.since_s[rows] = fast, slow, since
        # How high the fast average stood over the slow one when it crossed: steps stand far above.
        began = high & (since <= tick_s * 1.5)
        self.jump[rows[began]] = fast[began] - slow[began]
        hit = (since >= self._settings.leak_seconds) & (fast > slow) & (self.jump[rows] < 0.22)
        hit &= value > 1e5
        return [
            _finding(frame, scores, int(i), measure, "trend", hard=False, p=1e-12,
                     detail={"ratio": _round(fast[i]), "ratio_an_hour": _round(slow[i]),
                             "since_seconds": _round(since[i])})
            for i in np.flatnonzero(hit)
        ]  # fmt: skip


def _finding(
    frame: Batch, scores: Scores, i: int, measure: str, detector: str, *, hard: bool, p: float,
    detail: dict[str, object],
) -> Finding:  # fmt: skip
    columns = scores[measure]
    return Finding(
        i,
        measure,
        detector,
        hard,
        float(rates(frame, measure)[i]),
        float(columns.expected[i]),
        float(columns.lower[i]),
        float(columns.upper[i]),
        max(float(columns.score[i]), abs(float(columns.z[i]))),
        max(p, 1e-300),
        detail,
    )


def _convinced(z: float) -> float:
    """Return a p-value for a deviation of z thresholds; each threshold is about one in 10,000."""
    return float(np.exp(-9.0 * min(max(z, 0.0), 30.0) / 2.0))


def _round(value: float) -> float:
    return float(f"{float(value):.6g}")
