"""Where alerts go. A sink sends one alert, or raises TransientError with what the other side said."""

from typing import Protocol

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.sinks.alertmanager import AlertmanagerSink
from alerting.sinks.lines import LineSink
from alerting.sinks.pub import PubSink
from alerting.sinks.webhook import WebhookSink


class AlertSink(Protocol):
    """One receiving end. `send` is called from one thread."""

    def send(self, alert: Alert, *, key: str, now_ns: int) -> str:
        """Send and return the other side's answer, or raise TransientError."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


def make_sink(settings: SinkSettings) -> AlertSink:
    """Return the sink that the settings describe."""
    if settings.kind in ("stdout", "file"):
        return LineSink(settings)
    if settings.kind == "webhook":
        return WebhookSink(settings)
    if settings.kind == "alertmanager":
        return AlertmanagerSink(settings)
    return PubSink(settings)
