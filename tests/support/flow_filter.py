"""FlowSpec rules in ExaBGP's words, read and applied to flow records; from RFC 8955, apart from our own code."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

from runtime.ports import Talker

_RULE = re.compile(r"flow route \{ match \{ (.*?); \} then \{ (discard|rate-limit (\d+)); \} \}")
_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1}
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "push": 8, "ack": 16, "urg": 32}
_COMPONENTS = (
    "destination", "source", "protocol", "next-header", "destination-port", "source-port", "icmp-type",
    "tcp-flags", "packet-length",
)  # fmt: skip


@dataclass(frozen=True)
class FlowFilter:
    """One rule; `parts` by component, in the order of RFC 8955."""

    text: str
    parts: dict[str, list[str]] = field(default_factory=dict)
    limit: int = 0

    @property
    def widths(self) -> tuple[int, int]:
        """Bits of the destination and of the source that it names, 0 = it names none."""
        named = (self.parts.get(name) for name in ("destination", "source"))
        to, source = (int(one[0].split("/")[1]) if one else 0 for one in named)
        return to, source

    def matches(self, record: Talker, *, flags: bool = True) -> bool:
        """Whether packets of a flow match; without `flags` any part of a TCP flow may open it."""
        six = ":" in record.source
        facts: dict[str, Any] = {
            "protocol": None if six else record.protocol,
            "next-header": record.protocol if six else None,
            "destination-port": record.destination_port if record.protocol in (6, 17) else None,
            "source-port": record.source_port if record.protocol in (6, 17) else None,
            "icmp-type": record.destination_port >> 8 if record.protocol in (1, 58) else None,
            "packet-length": record.octets / max(record.packets, 1),
        }
        for name, values in self.parts.items():
            if name in ("destination", "source"):
                network = ipaddress.ip_network(values[0])
                address = ipaddress.ip_address(getattr(record, name))
                if address.version != network.version or address not in network:
                    return False
            elif name == "tcp-flags":
                if record.protocol != 6 or (flags and not any(_bits(v, record) for v in values)):
                    return False
            elif facts[name] is None or not any(_number(v, facts[name]) for v in values):
                return False
        return True


def _number(text: str, fact: float) -> bool:
    operator, value = re.fullmatch(r"(>=|=|)(\w+)", text).groups()  # type: ignore[union-attr]
    wanted = _NUMBERS[value] if value in _NUMBERS else int(value)
    return fact >= wanted if operator == ">=" else fact == wanted


def _bits(text: str, record: Talker) -> bool:
    """All of `a&!b`: a bit is set or, with `!`, is not (4.2.2.9: no bit of the mask)."""
    return all(
        bool(record.tcp_flags & _FLAGS[one.lstrip("!")]) != one.startswith("!")
        for one in text.split("&")
    )


def read_filters(text: str) -> list[FlowFilter]:
    """Return the rules that a text holds; fails on one that ExaBGP's grammar does not have."""
    made = []
    for found in _RULE.finditer(text):
        parts: dict[str, list[str]] = {}
        for part in found.group(1).split("; "):
            name, _, value = part.partition(" ")
            parts[name] = value.strip("[] ").split(" ")
        assert list(parts) == sorted(parts, key=_COMPONENTS.index), found.group()
        made.append(FlowFilter(found.group(), parts, int(found.group(3) or 0)))
    assert len(made) == text.count("flow route"), text
    return made
