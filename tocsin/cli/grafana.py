"""`tocsin grafana push`: the dashboards that ship, or one's own, into a Grafana."""

from pathlib import Path

import click


@click.group()
def grafana() -> None:
    """Bring dashboards to Grafana."""


@grafana.command()
@click.argument("url")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--token-file", default="", help="A service account's token, in a file.")
@click.option("--folder", default="", metavar="UID", help="Folder in Grafana.")
def push(url: str, files: tuple[Path, ...], token_file: str, folder: str) -> None:
    """Put the dashboards that ship (or FILES) into the Grafana at URL; those of the same uid are replaced."""
    from alerting.sinks.http import secret
    from telemetry.errors import ConfigError, TransientError
    from tocsin.desk.grafana import dashboards, push_dashboard

    token = secret(token_file, "--token-file") if token_file else ""
    for path in files or dashboards():
        try:
            where = push_dashboard(url, token, path, folder=folder)
        except TransientError as error:
            raise ConfigError(f"{path.name} was not pushed: {error}") from error
        click.echo(f"{path.name}: {url.rstrip('/')}{where}")
