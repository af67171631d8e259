"""What we say to ClickHouse servers: the DDL and statements in the form that a server's version knows.

There is one DDL (`history/ddl`) and one set of queries. From 22.8 on a server gets them as they are, on
a cluster with replicated engines. An older one gets the plain form, derived here: no statement is
written twice. Tables made in the plain form keep it when their server is upgraded.
"""

import re
from collections.abc import Mapping
from typing import Any

from telemetry.errors import TransientError

OLDEST = (18, 16)  # runs all tests in the plain form
# What the whole form needs of a server: since when there is such a thing, and what holds without it.
NEEDS = (
    ((19, 1), "codecs of columns", "tables take two to three times the room"),
    ((19, 1), "LowCardinality", "names are stored as texts, and queries by view read more"),
    ((19, 3), "IPv6 columns", "addresses are 16 bytes: IPv6NumToString(exporter) shows them"),
    ((19, 11), "mutations_sync", "the writer waits for deletes by looking"),
    ((20, 1), "DateTime64", "the column `time` has whole seconds"),
    (
        (20, 10),
        "fsync after each insert",
        "a power cut on the server can lose what it had just taken",
    ),
    (
        (22, 2),
        "insert_deduplication_token",
        "rows carry the token, which is looked for when in doubt",
    ),
    (
        (22, 8),
        "bound parameters in the native protocol",
        "values are written into statements, quoted",
    ),
)
WHOLE = max(version for version, _, _ in NEEDS)

MARK = "insert_mark"  # of the plain form: a column with the hash of the insert's token
_CODEC = re.compile(r"\s*codec\((?:[^()]|\([^()]*\))*\)")
_SETTINGS = re.compile(r"\s+settings [^']*$")
_PARAMETER = re.compile(r"\{(\w+):([A-Za-z0-9_]+(?:\([A-Za-z0-9_, ']*\))?)\}")
_ADDED = re.compile(r"alter table (\w+) add column if not exists (\w+) ")
_ENGINE = re.compile(r"engine = (\w*MergeTree)(?:\((\w+)\))?")
_NAME = re.compile(r"\b(table|view) (if (?:not )?exists )?(\w+)")
_FROM = re.compile(r"\bfrom (\w+)\b(?!\()")
_INTEGER = re.compile(r"(U?)Int(8|16|32|64)")
_PLAINER = (
    ("LowCardinality(String)", "String"),
    ("toIPv6('::')", "toFixedString('', 16)"),
    ("IPv6", "FixedString(16)"),
    ("DateTime64(3, 'UTC') alias fromUnixTimestamp64Milli(intDiv(", "DateTime alias toDateTime(intDiv("),
    (", 1000000), 'UTC')", ", 1000000000))"),
    ("\n) engine", f",\n    {MARK} UInt64 default 0\n) engine"),
)  # fmt: skip


def plain_ddl(statement: str) -> list[str]:
    """Return a statement of the DDL in the plain form: none, one, or two.

    A column that may be there already is for the caller to look at: `added_column`.
    """
    if " modify setting " in statement:
        return []
    made = _CODEC.sub("", statement)
    for newer, older in _PLAINER:
        made = made.replace(newer, older)
    if made.startswith("create or replace view "):
        name = made.split()[4]
        return [f"drop table if exists {name}", made.replace(" or replace", "", 1)]
    return [_SETTINGS.sub("", made).replace("add column if not exists", "add column")]


def added_column(statement: str) -> tuple[str, str] | None:
    """Return (table, column) of a statement of the DDL that adds one."""
    found = _ADDED.match(statement)
    return (found[1], found[2]) if found else None


def plain_statement(sql: str, values: Mapping[str, Any]) -> str:
    """Return a statement in the plain form: values written in, deletes without their settings."""
    if sql.startswith("alter table "):
        sql = _SETTINGS.sub("", sql)
    try:
        return _PARAMETER.sub(lambda found: _literal(found[2], values[found[1]]), sql)
    except KeyError as error:
        raise TransientError(f"parameter {error} is not given a value") from error


def _literal(kind: str, value: Any) -> str:
    """Return a value as a literal of a type. Raises TransientError for what is none."""
    try:
        if number := _INTEGER.fullmatch(kind):
            # Small ones stay bare: `limit` takes no function.
            return f"to{kind}({int(value)})" if number[2] == "64" else str(int(value))
        if kind.startswith("Float"):
            return repr(float(value))
        if kind == "String":
            return _quoted(str(value))
        if isinstance(value, list | tuple):
            inner = kind.removeprefix("Array(").removesuffix(")")
            return f"[{', '.join(_literal(inner, one) for one in value)}]"
        return f"cast({_quoted(str(value))} as {kind})"
    except ValueError as error:
        raise TransientError(f"{str(value)[:40]!r} is no {kind}") from error


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def replicated_ddl(statement: str, *, cluster: str, database: str) -> str:
    """Return a statement of the DDL for every machine of a cluster, tables with replicated engines.

    The servers' macros {shard} and {replica} place each table, as ClickHouse's own documentation has it.
    """
    on = f"on cluster '{cluster}'"
    found = _NAME.search(statement)
    assert found is not None
    name = found[3]
    # Other machines of the cluster do not know which database is ours.
    rest = _FROM.sub(rf"from {database}.\1", statement[found.end() :])
    made = f"{statement[: found.end()]} {on}{rest}"
    path = f"'/clickhouse/tables/{{shard}}/{database}/{name}', '{{replica}}'"
    return _ENGINE.sub(
        lambda found: f"engine = Replicated{found[1]}({path}{f', {found[2]}' if found[2] else ''})",
        made,
    )
