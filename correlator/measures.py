"""Measures of a frame: the columns that its view asks for, out of the cells and sketches of its groups."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlator.groups import Layout
from correlator.windows_kernels import (
    FLOWS,
    HEAD_WORDS,
    OCTETS,
    PACKETS,
    SIZE_MAX,
    SIZE_MIN,
    SIZE_SUM,
    SIZE_WORDS,
    SQUARE_HIGH,
    SQUARE_LOW,
    distinct,
    entropy_bits,
)
from telemetry.views import View


def pick(
    cells: NDArray[np.uint64], source: NDArray[np.int64], outside: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return the counters of each frame row. `source` picks its group, -1 = none (zeros).

    The last frame row, `__other__`, is the sum of the groups in `outside`.
    """
    words = min(cells.shape[1], HEAD_WORDS + SIZE_WORDS)
    taken = np.zeros((len(source), words), np.uint64)
    found = source >= 0
    taken[found] = cells[source[found], :words]
    other = cells[outside, :words]
    taken[-1] = other.sum(axis=0, dtype=np.uint64)
    if words > HEAD_WORDS:
        used = other[other[:, FLOWS] > 0]
        taken[-1, SIZE_MIN] = used[:, SIZE_MIN].min() if len(used) else 0
        taken[-1, SIZE_MAX] = used[:, SIZE_MAX].max() if len(used) else 0
        # The low halves of the 128-bit sums carry into the high ones.
        half = np.uint64(32)
        low = int((other[:, SQUARE_LOW] & np.uint64(0xFFFF_FFFF)).sum())
        low += int((other[:, SQUARE_LOW] >> half).sum()) << 32
        high = int(taken[-1, SQUARE_HIGH]) + (low >> 64)
        taken[-1, SQUARE_LOW], taken[-1, SQUARE_HIGH] = low % 2**64, high % 2**64
    return taken


def measures_of(
    view: View,
    layout: Layout,
    cells: NDArray[np.uint64],
    taken: NDArray[np.uint64],
    source: NDArray[np.int64],
    outside: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """Return the measure columns of a frame; see `pick`."""
    flows = taken[:, FLOWS].astype(np.float64)
    made: dict[str, NDArray[Any]] = {}
    for measure in view.measures:
        name = measure.name
        if measure.function == "count":
            made[name] = taken[:, FLOWS].copy()
        elif measure.function == "sum":
            word = {"octets": OCTETS, "packets": PACKETS}.get(measure.of[0] if measure.of else "")
            made[name] = np.zeros(len(taken), np.uint64) if word is None else taken[:, word].copy()
        elif measure.function == "min":
            made[name] = taken[:, SIZE_MIN].copy()
        elif measure.function == "max":
            made[name] = taken[:, SIZE_MAX].copy()
        elif measure.function == "mean":
            size = taken[:, SIZE_SUM].astype(np.float64)
            made[name] = np.divide(size, flows, out=np.zeros(len(taken)), where=flows > 0)
        elif measure.function == "m2":
            size = taken[:, SIZE_SUM].astype(np.float64)
            squares = taken[:, SQUARE_HIGH].astype(np.float64) * 2.0**64
            squares += taken[:, SQUARE_LOW].astype(np.float64)
            part = np.divide(size * size, flows, out=np.zeros(len(taken)), where=flows > 0)
            made[name] = np.maximum(squares - part, 0.0)
        elif measure.function == "distinct":
            registers = layout.registers_of(cells)
            joined = registers[outside].max(axis=0)
            made[name] = _estimate(distinct, registers, joined, source)
        elif measure.function == "entropy":
            buckets = layout.buckets_of(cells)
            total = buckets[outside].sum(axis=0, dtype=np.uint64)
            joined = np.minimum(total, np.uint64(0xFFFF_FFFF)).astype(np.uint32)
            made[name] = _estimate(entropy_bits, buckets, joined, source)
    return made


def _estimate(
    estimate: Any, state: NDArray[Any], other: NDArray[Any], source: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the estimate of each frame row from the sketches of its group; 0 without one."""
    spoke = np.flatnonzero(source[:-1] >= 0)
    values = np.zeros(len(spoke))
    estimate(np.ascontiguousarray(state[source[spoke]]), values)
    picked = np.zeros(len(source))
    picked[spoke] = values
    estimate(np.ascontiguousarray(other[None, :]), picked[-1:])
    return picked
