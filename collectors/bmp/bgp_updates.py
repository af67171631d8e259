"""BGP UPDATE messages as rows, one for each route announced or withdrawn. Pure: knows no peers.

Families read: IPv4 and IPv6 unicast, multicast, labelled, VPN; EVPN. BGP-LS is marked for `link_state`, FlowSpec for
`flow_rules`, others are counted and left.
A route's identity is a hash of what the standard makes its key (labels and ESI of a MAC route are
none of it); AS paths are hashed by their ASes, so that two- and four-octet forms, and any cut into
segments, give the same number.

Source: RFC 4271 (messages), 4760 (MP_REACH, MP_UNREACH), 4364 and 4659 (VPN), 8277 (labels), 7432 and
9136 (EVPN), 6793 (AS4_PATH), 7911 (path ids), 1997, 4360, 8092 (communities), 7606 (errors), 4724
(End-of-RIB), 8950 (IPv6 next hops of IPv4 routes).
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, load_u16, load_u32, load_u64, subroutine

# (AFI, SAFI) by family number; (0, 0) stands for all that are not read, what is behind it others read.
FAMILIES = (
    (1, 1), (2, 1), (1, 4), (2, 4), (1, 128), (2, 128), (25, 70), (1, 2), (2, 2), (0, 0),
    (1, 133), (2, 133), (1, 134), (2, 134),
)  # fmt: skip
FAMILY_NAMES = (
    "ipv4", "ipv6", "ipv4-labelled", "ipv6-labelled", "vpnv4", "vpnv6", "evpn", "ipv4-multicast",
    "ipv6-multicast", "other", "ipv4-flowspec", "ipv6-flowspec", "vpnv4-flowspec", "vpnv6-flowspec",
)  # fmt: skip
OTHER_FAMILY = 9
EVPN_FAMILY = 6
FAMILY = {pair: number for number, pair in enumerate(FAMILIES) if number != OTHER_FAMILY}
UNKNOWN_PATH_IDS = 1 << 62  # bit of `path_ids`: nobody said whether routes carry path ids

# Rows of the kernel's matrices.
WIDE = (
    "prefix_high", "prefix_low", "next_hop_address_high", "next_hop_address_low",
    "route_distinguisher", "as_path_hash", "communities_hash", "route_key", "mac_address",
)  # fmt: skip
WORDS = ("message", "path_id", "origin_as", "multi_exit_discriminator", "local_preference",
         "mpls_label")  # fmt: skip
OCTETS = ("prefix_length", "withdrawn", "origin", "family", "evpn_route_type", "attributes")
HAS_MED, HAS_LOCAL_PREFERENCE = 1, 2  # bits of `attributes`
LINK_STATE, FLOW_RULES, OTHER = 1, 2, 4  # bits of `out_others`: what a message holds that is no row


class Verdict(IntEnum):
    """What became of one UPDATE; the lower-case name is a metric label."""

    OK = 0
    END_OF_RIB = 1
    TREATED_AS_WITHDRAW = 2  # RFC 7606: attributes are wrong, routes can be told
    NOT_UPDATE = 3
    MALFORMED = 4  # routes cannot be told: no rows
    OTHER_FAMILY = 5  # nothing but routes of families that are not read
    LINK_STATE = 6  # nothing but BGP-LS, which is no route
    FLOW_RULES = 7  # nothing but FlowSpec


@dataclass(frozen=True, slots=True)
class RouteMemory:
    """Columns that the kernel writes, reused for call after call."""

    wide: NDArray[np.uint64]
    words: NDArray[np.uint32]
    lengths: NDArray[np.uint16]  # of AS paths
    octets: NDArray[np.uint8]

    @classmethod
    def room(cls, rows: int) -> "RouteMemory":
        """Return columns for so many rows."""
        return cls(
            np.empty((len(WIDE), rows), np.uint64),
            np.empty((len(WORDS), rows), np.uint32),
            np.empty(rows, np.uint16),
            np.empty((len(OCTETS), rows), np.uint8),
        )


@inline
def _u16(buffer, at):  # type: ignore[no-untyped-def]
    return np.int64(load_u16(buffer, at))


@inline
def _u32(buffer, at):  # type: ignore[no-untyped-def]
    return np.int64(load_u32(buffer, at))


@inline
def _mix(h, value):  # type: ignore[no-untyped-def]
    h = (h ^ value) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return h ^ (h >> np.uint64(29))


@inline
def family_of(afi, safi):  # type: ignore[no-untyped-def]
    """The place of an address family in FAMILIES, 9 where it is none of them."""
    if afi == 1 or afi == 2:
        if safi == 1:
            return afi - 1
        if safi == 4:
            return afi + 1
        if safi == 128:
            return afi + 3
        if safi == 2:
            return afi + 6
        if safi == 133:
            return afi + 9
        if safi == 134:
            return afi + 11
    if afi == 25 and safi == 70:
        return 6
    return 9


@inline
def _bits_max(family):  # type: ignore[no-untyped-def]
    return 32 if family == 0 or family == 2 or family == 4 or family == 7 else 128


@subroutine
def _evpn_ok(buffer, at, size, kind):  # type: ignore[no-untyped-def]
    """Return whether an EVPN route has a length that its type allows."""
    if kind == 1:
        return size == 25
    if kind == 2:
        if size < 30:
            return False
        bits = np.int64(buffer[at + 29])
        octets = bits >> 3
        if bits != 0 and bits != 32 and bits != 128:
            return False
        return size == 33 + octets or size == 36 + octets
    if kind == 3 or kind == 4:
        head = 13 if kind == 3 else 19
        if size < head:
            return False
        bits = np.int64(buffer[at + head - 1])
        return (bits == 32 or bits == 128) and size == head + (bits >> 3)
    if kind == 5:
        if size == 34:
            return buffer[at + 22] <= 32
        return size == 58 and buffer[at + 22] <= 128
    return kind > 5


@subroutine
def _count(buffer, at, end, family, path_ids):  # type: ignore[no-untyped-def]
    """Return (routes, default routes) in a list of routes, routes = -1 where it is malformed."""
    count = 0
    defaults = 0
    while at < end:
        if path_ids:
            at += 4
            if at >= end:
                return -1, 0
        if family == EVPN_FAMILY:
            if at + 2 > end:
                return -1, 0
            kind = np.int64(buffer[at])
            size = np.int64(buffer[at + 1])
            at += 2
            if at + size > end or not _evpn_ok(buffer, at, size, kind):
                return -1, 0
            at += size
            count += 1
            continue
        bits = np.int64(buffer[at])
        at += 1
        octets = (bits + 7) >> 3
        if at + octets > end:
            return -1, 0
        left = bits
        if family >= 2 and family <= 5:
            place = at
            while True:  # the stack of labels: until its bottom, or the label that says "none"
                if left < 24:
                    return -1, 0
                label = _u16(buffer, place) << 8 | np.int64(buffer[place + 2])
                place += 3
                left -= 24
                if label & 1 == 1 or label == 0 or label == 0x800000:
                    break
            if family >= 4:
                left -= 64
        if left < 0 or left > _bits_max(family):
            return -1, 0
        if left == 0:
            defaults += 1
        at += octets
        count += 1
    return count, defaults


@subroutine
def _with_path_ids(buffer, at, end, family, path_ids):  # type: ignore[no-untyped-def]
    """Return (1 where routes carry path ids, else 0; how many routes, -1 where malformed).

    Where no OPEN was seen both readings are tried. A path id below 2^24 reads as two or more default
    routes: nobody sends one prefix twice in a list (pmacct issue 539).
    """
    if path_ids >> 62 == 0:
        stated = (path_ids >> family) & 1
        routes, _ = _count(buffer, at, end, family, stated)
        return stated, routes
    plain, defaults = _count(buffer, at, end, family, 0)
    if plain >= 0 and defaults < 2:
        return 0, plain
    marked, _ = _count(buffer, at, end, family, 1)
    if marked >= 0:
        return 1, marked
    return 0, plain


@subroutine
def _write(buffer, at, end, family, path_ids, withdrawn, message, now, wide, words, lengths, octets, row):  # type: ignore[no-untyped-def]  # fmt: skip
    """Write the routes of a list that `_count` found whole; return the next row."""
    mapped = np.uint64(0xFFFF) << np.uint64(32)
    bits_max = _bits_max(family)
    while at < end:
        path_id = np.uint32(0)
        if path_ids:
            path_id = np.uint32(load_u32(buffer, at))
            at += 4
        high = np.uint64(0)
        low = np.uint64(0)
        distinguisher = np.uint64(0)
        mac = np.uint64(0)
        label = np.int64(0)
        kind = np.int64(0)
        if family == EVPN_FAMILY:
            kind = np.int64(buffer[at])
            size = np.int64(buffer[at + 1])
            at += 2
            following = at + size
            key = _mix(np.uint64(0x45), np.uint64(kind))
            bits = np.int64(0)
            place = at + size  # of an address
            width = np.int64(0)  # its octets
            if kind <= 5 or (kind <= 10 and size >= 8):  # RFC 9251, 9572: all begin with it
                distinguisher = load_u64(buffer, at)
                key = _mix(key, distinguisher)
            if kind == 1:
                for k in range(8, 22):
                    key = _mix(key, np.uint64(buffer[at + k]))
                label = _u16(buffer, at + 22) << 8 | np.int64(buffer[at + 24])
            elif kind == 2:
                mac = load_u32(buffer, at + 23) << np.uint64(16) | load_u16(buffer, at + 27)
                key = _mix(_mix(key, load_u32(buffer, at + 18)), mac)
                width = np.int64(buffer[at + 29]) >> 3
                bits = width * 8
                place = at + 30
                label = _u16(buffer, place + width) << 8 | np.int64(buffer[place + width + 2])
            elif kind == 3:
                key = _mix(key, load_u32(buffer, at + 8))
                width = np.int64(buffer[at + 12]) >> 3
                bits = width * 8
                place = at + 13
            elif kind == 4:
                for k in range(8, 18):
                    key = _mix(key, np.uint64(buffer[at + k]))
                width = np.int64(buffer[at + 18]) >> 3
                bits = width * 8
                place = at + 19
            elif kind == 5:
                key = _mix(key, load_u32(buffer, at + 18))
                bits = np.int64(buffer[at + 22])
                width = np.int64(4 if size == 34 else 16)
                place = at + 23
                label = _u16(buffer, place + 2 * width) << 8 | np.int64(
                    buffer[place + 2 * width + 2]
                )
            else:
                for k in range(size):
                    key = _mix(key, np.uint64(buffer[at + k]))
            for k in range(width):
                octet = np.uint64(buffer[place + k])
                beyond = 8 * k + 8 - bits  # bits that are not of the prefix
                if beyond >= 8:
                    octet = np.uint64(0)
                elif beyond > 0:
                    octet = (octet >> np.uint64(beyond)) << np.uint64(beyond)
                if width == 4:
                    low |= octet << np.uint64(24 - 8 * k)
                elif k < 8:
                    high |= octet << np.uint64(56 - 8 * k)
                else:
                    low |= octet << np.uint64(120 - 8 * k)
            if width == 4:
                low |= mapped
            key = _mix(_mix(key, high), low ^ np.uint64(bits) << np.uint64(48))
            label >>= 4
            at = following
        else:
            bits = np.int64(buffer[at])
            at += 1
            following = at + ((bits + 7) >> 3)
            if family >= 2 and family <= 5:
                first = True
                while True:
                    word = _u16(buffer, at) << 8 | np.int64(buffer[at + 2])
                    at += 3
                    bits -= 24
                    if first and word != 0x800000:
                        label = word >> 4
                    first = False
                    if word & 1 == 1 or word == 0 or word == 0x800000:
                        break
                if family >= 4:
                    distinguisher = load_u64(buffer, at)
                    at += 8
                    bits -= 64
            if bits_max == 32:
                value = np.uint64(0)
                for k in range((bits + 7) >> 3):
                    value |= np.uint64(buffer[at + k]) << np.uint64(24 - 8 * k)
                low = (value >> np.uint64(32 - bits)) << np.uint64(32 - bits) | mapped
            else:
                for k in range((bits + 7) >> 3):
                    if k < 8:
                        high |= np.uint64(buffer[at + k]) << np.uint64(56 - 8 * k)
                    else:
                        low |= np.uint64(buffer[at + k]) << np.uint64(120 - 8 * k)
                if bits == 0:
                    high = np.uint64(0)
                elif bits <= 64:
                    high = (high >> np.uint64(64 - bits)) << np.uint64(64 - bits)
                    low = np.uint64(0)
                elif bits < 128:
                    low = (low >> np.uint64(128 - bits)) << np.uint64(128 - bits)
            key = _mix(np.uint64(family << 8 | bits), low)
            if bits_max == 128:
                key = _mix(key, high)
            if family >= 4:
                key = _mix(key, distinguisher)
            at = following
        wide[0, row] = high
        wide[1, row] = low
        wide[4, row] = distinguisher
        wide[7, row] = key
        wide[8, row] = mac
        words[0, row] = np.uint32(message)
        words[1, row] = path_id
        words[5, row] = np.uint32(label)
        octets[0, row] = np.uint8(bits)
        octets[1, row] = np.uint8(withdrawn)
        octets[3, row] = np.uint8(family)
        octets[4, row] = np.uint8(kind)
        if withdrawn:
            wide[2, row] = np.uint64(0)
            wide[3, row] = np.uint64(0)
            wide[5, row] = np.uint64(0)
            wide[6, row] = np.uint64(0)
            words[2, row] = np.uint32(0)
            words[3, row] = np.uint32(0)
            words[4, row] = np.uint32(0)
            lengths[row] = np.uint16(0)
            octets[2, row] = np.uint8(0)
            octets[5, row] = np.uint8(0)
        else:
            wide[2, row] = now[0]
            wide[3, row] = now[1]
            wide[5, row] = now[2]
            wide[6, row] = now[3]
            words[2, row] = np.uint32(now[4])
            words[3, row] = np.uint32(now[5])
            words[4, row] = np.uint32(now[6])
            lengths[row] = np.uint16(min(now[7], np.uint64(65535)))
            octets[2, row] = np.uint8(now[8])
            octets[5, row] = np.uint8(now[9])
        row += 1
    return row


@subroutine
def _path_units(buffer, at, end, width):  # type: ignore[no-untyped-def]
    """Return the length of an AS path as route selection counts it, -1 where it is malformed."""
    units = np.int64(0)
    while at < end:
        if at + 2 > end:
            return -1
        kind = np.int64(buffer[at])
        count = np.int64(buffer[at + 1])
        at += 2 + count * width
        if kind < 1 or kind > 4 or count == 0 or at > end:
            return -1
        if kind == 2:
            units += count
        elif kind == 1:
            units += 1
    return units


@subroutine
def _follow_path(buffer, at, end, width, take, now):  # type: ignore[no-untyped-def]
    """Add up to `take` units of a path to now[2], its hash, now[4], its origin, now[7], its length.

    A set counts one; its ASes are added without order. The origin of a path that ends with a set of
    several is not known: 0 (RFC 6907 section 7.1).
    """
    while at < end:
        kind = np.int64(buffer[at])
        count = np.int64(buffer[at + 1])
        at += 2
        following = at + count * width
        if kind == 1 or kind == 4:
            if kind == 1 and take <= 0:
                return
            total = np.uint64(0)
            for k in range(count):
                place = at + k * width
                number = load_u16(buffer, place) if width == 2 else load_u32(buffer, place)
                total += _mix(np.uint64(kind), np.uint64(number))
            now[2] = _mix(now[2], total)
            now[4] = np.uint64(0)
            if kind == 1:
                if count == 1:
                    now[4] = np.uint64(load_u16(buffer, at) if width == 2 else load_u32(buffer, at))
                now[7] += np.uint64(1)
                take -= 1
        else:
            for k in range(count):
                if kind == 2:
                    if take <= 0:
                        return
                    take -= 1
                    now[7] += np.uint64(1)
                place = at + k * width
                number = np.uint64(
                    load_u16(buffer, place) if width == 2 else load_u32(buffer, place)
                )
                now[2] = _mix(now[2], np.uint64(kind) << np.uint64(32) | number)
                now[4] = number
        at = following


@inline
def _flags_ok(kind, flags):  # type: ignore[no-untyped-def]
    """Return whether optional and transitive are as the attribute's definition has them."""
    stated = flags & 0xC0
    if kind == 1 or kind == 2 or kind == 3 or kind == 5:
        return stated == 0x40
    if kind == 4 or kind == 9 or kind == 10 or kind == 14 or kind == 15:
        return stated == 0x80
    if kind == 8 or kind == 16 or kind == 32:
        return stated == 0xC0
    return True


