"""Prometheus Alertmanager, API v2: labels are identity, annotations explain.

Alertmanager keeps alerts in memory only and resolves each at its endsAt, so what is up is said again
every minute with an endsAt some minutes ahead, as Prometheus does; a clear is said with the time it
cleared. Routes there match on the label `severity`; since labels are identity, an alarm that changes
its severity is another alert to it, and the alerts of the other severities are ended. So is an incident
whose cause turns out to be elsewhere: what it was before is ended, or, where the gate was restarted in
between, not said again and resolves at its endsAt.

Source: Alertmanager api/v2/openapi.yaml, postableAlerts; docs/alerting/latest/clients.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alerting.config import SinkSettings
from alerting.sinks.http import post
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from alerting.words.wording import is_over, rfc3339
from runtime.registry import WEB, NoOptions, Part

REPEAT_SECONDS = 60.0
UP_FOR_NS = 15 * 60_000_000_000  # fifteen repeats: an outage of ours is not a clear
LABELLED = ("critical", "major", "minor", "warning")
BATCH_MAX = 100


class AlertmanagerSink:
    """POST alerts to `url`/api/v2/alerts."""

    batch_max = BATCH_MAX
    repeat_seconds = REPEAT_SECONDS

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/") + "/api/v2/alerts"
        self._up: dict[str, Alert] = {}  # what is up there, by id, as it was said last

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send changes; the same change again does no harm."""
        up, made = dict(self._up), []
        for parcel in parcels:  # of one alert there may be several
            alert = parcel.alert
            made += [*postable(alert, now_ns=now_ns), *_moved(up, alert, now_ns)]
            if is_over(alert):
                up.pop(alert.id, None)
            else:
                up[alert.id] = alert
        answer = self._post(made)
        self._up = up
        return answer

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Say again what is up."""
        for first in range(0, len(active), BATCH_MAX):
            part = active[first : first + BATCH_MAX]
            again = [_alert(alert, alert.severity, now_ns + UP_FOR_NS) for alert in part]
            self._post([*again, *(a for alert in part for a in _moved(self._up, alert, now_ns))])
        self._up = {alert.id: alert for alert in active}

    def _post(self, alerts: list[dict[str, Any]]) -> str:
        headers = {"Content-Type": "application/json"}
        return post(self._settings, self._url, json.dumps(alerts).encode(), headers)

    def close(self) -> None:
        """Nothing is held open."""


def _moved(up: Mapping[str, Alert], alert: Alert, now_ns: int) -> list[dict[str, Any]]:
    """Return the end of what an alert was there before its cause was found elsewhere."""
    was = up.get(alert.id, alert)
    if (was.kind, was.entity) == (alert.kind, alert.entity):
        return []
    return [_alert(was, was.severity, min(alert.changed_ns, now_ns))]


def postable(alert: Alert, *, now_ns: int) -> list[dict[str, Any]]:
    """Return the alert for Alertmanager, and the ends of those that it takes the place of."""
    if is_over(alert):
        return [_alert(alert, alert.severity, alert.cleared_ns)]
    made = [_alert(alert, alert.severity, max(now_ns, alert.changed_ns) + UP_FOR_NS)]
    if alert.state == "updated":
        others = (severity for severity in LABELLED if severity != alert.severity)
        made += [_alert(alert, severity, alert.changed_ns) for severity in others]
    return made


def _alert(alert: Alert, severity: str, ends_ns: int) -> dict[str, Any]:
    return {
        "labels": {
            "alertname": alert.kind,
            "entity": alert.entity,
            "severity": severity,
            "alarm_id": alert.id,
            "source": "tocsin",
        },
        "annotations": {
            "summary": alert.title,
            "probable_cause": alert.probable_cause,
            "why": "; ".join(str(reason) for reason in alert.explain.get("why", [])),
            "do": str(alert.explain.get("do", "")),
            "change": alert.change,
        },
        "startsAt": rfc3339(alert.raised_ns),
        "endsAt": rfc3339(ends_ns),
    }


def _make(settings: SinkSettings, options: NoOptions) -> AlertmanagerSink:  # noqa: ARG001
    return AlertmanagerSink(settings)


SINK = Part("Prometheus Alertmanager, API v2", _make, needs=("url",), schemes=WEB)
