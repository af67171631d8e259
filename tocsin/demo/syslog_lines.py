"""What the demo's routers log, in the words and both formats of Junos.

Source: Junos OS system log explorer (message names and texts); RFC 3164 and RFC 5424 (formats).
"""

from datetime import UTC, datetime

import numpy as np

from tocsin.demo.happenings import Happening
from tocsin.demo.network import DemoNetwork

DAEMON, AUTH, LOCAL = 3, 4, 17  # facilities
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SyslogLines:
    """Lines of all routers; every other router writes RFC 5424, the rest the older form."""

    def __init__(self, network: DemoNetwork) -> None:
        self._network = network

    def line(self, one: Happening) -> bytes:
        """Return the datagram with which a router logs this."""
        facility, severity, app, tag, text = self._words(one)
        row = self._network.row[one.router]
        process = 1000 + process_number(app) % 9000
        stamp = datetime.fromtimestamp(one.time_ns // 10**9, UTC)
        head = f"<{facility * 8 + severity}>"
        said = f"{tag}: {text}" if tag else text
        if row % 2:
            millis = one.time_ns // 10**6 % 1000
            return (
                f"{head}1 {stamp:%Y-%m-%dT%H:%M:%S}.{millis:03d}Z {one.router} {app} {process} "
                f"{tag or '-'} - {said}"
            ).encode()
        when = f"{_MONTHS[stamp.month - 1]} {stamp.day:2d} {stamp:%H:%M:%S}"
        return f"{head}{when} {one.router} {app}[{process}]: {said}".encode()

    def _words(self, one: Happening) -> tuple[int, int, str, str, str]:
        """Return (facility, severity, program, message name, text)."""
        row = self._network.row[one.router]
        some = np.random.default_rng((row, one.time_ns))
        host, user = f"10.0.{int(some.integers(4))}.{int(some.integers(1, 250))}", "ops"
        number = int(some.integers(10_000))
        if one.kind == "link":
            way, tag = (
                ("up(1)", "SNMP_TRAP_LINK_UP") if one.up else ("down(2)", "SNMP_TRAP_LINK_DOWN")
            )
            text = (
                f"ifIndex {one.index}, ifAdminStatus up(1), ifOperStatus {way}, "
                f"ifName {one.interface}"
            )
            return DAEMON, 6 if one.up else 4, "mib2d", tag, text
        if one.kind == "session":
            states = "Idle to Established" if one.up else "Established to Idle"
            far = self._network.row[one.peer]
            before, after = states.split(" to ")
            text = (
                f"BGP peer {session_address(row, far)} (External AS {as_number(far)}) changed state "
                f"from {before} to {after} (event {'RecvKeepAlive' if one.up else 'TransportError'}) "
                f"(instance master)"
            )
            return DAEMON, 4, "rpd", "RPD_BGP_NEIGHBOR_STATE_CHANGED", text
        if one.kind == "failed-login":
            text = f"Failed password for root from {one.peer} port {number + 40_000} ssh2"
            return AUTH, 6, "sshd", "", text
        routine = {
            "login": (AUTH, 6, "sshd", "", f"Accepted publickey for {user} from {host} port {number + 40_000} ssh2"),
            "logout": (AUTH, 6, "sshd", "", f"Disconnected from user {user} {host} port {number + 40_000}"),
            "keepalive": (DAEMON, 6, "rpd", "", f"bgp_hold_timeout_check: {number} peers checked"),
            "ntp": (DAEMON, 6, "xntpd", "", f"kernel time sync enabled {number % 16:04x}"),
            "cron": (9, 6, "cron", "", "(root) CMD (newsyslog)"),
            "commit": (LOCAL, 5, "mgd", "UI_COMMIT",
                       f"User '{user}' requested 'commit' operation (comment: change {number})"),
        }  # fmt: skip
        return routine[one.kind]


def process_number(app: str) -> int:
    """Return a number that stands for a program, the same each time."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(app))


def as_number(row: int) -> int:
    """Return the AS of a router: each is one of its own, as in RFC 7938."""
    return 64_512 + row


def session_address(near: int, far: int) -> str:
    """Return the address of router `far` on its link to router `near`."""
    low, high = sorted((near, far))
    return f"10.{100 + low}.{high}.{1 if far == low else 2}"
