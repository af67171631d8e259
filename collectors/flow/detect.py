"""Which flow protocol a datagram speaks, by its first bytes: for captures, where ports say little."""

from typing import Literal

Protocol = Literal["netflow5", "netflow9", "ipfix", "sflow5"]

# Ports on which exporters send by habit: what comes there and is none of ours is worth a word.
FLOW_PORTS = frozenset({2055, 2056, 4432, 4739, 6343, 9555, 9995, 9996})
_LEAST_BYTES = {5: 24, 9: 20, 10: 16}
_NAMES: dict[int, Protocol] = {5: "netflow5", 9: "netflow9", 10: "ipfix"}


def protocol_of(payload: bytes) -> Protocol | None:
    """Return the protocol of a datagram, or None where it looks like none.

    The version alone is two bytes of luck; the length, the counts and the set ids behind it must
    make sense too. A damaged export may still pass: its decoder says what is wrong with it.
    """
    size = len(payload)
    if size >= 8 and payload[:4] == b"\x00\x00\x00\x05" and payload[4:7] == b"\x00\x00\x00":
        return "sflow5" if payload[7] in (1, 2) else None
    if size < 4 or payload[0] != 0 or payload[1] not in _NAMES:
        return None
    version = payload[1]
    count = int.from_bytes(payload[2:4], "big")
    if size < _LEAST_BYTES[version]:
        return None
    if version == 5:
        fits = size >= 24 + 48 or count == 0
        return "netflow5" if fits and (1 <= count <= 30 or (size - 24) % 48 == 0) else None
    head = _LEAST_BYTES[version]
    if version == 10 and (count < 16 or count > size + 4096):
        return None
    if size >= head + 4:
        set_id = int.from_bytes(payload[head : head + 2], "big")
        plausible = set_id >= 256 or set_id in ((0, 1) if version == 9 else (2, 3))
        if not plausible:
            return None
    return _NAMES[version]


def export_ns(payload: bytes) -> int:
    """Return the export time of a NetFlow or IPFIX header in ns since 1970, 0 where it has none."""
    if len(payload) < 16 or payload[:2] not in (b"\x00\x05", b"\x00\x09", b"\x00\x0a"):
        return 0
    at = 4 if payload[1] == 10 else 8
    return int.from_bytes(payload[at : at + 4], "big") * 1_000_000_000
