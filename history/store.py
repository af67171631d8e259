"""What the history needs of a database: statements, rows in, rows out. ClickHouse dialect only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

DDL = Path(__file__).parent / "ddl"
DATABASE = "tocsin"


class Connection(Protocol):
    """One connection of one role. Raises TransientError with the engine's sentence."""

    def run(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Run a statement."""
        ...

    def rows(self, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query; 64-bit integers as Python integers."""
        ...

    def text(self, sql: str, form: str, values: Mapping[str, Any] | None = None) -> bytes:
        """Return a query's result in one of the engine's formats."""
        ...

    def insert(
        self,
        table: str,
        columns: Mapping[str, Any],
        *,
        token: str,
        words: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Insert columns as one block; the same token twice inserts once."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def migrate(connection: Connection) -> int:
    """Bring the tables up to date, forward only; return the version reached."""
    connection.run(f"create database if not exists {DATABASE}")
    connection.run(
        f"create table if not exists {DATABASE}.migrations (version UInt32, name String)"
        " engine = MergeTree order by version settings fsync_after_insert = 1"
    )
    done = {
        int(row["version"]) for row in connection.rows(f"select version from {DATABASE}.migrations")
    }
    version = max(done, default=0)
    for path in sorted(DDL.glob("[0-9]*.sql")):
        number = int(path.name.split("_")[0])
        if number in done:
            continue
        for statement in statements(path.read_text("utf-8")):
            connection.run(statement)
        connection.run(
            f"insert into {DATABASE}.migrations select {{version:UInt32}}, {{name:String}}",
            {"version": number, "name": path.name},
        )
        version = number
    return version


def statements(text: str) -> list[str]:
    """Return the statements of a DDL file, tables named within our database, safe to repeat."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("--")]
    made = []
    for part in "\n".join(lines).split(";"):
        statement = part.strip()
        for kind in ("table", "view"):
            statement = statement.replace(
                f"create {kind} ", f"create {kind} if not exists {DATABASE}.", 1
            )
        statement = statement.replace("from anomalies ", f"from {DATABASE}.anomalies ")
        if statement:
            made.append(statement)
    return made
