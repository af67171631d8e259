"""Identity: stable 64-bit ids of canonical keys, and addresses as text.

Ids are hashes of content, so a replay, another shard and another machine give the same ones.
"""

import ipaddress
import socket
from functools import lru_cache

from telemetry.digest import blake2b

V4_MAPPED = 0xFFFF << 32  # low half of ::ffff:0.0.0.0


def stable_id(key: str) -> int:
    """Return the 64-bit id of a canonical key: BLAKE2b with 8 bytes, big-endian, never 0.

    >>> f"{stable_id('router=ams1'):016x}"
    '31e83a87fad6c01b'
    """
    return int.from_bytes(blake2b(key.encode("utf-8"), digest_size=8).digest(), "big") or 1


def id_text(value: int) -> str:
    """Return an id as people and files see it: 16 hex digits."""
    return f"{value:016x}"


@lru_cache(65_536)
def address_text(high: int, low: int) -> str:
    """Return the text of an address given as two u64; IPv4-mapped ones as dotted quad.

    >>> address_text(0, 0xFFFF_0A000001)
    '10.0.0.1'
    >>> address_text(0x20010DB8 << 32, 1)
    '2001:db8::1'
    """
    if high == 0 and low >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(low & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(high << 64 | low))


def address_pair(text: str) -> tuple[int, int]:
    """Return (high, low) u64 of an address; raise ValueError where the text is none.

    >>> address_pair("10.0.0.1") == (0, 0xFFFF_0A000001)
    True
    """
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return 0, V4_MAPPED | int(address)
    return int(address) >> 64, int(address) & 0xFFFF_FFFF_FFFF_FFFF


@lru_cache(16_384)
def prefix_number(text: str) -> tuple[int, int, int] | None:
    """Return (bits of its family, number, length) of an address or a prefix, None where a text is neither.

    >>> prefix_number("10.1.0.7/8"), prefix_number("::1"), prefix_number("ams1")
    ((32, 167772160, 8), (128, 1, 128), None)
    """
    host, slash, after = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in host else (socket.AF_INET, 32)
    try:
        number = int.from_bytes(socket.inet_pton(family, host), "big")
    except (OSError, ValueError):
        return None
    length = int(after) if after.isdecimal() and len(after) <= 3 else -1 if slash else bits
    if not 0 <= length <= bits:
        return None
    rest = bits - length
    return bits, number >> rest << rest, length
