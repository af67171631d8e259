"""The supervisor: restarts the dead with back-off, leaves a misconfigured role alone, stops all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.clock import SystemClock
from runtime.component import Context
from runtime.supervisor import Role, Supervisor
from tocsin.testing import make_context


def wait_for(supervisor: Supervisor, done: object) -> int | None:
    clock = SystemClock()
    code = None
    for _ in range(500):
        code = supervisor.poll()
        if code is not None or done():  # type: ignore[operator]
            return code
        clock.sleep(0.02)
    raise AssertionError("nothing happened in ten seconds")


def live_context() -> Context:
    made = make_context("supervisor")
    return Context(made.name, SystemClock(), made.metrics, made.log, made.seed)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_dead_role_is_started_again_and_the_other_runs_on() -> None:
    context = live_context()
    dies = Role("dies", python("raise SystemExit(1)"))
    runs = Role("runs", python("import time; time.sleep(60)"))
    supervisor = Supervisor([runs, dies], context)
    supervisor.start()
    pid = supervisor.pids()["runs"]
    wait_for(supervisor, lambda: dies.restarts >= 2)
    assert supervisor.pids()["runs"] == pid
    assert context.metrics.value("supervisor_restarts_total", role="dies") >= 2
    supervisor.stop()
    assert supervisor.pids() == {}


def test_a_wrong_configuration_of_an_essential_role_ends_the_program() -> None:
    role = Role("node", python("raise SystemExit(2)"), essential=True)
    supervisor = Supervisor([role], live_context())
    supervisor.start()
    assert wait_for(supervisor, lambda: False) == 2
    supervisor.stop()


def test_a_role_that_others_do_without_is_tried_again_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A desk whose port is busy at its first start."""
    free = tmp_path / "free"
    code = (
        "import pathlib, sys, time\n"
        f"if not pathlib.Path({str(free)!r}).exists(): sys.exit(2)\n"
        "time.sleep(60)"
    )
    desk = Role("desk", python(code))
    supervisor = Supervisor([desk], live_context())
    supervisor.start()
    assert supervisor.trouble() == {}
    wait_for(supervisor, lambda: desk.deaths >= 2)
    assert supervisor.trouble() == {"desk": f"exit code 2, {desk.deaths} times in a row"}
    assert "process_died role=desk code=2" in caplog.text
    free.touch()
    wait_for(supervisor, lambda: desk.process is not None)
    assert supervisor.trouble() != {}, "it has not stayed up yet"
    desk.started_ns -= 61 * 10**9
    supervisor.poll()
    assert supervisor.trouble() == {}
    supervisor.stop()


def test_a_role_that_gives_up_is_left_alone() -> None:
    role = Role("teacher", python("raise SystemExit(2)"), gives_up=True)
    supervisor = Supervisor([role], live_context())
    supervisor.start()
    wait_for(supervisor, lambda: role.gone)
    assert (role.restarts, supervisor.trouble()) == (0, {})


def test_a_role_whose_work_is_done_is_left_alone_until_it_is_started_again(tmp_path: Path) -> None:
    role = Role("ends", python(f"open({str(tmp_path / 'runs')!r}, 'a').write('x')"), ends=True)
    supervisor = Supervisor([role], live_context())
    for times in (1, 2):
        supervisor.start()
        wait_for(supervisor, lambda: role.gone)
        assert ((tmp_path / "runs").read_text(), role.restarts) == ("x" * times, 0)


def test_a_role_that_ran_before_is_tried_again_whatever_is_in_its_way(tmp_path: Path) -> None:
    code = (
        f"import pathlib\nfolder = pathlib.Path({str(tmp_path)!r})\n"
        "starts = len(list(folder.iterdir()))\n(folder / str(starts)).touch()\n"
        "raise SystemExit(1 if starts == 0 else 2)"
    )
    role = Role("desk", python(code), essential=True)
    supervisor = Supervisor([role], live_context())
    supervisor.start()
    assert wait_for(supervisor, lambda: role.restarts >= 2) is None
    assert not role.gone
    supervisor.stop()


def test_a_role_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    supervisor = Supervisor([Role("deaf", python(code))], live_context())
    supervisor.start()
    supervisor.stop(timeout_seconds=0.3)
    assert supervisor.pids() == {}


def test_all_are_told_to_stop_before_any_is_waited_for(tmp_path: Path) -> None:
    """Each ends only once the other was told too; told one by one, the first would be killed."""

    def child(name: str, other: str) -> list[str]:
        return python(
            "import pathlib, signal, sys, time\n"
            f"folder = pathlib.Path({str(tmp_path)!r})\n"
            "def told(*_):\n"
            f"    (folder / '{name}.told').touch()\n"
            f"    while not (folder / '{other}.told').exists(): time.sleep(0.01)\n"
            f"    (folder / '{name}.done').touch()\n"
            "    sys.exit(0)\n"
            "signal.signal(15, told)\n"
            f"(folder / '{name}.ready').touch()\n"
            "time.sleep(60)"
        )

    roles = [Role("a", child("a", "b")), Role("b", child("b", "a"))]
    supervisor = Supervisor(roles, live_context())
    supervisor.start()
    wait_for(supervisor, lambda: all((tmp_path / f"{name}.ready").exists() for name in "ab"))
    supervisor.stop(timeout_seconds=20.0)
    assert sorted(path.name for path in tmp_path.glob("*.done")) == ["a.done", "b.done"]


def test_a_child_ends_with_its_parent_and_inherits_what_it_is_handed(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = (
        "import os, sys, time\n"
        "from runtime.parent import end_with_parent\n"
        "end_with_parent(9)\n"
        "os.write(int(sys.argv[1]), str(os.getpid()).encode())\n"
        "time.sleep(600)"
    )
    parent = (
        "import sys, time\n"
        "from runtime.supervisor import Role, Supervisor\n"
        "from tests.unit.runtime.test_supervisor import live_context\n"
        f"role = Role('child', [sys.executable, '-c', {child!r}, sys.argv[1]],\n"
        "            pass_fds=(int(sys.argv[1]),))\n"
        "Supervisor([role], live_context()).start()\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(write)], pass_fds=(write,))
    os.close(write)
    pid = int(os.read(read, 20))
    assert Path(f"/proc/{pid}").exists()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert os.read(read, 1) == b"", "the pipe closes when the last of them has ended"
    os.close(read)
