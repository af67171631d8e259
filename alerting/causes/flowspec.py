"""The filter that an attack's sample suggests, as a FlowSpec rule in the words of ExaBGP.

Narrow on purpose: the host, the protocol, and the port where most of the flood agrees on one. What
could be somebody's service (a flood of SYNs or of UDP at an open port) is limited to twice its usual
rate, what cannot (answers of amplifiers) is discarded. A proposal: nobody sends it but an operator.

Source: RFC 8955 (components 1, 3, 5, 6, 9; traffic-rate in bytes/s), RFC 8956 for IPv6.
"""

from collections.abc import Sequence

from runtime.ports import Talker

PORT_SHARE = 0.6  # of the flood's octets that must agree on a port before the rule names it
RATE_FACTOR = 2.0
RATE_LEAST = 125_000  # bytes/s: a limit below 1 Mbit/s would cut the service itself


def rule(vector: str, host: str, talkers: Sequence[Talker], *, usual_octets: float) -> str:
    """Return the rule against this vector at this host; `talkers` are those of the flood."""
    six = ":" in host
    protocol = "udp"
    if vector == "SYN flood":
        protocol = "tcp"
    elif vector == "ICMP flood":
        protocol = "58" if six else "icmp"
    parts = [
        f"destination {host}/{128 if six else 32}",
        f"{'next-header' if six else 'protocol'} {protocol}",
    ]
    amplified = vector.endswith("amplification")
    port = 0
    if amplified:
        port = _common([(t.source_port, t.octets) for t in talkers])
        parts += [f"source-port ={port}"] if port else []
    elif protocol in ("udp", "tcp"):
        port = _common([(t.destination_port, t.octets) for t in talkers])
        parts += [f"destination-port ={port}"] if port else []
    if protocol == "tcp":
        parts.append("tcp-flags [ syn ]")
    limit = max(round(RATE_FACTOR * usual_octets), RATE_LEAST)
    action = "discard" if amplified and port else f"rate-limit {limit}"
    return f"flow route {{ match {{ {'; '.join(parts)}; }} then {{ {action}; }} }}"


def _common(weighed: Sequence[tuple[int, int]]) -> int:
    """Return the port that holds most of the octets; 0 where none does."""
    octets: dict[int, int] = {}
    for port, weight in weighed:
        octets[port] = octets.get(port, 0) + weight
    best = max(sorted(octets), key=lambda port: octets[port], default=0)
    return best if octets and octets[best] >= PORT_SHARE * sum(octets.values()) else 0


def block(
    source: str, *, destination: str = "", protocol: str = "", destination_port: int = 0,
    limit: int = 0,
) -> str:  # fmt: skip
    """Return the rule that drops what a host sends, or limits it to so many bytes/s.

    >>> block("192.0.2.7", protocol="tcp", destination_port=22)
    'flow route { match { source 192.0.2.7/32; protocol tcp; destination-port =22; } then { discard; } }'
    """
    six = ":" in source
    length = 128 if six else 32
    parts = [f"source {source}/{length}"]
    if destination and "#" not in destination:
        parts.append(f"destination {destination}/{length}")
    if protocol:
        parts.append(f"{'next-header' if six else 'protocol'} {protocol}")
    if destination_port:
        parts.append(f"destination-port ={destination_port}")
    action = f"rate-limit {limit}" if limit else "discard"
    return f"flow route {{ match {{ {'; '.join(parts)}; }} then {{ {action}; }} }}"


def bogons() -> str:
    """Return the rule against one block of addresses that nobody can have; others alike."""
    return "flow route { match { source 240.0.0.0/4; } then { discard; } }"
