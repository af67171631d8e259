"""Which IPFIX and NetFlow v9 elements we read, and into which raw slot of a record.

A raw slot is one u64 of a decoded record before clocks and sampling are applied; addresses take
two. Several elements may fill one slot: the first of a template wins, a later one only fills in
where the first was 0 (dual-stack templates carry both address families, one of them zero).

Source: IANA IPFIX information elements registry; RFC 7012; RFC 8158 (NAT); RFC 5477 (PSAMP).
"""

from enum import IntEnum

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


# Names of raw slots; `x_high`, `x_low` stand side by side.
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
    # Below: turned into schema columns after decoding.
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
    "exporter_address_high",
    "exporter_address_low",
    "observation_time_ms",
)
SLOT = {name: index for index, name in enumerate(SLOTS)}
assert len(SLOTS) <= 64, "a record's presence mask has 64 bits"

_UNSIGNED = {
    1: "octets",
    85: "octets",
    352: "octets",
    231: "octets",
    2: "packets",
    86: "packets",
    298: "packets",
    4: "protocol",
    5: "ip_class_of_service",
    6: "tcp_flags",
    7: "source_port",
    11: "destination_port",
    10: "ingress_interface",
    14: "egress_interface",
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
    22: "start_uptime_ms",
    21: "end_uptime_ms",
    150: "start_s",
    151: "end_s",
    152: "start_ms",
    153: "end_ms",
    158: "start_delta_us",
    159: "end_delta_us",
    160: "boot_ms",
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
    323: "observation_time_ms",
}
_NTP = {154: "start_us_ntp", 155: "end_us_ntp", 156: "start_ns_ntp", 157: "end_ns_ntp"}
_IPV4 = {
    8: "source_address",
    12: "destination_address",
    15: "next_hop_address",
    18: "next_hop_address",
    225: "post_nat_source_address",
    226: "post_nat_destination_address",
    130: "exporter_address",
}
_IPV6 = {
    27: "source_address",
    28: "destination_address",
    62: "next_hop_address",
    63: "next_hop_address",
    281: "post_nat_source_address",
    282: "post_nat_destination_address",
    131: "exporter_address",
}


def target(element: int, width: int) -> tuple[int, Convert]:
    """Return (slot, conversion) of an IANA element of this width; SKIP where it has no place here.

    A width that contradicts the element's type (an IPv4 address in 2 bytes has been seen) is
    skipped: guessing would invent addresses.
    """
    if element in _UNSIGNED and 1 <= width <= 8:
        return SLOT[_UNSIGNED[element]], Convert.UNSIGNED
    if element in _NTP and width == 8:
        return SLOT[_NTP[element]], Convert.NTP
    if element in _IPV4 and width == 4:
        return SLOT[_IPV4[element] + "_high"], Convert.IPV4
    if element in _IPV6 and width == 16:
        return SLOT[_IPV6[element] + "_high"], Convert.IPV6
    if element == 70 and width == 3:
        return SLOT["mpls_top_label"], Convert.MPLS
    return -1, Convert.SKIP


def superseded(elements: set[int]) -> set[int]:
    """Return the IANA elements of a template that another one of it makes void.

    Where a template has delta counts, its running totals (85, 86) and layer-2 octets (352) are other
    quantities: a delta of 0 must not be filled from them (Open vSwitch sends all of them).
    """
    void = {85, 352} if 1 in elements else set()
    return void | ({86} if 2 in elements else set())
