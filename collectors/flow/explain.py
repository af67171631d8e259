"""Where each value of a record came from: field, template, offset, bytes, element, mapping rule.

The slow, plain reading of what the kernels decoded, for people (`tocsin decode --explain`) and for
what has no column of its own: elements that we do not map are kept raw under `<PEN>:<id>`.

Source: RFC 7011 section 3 and 7; RFC 3954 section 5; Cisco NetFlow v5 tables B-3 and B-4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from collectors.flow.elements import ANY_WIDTH, SLOTS, VARIABLE, Convert, superseded, target
from collectors.flow.templated_decoder import SetSeen
from collectors.flow.templates import Template

RECORDS_PER_SET_MAX = 65_536
_REVERSE = "reverse_"  # begins the names of columns that count the way back
_RULES = {
    Convert.SKIP: "no column, kept raw",
    Convert.UNSIGNED: "unsigned, network order",
    Convert.IPV4: "IPv4, mapped into 128 bits",
    Convert.IPV6: "IPv6",
    Convert.MPLS: "label: the top 20 of 24 bits",
    Convert.NTP: "NTP seconds and fraction to ns since 1970",
    Convert.NTP_MICRO: "NTP seconds and fraction to ns since 1970, to the microsecond",
    Convert.FRAME: "sampled frame: addresses, ports, tags where the record has none itself",
    Convert.PACKET: "sampled packet: addresses, ports where the record has none itself",
}
# Name, offset in the record, width; Cisco table B-4.
_V5_FIELDS = (
    ("source_address", 0, 4),
    ("destination_address", 4, 4),
    ("next_hop_address", 8, 4),
    ("ingress_interface", 12, 2),
    ("egress_interface", 14, 2),
    ("packets", 16, 4),
    ("octets", 20, 4),
    ("flow_start_ns", 24, 4),
    ("flow_end_ns", 28, 4),
    ("source_port", 32, 2),
    ("destination_port", 34, 2),
    ("tcp_flags", 37, 1),
    ("protocol", 38, 1),
    ("ip_class_of_service", 39, 1),
    ("source_as", 40, 2),
    ("destination_as", 42, 2),
    ("source_prefix_length", 44, 1),
    ("destination_prefix_length", 45, 1),
)


@dataclass(frozen=True, slots=True)
class FieldSeen:
    """One field of one record."""

    element: int
    enterprise: int
    offset: int  # of its value, in the datagram
    data: bytes
    scope: bool  # leading field of options data
    column: str  # where it went; "" = nowhere
    rule: str

    @property
    def key(self) -> str:
        """`<PEN>:<id>`."""
        return f"{self.enterprise}:{self.element}"

    def plain(self, template_id: int) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "field": self.column or None,
            "template": template_id,
            "offset": self.offset,
            "bytes": self.data.hex(),
            "element": self.key,
            "rule": self.rule,
        }


def records_of(seen: SetSeen) -> Iterator[list[FieldSeen]]:
    """Yield the fields of each record of a set; for data sets as many records as gave rows."""
    at, data = 0, seen.data
    specs = seen.template.fields
    void = superseded({spec.element for spec in specs if not spec.enterprise})
    wanted = seen.rows if not seen.template.scopes else RECORDS_PER_SET_MAX
    for _ in range(min(wanted, RECORDS_PER_SET_MAX)):
        fields: list[FieldSeen] = []
        begin = at
        filled: set[int] = set()
        for index, spec in enumerate(specs):
            width = spec.width
            if width == VARIABLE:
                if at + 1 > len(data):
                    return
                width, at = data[at], at + 1
                if width == 255:
                    width, at = int.from_bytes(data[at : at + 2], "big"), at + 2
            if at + width > len(data):
                return
            scope = index < seen.template.scopes
            column, rule = _mapping(spec.element, spec.enterprise, width, spec.width, scope)
            if not spec.enterprise and spec.element in void:
                column, rule = "", "another quantity than the delta counts beside it, kept raw"
            slot = target(spec.element, width, spec.enterprise)[0] if column else -1
            if slot >= 0 and slot in filled:
                rule += "; fills in where an earlier one was 0"
            filled.add(slot)
            value = data[at : at + width]
            fields.append(
                FieldSeen(
                    spec.element, spec.enterprise, seen.offset + at, value, scope, column, rule
                )
            )
            at += width
        if at == begin:
            return
        yield fields


def _mapping(
    element: int, enterprise: int, width: int, stated: int, scope: bool
) -> tuple[str, str]:
    if scope:
        return "", "scope of the options data"
    slot, how = target(element, width, enterprise)
    if stated == VARIABLE and how not in ANY_WIDTH:
        slot, how = -1, Convert.SKIP
    if slot < 0:
        return "", f"enterprise {enterprise}: {_RULES[how]}" if enterprise else _RULES[how]
    if how in (Convert.FRAME, Convert.PACKET):
        return "packet", _RULES[how]
    name = SLOTS[slot]
    rule = _RULES[how] + ("; a flow record of its own" if name.startswith(_REVERSE) else "")
    return (name.removesuffix("_high") if how in (Convert.IPV4, Convert.IPV6) else name), rule


def unmapped(fields: list[FieldSeen]) -> dict[str, str]:
    """Return {"<PEN>:<id>": hex} of the fields without a column; a repeated one as `...#2`."""
    made: dict[str, str] = {}
    for field in fields:
        if field.column or not field.data:
            continue
        key, copy = field.key, 1
        while key in made:
            copy += 1
            key = f"{field.key}#{copy}"
        made[key] = field.data.hex()
    return made


def way_back(fields: list[FieldSeen]) -> dict[str, int]:
    """Return the counts of the other direction that a record holds: octets, packets, tcp_flags."""
    made: dict[str, int] = {}
    for field in fields:
        name = field.column.removeprefix(_REVERSE)
        if name != field.column and not made.get(name):
            made[name] = int.from_bytes(field.data, "big")
    return made


def has_more(template: Template) -> bool:
    """Whether a record may hold more than its row says: fields without a column, a way back."""
    elements = {spec.element for spec in template.fields if not spec.enterprise}
    return bool(superseded(elements) & elements or elements & {232, 299}) or any(
        spec.enterprise
        or spec.width == VARIABLE
        or target(spec.element, spec.width, spec.enterprise)[0] < 0
        for spec in template.fields
    )


def explain_v5(datagram: bytes, record: int) -> list[dict[str, Any]]:
    """Return where the fields of a v5 record lie; there is no template and no element id."""
    start = 24 + record * 48
    made = []
    for name, offset, width in _V5_FIELDS:
        at = start + offset
        rule = "uptime: header time - (header uptime - value)" if name.endswith("_ns") else "fixed"
        made.append(
            {
                "field": name,
                "template": None,
                "offset": at,
                "bytes": datagram[at : at + width].hex(),
                "element": None,
                "rule": rule,
            }
        )
    return made


_SFLOW_SAMPLES = {1: 32, 3: 44, 5: 32, 2: 12, 4: 16}  # format: bytes before its records


def sflow_samples(datagram: bytes) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (format, its structures) of each sample: record format, offset, bytes.

    The plain reading of sFlow version 5, section 5; stops at the first length that cannot be.
    """
    if len(datagram) < 28:
        return
    at = 24 if datagram[7] == 2 else 12
    count = int.from_bytes(datagram[at + 12 : at + 16], "big")
    at += 16
    for _ in range(count):
        if at + 8 > len(datagram):
            return
        tag = int.from_bytes(datagram[at : at + 4], "big")
        size = int.from_bytes(datagram[at + 4 : at + 8], "big")
        body, end = at + 8, at + 8 + size
        if end > len(datagram):
            return
        found: list[dict[str, Any]] = []
        head = _SFLOW_SAMPLES.get(tag, 0)
        here = body + head
        while head and here + 8 <= end:
            kind = int.from_bytes(datagram[here : here + 4], "big")
            part = int.from_bytes(datagram[here + 4 : here + 8], "big")
            if here + 8 + part > end:
                break
            found.append(
                {
                    "field": None,
                    "template": None,
                    "offset": here + 8,
                    "bytes": datagram[here + 8 : here + 8 + part].hex(),
                    "element": f"{kind >> 12}:{kind & 0xFFF}",
                    "rule": _SFLOW_RULES.get((tag in (2, 4), kind), "skipped by its length"),
                }
            )
            here += 8 + (part + 3) // 4 * 4
        yield tag, found
        at = body + (size + 3) // 4 * 4


_SFLOW_RULES = {
    (False, 1): "sampled header: addresses, ports, tags; frame length to octets",
    (False, 2): "sampled Ethernet: length to octets",
    (False, 3): "sampled IPv4: addresses, ports; length to octets",
    (False, 4): "sampled IPv6: addresses, ports; length to octets",
    (False, 1001): "extended switch: source VLAN",
    (False, 1002): "extended router: next hop, prefix lengths",
    (False, 1003): "extended gateway: AS numbers",
    (True, 1): "generic interface counters to samples",
    (True, 1005): "port name: of the interface",
}
