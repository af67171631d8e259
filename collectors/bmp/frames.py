"""BMP messages in a byte stream: where they begin, and what their per-peer headers say.

A stream that is picked up in the middle, or whose framing breaks (FRRouting issue 6568), is searched
for the next place where a whole message of a known type stands with the contents that type must have.

Source: RFC 7854 section 4; RFC 8671 (Adj-RIB-Out); RFC 9069 (Loc-RIB); draft-ietf-grow-bmp-tlv, which
is version 4: route monitoring with the UPDATE in a TLV, path ids stated beside it.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from collectors.bmp.bgp_updates import FAMILIES, family_of
from runtime.kernels import inline, kernel, load_u16, load_u32, load_u64, subroutine

PEERS_TABLE = 1 << 16  # places in the table of peers; at most half are taken
PEERS_LIMIT = PEERS_TABLE // 2
# For the kernel, whose compile cache does not see other files change.
assert FAMILIES == (
    (1, 1),
    (2, 1),
    (1, 4),
    (2, 4),
    (1, 128),
    (2, 128),
    (25, 70),
    (1, 2),
    (2, 2),
    (0, 0),
    (1, 133),
    (2, 133),
    (1, 134),
    (2, 134),
)


class Kind(IntEnum):
    """BMP message types."""

    ROUTE_MONITORING = 0
    STATISTICS = 1
    PEER_DOWN = 2
    PEER_UP = 3
    INITIATION = 4
    TERMINATION = 5
    ROUTE_MIRRORING = 6


# Which table of routes of a peer a message is about.
RIBS = ("adj-in-pre", "adj-in-post", "adj-out-pre", "adj-out-post", "loc-rib")


@inline
def _u16(buffer, at):  # type: ignore[no-untyped-def]
    return np.int64(load_u16(buffer, at))


@inline
def _u32(buffer, at):  # type: ignore[no-untyped-def]
    return np.int64(load_u32(buffer, at))


@subroutine
def _marker(buffer, at, end):  # type: ignore[no-untyped-def]
    """Return whether a BGP message could begin here."""
    if at + 19 > end:
        return False
    for k in range(16):
        if buffer[at + k] != 255:
            return False
    size = _u16(buffer, at + 16)
    return size >= 19 and at + size <= end


@subroutine
def _tlvs_fill(buffer, at, end):  # type: ignore[no-untyped-def]
    """Return whether type-length-value fields end exactly at `end`."""
    while at < end:
        if at + 4 > end:
            return False
        at += 4 + _u16(buffer, at + 2)
    return at == end


@subroutine
def _contents_fit(buffer, at, size, kind):  # type: ignore[no-untyped-def]
    """Return whether a whole message has what its type must have."""
    end = at + size
    if kind == 4 or kind == 5:
        return size > 6 and _tlvs_fill(buffer, at + 6, end)
    if size < 48 or buffer[at + 6] > 3:
        return False
    body = at + 48
    if kind == 0:
        if buffer[at] == 4:
            return size > 54  # TLVs have an index: 6 octets before the value
        return _marker(buffer, body, end)
    if kind == 3:
        return _marker(buffer, body + 20, end)
    if kind == 2:
        if size < 49:
            return False
        reason = buffer[body]
        if reason == 1 or reason == 3:
            return _marker(buffer, body + 1, end)
        if reason == 2:
            return size == 51
        return ((reason == 4 or reason == 5) and size == 49) or reason == 6
    if kind == 1:
        return size > 52 and _tlvs_fill(buffer, body + 4, end)
    return size > 52


@subroutine
def _cannot_be(buffer, at, size, kind):  # type: ignore[no-untyped-def]
    """Return whether the first 88 octets, or all there are, rule out a message."""
    if kind == 4 or kind == 5:
        return size < 10 or 10 + _u16(buffer, at + 8) > size
    if size < 49 or buffer[at + 6] > 3:
        return True
    first = at + 48 if kind == 0 else at + 68  # of a BGP message
    if (kind == 0 and buffer[at] == 3) or kind == 3:
        if first + 16 > at + size:
            return True
        for k in range(16):
            if buffer[first + k] != 255:
                return True
    return False


@kernel("i8(const u1[::1], i8, i8, i8[::1], i4[::1], i8[::1], i8[::1])")
def frame_messages(
    buffer: NDArray[np.uint8],
    end: int,
    bytes_max: int,
    out_at: NDArray[np.int64],
    out_size: NDArray[np.int32],
    out_needed: NDArray[np.int64],
    state: NDArray[np.int64],
) -> int:
    """Find whole messages in buffer[state[0] : end] and return how many, at most M.

    In      bytes_max, a longer message is no message.
    Out     out_at int64[M], out_size int32[M]; out_needed int64[M], how far the buffer had to be
            there to know of the message: its end, or further where a search came before it.
    Inout   state int64[4]: where to go on; 1 while searching for the next message, 0 in step;
            bytes skipped in searching, added up; how far the search had to look.
    Errors  none raised: a header that cannot be starts a search.
    """
    at = state[0]
    messages = 0
    while messages < out_at.size and at + 6 <= end:
        version = buffer[at]
        size = _u32(buffer, at + 1)
        kind = np.int64(buffer[at + 5])
        sound = (version == 3 or version == 4) and size >= 6 and size <= bytes_max
        if sound and state[1] == 0:
            if at + size > end:
                break
            if kind <= 6 and not _contents_fit(buffer, at, size, kind):
                # Malformed, or no message at all: what follows tells.
                after = at + size
                if after + 6 > end:
                    break
                state[3] = max(state[3], after + 6)
                version = buffer[after]
                length = _u32(buffer, after + 1)
                likely = (version == 3 or version == 4) and length >= 6 and length <= bytes_max
                if not likely or buffer[after + 5] > 6:
                    state[1] = 1
                    at += 1
                    state[2] += 1
                    continue
            out_at[messages] = at
            out_size[messages] = np.int32(size)
            out_needed[messages] = max(at + size, state[3])
            messages += 1
            at += size
            continue
        state[1] = 1
        state[3] = max(state[3], at + 6)
        if sound and kind <= 6:
            look = at + min(size, 88)
            if look > end:
                break  # the rest decides
            state[3] = max(state[3], look)
            if not _cannot_be(buffer, at, size, kind):
                if at + size > end:
                    break
                state[3] = max(state[3], at + size)
                if _contents_fit(buffer, at, size, kind):
                    state[1] = 0
                    continue
        at += 1
        state[2] += 1
    state[0] = at
    return messages


@inline
def _slot(connection, kind, distinguisher, high, low):  # type: ignore[no-untyped-def]
    h = (low ^ (np.uint64(connection) << np.uint64(8) | np.uint64(kind))) * np.uint64(
        0x9E3779B97F4A7C15
    )
    h = ((h ^ (h >> np.uint64(29))) + high) * np.uint64(0xBF58476D1CE4E5B9)
    h = ((h ^ (h >> np.uint64(32))) + distinguisher) * np.uint64(0x94D049BB133111EB)
    return np.int64(h >> np.uint64(48))


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], i8, i8, i8, const i4[::1], const u8[:,::1],"
    " const i8[:,::1], i4[::1], u1[::1], i8[::1], u8[:,::1], i8[::1], i4[::1], u1[::1], i8[::1])"
)
def locate_peers(
    buffer: NDArray[np.uint8],
    at: NDArray[np.int64],
    size: NDArray[np.int32],
    first: int,
    stop: int,
    connection: int,
    table: NDArray[np.int32],
    key: NDArray[np.uint64],
    path_ids: NDArray[np.int64],
    out_peer: NDArray[np.int32],
    out_rib: NDArray[np.uint8],
    out_time_ns: NDArray[np.int64],
    out_key: NDArray[np.uint64],
    out_update_at: NDArray[np.int64],
    out_update_size: NDArray[np.int32],
    out_two_octet_as: NDArray[np.uint8],
    out_path_ids: NDArray[np.int64],
) -> int:
    """Read the per-peer headers of messages [first, stop); return how many peers are not known.

    In      messages as `frame_messages` gives them; connection, its number; table int32[2^16], peer
            + 1 or 0, by a hash of key uint64[P, 4]: connection << 8 | peer type, distinguisher,
            address high, low; path_ids int64[P, 3] for Adj-RIB-In, Adj-RIB-Out, Loc-RIB.
    Out     for each message: out_peer, -1 where it is not known, -2 where the message has no (whole)
            header; out_rib, see RIBS; out_time_ns, the router's, 0 = not stated; out_key
            uint64[4, M]; for route monitoring where its UPDATE lies (size 0: nowhere), whether its AS
            numbers have two octets, and which families carry path ids.
    Errors  none raised.
    """
    missing = 0
    for m in range(first, stop):
        start = at[m]
        end = start + size[m]
        kind = np.int64(buffer[start + 5])
        out_update_size[m] = 0
        out_update_at[m] = start
        out_peer[m] = -2
        out_rib[m] = 0
        out_time_ns[m] = 0
        out_two_octet_as[m] = 0
        out_path_ids[m] = 0
        if kind > 6 or kind == 4 or kind == 5 or size[m] < 48:
            continue
        peer_type = np.int64(buffer[start + 6])
        flags = np.int64(buffer[start + 7])
        distinguisher = load_u64(buffer, start + 8)
        high = load_u64(buffer, start + 16)
        low = load_u64(buffer, start + 24)
        rib = np.int64(4)  # a Loc-RIB: of its flags only "filtered" is defined
        if peer_type != 3:
            if flags & 0x80 == 0:
                high = np.uint64(0)
                low = low & np.uint64(0xFFFFFFFF) | np.uint64(0xFFFF) << np.uint64(32)
            rib = (flags >> 3 & 2) | (flags >> 6 & 1)
            out_two_octet_as[m] = np.uint8(flags >> 5 & 1)
        out_rib[m] = np.uint8(rib)
        owner = np.uint64(connection) << np.uint64(8) | np.uint64(peer_type)
        out_key[0, m] = owner
        out_key[1, m] = distinguisher
        out_key[2, m] = high
        out_key[3, m] = low
        out_time_ns[m] = _u32(buffer, start + 40) * 1000000000 + _u32(buffer, start + 44) * 1000
        slot = _slot(connection, peer_type, distinguisher, high, low)
        peer = np.int64(-1)
        while table[slot] != 0:
            found = table[slot] - 1
            if (
                key[found, 0] == owner
                and key[found, 1] == distinguisher
                and key[found, 2] == high
                and key[found, 3] == low
            ):
                peer = np.int64(found)
                break
            slot = (slot + 1) & 0xFFFF
        out_peer[m] = peer
        if peer < 0:
            missing += 1
            continue
        if kind != 0:
            continue
        ids = path_ids[peer, rib >> 1]
        if buffer[start] != 4:
            out_update_at[m] = start + 48
            out_update_size[m] = np.int32(end - start - 48)
        else:
            place = start + 48
            stated = False
            way = 1 if rib < 2 else (2 if rib < 4 else 3)  # agreed on receiving, sending
            while place + 6 <= end:
                tlv = _u16(buffer, place)
                width = _u16(buffer, place + 2)
                value = place + 6
                if value + width > end:
                    out_update_size[m] = 0
                    break
                if tlv == 4:
                    out_update_at[m] = value
                    out_update_size[m] = np.int32(width)
                elif tlv == 1 and width >= 6 and buffer[value] == 69:
                    if not stated:
                        ids = 0
                        stated = True
                    for k in range(np.int64(buffer[value + 1]) // 4):
                        entry = value + 2 + 4 * k
                        if entry + 4 <= value + width and buffer[entry + 3] & way != 0:
                            ids |= 1 << family_of(_u16(buffer, entry), np.int64(buffer[entry + 2]))
                place = value + width
        out_path_ids[m] = ids
    return missing


@kernel("i8(i4[::1], const u8[:,::1], const u1[::1], i8)")
def index_peers(
    table: NDArray[np.int32], key: NDArray[np.uint64], used: NDArray[np.uint8], rows: int
) -> int:
    """Enter all peers in use into the table of `locate_peers` anew; return how many there are."""
    entered = 0
    for slot in range(table.size):
        table[slot] = 0
    for peer in range(rows):
        if used[peer] == 0:
            continue
        slot = _slot(
            np.int64(key[peer, 0] >> np.uint64(8)),
            np.int64(key[peer, 0] & np.uint64(255)),
            key[peer, 1],
            key[peer, 2],
            key[peer, 3],
        )
        while table[slot] != 0:
            slot = (slot + 1) & 0xFFFF
        table[slot] = np.int32(peer + 1)
        entered += 1
    return entered
