"""The sources of the gate: started, stopped, told of; and the line over which they offer to the node.

Imported only where the configuration has sources: batches need numpy, which the gate does without.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import zmq

from collectors.sources import Source, SourceSettings, make_source
from runtime.bus import MESSAGE_BYTES_MAX, Doorbell
from runtime.component import Context
from runtime.journal import pack
from telemetry.batch import Batch
from telemetry.errors import BugError, TocsinError, TransientError
from tocsin import verbs
from tocsin.verbs import SourceStatus

IN_FLIGHT_MAX = 64  # offers of one source that wait for their answer
STOP_SECONDS = 5.0
LAST_WORDS_SECONDS = 1.0  # the node may be ending too: nobody waits for its answer for long
TRIES, TRY_MS = 40, 50  # to reach a node, such as one that starts
IDLE_MS = 200
_NUMBER_BYTES = 8


class _Asked:
    """One offer under way."""

    __slots__ = ("answered", "body", "tries", "trouble")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.answered = threading.Event()
        self.trouble = ""
        self.tries = 0


class OfferLine:
    """One DEALER socket to the node for all sources, owned by a thread of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._bell = Doorbell()
        self._lock = threading.Lock()
        self._new: deque[tuple[bytes, _Asked]] = deque()
        self._asked: dict[bytes, _Asked] = {}
        self._number = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="offers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it; whoever waits is told that there was no answer."""
        self._ended = True
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def ask(self, offer: verbs.Offered) -> None:
        """Return when the node has journalled the offer, or raise TransientError."""
        asked = _Asked(msgspec.msgpack.encode(offer))
        if len(asked.body) > MESSAGE_BYTES_MAX:
            raise BugError(f"source {offer.source} offers {len(asked.body)} bytes at once")
        with self._lock:
            self._number += 1
            number = self._number.to_bytes(_NUMBER_BYTES, "little")
            self._asked[number] = asked
            self._new.append((number, asked))
        self._bell.ring()
        in_time = asked.answered.wait(verbs.JOURNALLED_SECONDS)
        with self._lock:
            self._asked.pop(number, None)
        if not in_time:
            raise TransientError(f"the node did not answer within {verbs.JOURNALLED_SECONDS:g} s")
        if asked.trouble:
            raise TransientError(asked.trouble)

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)  # what is under way is bounded by source
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a node that is away
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        socket.connect(self._address)
        self._bell.watch(socket)
        while not self._ended:
            self._bell.wait(IDLE_MS if self._send(socket) else TRY_MS)
            self._hear(socket)
        with self._lock:
            for asked in self._asked.values():
                asked.trouble = "the gate stops"
                asked.answered.set()
        socket.close()
        context.term()

    def _send(self, socket: "zmq.Socket[bytes]") -> bool:
        """Send what is new; return False where the node is not there and offers wait for it."""
        while True:
            with self._lock:
                while self._new and self._new[0][0] not in self._asked:
                    self._new.popleft()  # given up meanwhile: its source was told so
                if not self._new:
                    return True
                number, asked = self._new[0]
            try:
                socket.send_multipart([number, b"offer", asked.body], zmq.NOBLOCK)
            except zmq.Again:
                asked.tries += 1
                if asked.tries < TRIES:
                    return False
                asked.trouble = "the node is away"
                asked.answered.set()
            with self._lock:
                if self._new and self._new[0][0] == number:
                    self._new.popleft()

    def _hear(self, socket: "zmq.Socket[bytes]") -> None:
        while True:
            try:
                number, status, body = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue
            with self._lock:
                asked = self._asked.get(number)
            if asked is not None:
                asked.trouble = "" if status == b"ok" else body.decode(errors="replace")
                asked.answered.set()


class _Offer:
    """What one source calls (`collectors.sources.Offer`)."""

    def __init__(self, name: str, line: OfferLine) -> None:
        self._name = name
        self._line = line
        self._room = threading.BoundedSemaphore(IN_FLIGHT_MAX)
        self.rows = 0
        self.refused = 0

    def __call__(self, batches: Sequence[Batch], *, token: str = "") -> None:
        some = [batch for batch in batches if batch.rows]
        if not some and not token:
            return
        if not self._room.acquire(timeout=verbs.JOURNALLED_SECONDS):
            self.refused += 1
            raise TransientError(
                f"{IN_FLIGHT_MAX} offers of {self._name} wait for the node already"
            )
        try:
            self._line.ask(verbs.Offered(source=self._name, token=token, data=pack(some)))
        except TransientError:
            self.refused += 1
            raise
        finally:
            self._room.release()
        self.rows += sum(batch.rows for batch in some)


class Sources:
    """All sources of the configuration. One that cannot start is told, the others go on."""

    def __init__(
        self,
        settings: Mapping[str, SourceSettings],
        state: Path,
        context_of: Callable[[str], Context],
    ) -> None:
        self._settings = settings
        self._state = state
        self._context_of = context_of
        self._line = OfferLine(f"ipc://{state}/node.sock")
        self._sources: dict[str, Source] = {}
        self._offers: dict[str, _Offer] = {}
        self._wrong: dict[str, str] = {}

    def start(self) -> None:
        """Start all of them."""
        self._line.start()
        for name, settings in self._settings.items():
            context = self._context_of(f"sources.{name}")
            self._offers[name] = _Offer(name, self._line)
            folder = self._state / "sources" / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                source = make_source(name, settings, context, self._offers[name], folder)
                source.start()
            except (TocsinError, OSError) as error:  # of one: the others and the sinks go on
                self._wrong[name] = f"source {name} was not started: {error}"
                context.log.error("source_not_started name=%s error='%s'", name, error)
                continue
            self._sources[name] = source

    def statuses(self) -> list[SourceStatus]:
        """Return each source at a glance."""
        made = []
        for name, settings in self._settings.items():
            health = self._wrong.get(name, "")
            if name in self._sources and (trouble := self._sources[name].health()):
                health = f"source {name}: {trouble}"
            offer = self._offers[name]
            made.append(
                SourceStatus(
                    name=name,
                    kind=settings.kind,
                    health=health,
                    offered=offer.rows,
                    refused=offer.refused,
                )
            )
        return made

    def stop(self) -> None:
        """Stop all of them at once. What waits for the node waits a second more, then is refused."""
        line_ends = threading.Timer(LAST_WORDS_SECONDS, self._line.stop)
        line_ends.start()
        threads = [
            threading.Thread(target=source.stop, daemon=True) for source in self._sources.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(STOP_SECONDS)
        line_ends.cancel()
        self._line.stop()
