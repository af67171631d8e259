"""Reading template sets: rare, so plain Python; what they announce is compiled in collectors.flow.templates."""

from dataclasses import dataclass

from collectors.flow.templates import Field, StreamKey, Template
from telemetry.identity import address_text

VERSIONS = {5: "netflow5", 9: "netflow9", 10: "ipfix"}


@dataclass(frozen=True, slots=True)
class Malformed:
    """An announcement that cannot be read. What its id stood for does not hold any more."""

    template_id: int  # 0 = not known either


def read_templates(
    data: bytes, stream: StreamKey, version: int, options: bool, arrival_ns: int
) -> list[Template | Malformed]:
    """Return the templates of a set body in order; one without fields is a withdrawal.

    Lenient where a set stays readable: an options template without a scope field (the standard
    wants one) still announces options data; the v9 option length need not be a multiple of 4
    (pmacct issue 473).

    Source: RFC 7011 sections 3.4.1 to 3.4.3 and 8.1; RFC 3954 sections 5.2 and 6.1 (there the
    scope and option lengths are in bytes, and there is no enterprise bit: ids above 32767 are
    plain ids).
    """
    found: list[Template | Malformed] = []
    at = 0
    while at + 4 <= len(data):
        template_id = int.from_bytes(data[at : at + 2], "big")
        count = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        scopes = 0
        if template_id < 256 and not (version == 10 and count == 0 and template_id in (2, 3)):
            if template_id or count:
                found.append(Malformed(0))
            break  # zeros are padding; anything else has lost us
        if options and count and version == 10:
            scopes = int.from_bytes(data[at : at + 2], "big")
            at += 2
            if scopes > count:
                found.append(Malformed(template_id))
                break
            scopes = max(scopes, 1)
        elif options and version == 9:
            scope_bytes, option_bytes = count, int.from_bytes(data[at : at + 2], "big")
            at += 2
            if scope_bytes % 4:
                found.append(Malformed(template_id))
                break
            scopes, count = max(scope_bytes // 4, 1), (scope_bytes + option_bytes) // 4
        fields = []
        for _ in range(count):
            if at + 4 > len(data):
                break
            element = int.from_bytes(data[at : at + 2], "big")
            width = int.from_bytes(data[at + 2 : at + 4], "big")
            at += 4
            enterprise = 0
            if version == 10 and element & 0x8000:
                if at + 4 > len(data):
                    break
                enterprise = int.from_bytes(data[at : at + 4], "big")
                element &= 0x7FFF
                at += 4
            fields.append(Field(element, width, enterprise))
        if len(fields) < count:
            found.append(Malformed(template_id))
            break
        if version == 9 and not fields:
            found.append(Malformed(template_id))
            continue
        found.append(Template(stream, template_id, tuple(fields), scopes, arrival_ns))
    return found


def describe(stream: StreamKey) -> str:
    """Return a stream as people read it: `192.0.2.1:2055 ipfix domain 7`."""
    high, low, port_version, domain = stream
    name = VERSIONS.get(port_version >> 16, "?")
    return f"{address_text(high, low)}:{port_version & 0xFFFF} {name} domain {domain}"
