"""Silence: a series that sent nothing for longer than chance or its own habit explains."""

import math

import numpy as np

from detectors import baseline
from detectors.config import DetectionSettings
from detectors.detector import Finding, six
from detectors.seasonal import SILENCE_LOST_MAX, SeasonalBaseline
from detectors.signatures.rows import Scores, finding_of
from telemetry.batch import Batch
from telemetry.schemas import FrameFlag

SILENCE_EXPECTED_MIN = 4.0  # records or flows a tick: below, silence proves little
SILENCE_MISSED_MIN = 24.0  # records that should have come while nothing did: exp(-24) is chance


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
    empty = np.flatnonzero(frame[measure][:-1] == 0)
    if not empty.size:
        return []
    due = scores[measure].expected[empty] * tick_s
    run = model.column(frame, measure, baseline.ZERO_RUN, empty) + 1.0
    most = model.column(frame, measure, baseline.ZERO_RUN_MAX, empty)
    hit = (run >= settings.silent_ticks) & (run > 2 * most) & (due >= SILENCE_EXPECTED_MIN)
    hit &= due * run >= SILENCE_MISSED_MIN
    if not hit.any():
        return []
    hit &= model.mature(frame, measure, empty)
    hit &= frame["lost_share"][empty] <= SILENCE_LOST_MAX
    hit &= (frame["flags"][empty] & FrameFlag.INCOMPLETE) == 0
    name = "exporter_silent" if view == "exporter" else "silence"
    return [
        finding_of(frame, scores, int(empty[i]), measure, name, hard=True,
                 p=math.exp(-min(float(due[i] * run[i]), 690.0)),
                 detail={"ticks": int(run[i]), "expected_per_tick": six(due[i])})
        for i in np.flatnonzero(hit)
    ]  # fmt: skip
