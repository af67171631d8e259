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
    from tocsin.state import state_dir, use_kernel_cache

    use_kernel_cache(state_dir())
    from contextlib import ExitStack
    from tempfile import TemporaryDirectory

    from runtime.clock import SystemClock
    from runtime.journal import segments
    from telemetry.errors import ConfigError
    from tocsin.cases.case import unpack_case
    from tocsin.cases.replay import Replay, pace
    from tocsin.config import load_config

    try:
        times = 0.0 if speed == "max" else float(speed)
    except ValueError as error:
        raise click.UsageError(f"--speed {speed!r} is neither max nor a number") from error
    if speed != "max" and not times > 0:
        raise click.UsageError(f"--speed {speed!r} must be max or more than 0")
    for file in files:
        if not file.exists():
            raise ConfigError(f"{file}: no such file or folder")
    case = files[0] if files[0].suffix == ".tocsin" else None
    if len(files) > 1 and (case is not None or files[0].is_dir()):
        raise click.UsageError("a case or a journal is replayed alone; several captures may follow")
    with ExitStack() as stack:
        config = load_config(path)
        if case is not None:
            unpacked = Path(stack.enter_context(TemporaryDirectory(prefix="tocsin-case-")))
            kept = unpack_case(case, unpacked)
            config = config if path is not None else kept
        run = Replay(config, shards=shards)
        if case is not None:
            lines = run.case(unpacked)
        elif files[0].is_dir():
            inner = files[0] / "journal"
            journal = inner if inner.is_dir() else files[0]
            if not segments(journal):
                raise ConfigError(f"{journal}: no journal is in this folder (files NNN.arrows)")
            lines = run.journal(journal)
        else:
            wait = pace(SystemClock(), times) if times else lambda arrival_ns: None
            lines = run.captures(list(files), flush=flush, pace=wait)
        for line in lines:
            sys.stdout.buffer.write(line + b"\n")
            if times:
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()
    done = run.summary
    click.echo(
        f"{done.packets} packets, {done.datagrams} datagrams, {done.records} records, "
        f"{done.ticks} ticks, {done.alerts} alerts",
        err=True,
    )
    for text in done.damage:
        click.echo(f"damaged: {text}", err=True)
    nothing = case is None and files[0].is_file() and not done.datagrams
    if nothing and not done.damage:
        names = ", ".join(map(str, files))
        click.echo(
            f"tocsin: {names}: no flow datagrams; `tocsin decode` says what is there", err=True
        )
    raise SystemExit(1 if done.damage or nothing else 0)
