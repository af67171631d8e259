"""What the courier hands to a sink: an alert, and what belongs to the delivery alone."""

import msgspec

from alerting.words.alert import Alert, canonical
from telemetry.errors import TransientError


class RefusedError(TransientError):
    """The receiver understood and will never take this: no use in trying again by ourselves."""


class NotSentError(TransientError):
    """The other side cannot have acted on it: nothing reached it, or it said that it would not."""


class LaterError(NotSentError):
    """The receiver asks to be left alone for so many seconds."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class Parcel:
    """One alert on its way. `key` is the same at every attempt, and in every process.

    Its canonical JSON, tidy, stands for an alert: it is opened for the sinks that look inside.
    """

    def __init__(self, alert: Alert | str, key: str, attempt: int = 1) -> None:
        self._alert = alert
        self.key = key
        self.attempt = attempt

    @property
    def alert(self) -> Alert:
        """The alert."""
        if isinstance(self._alert, str):
            self._alert = msgspec.json.decode(self._alert, type=Alert)
        return self._alert

    @property
    def json(self) -> bytes:
        """The alert's canonical JSON."""
        return self._alert.encode() if isinstance(self._alert, str) else canonical(self._alert)
