"""A disk that fills up under a running node, and one that is read-only: said, survived, nothing lost."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.journal import BlockKind, JournalReader
from tests.scenario.test_watchdog_process import Running
from tests.support.live_node import CLOCK, LiveNode, feed, write_config
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


def test_a_disk_that_fills_up_is_said_and_costs_nothing(tmp_path: Path, small_disk: Path) -> None:
    ports = (free_port(42455, socket.SOCK_DGRAM), free_port(46743, socket.SOCK_DGRAM))
    config = write_config(tmp_path, port=ports[0], sflow_port=ports[1])
    watchdog = Running("-m", "tocsin", "watchdog", "--state", str(small_disk / "s"))
    node = LiveNode(config, small_disk / "s").start()
    node.ask()
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(stop, (), ports))
    feeder.start()
    filler = small_disk / "filler"
    try:
        wait_for(lambda: node.ask().ticks >= 5, "no ticks")
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        wait_for(lambda: any("cannot be written" in t for t in node.ask().health), "not said")
        full = node.ask()
        assert any("Free space" in text for text in full.health), full.health
        CLOCK.sleep(5.0)
        later = node.ask()
        assert later.ticks >= full.ticks + 3, "ticks stood still while the disk was full"
        assert later.records > full.records
        blind = watchdog.line()
        assert (blind["entity"], blind["state"]) == ("tocsin fault journal", "raised")
        filler.unlink()
        wait_for(
            lambda: not any("cannot be written" in t for t in node.ask().health),
            "still refused with room on the disk",
        )
        CLOCK.sleep(2.0)
    finally:
        code = node.stop()
        stop.set()
        feeder.join()
        watchdog.end()
    assert code == 0
    ticks = [
        block.tick_end_ns
        for block in JournalReader(node.state / "journal").read()
        if block.kind is BlockKind.TICK
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
