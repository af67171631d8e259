"""The views that ship, what Tocsin looks at with no configuration at all; and those of users."""

from typing import Annotated, Literal

import msgspec

from correlator.keys import DERIVED, SHIPPED, packing_of
from runtime.settings import PositiveInt, PositiveSeconds, Seconds, Settings
from telemetry.errors import ConfigError
from telemetry.views import Measure, View

SampledSeries = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
_OCTETS = Measure(
    name="octets", function="sum", of=("octets",), weighted=True, scored=True, unit="By"
)
_PACKETS = Measure(
    name="packets", function="sum", of=("packets",), weighted=True, scored=True, unit="{packet}"
)
_FLOWS = Measure(name="flows", function="count", scored=True, unit="{flow}")
_SIZE = (
    Measure(name="octets_min", function="min", of=("octets",), weighted=True, unit="By"),
    Measure(name="octets_max", function="max", of=("octets",), weighted=True, unit="By"),
    Measure(name="octets_mean", function="mean", of=("octets",), weighted=True, unit="By"),
    Measure(name="octets_m2", function="m2", of=("octets",), weighted=True),
)


_MEASURES = {
    measure.name: measure
    for measure in (
        _OCTETS,
        _PACKETS,
        _FLOWS,
        *_SIZE,
        Measure(name="distinct_source", function="distinct", of=("source_address",), scored=True),
        Measure(
            name="distinct_destination",
            function="distinct",
            of=("destination_address", "destination_port"),
            scored=True,
        ),
        Measure(name="entropy_destination", function="entropy", of=("destination_address",)),
    )
}
WIDE_KEYS_MAX = 4_096  # of a view whose rows hold more than 64 bytes of sketches


class OwnViewSettings(Settings, frozen=True, kw_only=True):
    """`[views.own.NAME]`: a view of the user's own, over flow records."""

    key: tuple[str, ...]  # such as ["source_as", "destination_as"], ["exporter", "vlan_id"]
    # what is counted by that key: docs/extend.md lists them
    measures: tuple[str, ...] = ("octets", "packets", "flows")
    keys_per_tick_max: PositiveInt = 4096  # more keys than that in a tick are one row, __other__
    talkers: int = 0  # size of the sample of records kept as evidence for each tick


def own_view(
    name: str, settings: OwnViewSettings, *, tick_seconds: float, lateness_seconds: float
) -> View:
    """Return a user's view, or raise ConfigError that says what is wrong with it."""
    place = f"views.own.{name}"
    if settings.key in SHIPPED:
        raise ConfigError(f"{place}: a view with this key ships with Tocsin; give it no second one")
    try:
        if derived := [part for part in settings.key if part in DERIVED]:
            raise ConfigError(f"key part {derived[0]!r} is of the security views only")
        packing_of(settings.key)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    unknown = [measure for measure in settings.measures if measure not in _MEASURES]
    if unknown or not settings.measures:
        raise ConfigError(
            f"{place}: measure {', '.join(unknown) or '(none)'} is none of {', '.join(_MEASURES)}"
        )
    measures = [_MEASURES[measure] for measure in dict.fromkeys(settings.measures)]
    if not any(measure.function == "count" for measure in measures):
        measures.append(msgspec.structs.replace(_FLOWS, scored=False))
    if len([measure for measure in measures if measure.function == "distinct"]) > 1:
        raise ConfigError(f"{place}: distinct is counted of one thing only")
    wide = any(measure.function == "entropy" for measure in measures)
    if wide and settings.keys_per_tick_max > WIDE_KEYS_MAX:
        raise ConfigError(
            f"{place}: entropy takes 1 KB a row, so keys_per_tick_max may be {WIDE_KEYS_MAX} at most"
        )
    return View(
        name=name,
        key=settings.key,
        measures=tuple(measures),
        tick_seconds=tick_seconds,
        lateness_seconds=lateness_seconds,
        keys_per_tick_max=settings.keys_per_tick_max,
        series_max=settings.keys_per_tick_max,
        talkers=settings.talkers,
    )


