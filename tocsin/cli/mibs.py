"""`tocsin mibs`: MIB modules as text become a table of names for traps and polling."""

from pathlib import Path

import click


@click.command()
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="The table, for `mib_files`."
)
def mibs(folders: tuple[Path, ...], output: Path) -> None:
    """Read the MIB modules in FOLDERS and write their names, types and enumerations to a table.

    Name it in `mib_files` of an SNMP collector or source. Modules that import others need those in one
    of the folders too; what could not be read is said, and the rest is written. Exit code 3 where a
    module was left out.
    """
    from collectors.snmp.mib_text import compile_folders
    from telemetry.errors import ConfigError

    lines, wrong = compile_folders(folders)
    if not lines:
        said = "; ".join(f"{name}: {why}" for name, why in list(wrong.items())[:3])
        raise ConfigError(f"no MIB module could be read ({said or 'the folders are empty'})")
    try:
        output.write_text("\n".join(lines) + "\n", "utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}. Nothing was written.") from error
    modules = {line.split("\t")[2] for line in lines}
    click.echo(f"{len(lines)} names of {len(modules)} modules in {output}")
    for name, why in sorted(wrong.items()):
        click.echo(f"left out: {name}: {why}", err=True)
    if wrong:
        raise click.exceptions.Exit(3)
