"""HTTP of the TMF642 sink: requests in whole and in time, of so many peers at once, and answers in JSON.

Source: RFC 9112 (HTTP/1.1); TMF630 part 1 section 3.4 (errors).
"""

import io
import json
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from alerting.sinks.hearing import Hearing
from telemetry.errors import TransientError

PEERS_MAX = 128  # connections at one time: the sinks of this process need some for themselves
REQUEST_SECONDS = 10.0  # in which a request has come whole, and the next one has begun
BODY_BYTES_MAX = 1024 * 1024
LINE_BYTES_MAX = 256
TRAILERS_MAX = 100
_LOG = logging.getLogger("tocsin.sinks.tmf642")
Answered = tuple[int, Any, dict[str, str]]  # status, body (None = none), headers


class Refuse(Exception):  # noqa: N818  # an answer, not an error of ours
    """A request that is answered with a status and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _data_of(asked: BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request, or refuse a length that is none: a negative one would read without end."""
    said = asked.headers.get("Content-Length") or "0"
    # What follows a refused one is no request.
    ends, asked.close_connection = asked.close_connection, True
    if "chunked" in asked.headers.get("Transfer-Encoding", "").lower():
        data = _chunks_of(asked)
    elif not (said.isascii() and said.isdigit()):
        raise Refuse(400, f"Content-Length {said[:40]!r} is no number")
    else:
        size = _fits(int(said) if len(said) < 10 else BODY_BYTES_MAX + 1)
        data = asked.rfile.read(size) if size else b""
    asked.close_connection = ends
    return data


def _fits(size: int) -> int:
    if size > BODY_BYTES_MAX:
        raise Refuse(413, f"a body has at most {BODY_BYTES_MAX} bytes")
    return size


def _chunks_of(asked: BaseHTTPRequestHandler) -> bytes:
    """Return a body that comes in chunks (RFC 9112, section 7.1), as many clients in Java send theirs."""
    made, none = b"", Refuse(400, "this is no chunked body")
    while True:
        said = asked.rfile.readline(LINE_BYTES_MAX).partition(b";")[0].strip()
        if not said or len(said) > 8 or said.strip(b"0123456789abcdefABCDEF"):
            raise none
        size = int(said, 16)
        _fits(len(made) + size)
        if not size:
            break
        part = asked.rfile.read(size + 2)
        if part[size:] != b"\r\n":
            raise none
        made += part[:size]
    for _ in range(TRAILERS_MAX):
        if not asked.rfile.readline(LINE_BYTES_MAX).strip():
            return made
    raise none


def server(
    address: tuple[str, int], answer: Callable[[str, str, str, bytes], Answered]
) -> ThreadingHTTPServer:
    """Return a server that is bound: `answer` is given method, target, authorization and body of each request
    by a thread of its connection, and may raise Refuse. Raises OSError."""
    seconds, peers = REQUEST_SECONDS, threading.Semaphore(PEERS_MAX)

    class Handler(BaseHTTPRequestHandler):
        timeout = seconds
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.rfile.close()
            self._hearing = Hearing(self.connection, seconds)
            self.rfile = io.BufferedReader(self._hearing)

        def handle_one_request(self) -> None:
            self._hearing.wait(seconds)
            super().handle_one_request()

        def _do(self) -> None:
            _respond(self, answer)

        do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815  # http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each request."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = PEERS_MAX
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

        def process_request(self, request: Any, client_address: Any) -> None:
            if not peers.acquire(blocking=False):
                self.shutdown_request(request)
                return
            try:
                super().process_request(request, client_address)
            except BaseException:  # there is no thread for it
                peers.release()
                raise

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                peers.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away in the middle is no error of ours."""

    return Server(address, Handler)


def _respond(
    asked: BaseHTTPRequestHandler, answer: Callable[[str, str, str, bytes], Answered]
) -> None:
    headers: dict[str, str] = {}
    try:
        authorization = asked.headers.get("Authorization", "")
        status, body, headers = answer(asked.command, asked.path, authorization, _data_of(asked))
    except Refuse as refused:
        status, body = refused.status, _error(refused.status, str(refused))
    except TimeoutError:
        status, body = 408, _error(408, "the body did not come")
    # A secret or a disk that cannot be read or written.
    except (TransientError, OSError) as error:
        status, body = 503, _error(503, str(error))
    except Exception as error:  # noqa: BLE001  # who asked is answered, whatever it is
        _LOG.exception("request_failed method=%s", asked.command)
        status, body = 500, _error(500, f"this was not foreseen: {type(error).__name__}")
    text = b"" if body is None else json.dumps(body).encode()
    asked.send_response(status)
    for name, value in {"Content-Type": "application/json;charset=utf-8", **headers}.items():
        asked.send_header(name, value)
    asked.send_header("Content-Length", str(len(text)))
    asked.end_headers()
    asked.wfile.write(text)


def _error(status: int, reason: str) -> dict[str, str]:
    return {"code": str(status), "reason": reason, "status": str(status)}
