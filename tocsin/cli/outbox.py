"""`tocsin outbox list|retry|drop|approve|reject|audit`: deliveries of a running node."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

T = TypeVar("T")
STATES = ("waiting", "held", "sent", "given_up", "rejected", "superseded", "dropped")


@click.group()
def outbox() -> None:
    """List deliveries, retry or drop those that were given up, approve those that wait for it."""


_state = click.option("--state", type=click.Path(path_type=Path), help="State folder.")
_by = click.option("--by", required=True, help="Who decides; it is kept in the audit.")
_number = click.argument("number", type=click.IntRange(min=1, max=(1 << 63) - 1))


@outbox.command("list")
@_state
@click.option("--only", type=click.Choice(STATES), help="Deliveries in this state.")
@click.option("--sink", help="Deliveries to this sink.")
def list_(state: Path | None, only: str | None, sink: str | None) -> None:
    """List deliveries, newest first, at most 1000."""
    from tocsin import verbs

    ask = verbs.DeliveriesRequest(state=only or "", sink=sink or "")
    rows = _ask(state, "deliveries", list[dict[str, object]], ask)
    if sink and not rows:
        some = _ask(state, "deliveries", list[dict[str, object]], verbs.DeliveriesRequest())
        known = ", ".join(sorted({str(row["sink"]) for row in some})) or "nothing was sent yet"
        click.echo(f"no such delivery to {sink!r}; sinks with deliveries: {known}", err=True)
    for row in rows:
        click.echo(
            f"{row['number']:>6} {row['state']:9} {row['attempts']:>3} {row['sink']:12} "
            f"{row['key']}  {_shown(row['answer'])}"
        )


@outbox.command()
@_state
@click.option("--sink", default="", help="To this sink alone.")
def retry(state: Path | None, sink: str) -> None:
    """Send what was given up once more."""
    from tocsin import verbs

    done = _ask(state, "retry", int, verbs.RetryRequest(sink=sink))
    click.echo(f"{done} deliveries will be tried again")


@outbox.command()
@_state
@click.argument("number", type=click.IntRange(min=1, max=(1 << 63) - 1), required=False)
@click.option("--sink", default="", help="All of this sink that were given up.")
@_by
def drop(state: Path | None, number: int | None, sink: str, by: str) -> None:
    """Drop what was given up and nobody needs any more: one NUMBER, or all of a sink."""
    from tocsin import verbs

    if not number and not sink:
        raise click.UsageError("say which: a NUMBER, or --sink NAME")
    done = _ask(state, "drop", int, verbs.DropRequest(sink=sink, number=number or 0, by=by))
    click.echo(f"{done} deliveries were dropped")


@outbox.command()
@_state
@_number
@_by
def approve(state: Path | None, number: int, by: str) -> None:
    """Let a delivery that waits for approval go."""
    _decide(state, number, by, approve=True)


@outbox.command()
@_state
@_number
@_by
def reject(state: Path | None, number: int, by: str) -> None:
    """End a delivery that waits for approval."""
    _decide(state, number, by, approve=False)


@outbox.command()
@_state
def audit(state: Path | None) -> None:
    """List what was done to the network and who let it, newest first."""
    for row in _ask(state, "audit", list[dict[str, object]]):
        at = datetime.fromtimestamp(int(str(row["at_ns"])) // 10**9, UTC)
        click.echo(
            f"{at:%Y-%m-%dT%H:%M:%SZ} {row['what']:9} {row['sink']:12} {row['who']:12} "
            f"{row['key']}  {_shown(row['answer'])}"
        )


def _shown(answer: object) -> str:
    """Return what the other side said on one line: an older outbox kept it as it came."""
    from alerting.words.escape import line

    return line(str(answer))


def _decide(state: Path | None, number: int, by: str, *, approve: bool) -> None:
    from tocsin import verbs

    if not by.strip():
        raise click.BadParameter("say who decides; it is kept in the audit", param_hint="--by")
    ask = verbs.DecideRequest(number=number, approve=approve, by=by)
    if not _ask(state, "decide", bool, ask):
        click.echo(f"no delivery {number} waits for approval; see `tocsin outbox list`", err=True)
        raise SystemExit(1)
    click.echo(f"delivery {number} was {'approved' if approve else 'rejected'}")


def _ask(state: Path | None, verb: str, answer: type[T], body: Any = None) -> T:
    from runtime.bus import RequestClient
    from tocsin import verbs
    from tocsin.state import state_dir

    client = RequestClient(f"ipc://{state_dir(state)}/node.sock")
    try:
        return client.ask(verb, body or verbs.Nothing(), answer)
    finally:
        client.close()
