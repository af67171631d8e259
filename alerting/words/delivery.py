"""What node and gate tell each other of alerts on their way to sinks."""

import msgspec

from alerting.config import SinkSettings
from alerting.records.alarm import SEVERITIES
from alerting.words.alert import Envelope


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One alert on its way to one sink."""

    number: int
    key: str
    sink: str
    alarm: str
    body: str
    attempts: int
    created_ns: int
    state: str = "waiting"
    answer: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery."""

    number: int
    key: str  # of the delivery: a number alone may have been given to another one since
    sent: bool
    answer: str = ""
    final: bool = False  # not sent and never will be: no use in trying again
    # Nor was anything else: the sink takes nothing, which says nothing of this one.
    away: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody behind a sink wants of an alarm or incident: a ticket closed, a comment made."""

    do: str  # acknowledge, unacknowledge, close, reopen, severity, comment, clear
    id: str  # of the alarm or incident
    by: str
    text: str = ""
    at_ns: int = 0
    key: str = ""  # the same where the same wish is told again
    sink: str = ""


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one sink does, as the gate sees it, and what waits for it, as the outbox knows."""

    name: str
    kind: str
    state: str  # ok, failing, hung, idle (nothing was sent yet)
    error: str = ""  # what it last said, where it fails
    failures: int = 0  # in a row
    sent_ns: int = 0  # when it last took something
    waiting: int = 0
    given_up: int = 0
    held: int = 0  # for want of approval
    oldest_ns: int = 0  # when the oldest that waits was made; 0 = none waits


def wants(sink: SinkSettings, alert: Envelope) -> bool:
    """Whether a sink's route takes this alert."""
    severe = SEVERITIES.index(alert.severity) <= SEVERITIES.index(sink.least_severity)
    return severe and (not sink.kinds or alert.kind in sink.kinds)
