"""Asking other systems over HTTP, within limits of time and size, with one clear sentence when it fails."""

import contextlib
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from collectors.foreign_text import datetime_ns
from runtime.clock import Clock
from runtime.settings import PositiveInt, PositiveSeconds, Settings
from runtime.trust import client_context
from telemetry.errors import ConfigError, TransientError

BLOCK_BYTES = 65_536
ADVICE = {
    401: "check user, password_file or token_file",
    403: "the account lacks the right to read this",
    404: "check url",
    406: "the system does not speak the format that was asked for",
}


class PeerSettings(Settings, frozen=True, kw_only=True):
    """How to reach a system that is asked over HTTP."""

    url: str  # http(s)://host:port and the path its interface starts with
    user: str = ""  # for HTTP basic authentication
    password_file: str = ""  # its content is the password of `user`
    token_file: str = ""  # its content is sent as a bearer token
    ca_file: str = ""  # certificates that may have signed the peer's; empty = the system's
    certificate_file: str = ""  # ours, where the peer asks for one
    key_file: str = ""  # the key of certificate_file; empty = it is in there
    timeout_seconds: PositiveSeconds = 20.0  # without a byte
    answer_seconds_max: PositiveSeconds = 120.0  # for a whole answer
    answer_bytes_max: PositiveInt = 64 * 1024 * 1024  # a longer answer is an error


class PeerError(TransientError):
    """The peer did not answer, or not with what was asked for. `status` is 0 without an answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        # Wrong credentials do not become right by themselves, and many systems lock the account.
        self.pause_seconds = 60.0 if status in (401, 403) else 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def clock_offset_ns(self, now_ns: int) -> int | None:
        """Return by how much the peer's clock is ahead of ours, None where it does not say its time."""
        try:
            return datetime_ns(parsedate_to_datetime(self.headers["date"])) - now_ns
        except (KeyError, TypeError, ValueError):
            return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: credentials go nowhere but where they were meant for."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class HttpPeer:
    """One system that is asked over HTTP. Keeps no connection; safe to use from several threads."""

    def __init__(self, settings: PeerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url = {settings.url!r} is no http(s)://host[:port][/path]")
        self._host = parts.hostname
        self._address = ""
        self._origin = f"{parts.scheme}://{parts.netloc}"
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=self._trust()))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def address(self) -> str:
        """The peer's address, for the ledger; "" while its name cannot be resolved."""
        if not self._address:
            with contextlib.suppress(OSError):
                found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
                self._address = str(found[0][4][0])
        return self._address

    def _trust(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            return client_context(
                ca_file=settings.ca_file,
                certificate_file=settings.certificate_file,
                key_file=settings.key_file,
            )
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(f for f in (settings.ca_file, settings.certificate_file) if f)
            raise ConfigError(f"{files}: cannot be used as certificates: {error}") from error

    def _credentials(self) -> dict[str, str]:
        settings = self._settings
        if settings.token_file:
            return {"Authorization": f"Bearer {read_secret(settings.token_file)}"}
        if settings.user:
            password = read_secret(settings.password_file) if settings.password_file else ""
            pair = b64encode(f"{settings.user}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def ask(
        self,
        path: str = "",
        query: Mapping[str, str] | list[tuple[str, str]] | None = None,
        *,
        method: str = "GET",
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to one request below `url`, or raise PeerError."""
        url = self._settings.url.rstrip("/") + path
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query, quote_via=quote)
        return self._send(url, method, body, headers or {})

    def follow(self, link: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET a link that the peer gave, on the host we know: it may call itself by another name."""
        parts = urlsplit(link)
        url = self._origin + parts.path + (f"?{parts.query}" if parts.query else "")
        return self._send(url, "GET", None, headers or {})

    def _send(
        self,
        url: str,
        method: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
    ) -> Answer:
        settings = self._settings
        place = url.partition("?")[0]
        try:
            request = urllib.request.Request(  # noqa: S310  # the scheme was checked
                url, body, {**headers, **self._credentials()}, method=method
            )
            with self._opener.open(request, timeout=settings.timeout_seconds) as answer:
                data = self._read(answer, place)
                return Answer(answer.status, _lower(answer.headers), data)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(200).decode(errors="replace").split("\n")[0].strip()
            advice = ADVICE.get(error.code, "")
            raise PeerError(
                f"{place} answered {error.code} {error.reason}"
                + (f": {text}" if text else "")
                + (f"; {advice}" if advice else ""),
                error.code,
            ) from error
        except (http.client.HTTPException, OSError, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            if isinstance(error, http.client.BadStatusLine):
                reason = f"this is no HTTP: {str(error)[:100]!r}"
            raise PeerError(f"{place}: {reason}") from error

    def _read(self, answer: IO[bytes], place: str) -> bytes:
        settings = self._settings
        end_ns = self._clock.monotonic_ns() + round(settings.answer_seconds_max * 1e9)
        parts, size = [], 0
        while block := answer.read(BLOCK_BYTES):
            parts.append(block)
            size += len(block)
            if size > settings.answer_bytes_max:
                raise PeerError(f"{place}: the answer is longer than {settings.answer_bytes_max} B")
            if self._clock.monotonic_ns() > end_ns:
                raise PeerError(f"{place}: no whole answer in {settings.answer_seconds_max:g} s")
        return b"".join(parts)


def read_secret(path: str) -> str:
    """Return the content of a file without the line end, or raise PeerError."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PeerError(f"{path}: cannot be read: {error}") from error


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
