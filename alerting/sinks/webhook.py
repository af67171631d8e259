"""Webhook: one CloudEvent a change, structured mode, with the change as its id.

Source: CloudEvents 1.0.2, JSON event format section 3 and HTTP binding section 3.2.
"""

import json
from datetime import UTC, datetime

import msgspec

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.sinks.http import post


class WebhookSink:
    """POST alerts as CloudEvents. The receiver drops repeats by `id` (also as Idempotency-Key)."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings

    def send(self, alert: Alert, *, key: str, now_ns: int) -> str:  # noqa: ARG002
        """Send one event."""
        event = {
            "specversion": "1.0",
            "id": key,
            "source": "tocsin",
            "type": f"tocsin.alarm.{alert.state}",
            "subject": alert.entity,
            "time": rfc3339(alert.changed_ns),
            "datacontenttype": "application/json",
            "data": msgspec.to_builtins(alert),
        }
        headers = {
            "Content-Type": "application/cloudevents+json; charset=UTF-8",
            "Idempotency-Key": key,
        }
        return post(self._settings, self._settings.url, json.dumps(event).encode(), headers)

    def close(self) -> None:
        """Nothing is held open."""


def rfc3339(ns: int) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
