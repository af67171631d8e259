"""What a stream of flow exports sends beyond its limit is shed by sampling.

Of a stream over its limit one datagram in N is taken and stands for N: the sampling rates of its
records are raised by that, so that sums of octets and packets keep their expected values. Nothing that
changes how later data are read (templates) or that is no sample (counters, names) is ever shed.

Source: uniform probabilistic sampling, RFC 5475, section 5.2.2.1.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flow.columns import bits
from runtime.kernels import kernel

_RATE_BIT = bits("sampling_rate")
EVERY_MAX = 1 << 20  # one datagram in so many at the least

# Columns of `pace`: the second, what came in it, one in how many is taken now, how many more may be
# taken at that, how many were.
SECOND, CAME, EVERY, ROOM, TAKEN = range(5)
PACE = 5


@kernel("i8(const i4[::1], const i8[::1], const u1[::1], i8, const u8[:,::1], i8[:,::1], u4[::1])")
def thin(
    stream: NDArray[np.int32],
    arrival_ns: NDArray[np.int64],
    optional: NDArray[np.uint8],
    second_max: int,
    key: NDArray[np.uint64],
    pace: NDArray[np.int64],
    out_weight: NDArray[np.uint32],
) -> int:
    """Say for how many datagrams of its stream each one stands, 0 = it is shed; return how many are.

    In      D datagrams in order of arrival; optional uint8[D], which of them may be shed;
            second_max: so many a second of one stream are taken; key uint64[N, 4] of the streams.
    Inout   pace int64[N, 5], by stream.
    Out     out_weight uint32[D]; 1 for what may not be shed.
    Method  One in EVERY, a power of two, drawn by a hash of the stream and the datagram's place in its
            second: every chance is fixed before the datagram comes, so estimates have no bias, the
            errors of streams are independent, and the cuts of blocks change nothing. A second begins
            with the EVERY that would have fitted the one before; where second_max were taken it
            doubles for half as many, and so on: the second in which a surge begins takes at most
            twice second_max.
    """
    dropped = 0
    for d in range(stream.size):
        out_weight[d] = 1
        if optional[d] == 0:
            continue
        row = stream[d]
        second = arrival_ns[d] // 1000000000
        if pace[row, SECOND] != second:
            every = np.int64(1)
            if pace[row, SECOND] == second - 1:
                while every * second_max < pace[row, CAME] and every < EVERY_MAX:
                    every *= 2
            pace[row, SECOND] = second
            pace[row, CAME] = 0
            pace[row, EVERY] = every
            pace[row, ROOM] = second_max
            pace[row, TAKEN] = 0
        pace[row, CAME] += 1
        if pace[row, TAKEN] >= pace[row, ROOM] and pace[row, EVERY] < EVERY_MAX:
            pace[row, EVERY] *= 2
            pace[row, ROOM] = (pace[row, ROOM] + 1) // 2
            pace[row, TAKEN] = 0
        # splitmix64 of stream and place
        h = (key[row, 1] + key[row, 2]) * np.uint64(0xC2B2AE3D27D4EB4F) + key[row, 0]
        h = (h ^ (h >> np.uint64(32))) + key[row, 3] * np.uint64(0x165667B19E3779F9)
        h ^= np.uint64(second) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        h += np.uint64(pace[row, CAME]) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
        if h & np.uint64(pace[row, EVERY] - 1) == np.uint64(0):
            out_weight[d] = pace[row, EVERY]
            pace[row, TAKEN] += 1
        else:
            out_weight[d] = 0
            dropped += 1
    return dropped


def raise_rates(columns: dict[str, NDArray[Any]], weight: NDArray[np.uint32]) -> None:
    """Raise the sampling rates of rows by the weights of their datagrams; not known counts as 1."""
    more = weight > 1
    rate = np.maximum(columns["sampling_rate"][more], 1).astype(np.uint64) * weight[more]
    columns["sampling_rate"][more] = rate.clip(max=np.uint64(0xFFFFFFFF))
    columns["fields_present"][more] |= _RATE_BIT
