"""Limits of series: which one a series has, and as what it is compared.

A limit is a number, a share of an interface's speed, a multiple of what is usual, or of what another series of
the same entity states. Of the limits that fit a series the first counts.
"""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass

from detectors.config import LimitSettings
from runtime.ports import NetworkMap, SeriesKey
from telemetry.errors import ConfigError
from telemetry.views import View

CAPACITY, USUAL, SPEED = "capacity", "usual", "speed"


@dataclass(frozen=True, slots=True)
class Found:
    """The limit of one series."""

    name: str
    sign: float  # 1: above, -1: below
    logs: bool  # values are kept as logarithms, and so is the limit
    value: float
    usual_times: float  # times the usual value that is added to it
    source: str  # metric of the same entity that states it, "" = none; `value` means nothing then


def first(
    limits: Mapping[str, LimitSettings], key: SeriesKey, network: NetworkMap | None
) -> Found | None:
    """Return the first limit that fits a series, None where none does or the speed is not known."""
    for name, limit in limits.items():
        found = _of(name, limit, key, network)
        if found is not None:
            return found
    return None


def _of(
    name: str, limit: LimitSettings, key: SeriesKey, network: NetworkMap | None
) -> Found | None:
    metric = key.key.get("metric", "")
    if not fnmatch.fnmatchcase(key.entity, limit.entity):
        return None
    if metric and not fnmatch.fnmatchcase(metric, limit.metric):
        return None
    factor, side, logs = _factor(limit), sign(limit), limit.of in (CAPACITY, USUAL)
    if limit.of == "":
        return Found(name, side, logs, factor, 0.0, "")
    if limit.of == USUAL:
        return Found(name, side, logs, math.log(factor), 1.0, "")
    if limit.of != CAPACITY or metric:
        return Found(name, side, logs, 0.0, 0.0, SPEED if limit.of == CAPACITY else limit.of)
    exporter, index = key.key.get("exporter", ""), key.key.get("interface", "")
    face = network.interface(exporter, int(index)) if network and index else None
    if face is None or face.speed_bits_per_second <= 0:
        return None
    return Found(name, side, logs, math.log(factor * face.speed_bits_per_second / 8), 0.0, "")


def stated(limit: LimitSettings, value: float) -> float:
    """Return the limit, as it is compared, where the series that states it has this value."""
    size = _factor(limit) * value / (8.0 if limit.of == CAPACITY else 1.0)
    return math.log(max(size, 1.0)) if limit.of == CAPACITY else size


def source_of(key: SeriesKey | None) -> tuple[str, str] | None:
    """Return as what a series may state limits, (metric, entity); None where it cannot."""
    metric = key.key.get("metric", "") if key is not None else ""
    return (metric, key.entity) if key is not None and metric else None


def sign(limit: LimitSettings) -> float:
    """Return 1 where the limit is above, -1 where it is below."""
    return 1.0 if limit.above is not None else -1.0


def _factor(limit: LimitSettings) -> float:
    factor = limit.above if limit.above is not None else limit.below
    assert factor is not None
    return factor


def check(name: str, limit: LimitSettings, views: Mapping[str, View]) -> None:
    """Raise ConfigError for a limit on what is not there, or on no side or both."""
    where = f"detection.forecast.limits.{name}"
    if limit.view not in views:
        raise ConfigError(f"{where}: view {limit.view!r} is none of {', '.join(views)}")
    if limit.measure not in views[limit.view].scored:
        raise ConfigError(
            f"{where}: measure {limit.measure!r} of view {limit.view!r} is none of "
            f"{', '.join(views[limit.view].scored)}"
        )
    if (limit.above is None) == (limit.below is None):
        raise ConfigError(f"{where}: give `above` or `below`, one of them")
    if limit.of in (CAPACITY, USUAL) and _factor(limit) <= 0.0:
        raise ConfigError(
            f"{where}: {_factor(limit):g} times {limit.of} is no limit; give a number above 0, or leave `of` out"
        )
