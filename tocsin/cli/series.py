"""`tocsin series`: series of the history."""

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("match")
@click.option("-o", "--output", default="table", show_default=True,
              type=click.Choice(["table", "json", "jsonl", "csv", "arrow", "parquet"]))  # fmt: skip
@click.option("--since", default="1h", show_default=True, help="RFC 3339, or 2h for so long ago.")
@click.option("--until", default="", help="RFC 3339 or 2h; default: now.")
@click.option("--step", type=click.IntRange(0), default=0, help="Seconds; 0: as fits the span.")
@click.option("--aggregates", default="avg", show_default=True,
              help="Of avg, min, max, stdev, count, last, p95; with commas.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True)
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def series(
    match: str,
    output: str,
    since: str,
    until: str,
    step: int,
    aggregates: str,
    limit: int,
    path: Path | None,
    state: Path | None,
) -> None:
    """Print the series that MATCH, such as view=interface,entity=ams1*,measure=octets."""
    import csv
    import json
    import sys
    from datetime import UTC, datetime

    from runtime.clock import SystemClock
    from tocsin.config import load_config
    from tocsin.desk import ask
    from tocsin.state import state_dir
    from tocsin.times import time_ns

    if output in ("arrow", "parquet") and sys.stdout.isatty():
        raise click.UsageError(
            f"{output} is binary: send it to a file or a pipe, as in > rows.{output}"
        )
    now_ns = SystemClock().now_ns()
    names = [part.strip() for part in aggregates.split(",") if part.strip()]
    rows = ask.series(
        load_config(path),
        state_dir(state),
        match,
        since_ns=time_ns(since, now_ns=now_ns),
        until_ns=time_ns(until, now_ns=now_ns) if until else now_ns,
        step_seconds=step,
        aggregates=names,
        limit=limit,
    )
    if output == "json":
        click.echo(json.dumps(rows))
    elif output == "jsonl":
        for row in rows:
            click.echo(json.dumps(row))
    elif output == "csv":
        columns = ["time_s", "view", "entity", "measure", *names]
        writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore")  # not the key in parts
        writer.writeheader()
        writer.writerows(rows)
    elif output in ("arrow", "parquet"):
        sys.stdout.buffer.write(_columns(rows, names, output))
    else:
        click.echo(f"{'time':20} {'view':18} {'entity':24} {'measure':22} " + " ".join(
            f"{name:>14}" for name in names))  # fmt: skip
        for row in rows:
            time = datetime.fromtimestamp(row["time_s"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            figures = " ".join(_figure(row[name]) for name in names)
            click.echo(
                f"{time:20} {row['view']:18} {row['entity']:24} {row['measure']:22} {figures}"
            )
    if len(rows) >= limit:
        click.echo(f"only the first {limit} points; --limit or --step give more", err=True)


def _columns(rows: list[dict[str, Any]], names: list[str], output: str) -> bytes:
    """Return rows as an Arrow stream or a Parquet file; time as a timestamp in UTC."""
    import io

    import pyarrow as pa
    from pyarrow import parquet

    types = {"time_s": pa.timestamp("s", tz="UTC"), "view": pa.string(), "entity": pa.string(),
             "measure": pa.string()}  # fmt: skip
    fields = [(name, types.get(name, pa.float64())) for name in (*types, *names)]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    table = table.rename_columns(["time" if name == "time_s" else name for name, _ in fields])
    out = io.BytesIO()
    if output == "parquet":
        parquet.write_table(table, out)
    else:
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    return out.getvalue()


def _figure(value: float | None) -> str:
    return f"{value:14.6g}" if value is not None else f"{'':>14}"
