"""SNMPv3 messages with the user-based security model: keys, authentication, privacy, time windows.

Of traps the sender is the authoritative engine, of informs we are. Cryptography beyond hashes is
that of the `cryptography` package (extra `snmp`), imported where a user has a privacy password.

Source: RFC 3412 section 6; RFC 3414; RFC 3826 (AES); RFC 7860 (SHA-2);
draft-blumenthal-aes-usm-04 and draft-reeder-snmpv3-usm-3desede-00 (keys of AES-192 and AES-256).
"""

import hashlib
import hmac
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from telemetry.errors import ConfigError, DecodeError
from telemetry.snmp import ber
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import write_pdu, write_varbind

AUTH, PRIV, REPORTABLE = 1, 2, 4
USM = 3
WINDOW_SECONDS = 150
BOOTS_MAX = (1 << 31) - 1
# hash, octets of the MAC
_AUTH: Mapping[str, tuple[str, int]] = {
    "md5": ("md5", 12), "sha": ("sha1", 12), "sha224": ("sha224", 16), "sha256": ("sha256", 24),
    "sha384": ("sha384", 32), "sha512": ("sha512", 48),
}  # fmt: skip
# octets of the key, how a short one is made longer
_PRIV: Mapping[str, tuple[int, str]] = {
    "des": (16, ""), "aes": (16, ""), "aes192": (24, "blumenthal"), "aes256": (32, "blumenthal"),
    "aes192c": (24, "reeder"), "aes256c": (32, "reeder"),
}  # fmt: skip
AUTH_PROTOCOLS, PRIV_PROTOCOLS = tuple(_AUTH), tuple(_PRIV)
STATS_OID = "1.3.6.1.6.3.15.1.1"  # usmStats, for reports: then STATS, then 0
STATS = {
    "unsupported_security_level": 1, "not_in_time_window": 2, "unknown_user": 3,
    "unknown_engine": 4, "wrong_digest": 5, "decryption_error": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class User:
    """One user; passwords as people type them."""

    name: str
    auth: str = ""
    auth_password: str = ""
    priv: str = ""
    priv_password: str = ""

    @property
    def level(self) -> int:
        """AUTH and PRIV bits that its messages must have."""
        return (AUTH if self.auth else 0) | (PRIV if self.priv else 0)


@dataclass(frozen=True, slots=True)
class Secured:
    """A v3 message, taken apart but for its scoped PDU."""

    message_id: int
    max_size: int
    flags: int
    engine_id: bytes
    boots: int
    time: int
    user: str
    mac: bytes
    mac_at: int  # where it stands in the message
    salt: bytes
    scoped: bytes  # an element: SEQUENCE in the clear, OCTET STRING where encrypted


@dataclass(frozen=True, slots=True)
class Scoped:
    """A scoped PDU."""

    context_engine_id: bytes
    context_name: bytes
    pdu: bytes


def read_secured(data: bytes) -> Secured:
    """Return a v3 message. Raises DecodeError."""
    at, end = ber.expect(data, 0, len(data), Tag.SEQUENCE)
    version, at = ber.integer(data, at, end)
    if version != 3:
        raise DecodeError("bad_version", f"version {version} where 3 is due")
    head, at = ber.expect(data, at, end, Tag.SEQUENCE)
    message_id, head = ber.integer(data, head, at)
    max_size, head = ber.integer(data, head, at)
    start, stop = ber.expect(data, head, at, Tag.OCTETS)
    flags = data[start:stop]
    model, _ = ber.integer(data, stop, at)
    if len(flags) != 1 or model != USM:
        raise DecodeError("bad_value", f"security model {model}, flags of {len(flags)} octets")
    inside, at = ber.expect(data, at, end, Tag.OCTETS)
    inside, stop = ber.expect(data, inside, at, Tag.SEQUENCE)
    engine, place = ber.expect(data, inside, stop, Tag.OCTETS)
    engine_id = data[engine:place]
    boots, place = _counted(data, place, stop)
    time, place = _counted(data, place, stop)
    start, place = ber.expect(data, place, stop, Tag.OCTETS)
    user = data[start:place]
    mac, place = ber.expect(data, place, stop, Tag.OCTETS)
    mac_stop = place
    salt, place = ber.expect(data, place, stop, Tag.OCTETS)
    if len(engine_id) > 32 or len(user) > 32:
        raise DecodeError("bad_value", "engine id or user name of more than 32 octets")
    _, _, behind = ber.header(data, at, end)
    return Secured(
        message_id,
        max_size,
        flags[0],
        engine_id,
        boots,
        time,
        user.decode("utf-8", "replace"),
        data[mac:mac_stop],
        mac,
        data[salt:place],
        data[at:behind],
    )


def _counted(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return an integer that cannot be negative: some leave out the zero that its top bit asks for."""
    value, behind = ber.integer(data, at, end)
    return (value if value >= 0 else value + (1 << 8 * (behind - at - 2))), behind


def read_scoped(data: bytes) -> Scoped:
    """Return a scoped PDU. Raises DecodeError."""
    at, end = ber.expect(data, 0, len(data), Tag.SEQUENCE)
    start, at = ber.expect(data, at, end, Tag.OCTETS)
    engine = data[start:at]
    start, at = ber.expect(data, at, end, Tag.OCTETS)
    name = data[start:at]
    _, _, stop = ber.header(data, at, end)
    return Scoped(engine, name, data[at:stop])


def write_scoped(context_engine_id: bytes, context_name: bytes, pdu: bytes) -> bytes:
    """Return a scoped PDU."""
    return ber.element(Tag.SEQUENCE, ber.octets(context_engine_id), ber.octets(context_name), pdu)


# ---- keys


@lru_cache(256)
def master_key(auth: str, password: str) -> bytes:
    """Return the digest of a password repeated to 1,048,576 octets (RFC 3414, A.2)."""
    words = password.encode("utf-8")
    whole, rest = divmod(1 << 20, len(words))
    return hashlib.new(_AUTH[auth][0], words * whole + words[:rest]).digest()


@lru_cache(8192)
def localized_key(auth: str, password: str, engine_id: bytes) -> bytes:
    """Return a user's key for one engine.

    >>> localized_key("md5", "maplesyrup", bytes.fromhex("000000000000000000000002")).hex()
    '526f5eed9fcce26f8964c2930787d82b'
    """
    key = master_key(auth, password)
    return hashlib.new(_AUTH[auth][0], key + engine_id + key).digest()


def privacy_key(user: User, engine_id: bytes) -> bytes:
    """Return a user's key for privacy, made longer where its hash is too short."""
    size, way = _PRIV[user.priv]
    key = localized_key(user.auth, user.priv_password, engine_id)
    name = _AUTH[user.auth][0]
    while len(key) < size:
        if way == "reeder":
            again = hashlib.new(name, _repeated(name, key)).digest()
            key += hashlib.new(name, again + engine_id + again).digest()
        else:
            key += hashlib.new(name, key).digest()
    return key[:size]


def _repeated(name: str, key: bytes) -> bytes:  # noqa: ARG001  # the same for every hash
    whole, rest = divmod(1 << 20, len(key))
    return key * whole + key[:rest]


def mac_of(user: User, engine_id: bytes, message: bytes) -> bytes:
    """Return the authentication code of a message in which it is zeros."""
    name, size = _AUTH[user.auth]
    key = localized_key(user.auth, user.auth_password, engine_id)
    return hmac.digest(key, message, name)[:size]


# ---- privacy


def encrypt(user: User, engine: tuple[bytes, int, int], salt: bytes, data: bytes) -> bytes:
    """Encrypt a scoped PDU; `engine` is (id, boots, time)."""
    if user.priv == "des":
        data += bytes(-len(data) % 8)
    worker = _cipher(user, engine, salt).encryptor()
    return bytes(worker.update(data) + worker.finalize())


def decrypt(user: User, engine: tuple[bytes, int, int], salt: bytes, data: bytes) -> bytes:
    """Decrypt a scoped PDU. Raises DecodeError."""
    if len(salt) != 8 or (user.priv == "des" and len(data) % 8):
        raise DecodeError("decryption_error", "salt or length do not fit")
    worker = _cipher(user, engine, salt).decryptor()
    return bytes(worker.update(data) + worker.finalize())


def _cipher(user: User, engine: tuple[bytes, int, int], salt: bytes) -> Any:
    modules = _modules()
    engine_id, boots, time = engine
    key = privacy_key(user, engine_id)
    if user.priv == "des":
        vector = bytes(a ^ b for a, b in zip(key[8:16], salt, strict=True))
        return modules.cipher(modules.triple_des(key[:8] * 3), modules.cbc(vector))
    vector = struct.pack(">II", boots & 0xFFFFFFFF, time & 0xFFFFFFFF) + salt
    return modules.cipher(modules.aes(key), modules.cfb(vector))


@dataclass(frozen=True, slots=True)
class _Modules:
    cipher: Callable[..., Any]
    aes: Callable[..., Any]
    triple_des: Callable[..., Any]
    cbc: Callable[..., Any]
    cfb: Callable[..., Any]


@lru_cache(1)
def _modules() -> _Modules:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        raise ConfigError(
            "SNMPv3 with privacy needs the package cryptography: pip install 'tocsin[snmp]'. "
            "The node was not started."
        ) from error
    # Where current releases keep what is no longer recommended, and agents still speak.
    from cryptography.hazmat.decrepit.ciphers import algorithms as old
    from cryptography.hazmat.decrepit.ciphers import modes as old_modes

    return _Modules(Cipher, algorithms.AES, old.TripleDES, modes.CBC, old_modes.CFB)


def check_users(users: Mapping[str, User]) -> None:
    """Raise ConfigError for a user whose settings do not fit together."""
    for name, user in users.items():
        said = ""
        if user.auth and user.auth not in _AUTH:
            said = f"auth = {user.auth!r} is none of {', '.join(_AUTH)}"
        elif user.priv and user.priv not in _PRIV:
            said = f"priv = {user.priv!r} is none of {', '.join(_PRIV)}"
        elif user.priv and not user.auth:
            said = "priv without auth: SNMPv3 has no such level"
        elif user.auth and len(user.auth_password) < 8:
            said = "auth_password is shorter than 8 characters (RFC 3414, section 11.2)"
        elif user.priv and len(user.priv_password) < 8:
            said = "priv_password is shorter than 8 characters (RFC 3414, section 11.2)"
        if said:
            raise ConfigError(f"SNMPv3 user {name!r}: {said}. The node was not started.")
        if user.priv:
            _modules()


# ---- messages


def open_message(user: User, message: Secured, data: bytes) -> bytes:
    """Return the scoped PDU's bytes of a message, checked and decrypted. Raises DecodeError.

    Not checked is the time window, which only the authoritative side's clock can tell.
    """
    if message.flags & (AUTH | PRIV) != user.level:
        raise DecodeError("unsupported_security_level", f"user {user.name}: not at its level")
    if user.auth:
        size = _AUTH[user.auth][1]
        if len(message.mac) != size:
            raise DecodeError("wrong_digest", f"digest of {len(message.mac)} octets")
        stop = message.mac_at + size
        bare = data[: message.mac_at] + bytes(size) + data[stop:]
        if not hmac.compare_digest(mac_of(user, message.engine_id, bare), message.mac):
            raise DecodeError("wrong_digest", f"user {user.name}")
    if not user.priv:
        return message.scoped
    start, stop = ber.expect(message.scoped, 0, len(message.scoped), Tag.OCTETS)
    engine = (message.engine_id, message.boots, message.time)
    return decrypt(user, engine, message.salt, message.scoped[start:stop])


def write_secured(
    user: User, engine: tuple[bytes, int, int], message_id: int, scoped: bytes,
    *, salt: bytes = bytes(8), flags: int | None = None,
) -> bytes:  # fmt: skip
    """Return a v3 message of a user; `engine` is (id, boots, time) of the authoritative side."""
    flags = user.level if flags is None else flags
    level = flags & (AUTH | PRIV)
    size = _AUTH[user.auth][1] if level & AUTH else 0
    if level & PRIV:
        scoped = ber.octets(encrypt(user, engine, salt, scoped))
    security = ber.element(
        Tag.SEQUENCE,
        ber.octets(engine[0]),
        ber.number(engine[1]),
        ber.number(engine[2]),
        ber.octets(user.name.encode("utf-8")),
        ber.octets(bytes(size)),
        ber.octets(salt if level & PRIV else b""),
    )
    made = ber.element(
        Tag.SEQUENCE,
        ber.number(3),
        ber.element(
            Tag.SEQUENCE,
            ber.number(message_id),
            ber.number(65507),
            ber.octets(bytes((flags,))),
            ber.number(USM),
        ),
        ber.octets(security),
        scoped,
    )
    if not level & AUTH:
        return made
    at = read_secured(made).mac_at
    return made[:at] + mac_of(user, engine[0], made) + made[at + size :]


def write_report(
    engine: tuple[bytes, int, int], message: Secured, reason: str, count: int, user: User | None
) -> bytes:
    """Return the report that tells a sender why its message was refused; see STATS.

    Authenticated, where a user is given: that of a time window must be (RFC 3414 section 3.2.7).
    """
    oid = f"{STATS_OID}.{STATS[reason]}.0"
    bindings = write_varbind(oid, ber.number(count, Tag.COUNTER32))
    pdu = write_pdu(Tag.REPORT, 0, bindings)
    who = user or User(message.user)
    flags = AUTH if user and user.auth else 0
    return write_secured(
        who, engine, message.message_id, write_scoped(engine[0], b"", pdu), flags=flags
    )


class Engines:
    """Boots and time of the engines heard of, so that an old message is not taken twice.

    Bounded; of engines beyond it the one heard of longest ago is forgotten.
    """

    def __init__(self, *, engines_max: int = 4096) -> None:
        self._engines_max = engines_max
        self._known: OrderedDict[bytes, tuple[int, int, int]] = OrderedDict()

    def accept(self, engine_id: bytes, boots: int, time: int, now_ns: int) -> bool:
        """Return whether an authenticated message lies in the window of its engine, and learn it.

        Source: RFC 3414 section 3.2.7 b: the sender is authoritative.
        """
        known = self._known.get(engine_id)
        if known is not None:
            old_boots, old_time, learned_ns = known
            due = old_time + (now_ns - learned_ns) // 1_000_000_000
            if boots < old_boots or (boots == old_boots and time < due - WINDOW_SECONDS):
                return False
            if boots == old_boots and time < old_time:
                return True  # inside the window, but behind the newest
        if boots >= BOOTS_MAX:
            return False
        self._known[engine_id] = (boots, time, now_ns)
        self._known.move_to_end(engine_id)
        if len(self._known) > self._engines_max:
            self._known.popitem(last=False)
        return True

    def rows(self) -> list[tuple[bytes, int, int, int]]:
        """Return (engine id, boots, time, learned_ns) of all, as `put` takes them."""
        return [(engine, *rest) for engine, rest in self._known.items()]

    def put(self, engine_id: bytes, boots: int, time: int, learned_ns: int) -> None:
        """Take one back."""
        self._known[engine_id] = (boots, time, learned_ns)
