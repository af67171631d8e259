"""`tocsin trace`: every step that led to an alert."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("alert", required=False)
@click.option("--list", "listing", is_flag=True, help="List alerts instead.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def trace(alert: str | None, listing: bool, state: Path | None) -> None:
    """Show datagrams, frame rows, scores, decisions and deliveries behind ALERT, as JSON lines."""
    from telemetry.text import printable
    from tocsin.cases.trace import list_alerts, trace_alert
    from tocsin.state import state_dir

    folder = state_dir(state)
    if listing or alert is None:
        for row in list_alerts(folder):
            click.echo(
                printable(f"{row['id']}  {row['state']:8} {row['severity']:9} {row['title']}")
            )
        return
    step: dict[str, Any]
    for step in trace_alert(folder, alert):
        click.echo(json.dumps(step, sort_keys=True))
