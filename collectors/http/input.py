"""A small HTTP server for what other systems push: TLS, credentials, and limits on all a peer may cost.

A thread for each connection, of which there is a maximum, also for each peer address. A request must
come in whole within `request_seconds_max`; its body has a maximum, also once unpacked.
"""

import contextlib
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from collectors.foreign_text import json_of
from collectors.http.body import BLOCK_BYTES, Body, HttpRefusedError, TooSlowError
from collectors.http.credentials import Credentials, HttpInputSettings, is_loopback, server_tls
from runtime.component import Context
from telemetry.errors import ConfigError, TransientError

DRAIN_BYTES = 1_048_576  # of a body that is refused
DRAIN_SECONDS = 0.5
SWEEP_SECONDS = 0.25
MINUTE_NS = 60_000_000_000
TOLD_MAX = 1024  # peers and reasons whose last line is remembered
WHY = ("connections", "peer_connections", "gave_way", "tls", "credentials", "too_large", "too_slow", "refused",
       "not_journalled")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Response:
    """What a request is answered with."""

    status: int = 204
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """One request; the body is read as far as the handler wants it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    peer: str  # address
    blocks: Iterator[bytes]  # of the body, unpacked, bounded
    user: str = ""

    def body(self) -> bytes:
        """Return the whole body, or raise HttpRefusedError."""
        return b"".join(self.blocks)

    def body_json(self) -> Any:
        """Return the body as a JSON value; raise HttpRefusedError where it is none."""
        try:
            return json_of(self.body())
        except ValueError as error:
            raise HttpRefusedError(400, f"the body is no JSON: {error}") from error


Handler = Callable[[Request], Response]
Refusal = Callable[[int, str], Response]


def plain_refusal(status: int, sentence: str) -> Response:
    """Return an error as JSON: {"error": sentence}."""
    return Response(status, json.dumps({"error": sentence}).encode())


class HttpInput:
    """Listens, checks who asks, and hands requests to `handler`, from many threads."""

    def __init__(
        self,
        settings: HttpInputSettings,
        context: Context,
        handler: Handler,
        *,
        refusal: Refusal = plain_refusal,
    ) -> None:
        """Check the settings and read their files, or raise ConfigError."""
        self._settings = settings
        self._context = context
        self._handler = handler
        self._refusal = refusal
        parts = urlsplit(settings.listen)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
            raise ConfigError(f"listen = {settings.listen!r} is no http(s)://host:port")
        self._address = (parts.hostname, port)
        self._gate = Credentials(settings)
        if not (self._gate.wanted or settings.open_to_all or is_loopback(parts.hostname)):
            raise ConfigError(
                f"listen = {settings.listen!r} can be reached from outside: name users_file, "
                "token_file or client_ca_file, or say open_to_all = true"
            )
        self._tls = server_tls(settings, self._gate) if parts.scheme == "https" else None
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[int, int]] = {}  # when said last, unsaid since
        self._refused = context.metrics.counter(
            "http_input_refused_total",
            "requests and connections not taken",
            label="why",
            values=WHY,
        )
        self._requests = context.metrics.counter(
            "http_input_requests_total", "requests answered", label="status",
            values=("2xx", "4xx", "5xx"),
        )  # fmt: skip

    @property
    def port(self) -> int:
        """The port it listens on, 0 before the start."""
        return self._server.server_port if self._server else 0

    def start(self) -> None:
        """Bind and serve from threads, or raise ConfigError."""
        try:
            self._server = _Server(self._address, self, self._gate, self._tls)
        except OSError as error:
            raise ConfigError(
                f"listen = {self._settings.listen!r}: {error.strerror or error}; choose another port"
            ) from error
        threading.Thread(
            target=self._server.serve_forever, args=(SWEEP_SECONDS,), daemon=True,
            name=self._context.name,
        ).start()  # fmt: skip

    def stop(self) -> None:
        """Close the listening socket and every connection."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None

    def refuse(self, why: str, peer: str, detail: object = "") -> None:
        """Count what was not taken, and log it: of one peer and reason once a minute."""
        self._refused.add(why)
        now_ns = self.monotonic_ns()
        with self._lock:
            told_ns, unsaid = self._told.get((peer, why), (-MINUTE_NS, 0))
            silent = now_ns - told_ns < MINUTE_NS
            if len(self._told) >= TOLD_MAX:
                self._told.clear()
            self._told[peer, why] = (told_ns, unsaid + 1) if silent else (now_ns, 0)
        if not silent:
            more = f" ({unsaid} more since the last line)" if unsaid else ""
            self._context.log.warning("http_refused peer=%s why=%s %s%s", peer, why, detail, more)

    def answer(self, request: Request) -> Response:
        """Return what the handler says; what it raises becomes an answer as well."""
        try:
            made = self._handler(request)
        except HttpRefusedError as error:
            self.refuse("too_large" if error.status == 413 else "refused", request.peer, error)
            made = self._refusal(error.status, str(error))
        except TransientError as error:
            self.refuse("not_journalled", request.peer, error)
            made = self._refusal(503, "the node does not take records at the moment; try again")
        except TooSlowError:
            self.refuse("too_slow", request.peer)
            made = self._refusal(408, "the request did not come in whole in time")
        except Exception:  # the edge of a connection's thread
            self._context.log.exception("http_handler_broken path=%s", request.path)
            made = self._refusal(500, "our own fault; it is in the log")
        self._requests.add(f"{made.status // 100}xx")
        return made

    @property
    def settings(self) -> HttpInputSettings:
        """What it was made with."""
        return self._settings

    @property
    def monotonic_ns(self) -> Callable[[], int]:
        """The clock that its time limits go by."""
        return self._context.clock.monotonic_ns

    def unauthorised(self, peer: str) -> Response:
        """Return the answer to a request without good credentials."""
        self.refuse("credentials", peer)
        self._requests.add("4xx")
        made = self._refusal(401, "credentials are missing or wrong")
        return Response(
            401, made.body, made.content_type, {"WWW-Authenticate": 'Basic realm="tocsin"'}
        )


