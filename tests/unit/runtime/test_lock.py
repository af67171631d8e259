"""One process of a kind for each state folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.clock import ManualClock, SystemClock
from runtime.lock import FolderLock
from telemetry.errors import ConfigError, TransientError


def test_the_second_is_refused_with_who_and_what_to_do(tmp_path: Path) -> None:
    clock = ManualClock()
    first, second = FolderLock(tmp_path, "node", clock), FolderLock(tmp_path, "node", clock)
    first.take()
    with pytest.raises(TransientError) as refused:
        second.take()
    said = str(refused.value)
    assert f"another node (pid {os.getpid()})" in said
    assert "--state" in said
    assert clock.monotonic_ns() == 0, "a living holder is not waited for"
    FolderLock(tmp_path, "run", clock).take()  # of another kind
    first.free()
    first.free()
    second.take()
    assert second.holder() == os.getpid()


def test_what_a_dead_process_left_behind_is_waited_for(tmp_path: Path) -> None:
    """A child holds the descriptor of a parent that has died."""
    clock = ManualClock()
    lock = FolderLock(tmp_path, "node", clock)
    lock.take()
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=(lock.descriptor,),
    )
    lock.free()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "node.lock").write_text(f"{gone.pid}\n", "ascii")
    with pytest.raises(TransientError, match="another node"):
        FolderLock(tmp_path, "node", clock).take(wait_seconds=3.0)
    assert clock.monotonic_ns() >= 3e9, "it was waited for"
    child.communicate()
    FolderLock(tmp_path, "node", clock).take()


def test_a_damaged_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "node.lock").write_bytes(b"\xff garbage")
    FolderLock(tmp_path, "node", ManualClock()).take()
    assert (tmp_path / "node.lock").read_text("ascii") == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="state_dir"):
        FolderLock(tmp_path / "absent", "node", ManualClock()).take()


def test_a_program_that_this_one_turns_into_keeps_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from runtime.clock import SystemClock;"
        "from runtime.lock import FolderLock; lock = FolderLock(Path(sys.argv[1]), 'run', SystemClock());"
    )
    second = code + "lock.adopt(int(sys.argv[2])); print('on', flush=True); sys.stdin.read()"
    first = code + (
        "lock.take(); os.execv(sys.executable,"
        " [sys.executable, '-c', sys.argv[2], sys.argv[1], str(lock.hand_on())])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", first, str(tmp_path), second],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"on\n"
    other = FolderLock(tmp_path, "run", SystemClock())
    assert other.holder() == process.pid
    with pytest.raises(TransientError, match=f"pid {process.pid}"):
        other.take(wait_seconds=0.0)
    process.communicate(b"", timeout=10)
    other.take(wait_seconds=5.0)
    other.free()
