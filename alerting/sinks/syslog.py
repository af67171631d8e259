"""Syslog: one RFC 5424 message a change, over UDP, TCP or TLS, with the alarm as structured data.

`url` is udp://host:514, tcp://host:601 or tls://host:6514. Syslog acknowledges nothing: over UDP a
message may be lost, over TCP and TLS those that the other side had not read when it went away; a
connection that it closed is noticed before the next message.

Source: RFC 5424 (format), RFC 5674 section 3 (SD-ID "alarm"), RFC 5426 (UDP), RFC 6587 section 3.4.1
and RFC 5425 (octet counting).
"""

import socket
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from alerting.config import SinkSettings
from alerting.sinks.http import tls
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from alerting.words.escape import line
from alerting.words.wording import facts, rfc3339, word
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.errors import ConfigError, TransientError

PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
BOM = "\ufeff"  # RFC 5424 section 6.4: the message is UTF-8
PARAMETER_CHARACTERS_MAX = 1000
KEYS = ("id", "change", "state")  # by which a receiver knows it: never cut
UDP_OCTETS_MAX = 2048  # RFC 5424 section 6.1: what receivers should take
UDP_OCTETS_TEXT = 300  # of those at least for the text, where it has so many
# A name is looked up again over UDP, where nobody says that nobody is there.
RESOLVE_NS = 60_000_000_000


class SyslogOptions(Settings, frozen=True, kw_only=True):
    """What stands in every message."""

    facility: Annotated[int, msgspec.Meta(ge=0, le=23)] = 16  # local0
    hostname: str = ""  # default: this machine's


class SyslogSink:
    """Keeps one connection (TCP, TLS) or socket (UDP)."""

    batch_max = 50
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: SyslogOptions) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ConfigError(
                f"url {settings.url!r} is none of udp://host:port, tcp://host:port, tls://host:port"
            )
        self._settings = settings
        self._scheme = parts.scheme
        self._address = (parts.hostname, parts.port or PORTS[parts.scheme])
        self._facility = options.facility
        self._hostname = options.hostname or socket.gethostname()
        self._socket: socket.socket | None = None
        self._opened_ns = 0

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send a message each; a repeat has the same `change`."""
        udp = self._scheme == "udp"
        try:
            if self._socket is not None and (
                now_ns - self._opened_ns > RESOLVE_NS if udp else self._closed(self._socket)
            ):
                self.close()
            if self._socket is None:
                self._socket, self._opened_ns = self._connect(), now_ns
            for parcel in parcels:
                data = message(
                    parcel.alert, hostname=self._hostname, facility=self._facility,
                    octets_max=UDP_OCTETS_MAX if udp else None,
                )  # fmt: skip
                if udp:
                    self._socket.send(data)
                else:
                    self._socket.sendall(b"%d %s" % (len(data), data))
        except OSError as error:  # ssl.SSLError is one
            self.close()
            raise TransientError(f"{self._settings.url}: {error}") from error
        return "sent; syslog acknowledges nothing"

    def _connect(self) -> socket.socket:
        seconds = self._settings.timeout_seconds
        if self._scheme == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(
                *self._address, type=socket.SOCK_DGRAM
            )[0]
            made = socket.socket(family, kind, protocol)
            made.settimeout(seconds)
            made.connect(address)
            return made
        plain = socket.create_connection(self._address, timeout=seconds)
        if self._scheme == "tcp":
            return plain
        try:
            return tls(self._settings).wrap_socket(plain, server_hostname=self._address[0])
        except BaseException:
            plain.close()
            raise

    def _closed(self, connection: socket.socket) -> bool:
        """Whether the other side has closed: it sends nothing, so what can be read is its end."""
        from ssl import SSLWantReadError  # OpenSSL, which the node does without

        connection.setblocking(False)
        try:
            return connection.recv(1) == b""
        except (BlockingIOError, SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(self._settings.timeout_seconds)

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Messages stay: nothing to say again."""

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def message(alert: Alert, *, hostname: str, facility: int, octets_max: int | None = None) -> bytes:
    """Return the message, without framing. Where it has too many octets its parameters are made shorter and
    its text is cut, never the structured data between them (RFC 5424, section 6.1)."""
    characters = PARAMETER_CHARACTERS_MAX
    while True:
        head, text = _parts(alert, hostname, facility, characters)
        if octets_max is None:
            return head + text
        if len(head) + min(len(text), UDP_OCTETS_TEXT) <= octets_max or not characters:
            return head + _cut(text, max(octets_max - len(head), 0))
        characters //= 2  # as far as 0, where a cut mark is left of each


def _parts(alert: Alert, hostname: str, facility: int, characters: int) -> tuple[bytes, bytes]:
    severity = int(word("syslog", alert))
    alarm = {
        "resource": alert.entity,
        "probableCause": alert.probable_cause,
        "perceivedSeverity": "cleared" if word("x733", alert) == 5 else alert.severity,
        "eventType": alert.event_type,
    }
    ours = {"id": alert.id, "change": alert.change, "state": alert.state, "kind": alert.kind}
    known = facts(alert)
    ours |= {name: known[name] for name in ("actual", "expected", "why", "do") if name in known}
    head = (
        f"<{facility * 8 + severity}>1 {rfc3339(alert.changed_ns)} {_name(hostname, 255)} tocsin - "
        f"{_name(alert.kind, 32)}"
    )
    elements = _element("alarm", alarm, characters) + _element("tocsin@32473", ours, characters)
    return f"{head} {elements} ".encode(), f"{BOM}{line(alert.title)}".encode()


def _name(text: str, limit: int) -> str:
    """Return a header field: printable ASCII without spaces, "-" where nothing is left."""
    return "".join(c for c in text if "!" <= c <= "~")[:limit] or "-"


def _element(name: str, parameters: dict[str, str], characters: int) -> str:
    """Return a structured-data element; RFC 5424 section 6.3.3 says what is escaped."""
    pairs = []
    for key, value in parameters.items():
        text = line(value, PARAMETER_CHARACTERS_MAX if key in KEYS else characters)
        for special in ("\\", '"', "]"):
            text = text.replace(special, "\\" + special)
        pairs.append(f'{key}="{text}"')
    return f"[{name} {' '.join(pairs)}]"


def _cut(data: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes that still are UTF-8."""
    return data if len(data) <= limit else data[:limit].decode(errors="ignore").encode()


def _make(settings: SinkSettings, options: SyslogOptions) -> SyslogSink:
    return SyslogSink(settings, options)


SINK = Part(
    "syslog, RFC 5424 over UDP, TCP or TLS",
    _make,
    SyslogOptions,
    needs=("url",),
    schemes=tuple(PORTS),
)
