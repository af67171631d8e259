"""Export streams: who sends, what its sequence numbers say is missing, and how its clocks stand.

A stream is (exporter address, transport port, version, observation domain). The arrays that these
kernels write, and the hash table by which they find a stream, are `stream_table.Streams`.

Sequence units (RFC 3954 section 5.1, RFC 7011 section 3.1, Cisco v5): v5 counts flows, v9 counts
datagrams, IPFIX counts data records (options included, templates not). Exporters err: some count
datagrams, some count templates too, Open vSwitch's v5 states the last record's number where the
first one's is due; `account` learns which.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel, subroutine

WAYS, LAST_RECORD = 4, 3  # of counting: three units; and for v5 the last record's number
PROOFS = 8  # datagrams that only the present way explains
JUMP = 1 << 20  # units; further ahead or behind is a restart
OTHER_DATAGRAMS = 64  # how long the number before a restart stays known
RESTART_RUN = 4  # datagrams in a row behind the number: a restart
REBOOT_MS = 60_000  # by which a boot time must move to be another one
GAPS = 16  # holes in the sequence that a late datagram may still fill
PLACES = 1 << 15  # places; at most half of them are taken

# Columns of `counts`, in the stream's own unit but for DATAGRAMS, RECORDS, RESETS, CLOCK_BAD.
# SENT = DECODED + LOST + KERNEL + NO_TEMPLATE + MALFORMED + SHED.
(
    SENT, DECODED, LOST, KERNEL, NO_TEMPLATE, MALFORMED, SHED, DUPLICATE,
    DATAGRAMS, RECORDS, RESETS, CLOCK_BAD,
) = range(12)  # fmt: skip
COUNTS = 12
# Columns of `state`: see `account` and `locate`. Kernels take these numbers from here: same file.
(
    SEEN, MODE, EXPECTED, EXPECTED_OTHER, OTHER_AGE, LAST_SEQUENCE, LAST_UNITS, LAST_UNITS_1,
    LAST_UNITS_2, EVIDENCE, EVIDENCE_1, EVIDENCE_2, EVIDENCE_3, PROVEN, DOUBT, UNSURE, RUN,
    RUN_NEXT, RUN_UNITS, RUN_GOOD, BOOTED_MS, OFFSET_NOW, OFFSET_BEFORE, EPOCH, OFFSET,
    UPTIME_NOW, UPTIME_BEFORE, DRIFT, HEARD_NS,
) = range(29)  # fmt: skip
STATE = 29


class Fate:
    """What became of a datagram, or of the part of it whose units are not known."""

    GOOD, NO_TEMPLATE, MALFORMED, SHED = range(4)


@inline
def _u16(payload, at):  # type: ignore[no-untyped-def]
    return (np.int64(payload[at]) << 8) | np.int64(payload[at + 1])


@inline
def _u32(payload, at):  # type: ignore[no-untyped-def]
    return (_u16(payload, at) << 16) | _u16(payload, at + 2)


@inline
def _place(high, low, port_version, domain):  # type: ignore[no-untyped-def]
    h = low * np.uint64(0x9E3779B97F4A7C15) + high
    h = (
        (h ^ (h >> np.uint64(32)))
        + port_version * np.uint64(0xC2B2AE3D27D4EB4F)
        + domain * np.uint64(0x165667B19E3779F9)
    )
    h ^= h >> np.uint64(29)
    return np.int64((h * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(49))


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], const u8[::1], const u8[::1], const u2[::1],"
    " const i8[::1], i8, i4[::1], u8[:,::1], i8[:,::1], i8[:,::1], i8,"
    " i4[::1], u1[::1], i8[::1], i8[::1], i8[::1], u4[::1], i4[::1], i8[::1])"
)
def locate(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    exporter_high: NDArray[np.uint64],
    exporter_low: NDArray[np.uint64],
    exporter_port: NDArray[np.uint16],
    arrival_ns: NDArray[np.int64],
    tolerance_ns: int,
    table: NDArray[np.int32],
    key: NDArray[np.uint64],
    state: NDArray[np.int64],
    counts: NDArray[np.int64],
    streams: int,
    out_stream: NDArray[np.int32],
    out_kind: NDArray[np.uint8],
    out_export_ns: NDArray[np.int64],
    out_offset_ns: NDArray[np.int64],
    out_sequence: NDArray[np.int64],
    out_uptime_ms: NDArray[np.uint32],
    out_drift: NDArray[np.int32],
    out_booted_ms: NDArray[np.int64],
) -> int:
    """Find each datagram's stream, learn its clocks, and return the number of streams.

    In      D datagrams; tolerance_ns: a corrected clock further off than this is not believed;
            negative: clocks are taken as they are, whatever they say (`tocsin decode`).
    Inout   table int32[2^15], row + 1 or 0; key uint64[N, 4]; state, counts int64[N, *].
    Out     out_stream int32[D] (0 for what is no export); out_kind uint8[D]: the version 5, 9, 10,
            else 0; out_export_ns int64[D], the header's time by our clock; out_offset_ns int64[D],
            what was subtracted; out_sequence int64[D]; out_uptime_ms uint32[D] (v5, v9); out_drift
            int32[D], how much longer a second of its uptime is than one of its wall clock, ns;
            out_booted_ms int64[D], ms since 1970, 0 = not stated.
    Method  offset = the largest (header - arrival) of this and the last ten minutes: the datagram
            with the least delay. Below 2 s it is taken as 0: headers count whole seconds. Drift:
            by how much (header - uptime) moved from one ten minutes to the next, smoothed; steps
            of more than a minute are a reboot or a clock that was set.
    """
    for d in range(length.size):
        out_stream[d] = 0
        out_kind[d] = 0
        out_export_ns[d] = arrival_ns[d]
        out_offset_ns[d] = 0
        out_sequence[d] = 0
        out_uptime_ms[d] = 0
        out_drift[d] = 0
        out_booted_ms[d] = 0
        start = offset[d]
        if length[d] >= 2:
            version = _u16(payload, start)
            if version == 5 or version == 9 or version == 10:
                out_kind[d] = version
        if length[d] < 16:
            continue
        version = np.int64(out_kind[d])
        uptime_ns = np.int64(0)
        if version == 9 and length[d] >= 20:
            sent_ns = _u32(payload, start + 8) * 1000000000
            sequence = _u32(payload, start + 12)
            domain = _u32(payload, start + 16)
            out_uptime_ms[d] = _u32(payload, start + 4)
            uptime_ns = _u32(payload, start + 4) * 1000000
        elif version == 10:
            sent_ns = _u32(payload, start + 4) * 1000000000
            sequence = _u32(payload, start + 8)
            domain = _u32(payload, start + 12)
        elif version == 5 and length[d] >= 24:
            nanoseconds = _u32(payload, start + 12)
            sent_ns = _u32(payload, start + 8) * 1000000000
            if nanoseconds < 1000000000:
                sent_ns += nanoseconds
            sequence = _u32(payload, start + 16)
            domain = _u16(payload, start + 20)  # engine type and id
            out_uptime_ms[d] = _u32(payload, start + 4)
            uptime_ns = _u32(payload, start + 4) * 1000000
        else:
            continue
        port_version = np.uint64(exporter_port[d]) | (np.uint64(version) << np.uint64(16))
        place = _place(exporter_high[d], exporter_low[d], port_version, np.uint64(domain))
        row = 0
        while table[place] != 0:
            r = table[place] - 1
            if (
                key[r, 1] == exporter_low[d]
                and key[r, 2] == port_version
                and key[r, 3] == np.uint64(domain)
                and key[r, 0] == exporter_high[d]
            ):
                row = r
                break
            place = (place + 1) & (table.size - 1)
        if row == 0 and streams < key.shape[0]:
            row = streams
            streams += 1
            table[place] = row + 1
            key[row, 0] = exporter_high[d]
            key[row, 1] = exporter_low[d]
            key[row, 2] = port_version
            key[row, 3] = np.uint64(domain)
        out_stream[d] = row
        out_sequence[d] = sequence
        state[row, HEARD_NS] = max(state[row, HEARD_NS], arrival_ns[d])
        sample = sent_ns - arrival_ns[d]
        booted = sent_ns - uptime_ns
        epoch = arrival_ns[d] // 600000000000
        if state[row, EPOCH] < epoch:
            if state[row, EPOCH] == epoch - 1:
                moved = state[row, UPTIME_NOW] - state[row, UPTIME_BEFORE]
                if state[row, UPTIME_BEFORE] != 0 and abs(moved) < 60000000000:
                    # ns that the wall clock gained in 600 s of uptime, a second
                    state[row, DRIFT] += (moved // 600 - state[row, DRIFT]) // 4
                state[row, OFFSET_BEFORE] = state[row, OFFSET_NOW]
                state[row, UPTIME_BEFORE] = state[row, UPTIME_NOW]
            else:
                state[row, OFFSET_BEFORE] = sample
                state[row, UPTIME_BEFORE] = 0
            state[row, OFFSET_NOW] = sample
            state[row, UPTIME_NOW] = booted
            state[row, EPOCH] = epoch
        else:
            state[row, OFFSET_NOW] = max(state[row, OFFSET_NOW], sample)
            if abs(booted - state[row, UPTIME_NOW]) > 60000000000:
                state[row, UPTIME_BEFORE] = 0  # a reboot, a wrapped uptime: nothing to compare with
                state[row, UPTIME_NOW] = booted
            state[row, UPTIME_NOW] = max(state[row, UPTIME_NOW], booted)
        best = max(state[row, OFFSET_NOW], state[row, OFFSET_BEFORE])
        correction = best if best > 2000000000 or best < -2000000000 else 0
        if uptime_ns != 0:
            out_booted_ms[d] = booted // 1000000
            if tolerance_ns >= 0:
                out_drift[d] = state[row, DRIFT]
        if tolerance_ns < 0:
            correction = 0
        export_ns = sent_ns - correction
        off = abs(export_ns - arrival_ns[d])
        if tolerance_ns >= 0 and off > tolerance_ns:
            export_ns = arrival_ns[d]
            counts[row, CLOCK_BAD] += 1
        state[row, OFFSET] = best
        out_export_ns[d] = export_ns
        out_offset_ns[d] = correction
    return streams


@inline
def _ahead(a, b):  # type: ignore[no-untyped-def]
    """Return a - b of sequence numbers modulo 2^32, signed."""
    gap = (a - b) & 0xFFFFFFFF
    return gap - 0x100000000 if gap >= 0x80000000 else gap


@inline
def _put(counts, row, n, fate):  # type: ignore[no-untyped-def]
    if fate == 0:
        counts[row, DECODED] += n
    elif fate == 1:
        counts[row, NO_TEMPLATE] += n
    elif fate == 2:
        counts[row, MALFORMED] += n
    else:
        counts[row, SHED] += n


@inline
def _explains(state, row, way, number, n):  # type: ignore[no-untyped-def]
    """Say whether a number follows the one before by this way of counting; n, its records."""
    before = state[row, LAST_SEQUENCE]
    step = n if way == LAST_RECORD else state[row, LAST_UNITS + way]
    return number == ((before + step) & 0xFFFFFFFF)


@subroutine
def _learn_unit(state, counts, row, number, n, ways):  # type: ignore[no-untyped-def]
    """Ask which of so many ways of counting explains this number.

    Return 0 where nothing changes, 1 where another way holds from here, 2 where another one alone
    explains it, but too seldom so far: a gap is then not called loss, nor anything else yet. A way
    that has proven itself is not doubted, and takes many more contradictions to be given up.
    """
    mode = state[row, MODE]
    good = _explains(state, row, mode, number, n)
    learned = mode
    doubt = False
    sure = True
    proof = False
    enough = 3 if state[row, PROVEN] < PROOFS else 32
    for k in range(ways):
        explains = _explains(state, row, k, number, n)
        if explains and not good:
            doubt = True
            state[row, EVIDENCE + k] += 1
            if state[row, EVIDENCE + k] >= enough:
                learned = k
        elif good and not explains:
            proof = True
            state[row, EVIDENCE + k] = 0
        sure &= state[row, EVIDENCE + k] == 0
    if proof:
        state[row, PROVEN] += 1
    if learned != mode:
        state[row, MODE] = learned
        state[row, PROVEN] = 0
        for k in range(WAYS):
            state[row, EVIDENCE + k] = 0
        state[row, DOUBT] = 0  # there was no loss
        return 1
    if sure and state[row, DOUBT] > 0:
        counts[row, SENT] += state[row, DOUBT]
        counts[row, LOST] += state[row, DOUBT]
        state[row, DOUBT] = 0
    return 2 if doubt and state[row, PROVEN] < PROOFS else 0


@subroutine
def _gap(state, row, number):  # type: ignore[no-untyped-def]
    """Return how far a number is ahead of the one expected: of two, where another was left lately."""
    gap = _ahead(number, state[row, EXPECTED])
    other = state[row, EXPECTED_OTHER]
    if other >= 0:
        state[row, OTHER_AGE] += 1
        if abs(_ahead(number, other)) < abs(gap):
            state[row, EXPECTED_OTHER] = state[row, EXPECTED]
            state[row, EXPECTED] = other
            state[row, OTHER_AGE] = 0
            gap = _ahead(number, other)
        elif state[row, OTHER_AGE] > OTHER_DATAGRAMS:
            state[row, EXPECTED_OTHER] = -1
    return gap


@subroutine
def _open_hole(gaps, row, start, size):  # type: ignore[no-untyped-def]
    """Remember what is missing, in a free place or in that of the shortest hole."""
    place = 0
    for g in range(gaps.shape[1]):
        if gaps[row, g, 1] < gaps[row, place, 1]:
            place = g
    gaps[row, place, 0] = start
    gaps[row, place, 1] = size


@subroutine
def _fills_hole(gaps, counts, row, number, n, fate, unsure):  # type: ignore[no-untyped-def]
    """Take a late datagram's units back out of the loss; return False where it fills no hole."""
    for g in range(gaps.shape[1]):
        inside = (number - gaps[row, g, 0]) & 0xFFFFFFFF
        if inside >= gaps[row, g, 1]:
            continue
        rest = gaps[row, g, 1] - inside
        taken = min(n, rest)
        if unsure != 0:  # how much of the hole it fills is not known: all that is left of it
            counts[row, LOST] -= rest - taken
            _put(counts, row, rest - taken, unsure)
            rest = taken
        counts[row, LOST] -= taken
        _put(counts, row, taken, fate)
        counts[row, DUPLICATE] += n - taken
        gaps[row, g, 1] = inside
        if rest > taken:  # the hole goes on behind it
            place = g
            if inside > 0:
                for free in range(gaps.shape[1]):
                    if gaps[row, free, 1] == 0:
                        place = free
                        break
            if place != g or inside == 0:
                gaps[row, place, 0] = (number + taken) & 0xFFFFFFFF
                gaps[row, place, 1] = rest - taken
        return True
    return False


