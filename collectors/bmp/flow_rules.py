"""FlowSpec: filter rules as routers pass them on by BGP, in the words of ExaBGP. Pure: knows no peers.

A rule is read whole or not at all: half a filter would match what nobody meant. Its texts are bounded, what makes
it this rule and this way is not: one message of 64 KB gives 1.2 MB of rules at most. What it matches is a text that
`flow route { match { ...; } then { ...; } }` takes as it is, what it does another one. Two encodings of one
rule give one text and one identity. Blind to actions that no standard names (interface sets of a vendor).

Source: RFC 8955 (components, actions), 8956 (IPv6), 7674 (redirect), draft-ietf-idr-flowspec-redirect-ip,
draft-simpson-idr-flowspec-redirect (to the next hop); IANA registries of components and extended communities.
"""

import ipaddress
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from collectors.bmp.bgp import MARKER, attributes_of, path_attributes, spans
from collectors.bmp.bgp_updates import (
    FAMILIES,
    FAMILY,
    FAMILY_NAMES,
    OTHER_FAMILY,
    UNKNOWN_PATH_IDS,
)
from telemetry.errors import DecodeError
from telemetry.identity import V4_MAPPED, address_pair, address_text, stable_id

VPN_SAFI = 134
_RULE = "FlowSpec rule"
# Why a rule cannot be told.
MALFORMED = (
    "cut_off",
    "empty",
    "order",
    "component",
    "prefix",
    "operator",
)
ACTIONS_MAX = 16  # said of a message's rules, each in 60 characters at most
MATCH_MAX = 4096  # characters
_LOW = (1 << 64) - 1
_MP_REACH, _MP_UNREACH, _EXTENDED, _EXTENDED6 = 14, 15, 16, 25

_NUMERIC = ("false", "=", ">", ">=", "<", "<=", "!=", "true")  # by the bits less, greater, equal
_BITS = ("", "=", "!", "!=")  # by the bits not, match
_TCP_FLAGS = ("fin", "syn", "rst", "push", "ack", "urg", "ece", "cwr", "ns")
_FRAGMENTS = ("dont-fragment", "is-fragment", "first-fragment", "last-fragment")
_PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah"}
_COMPONENTS = {
    1: "destination", 2: "source", 3: "protocol", 4: "port", 5: "destination-port", 6: "source-port",
    7: "icmp-type", 8: "icmp-code", 9: "tcp-flags", 10: "packet-length", 11: "dscp", 12: "fragment",
    13: "flow-label",
}  # fmt: skip
_COMPONENTS6 = _COMPONENTS | {3: "next-header", 11: "traffic-class"}
_BITWISE = {9: _TCP_FLAGS, 12: _FRAGMENTS}


@dataclass(frozen=True, slots=True)
class FlowRule:
    """One rule as a message announces or withdraws it."""

    family: int
    path_id: int
    distinguisher: int  # of a VPN
    match: str
    high: int  # the destination's network; no bits where it names none
    low: int
    length: int

    @property
    def text(self) -> str:
        """What it matches, cut where it is longer than anybody reads."""
        return self.match if len(self.match) <= MATCH_MAX else f"{self.match[:MATCH_MAX]} and more"

    @property
    def key(self) -> int:
        """What makes it this rule in its family, as a number."""
        return stable_id(f"flow rule|{FAMILY_NAMES[self.family]}|{self.distinguisher}|{self.match}")


@dataclass(frozen=True, slots=True)
class FlowUpdate:
    """What an UPDATE says of rules."""

    withdrawn: Sequence[FlowRule]
    announced: Sequence[FlowRule]
    actions: str  # of all that are announced
    way: int  # what makes it this way: a hash of all actions
    next_hop: tuple[int, int]
    malformed: Sequence[str]  # why, for each rule that was left out

    @property
    def rules(self) -> Sequence[FlowRule]:
        """All of them, in the order of a message's rows."""
        return [*self.withdrawn, *self.announced]


