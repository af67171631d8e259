"""NATS JetStream: one message a change; the stream drops repeats by `Nats-Msg-Id`.

`url` is nats://host:4222 or tls://host:4222. A stream must take the subjects (`tocsin.alerts.>`
by default); without one the publish is not acknowledged and is tried again. Needs the extra `nats`.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from alerting.config import SinkSettings
from alerting.sinks.http import host_of, secret, tls
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.words.alert import Alert
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.errors import ConfigError, TransientError

TOO_LARGE = 10054  # err_code of JetStream: beyond max_msg_size of the stream


class NatsOptions(Settings, frozen=True, kw_only=True):
    """Where to."""

    subject: str = "tocsin.alerts"  # ".<severity>.<kind>" is added


class NatsSink:
    """Owns one connection and an event loop that runs while `send` waits."""

    batch_max = 100
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: NatsOptions) -> None:
        try:
            import nats
        except ImportError as error:
            raise ConfigError(
                "sinks of kind nats need nats-py: pip install 'tocsin[nats]'"
            ) from error
        self._nats: Any = nats
        self._settings = settings
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Publish and wait for the stream's acknowledgement of each."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(
                asyncio.wait_for(self._publish(parcels), self._settings.timeout_seconds)
            )
        except TransientError:
            self.close()
            raise
        except (OSError, TimeoutError, self._nats.errors.Error) as error:
            self.close()
            said = str(error) or type(error).__name__
            if "no response from stream" in said:
                said += f"; no stream takes {self._options.subject}.>"
            raise TransientError(f"{host_of(self._settings.url)}: {said}") from error

    async def _publish(self, parcels: Sequence[Parcel]) -> str:
        if self._client is None:
            self._client = self._nats.NATS()  # known before it connects, so that `close` finds it
            await self._connect()
        stream = self._client.jetstream(timeout=self._settings.timeout_seconds)
        # Together, for each acknowledgement takes a round trip: of one alarm there is one change in it.
        tasks = [asyncio.ensure_future(self._store(stream, parcel)) for parcel in parcels]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        repeats = sum(bool(answer.duplicate) for answer in answers)
        return f"stored in {answers[-1].stream} as {answers[-1].seq}" + (
            f", {repeats} were there already" if repeats else ""
        )

    async def _store(self, stream: Any, parcel: Parcel) -> Any:
        alert = parcel.alert
        subject = ".".join((self._options.subject, _part(alert.severity), _part(alert.kind)))
        try:
            return await stream.publish(subject, parcel.json, headers={"Nats-Msg-Id": parcel.key})
        except self._nats.errors.MaxPayloadError as error:
            raise RefusedError(f"{host_of(self._settings.url)}: {error}") from error
        except self._nats.js.errors.APIError as error:
            if error.err_code != TOO_LARGE:
                raise
            raise RefusedError(f"{host_of(self._settings.url)}: {error.description}") from error

    async def _connect(self) -> None:
        settings = self._settings
        more: dict[str, Any] = {}
        if settings.url.startswith("tls://") or settings.ca_file:
            more["tls"] = tls(settings)
        if settings.user:
            more["user"] = settings.user
            more["password"] = secret(settings.password_file, "password_file")
        elif settings.token_file:
            more["token"] = secret(settings.token_file, "token_file")
        await self._client.connect(
            settings.url, name="tocsin", allow_reconnect=False,
            connect_timeout=max(1, round(settings.timeout_seconds)), error_cb=_ignore, **more,
        )  # fmt: skip

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """The stream keeps messages: nothing to say again."""

    def close(self) -> None:
        """Close the connection and the loop."""
        if self._loop is None:
            return
        if self._client is not None:
            with contextlib.suppress(Exception):  # it is going away in whatever state it is
                self._loop.run_until_complete(asyncio.wait_for(self._client.close(), 1.0))
            transport = self._client._transport  # `close` forgets one half made
            if transport is not None:
                transport.close()
            self._client = None
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        self._loop = None


async def _ignore(_: Exception) -> None:
    """What goes wrong is raised by the publish that meets it."""


def _part(text: str) -> str:
    """Return one token of a subject: no dots, blanks or wildcards."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)[:64] or "_"


def _make(settings: SinkSettings, options: NatsOptions) -> NatsSink:
    return NatsSink(settings, options)


SINK = Part("NATS JetStream", _make, NatsOptions, needs=("url",))