@subroutine
def _restart(state, counts, row, following):  # type: ignore[no-untyped-def]
    """Begin anew at a number; the old one stays known for a while. Return 1."""
    state[row, EXPECTED_OTHER] = state[row, EXPECTED]
    state[row, OTHER_AGE] = 0
    state[row, EXPECTED] = following & 0xFFFFFFFF
    state[row, RUN] = 0
    counts[row, RESETS] += 1
    return 1


@subroutine
def _behind(state, counts, row, number, n, fate, booted_ms):  # type: ignore[no-untyped-def]
    """Deal with what came twice, or after a restart to a lower number; return 1 for a restart."""
    before = state[row, BOOTED_MS]
    rebooted = booted_ms != 0 and before != 0 and booted_ms - before > REBOOT_MS
    if n > 0:
        if state[row, RUN] == 0 or number != state[row, RUN_NEXT]:
            state[row, RUN] = 0
            state[row, RUN_UNITS] = 0
            state[row, RUN_GOOD] = 0
        state[row, RUN] += 1
        state[row, RUN_NEXT] = (number + n) & 0xFFFFFFFF
        state[row, RUN_UNITS] += n
        if fate == 0:
            state[row, RUN_GOOD] += n
    counts[row, DUPLICATE] += n
    if not rebooted and state[row, RUN] < RESTART_RUN:
        return 0
    # These were taken for duplicates until now.
    if state[row, RUN] > 0:
        counts[row, DUPLICATE] -= state[row, RUN_UNITS]
        counts[row, SENT] += state[row, RUN_UNITS]
        counts[row, DECODED] += state[row, RUN_GOOD]
        counts[row, MALFORMED] += state[row, RUN_UNITS] - state[row, RUN_GOOD]
    return _restart(state, counts, row, number + n)


