"""`tocsin route test`: who would be told of an alarm, by the configuration alone."""

from datetime import UTC, datetime
from pathlib import Path

import click


@click.group()
def route() -> None:
    """Say who is told of what."""


@route.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--severity", default="major", show_default=True)
@click.option("--kind", default="link-cut", show_default=True)
@click.option("--entity", default="ams1", show_default=True)
@click.option("--source", default="tocsin", show_default=True)
@click.option("--event-type", default="communicationsAlarm", show_default=True)
@click.option("--at", "when", help="RFC 3339; default: now.")
def test(
    path: Path | None,
    severity: str,
    kind: str,
    entity: str,
    source: str,
    event_type: str,
    when: str | None,
) -> None:
    """Print the routes an alarm takes, the sinks that are told, and who is told later.

    Exit code 3 where nobody is told.
    """
    from alerting.outbox.routes import Router
    from alerting.records.alarm import KINDS, OURS, SEVERITIES
    from alerting.words.alert import Alert
    from runtime.clock import SystemClock
    from tocsin.config import load_config

    if source == OURS and kind not in KINDS:
        raise click.BadParameter(
            f"--kind {kind!r} is none of Tocsin's own: {', '.join(KINDS)}; of a foreign alarm say its --source"
        )
    if severity not in SEVERITIES:
        raise click.BadParameter(f"{severity!r} is none of {', '.join(SEVERITIES)}")
    at_ns = SystemClock().now_ns()
    if when:
        try:
            at = datetime.fromisoformat(when)
        except ValueError as error:
            raise click.BadParameter(f"--at {when!r} is no RFC 3339 time") from error
        at_ns = round(at.replace(tzinfo=at.tzinfo or UTC).timestamp()) * 10**9
    alert = Alert(
        id="0" * 16, change="test", kind=kind, entity=entity, state="raised", severity=severity,
        title="", changed_ns=at_ns, raised_ns=at_ns, cleared_ns=0, occurrence=1,
        event_type=event_type, probable_cause="other", explain={}, source=source,
    )  # fmt: skip
    config = load_config(path)
    found = Router(config.alerting).decide(alert)
    none = "none matches" if config.alerting.routes else "none set: each sink by its own filter"
    click.echo(f"configuration: {path or 'the defaults, no --config was given'}")
    click.echo(f"routes: {', '.join(found.path) or none}")
    for name in found.sinks:
        sink = config.alerting.sinks[name]
        more = " after approval" if sink.approval else ""
        more += f", at most {sink.rate_per_minute} raises a minute" if sink.rate_per_minute else ""
        if how := found.groups.get(name):
            more += f", grouped by {', '.join(how.group_by)} after {how.group_wait_seconds:g} s"
        click.echo(f"told: {name} ({sink.kind}, {sink.send}){more}")
    for minutes, name in found.escalations:
        click.echo(f"told after {minutes:g} minutes without acknowledgement: {name}")
    for name in found.unwanted:
        sink = config.alerting.sinks[name]
        kinds = f", kinds = {', '.join(sink.kinds)}" if sink.kinds else ""
        click.echo(f"not told: {name}, whose own least_severity = {sink.least_severity}{kinds}")
    if not found.sinks:
        click.echo("told: nobody")
        raise SystemExit(3)
