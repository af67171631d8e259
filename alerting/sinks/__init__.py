"""Where alerts go. A sink sends alerts, or raises with what the other side said.

A sink is one module: a class that keeps the contract (`AlertSink`), and a `Part` that makes it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from alerting.config import SinkSettings
from alerting.sinks.parcel import LaterError, Parcel, RefusedError
from alerting.words.alert import Alert
from runtime.registry import Registry

__all__ = ["SINKS", "AlertSink", "LaterError", "Parcel", "RefusedError", "make_sink"]


class AlertSink(Protocol):
    """One receiving end. Everything is called from one thread.

    `batch_max` is how many parcels one `send` takes; no two of them are of the same alarm.
    `repeat_seconds` is how often `repeat` wants to be told of all alarms that are up, 0 = never.
    One that also listens has `hear_seconds` and `hear(now_ns=...)`, which returns orders, and may have
    `journalled(orders)`, called by any thread when the node has orders on disk. One that tells several may
    have `trouble`: which of them cannot be told, "" where all can; asked by any thread.
    """

    batch_max: int
    repeat_seconds: float

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send all and return the other side's answer, or raise TransientError and have sent none
        or some (a repeat is harmless); RefusedError where trying again is of no use, LaterError where
        the other side names the time until which nothing should be tried."""
        ...

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Say again what is up, for receivers that forget. Raises as `send` does."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


MakeSink = Callable[[SinkSettings, Any], AlertSink]

SINKS: Registry[MakeSink] = Registry(
    "tocsin.sinks",
    {
        "stdout": "alerting.sinks.lines:STDOUT",
        "file": "alerting.sinks.lines:FILE",
        "webhook": "alerting.sinks.webhook:SINK",
        "alertmanager": "alerting.sinks.alertmanager:SINK",
        "zmq": "alerting.sinks.pub:SINK",
        "pagerduty": "alerting.sinks.pagerduty:SINK",
        "servicenow": "alerting.sinks.servicenow:SINK",
        "servicenow-incident": "alerting.sinks.servicenow_incident:SINK",
        "tmf621": "alerting.sinks.tmf621:SINK",
        "tmf642": "alerting.sinks.tmf642:SINK",
        "netcool": "alerting.sinks.netcool:SINK",
        "snmp": "alerting.sinks.snmp:SINK",
        "syslog": "alerting.sinks.syslog:SINK",
        "mail": "alerting.sinks.mail:SINK",
        "kafka": "alerting.sinks.kafka:SINK",
        "nats": "alerting.sinks.nats:SINK",
        "grafana": "alerting.sinks.grafana:SINK",
        "command": "alerting.actions.command:SINK",
        "diagnostics": "alerting.actions.diagnostics:SINK",
    },
)


def make_sink(settings: SinkSettings) -> AlertSink:
    """Return the sink that the settings describe, or raise ConfigError."""
    part = SINKS.get(settings.kind)
    return part.make(settings, part.read(settings.options))
