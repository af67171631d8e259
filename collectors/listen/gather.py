"""Datagrams side by side: what of a receive ring's slots is used, without the gaps."""

import numpy as np
from numpy.typing import NDArray

from runtime.kernels import kernel


@kernel("i8(const u1[::1], const i8[::1], const i4[::1], u1[::1])")
def gather(
    payload: NDArray[np.uint8],
    offset: NDArray[np.int64],
    length: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> int:
    """Copy each datagram behind the one before; return the bytes written.

    In      payload uint8[N]; datagram d is payload[offset[d] : offset[d] + length[d]].
    Out     out uint8[M]. A datagram that lies outside of payload or finds no room in out ends the
            copy: then fewer bytes are returned than sum(length).
    """
    at = 0
    for d in range(offset.size):
        first, size = int(offset[d]), int(length[d])
        if size < 0 or first < 0 or first + size > payload.size or at + size > out.size:
            return at
        for i in range(size):
            out[at + i] = payload[first + i]
        at += size
    return at
