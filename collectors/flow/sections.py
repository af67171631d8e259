"""What a flow record says beyond its own fields: the start of a packet, and the way back.

Elements 315 and 313 (PSAMP, RFC 5477; 104 in Cisco's v9) hold the first bytes of a sampled packet:
they go through the kernel that reads sFlow's headers. Reverse elements (RFC 5103) and initiator /
responder counts say what came back in the same record: that becomes a flow record of its own.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flow import packet
from collectors.flow.columns import bit, bits
from collectors.flow.elements import SLOT, SLOT_ROW

Columns = dict[str, NDArray[Any]]

# What the header parser found, by its bit of `found`.
_BY_HEADER = {
    packet.IS_IP: (
        "source_address_high", "source_address_low", "destination_address_high",
        "destination_address_low", "protocol", "ip_class_of_service",
    ),
    packet.HAS_PORTS: ("source_port", "destination_port"),
    packet.HAS_TCP_FLAGS: ("tcp_flags",),
    packet.HAS_VLAN: ("vlan_id",),
    packet.HAS_MPLS: ("mpls_top_label",),
}  # fmt: skip
# Fields of the two ends of a flow, which change places on the way back.
_ENDS = (
    ("source_address_high", "destination_address_high"),
    ("source_address_low", "destination_address_low"),
    ("source_as", "destination_as"),
    ("source_prefix_length", "destination_prefix_length"),
    ("ingress_interface", "egress_interface"),
    ("ingress_vrf_id", "egress_vrf_id"),
    ("post_nat_source_address_high", "post_nat_destination_address_high"),
    ("post_nat_source_address_low", "post_nat_destination_address_low"),
    ("post_nat_source_port", "post_nat_destination_port"),
)
_PORTS = ("source_port", "destination_port")
_ICMP = (1, 58)
# Said of the way there alone.
_FORWARD_ONLY = bits("next_hop_address", "mpls_top_label", "forwarding_status")


class Raw:
    """Decoded rows as the kernel left them: the raw slots, and which of them each row has."""

    def __init__(self, wide: NDArray[np.uint64], masks: NDArray[np.uint64]) -> None:
        self._wide = wide
        self._masks = masks
        self.rows = masks.size

    def slot(self, name: str) -> NDArray[np.uint64]:
        """Return the values of a raw slot; undefined where `has` is False."""
        found: NDArray[np.uint64] = self._wide[SLOT_ROW[SLOT[name]], : self.rows]
        return found

    def has(self, name: str) -> NDArray[np.bool_]:
        """Return bool[rows]: whether the row's template has the slot."""
        found: NDArray[np.bool_] = self._masks >> np.uint64(SLOT[name]) & np.uint64(1) != 0
        return found

    def value(self, name: str) -> NDArray[np.uint64]:
        """Return the values of a raw slot, 0 where the row has none."""
        return np.where(self.has(name), self.slot(name), np.uint64(0))


def read_packets(view: Raw, columns: Columns, payload: NDArray[np.uint8], *, inner: bool) -> None:
    """Fill in from sampled packets what the records do not say themselves.

    A record without counts stands for one packet; its octets are the frame's length (312), the
    packet's (224), or what its IP header says.
    """
    rows = np.flatnonzero(view.has("frame_at") & (view.value("frame_bytes") != 0))
    if not rows.size:
        return
    start = view.slot("frame_at")[rows].astype(np.int64)
    word = view.slot("frame_bytes")[rows]
    length = (word & np.uint64(0xFFFFFFFF)).astype(np.int32)
    version = payload[np.minimum(start, payload.size - 1)] >> np.uint8(4)
    by_version = np.where(version == 6, packet.LINK_IPV6, packet.LINK_IPV4)
    link = np.where(word >> np.uint64(32) != 0, packet.LINK_ETHERNET, by_version).astype(np.int32)
    parsed = np.empty((len(packet.FIELDS), rows.size), np.uint64)
    tunnels = packet.TUNNELS_MAX if inner else 0
    packet.parse_headers(payload, start, length, link, tunnels, parsed)
    seen = dict(zip(packet.FIELDS, parsed, strict=True))
    for flag, names in _BY_HEADER.items():
        there = seen["found"] & np.uint64(flag) != 0
        for name in names:
            _fill(columns, name, rows, seen[name], there)
    stated = view.value("frame_octets")[rows]
    octets = np.where(stated != 0, stated, seen["ip_octets"])
    _fill(columns, "octets", rows, octets, octets != 0)
    one = np.ones(rows.size, np.uint64)
    _fill(columns, "packets", rows, one, one != 0)


def _fill(
    columns: Columns,
    name: str,
    rows: NDArray[np.int64],
    values: NDArray[np.uint64],
    there: NDArray[np.bool_],
) -> None:
    """Write values to rows that do not state the field, and mark it as stated."""
    mask = np.uint64(bit(name))
    present = columns["fields_present"]
    free = there & (present[rows] & mask == 0)
    if not free.any():
        return
    if not columns[name].flags.writeable:
        columns[name] = columns[name].copy()
    chosen = rows[free]
    columns[name][chosen] = values[free].astype(columns[name].dtype)
    present[chosen] |= mask


def reverse_flows(view: Raw, columns: Columns) -> Columns | None:
    """Return a flow record for the way back of each row that has one; None where none has.

    Source and destination change places, so do interfaces; times and exporter stay. See ADR 0009.
    """
    octets, packets = view.value("reverse_octets"), view.value("reverse_packets")
    rows = np.flatnonzero((octets | packets) != 0)
    if not rows.size:
        return None
    made = {name: column[rows] for name, column in columns.items()}
    present = made["fields_present"]
    for one, other in _ENDS:
        made[one], made[other] = made[other], made[one]
        present = _swap_bits(present, one, other)
    # ICMP has type and code where the others have a port: they do not belong to an end.
    icmp = np.isin(made["protocol"], _ICMP)
    ports = [made[name] for name in _PORTS]
    made["source_port"] = np.where(icmp, ports[0], ports[1])
    made["destination_port"] = np.where(icmp, ports[1], ports[0])
    present = np.where(icmp, present, _swap_bits(present, *_PORTS))
    present &= ~np.uint64(_FORWARD_ONLY)
    for name in ("next_hop_address_high", "next_hop_address_low", "mpls_top_label",
                 "forwarding_status"):  # fmt: skip
        made[name] = np.zeros_like(made[name])
    made["octets"], made["packets"] = octets[rows], packets[rows]
    made["tcp_flags"] = view.value("reverse_tcp_flags")[rows].astype(np.uint16)
    made["direction"] = np.where(made["direction"] <= 1, 1 - made["direction"], made["direction"])
    made["direction"] = made["direction"].astype(np.uint8)
    for name in ("octets", "packets", "tcp_flags"):
        slot = view.has(f"reverse_{name}")[rows]
        mask = np.uint64(bit(name))
        present = np.where(slot, present | mask, present & ~mask)
    made["fields_present"] = present
    return made


def _swap_bits(mask: NDArray[np.uint64], one: str, other: str) -> NDArray[np.uint64]:
    a, b = np.uint64(bit(one)), np.uint64(bit(other))
    has_a, has_b = mask & a != 0, mask & b != 0
    kept = mask & ~(a | b)
    made: NDArray[np.uint64] = kept | np.where(has_a, b, np.uint64(0))
    return made | np.where(has_b, a, np.uint64(0))
