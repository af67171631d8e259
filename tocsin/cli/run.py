"""`tocsin run`: one instance, until it is told to stop."""

import signal
from pathlib import Path
from types import FrameType

import click


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def run(path: Path | None, state: Path | None) -> None:
    """Start node, gate and desk, and keep them running."""
    import numpy as np

    from runtime import logs
    from runtime.clock import SystemClock
    from runtime.component import Context
    from runtime.lock import FolderLock
    from runtime.metrics import Metrics
    from runtime.notify import notify
    from runtime.supervisor import Supervisor
    from tocsin.config import load_config
    from tocsin.processes import roles
    from tocsin.state import state_dir

    config = load_config(path)
    folder = state_dir(state or (Path(config.node.state_dir) if config.node.state_dir else None))
    folder.mkdir(parents=True, exist_ok=True)
    clock, metrics = SystemClock(), Metrics("supervisor")
    lock = FolderLock(folder, "run", clock)
    lock.take()
    logs.set_up("run", metrics, clock, level=config.node.log_level)
    # Not by tocsin.intake: this process would carry the whole chain and numba, 70 MB, for nothing.
    random = np.random.default_rng([config.node.seed, *b"supervisor"])
    context = Context(
        "supervisor", clock, metrics.scoped("supervisor"), logs.child("supervisor"), random
    )
    supervisor = Supervisor(roles(config, path, folder), context)
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
            clock.sleep(0.2)
    finally:
        notify("STOPPING=1")
        supervisor.stop()
        lock.free()
    raise SystemExit(code or 0)
