"""The pages of a sensor: what a scraper gets, and what a peer that asks badly may cost."""

import contextlib
import errno
import http.client
import logging
import selectors
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from runtime.bus import RequestServer
from runtime.clock import SteadyClock
from telemetry.errors import ConfigError
from tocsin import verbs
from tocsin.gate.pages import REQUEST_BYTES_MAX, REQUEST_SECONDS_MAX, Pages

CLOCK = SteadyClock()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """Something that answers as a node does; gives its address."""
    address = f"ipc://{tmp_path}/node.sock"
    server = RequestServer(address)
    fields = msgspec.structs.fields(verbs.Status)
    empty = {one.name: 0 for one in fields if one.required}
    status = empty | {
        "version": "", "profile": "sensor", "ready": True, "budget_used": 0.0, "budget_per_day": 0.0,
        "listeners": [], "health": ["journal: the disk is full"],
    }  # fmt: skip
    server.handle("metrics", verbs.Nothing, lambda _: verbs.MetricsText("tocsin_up 1\n"))
    server.handle("status", verbs.Nothing, lambda _: msgspec.convert(status, verbs.Status))
    server.start()
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            server.socket.poll(20)
            server.serve()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    yield address
    ended.set()
    thread.join(30)
    server.stop()


@pytest.fixture
def pages(node: str) -> Iterator[Pages]:
    made = Pages("127.0.0.1:0", node, SteadyClock())
    made.start()
    yield made
    made.stop()


def answer(pages: Pages, request: bytes) -> tuple[bytes, bytes]:
    """Return the status line and the body that a request gets."""
    with socket.create_connection(("127.0.0.1", pages.port), 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    return head.split(b"\r\n", 1)[0], body


def test_an_ordinary_client_reads_both_pages(pages: Pages) -> None:
    for path, text in (
        ("/metrics", "tocsin_up 1\n"),
        ("/health?probe=1", "journal: the disk is full"),
    ):
        client = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=10)
        client.request("GET", path, headers={"Accept": "text/plain", "User-Agent": "Prometheus/3"})
        response = client.getresponse()
        assert response.status == 200
        assert response.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
        assert response.read().decode() == text
        client.close()


@pytest.mark.parametrize(
    ("request_bytes", "status", "body"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found", b"There is /metrics and /health."),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK", b""),
        (b"GET /metrics HTTP/1.0\n\n", b"200 OK", b"tocsin_up 1\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"Method Not Allowed"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request", b"Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400 Bad Request", b"Bad Request"),
        (b"GET /metrics HTTP/1.1\r\n", b"400 Bad Request", b"Bad Request"),
        (b"", b"400 Bad Request", b"Bad Request"),
        (b"x" * REQUEST_BYTES_MAX, b"431 Request Header Fields Too Large",
         b"Request Header Fields Too Large"),
    ],
    ids=["other", "head", "http-1.0", "post", "http-0.9", "tls", "cut", "nothing", "too-long"],
)  # fmt: skip
def test_each_request_has_its_answer(
    pages: Pages, request_bytes: bytes, status: bytes, body: bytes
) -> None:
    assert answer(pages, request_bytes) == (b"HTTP/1.1 " + status, body)


def test_a_silent_peer_keeps_nobody_waiting(pages: Pages) -> None:
    with socket.create_connection(("127.0.0.1", pages.port), 10) as silent:
        silent.sendall(b"GET ")
        assert answer(pages, b"GET /metrics HTTP/1.1\r\n\r\n")[1] == b"tocsin_up 1\n"


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\n"], ids=["nothing", "half"])
def test_two_hundred_silent_peers_keep_nobody_waiting(pages: Pages, said: bytes) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            one = socket.create_connection(("127.0.0.1", pages.port), 10)
            opened.enter_context(one).sendall(said)
        began_ns = CLOCK.monotonic_ns()
        assert answer(pages, b"GET /metrics HTTP/1.1\r\n\r\n")[1] == b"tocsin_up 1\n"
        assert CLOCK.monotonic_ns() - began_ns < REQUEST_SECONDS_MAX * 1e9 / 2


