"""Posting JSON over HTTP with the standard library: small, and enough for webhooks."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from alerting.config import SinkSettings
from alerting.sinks.parcel import RefusedError
from telemetry.errors import TransientError

# The body is what is wrong, not the moment: 400, 413, 415, 422. All else may pass (401 after a
# new token, 404 after a deployment, 429 and 5xx by themselves).
REFUSED = (400, 413, 415, 422)
ANSWER_BYTES = 200


def post(settings: SinkSettings, url: str, body: bytes, headers: dict[str, str]) -> str:
    """POST a body and return status and the start of the answer.

    Raises RefusedError where the receiver finds the body wrong, else TransientError.
    """
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
            return f"{answer.status} {answer.read(ANSWER_BYTES).decode(errors='replace')}".strip()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(ANSWER_BYTES).decode(errors="replace")
        kind = RefusedError if error.code in REFUSED else TransientError
        raise kind(f"{url} answered {error.code}: {text}") from error
    except (http.client.HTTPException, OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        raise TransientError(f"{url}: {reason}") from error
