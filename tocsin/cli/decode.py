"""`tocsin decode`: the records of captures, one a row, and what could not be decoded, by reason."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

EXPLAINED = ("flow", "options_record")  # schemas whose rows have the origin of each field


class Protocol(click.ParamType[str]):
    """A flow protocol, or the kind of any collector or source that can be read from files."""

    name = "protocol"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the protocol, or say which there are."""
        from collectors.registry import COLLECTORS
        from collectors.sources import SOURCES
        from tocsin.cases.decoding import FLOWS

        known = dict.fromkeys(("auto", *FLOWS, *COLLECTORS.kinds(), *SOURCES.kinds()))
        if value not in known:
            self.fail(f"{value!r} is none of {', '.join(known)}", param, ctx)
        return str(value)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--protocol",
    type=Protocol(),
    default="auto",
    show_default=True,
    help="auto: by content and port; else all is taken for it (`tocsin collectors list`).",
)
@click.option("--all", "everything", is_flag=True, help="Also templates, options, series, ledger.")
@click.option(
    "--explain", is_flag=True, help="Where each field of a flow came from, its raw bytes."
)
@click.option(
    "--tunnels", type=click.Choice(["outer", "inner"]), default="outer", show_default=True
)
@click.option(
    "-o", "output", type=click.Choice(["jsonl", "csv", "table"]), default="table", show_default=True
)
def decode(
    files: tuple[Path, ...],
    protocol: str,
    everything: bool,
    explain: bool,
    tunnels: str,
    output: str,
) -> None:
    """Print the records of FILES: pcap, pcapng, MRT dumps, .arrows, or files of one payload or stream.

    Files share their templates in the order given. Times are the exporter's own. Beside its fields a
    flow has `elements` (what has no field, raw), `reverse` (counts of the way back) and `names`
    (of its interfaces, VRFs, application). Exit code 3 where something could not be decoded; what
    and why is on stderr.
    """
    import logging
    import sys

    from tocsin.state import state_dir, use_kernel_cache

    use_kernel_cache(state_dir())

    from collectors.present import csv_lines, json_line, table_lines
    from runtime.clock import ManualClock
    from runtime.component import Context
    from runtime.metrics import Metrics
    from telemetry.errors import ConfigError
    from tocsin.cases.decoding import Decoding

    for file in files:
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "no such file"
            raise ConfigError(f"{file}: {what}; give capture files (pcap, pcapng, payload files)")
    context = Context("decode", ManualClock(), Metrics("decode"), logging.getLogger(__name__), (0,))
    run = Decoding(context, protocol=protocol, everything=everything, tunnels=tunnels)
    run.explain = explain
    made = run.rows(files)
    if explain and output == "table":
        lines: Iterator[str] = explained_lines(made)
    elif output == "jsonl":
        lines = (json_line(row) for row in made)
    else:
        lines = csv_lines(made) if output == "csv" else table_lines(made)
    out = sys.stdout
    for line in lines:
        out.write(line + "\n")
    out.flush()
    for line in run.told():
        click.echo(line, err=True)
    if run.undecoded:
        raise click.exceptions.Exit(3)


def explained_lines(made: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield each record with the origin of its fields below it, for people."""
    from collectors.present import table_lines

    for row in made:
        origins = row.pop("explain", ()) if row["schema"] in EXPLAINED else ()
        yield from table_lines(iter([row]))
        for field in origins:
            where = f"template {field['template']}" if field["template"] is not None else ""
            yield (
                f"    {field['field'] or '-':<28} byte {field['offset']:<6} {where:<15} "
                f"{field['element'] or '':<12} {field['bytes']}  {field['rule']}"
            )
