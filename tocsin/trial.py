"""Inputs and sinks of a configuration made as a start would make them, and thrown away (`tocsin config check`).

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


def mistakes(config: Config) -> Iterator[str]:
    """Yield what would keep inputs and sinks from starting; each begins with its dotted key."""
    log = logging.getLogger(__name__)
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
        yield from _told(f"alerting.sinks.{name}", lambda one=sink: make_sink(one).close())


def _refuse(batches: Sequence[Batch], *, token: str = "") -> None:
    """Take nothing: what is made here is never started."""


def _told(where: str, make: Callable[..., object], *arguments: object) -> Iterator[str]:
    try:
        make(*arguments)
    except (ConfigError, OSError) as error:
        said = str(error).removesuffix(NOT_STARTED).rstrip()
        keyed = said.startswith(("listen = ", "options.", "decoder."))
        yield f"{where}{'.' if keyed else ': '}{said}"
