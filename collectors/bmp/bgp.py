"""What BGP peers say about themselves: OPEN with its capabilities, NOTIFICATION in words; attributes of an UPDATE.

Source: RFC 4271 (messages, errors), 5492 (capabilities), 9072 (extended parameters), 6793 (four-octet AS
numbers), 7911 (path ids), 4486, 8203 and 9003 (Cease, shutdown communication), 9384 (BFD down).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from collectors.bmp.bgp_updates import FAMILY

HEADER_BYTES = 19
MARKER = b"\xff" * 16
_SEND, _RECEIVE = 2, 1

_CEASE = {
    1: "maximum number of prefixes reached", 2: "administrative shutdown", 3: "peer de-configured",
    4: "administrative reset", 5: "connection rejected", 6: "other configuration change",
    7: "connection collision resolution", 8: "out of resources", 9: "hard reset", 10: "BFD down",
}  # fmt: skip
_ERRORS = {
    1: ("message header error", {1: "connection not synchronized", 2: "bad message length",
                                 3: "bad message type"}),
    2: ("OPEN message error", {1: "unsupported version number", 2: "bad peer AS",
                               3: "bad BGP identifier", 4: "unsupported optional parameter",
                               6: "unacceptable hold time", 7: "unsupported capability",
                               11: "role mismatch"}),
    3: ("UPDATE message error", {1: "malformed attribute list", 2: "unrecognized well-known attribute",
                                 3: "missing well-known attribute", 4: "attribute flags error",
                                 5: "attribute length error", 6: "invalid ORIGIN attribute",
                                 8: "invalid NEXT_HOP attribute", 9: "optional attribute error",
                                 10: "invalid network field", 11: "malformed AS_PATH"}),
    4: ("hold timer expired", {}),
    5: ("finite state machine error", {}),
    6: ("cease", _CEASE),
    7: ("ROUTE-REFRESH message error", {1: "invalid message length"}),
    8: ("send hold timer expired", {}),
}  # fmt: skip
ADMINISTRATIVE = frozenset({(6, 2), (6, 3), (6, 4), (6, 9)})  # someone wanted it


@dataclass(frozen=True, slots=True)
class Open:
    """An OPEN message: who speaks, and which families' routes it would send or take with path ids."""

    autonomous_system: int
    identifier: int
    # Family number: 1 receive, 2 send, 3 both.
    path_ids: dict[int, int] = field(default_factory=dict)


def message_end(data: bytes, at: int) -> int:
    """Return where the BGP message at `at` ends, -1 where there is no whole one."""
    if data[at : at + 16] != MARKER or at + HEADER_BYTES > len(data):
        return -1
    size = int.from_bytes(data[at + 16 : at + 18], "big")
    return at + size if HEADER_BYTES <= size <= len(data) - at else -1


def read_open(data: bytes) -> Open | None:
    """Return a whole OPEN message, header included, or None where it is none."""
    if len(data) < 29 or data[18] != 1:
        return None
    autonomous_system = int.from_bytes(data[20:22], "big")
    identifier = int.from_bytes(data[24:28], "big")
    path_ids: dict[int, int] = {}
    for code, value in _capabilities(data):
        if code == 65 and len(value) == 4:
            autonomous_system = int.from_bytes(value, "big")
        elif code == 69:
            for place in range(0, len(value) - 3, 4):
                pair = (int.from_bytes(value[place : place + 2], "big"), value[place + 2])
                if pair in FAMILY:
                    path_ids[FAMILY[pair]] = value[place + 3]
    return Open(autonomous_system, identifier, path_ids)


def _capabilities(data: bytes) -> list[tuple[int, bytes]]:
    """Return (code, value) of every capability; what is cut off is left out."""
    size, at, extended = data[28], 29, False
    if size and len(data) >= 32 and data[29] == 255:  # RFC 9072
        size, at, extended = int.from_bytes(data[30:32], "big"), 32, True
    end = min(at + size, len(data))
    found = []
    while at + 2 + extended <= end:
        kind = data[at]
        width = int.from_bytes(data[at + 1 : at + 3], "big") if extended else data[at + 1]
        at += 2 + extended
        body = data[at : min(at + width, end)]
        at += width
        place = 0
        while kind == 2 and place + 2 <= len(body):
            length = body[place + 1]
            if place + 2 + length <= len(body):
                found.append((body[place], body[place + 2 : place + 2 + length]))
            place += 2 + length
    return found


