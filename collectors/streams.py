"""Export streams: who sends, what its sequence numbers say is missing, and how its clock stands.

A stream is (exporter address, transport port, version, observation domain). Kept as arrays, found
by the kernel through a hash table of its own; at most STREAMS_MAX, the rest shares row 0.

Sequence units (RFC 3954 section 5.1, RFC 7011 section 3.1, Cisco v5): v5 counts flows, v9 counts
datagrams, IPFIX counts data records (options included, templates not).
"""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import inline, kernel

STREAMS_MAX = 8192
_TABLE = 1 << 15

# Columns of `counts`.
SENT, DECODED, LOST, UNDECODABLE, DATAGRAMS, RECORDS, RESETS, CLOCK_BAD = range(8)
COUNTS = 8
# Columns of `state`.
SEEN, EXPECTED, UNSURE, OFFSET_NOW, OFFSET_BEFORE, EPOCH, OFFSET = range(7)
STATE = 7


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
    " i4[::1], i8[::1], i8[::1], i8[::1], u4[::1])"
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
    out_export_ns: NDArray[np.int64],
    out_offset_ns: NDArray[np.int64],
    out_sequence: NDArray[np.int64],
    out_uptime_ms: NDArray[np.uint32],
) -> int:
    """Find each datagram's stream, learn its clock, and return the number of streams.

    In      D datagrams; tolerance_ns: a corrected clock further off than this is not believed;
            negative: clocks are taken as they are, whatever they say (`tocsin decode`).
    Inout   table int32[2^15], row + 1 or 0; key uint64[N, 4]; state, counts int64[N, *].
    Out     out_stream int32[D] (0 for what is no export); out_export_ns int64[D], the header's time
            by our clock; out_offset_ns int64[D], what was subtracted; out_sequence int64[D];
            out_uptime_ms uint32[D] (v5, v9).
    Method  offset = the largest (header - arrival) of this and the last ten minutes: the datagram
            with the least delay. Below 2 s it is taken as 0: headers count whole seconds.
    """
    for d in range(length.size):
        out_stream[d] = 0
        out_export_ns[d] = arrival_ns[d]
        out_offset_ns[d] = 0
        out_sequence[d] = 0
        out_uptime_ms[d] = 0
        if length[d] < 16:
            continue
        start = offset[d]
        version = _u16(payload, start)
        if version == 9 and length[d] >= 20:
            sent_ns = _u32(payload, start + 8) * 1000000000
            sequence = _u32(payload, start + 12)
            domain = _u32(payload, start + 16)
            out_uptime_ms[d] = _u32(payload, start + 4)
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
        sample = sent_ns - arrival_ns[d]
        epoch = arrival_ns[d] // 600000000000
        if state[row, 5] != epoch:
            state[row, 4] = state[row, 3] if state[row, 5] == epoch - 1 else sample
            state[row, 3] = sample
            state[row, 5] = epoch
        elif sample > state[row, 3]:
            state[row, 3] = sample
        best = max(state[row, 3], state[row, 4])
        correction = best if best > 2000000000 or best < -2000000000 else 0
        if tolerance_ns < 0:
            correction = 0
        export_ns = sent_ns - correction
        off = abs(export_ns - arrival_ns[d])
        if tolerance_ns >= 0 and off > tolerance_ns:
            export_ns = arrival_ns[d]
            counts[row, 7] += 1
        state[row, 6] = best
        out_export_ns[d] = export_ns
        out_offset_ns[d] = correction
    return streams


@kernel(
    "i8(const i4[::1], const i8[::1], const i8[::1], const u1[::1], const u1[::1],"
    " i8[:,::1], i8[:,::1])"
)
def account(
    stream: NDArray[np.int32],
    sequence: NDArray[np.int64],
    units: NDArray[np.int64],
    undecodable: NDArray[np.uint8],
    unsure: NDArray[np.uint8],
    state: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Compare sequence numbers with what came, in order; return the number of resets.

    In      per datagram: its stream, sequence, how many units of that sequence it holds, whether it
            could not be decoded, and whether `units` is a guess (a set without its template).
    Inout   state, counts int64[N, *].
    Method  a gap of less than 2^20 ahead is loss; up to 4096 behind is a late datagram, which
            takes its units back out of the loss; anything else is a restart of the exporter.
            The first number seen proves nothing (goflow2 issue 116).
    """
    resets = 0
    for d in range(stream.size):
        row = stream[d]
        counts[row, 4] += 1
        if row == 0:
            continue
        n = units[d]
        if state[row, 0] == 0:
            state[row, 0] = 1
            counts[row, 0] += n
            state[row, 1] = (sequence[d] + n) & 0xFFFFFFFF
        else:
            gap = (sequence[d] - state[row, 1]) & 0xFFFFFFFF
            if gap >= 0x80000000:
                gap -= 0x100000000
            if gap >= 0 and gap < 1048576:
                counts[row, 0] += gap + n
                if state[row, 2] != 0:
                    counts[row, 3] += gap
                else:
                    counts[row, 2] += gap
                state[row, 1] = (sequence[d] + n) & 0xFFFFFFFF
            elif gap < 0 and gap > -4096:
                counts[row, 2] -= n
            else:
                counts[row, 6] += 1
                resets += 1
                counts[row, 0] += n
                state[row, 1] = (sequence[d] + n) & 0xFFFFFFFF
        state[row, 2] = unsure[d]
        if undecodable[d] != 0:
            counts[row, 3] += n
        else:
            counts[row, 1] += n
    return resets


class Streams:
    """The state of all export streams of one decoder."""

    def __init__(self, *, streams_max: int = STREAMS_MAX) -> None:
        rows = min(streams_max, STREAMS_MAX) + 1
        self.table = np.zeros(_TABLE, np.int32)
        self.key = np.zeros((rows, 4), np.uint64)
        self.state = np.zeros((rows, STATE), np.int64)
        self.counts = np.zeros((rows, COUNTS), np.int64)
        self.reported = np.zeros((rows, COUNTS), np.int64)
        self.boot_ns = np.zeros(rows, np.int64)  # systemInitTimeMilliseconds from options
        self.rate = np.zeros(rows, np.uint32)  # sampling rate that holds for the whole stream
        self.rows = 1  # row 0: datagrams that belong to no stream

    def key_of(self, row: int) -> tuple[int, int, int, int]:
        """Return (exporter high, low, port | version << 16, domain)."""
        high, low, port_version, domain = self.key[row].tolist()
        return high, low, port_version, domain

    def reindex(self) -> None:
        """Rebuild the hash table after a restore."""
        self.table[:] = 0
        for row in range(1, self.rows):
            place = _python_place(*self.key_of(row))
            while self.table[place]:
                place = (place + 1) & (_TABLE - 1)
            self.table[place] = row + 1


def _python_place(high: int, low: int, port_version: int, domain: int) -> int:
    mask = (1 << 64) - 1
    h = (low * 0x9E3779B97F4A7C15 + high) & mask
    h = ((h ^ (h >> 32)) + port_version * 0xC2B2AE3D27D4EB4F + domain * 0x165667B19E3779F9) & mask
    h ^= h >> 29
    return (h * 0xBF58476D1CE4E5B9 & mask) >> 49