@inline
def _communities(buffer, at, size, step, kind):  # type: ignore[no-untyped-def]
    """Return a hash of communities that does not depend on their order."""
    total = np.uint64(0)
    for k in range(size // step):
        h = np.uint64(kind)
        for word in range(step // 4):
            h = _mix(h, load_u32(buffer, at + k * step + word * 4))
        total += h
    return total


@inline
def _others(afi, family):  # type: ignore[no-untyped-def]
    """What is told of routes that others read, or nobody, as a bit; 0 for routes that are rows."""
    if family < 9:
        return 0
    if family > 9:
        return 2
    return 1 if afi == 16388 else 4


@subroutine
def _attributes(buffer, at, end, two_octet_as, now, place):  # type: ignore[no-untyped-def]
    """Read path attributes; return 0, or 1 treat as withdraw, 2 routes cannot be told.

    now: next hop of MP_REACH (0, 1), AS path hash (2), communities (3), origin AS (4), MED (5), local
    preference (6), path length (7), origin (8), which of MED and local preference (9), NEXT_HOP (10,
    11), which attributes were there (12). place: MP_REACH's routes start, end, family (0-2), those of
    MP_UNREACH (3-5), family -1 where there is none, what either is that others read, as in `out_others` (6).
    """
    wrong = 0
    for k in range(13):
        now[k] = np.uint64(0)
    place[2] = -1
    place[5] = -1
    place[6] = 0
    path_at = 0
    path_size = -1
    newer_at = 0
    newer_size = -1
    seen = np.uint64(0)
    while at < end:
        if at + 3 > end:
            wrong = 1
            break
        flags = np.int64(buffer[at])
        kind = np.int64(buffer[at + 1])
        if flags & 0x10:
            if at + 4 > end:
                wrong = 1
                break
            size = _u16(buffer, at + 2)
            at += 4
        else:
            size = np.int64(buffer[at + 2])
            at += 3
        body = at
        at += size
        if at > end:  # lengths contradict each other: what is beyond cannot be told
            wrong = 1
            break
        if kind < 64:
            bit = np.uint64(1) << np.uint64(kind)
            if seen & bit != np.uint64(0):
                if kind == 14 or kind == 15:
                    return 2
                continue  # of any other attribute the first counts
            seen |= bit
        if not _flags_ok(kind, flags):
            wrong = 1
        if kind == 1:
            if size != 1 or buffer[body] > 2:
                wrong = 1
            else:
                now[8] = np.uint64(buffer[body])
        elif kind == 2:
            path_at = body
            path_size = size
        elif kind == 3:
            if size != 4:
                wrong = 1
            else:
                now[11] = load_u32(buffer, body) | np.uint64(0xFFFF) << np.uint64(32)
        elif kind == 4 or kind == 5:
            if size != 4:
                wrong = 1
            else:
                now[kind + 1] = load_u32(buffer, body)
                now[9] |= np.uint64(kind - 3)
        elif kind == 8:
            if size == 0 or size & 3 != 0:
                wrong = 1
            else:
                now[3] += _communities(buffer, body, size, 4, kind)
        elif kind == 16:
            if size == 0 or size & 7 != 0:
                wrong = 1
            else:
                now[3] += _communities(buffer, body, size, 8, kind)
        elif kind == 32:
            if size == 0 or size % 12 != 0:
                wrong = 1
            else:
                now[3] += _communities(buffer, body, size, 12, kind)
        elif kind == 25:
            if size % 20 == 0:
                now[3] += _communities(buffer, body, size, 20, kind)
        elif kind == 9:
            if size != 4:
                wrong = 1
        elif kind == 10:
            if size == 0 or size & 3 != 0:
                wrong = 1
        elif kind == 14:
            if size < 5:
                return 2
            family = family_of(_u16(buffer, body), np.int64(buffer[body + 2]))
            width = np.int64(buffer[body + 3])
            if 5 + width > size:
                return 2
            hop = body + 4
            if width == 12 or width == 24 or width == 48:
                hop += 8
            if width == 4 or width == 12:
                now[1] = load_u32(buffer, hop) | np.uint64(0xFFFF) << np.uint64(32)
            elif width == 16 or width == 24 or width == 32 or width == 48:
                now[0] = load_u64(buffer, hop)
                now[1] = load_u64(buffer, hop + 8)
            elif family < 9:
                return 2
            place[0] = body + 5 + width
            place[1] = body + size
            place[2] = family
            place[6] |= _others(_u16(buffer, body), family)
        elif kind == 15:
            if size < 3:
                return 2
            place[3] = body + 3
            place[4] = body + size
            place[5] = family_of(_u16(buffer, body), np.int64(buffer[body + 2]))
            if size > 3:
                place[6] |= _others(_u16(buffer, body), place[5])
        elif kind == 17:
            newer_at = body
            newer_size = size
    now[12] = seen
    if path_size >= 0:
        width = np.int64(2 if two_octet_as else 4)
        units = _path_units(buffer, path_at, path_at + path_size, width)
        if units < 0:  # the header says the wrong width (seen from Cisco): the other one fits
            width = 6 - width
            units = _path_units(buffer, path_at, path_at + path_size, width)
        now[2] = np.uint64(0x41535F50415448)
        if units < 0:
            wrong = 1
        else:
            older = units
            newer = -1
            if width == 2 and newer_size >= 0:
                newer = _path_units(buffer, newer_at, newer_at + newer_size, 4)
                if newer > units:
                    newer = -1
            if newer >= 0:
                older = units - newer
            _follow_path(buffer, path_at, path_at + path_size, width, older, now)
            if newer >= 0:
                _follow_path(buffer, newer_at, newer_at + newer_size, 4, newer, now)
    return wrong


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const u1[::1], const i8[::1], i8, i8,"
    " u8[:,::1], u4[:,::1], u2[::1], u1[:,::1], u1[::1], u1[::1], u1[::1], u8[::1], i8[::1], i8[::1])"
)
def decode_updates(
    buffer: NDArray[np.uint8],
    at: NDArray[np.int64],
    size: NDArray[np.int32],
    two_octet_as: NDArray[np.uint8],
    path_ids: NDArray[np.int64],
    first: int,
    stop: int,
    wide: NDArray[np.uint64],
    words: NDArray[np.uint32],
    lengths: NDArray[np.uint16],
    octets: NDArray[np.uint8],
    out_verdict: NDArray[np.uint8],
    out_family: NDArray[np.uint8],
    out_others: NDArray[np.uint8],
    now: NDArray[np.uint64],
    place: NDArray[np.int64],
    tally: NDArray[np.int64],
) -> int:
    """Decode the BGP messages [first, stop) and return the number of rows.

    In      message m is buffer[at[m] : at[m] + size[m]], header included; two_octet_as uint8[M];
            path_ids int64[M], a bit for each family whose routes carry path ids, or
            UNKNOWN_PATH_IDS.
    Out     columns of R rows as in WIDE, WORDS, OCTETS, withdrawals of a message before what it
            announces; attributes of withdrawn routes are 0; out_verdict, out_family uint8[M], family
            of End-of-RIB; out_others uint8[M], bits of what it holds, alone or beside its rows: 1
            BGP-LS, 2 FlowSpec, 4 families that are not read; tally[0], the message to go on with:
            less than `stop` where the columns are full.
    Scratch now uint64[13]; place int64[7].
    Errors  none raised. RFC 7606: wrong attributes make withdrawals of the routes they came with;
            where routes cannot be told the message has none.
    """
    rows = 0
    rows_max = wide.shape[1]
    m = first
    while m < stop:
        start = at[m]
        length = np.int64(size[m])
        out_verdict[m] = 4
        out_family[m] = 9
        out_others[m] = 0
        if length < 19 or _u16(buffer, start + 16) > length:
            m += 1
            continue
        length = _u16(buffer, start + 16)
        if buffer[start + 18] != 2:
            out_verdict[m] = 3
            m += 1
            continue
        end = start + length
        if length < 23:
            m += 1
            continue
        gone_at = start + 21
        gone_end = gone_at + _u16(buffer, start + 19)
        if gone_end + 2 > end:
            m += 1
            continue
        attributes_end = gone_end + 2 + _u16(buffer, gone_end)
        if attributes_end > end:
            m += 1
            continue
        wrong = _attributes(buffer, gone_end + 2, attributes_end, two_octet_as[m] != 0, now, place)
        if wrong == 2:
            m += 1
            continue
        ids = path_ids[m]
        gone_ids, gone = _with_path_ids(buffer, gone_at, gone_end, 0, ids)
        new_ids, new = _with_path_ids(buffer, attributes_end, end, 0, ids)
        more_ids = 0
        more = 0
        less_ids = 0
        less = 0
        if place[2] >= 0 and place[2] < 9:
            more_ids, more = _with_path_ids(buffer, place[0], place[1], place[2], ids)
        if place[5] >= 0 and place[5] < 9:
            less_ids, less = _with_path_ids(buffer, place[3], place[4], place[5], ids)
        if gone < 0 or new < 0 or more < 0 or less < 0:
            m += 1
            continue
        out_others[m] = np.uint8(place[6])
        total = gone + new + more + less
        if rows + total > rows_max:
            if rows == 0:  # more routes than there is room for in one message
                m += 1
                continue
            break
        if total == 0:
            if place[6] & 2 != 0:
                out_verdict[m] = 7
            elif place[6] & 1 != 0:
                out_verdict[m] = 6
            elif place[6] != 0:
                out_verdict[m] = 5
            elif place[5] >= 0 and place[2] < 0:
                out_verdict[m] = 1
                out_family[m] = np.uint8(place[5])
            elif length == 23:
                out_verdict[m] = 1
                out_family[m] = 0
            else:
                out_verdict[m] = 2 if wrong else 0
            m += 1
            continue
        # ORIGIN and AS_PATH are mandatory (RFC 7606 section 3d). So is NEXT_HOP, but routers tell of
        # routes of their own without it (IOS-XR, Adj-RIB-Out): we use no route, we watch it.
        if new + more > 0 and now[12] & np.uint64(6) != np.uint64(6):
            wrong = 1
        if gone > 0:
            rows = _write(
                buffer,
                gone_at,
                gone_end,
                0,
                gone_ids,
                1,
                m,
                now,
                wide,
                words,
                lengths,
                octets,
                rows,
            )
        if less > 0:
            rows = _write(
                buffer, place[3], place[4], place[5], less_ids, 1, m, now, wide, words, lengths,
                octets, rows
            )  # fmt: skip
        if more > 0:
            rows = _write(
                buffer, place[0], place[1], place[2], more_ids, wrong, m, now, wide, words, lengths,
                octets, rows
            )  # fmt: skip
        if new > 0:
            now[0] = now[10]
            now[1] = now[11]
            rows = _write(
                buffer, attributes_end, end, 0, new_ids, wrong, m, now, wide, words, lengths,
                octets, rows
            )  # fmt: skip
        out_verdict[m] = 2 if wrong else 0
        m += 1
    tally[0] = m
    return rows
