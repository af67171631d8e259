"""The parts of a configuration made as a start would make them, and thrown away (`tocsin config check`).

It finds what types do not show: files that are not there, certificates that cannot be used, rules and
mappings that do not read. Nothing is bound, started or asked.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from alerting.sinks import make_sink
from collectors.registry import make_decoder
from collectors.sources import make_source
from correlator.tables.network_map import load_network
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
            yield from _unreadable(f"{where}.{field}", getattr(sink, field))
        if sink.kind == "file":
            yield from _unwritable(f"{where}.path", Path(sink.path))
    yield from _unreadable("api.token_file", config.api.token_file)
    if config.network.map:
        yield from _told("network.map", load_network, Path(config.network.map))
    yield from _told("detection.routes", _watch_routes, config)


def _unreadable(key: str, named: str) -> Iterator[str]:
    if named and not _is(Path(named).is_file):
        yield f"{key} = {named!r}: there is no such file"
    elif named and not os.access(named, os.R_OK):
        yield f"{key} = {named!r}: it cannot be read; give it to the user that Tocsin runs as"


def _unwritable(key: str, path: Path) -> Iterator[str]:
    """Yield why alerts cannot be written to a file, which may not be there yet."""
    if _is(path.is_dir):
        yield f"{key} = {str(path)!r} is a folder; name a file in it"
    elif not _is(path.parent.is_dir):
        yield f"{key} = {str(path)!r}: there is no folder {str(path.parent)!r}; make it"
    elif not os.access(path if _is(path.exists) else path.parent, os.W_OK):
        yield f"{key} = {str(path)!r} cannot be written; give it to the user that Tocsin runs as"


def _is(asked: Callable[[], bool]) -> bool:
    """Return what is asked of a path; a name that is too long is none."""
    try:
        return asked()
    except OSError:
        return False


def _watch_routes(config: Config) -> None:
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
    except MemoryError as error:
        yield f"{where} needs more memory than there is ({error}); lower its limits"
    except (ConfigError, OSError) as error:
        said = str(error).removesuffix(NOT_STARTED).rstrip()
        if said.startswith(where):
            yield said
            return
        keyed = said.startswith(("listen = ", "options.", "decoder."))
        yield f"{where}{'.' if keyed else ': '}{said}"
