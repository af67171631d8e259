"""`tocsin demo`: a node and desk fed by the demo network, its faults played, found and scored."""

from pathlib import Path

import click

from tocsin.cli.finite import finite


@click.command()
@click.option("--for", "seconds", type=click.FloatRange(1, 1e9), callback=finite,
              help="Stop so long after ready.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Draws traffic and faults.")
@click.option("--days", type=click.IntRange(1, 60), help="Simulate so many days, without sockets.")
@click.option("--speed", type=click.Choice(["max"]), help="With --days: as fast as it goes.")
@click.option("--profile", type=click.Choice(["site", "sensor"]), default="site", show_default=True)
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
@click.option("--records-per-second", type=click.FloatRange(50, 1e6), callback=finite, default=2400.0,
              hidden=True)  # fmt: skip
def demo(
    seconds: float | None,
    seed: int,
    days: int | None,
    speed: str | None,
    profile: str,
    state: Path | None,
    records_per_second: float,
) -> None:
    """Show a network, its faults, and what Tocsin makes of them."""
    import shutil

    from tocsin.state import state_dir, use_kernel_cache, writable_state

    if speed and not days:
        raise click.UsageError("--speed goes with --days")
    wanted = state_dir(state)
    root, said = writable_state(wanted)
    for line in (said, use_kernel_cache(root)):
        if line:
            click.echo(f"tocsin: {line}", err=True)
    folder = root / "demo"
    if days:
        from tocsin.demo.simulate import simulate

        code = simulate(
            days=days, seed=seed, records_per_second=records_per_second, echo=click.echo
        )
    else:
        from tocsin.demo.live import LiveDemo

        try:
            code = LiveDemo(
                folder,
                seconds=seconds,
                seed=seed,
                profile=profile,
                records_per_second=records_per_second,
            ).run()
        finally:
            if root != wanted:
                shutil.rmtree(root, ignore_errors=True)
    raise SystemExit(code)
