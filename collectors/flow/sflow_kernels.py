"""sFlow v5 datagrams in kernels: samples to rows, agents to streams, final columns, drop counters.

Source: sFlow version 5 (sflow.org, July 2004), sections 5 and appendix; discarded packets: sFlow dropped
packet notification structures, format 5.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from collectors.flow.columns import BYTES, HALVES, WIDE, WORDS
from runtime.kernels import inline, kernel, load_u32, load_u64

ROWS_PER_BYTES = 40  # the smallest sample with a record is longer than this


class Verdict(IntEnum):
    """What the decoder thought of one datagram; the lower-case name is a metric label."""

    OK = 0
    TRUNCATED = 1
    NOT_VERSION_5 = 2
    BAD_LENGTH = 3  # a sample says more than there is; what is whole before it is decoded


# Rows of the kernel's flow matrix.
FLOW_ROWS = (
    "datagram",
    "header_start",
    "header_length",
    "header_protocol",
    "octets",
    "sampling_rate",
    "ingress_interface",
    "egress_interface",
    "drop_reason",
    "source_id",
    "vlan_id",
    "packets",
    "protocol",
    "source_port",
    "destination_port",
    "tcp_flags",
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
    "ip_class_of_service",
    "next_hop_address_high",
    "next_hop_address_low",
    "source_prefix_length",
    "destination_prefix_length",
    "source_as",
    "destination_as",
    "found",
    "sequence",
    "drops",
)
# Bits of `found`: which structures the sample had.
_HEADER, _SAMPLED_IP, _SWITCH, _ROUTER, _GATEWAY, _DROPPED, _LENGTH = 1, 2, 4, 8, 16, 32, 64
# Rows of the kernel's counter matrix: generic interface counters, in the order of the standard.
COUNTER_ROWS = (
    "datagram",
    "interface",
    "speed",
    "in_octets",
    "in_unicast_packets",
    "in_multicast_packets",
    "in_broadcast_packets",
    "in_discards",
    "in_errors",
    "out_octets",
    "out_unicast_packets",
    "out_multicast_packets",
    "out_broadcast_packets",
    "out_discards",
    "out_errors",
)


@kernel(
    "i8(const u1[::1], const i8[::1], const i4[::1], u8[:,::1], u8[:,::1], i8[:,::1], u8[:,::1],"
    " u1[::1], i8[::1])"
)
def decode_sflow(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    flows: NDArray[np.uint64],
    counters: NDArray[np.uint64],
    names: NDArray[np.int64],
    head: NDArray[np.uint64],
    verdict: NDArray[np.uint8],
    tally: NDArray[np.int64],
) -> int:
    """Decode D datagrams and return the number of flow rows.

    In      D datagrams as in DatagramBlock.
    Out     flows uint64[30, R], rows as in FLOW_ROWS, a sampled header given by its place in
            payload (length 0: addresses were in a sampled-IP record instead); counters
            uint64[15, C]; head uint64[5, D]: agent high, low, sub-agent, sequence, samples;
            verdict uint8[D]; names int64[4, C], port names: datagram, ifIndex, place in payload,
            bytes; tally int64[4]: counter rows, unknown samples, unknown records, port names.
    Errors  none raised; a length beyond the datagram ends it, what came before is kept.
    """
    rows = 0
    tally[0] = 0
    tally[3] = 0
    rows_max = flows.shape[1]
    for d in range(length.size):
        at = offset[d]
        end = at + length[d]
        verdict[d] = 1
        for k in range(5):
            head[k, d] = np.uint64(0)
        if at + 28 > end:
            continue
        if load_u32(payload, at) != np.uint64(5):
            verdict[d] = 2
            continue
        family = load_u32(payload, at + 4)
        at += 8
        if family == 1:
            head[1, d] = load_u32(payload, at) | (np.uint64(0xFFFF) << np.uint64(32))
            at += 4
        elif family == 2:
            if at + 32 > end:
                continue
            head[0, d] = load_u64(payload, at)
            head[1, d] = load_u64(payload, at + 8)
            at += 16
        else:
            continue
        if at + 16 > end:
            continue
        head[2, d] = load_u32(payload, at)
        head[3, d] = load_u32(payload, at + 4)
        samples = np.int64(load_u32(payload, at + 12))
        head[4, d] = np.uint64(samples)
        at += 16
        verdict[d] = 0
        for _ in range(samples):
            if at + 8 > end:
                verdict[d] = 3
                break
            tag = load_u32(payload, at)  # enterprise in the top 20 bits, 0 = the standard
            size = np.int64(load_u32(payload, at + 4))
            body = at + 8
            stop = body + size
            if stop > end or size > 65535:
                verdict[d] = 3
                break
            at = stop + (-size & 3) if stop + (-size & 3) <= end else stop
            if tag == 1 or tag == 3 or tag == 5:
                need = 32 if tag == 1 else (44 if tag == 3 else 32)
                if size < need:
                    verdict[d] = 3
                    continue
                rate = np.uint64(1)
                drops = np.uint64(0)
                reason = np.uint64(0)
                found = np.uint64(0)
                if tag == 1:
                    source = load_u32(payload, body + 4)
                    rate = load_u32(payload, body + 8)
                    drops = load_u32(payload, body + 16)
                    into = load_u32(payload, body + 20)
                    out = load_u32(payload, body + 24)
                    # The top two bits say what kind of number it is: 0 an ifIndex, 1 the packet
                    # was dropped and why, 2 sent out of so many interfaces.
                    if out >> np.uint64(30) == np.uint64(1):
                        found |= np.uint64(32)
                        reason = out & np.uint64(0x3FFFFFFF)
                    if out >> np.uint64(30) != np.uint64(0):
                        out = np.uint64(0)
                    if into >> np.uint64(30) != np.uint64(0):
                        into = np.uint64(0)
                    # All ones: the box itself is the other end (akvorado issue 153).
                    if into == np.uint64(0x3FFFFFFF):
                        into = np.uint64(0)
                    if out == np.uint64(0x3FFFFFFF):
                        out = np.uint64(0)
                    count = np.int64(load_u32(payload, body + 28))
                    record = body + 32
                elif tag == 3:
                    source = load_u32(payload, body + 8)
                    rate = load_u32(payload, body + 12)
                    drops = load_u32(payload, body + 20)
                    into = load_u32(payload, body + 28)
                    out = load_u32(payload, body + 36)
                    if load_u32(payload, body + 32) == np.uint64(1):
                        found |= np.uint64(32)
                        reason = out
                    if load_u32(payload, body + 32) != np.uint64(0) or out == np.uint64(0x3FFFFFFF):
                        out = np.uint64(0)
                    if load_u32(payload, body + 24) != np.uint64(0) or into == np.uint64(
                        0x3FFFFFFF
                    ):
                        into = np.uint64(0)
                    count = np.int64(load_u32(payload, body + 40))
                    record = body + 44
                else:
                    source = load_u32(payload, body + 8)
                    drops = load_u32(payload, body + 12)
                    into = load_u32(payload, body + 16)
                    out = load_u32(payload, body + 20)
                    reason = load_u32(payload, body + 24)
                    found |= np.uint64(32)
                    count = np.int64(load_u32(payload, body + 28))
                    record = body + 32
                if rows >= rows_max:
                    verdict[d] = 3
                    break
                for k in range(30):
                    flows[k, rows] = np.uint64(0)
                used = False  # a record has said how long the packet was
                for _ in range(count):
                    if record + 8 > stop:
                        break
                    kind = load_u32(payload, record)
                    part = np.int64(load_u32(payload, record + 4))
                    data = record + 8
                    if data + part > stop:
                        verdict[d] = 3
                        break
                    record = data + part + (-part & 3)
                    if kind == 1 and part >= 16:
                        header = np.int64(load_u32(payload, data + 12))
                        header = min(header, part - 16)
                        flows[1, rows] = np.uint64(data + 16)
                        flows[2, rows] = np.uint64(header)
                        flows[3, rows] = load_u32(payload, data)
                        flows[4, rows] = load_u32(payload, data + 4)
                        found |= np.uint64(1)
                        used = True
                    elif kind == 2 and part >= 4:
                        if not used:
                            flows[4, rows] = load_u32(payload, data)
                            used = True
                    elif kind == 3 and part >= 32:
                        mapped = np.uint64(0xFFFF) << np.uint64(32)
                        if not used:
                            flows[4, rows] = load_u32(payload, data)
                        flows[12, rows] = load_u32(payload, data + 4)
                        flows[17, rows] = load_u32(payload, data + 8) | mapped
                        flows[19, rows] = load_u32(payload, data + 12) | mapped
                        flows[13, rows] = load_u32(payload, data + 16)
                        flows[14, rows] = load_u32(payload, data + 20)
                        flows[15, rows] = load_u32(payload, data + 24)
                        flows[20, rows] = load_u32(payload, data + 28) & np.uint64(0xFF)
                        found |= np.uint64(2)
                        used = True
                    elif kind == 4 and part >= 56:
                        if not used:
                            flows[4, rows] = load_u32(payload, data)
                        flows[12, rows] = load_u32(payload, data + 4)
                        flows[16, rows] = load_u64(payload, data + 8)
                        flows[17, rows] = load_u64(payload, data + 16)
                        flows[18, rows] = load_u64(payload, data + 24)
                        flows[19, rows] = load_u64(payload, data + 32)
                        flows[13, rows] = load_u32(payload, data + 40)
                        flows[14, rows] = load_u32(payload, data + 44)
                        flows[15, rows] = load_u32(payload, data + 48)
                        flows[20, rows] = load_u32(payload, data + 52) & np.uint64(0xFF)
                        found |= np.uint64(2)
                        used = True
                    elif kind == 1001 and part >= 16:
                        flows[10, rows] = load_u32(payload, data)
                        if flows[10, rows] < np.uint64(0xFFF):  # all ones: not known
                            found |= np.uint64(4)
                        else:
                            flows[10, rows] = np.uint64(0)
                    elif (kind == 1002 or kind == 1003) and part >= 8:
                        hop = load_u32(payload, data)
                        behind = data + 4
                        if hop == 1:
                            behind += 4
                        elif hop == 2:
                            behind += 16
                        if behind + 8 > data + part:
                            tally[2] += 1
                            continue
                        if hop == 1:
                            flows[21, rows] = np.uint64(0)
                            mapped = np.uint64(0xFFFF) << np.uint64(32)
                            flows[22, rows] = load_u32(payload, data + 4) | mapped
                        elif hop == 2:
                            flows[21, rows] = load_u64(payload, data + 4)
                            flows[22, rows] = load_u64(payload, data + 12)
                        if kind == 1002:
                            flows[23, rows] = load_u32(payload, behind) & np.uint64(0xFF)
                            flows[24, rows] = load_u32(payload, behind + 4) & np.uint64(0xFF)
                            found |= np.uint64(8)
                        elif behind + 16 <= data + part:
                            own = load_u32(payload, behind)
                            flows[25, rows] = load_u32(payload, behind + 4)
                            if flows[25, rows] == np.uint64(0):
                                flows[25, rows] = own  # 0: the source is in the router's own AS
                            flows[26, rows] = own
                            segments = np.int64(load_u32(payload, behind + 12))
                            path = behind + 16
                            for _ in range(segments):
                                if path + 8 > data + part:
                                    break
                                hops = np.int64(load_u32(payload, path + 4))
                                path += 8 + hops * 4
                                if hops > 65535 or path > data + part:
                                    break
                                if hops > 0:  # the last one of the path is the destination's
                                    flows[26, rows] = load_u32(payload, path - 4)
                            found |= np.uint64(16)
                    else:
                        tally[2] += 1
                flows[0, rows] = np.uint64(d)
                flows[5, rows] = rate
                flows[6, rows] = into
                flows[7, rows] = out
                flows[8, rows] = reason
                flows[9, rows] = source
                flows[11, rows] = np.uint64(1)
                flows[27, rows] = found | np.uint64(64) if used else found
                flows[28, rows] = load_u32(payload, body)
                flows[29, rows] = drops
                rows += 1
            elif tag == 2 or tag == 4:
                skip = 12 if tag == 2 else 16
                if size < skip:
                    verdict[d] = 3
                    continue
                count = np.int64(load_u32(payload, body + skip - 4))
                record = body + skip
                for _ in range(count):
                    if record + 8 > stop:
                        break
                    kind = load_u32(payload, record)
                    part = np.int64(load_u32(payload, record + 4))
                    data = record + 8
                    if data + part > stop:
                        verdict[d] = 3
                        break
                    record = data + part + (-part & 3)
                    if kind == 1 and part >= 88 and tally[0] < counters.shape[1]:
                        c = tally[0]
                        counters[0, c] = np.uint64(d)
                        counters[1, c] = load_u32(payload, data)
                        counters[2, c] = load_u64(payload, data + 8)
                        counters[3, c] = load_u64(payload, data + 24)
                        counters[9, c] = load_u64(payload, data + 56)
                        for k in range(5):
                            counters[4 + k, c] = load_u32(payload, data + 32 + 4 * k)
                            counters[10 + k, c] = load_u32(payload, data + 64 + 4 * k)
                        tally[0] += 1
                    elif kind == 1005 and part >= 4 and tally[3] < names.shape[1]:
                        said = np.int64(load_u32(payload, data))
                        names[0, tally[3]] = d
                        # The source's index; its class (0 = an ifIndex) lies above or before it.
                        index = np.int64(load_u32(payload, body + (4 if tag == 2 else 8)))
                        names[1, tally[3]] = index & 0xFFFFFF if tag == 2 else index
                        names[2, tally[3]] = data + 4
                        names[3, tally[3]] = min(said, part - 4)
                        tally[3] += 1
                    else:
                        tally[2] += 1
            else:
                tally[1] += 1
    return rows


@inline
def _place(high, low, sub):  # type: ignore[no-untyped-def]
    """As in collectors.flow.streams, with port 0 and version 5."""
    h = low * np.uint64(0x9E3779B97F4A7C15) + high
    h = (
        (h ^ (h >> np.uint64(32)))
        + np.uint64(5 << 16) * np.uint64(0xC2B2AE3D27D4EB4F)
        + sub * np.uint64(0x165667B19E3779F9)
    )
    h ^= h >> np.uint64(29)
    return np.int64((h * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(49))


@kernel("i8(const u8[:,::1], const u1[::1], i4[::1], u8[:,::1], i8, i4[::1], i8[::1])")
def find_agents(
    head: NDArray[np.uint64],
    verdict: NDArray[np.uint8],
    table: NDArray[np.int32],
    key: NDArray[np.uint64],
    agents: int,
    out_agent: NDArray[np.int32],
    out_sequence: NDArray[np.int64],
) -> int:
    """Find each datagram's agent and sub-agent, admit new ones, return the number of agents.

    In      head uint64[5, D] and verdict uint8[D] of `decode_sflow`; agents: rows of key in use.
    Inout   table int32[2^15], row + 1 or 0; key uint64[N, 4]: high, low, version << 16, sub-agent.
    Out     out_agent int32[D], 0 for what is no sFlow or beyond the bound; out_sequence int64[D].
    """
    for d in range(verdict.size):
        out_agent[d] = 0
        out_sequence[d] = np.int64(head[3, d])
        if verdict[d] == 1 or verdict[d] == 2:
            continue
        place = _place(head[0, d], head[1, d], head[2, d])
        row = 0
        while table[place] != 0:
            r = table[place] - 1
            if key[r, 1] == head[1, d] and key[r, 3] == head[2, d] and key[r, 0] == head[0, d]:
                row = r
                break
            place = (place + 1) & (table.size - 1)
        if row == 0 and agents < key.shape[0]:
            row = agents
            agents += 1
            table[place] = row + 1
            key[row, 0] = head[0, d]
            key[row, 1] = head[1, d]
            key[row, 2] = np.uint64(5 << 16)
            key[row, 3] = head[2, d]
        out_agent[d] = row
    return agents


# Rows of the matrices, for the kernel below, whose compile cache does not see other files change.
assert WIDE[2:14] == (
    "export_ns", "arrival_ns", "exporter_address_high", "exporter_address_low",
    "source_address_high", "source_address_low", "destination_address_high",
    "destination_address_low", "octets", "packets", "next_hop_address_high", "next_hop_address_low",
)  # fmt: skip
assert WIDE[19] == "fields_present"
assert WORDS[:7] == (
    "observation_domain_id", "ingress_interface", "egress_interface", "sampling_rate", "source_as",
    "destination_as", "mpls_top_label",
)  # fmt: skip
assert HALVES[:4] == ("source_port", "destination_port", "tcp_flags", "vlan_id")
assert BYTES[:6] == (
    "protocol", "ip_class_of_service", "source_prefix_length", "destination_prefix_length",
    "direction", "forwarding_status",
)  # fmt: skip
FILLED = frozenset(
    (*WIDE[2:14], WIDE[19], *WORDS[:7], *HALVES[:4], *BYTES[:4], "forwarding_status")
)


@kernel(
    "i8(const u8[:,::1], const u8[:,::1], i8, const u8[:,::1], const i8[::1], const u8[::1],"
    " u8[:,::1], u4[:,::1], u2[:,::1], u1[:,::1])"
)
def finish_sflow(
    flows: NDArray[np.uint64],
    parsed: NDArray[np.uint64],
    rows: int,
    head: NDArray[np.uint64],
    arrival_ns: NDArray[np.int64],
    masks: NDArray[np.uint64],
    wide: NDArray[np.uint64],
    words: NDArray[np.uint32],
    halves: NDArray[np.uint16],
    octets: NDArray[np.uint8],
) -> int:
    """Make flow records of samples and their parsed headers; return how many have no rate.

    In      flows uint64[30, R] and head uint64[5, D] of `decode_sflow`; parsed uint64[13, R] of
            `packet.parse_headers`; arrival_ns int64[D]; masks uint64[16], bits of fields_present:
            always, then for bits 1, 2, 4, 8, 16 of the header's `found`, for bits 4 to 64 of the
            sample's, for a sampled-IP structure, of the VLAN.
    Out     columns of R rows, those in FILLED.
    """
    without = 0
    for r in range(rows):
        d = np.int64(flows[0, r])
        found = flows[27, r]
        seen = parsed[11, r]
        present = masks[0]
        for k in range(5):
            if (seen >> np.uint64(k)) & np.uint64(1) != np.uint64(0):
                present |= masks[1 + k]
            if (found >> np.uint64(k + 2)) & np.uint64(1) != np.uint64(0):
                present |= masks[6 + k]
        # A sampled-IP structure counts where no header could be read.
        by_sample = seen & np.uint64(1) == np.uint64(0) and found & np.uint64(2) != np.uint64(0)
        arrival = np.uint64(arrival_ns[d])
        wide[2, r] = arrival
        wide[3, r] = arrival
        wide[4, r] = head[0, d]
        wide[5, r] = head[1, d]
        if by_sample:
            present |= masks[11]
            wide[6, r] = flows[16, r]
            wide[7, r] = flows[17, r]
            wide[8, r] = flows[18, r]
            wide[9, r] = flows[19, r]
            octets[0, r] = flows[12, r]
            octets[1, r] = flows[20, r]
            halves[0, r] = flows[13, r]
            halves[1, r] = flows[14, r]
            halves[2, r] = flows[15, r]
        else:
            wide[6, r] = parsed[0, r]
            wide[7, r] = parsed[1, r]
            wide[8, r] = parsed[2, r]
            wide[9, r] = parsed[3, r]
            octets[0, r] = parsed[4, r]
            octets[1, r] = parsed[8, r]
            halves[0, r] = parsed[5, r]
            halves[1, r] = parsed[6, r]
            halves[2, r] = parsed[7, r]
        # The tag in the packet, else the VLAN that the switch says it put it into.
        halves[3, r] = parsed[9, r] if seen & np.uint64(8) != np.uint64(0) else flows[10, r]
        wide[10, r] = flows[4, r]
        wide[11, r] = flows[11, r]
        wide[12, r] = flows[21, r]
        wide[13, r] = flows[22, r]
        wide[19, r] = present
        words[0, r] = head[2, d]
        words[1, r] = flows[6, r]
        words[2, r] = flows[7, r]
        words[3, r] = flows[5, r]
        words[4, r] = flows[25, r]
        words[5, r] = flows[26, r]
        words[6, r] = parsed[10, r]
        octets[2, r] = flows[23, r]
        octets[3, r] = flows[24, r]
        # IPFIX element 89: dropped, reason unknown; sFlow's reasons have no twin.
        octets[5, r] = 128 if found & np.uint64(32) != np.uint64(0) else 0
        if flows[5, r] == np.uint64(0):
            without += 1
    return without


@kernel("i8(const u8[:,::1], i8, const i4[::1], u8[::1], u8[::1], i8[::1])")
def count_drops(
    flows: NDArray[np.uint64],
    rows: int,
    agent: NDArray[np.int32],
    source_key: NDArray[np.uint64],
    source_drops: NDArray[np.uint64],
    used: NDArray[np.int64],
) -> int:
    """Return by how much the drop counters of all sources grew.

    In      flows uint64[30, R] of `decode_sflow`; agent int32[D], rows of agents.
    Inout   a hash table of 2^16: (agent row << 32 | source) + 1, 0 = free, to drops as last stated;
            used int64[1], places taken, at most half.
    """
    grown = np.int64(0)
    mask = source_key.size - 1
    for r in range(rows):
        row = np.uint64(agent[np.int64(flows[0, r])])
        word = (row << np.uint64(32) | flows[9, r] & np.uint64(0xFFFFFFFF)) + np.uint64(1)
        drops = flows[29, r] & np.uint64(0xFFFFFFFF)
        place = np.int64((word * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48))
        while source_key[place] != np.uint64(0) and source_key[place] != word:
            place = (place + 1) & mask
        if source_key[place] == np.uint64(0):
            if used[0] >= source_key.size // 2:
                continue
            used[0] += 1
            source_key[place] = word
        else:
            more = (drops - source_drops[place]) & np.uint64(0xFFFFFFFF)
            if more < np.uint64(1 << 31):  # else the agent restarted
                grown += np.int64(more)
        source_drops[place] = drops
    return int(grown)
