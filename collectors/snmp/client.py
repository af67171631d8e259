"""Asking one device: gets and bulk walks over gufo_snmp, with tries, bounds and reasons in words.

The library (extra `snmp`) is imported when the first device is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collectors.snmp.readings import Value
from telemetry.errors import ConfigError, TransientError
from telemetry.snmp.usm import User


@dataclass(frozen=True, slots=True)
class Target:
    """Where a device is asked, and as whom."""

    address: str
    port: int
    version: str  # v1, v2c, v3
    community: str = ""
    user: User | None = None
    timeout_seconds: float = 2.0
    tries: int = 2
    rows_max: int = 10_000  # of a walk
    repetitions: int = 25


@dataclass(slots=True)
class Asked:
    """What became of the requests of one poll: asked = answered + timed_out + errors."""

    answered: int = 0
    timed_out: int = 0
    errors: int = 0
    varbinds: int = 0
    cut: int = 0  # walks that ended at rows_max


def library() -> Any:
    """Return gufo's asyncio module; raises ConfigError where it is not installed."""
    try:
        from gufo.snmp import aio
    except ImportError as error:
        raise ConfigError(
            "kind snmp-poll needs gufo_snmp: pip install 'tocsin[snmp]'. The source was not started."
        ) from error
    return aio


def _user(user: User) -> Any:
    from gufo.snmp import user as keys

    auth: dict[str, Any] = {
        "md5": keys.Md5Key, "sha": keys.Sha1Key, "sha224": keys.Sha224Key, "sha256": keys.Sha256Key,
        "sha384": keys.Sha384Key, "sha512": keys.Sha512Key,
    }  # fmt: skip
    priv: dict[str, Any] = {
        "des": keys.DesKey, "aes": keys.Aes128Key, "aes192": keys.Aes192Key, "aes256": keys.Aes256Key,
        "aes192c": keys.Aes192Key, "aes256c": keys.Aes256Key,
    }  # fmt: skip
    longer = keys.KeyExpansion.Cisco if user.priv.endswith("c") else keys.KeyExpansion.Blumenthal
    return keys.User(
        user.name,
        auth_key=auth[user.auth](user.auth_password.encode()) if user.auth else None,
        priv_key=priv[user.priv](user.priv_password.encode()) if user.priv else None,
        key_expansion=longer,
    )


class Client:
    """One device, for the time of one poll: a socket of its own, so that no late answer is mistaken."""

    def __init__(self, target: Target) -> None:
        from gufo.snmp import SnmpVersion

        self._target = target
        self.asked = Asked()
        versions = {"v1": SnmpVersion.v1, "v2c": SnmpVersion.v2c, "v3": SnmpVersion.v3}
        try:
            self._session = library().SnmpSession(
                addr=target.address,
                port=target.port,
                community=target.community,
                user=_user(target.user) if target.user else None,
                version=versions[target.version],
                timeout=target.timeout_seconds,
                max_repetitions=target.repetitions,
            )
        except (OSError, ValueError) as error:
            raise TransientError(f"cannot be asked: {error}") from error

    async def open(self) -> None:
        """Learn a v3 agent's engine and time; raises TransientError."""
        if self._target.version == "v3":
            await self._tried(self._session.refresh)

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        """Return the values of those instances that the device has."""
        found: dict[str, Value] = await self._tried(lambda: self._session.get_many(list(oids)))
        self.asked.varbinds += len(found)
        return found

    async def walk(self, oid: str) -> dict[str, Value]:
        """Return the instances below `oid` by their index, `rows_max` at most."""
        skip = len(oid) + 1

        async def whole() -> dict[str, Value]:
            found: dict[str, Value] = {}
            async for name, value in self._session.fetch(oid):
                found[name[skip:]] = value
                if len(found) >= self._target.rows_max:
                    self.asked.cut += 1
                    break
            return found

        made: dict[str, Value] = await self._tried(whole)
        self.asked.varbinds += len(made)
        return made

    async def _tried(self, request: Any) -> Any:
        from gufo.snmp import NoSuchInstance, SnmpAuthError, SnmpError

        target = self._target
        for left in range(target.tries - 1, -1, -1):
            try:
                made = await request()
            except TimeoutError as error:
                self.asked.timed_out += 1
                if left:
                    continue
                raise TransientError(
                    f"no answer within {target.timeout_seconds:g} s, {target.tries} tries: "
                    f"down, not reachable, its access list refuses us, or the "
                    f"{'community' if target.version != 'v3' else 'user'} is wrong"
                ) from error
            except NoSuchInstance:
                self.asked.answered += 1
                return {}
            except SnmpAuthError as error:
                self.asked.errors += 1
                raise TransientError(
                    f"refuses the SNMPv3 user {target.user.name if target.user else ''!r}, its "
                    f"passwords or protocols ({error})"
                ) from error
            except ConnectionRefusedError as error:
                self.asked.errors += 1
                raise TransientError(f"nothing listens on UDP port {target.port}") from error
            except (SnmpError, OSError) as error:
                self.asked.errors += 1
                raise TransientError(f"answers wrongly: {error}") from error
            else:
                self.asked.answered += 1
                return made
        raise AssertionError("tries is at least 1")
