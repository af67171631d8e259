"""The whole chain onto a real ClickHouse server (Debian's 18.16), which is killed in the middle."""

import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from history.server_store import ServerConnection, ServerStore
from history.store import migrate
from telemetry.errors import ConfigError, TransientError
from tests.scenario.test_kills import journalled
from tests.support import processes
from tests.support.bad_peers import absent, answering
from tests.support.certificates import certificate
from tests.support.clickhouse_server import ClickhouseServer, free_ports
from tests.support.live_node import CLOCK, LiveNode, feed, write_config
from tocsin.demo.settings import free_port

pytestmark = [pytest.mark.live, pytest.mark.slow]
EXTRA = """
[api]
listen = "127.0.0.1:{api}"
sql_listen = "127.0.0.1:{sql}"
[history]
store = "clickhouse"
[history.clickhouse]
servers = {servers}
user = "{user}"
password_file = "{password}"
http_port = {http}
"""


@pytest.fixture
def server(needs: Callable[..., None], tmp_path: Path) -> Iterator[ClickhouseServer]:
    needs("clickhouse-server")
    made = ClickhouseServer(tmp_path / "clickhouse")
    made.start()
    yield made
    made.kill()


def until(what: Callable[[], Any], *, seconds: int = 60) -> Any:
    """Return the first true answer."""
    for _ in range(seconds * 5):
        with suppress(httpx.HTTPError):
            if found := what():
                return found
        CLOCK.sleep(0.2)
    raise AssertionError("not in time")


