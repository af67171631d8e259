"""Processes of one instance: they come up, say so, refuse company, and end in time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.bus import RequestClient
from runtime.parent import PARENT
from telemetry.errors import TransientError
from tests.support import processes
from tests.support.live_node import CLOCK, LiveNode, write_config
from tocsin import restarts, verbs
from tocsin.demo.settings import free_port

STOP_NS = 5_000_000_000


@pytest.fixture
def config(tmp_path: Path) -> Path:
    ports = (free_port(42900, socket.SOCK_DGRAM), free_port(42950, socket.SOCK_DGRAM))
    return write_config(tmp_path, port=ports[0], sflow_port=ports[1])


def run(*arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a process of ours to its end."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def wait_until(done: "object", what: str, seconds: float = 60.0) -> None:
    until_ns = CLOCK.monotonic_ns() + round(seconds * 1e9)
    while not done():  # type: ignore[operator]
        assert CLOCK.monotonic_ns() < until_ns, what
        CLOCK.sleep(0.05)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_node_on_the_folder_refuses_in_one_sentence(config: Path, tmp_path: Path) -> None:
    node = LiveNode(config, tmp_path / "state").start()
    before = node.ask()
    assert node.process is not None
    done = run("tocsin.node", str(config), str(node.state))
    assert done.returncode == 1
    assert f"another node (pid {node.process.pid})" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    after = node.ask()
    assert after.started_ns == before.started_ns, "the first one was not disturbed"
    node.kill()
    again = LiveNode(config, node.state).start()  # a killed node leaves nothing in the way
    again.ask()
    assert again.stop() == 0


def test_a_busy_port_is_one_sentence_with_who_has_it(config: Path, tmp_path: Path) -> None:
    node = LiveNode(config, tmp_path / "state").start()
    node.ask()
    assert node.process is not None
    text = config.read_text("utf-8")
    shards = tmp_path / "shards.toml"
    shards.write_text(text.replace("[node]", "[node]\nworkers = 2"), "utf-8")
    for path in (config, shards):
        done = run("tocsin.node", str(path), str(tmp_path / "other"))
        assert done.returncode == 2
        assert (
            f"(pid {node.process.pid}) has this port; stop it or listen on another" in done.stderr
        )
        assert len(done.stderr.strip().splitlines()) == 1
    assert node.stop() == 0


def test_an_order_that_failed_at_a_node_that_stood_still_is_not_done_when_it_goes_on(
    config: Path, tmp_path: Path
) -> None:
    node = LiveNode(config, tmp_path / "state").start()
    node.ask()
    assert node.process is not None
    client = RequestClient(f"ipc://{node.state}/node.sock")

    def silence(name: str) -> verbs.OperateRequest:
        hide = {"kinds": ["fan"], "name": name, "seconds": 600}
        return verbs.OperateRequest(kind="silence", payload=hide)

    node.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TransientError, match="will not be later"):
        client.ask("operate", silence("failed"), verbs.OperateAnswer, timeout_seconds=1.0)
    node.process.send_signal(signal.SIGCONT)
    client.ask("operate", silence("done"), verbs.OperateAnswer, timeout_seconds=30.0)
    windows = client.ask("windows", verbs.Nothing(), verbs.WindowsAnswer).windows
    assert [one["name"] for one in windows] == ["done"]
    client.close()
    assert node.stop() == 0


@pytest.fixture
def instance(config: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`tocsin run` with a fake systemd listening; ready when this is given out."""
    text = config.read_text("utf-8")
    port = free_port(48470, socket.SOCK_STREAM)
    config.write_text(text + f'[api]\nmetrics_listen = "127.0.0.1:{port}"\n', "utf-8")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60.0)
        process = processes.start(
            [sys.executable, "-m", "tocsin", "run", "-c", str(config),
             "--state", str(tmp_path / "state")],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )  # fmt: skip
        while systemd.recv(4096) != b"READY=1":
            pass
        assert (tmp_path / "state" / "node.sock").exists(), "ready means that it answers"
        while systemd.recv(4096) != b"WATCHDOG=1":
            pass
        yield process
        processes.kill(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_all_processes_end_within_five_seconds(
    instance: subprocess.Popen[bytes], number: int
) -> None:
    wait_until(lambda: len(children(instance.pid)) == 2, "node and gate were not started")
    pids = children(instance.pid)
    began_ns = CLOCK.monotonic_ns()
    instance.send_signal(number)
    code = instance.wait(20)
    wait_until(lambda: not any(map(alive, pids)), "a process was left behind", 20.0)
    assert CLOCK.monotonic_ns() - began_ns < STOP_NS
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)


