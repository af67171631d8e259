"""SNMP messages as values: envelope, PDU, variable bindings; v1 traps as the v2 ones they stand for.

Source: RFC 1157 section 4; RFC 3416 section 3; RFC 3412 section 6; RFC 3584 section 3.1.
"""

from collections.abc import Iterable
from typing import NamedTuple

from telemetry.errors import DecodeError
from telemetry.snmp import ber
from telemetry.snmp.ber import Plain, Tag

SYS_UP_TIME = "1.3.6.1.2.1.1.3.0"
SNMP_TRAP_OID = "1.3.6.1.6.3.1.1.4.1"  # ".0" behind it, as RFC 3416 says, or not, as some send it
SNMP_TRAP_ADDRESS = "1.3.6.1.6.3.18.1.3.0"
SNMP_TRAP_COMMUNITY = "1.3.6.1.6.3.18.1.4.0"
SNMP_TRAP_ENTERPRISE = "1.3.6.1.6.3.1.1.4.3.0"
SNMP_TRAPS = "1.3.6.1.6.3.1.1.5"  # coldStart is .1
ENTERPRISE_SPECIFIC = 6
VERSIONS = {0: "v1", 1: "v2c", 3: "v3"}
_SEQUENCE, _OID = int(Tag.SEQUENCE), int(Tag.OID)  # plain numbers compare faster
NOTIFICATIONS = frozenset({Tag.TRAP_V1, Tag.TRAP_V2, Tag.INFORM})


# Named tuples, not dataclasses: of those a storm makes hundreds of thousands a second, and a frozen
# dataclass takes four times as long to make.


class Varbind(NamedTuple):
    """One variable binding, as it was sent."""

    oid: str
    tag: int
    content: bytes
    value: Plain  # as Python has it


def varbind(oid: str, tag: int, content: bytes) -> Varbind:
    """Return a variable binding; raises DecodeError where the value is none of its type."""
    return Varbind(oid, tag, content, ber.plain(tag, content))


class Pdu(NamedTuple):
    """A PDU; what a v1 trap has besides is turned into the v2 form."""

    tag: int
    request_id: int
    error_status: int
    error_index: int
    varbinds: tuple[Varbind, ...]
    agent_address: str = ""  # of a v1 trap, "" where it says 0.0.0.0
    enterprise: str = ""
    odd_enterprise: bool = False  # its enterprise was the whole trap OID


class Notification(NamedTuple):
    """A trap or inform, the same whatever its version."""

    trap_oid: str
    uptime: int  # hundredths of a second; -1 = not stated
    address: str  # of the agent that it is about, where it says so; else ""
    varbinds: tuple[Varbind, ...]  # without sysUpTime, snmpTrapOID and what proxies add
    enterprise: str = ""


class Envelope(NamedTuple):
    """A v1 or v2c message: where its PDU lies."""

    version: int
    community: bytes
    start: int  # of the PDU
    stop: int


def read_envelope(data: bytes) -> Envelope:
    """Return the envelope of a v1 or v2c message. Raises DecodeError."""
    start, stop = ber.expect(data, 0, len(data), Tag.SEQUENCE)
    version, at = ber.integer(data, start, stop)
    if version not in (0, 1):
        raise DecodeError("bad_version", f"version {version} has no community")
    begin, at = ber.expect(data, at, stop, Tag.OCTETS)
    return Envelope(version, data[begin:at], at, stop)


def read_pdu(data: bytes, at: int, end: int) -> Pdu:
    """Return the PDU at `at`. Raises DecodeError."""
    tag, start, stop = ber.header(data, at, end)
    if tag == Tag.TRAP_V1:
        return _trap_v1(data, start, stop)
    if not Tag.GET <= tag <= Tag.REPORT:
        raise DecodeError("bad_type", f"PDU of tag {tag:#x}")
    request_id, at = ber.integer(data, start, stop)
    error_status, at = ber.integer(data, at, stop)
    error_index, at = ber.integer(data, at, stop)
    return Pdu(tag, request_id, error_status, error_index, read_varbinds(data, at, stop))


def read_varbinds(data: bytes, at: int, end: int) -> tuple[Varbind, ...]:
    """Return the variable bindings of the list at `at`; each value is of a type that SNMP knows."""
    at, stop = ber.expect(data, at, end, _SEQUENCE)
    made: list[Varbind] = []
    while at < stop:
        start, behind = ber.expect(data, at, stop, _SEQUENCE)
        begin, end_of_name = ber.expect(data, start, behind, _OID)
        tag, value, end_of_value = ber.header(data, end_of_name, behind)
        content = data[value:end_of_value]
        plain = ber.plain(tag, content)
        made.append(Varbind(ber.oid_text(data[begin:end_of_name]), tag, content, plain))
        at = behind
    return tuple(made)


