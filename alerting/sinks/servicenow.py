"""ServiceNow Event Management: rows of em_event, many in one call.

The platform makes alerts of events by `message_key` and closes them by severity 0, so the key is the
alarm's id from raise to clear. `url` is the instance, `https://<name>.service-now.com`.

Source: ServiceNow, Event Management: "Event field format", "Send events via web service".
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, ask_json
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from alerting.words.wording import facts, is_over, place, story, word
from runtime.registry import WEB, NoOptions, Part

BATCH_MAX = 100
DESCRIPTION_CHARACTERS_MAX = 4000
NAME_CHARACTERS_MAX = 100


class ServiceNowEventSink:
    """POST events to `url`/api/global/em/jsonv2."""

    batch_max = BATCH_MAX
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/") + "/api/global/em/jsonv2"

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Send the events; the platform drops a repeat by message_key and time."""
        body = {"records": [event(parcel.alert) for parcel in parcels]}
        return accepted(self._url, ask_json(self._settings, "POST", self._url, body)).said

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """ServiceNow keeps what it was told: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def event(alert: Alert) -> dict[str, str]:
    """Return the row of em_event. Every value is text: numbers in additional_info are not taken."""
    node, resource = place(alert.entity)
    when = datetime.fromtimestamp(alert.changed_ns // 1_000_000_000, UTC)
    return {
        "source": "Tocsin",
        "event_class": "tocsin",
        "node": node[:NAME_CHARACTERS_MAX],
        "resource": resource[:NAME_CHARACTERS_MAX],
        "type": alert.kind[:NAME_CHARACTERS_MAX],
        "metric_name": alert.probable_cause,
        "message_key": alert.id,
        "severity": str(word("servicenow", alert)),
        "resolution_state": "Closing" if is_over(alert) else "New",
        "time_of_event": f"{when:%Y-%m-%d %H:%M:%S}",
        "description": story(alert)[:DESCRIPTION_CHARACTERS_MAX],
        "additional_info": json.dumps(facts(alert)),
    }


def _make(settings: SinkSettings, options: NoOptions) -> ServiceNowEventSink:  # noqa: ARG001
    return ServiceNowEventSink(settings)


SINK = Part("ServiceNow Event Management (em_event)", _make, needs=("url",), schemes=WEB)
