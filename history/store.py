"""What the history needs of a database: statements, rows in, rows out. ClickHouse dialect only."""

import re
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

    def insert_rows_of(
        self, table: str, query: str, values: Mapping[str, Any], *, token: str
    ) -> None:
        """Insert what a query returns; the same token twice inserts once."""
        ...

    def define(self, statement: str) -> None:
        """Run a statement of the DDL, in the form that this database knows."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Store(Protocol):
    """Opens connections, each on our database, which is made where it is not there yet."""

    @property
    def database(self) -> str:
        """Its name."""
        ...

    def connect(
        self, *, read_only: bool = False, seconds_max: int = 0, rows_max: int = 0
    ) -> Connection:
        """Return a connection; a read-only one has limits and can reach no file."""
        ...

    def look(self) -> str:
        """Say what answers, in a few words; raise the TocsinError that keeps it from it."""
        ...


def migrate(connection: Connection) -> int:
    """Bring the tables up to date, forward only; return the version reached."""
    connection.define(
        "create table if not exists migrations (version UInt32, name String)"
        " engine = MergeTree order by version settings fsync_after_insert = 1"
    )
    done = {int(row["version"]) for row in connection.rows("select version from migrations")}
    version = max(done, default=0)
    for path in sorted(DDL.glob("[0-9]*.sql")):
        number = int(path.name.split("_")[0])
        if number in done:
            continue
        for statement in statements(path.read_text("utf-8")):
            connection.define(statement)
        connection.run(
            "insert into migrations select {version:UInt32}, {name:String}",
            {"version": number, "name": path.name},
        )
        version = number
    return version


def statements(text: str) -> list[str]:
    """Return the statements of a DDL file, safe to repeat."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("--")]
    made = []
    for part in "\n".join(lines).split(";"):
        statement = part.strip()
        for kind in ("table", "view"):
            statement = statement.replace(f"create {kind} ", f"create {kind} if not exists ", 1)
        if statement:
            made.append(statement)
    return made


ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\0": "\\0"})


def parameter(value: Any) -> Any:
    """Return a value as the engine reads a parameter outside a statement: texts are escaped."""
    return value.translate(ESCAPES) if isinstance(value, str) else value


def said_by(error: Exception) -> str:
    """Return the engine's sentence without its code, version and stack."""
    text = re.split(r"\(version|,? ?Stack trace:", str(error))[0].strip()
    return text.removeprefix("Code: ").split("DB::Exception: ", 1)[-1].strip(" .,")
