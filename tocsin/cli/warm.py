"""`tocsin warm`: compile every kernel into the cache before it is needed."""

import os
import sys
from pathlib import Path

import click

from tocsin.state import kernel_environment, state_dir


@click.command()
@click.option("--state", type=click.Path(path_type=Path), help="State folder; holds the cache.")
@click.option("--jobs", type=click.IntRange(1, 64), help="Processes; default: one per core.")
@click.option("--part", hidden=True, help="I/N: compile every N-th kernel, for the parent process.")
def warm(state: Path | None, jobs: int | None, part: str | None) -> None:
    """Compile all kernels, with progress. The cache lies in the state folder."""
    folder = state_dir(state)
    environment, said = kernel_environment(folder)
    if said:
        click.echo(f"tocsin: {said}", err=True)
    if part is not None:
        os.environ.update(environment)
        _compile_part(*(int(number) for number in part.split("/")))
        return
    _compile_all(environment, jobs or os.cpu_count() or 1, folder)


def _compile_part(index: int, parts: int) -> None:
    from runtime.kernels import registered

    for number, kernel in enumerate(registered()):
        if number % parts == index:
            kernel.compile()
            print(kernel.name, flush=True)  # the parent reads it


def _compile_all(environment: dict[str, str], jobs: int, folder: Path) -> None:
    import selectors
    import subprocess

    probe = (
        "import sys; from runtime.kernels import registered; print(sum(1 for _ in registered()))"
    )
    env = {**os.environ, **environment}
    answer = subprocess.run(
        [sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        last = answer.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise click.ClickException(f"kernels cannot be compiled: {last[0]}")
    total = int(answer.stdout)
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tocsin",
                "warm",
                "--state",
                str(folder),
                "--part",
                f"{i}/{jobs}",
            ],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(jobs)
    ]
    selector = selectors.DefaultSelector()
    for child in children:
        assert child.stdout is not None
        selector.register(child.stdout, selectors.EVENT_READ)
    done, show = 0, sys.stderr.isatty()
    while selector.get_map():
        for key, _ in selector.select():
            if not key.fileobj.readline():  # type: ignore[union-attr]
                selector.unregister(key.fileobj)
                continue
            done += 1
            if show:
                click.echo(f"\rcompiling {done}/{total}", err=True, nl=False)
            elif done % 10 == 0 or done == total:
                click.echo(f"compiling {done}/{total}", err=True)
    if show:
        click.echo("", err=True)
    if any(child.wait() for child in children):
        raise click.ClickException("a kernel did not compile; see the lines above")
