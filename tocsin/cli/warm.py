"""`tocsin warm`: compile every kernel before it is needed, into the cache or ahead of time."""

import os
import platform
import sys
from pathlib import Path

import click

from tocsin import __version__
from tocsin.state import kernel_environment, state_dir


@click.command()
@click.option("--state", type=click.Path(path_type=Path), help="State folder; holds the cache.")
@click.option("--jobs", type=click.IntRange(1, 64), help="Processes; default: one per core.")
@click.option("--part", hidden=True, help="I/N: compile every N-th kernel, for the parent process.")
@click.option(
    "--ahead-of-time", is_flag=True,
    help="Make one library for machines without numba; needs a C compiler here, none there.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path),
    help="Where the library goes; default: into the package, where it is found.",
)  # fmt: skip
@click.option(
    "--cpu", default="", metavar="LEVEL",
    help="Least CPU it must run on: x86-64, x86-64-v2 (default), -v3, -v4; generic elsewhere.",
)  # fmt: skip
@click.option(
    "--machine", default="", metavar="NAME",
    help="Machine it is for: x86_64 or aarch64; default: this one.",
)  # fmt: skip
@click.option(
    "--compiler", default="cc", show_default=True, metavar="PROGRAM",
    help="Links it; aarch64-linux-gnu-gcc for the other machine.",
)  # fmt: skip
def warm(
    state: Path | None,
    jobs: int | None,
    part: str | None,
    ahead_of_time: bool,
    output: Path | None,
    cpu: str,
    machine: str,
    compiler: str,
) -> None:
    """Compile all kernels, with progress. The cache lies in the state folder."""
    if ahead_of_time:
        _build_library(output, cpu, machine or platform.machine(), compiler)
        return
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


def _build_library(output: Path | None, cpu: str, machine: str, compiler: str) -> None:
    import subprocess

    from runtime.kernel_library import GENERIC, ROOT, file_name

    # In a process of its own: numba must know the CPU level before it is imported.
    level = cpu or ("x86-64-v2" if machine == "x86_64" else GENERIC)
    path = output or ROOT / "runtime" / file_name(machine, level)
    host = level if machine == platform.machine() != "aarch64" else ""
    environment = {
        **os.environ,
        **({"NUMBA_CPU_NAME": host, "NUMBA_CPU_FEATURES": ""} if host else {}),
        "TOCSIN_KERNELS": "numba",
    }
    command = [
        sys.executable, "-m", "runtime.ahead_of_time", str(path), level, machine, compiler,
        __version__,
    ]  # fmt: skip
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for number, _ in enumerate(child.stdout, 1):
            _show(number, 0)
    if sys.stderr.isatty():
        click.echo("", err=True)
    if child.returncode:
        raise click.ClickException("the kernel library was not made; see the lines above")
    click.echo(f"{path}: {path.stat().st_size / 1e3:.0f} kB, for {machine} {level}")


def _show(done: int, total: int) -> None:
    of = f"/{total}" if total else ""
    if sys.stderr.isatty():
        click.echo(f"\rcompiling {done}{of}", err=True, nl=False)
    elif done % 10 == 0 or done == total:
        click.echo(f"compiling {done}{of}", err=True)


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
    done = 0
    while selector.get_map():
        for key, _ in selector.select():
            if not key.fileobj.readline():  # type: ignore[union-attr]
                selector.unregister(key.fileobj)
                continue
            done += 1
            _show(done, total)
    if sys.stderr.isatty():
        click.echo("", err=True)
    if any(child.wait() for child in children):
        raise click.ClickException("a kernel did not compile; see the lines above")
