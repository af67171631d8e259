"""Reading the history: series with the right rollup, and limited SQL for people and dashboards."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from history.read_only import check_format, read_only
from history.store import Connection
from history.writer import ABSOLUTE, PERIODS, SECOND_NS
from telemetry.batch import Batch
from telemetry.errors import ConfigError, TransientError
from telemetry.schema import plain
from telemetry.schemas import FRAME

# aggregate: (over ticks, over rollups). p95 over several buckets is the highest of theirs: exact
# where the step is a rollup's period, an upper bound where it is longer.
AGGREGATES = {
    "avg": ("avg(t.value)", "sum(t.sum) / sum(t.count)"),
    "min": ("min(t.value)", "min(t.min)"),
    "max": ("max(t.value)", "max(t.max)"),
    "stdev": (
        "stddevPop(t.value)",
        "sqrt(greatest(sum(t.sum_squares) / sum(t.count) - pow(sum(t.sum) / sum(t.count), 2), 0))",
    ),
    "count": ("count()", "sum(t.count)"),
    "last": ("argMax(t.value, t.tick_end_ns)", "argMax(t.last, t.bucket)"),
    "p95": ("quantileExact(0.95)(t.value)", "max(t.p95)"),
}
POINTS_MAX = 5_000
LINE_POINTS = 400  # of a picture
LINES_TRIED = 8  # series of an entity that are looked at for one
VECTOR_CELLS_MAX = 1_000_000  # points that one call of `vectors` reads

TICKS_OF_VIEW = (
    "select tick_end_ns, any(tick_seconds) as seconds, uniqExact(series_id) as rows"
    " from frames where view = {view:String}"
    " and tick_end_ns > {start:Int64} and tick_end_ns < {end:Int64} + toInt64(tick_seconds * 1e9)"
    " group by tick_end_ns order by tick_end_ns"
)
MEASURES_OF_TICK = (
    "select distinct measure from frames"
    " where view = {view:String} and tick_end_ns = {tick:Int64} order by measure"
)


@dataclass(frozen=True, slots=True)
class Match:
    """Which series: `view=interface,entity=ams1*,measure=octets`."""

    view: str = ""
    entity: str = ""
    measure: str = ""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one entity did up to a time: a row a step, a column a series."""

    time_s: NDArray[np.int64]  # [T], start of each step, seconds since 1970
    columns: tuple[tuple[str, str, int], ...]  # (view, measure, series_id) of each column, sorted
    values: NDArray[np.float64]  # [T, columns], means over the step; NaN where nothing is stored


@dataclass(frozen=True, slots=True)
class Line:
    """One series over a span as a picture shows it; NaN where there is no band."""

    entity: str
    view: str
    measure: str
    unit: str
    times_ns: list[int]
    values: list[float]
    lower: list[float]
    upper: list[float]


def parse_match(text: str) -> Match:
    """Return the match a text stands for, or raise ConfigError with the form."""
    fields: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = part.partition("=")
        if name not in ("view", "entity", "measure") or not value:
            raise ConfigError(
                f"series {text!r}: {part!r} is not view=, entity= or measure=; "
                "for example view=interface,entity=ams1*,measure=octets"
            )
        fields[name] = value
    return Match(**fields)


LOAD_COLUMNS = (
    "alarm_id", "changed_ns", "raised_ns", "state", "severity", "kind", "entity", "suppressed",
    "operator_state", "incident_id",
)  # fmt: skip
# How alarms that were up at a time stood then, and every change since; one that is up changed within 90 days.
LOAD_SQL = f"""
    select {", ".join(LOAD_COLUMNS)} from alarms final where changed_ns >= {{since:Int64}}
    union all
    select alarm_id, max(changed_ns), {", ".join(f"argMax({one}, changed_ns)" for one in LOAD_COLUMNS[2:])}
    from alarms
    where changed_ns >= {{since:Int64}} - {90 * 86_400_000_000_000} and changed_ns < {{since:Int64}}
    group by alarm_id having argMax(state, changed_ns) in ('raised', 'updated')
"""


