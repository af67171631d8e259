"""The views that ship: what Tocsin looks at with no configuration at all."""

from telemetry.views import Measure, View

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


def views_for(*, tick_seconds: float = 60.0, lateness_seconds: float = 30.0) -> tuple[View, ...]:
    """Return the default flow views with this tick and lateness."""

    def view(name: str, key: tuple[str, ...], *measures: Measure, keys: int, talkers: int) -> View:
        return View(
            name=name,
            key=key,
            measures=measures,
            tick_seconds=tick_seconds,
            lateness_seconds=lateness_seconds,
            keys_per_tick_max=keys,
            series_max=keys,
            talkers=talkers,
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


def windows_bytes(
    views: tuple[View, ...], *, shards: int = 1, open_ticks: int = 2
) -> dict[str, int]:
    """Return the most bytes that each view's windows can take."""
    from correlator.groups import bytes_most  # not at the top: it loads numba, the CLI needs none

    return {view.name: bytes_most(view) * open_ticks * shards for view in views}
