"""Which IPFIX and NetFlow v9 elements we read, and into which raw slot of a record.

A raw slot is one u64 of a decoded record before clocks and sampling are applied; addresses take
two. Several elements may fill one slot: the first of a template wins, a later one only fills in
where the first was 0 (dual-stack templates carry both address families, one of them zero).

Source: IANA IPFIX information elements registry; RFC 7012; RFC 8158 (NAT); RFC 5477 (PSAMP).
"""

from enum import IntEnum

from collectors.flow.columns import PLACE, WIDE

ENTERPRISE_REVERSE = 29305  # RFC 5103: the same elements, seen in the other direction
VARIABLE = 65535


class Convert(IntEnum):
    """How the bytes of an element become a slot."""

    SKIP = 0
    UNSIGNED = 1  # 1 to 8 bytes, network order; reduced-size encoding (RFC 7011 section 6.2)
    IPV4 = 2  # 4 bytes into two slots
    IPV6 = 3  # 16 bytes into two slots
    MPLS = 4  # 3 bytes: label 20, experimental 3, bottom of stack 1
    NTP = 5  # 8 bytes: seconds since 1900 and fraction, into ns since 1970
    FRAME = 6  # the start of a link-layer frame: its place and length go to two slots
    PACKET = 7  # the start of an IP packet, the same way
    NTP_MICRO = 8  # as NTP, to the microsecond: the low bits of the fraction say nothing


# Conversions of elements that may come with variable length.
ANY_WIDTH = (Convert.UNSIGNED, Convert.FRAME, Convert.PACKET)

# What an element can fill; `x_high`, `x_low` stand side by side. First the columns of the schema,
# then what is turned into columns behind the kernel that reads records.
SLOTS: tuple[str, ...] = (
    "octets",
    "packets",
    "protocol",
    "ip_class_of_service",
    "tcp_flags",
    "source_port",
    "destination_port",
    "ingress_interface",
    "egress_interface",
    "source_address_high",
    "source_address_low",
    "destination_address_high",
    "destination_address_low",
    "next_hop_address_high",
    "next_hop_address_low",
    "source_as",
    "destination_as",
    "source_prefix_length",
    "destination_prefix_length",
    "vlan_id",
    "mpls_top_label",
    "direction",
    "forwarding_status",
    "nat_event",
    "post_nat_source_address_high",
    "post_nat_source_address_low",
    "post_nat_destination_address_high",
    "post_nat_destination_address_low",
    "post_nat_source_port",
    "post_nat_destination_port",
    "ingress_vrf_id",
    "egress_vrf_id",
    "application_id",
    # Raw: the kernel `finish` knows them by these places, in this order.
    "start_uptime_ms",
    "end_uptime_ms",
    "start_s",
    "end_s",
    "start_ms",
    "end_ms",
    "start_us_ntp",
    "end_us_ntp",
    "start_ns_ntp",
    "end_ns_ntp",
    "start_delta_us",
    "end_delta_us",
    "boot_ms",
    "sampling_interval",
    "sampler_id",
    "sampling_packet_interval",
    "sampling_packet_space",
    "icmp_type_code",
    "icmp_type",
    "icmp_code",
    "mediated_exporter_high",
    "mediated_exporter_low",
    "observation",
    "frame_at",
    "frame_bytes",
    "frame_octets",
    "reverse_octets",
    "reverse_packets",
    "reverse_tcp_flags",
    "duration_ms",
)
SLOT = {name: index for index, name in enumerate(SLOTS)}
assert len(SLOTS) <= 64, "a record's presence mask has 64 bits"
DIRECT = tuple(name for name in SLOTS if name in PLACE)
RAW = SLOTS[len(DIRECT) :]
assert SLOTS[: len(DIRECT)] == DIRECT
# Where each slot lies in memory: width class and row, see collectors.flow.columns.
SLOT_CLASS = tuple(PLACE[name][0] if name in PLACE else 0 for name in SLOTS)
SLOT_ROW = tuple(PLACE[name][1] if name in PLACE else len(WIDE) + RAW.index(name) for name in SLOTS)

