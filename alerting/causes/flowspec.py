"""A filter as a FlowSpec rule in the words of ExaBGP, and in plain words what else it would hit.

A proposal: nobody sends it but an operator, who may not look twice. So a rule names a host at least, and as
much of protocol, ports, flags and packet length as nearly all of the sample agrees on.

Source: RFC 8955 (components 1 to 3, 5 to 7, 9, 10; traffic-rate in bytes/s), RFC 8956 for IPv6.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alerting.words.amounts import amount
from runtime.ports import Talker

COVERED = 0.9  # of a sample that a rule's ports, targets and lengths must hold
SUPPORT = 3  # records for each of several values
# Of the shortest packets: a flow's mean hides shorter ones, and sFlow counts the frame.
LENGTH_ROOM = 0.75
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
_NAMES = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMP6: "ICMP"}
_WORDS = {TCP: "tcp", UDP: "udp", ICMP: "icmp"}
SYN, ACK = 0x02, 0x10
_Value = TypeVar("_Value", int, str)
# Who has such an address may not be the only one: networks use these inside (RFC 1918, 3927, 4193, 6598, 8215, 9602).
REUSED = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
         "fc00::/7", "fe80::/10", "fec0::/10", "64:ff9b:1::/48", "5f00::/16"),
    )
)  # fmt: skip
# Nobody sends from these anywhere. Source: RFC 6890; IANA, Internet Protocol Version 6 Address Space.
NOBODYS = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15",
         "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
         "::/96", "100::/8", "200::/7", "400::/6", "800::/5", "1000::/4", "2001:2::/48", "2001:db8::/32",
         "3fff::/20", "4000::/4", "5000::/5", "5800::/6", "5c00::/7", "5e00::/8", "6000::/3", "8000::/3",
         "a000::/3", "c000::/3", "e000::/4", "f000::/5", "f800::/6", "fe00::/9", "ff00::/8"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One rule. Destination and source are an address or a prefix; what is empty matches all."""

    destination: str = ""
    source: str = ""
    protocol: int = 0
    source_ports: tuple[int, ...] = ()
    destination_ports: tuple[int, ...] = ()
    icmp_type: int = -1  # -1 = any
    opening: bool = False  # TCP: only what opens a connection, SYN without ACK
    octets_least: int = 0  # of a packet with its IP header
    limit: int = 0  # bytes/s; 0 = discard

    def __str__(self) -> str:
        """Return the rule in ExaBGP's words."""
        six = ":" in (self.destination or self.source)
        parts = [
            f"{name} {_prefix(value)}"
            for name, value in (("destination", self.destination), ("source", self.source))
            if value
        ]
        if self.protocol:
            word = _WORDS.get(self.protocol, f"={self.protocol}")
            parts.append(f"{'next-header' if six else 'protocol'} {word}")
        for name, ports in (
            ("destination-port", self.destination_ports),
            ("source-port", self.source_ports),
        ):
            parts += [f"{name} {_one_of(ports)}"] if ports else []
        if self.icmp_type >= 0:
            parts.append(f"icmp-type ={self.icmp_type}")
        if self.opening:  # `syn` alone is a bit mask, which SYN+ACK matches as well (4.2.2.9)
            parts.append("tcp-flags [ syn&!ack ]")
        if self.octets_least:
            parts.append(f"packet-length >={self.octets_least}")
        action = f"rate-limit {self.limit}" if self.limit else "discard"
        return f"flow route {{ match {{ {'; '.join(parts)}; }} then {{ {action}; }} }}"

    def advice(self) -> str:
        """Return the rule and what else it hits, as an alert says it."""
        over = (
            f" over {_NAMES.get(self.protocol, f'protocol {self.protocol}')}"
            if self.protocol
            else ""
        )
        if self.icmp_type >= 0:
            over += f" of type {self.icmp_type}"
        to, sent_from = _ports(self.destination_ports), _ports(self.source_ports)
        place = " of ".join(part for part in (to, self.destination) if part)
        if self.source:
            what = f"what else {self.source} {'opens' if self.opening else 'sends'}{over}"
            what += f" to {place}" if place else ""
        else:
            what = (
                f"what else {'opens connections to' if self.opening else 'reaches'} {place}{over}"
            )
        what += f" from {sent_from}" if sent_from else ""
        what += f" in packets of {self.octets_least} octets or more" if self.octets_least else ""
        if self.source and "/" not in self.source and is_reused(self.source):
            what += ", and who else has that private address"
        if self.limit:
            return f"FlowSpec `{self}` ({amount(self.limit, 'By/s')} at most; also limits {what})"
        return f"FlowSpec `{self}` (also hits {what})"


