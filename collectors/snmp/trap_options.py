"""Settings of the trap collector: who is believed, what devices are called, which rules count."""

from pathlib import Path
from typing import Literal

from runtime.settings import PositiveInt, Settings
from telemetry.errors import ConfigError
from telemetry.identity import stable_id
from telemetry.snmp import usm


class TrapUser(Settings, frozen=True, kw_only=True):
    """`[collectors.<name>.options.users.<user>]`: one SNMPv3 user."""

    auth: str = ""  # md5, sha, sha224, sha256, sha384, sha512; "" = noAuthNoPriv
    auth_password_file: str = ""  # its content is the password, eight characters or more
    priv: str = ""  # des, aes, aes192, aes256, aes192c, aes256c (Cisco's longer keys)
    priv_password_file: str = ""  # likewise, of the encryption


class TrapOptions(Settings, frozen=True, kw_only=True):
    """`[collectors.<name>.options]` of kind "snmp-trap"."""

    communities: list[str] = []  # of v1 and v2c that are believed; none = any
    users: dict[str, TrapUser] = {}
    engine_id: str = ""  # ours, in hex, for SNMPv3 informs; "" = made from the collector's name
    names: dict[str, str] = {}  # what devices are called, by address
    mappings: list[str] = []  # files of rules beside those that ship
    mib_files: list[str] = []  # tables of names beside those that ship, made by `tocsin mibs`
    unmapped: Literal["log", "alarm"] = "log"  # what becomes of traps that have no rule
    # Whom a trap is about: the agent it names (v1 field, snmpTrapAddress), or who sent the datagram.
    device: Literal["stated", "sender"] = "stated"
    senders_max: PositiveInt = 65_536  # with a ledger of their own
    resources_max: PositiveInt = 65_536  # whose names are kept while they are in alarm
    informs_max: PositiveInt = 65_536  # remembered: one sent again counts once; and answers due
    engines_max: PositiveInt = 4096  # SNMPv3 senders whose clocks are followed
    traps_per_device_max: PositiveInt = 256  # counted by name; the rest as `other`
    variables_max: PositiveInt = 64  # of a trap that are told


def read_users(users: dict[str, TrapUser]) -> dict[str, usm.User]:
    """Return the users with their passwords; raises ConfigError."""

    def password(user: str, path: str) -> str:
        if not path:
            return ""
        try:
            return Path(path).read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"SNMPv3 user {user!r}: password file {path}: {error}. The node was not started."
            ) from error

    made = {
        name: usm.User(
            name,
            one.auth,
            password(name, one.auth_password_file),
            one.priv,
            password(name, one.priv_password_file),
        )
        for name, one in users.items()
    }
    usm.check_users(made)
    return made


def engine_id_of(text: str, name: str) -> bytes:
    """Return our engine id: as configured, else made from the collector's name.

    Source: RFC 3411, SnmpEngineID, the form "octets, administratively assigned".
    """
    if not text:
        return bytes.fromhex("80007ed905") + stable_id(f"snmp engine {name}").to_bytes(8, "big")
    try:
        made = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        made = b""
    if not 5 <= len(made) <= 32:
        raise ConfigError(
            f"engine_id = {text!r} is not 5 to 32 octets in hex. The node was not started."
        )
    return made
