"""The whole configuration: one struct, every part of the program a table in it."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from alerting.config import AlertingSettings
from alerting.incidents.explain import check_runbook
from alerting.life.windows import planned
from alerting.outbox.routes import Router
from alerting.sinks import SINKS
from collectors.config import ListenerSettings
from collectors.listen.udp import is_stream, parse_address
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES, SourceSettings
from correlator.security_views import SecurityViewsSettings, security_views
from correlator.views import (
    OwnViewSettings,
    SampleViewSettings,
    SlowSampleViewSettings,
    own_view,
    sample_view,
    views_for,
    windows_bytes,
)
from detectors.config import DetectionSettings
from detectors.registry import DETECTORS, make_detector
from history.config import HistorySettings
from runtime.mistakes import NOT_STARTED, wrong
from runtime.registry import WEB, Reads, Registry
from runtime.settings import (
    PositiveInt,
    PositiveSeconds,
    Seconds,
    Settings,
    load_with_origin,
)
from telemetry.errors import ConfigError
from telemetry.views import View
from telemetry.zones import zone_of
from tocsin.process_settings import ApiSettings, NodeSettings, ProcessSettings

TICK_SECONDS_MIN = 1e-3
OPEN_TICKS_MAX = 1000  # of a view
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ViewsSettings(Settings, frozen=True, kw_only=True):
    """`[views]`"""

    # Of the views of flows: traffic is counted, judged and stored by so much.
    tick_seconds: PositiveSeconds = 60.0
    lateness_seconds: Seconds = 30.0  # a tick waits so long for records that come late
    # Per open tick and for all views together; the default views can take 22 MB.
    windows_bytes_max: PositiveInt = 128 * 1024**2
    event_tick_seconds: PositiveSeconds = 1.0  # alarms, logs and routes go on so often
    idle_seconds: PositiveSeconds = 86_400.0  # a series silent for so long gives its row back
    keys_per_tick_max: dict[str, PositiveInt] = {}  # of shipped views by name, instead of theirs
    own: dict[str, OwnViewSettings] = {}  # views beside those that ship
    samples: SampleViewSettings = SampleViewSettings()
    slow_samples: SlowSampleViewSettings = SlowSampleViewSettings()
    security: SecurityViewsSettings = SecurityViewsSettings()

    @property
    def event_tick_ns(self) -> int:
        """Length of an event tick in ns."""
        return max(round(self.event_tick_seconds * 1e9), 1)


class NetworkSettings(Settings, frozen=True, kw_only=True):
    """`[network]`"""

    map: str = ""  # a file of [[router]], [[interface]], [[link]], [[prefix]] tables
    # A link that routers stated is believed so long after they last told of it, which they do each hour.
    heard_hours: Annotated[float, msgspec.Meta(ge=2, le=87_600)] = 24.0


class Config(Settings, frozen=True, kw_only=True):
    """A whole configuration file."""

    node: NodeSettings = NodeSettings()
    collectors: dict[str, ListenerSettings] = msgspec.field(
        default_factory=lambda: {
            "netflow": ListenerSettings(kind="flow", listen="udp://[::]:2055"),
            "ipfix": ListenerSettings(kind="flow", listen="udp://[::]:4739"),
            "sflow": ListenerSettings(kind="sflow", listen="udp://[::]:6343"),
        }
    )
    sources: dict[str, SourceSettings] = {}
    views: ViewsSettings = ViewsSettings()
    network: NetworkSettings = NetworkSettings()
    detection: DetectionSettings = DetectionSettings()
    alerting: AlertingSettings = AlertingSettings()
    history: HistorySettings = HistorySettings()
    api: ApiSettings = ApiSettings()

    def for_processes(self) -> ProcessSettings:
        """Return what supervisor and gate need of this."""
        return ProcessSettings(
            node=self.node, alerting=self.alerting, api=self.api, sources=self.sources
        )

    def sample_views(self) -> tuple[View, ...]:
        """Return the views of sampled series."""
        samples, seconds = self.views.samples, min(self.views.tick_seconds, 60.0)
        if not samples.tick_seconds:
            samples = msgspec.structs.replace(samples, tick_seconds=seconds)
        return (
            sample_view("sample", samples),
            sample_view("slow_sample", self.views.slow_samples),
        )

    def all_views(self) -> tuple[View, ...]:
        """Return the shipped views of flows and the user's own; raise ConfigError for one that cannot be."""
        times = {
            "tick_seconds": self.views.tick_seconds,
            "lateness_seconds": self.views.lateness_seconds,
        }
        security = security_views(self.views.security, **times)
        shipped = {view.name: view for view in (*views_for(**times), *security)}
        for name, most in self.views.keys_per_tick_max.items():
            if name not in shipped:
                known = ", ".join(shipped)
                raise ConfigError(
                    f"views.keys_per_tick_max.{name}: no view has this name ({known})"
                )
            shipped[name] = msgspec.structs.replace(
                shipped[name], keys_per_tick_max=most, series_max=most
            )
        for name, settings in self.views.own.items():
            if name in (*shipped, "sample", "slow_sample"):
                raise ConfigError(
                    f"views.own.{name}: a view that ships has this name; pick another"
                )
            shipped[name] = own_view(name, settings, **times)
        return tuple(shipped.values())


