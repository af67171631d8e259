"""What makes two notifications the same news: a digest of sender, trap and the bindings that matter.

A storm repeats itself. The kernel reads each message just far enough to know whether it is whole and
which news it brings; only the first of its kind in a second is then decoded for people
(collectors.snmp.trap). Which bindings matter is said by the mapping: those that name the resource or
its state. Of traps without a mapping the trap itself is the news; of one that carries nothing that names
its resource, the names of all bindings (collectors.snmp.mapping takes the first for its key).

Source: X.690; RFC 1157 section 4.1.6; RFC 3416 section 3; RFC 3584 section 3.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, subroutine
from telemetry.snmp.ber import oid_content

_MASK = (1 << 64) - 1
START = 0x9E3779B97F4A7C15


class Fate(IntEnum):
    """What became of a message; the lower-case name is a metric label."""

    # What the kernel says.
    OK = 0
    TRUNCATED = 1
    BAD_LENGTH = 2
    BAD_TYPE = 3
    BAD_VALUE = 4
    BAD_OID = 5
    BAD_VERSION = 6
    NO_TRAP_OID = 7
    NOT_A_NOTIFICATION = 8
    # What is known only after opening it.
    UNKNOWN_COMMUNITY = 9
    DUPLICATE = 10  # an inform that came again: answered again, not counted again
    UNKNOWN_ENGINE = 11  # it asks who we are, or takes us for another
    UNKNOWN_USER = 12
    WRONG_DIGEST = 13
    NOT_IN_TIME_WINDOW = 14
    UNSUPPORTED_SECURITY_LEVEL = 15
    DECRYPTION_ERROR = 16


class Part(IntEnum):
    """How much of a binding counts for the digest."""

    WHOLE = 1  # name and value
    NAME = 2  # its instance names the resource; the value may be anything
    BESIDE = 3  # name and value, which name no resource


def hash_bytes(data: bytes, start: int = START) -> int:
    """Return what the kernel makes of these bytes. xorshift64, a step for each byte; no secret."""
    value = start
    for byte in data:
        value ^= byte
        value ^= value << 13 & _MASK
        value ^= value >> 7
        value ^= value << 17 & _MASK
    return value


@dataclass(frozen=True, slots=True)
class Selectors:
    """Which bindings count, by trap, as the kernel takes it.

    `traps` uint64[T], sorted: hashes of trap OIDs; the prefixes of trap t are rows first[t] to
    first[t + 1] of `prefix` (hashes of OIDs) and `part`; rows before first[0] count for every trap.
    """

    traps: NDArray[np.uint64]
    first: NDArray[np.int64]
    prefix: NDArray[np.uint64]
    part: NDArray[np.uint8]


def make_selectors(
    always: Sequence[str], by_trap: Mapping[str, Sequence[tuple[str, Part]]]
) -> Selectors:
    """Return the selectors of OIDs that count for all traps, and of (OID, part) by trap OID."""
    rows = [(hash_bytes(oid_content(oid)), Part.BESIDE) for oid in always]
    hashed = {hash_bytes(oid_content(trap)): some for trap, some in by_trap.items()}
    first = [len(rows)]
    for trap in sorted(hashed):
        rows += [(hash_bytes(oid_content(oid)), part) for oid, part in hashed[trap]]
        first.append(len(rows))
    return Selectors(
        np.array(sorted(hashed), np.uint64),
        np.array(first, np.int64),
        np.array([prefix for prefix, _ in rows], np.uint64),
        np.array([part for _, part in rows], np.uint8),
    )


@inline
def _step(h, byte):  # type: ignore[no-untyped-def]
    h = h ^ np.uint64(byte)
    h = h ^ (h << np.uint64(13))
    h = h ^ (h >> np.uint64(7))
    return h ^ (h << np.uint64(17))


@subroutine
def _hash(payload, at, end, h):  # type: ignore[no-untyped-def]
    for i in range(at, end):
        h = _step(h, payload[i])
    return h


@subroutine
def _header(payload, at, end):  # type: ignore[no-untyped-def]
    """(tag or -verdict, start, stop)"""
    if at + 2 > end:
        return -1, 0, 0
    tag = np.int64(payload[at])
    size = np.int64(payload[at + 1])
    start = at + 2
    if size & 0x80:
        octets = size & 0x7F
        if octets < 1 or octets > 4:
            return -2, 0, 0
        if start + octets > end:
            return -1, 0, 0
        size = np.int64(0)
        for i in range(octets):
            size = (size << 8) | np.int64(payload[start + i])
        start += octets
    if start + size > end:
        return -1, 0, 0
    return tag, start, start + size


@subroutine
def _expect(payload, at, end, wanted):  # type: ignore[no-untyped-def]
    tag, start, stop = _header(payload, at, end)
    if tag >= 0 and tag != wanted:
        return -3, 0, 0
    return tag, start, stop


@subroutine
def _integer(payload, at, end):  # type: ignore[no-untyped-def]
    """(0 or -verdict, value, offset behind)"""
    tag, start, stop = _expect(payload, at, end, 2)
    if tag < 0:
        return tag, np.int64(0), 0
    if stop - start < 1 or stop - start > 8:
        return -4, np.int64(0), 0
    value = np.int64(-1) if payload[start] & 0x80 else np.int64(0)
    for i in range(start, stop):
        value = (value << 8) | np.int64(payload[i])
    return 0, value, stop


@subroutine
def _check_oid(payload, start, stop):  # type: ignore[no-untyped-def]
    """0 or a verdict; the same rules as ber.oid_text."""
    if stop == start or payload[stop - 1] & 0x80:
        return 5
    value = np.int64(0)
    octets = 0
    parts = 1
    for i in range(start, stop):
        octets += 1
        value = (value << 7) | np.int64(payload[i] & 0x7F)
        if value >> 32:
            return 5
        if payload[i] & 0x80:
            if octets > 4:
                return 5
        else:
            parts += 1
            value = np.int64(0)
            octets = 0
    return 5 if parts > 128 else 0


@subroutine
def _check_value(payload, tag, start, stop):  # type: ignore[no-untyped-def]
    """0 or a verdict; the same rules as ber.plain."""
    size = stop - start
    if tag == 0x04 or tag == 0x44 or tag == 0x05 or 0x80 <= tag <= 0x82:
        return 0
    if tag == 0x02:
        return 0 if 1 <= size <= 8 else 4
    if tag == 0x06:
        return _check_oid(payload, start, stop)
    if 0x41 <= tag <= 0x43 or tag == 0x47:
        return 0 if 1 <= size <= 5 else 4
    if tag == 0x46:
        return 0 if 1 <= size <= 9 else 4
    if tag == 0x40:
        return 0 if size == 4 else 4
    return 3


@subroutine
def _find(traps, h):  # type: ignore[no-untyped-def]
    low = 0
    high = traps.size
    while low < high:
        middle = (low + high) // 2
        if traps[middle] < h:
            low = middle + 1
        else:
            high = middle
    return low if low < traps.size and traps[low] == h else -1


@subroutine
def _trap_v1(payload, at, end, out):  # type: ignore[no-untyped-def]
    """Read a v1 trap up to its bindings: out = hash of the trap OID, hash of the agent, offset."""
    tag, start, stop = _expect(payload, at, end, 0x06)
    if tag < 0:
        return -tag
    if _check_oid(payload, start, stop):
        return 5
    agent_tag, agent, agent_stop = _expect(payload, stop, end, 0x40)
    if agent_tag < 0:
        return -agent_tag
    if agent_stop - agent != 4:
        return 4
    bad, generic, at = _integer(payload, agent_stop, end)
    if bad:
        return -bad
    bad, specific, at = _integer(payload, at, end)
    if bad:
        return -bad
    ticks_tag, ticks, ticks_stop = _expect(payload, at, end, 0x43)
    if ticks_tag < 0:
        return -ticks_tag
    if ticks_stop - ticks < 1 or ticks_stop - ticks > 5:
        return 4
    h = np.uint64(0x9E3779B97F4A7C15)
    if generic != 6:
        if generic < 0 or generic > 5:
            return 4
        # 1.3.6.1.6.3.1.1.5.(generic + 1)
        h = _step(h, 0x2B)
        h = _step(h, 6)
        h = _step(h, 1)
        h = _step(h, 6)
        h = _step(h, 3)
        h = _step(h, 1)
        h = _step(h, 1)
        h = _step(h, 5)
        h = _step(h, generic + 1)
    else:
        if specific < 0 or specific >> 32:
            return 4
        octets = 1
        while specific >> (7 * octets):
            octets += 1
        # Some put the whole trap OID there: it ends in .0.specific already.
        whole = stop - start > octets + 1 and payload[stop - octets - 1] == 0
        whole = whole and not payload[stop - octets - 2] & 0x80
        for i in range(octets):
            part = (specific >> (7 * (octets - 1 - i))) & 0x7F
            if i < octets - 1:
                part |= 0x80
            whole = whole and np.int64(payload[stop - octets + i]) == part
        h = _hash(payload, start, stop, h)
        if not whole:
            h = _step(h, 0)
            for i in range(octets):
                part = (specific >> (7 * (octets - 1 - i))) & 0x7F
                if i < octets - 1:
                    part |= 0x80
                h = _step(h, part)
    out[0] = h
    out[1] = _hash(payload, agent, agent_stop, np.uint64(0x9E3779B97F4A7C15))
    out[2] = np.uint64(ticks_stop)
    return 0


@subroutine
def _check_bindings(payload, at, end, out):  # type: ignore[no-untyped-def]
    """Check the list of bindings: out[0] = hash of the trap OID, 0 = none, out[2] = first binding."""
    tag, at, stop = _expect(payload, at, end, 0x30)
    if tag < 0:
        return -tag
    out[0] = np.uint64(0)
    out[2] = np.uint64(at)
    out[3] = np.uint64(stop)
    while at < stop:
        tag, name_at, behind = _expect(payload, at, stop, 0x30)
        if tag < 0:
            return -tag
        tag, name, name_stop = _expect(payload, name_at, behind, 0x06)
        if tag < 0:
            return -tag
        value_tag, value, value_stop = _header(payload, name_stop, behind)
        if value_tag < 0:
            return -value_tag
        bad = _check_value(payload, value_tag, value, value_stop)
        if bad:
            return bad
        bad = _check_oid(payload, name, name_stop)
        if bad:
            return bad
        if value_tag == 0x06 and out[0] == 0 and _is_trap_oid(payload, name, name_stop):
            out[0] = _hash(payload, value, value_stop, np.uint64(0x9E3779B97F4A7C15))
        at = behind
    return 0


@subroutine
def _is_trap_oid(payload, at, stop):  # type: ignore[no-untyped-def]
    """Whether 1.3.6.1.6.3.1.1.4.1 is it or begins it."""
    if stop - at < 9 or payload[at] != 0x2B:
        return False
    if payload[at + 1] != 6 or payload[at + 2] != 1 or payload[at + 3] != 6:
        return False
    if payload[at + 4] != 3 or payload[at + 5] != 1 or payload[at + 6] != 1:
        return False
    return payload[at + 7] == 4 and payload[at + 8] == 1


@subroutine
def _select(payload, at, stop, h, first, last, prefix, part):  # type: ignore[no-untyped-def]
    """Mix those bindings into h that rows [first, last) choose; all names, where none names the resource."""
    keyed = False
    for k in range(first, last):
        keyed = keyed or part[k] != 3
    names = np.uint64(0x9E3779B97F4A7C15)  # not h: without any binding the two would cancel out
    while at < stop:
        _, name_at, behind = _header(payload, at, stop)
        _, name, name_stop = _header(payload, name_at, behind)
        _, value, value_stop = _header(payload, name_stop, behind)
        chosen = 0
        running = np.uint64(0x9E3779B97F4A7C15)
        for i in range(name, name_stop):
            running = _step(running, payload[i])
            for k in range(first, last):
                if prefix[k] != running:
                    continue
                if part[k] != 2:
                    chosen = 1
                elif chosen == 0:
                    chosen = 2
                if part[k] == 2 or (part[k] == 1 and value < value_stop):
                    keyed = False
        if chosen == 1:
            h = _hash(payload, name_at, value_stop, h)
        elif chosen == 2:
            h = _hash(payload, name_at, name_stop, h)
        if keyed:
            names = _hash(payload, name_at, name_stop, names)
        at = behind
    return h ^ names if keyed else h


@kernel(
    "i8(const u1[::1], const i8[::1], const i8[::1], const u8[::1], u1,"
    " const u8[::1], const i8[::1], const u8[::1], const u1[::1],"
    " u8[::1], u8[::1], u1[::1], u1[::1], u1[::1])"
)
def digest(
    payload: NDArray[np.uint8],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    sender: NDArray[np.uint64],
    bare: int,
    traps: NDArray[np.uint64],
    first: NDArray[np.int64],
    prefix: NDArray[np.uint64],
    part: NDArray[np.uint8],
    scratch: NDArray[np.uint64],
    out_digest: NDArray[np.uint64],
    out_version: NDArray[np.uint8],
    out_pdu: NDArray[np.uint8],
    out_verdict: NDArray[np.uint8],
) -> int:
    """Read D messages; return how many are notifications that can be decoded.

    In      payload uint8[N]; message d is [begin[d], end[d]); sender uint64[D], not 0, in which its
            digest begins. `bare` 1: there are only PDUs, as SNMPv3 has them once decrypted.
            Selectors as in the class. scratch uint64[4].
    Out     out_version uint8[D]: 0 v1, 1 v2c, 3 v3 (whose PDU is not looked at: OK, digest 0);
            out_pdu uint8[D]: its tag; out_verdict uint8[D], a Fate. out_digest uint64[D]: equal
            where version, community, kind of PDU, trap and chosen bindings are.
    Errors  none raised: what is not whole gets a Fate, the same as the plain reader's reason
            (telemetry.snmp.message), which is its oracle.
    Source  RFC 1157, RFC 3416, RFC 3584.
    """
    good = 0
    for d in range(begin.size):
        out_digest[d] = np.uint64(0)
        out_version[d] = 1
        out_pdu[d] = 0
        at = begin[d]
        stop = end[d]
        h = sender[d]
        if bare == 0:
            tag, at, stop = _expect(payload, at, stop, 0x30)
            if tag < 0:
                out_verdict[d] = -tag
                continue
            bad, version, at = _integer(payload, at, stop)
            if bad:
                out_verdict[d] = -bad
                continue
            if version == 3:
                out_version[d] = 3
                out_verdict[d] = 0
                continue
            if version != 0 and version != 1:
                out_verdict[d] = 6
                continue
            out_version[d] = np.uint8(version)
            tag, _, behind = _expect(payload, at, stop, 0x04)
            if tag < 0:
                out_verdict[d] = -tag
                continue
            h = _hash(payload, at, behind, _step(h, version))
            at = behind
        tag, at, stop = _header(payload, at, stop)
        if tag < 0:
            out_verdict[d] = -tag
            continue
        out_pdu[d] = np.uint8(tag)
        if tag != 0xA4 and tag != 0xA6 and tag != 0xA7:
            out_verdict[d] = 8 if 0xA0 <= tag <= 0xA8 else 3
            continue
        h = _step(h, tag)
        trap = np.uint64(0)
        if tag == 0xA4:
            bad = _trap_v1(payload, at, stop, scratch)
            if bad:
                out_verdict[d] = bad
                continue
            trap = scratch[0]
            h = h ^ scratch[1]
            at = np.int64(scratch[2])
        else:
            bad, _, at = _integer(payload, at, stop)
            if bad == 0:
                bad, _, at = _integer(payload, at, stop)
            if bad == 0:
                bad, _, at = _integer(payload, at, stop)
            if bad:
                out_verdict[d] = -bad
                continue
        bad = _check_bindings(payload, at, stop, scratch)
        if bad:
            out_verdict[d] = bad
            continue
        if tag != 0xA4:
            trap = scratch[0]
            if trap == 0:
                out_verdict[d] = 7
                continue
        for i in range(8):
            h = _step(h, (trap >> np.uint64(8 * i)) & np.uint64(255))
        listed = np.int64(scratch[2])
        behind = np.int64(scratch[3])
        h = _select(payload, listed, behind, h, 0, first[0], prefix, part)
        known = _find(traps, trap)
        if known >= 0:
            h = _select(payload, listed, behind, h, first[known], first[known + 1], prefix, part)
        out_digest[d] = h
        out_verdict[d] = 0
        good += 1
    return good
