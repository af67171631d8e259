"""BER as SNMP uses it: a bounded reader that raises DecodeError by reason, and a writer.

Read are definite lengths of at most four octets, and single-octet tags. Everything lies in one
`bytes`; places are offsets into it, so that nothing is copied before it is known to be whole.

Source: ITU-T X.690; RFC 3416 section 3; RFC 2578 section 7; RFC 3417 section 8.
"""

import struct
from enum import IntEnum
from functools import lru_cache

from telemetry.errors import DecodeError

OID_PARTS_MAX = 128  # RFC 2578, section 3.5
VALUE_TEXT_MAX = 4096


class Tag(IntEnum):
    """Tags of the values, messages and PDUs of SNMP."""

    INTEGER = 0x02
    OCTETS = 0x04
    NULL = 0x05
    OID = 0x06
    SEQUENCE = 0x30
    IP_ADDRESS = 0x40
    COUNTER32 = 0x41
    GAUGE32 = 0x42
    TIME_TICKS = 0x43
    OPAQUE = 0x44
    COUNTER64 = 0x46
    UNSIGNED32 = 0x47  # RFC 1442, withdrawn; read like a Gauge32
    NO_SUCH_OBJECT = 0x80
    NO_SUCH_INSTANCE = 0x81
    END_OF_VIEW = 0x82
    GET = 0xA0
    GET_NEXT = 0xA1
    RESPONSE = 0xA2
    SET = 0xA3
    TRAP_V1 = 0xA4
    GET_BULK = 0xA5
    INFORM = 0xA6
    TRAP_V2 = 0xA7
    REPORT = 0xA8


EXCEPTIONS = frozenset({Tag.NO_SUCH_OBJECT, Tag.NO_SUCH_INSTANCE, Tag.END_OF_VIEW})
# As plain numbers: an enumeration's member takes longer to look up than to compare.
_INTEGER, _OCTETS, _OID = int(Tag.INTEGER), int(Tag.OCTETS), int(Tag.OID)
_UNSIGNED: dict[int, int] = {
    Tag.COUNTER32: 32, Tag.GAUGE32: 32, Tag.TIME_TICKS: 32, Tag.UNSIGNED32: 32, Tag.COUNTER64: 64,
}  # fmt: skip
Plain = int | float | bytes | str | None