class _Server(ThreadingHTTPServer):
    """The listening socket, its connections and their deadlines."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        owner: HttpInput,
        gate: Credentials,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.owner = owner
        self.gate = gate
        self._tls = tls
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, str] = {}
        self._strangers: dict[socket.socket, str] = {}  # that asked nothing yet, the oldest first
        self.deadlines: dict[socket.socket, int] = {}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind without asking name servers what we are called."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or close it where there are too many."""
        peer = peer_text(client_address[0])
        settings = self.owner.settings
        with self._lock:
            of_peer = Counter(self._connections.values())[peer]
            full = len(self._connections) >= settings.connections_max
            why = ""
            if of_peer >= settings.connections_per_peer_max:
                why = "" if self._makes_way(peer) else "peer_connections"
            elif full:
                why = "" if self._makes_way() else "connections"
            if not why:
                self._connections[request] = self._strangers[request] = peer
        if why:
            self.owner.refuse(why, peer)
            super().shutdown_request(request)
            return
        self.until(request, settings.request_seconds_max)  # the TLS handshake has a limit, too
        super().process_request(request, client_address)

    def _makes_way(self, peer: str = "") -> bool:
        """End the connection (of a peer) that has asked nothing for the longest; False: all have asked."""
        for connection, whose in self._strangers.items():
            if peer in ("", whose):
                self.owner.refuse("gave_way", whose)
                del self._strangers[connection], self._connections[connection]
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                return True
        return False

    def known(self, connection: Any) -> None:
        """One of its requests was let in."""
        with self._lock:
            self._strangers.pop(connection, None)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands and serve; runs in the connection's own thread."""
        peer = peer_text(client_address[0])
        request.settimeout(self.owner.settings.idle_seconds_max)
        stream = request
        try:
            if self._tls is not None:
                stream = self._tls.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
                with self._lock:  # the plain socket is detached: the deadline is for the new one
                    for held in (self._connections, self._strangers):
                        if request in held:  # else it gave way
                            held[stream] = held.pop(request)
                    self.deadlines[stream] = self.deadlines.pop(request, 0)
                stream.do_handshake()
        except (OSError, ValueError) as error:
            self.owner.refuse("tls", peer, f"error={error}")
            self.shutdown_request(stream)
            return
        try:
            _Connection(stream, client_address, self)
        finally:
            self.shutdown_request(stream)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ended."""
        with self._lock:
            self._connections.pop(request, None)
            self._strangers.pop(request, None)
            self.deadlines.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is the peer's business."""

    def until(self, connection: Any, seconds: float) -> None:
        """Close the connection unless what goes on is over in so many seconds; 0 = no limit."""
        end_ns = self.owner.monotonic_ns() + round(seconds * 1e9) if seconds else 0
        with self._lock:
            self.deadlines[connection] = end_ns

    def service_actions(self) -> None:
        """Close what is over time; called several times a second."""
        now_ns = self.owner.monotonic_ns()
        with self._lock:
            late = [c for c, end_ns in self.deadlines.items() if end_ns and end_ns < now_ns]
        for connection in late:
            self.owner.refuse("too_slow", self._connections.get(connection, ""))
            self.until(connection, 0)
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def end_connections(self) -> None:
        """Close every connection."""
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    """One connection: requests one after the other."""

    protocol_version = "HTTP/1.1"
    server: _Server
    rfile: BufferedReader  # http.server makes it so

    def handle_one_request(self) -> None:
        """Wait for a request without a limit but that of idleness; with its first byte its time begins."""
        self.server.until(self.connection, 0)
        try:
            self.rfile.peek(1)
        except OSError:  # idle for too long, or gone
            self.close_connection = True
            return
        self.server.until(self.connection, self.server.owner.settings.request_seconds_max)
        super().handle_one_request()

    def _serve(self) -> None:
        owner = self.server.owner
        peer = peer_text(self.client_address[0])
        with_certificate = bool(
            isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert()
        )
        user = self.server.gate.user(self.headers.get("Authorization", ""), with_certificate)
        if user is None:
            self.close_connection = True  # the body stays unread
            self._send(owner.unauthorised(peer))
            self._drain()
            return
        self.server.known(self.connection)
        parts = urlsplit(self.path)
        body = Body(self.rfile, self.headers, owner.settings.body_bytes_max)
        request = Request(
            self.command,
            unquote(parts.path),
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in self.headers.items()},
            peer,
            body.blocks(),
            user,
        )
        made = owner.answer(request)
        self.server.until(self.connection, owner.settings.request_seconds_max)
        if not body.whole:
            self.close_connection = True
        self._send(made)
        if not body.whole:
            self._drain()

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # http.server's names

    def _drain(self) -> None:
        """Read some of what still comes, so that a client that is sending gets to read our answer."""
        left = DRAIN_BYTES
        with contextlib.suppress(OSError):
            self.connection.settimeout(DRAIN_SECONDS)
            while left > 0 and (block := self.rfile.read1(min(left, BLOCK_BYTES))):
                left -= len(block)

    def _send(self, made: Response) -> None:
        self.send_response(made.status)
        for name, value in made.headers.items():
            self.send_header(name, value)
        if made.body:
            self.send_header("Content-Type", made.content_type)
        if made.status != 204:
            self.send_header("Content-Length", str(len(made.body)))
        if made.status == 503:
            self.send_header("Retry-After", "5")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(made.body)

    def version_string(self) -> str:
        """Say no versions to strangers."""
        return "tocsin"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def peer_text(address: str) -> str:
    """Return an address as people write it: IPv4 that came through an IPv6 socket as dotted quad."""
    return address.removeprefix("::ffff:") if "." in address else address
