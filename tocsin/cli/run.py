"""`tocsin run`: one instance, until it is told to stop."""

from pathlib import Path

import click


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def run(path: Path | None, state: Path | None) -> None:
    """Start node, gate and desk, and keep them running."""
    import os
    import sys

    from runtime.clock import SystemClock
    from runtime.lock import FolderLock
    from tocsin.config import load_config
    from tocsin.state import state_dir
    from tocsin.supervisor.processes import plan
    from tocsin.supervisor.supervisor import PLAN

    config = load_config(path)
    folder = state_dir(state or (Path(config.node.state_dir) if config.node.state_dir else None))
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder, "run", SystemClock())
    lock.take()
    # Checking the configuration has loaded every collector; the supervisor lives for months and
    # needs none of them: a fresh program takes over under the same process id.
    os.execve(  # noqa: S606
        sys.executable,
        [sys.executable, "-m", "tocsin.supervisor", str(folder), str(lock.hand_on())],
        {**os.environ, PLAN: plan(config.for_processes(), path, folder)},
    )
