"""The HTTP input: who may push, how much, how slowly, and what each is told."""

import contextlib
import gzip
import http.client
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.http.credentials import HttpInputSettings
from collectors.http.input import HttpInput, Request, Response
from runtime.clock import SystemClock
from runtime.component import Context
from telemetry.errors import ConfigError, TransientError
from tests.support.certificates import Certificates, make_certificates
from tocsin.testing import make_context

Serve = Callable[..., HttpInput]


@pytest.fixture
def context() -> Context:
    return make_context("pushed", clock=SystemClock())  # type: ignore[arg-type]


@pytest.fixture
def serve(context: Context) -> Iterator[Serve]:
    made: list[HttpInput] = []

    def start(handler: Any = None, **settings: Any) -> HttpInput:
        settings = {"listen": "http://127.0.0.1:0", **settings}
        made.append(HttpInput(HttpInputSettings(**settings), context, handler or echo))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.stop()
        server.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def echo(request: Request) -> Response:
    return Response(200, request.body() + f" for {request.user!r}".encode())


def ask(
    server: HttpInput, body: bytes = b"x", *, tls: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, bytes]:
    made = (
        http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=tls)
        if tls
        else http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    )
    try:
        made.request("POST", "/in", body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = made.getresponse()
        return answer.status, answer.read()
    finally:
        made.close()


def basic(pair: str) -> str:
    return "Basic " + b64encode(pair.encode()).decode()


def refused(context: Context, why: str) -> float:
    return context.metrics.value("http_input_refused_total", why=why)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"listen": "udp://[::]:1"}, "is no http", id="scheme"),
        pytest.param({"listen": "http://[::]:x"}, "is no http", id="port"),
        pytest.param({"listen": "http://0.0.0.0:0"}, "open_to_all", id="open-by-mistake"),
        pytest.param({"listen": "https://127.0.0.1:0"}, "certificate_file", id="no-certificate"),
        pytest.param({"listen": "https://127.0.0.1:0", "certificate_file": "/nowhere.pem"},
                     "cannot be used as certificates", id="certificate-not-there"),
        pytest.param({"users_file": "/nowhere"}, "cannot be read", id="users-not-there"),
        pytest.param({"token_file": "/dev/null"}, "holds no entry", id="no-token"),
        pytest.param({"listen": "http://192.0.2.1:80", "open_to_all": True}, "another port", id="not-ours"),
    ],
)  # fmt: skip
def test_mistakes_are_told_at_the_start(
    context: Context, settings: dict[str, Any], sentence: str
) -> None:
    settings = {"listen": "http://127.0.0.1:0", **settings}
    with pytest.raises(ConfigError, match=sentence):
        HttpInput(HttpInputSettings(**settings), context, echo).start()


