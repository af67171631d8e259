"""From what a v9 or IPFIX record says to what the schema wants: times, rates, ICMP, who exported it.

Behind the walk (collectors.flow.templated): rows lie gathered with their raw slots; here they get their final
columns.
"""

import numpy as np
from numpy.typing import NDArray

from collectors.flow.columns import WIDE
from collectors.flow.elements import DIRECT, RAW, SLOT
from runtime.kernels import inline, kernel, subroutine
from telemetry.schemas import FLOW_FIELD_BIT

# ---- from what a record says to what the schema wants

# Rows of `wide`, and behind them the raw ones; bits of a plan's slots. Numbers, for the kernel's
# compile cache does not see other files change; the assertions do.
assert WIDE[:6] == (
    "flow_start_ns", "flow_end_ns", "export_ns", "arrival_ns",
    "exporter_address_high", "exporter_address_low",
)  # fmt: skip
assert len(WIDE) == 20
assert WIDE[19] == "fields_present"
assert len(DIRECT) == 33
assert SLOT["destination_port"] == 6
assert FLOW_FIELD_BIT["sampling_rate"] == 20
assert RAW == (
    "start_uptime_ms", "end_uptime_ms", "start_s", "end_s", "start_ms", "end_ms",
    "start_us_ntp", "end_us_ntp", "start_ns_ntp", "end_ns_ntp", "start_delta_us", "end_delta_us",
    "boot_ms", "sampling_interval", "sampler_id", "sampling_packet_interval",
    "sampling_packet_space", "icmp_type_code", "icmp_type", "icmp_code", "mediated_exporter_high",
    "mediated_exporter_low", "observation", "frame_at", "frame_bytes", "frame_octets",
    "reverse_octets", "reverse_packets", "reverse_tcp_flags", "duration_ms",
)  # fmt: skip

# What `finish` returns, as bits: there is something for the slow paths.
HAS_FRAMES, HAS_REVERSE, RATE_UNKNOWN, HAS_ICMP = 1, 2, 4, 8
# Columns of `boot`, per stream: boot time from options; largest (end - export) of this and the last
# ten minutes; that epoch.
BOOT_NS, LATEST_NOW, LATEST_BEFORE, LATEST_EPOCH = range(4)


# Rows of `wide` for schema columns and for raw slots (START_UPTIME and so on come in pairs, start and
# end), rows of the other matrices, and where raw slots begin among a plan's: numbers, as above.
START, END, EXPORT, ARRIVAL, EXPORTER, PRESENT = 0, 1, 2, 3, 4, 19
UPTIME, SECONDS, DELTA, BOOT, INTERVAL, SAMPLER, PACKET_INTERVAL, PACKET_SPACE = (
    20,
    22,
    30,
    32,
    33,
    34,
    35,
    36,
)
ICMP_BOTH, ICMP_TYPE, ICMP_CODE, MEDIATED, OBSERVATION, FRAME, REVERSE, DURATION = (
    37,
    38,
    39,
    40,
    42,
    43,
    46,
    49,
)
DOMAIN, RATE, PORT, PORT_SLOT, RAW_SLOT, RATE_BIT = 0, 3, 1, 6, 13, 20
EPOCH_NS = 600_000_000_000


@inline
def _has(present, bit):  # type: ignore[no-untyped-def]
    return (present >> np.uint64(bit)) & np.uint64(1) != np.uint64(0)


