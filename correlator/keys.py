"""Keys of views: what three words of a group row stand for, and the canonical text of a key.

The views that ship have keys of their own making (correlator.windows_kernels). Any other key is
packed: an address takes the first two words, numbers go where they fit, 160 bits in all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from telemetry.errors import ConfigError
from telemetry.identity import V4_MAPPED, address_pair, address_text

DYNAMIC_PORT = 65_536  # port class of two high ports: an ephemeral conversation
SHIPPED = (
    ("exporter",),
    ("exporter", "interface", "direction"),
    ("protocol", "port_class"),
    ("source_prefix",),
    ("destination_prefix",),
)
ADDRESSES = {
    "exporter": "exporter_address",
    "source_address": "source_address",
    "destination_address": "destination_address",
    "next_hop_address": "next_hop_address",
    "source_prefix": "source_address",
    "destination_prefix": "destination_address",
}
BITS = {
    "observation_domain_id": 32,
    "source_port": 16,
    "destination_port": 16,
    "port_class": 32,
    "protocol": 8,
    "tcp_flags": 16,
    "ip_class_of_service": 8,
    "ingress_interface": 32,
    "egress_interface": 32,
    "source_as": 32,
    "destination_as": 32,
    "vlan_id": 16,
    "mpls_top_label": 32,
    "direction": 8,
    "forwarding_status": 8,
    "ingress_vrf_id": 32,
    "egress_vrf_id": 32,
    "application_id": 32,  # engine and selector as Cisco and nProbe send them; longer ones are cut
}
# Parts that are worked out of a record, for views with `where` (correlator.suspects_kernels).
DERIVED = {"vector": 32, "destination_peer": 32}
VECTOR_SYN, VECTOR_ICMP = 6 << 16, 1 << 16  # vectors that are no amplifier's source port
_VECTOR_NAMES = {VECTOR_SYN: "syn", VECTOR_ICMP: "icmp"}
# Parts whose numbers exporters name in options data, by the table that has the names.
NAMED = {
    "ingress_interface": "interface",
    "egress_interface": "interface",
    "ingress_vrf_id": "vrf",
    "egress_vrf_id": "vrf",
    "application_id": "application",
}
PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}
_PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOL_NAMES.items()}
_ROOM = (64, 64, 32)  # bits of the three words of a packed key


@dataclass(frozen=True, slots=True)
class Place:
    """Where a number of a packed key lies."""

    part: str
    word: int
    shift: int
    bits: int


@dataclass(frozen=True, slots=True)
class Packing:
    """How a key is packed: the part that is an address ("" = none) and the places of the others."""

    address: str
    places: tuple[Place, ...]


@lru_cache(maxsize=64)
def packing_of(key: tuple[str, ...]) -> Packing:
    """Return how a key that no shipped view has is packed, or raise ConfigError."""
    if not key:
        raise ConfigError("a view's key must name at least one part")
    if len(set(key)) != len(key):
        raise ConfigError(f"key {'+'.join(key)} names a part twice")
    for part in key:
        if part not in ADDRESSES and part not in BITS and part not in DERIVED:
            known = ", ".join(sorted({*ADDRESSES, *BITS}))
            raise ConfigError(f"key part {part!r} is none of {known}")
    addresses = [part for part in key if part in ADDRESSES]
    if len(addresses) > 1:
        raise ConfigError(f"key {'+'.join(key)} has two addresses; a key holds one")
    used = [64, 64, 0] if addresses else [0, 0, 0]
    places = []
    for part in key:
        if part in ADDRESSES:
            continue
        bits = BITS.get(part) or DERIVED[part]
        word = next((w for w in range(3) if used[w] + bits <= _ROOM[w]), None)
        if word is None:
            raise ConfigError(f"key {'+'.join(key)} is too long: 160 bits, an address takes 128")
        places.append(Place(part, word, used[word], bits))
        used[word] += bits
    return Packing(addresses[0] if addresses else "", tuple(places))


def key_text(key: Mapping[str, str]) -> str:
    """Return the canonical text of a key: `exporter=127.1.0.1,interface=3,direction=in`."""
    return ",".join(f"{name}={value}" for name, value in key.items())


def is_address(key: Mapping[str, str]) -> bool:
    """Return whether every part is an address or a prefix: it needs no name beside it."""
    return all(part in ADDRESSES for part in key)


def key_of(parts: tuple[str, ...], words: list[int]) -> dict[str, str]:
    """Return the key that three words stand for."""
    high, low, third = words
    if parts not in SHIPPED:
        return _unpacked(parts, words)
    if "exporter" in parts:
        made = {"exporter": address_text(high, low)}
        if "interface" in parts:
            made["interface"] = str(third >> 1)
            made["direction"] = "out" if third & 1 else "in"
        return made
    if "protocol" in parts:
        return {
            "protocol": _number_text("protocol", third >> 32),
            "port_class": _number_text("port_class", third & 0xFFFF_FFFF),
        }
    return {parts[0]: f"{address_text(high, low)}/{third}"}


def words_of(text: str) -> list[int]:
    """Return the three words of a canonical key text: the reverse of `key_of`."""
    key = dict(part.split("=", 1) for part in text.split(","))
    parts = tuple(key)
    if parts not in SHIPPED:
        return _packed(parts, key)
    if "exporter" in key:
        high, low = address_pair(key["exporter"])
        way = 1 if key.get("direction") == "out" else 0
        third = int(key["interface"]) << 1 | way if "interface" in key else 0
        return [high, low, third]
    if "protocol" in key:
        protocol = _number_of("protocol", key["protocol"])
        return [0, 0, protocol << 32 | _number_of("port_class", key["port_class"])]
    prefix, length = next(iter(key.values())).rsplit("/", 1)
    high, low = address_pair(prefix)
    return [high, low, int(length)]


def _unpacked(parts: tuple[str, ...], words: list[int]) -> dict[str, str]:
    packing = packing_of(parts)
    where = {place.part: place for place in packing.places}
    made = {}
    for part in parts:
        place = where.get(part)
        if place is not None:
            number = words[place.word] >> place.shift & ((1 << place.bits) - 1)
            four = words[0] == 0 and words[1] >> 32 == 0xFFFF
            made[part] = _number_text(part, number, four=four)
            continue
        text = address_text(words[0], words[1])
        if part.endswith("_prefix"):
            four = words[0] == 0 and words[1] >> 32 == 0xFFFF
            text += "/24" if four else "/48"
        made[part] = text
    return made


def _packed(parts: tuple[str, ...], key: Mapping[str, str]) -> list[int]:
    packing = packing_of(parts)
    words = [0, 0, 0]
    if packing.address:
        words[0], words[1] = address_pair(key[packing.address].split("/", 1)[0])
    for place in packing.places:
        words[place.word] |= _number_of(place.part, key[place.part]) << place.shift
    return words


def _number_text(part: str, number: int, *, four: bool = True) -> str:
    if part == "destination_peer":  # of an IPv6 pair it is a hash: the sample has the address
        return address_text(0, V4_MAPPED | number) if four else f"#{number:08x}"
    if part == "vector":
        return _VECTOR_NAMES.get(number, str(number))
    if part == "protocol":
        return PROTOCOL_NAMES.get(number, str(number))
    if part == "port_class" and number == DYNAMIC_PORT:
        return "dynamic"
    return str(number)


def _number_of(part: str, text: str) -> int:
    if part == "protocol" and text in _PROTOCOL_NUMBERS:
        return _PROTOCOL_NUMBERS[text]
    if part == "destination_peer":
        return int(text[1:], 16) if text[0] == "#" else address_pair(text)[1] & 0xFFFF_FFFF
    if part == "vector" and not text.isdigit():
        return VECTOR_SYN if text == "syn" else VECTOR_ICMP
    return DYNAMIC_PORT if text == "dynamic" else int(text)