def test_credentials(serve: Serve, context: Context, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# operators\nves:s3cret\nother:pass:with:colons\n")
    (tmp_path / "tokens").write_text("abc\n")
    server = serve(
        users_file=str(tmp_path / "users"), token_file=str(tmp_path / "tokens"),
        listen="http://[::]:0",
    )  # fmt: skip
    assert ask(server, Authorization=basic("ves:s3cret")) == (200, b"x for 'ves'")
    assert ask(server, Authorization=basic("other:pass:with:colons"))[0] == 200
    assert ask(server, Authorization="Bearer abc")[0] == 200
    for wrong in ("", basic("ves:wrong"), "Basic !!", "Bearer ab", "Digest x", basic("ves")):
        assert ask(server, Authorization=wrong)[0] == 401
    assert refused(context, "credentials") == 6


def test_tls_with_password_or_certificate(
    serve: Serve, context: Context, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("ves:s3cret\n")
    server = serve(
        listen="https://127.0.0.1:0",
        certificate_file=str(certificates.server), key_file=str(certificates.server_key),
        client_ca_file=str(certificates.authority), users_file=str(tmp_path / "users"),
    )  # fmt: skip
    trust = ssl.create_default_context(cafile=str(certificates.authority))
    assert ask(server, tls=trust, Authorization=basic("ves:s3cret")) == (200, b"x for 'ves'")
    assert ask(server, tls=trust)[0] == 401
    trust.load_cert_chain(certificates.client, certificates.client_key)
    assert ask(server, tls=trust)[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(server, tls=ssl.create_default_context())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"POST / HTTP/1.1\r\n\r\n")
        plain.recv(100)
        assert plain.recv(100) == b""
    assert refused(context, "tls") >= 1
    assert ask(server, tls=trust)[0] == 200


def test_bodies_have_a_limit_also_once_unpacked(serve: Serve, context: Context) -> None:
    server = serve(body_bytes_max=1000)
    assert ask(server, b"y" * 1000)[0] == 200
    assert ask(server, b"y" * 1001)[0] == 413
    assert ask(server, gzip.compress(b"z" * 900), Content_Encoding="gzip") == (
        200, b"z" * 900 + b" for ''",
    )  # fmt: skip
    assert ask(server, gzip.compress(b"z" * 10_000_000), Content_Encoding="gzip")[0] == 413
    assert ask(server, b"no gzip", Content_Encoding="gzip")[0] == 400
    assert ask(server, gzip.compress(b"cut short")[:-9], Content_Encoding="gzip")[0] == 400
    assert ask(server, Content_Encoding="br")[0] == 415
    assert ask(server, Content_Length="minus one")[0] == 400
    assert refused(context, "too_large") == 2


def raw(server: HttpInput, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as made:
        made.sendall(request)
        made.shutdown(socket.SHUT_WR)
        parts = b""
        while part := made.recv(65536):
            parts += part
        return parts


def test_chunked_bodies(serve: Serve) -> None:
    server = serve(body_bytes_max=50)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"hello world for" in raw(
        server, head + b"6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\nT: t\r\n\r\n"
    )
    assert b" 413 " in raw(server, head + b"33\r\n" + b"a" * 51)
    assert b" 400 " in raw(server, head + b"nonsense\r\n")
    assert b" 400 " in raw(server, head + b"6\r\nhel")
    assert b" 413 " in raw(server, head + b"-6\r\nhel")


def test_one_connection_carries_many_requests(serve: Serve) -> None:
    server = serve()
    made = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for i in range(3):
        made.request("POST", "/", f"{i}")
        assert made.getresponse().read() == f"{i} for ''".encode()
    made.close()


def test_too_many_connections_are_closed_and_the_others_served(
    serve: Serve, context: Context
) -> None:
    server = serve(connections_max=2)
    held = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=10) for _ in range(2)]
    for connection in held:
        connection.request("POST", "/", "x")
        connection.getresponse().read()
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(server)
    held[0].request("POST", "/", "again")
    assert held[0].getresponse().status == 200
    for connection in held:
        connection.close()
    assert refused(context, "connections") == 1


@pytest.mark.parametrize("limits", [{}, {"connections_per_peer_max": 1000}], ids=["peer", "all"])
@pytest.mark.parametrize("said", [b"", b"POST / HT"], ids=["nothing", "half"])
def test_two_hundred_silent_connections_keep_nobody_from_his_answer(
    serve: Serve, context: Context, limits: dict[str, int], said: bytes
) -> None:
    server = serve(**limits)
    known = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    known.request("POST", "/", "x")
    assert known.getresponse().read()
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            opened.enter_context(one).sendall(said)
        assert ask(server)[0] == 200
        known.request("POST", "/", "again")  # who asked before does not give way
        assert known.getresponse().status == 200
    known.close()
    assert refused(context, "gave_way") >= 200 - 64


@pytest.mark.parametrize(
    "begun",
    [b"P", b"POST / HTTP/1.1\r\nContent-", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"],
)
def test_a_peer_that_sends_byte_by_byte_is_closed(
    serve: Serve, context: Context, begun: bytes
) -> None:
    server = serve(request_seconds_max=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(begun)
        while slow.recv(1000):
            pass  # the answer, if any, then the end
    assert refused(context, "too_slow") >= 1
    assert ask(server)[0] == 200


def test_what_the_handler_raises_is_answered(serve: Serve, context: Context) -> None:
    def handler(request: Request) -> Response:
        raise {b"away": TransientError("the node is away"), b"bug": KeyError("x")}[request.body()]

    server = serve(handler)
    assert ask(server, b"away")[0] == 503
    status, body = ask(server, b"bug")
    assert (status, b"KeyError" in body) == (500, False)


def test_a_client_that_is_still_sending_gets_to_read_why_it_is_refused(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("abc\n")
    server = serve(token_file=str(tmp_path / "tokens"))
    for _ in range(20):
        assert ask(server, b"y" * 500_000)[0] == 401
