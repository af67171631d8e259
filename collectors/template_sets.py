"""Reading template sets: rare, so plain Python; what they announce is compiled in collectors.templates."""

from collectors.templates import Field, StreamKey, Template
from telemetry.identity import address_text

VERSIONS = {5: "netflow5", 9: "netflow9", 10: "ipfix"}


def read_templates(
    data: bytes, stream: StreamKey, version: int, options: bool, arrival_ns: int
) -> list[Template | None]:
    """Return the templates of a set body; one without fields is a withdrawal, None is malformed.

    Source: RFC 7011 sections 3.4.1 to 3.4.3 and 8.1; RFC 3954 sections 5.2 and 6.1 (there the
    scope and option lengths are in bytes, and there is no enterprise bit: ids above 32767 are
    plain ids).
    """
    found: list[Template | None] = []
    at = 0
    while at + 4 <= len(data):
        template_id = int.from_bytes(data[at : at + 2], "big")
        count = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
        scopes = 0
        if template_id < 256 and not (version == 10 and count == 0 and template_id in (2, 3)):
            if template_id or count:
                found.append(None)
            break  # zeros are padding; anything else has lost us
        if options and count and version == 10:
            scopes = int.from_bytes(data[at : at + 2], "big")
            at += 2
            if scopes == 0 or scopes > count:
                found.append(None)
                break
        elif options and version == 9:
            scope_bytes, option_bytes = count, int.from_bytes(data[at : at + 2], "big")
            at += 2
            scopes, count = scope_bytes // 4, (scope_bytes + option_bytes) // 4
            scopes = max(scopes, 1)  # an options template without scope is still no data
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
            found.append(None)
            break
        if version == 9 and not fields:
            found.append(None)
            continue
        found.append(Template(stream, template_id, tuple(fields), scopes, arrival_ns))
    return found


def describe(stream: StreamKey) -> str:
    """Return a stream as people read it: `192.0.2.1:2055 ipfix domain 7`."""
    high, low, port_version, domain = stream
    name = VERSIONS.get(port_version >> 16, "?")
    return f"{address_text(high, low)}:{port_version & 0xFFFF} {name} domain {domain}"
