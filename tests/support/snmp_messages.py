"""SNMP messages for tests, written with our own writer; conformance checks it against others."""

from collections.abc import Sequence

from telemetry.snmp import ber, message, usm
from telemetry.snmp.ber import Tag

IF_INDEX, IF_DESCR = "1.3.6.1.2.1.2.2.1.1", "1.3.6.1.2.1.2.2.1.2"
IF_ADMIN, IF_OPER = "1.3.6.1.2.1.2.2.1.7", "1.3.6.1.2.1.2.2.1.8"
IF_NAME = "1.3.6.1.2.1.31.1.1.1.1"
LINK_DOWN, LINK_UP = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.4"

Binding = tuple[str, bytes]


def bindings(pairs: Sequence[Binding]) -> bytes:
    return b"".join(message.write_varbind(oid, value) for oid, value in pairs)


def trap_bindings(trap: str, pairs: Sequence[Binding] = (), *, uptime: int = 1234) -> bytes:
    return bindings(
        [
            (message.SYS_UP_TIME, ber.number(uptime, Tag.TIME_TICKS)),
            (message.SNMP_TRAP_OID + ".0", ber.oid(trap)),
            *pairs,
        ]
    )


def trap_v2(
    trap: str,
    pairs: Sequence[Binding] = (),
    *,
    community: str = "public",
    request_id: int = 1,
    uptime: int = 1234,
    tag: int = Tag.TRAP_V2,
) -> bytes:
    pdu = message.write_pdu(tag, request_id, trap_bindings(trap, pairs, uptime=uptime))
    return message.write_message(1, community.encode(), pdu)


def trap_v1(
    enterprise: str,
    generic: int,
    specific: int,
    pairs: Sequence[Binding] = (),
    *,
    agent: bytes = bytes(4),
    community: str = "public",
) -> bytes:
    pdu = ber.element(
        Tag.TRAP_V1,
        ber.oid(enterprise),
        ber.element(Tag.IP_ADDRESS, agent),
        ber.number(generic),
        ber.number(specific),
        ber.number(99, Tag.TIME_TICKS),
        ber.element(Tag.SEQUENCE, bindings(pairs)),
    )
    return message.write_message(0, community.encode(), pdu)


def link(
    index: int, *, up: bool, name: str = "", admin: int = 1, request_id: int = 1, **more: int
) -> bytes:
    pairs = [
        (f"{IF_INDEX}.{index}", ber.number(index)),
        (f"{IF_ADMIN}.{index}", ber.number(admin)),
        (f"{IF_OPER}.{index}", ber.number(1 if up else 2)),
    ]
    if name:
        pairs.append((f"{IF_NAME}.{index}", ber.octets(name.encode())))
    return trap_v2(LINK_UP if up else LINK_DOWN, pairs, request_id=request_id, **more)


def trap_v3(
    user: usm.User,
    engine: tuple[bytes, int, int],
    trap: str,
    pairs: Sequence[Binding] = (),
    *,
    tag: int = Tag.TRAP_V2,
    message_id: int = 7,
    flags: int | None = None,
) -> bytes:
    pdu = message.write_pdu(tag, message_id, trap_bindings(trap, pairs))
    scoped = usm.write_scoped(engine[0], b"", pdu)
    return usm.write_secured(
        user, engine, message_id, scoped, salt=message_id.to_bytes(8, "big"), flags=flags
    )


def varied(count: int) -> list[bytes]:
    """Return traps of all sorts: v1 and v2c, mapped and not, up and down, an inform among them."""
    made: list[bytes] = []
    for n in range(count):
        sort, index = n % 6, n // 6 % 7 + 1
        if sort in (0, 1):
            made.append(link(index, up=sort == 1, name=f"et-0/0/{index}" if n % 4 else ""))
        elif sort == 2:
            made.append(
                trap_v1("1.3.6.1.4.1.9.1.1", 2, 0, [(f"{IF_INDEX}.{index}", ber.number(index))])
            )
        elif sort == 3:
            made.append(
                trap_v2(f"1.3.6.1.4.1.99999.0.{index}", [("1.3.6.1.4.1.99999.1.1", ber.number(n))])
            )
        elif sort == 4:
            made.append(trap_v2("1.3.6.1.6.3.1.1.5.1", request_id=n, tag=Tag.INFORM))
        else:
            made.append(
                trap_v1(
                    "1.3.6.1.2.1.15.7",
                    6,
                    2,
                    [(f"1.3.6.1.2.1.15.3.1.2.10.0.0.{index}", ber.number(1))],
                )
            )
    return made


def told(text: str) -> list[Binding]:
    """Return bindings written as snmptrap has them, `OID type value` with `;` between them.

    Types: i integer, s octets, x octets in hex, o OID, a address, t ticks, c counter, C counter64.
    """
    numbers = {"i": Tag.INTEGER, "t": Tag.TIME_TICKS, "c": Tag.COUNTER32, "C": Tag.COUNTER64}
    made = []
    for one in text.split(";"):
        oid, kind, value = one.split(maxsplit=2)
        if kind in numbers:
            element = ber.number(int(value), numbers[kind])
        elif kind == "o":
            element = ber.oid(value.strip())
        elif kind == "a":
            element = ber.element(Tag.IP_ADDRESS, bytes(map(int, value.split("."))))
        else:
            element = ber.octets(bytes.fromhex(value) if kind == "x" else value.strip().encode())
        made.append((oid, element))
    return made
