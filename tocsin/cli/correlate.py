"""`tocsin correlate`: an alarm file in, incidents, causes and the graph of alarm types out."""

from datetime import UTC, datetime
from pathlib import Path

import click

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--alarms",
    type=_file,
    required=True,
    help="CSV with a header, or JSON: one alarm a row, its end in it or in a row of its own.",
)
@click.option(
    "--topology",
    type=_file,
    help="Network file (.toml), edge list, adjacency matrix (.npy), JSON, or GraphML.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="What a column of the file is called: kind, entity, part, start, end, severity, ...",
)
@click.option("--truth", type=_file, help="True causes, .npy: how good is the learned graph?")
@click.option("--incidents", default=10, show_default=True, help="How many of the largest to show.")
@click.option("--edges", default=20, show_default=True, help="How many edges of the graph to show.")
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON document.")
def correlate(
    alarms: Path,
    topology: Path | None,
    columns: tuple[str, ...],
    truth: Path | None,
    incidents: int,
    edges: int,
    *,
    as_json: bool,
) -> None:
    """Group the alarms of a file into incidents and learn which types cause which."""
    import json

    from correlator.tables.network_map import FileNetworkMap
    from tocsin.files.alarms import COLUMNS, placed, read_alarms
    from tocsin.files.topologies import read_topology
    from tocsin.reports import correlation

    given = dict(one.partition("=")[::2] for one in columns)
    if not set(given) <= set(COLUMNS):
        raise click.UsageError(f"--column {'/'.join(given)}: ours are {', '.join(COLUMNS)}")
    network = read_topology(topology) if topology else FileNetworkMap()
    file = placed(read_alarms(alarms, given), network)
    events = file.events
    for note in file.notes:
        click.echo(f"{alarms}: {note}", err=True)
    report = correlation.correlate(events, network)
    graph = correlation.causes(events, network)
    score = correlation.score(graph, events, truth) if truth else None
    if as_json:
        click.echo(json.dumps(report.as_json() | {
            "edges": [[e.cause, e.effect, e.strength, e.share] for e in graph],
            "score": score,
        }))  # fmt: skip
        return
    click.echo(report.line())
    largest = sorted(report.incidents, key=lambda one: (-one["alarms_count"], one["opened_ns"]))
    for one in largest[:incidents]:
        cause = one["causes"][0] if one["causes"] else {"kind": "?", "entity": "?", "sure": ""}
        click.echo(
            f"  {_utc(one['opened_ns'])}  {one['alarms_count']:>4} alarms  {one['severity']:<13} "
            f"{one['title'][:60]:<60} cause: {cause['kind']} on {cause['entity']} ({cause['sure']})"
        )
    click.echo(f"{len(graph)} edges of the graph of alarm types, the strongest:")
    for edge in graph[:edges]:
        click.echo(
            f"  {edge.cause} -> {edge.effect}   followed {edge.share:.0%} of the time, "
            f"{edge.strength:.0f} deviations over chance"
        )
    if score is not None:
        click.echo(
            f"against {truth}: precision {score['precision']:.3f}, recall {score['recall']:.3f}, "
            f"F1 {score['f1']:.3f}; all pairs would give {score['f1_of_all_pairs']:.3f}"
        )


def _utc(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%MZ")