def read_rules(message: bytes, path_ids: int = 0) -> FlowUpdate:
    """Return the rules of a whole UPDATE; those that cannot be told are left out with their reason.

    `path_ids` has a bit for each family whose rules carry path ids, or is UNKNOWN_PATH_IDS.
    """
    parts = path_attributes(message)
    found: dict[int, list[FlowRule]] = {_MP_UNREACH: [], _MP_REACH: []}
    malformed: list[str] = []
    hop = b""
    for kind, rules in found.items():
        value = parts.get(kind, b"")
        family = FAMILY.get(
            (int.from_bytes(value[:2], "big"), value[2] if len(value) > 2 else 0), 0
        )
        if family <= OTHER_FAMILY:
            continue
        start = 3
        if kind == _MP_REACH:
            hop = value[4 : 4 + value[3]] if len(value) > 3 else b""
            start = 5 + len(hop)
        stated = bool(path_ids >> family & 1)
        rules[:], wrong = _rules(value[start:], family, path_ids=stated)
        if wrong and path_ids & UNKNOWN_PATH_IDS:  # a path id reads as rules that nobody would send
            others, wrong_too = _rules(value[start:], family, path_ids=True)
            if not wrong_too:
                rules[:], wrong = others, []
        malformed += wrong
    next_hop = _next_hop(hop)
    actions = sorted(set(_actions(parts, next_hop))) or ["accept"]  # communities have no order
    said = "; ".join(actions[:ACTIONS_MAX])
    if len(actions) > ACTIONS_MAX:
        said += f" and {len(actions) - ACTIONS_MAX} more"
    way = stable_id("; ".join(actions))
    return FlowUpdate(found[_MP_UNREACH], found[_MP_REACH], said, way, next_hop, malformed)


def stand_in(message: bytes, withdrawn: int, announced: int) -> bytes:
    """Return an UPDATE with the same attributes and so many default routes, in place of as many rules.

    What the attributes say of a route is then read by the one kernel that reads them.
    """
    data = attributes_of(message)
    kept, at = b"", 0
    for kind, _, end in spans(data):
        if kind not in (_MP_REACH, _MP_UNREACH):
            kept += data[at:end]
        at = end
    kept += data[at:]
    body = struct.pack("!H", withdrawn) + bytes(withdrawn)
    body += struct.pack("!H", len(kept)) + kept + bytes(announced)
    return MARKER + struct.pack("!HB", 19 + len(body), 2) + body


def _rules(data: bytes, family: int, *, path_ids: bool) -> tuple[list[FlowRule], list[str]]:
    """Return the rules of a list, and why others of it cannot be told."""
    rules: list[FlowRule] = []
    wrong: list[str] = []
    try:
        for path_id, body in _bodies(data, path_ids=path_ids):
            try:
                rules.append(_rule(body, family, path_id))
            except DecodeError as why:
                wrong.append(why.reason)
    except DecodeError as why:
        wrong.append(why.reason)
    return rules, wrong


def _bodies(data: bytes, *, path_ids: bool) -> Iterator[tuple[int, bytes]]:
    """Yield (path id, components) of each rule in a list."""
    at = 0
    while at < len(data):
        path_id = 0
        if path_ids:
            path_id = int.from_bytes(data[at : at + 4], "big")
            at += 4
        size = data[at] if at < len(data) else 0xFF
        at += 1
        if size >= 0xF0:
            if at >= len(data):
                raise DecodeError("cut_off", _RULE)
            size = (size & 0x0F) << 8 | data[at]
            at += 1
        if at + size > len(data):
            raise DecodeError("cut_off", _RULE)
        yield path_id, data[at : at + size]
        at += size


def _rule(body: bytes, family: int, path_id: int) -> FlowRule:
    (afi, safi), distinguisher = FAMILIES[family], 0
    if safi == VPN_SAFI:
        if len(body) < 8:
            raise DecodeError("cut_off", _RULE)
        distinguisher, body = int.from_bytes(body[:8], "big"), body[8:]
    if not body:
        raise DecodeError("empty", _RULE)
    names = _COMPONENTS if afi == 1 else _COMPONENTS6
    high, low, length = 0, V4_MAPPED if afi == 1 else 0, 0
    words, at, last = [], 0, 0
    while at < len(body):
        kind = body[at]
        if kind not in names or (kind == 13 and afi == 1):
            raise DecodeError("component", _RULE)
        if kind <= last:
            raise DecodeError("order", _RULE)
        last = kind
        at += 1
        if kind <= 2:
            at, network, bits, offset = _network(body, at, afi)
            said = f"{network}/{bits}" + (f"/{offset}" if offset else "")
            if kind == 1 and not offset:
                number, length = int(network), bits
                high, low = (0, V4_MAPPED | number) if afi == 1 else (number >> 64, number & _LOW)
        else:
            at, said = _terms(body, at, kind)
        words.append(f"{names[kind]} {said}")
    return FlowRule(family, path_id, distinguisher, "; ".join(words), high, low, length)


def _network(
    body: bytes, at: int, afi: int
) -> tuple[int, ipaddress.IPv4Address | ipaddress.IPv6Address, int, int]:
    """Return (where it ends, network, length, offset): of an IPv6 one the first bits may be of no matter."""
    width = 32 if afi == 1 else 128
    head = 1 if afi == 1 else 2
    if at + head > len(body):
        raise DecodeError("cut_off", _RULE)
    bits, offset = body[at], body[at + 1] if afi == 2 else 0
    at += head
    if bits > width or offset > bits or (offset == bits and bits):
        raise DecodeError("prefix", _RULE)
    octets = (bits - offset + 7) // 8
    if at + octets > len(body):
        raise DecodeError("cut_off", _RULE)
    pattern = int.from_bytes(body[at : at + octets], "big") >> (8 * octets - (bits - offset))
    number = pattern << (width - bits)
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    address = ipaddress.IPv4Address(number) if afi == 1 else ipaddress.IPv6Address(number)
    return at + octets, address, bits, offset