def test_a_server_killed_in_the_middle_has_every_tick_once(
    server: ClickhouseServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("c")  # short: a unix socket's path has 108 bytes
    ports = (free_port(42955, socket.SOCK_DGRAM), free_port(46943, socket.SOCK_DGRAM))
    api, sql = free_port(48970, socket.SOCK_STREAM), free_port(48990, socket.SOCK_STREAM)
    settings = server.settings()
    config = write_config(
        folder, port=ports[0], sflow_port=ports[1],
        extra=EXTRA.format(api=api, sql=sql, servers=json.dumps(settings.servers), user=settings.user,
                           password=settings.password_file, http=settings.http_port),
    )  # fmt: skip
    config.write_text(config.read_text("utf-8").replace('"sensor"', '"core"'), "utf-8")
    state = folder / "s"

    def ask(path: str, **values: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{api}{path}", params=values, timeout=20)

    def ticks() -> dict[int, dict[str, Any]]:
        text = ask(
            "/api/v1/query", format="JSONEachRow",
            sql="select closed_ns, count() as n, uniqExact(view, measure, series_id) as single,"
                " uniqExact(view, series_id) as series from frames group by closed_ns",
        )  # fmt: skip
        text.raise_for_status()
        rows = [json.loads(line) for line in text.text.splitlines()]
        return {row["closed_ns"]: row for row in rows}

    node, desk = (LiveNode(config, state, role).start() for role in ("node", "desk"))
    try:
        node.ask()
        with processes.beside(feed, (), ports):
            until(lambda: len(ticks()) >= 3)
            server.kill()
            until(  # first of all the connection that was open is reset
                lambda: any(
                    "stands still" in text and "Connection refused" in text
                    for text in ask("/health").json()["problems"]
                )
            )
            assert 'tocsin_history_stands_still{component="history"} 1' in ask("/metrics").text
            before = len(journalled(state))
            until(lambda: len(journalled(state)) >= before + 3)
            doctor = subprocess.run(
                [sys.executable, "-m", "tocsin", "doctor", "-c", str(config), "--state", str(state)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert doctor.returncode == 3
            assert "FIX  history: ClickHouse at" in doctor.stdout
            server.start()
            wanted = journalled(state)
            found = until(lambda: all(tick in ticks() for tick in wanted) and ticks())
            for tick, row in found.items():
                assert row["n"] == row["single"], f"tick {tick} is there twice"
                assert tick not in wanted or row["series"] == wanted[tick], (
                    f"tick {tick} is not whole"
                )
            assert not any("stands still" in text for text in ask("/health").json()["problems"])
            series = ask("/api/v1/series", match="view=exporter,measure=octets", since="10m").json()
            assert series["series"]
            door = httpx.post(
                f"http://127.0.0.1:{sql}", content="select count() > 0 from series", timeout=20
            )
            assert door.text == "1\n"
    finally:
        codes = [desk.stop(), node.stop()]
    assert codes == [0, 0]


def test_a_wrong_password_is_one_sentence_with_the_fix(server: ClickhouseServer) -> None:
    settings = msgspec.structs.replace(server.settings(), password_file="")
    connection = ServerStore(settings).connect()
    said = r"refuses user 'tocsin': put its password into the file that history\.clickhouse\.password_file"
    with pytest.raises(ConfigError, match=said):
        connection.rows("select 1")
    with pytest.raises(ConfigError, match="refuses user 'nobody'"):
        ServerStore(msgspec.structs.replace(server.settings(), user="nobody")).look()
    assert ServerStore(server.settings()).look().startswith("ClickHouse 18.16 at 127.0.0.1")


def test_a_server_in_another_time_zone_is_refused_until_it_is_in_utc(
    needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("clickhouse-server")
    server = ClickhouseServer(tmp_path)
    path = tmp_path / "config.xml"
    good = path.read_text()
    path.write_text(good.replace("<timezone>UTC<", "<timezone>Asia/Kolkata<"))
    connection = ServerStore(server.settings()).connect()
    try:
        server.start()
        with pytest.raises(
            ConfigError, match=r"time zone Asia/Kolkata: .*<timezone>UTC</timezone>"
        ):
            migrate(connection)
        server.kill()
        path.write_text(good)
        server.start()
        migrate(connection)
        assert connection.rows("select count() as n from frames") == [{"n": 0}]
    finally:
        connection.close()
        server.kill()


def test_the_next_server_is_taken_where_one_is_away(server: ClickhouseServer) -> None:
    for peer in (absent(), answering(b"")):
        with peer as port:
            servers = (f"127.0.0.1:{port}", *server.settings().servers)
            connection = ServerStore(
                msgspec.structs.replace(server.settings(), servers=servers)
            ).connect()
            assert connection.rows("select 1 as one") == [{"one": 1}]
            connection.close()


@contextmanager
def cut_off(server: ClickhouseServer) -> Iterator[tuple["Cutting", ServerConnection]]:
    """Connect over a wire that can be cut; the tables are there."""
    with Cutting(server.native) as wire:
        settings = msgspec.structs.replace(
            server.settings(), servers=(f"127.0.0.1:{wire.port}",), compression="none"
        )
        with closing(ServerStore(settings).connect()) as connection:
            migrate(connection)
            yield wire, connection


LINES = {"time_ns": np.arange(10), "message": [f"line {i}" for i in range(10)]}


def test_an_insert_whose_answer_is_lost_is_stored_once(server: ClickhouseServer) -> None:
    with cut_off(server) as (wire, connection):
        for stored, lost in enumerate(("answer", "connection"), start=1):
            wire.cut = lost
            with pytest.raises(TransientError, match="does not answer"):
                connection.insert("logs", LINES, token=lost)
            assert not wire.cut, "it was cut"
            for _ in range(2):
                connection.insert("logs", LINES, token=lost)
            assert connection.rows("select count() as n from logs") == [{"n": 10 * stored}]


def test_an_insert_that_outlives_its_connection_is_stored_once(server: ClickhouseServer) -> None:
    with cut_off(server) as (wire, connection):
        connection.run("alter table logs add column slow UInt8 default sleep(1)")
        wire.cut = "connection"
        with pytest.raises(TransientError, match="does not answer"):
            connection.insert("logs", LINES, token="one")
        connection.insert("logs", LINES, token="one")
        assert connection.rows("select count() as n from logs") == [{"n": 10}]


def test_over_tls_a_server_must_show_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shown, other = certificate(tmp_path), certificate(tmp_path / "other")
    server, (native, http) = ClickhouseServer(tmp_path / "clickhouse"), free_ports(2)
    server.add(
        f"<tcp_port_secure>{native}</tcp_port_secure><https_port>{http}</https_port><openSSL><server>"
        f"<certificateFile>{shown.certificate}</certificateFile><privateKeyFile>{shown.key}</privateKeyFile>"
        "<verificationMode>none</verificationMode></server></openSSL>"
    )
    server.start()
    settings = msgspec.structs.replace(
        server.settings(), servers=(f"127.0.0.1:{native}",), http_port=http, tls=True,
        ca_file=str(shown.ca),
    )  # fmt: skip
    connection = ServerStore(settings).connect()
    assert connection.rows("select 1 as one") == [{"one": 1}]
    assert connection.text("select 2", "CSV") == b"2\n"
    connection.close()
    for wrong in (
        msgspec.structs.replace(settings, ca_file=str(other.ca)),
        msgspec.structs.replace(settings, servers=server.settings().servers),
    ):
        with pytest.raises(TransientError, match="does not answer") as raised:
            ServerStore(wrong).connect().rows("select 1")
        assert "\n" not in str(raised.value)
    server.kill()


class Cutting:
    """A wire to the server that cuts one connection: behind an insert's rows, or before its answer."""

    END_OF_STREAM = b"\x05"

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._server = port
        self._ends: tuple[socket.socket, ...] = ()
        self.cut = ""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Cutting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what is closed already
            for end in (self._listening, *self._ends):
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join(processes.JOIN_SECONDS)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with client, socket.create_connection(("127.0.0.1", self._server)) as server:
                    self._ends = (client, server)
                    for end in self._ends:
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(1 << 20)
                answered = ready is server and data.endswith(self.END_OF_STREAM)
                asked = ready is client and b"line 9" in data
                if not data or (self.cut == "answer" and answered):
                    self.cut = "" if data else self.cut
                    return
                (client if ready is server else server).sendall(data)
                if self.cut == "connection" and asked:
                    self.cut = ""
                    return
