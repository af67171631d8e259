"""Log messages for tests, as routers and hosts send them; written by us in the vendors' formats."""

from collections.abc import Iterator
from typing import Any

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings, ListenerSettings
from collectors.datagram import Datagram, pack
from collectors.registry import make_decoder
from telemetry.identity import address_pair
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

ARRIVAL_NS = 1_790_000_000_000_000_000  # 2026-09-21T14:13:20Z
SECOND = 1_000_000_000

IOS = "<189>521: r1: *Sep 21 14:13:20.100: %LINK-3-UPDOWN: Interface Gi0/{n}, changed state to {state}"
XR = (
    "<187>94307: xr1 LC/0/2/CPU0:Sep 21 14:13:20.834 : ifmgr[214]: %PKT_INFRA-LINK-3-UPDOWN : "
    "Interface TenGigE0/2/0/{n}, changed state to {state}"
)
JUNOS = (
    "<28>Sep 21 14:13:20  mx1 mib2d[2424]: SNMP_TRAP_LINK_{STATE}: ifIndex 50{n}, "
    "ifAdminStatus up(1), ifOperStatus {state}(2), ifName xe-0/0/{n}"
)
HUAWEI = (
    "<188>Sep 21 2026 14:13:20+00:00 ne40 %%01IFNET/4/LINK_STATE(l)[12]:The line protocol IP on the "
    "interface GE0/0/{n} has entered the {STATE} state."
)
SSHD = "<38>Sep 21 14:13:20 jump sshd[{n}]: Failed password for invalid user {name} from 203.0.113.{n} port 22"
RFC5424 = (
    '<165>1 2026-09-21T14:13:20.003Z mx2 mgd 3046 UI_COMMIT [junos@2636.1.1.1.2.18 username="noc{n}"] '
    "User 'noc{n}' requested 'commit' operation"
)
NAMES = ("admin", "oracle", "guest", "ubuntu", "test", "postgres", "git", "nagios", "backup", "ftp")


def lines(count: int) -> Iterator[bytes]:
    """Yield so many messages of all kinds."""
    for n in range(count):
        state = ("down", "up")[n // 7 % 2]
        form = (IOS, XR, JUNOS, HUAWEI, SSHD, RFC5424)[n % 6]
        yield form.format(
            n=n % 50, state=state, STATE=state.upper(), name=NAMES[n // 6 % len(NAMES)]
        ).encode()


SYSLOG_LINES = [
    *lines(240),
    b"no head at all",
    b"<13>",
    b"<999>Sep 21 14:13:20 host app: priority beyond the standard",
    b"\xef\xbb\xbf<13>Sep 21 14:13:20 host app: byte order mark",
    b"<13>Sep 21 14:13:20 host app: Gr\xfc\xdfe in ISO 8859-1",
]


def block(
    *messages: bytes | str,
    arrival_ns: int = ARRIVAL_NS,
    sender: str = "192.0.2.1",
    port: int = 4000,
) -> DatagramBlock:
    """Return datagrams, or chunks of one connection, that came together."""
    high, low = address_pair(sender)
    return pack(
        [
            Datagram(arrival_ns, high, low, port, 514, m.encode() if isinstance(m, str) else m)
            for m in messages
        ]
    )


def chunks(data: bytes, cuts: list[int], arrival_ns: int = ARRIVAL_NS) -> DatagramBlock:
    """Return a connection's octets cut at these places, and its end."""
    edges = [0, *sorted(set(cuts)), len(data)]
    parts = [data[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]
    return block(*parts, b"", arrival_ns=arrival_ns)


def make_syslog(
    listen: str = "udp://127.0.0.1:5514", *, clock: str = "corrected", **options: Any
) -> Any:
    """Return (decoder, context) of kind syslog."""
    context = make_context()
    settings = ListenerSettings(
        kind="syslog",
        listen=listen,
        connections_max=options.pop("connections_max", 1024),
        options=options,
        decoder=FlowDecoderSettings(clock=clock),  # type: ignore[arg-type]
    )
    return make_decoder(settings, context), context


def decode(
    *messages: bytes | str, arrival_ns: int = ARRIVAL_NS, **options: Any
) -> list[dict[str, Any]]:
    """Return the log rows of datagrams that a new decoder was given."""
    decoder, _ = make_syslog(**options)
    return rows_of(decoder.decode(block(*messages, arrival_ns=arrival_ns)), "log")
