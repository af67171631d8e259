"""PagerDuty, Events API v2: trigger, acknowledge, resolve under one dedup key.

`token_file` holds the integration's routing key, which goes into the body.

Source: PagerDuty, Events API v2: "Send an Alert Event" (fields, limits, answers).
"""

import json
from collections.abc import Sequence

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, request, secret
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from alerting.words.wording import SOURCE, facts, is_acknowledged, is_over, place, rfc3339
from runtime.registry import WEB, NoOptions, Part
from telemetry.x733 import severity_for

SUMMARY_CHARACTERS_MAX = 1024
DEFAULT_URL = "https://events.pagerduty.com/v2/enqueue"


class PagerDutySink:
    """One event a call: the API takes no more."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._url = settings.url or DEFAULT_URL

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Send an event; PagerDuty joins repeats by the dedup key."""
        (parcel,) = parcels
        key = secret(self._settings.token_file, "token_file")
        body = json.dumps(event(parcel.alert, key)).encode()
        headers = {"Content-Type": "application/json"}
        # The key stands in the body: no header carries it.
        bare = SinkSettings(
            kind="pagerduty",
            timeout_seconds=self._settings.timeout_seconds,
            ca_file=self._settings.ca_file,
        )
        return accepted(self._url, request(bare, "POST", self._url, body, headers)).said

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """PagerDuty keeps what it was told: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def event(alert: Alert, routing_key: str) -> dict[str, object]:
    """Return the event for one change."""
    action = "trigger"
    if is_over(alert):
        action = "resolve"
    elif is_acknowledged(alert):
        action = "acknowledge"
    node, resource = place(alert.entity)
    return {
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": alert.id,
        "client": SOURCE,
        "payload": {
            "summary": alert.title[:SUMMARY_CHARACTERS_MAX] or alert.kind,
            "source": node or SOURCE,
            "severity": severity_for("pagerduty", alert.severity),
            "timestamp": rfc3339(alert.changed_ns),
            "component": resource or node,
            "class": alert.kind,
            "group": alert.event_type,
            "custom_details": facts(alert),
        },
    }


def _make(settings: SinkSettings, options: NoOptions) -> PagerDutySink:  # noqa: ARG001
    return PagerDutySink(settings)


SINK = Part("PagerDuty, Events API v2", _make, needs=("token_file",), schemes=WEB)
