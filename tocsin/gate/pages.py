"""The metrics page and health of a `sensor`: two texts over HTTP/1, for a scraper and a load balancer.

Requests for a page are all it knows. http.server, which knows more, brings mail, HTML and OpenSSL into
a process that may need none of them: 8 MB on an edge box. One thread hears all peers, each for five
seconds at most, and the ones that have been silent the longest give way to new ones; who asked in whole
is answered by one of four threads.
"""

import contextlib
import errno
import queue
import selectors
import socket
import threading
from logging import Logger

from runtime.bus import RequestClient
from runtime.clock import Clock
from telemetry.errors import ConfigError, TransientError
from tocsin import verbs

THREADS = 4
PEERS_MAX = 128  # that have not asked in whole yet
WAITING_MAX = 64  # for one of the threads
REQUEST_SECONDS_MAX = 5.0
REQUEST_BYTES_MAX = 8192
AGAIN_SECONDS = 1.0
REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable",
}  # fmt: skip


class Pages:
    """Serves /metrics and /health of the node that listens at `node_address`."""

    def __init__(self, listen: str, node_address: str, clock: Clock) -> None:
        self._listen = listen
        self._node_address = node_address
        self._clock = clock
        self._asking = threading.Lock()
        self._turn = threading.Lock()  # of who starts or stops it
        self._ended = False
        self._socket: socket.socket | None = None
        # Until when, what it said; oldest first.
        self._peers: dict[socket.socket, tuple[int, bytes]] = {}
        self._asked: queue.Queue[tuple[socket.socket, bytes | int] | None] = queue.Queue(
            WAITING_MAX
        )
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port it listens on, 0 where it does not."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    def start(self) -> None:
        """Bind and serve from threads, or raise ConfigError. Once stopped it stays so."""
        with self._turn:
            if not self._ended:
                self._serve(self._bound())

    def _bound(self) -> socket.socket:
        host, _, port = self._listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, int(port)), family=family, backlog=PEERS_MAX)
        except OSError as error:
            why = str(error.strerror).partition(" (while")[0]  # the address is said by us
            raise ConfigError(
                f"api.metrics_listen = {self._listen!r}: {why}; give an address of this "
                f"machine with a free port, such as 127.0.0.1:8470"
            ) from error
        listening.setblocking(False)
        return listening

    def _serve(self, listening: socket.socket) -> None:
        try:
            self._selector = selectors.DefaultSelector()
            self._selector.register(listening, selectors.EVENT_READ)
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"api.metrics_listen = {self._listen!r}: {error.strerror}; raise LimitNOFILE or what "
                f"this machine allows of it"
            ) from error
        self._client = RequestClient(self._node_address)
        self._socket = listening
        hears = threading.Thread(target=self._hear, args=(listening,), daemon=True)
        answer = (threading.Thread(target=self._answer, daemon=True) for _ in range(THREADS))
        self._threads = [hears, *answer]
        for thread in self._threads:
            thread.start()

    def start_when_free(self, log: Logger) -> None:
        """Start, if need be later: that another program has the port must keep no alert."""
        try:
            self.start()
        except ConfigError as error:
            log.error("pages_not_served why='%s' what_now='alerts go out all the same'", error)
            threading.Thread(target=self._start_later, daemon=True).start()

    def _start_later(self) -> None:
        while self._socket is None and not self._ended:
            self._clock.sleep(AGAIN_SECONDS)
            with contextlib.suppress(ConfigError):
                self.start()

    def stop(self) -> None:
        """Close the listening socket; answers under way are finished."""
        with self._turn:
            self._ended = True
            if self._socket is None:
                return
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # ends the wait of the one that hears
            for thread in self._threads:
                thread.join(REQUEST_SECONDS_MAX)
            self._socket.close()
            self._socket = None
            self._client.close()

    def _hear(self, listening: socket.socket) -> None:
        """Take peers and what they say until told to stop; hand over who asked in whole."""
        with self._selector:
            going = True
            while going:
                for key, _ in self._selector.select(self._seconds_left()):
                    peer = key.fileobj
                    assert isinstance(peer, socket.socket)
                    if peer is listening:
                        going = self._accept(listening)
                    elif peer in self._peers:
                        self._read(peer)
                while self._peers and self._seconds_left() == 0.0:
                    self._ask(next(iter(self._peers)), 408)
            for peer in list(self._peers):
                self._forget(peer).close()
        for _ in range(THREADS):
            self._asked.put(None)

    def _seconds_left(self) -> float | None:
        """Return when the oldest peer has had its time, None where there is none."""
        for until_ns, _ in self._peers.values():
            return max((until_ns - self._clock.monotonic_ns()) / 1e9, 0.0)
        return None

    def _accept(self, listening: socket.socket) -> bool:
        """Take one more peer; return whether to go on."""
        try:
            peer, _ = listening.accept()
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EBADF):  # stopped
                return False
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                if self._peers:
                    self._forget(next(iter(self._peers))).close()
                else:
                    self._clock.sleep(AGAIN_SECONDS)
            return True  # else: the peer went before it was its turn
        if len(self._peers) >= PEERS_MAX:
            self._forget(next(iter(self._peers))).close()
        peer.setblocking(False)
        try:
            self._selector.register(peer, selectors.EVENT_READ)
        except OSError:  # this machine hears no more of them at once
            peer.close()
            return True
        self._peers[peer] = self._clock.monotonic_ns() + round(REQUEST_SECONDS_MAX * 1e9), b""
        return True

    def _read(self, peer: socket.socket) -> None:
        """Take what a peer says."""
        until_ns, head = self._peers[peer]
        try:
            more = peer.recv(REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # it is gone
            self._forget(peer).close()
            return
        head += more
        self._peers[peer] = until_ns, head
        if b"\r\n\r\n" in head or b"\n\n" in head:
            self._ask(peer, head)
        elif not more:
            self._ask(peer, 400)
        elif len(head) >= REQUEST_BYTES_MAX:
            self._ask(peer, 431)

    def _forget(self, peer: socket.socket) -> socket.socket:
        del self._peers[peer]
        self._selector.unregister(peer)
        return peer

    def _ask(self, peer: socket.socket, request: bytes | int) -> None:
        """Hand over the head of a request, or the status that says why there is none."""
        try:
            self._asked.put_nowait((self._forget(peer), request))
        except queue.Full:
            peer.close()

    def _answer(self) -> None:
        """Answer who asked, one after the other, until told to stop."""
        while (asked := self._asked.get()) is not None:
            peer, request = asked
            with peer, contextlib.suppress(OSError):  # one that goes while it is answered
                peer.settimeout(REQUEST_SECONDS_MAX)
                try:
                    response = self._response(request)
                except Exception:  # noqa: BLE001  # a thread that ended would answer nobody again
                    response = self._response(503)
                peer.sendall(response)

    def _response(self, request: bytes | int) -> bytes:
        """Return the whole response, as bytes."""
        status, text = self._page(request) if isinstance(request, bytes) else (request, "")
        body = (text or REASONS[status]).encode()
        allow = "Allow: GET, HEAD\r\n" if status == 405 else ""
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\n{allow}"
            f"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        asked_for_head = isinstance(request, bytes) and request.startswith(b"HEAD ")
        return head.encode() + (b"" if asked_for_head else body)

    def _page(self, request: bytes) -> tuple[int, str]:
        """Return the status and the text that a request gets; the node renders the pages."""
        words = request.split(b"\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, ""
        if words[0] not in (b"GET", b"HEAD"):
            return 405, ""
        path = words[1].partition(b"?")[0]
        try:
            with self._asking:
                if path == b"/metrics":
                    made = self._client.ask("metrics", verbs.Nothing(), verbs.MetricsText)
                    return 200, made.text
                if path == b"/health":
                    status = self._client.ask("status", verbs.Nothing(), verbs.Status)
                    return 200, "\n".join(status.health) or "ok"
        except TransientError as error:
            return 503, str(error)
        return 404, "There is /metrics and /health."
