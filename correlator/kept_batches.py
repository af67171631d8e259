"""Batches in checkpoints and cases: their wire form, one behind the other, and their sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.checkpoint import read_array, write_array
from telemetry import wire
from telemetry.batch import Batch


def write_batches(out: Any, name: str, batches: Sequence[Batch]) -> None:
    """Write batches as their wire form."""
    parts = [np.frombuffer(wire.encode(batch), np.uint8) for batch in batches]
    sizes = np.array([len(part) for part in parts], np.int64)
    write_array(out, f"{name}.sizes", sizes)
    write_array(out, f"{name}.bytes", np.concatenate([*parts, np.zeros(0, np.uint8)]))


def read_batches(state: Any, name: str) -> list[Batch]:
    """Return the batches that `write_batches` wrote; none where it was never called."""
    sizes, data = read_array(state, f"{name}.sizes"), read_array(state, f"{name}.bytes")
    if sizes is None or data is None:
        return []
    ends = np.cumsum(sizes)
    return [
        wire.decode(data[end - size : end].tobytes())
        for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)
    ]
