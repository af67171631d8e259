"""`tocsin watchdog`: watch the node from outside, in a program that carries as little as can be."""

import os
import sys
from pathlib import Path

import click

from tocsin.cli.finite import finite
from tocsin.state import state_dir
from tocsin.watchdog.watch import TICK_SECONDS_FIRST


@click.command()
@click.option("--state", type=click.Path(path_type=Path), help="State folder of the node.")
@click.option("--webhook", default="", metavar="URL", help="Also POST each notice here.")
@click.option(
    "--syslog", default="", metavar="ADDRESS", help="Also to syslog: /dev/log, or HOST:PORT by UDP."
)
@click.option(
    "--repeat-seconds", type=click.FloatRange(1, 1e9), callback=finite, default=3600.0, show_default=True,
    help="Say it again while blind.",
)  # fmt: skip
@click.option(
    "--tick-seconds", type=click.FloatRange(0.1, 1e9), callback=finite, default=TICK_SECONDS_FIRST,
    show_default=True, help="Assumed until the node says its own.",
)  # fmt: skip
def watchdog(
    state: Path | None, webhook: str, syslog: str, repeat_seconds: float, tick_seconds: float
) -> None:
    """Watch the node from outside and say when it is blind, one JSON line a change."""
    if webhook and not webhook.startswith(("http://", "https://")):
        raise click.UsageError(f"--webhook {webhook!r}: must begin with http:// or https://")
    arguments = [str(state_dir(state)), webhook, syslog, str(repeat_seconds), str(tick_seconds)]
    # Under the same process id, but without the command line's own 4 MB.
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, "-m", "tocsin.watchdog", "watch", *arguments]
    )  # fmt: skip
