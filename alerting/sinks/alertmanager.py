"""Prometheus Alertmanager, API v2: labels are identity, annotations explain.

An alert without endsAt is resolved by Alertmanager after its resolve_timeout, so a raise is sent
with an endsAt far ahead, and a clear with the time it cleared. Its labels hold no severity that
changes: severity is identity there, so the one of the raise is kept in `tocsin_severity` notes.

Source: Alertmanager api/v2/openapi.yaml, postableAlerts.
"""

import json

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.sinks.http import post
from alerting.sinks.webhook import rfc3339

UP_FOR_NS = 7 * 86_400_000_000_000


class AlertmanagerSink:
    """POST alerts to `url`/api/v2/alerts."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings

    def send(self, alert: Alert, *, key: str, now_ns: int) -> str:
        """Send one alert; a repeat changes nothing there."""
        ends_ns = alert.cleared_ns or max(now_ns, alert.changed_ns) + UP_FOR_NS
        body = [
            {
                "labels": {
                    "alertname": alert.kind,
                    "entity": alert.entity,
                    "alarm_id": alert.id,
                    "source": "tocsin",
                },
                "annotations": {
                    "summary": alert.title,
                    "severity": alert.severity,
                    "probable_cause": alert.probable_cause,
                    "why": "; ".join(str(reason) for reason in alert.explain.get("why", [])),
                    "do": str(alert.explain.get("do", "")),
                    "change": key,
                },
                "startsAt": rfc3339(alert.raised_ns),
                "endsAt": rfc3339(ends_ns),
            }
        ]
        url = self._settings.url.rstrip("/") + "/api/v2/alerts"
        return post(
            self._settings, url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )

    def close(self) -> None:
        """Nothing is held open."""