def views_for(*, tick_seconds: float = 60.0, lateness_seconds: float = 30.0) -> tuple[View, ...]:
    """Return the default flow views with this tick and lateness."""

    def view(
        name: str, key: tuple[str, ...], *measures: Measure, keys: int, talkers: int,
        talkers_by: Literal["octets", "flows"] = "octets",
    ) -> View:  # fmt: skip
        return View(
            name=name,
            key=key,
            measures=measures,
            tick_seconds=tick_seconds,
            lateness_seconds=lateness_seconds,
            keys_per_tick_max=keys,
            series_max=keys,
            talkers=talkers,
            talkers_by=talkers_by,
        )

    return (
        view(
            "exporter",
            ("exporter",),
            Measure(name="records", function="count", scored=True, unit="{record}"),
            _OCTETS,
            Measure(name="datagrams", function="sum", unit="{datagram}"),
            Measure(name="lost", function="sum", unit="{unit}"),
            keys=4_096,
            talkers=0,
        ),
        view(
            "interface",
            ("exporter", "interface", "direction"),
            _OCTETS,
            _PACKETS,
            _FLOWS,
            *_SIZE,
            keys=16_384,
            talkers=512,
        ),
        view(
            "service",
            ("protocol", "port_class"),
            _OCTETS,
            _PACKETS,
            _FLOWS,
            Measure(name="distinct_source", function="distinct", of=("source_address",)),
            Measure(name="entropy_destination", function="entropy", of=("destination_address",)),
            keys=2_048,
            talkers=256,
        ),
        view(
            "source_prefix",
            ("source_prefix",),
            _OCTETS,
            _PACKETS,
            _FLOWS,
            Measure(
                name="distinct_destination",
                function="distinct",
                of=("destination_address", "destination_port"),
                scored=True,
            ),
            keys=16_384,
            talkers=512,
            talkers_by="flows",
        ),
        view(
            "destination_prefix",
            ("destination_prefix",),
            _OCTETS,
            _PACKETS,
            _FLOWS,
            Measure(
                name="distinct_source", function="distinct", of=("source_address",), scored=True
            ),
            keys=16_384,
            talkers=512,
        ),
    )


class SampleViewSettings(Settings, frozen=True, kw_only=True):
    """`[views.samples]`: sampled series, such as polled counters."""

    tick_seconds: Seconds = 0.0  # 0 = as views.tick_seconds, but 60 at most
    lateness_seconds: Seconds = 5.0  # a tick waits so long for samples that come late
    series_max: SampledSeries = 100_000  # more are counted, and not followed


class SlowSampleViewSettings(Settings, frozen=True, kw_only=True):
    """`[views.slow_samples]`: what comes each quarter of an hour, such as PM files."""

    tick_seconds: PositiveSeconds = 900.0  # the granularity period of PM files
    lateness_seconds: Seconds = 600.0  # files come so long after their period
    series_max: SampledSeries = 20_000  # more are counted, and not followed


def sample_view(name: str, settings: SampleViewSettings | SlowSampleViewSettings) -> View:
    """Return a view of sampled series: one measure, `value`."""
    return View(
        name=name,
        source="sample",
        key=("series",),
        measures=(Measure(name="value", function="mean", scored=True),),
        tick_seconds=settings.tick_seconds,
        lateness_seconds=settings.lateness_seconds,
        keys_per_tick_max=settings.series_max,
        series_max=settings.series_max,
    )


def windows_bytes(
    views: tuple[View, ...], *, shards: int = 1, open_ticks: int = 2
) -> dict[str, int]:
    """Return the most bytes that each view's windows can take."""
    from correlator.groups import bytes_most  # not at the top: it loads numba, the CLI needs none

    return {view.name: bytes_most(view) * open_ticks * shards for view in views}
