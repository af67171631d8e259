"""What the courier hands to a sink: an alert, and what belongs to the delivery alone."""

from dataclasses import dataclass

from alerting.alert import Alert
from telemetry.errors import TransientError


class RefusedError(TransientError):
    """The receiver understood and will never take this: no use in trying again by ourselves."""


class NotSentError(TransientError):
    """Nothing reached the other side: it cannot have acted on it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One alert on its way. `key` is the same at every attempt, and in every process."""

    alert: Alert
    key: str
    attempt: int = 1