def test_a_silent_peer_is_told_when_its_time_is_over(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.gate.pages.REQUEST_SECONDS_MAX", 0.2)
    with socket.create_connection(("127.0.0.1", pages.port), 10) as silent:
        assert silent.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout")


def test_a_node_that_is_away_is_said(tmp_path: Path) -> None:
    pages = Pages("[::1]:0", f"ipc://{tmp_path}/node.sock", SteadyClock())
    pages.start()
    client = http.client.HTTPConnection("::1", pages.port, timeout=10)
    client.request("GET", "/health")
    response = client.getresponse()
    assert response.status == 503
    assert "is Tocsin running?" in response.read().decode()
    client.close()
    pages.stop()
    assert pages.port == 0


class Freeing(SteadyClock):
    """A clock under which another program ends while we wait."""

    def __init__(self, busy: socket.socket) -> None:
        super().__init__()
        self._busy = busy

    def sleep(self, seconds: float) -> None:
        self._busy.close()
        super().sleep(seconds / 100.0)


def test_a_busy_port_is_told_and_taken_when_it_is_free(
    node: str, caplog: pytest.LogCaptureFixture
) -> None:
    busy = socket.create_server(("127.0.0.1", 0))
    listen = f"127.0.0.1:{busy.getsockname()[1]}"
    with pytest.raises(
        ConfigError, match="in use; give an address of this machine with a free port"
    ):
        Pages(listen, node, SteadyClock()).start()
    pages = Pages(listen, node, Freeing(busy))
    pages.start_when_free(logging.getLogger("tocsin.gate"))
    assert "what_now='alerts go out all the same'" in caplog.text
    while not pages.port:
        SteadyClock().sleep(0.01)
    assert answer(pages, b"GET /metrics HTTP/1.1\r\n\r\n")[1] == b"tocsin_up 1\n"
    pages.stop()


def test_a_peer_that_cannot_be_heard_ends_nothing(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []
    register = type(pages._selector).register

    def full(selector: selectors.BaseSelector, peer: socket.socket, *given: object) -> object:
        if len(refused) < 3:
            refused.append(peer)
            raise OSError(errno.ENOSPC, "No space left on device")  # of epoll's watches
        return register(selector, peer, *given)

    monkeypatch.setattr(type(pages._selector), "register", full)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", pages.port), 10) as connection:
            assert connection.recv(1) == b""
    assert len(refused) == 3
    assert answer(pages, b"GET /metrics HTTP/1.1\r\n\r\n")[1] == b"tocsin_up 1\n"


def test_what_this_machine_refuses_at_the_start_is_told_and_asked_for_again(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    pages = Pages("127.0.0.1:0", node, SteadyClock())
    with monkeypatch.context() as patch:
        patch.setattr(selectors, "DefaultSelector", none)
        with pytest.raises(ConfigError, match="Too many open files; raise LimitNOFILE"):
            pages.start()
    assert not pages.port
    pages.start()
    assert answer(pages, b"GET /metrics HTTP/1.1\r\n\r\n")[1] == b"tocsin_up 1\n"
    pages.stop()


def test_one_that_is_stopped_while_it_starts_is_stopped(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages("127.0.0.1:0", node, SteadyClock())
    start, stoppers = threading.Thread.start, list[Future[None]]()
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()  # its thread runs

    def slow(thread: threading.Thread) -> None:
        if not stoppers:
            stoppers.append(pool.submit(pages.stop))
            SteadyClock().sleep(0.1)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", slow)
        pages.start()
    (stopper,) = stoppers
    stopper.result(10)
    assert not pages.port
    pages.start()
    assert not pages.port, "once stopped it stays so"
    pool.shutdown()
