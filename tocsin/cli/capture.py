"""`tocsin capture`: one file that holds what led to an alert."""

from pathlib import Path

import click

from tocsin.cli.finite import finite


@click.command()
@click.option(
    "--around", required=True, help="An alert's id, a time (RFC 3339), or 2h: so long ago."
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The .tocsin file.")
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="Default: what the instance runs with.",
)
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
@click.option(
    "--before", type=click.FloatRange(0, 1e9), callback=finite, default=60.0, show_default=True,
    help="Seconds of datagrams.",
)  # fmt: skip
@click.option(
    "--anonymise", default="", help="A secret: map addresses; common prefixes stay common."
)
def capture(
    around: str, output: Path, path: Path | None, state: Path | None, before: float, anonymise: str
) -> None:
    """Save datagrams, ticks, state and configuration around an alert as a replayable case."""
    from runtime.clock import SystemClock
    from tocsin.cases.case import write_case
    from tocsin.config import kept_config, load_config
    from tocsin.state import state_dir
    from tocsin.times import moment_of

    folder = state_dir(state)
    config = (kept_config(folder) if path is None else None) or load_config(path)
    manifest = write_case(
        folder,
        config,
        output,
        around_ns=moment_of(around, folder, now_ns=SystemClock().now_ns()),
        before_seconds=before,
        anonymise=anonymise,
    )
    left = "; datagrams are left out of an anonymised case" if anonymise else ""
    if not manifest["whole"]:
        click.echo(
            "tocsin: neither a checkpoint nor the whole journal before that moment is left: scores in "
            "the case may differ from those that were seen. Capture sooner, or raise "
            "node.journal_bytes_max",
            err=True,
        )
    click.echo(
        f"{output}: {manifest['datagrams']} datagrams, {manifest['ticks']} ticks{left}; "
        f"see it again with: tocsin replay {output}"
    )
