"""Who subscribed to the alarms of a TMF642 sink, and what each is still to be told.

Each subscriber has a thread and a queue: one that is slow or away delays nobody. It is told in order, again
and again, under one event id, until it takes an event or refuses it for good. What waits for one that
is away lies on disk beside the subscriptions, where those have a path. One that a client made and
that cannot be reached for an hour, or for which too much waits, is ended.

Source: TMF630 part 1 section 5 (hub and listener).
"""

import contextlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, ask_json, host_of
from alerting.sinks.parcel import LaterError, RefusedError
from alerting.sinks.tmf642_words import wanted_by
from runtime.clock import SystemClock
from telemetry.errors import DecodeError, TransientError
from telemetry.identity import id_text, stable_id

HUBS_MAX = 20
TOLD_MAX = 10_000  # events of which is known that a subscriber had them
WAITING_MAX = 10_000  # events for one subscriber
LINES_SPARE = 1_000  # in a file, beyond what waits
HURRY_SECONDS = 0.2  # so long a change waits for subscribers that have had all before it
RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX = 1.0, 60.0
AWAY_SECONDS = 3600.0
_CLOCK = SystemClock()
_LOG = logging.getLogger("tocsin.sinks.tmf642")


class TooManyError(Exception):
    """There is no room for another subscription."""


