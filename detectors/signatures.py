"""Detectors that look at several columns of a frame at once: silence, attack, scan, slow rise.

Each is a plain rule on arrays with its limits as named numbers. What a rule calls hard was stated by
the network itself and stands outside the alert budget; the others bring a p-value into it.

A series too young for a baseline of its own is held against its like: it must stand far above what
the busiest mature series of its view are expected to do.
"""

import math

import numpy as np
from numpy.typing import NDArray

from detectors import baseline, calibration
from detectors.config import DetectionSettings
from detectors.detector import Finding, ScoreColumns
from detectors.seasonal import SILENCE_LOST_MAX, SeasonalBaseline, rates
from telemetry.batch import Batch
from telemetry.schemas import FrameFlag

SILENCE_EXPECTED_MIN = 4.0  # records or flows a tick: below, silence proves little
SILENCE_MISSED_MIN = 24.0  # records that should have come while nothing did: exp(-24) is chance
ATTACK_RATIO = 1.8
ATTACK_Z = 2.0
ATTACK_OCTETS_PER_SECOND_MIN = 1e6
SCAN_RATIO = 2.5
SCAN_Z = 1.5
SCAN_DISTINCT_MIN = 60.0
SCAN_PACKETS_PER_FLOW = 400.0  # packets a record of sampled exports stands for at most
SCAN_OCTETS_PER_FLOW = 4e4
YOUNG_FACTOR = 4.0  # over the busiest 1 % of mature series of the view
MATURE_MIN = 20
RISE_Z = 4.0
RISE_STEEPNESS_MAX = (
    0.2  # in five minutes, of the whole rise: a step of any height shows .25 or more
)
RISE_LEVEL_ERROR = 0.05
RISE_OCTETS_PER_SECOND_MIN = 1e5

# The p-value of the least that is a finding of each signature.
P_LEAST = {"attack": 0.06, "scan": 0.14, "trend": 3.2e-5}

Scores = dict[str, ScoreColumns]


def silent(
    frame: Batch, scores: Scores, model: SeasonalBaseline, settings: DetectionSettings, view: str
) -> list[Finding]:
    """Find series that fell silent: no record for more ticks than ever before, where many were due.

    The chance of an empty tick with `expected` records is exp(-expected) at most; the longest
    silence seen so far guards against exporters that send in bursts. Blind to series with fewer
    than 4 records a tick; one with fewer than 12 takes more than two ticks.
    """
    measure = "records" if view == "exporter" else "flows"
    tick_s = float(frame["tick_seconds"][0])
    due = scores[measure].expected[:-1] * tick_s
    empty = frame[measure][:-1] == 0
    run = (model.column(frame, measure, baseline.ZERO_RUN) + 1.0) * empty
    most = model.column(frame, measure, baseline.ZERO_RUN_MAX)
    hit = (run >= settings.silent_ticks) & (run > 2 * most) & (due >= SILENCE_EXPECTED_MIN)
    hit &= due * run >= SILENCE_MISSED_MIN
    hit &= model.mature(frame, measure)
    hit &= frame["lost_share"][:-1] <= SILENCE_LOST_MAX
    hit &= (frame["flags"][:-1] & FrameFlag.INCOMPLETE) == 0
    name = "exporter_silent" if view == "exporter" else "silence"
    return [
        _finding(frame, scores, int(i), measure, name, hard=True,
                 p=math.exp(-min(float(due[i] * run[i]), 690.0)),
                 detail={"ticks": int(run[i]), "expected_per_tick": _round(due[i])})
        for i in np.flatnonzero(hit)
    ]  # fmt: skip


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
    strong = np.zeros(rows, bool)
    for measure in ("octets", "packets", "flows"):
        columns = scores[measure]
        value = rates(frame, measure)[:rows]
        expected = np.maximum(columns.expected[:rows], 1e-9)
        strong |= mature & (value / expected > ATTACK_RATIO) & (columns.z[:rows] > ATTACK_Z)
    octets = rates(frame, "octets")[:rows]
    packets = rates(frame, "packets")[:rows]
    flows = rates(frame, "flows")[:rows]
    busy = _far_above_like(scores["octets"].expected[:rows], mature)
    strong |= ~mature & (octets > busy)
    hits = np.flatnonzero(strong & (octets > ATTACK_OCTETS_PER_SECOND_MIN))
    found = []
    for i in hits.tolist():
        best = max(("octets", "packets", "flows"), key=lambda m: float(scores[m].z[i]))
        usual = {m: float(scores[m].expected[i]) for m in ("octets", "packets", "flows")}
        extra_octets = max(octets[i] - usual["octets"], 0.0)
        extra_packets = max(packets[i] - usual["packets"], 1e-9)
        extra_flows = max(flows[i] - usual["flows"], 1e-9)
        found.append(
            _finding(
                frame, scores, i, best, "attack", hard=False,
                p=_together([scores[m] for m in ("octets", "packets", "flows")], i)
                if mature[i] else _unlike(octets[i], busy),
                detail={
                    "octets_per_second": _round(octets[i]),
                    "packets_per_second": _round(packets[i]),
                    "flows_per_second": _round(flows[i]),
                    "distinct_sources": _round(frame["distinct_source"][i]),
                    "expected_octets_per_second": _round(usual["octets"]),
                    "expected_distinct_sources": _round(scores["distinct_source"].expected[i]),
                    "extra_octets_per_packet": _round(extra_octets / extra_packets),
                    "extra_packets_per_flow": _round(extra_packets / extra_flows),
                    "young": not mature[i],
                },
            )
        )  # fmt: skip
    return found


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
    busy = _far_above_like(columns.expected[:rows], mature)
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
        _finding(frame, scores, i, measure, "scan", hard=False,
                 p=_together([columns, scores["flows"]], i) if mature[i] else _unlike(value[i], busy),
                 detail={"distinct_destinations": _round(value[i]),
                         "expected_destinations": _round(expected[i]),
                         "flows_per_second": _round(rates(frame, "flows")[i]),
                         "extra_octets_per_flow": _round(max(extra["octets"][i], 0.0) / rate[i]),
                         "young": not mature[i]})
        for i in np.flatnonzero(wide & many & thin).tolist()
    ]  # fmt: skip


