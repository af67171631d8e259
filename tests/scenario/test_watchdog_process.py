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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

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
            self.process.terminate()
        code = self.process.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


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

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.release()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
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


def test_each_process_of_an_instance_that_is_stopped_is_said_by_name(state: Path) -> None:
    """SIGSTOP of gate and desk of a real node: what they do is missing, what the others do goes on."""
    from tests.support.live_node import LiveNode, write_config
    from tocsin.demo.settings import free_port

    ports = [free_port(base, socket.SOCK_DGRAM) for base in (43300, 43350)]
    api = [free_port(base, socket.SOCK_STREAM) for base in (43400, 43450)]
    extra = f'[api]\nlisten = "127.0.0.1:{api[0]}"\nsql_listen = "127.0.0.1:{api[1]}"\n'
    config = write_config(state, port=ports[0], sflow_port=ports[1], extra=extra)
    watchdog = Running("-m", "tocsin", "watchdog", "--state", str(state))
    roles = {role: LiveNode(config, state, role) for role in ("node", "gate", "desk")}
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
            blind = watchdog.line(timeout_seconds=60)
            os.kill(process.pid, signal.SIGCONT)
            again = watchdog.line(timeout_seconds=60)
            assert (blind["entity"], blind["state"]) == (subject, "raised")
            assert said in blind["title"]
            assert (again["entity"], again["state"]) == (subject, "cleared")
    finally:
        watchdog.end()
        for one in reversed(roles.values()):
            if one.process is not None and one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
                one.stop()
