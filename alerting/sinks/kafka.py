"""Kafka: one record a change, keyed by the alarm so that its changes stay in order.

`url` is the bootstrap servers, host:port[,host:port]; the value is the alert as canonical JSON, the
header `key` the delivery's key. Needs the extra `kafka` (confluent-kafka, librdkafka).
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from alerting.config import SinkSettings
from alerting.sinks.http import secret
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.words.alert import Alert
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.errors import ConfigError, TransientError


class KafkaOptions(Settings, frozen=True, kw_only=True):
    """Where to, and what librdkafka should know besides."""

    topic: str = "tocsin.alerts"  # where alerts are written, keyed by alarm
    producer: dict[str, str | int | bool] = {}  # librdkafka's own settings by name


class KafkaSink:
    """Owns one idempotent producer; `send` returns when every record is acknowledged by all."""

    batch_max = 100
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: KafkaOptions) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise ConfigError(
                "sinks of kind kafka need confluent-kafka: pip install 'tocsin[kafka]'"
            ) from error
        self._kafka = confluent_kafka
        self._settings = settings
        self._options = options
        self._producer: Any = None

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Produce and wait; what was sent of a failed batch is harmless again, by its key."""
        failed: list[Any] = []

        def told(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        try:
            if self._producer is None:
                self._producer = self._kafka.Producer(self._configuration())
            for parcel in parcels:
                self._producer.produce(
                    self._options.topic, parcel.json, parcel.alert.id,
                    on_delivery=told, headers={"key": parcel.key, "attempt": str(parcel.attempt)},
                )  # fmt: skip
            left = self._producer.flush(self._settings.timeout_seconds)
        except (self._kafka.KafkaException, BufferError, ValueError, TypeError) as error:
            self.close()
            raise TransientError(f"{self._settings.url}: {error}") from error
        if failed:
            first = failed[0]
            self.close()
            too_large = first.code() in (
                self._kafka.KafkaError.MSG_SIZE_TOO_LARGE, self._kafka.KafkaError.INVALID_RECORD,
            )  # fmt: skip
            kind = RefusedError if too_large else TransientError
            raise kind(f"{self._settings.url}: {first.str()}")
        if left:
            self.close()
            raise TransientError(
                f"{self._settings.url}: {left} records not acknowledged within "
                f"{self._settings.timeout_seconds:g} s"
            )
        return f"acknowledged by {self._options.topic}"

    def _configuration(self) -> dict[str, Any]:
        settings = self._settings
        made: dict[str, Any] = {
            "bootstrap.servers": settings.url.removeprefix("kafka://"),
            "client.id": "tocsin",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "message.timeout.ms": round(settings.timeout_seconds * 1000),
            "logger": _quiet(),
        }
        if settings.ca_file or settings.certificate_file:
            made["security.protocol"] = "SSL"
            files = {
                "ssl.ca.location": settings.ca_file,
                "ssl.certificate.location": settings.certificate_file,
                "ssl.key.location": settings.key_file,
            }
            made |= {name: path for name, path in files.items() if path}
        if settings.user:
            made["security.protocol"] = "SASL_SSL" if settings.ca_file else "SASL_PLAINTEXT"
            made["sasl.mechanism"] = "PLAIN"
            made["sasl.username"] = settings.user
            made["sasl.password"] = secret(settings.password_file, "password_file")
        return made | self._options.producer

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Kafka keeps records: nothing to say again."""

    def close(self) -> None:
        """Give up what is queued (the outbox has it) and let the producer go."""
        if self._producer is not None:
            with contextlib.suppress(self._kafka.KafkaException):
                self._producer.purge()
                self._producer.flush(0.1)
            self._producer = None


def _quiet() -> Any:
    """librdkafka's own lines go to the log at debug: what matters is in our answers."""
    import logging

    made = logging.getLogger("tocsin.librdkafka")
    made.setLevel(logging.CRITICAL)
    return made


def _make(settings: SinkSettings, options: KafkaOptions) -> KafkaSink:
    return KafkaSink(settings, options)


SINK = Part("Kafka", _make, KafkaOptions, needs=("url",))
