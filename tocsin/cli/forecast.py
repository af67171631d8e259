"""`tocsin forecast`: what series will do in the next hours, and how well that was said before."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from alerting.words.amounts import rounded
from tocsin.cli.finite import finite


@click.command()
@click.argument("match", default="")
@click.option(
    "--record",
    is_flag=True,
    help="Predicted alerts of the running node: those that stand, how they were judged.",
)
@click.option("--horizon", default="2h", show_default=True, help="How far: 30m, 2h, 1d.")
@click.option("--since", default="14d", show_default=True,
              help="History that is learned from; of a file all of it is.")  # fmt: skip
@click.option("--step", type=click.IntRange(1),
              help="Seconds; default: a 24th of the horizon, or as the values come.")  # fmt: skip
@click.option("--above", type=float, callback=finite, help="Say when this limit is passed upwards.")
@click.option(
    "--below", type=float, callback=finite, help="Say when this limit is passed downwards."
)
@click.option(
    "--group", "as_group", is_flag=True, help="Forecast the sum of all that match, not each."
)
@click.option("--by", "by", type=click.Choice(["site", "bundle", "service", "customer"]),
              help="Forecast groups of interfaces by the network map; MATCH is a group's name.")  # fmt: skip
@click.option("--capacity", type=click.FloatRange(0.0, min_open=True), callback=finite,
              help="With --by: say when this share of all members' speed is passed.")  # fmt: skip
@click.option("--file", "from_file", is_flag=True, help="MATCH is a CSV file, not series.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table",
              show_default=True)  # fmt: skip
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def forecast(
    match: str,
    record: bool,
    horizon: str,
    since: str,
    step: int | None,
    above: float | None,
    below: float | None,
    as_group: bool,
    by: str | None,
    capacity: float | None,
    from_file: bool,
    output: str,
    path: Path | None,
    state: Path | None,
) -> None:
    """Forecast the series that MATCH, such as view=interface,entity=ams1*,measure=octets.

    Each forecast comes with its track record against seasonal naive on the same series; where that
    did better, none is shown. Exit 3: a limit is likely to be passed. With --record: how the node's
    predicted alerts did.
    """
    import json

    from runtime.clock import SystemClock
    from tocsin.times import time_ns

    if record:
        _print_record(output, state)
        return
    if not match and not by:
        raise click.UsageError("say which series, such as view=interface,entity=ams1*")
    if above is not None and below is not None:
        raise click.UsageError("--above or --below, not both")
    if from_file and by:
        raise click.UsageError("--file or --by, not both: a file has no network map")
    if capacity is not None and (not by or above is not None or below is not None):
        raise click.UsageError("--capacity goes with --by, without --above and --below")
    now_ns = SystemClock().now_ns()
    horizon_s = (now_ns - time_ns(horizon, now_ns=now_ns)) // 10**9
    if horizon_s < 1:
        raise click.UsageError(f"--horizon {horizon!r} must be a span such as 2h")
    step_s = step or _round_step(max(1, horizon_s // 24))
    limits: dict[str, float] = {}
    if from_file:
        rows = _rows_of_file(Path(match))
    elif by:
        rows, limits = _rows_of_groups(match, by, capacity, since, step_s, path, state, now_ns)
    else:
        rows = _rows_of_history(match, since, step_s, path, state, now_ns)
    if as_group:
        rows = {f"{match} (sum of {len(rows)})": _sum(list(rows.values()))}
    made = []
    for name, points in rows.items():
        each_s = step_s if step else _as_they_come(points, step_s)
        leads = max(1, round(horizon_s / each_s))
        live_s = None if from_file else now_ns // 10**9
        limit = limits.get(name, above)
        made.append(_one(name, points, each_s, leads, limit, below, now_s=live_s))
    if output == "json":
        click.echo(json.dumps(made))
    else:
        for one in made:
            _print(one)
    likely = any(one.get("breach", {}).get("probability", 0.0) >= 0.5 for one in made)
    raise SystemExit(3 if likely else 0)


def _print_record(output: str, state: Path | None) -> None:
    import json

    import msgspec

    from tocsin import verbs
    from tocsin.cli.alarm import _ask

    answer = _ask(state, "predictions", verbs.Nothing(), verbs.PredictionsAnswer)
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(answer)))
        return
    for name, row in answer.limits.items():
        right = "" if row["right"] is None else f", {row['right']:.0%} right"
        right += f", {row['unseen']} nobody could judge" if row["unseen"] else ""
        click.echo(
            f"{name}: {row['series']} series; {row['hit']} hit, {row['late']} late, "
            f"{row['false']} false{right}; told {row['mean_lead_seconds'] / 3600:.1f} h before"
        )
        for pace in ("hours", "days"):
            ratio = row[f"error_over_naive_{pace}"]
            if ratio is not None:
                click.echo(
                    f"  forecasts of {pace}: error {ratio:.2f} of seasonal naive's (median); "
                    f"{row[f'licensed_{pace}']} series do no worse than it and may be predicted"
                )
    for one in answer.open:
        click.echo(
            f"  {one['entity']} {one['limit']}: by {_when(one['likely_ns'])}, "
            f"probability {one['probability']:.2f}{'' if one['admitted'] else ' (over the budget)'}"
        )
    for one in answer.judged[:20]:
        click.echo(f"  {_when(one['ended_ns'])} {one['outcome']:5} {one['entity']} {one['limit']}")


def _when(ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%MZ")


STEPS_S = (1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
ROWS_PAGE, ROWS_MOST = 100_000, 2_000_000  # of an answer of the history, of all that are kept
STEPS_PAGE = 5_000  # as many points of a series the history answers at once


def _round_step(seconds: int) -> int:
    """Return the largest usual step that is no longer: they divide a day."""
    return max(one for one in STEPS_S if one <= seconds)


def _as_they_come(points: list[tuple[int, float]], step_s: int) -> int:
    """Return the step, or a longer usual one where values come more seldom: one twice is no news."""
    import numpy as np

    times = np.unique([at for at, value in points if value == value])
    usual_s = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return min((one for one in STEPS_S if usual_s <= one >= step_s), default=STEPS_S[-1])


def _rows_of_file(path: Path) -> dict[str, list[tuple[int, float]]]:
    from telemetry.errors import ConfigError
    from tocsin.files.series import read_series

    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    file = read_series(path)
    for note in file.notes:
        click.echo(f"tocsin: {path}: {note}", err=True)
    return {
        f"{path.name} {name}": [
            (int(at), value)
            for at, value in zip(one.time_s.tolist(), one.value.tolist(), strict=True)
        ]
        for name, one in file.columns.items()
    }


def _rows_of_history(
    match: str, since: str, step_s: int, path: Path | None, state: Path | None, now_ns: int
) -> dict[str, list[tuple[int, float]]]:
    from tocsin.reports.map_groups import direction_of

    found: dict[str, list[tuple[int, float]]] = {}
    for page in _history(match, since, step_s, path, state, now_ns):
        for row in page:
            way = direction_of(row["key"])
            name = " ".join(filter(None, (row["view"], row["entity"], row["measure"], way)))
            value = float("nan") if row["avg"] is None else float(row["avg"])
            found.setdefault(name, []).append((int(row["time_s"]), value))
    return found


def _history(
    match: str, since: str, step_s: int, path: Path | None, state: Path | None, now_ns: int,
    *, most: float = ROWS_MOST,
) -> Iterator[list[dict[str, Any]]]:  # fmt: skip
    """Yield all rows in time order."""
    from tocsin.config import load_config
    from tocsin.desk import ask
    from tocsin.state import state_dir
    from tocsin.times import time_ns

    config, folder = load_config(path), state_dir(state)

    def read(since_ns: int, until_ns: int) -> list[dict[str, Any]]:
        return ask.series(
            config, folder, match, since_ns=since_ns, until_ns=until_ns, step_seconds=step_s,
            aggregates=["avg"], limit=ROWS_PAGE,
        )  # fmt: skip

    first_ns, what = time_ns(since, now_ns=now_ns), f"{match!r} since {since}"
    return pages(read, first_ns, now_ns, step_s=step_s, what=what, most=most)


def pages(
    read: Callable[[int, int], list[dict[str, Any]]], since_ns: int, until_ns: int, *, step_s: int,
    what: str, most: float = ROWS_MOST,
) -> Iterator[list[dict[str, Any]]]:  # fmt: skip
    """Yield rows in time order, a page of whole steps at a time; `read` gives the first ones of a span."""
    from telemetry.errors import ConfigError

    count, step_ns = 0, step_s * 10**9
    while since_ns < until_ns:
        end_ns = min((since_ns // step_ns + STEPS_PAGE) * step_ns, until_ns)
        rows = read(since_ns, end_ns)
        if cut := len(rows) >= ROWS_PAGE:  # in its last step, perhaps: that is read again
            end_ns = rows[-1]["time_s"] * 10**9
            rows = [row for row in rows if row["time_s"] < rows[-1]["time_s"]]
        count += len(rows)
        if count > most or (cut and not rows):
            much = f"{most:.0f} values" if rows else f"{ROWS_PAGE} series"
            raise ConfigError(
                f"{what}: more than {much}; name fewer series, take a longer --step or a shorter --since"
            )
        yield rows
        since_ns = end_ns
    if not count:
        raise ConfigError(f"no series matches {what}; `tocsin series` shows some")


def _rows_of_groups(
    match: str, by: str, capacity: float | None, since: str, step_s: int, path: Path | None,
    state: Path | None, now_ns: int,
) -> tuple[dict[str, list[tuple[int, float]]], dict[str, float]]:  # fmt: skip
    """Return the octets of each group in each direction, and the limits of those whose speed is known."""
    import fnmatch

    from correlator.tables.network_map import NetworkFile
    from runtime.settings import load
    from telemetry.errors import ConfigError
    from tocsin.config import load_config
    from tocsin.reports import map_groups

    config = load_config(path)
    if not config.network.map:
        raise ConfigError("--by needs a network map: [network] map = a file")
    known = map_groups.groups(load(Path(config.network.map), NetworkFile, environment={}), by)
    chosen = [one for one in known if fnmatch.fnmatchcase(one.name, match or "*")]
    if not chosen:
        names = ", ".join(one.name for one in known[:20]) or "none"
        raise ConfigError(f"no {by} of the network map is {match!r}; it has: {names}")
    found, limits = dict[str, list[tuple[int, float]]](), dict[str, float]()
    speed = {one.name: one.octets_per_second for one in chosen}
    match = "view=interface,measure=octets"
    sums_only = math.inf  # of a page no more is kept
    for page in _history(match, since, step_s, path, state, now_ns, most=sums_only):
        for (name, measure, direction), points in map_groups.sums(page, chosen).items():
            title = f"{by} {name} {measure} {direction}"
            found.setdefault(title, []).extend(points)
            if capacity is not None and speed[name]:
                limits[title] = capacity * speed[name]
    return found, limits


def _sum(members: list[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Return the sum of several series at each time that all of them have; of some it would be a dip."""
    total: dict[int, list[float]] = {}
    for points in members:
        for at, value in points:
            total.setdefault(at, []).append(value)
    return [
        (at, sum(values)) for at, values in sorted(total.items()) if len(values) == len(members)
    ]