@kernel(
    "i8(const i4[::1], const i8[::1], const i4[:,::1], const u1[::1], const u1[::1],"
    " const i4[::1], const i8[::1], const u8[:,::1], i8[:,::1], i8[:,::1], i8[:,:,::1])"
)
def account(
    stream: NDArray[np.int32],
    sequence: NDArray[np.int64],
    units: NDArray[np.int32],
    fate: NDArray[np.uint8],
    unsure: NDArray[np.uint8],
    records: NDArray[np.int32],
    booted_ms: NDArray[np.int64],
    key: NDArray[np.uint64],
    state: NDArray[np.int64],
    counts: NDArray[np.int64],
    gaps: NDArray[np.int64],
) -> int:
    """Compare sequence numbers with what came, in order; return the number of restarts.

    In      per datagram: its stream and sequence; units int32[D, 3], how many it holds as the
            standard counts, and as two other ways of counting do; its Fate; unsure, a Fate where it
            may hold more units than stated (a set without its template), else 0; its flow records;
            when the exporter booted, 0 = not stated; key uint64[N, 4] of the streams.
    Inout   state, counts int64[N, *]; gaps int64[N, 16, 2]: start and length of open holes.
    Method  A hole of less than 2^20 ahead is loss. What lies behind is a late datagram if it fills
            a hole, then its units come back out of the loss; else it came twice. Four in a row
            behind, or one after a reboot, or a jump further than that, is a restart of the
            exporter; the old number stays known for a while, as two processes may share one
            stream. The first number seen proves nothing (goflow2 issue 116). Which unit the numbers
            count is learned: three datagrams that only another way of counting explains, without
            one that speaks for the present way; holes that this way would explain are not counted
            until it is decided.
    """
    restarts = 0
    for d in range(stream.size):
        row = stream[d]
        counts[row, DATAGRAMS] += 1
        counts[row, RECORDS] += records[d]
        if row == 0:
            continue
        number = sequence[d]
        news = 1  # the first number proves nothing
        if state[row, SEEN] != 0:
            news = 0
            if state[row, UNSURE] == 0:
                ways = WAYS if (key[row, 2] >> np.uint64(16)) == np.uint64(5) else WAYS - 1
                news = _learn_unit(state, counts, row, number, np.int64(units[d, 0]), ways)
        mode = state[row, MODE]
        n = np.int64(units[d, 0 if mode == LAST_RECORD else mode])
        if mode == LAST_RECORD:
            number = (number - n + 1) & 0xFFFFFFFF
        if news == 1:
            state[row, SEEN] = 1
            state[row, EXPECTED] = number
            state[row, EXPECTED_OTHER] = -1
            state[row, RUN] = 0
            gaps[row, :, 1] = 0
        gap = _gap(state, row, number)
        if gap >= 0 and gap < JUMP:
            if gap > 0 and state[row, UNSURE] != 0:
                _put(counts, row, gap, state[row, UNSURE])
            elif gap > 0 and news == 2:
                state[row, DOUBT] += gap
                gap = 0
            elif gap > 0:
                counts[row, LOST] += gap
                _open_hole(gaps, row, state[row, EXPECTED], gap)
            counts[row, SENT] += gap + n
            _put(counts, row, n, fate[d])
            state[row, EXPECTED] = (number + n) & 0xFFFFFFFF
            state[row, RUN] = 0
        elif gap < 0 and gap > -JUMP:
            if not _fills_hole(gaps, counts, row, number, n, fate[d], unsure[d]):
                restarts += _behind(state, counts, row, number, n, fate[d], booted_ms[d])
        else:
            counts[row, SENT] += n
            _put(counts, row, n, fate[d])
            restarts += _restart(state, counts, row, number + n)
        state[row, LAST_SEQUENCE] = sequence[d]
        for k in range(3):
            state[row, LAST_UNITS + k] = units[d, k]
        # Who counts datagrams knows what this one counts for.
        state[row, UNSURE] = unsure[d] if state[row, MODE] != 1 else 0
        if booted_ms[d] != 0:
            state[row, BOOTED_MS] = booted_ms[d]
    return restarts
