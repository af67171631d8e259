"""How the command line asks a desk that runs."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from telemetry.errors import TransientError
from tests.support.bad_peers import NONSENSE, answering
from tocsin.config import Config
from tocsin.desk.ask import ADDRESS_FILE, problems, query, running_desk


class Desk(BaseHTTPRequestHandler):
    """Says that its history is behind, as a desk does with 503."""

    def do_GET(self) -> None:
        body = b'{"status": "degraded", "problems": ["the history is 2 h behind"]}'
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    with HTTPServer(("127.0.0.1", 0), Desk) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        thread.start()
        (tmp_path / ADDRESS_FILE).write_text(f"127.0.0.1:{server.server_port}")
        yield tmp_path
        server.shutdown()
        thread.join(30)


def test_what_a_desk_says_is_wrong_is_heard(desk: Path) -> None:
    assert problems(desk) == ["the history is 2 h behind"]


def test_where_no_desk_runs_nothing_is_said_for_it(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    (tmp_path / ADDRESS_FILE).write_text("127.0.0.1:1")  # left behind
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    "answer",
    [*NONSENSE, b"HTTP/1.0 200 OK\r\n\r\n<html>", b"HTTP/1.0 404 Not Found\r\n\r\nnope"],
)
def test_another_server_on_a_port_that_was_a_desks_is_no_desk(
    tmp_path: Path, answer: bytes
) -> None:
    with answering(answer) as port:
        (tmp_path / ADDRESS_FILE).write_text(f"127.0.0.1:{port}")
        assert running_desk(tmp_path) == ""
        assert problems(tmp_path) == []


@pytest.mark.parametrize("text", ["", "here", "127.0.0.1:", "127.0.0.1:99999999"])
def test_a_file_without_an_address_names_no_desk(tmp_path: Path, text: str) -> None:
    (tmp_path / ADDRESS_FILE).write_text(text)
    assert problems(tmp_path) == []


def test_a_desk_that_breaks_off_is_one_sentence(tmp_path: Path) -> None:
    """It is ready, and what it says of anything else is none of its documents."""
    ready = b'HTTP/1.0 503 Busy\r\n\r\n{"status": "degraded", "problems": ["x"]}'
    with answering(ready) as port:
        (tmp_path / ADDRESS_FILE).write_text(f"127.0.0.1:{port}")
        assert running_desk(tmp_path) == f"127.0.0.1:{port}"
        with pytest.raises(TransientError, match=rf"the desk at 127\.0\.0\.1:{port} .*"):
            query(Config(), tmp_path, "select 1", "CSV")
