"""Posting JSON over HTTP with the standard library: small, and enough for webhooks."""

import urllib.error
import urllib.request
from pathlib import Path

from alerting.config import SinkSettings
from telemetry.errors import TransientError


def post(settings: SinkSettings, url: str, body: bytes, headers: dict[str, str]) -> str:
    """POST a body and return status and the start of the answer, or raise TransientError."""
    if not url.startswith(("http://", "https://")):
        raise TransientError(f"url {url!r} is not http or https")
    if settings.token_file:
        try:
            token = Path(settings.token_file).read_text("utf-8").strip()
        except OSError as error:
            raise TransientError(f"token_file {settings.token_file}: {error.strerror}") from error
        headers = {**headers, "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310  # checked above
    try:
        with urllib.request.urlopen(request, timeout=settings.timeout_seconds) as answer:  # noqa: S310
            return f"{answer.status} {answer.read(200).decode(errors='replace')}".strip()
    except urllib.error.HTTPError as error:
        text = error.read(200).decode(errors="replace")
        raise TransientError(f"{url} answered {error.code}: {text}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TransientError(f"{url}: {reason}") from error
