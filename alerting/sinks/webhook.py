"""Webhook: CloudEvents over HTTP, or whatever a template makes of an alert.

Without a template each change is a CloudEvent, one in structured mode or many in batched mode; its id
is the delivery's key, so a receiver drops repeats by (source, id). With `template` (shipped: slack,
teams, jira; or a file of one's own) the body is what the template says.

Source: CloudEvents 1.0.2, JSON event format sections 3 and 4, HTTP protocol binding sections 3.2
and 3.3.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, post, request, secret
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from alerting.words.templating import Template, check, fields, fill, load_template
from alerting.words.wording import is_over, rfc3339
from runtime.registry import WEB, Part
from runtime.settings import Settings
from telemetry.errors import ConfigError

BATCH_MAX = 100


class WebhookOptions(Settings, frozen=True, kw_only=True):
    """What a receiver asks for beyond a body."""

    # Before the token in the header Authorization, "GenieKey" for JSM.
    authorization: str = "Bearer"
    headers: dict[str, str] = {}  # more headers of each request
    cleared_url: str = ""  # where clears go, if elsewhere; may name fields: .../${id}/close


class WebhookSink:
    """POST alerts. Where the body is one alert's, the key is also sent as Idempotency-Key."""

    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: WebhookOptions) -> None:
        self._settings = settings
        self._options = options
        self._template: Template | None = None
        check(options.cleared_url)
        if options.cleared_url and not options.cleared_url.startswith(("http://", "https://")):
            raise ConfigError("options.cleared_url begins with neither http:// nor https://")
        if settings.template:
            self._template = load_template(settings.template)
        self.batch_max = BATCH_MAX if settings.mode == "batch" and self._template is None else 1

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send in one request."""
        if self.batch_max > 1:
            events = [cloud_event(parcel, now_ns=now_ns) for parcel in parcels]
            headers = {"Content-Type": "application/cloudevents-batch+json; charset=UTF-8"}
            return self._post(self._settings.url, json.dumps(events).encode(), headers)
        (parcel,) = parcels
        headers = {"Idempotency-Key": parcel.key}
        known = fields(parcel.alert, key=parcel.key, sent_at=rfc3339(now_ns))
        url = self._settings.url
        if self._options.cleared_url and is_over(parcel.alert):
            quoted = {name: quote(value, safe="") for name, value in known.items()}
            url = fill(self._options.cleared_url, quoted, "plain")
        if self._template is not None:
            headers["Content-Type"] = self._template.content_type
            return self._post(url, self._template.render(known), headers)
        headers["Content-Type"] = "application/cloudevents+json; charset=UTF-8"
        body = json.dumps(cloud_event(parcel, now_ns=now_ns)).encode()
        return self._post(url, body, headers)

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> str:
        headers |= self._options.headers
        settings = self._settings
        if settings.token_file and self._options.authorization != "Bearer":
            token = secret(settings.token_file, "token_file")
            headers["Authorization"] = f"{self._options.authorization} {token}".strip()
            return accepted(url, request(settings, "POST", url, body, headers)).said
        return post(settings, url, body, headers)

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Receivers of events keep them: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def cloud_event(parcel: Parcel, *, now_ns: int) -> dict[str, Any]:
    """Return the event. What differs between attempts stands in extensions, outside the data."""
    alert = parcel.alert
    return {
        "specversion": "1.0",
        "id": parcel.key,
        "source": "/tocsin",
        "type": f"tocsin.alarm.{alert.state}",
        "subject": alert.entity,
        "time": rfc3339(alert.changed_ns),
        "datacontenttype": "application/json",
        "attempt": parcel.attempt,
        "sentat": rfc3339(now_ns),
        "data": msgspec.to_builtins(alert),
    }


def _make(settings: SinkSettings, options: WebhookOptions) -> WebhookSink:
    return WebhookSink(settings, options)


SINK = Part(
    "CloudEvents or a template over HTTP", _make, WebhookOptions, needs=("url",), schemes=WEB
)