@inline
def _sampler_place(high, low, domain, sampler):  # type: ignore[no-untyped-def]
    h = low * np.uint64(0x9E3779B97F4A7C15) + high
    h = (
        (h ^ (h >> np.uint64(32)))
        + domain * np.uint64(0xC2B2AE3D27D4EB4F)
        + sampler * np.uint64(0x165667B19E3779F9)
    )
    h ^= h >> np.uint64(29)
    return np.int64((h * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(47))


@subroutine
def _boot_times(wide, a, b, raw, side, boot_in_record, boot_ns, lag_ns):  # type: ignore[no-untyped-def]
    """IPFIX: uptime stamps count from a boot time in the record or in options data."""
    for r in range(a, b):
        boot = boot_ns
        if boot_in_record and wide[BOOT, r] != np.uint64(0):
            boot = np.int64(wide[BOOT, r]) * 1000000
        wide[side, r] = np.uint64(boot + np.int64(wide[raw, r]) * 1000000 - lag_ns)


@kernel(
    "i8(const i4[:,::1], i8, const i8[::1], const i8[::1], const i8[::1], const u4[::1],"
    " const i4[::1], const u8[::1], const u8[::1], const i4[::1], const u8[:,::1], i8[:,::1], i8,"
    " const u4[::1], const u8[:,::1], const u4[::1], const u8[::1], const u8[::1],"
    " u8[:,::1], u4[:,::1], u2[:,::1])"
)
def finish(
    segment: NDArray[np.int32],
    segments: int,
    export_ns: NDArray[np.int64],
    arrival_ns: NDArray[np.int64],
    offset_ns: NDArray[np.int64],
    uptime_ms: NDArray[np.uint32],
    drift: NDArray[np.int32],
    exporter_high: NDArray[np.uint64],
    exporter_low: NDArray[np.uint64],
    stream: NDArray[np.int32],
    stream_key: NDArray[np.uint64],
    boot: NDArray[np.int64],
    tolerance_ns: int,
    segment_rate: NDArray[np.uint32],
    sampler_key: NDArray[np.uint64],
    sampler_rate: NDArray[np.uint32],
    plan_present: NDArray[np.uint64],
    plan_schema: NDArray[np.uint64],
    wide: NDArray[np.uint64],
    words: NDArray[np.uint32],
    halves: NDArray[np.uint16],
) -> int:
    """Fill the columns that a record does not hold as they are; return what is left, as bits.

    In      the segments of `walk`; per datagram: corrected export time, arrival, what was subtracted
            from its clock, uptime of its header, drift of that uptime in ns a second, exporter,
            stream row; stream_key uint64[N, 4]; tolerance_ns, negative: no clock is corrected;
            segment_rate uint32[G], the rate that holds for the whole stream, 0 = not known; samplers
            by hash (exporter high, low, domain, id) to rate; plans by row.
    Inout   boot int64[N, 4], see BOOT_NS and following.
    Out     rows 0 to 5 and 19 of wide, 0 and 3 of words, the port of ICMP flows; bits HAS_FRAMES,
            HAS_REVERSE, RATE_UNKNOWN, HAS_ICMP (the port is filled in every row of the batch).
    Method  Times, the later one wins where both are stated: uptime, seconds, milliseconds, NTP
            microseconds, NTP nanoseconds, delta to the export. v9 uptime stamps are differences to
            the header's uptime, so that only the drift in between matters. IPFIX has none there:
            stamps count from the boot time (160), and the largest (end - export) of ten minutes
            says how far that has drifted; beyond 2 s ahead or the tolerance behind it is
            subtracted. Where no boot time is known, flows are taken to end when they are exported.
    Source  RFC 7011 section 6.1, RFC 7012, RFC 3954 section 8, RFC 5477 section 8.2.
    """
    left = 0
    for g in range(segments):
        d = segment[g, 0]
        plan = segment[g, 1]
        a = np.int64(segment[g, 2])
        b = a + segment[g, 3]
        present = plan_present[plan]
        row = stream[d]
        high = exporter_high[d]
        low = exporter_low[d]
        exported = export_ns[d]
        off = offset_ns[d]
        wide[EXPORT, a:b] = np.uint64(exported)
        wide[ARRIVAL, a:b] = np.uint64(arrival_ns[d])
        wide[EXPORTER, a:b] = high
        wide[EXPORTER + 1, a:b] = low
        words[DOMAIN, a:b] = np.uint32(stream_key[row, 3])
        if _has(present, MEDIATED + RAW_SLOT):  # a mediator names the true exporter
            for r in range(a, b):
                mapped = np.uint64(0xFFFF) << np.uint64(32)
                if (wide[MEDIATED, r] | wide[MEDIATED + 1, r]) != np.uint64(0) and wide[
                    MEDIATED + 1, r
                ] != mapped:
                    wide[EXPORTER, r] = wide[MEDIATED, r]
                    wide[EXPORTER + 1, r] = wide[MEDIATED + 1, r]
        # Times.
        nine = (stream_key[row, 2] >> np.uint64(16)) == np.uint64(9)
        lag = np.int64(0)
        in_record = _has(present, BOOT + RAW_SLOT)
        known = np.int64(0)
        timed = True
        if not nine and (_has(present, UPTIME + RAW_SLOT) or _has(present, UPTIME + 1 + RAW_SLOT)):
            known = boot[row, BOOT_NS]
            stamp = UPTIME + 1 if _has(present, UPTIME + 1 + RAW_SLOT) else UPTIME
            latest = np.int64(-0x7FFFFFFFFFFFFFFF)
            sure = known > 0
            for r in range(a, b):
                start = known
                if in_record and wide[BOOT, r] != np.uint64(0):
                    start = np.int64(wide[BOOT, r]) * 1000000
                    sure = True
                latest = max(latest, start + np.int64(wide[stamp, r]) * 1000000 - off - exported)
            if b > a and tolerance_ns >= 0:
                epoch = arrival_ns[d] // EPOCH_NS
                if boot[row, LATEST_EPOCH] < epoch:
                    boot[row, LATEST_BEFORE] = (
                        boot[row, LATEST_NOW] if boot[row, LATEST_EPOCH] == epoch - 1 else latest
                    )
                    boot[row, LATEST_NOW] = latest
                    boot[row, LATEST_EPOCH] = epoch
                elif latest > boot[row, LATEST_NOW]:
                    boot[row, LATEST_NOW] = latest
                best = max(boot[row, LATEST_NOW], boot[row, LATEST_BEFORE])
                if not sure or best > 2000000000 or best < -tolerance_ns:
                    lag = best
            elif not sure:
                timed = False
        for side in range(2):
            if not _has(present, UPTIME + side + RAW_SLOT) or not timed:
                wide[side, a:b] = np.uint64(0)
            elif nine:
                for r in range(a, b):
                    # Uptime wraps every 49.7 days: only the difference counts, modulo 2^32.
                    ago = np.int64(np.int32(uptime_ms[d] - np.uint32(wide[UPTIME + side, r])))
                    wide[side, r] = np.uint64(
                        exported - ago * 1000000 - ago * np.int64(drift[d]) // 1000
                    )
            else:
                _boot_times(wide, a, b, UPTIME + side, side, in_record, known, lag + off)
            for base in range(4):
                if not _has(present, SECONDS + 2 * base + side + RAW_SLOT):
                    continue
                raw = SECONDS + 2 * base + side
                scale = np.uint64(1)
                if base == 0:
                    scale = np.uint64(1000000000)
                elif base == 1:
                    scale = np.uint64(1000000)
                for r in range(a, b):
                    if wide[raw, r] != np.uint64(0):
                        wide[side, r] = wide[raw, r] * scale - np.uint64(off)
            if _has(present, DELTA + side + RAW_SLOT):
                for r in range(a, b):
                    wide[side, r] = np.uint64(exported) - wide[DELTA + side, r] * np.uint64(1000)
        if _has(present, DURATION + RAW_SLOT):
            for r in range(a, b):
                if wide[END, r] == np.uint64(0) and wide[START, r] != np.uint64(0):
                    wide[END, r] = wide[START, r] + wide[DURATION, r] * np.uint64(1000000)
        # An event has one time: in s, ms or, converted, ns.
        if _has(present, OBSERVATION + RAW_SLOT):
            for r in range(a, b):
                value = wide[OBSERVATION, r]
                if value == np.uint64(0):
                    continue
                if value < np.uint64(100000000000):
                    value = value * np.uint64(1000000000)
                elif value < np.uint64(100000000000000):
                    value = value * np.uint64(1000000)
                if wide[START, r] == np.uint64(0):
                    wide[START, r] = value - np.uint64(off)
                if wide[END, r] == np.uint64(0):
                    wide[END, r] = value - np.uint64(off)
        # ICMP type and code stand in the destination port, as v5 has them.
        if _has(present, ICMP_BOTH + RAW_SLOT) or _has(present, ICMP_TYPE + RAW_SLOT):
            left |= HAS_ICMP
            for r in range(a, b):
                if not _has(present, PORT_SLOT):
                    halves[PORT, r] = np.uint16(0)
                if halves[PORT, r] != 0:
                    continue
                both = np.uint64(0)
                if _has(present, ICMP_BOTH + RAW_SLOT):
                    both = wide[ICMP_BOTH, r]
                if _has(present, ICMP_TYPE + RAW_SLOT):
                    both |= wide[ICMP_TYPE, r] << np.uint64(8)
                    if _has(present, ICMP_CODE + RAW_SLOT):
                        both |= wide[ICMP_CODE, r]
                halves[PORT, r] = np.uint16(both)
        elif not _has(present, PORT_SLOT):  # other rows of the batch may have it
            halves[PORT, a:b] = np.uint16(0)
        # Sampling.
        whole = segment_rate[g]
        if (
            _has(present, INTERVAL + RAW_SLOT)
            or _has(present, SAMPLER + RAW_SLOT)
            or _has(present, PACKET_INTERVAL + RAW_SLOT)
        ):
            for r in range(a, b):
                rate = np.uint64(whole)
                if _has(present, SAMPLER + RAW_SLOT):
                    domain = stream_key[row, 3]
                    place = _sampler_place(high, low, domain, wide[SAMPLER, r])
                    while sampler_rate[place] != 0:
                        if (
                            sampler_key[place, 3] == wide[SAMPLER, r]
                            and sampler_key[place, 1] == low
                            and sampler_key[place, 2] == domain
                            and sampler_key[place, 0] == high
                        ):
                            rate = np.uint64(sampler_rate[place])
                            break
                        place = (place + 1) & (sampler_rate.size - 1)
                if _has(present, PACKET_INTERVAL + RAW_SLOT) and wide[
                    PACKET_INTERVAL, r
                ] != np.uint64(0):
                    space = (
                        wide[PACKET_SPACE, r]
                        if _has(present, PACKET_SPACE + RAW_SLOT)
                        else np.uint64(0)
                    )
                    rate = (wide[PACKET_INTERVAL, r] + space) // wide[PACKET_INTERVAL, r]
                if _has(present, INTERVAL + RAW_SLOT) and wide[INTERVAL, r] != np.uint64(0):
                    rate = wide[INTERVAL, r]
                if rate > np.uint64(0xFFFFFFFF):
                    rate = np.uint64(0xFFFFFFFF)
                words[RATE, r] = np.uint32(rate)
        else:
            words[RATE, a:b] = whole
        stated = plan_schema[plan]
        for r in range(a, b):
            wide[PRESENT, r] = stated | (np.uint64(words[RATE, r] != 0) << np.uint64(RATE_BIT))
            if words[RATE, r] == 0:
                left |= RATE_UNKNOWN
        if _has(present, FRAME + RAW_SLOT):
            left |= HAS_FRAMES
        if _has(present, REVERSE + RAW_SLOT) or _has(present, REVERSE + 1 + RAW_SLOT):
            left |= HAS_REVERSE
    return left