def rising(
    frame: Batch, scores: Scores, model: SeasonalBaseline, settings: DetectionSettings
) -> list[Finding]:
    """Find volumes that rise slowly and steadily over their profile: a leak, or a new customer.

    The baseline keeps two averages of actual / expected, of ten minutes and of an hour. A rise is
    told when the short one stayed above 1.3 for `leak_seconds`, lies above the long one, and never
    went up by more than a fifth of its rise within five minutes: a step does, whatever its height
    (averages of 10 and of 5 minutes in a row show a quarter of it at their steepest). Its p-value
    counts the noise of the average and of the profile itself: a profile of few visits
    proves little. Blind to what rises by less than 30 % before the slow level (a day) has followed.
    """
    measure = "octets"
    rows = frame.rows - 1
    if rows == 0:
        return []
    fast = model.column(frame, measure, baseline.FAST).astype(np.float64)
    slow = model.column(frame, measure, baseline.SLOW).astype(np.float64)
    since = model.column(frame, measure, baseline.SINCE)
    steepest = model.column(frame, measure, baseline.STEEPEST)
    value = rates(frame, measure)[:rows]
    hit = (since >= settings.leak_seconds) & (fast > slow)
    hit &= steepest <= RISE_STEEPNESS_MAX * (fast - 1.0)
    hit &= value > RISE_OCTETS_PER_SECOND_MIN
    candidates = np.flatnonzero(hit)
    if not candidates.size:
        return []
    tick_s = float(frame["tick_seconds"][0])
    base = np.abs(model.column(frame, measure, baseline.BASE)).astype(np.float64)
    square = model.column(frame, measure, baseline.SQUARE).astype(np.float64)
    doubt = model.column(frame, measure, baseline.DOUBT).astype(np.float64)
    found = []
    for i in candidates.tolist():
        one_tick = math.sqrt(square[i] / (max(base[i], 1e-9) * tick_s))
        error = math.sqrt(
            one_tick**2 * tick_s / 1200.0 + one_tick**2 * doubt[i] + RISE_LEVEL_ERROR**2
        )
        z = (fast[i] - 1.0) / error
        if z >= RISE_Z:
            found.append(
                _finding(frame, scores, i, measure, "trend", hard=False,
                         p=0.5 * math.erfc(min(z, 37.0) / math.sqrt(2.0)),
                         expected=float(base[i]),
                         detail={"ratio": _round(fast[i]), "ratio_an_hour": _round(slow[i]),
                                 "since_seconds": _round(since[i]), "z": _round(z)})
            )  # fmt: skip
    return found


def _far_above_like(expected: NDArray[np.float32], mature: NDArray[np.bool_]) -> float:
    """Return what a young series must exceed; infinite where too few mature ones are known."""
    if int(mature.sum()) < MATURE_MIN:
        return math.inf
    return YOUNG_FACTOR * float(np.quantile(expected[mature], 0.99))


def _together(columns: list[ScoreColumns], i: int) -> float:
    """Return one p-value of several measures of one row: Bonferroni over the smallest."""
    return min(1.0, len(columns) * min(float(one.p_value[i]) for one in columns))


def _unlike(value: float, busy: float) -> float:
    """Return how rarely a series of this kind is so busy: the prior tail beyond the busiest 1 %."""
    over: float = YOUNG_FACTOR * value / max(busy, 1e-9)
    rarity: float = 0.01 * max(over, 1.0) ** -calibration.TAIL_FIRST
    return rarity


def _finding(
    frame: Batch, scores: Scores, i: int, measure: str, detector: str, *, hard: bool, p: float,
    detail: dict[str, object], expected: float | None = None,
) -> Finding:  # fmt: skip
    columns = scores[measure]
    p = max(p, 1e-300)
    return Finding(
        i,
        measure,
        detector,
        hard,
        float(rates(frame, measure)[i]),
        float(columns.expected[i]) if expected is None else expected,
        float(columns.lower[i]),
        float(columns.upper[i]),
        max(float(np.nan_to_num(columns.score[i])), -math.log10(p)),
        p,
        detail,
    )


def _round(value: float) -> float:
    return float(f"{float(value):.6g}")
