"""Who may push records, and over what: settings of an HTTP input, its credentials, its TLS."""

import hmac
import ipaddress
import ssl
from base64 import b64decode
from pathlib import Path

from runtime.settings import PositiveInt, PositiveSeconds, Settings
from telemetry.errors import ConfigError


class HttpInputSettings(Settings, frozen=True, kw_only=True):
    """Where and from whom pushed records are taken."""

    # http(s)://host:port; beyond loopback it needs https and a credential.
    listen: str = "https://[::]:8443"
    certificate_file: str = ""  # PEM, with its chain; needed for https
    key_file: str = ""  # empty = the key is in certificate_file
    client_ca_file: str = ""  # a client certificate that these signed is a credential
    users_file: str = ""  # lines of name:password, for HTTP basic authentication
    token_file: str = ""  # bearer tokens, one a line
    open_to_all: bool = False  # take from anybody who can reach `listen`
    body_bytes_max: PositiveInt = 16 * 1024 * 1024  # a longer body is refused (413)
    connections_max: PositiveInt = 64  # at one time; more are closed at once
    connections_per_peer_max: PositiveInt = 16  # of one address
    idle_seconds_max: PositiveSeconds = 60.0  # between two requests, and without a byte within one
    request_seconds_max: PositiveSeconds = 60.0  # from the first line to the last byte of the body


class Credentials:
    """Who may ask. Files are read at the start; a change counts after a restart."""

    def __init__(self, settings: HttpInputSettings) -> None:
        self._users = [
            line.encode() for line in _lines(settings.users_file, "users_file") if ":" in line
        ]
        self._tokens = [line.encode() for line in _lines(settings.token_file, "token_file")]
        for name, file, found in (
            ("users_file", settings.users_file, self._users),
            ("token_file", settings.token_file, self._tokens),
        ):
            if file and not found:
                raise ConfigError(f"{name} {file} holds no entry")
        self.by_certificate = bool(settings.client_ca_file)
        self.by_header = bool(self._users or self._tokens)
        self.wanted = self.by_header or self.by_certificate

    def user(self, header: str, certificate: bool) -> str | None:
        """Return who asks, None where the credentials do not do."""
        if not self.wanted or (certificate and self.by_certificate):
            return ""
        kind, _, secret = header.partition(" ")
        if kind.lower() == "basic":
            try:
                pair = b64decode(secret, validate=True)
            except ValueError:
                return None
            # All are compared, so that the time tells nothing.
            good = [hmac.compare_digest(pair, known) for known in self._users]
            return pair.partition(b":")[0].decode("utf-8", "replace") if any(good) else None
        if kind.lower() == "bearer":
            good = [hmac.compare_digest(secret.strip().encode(), known) for known in self._tokens]
            return "" if any(good) else None
        return None


def _lines(path: str, name: str) -> list[str]:
    if not path:
        return []
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} {path}: cannot be read: {error}") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def server_tls(settings: HttpInputSettings, gate: Credentials) -> ssl.SSLContext:
    if not settings.certificate_file:
        raise ConfigError(f"listen = {settings.listen!r} needs certificate_file")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        tls.load_cert_chain(settings.certificate_file, settings.key_file or None)
        if settings.client_ca_file:
            tls.load_verify_locations(settings.client_ca_file)
            tls.verify_mode = ssl.CERT_OPTIONAL if gate.by_header else ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        files = (settings.certificate_file, settings.key_file, settings.client_ca_file)
        raise ConfigError(
            f"{', '.join(f for f in files if f)}: cannot be used as certificates: {error}"
        ) from error
    return tls


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
