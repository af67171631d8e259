"""`tocsin query`: read-only SQL on the history."""

from pathlib import Path

import click

FORMATS = {
    "table": "PrettyCompactNoEscapes",
    "json": "JSON",
    "jsonl": "JSONEachRow",
    "csv": "CSVWithNames",
    "arrow": "ArrowStream",
    "parquet": "Parquet",
}
BINARY = ("arrow", "parquet")


@click.command()
@click.argument("sql")
@click.option(
    "-o", "--output", type=click.Choice(list(FORMATS)), default="table", show_default=True
)
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def query(sql: str, output: str, path: Path | None, state: Path | None) -> None:
    """Run SQL on the history (frames, rollups, series, alarms, incidents, anomalies, logs, routes, flows)."""
    import sys

    from tocsin.config import load_config
    from tocsin.desk import ask
    from tocsin.state import state_dir

    if output in BINARY and sys.stdout.isatty():
        raise click.UsageError(
            f"{output} is binary: send it to a file or a pipe, as in > rows.{output}"
        )
    data = ask.query(load_config(path), state_dir(state), sql, FORMATS[output])
    sys.stdout.buffer.write(data)
