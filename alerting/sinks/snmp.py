"""SNMP notifications: alarmActiveState and alarmClearState with X.733's fields, v2c or v3.

An inform is acknowledged by the manager; a trap is not, may be lost, and says so in its answer. Over
v3 a trap is signed with keys of *our* engine, so the manager must know `options.engine_id` (snmptrapd:
`createUser -e 0x...`); an inform uses the manager's and needs nothing. Needs the extra `snmp`.

`url` is udp://host:162. v2c: `token_file` holds the community. v3: `user`, `password_file` (for
authentication) and `options.privacy_file`.

Source: RFC 3877 (ALARM-MIB, ITU-ALARM-MIB), RFC 3416 section 4.2.6 and 4.2.7, RFC 3414.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.escape import line
from alerting.sinks.http import secret
from alerting.sinks.parcel import Parcel
from alerting.sinks.wording import is_over, word
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.errors import ConfigError, TransientError
from telemetry.identity import stable_id
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
BOOTS_EPOCH_SECONDS = 1_600_000_000  # engine boots grow from start to start without a file


class SnmpOptions(Settings, frozen=True, kw_only=True):
    """How notifications are sent."""

    version: Literal["2c", "3"] = "2c"
    notify: Literal["inform", "trap"] = "inform"
    retries: int = 2
    engine_id: str = "80004fb805746f6373696e"  # hex; RFC 3411: text "tocsin" of enterprise 20408
    auth_protocol: Literal["sha", "sha224", "sha256", "sha384", "sha512"] = "sha256"
    privacy_protocol: Literal["aes128", "aes192", "aes256"] = "aes128"
    privacy_file: str = ""  # "" = authenticated but not encrypted


class SnmpSink:
    """Owns one SNMP engine and an event loop that runs while `send` waits."""

    batch_max = 20
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: SnmpOptions) -> None:
        try:
            import pysnmp.hlapi.v3arch.asyncio as hlapi
        except ImportError as error:
            raise ConfigError(
                "sinks of kind snmp need pysnmp: pip install 'tocsin[snmp]'"
            ) from error
        parts = urlsplit(settings.url)
        if parts.scheme != "udp" or not parts.hostname:
            raise ConfigError(f"url {settings.url!r} is not udp://host:port")
        if options.version == "3" and not settings.user:
            raise ConfigError("version 3 needs `user` and `password_file`")
        self._hlapi: Any = hlapi
        self._settings = settings
        self._options = options
        self._address = (parts.hostname, parts.port or 162)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Any = None
        self._target: Any = None

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send a notification each and, for informs, wait until the manager has it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            self._loop.run_until_complete(self._notify(parcels, now_ns))
        except TransientError:
            raise
        except Exception as error:  # the library raises its own and pyasn1's kinds
            self.close()
            raise TransientError(f"{self._settings.url}: {error}") from error
        if self._options.notify == "trap":
            return "sent; traps are not acknowledged"
        return "acknowledged"

    async def _notify(self, parcels: Sequence[Parcel], now_ns: int) -> None:
        if self._engine is None:
            await self._open(now_ns)
        who = self._who()
        for parcel in parcels:
            problem, status, _, _ = await self._hlapi.send_notification(
                self._engine, who, self._target, self._hlapi.ContextData(), self._options.notify,
                self._notification(parcel.alert), lookupMib=False,
            )  # fmt: skip
            if problem or status:
                raise TransientError(f"{self._settings.url}: {problem or status.prettyPrint()}")

    async def _open(self, now_ns: int) -> None:
        from pysnmp.proto.rfc1902 import OctetString

        hlapi = self._hlapi
        self._engine = hlapi.SnmpEngine()
        # Given an id, the library would keep its boots in a file under /tmp that anybody may write.
        identity, boots = self._engine.get_mib_builder().import_symbols(
            "__SNMP-FRAMEWORK-MIB", "snmpEngineID", "snmpEngineBoots"
        )
        identity.syntax = OctetString(hexValue=self._options.engine_id)
        self._engine.snmpEngineID = identity.syntax
        boots.syntax = boots.syntax.clone(max(now_ns // 10**9 - BOOTS_EPOCH_SECONDS, 1))
        kind = hlapi.Udp6TransportTarget if ":" in self._address[0] else hlapi.UdpTransportTarget
        tries = self._options.retries + 1
        self._target = await kind.create(
            self._address,
            timeout=self._settings.timeout_seconds / tries,
            retries=self._options.retries,
        )

    def _who(self) -> Any:
        hlapi, options = self._hlapi, self._options
        if options.version == "2c":
            path = self._settings.token_file
            return hlapi.CommunityData(secret(path, "token_file") if path else "public", mpModel=1)
        auth = {
            "sha": hlapi.USM_AUTH_HMAC96_SHA, "sha224": hlapi.USM_AUTH_HMAC128_SHA224,
            "sha256": hlapi.USM_AUTH_HMAC192_SHA256, "sha384": hlapi.USM_AUTH_HMAC256_SHA384,
            "sha512": hlapi.USM_AUTH_HMAC384_SHA512,
        }[options.auth_protocol]  # fmt: skip
        private: dict[str, Any] = {}
        if options.privacy_file:
            private = {
                "privKey": secret(options.privacy_file, "options.privacy_file"),
                "privProtocol": {
                    "aes128": hlapi.USM_PRIV_CFB128_AES, "aes192": hlapi.USM_PRIV_CFB192_AES,
                    "aes256": hlapi.USM_PRIV_CFB256_AES,
                }[options.privacy_protocol],
            }  # fmt: skip
        return hlapi.UsmUserData(
            self._settings.user,
            authKey=secret(self._settings.password_file, "password_file"),
            authProtocol=auth,
            **private,
        )

    def _notification(self, alert: Alert) -> Any:
        from pysnmp.proto.rfc1902 import Integer32, ObjectIdentifier, OctetString, Unsigned32

        kinds = {
            "oid": ObjectIdentifier, "text": OctetString, "number": Integer32, "count": Unsigned32
        }  # fmt: skip
        hlapi = self._hlapi
        trap = CLEAR_STATE if is_over(alert) else ACTIVE_STATE
        made = hlapi.NotificationType(hlapi.ObjectIdentity(trap))
        return made.add_varbinds(
            *((oid, kinds[kind](value)) for oid, kind, value in varbinds(alert))
        )

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """A manager keeps what it was told: nothing to say again."""

    def close(self) -> None:
        """Close engine and loop."""
        if self._engine is not None:
            self._engine.close_dispatcher()
            self._engine = self._target = None
        if self._loop is not None:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(asyncio.sleep(0))  # its transports close in the loop
            self._loop.close()
            self._loop = None


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


SINK = Part("SNMP traps and informs, v2c and v3", _make, SnmpOptions, needs=("url",))
