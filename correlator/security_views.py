"""The views of security: few records, told apart by what they might be part of; see suspects_kernels.

None of them is scored by a baseline: the detectors of `detectors.security` keep what they need. A key
is a host (or a host and one number), so a view holds what spoke in one tick only, a host gets a row
when it speaks up (`FLOWS_MIN`), and one that was silent for `idle_seconds` gives it back.
"""

from runtime.settings import PositiveSeconds, Settings
from telemetry.security import FLOWS_MIN
from telemetry.views import Measure, View, Where

_FLOWS = Measure(name="flows", function="count", unit="{flow}")
_OCTETS = Measure(name="octets", function="sum", of=("octets",), weighted=True, unit="By")
_PACKETS = Measure(name="packets", function="sum", of=("packets",), weighted=True, unit="{packet}")
_TARGETS = Measure(
    name="distinct_destination", function="distinct", of=("destination_address", "destination_port")
)
_SOURCES = Measure(name="distinct_source", function="distinct", of=("source_address",))
_HOUR = 3600.0


class SecurityViewsSettings(Settings, frozen=True, kw_only=True):
    """`[views.security]`: what the security classes look at; see docs/detection.md."""

    # false: no scans, floods, brute force, beacons, tunnels, uploads are looked for.
    enabled: bool = True
    beacons: bool = True  # regular call-backs; with uploads the largest table where nobody samples
    uploads: bool = True  # who sends out more than is usual for it
    contact_tick_seconds: PositiveSeconds = 300.0  # beacons: the grid on which regularity is judged
    slow_tick_seconds: PositiveSeconds = 3600.0  # slow scans: targets are counted over so long


def security_views(
    settings: SecurityViewsSettings, *, tick_seconds: float, lateness_seconds: float
) -> tuple[View, ...]:
    """Return the views that these settings ask for."""
    if not settings.enabled:
        return ()

    def view(
        name: str, key: tuple[str, ...], where: Where, *measures: Measure, keys: int = 4_096,
        talkers: int = 128, by_octets: bool = False, tick: float = tick_seconds,
        idle: float = 6 * _HOUR,
    ) -> View:  # fmt: skip
        return View(
            name=name, key=key, measures=(_FLOWS, _OCTETS, *measures), tick_seconds=tick,
            lateness_seconds=lateness_seconds, keys_per_tick_max=keys, series_max=2 * keys,
            talkers=talkers, talkers_by="octets" if by_octets else "flows", where=where,
            sparse=True, flows_min=FLOWS_MIN.get(name, 1), idle_seconds=idle,
        )  # fmt: skip

    slow = max(settings.slow_tick_seconds, tick_seconds)
    contact = max(settings.contact_tick_seconds, tick_seconds)
    source = ("source_address",)
    made = [
        view("probe", source, "probe", _TARGETS),
        view("slow_probe", source, "probe", _TARGETS, tick=slow, talkers=256, idle=48 * _HOUR),
        view("login", (*source, "destination_port"), "login", _TARGETS),
        view("query", source, "query", _PACKETS, _TARGETS),
        view("vector", ("destination_prefix", "vector"), "vector", _PACKETS, _SOURCES),
        view("bogon", ("exporter", "ingress_interface"), "bogon", _SOURCES, keys=2_048),
        view("lone", ("exporter", "ingress_interface"), "lone", _SOURCES, keys=2_048, talkers=256),
    ]
    if settings.beacons:
        size = Measure(name="octets_m2", function="m2", of=("octets",), weighted=True)
        made.append(
            view(
                "contact",
                (*source, "destination_peer"),
                "contact",
                size,
                keys=16_384,
                tick=contact,
                idle=12 * _HOUR,
            )
        )
    if settings.uploads:
        made.append(
            view("upload", source, "upload", _TARGETS, keys=16_384, by_octets=True, idle=24 * _HOUR)
        )
    return tuple(made)
