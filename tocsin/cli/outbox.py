"""`tocsin outbox list|retry`: deliveries of a running node."""

from pathlib import Path
from typing import TypeVar

import click

T = TypeVar("T")


@click.group()
def outbox() -> None:
    """List deliveries, and retry those that were given up."""


_state = click.option("--state", type=click.Path(path_type=Path), help="State folder.")


@outbox.command("list")
@_state
def list_(state: Path | None) -> None:
    """List deliveries, newest first."""
    for row in _ask(state, "deliveries", list[dict[str, object]]):
        click.echo(
            f"{row['number']:>6} {row['state']:9} {row['attempts']:>3} {row['sink']:12} "
            f"{row['key']}  {row['answer']}"
        )


@outbox.command()
@_state
def retry(state: Path | None) -> None:
    """Send what was given up once more."""
    click.echo(f"{_ask(state, 'retry', int)} deliveries will be tried again")


def _ask(state: Path | None, verb: str, answer: type[T]) -> T:
    from runtime.bus import RequestClient
    from tocsin import verbs
    from tocsin.state import state_dir

    client = RequestClient(f"ipc://{state_dir(state)}/node.sock")
    try:
        return client.ask(verb, verbs.Nothing(), answer)
    finally:
        client.close()
