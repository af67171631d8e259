"""Sources: collectors that need HTTP, slow peers or files, and therefore live in the gate.

A source makes batches by itself and offers them to the node. It is one module: pure functions from
bytes to batches, a component around them, and a `Part` named SOURCE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runtime.component import Context
from runtime.registry import Registry
from runtime.settings import Settings

if TYPE_CHECKING:
    from telemetry.batch import Batch


class SourceSettings(Settings, frozen=True, kw_only=True):
    """`[sources.<name>]`: an input that the gate runs."""

    kind: str  # "ves", "snmp-poll", "netcool", ..., or a plug-in's
    options: dict[str, Any] = {}  # its own settings


class Offer(Protocol):
    """How a source hands records to the node."""

    def __call__(self, batches: Sequence[Batch], *, token: str = "") -> None:
        """Return when the node has journalled the batches; raise TransientError when it has not.

        Batches of schema `series`, `sample`, `alarm`, `log`, `route`, `option`, `ledger`; `series`
        before the samples that use them. The same token counts once, also after a restart, so a
        source repeats what was not acknowledged. May be called from any thread of the source.
        """
        ...


class Source(Protocol):
    """A component (`runtime.component.Component`) that offers batches from threads of its own.

    `start` raises ConfigError for what a person must mend; a peer that is away is no such thing: it
    is said once in `health` and the log, and tried again with a growing pause. `stop` is bounded in
    time. What must survive lies in `folder`; what was offered and not acknowledged is offered again.
    """

    def start(self) -> None:
        """Start or raise ConfigError."""
        ...

    def stop(self) -> None:
        """Stop within five seconds; calling it again does nothing."""
        ...

    def health(self) -> str:
        """Return "" when well, else one sentence an operator can act on."""
        ...


MakeSource = Callable[[str, Any, Context, Offer, Path], Source]
"""(name, options, context, offer, folder) -> an inert source; `name` is its table's in the configuration."""

SOURCES: Registry[MakeSource] = Registry(
    "tocsin.sources",
    {
        "alertmanager": "collectors.managers.alertmanager:SOURCE",
        "ingest": "collectors.mapped.ingest:SOURCE",
        "mapped": "collectors.mapped.source:SOURCE",
        "netcool": "collectors.managers.netcool:SOURCE",
        "pm-files": "collectors.pm.source:SOURCE",
        "snmp-poll": "collectors.snmp.poll:SOURCE",
        "spectrum": "collectors.managers.spectrum:SOURCE",
        "tmf642": "collectors.managers.tmf642:SOURCE",
        "ves": "collectors.ves.source:SOURCE",
    },
)


def make_source(
    name: str, settings: SourceSettings, context: Context, offer: Offer, folder: Path
) -> Source:
    """Return the source that a table of the configuration describes, or raise ConfigError."""
    part = SOURCES.get(settings.kind)
    return part.make(name, part.read(settings.options), context, offer, folder)
