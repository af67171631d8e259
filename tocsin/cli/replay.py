"""`tocsin replay`: captures, cases and journals through the whole chain."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--speed", default="max", show_default=True, help="max, or times real time: 1, 60.")
@click.option("--flush", is_flag=True, help="Close what is open at the end; marked partial.")
@click.option("--shards", type=click.IntRange(1, 64), default=1, show_default=True)
def replay(
    files: tuple[Path, ...], path: Path | None, speed: str, flush: bool, shards: int
) -> None:
    """Print the alerts of FILES (pcap, pcapng, a .tocsin case, a journal folder) as JSON lines."""
    from runtime.clock import SystemClock
    from telemetry.errors import ConfigError, DecodeError
    from tocsin.config import load_config
    from tocsin.state import state_dir, use_kernel_cache

    use_kernel_cache(state_dir())
    from tocsin.replay import Replay, case_config, pace

    try:
        times = 0.0 if speed == "max" else float(speed)
    except ValueError as error:
        raise click.UsageError(f"--speed {speed!r} is neither max nor a number") from error
    for file in files:
        if not file.exists():
            raise ConfigError(f"{file}: no such file or folder")
    case = files[0] if files[0].suffix == ".tocsin" else None
    if case is not None and path is None:
        import tempfile

        with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as kept:
            kept.write(case_config(case))
        path = Path(kept.name)
    config = load_config(path)
    run = Replay(config, shards=shards)
    wait = pace(SystemClock(), times) if times else lambda arrival_ns: None
    try:
        if case is not None:
            lines = run.case(case)
        elif files[0].is_dir():
            lines = run.journal(
                files[0] / "journal" if (files[0] / "journal").is_dir() else files[0]
            )
        else:
            lines = run.captures(list(files), flush=flush, pace=wait)
        for line in lines:
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except DecodeError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if case is not None and path is not None and path.name.startswith("tmp"):
            path.unlink(missing_ok=True)
    done = run.summary
    click.echo(
        f"{done.packets} packets, {done.datagrams} datagrams, {done.records} records, "
        f"{done.ticks} ticks, {done.alerts} alerts",
        err=True,
    )
    for text in done.damage:
        click.echo(f"damaged: {text}", err=True)
    raise SystemExit(1 if done.damage else 0)
