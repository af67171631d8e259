"""Processes and threads that tests start: they end with their test, whatever happens in it."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

JOIN_SECONDS = 30.0
_started: list["subprocess.Popen[Any]"] = []


def start(command: list[str], **options: Any) -> "subprocess.Popen[Any]":
    """Start a process that does not outlive the test module: see `end_all`."""
    made = subprocess.Popen(command, **options)
    _started.append(made)
    return made


def stop(
    process: "subprocess.Popen[Any]", *, seconds: float = 20.0, number: int = signal.SIGTERM
) -> int:
    """Ask a process to end and return its exit code: -SIGKILL where it had to be killed after so long."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(process)
    assert process.returncode is not None
    return int(process.returncode)


def kill(process: "subprocess.Popen[Any]") -> None:
    """SIGKILL to a process, and to its children where it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def end_all() -> None:
    """Kill what a failed test has left, so that it takes no port and no processor from the next."""
    while _started:
        process = _started.pop()
        kill(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def beside(work: Callable[..., None], *arguments: Any) -> Iterator[threading.Event]:
    """Run `work(stop, *arguments)` in a thread while the block runs; give the event that stops it."""
    ends = threading.Event()
    thread = threading.Thread(target=work, args=(ends, *arguments), daemon=True)
    thread.start()
    try:
        yield ends
    finally:
        ends.set()
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive(), f"{work.__name__} does not end"