def _one(
    name: str,
    points: list[tuple[int, float]],
    step_s: int,
    leads: int,
    above: float | None,
    below: float | None,
    *,
    now_s: int | None = None,
) -> dict[str, Any]:
    """Return what is said of one series; `now_s` where it should go on until now."""
    import numpy as np

    from detectors import forecast as models
    from telemetry.errors import ConfigError

    time_s = np.array([point[0] for point in points], np.int64)
    value = np.array([point[1] for point in points], np.float64)
    try:
        start_s, grid, known = models.regular(time_s, value, step_s)
        end_s = start_s + len(grid) * step_s
        if now_s is not None and now_s - end_s > max(leads, 2) * step_s:
            raise ConfigError(
                f"its last value is of {_when(end_s * 10**9)}: what was then ahead is over; of a sum, one "
                "of its members ended"
            )
        made = models.forecast(start_s, grid, step_s=step_s, leads=leads, known=known)
    except ConfigError as error:
        return {"series": name, "shown": False, "why": str(error)}
    answer: dict[str, Any] = {
        "series": name,
        "shown": made.shown,
        "model": made.model,
        "track_record": {
            "forecasts": made.origins,
            "mean_error": rounded(made.error),
            "mean_error_seasonal_naive": rounded(made.error_naive),
            "within_90_percent_band": rounded(made.covered) if made.covered >= 0.0 else None,
            "season_seconds": made.season_s,
        },
    }
    if not made.shown:
        naive = "seasonal naive" if made.season_s else "its last value (no day was seen twice)"
        answer["why"] = f"{naive} did better on this series so far"
        return answer
    answer["forecast"] = [
        {"time_s": int(at), **{f"q{100 * q:02.0f}": rounded(v) for q, v in zip(models.QUANTILES, row, strict=True)}}
        for at, row in zip(made.time_s, made.quantiles, strict=True)
    ]  # fmt: skip
    if above is not None or below is not None:
        found = models.breach(made, step_s, above=above, below=below)
        answer["breach"] = {
            "limit": above if above is not None else below,
            "probability": rounded(found.probability),
            "seconds_until_likely": found.first_s,
            "seconds_until_earliest": found.earliest_s,
            "seconds_until_latest": found.latest_s,
        }
    return answer


def _print(one: dict[str, Any]) -> None:
    from datetime import UTC, datetime

    click.echo(one["series"])
    if "track_record" in one:
        track = one["track_record"]
        naive = "seasonal naive" if track["season_seconds"] else "the last value"
        inside = track["within_90_percent_band"]
        click.echo(
            f"  by {one['model']}; {track['forecasts']} forecasts of the past: mean error "
            f"{track['mean_error']:.4g}, {naive} {track['mean_error_seasonal_naive']:.4g}"
            + (f"; {inside:.0%} within the 90 % band" if inside is not None else "")
        )
    if not one["shown"]:
        click.echo(f"  no forecast: {one['why']}")
        return
    for row in one["forecast"]:
        time = datetime.fromtimestamp(row["time_s"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"  {time}  {row['q50']:>12.6g}  ({row['q05']:.6g} to {row['q95']:.6g})")
    if "breach" in one:
        found = one["breach"]
        when = found["seconds_until_likely"]
        click.echo(
            f"  {found['limit']:g} is passed with probability {found['probability']:.2f}"
            + (f", likely in {when / 3600:.1f} h" if when is not None else "")
        )
