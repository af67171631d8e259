"""`tocsin config check|show|schema`."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tocsin.config import Config


@click.group()
def config() -> None:
    """Check, show or describe the configuration."""


_path = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file."
)


@config.command()
@_path
def check(path: Path | None) -> None:
    """Say whether the configuration is right, and what its views may take."""
    from correlator.tables.network_map import load_network
    from correlator.views import windows_bytes
    from tocsin.config import load_config
    from tocsin.trial import mistakes

    made = load_config(
        path, then="", further=lambda config: [*mistakes(config), *_mistakes_of_models(config)]
    )
    network = load_network(Path(made.network.map) if made.network.map else None)
    sizes = windows_bytes(made.all_views(), open_ticks=1)
    for name, size in sizes.items():
        click.echo(f"view {name}: at most {size / 1e6:.1f} MB for each open tick")
    most = made.views.windows_bytes_max / 1e6
    click.echo(f"views: {sum(sizes.values()) / 1e6:.1f} of {most:.1f} MB (views.windows_bytes_max)")
    if made.network.map:
        click.echo(f"network map: {len(network.routers())} routers")
    else:
        click.echo("network map: none (network.map): interfaces keep their numbers, links no names")
    click.echo(f"{path or 'built-in configuration'}: ok")


def _mistakes_of_models(config: "Config") -> Iterator[str]:
    """Yield models of River that are none, or cannot be made so; where there is no River, nothing is known."""
    import msgspec

    from detectors.river_scores import RiverOptions
    from telemetry.errors import ConfigError

    for name, also in config.detection.also.items():
        if also.kind == "river" and find_spec("river"):
            from tocsin.desk.teaching import RiverDetector

            try:
                RiverDetector(msgspec.convert(also.options, RiverOptions))
            except ConfigError as error:
                yield f"detection.also.{name}.options.{error}"


@config.command()
@_path
def show(path: Path | None) -> None:
    """Print the effective configuration (file, environment, defaults) as JSON."""
    import msgspec

    from tocsin.config import load_config

    made = msgspec.json.encode(load_config(path, then=""), order="sorted")
    click.echo(msgspec.json.format(made, indent=2).decode())


@config.command()
def schema() -> None:
    """Print every key with its type, default and meaning, as a JSON schema."""
    import msgspec

    from runtime.described import schema_of
    from tocsin.config import Config

    made = msgspec.json.encode(schema_of(Config))
    click.echo(msgspec.json.format(made, indent=2).decode())
