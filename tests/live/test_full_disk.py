"""A disk that fills up under a running node, and one that is read-only: said, survived, nothing lost."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.bus import RequestClient
from runtime.journal import BlockKind, JournalReader
from telemetry.errors import TransientError
from telemetry.snmp import message
from telemetry.snmp.ber import Tag
from tests.scenario.test_watchdog_process import Running
from tests.support import processes
from tests.support.live_node import CLOCK, LiveNode, feed, journalled_texts, write_config
from tests.support.snmp_messages import LINK_DOWN, trap_v2
from tocsin import verbs
from tocsin.demo.settings import free_port

pytestmark = [pytest.mark.live, pytest.mark.slow]
SECOND = 1_000_000_000


@pytest.fixture
def small_disk(tmp_path: Path, needs: Callable[..., None]) -> Iterator[Path]:
    """A file system of 48 MB of its own."""
    needs("mount", root=True)
    folder = tmp_path / "d"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def wait_for(done: Callable[[], bool], what: str) -> None:
    for _ in range(60):
        if done():
            return
        CLOCK.sleep(0.5)
    raise AssertionError(what)


class Router:
    """Sends informs, and is answered or not."""

    def __init__(self, port: int) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.connect(("127.0.0.1", port))

    def ask(self, number: int, *, seconds: float) -> bool:
        """Send an inform again and again until it is answered; return whether it was."""
        inform = trap_v2(LINK_DOWN, request_id=number, tag=Tag.INFORM)
        answer = message.answer_inform(inform, message.read_envelope(inform))
        until_ns = CLOCK.monotonic_ns() + round(seconds * 1e9)
        while CLOCK.monotonic_ns() < until_ns:
            self._sock.send(inform)
            self._sock.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                while self._sock.recv(2048) != answer:
                    pass  # a late answer to one before
                return True
        return False

    def close(self) -> None:
        self._sock.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_is_said_and_costs_nothing(
    tmp_path: Path, small_disk: Path, workers: int, deep: bool
) -> None:
    if workers == 1 and not deep:
        pytest.skip("with DEEP=1 also without shards")
    ports = (free_port(42455, socket.SOCK_DGRAM), free_port(46743, socket.SOCK_DGRAM))
    watchdog = Running("-m", "tocsin", "watchdog", "--state", str(small_disk / "s"))
    traps = free_port(46843, socket.SOCK_DGRAM)
    extra = f'[collectors.traps]\nkind = "snmp-trap"\nlisten = "udp://127.0.0.1:{traps}"\n'
    config = write_config(tmp_path, port=ports[0], sflow_port=ports[1], extra=extra)
    text = config.read_text("utf-8").replace("[node]", f"[node]\nworkers = {workers}")
    config.write_text(text, "utf-8")
    node = LiveNode(config, small_disk / "s").start()
    node.ask()
    filler, router = small_disk / "filler", Router(traps)
    client = RequestClient(f"ipc://{node.state}/node.sock")
    hide = {"kinds": ["fan"], "name": "works", "seconds": 60}
    silence = verbs.OperateRequest(kind="silence", payload=hide)
    with processes.beside(feed, (), ports):
        try:
            wait_for(lambda: node.ask().ticks >= 5, "no ticks")
            assert router.ask(1, seconds=30.0)
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            wait_for(lambda: any("cannot be written" in t for t in node.ask().health), "not said")
            full = node.ask()
            assert any("Free space" in text for text in full.health), full.health
            assert not router.ask(2, seconds=5.0), "acknowledged, and not on disk"
            with pytest.raises(TransientError, match=r"cannot be written.*Nothing was done"):
                client.ask("operate", silence, verbs.OperateAnswer)
            later = node.ask()
            assert later.ticks >= full.ticks + 3, "ticks stood still while the disk was full"
            assert later.records > full.records
            blind = watchdog.line()
            # Ticks may have begun late on a busy machine.
            while blind["entity"] != "tocsin fault journal":
                blind = watchdog.line()
            assert blind["state"] == "raised"
            filler.unlink()
            wait_for(
                lambda: not any("cannot be written" in t for t in node.ask().health),
                "still refused with room on the disk",
            )
            assert router.ask(2, seconds=30.0)
            client.ask("operate", silence, verbs.OperateAnswer, timeout_seconds=30.0)
        finally:
            client.close()
            router.close()
            code = node.stop()
            watchdog.end()
    assert code == 0
    assert journalled_texts(node.state, "control", "kind").count("silence") == 1
    assert len(journalled_texts(node.state, "alarm", "entity")) >= 1
    ticks = [
        block.tick_end_ns
        for block in JournalReader(node.state / "journal").read()
        if block.kind is BlockKind.TICK
        and any("interface" in b.texts("view") for b in block.batches if b.schema.name == "frame")
    ]
    steps = {after - before for before, after in zip(ticks, ticks[1:], strict=False)}
    assert steps == {SECOND}, f"ticks are missing in the journal: {sorted(steps)}"


def test_a_read_only_state_folder_is_one_sentence_and_exit_code_1(
    tmp_path: Path, small_disk: Path
) -> None:
    ports = (free_port(42455, socket.SOCK_DGRAM), free_port(46743, socket.SOCK_DGRAM))
    config = write_config(tmp_path, port=ports[0], sflow_port=ports[1])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    command = [sys.executable, "-m", "tocsin", "run", "-c", str(config),
               "--state", str(small_disk / "s")]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode in (1, 2), made
    assert "Traceback" not in made.stderr
    assert str(small_disk) in made.stderr
    assert "Read-only" in made.stderr
    assert len(made.stderr.strip().splitlines()) == 1, made.stderr
