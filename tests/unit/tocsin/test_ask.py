"""How the command line asks a desk that runs."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tocsin.ask import ADDRESS_FILE, problems


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
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        (tmp_path / ADDRESS_FILE).write_text(f"127.0.0.1:{server.server_port}")
        yield tmp_path
        server.shutdown()
        thread.join()


def test_what_a_desk_says_is_wrong_is_heard(desk: Path) -> None:
    assert problems(desk) == ["the history is 2 h behind"]


def test_where_no_desk_runs_nothing_is_said_for_it(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    (tmp_path / ADDRESS_FILE).write_text("127.0.0.1:1")  # left behind
    assert problems(tmp_path) == []