Mistakes = Callable[[Config], Iterable[str]]


def keep_config(config: Config, state: Path) -> None:
    """Keep in the state folder what counts, so that a case of this instance can carry it."""
    new = state / "config.json.new"
    new.write_bytes(msgspec.json.encode(config, order="sorted"))
    new.replace(state / "config.json")


def kept_config(state: Path) -> Config | None:
    """Return what the instance of this state folder was last started with, None if never."""
    path = state / "config.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Config)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: {error}; name the configuration with -c") from error


def load_config(
    path: Path | None,
    flags: dict[str, Any] | None = None,
    *,
    then: str = NOT_STARTED,
    further: Mistakes | None = None,
) -> Config:
    """Return the effective configuration, checked as a whole, or raise ConfigError: all mistakes.

    `then` is what happens now, for the end of the message. `further` looks more closely, where nothing was
    found so far (`tocsin.trial`).
    """
    config, origin = load_with_origin(path, Config, flags=flags, then=then)
    said = list(_mistakes(config))
    if further is not None and not said:
        said = list(further(config))
    mistakes = [origin.told(one) for one in said]
    if mistakes:
        raise wrong(mistakes, then)
    return config


def with_probation(config: Config) -> Config:
    """Return the configuration with probation decided, as a running node has it.

    "auto" is on in the profiles site and core. It is decided here, before the configuration is kept
    for cases, so that a replay of what the node saw does the same.
    """
    mode = config.detection.probation.mode
    if mode == "auto":
        mode = "on" if config.node.profile in ("site", "core") else "off"
    probation = msgspec.structs.replace(config.detection.probation, mode=mode)
    detection = msgspec.structs.replace(config.detection, probation=probation)
    return msgspec.structs.replace(config, detection=detection)


def _mistakes(config: Config) -> Iterator[str]:
    """Yield what is wrong though each value is of its type; each begins with its dotted key."""
    if said := list(_nothing_takes("", msgspec.to_builtins(config))):
        yield from said
        return
    views: tuple[View, ...] = ()
    try:
        views = config.all_views()
        needs = windows_bytes(views, open_ticks=1)
        need, most = sum(needs.values()), max(needs, key=lambda name: needs[name])
        if need > config.views.windows_bytes_max:
            where = f"views.own.{most}" if most in config.views.own else f"view {most}"
            yield (
                f"views.windows_bytes_max is {config.views.windows_bytes_max}, the views need up to "
                f"{need}, the most {where}; raise it, or lower the view's keys_per_tick_max"
            )
    except ConfigError as error:
        yield str(error)
    yield from _mistakes_of_ticks(config)
    if views:
        yield from _mistakes_of_detection(config.detection, (*views, *config.sample_views()))
    tables: tuple[tuple[str, Mapping[str, Any], Registry[Any]], ...] = (
        ("collectors", config.collectors, COLLECTORS),
        ("sources", config.sources, SOURCES),
        ("detection.also", config.detection.also, DETECTORS),
        ("alerting.sinks", config.alerting.sinks, SINKS),
    )
    for table, entries, registry in tables:
        for name, settings in entries.items():
            yield from _mistakes_of_part(f"{table}.{name}", settings, registry)
    heard: dict[tuple[bool, str, int], str] = {}
    for name, listener in config.collectors.items():
        yield from _mistakes_of_listening(name, listener, heard)
    servers = config.history.clickhouse
    if len(servers.servers) > 1 and not servers.cluster:
        yield (
            f"history.clickhouse.servers names {len(servers.servers)} servers, of which each would hold "
            f"a part: name in history.clickhouse.cluster the cluster that they are replicas of"
        )
    yield from (f"detection.zone: {said}" for said in _told(zone_of, config.detection.zone))
    for name, work in config.alerting.maintenance.items():
        yield from _told(planned, name, work)
    for name, runbook in config.alerting.runbooks.items():
        yield from _told(check_runbook, name, runbook)
    yield from _told(Router, config.alerting)
    for source, owner in config.alerting.owners.items():
        if owner not in (source, *config.sources, *config.alerting.sinks):
            yield (
                f"alerting.owners.{source} = {owner!r}: nothing of this name acknowledges; name a sink of "
                f"[alerting.sinks], or the source itself"
            )
    for key in ("listen", "sql_listen", "metrics_listen"):
        listen = getattr(config.api, key)
        host, _, port = listen.rpartition(":")
        if (listen or key == "listen") and not (host and port.isdecimal() and int(port) < 65536):
            yield f"api.{key} = {listen!r} is not host:port with a port of 0 to 65535"
        elif key == "metrics_listen":  # for a scraper: numbers, and no way in
            continue
        elif listen and not config.api.token_file and host.strip("[]") not in LOOPBACK:
            yield (
                f"api.{key} = {listen!r} can be reached from outside, so api.token_file must name a "
                f"file of tokens"
            )


