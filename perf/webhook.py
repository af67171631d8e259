"""Where a measured instance posts its alerts over TLS."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.certificates import certificate

SINK = """
[alerting.sinks.webhook]
kind = "webhook"
url = "https://localhost:{port}/"
ca_file = "{ca}"
"""


class Webhook(ThreadingHTTPServer):
    """Takes and counts what is posted, in threads."""

    def __init__(self, folder: Path) -> None:
        self.taken = 0
        webhook, own = self, certificate(folder)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                self.rfile.read(int(self.headers["Content-Length"]))
                webhook.taken += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing of each request."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = own.server().wrap_socket(self.socket, server_side=True)
        self.sink = SINK.format(port=self.server_port, ca=own.ca)

    @classmethod
    @contextlib.contextmanager
    def serving(cls) -> "Iterator[Webhook]":
        """Serve for as long as it is wanted."""
        with tempfile.TemporaryDirectory() as name, cls(Path(name)) as made:
            threading.Thread(target=made.serve_forever, daemon=True).start()
            yield made
            made.shutdown()
