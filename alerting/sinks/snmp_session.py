"""One socket to an SNMP manager: traps, and informs that are sent until it answers, v2c or v3.

A trap is signed with keys of our engine; of an inform the manager is the authoritative engine, which is
asked for its id and clock first and again where they no longer fit.

Source: RFC 3416 sections 4.2.6 and 4.2.7; RFC 3414 sections 3.1, 3.2 and 4.
"""

import socket
from dataclasses import dataclass

from telemetry.errors import DecodeError, TransientError
from telemetry.snmp import usm
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import (
    Pdu,
    read_envelope,
    read_pdu,
    write_message,
    write_pdu,
)

VERSION_2C = 1
NUMBERS_MAX = 1 << 31
STALE_MAX = 64  # answers to what was asked before, passed over while one is waited for
SYNCHRONISED_MAX = 3  # reports of the manager in a row: who it is, what time it has
# What a manager's report means to people: RFC 3414, section 5.
REPORTS = {
    "unsupported_security_level": "it wants another level: authentication or privacy is missing",
    "unknown_user": "it does not know this user",
    "wrong_digest": "it refuses the authentication: wrong password_file or auth_protocol",
    "decryption_error": "it cannot decrypt: wrong privacy_file or privacy_protocol",
}


@dataclass(frozen=True, slots=True)
class Community:
    """Who we are in v2c."""

    name: str


class Session:
    """Sends notifications to one manager. Owns the socket."""

    def __init__(
        self,
        address: tuple[str, int],
        who: Community | usm.User,
        engine: tuple[bytes, int],
        *,
        timeout_seconds: float,
        retries: int,
    ) -> None:
        """`engine` is our id and boots. Raises OSError where the address has no route or name."""
        family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.connect(place)
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(timeout_seconds / (retries + 1))
        self._tries = retries + 1
        self._seconds = timeout_seconds
        self._who = who
        self._ours = engine
        self._theirs = (b"", 0, 0)  # the manager's id, boots, time; b"" = not asked yet
        self._number = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def trap(self, bindings: bytes, uptime_seconds: int) -> None:
        """Send a trap; nobody says whether it came."""
        pdu = write_pdu(Tag.TRAP_V2, self._next(), bindings)
        self._socket.send(self._wrapped(pdu, (*self._ours, uptime_seconds), reportable=False))

    def inform(self, bindings: bytes) -> None:
        """Send an inform and wait for its answer. Raises TransientError."""
        for _ in range(SYNCHRONISED_MAX):
            if isinstance(self._who, usm.User) and not self._theirs[0]:
                self._discover(self._who)
            request = self._next()
            pdu = write_pdu(Tag.INFORM, request, bindings)
            answer = self._ask(self._wrapped(pdu, self._theirs, reportable=True), request)
            if answer.tag == Tag.RESPONSE:
                if answer.error_status:
                    raise TransientError(f"the manager answers error {answer.error_status}")
                return
            self._reported(answer)
        raise TransientError("the manager's clock and ours do not come together")

    def _discover(self, user: usm.User) -> None:
        """Ask who the manager is: any message of an unknown engine is reported with its id and clock."""
        number = self._next()
        pdu = write_pdu(Tag.GET, number, b"")
        asked = usm.write_secured(
            usm.User(""), (b"", 0, 0), number, usm.write_scoped(b"", b"", pdu), flags=usm.REPORTABLE
        )
        self._ask(asked, number)
        if not self._theirs[0]:
            raise TransientError(f"no manager that speaks SNMPv3 answers user {user.name!r}")

    def _reported(self, report: Pdu) -> None:
        """Act on a report: a clock that was learned from it is tried, the rest is for people."""
        for reason, number in usm.STATS.items():
            if any(one.oid.startswith(f"{usm.STATS_OID}.{number}.") for one in report.varbinds):
                if reason in ("not_in_time_window", "unknown_engine"):
                    return
                raise TransientError(f"the manager reports: {REPORTS[reason]}")
        raise TransientError("the manager reports what it has no name for")

    def _next(self) -> int:
        self._number = (self._number + 1) % NUMBERS_MAX
        return self._number

    def _wrapped(self, pdu: bytes, engine: tuple[bytes, int, int], *, reportable: bool) -> bytes:
        if isinstance(self._who, Community):
            return write_message(VERSION_2C, self._who.name.encode(), pdu)
        user, number = self._who, self._number
        flags = user.level | (usm.REPORTABLE if reportable else 0)
        salt = (engine[1] & 0xFFFFFFFF).to_bytes(4, "big") + number.to_bytes(4, "big")
        scoped = usm.write_scoped(engine[0], b"", pdu)
        return usm.write_secured(user, engine, number, scoped, salt=salt, flags=flags)

    def _ask(self, data: bytes, request: int) -> Pdu:
        """Send until an answer to this request comes; what else comes is passed over, to a bound."""
        for _ in range(self._tries):
            self._socket.send(data)
            try:
                for _ in range(STALE_MAX):
                    answer = self._read(self._socket.recv(65_535), request)
                    if answer is not None:
                        return answer
            except TimeoutError:
                continue
        raise TransientError(f"no answer within {self._seconds:g} s ({self._tries} tries)")

    def _read(self, data: bytes, request: int) -> Pdu | None:
        """Return the answer, or None where it is another's, or none that may be believed."""
        try:
            if isinstance(self._who, Community):
                envelope = read_envelope(data)
                pdu = read_pdu(data, envelope.start, envelope.stop)
                return pdu if pdu.tag == Tag.RESPONSE and pdu.request_id == request else None
            return self._opened(self._who, data, request)
        except DecodeError:
            return None

    def _opened(self, user: usm.User, data: bytes, number: int) -> Pdu | None:
        message = usm.read_secured(data)
        if message.message_id != number:
            return None
        signed = bool(message.flags & usm.AUTH)
        if signed or not user.auth:
            # A report is signed at most; a response is as well protected as its request.
            opener = (
                user
                if message.flags & usm.PRIV
                else usm.User(user.name, user.auth, user.auth_password)
            )
            scoped = usm.read_scoped(usm.open_message(opener, message, data))
        else:
            scoped = usm.read_scoped(message.scoped)
        pdu = read_pdu(scoped.pdu, 0, len(scoped.pdu))
        if pdu.tag == Tag.REPORT:
            # Who it is may be said by anybody, once: what is signed with its keys must then fit.
            if signed or not self._theirs[0] or self._theirs[0] != message.engine_id:
                self._theirs = (message.engine_id, message.boots, message.time)
            return pdu
        fits = pdu.tag == Tag.RESPONSE and message.flags & (usm.AUTH | usm.PRIV) == user.level
        return pdu if fits else None
