"""The supervisor: restarts the dead with back-off, leaves a misconfigured role alone, stops all."""

import sys

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
    return Context(made.name, SystemClock(), made.metrics, made.log, made.random)


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


def test_a_role_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    supervisor = Supervisor([Role("deaf", python(code))], live_context())
    supervisor.start()
    supervisor.stop(timeout_seconds=0.3)
    assert supervisor.pids() == {}