def _trap_v1(data: bytes, at: int, end: int) -> Pdu:
    start, at = ber.expect(data, at, end, Tag.OID)
    enterprise = ber.oid_text(data[start:at])
    start, at = ber.expect(data, at, end, Tag.IP_ADDRESS)
    address = data[start:at]
    agent = ber.plain(Tag.IP_ADDRESS, address)
    generic, at = ber.integer(data, at, end)
    specific, at = ber.integer(data, at, end)
    start, at = ber.expect(data, at, end, Tag.TIME_TICKS)
    uptime = varbind(SYS_UP_TIME, Tag.TIME_TICKS, data[start:at])
    trap, odd = trap_oid_v1(enterprise, generic, specific)
    named = Varbind(SNMP_TRAP_OID + ".0", Tag.OID, ber.oid_content(trap), trap)
    return Pdu(
        Tag.TRAP_V1,
        0,
        0,
        0,
        (uptime, named, *read_varbinds(data, at, end)),
        agent_address=str(agent) if any(address) else "",
        enterprise=enterprise,
        odd_enterprise=odd,
    )


def trap_oid_v1(enterprise: str, generic: int, specific: int) -> tuple[str, bool]:
    """Return (the snmpTrapOID of a v1 trap, whether its enterprise was that already).

    Senders that put the whole trap OID into the enterprise field would become E.0.N.0.N.

    >>> trap_oid_v1("1.3.6.1.4.1.9.9.187", 6, 1)
    ('1.3.6.1.4.1.9.9.187.0.1', False)
    >>> trap_oid_v1("1.3.6.1.4.1.9.9.187.0.1", 6, 1)
    ('1.3.6.1.4.1.9.9.187.0.1', True)
    >>> trap_oid_v1("1.3.6.1.4.1.9.1.1", 2, 0)
    ('1.3.6.1.6.3.1.1.5.3', False)
    """
    if generic != ENTERPRISE_SPECIFIC:
        if not 0 <= generic < ENTERPRISE_SPECIFIC:
            raise DecodeError("bad_value", f"generic trap {generic}")
        return f"{SNMP_TRAPS}.{generic + 1}", False
    if not 0 <= specific < 1 << 32:
        raise DecodeError("bad_value", f"specific trap {specific}")
    if enterprise.endswith(f".0.{specific}"):
        return enterprise, True
    return f"{enterprise}.0.{specific}", False


def notification_of(pdu: Pdu) -> Notification:
    """Return what a trap or inform says. Raises DecodeError where it names no trap."""
    trap_oid, uptime, address, enterprise = "", -1, pdu.agent_address, pdu.enterprise
    rest: list[Varbind] = []
    for one in pdu.varbinds:
        if one.oid == SYS_UP_TIME and uptime < 0 and one.tag == Tag.TIME_TICKS:
            uptime = int.from_bytes(one.content, "big") & 0xFFFFFFFF
        elif not trap_oid and one.tag == Tag.OID and _names_the_trap(one.oid):
            trap_oid = str(one.value)
        elif one.oid == SNMP_TRAP_ADDRESS and one.tag == Tag.IP_ADDRESS:
            address = str(one.value)
        elif one.oid == SNMP_TRAP_ENTERPRISE:
            enterprise = enterprise or str(one.value)
        elif one.oid != SNMP_TRAP_COMMUNITY:
            rest.append(one)
    if not trap_oid:
        raise DecodeError("no_trap_oid", "its variables name no trap")
    return Notification(trap_oid, uptime, address, tuple(rest), enterprise)


def _names_the_trap(oid: str) -> bool:
    return oid == SNMP_TRAP_OID or oid.startswith(SNMP_TRAP_OID + ".")


# ---- writing


def write_notification(
    trap: str, uptime_hundredths: int, pairs: Iterable[tuple[str, bytes]] = ()
) -> bytes:
    """Return the variable bindings of a trap or inform; pairs are (OID, element)."""
    first = (SYS_UP_TIME, ber.number(uptime_hundredths & 0xFFFFFFFF, Tag.TIME_TICKS))
    named = (f"{SNMP_TRAP_OID}.0", ber.oid(trap))
    return b"".join(write_varbind(oid, value) for oid, value in (first, named, *pairs))


def write_varbind(oid: str, value: bytes) -> bytes:
    """Return a variable binding; `value` is an element."""
    return ber.element(Tag.SEQUENCE, ber.oid(oid), value)


def write_pdu(
    tag: int, request_id: int, varbinds: bytes, *, error_status: int = 0, error_index: int = 0
) -> bytes:
    """Return a PDU; a GetBulk's non-repeaters and max-repetitions stand where errors do."""
    return ber.element(
        tag,
        ber.number(request_id),
        ber.number(error_status),
        ber.number(error_index),
        ber.element(Tag.SEQUENCE, varbinds),
    )


def write_message(version: int, community: bytes, pdu: bytes) -> bytes:
    """Return a v1 or v2c message."""
    return ber.element(Tag.SEQUENCE, ber.number(version), ber.octets(community), pdu)


def answer_inform(data: bytes, envelope: Envelope) -> bytes:
    """Return the response to a v2c inform: the same message with the PDU's type changed.

    Source: RFC 3416 section 4.2.7: the response has the request's variable bindings.
    """
    return data[: envelope.start] + bytes((Tag.RESPONSE,)) + data[envelope.start + 1 :]
