"""`tocsin capture`: one file that holds what led to an alert."""

from pathlib import Path

import click


@click.command()
@click.option("--around", required=True, help="An alert's id, or a time (RFC 3339).")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The .tocsin file.")
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
@click.option("--before", type=float, default=60.0, show_default=True, help="Seconds of datagrams.")
@click.option("--anonymise", default="", help="A secret: map senders, common prefixes stay common.")
def capture(
    around: str, output: Path, path: Path | None, state: Path | None, before: float, anonymise: str
) -> None:
    """Save datagrams, ticks, state and configuration around an alert as a replayable case."""
    from tocsin.case import write_case
    from tocsin.config import load_config
    from tocsin.state import state_dir
    from tocsin.times import moment_of

    load_config(path)
    folder = state_dir(state)
    manifest = write_case(
        folder,
        path.read_text("utf-8") if path else "",
        output,
        around_ns=moment_of(around, folder),
        before_seconds=before,
        anonymise=anonymise,
    )
    click.echo(
        f"{output}: {manifest['datagrams']} datagrams, {manifest['ticks']} ticks; "
        f"see it again with: tocsin replay {output}"
    )
