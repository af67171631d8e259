"""The watchdog as a process: a fake node beats, is stopped by SIGSTOP, goes on; and its memory."""

import http.server
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes

RSS_KIB_MAX = 20 * 1024
FAKE_NODE = """
import json, socket, sys, time
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n = 0
while True:
    n += 1
    beat = {"tick_ns": 300_000_000, "last_tick_end_ns": n, "streams": {"netflow": n},
            "exporters_total": 30, "exporters_silent": 0}
    try:
        out.sendto(json.dumps(beat).encode(), sys.argv[1])
    except OSError:
        pass
    time.sleep(0.1)
"""


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("w")  # short: a unix socket's path has 108 bytes


class Running:
    """A process whose output lines can be waited for."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.process = processes.start(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **environment}, bufsize=0,  # `select` sees no line that was read ahead
        )  # fmt: skip

    def line(self, *, timeout_seconds: float = 20.0) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_seconds)
        assert ready, "the process said nothing"
        made = json.loads(self.process.stdout.readline())
        assert isinstance(made, dict)
        return made

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        code = processes.stop(self.process, seconds=10.0)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


def receiver(posted: list[dict[str, Any]], arrived: threading.Semaphore) -> http.server.HTTPServer:
    """Return a webhook that is bound and does not listen yet."""

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.release()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver, bind_and_activate=False)
    server.server_bind()
    return server


@pytest.fixture
def node(state: Path) -> Iterator[Running]:
    running = Running("-c", FAKE_NODE, str(state / "watchdog.sock"))
    yield running
    running.end()


def test_it_says_blind_when_the_node_is_stopped_and_sees_when_it_goes_on(
    state: Path, node: Running
) -> None:
    posted: list[dict[str, Any]] = []
    arrived = threading.Semaphore(0)
    server = receiver(posted, arrived)
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(state / "log"))
    log.settimeout(20)
    watchdog = Running(
        "-m", "tocsin", "watchdog", "--state", str(state), "--tick-seconds", "60",
        "--webhook", f"http://127.0.0.1:{server.server_port}/", "--syslog", str(state / "log"),
    )  # fmt: skip
    try:
        # It has heard the node's own tick once it says blind long before 3 x 60 s.
        while not (state / "watchdog.sock").exists():
            assert watchdog.process.poll() is None
            select.select([], [], [], 0.02)
        select.select([], [], [], 1.0)
        rss = int(
            next(
                line.split()[1]
                for line in Path(f"/proc/{watchdog.process.pid}/status").read_text().splitlines()
                if line.startswith("VmRSS")
            )
        )
        os.kill(node.process.pid, signal.SIGSTOP)
        blind = watchdog.line()
        os.kill(node.process.pid, signal.SIGCONT)
        again = watchdog.line()
        assert arrived.acquire(timeout=20)
        assert arrived.acquire(timeout=20)
        said = log.recv(1000).decode()
        assert watchdog.end() == 0
    finally:
        watchdog.end()
        server.shutdown()
        server.server_close()
        log.close()
    assert (blind["kind"], blind["state"], blind["entity"]) == (
        "tocsin-blind", "raised", "tocsin node",
    )  # fmt: skip
    assert blind["title"].startswith("Tocsin is blind for ")
    assert again["state"] == "cleared"
    assert again["id"] == blind["id"]
    assert posted == [blind, again]
    assert said.startswith("<26>1 ")
    assert said.endswith(blind["title"])
    assert rss <= RSS_KIB_MAX
    assert not (state / "watchdog.sock").exists()


def test_a_watchdog_that_is_killed_leaves_what_is_raised_and_unsent_to_the_next(
    state: Path, node: Running
) -> None:
    """The webhook is down until the second one has started: it gets all, in order, under one key each."""
    posted: list[dict[str, Any]] = []
    arrived = threading.Semaphore(0)
    server = receiver(posted, arrived)
    url = f"http://127.0.0.1:{server.server_port}/"
    command = (
        "-m",
        "tocsin",
        "watchdog",
        "--state",
        str(state),
        "--webhook",
        url,
        "--tick-seconds",
        "1",
    )
    watchdog = Running(*command)
    try:
        while not (state / "watchdog.sock").exists():
            assert watchdog.process.poll() is None
            select.select([], [], [], 0.02)
        select.select([], [], [], 1.0)
        os.kill(node.process.pid, signal.SIGSTOP)
        blind = watchdog.line()
        while not (state / "watchdog.json").exists():
            select.select([], [], [], 0.02)
        watchdog.process.kill()
        watchdog.end()
        server.server_activate()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        watchdog = Running(*command)
        assert arrived.acquire(timeout=20)
        os.kill(node.process.pid, signal.SIGCONT)
        again = watchdog.line()
        while again not in posted:
            assert arrived.acquire(timeout=20)
    finally:
        watchdog.end()
        server.shutdown()
        server.server_close()
    assert [one["state"] for one in (blind, again)] == ["raised", "cleared"]
    # The child of the killed one may have posted too: at least once, under one key.
    assert list({one["change"]: one for one in posted}.values()) == [blind, again]
    assert again["raised_ns"] == pytest.approx(blind["raised_ns"], abs=1e9)
    assert '"raised": []' in (state / "watchdog.json").read_text()


def test_a_second_watchdog_refuses_with_one_sentence(state: Path) -> None:
    first = Running("-m", "tocsin", "watchdog", "--state", str(state))
    try:
        while not (state / "watchdog.sock").exists():
            assert first.process.poll() is None
            select.select([], [], [], 0.02)
        second = subprocess.run(
            [sys.executable, "-m", "tocsin", "watchdog", "--state", str(state)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    finally:
        first.end()
    assert second.returncode == 2
    assert "already listens" in second.stderr
    assert "Traceback" not in second.stderr


SINK = """
[collectors.lines]
kind = "syslog"
listen = "udp://127.0.0.1:{lines}"
[alerting]
retry_seconds_max = 1.0
[alerting.sinks.pager]
kind = "webhook"
send = "alarms"
url = "{url}"
timeout_seconds = 0.5
[api]
listen = "127.0.0.1:{api}"
sql_listen = "127.0.0.1:{sql}"
"""
LINK_DOWN = "<187>Nov 25 12:00:00 r1 %LINK-3-UPDOWN: Interface Gi0/0/1, changed state to down"


def test_what_stops_dies_or_hangs_in_an_instance_is_said_by_name(state: Path) -> None:
    """SIGSTOP of gate and desk of a real node, a sink that hangs, a store that dies: what they do is
    missing, what the others do goes on."""
    from tests.support.live_node import LiveNode, write_config
    from tests.support.sink_peers import HttpPeer
    from tocsin.demo.settings import free_port

    ports = [free_port(base, socket.SOCK_DGRAM) for base in (43100, 43150, 43170)]
    api = [free_port(base, socket.SOCK_STREAM) for base in (43200, 43250)]
    peer = HttpPeer()
    peer.hangs = True
    extra = SINK.format(url=peer.url, lines=ports[2], api=api[0], sql=api[1])
    config = write_config(state, port=ports[0], sflow_port=ports[1], extra=extra)
    config.write_text(config.read_text().replace('"sensor"', '"site"'))  # which has a desk
    watchdog = Running("-m", "tocsin", "watchdog", "--state", str(state))
    roles = {role: LiveNode(config, state, role) for role in ("node", "gate", "desk")}

    def heard(subject: str, state: str) -> dict[str, Any]:
        for _ in range(20):  # others may speak between: a stream of one line, a slow start
            line = watchdog.line(timeout_seconds=60)
            if (line["entity"], line["state"]) == (subject, state):
                return line
        raise AssertionError(f"nothing was said of {subject}")

    def raised(subject: str, said: str) -> None:
        assert said in heard(subject, "raised")["title"]

    def cleared(subject: str) -> None:
        heard(subject, "cleared")

    try:
        roles["node"].start().ask()
        roles["gate"].start()
        roles["desk"].start()
        cursor = state / "cursors" / "history"
        while not cursor.exists():  # the desk has stored its first tick
            select.select([], [], [], 0.1)
        for role, subject, said in (
            ("gate", "tocsin gate", "no alert goes out"), ("desk", "tocsin history", "nothing is stored"),
        ):  # fmt: skip
            process = roles[role].process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            raised(subject, said)
            os.kill(process.pid, signal.SIGCONT)
            cleared(subject)
        with socket.socket(type=socket.SOCK_DGRAM) as out:
            out.sendto(LINK_DOWN.encode(), ("127.0.0.1", ports[2]))
        raised("tocsin fault sinks", "sinks in trouble (sink pager fails")
        peer.hangs = False
        peer.hang.set()
        cleared("tocsin fault sinks")
        assert {body["data"]["kind"] for _, body in peer.got} == {"linkDown"}
        assert len({about["Idempotency-Key"] for about, _ in peer.got}) == 1  # nothing doubled
        roles["desk"].kill()
        raised("tocsin history", "nothing is stored")
        roles["desk"].start()
        cleared("tocsin history")
    finally:
        watchdog.end()
        for one in reversed(roles.values()):
            if one.process is not None and one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
                one.stop()
        peer.stop()


@pytest.mark.parametrize(
    ("offset", "said"), [("+3600", "forward by 1 h"), ("-90", "back by 1 min 30 s")]
)
def test_a_clock_that_is_set_under_a_running_watchdog_is_said(
    state: Path, node: Running, needs: Callable[..., None], offset: str, said: str
) -> None:
    """libfaketime moves the wall clock of the process, not its steady one."""
    needs("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    when = state / "when"
    when.write_text("+0")
    environment = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(when), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    watchdog = Running("-m", "tocsin", "watchdog", "--state", str(state), **environment)
    try:
        while not (state / "watchdog.sock").exists():
            assert watchdog.process.poll() is None
            select.select([], [], [], 0.02)
        # It has looked at the clock, and heard the node's tick of 0.3 s.
        select.select([], [], [], 1.5)
        when.write_text(offset)
        stepped = watchdog.line()
        steady = watchdog.line()
    finally:
        watchdog.end()
    assert (stepped["entity"], stepped["state"]) == ("tocsin clock", "raised")
    assert f"was set {said}" in stepped["title"]
    assert (steady["entity"], steady["state"]) == ("tocsin clock", "cleared")