def header(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return (tag, start, stop) of the element at `at`, whole within `end`. Raises DecodeError."""
    if at + 2 > end:
        raise DecodeError("truncated", f"element at byte {at} has no length")
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 4:
            raise DecodeError("bad_length", f"length of {octets} octets at byte {at}")
        if start + octets > end:
            raise DecodeError("truncated", f"length at byte {at} is cut off")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    if start + length > end:
        raise DecodeError("truncated", f"element at byte {at} ends {start + length - end} too far")
    return tag, start, start + length


def expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return (start, stop) of the element at `at`, which must have this tag."""
    start = at + 2
    if start <= end and data[at] == tag:  # nearly all are short: no need to call
        length = data[at + 1]
        if length < 0x80 and start + length <= end:
            return start, start + length
    found, start, stop = header(data, at, end)
    if found != tag:
        raise DecodeError("bad_type", f"tag {found:#x} at byte {at} where {tag:#x} is due")
    return start, stop


def integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return (value, offset behind it) of an INTEGER."""
    start, stop = expect(data, at, end, _INTEGER)
    if not 1 <= stop - start <= 8:
        raise DecodeError("bad_value", f"INTEGER of {stop - start} octets at byte {at}")
    return int.from_bytes(data[start:stop], "big", signed=True), stop


def oid_text(content: bytes) -> str:
    """Return an OID's content octets as dotted text. Raises DecodeError.

    >>> oid_text(bytes.fromhex("2b060102010202010800"))
    '1.3.6.1.2.1.2.2.1.8.0'
    """
    # Of most OIDs all but the last part (a row's index) were seen before.
    at = len(content) - 1
    if at < 1 or content[at] & 0x80:
        return _oid_read(content)[0]
    value, shift = content[at], 7
    while at and content[at - 1] & 0x80:
        at -= 1
        value |= (content[at] & 0x7F) << shift
        shift += 7
    if at == 0 or shift > 35 or value >> 32:
        return _oid_read(content)[0]
    head, parts = _oid_read(content[:at])
    if parts >= OID_PARTS_MAX:
        raise DecodeError("bad_oid", f"{parts + 1} sub-identifiers, {OID_PARTS_MAX} at most")
    return f"{head}.{value}"


@lru_cache(65536)
def _oid_read(content: bytes) -> tuple[str, int]:
    """Return (text, number of parts) of an OID. Raises DecodeError."""
    if not content or content[-1] & 0x80:
        raise DecodeError("bad_oid", "empty or cut off")
    parts: list[int] = []
    value = octets = 0
    for octet in content:
        octets += 1
        value = value << 7 | (octet & 0x7F)
        if value >> 32:
            raise DecodeError("bad_oid", "sub-identifier beyond 32 bits")
        if not octet & 0x80:
            parts.append(value)
            value = octets = 0
        elif octets > 4:
            raise DecodeError("bad_oid", "sub-identifier of more than five octets")
    first = min(parts[0] // 40, 2)
    parts[:1] = [first, parts[0] - 40 * first]
    if len(parts) > OID_PARTS_MAX:
        raise DecodeError("bad_oid", f"{len(parts)} sub-identifiers, {OID_PARTS_MAX} at most")
    return ".".join(map(str, parts)), len(parts)


def plain(tag: int, content: bytes) -> Plain:
    """Return a value as Python has it: int, float, text (OID, address), bytes. Raises DecodeError.

    A counter or gauge without the leading zero that its top bit asks for (a common slip of agents)
    is the unsigned number meant. Opaque with a float or double in it (Net-SNMP) is that number.
    """
    if tag == _OCTETS:
        return content
    if tag == _INTEGER:
        if not 1 <= len(content) <= 8:
            raise DecodeError("bad_value", f"INTEGER of {len(content)} octets")
        return int.from_bytes(content, "big", signed=True)
    if tag == _OID:
        return oid_text(content)
    bits = _UNSIGNED.get(tag)
    if bits is not None:
        if not 1 <= len(content) <= bits // 8 + 1:
            raise DecodeError("bad_value", f"{bits}-bit number of {len(content)} octets")
        return int.from_bytes(content, "big") & ((1 << bits) - 1)
    if tag == Tag.IP_ADDRESS:
        if len(content) != 4:
            raise DecodeError("bad_value", f"IpAddress of {len(content)} octets")
        return ".".join(map(str, content))
    if tag == Tag.OPAQUE:
        if content[:3] == b"\x9f\x78\x04" and len(content) == 7:
            return float(struct.unpack(">f", content[3:])[0])
        if content[:3] == b"\x9f\x79\x08" and len(content) == 11:
            return float(struct.unpack(">d", content[3:])[0])
        return content
    if tag == Tag.NULL or tag in EXCEPTIONS:
        return None
    raise DecodeError("bad_type", f"value of tag {tag:#x}")


# ---- writing


def element(tag: int, *parts: bytes) -> bytes:
    """Return an element of these parts."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | octets)) + size.to_bytes(octets, "big") + content


def number(value: int, tag: int = Tag.INTEGER) -> bytes:
    """Return an integer of any of SNMP's types; one of Counter64 may reach 2**64 - 1."""
    octets = (value.bit_length() if value >= 0 else (value + 1).bit_length()) // 8 + 1
    return element(tag, value.to_bytes(octets, "big", signed=True))


@lru_cache(8192)
def oid_content(text: str) -> bytes:
    """Return the content octets of an OID. Raises ValueError where the text is none.

    >>> oid_content("1.3.6.1.4.1.2636.4").hex()
    '2b06010401944c04'
    """
    parts = [int(part) for part in text.strip(".").split(".")]
    if len(parts) < 2 or parts[0] > 2 or min(parts) < 0 or max(parts) >> 32:
        raise ValueError(f"{text!r} is no OID")
    return b"".join(_base128(value) for value in (parts[0] * 40 + parts[1], *parts[2:]))


def oid(text: str) -> bytes:
    """Return an OID."""
    return element(Tag.OID, oid_content(text))


def octets(value: bytes) -> bytes:
    """Return an OCTET STRING."""
    return element(Tag.OCTETS, value)


def _base128(value: int) -> bytes:
    made = bytes((value & 0x7F,))
    while value := value >> 7:
        made = bytes((0x80 | value & 0x7F,)) + made
    return made