def _nothing_takes(where: str, value: object) -> Iterator[str]:
    """Yield the keys of values that no bound of a type keeps out: `nan` and `inf`, and texts with a NUL."""
    if isinstance(value, dict):
        for name, one in value.items():
            if "\0" in str(name):
                yield f"{where} has the key {name!r}: take the NUL byte out"
            yield from _nothing_takes(f"{where}.{name}" if where else str(name), one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _nothing_takes(where, one)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} = {value}: a number is needed"
    elif isinstance(value, str) and "\0" in value:
        yield f"{where} = {value!r}: no path, address or name has a NUL byte; take it out"


def _mistakes_of_detection(settings: DetectionSettings, views: Sequence[View]) -> Iterator[str]:
    """Yield detectors and limits that are about what is not there, or that cannot be made."""
    named = {view.name: view for view in views if view.scored}
    for name, also in settings.also.items():
        options: Any = None
        with contextlib.suppress(ConfigError):  # told with the other parts
            options = DETECTORS.get(also.kind).read(also.options)
        if options is None:
            continue
        of = getattr(options, "view", "")
        if of and also.kind in DETECTORS.ours and of not in named:
            yield f"detection.also.{name}.options.view = {of!r} is none of {', '.join(named)}"
        else:
            one = named.get(of, views[0])
            for said in _told(make_detector, also, one, settings):
                yield f"detection.also.{name}.{said}"
    if settings.forecast.limits:
        from detectors import limits

        for name, limit in settings.forecast.limits.items():
            yield from _told(limits.check, name, limit, named)


def _mistakes_of_ticks(config: Config) -> Iterator[str]:
    """Yield ticks that are no length, and a lateness for which too many would be open."""
    samples, slow = config.sample_views()
    for where, tick_s, late_s in (
        ("views", config.views.tick_seconds, config.views.lateness_seconds),
        ("views.samples", samples.tick_seconds, samples.lateness_seconds),
        ("views.slow_samples", slow.tick_seconds, slow.lateness_seconds),
    ):
        if tick_s < TICK_SECONDS_MIN:
            yield f"{where}.tick_seconds is {tick_s:g}, must be {TICK_SECONDS_MIN:g} at least"
        elif late_s > OPEN_TICKS_MAX * tick_s:
            yield (
                f"{where}.lateness_seconds is {late_s:g}: more than {OPEN_TICKS_MAX} ticks of {tick_s:g} s "
                f"would be open, each with every series; lower it, or make ticks longer"
            )


def _told(make: Callable[..., object], *arguments: object) -> Iterator[str]:
    """Yield what a part says of settings from which it cannot be made."""
    try:
        make(*arguments)
    except ConfigError as error:
        yield str(error)


def _mistakes_of_part(where: str, settings: Any, registry: Registry[Any]) -> Iterator[str]:
    """Yield a kind that is not known, options that are wrong, or that lack what it needs."""
    try:
        part = registry.get(settings.kind)
        part.read(settings.options)
    except ConfigError as error:
        yield f"{where}.{error}"
        return
    for need in part.needs:
        if not getattr(settings, need):
            yield f"{where}.{need} is missing"
    if part.schemes and settings.url and (said := _mistake_of_url(settings.url, part.schemes)):
        yield f"{where}.url {said}"


def _mistake_of_url(url: str, schemes: tuple[str, ...]) -> str:
    """Return what is wrong with an address, "" where nothing is; it may hold a secret, so it is not said."""
    known = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        there = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError as error:
        return f"cannot be read: {error}"
    if parts.scheme not in schemes or "://" not in url:
        return f"begins with {url.partition(':')[0][:20]!r}, it must begin with {known}"
    return "" if there or parts.scheme not in WEB else "names no host"


def _mistakes_of_listening(
    name: str, settings: ListenerSettings, heard: dict[tuple[bool, str, int], str]
) -> Iterator[str]:
    """Yield an address that is none or taken, or a transport that the protocol does not have.

    `heard` are the addresses of the collectors before, with their names.
    """
    where = f"collectors.{name}"
    try:
        host, port = parse_address(settings.listen)
    except ConfigError as error:
        yield f"{where}.{error}"
        return
    other = heard.setdefault((is_stream(settings.listen), host, port), name)
    if other != name and port:
        yield f"{where}.listen = {settings.listen!r}: collectors.{other} listens there already"
    if not COLLECTORS.knows(settings.kind):  # said already
        return
    reads = COLLECTORS.get(settings.kind).reads or Reads(udp_ports=(0,))
    has = {"udp": bool(reads.udp_ports), "tcp": bool(reads.tcp_ports), "tls": bool(reads.tcp_ports)}
    if not has[settings.listen.partition(":")[0]]:
        known = " or ".join(f"{scheme}://" for scheme, there in has.items() if there)
        yield f"{where}.listen = {settings.listen!r}: {settings.kind} comes over {known}"
