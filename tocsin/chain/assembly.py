"""The node's half of the chain with its stages: the same live, in replay, and in a simulated day."""

from collections.abc import Sequence
from pathlib import Path

from alerting.stage import AlertingStage
from correlator.merge import FrameMerger
from correlator.sample_windows import SampleWindows
from correlator.tables.network_map import load_network
from detectors.log_novelty import LogWatch
from detectors.routes import RouteWatch
from detectors.stage import DetectionStage
from runtime.clock import Clock
from runtime.metrics import Metrics
from runtime.ports import SeriesDirectory, SeriesKey
from tocsin.chain.back import Back
from tocsin.chain.intake import make_context
from tocsin.config import Config


def make_back(config: Config, clock: Clock, metrics: Metrics, *, shards: int = 1) -> Back:
    """Return the node's half of the chain, as live and replay have it."""
    seed = config.node.seed
    path = Path(config.network.map) if config.network.map else None
    network = load_network(path, heard_hours=config.network.heard_hours)
    views = config.all_views()
    merger = FrameMerger(
        views,
        make_context("correlator", clock, metrics, seed),
        network=network,
        shards=shards,
        idle_seconds=config.views.idle_seconds,
    )
    samples = SampleWindows(
        config.sample_views(),
        make_context("samples", clock, metrics, seed),
        event_tick_ns=config.views.event_tick_ns,
        idle_seconds=config.views.idle_seconds,
    )
    views += config.sample_views()
    directory = Directories((merger, samples))
    return Back(
        merger,
        DetectionStage(
            views,
            config.detection,
            make_context("detectors", clock, metrics, seed),
            directory=directory,
            network=network,
        ),
        AlertingStage(
            config.alerting,
            make_context("alerting", clock, metrics, seed),
            network=network,
            directory=directory,
            evidence=merger,
        ),
        samples=samples,
        routes=RouteWatch(
            config.detection.routes,
            make_context("routes", clock, metrics, seed),
            own=network.own_prefixes(),
            contradicting=lambda routes, among: network.routing().contradicting(routes, among),
            router_of=network.router_of,
        ),
        logs=LogWatch(config.detection.logs, make_context("logs", clock, metrics, seed)),
        shards=shards,
        event_tick_ns=config.views.event_tick_ns,
    )


class Directories:
    """Several directories of series as one (ports.SeriesDirectory): the first that knows answers."""

    def __init__(self, directories: Sequence[SeriesDirectory]) -> None:
        self._directories = directories

    def key(self, series_id: int) -> SeriesKey | None:
        """Return what a series id stands for."""
        found = (directory.key(series_id) for directory in self._directories)
        return next((key for key in found if key is not None), None)
