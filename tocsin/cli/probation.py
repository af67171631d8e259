"""`tocsin probation`: which detectors may alert yet, and what the others would have sent."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

_state = click.option("--state", type=click.Path(path_type=Path), help="State folder.")
_by = click.option("--by", default=getpass.getuser, show_default="the user", help="Who decides.")
_note = click.option("--note", default="", help="Why; it is kept with the class.")
_classes = click.argument("classes")


@click.group()
def probation() -> None:
    """What new detectors, streams and nodes find is shown before it is sent.

    A class is one detector on one view, such as interface/point. It goes live by itself after days
    within the budget; `live` and `hold` decide by hand. CLASSES may hold * and ?.
    """


@probation.command(name="list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table",
              show_default=True)  # fmt: skip
@_state
def list_(output: str, state: Path | None) -> None:
    """List every class with its state, and the alarms that would have been raised."""
    import json

    import msgspec

    from telemetry.text import printable
    from tocsin import verbs
    from tocsin.cli.alarm import _ask

    answer = _ask(state, "probation", verbs.Nothing(), verbs.ProbationAnswer)
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(answer)))
        return
    click.echo(f"probation is {answer.mode}")
    for one in answer.classes:
        click.echo(f"{one['name']:36} {one['state']:10} {_why(one)}")
    if answer.would_have_sent:
        click.echo("would have been sent:")
    for one in answer.would_have_sent:
        click.echo(printable(f"  {_time(one['would_ns'])} {one['severity']:8} {one['title']}"))


@probation.command()
@_classes
@_by
@_note
@_state
def live(classes: str, by: str, note: str, state: Path | None) -> None:
    """Let CLASSES alert from the next second on."""
    _order(classes, True, by, note, state)


@probation.command()
@_classes
@_by
@_note
@_state
def hold(classes: str, by: str, note: str, state: Path | None) -> None:
    """Put CLASSES on probation again: what they find is shown, not sent."""
    _order(classes, False, by, note, state)


def _order(classes: str, live: bool, by: str, note: str, state: Path | None) -> None:
    from tocsin.cli.alarm import _act

    _act(state, "probation", {"classes": classes, "live": live, "by": by, "note": note})


def _why(one: dict[str, Any]) -> str:
    if one["live"]:
        said = f"since {_time(one['since_ns'])} by {one['by']}"
        return said + (f": {one['note']}" if one["note"] else "")
    return (
        f"{one['would']} would have been sent; {one['days_needed']} more days of at most "
        f"{one['allowed']:g} to go live"
    )


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%MZ")
