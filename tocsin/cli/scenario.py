"""`tocsin scenario run`: play stories in YAML and say which came out as they expect."""

from pathlib import Path

import click


@click.group()
def scenario() -> None:
    """Play stories (YAML) to the alerting stage and check what people would be told."""


@scenario.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--show", is_flag=True, help="Print every notice of every story.")
def run(paths: tuple[Path, ...], *, show: bool) -> None:
    """Play files, or all *.yaml of folders. Exit code 3 where a story came out otherwise."""
    import time

    from telemetry.errors import ConfigError
    from tocsin.stories.play import play
    from tocsin.stories.story import StoryError, line_of, read_story

    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not found:  # with a wrong path a check that runs each night would be green for ever
            raise ConfigError(
                f"{path}: no story (*.yaml) in this folder; name the one that has them"
            )
        files += found
    failed = 0
    for file in files:
        began = time.perf_counter()
        try:
            played = play(read_story(file))
        except StoryError as error:
            line = line_of(file.read_text("utf-8"), f".steps[{error.step}]")
            raise ConfigError(f"{file}:{line}: {error}") from error
        except ConfigError as error:
            place = "" if str(error).startswith(str(file)) else f"{file}: "
            raise ConfigError(f"{place}{error}") from error
        seconds = time.perf_counter() - began
        failed += bool(played.failures)
        word = "FAILED" if played.failures else "ok"
        click.echo(f"{word:6} {seconds:5.2f} s  {file.stem}: {played.name}")
        for failure in played.failures:
            click.echo(f"         {failure}")
        if show:
            for notice in played.notices:
                click.echo(f"         {notice.state} {notice.severity}: {notice.title}")
    click.echo(f"{len(files)} stories, {failed} failed")
    if failed:
        raise SystemExit(3)
