"""BMP's rare messages in words: TLVs, statistics, why a peer went down.

Source: RFC 7854 sections 4.4 to 4.10; RFC 8671 section 6 (statistics 14-17); RFC 9069 section 5; IANA BMP
parameters (names of statistics).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from collectors.bmp.bgp import (
    ADMINISTRATIVE,
    Open,
    message_end,
    notification_text,
    printable,
    read_open,
)
from collectors.bmp.bgp_updates import FAMILY, FAMILY_NAMES
from telemetry.identity import V4_MAPPED, address_text

HEADER_BYTES = 48  # common and per-peer header
TEXT_MAX = 255
IPV6_PEER = 0x80  # flag of the per-peer header

# number: (metric, whether it is a gauge)
STATISTICS = {
    0: ("bgp_prefixes_rejected", False),
    1: ("bgp_duplicate_announcements", False),
    2: ("bgp_duplicate_withdrawals", False),
    3: ("bgp_cluster_list_loops", False),
    4: ("bgp_as_path_loops", False),
    5: ("bgp_originator_id_loops", False),
    6: ("bgp_confederation_loops", False),
    7: ("bgp_adj_rib_in_routes", True),
    8: ("bgp_loc_rib_routes", True),
    9: ("bgp_adj_rib_in_family_routes", True),
    10: ("bgp_loc_rib_family_routes", True),
    11: ("bgp_updates_treated_as_withdraw", False),
    12: ("bgp_prefixes_treated_as_withdraw", False),
    13: ("bgp_duplicate_updates", False),
    14: ("bgp_adj_rib_out_pre_routes", True),
    15: ("bgp_adj_rib_out_post_routes", True),
    16: ("bgp_adj_rib_out_pre_family_routes", True),
    17: ("bgp_adj_rib_out_post_family_routes", True),
}
_FAMILY = {pair: FAMILY_NAMES[number] for pair, number in FAMILY.items()}


@dataclass(frozen=True, slots=True)
class Statistic:
    """One number of a statistics report; counters have 32 bits and wrap."""

    metric: str
    family: str  # "" where it is of all families
    gauge: bool
    value: int


@dataclass(frozen=True, slots=True)
class PeerUp:
    """What the router and its peer told each other."""

    sent: Open | None
    received: Open | None
    table: str  # VRF or table name


def tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value); what is cut off is left out."""
    at = 0
    while at + 4 <= len(data):
        kind, size = (
            int.from_bytes(data[at : at + 2], "big"),
            int.from_bytes(data[at + 2 : at + 4], "big"),
        )
        if at + 4 + size > len(data):
            return
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + size


def text_of(value: bytes) -> str:
    """Return a router's text, bounded and printable."""
    return printable(value[:TEXT_MAX].decode("utf-8", "replace").strip("\0 "))


def read_peer_up(message: bytes) -> PeerUp | None:
    """Return a whole Peer Up message's contents, None where it has no two OPEN messages."""
    first = HEADER_BYTES + 20
    middle = message_end(message, first)
    end = message_end(message, middle) if middle > 0 else -1
    if end < 0:
        return None
    names = [value for kind, value in tlvs(message[end:]) if kind == 3]
    return PeerUp(
        read_open(message[first:middle]),
        read_open(message[middle:end]),
        text_of(names[0]) if names else "",
    )


def local_address(message: bytes) -> str:
    """Return the address of a session's near end, as a whole Peer Up message has it; "" where unknown."""
    high = int.from_bytes(message[HEADER_BYTES : HEADER_BYTES + 8], "big")
    low = int.from_bytes(message[HEADER_BYTES + 8 : HEADER_BYTES + 16], "big")
    if not high and not low:
        return ""
    if not message[7] & IPV6_PEER:
        high, low = 0, V4_MAPPED | low & 0xFFFFFFFF
    return address_text(high, low)


def read_statistics(message: bytes) -> list[Statistic]:
    """Return the numbers of a statistics report; what has no size that is known is left out."""
    found = []
    for kind, value in tlvs(message[HEADER_BYTES + 4 :]):
        metric, gauge = STATISTICS.get(kind, (f"bgp_statistic_{kind}", len(value) != 4))
        if len(value) in (4, 8):
            found.append(Statistic(metric, "", gauge, int.from_bytes(value, "big")))
        elif len(value) == 11:
            pair = (int.from_bytes(value[:2], "big"), value[2])
            family = _FAMILY.get(pair, f"{pair[0]}/{pair[1]}")
            found.append(Statistic(metric, family, gauge, int.from_bytes(value[3:], "big")))
    return found


def why_down(message: bytes) -> tuple[str, bool]:
    """Return why a peer went down in words, and whether someone wanted it."""
    reason = message[HEADER_BYTES] if len(message) > HEADER_BYTES else 0
    data = message[HEADER_BYTES + 1 :]
    if reason in (1, 3):
        text, codes = notification_text(data)
        who = "router" if reason == 1 else "peer"
        said = f"{who} closed the session: {text}" if text else f"{who} closed the session"
        return said, codes in ADMINISTRATIVE
    if reason == 2:
        event = int.from_bytes(data[:2], "big")
        because = f"FSM event {event}" if event else "no reason given"
        return f"router closed the session: {because}", event == 2  # RFC 4271: ManualStop
    if reason == 4:
        return "connection to the peer was lost without notification", False
    if reason == 5:
        return "peer is no longer reported: configuration of the router", True
    if reason == 6:
        names = [text_of(value) for kind, value in tlvs(data) if kind == 3]
        return "table of routes is gone" + (f": {names[0]}" if names else ""), False
    return f"reason {reason}", False


_TERMINATIONS = {
    0: "administratively closed", 1: "unspecified reason", 2: "out of resources",
    3: "redundant connection", 4: "permanently administratively closed",
}  # fmt: skip


def why_terminated(message: bytes) -> str:
    """Return what a Termination message says."""
    said = []
    for kind, value in tlvs(message[6:]):
        if kind == 0:
            said.append(text_of(value))
        elif kind == 1 and len(value) == 2:
            number = int.from_bytes(value, "big")
            said.append(_TERMINATIONS.get(number, f"reason {number}"))
    return ", ".join(part for part in said if part) or "no reason given"
