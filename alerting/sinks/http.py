"""HTTP with the standard library: small, and enough for webhooks and REST interfaces.

A redirect is not followed: a POST would become a GET, and a token would go where nobody sent it.
What needs OpenSSL is imported by who asks, the gate: the node knows sinks too, for their settings (7 MB).
"""

import base64
import io
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from alerting.config import SinkSettings
from alerting.sinks.hearing import Hearing
from alerting.sinks.parcel import LaterError, NotSentError, RefusedError
from runtime.clock import SystemClock
from telemetry.errors import TransientError

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection

# The body is what is wrong, not the moment: 400, 413, 415, 422. All else may pass (401 after a
# new token, 404 after a deployment, 429 and 5xx by themselves).
REFUSED = (400, 413, 415, 422)
BUSY = (429, 503)  # may say when to come back
SAID_BYTES = 200  # of an answer, in messages
ANSWER_BYTES_MAX = 8 * 1024 * 1024
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    @property
    def said(self) -> str:
        """Status and the start of the body, for people."""
        return f"{self.status} {self.body[:SAID_BYTES].decode(errors='replace')}".strip()

    def json(self) -> Any:
        """Return the body as JSON, or raise TransientError: who answers nonsense may come to sense."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise TransientError(f"the answer is no JSON: {self.said}") from error


@dataclass(frozen=True, slots=True)
class _Heard:
    """A connection as http.client wants it to read an answer from."""

    connection: socket.socket
    seconds: float

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002
        return io.BufferedReader(Hearing(self.connection, self.seconds))


def secret(path: str, name: str) -> str:
    """Return what a file holds, read at each use so that it may be changed while we run."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TransientError(f"{name} {path}: {reason}") from error


def tls(settings: SinkSettings) -> "ssl.SSLContext":
    """Return what TLS connections of this sink trust and show."""
    from ssl import SSLError

    from runtime.trust import client_context

    try:
        return client_context(
            ca_file=settings.ca_file,
            certificate_file=settings.certificate_file,
            key_file=settings.key_file,
        )
    except (OSError, SSLError) as error:
        named = settings.certificate_file or settings.ca_file
        raise TransientError(f"certificates ({named}): {error}") from error


def request(
    settings: SinkSettings, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    """Ask and return the answer, whatever its status; raise TransientError where none comes."""
    if not url.startswith(("http://", "https://")):
        raise TransientError(f"{host_of(url)} is not http or https")
    all_headers = {
        "User-Agent": "tocsin", "Connection": "close", **_authorization(settings), **headers,
    }  # fmt: skip
    from http.client import HTTPException
    from ssl import SSLError

    sent = False
    try:
        connection, target = _connection(settings, urlsplit(url), all_headers)
        try:
            connection.connect()
            sent = True
            connection.request(method, target, body, all_headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read(ANSWER_BYTES_MAX), named)
        finally:
            connection.close()
    except (HTTPException, OSError, ValueError) as error:
        refused = isinstance(error, ConnectionRefusedError | socket.gaierror | SSLError)
        kind = NotSentError if refused and not sent else TransientError
        raise kind(f"{host_of(url)}: {str(error) or type(error).__name__}") from error


def host_of(url: str) -> str:
    """Return an address for people: what follows its host may be a secret, as with Slack and Teams.

    >>> host_of("https://ann:s3cret@hooks.example.net:8443/services/T0/s3cret?sig=s3cret")
    'https://hooks.example.net:8443'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{re.split('[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"


def _connection(
    settings: SinkSettings, url: SplitResult, headers: dict[str, str]
) -> tuple["HTTPConnection", str]:
    """Return a connection to whom the environment names as proxy, else to the host, and what to ask it for."""
    made, target = _to(settings, url, headers)
    from http.client import HTTPResponse

    def heard(connection: Any, *given: Any, **more: Any) -> HTTPResponse:
        return HTTPResponse(_Heard(connection, settings.timeout_seconds), *given, **more)  # type: ignore[arg-type]

    made.response_class = heard  # type: ignore[assignment]
    return made, target


def _to(
    settings: SinkSettings, url: SplitResult, headers: dict[str, str]
) -> tuple["HTTPConnection", str]:
    from http.client import HTTPConnection, HTTPSConnection

    if not url.hostname:
        raise ValueError("no host given")
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    proxy, login = _proxy(url)
    host, port = (proxy.hostname or "", proxy.port) if proxy else (url.hostname, url.port)
    seconds = settings.timeout_seconds
    if url.scheme == "http":
        if proxy:
            headers.update(login)
            target = url._replace(fragment="").geturl()
        return HTTPConnection(host, port, timeout=seconds), target
    made = HTTPSConnection(host, port, timeout=seconds, context=tls(settings))
    if proxy:
        made.set_tunnel(url.hostname, url.port, login)
    return made, target


def _proxy(url: SplitResult) -> tuple[SplitResult | None, dict[str, str]]:
    """Return the proxy that the environment names for an address, and what logs us in to it."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None, {}
    from urllib.request import getproxies, proxy_bypass  # .8 MB

    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or proxy_bypass(url.netloc):
        return None, {}
    proxy = urlsplit(named if "//" in named else f"//{named}")
    if proxy.username is None:
        return proxy, {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return proxy, {"Proxy-Authorization": _basic(pair)}


def _authorization(settings: SinkSettings) -> dict[str, str]:
    if settings.user:
        pair = f"{settings.user}:{secret(settings.password_file, 'password_file')}"
        return {"Authorization": _basic(pair)}
    if settings.token_file:
        return {"Authorization": f"Bearer {secret(settings.token_file, 'token_file')}"}
    return {}


def _basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


def accepted(url: str, answer: Answer, *, refused: tuple[int, ...] = REFUSED) -> Answer:
    """Return an answer of 200 to 299; raise RefusedError for `refused`, else TransientError, which is
    LaterError where the answer says when to come back."""
    status = answer.status
    if 200 <= status < 300:
        return answer
    said = f"{host_of(url)} answered {status}: {answer.said.partition(' ')[2]}"
    if status in refused:
        raise RefusedError(said)
    if status in BUSY and (seconds := _later(answer)) > 0:
        raise LaterError(f"{said} (it asks for {seconds:.0f} s)", seconds)
    raise (NotSentError if 400 <= status < 500 and status != 408 else TransientError)(said)


def _later(answer: Answer) -> float:
    """Return what Retry-After asks for in seconds, 0 where it is none (RFC 9110, section 10.2.3)."""
    from email.utils import parsedate_to_datetime

    said = answer.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        now = answer.headers.get("date")
        now_s = parsedate_to_datetime(now).timestamp() if now else _CLOCK.now_ns() / 1e9
        return parsedate_to_datetime(said).timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return 0.0


def post(settings: SinkSettings, url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """POST a body and return status and the start of the answer, or raise as `accepted` does."""
    return accepted(url, request(settings, "POST", url, body, headers)).said


def ask_json(settings: SinkSettings, method: str, url: str, body: Any = None) -> Answer:
    """Send JSON, take JSON; the answer has any status."""
    headers = {"Accept": "application/json"}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    return request(settings, method, url, data, headers)