def _prefix(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def _ports(ports: Sequence[int]) -> str:
    return f"port{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))}" if ports else ""


def _one_of(ports: Sequence[int]) -> str:
    return f"={ports[0]}" if len(ports) == 1 else f"[ {' '.join(f'={port}' for port in ports)} ]"


def no_rule(why: str, of: str = "") -> str:
    """Return the advice that has no rule."""
    return f"no FlowSpec rule{f' for {of}' if of else ''}: {why}"


def is_host(text: str) -> bool:
    """Return whether a text is an address that one host of a network may have.

    >>> [is_host(one) for one in ("192.0.2.7", "10.0.0.1", "127.0.0.1", "fe80::1", "::", "224.0.0.1", "#00c0ffee")]
    [True, True, False, False, False, False, False]
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_loopback or address.is_link_local or address.is_multicast:
        return False
    if address.version == 6:
        return not (address.is_unspecified or address.ipv4_mapped or "%" in text)
    return not address.is_reserved and int(address) >> 24 != 0


def is_reused(text: str) -> bool:
    """Return whether an address is of private space, where others may have the same."""
    address = ipaddress.ip_address(text)
    return any(address in one for one in REUSED if one.version == address.version)


def block_of(text: str) -> str:
    """Return the block of addresses that nobody can have, or of private space, "" for others.

    >>> block_of("247.1.2.3"), block_of("10.9.8.7"), block_of("2001:db8::1"), block_of("2a00::1")
    ('240.0.0.0/4', '10.0.0.0/8', '2001:db8::/32', '')
    """
    address = ipaddress.ip_address(text)
    found = (one for one in (*REUSED, *NOBODYS) if one.version == address.version)
    return next((str(one) for one in found if address in one), "")


def covering(
    talkers: Sequence[Talker],
    of: Callable[[Talker], _Value],
    *,
    most: int,
    by: Callable[[Talker], int] = lambda t: 1,
) -> tuple[_Value, ...]:
    """Return the fewest values that COVERED of a sample has, most first.

    None where that takes more than `most`, or nearly a value for each record: those agree on nothing.
    """
    weights: dict[_Value, int] = {}
    for t in talkers:
        weights[of(t)] = weights.get(of(t), 0) + by(t)
    chosen: list[_Value] = []
    left = COVERED * sum(weights.values())
    for value in sorted(weights, key=lambda one: (-weights[one], one)):
        if left <= 0:
            break
        chosen.append(value)
        left -= weights[value]
    return tuple(chosen) if len(chosen) <= min(most, max(len(talkers) // SUPPORT, 1)) else ()


def opens(talkers: Sequence[Talker]) -> bool:
    """Return whether a sample of TCP does nothing but open connections."""
    return covering(talkers, lambda t: t.tcp_flags & (SYN | ACK), most=1) == (SYN,)


def octets_least(talkers: Sequence[Talker], *, above: int) -> int:
    """Return a packet length that nearly all packets of a sample have, 0 where it is not over `above`."""
    lengths = sorted((t.octets / max(t.packets, 1), max(t.packets, 1)) for t in talkers)
    left = COVERED * sum(packets for _, packets in lengths)
    for octets, packets in reversed(lengths):
        left -= packets
        if left <= 0:
            return least if (least := int(LENGTH_ROOM * octets)) > above else 0
    return 0


def icmp_type(talkers: Sequence[Talker]) -> int:
    """Return the ICMP type that a sample agrees on, -1 where it does not or it is not known.

    Exporters put type and code into the destination port; there 0 is also what those put who do not.
    """
    found = covering(talkers, lambda t: t.destination_port >> 8, most=1)
    return found[0] if found and found[0] else -1
