"""Where alerts go. A sink sends alerts, or raises with what the other side said."""

from collections.abc import Sequence
from typing import Protocol

from alerting.alert import Alert
from alerting.config import SinkSettings
from alerting.sinks.alertmanager import AlertmanagerSink
from alerting.sinks.lines import LineSink
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.sinks.pub import PubSink
from alerting.sinks.webhook import WebhookSink

__all__ = ["AlertSink", "Parcel", "RefusedError", "make_sink"]


class AlertSink(Protocol):
    """One receiving end. Everything is called from one thread.

    `batch_max` is how many parcels one `send` takes; no two of them are of the same alarm.
    `repeat_seconds` is how often `repeat` wants to be told of all alarms that are up, 0 = never.
    """

    batch_max: int
    repeat_seconds: float

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send all and return the other side's answer, or raise TransientError and have sent none
        or some (a repeat is harmless); RefusedError where trying again is of no use."""
        ...

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Say again what is up, for receivers that forget. Raises as `send` does."""
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
