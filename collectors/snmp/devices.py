"""Devices that are polled: settings, credentials, and what is known of each while the node runs."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from collectors.snmp.client import Target
from collectors.snmp.profiles import Profile
from collectors.snmp.readings import (
    DeviceMemory,
)  # fmt: skip
from runtime.settings import Port, PositiveInt, PositiveSeconds, Seconds, Settings
from telemetry.errors import ConfigError
from telemetry.identity import address_pair
from telemetry.snmp.usm import User, check_users

ALL = "all"


class Credential(Settings, frozen=True, kw_only=True):
    """`[sources.<name>.options.credentials.<credential>]`."""

    version: Literal["v1", "v2c", "v3"] = "v2c"  # of SNMP
    community_file: str = ""  # of v1 and v2c; "" = public
    user: str = ""  # of v3
    auth: str = ""  # of v3: md5, sha, sha224, sha256, sha384, sha512; "" = none
    auth_password_file: str = ""  # its content is the password, eight characters or more
    priv: str = ""  # of v3: des, aes, aes192, aes256, aes192c, aes256c; "" = none
    priv_password_file: str = ""  # likewise, of the encryption


class DeviceSettings(Settings, frozen=True, kw_only=True):
    """A device, in `devices` or as `[[device]]` of `devices_file`."""

    address: str  # IPv4 or IPv6, or a host name
    name: str = ""  # what it is called; "" = its address
    port: Port = 161  # UDP
    credential: str = "default"  # name of one in `credentials`
    # What is asked: "interface", "host", ...; "all" = what fits the device.
    profiles: tuple[str, ...] = (ALL,)
    interval_seconds: Seconds = 0.0  # 0 = that of the source


class PollOptions(Settings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "snmp-poll"."""

    devices: list[DeviceSettings] = []
    devices_file: str = ""  # TOML of [[device]] tables, beside those above
    credentials: dict[str, Credential] = {}
    profile_files: list[str] = []  # profiles of your own, named by their files
    mib_files: list[str] = []  # names for profiles: MIB modules, as files
    interval_seconds: PositiveSeconds = 60.0  # between two polls of a device
    timeout_seconds: PositiveSeconds = 2.0  # an answer that takes longer is lost
    tries: PositiveInt = 2  # of one request
    # A device that does not answer is asked again after it.
    pause_seconds_max: PositiveSeconds = 900.0
    down_after: PositiveInt = 3  # polls in vain until an alarm says so
    concurrency_max: PositiveInt = 128  # devices asked at the same time
    devices_max: PositiveInt = 10_000  # more are a mistake in the configuration
    rows_max: PositiveInt = 10_000  # of one table of one device
    repetitions: PositiveInt = 25  # rows in one answer to a bulk request
    series_max: PositiveInt = 500_000  # more are counted, and not followed
    waiting_max: PositiveInt = 2_000_000  # samples kept while the node is away


class _DevicesFile(Settings, frozen=True, kw_only=True):
    device: list[DeviceSettings] = []


@dataclass(slots=True)
class Device:
    """A device with what is known of it."""

    settings: DeviceSettings
    target: Target
    profiles: list[Profile]
    interval_seconds: float
    memory: DeviceMemory = field(default_factory=DeviceMemory)
    # Objects it does not have: asked again when.
    absent: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    trouble: str = ""
    told_down: bool = False

    @property
    def entity(self) -> str:
        """What it is called."""
        return self.settings.name or self.settings.address


def read_devices(options: PollOptions, profiles: Mapping[str, Profile]) -> list[Device]:
    """Return the devices of the configuration and of its file; raises ConfigError."""
    found = list(options.devices)
    if options.devices_file:
        try:
            text = Path(options.devices_file).read_text("utf-8")
            found += msgspec.convert(tomllib.loads(text), _DevicesFile).device
        except OSError as error:
            raise ConfigError(f"devices_file {options.devices_file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise ConfigError(f"devices_file {options.devices_file}: {error}") from error
    if not found:
        raise ConfigError("no devices: name them in devices or in devices_file")
    if len(found) > options.devices_max:
        raise ConfigError(f"{len(found)} devices, devices_max is {options.devices_max}")
    secrets = {name: _secret(name, one) for name, one in options.credentials.items()}
    secrets.setdefault("default", ("v2c", "public", None))
    made: list[Device] = []
    seen: set[tuple[str, int]] = set()
    for one in found:
        try:
            address_pair(one.address)
        except ValueError as error:
            raise ConfigError(f"device {one.address!r} is no address") from error
        if one.credential not in secrets:
            raise ConfigError(f"device {one.address}: no credential {one.credential!r}")
        if (one.address, one.port) in seen:
            raise ConfigError(f"device {one.address}, port {one.port}, is named twice")
        seen.add((one.address, one.port))
        wanted = list(profiles) if ALL in one.profiles else list(one.profiles)
        for name in wanted:
            if name not in profiles:
                known = ", ".join((ALL, *profiles))
                raise ConfigError(f"device {one.address}: no profile {name!r}; there are {known}")
        version, community, user = secrets[one.credential]
        target = Target(
            one.address, one.port, version, community, user, options.timeout_seconds,
            options.tries, options.rows_max, options.repetitions,
        )  # fmt: skip
        interval = one.interval_seconds or options.interval_seconds
        made.append(Device(one, target, [profiles[name] for name in wanted], interval))
    return made


def _secret(name: str, one: Credential) -> tuple[str, str, User | None]:
    def read(path: str) -> str:
        if not path:
            return ""
        try:
            return Path(path).read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"credential {name}: {path}: {error}") from error

    if one.version != "v3":
        return one.version, read(one.community_file) or "public", None
    if not one.user:
        raise ConfigError(f"credential {name}: version v3 needs a user")
    user = User(
        one.user, one.auth, read(one.auth_password_file), one.priv, read(one.priv_password_file)
    )
    check_users({one.user: user})
    return one.version, "", user