_UNSIGNED = {
    1: "octets",
    85: "octets",
    352: "octets",
    231: "octets",
    23: "octets",
    2: "packets",
    86: "packets",
    298: "packets",
    24: "packets",
    4: "protocol",
    5: "ip_class_of_service",
    6: "tcp_flags",
    7: "source_port",
    11: "destination_port",
    10: "ingress_interface",
    252: "ingress_interface",
    14: "egress_interface",
    253: "egress_interface",
    16: "source_as",
    17: "destination_as",
    9: "source_prefix_length",
    29: "source_prefix_length",
    13: "destination_prefix_length",
    30: "destination_prefix_length",
    58: "vlan_id",
    243: "vlan_id",
    61: "direction",
    89: "forwarding_status",
    230: "nat_event",
    227: "post_nat_source_port",
    228: "post_nat_destination_port",
    234: "ingress_vrf_id",
    235: "egress_vrf_id",
    95: "application_id",
    22: "start_uptime_ms",
    21: "end_uptime_ms",
    150: "start_s",
    151: "end_s",
    152: "start_ms",
    153: "end_ms",
    158: "start_delta_us",
    159: "end_delta_us",
    160: "boot_ms",
    161: "duration_ms",
    34: "sampling_interval",
    50: "sampling_interval",
    48: "sampler_id",
    302: "sampler_id",
    305: "sampling_packet_interval",
    306: "sampling_packet_space",
    32: "icmp_type_code",
    139: "icmp_type_code",
    176: "icmp_type",
    178: "icmp_type",
    177: "icmp_code",
    179: "icmp_code",
    258: "observation",
    322: "observation",
    323: "observation",
    312: "frame_octets",
    224: "frame_octets",
    # RFC 5103 by other means: what came back is a flow of its own.
    232: "reverse_octets",
    299: "reverse_packets",
    # Cisco ASA before 8.4, in v9 alone: what 225 to 228 became.
    40003: "post_nat_source_port",
    40004: "post_nat_destination_port",
}
_NTP = {
    154: "start_us_ntp",
    155: "end_us_ntp",
    156: "start_ns_ntp",
    157: "end_ns_ntp",
    324: "observation",
    325: "observation",
}
_IPV4 = {
    8: "source_address",
    12: "destination_address",
    44: "source_address",
    45: "destination_address",
    15: "next_hop_address",
    18: "next_hop_address",
    225: "post_nat_source_address",
    226: "post_nat_destination_address",
    130: "mediated_exporter",
    40001: "post_nat_source_address",
    40002: "post_nat_destination_address",
}
_IPV6 = {
    27: "source_address",
    28: "destination_address",
    170: "source_address",
    169: "destination_address",
    62: "next_hop_address",
    63: "next_hop_address",
    281: "post_nat_source_address",
    282: "post_nat_destination_address",
    131: "mediated_exporter",
}
# Starts of packets: PSAMP's 315 and 313, and 104, its forerunner in Cisco's v9.
_SECTIONS = {315: Convert.FRAME, 104: Convert.FRAME, 313: Convert.PACKET}
# RFC 5103 section 6.1: the counts of the other direction. Other reverse elements are kept raw.
_REVERSE = {
    1: "reverse_octets",
    85: "reverse_octets",
    2: "reverse_packets",
    86: "reverse_packets",
    6: "reverse_tcp_flags",
}


def target(element: int, width: int, enterprise: int = 0) -> tuple[int, Convert]:
    """Return (slot, conversion) of an element of this width; SKIP where it has no place here.

    A width that contradicts the element's type (an IPv4 address in 2 bytes has been seen) is
    skipped: guessing would invent addresses. Of enterprises only RFC 5103's reverse elements are
    known; an enterprise's element never stands for IANA's of that number.
    """
    if enterprise:
        if enterprise == ENTERPRISE_REVERSE and element in _REVERSE and 1 <= width <= 8:
            return SLOT[_REVERSE[element]], Convert.UNSIGNED
        return -1, Convert.SKIP
    if element in _SECTIONS:
        return SLOT["frame_at"], _SECTIONS[element]
    if element in _UNSIGNED and 1 <= width <= 8:
        return SLOT[_UNSIGNED[element]], Convert.UNSIGNED
    if element in _NTP and width == 8:
        micro = element in (154, 155, 324)
        return SLOT[_NTP[element]], Convert.NTP_MICRO if micro else Convert.NTP
    if element in _IPV4 and width == 4:
        return SLOT[_IPV4[element] + "_high"], Convert.IPV4
    if element in _IPV6 and width == 16:
        return SLOT[_IPV6[element] + "_high"], Convert.IPV6
    if element == 70 and width == 3:
        return SLOT["mpls_top_label"], Convert.MPLS
    return -1, Convert.SKIP


def stated_target(element: int, width: int, enterprise: int) -> tuple[int, Convert]:
    """Return `target` of an element as a template states it: its width may be variable."""
    if width != VARIABLE:
        return target(element, width, enterprise)
    # An unsigned element sent with variable length is legal; the kernel checks each.
    slot, how = target(element, 8, enterprise)
    return (slot, how) if how in ANY_WIDTH else (-1, Convert.SKIP)


# Elements of one column that are different quantities: the first that a template has is the one.
_PRECEDENCE = (
    (1, 231, 85, 352, 23),  # delta, initiator's, running total, layer 2, behind the router
    (2, 298, 86, 24),
    (10, 252),  # a bundle, its member
    (14, 253),
    (8, 44),  # an address, its network
    (12, 45),
    (27, 170),
    (28, 169),
)


def superseded(elements: set[int]) -> set[int]:
    """Return the IANA elements of a template that another one of it makes void.

    Where a template has delta counts, its running totals, layer-2 octets and counts behind the
    router are other quantities: a delta of 0 must not be filled from them (Open vSwitch and
    FortiGate send both). Responder's counts are a way back only where the initiator's are the way
    there: beside delta counts each direction has a record of its own.
    """
    void: set[int] = set()
    for order in _PRECEDENCE:
        void.update([element for element in order if element in elements][1:])
    if 231 in void or not elements & {231, 298}:
        void |= {232, 299} & elements
    if 298 in void:
        void |= {299} & elements
    return void
