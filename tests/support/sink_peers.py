"""A good peer for each kind of sink: real where one runs in a test, else what its protocol asks for.

Each is a context manager that yields a `Rig`: the settings of a sink that reaches it, and what it got,
as the idempotency keys or changes that each message names.
"""

import contextlib
import http.server
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import Any

from tests.support import processes
from tests.support.bad_peers import free_port
from tests.support.grafana_server import GrafanaServer
from tests.support.ticket_server import TicketServer


@dataclass
class Rig:
    """A sink's settings, and who got what: `got` gives the alarm ids in order of arrival."""

    settings: dict[str, Any]
    got: Callable[[], list[str]]
    messages: Callable[[], list[Any]] = field(default=list)


class HttpPeer:
    """An HTTP receiver on loopback that does as it is told and keeps what it got."""

    def __init__(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.answer = b"what the peer says"
        self.hang = threading.Event()
        self.hangs = False
        self.got: list[tuple[dict[str, str], Any]] = []
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if peer.hangs:
                    peer.hang.wait(30)
                    return
                try:
                    read = json.loads(body)
                except ValueError:
                    read = body
                about = {**self.headers, "path": self.path, "method": self.command}
                peer.got.append((about, read))
                self.send_response(peer.status)
                self.end_headers()
                self.wfile.write(peer.answer)

            do_PATCH = do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 100

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up is the test's own doing."""

        self.server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def bodies(self) -> list[Any]:
        return [body for _, body in self.got]

    def stop(self) -> None:
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


def _http(
    kind: str, ids: Callable[[Any], list[str]], *, answer: bytes = b"{}", **more: Any
) -> Callable[..., contextlib.AbstractContextManager[Rig]]:
    @contextlib.contextmanager
    def rig(folder: Path, port: int = 0) -> Iterator[Rig]:
        peer = HttpPeer(port)
        peer.answer = answer
        (folder / "secret").write_text("0123456789abcdef0123456789abcdef\n")
        settings = {"kind": kind, "url": peer.url}
        settings |= {
            k: v.format(folder=folder) if isinstance(v, str) else v for k, v in more.items()
        }
        try:
            yield Rig(settings, lambda: [i for b in peer.bodies() for i in ids(b)], peer.bodies)
        finally:
            peer.stop()

    return rig


@contextlib.contextmanager
def _lines(folder: Path, port: int = 0) -> Iterator[Rig]:
    path = folder / "alerts.jsonl"

    def read() -> list[Any]:
        return (
            [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        )

    yield Rig({"kind": "file", "path": str(path)}, lambda: [a["id"] for a in read()], read)


@contextlib.contextmanager
def _stdout(folder: Path, port: int = 0) -> Iterator[Rig]:
    yield Rig({"kind": "stdout"}, list)


@contextlib.contextmanager
def _zmq(folder: Path, port: int = 0) -> Iterator[Rig]:
    yield Rig({"kind": "zmq", "url": f"tcp://127.0.0.1:{port or free_port()}"}, list)


class SyslogServer:
    """RFC 6587 octet counting over TCP or TLS, or UDP datagrams."""

    def __init__(
        self, *, port: int = 0, udp: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self.messages: list[bytes] = []
        self._udp = udp
        self._tls = tls
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self._socket = socket.socket(type=kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        if not udp:
            self._socket.listen(20)
        self.port = int(self._socket.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._udp:
                    self.messages.append(self._socket.recv(65536))
                    continue
                made, _ = self._socket.accept()
                threading.Thread(target=self._read, args=(made,), daemon=True).start()

    def _read(self, plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError):
            made = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            self._open.append(made)
            data = b""
            with made:
                while part := made.recv(65536):
                    data += part
                    while match := re.match(rb"(\d+) ", data):
                        size = int(match[1])
                        if len(data) < match.end() + size:
                            break
                        self.messages.append(data[match.end() : match.end() + size])
                        data = data[match.end() + size :]

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for made in self._open:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _syslog(folder: Path, port: int = 0) -> Iterator[Rig]:
    server = SyslogServer(port=port)

    def ids() -> list[str]:
        return [re.search(rb'id="([0-9a-f]+)"', m)[1].decode() for m in server.messages]  # type: ignore[index]

    try:
        yield Rig(
            {"kind": "syslog", "url": f"tcp://127.0.0.1:{server.port}"},
            ids,
            lambda: server.messages,
        )
    finally:
        server.stop()


@contextlib.contextmanager
def _mail(folder: Path, port: int = 0) -> Iterator[Rig]:
    from aiosmtpd.controller import Controller

    class Handler:
        def __init__(self) -> None:
            self.mails: list[Any] = []

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            self.mails.append(message_from_bytes(envelope.content))
            return "250 taken"

    handler = Handler()
    control = Controller(handler, hostname="127.0.0.1", port=port or free_port(), ready_timeout=10)
    control.start()
    settings = {
        "kind": "mail", "url": f"smtp://127.0.0.1:{control.port}",
        "options": {"sender": "tocsin@example.net", "to": ["noc@example.net"]},
    }  # fmt: skip
    try:
        yield Rig(
            settings,
            lambda: [str(m["X-Tocsin-Change"]).partition("-")[0] for m in handler.mails],
            lambda: handler.mails,
        )
    finally:
        control.stop()


class KafkaBroker:
    """librdkafka's mock broker, and a consumer that reads it from the start."""

    def __init__(self, port: int = 0) -> None:
        from confluent_kafka import Producer

        self._keeper = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
        broker = next(iter(self._keeper.list_topics(timeout=10).brokers.values()))
        self.address = f"{broker.host}:{broker.port}"

    def records(self, topic: str, count: int) -> list[Any]:
        from confluent_kafka import Consumer, TopicPartition

        reader = Consumer({"bootstrap.servers": self.address, "group.id": "test"})
        found: list[Any] = []
        try:
            shown = reader.list_topics(topic, timeout=10).topics[topic].partitions
            reader.assign([TopicPartition(topic, number, 0) for number in shown])
            end = time.monotonic() + 10
            while len(found) < count and time.monotonic() < end:
                record = reader.poll(0.2)
                if record is not None and record.error() is None:
                    found.append(record)
        finally:
            reader.close()
        return found


@contextlib.contextmanager
def _kafka(folder: Path, port: int = 0) -> Iterator[Rig]:
    broker = KafkaBroker()
    yield Rig(
        {"kind": "kafka", "url": broker.address},
        lambda: [r.key().decode() for r in broker.records("tocsin.alerts", 1)],
        lambda: broker.records("tocsin.alerts", 1),
    )


class NatsServer:
    """nats-server with JetStream and a stream of our subjects."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        import asyncio
        import sys

        self.port = port or free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        binary = Path(sys.executable).parent / "nats-server"
        with (folder / "nats.log").open("ab") as log:
            self._process = processes.start(
                [str(binary), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(folder / "nats")],
                stdout=log, stderr=log,
            )  # fmt: skip
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        import asyncio

        import nats

        for _ in range(200):
            try:
                client = await nats.connect(self.url, allow_reconnect=False, error_cb=_ignore)
                break
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.05)
        await client.jetstream().add_stream(name="TOCSIN", subjects=["tocsin.alerts.>"])
        await client.close()

    def messages(self) -> list[Any]:
        import asyncio

        import nats

        async def read() -> list[Any]:
            client = await nats.connect(self.url, error_cb=_ignore)
            stream = client.jetstream()
            count = (await stream.stream_info("TOCSIN")).state.messages
            found = [await stream.get_msg("TOCSIN", seq) for seq in range(1, count + 1)]
            await client.close()
            return found

        return asyncio.run(read())

    def stop(self) -> None:
        processes.kill(self._process)


def limit_nats(url: str, octets: int) -> None:
    """Let the stream take no message that is larger."""
    import asyncio

    import nats

    async def limit() -> None:
        client = await nats.connect(url, error_cb=_ignore)
        await client.jetstream().update_stream(
            name="TOCSIN", subjects=["tocsin.alerts.>"], max_msg_size=octets
        )
        await client.close()

    asyncio.run(limit())


async def _ignore(_: Exception) -> None:
    pass


@contextlib.contextmanager
def _nats(folder: Path, port: int = 0) -> Iterator[Rig]:
    server = NatsServer(folder, port)
    try:
        yield Rig(
            {"kind": "nats", "url": server.url},
            lambda: [json.loads(m.data)["id"] for m in server.messages()],
            server.messages,
        )
    finally:
        server.stop()


class Acknowledger:
    """Answers SNMPv2c informs: the same message with the PDU tag of a Response (RFC 3416, section 3)."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[bytes] = []
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self._ended = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, whence = self._socket.recvfrom(65536)
                if self._ended:
                    return
                at = data.index(b"\xa6", data.index(b"\x04"))  # behind the community
                self.got.append(data)
                self._socket.sendto(data[:at] + b"\xa2" + data[at + 1 :], whence)

    def stop(self) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", self._socket.getsockname())
        self._socket.close()


@contextlib.contextmanager
def _snmp(folder: Path, port: int = 0) -> Iterator[Rig]:
    peer = Acknowledger(port)

    def ids() -> list[str]:
        return [re.search(rb" ([0-9a-f]{16})", m)[1].decode() for m in peer.got]  # type: ignore[index]

    try:
        yield Rig({"kind": "snmp", "url": f"udp://127.0.0.1:{peer.port}"}, ids, lambda: peer.got)
    finally:
        peer.stop()


@contextlib.contextmanager
def _tmf642(folder: Path, port: int = 0) -> Iterator[Rig]:
    listener = HttpPeer(port)
    settings = {
        "kind": "tmf642",
        "options": {"listen": f"127.0.0.1:{free_port()}", "listeners": [listener.url]},
    }
    try:
        yield Rig(
            settings,
            lambda: [b["event"]["alarm"]["id"] for b in listener.bodies()],
            listener.bodies,
        )
    finally:
        listener.stop()


def _tickets(kind: str) -> Callable[..., contextlib.AbstractContextManager[Rig]]:
    @contextlib.contextmanager
    def rig(folder: Path, port: int = 0) -> Iterator[Rig]:
        server = TicketServer(port=port)
        try:
            url = server.url + ("/tmf-api/troubleTicket/v4" if kind == "tmf621" else "")
            yield Rig(
                {"kind": kind, "url": url},
                lambda: [t.correlation for t in server.tickets.values()],
                lambda: list(server.tickets.values()),
            )
        finally:
            server.stop()

    return rig


@contextlib.contextmanager
def _grafana(folder: Path, port: int = 0) -> Iterator[Rig]:
    server = GrafanaServer(port)
    try:
        yield Rig(
            {"kind": "grafana", "url": server.url},
            lambda: [a["tags"][0].split(":")[1] for a in server.annotations.values()],
            lambda: list(server.annotations.values()),
        )
    finally:
        server.stop()


@contextlib.contextmanager
def _command(folder: Path, port: int = 0) -> Iterator[Rig]:
    options = {"run": ["echo", "${id}"], "undo": ["echo", "${id}"]}
    yield Rig({"kind": "command", "path": str(folder / "in-force.json"), "options": options}, list)


def _netcool_ids(body: Any) -> list[str]:
    return [row["Identifier"].split()[1] for row in body["rowset"]["rows"] if "Identifier" in row]


RIGS: dict[str, Callable[..., contextlib.AbstractContextManager[Rig]]] = {
    "stdout": _stdout,
    "file": _lines,
    "zmq": _zmq,
    "webhook": _http("webhook", lambda b: [b["data"]["id"]]),
    "webhook in batches": _http("webhook", lambda b: [e["data"]["id"] for e in b], mode="batch"),
    "webhook by slack": _http(
        "webhook", lambda b: re.findall(r"alarm ([0-9a-f]{16})", json.dumps(b)), template="slack"
    ),
    "webhook by jira": _http("webhook", lambda b: [b["alias"]], template="jira"),
    "alertmanager": _http("alertmanager", lambda b: [a["labels"]["alarm_id"] for a in b]),
    "pagerduty": _http("pagerduty", lambda b: [b["dedup_key"]], token_file="{folder}/secret"),
    "servicenow": _http("servicenow", lambda b: [r["message_key"] for r in b["records"]]),
    "netcool": _http("netcool", _netcool_ids, answer=b'{"entry": {"affectedRows": 0}}'),
    "servicenow-incident": _tickets("servicenow-incident"),
    "tmf621": _tickets("tmf621"),
    "tmf642": _tmf642,
    "syslog": _syslog,
    "mail": _mail,
    "kafka": _kafka,
    "nats": _nats,
    "snmp": _snmp,
    "grafana": _grafana,
    "command": _command,
}
