"""The supervisor's process: keeps node, gate and desk running; carries neither numpy nor a decoder.

It lives for months and does next to nothing, so it does not even read the configuration: `tocsin run`
hands on a plan in plain JSON (`tocsin.supervisor.processes.plan`).
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from runtime import logs
from runtime.clock import SteadyClock
from runtime.component import Context
from runtime.lock import FolderLock
from runtime.metrics import Metrics
from runtime.notify import notify
from runtime.supervisor import Role, Supervisor
from tocsin import restarts

PLAN = "TOCSIN_PLAN"

LOOK_SECONDS = 0.2


def main() -> int:
    """`python -m tocsin.supervisor STATE LOCK`: run until SIGTERM; return the exit code.

    `tocsin run` turns into this; LOCK is the descriptor of the state folder's lock, which it took.
    """
    clock, metrics = SteadyClock(), Metrics("supervisor")
    state = Path(sys.argv[1])
    lock = FolderLock(state, "run", clock)
    lock.adopt(int(sys.argv[2]))
    plan = json.loads(os.environ.pop(PLAN))
    logs.set_up("run", metrics, clock, level=plan["log_level"])
    context = Context(
        "supervisor",
        clock,
        metrics.scoped("supervisor"),
        logs.child("supervisor"),
        (plan["seed"], *b"supervisor"),
    )
    supervisor = Supervisor([Role(**one) for one in plan["roles"]], context)
    ended = []

    def ask_to_stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        ended.append(number)

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    told = restarts.Fared()
    supervisor.start()  # the node says READY=1 once its inputs are received, then WATCHDOG=1
    code: int | None = None
    try:
        while not ended and code is None:
            code = supervisor.poll()
            now = restarts.Fared(supervisor.restarts(), supervisor.trouble())
            if now != told:
                told = now
                restarts.keep(state, told)
            notify(f"STATUS={supervisor.health() or 'all processes run'}")
            clock.sleep(LOOK_SECONDS)
    finally:
        notify("STOPPING=1")
        supervisor.stop()
        lock.free()
    return code or 0
