"""SNMP notifications: alarmActiveState and alarmClearState with X.733's fields, v2c or v3.

An inform is acknowledged by the manager; a trap is not, may be lost, and says so in its answer. Over
v3 a trap is signed with keys of *our* engine, so the manager must know `options.engine_id` (snmptrapd:
`createUser -e 0x...`); an inform uses the manager's and needs nothing. Privacy needs the extra `snmp`.

`url` is udp://host:162. v2c: `token_file` holds the community. v3: `user`, `password_file` (for
authentication) and `options.privacy_file`.

Source: RFC 3877 (ALARM-MIB, ITU-ALARM-MIB), RFC 3416 section 4.2.6 and 4.2.7, RFC 3414.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from alerting.config import SinkSettings
from alerting.sinks.http import secret
from alerting.sinks.parcel import Parcel
from alerting.sinks.snmp_session import Community, Session
from alerting.words.alert import Alert
from alerting.words.escape import line
from alerting.words.wording import is_over, word
from runtime.registry import Part
from runtime.settings import NotNegativeInt, Settings
from telemetry.errors import ConfigError, TransientError
from telemetry.identity import stable_id
from telemetry.snmp import ber
from telemetry.snmp.message import write_notification
from telemetry.snmp.usm import User, check_users
from telemetry.x733 import CAUSE_NUMBERS, EVENT_TYPES

ALARM_MIB = "1.3.6.1.2.1.118"
ACTIVE_STATE, CLEAR_STATE = f"{ALARM_MIB}.0.2", f"{ALARM_MIB}.0.3"
ACTIVE_ENTRY = f"{ALARM_MIB}.1.2.2.1"
RESOURCE_ID, DESCRIPTION, MODEL_POINTER = (f"{ACTIVE_ENTRY}.{n}" for n in (10, 11, 13))
ITU_ENTRY = "1.3.6.1.2.1.121.1.1.1.1"
ITU_SEVERITY, ITU_EVENT_TYPE, ITU_CAUSE, ITU_TEXT = (f"{ITU_ENTRY}.{n}" for n in (1, 2, 3, 4))
MODEL_ENTRY = f"{ALARM_MIB}.1.1.2.1.3"
# alarmModelState by ITU severity: RFC 3877, description of ituAlarmEntry.
MODEL_STATE = {1: 1, 2: 2, 6: 3, 5: 4, 4: 5, 3: 6}
NO_RESOURCE = "0.0"  # RFC 3877, alarmActiveResourceId: a name that is no OID stands in the text
TEXT_OCTETS_MAX = 255
WRITERS: Mapping[str, Callable[[Any], bytes]] = {
    "oid": ber.oid, "text": ber.octets, "number": ber.number,
}  # fmt: skip
PRIVACY = {
    "aes128": "aes", "aes192": "aes192", "aes256": "aes256",
    "aes192c": "aes192c", "aes256c": "aes256c",
}  # fmt: skip
# Of traps nobody says that nobody takes them: the name is looked up again.
RESOLVE_NS = 60_000_000_000
BOOTS_EPOCH_SECONDS = 1_600_000_000  # engine boots grow from start to start without a file


class SnmpOptions(Settings, frozen=True, kw_only=True):
    """How notifications are sent."""

    version: Literal["2c", "3"] = "2c"  # of SNMP
    # An inform is answered, a trap is sent and forgotten.
    notify: Literal["inform", "trap"] = "inform"
    retries: NotNegativeInt = 2  # of an inform that is not answered, within one attempt
    engine_id: str = "80004fb805746f6373696e"  # hex; RFC 3411: text "tocsin" of enterprise 20408
    auth_protocol: Literal["sha", "sha224", "sha256", "sha384", "sha512"] = "sha256"  # of version 3
    # The last two make short keys longer as Cisco does.
    privacy_protocol: Literal["aes128", "aes192", "aes256", "aes192c", "aes256c"] = "aes128"
    privacy_file: str = ""  # "" = authenticated but not encrypted


class SnmpSink:
    """Owns one session with a manager; its socket opens with the first notification."""

    # A manager drops no repeat: what failed takes nothing with it that was acknowledged.
    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: SnmpOptions) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme != "udp" or not parts.hostname:
            raise ConfigError(f"url {settings.url!r} is not udp://host:port")
        if options.version == "3" and not settings.user:
            raise ConfigError("version 3 needs `user` and `password_file`")
        try:
            self._engine_id = bytes.fromhex(options.engine_id.removeprefix("0x"))
        except ValueError as error:
            raise ConfigError(f"engine_id {options.engine_id!r} is not hex") from error
        self._settings = settings
        self._options = options
        self._address = (parts.hostname, parts.port or 162)
        self._session: Session | None = None
        # sysUpTime runs on while sessions come and go, each a boot of our engine.
        self._began_ns = 0
        self._opened_ns = 0

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send a notification each and, for informs, wait until the manager has it."""
        try:
            if self._options.notify == "trap" and now_ns - self._opened_ns > RESOLVE_NS:
                self.close()
            if self._session is None:
                self._session = self._open(now_ns)
            for parcel in parcels:
                self._notify(self._session, parcel.alert, now_ns)
        except TransientError as error:
            self.close()
            raise TransientError(f"{self._settings.url}: {error}") from error
        except OSError as error:
            self.close()
            raise TransientError(f"{self._settings.url}: {error.strerror or error}") from error
        if self._options.notify == "trap":
            return "sent; traps are not acknowledged"
        return "acknowledged"

    def _open(self, now_ns: int) -> Session:
        self._opened_ns = now_ns
        self._began_ns = self._began_ns or now_ns
        return Session(
            self._address,
            self._who(),
            (self._engine_id, max(now_ns // 10**9 - BOOTS_EPOCH_SECONDS, 1)),
            timeout_seconds=self._settings.timeout_seconds,
            retries=self._options.retries,
        )

    def _who(self) -> Community | User:
        options, settings = self._options, self._settings
        if options.version == "2c":
            path = settings.token_file
            return Community(secret(path, "token_file") if path else "public")
        privacy = (
            secret(options.privacy_file, "options.privacy_file") if options.privacy_file else ""
        )
        user = User(
            settings.user,
            options.auth_protocol,
            secret(settings.password_file, "password_file"),
            PRIVACY[options.privacy_protocol] if privacy else "",
            privacy,
        )
        check_users({user.name: user})
        return user

    def _notify(self, session: Session, alert: Alert, now_ns: int) -> None:
        trap = CLEAR_STATE if is_over(alert) else ACTIVE_STATE
        pairs = [(oid, WRITERS[kind](value)) for oid, kind, value in varbinds(alert)]
        bindings = write_notification(trap, (now_ns - self._began_ns) // 10**7, pairs)
        if self._options.notify == "trap":
            session.trap(bindings, (now_ns - self._opened_ns) // 10**9)
        else:
            session.inform(bindings)

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """A manager keeps what it was told: nothing to say again."""

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()
            self._session = None


def varbinds(alert: Alert) -> list[tuple[str, str, Any]]:
    """Return (OID, kind, value) of what a notification carries, the two of its definition first.

    A row of alarmActiveTable is (list name "", date and time, index): the index is made of the
    alarm's id, the time that of its raise, so raise and clear name the same row.
    """
    row = _row(alert)
    severity = int(word("itu-alarm-tc", alert))
    model = f"0.1.{MODEL_STATE[severity]}"  # list name "", our one model, its state
    event_type = EVENT_TYPES.get(alert.event_type, EVENT_TYPES["other"])
    cause = CAUSE_NUMBERS.get(alert.probable_cause, CAUSE_NUMBERS["other"])
    return [
        (f"{MODEL_POINTER}.{row}", "oid", f"{MODEL_ENTRY}.{model}"),
        (f"{RESOURCE_ID}.{row}", "oid", NO_RESOURCE),
        (f"{DESCRIPTION}.{row}", "text", _octets(alert.title)),
        (f"{ITU_SEVERITY}.{model}", "number", severity),
        (f"{ITU_EVENT_TYPE}.{model}", "number", event_type),
        (f"{ITU_CAUSE}.{model}", "number", cause),
        (f"{ITU_TEXT}.{model}", "text",
         _octets(f"{alert.entity} {alert.kind} {alert.state} {alert.id}")),
    ]  # fmt: skip


def _row(alert: Alert) -> str:
    seconds = alert.raised_ns // 10**9
    at = datetime.fromtimestamp(seconds, UTC)
    date = bytes([at.year >> 8, at.year & 255, at.month, at.day, at.hour, at.minute, at.second, 0])
    date += b"+\x00\x00"
    index = stable_id(alert.id) % 2**32 or 1
    return ".".join(["0", str(len(date)), *map(str, date), str(index)])


def _octets(text: str) -> bytes:
    return line(text).encode()[:TEXT_OCTETS_MAX].decode(errors="ignore").encode()


def _make(settings: SinkSettings, options: SnmpOptions) -> SnmpSink:
    return SnmpSink(settings, options)


SINK = Part(
    "SNMP traps and informs, v2c and v3", _make, SnmpOptions, needs=("url",), schemes=("udp",)
)
