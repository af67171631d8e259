"""What tests start ends with them: a test that fails must cost no other test its port or its end."""

import ast
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes

TESTS = Path(__file__).parents[1]
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def deaf() -> "subprocess.Popen[bytes]":
    """Return a process that takes no notice of SIGTERM."""
    made = processes.start([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    assert made.stdout is not None
    made.stdout.readline()
    return made


def test_a_process_that_does_not_end_is_killed() -> None:
    process = deaf()
    assert processes.stop(process, seconds=0.1) == -signal.SIGKILL
    assert processes.stop(process, seconds=0.1) == -signal.SIGKILL  # once more harms nothing
    left = deaf()
    processes.end_all()
    assert left.returncode == -signal.SIGKILL
    assert left.stdout is not None
    assert left.stdout.closed


def test_a_thread_ends_with_its_block_though_that_fails() -> None:
    ended = []

    def work(stop: threading.Event, word: str) -> None:
        stop.wait()
        ended.append(word)

    with pytest.raises(ZeroDivisionError), processes.beside(work, "done"):
        _ = 1 // 0
    assert ended == ["done"]


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield the calls of a class or method of this name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            found = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if found == name:
                yield node


def test_no_thread_of_a_test_keeps_the_interpreter_from_its_end() -> None:
    wrong = []
    for path in sorted(TESTS.rglob("*.py")):
        tree, where = ast.parse(path.read_text("utf-8")), path.relative_to(TESTS)
        for thread in calls(tree, "Thread"):
            if not any(word.arg == "daemon" for word in thread.keywords):
                wrong.append(f"{where}:{thread.lineno}: a thread that is no daemon")
        for join in calls(tree, "join"):
            if not join.args and not join.keywords:
                wrong.append(f"{where}:{join.lineno}: joined without a limit")
        if where.parts[0] in ("live", "scenario"):
            for started in calls(tree, "Popen"):
                wrong.append(f"{where}:{started.lineno}: not started by tests/support/processes.py")
    assert not wrong