class HistoryReader:
    """Queries on one read-only connection."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def series(
        self,
        match: str,
        *,
        since_ns: int,
        until_ns: int,
        step_seconds: int = 0,
        aggregates: Sequence[str] = ("avg",),
        limit: int = 10_000,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return (step in s, rows of time_s, view, entity, measure, key, series_id, aggregates).

        With step 0 the step is chosen so that a series has at most a few hundred points; the
        largest rollup that divides the step is read, ticks where none does.
        """
        wanted = parse_match(match)
        unknown = [name for name in aggregates if name not in AGGREGATES]
        if unknown:
            raise ConfigError(f"unknown aggregate {unknown[0]!r}; known: {', '.join(AGGREGATES)}")
        if not aggregates or len(set(aggregates)) < len(aggregates):
            raise ConfigError(
                f"aggregates {', '.join(aggregates)!r}: name at least one of "
                f"{', '.join(AGGREGATES)}, and each once"
            )
        span = max((until_ns - since_ns) // 10**9, 1)
        step = step_seconds or max(1, span // 300)
        if span // step > POINTS_MAX:
            raise ConfigError(f"step {step} s gives {span // step} points, at most {POINTS_MAX}")
        period = max(
            (p for p in PERIODS if step % p == 0 or (step_seconds == 0 and p <= step)), default=0
        )
        if period == PERIODS[0] and not self._has_minutes(wanted.view, since_ns, until_ns):
            period = 0
        if period and not step_seconds:
            step = step // period * period
        raw = 0 if period else 1
        made = "".join(
            f", {AGGREGATES[name][1 - raw]} as a{i}" for i, name in enumerate(aggregates)
        )
        chosen = "".join(f", a{i} as {name}" for i, name in enumerate(aggregates))
        if period:
            source, time = "rollups as t final", "bucket"
            where = (
                "period = {period:UInt32} and bucket >= {since:Int64} and bucket < {until:Int64}"
            )
        else:
            source, time = "frames as t", "intDiv(tick_end_ns - 1, 1000000000)"
            where = "tick_end_ns > {since:Int64} * 1000000000 and tick_end_ns <= {until:Int64} * 1000000000"
        values: dict[str, Any] = {
            "since": since_ns // 10**9, "until": -(-until_ns // 10**9), "period": period,
            "step": step, "limit": limit, "view": wanted.view, "measure": wanted.measure,
            "entity": like(wanted.entity),
        }  # fmt: skip
        conditions = [where]
        if wanted.view:
            conditions.append("view = {view:String}")
        if wanted.measure:
            conditions.append("measure = {measure:String}")
        if wanted.entity:
            conditions.append(
                "series_id in (select series_id from series where entity like {entity:String})"
            )
        return step, self._db.rows(
            f"select time_s, view, measure, series_id{chosen}, entity, key"
            f" from (select intDiv({time}, {{step:UInt32}}) * {{step:UInt32}} as time_s,"
            f" view, measure, series_id{made} from {source} where {' and '.join(conditions)}"
            " group by time_s, view, measure, series_id) as p"
            " left join (select series_id, any(entity) as entity, any(key) as key from series"
            " group by series_id) as s using series_id"
            " order by time_s, view, measure, series_id limit {limit:UInt32}",
            values,
        )

    def line(
        self, series: Sequence[int], entity: str, *, measure: str, since_ns: int, until_ns: int
    ) -> Line | None:
        """Return the course of the first of some series, else of a series of an entity, with its band.

        The measure asked for counts, else one that has a band; at most LINE_POINTS points, each the
        mean of its ticks. None where ticks of none of them are stored.
        """
        chosen = (
            "has({series:Array(UInt64)}, k.series_id)" if series else "k.entity = {entity:String}"
        )
        named = self._db.rows(
            "select view, series_id, any(k.entity) as told, any(k.unit) as counted_in"
            f" from series as k where {chosen} group by view, series_id"
            f" order by view, series_id limit {LINES_TRIED}",
            {"series": list(series), "entity": entity},
        )
        for one in named:
            ask = {
                "view": one["view"],
                "id": one["series_id"],
                "since": since_ns,
                "until": until_ns,
            }
            if made := self._line(one, ask, measure):
                return made
        return None

    def _line(self, name: dict[str, Any], ask: dict[str, Any], measure: str) -> Line | None:
        where = (
            " from frames where view = {view:String} and series_id = {id:UInt64}"
            " and tick_end_ns > {since:Int64} and tick_end_ns <= {until:Int64}"
        )
        found = self._db.rows(
            "select measure, measure = {measure:String} as asked, countIf(upper > lower) as banded,"
            f" min(tick_end_ns) as first, max(tick_end_ns) as last{where} group by measure"
            " order by asked desc, banded desc, measure limit 1",
            ask | {"measure": measure},
        )
        if not found:
            return None
        one = found[0]
        step = max((int(one["last"]) - int(one["first"])) // LINE_POINTS, 1)
        rows = self._db.rows(
            "select intDiv(tick_end_ns, {step:Int64}) as step, max(tick_end_ns) as at, avg(value) as mean,"
            " avgIf(lower, upper > lower) as low, avgIf(upper, upper > lower) as high"
            f"{where} and measure = {{measure:String}} group by step order by step",
            ask | {"measure": one["measure"], "step": step},
        )
        return Line(
            str(name["told"]), str(name["view"]), str(one["measure"]), str(name["counted_in"]),
            [int(row["at"]) for row in rows],
            *([_number(row[name]) for row in rows] for name in ("mean", "low", "high")),
        )  # fmt: skip

    def vectors(
        self, match: str, *, at_ns: int, window_seconds: int, step_seconds: int
    ) -> dict[str, Vectors]:
        """Return a matrix for each entity as of a time, by entity.

        The last step ends at `at_ns` or, where that is inside a step, at the step's start: nothing
        that closed after `at_ns` is in it. Raises ConfigError where the window is shorter than a
        step, TransientError where more than VECTOR_CELLS_MAX points would be read.
        """
        steps = window_seconds // step_seconds if step_seconds > 0 else 0
        if steps < 1:
            raise ConfigError(
                f"window of {window_seconds} s holds no step of {step_seconds} s; make it longer"
            )
        until_s = at_ns // SECOND_NS // step_seconds * step_seconds
        since_s = until_s - steps * step_seconds
        _, found = self.series(
            match,
            since_ns=since_s * SECOND_NS,
            until_ns=until_s * SECOND_NS,
            step_seconds=step_seconds,
            limit=VECTOR_CELLS_MAX,
        )
        if len(found) >= VECTOR_CELLS_MAX:
            raise TransientError(f"{match!r} holds over {VECTOR_CELLS_MAX} points; ask for fewer")
        by_entity: dict[str, list[dict[str, Any]]] = {}
        for row in found:
            by_entity.setdefault(row["entity"], []).append(row)
        times = np.arange(since_s, until_s, step_seconds, dtype=np.int64)
        made = {}
        for entity, rows in sorted(by_entity.items()):
            columns = sorted({_column(row) for row in rows})
            place = {column: i for i, column in enumerate(columns)}
            values = np.full((steps, len(columns)), np.nan)
            for row in rows:
                values[(row["time_s"] - since_s) // step_seconds, place[_column(row)]] = row["avg"]
            made[entity] = Vectors(times, tuple(columns), values)
        return made

    def frames(self, view: str, *, start_ns: int, end_ns: int) -> Iterator[Batch]:
        """Yield the closed ticks of a view with start_ns <= tick_start_ns < end_ns, in order of time.

        Measures are float64 totals of the tick again (NaN where a series has none), rows in order of
        series id; `row` and `moved_share` are not stored and are 0. One tick is in memory at a time.
        Raises TransientError where the connection's limit of rows would cut a tick.
        """
        ticks = self._db.rows(TICKS_OF_VIEW, {"view": view, "start": start_ns, "end": end_ns})
        for tick in ticks:
            start = int(tick["tick_end_ns"]) - round(float(tick["seconds"]) * 1e9)
            if start_ns <= start < end_ns:
                yield self._frame(view, start, int(tick["tick_end_ns"]), int(tick["rows"]))

    def _frame(self, view: str, start_ns: int, end_ns: int, rows: int) -> Batch:
        values: dict[str, Any] = {"view": view, "tick": end_ns}
        measures = [row["measure"] for row in self._db.rows(MEASURES_OF_TICK, values)]
        values |= {f"m{i}": name for i, name in enumerate(measures)}
        chosen = "".join(
            f", if(countIf(measure = {{m{i}:String}}) = 0, nan, anyIf(value, measure = {{m{i}:String}}))"
            for i in range(len(measures))
        )
        data = self._db.text(
            "select series_id, any(tick_seconds), max(flags), max(lost_share)"
            f"{chosen} from frames"
            " where view = {view:String} and tick_end_ns = {tick:Int64}"
            " group by series_id order by series_id",
            "RowBinary",
            values,
        )
        stored = [("series_id", "<u8"), ("tick_seconds", "<f4"), ("flags", "u1"),
                  ("lost_share", "<f4"), *((f"m{i}", "<f8") for i in range(len(measures)))]  # fmt: skip
        table = np.frombuffer(data, np.dtype(stored))
        if len(table) != rows:
            raise TransientError(
                f"tick {end_ns} of view {view} has {rows} rows, {len(table)} were answered;"
                " raise history.query_rows_max"
            )
        seconds = table["tick_seconds"].astype(np.float64)
        columns: dict[str, NDArray[Any]] = {
            "tick_start_ns": np.full(rows, start_ns, np.int64),
            "view": np.zeros(rows, np.uint32),
            "row": np.zeros(rows, np.uint32),
            "moved_share": np.zeros(rows, np.float32),
        }
        for name in ("tick_seconds", "series_id", "flags", "lost_share"):
            columns[name] = np.ascontiguousarray(table[name])
        for i, name in enumerate(measures):
            rate = np.ascontiguousarray(table[f"m{i}"])
            columns[name] = rate if name.startswith(ABSOLUTE) else rate * seconds
        schema = FRAME.wider(*(plain(name, "f8") for name in measures))
        return Batch(schema, columns, {}, {"view": (view,)})

    def _has_minutes(self, view: str, since_ns: int, until_ns: int) -> bool:
        """Return whether every view asked for has 1-minute rollups: none of ticks of a minute or more."""
        within = "{since:Int64} and {last} {until:Int64}" + (
            " and view = {view:String}" if view else ""
        )
        ticks = within.replace("{last}", "intDiv(tick_end_ns - 1, 1000000000) <")
        rolled = within.replace("{last}", "bucket <")
        (found,) = self._db.rows(
            f"select (select count() from rollups where period = {PERIODS[0]}"
            f" and bucket >= {rolled}) as minutes,"
            " (select count() from (select distinct view from frames"
            f" where tick_seconds >= {PERIODS[0]} and intDiv(tick_end_ns - 1, 1000000000) >= {ticks}))"
            " as others",
            {"since": since_ns // 10**9, "until": -(-until_ns // 10**9), "view": view},
        )
        return int(found["minutes"]) > 0 and int(found["others"]) == 0

    def sql(self, text: str, *, form: str = "JSONCompact") -> tuple[str, bytes]:
        """Run a read-only query of a person; return its format and its rows in it.

        A FORMAT clause in the text wins over `form`. Raises DecodeError where it may not run.
        """
        statement = read_only(text)
        form = statement.form or check_format(form)
        return form, self._db.text(statement.sql, form)

    def digest(self, *, since_ns: int = 0, limit: int = 500) -> list[dict[str, Any]]:
        """Return the digest since a time, newest hour first."""
        return self._db.rows(
            "select * from digest where hour >= toDateTime({since:Int64}, 'UTC')"
            " order by hour desc, findings desc limit {limit:UInt32}",
            # A DateTime ends in 2106, and what is later begins again in 1970.
            {"since": min(since_ns // 10**9, (1 << 32) - 1) // 3600 * 3600, "limit": limit},
        )

    def alarms(self, *, since_ns: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Return alarm changes since a time, newest first."""
        return self._db.rows(
            "select * from alarms final where changed_ns >= {since:Int64}"
            " order by changed_ns desc limit {limit:UInt32}",
            {"since": since_ns, "limit": limit},
        )

    def alarm_load(self, *, since_ns: int, limit: int = 500_000) -> list[dict[str, Any]]:
        """Return what alarm-load figures need of alarms since a time, oldest first."""
        return self._db.rows(
            f"select * from ({LOAD_SQL}) order by changed_ns limit {{limit:UInt32}}",
            {"since": since_ns, "limit": limit},
        )

    def alarm_changes(self, alarm_id: int, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the changes of one alarm, newest first."""
        return self._db.rows(
            "select * from alarms final where alarm_id = {id:UInt64}"
            " order by changed_ns desc limit {limit:UInt32}",
            {"id": alarm_id, "limit": limit},
        )

    def incident(self, number: int) -> dict[str, Any] | None:
        """Return an incident as it stands, None where the history has none of this number."""
        found = self._db.rows(
            "select * from incidents where incident_id = {id:UInt64}"
            " order by changed_ns desc limit 1",
            {"id": number},
        )
        return found[0] if found else None

    def incidents(self, *, since_ns: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Return incidents that changed since a time, each as it stands, newest first."""
        return self._db.rows(
            "select * from incidents where changed_ns >= {since:Int64}"
            " order by changed_ns desc limit 1 by incident_id limit {limit:UInt32}",
            {"since": since_ns, "limit": limit},
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _column(row: dict[str, Any]) -> tuple[str, str, int]:
    return str(row["view"]), str(row["measure"]), int(row["series_id"])


def like(pattern: str) -> str:
    """Return a LIKE pattern for a shell pattern with `*`."""
    safe = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return safe.replace("*", "%")
