"""`tocsin score`: the online detectors over CSV files, as an operator would try them on old data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tocsin.cli.finite import finite

if TYPE_CHECKING:
    from detectors.series import SeriesScores
    from tocsin.files.series import Column

FILE_NAME_BYTES_MAX = 200
HEAD = "timestamp,value,expected,lower,upper,score,alert"


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of scored files.")
@click.option("--explain", type=click.IntRange(1), metavar="ROW",
              help="Say why this row of one file (1 = first after the header) scores as it does.")  # fmt: skip
@click.option("--column", help="The column to explain, where a file has several.")
@click.option("--false-alerts-per-day", type=click.FloatRange(1e-6, 1e4),
              metavar="NUMBER", callback=finite,
              help="How many false alerts a series may raise; default: one a week.")  # fmt: skip
@click.option("--zone", default="UTC", show_default=True, metavar="ZONE",
              help="Whose clocks the day goes by, such as Europe/Vienna.")  # fmt: skip
def score(
    paths: tuple[Path, ...],
    output: Path | None,
    explain: int | None,
    column: str | None,
    false_alerts_per_day: float | None,
    zone: str,
) -> None:
    """Score CSV files (timestamp and one or more value columns; `-`: from a pipe) as they would have been live.

    For each series a file `timestamp,value,expected,lower,upper,score,alert` below --output, and a
    summary.json: sampling found, season, gaps, end of the warm-up, alerts by detector. Causal: the
    first rows of a file score the same, whatever follows. Labels are never read.
    """
    from tocsin.state import state_dir, use_kernel_cache

    use_kernel_cache(state_dir())
    from detectors.exceedances import FALSE_ALERTS_PER_DAY
    from telemetry.errors import ConfigError
    from tocsin.files.series import find_files

    budget = false_alerts_per_day or FALSE_ALERTS_PER_DAY
    files = find_files(paths, output)
    if not files:
        raise ConfigError(f"{', '.join(map(str, paths))}: no .csv or .csv.gz file is in there")
    if explain is not None:
        if len(files) > 1:
            raise click.UsageError("--explain takes one file")
        _explain(next(iter(files)), explain, column, budget, zone)
        return
    if output is None:
        raise click.UsageError("--output FOLDER is needed (or --explain ROW)")
    _score_all(files, output, budget, zone)


def _file_name(column: str) -> str:
    """Return a column's name as that of a file: any file system takes so many bytes, with what is added."""
    plain = "".join("_" if letter in "/\0" else letter for letter in column)
    return plain.encode("utf-8", "replace")[:FILE_NAME_BYTES_MAX].decode("utf-8", "ignore")


