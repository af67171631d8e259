"""Webhook: CloudEvents over HTTP, one in structured mode or many in batched mode.

Source: CloudEvents 1.0.2, JSON event format sections 3 and 4, HTTP protocol binding sections 3.2
and 3.3. The event's id is the delivery's key, so a receiver drops repeats by (source, id).
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.sinks.http import post
from alerting.sinks.parcel import Parcel
from runtime.registry import NoOptions, Part

BATCH_MAX = 100


class WebhookSink:
    """POST alerts as CloudEvents. In structured mode the key is also sent as Idempotency-Key."""

    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self.batch_max = BATCH_MAX if settings.mode == "batch" else 1

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send the events in one request."""
        events = [cloud_event(parcel, now_ns=now_ns) for parcel in parcels]
        if self._settings.mode == "batch":
            body = json.dumps(events).encode()
            headers = {"Content-Type": "application/cloudevents-batch+json; charset=UTF-8"}
        else:
            (event,) = events
            body = json.dumps(event).encode()
            headers = {
                "Content-Type": "application/cloudevents+json; charset=UTF-8",
                "Idempotency-Key": parcels[0].key,
            }
        return post(self._settings, self._settings.url, body, headers)

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


def rfc3339(ns: int) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def _make(settings: SinkSettings, options: NoOptions) -> WebhookSink:  # noqa: ARG001
    return WebhookSink(settings)


SINK = Part("CloudEvents over HTTP", _make, needs=("url",))
