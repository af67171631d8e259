"""ZeroMQ PUB: for watchers such as `tocsin tail`. Lossy, with sequence numbers that show the loss."""

import zmq

from alerting.alert import Alert, canonical
from alerting.config import SinkSettings
from runtime.bus import Publisher
from telemetry.errors import TransientError


class PubSink:
    """Publish alerts under topic `alerts`."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None

    def send(self, alert: Alert, *, key: str, now_ns: int) -> str:  # noqa: ARG002
        """Publish one alert to whoever listens now."""
        if self._publisher is None:
            made = Publisher(self._settings.url)
            try:
                made.start()
            except zmq.ZMQError as error:
                raise TransientError(f"{self._settings.url}: {error}") from error
            self._publisher = made
        self._publisher.publish("alerts", canonical(alert))
        return "published"

    def close(self) -> None:
        """Close the socket."""
        if self._publisher is not None:
            self._publisher.stop()
