"""ZeroMQ PUB: for watchers such as `tocsin tail`. Lossy; sequence numbers show the loss."""

from collections.abc import Sequence

import zmq

from alerting.config import SinkSettings
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from runtime.bus import Publisher
from runtime.registry import NoOptions, Part
from telemetry.errors import TransientError


class PubSink:
    """Publish alerts under topic `alerts`: (topic, sequence u64 little-endian, canonical JSON)."""

    batch_max = 100
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Publish to whoever listens now."""
        if self._publisher is None:
            made = Publisher(self._settings.url)
            try:
                made.start()
            except zmq.ZMQError as error:
                made.stop()
                raise TransientError(f"{self._settings.url}: {error}") from error
            self._publisher = made
        for parcel in parcels:
            self._publisher.publish("alerts", parcel.json)
        return "published"

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Who missed it asks the API: nothing to say again."""

    def close(self) -> None:
        """Close the socket."""
        if self._publisher is not None:
            self._publisher.stop()
            self._publisher = None


def _make(settings: SinkSettings, options: NoOptions) -> PubSink:  # noqa: ARG001
    return PubSink(settings)


SINK = Part("ZeroMQ PUB, for watchers", _make, needs=("url",), schemes=("tcp", "ipc"))
