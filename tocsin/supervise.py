"""The supervisor's process: keeps node, gate and desk running; carries neither numpy nor a decoder."""

import signal
import sys
from pathlib import Path
from types import FrameType

from runtime import logs
from runtime.clock import SystemClock
from runtime.component import Context
from runtime.lock import FolderLock
from runtime.metrics import Metrics
from runtime.notify import notify
from runtime.supervisor import Supervisor
from tocsin.process_settings import process_settings
from tocsin.processes import roles

LOOK_SECONDS = 0.2


def main() -> int:
    """`python -m tocsin.supervise CONFIG STATE LOCK`: run until SIGTERM; return the exit code.

    `tocsin run` turns into this; LOCK is the descriptor of the state folder's lock, which it took.
    """
    path, state = Path(sys.argv[1]) if sys.argv[1] else None, Path(sys.argv[2])
    clock, metrics = SystemClock(), Metrics("supervisor")
    lock = FolderLock(state, "run", clock)
    lock.adopt(int(sys.argv[3]))
    settings = process_settings(path)
    logs.set_up("run", metrics, clock, level=settings.node.log_level)
    context = Context(
        "supervisor",
        clock,
        metrics.scoped("supervisor"),
        logs.child("supervisor"),
        (settings.node.seed, *b"supervisor"),
    )
    supervisor = Supervisor(roles(settings, path, state), context)
    ended = []

    def ask_to_stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        ended.append(number)

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    supervisor.start()  # the node says READY=1 once its inputs are received, then WATCHDOG=1
    code: int | None = None
    try:
        while not ended and code is None:
            code = supervisor.poll()
            notify(f"STATUS={supervisor.health() or 'all processes run'}")
            clock.sleep(LOOK_SECONDS)
    finally:
        notify("STOPPING=1")
        supervisor.stop()
        lock.free()
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
