"""The metrics page and health of a `sensor`: two texts over HTTP/1, for a scraper and a load balancer.

Requests for a page are all it knows. http.server, which knows more, brings mail, HTML and OpenSSL into
a process that may need none of them: 8 MB on an edge box. A peer takes one of four threads, for five
seconds at most; whoever finds none free waits in the kernel.
"""

import contextlib
import errno
import socket
import threading
from logging import Logger

from runtime.bus import RequestClient
from runtime.clock import Clock
from telemetry.errors import ConfigError, TransientError
from tocsin import verbs

THREADS = 4
WAITING_MAX = 64
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
        self._socket: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port it listens on, 0 where it does not."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    def start(self) -> None:
        """Bind and serve from threads, or raise ConfigError."""
        host, _, port = self._listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, int(port)), family=family, backlog=WAITING_MAX)
        except OSError as error:
            why = str(error.strerror).partition(" (while")[0]  # the address is said by us
            raise ConfigError(
                f"api.metrics_listen = {self._listen!r}: {why}; give an address of this "
                f"machine with a free port, such as 127.0.0.1:8470"
            ) from error
        self._client = RequestClient(self._node_address)
        self._socket = listening
        for _ in range(THREADS):
            thread = threading.Thread(target=self._serve, args=(listening,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def start_when_free(self, log: Logger) -> None:
        """Start, if need be later: that another program has the port must keep no alert."""
        try:
            self.start()
        except ConfigError as error:
            log.error("pages_not_served why='%s' what_now='alerts go out all the same'", error)
            threading.Thread(target=self._start_later, daemon=True).start()

    def _start_later(self) -> None:
        while self._socket is None:
            self._clock.sleep(AGAIN_SECONDS)
            with contextlib.suppress(ConfigError):
                self.start()

    def stop(self) -> None:
        """Close the listening socket; answers under way are finished."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends the wait of all threads
        for thread in self._threads:
            thread.join(REQUEST_SECONDS_MAX)
        self._socket.close()
        self._socket = None
        self._client.close()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EBADF):  # stopped
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._clock.sleep(AGAIN_SECONDS)
                continue  # else: the peer went before it was its turn
            with connection, contextlib.suppress(OSError):  # one that goes while it is answered
                request = self._request(connection)
                try:
                    response = self._response(request)
                except Exception:  # noqa: BLE001  # a thread that ended would answer nobody again
                    response = self._response(503)
                connection.sendall(response)

    def _request(self, connection: socket.socket) -> bytes | int:
        """Return the head of a request, or the status that says why there is none."""
        head = b""
        until_ns = self._clock.monotonic_ns() + round(REQUEST_SECONDS_MAX * 1e9)
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left_seconds = (until_ns - self._clock.monotonic_ns()) / 1e9
            if left_seconds <= 0.0:
                return 408
            if len(head) >= REQUEST_BYTES_MAX:
                return 431
            connection.settimeout(left_seconds)
            try:
                more = connection.recv(REQUEST_BYTES_MAX)
            except TimeoutError:
                return 408
            if not more:
                return 400
            head += more
        return head

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