def test_a_second_instance_on_the_folder_starts_nothing(
    instance: subprocess.Popen[bytes], config: Path, tmp_path: Path
) -> None:
    done = run("tocsin", "run", "-c", str(config), "--state", str(tmp_path / "state"))
    assert done.returncode == 1
    assert f"another run (pid {instance.pid}) works on this state folder" in done.stderr


def test_the_page_says_which_process_was_started_again(
    instance: subprocess.Popen[bytes], config: Path
) -> None:
    (gate,) = (pid for pid in children(instance.pid) if "tocsin.gate" in words_of(pid))
    os.kill(gate, signal.SIGKILL)
    listen = tomllib.loads(config.read_text("utf-8"))["api"]["metrics_listen"]
    line = 'tocsin_supervisor_restarts_total{component="supervisor",role="gate"} 1.0'

    def told() -> bool:
        try:
            with urllib.request.urlopen(f"http://{listen}/metrics", timeout=5) as page:
                return line in page.read().decode()
        except OSError:  # the page is the gate's
            return False

    wait_until(told, "the metrics page does not tell of it")


def test_what_another_supervisor_kept_says_nothing_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fared = restarts.Fared({"desk": 3}, {"desk": "exit code 2, 3 times in a row"})
    restarts.keep(tmp_path, fared)
    monkeypatch.delenv(PARENT, raising=False)
    assert restarts.Kept(tmp_path)() == restarts.Fared()
    monkeypatch.setenv(PARENT, str(os.getpid()))
    assert restarts.Kept(tmp_path)() == fared
    (tmp_path / restarts.FILE).write_text('{"desk": 3}', "utf-8")  # of an older Tocsin
    assert restarts.Kept(tmp_path)() == restarts.Fared()


@pytest.mark.slow
def test_a_desk_whose_port_is_busy_is_told_and_comes_up_once_it_is_free(
    config: Path, tmp_path: Path
) -> None:
    api = free_port(48700, socket.SOCK_STREAM)
    text = config.read_text("utf-8").replace('"sensor"', '"site"')
    config.write_text(
        f'{text}[api]\nlisten = "127.0.0.1:{api}"\nsql_listen = ""\n', "utf-8"
    )  # fmt: skip
    state = tmp_path / "state"
    said = tmp_path / "said"
    beats = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    busy = socket.create_server(("127.0.0.1", api))
    state.mkdir()
    beats.bind(str(state / "watchdog.sock"))
    beats.settimeout(60.0)
    command = [sys.executable, "-m", "tocsin", "run", "-c", str(config), "--state", str(state)]
    with said.open("wb") as log, busy, beats:
        process = processes.start(command, stderr=log)
        client = RequestClient(f"ipc://{state}/node.sock")

        def health() -> str:
            with contextlib.suppress(TransientError):
                return "\n".join(client.ask("status", verbs.Nothing(), verbs.Status).health)
            return ""

        def comes_up() -> bool:
            with contextlib.suppress(OSError):
                return bool(urllib.request.urlopen(f"http://127.0.0.1:{api}/ready", timeout=5))
            return False

        try:
            told = "the desk is down or does not stay up (exit code 2"
            wait_until(lambda: told in health(), "the node does not tell", 120.0)
            who = f"(pid {os.getpid()}) has this port; stop it or listen on another one"
            assert f"api.listen = '127.0.0.1:{api}': Address already in use: " in said.read_text()
            assert who in said.read_text()
            while told not in json.loads(beats.recv(65_536))["faults"].get("desk", ""):
                pass
            done = run("tocsin", "doctor", "-c", str(config), "--state", str(state))
            assert done.returncode == 3
            assert f"FIX  {told}" in done.stdout
            busy.close()
            wait_until(comes_up, "the desk does not come up", 120.0)
        finally:
            client.close()
            processes.stop(process)


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0")
