"""SNMPv3 at the receiving end: who may tell us something, and what an inform's sender is answered.

We are the authoritative engine for informs. Our boots are the minutes from 1970 to the first datagram
and our time counts from there: both rise over restarts without anything to keep, and come from
arrival times alone, so that a replay gives the same.

Source: RFC 3412 section 7.2; RFC 3414 section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from telemetry.errors import DecodeError
from telemetry.snmp import usm
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import write_pdu
from telemetry.snmp.usm import Engines, Scoped, Secured, User

MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that may be believed."""

    message: Secured
    user: User
    scoped: Scoped


class SecureReceiver:
    """Opens v3 messages and writes what their senders are answered."""

    def __init__(
        self, users: Mapping[str, User], engine_id: bytes, *, engines_max: int = 4096
    ) -> None:
        self._users = dict(users)
        self.engine_id = engine_id
        self.engines = Engines(engines_max=engines_max)
        self._start_ns = 0
        self._salt = 0
        self._refused = dict.fromkeys(usm.STATS, 0)

    def engine(self, now_ns: int) -> tuple[bytes, int, int]:
        """Return (id, boots, time) of ours."""
        if not self._start_ns:
            self._start_ns = now_ns // MINUTE_NS * MINUTE_NS
        seconds = max(now_ns - self._start_ns, 0) // 1_000_000_000
        return self.engine_id, self._start_ns // MINUTE_NS, seconds

    def open(self, data: bytes, now_ns: int) -> Opened:
        """Return the message opened; raises DecodeError with the reason, one of usm.STATS or BER's."""
        message = usm.read_secured(data)
        if not message.engine_id:
            raise DecodeError("unknown_engine", "it asks who we are")
        user = self._users.get(message.user)
        if user is None:
            raise DecodeError("unknown_user", message.user)
        raw = usm.open_message(user, message, data)
        ours = message.engine_id == self.engine_id
        if user.auth and not self._timely(message, ours=ours, now_ns=now_ns):
            raise DecodeError("not_in_time_window", f"boots {message.boots} time {message.time}")
        try:
            scoped = usm.read_scoped(raw)
        except DecodeError as error:
            if not user.priv:
                raise
            raise DecodeError("decryption_error", f"user {user.name}: {error}") from error
        if scoped.pdu[:1] == bytes((Tag.INFORM,)) and not ours:
            raise DecodeError("unknown_engine", "an inform for another engine")
        return Opened(message, user, scoped)

    def _timely(self, message: Secured, *, ours: bool, now_ns: int) -> bool:
        if not ours:
            return self.engines.accept(message.engine_id, message.boots, message.time, now_ns)
        _, boots, time = self.engine(now_ns)
        return message.boots == boots and abs(message.time - time) <= usm.WINDOW_SECONDS

    def report(self, data: bytes, reason: str, now_ns: int) -> bytes | None:
        """Return the report that a refused message is answered with; None where it wants none."""
        if reason not in usm.STATS:
            return None
        try:
            message = usm.read_secured(data)
        except DecodeError:
            return None
        if not message.flags & usm.REPORTABLE:
            return None
        self._refused[reason] += 1
        # The time is told with a proof that it is ours, else anyone could move the sender's clock.
        user = self._users.get(message.user) if reason == "not_in_time_window" else None
        return usm.write_report(self.engine(now_ns), message, reason, self._refused[reason], user)

    def response(self, opened: Opened, request_id: int, varbinds: bytes, now_ns: int) -> bytes:
        """Return the response to an inform, as well protected as the inform was."""
        self._salt += 1
        pdu = write_pdu(Tag.RESPONSE, request_id, varbinds)
        scoped = usm.write_scoped(opened.scoped.context_engine_id, opened.scoped.context_name, pdu)
        engine = self.engine(now_ns)
        salt = (engine[1] & 0xFFFFFFFF).to_bytes(4, "big") + self._salt.to_bytes(4, "big")
        return usm.write_secured(opened.user, engine, opened.message.message_id, scoped, salt=salt)