class _Hub:
    """One subscriber: its queue, its thread, its file. `ended` is called where its time is over."""

    def __init__(
        self, callback: str, query: str, settings: SinkSettings, *, path: Path | None,
        forever: bool, ended: Callable[[], None],
    ) -> None:  # fmt: skip
        self.callback = callback
        self.query = query
        self.forever = forever  # the configuration names it
        self.trouble = ""  # why it cannot be told, "" where it can
        self._settings = settings
        self._path = path
        self._over = ended
        self._waiting: OrderedDict[str, Any] = OrderedDict()  # event id: event
        self._had: OrderedDict[str, None] = OrderedDict()
        self._kept: set[str] = set()  # of those that wait: what is in the file
        self._written = 0  # lines of the file
        self._some = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None
        for event in self._lines():
            self._kept.add(event["eventId"])
            self._written += 1
            self.put(event)

    @property
    def waiting(self) -> int:
        """How many events it has not had."""
        return len(self._waiting)

    def put(self, event: Any) -> bool:
        """Take an event that it wants; return whether it does."""
        if not wanted_by(self.query, event):
            return False
        key = event["eventId"]
        with self._some:
            if key not in self._had:
                self._waiting.setdefault(key, event)
            if self._thread is None and self._waiting:
                self._thread = threading.Thread(target=self._run, daemon=True, name="tmf642-hub")
                self._thread.start()
            self._some.notify_all()
        return True

    def had(self, key: str, seconds: float) -> bool:
        """Wait so long for it to have an event that is its next; return whether it had it."""
        with self._some:
            self._some.wait_for(
                lambda: self.trouble or self._ended or next(iter(self._waiting), "") != key, seconds
            )
            return key not in self._waiting

    def keep(self, key: str) -> None:
        """Write an event that waits to the disk. Raises OSError where that refuses."""
        with self._some:
            event = self._waiting.get(key)
            if self._path is None or event is None or key in self._kept or self._ended:
                return
            if self._written > len(self._waiting) + LINES_SPARE:  # most of it was told meanwhile
                beside = self._path.with_name(f"{self._path.name}.new")
                _write(beside, "wb", list(self._waiting.values()))
                beside.replace(self._path)
                self._kept, self._written = set(self._waiting), len(self._waiting)
                return
            _write(self._path, "ab", [event])
            self._kept.add(key)
            self._written += 1

    def _lines(self) -> Iterator[Any]:
        if self._path is None or not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            try:
                event = json.loads(line)
                if isinstance(event["eventId"], str) and isinstance(event["event"]["alarm"], dict):
                    yield event
            except (ValueError, KeyError, TypeError, RecursionError):
                _LOG.warning("event_not_read file=%s", self._path)  # half a line: it is sent again

    def _run(self) -> None:
        since_ns, wait = 0, RETRY_SECONDS_FIRST
        while True:
            with self._some:
                self._some.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                key, event = next(iter(self._waiting.items()))
            try:
                self._tell(event)
            except RefusedError as error:
                _LOG.warning("event_refused subscriber=%s error=%s", host_of(self.callback), error)
            except TransientError as error:
                since_ns = since_ns or _CLOCK.monotonic_ns()
                if isinstance(error, LaterError):
                    wait = max(wait, min(error.seconds, RETRY_SECONDS_MAX))
                if self._is_over(str(error), _CLOCK.monotonic_ns() - since_ns):
                    return
                with self._some:
                    self._some.wait_for(lambda: self._ended, wait)
                wait = min(2 * wait, RETRY_SECONDS_MAX)
                continue
            since_ns, wait = 0, RETRY_SECONDS_FIRST
            self._done(key)
            if self.waiting > WAITING_MAX and self._is_over("it takes them too slowly", 0):
                return

    def _tell(self, event: Any) -> None:
        name = event["eventType"]
        url = f"{self.callback.rstrip('/')}/listener/{name[0].lower()}{name[1:]}"
        try:
            accepted(url, ask_json(self._settings, "POST", url, event))
        except TransientError:
            raise
        except Exception as error:  # whatever it is, the others are told
            _LOG.exception("event_not_sent subscriber=%s", host_of(self.callback))
            raise TransientError(f"{type(error).__name__}: {error}") from error

    def _done(self, key: str) -> None:
        with self._some:
            self.trouble = ""
            self._waiting.pop(key, None)
            self._kept.discard(key)
            self._had[key] = None
            if len(self._had) > TOLD_MAX:
                self._had.popitem(last=False)
            if not self._waiting and self._path is not None:
                self._written = 0
                with contextlib.suppress(OSError):  # it is told again, under the same ids
                    self._path.unlink(missing_ok=True)
            self._some.notify_all()

    def _is_over(self, why: str, away_ns: int) -> bool:
        """Note that it cannot be told; return whether that has been so for too long."""
        with self._some:
            self.trouble = why
            over = away_ns > AWAY_SECONDS * 1e9 or len(self._waiting) > WAITING_MAX
            if over and self.forever:  # it is not ours to end: the oldest give way
                over, gone = False, len(self._waiting) - WAITING_MAX
                for _ in range(gone):
                    self._kept.discard(self._waiting.popitem(last=False)[0])
                if gone > 0:
                    _LOG.error(
                        "events_given_up subscriber=%s events=%d", host_of(self.callback), gone
                    )
            self._some.notify_all()
        if over:
            _LOG.error("subscription_ended subscriber=%s error=%s", host_of(self.callback), why)
            self._over()
        return over

    def end(self, *, forget: bool) -> None:
        """Stop telling it; `forget` also what waits on the disk: its file may be another's from then on."""
        with self._some:
            self._ended = True
            if forget and self._path is not None:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
                self._path = None
            self._some.notify_all()


def _write(path: Path, mode: str, events: Sequence[Any]) -> None:
    with path.open(mode) as file:
        file.write(b"".join(json.dumps(event).encode() + b"\n" for event in events))
        file.flush()
        os.fsync(file.fileno())