def _terms(body: bytes, at: int, kind: int) -> tuple[int, str]:
    """Return (where they end, the terms of a component): `=53`, `[ >=1024&<=2048 =8080 ]`, `[ syn !ack ]`."""
    said: list[str] = []
    while True:
        if at >= len(body):
            raise DecodeError("operator", _RULE)
        operator = body[at]
        size = 1 << (operator >> 4 & 3)
        if at + 1 + size > len(body):
            raise DecodeError("operator", _RULE)
        value = int.from_bytes(body[at + 1 : at + 1 + size], "big")
        if kind in _BITWISE:
            word = _BITS[operator & 3] + _flags(value, _BITWISE[kind])
        else:
            sign = _NUMERIC[operator & 7]
            name = _PROTOCOLS.get(value, "") if kind == 3 and sign == "=" else ""
            word = name or (sign if sign in ("true", "false") else f"{sign}{value}")
        if operator & 0x40 and said:
            said[-1] += f"&{word}"
        else:
            said.append(word)
        at += 1 + size
        if operator & 0x80:
            break
    plain = len(said) == 1 and kind not in _BITWISE
    return at, said[0] if plain else f"[ {' '.join(said)} ]"


def _flags(value: int, names: Sequence[str]) -> str:
    """Return bits by their names, as a number where one has none."""
    if not value or value >> len(names):
        return f"0x{value:x}"
    return "+".join(name for bit, name in enumerate(names) if value >> bit & 1)


def _actions(parts: dict[int, bytes], next_hop: tuple[int, int]) -> Iterator[str]:
    """Yield what is done to what matches."""
    value = parts.get(_EXTENDED, b"")
    for at in range(0, len(value) - 7, 8):
        yield from _action(value[at : at + 8], next_hop)
    value = parts.get(_EXTENDED6, b"")
    for at in range(0, len(value) - 19, 20):
        kind = int.from_bytes(value[at : at + 2], "big")
        target = ipaddress.IPv6Address(value[at + 2 : at + 18])
        number = int.from_bytes(value[at + 18 : at + 20], "big")
        if kind == 0x000C:
            yield f"{'copy' if number & 1 else 'redirect'} {target}"
        elif kind == 0x000D:
            yield f"redirect [{target}]:{number}"


def _action(community: bytes, next_hop: tuple[int, int]) -> Iterator[str]:
    kind = int.from_bytes(community[:2], "big")
    value = community[2:]
    if kind in (0x8006, 0x800C):
        (rate,) = struct.unpack("!f", value[2:])
        unit = " packets" if kind == 0x800C else ""
        if math.isnan(rate) or rate <= 0:  # RFC 8955 section 7.1: a negative rate is 0
            yield "discard"
        elif math.isfinite(rate):
            yield f"rate-limit {round(rate)}{unit}"
    elif kind == 0x8007:
        words = [word for bit, word in ((2, "sample"), (1, "terminal")) if value[5] & bit]
        if words:
            yield f"action {'-'.join(words)}"
    elif kind == 0x8008:
        yield f"redirect {int.from_bytes(value[:2], 'big')}:{int.from_bytes(value[2:], 'big')}"
    elif kind == 0x8108:
        yield f"redirect {ipaddress.IPv4Address(value[:4])}:{int.from_bytes(value[4:], 'big')}"
    elif kind == 0x8208:
        yield f"redirect {int.from_bytes(value[:4], 'big')}:{int.from_bytes(value[4:], 'big')}"
    elif kind == 0x8009:
        yield f"mark {value[5] & 0x3F}"
    elif kind == 0x0800:
        there = address_text(*next_hop) if any(next_hop) else ""
        what = "copy" if value[5] & 1 else "redirect"
        yield f"{what} {there}" if there else f"{what}-to-nexthop"
    elif kind == 0x010C:
        yield f"{'copy' if value[5] & 1 else 'redirect'} {ipaddress.IPv4Address(value[:4])}"


def _next_hop(hop: bytes) -> tuple[int, int]:
    """Return a next hop in two halves, zeros where there is none."""
    if len(hop) in (12, 24):
        hop = hop[8:]
    return address_pair(str(ipaddress.ip_address(hop[:16]))) if len(hop) in (4, 16, 32) else (0, 0)
