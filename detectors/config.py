"""Settings of detection."""

from typing import Annotated, Any, Literal

import msgspec

from runtime.settings import PositiveFloat, PositiveInt, Settings, Share

Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]
PoolBytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Series = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
AsNumber = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class AlsoSettings(Settings, frozen=True, kw_only=True):
    """`[detection.also.<name>]`: a detector beside the baseline, on every view."""

    kind: str  # "threshold", "drift", ... (docs/detection.md), or a plug-in's
    options: dict[str, Any] = {}  # its own settings


class ProbationSettings(Settings, frozen=True, kw_only=True):
    """`[detection.probation]`: what a new node, stream or detector finds is shown before it is sent."""

    # "auto" is on in a running node of profile site or core, off in replays of bare captures.
    mode: Literal["auto", "on", "off"] = "auto"
    days: Days = 7  # in a row within the budget, then a class goes live by itself


class RouteSettings(Settings, frozen=True, kw_only=True):
    """`[detection.routes]`: who announces what is ours, and who passes on too much."""

    own_as: tuple[AsNumber, ...] = ()  # they may announce every prefix of ours
    # Ours beside those of the network map, with the ASes that may announce them; [] = learned.
    own_prefixes: dict[str, tuple[AsNumber, ...]] = {}
    # From a prefix's first route on, its origins are taken as right.
    learn_hours: PositiveFloat = 1.0
    accept_days: PositiveFloat = 7.0  # what stands for so long is taken as right
    takeover_prefixes_min: PositiveInt = 20  # of others, by one AS within ten minutes: an alarm
    leak_prefixes_min: PositiveInt = 200  # more than usual by one peer, and a fifth more: an alarm


class LogSettings(Settings, frozen=True, kw_only=True):
    """`[detection.logs]`: kinds of log lines that nobody has seen before."""

    severity_max: Annotated[int, msgspec.Meta(ge=0, le=7)] = 3  # syslog's: error or worse
    learn_hours: PositiveFloat = 24.0  # so long after the first line nothing is new
    new_patterns_per_day: PositiveFloat = 1.0  # alarms where new kinds come no more often


class LimitSettings(Settings, frozen=True, kw_only=True):
    """`[detection.forecast.limits.<name>]`: what hurts when a series passes it."""

    view: str  # which series: of this view, such as "interface" or "sample"
    measure: str = "value"  # of a flow view: octets, packets, flows, ...
    metric: str = "*"  # of a sampled series, with * and ?
    entity: str = "*"  # and of these entities, with * and ?
    above: float | None = None  # one of the two; per second where it is a rate
    below: float | None = None  # the other one
    # What the limit is a multiple of: "" nothing, "capacity" the interface's speed in octets/s (from the
    # map, else the sampled metric `speed`), "usual" what is usual at that hour, else a sampled metric of
    # the same entity.
    of: str = ""
    cause: str = "predicted"  # kind of the cause that a predicted alert of it names


LIMITS = {
    "capacity": LimitSettings(
        view="interface", measure="octets", above=0.9, of="capacity", cause="capacity-breach"
    ),
    "sampled-capacity": LimitSettings(
        view="sample", metric="*_octets", above=0.9, of="capacity", cause="capacity-breach"
    ),
    "storage": LimitSettings(
        view="sample", metric="storage_used", above=0.95, of="storage_size", cause="disk-filling"
    ),
}


class ForecastSettings(Settings, frozen=True, kw_only=True):
    """`[detection.forecast]`: predicted alerts."""

    enabled: bool = True  # false: nothing is predicted
    series_max: Series = 20_000  # series with a limit; 1.9 KB each
    step_seconds: PositiveFloat = 120.0  # of the fast pace; the slow one is an hour
    probability: Share = 0.9  # a prediction is told from this probability on
    false_predictions_per_day: PositiveFloat = 0.15  # one a week for the whole site
    limits: dict[str, LimitSettings] = {}  # beside those that ship, or instead of one of that name
    shipped: bool = True  # watch the limits that ship, too

    @property
    def watched(self) -> dict[str, LimitSettings]:
        """All limits, one's own first: a series has the first that fits."""
        return {**self.limits, **(LIMITS if self.shipped else {}), **self.limits}


class DetectionSettings(Settings, frozen=True, kw_only=True):
    """`[detection]`"""

    false_alerts_per_day: PositiveFloat = 10.0  # for the whole site; hard faults are outside it
    warmup_ticks: PositiveInt = 60  # a younger series raises nothing by its own baseline
    warmup_seconds: PositiveFloat = 3_600.0  # and one that has lived for less
    silent_ticks: PositiveInt = 2  # ticks without a record before silence is a fault
    # Half-life of the slow level, in seconds of observed time, as the next two.
    level_half_life_seconds: PositiveFloat = 86_400.0
    local_half_life_seconds: PositiveFloat = 1_800.0  # of the level that is followed within a day
    spread_half_life_seconds: PositiveFloat = 21_600.0  # of how far values lie from their level
    # While a series is anomalous only every n-th tick is learned: an attack of an hour must not
    # become normal, a migrated customer must in the end.
    learn_every_when_anomalous: PositiveInt = 60
    leak_seconds: PositiveFloat = 1200.0  # how long a rise must last to be called one
    # Whose clocks daily profiles go by: "Europe/Vienna" for people's traffic there.
    zone: str = "UTC"
    shape_bytes_max: PoolBytes = 32 * 1024**2  # memory for shapes of sampled series
    also: dict[str, AlsoSettings] = {}
    drift: bool = False  # watch score rates for drift: a process of 130 MB beside the desk
    probation: ProbationSettings = ProbationSettings()
    routes: RouteSettings = RouteSettings()
    logs: LogSettings = LogSettings()
    forecast: ForecastSettings = ForecastSettings()
