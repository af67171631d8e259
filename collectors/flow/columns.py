"""The memory of a batch of flow records: one matrix per width, whose rows are the columns.

Kernels write the final type at once: a second pass over the values would cost more than decoding
them. A column that nobody fills is a slice of one array of zeros that all batches share.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.schemas import FLOW, FLOW_FIELD_BIT

# Rows of the matrices, by name. The kernels' files state the same numbers and check them.
WIDE = (
    "flow_start_ns",
    "flow_end_ns",
    "export_ns",
    "arrival_ns",
    "exporter_address_high",
    "exporter_address_low",
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
    "octets",
    "packets",
    "next_hop_address_high",
    "next_hop_address_low",
    "post_nat_source_address_high",
    "post_nat_source_address_low",
    "post_nat_destination_address_high",
    "post_nat_destination_address_low",
    "application_id",
    "fields_present",
)
WORDS = (
    "observation_domain_id",
    "ingress_interface",
    "egress_interface",
    "sampling_rate",
    "source_as",
    "destination_as",
    "mpls_top_label",
    "ingress_vrf_id",
    "egress_vrf_id",
)
HALVES = (
    "source_port",
    "destination_port",
    "tcp_flags",
    "vlan_id",
    "post_nat_source_port",
    "post_nat_destination_port",
)
BYTES = (
    "protocol",
    "ip_class_of_service",
    "source_prefix_length",
    "destination_prefix_length",
    "direction",
    "forwarding_status",
    "nat_event",
)
_WIDTHS = ((8, WIDE), (4, WORDS), (2, HALVES), (1, BYTES))
# Name: (width class 0 to 3 for 8, 4, 2, 1 bytes, row of that matrix).
PLACE = {
    name: (kind, row) for kind, (_, names) in enumerate(_WIDTHS) for row, name in enumerate(names)
}
assert set(PLACE) == set(FLOW.names()), "every column of the schema has its place"
assert all(
    FLOW.by_name[name].dtype.itemsize == width for width, names in _WIDTHS for name in names
), "and its width"

ROWS_MAX = 65_536 + 8  # of one batch; not a power of two, see `stride`
SPARSE = 8  # memory that is used to less than one part in so many is given back
_ZEROS = np.zeros(ROWS_MAX, np.uint64)
_ZEROS.setflags(write=False)


def stride(rows: int) -> int:
    """Return room for at least `rows` values so that rows of a matrix share no set of the cache.

    Columns a multiple of 4 KiB apart evict each other: measured 23 against 198 M records/s.
    """
    wanted = max(rows, 8)
    return wanted + 8 if wanted * 8 % 4096 < 64 else wanted


def bit(name: str) -> int:
    """Return the bit of a field in `fields_present`."""
    return 1 << FLOW_FIELD_BIT[name]


def bits(*names: str) -> int:
    """Return the bits of fields in `fields_present`; an address by its name without the half."""
    made = 0
    for name in names:
        if name in FLOW_FIELD_BIT:
            made |= bit(name)
        else:
            made |= bit(f"{name}_high") | bit(f"{name}_low")
    return made


@dataclass(frozen=True, slots=True)
class FlowMemory:
    """Room for `rows` flow records; `wide` has rows beyond the schema's for what is not a column."""

    wide: NDArray[np.uint64]
    words: NDArray[np.uint32]
    halves: NDArray[np.uint16]
    octets: NDArray[np.uint8]

    @classmethod
    def room(cls, rows: int, *, extra: int = 0) -> "FlowMemory":
        """Allocate without clearing: pages that nothing fills are never touched."""
        n = stride(rows)
        return cls(
            np.empty((len(WIDE) + extra, n), np.uint64),
            np.empty((len(WORDS), n), np.uint32),
            np.empty((len(HALVES), n), np.uint16),
            np.empty((len(BYTES), n), np.uint8),
        )

    @property
    def matrices(self) -> tuple[NDArray[Any], ...]:
        """All of it, as `PLACE` counts the width classes."""
        return self.wide, self.words, self.halves, self.octets

    @property
    def rows_max(self) -> int:
        """How many records fit."""
        return int(self.wide.shape[1])

    def is_sparse(self, rows: int) -> bool:
        """Return whether so few rows are a waste of this room."""
        return rows * SPARSE < self.rows_max

    def compact(self, rows: int) -> "FlowMemory":
        """Return memory for these rows alone: of many small batches each would hold a whole room."""
        made = FlowMemory.room(rows, extra=len(self.wide) - len(WIDE))
        for into, of in zip(made.matrices, self.matrices, strict=True):
            into[:, :rows] = of[:, :rows]
        return made

    def columns(
        self, filled: frozenset[str], rows: int, *, sealed: bool
    ) -> dict[str, NDArray[Any]]:
        """Return the schema's columns: what is in `filled` from here, the rest zeros.

        `sealed`: read-only, as a batch's must be; else the caller writes more and calls `seal`. One
        view for each width of zeros, however many columns share it: this runs for every block.
        """
        matrices = self.matrices
        if sealed:  # before they are sliced: four flags, not forty
            for matrix in matrices:
                matrix.flags.writeable = False
        empty = [zeros(dtype, rows) for dtype in _DTYPES]
        made: dict[str, NDArray[Any]] = {}
        for name, kind, row, signed, dtype in _COLUMNS:
            if name not in filled:
                made[name] = empty[dtype]
            elif signed:
                made[name] = matrices[kind][row, :rows].view(np.int64)
            else:
                made[name] = matrices[kind][row, :rows]
        return made


_DTYPES = tuple(np.dtype(name) for name in ("u8", "u4", "u2", "u1", "i8"))
# Name, width class, row, whether it is signed, which of _DTYPES; in the schema's order.
_COLUMNS = tuple(
    (spec.name, *PLACE[spec.name], spec.dtype.kind == "i", _DTYPES.index(spec.dtype))
    for spec in FLOW.fields
)


def seal(columns: dict[str, NDArray[Any]]) -> None:
    """Make columns read-only, as a batch's are."""
    for column in columns.values():
        column.flags.writeable = False


def zeros(dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
    """Return a shared, read-only column of zeros."""
    if rows > ROWS_MAX:
        return np.zeros(rows, dtype)
    return _ZEROS[:rows].view(dtype)[:rows]