class Hubs:
    """All subscriptions of a sink. Called by the courier's thread and by those of the HTTP server."""

    def __init__(self, settings: SinkSettings, listeners: Sequence[str]) -> None:
        self._path = Path(settings.path) if settings.path else None
        self._settings = SinkSettings(
            kind="tmf642", timeout_seconds=settings.timeout_seconds, ca_file=settings.ca_file
        )
        self._listeners = listeners
        self._lock = threading.Lock()
        self._hubs: dict[str, _Hub] = {}
        self._began = False

    def start(self) -> None:
        """Know the subscribers and begin to tell them what waits, once. Raises OSError where that cannot be read."""
        with self._lock:
            if self._began:
                return
            for callback in self._listeners:
                self._add(id_text(stable_id(callback)), callback, "", forever=True)
            for number, hub in self._load().items():
                self._add(number, hub["callback"], hub["query"], forever=False)
            self._began = True

    def _add(self, number: str, callback: str, query: str, *, forever: bool) -> None:
        if number in self._hubs:
            return
        path = self._path and self._path.with_name(f"{self._path.name}.{number}.waiting")
        self._hubs[number] = _Hub(
            callback, query, self._settings, path=path, forever=forever,
            ended=lambda: self._end_quietly(number),
        )  # fmt: skip

    @property
    def trouble(self) -> str:
        """Which subscriber cannot be told, "" where all can."""
        with self._lock:
            hubs = list(self._hubs.values())
        for hub in hubs:
            if hub.trouble:
                return f"subscriber {host_of(hub.callback)}: {hub.trouble}; {hub.waiting} changes wait for it"
        return ""

    def tell(self, event: Any) -> str:
        """Tell everybody; return how many have it and for how many it waits. Raises TransientError where
        what waits cannot be written to the disk."""
        key = event["eventId"]
        with self._lock:
            hubs = list(self._hubs.values())
        wanting = [hub for hub in hubs if hub.put(event)]
        until_ns = _CLOCK.monotonic_ns() + round(HURRY_SECONDS * 1e9)
        later = [
            hub for hub in wanting
            if not hub.had(key, max(until_ns - _CLOCK.monotonic_ns(), 0) / 1e9)
        ]  # fmt: skip
        try:
            for hub in later:
                hub.keep(key)
        except OSError as error:
            raise TransientError(f"{self._path}: {error.strerror}") from error
        said = f"{len(wanting) - len(later)} subscribers told"
        return f"{said}, {len(later)} later" if later else said

    def subscribe(self, callback: str, query: str) -> str:
        """Add a subscription; return its number. Raises TooManyError, and OSError where it cannot be kept."""
        number = id_text(stable_id(f"{callback}|{query}"))
        with self._lock:
            if number not in self._hubs:
                if len(self._hubs) >= HUBS_MAX:
                    raise TooManyError(f"at most {HUBS_MAX} subscriptions")
                self._add(number, callback, query, forever=False)
                try:
                    self._save()
                except OSError:
                    self._hubs.pop(number).end(forget=True)
                    raise
        return number

    def unsubscribe(self, number: str) -> bool:
        """End a subscription that a client made; return whether there is one. Raises OSError."""
        with self._lock:
            hub = self._hubs.get(number)
            if hub is None or hub.forever:
                return False
            del self._hubs[number]
            hub.end(forget=True)
            self._save()
        return True

    def _end_quietly(self, number: str) -> None:
        try:
            self.unsubscribe(number)
        except OSError as error:
            _LOG.error("subscriptions_not_written file=%s error=%s", self._path, error)

    def close(self) -> None:
        """Stop telling; what waits on the disk is told by the next that is made."""
        with self._lock:
            for hub in self._hubs.values():
                hub.end(forget=False)

    def _load(self) -> dict[str, dict[str, str]]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=dict[str, dict[str, str]])
            if any(hub.keys() != {"callback", "query", "kept"} for hub in kept.values()):
                raise DecodeError("corrupt", "these are no subscriptions")
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, DecodeError) as error:
            aside = self._path.with_name(f"{self._path.name}.damaged")
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            _LOG.error("subscriptions_set_aside file=%s error=%s", aside, error)
            return {}
        return kept

    def _save(self) -> None:
        if self._path is None:
            return
        kept = {
            number: {"callback": hub.callback, "query": hub.query, "kept": "yes"}
            for number, hub in self._hubs.items() if not hub.forever
        }  # fmt: skip
        beside = self._path.with_name(self._path.name + ".new")
        beside.write_text(json.dumps(kept), "utf-8")
        beside.replace(self._path)
