"""The collectors that ship, by the `kind` of their table in the configuration.

A collector is one module: a pure decoder (`collectors.block.Decoder`), and a `Part` that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collectors.config import ListenerSettings
from runtime.component import Context
from runtime.registry import Registry

if TYPE_CHECKING:  # the names of kinds are known without what they need
    from collectors.block import Decoder

    MakeDecoder = Callable[[ListenerSettings, Any, Context], Decoder]

COLLECTORS: Registry[MakeDecoder] = Registry(
    "tocsin.collectors",
    {
        "flow": "collectors.flow.decoder:COLLECTOR",
        "sflow": "collectors.flow.sflow5:COLLECTOR",
        "bmp": "collectors.bmp.decoder:COLLECTOR",
        "snmp-trap": "collectors.snmp.trap:COLLECTOR",
        "syslog": "collectors.syslog.decoder:COLLECTOR",
    },
)


def make_decoder(settings: ListenerSettings, context: Context) -> Decoder:
    """Return the decoder that a collector's settings describe, or raise ConfigError."""
    part = COLLECTORS.get(settings.kind)
    return part.make(settings, part.read(settings.options), context)
