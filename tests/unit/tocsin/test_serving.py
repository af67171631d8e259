"""The desk's HTTP server: peers that are silent, slow or many, and one that wants an answer."""

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tocsin.api import serving
from tocsin.api.serving import Server

Connect = Callable[..., socket.socket]
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def feed(request: Request) -> Response:
    async def lines() -> object:
        yield b"first\n"
        while not await request.is_disconnected():
            await asyncio.sleep(0.05)

    return StreamingResponse(lines())


async def much(request: Request) -> Response:
    async def blocks() -> object:
        while True:
            yield bytes(1 << 20)
            await asyncio.sleep(0)

    return StreamingResponse(blocks())


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server in a thread of its own."""
    routes = [
        Route("/", answer, methods=["GET", "POST"]),
        Route("/feed", feed),
        Route("/much", much),
    ]
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = Server(Starlette(routes=routes), listening)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve_socket()), daemon=True)
    thread.start()
    yield int(listening.getsockname()[1])
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """Return a function that connects, from any address of this machine, and says something."""
    with contextlib.ExitStack() as opened:

        def made(said: bytes = b"", address: str = "127.0.0.1") -> socket.socket:
            one = socket.create_connection(("127.0.0.1", port), 20, source_address=(address, 0))
            opened.enter_context(one)
            one.sendall(said)
            return one

        yield made


def status(connection: socket.socket) -> int:
    """Read one whole answer."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def get(port: int, path: str = "/", body: bytes = b"") -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("POST" if body else "GET", path, body)
        response = client.getresponse()
        return response.status, response.read().decode()
    finally:
        client.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"G", ASK],
    ids=["nothing", "a-byte", "asked-once"],
)
def test_silent_connections_keep_nobody_from_his_answer(
    port: int, connect: Connect, said: bytes
) -> None:
    for _ in range(200):
        connect(said)
    assert get(port, body=b"x" * 100_000) == (200, "100000")


def test_of_too_many_connections_those_that_never_asked_give_way_the_oldest_first(
    port: int, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 20)
    known = connect(ASK)
    assert status(known) == 200
    silent = [connect() for _ in range(60)]
    assert get(port) == (200, "0")
    known.sendall(ASK)
    assert status(known) == 200
    for one in silent[:40]:
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET",
        b"GET / HTTP/1.1\r\nHo",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
    ],
    ids=["nothing", "method", "head", "body"],
)
def test_a_request_that_does_not_come_in_whole_is_ended(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.3)
    slow = connect(begun)
    with contextlib.suppress(ConnectionResetError):
        assert slow.recv(1) == b""


def test_a_peer_that_takes_nothing_of_its_answer_is_ended(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "TAKING_SECONDS", 0.3)
    slow = connect(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
    threading.Event().wait(1.5)  # longer than it may
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while block := slow.recv(1 << 20):
            taken += len(block)
            assert taken < 1 << 28  # what lay in the sockets, not what goes on without an end


def test_requests_are_bounded_in_all_and_for_each_address(
    port: int, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REQUESTS_MAX", 6)
    monkeypatch.setattr(serving, "REQUESTS_PER_PEER_MAX", 4)
    follow = b"GET /feed HTTP/1.1\r\nHost: x\r\n\r\n"
    ours = [connect(follow) for _ in range(4)]
    for one in ours:
        assert one.recv(1000).startswith(b"HTTP/1.1 200")
    assert get(port) == (
        503,
        "4 requests of yours are being answered, the most at one time; ask again soon",
    )
    for _ in range(2):
        assert connect(follow, "127.0.0.2").recv(1000).startswith(b"HTTP/1.1 200")
    assert get(port)[0] == 503
    assert status(connect(follow, "127.0.0.3")) == 503
    for one in ours:
        one.close()
    for _ in range(200):  # until the server has seen that they went
        if get(port) == (200, "0"):
            break
        threading.Event().wait(0.05)
    assert get(port) == (200, "0")