def _score_all(files: dict[Path, Path], output: Path, budget: float, zone: str) -> None:
    import json
    import sys

    from detectors.series import score_series
    from telemetry.errors import ConfigError
    from tocsin.files.series import read_series

    summaries: dict[str, Any] = {}
    failed = 0
    sources = {path.resolve() for path in files}
    if output.exists() and not output.is_dir():
        raise ConfigError(
            f"{output}: is a file; --output names a folder, which is made where it is not"
        )
    for number, (path, name) in enumerate(files.items(), 1):
        if sys.stderr.isatty():
            click.echo(f"\r{number} of {len(files)} files", nl=False, err=True)
        try:
            file = read_series(path)
        except ConfigError as error:
            failed += 1
            click.echo(f"tocsin: {error}", err=True)
            continue
        for note in file.notes:
            click.echo(f"tocsin: {path}: {note}", err=True)
        for one, column in file.columns.items():
            key = name.as_posix()
            if len(file.columns) > 1:
                key = f"{key}/{_file_name(one)}"
            while key in summaries:  # base.csv beside base.csv.gz
                key += "-2"
            target = output / f"{key}.csv"
            if not _may_write(target, sources):
                failed += 1
                click.echo(
                    f"tocsin: {target}: is no file of scores and would be written over, so {path} is left "
                    "out; --output must name another folder",
                    err=True,
                )
                continue
            scores = score_series(
                column.time_s, column.value, false_alerts_per_day=budget, zone=zone
            )
            _write(target, column, scores)
            summaries[key] = {
                "file": str(path),
                **scores.summary,
                # A time that cannot be read is that of the row beside it: no row twice.
                "repeated_times": max(
                    scores.summary["repeated_times"] - column.times_unreadable, 0
                ),
                "times_unreadable": column.times_unreadable,
                "notes": file.notes,
            }
    if sys.stderr.isatty():
        click.echo("", err=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(
        json.dumps({"series": summaries}, indent=1, allow_nan=False) + "\n", "utf-8"
    )
    rows = sum(one["rows"] for one in summaries.values())
    alerts = sum(one["alerts"] for one in summaries.values())
    click.echo(
        f"{len(summaries)} series, {rows} rows, {alerts} alerts; {output / 'summary.json'}"
        + (f"; {failed} files could not be scored" if failed else ""),
        err=True,
    )
    raise SystemExit(1 if failed else 0)


def _may_write(target: Path, sources: set[Path]) -> bool:
    """Say whether a file is new, or one of an earlier run: the input of nobody."""
    if not target.exists():
        return True
    with target.open("rb") as there:
        return target.resolve() not in sources and there.readline() == (HEAD + "\n").encode()


def _write(target: Path, column: "Column", scores: "SeriesScores") -> None:
    import csv

    from tocsin.files.series import plain

    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as out:
        out.write(HEAD + "\n")
        rows = csv.writer(out, lineterminator="\n")
        for k, time in enumerate(column.times):
            rows.writerow((
                time, plain(column.texts[k], column.value[k]), f"{scores.expected[k]:.6g}",
                f"{scores.lower[k]:.6g}", f"{scores.upper[k]:.6g}", f"{scores.score[k]:.6g}",
                scores.alert[k],
            ))  # fmt: skip


def _explain(path: Path, row: int, column: str | None, budget: float, zone: str) -> None:
    from detectors.detector import six
    from detectors.series import score_series, stage
    from detectors.series_kernels import LOOKS
    from telemetry.errors import ConfigError
    from tocsin.files.series import read_series

    file = read_series(path)
    if column is None and len(file.columns) > 1:
        raise click.UsageError(f"--column is needed: one of {', '.join(file.columns)}")
    name = column or next(iter(file.columns))
    if name not in file.columns:
        raise click.UsageError(f"no column {name!r}: there are {', '.join(file.columns)}")
    one = file.columns[name]
    value = one.value
    if row > len(value):
        raise ConfigError(f"{path}: has {len(value)} rows, row {row} is not there")
    # Causal: what the row is told by ends with it.
    scores = score_series(one.time_s[:row], value[:row], false_alerts_per_day=budget, zone=zone)
    k = row - 1
    last = scores.last
    days = row * scores.summary["sampling_seconds"] / 86400.0
    lines = [
        f"row {row} of {path}, {name}, at {one.times[k]}",
        f"value     {one.texts[k]}",
        (
            f"expected  {scores.expected[k]:.6g}, alerts by the forecast alone outside "
            f"{scores.lower[k]:.6g} to {scores.upper[k]:.6g}"
        ),
        (
            f"score     {scores.score[k]:.4g}, for ranking; surprise {scores.surprise[k]:.4g}, which "
            f"alerts from {scores.level[k]:.4g} on ({budget:.3g} false alerts a day): "
            f"{'ALERT' if scores.alert[k] else 'no alert'}"
        ),
        (
            f"stage     {stage(row, days)}; daily profile here: {last['profile']}; usual level "
            f"{last['level']:.6g}; lately between {last['range_lately'][0]:.6g} and "
            f"{last['range_lately'][1]:.6g}"
        ),
    ]
    if not abs(value[k]) <= 1e30:
        lines.append("The value is missing or absurd: it scores 0 and teaches nothing.")
    else:
        lines.append(f"strongest {LOOKS[scores.look[k]]}, {last['score_now']:.4g} now; each look:")
        for look, seen in last["looks"].items():
            if seen["unit"] is None:
                lines.append(f"  {look:9} says nothing here")
                continue
            lines.append(
                f"  {look:9} {seen['usual_sizes']:.4g} usual sizes, of which {seen['unit']:.4g} are "
                f"exceeded twice a day: score {seen['score']:.4g}"
            )
        if last["other_weeks"] is not None:
            lines.append(
                f"Other weeks had {last['other_weeks']:.6g} at this time: each look takes the smaller deviation."
            )
        if last["sparse"] is not None:
            lines.append(
                f"It rests at {last['sparse']['rest']:g} and leaves it {last['sparse']['departures_per_day']:.3g} "
                f"times a day: a surprise of {last['sparse']['most']:.4g} at most here."
            )
        elif six(scores.surprise[k]) > last["score_now"]:
            lines.append("The surprise is held from the rows before; it falls from row to row.")
    click.echo("\n".join(lines))
