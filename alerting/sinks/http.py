"""HTTP with the standard library: small, and enough for webhooks and REST interfaces.

A redirect is not followed: a POST would become a GET, and a token would go where nobody sent it.
"""

import base64
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerting.config import SinkSettings
from alerting.sinks.parcel import NotSentError, RefusedError
from telemetry.errors import TransientError

# The body is what is wrong, not the moment: 400, 413, 415, 422. All else may pass (401 after a
# new token, 404 after a deployment, 429 and 5xx by themselves).
REFUSED = (400, 413, 415, 422)
SAID_BYTES = 200  # of an answer, in messages
ANSWER_BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said."""

    status: int
    body: bytes

    @property
    def said(self) -> str:
        """Status and the start of the body, for people."""
        return f"{self.status} {self.body[:SAID_BYTES].decode(errors='replace')}".strip()

    def json(self) -> Any:
        """Return the body as JSON, or raise TransientError: who answers nonsense may come to sense."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise TransientError(f"the answer is no JSON: {self.said}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def secret(path: str, name: str) -> str:
    """Return what a file holds, read at each use so that it may be changed while we run."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TransientError(f"{name} {path}: {reason}") from error


def tls(settings: SinkSettings) -> ssl.SSLContext:
    """Return what TLS connections of this sink trust and show."""
    try:
        made = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.certificate_file:
            made.load_cert_chain(settings.certificate_file, settings.key_file or None)
    except (OSError, ssl.SSLError) as error:
        named = settings.certificate_file or settings.ca_file
        raise TransientError(f"certificates ({named}): {error}") from error
    return made


def request(
    settings: SinkSettings, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    """Ask and return the answer, whatever its status; raise TransientError where none comes."""
    if not url.startswith(("http://", "https://")):
        raise TransientError(f"url {url!r} is not http or https")
    all_headers = {"User-Agent": "tocsin", **_authorization(settings), **headers}
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=tls(settings)))
    asked = urllib.request.Request(url, body, all_headers, method=method)  # noqa: S310  # checked above
    try:
        with urllib.request.build_opener(*handlers).open(
            asked, timeout=settings.timeout_seconds
        ) as answer:
            return Answer(answer.status, answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(ANSWER_BYTES_MAX))
    except (http.client.HTTPException, OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        unreached = isinstance(reason, ConnectionRefusedError | socket.gaierror | ssl.SSLError)
        kind = NotSentError if unreached else TransientError
        raise kind(f"{url}: {reason or type(error).__name__}") from error


def _authorization(settings: SinkSettings) -> dict[str, str]:
    if settings.user:
        pair = f"{settings.user}:{secret(settings.password_file, 'password_file')}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    if settings.token_file:
        return {"Authorization": f"Bearer {secret(settings.token_file, 'token_file')}"}
    return {}


def accepted(url: str, answer: Answer, *, refused: tuple[int, ...] = REFUSED) -> Answer:
    """Return an answer of 200 to 299; raise RefusedError for `refused`, else TransientError."""
    if 200 <= answer.status < 300:
        return answer
    kind = RefusedError if answer.status in refused else TransientError
    raise kind(f"{url} answered {answer.status}: {answer.said.partition(' ')[2]}")


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
