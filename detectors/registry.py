"""The detectors that can be set beside the baseline, by the `kind` of their table `[detection.also.NAME]`.

A detector is one module: a class that keeps the contract (`detectors.detector.Detector`), and a
`Part` that makes one for each view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detectors.config import AlsoSettings, DetectionSettings
from runtime.registry import Registry
from telemetry.views import View

if TYPE_CHECKING:  # the names of kinds are known without what they need
    from detectors.detector import Detector

    MakeDetector = Callable[[View, DetectionSettings, Any], Detector]

DETECTORS: Registry[MakeDetector] = Registry(
    "tocsin.detectors",
    {
        "river": "detectors.river_scores:DETECTOR",
        "seasonal": "detectors.seasonal:DETECTOR",
        "series": "detectors.series_detector:DETECTOR",
        "threshold": "detectors.threshold:DETECTOR",
        "rate": "detectors.looks:RATE",
        "variance": "detectors.looks:VARIANCE",
        "distribution": "detectors.looks:DISTRIBUTION",
        "sums": "detectors.looks:SUMS",
        "drift": "detectors.looks:DRIFT",
        "arrival": "detectors.looks:ARRIVAL",
        "group": "detectors.groups:DETECTOR",
    },
)


def make_detector(also: AlsoSettings, view: View, settings: DetectionSettings) -> Detector:
    """Return the detector that the settings describe for one view, or raise ConfigError."""
    part = DETECTORS.get(also.kind)
    return part.make(view, settings, part.read(also.options))
