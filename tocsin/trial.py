"""The parts of a configuration made as a start would make them, and thrown away (`tocsin config check`).

It finds what types do not show: files that are not there, certificates that cannot be used, rules and
mappings that do not read. Nothing is bound, started or asked.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alerting.sinks import make_sink
from collectors.registry import make_decoder
from collectors.sources import make_source
from runtime.clock import ManualClock
from runtime.component import Context
from runtime.metrics import Metrics
from runtime.mistakes import NOT_STARTED
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from tocsin.config import Config

log = logging.getLogger(__name__)
FILES = ("token_file", "password_file", "ca_file", "certificate_file", "key_file")  # of a sink


def mistakes(config: Config) -> Iterator[str]:
    """Yield what would keep parts from starting or doing their work; each begins with its dotted key."""
    with tempfile.TemporaryDirectory() as folder:

        def context(name: str) -> Context:
            return Context(name, ManualClock(), Metrics(name), log, (0,))

        for name, listener in config.collectors.items():
            where = f"collectors.{name}"
            yield from _told(where, make_decoder, listener, context(where))
            if listener.listen.startswith("tls:"):
                from collectors.listen.byte_streams import server_context

                yield from _told(where, server_context, listener)
        for name, source in config.sources.items():
            where = f"sources.{name}"
            made = context(where), _refuse, Path(folder)
            for said in _told(where, make_source, name, source, *made):
                yield said.replace(f"{where}.listen", f"{where}.options.listen", 1)
    for name, sink in config.alerting.sinks.items():
        where = f"alerting.sinks.{name}"
        yield from _told(where, lambda one=sink: make_sink(one).close())
        for field in FILES:
            if (named := getattr(sink, field)) and not Path(named).is_file():
                yield f"{where}.{field} = {named!r}: there is no such file"
    if config.api.token_file and not Path(config.api.token_file).is_file():
        yield f"api.token_file = {config.api.token_file!r}: there is no such file"
    yield from _told("detection.routes", _watch_routes, config)


def _watch_routes(config: Config) -> None:
    from correlator.tables.network_map import load_network
    from detectors.routes import RouteWatch

    network = load_network(None)
    RouteWatch(
        config.detection.routes, Context("routes", ManualClock(), Metrics(""), log, (0,)),
        own={}, contradicting=network.routing().contradicting, router_of=network.router_of,
    )  # fmt: skip


def _refuse(batches: Sequence[Batch], *, token: str = "") -> None:
    """Take nothing: what is made here is never started."""


def _told(where: str, make: Callable[..., object], *arguments: object) -> Iterator[str]:
    try:
        make(*arguments)
    except (ConfigError, OSError) as error:
        said = str(error).removesuffix(NOT_STARTED).rstrip()
        if said.startswith(where):
            yield said
            return
        keyed = said.startswith(("listen = ", "options.", "decoder."))
        yield f"{where}{'.' if keyed else ': '}{said}"
