"""Which collector a datagram or a file of a capture is for, by what collectors and sources declare.

Flow protocols are told by content, wherever they were sent (`collectors.flow.detect`); the others by port,
by the first bytes of a file, or by the name that the user gives. See `runtime.registry.Reads`.
"""

from functools import cached_property
from typing import Any, Literal

from collectors.config import FlowDecoderSettings, ListenerSettings
from collectors.datagram import Datagram
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from runtime.registry import Part, Reads
from telemetry.errors import ConfigError

HEAD_BYTES = 512  # of a file, shown to those who may know it
FLOW_KINDS = ("flow", "sflow")  # have their own way: content, not ports


class Readings:
    """What all registered collectors and sources say of themselves; loaded when first asked."""

    @cached_property
    def parts(self) -> dict[str, Part[Any]]:
        """Every collector and source that can be read, by kind; a plug-in that fails is left out."""
        found: dict[str, Part[Any]] = {}
        for registry in (COLLECTORS, SOURCES):
            for kind in registry.kinds():
                if kind in FLOW_KINDS:
                    continue
                try:
                    part = registry.get(kind)
                except ConfigError:
                    if kind in registry.ours:
                        raise
                    continue
                if part.reads is not None or registry is COLLECTORS:
                    found[kind] = part
        return found

    @cached_property
    def _ports(self) -> dict[tuple[bool, int], str]:
        made: dict[tuple[bool, int], str] = {}
        for kind in self.parts:
            reads = self.reads(kind)
            for stream, ports in ((False, reads.udp_ports), (True, reads.tcp_ports)):
                for port in ports:
                    made.setdefault((stream, port), kind)
        return made

    def reads(self, kind: str) -> Reads:
        """Return how a kind is read."""
        return self.parts[kind].reads or Reads()

    def port(self, kind: str, *, stream: bool) -> int:
        """Return the port of habit of a kind, 0 for none."""
        if kind in FLOW_KINDS:
            return {"flow": 2055, "sflow": 6343}[kind]
        if kind not in self.parts:
            return 0
        reads = self.reads(kind)
        return next(iter(reads.tcp_ports if stream else reads.udp_ports), 0)

    def by_port(self, datagram: Datagram) -> str:
        """Return the kind that a datagram, or a chunk sent towards a server, is for; "" for none.

        A datagram to a port that nobody names may still begin as the messages of a collector do.
        """
        kind = self._ports.get((datagram.stream, datagram.destination_port), "")
        if not kind and not datagram.stream and datagram.payload[:1] == b"<":
            kind = self.by_head(datagram.payload)
            return kind if kind in COLLECTORS.ours else ""
        return kind

    def is_answer(self, datagram: Datagram, kind: str) -> bool:
        """Whether a chunk came from the collector's side of a connection."""
        return datagram.stream and datagram.source_port in self.reads(kind).tcp_ports

    def by_head(self, head: bytes) -> str:
        """Return the kind whose files begin so, "" for none."""
        for kind in self.parts:
            looks_like = self.reads(kind).looks_like
            if looks_like is not None and looks_like(head[:HEAD_BYTES]):
                return kind
        return ""

    def settings(
        self, kind: str, *, stream: bool, clock: Literal["corrected", "exported"] = "corrected"
    ) -> ListenerSettings:
        """Return settings of a decoder for captures: defaults, the transport as it was."""
        listen = "tcp://127.0.0.1:0" if stream else "udp://127.0.0.1:0"
        decoder = FlowDecoderSettings(clock=clock)
        return ListenerSettings(kind=kind, listen=listen, decoder=decoder)