def families_with_path_ids(sent: Open | None, received: Open | None) -> tuple[int, int, int]:
    """Return a bit for each family whose routes carry path ids: received ones, sent ones, Loc-RIB's.

    Path ids come where one side said that it sends them and the other that it takes them. Loc-RIB's
    two OPEN messages are made up by the router (RFC 9069): what either states counts.
    """
    ours = sent.path_ids if sent else {}
    theirs = received.path_ids if received else {}
    into = out = local = 0
    for family in FAMILY.values():
        a, b = ours.get(family, 0), theirs.get(family, 0)
        into |= bool(a & _RECEIVE and b & _SEND) << family
        out |= bool(a & _SEND and b & _RECEIVE) << family
        local |= bool(a or b) << family
    return into, out, local


def attributes_of(message: bytes) -> bytes:
    """Return the attributes of a whole UPDATE as they are."""
    start = 23 + int.from_bytes(message[19:21], "big")
    return message[start : start + int.from_bytes(message[start - 2 : start], "big")]


def path_attributes(message: bytes) -> dict[int, bytes]:
    """Return the value of each attribute of a whole UPDATE, of two the first; what is cut off is left out."""
    data = attributes_of(message)
    found: dict[int, bytes] = {}
    for kind, body, end in spans(data):
        found.setdefault(kind, data[body:end])
    return found


def spans(attributes: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (type, where its value begins, where it ends) of each attribute that is whole."""
    at = 0
    while at + 3 <= len(attributes):
        wide = bool(attributes[at] & 0x10)
        body = at + 3 + wide
        end = body + int.from_bytes(attributes[at + 2 : body], "big")
        if end > len(attributes):
            return
        yield attributes[at + 1], body, end
        at = end


def notification_text(data: bytes) -> tuple[str, tuple[int, int]]:
    """Return a NOTIFICATION message, header included, in words, and its (code, subcode).

    >>> notification_text(b"\\xff" * 16 + b"\\x00\\x1d\\x03\\x06\\x02\\x07rebuild")[0]
    'cease: administrative shutdown ("rebuild")'
    """
    if len(data) < 21 or data[18] != 3:
        return "", (0, 0)
    code, subcode, rest = data[19], data[20], data[21:]
    name, subcodes = _ERRORS.get(code, (f"error {code}", {}))
    text = name
    if subcode:
        text += f": {subcodes.get(subcode, f'subcode {subcode}')}"
    if code == 6 and subcode in (2, 4) and rest and 0 < rest[0] <= len(rest) - 1:
        said = rest[1 : 1 + rest[0]].decode("utf-8", "replace")
        text += f' ("{printable(said)}")'
    return text, (code, subcode)


def printable(text: str) -> str:
    """Return a stranger's text without what would upset a terminal."""
    return "".join(c if c.isprintable() else "." for c in text)


def distinguisher_text(value: int) -> str:
    """Return a route distinguisher as people write it, "" for none.

    >>> distinguisher_text(0x0000_FBF3_0000_005E), distinguisher_text(0x0001_C0000201_0007)
    ('64499:94', '192.0.2.1:7')
    """
    if not value:
        return ""
    kind, rest = value >> 48, value & 0xFFFF_FFFF_FFFF
    if kind == 0:
        return f"{rest >> 32}:{rest & 0xFFFFFFFF}"
    if kind == 1:
        address = ".".join(str(octet) for octet in (rest >> 16).to_bytes(4, "big"))
        return f"{address}:{rest & 0xFFFF}"
    if kind == 2:
        return f"{rest >> 16}:{rest & 0xFFFF}"
    return f"{value:016x}"
