"""Reading the history: series with the right rollup, and limited SQL for people and dashboards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from history.read_only import check_format, read_only
from history.store import DATABASE, Connection
from history.writer import PERIODS
from telemetry.errors import ConfigError

# aggregate: (over ticks, over rollups). Columns carry their table's name, because an alias such as
# `min` would else be taken for the column. p95 over several buckets is the highest of theirs: exact
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


@dataclass(frozen=True, slots=True)
class Match:
    """Which series: `view=interface,entity=ams1*,measure=octets`."""

    view: str = ""
    entity: str = ""
    measure: str = ""


def parse_match(text: str) -> Match:
    """Return the match a text stands for, or raise ConfigError with the form."""
    fields: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = part.partition("=")
        if name not in ("view", "entity", "measure") or not value:
            raise ConfigError(
                f"series {text!r}: {part!r} is not view=, entity= or measure=; "
                f"for example view=interface,entity=ams1*,measure=octets"
            )
        fields[name] = value
    return Match(**fields)


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
        span = max((until_ns - since_ns) // 10**9, 1)
        step = step_seconds or max(1, span // 300)
        if span // step > POINTS_MAX:
            raise ConfigError(f"step {step} s gives {span // step} points, at most {POINTS_MAX}")
        period = max(
            (p for p in PERIODS if step % p == 0 or (step_seconds == 0 and p <= step)), default=0
        )
        if period == PERIODS[0] and not self._has_minutes(since_ns, until_ns):
            period = 0
        if period and not step_seconds:
            step = step // period * period
        raw = 0 if period else 1
        chosen = ", ".join(f"{AGGREGATES[name][1 - raw]} as {name}" for name in aggregates)
        if period:
            source, time = f"{DATABASE}.rollups as t final", "bucket"
            where = (
                "period = {period:UInt32} and bucket >= {since:Int64} and bucket < {until:Int64}"
            )
        else:
            source, time = f"{DATABASE}.frames as t", "intDiv(tick_end_ns - 1, 1000000000)"
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
                f"series_id in (select series_id from {DATABASE}.series where entity like {{entity:String}})"
            )
        return step, self._db.rows(
            f"select * from (select intDiv({time}, {{step:UInt32}}) * {{step:UInt32}} as time_s,"
            f" view, measure, series_id, {chosen} from {source} where {' and '.join(conditions)}"
            " group by time_s, view, measure, series_id) as p"
            f" left join (select series_id, any(entity) as entity, any(key) as key from {DATABASE}.series"
            " group by series_id) as s using series_id"
            " order by time_s, view, measure, series_id limit {limit:UInt32}",
            values,
        )

    def _has_minutes(self, since_ns: int, until_ns: int) -> bool:
        """Return whether there are 1-minute rollups: not where ticks are a minute long themselves."""
        return bool(
            self._db.rows(
                f"select 1 from {DATABASE}.rollups where period = {PERIODS[0]}"
                " and bucket >= {since:Int64} and bucket < {until:Int64} limit 1",
                {"since": since_ns // 10**9, "until": -(-until_ns // 10**9)},
            )
        )

    def sql(self, text: str, *, form: str = "JSONCompact") -> tuple[str, bytes]:
        """Run a read-only query of a person; return its format and its rows in it.

        A FORMAT clause in the text wins over `form`. Raises DecodeError where it may not run.
        """
        statement = read_only(text)
        form = statement.form or check_format(form)
        self._db.run(f"use {DATABASE}")
        return form, self._db.text(statement.sql, form)

    def digest(self, *, since_ns: int = 0, limit: int = 500) -> list[dict[str, Any]]:
        """Return the digest since a time, newest hour first."""
        return self._db.rows(
            f"select * from {DATABASE}.digest where hour >= toDateTime({{since:Int64}}, 'UTC')"
            " order by hour desc, findings desc limit {limit:UInt32}",
            {"since": since_ns // 10**9 // 3600 * 3600, "limit": limit},
        )

    def alarms(self, *, since_ns: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Return alarm changes since a time, newest first."""
        return self._db.rows(
            f"select * from {DATABASE}.alarms final where changed_ns >= {{since:Int64}}"
            " order by changed_ns desc limit {limit:UInt32}",
            {"since": since_ns, "limit": limit},
        )

    def alarm_changes(self, alarm_id: int, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the changes of one alarm, newest first."""
        return self._db.rows(
            f"select * from {DATABASE}.alarms final where alarm_id = {{id:UInt64}}"
            " order by changed_ns desc limit {limit:UInt32}",
            {"id": alarm_id, "limit": limit},
        )

    def incidents(self, *, since_ns: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Return incidents that changed since a time, each as it stands, newest first."""
        return self._db.rows(
            f"select * from {DATABASE}.incidents where changed_ns >= {{since:Int64}}"
            " order by changed_ns desc limit 1 by incident_id limit {limit:UInt32}",
            {"since": since_ns, "limit": limit},
        )


def like(pattern: str) -> str:
    """Return a LIKE pattern for a shell pattern with `*`."""
    safe = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return safe.replace("*", "%")
